"""What runs in bounded memory stays below its limit and below what the plan foresaw."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

SCRIPT = textwrap.dedent(
    """
    import json, sys
    import dask.array as da
    import numpy as np
    import psutil
    import voxdask as vd

    rows, size, limit, folder, stepper = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]

    def field(m, n):
        rows = da.arange(m, chunks=4, dtype=np.float32)[:, None, None]
        rest = da.zeros((m, n, n), chunks=(4, n, n), dtype=np.float32)
        return 0.5 + 0.1 * da.sin(rows) + rest

    def run(m, n, limit, name):
        ds = vd.dataset({"c": field(m, n)})
        model = vd.models.CahnHilliard(eps=3.0)
        plan = vd.plan(model, ds, memory_limit=limit, stepper=stepper, measure=False)
        result = vd.simulate(model, ds, dt=1e-3, t_end=1e-3, stepper=stepper, memory_limit=limit,
                             store=f"{folder}/{name}.zarr", progress=False)
        return plan, result

    # kernels are compiled or read from their cache, and thread stacks taken, before the base is
    assert run(512, 64, "28MB", "warm")[0].tier == "spilled"
    base = psutil.Process().memory_info().rss
    plan, result = run(rows, size, limit, "big")
    print(json.dumps({
        "tier": plan.tier, "field": 4 * rows * size**2, "limit": plan.memory_limit, "projected": plan.memory_bytes,
        "peak": vd.Report.of(result.attrs).peak_memory, "base": base,
    }))
    """
)


@pytest.mark.parametrize(
    ("stepper", "rows", "limit"), [("imex", 1536, "48MB"), ("rk4", 1536, "48MB"), ("tsit5", 1536, "48MB")]
)
def test_spilled_run_stays_below_its_limit(tmp_path, stepper, rows, limit):
    """A field of more than eight times the limit, in a process of its own."""
    command = [sys.executable, "-c", SCRIPT, str(rows), "256", limit, str(tmp_path), stepper]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["tier"] == "spilled"
    assert found["field"] > 8 * found["limit"]
    assert found["peak"] <= found["projected"] <= found["limit"]
