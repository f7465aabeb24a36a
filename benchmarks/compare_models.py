"""Compare voxdask with references of evoxels after 50 steps: every model and stepper that both have.

The references are in tests/data/models_evoxels.npz. benchmarks/peer_models.py makes them, and needs evoxels; this
script does not. It prints a table and puts it into a page, and prints JSON on the last line.

    python benchmarks/compare_models.py docs/verification.md

takes some minutes the first time, nearly all of them to compile.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from pages import replace_tables

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from test_peer_models import RUNS, difference


def main() -> int:
    page, rows = Path(sys.argv[1]), []
    lines = ["| model | stepper | float32 | float64 | the peer moved by |", "|---|---|---|---|---|"]
    print("\n".join(lines))
    for run in RUNS:
        case, stepper = run.split("/")
        single, moved = difference(run, np.float32)
        double = difference(run, np.float64)[0]
        rows.append({"model": case, "stepper": stepper, "float32": single, "float64": double, "moved": moved})
        lines.append(f"| {case} | {stepper} | {single:.1e} | {double:.1e} | {moved:.2f} |")
        print(lines[-1], flush=True)
    replace_tables(page, {"peer": lines})
    print(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
