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
        "tier": plan.tier, "ahead": plan.ahead, "threads": plan.threads,
        "field": 4 * rows * size**2, "limit": plan.memory_limit, "projected": plan.memory_bytes,
        "peak": vd.Report.of(result.attrs).peak_memory, "base": base,
    }))
    """
)


@pytest.mark.parametrize(
    ("stepper", "rows", "size", "limit", "times"),
    [
        ("imex", 1536, 256, "48MB", 8),
        ("rk4", 3456, 128, "28MB", 8),
        ("tsit5", 3456, 128, "28MB", 8),
        ("imex", 1536, 256, "200MB", 2),
    ],
)
def test_spilled_run_stays_below_its_limit(tmp_path, stepper, rows, size, limit, times):
    """A field of many times the limit, in a process of its own; with memory enough, two slabs are worked on at once."""
    command = [sys.executable, "-c", SCRIPT, str(rows), str(size), limit, str(tmp_path), stepper]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(result.stdout.splitlines()[-1])
    assert found["tier"] == "spilled"
    assert found["field"] > times * found["limit"]
    assert found["peak"] <= found["projected"] <= found["limit"]
    assert (found["ahead"] > 0) == (limit == "200MB" and found["threads"] > 1)


SOLVE = textwrap.dedent(
    """
    import contextlib, json, sys
    import numpy as np
    import scipy.ndimage
    from distributed import Client
    import voxdask as vd

    size, limit, folder, workers = int(sys.argv[1]), *sys.argv[2:4], int(sys.argv[4])
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    noise = np.random.default_rng(0).standard_normal((size // 4,) * 3, dtype=np.float32)
    smooth = scipy.ndimage.zoom(scipy.ndimage.gaussian_filter(noise, 1.5, mode="wrap"), 4, order=1)
    np.save(f"{folder}/image.npy", (smooth > 0).astype(np.uint8))
    del noise, smooth
    image = vd.open_image(f"{folder}/image.npy", chunks=16).image
    with Client(n_workers=workers, **options) if workers else contextlib.nullcontext():
        vd.tortuosity(image.isel(z=slice(64)), direction="z", memory_limit="20MB", store=folder)
        found = vd.tortuosity(image, direction="z", memory_limit=limit, store=folder)
    print(json.dumps({"peak": found.peak_memory, "parts": len(found.field.chunks[0]), "tau": found.tau}))
    """
)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_spilled_solve_stays_below_its_limit(tmp_path, workers):
    """Fields and graphs of more than three times the limit, in a process of its own, or shared by several."""
    command = [sys.executable, "-c", SOLVE, "224", "80MB", str(tmp_path), str(workers)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    assert 1 < found["tau"] < 3 and found["parts"] == max(workers, 1)
    assert found["peak"] <= 80e6 / max(workers, 1)
