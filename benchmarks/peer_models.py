"""Run the peer, evoxels, on every model and stepper that both have: small reference fields for the tests.

Physics: Cahn-Hilliard, two-phase Allen-Cahn with curvature control, multi-phase Allen-Cahn, reaction-diffusion,
Gray-Scott and diffusion by the smoothed boundary method, 50 steps each from the same start on 14 x 12 x 8 voxels,
in float64 on evoxels' torch backend. Needs the extra `bench` (evoxels and torch); voxdask itself is not imported,
so any Python that has the extra will do. Axes are in evoxels' order, (x, y, z), throughout.

    python benchmarks/peer_models.py tests/data/models_evoxels.npz

takes some seconds; tests/data/models_evoxels.npz is its output, and tests/test_peer_models.py compares.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import evoxels
import numpy as np
import torch
from evoxels import pdes, timesteppers
from evoxels.pdes.reaction_diffusion import CoupledReactionDiffusion, ReactionDiffusionSBM
from evoxels.voxelgrid import VoxelGridTorch

SHAPE = (14, 12, 8)
SPACING = (1.0, 0.8, 1.25)
STEPS = 50
PERIODIC = ("periodic", "periodic", "periodic")
CLOSED_X = ("neumann", "periodic", "periodic")
STEPPERS = {
    "euler": timesteppers.ForwardEuler,
    "rk4": timesteppers.RungeKutta4,
    "imex": timesteppers.PseudoSpectralIMEX,
    "etd1": timesteppers.ExponentialEuler,
    "rkc1": timesteppers.RKC1,
    "rkc2": timesteppers.RKC2,
}
EXPLICIT = ("euler", "rk4", "rkc1", "rkc2")

Case = tuple[Callable[[Any], Any], np.ndarray, float, tuple[str, ...]]


def starts() -> dict[str, np.ndarray]:
    """Where runs begin: noise, a smooth blob, labelled phases, two species, an indicator."""
    rng = np.random.default_rng(0)
    x, y, z = np.meshgrid(*((np.arange(n) + 0.5) * h for n, h in zip(SHAPE, SPACING, strict=True)), indexing="ij")
    centre = [n * h / 2 for n, h in zip(SHAPE, SPACING, strict=True)]
    radius = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
    phases = rng.dirichlet(np.ones(4), SHAPE).transpose(3, 0, 1, 2) ** 2
    return {
        "mixture": 0.5 + 0.1 * rng.standard_normal((1, *SHAPE)),
        "particle": 0.5 * (1 - np.tanh(1.5 * (radius - 3.5) / 2.0))[None],
        "phases": phases / phases.sum(axis=0),
        "species": np.stack([1 - 0.4 * rng.random(SHAPE), 0.3 * rng.random(SHAPE)]),
        "indicator": 0.5 * (1 - np.tanh(1.5 * (radius - 3.9) / 2.0)),
    }


def cases(start: dict[str, np.ndarray]) -> dict[str, Case]:
    """Problem of a grid, start, time step, and steppers.

    A scales the stiff part of evoxels' semi-implicit steps, by 1/4 unless it is given. voxdask takes it as it is, and
    doubles it for smoothed boundaries, where 1/4 does not survive large steps.
    """
    psi = np.clip(start["indicator"], 1e-4, 1.0)
    every = tuple(STEPPERS)
    return {
        "cahn-hilliard": (
            lambda grid: pdes.CahnHilliard(grid, eps=3.0, D=1.0, bc=PERIODIC), start["mixture"], 0.004, every,
        ),
        "cahn-hilliard-closed": (
            lambda grid: pdes.CahnHilliard(grid, eps=3.0, D=0.7, bc=CLOSED_X), start["mixture"], 0.5, ("imex", "etd1"),
        ),
        "allen-cahn": (
            lambda grid: pdes.TwoPhaseAllenCahn(grid, eps=2.0, gab=1.0, M=0.8, curvature=0.5, bc=CLOSED_X),
            start["particle"], 0.05, every,
        ),
        "allen-cahn-full": (
            lambda grid: pdes.TwoPhaseAllenCahn(grid, eps=2.0, gab=0.9, M=1.0, curvature=1.0, bc=PERIODIC),
            start["particle"], 0.05, ("rk4", "imex"),
        ),
        "multi-phase-fast": (
            lambda grid: pdes.MultiPhaseAllenCahn(grid, eps=3.0, gab=1.0, M=1.0, fast=True, bc=PERIODIC),
            start["phases"], 0.05, every,
        ),
        "multi-phase-exact": (
            lambda grid: pdes.MultiPhaseAllenCahn(
                grid, eps=3.0, gab=1.1, M=0.9, fast=False, bc=PERIODIC, bulk_energies=(0.0, 0.1, 0.3, -0.1)
            ),
            start["phases"], 0.05, ("rk4", "imex"),
        ),
        "reaction-diffusion": (
            lambda grid: pdes.ReactionDiffusion(grid, D=0.6, f=lambda t, c: c * (1 - c), A=1.0, bc=CLOSED_X),
            start["mixture"], 0.05, every,
        ),
        "gray-scott": (lambda grid: CoupledReactionDiffusion(grid), start["species"], 0.05, EXPLICIT),
        "gray-scott-equal": (
            lambda grid: CoupledReactionDiffusion(grid, D_A=0.5, D_B=0.5, feed=0.06, kill=0.11),
            start["species"], 0.2, ("imex", "etd1"),
        ),
        "smoothed-boundary": (
            lambda grid: ReactionDiffusionSBM(
                grid, D=0.8, f=lambda t, c: 0.1 * c * (1 - c), A=2.0, bc=PERIODIC, mask=start["indicator"], bc_flux=0.05
            ),
            start["mixture"] * psi, 0.02, every,
        ),
    }  # fmt: skip


def run(problem: Any, stepper: str, dt: float, start: torch.Tensor) -> np.ndarray:
    """The state after STEPS steps."""
    method, u = STEPPERS[stepper](problem, dt), start.clone()
    for step in range(STEPS):
        u = method.step(step * dt, u)
    if not bool(torch.isfinite(u).all()):
        raise RuntimeError(f"evoxels' {stepper} did not survive dt={dt}")
    return np.asarray(u)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the .npz to write")
    args = parser.parse_args(argv)
    torch.set_default_dtype(torch.float64)
    size = tuple(n * h for n, h in zip(SHAPE, SPACING, strict=True))
    fields = evoxels.VoxelFields(SHAPE, size)
    fields.precision = "float64"
    start = starts()
    arrays = {f"start/{name}": array.astype(np.float32) for name, array in start.items()}
    start = {name: array.astype(np.float32).astype(np.float64) for name, array in start.items()}
    for name, (make, begin, dt, steppers) in cases(start).items():
        for stepper in steppers:
            problem = make(VoxelGridTorch(fields.grid_info(), precision="float64", device="cpu"))
            state = torch.as_tensor(begin)
            end = run(problem, stepper, dt, state)
            arrays[f"{name}/{stepper}"] = end.astype(np.float32)
            arrays[f"{name}/{stepper}/dt"] = np.array(dt)
            moved = np.abs(end - begin).max()
            print(f"{name:22s} {stepper:6s} {end.min():+.4f} to {end.max():+.4f}, moved {moved:.3f}")
    versions = {"evoxels_version": version("evoxels"), "torch_version": version("torch")}
    np.savez_compressed(args.out, **arrays, **versions, spacing=np.array(SPACING), steps=STEPS)
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
