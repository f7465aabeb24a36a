"""A run that is killed at any instant opens, holds whole frames, and ends with the bits of one that was not."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings

import numpy as np
import pytest
import xarray as xr

import voxdask as vd

STEPS = 160
KILLS = 12


def start() -> xr.Dataset:
    c = 0.5 + 0.1 * np.random.default_rng(5).standard_normal((20, 18, 16)).astype(np.float32)
    return vd.dataset({"c": c.astype(np.float32)}, spacing=1.0, unit="um")


def options(tier: str) -> dict[str, object]:
    model, ds = vd.models.CahnHilliard(eps=3.0), start()
    if tier == "block":
        return {}
    if tier == "chunked":
        return {"chunks": 5}
    return {"memory_limit": vd.plan(model, ds, boundary=boundary(), measure=False).memory_bytes - 1}


def boundary() -> dict[str, object]:
    return {"x": "neumann", "y": vd.Dirichlet(0.4, 0.6)}


def run(path: str, tier: str) -> xr.Dataset:
    return vd.simulate(
        vd.models.CahnHilliard(eps=3.0), start(), dt=0.5, steps=STEPS, boundary=boundary(), save_every=2,
        store=path, progress=False, **options(tier),
    )  # fmt: skip


def child(path: str, tier: str, ready: object) -> None:
    vd.plan(vd.models.CahnHilliard(), start(), measure=False)
    ready.set()  # type: ignore[attr-defined]
    run(path, tier)


@pytest.mark.parametrize("tier", ["block", "chunked", "spilled"])
def test_killed_and_resumed_run_has_the_same_bits(tmp_path, tier):
    """SIGKILL many times at random instants; the store opens every time."""
    undisturbed = run(str(tmp_path / "undisturbed.zarr"), tier).load()
    assert undisturbed.vd.report.tier == tier
    path = str(tmp_path / "killed.zarr")
    context = multiprocessing.get_context("forkserver")
    rng, kills, seen = np.random.default_rng(len(tier)), 0, []
    while kills < KILLS:
        ready = context.Event()
        process = context.Process(target=child, args=(path, tier, ready))
        process.start()
        assert ready.wait(60)
        process.join(float(rng.uniform(0.02, 0.3)))
        if not process.is_alive():
            assert process.exitcode == 0, "the run ended by itself, but not well"
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        if os.path.exists(path):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                found = xr.open_zarr(path).load()
            seen.append(found.sizes["time"])
            np.testing.assert_array_equal(found.c.values, undisturbed.c.values[: found.sizes["time"]])
    assert kills >= 3, "the run was over before it could be killed"
    assert seen == sorted(seen), "a frame that was there has gone"
    finished = run(path, tier)
    np.testing.assert_array_equal(finished.c.values, undisturbed.c.values)
    np.testing.assert_array_equal(finished.time.values, undisturbed.time.values)
