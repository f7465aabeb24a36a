"""The same numbers as evoxels (arXiv:2507.21748) for every model and stepper that both have.

The references are that program's, in float64, kept in tests/data and made by benchmarks/peer_models.py. Here every
model and every stepper has its turn; benchmarks/compare_models.py compares all pairs, which takes minutes to compile.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import voxdask as vd
from voxdask import models
from voxdask.steppers import RKC1, RKC2

DATA = Path(__file__).parent / "data" / "models_evoxels.npz"
DIMS = ("x", "y", "z")
CLOSED_X = {"x": "neumann"}

#: The same parameters in our words: model, start, boundary.
CASES: dict[str, tuple[vd.Model, str, Any]] = {
    "cahn-hilliard": (models.CahnHilliard(3.0, 1.0), "mixture", "periodic"),
    "cahn-hilliard-closed": (models.CahnHilliard(3.0, 0.7), "mixture", CLOSED_X),
    "allen-cahn": (models.AllenCahn(2.0, 1.0, 0.8, curvature=0.5), "particle", CLOSED_X),
    "allen-cahn-full": (models.AllenCahn(2.0, 0.9, 1.0, curvature=1.0, form="full"), "particle", "periodic"),
    "multi-phase-fast": (models.MultiPhaseAllenCahn(3.0, projection="fast"), "phases", "periodic"),
    "multi-phase-exact": (
        models.MultiPhaseAllenCahn(3.0, 1.1, 0.9, bulk_energies=(0.0, 0.1, 0.3, -0.1), projection="exact"),
        "phases",
        "periodic",
    ),
    "reaction-diffusion": (models.ReactionDiffusion(0.6, lambda t, c, x: c * (1 - c)), "mixture", CLOSED_X),
    "gray-scott": (models.GrayScott(), "species", "periodic"),
    "gray-scott-equal": (models.GrayScott(0.5, 0.5, 0.06, 0.11), "species", "periodic"),
    "smoothed-boundary": (
        models.SmoothedBoundaryDiffusion(0.8, lambda t, c, x: 0.1 * c * (1 - c), flux=0.05),
        "mixture",
        "periodic",
    ),
}

with np.load(DATA) as _archive:
    PEER = {name: _archive[name] for name in _archive}
RUNS = sorted(key for key in PEER if key.count("/") == 1 and not key.startswith("start/"))
#: What is compared in the tests.
SHOWN = {
    "cahn-hilliard": ("imex", "rkc2"),
    "cahn-hilliard-closed": ("etd1",),
    "allen-cahn": ("imex", "rk4"),
    "allen-cahn-full": ("imex",),
    "multi-phase-fast": ("imex", "euler"),
    "multi-phase-exact": ("imex",),
    "reaction-diffusion": ("imex", "rkc1"),
    "gray-scott": ("rk4",),
    "gray-scott-equal": ("imex",),
    "smoothed-boundary": ("imex", "euler"),
}
#: Stages and damping as the peer has them by default.
STEPPERS = {"rkc1": RKC1(4, 0.05), "rkc2": RKC2(4, 2 / 13)}


def start_of(case: str, dtype: Any) -> Any:
    """The dataset that a run begins with."""
    values = PEER[f"start/{CASES[case][1]}"].astype(dtype)
    grid: dict[str, Any] = {"dims": DIMS, "spacing": PEER["spacing"].tolist()}
    if CASES[case][1] == "phases":
        return vd.dataset({"phi": values}, dims=("phase", *DIMS), spacing=grid["spacing"])
    fields = {name: values[k] for k, name in enumerate(CASES[case][0].fields)}
    if case == "smoothed-boundary":
        fields["psi"] = PEER["start/indicator"].astype(dtype)
    return vd.dataset(fields, **grid)


def comparable(case: str, end: Any) -> np.ndarray:
    """Our state in the peer's order; it keeps psi c where we keep c."""
    arrays = [np.asarray(end[name], float) for name in CASES[case][0].fields]
    if case == "smoothed-boundary":
        arrays[0] = arrays[0] * np.clip(PEER["start/indicator"], 1e-4, 1)
    return arrays[0] if CASES[case][1] == "phases" else np.stack(arrays)


def difference(run: str, dtype: Any) -> tuple[float, float]:
    """Largest difference after 50 steps, and how far the peer has moved, relative to the largest value."""
    case, stepper = run.split("/")
    model, _, boundary = CASES[case]
    ds = start_of(case, dtype)
    result = vd.simulate(
        model,
        ds,
        dt=float(PEER[f"{run}/dt"]),
        steps=int(PEER["steps"]),
        stepper=STEPPERS.get(stepper, stepper),
        boundary=boundary,
        progress=False,
    )
    ours, theirs = comparable(case, result.isel(time=-1)), PEER[run]
    scale = float(np.abs(theirs).max())
    return float(np.abs(ours - theirs).max()) / scale, float(np.abs(theirs - comparable(case, ds)).max()) / scale


def test_every_case_is_compared() -> None:
    assert {run.split("/")[0] for run in RUNS} == set(CASES) == set(SHOWN)
    assert {name for names in SHOWN.values() for name in names} == {run.split("/")[1] for run in RUNS}
    assert len(RUNS) >= 36


@pytest.mark.study
@pytest.mark.parametrize("run", [f"{case}/{stepper}" for case, names in SHOWN.items() for stepper in names])
def test_fifty_steps(run: str) -> None:
    off, moved = difference(run, np.float32)
    assert off < 1e-4
    assert moved > 0.05, "the start is no answer"
    if run.endswith("imex"):
        # the references are stored in float32; the peer has no normal where |grad phi|^2 <= 1e-7, ours begins at 1e-12
        assert difference(run, np.float64)[0] < (1e-4 if run == "allen-cahn/imex" else 1e-6)
