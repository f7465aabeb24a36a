"""Compare voxdask with references of evoxels after 50 steps: every model and stepper that both have.

The references are in tests/data/models_evoxels.npz. benchmarks/peer_models.py makes them, and needs evoxels; this
script does not. It prints a table, and JSON on the last line.

    python benchmarks/compare_models.py

takes some minutes the first time, nearly all of them to compile.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from test_peer_models import RUNS, difference


def main() -> int:
    rows = []
    print(f"{'model':22} {'stepper':8} {'float32':>10} {'float64':>10} {'moved':>8}")
    for run in RUNS:
        case, stepper = run.split("/")
        single, moved = difference(run, np.float32)
        double = difference(run, np.float64)[0]
        rows.append({"model": case, "stepper": stepper, "float32": single, "float64": double, "moved": moved})
        print(f"{case:22} {stepper:8} {single:10.1e} {double:10.1e} {moved:8.2f}", flush=True)
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
