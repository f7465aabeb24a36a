"""The same numbers as evoxels (arXiv:2507.21748) for Cahn-Hilliard, made by that program and kept in tests/data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import voxdask as vd

DATA = Path(__file__).parent / "data" / "cahn_hilliard_evoxels.npz"


@pytest.fixture(scope="module")
def peer() -> dict[str, np.ndarray]:
    with np.load(DATA) as archive:
        return {name: archive[name] for name in archive}


def start(peer: dict[str, np.ndarray], dtype: Any, spacing: str, dims: str) -> Any:
    """The start on our grid, in a storage order of our choice."""
    names = [str(dim) for dim in peer["dims"]]
    ds = vd.dataset({"c": peer["start"].astype(dtype)}, dims=names, spacing=peer[spacing].tolist())
    ordered = ds.transpose(*dims)
    return ordered.assign(c=ordered.c.copy(data=np.ascontiguousarray(ordered.c.values)))


def off_by(ours: Any, theirs: np.ndarray) -> float:
    """Largest difference over largest value; ours is put in the peer's order."""
    values = ours.transpose("x", "y", "z").values.astype(np.float64)
    return float(np.abs(values - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("dims", ["xyz", "zyx"])
@pytest.mark.parametrize(
    "key, dtype, boundary, spacing, tolerance",
    [
        ("final", np.float32, "periodic", "spacing", 1e-4),
        ("final64", np.float64, "periodic", "spacing", 1e-11),
        ("final_neumann_x", np.float32, {"x": "neumann"}, "spacing", 1e-4),
        ("final_aniso", np.float32, "periodic", "spacing_aniso", 1e-4),
    ],
    ids=["float32", "float64", "zero-flux-x", "oblong-voxels"],
)
def test_fifty_steps(
    peer: dict[str, np.ndarray], key: str, dtype: Any, boundary: Any, spacing: str, tolerance: float, dims: str
) -> None:
    model = vd.models.CahnHilliard(eps=float(peer["eps"]), diffusivity=float(peer["D"]))
    ds, steps = start(peer, dtype, spacing, dims), int(peer["steps"])
    run = vd.simulate(model, ds, dt=float(peer["dt"]), steps=steps, boundary=boundary, progress=False)
    assert run.c.dims == ("time", *dims)
    assert run.c.dtype == dtype
    end = run.c.isel(time=-1)
    assert off_by(end, peer[key]) < tolerance
    # the run goes somewhere: the start is no answer
    assert off_by(ds.c, peer[key]) > 0.1


@pytest.mark.parametrize("dims", ["xyz", "zyx"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
def test_right_hand_side(peer: dict[str, np.ndarray], dtype: Any, dims: str) -> None:
    model = vd.models.CahnHilliard(eps=float(peer["eps"]), diffusivity=float(peer["D"]))
    rates = model.right_hand_side(start(peer, dtype, "spacing", dims))
    assert off_by(rates.c, peer["rhs"]) < 1e-5  # theirs is in float32
