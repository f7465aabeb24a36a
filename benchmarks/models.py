"""What does a stage of each model cost, beside what it can't cost less than?

Physics: one explicit Euler step (one evaluation of the right-hand side, fused with the update) of every model on
a periodic grid, float32, as one block.
Cost: about five minutes on two cores at the default size, most of it to compile; 2 GB of memory.
Command: ``python benchmarks/models.py``

The floor is the larger of two times: that of the bytes (read every field, coefficient and base once, write every
field once) at the bandwidth of a copy, and that of the arithmetic alone (the same kernel again and again on one
tile that stays in cache, on all threads). Medians over rounds in which models take turns. Prints a table, and JSON
as the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import xarray as xr

import voxdask as vd
from voxdask.kernels import Update
from voxdask.models import potentials
from voxdask.prepare import prepare

THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
#: Rows of the tile that stays in cache, and its edge.
TILE_ROWS, TILE_EDGE = 8, 64

#: Model, its number of stages over the grid, and what it is compared with.
MODELS: dict[str, tuple[vd.Model, int, str]] = {
    "diffusion, D a number": (vd.models.ReactionDiffusion(0.1), 1, "7-point"),
    "diffusion, D(c)": (vd.models.ReactionDiffusion(lambda c: 0.1 + 0.1 * c**2), 1, "7-point"),
    "Gray-Scott": (vd.models.GrayScott(0.1, 0.05), 1, "7-point"),
    "Allen-Cahn, full Laplacian": (vd.models.AllenCahn(curvature=1.0, form="full", mobility=0.1), 1, "7-point"),
    "Cahn-Hilliard": (vd.models.CahnHilliard(diffusivity=0.01), 2, "7-point"),
    "smoothed-boundary diffusion": (vd.models.SmoothedBoundaryDiffusion(0.1), 1, "7-point"),
    "Allen-Cahn, normal part": (vd.models.AllenCahn(mobility=0.1), 1, "19-point"),
    "Cahn-Hilliard, logarithms": (
        vd.models.CahnHilliard(diffusivity=0.01, potential=potentials.RegularSolution(3.0)), 2, "logarithms"
    ),
    # two sums over the members, the rate, and its deviation from the mean
    "multi-phase, 6 phases": (vd.models.MultiPhaseAllenCahn(mobility=0.1), 4, "7-point, projected"),
}  # fmt: skip


def start(model: vd.Model, size: int) -> xr.Dataset:
    """Random fields that the model accepts, on size^3 voxels."""
    rng, shape = np.random.default_rng(0), (size,) * 3
    if getattr(model, "family", None):
        phases = rng.random((6, *shape), dtype=np.float32)
        return vd.dataset({"phi": phases / phases.sum(axis=0)}, dims=("phase", "z", "y", "x"), spacing=1.0)
    names = (*model.fields, *model.auxiliary)
    return vd.dataset({name: 0.2 + 0.6 * rng.random(shape, dtype=np.float32) for name in names}, spacing=1.0)


def step_time(model: vd.Model, ds: xr.Dataset, steps: int) -> float:
    """Nanoseconds per voxel and field of a step."""
    run = vd.simulate(model, ds, dt=1e-3, steps=steps, stepper="euler", progress=False)
    return vd.Report.of(run.attrs).ns_per_voxel_step / (len(model.fields) * ds.sizes.get("phase", 1))


def arithmetic_time(model: vd.Model, repeats: int) -> float:
    """Nanoseconds per voxel and field of the kernel on a tile that stays in cache, on all threads."""
    ds = start(model, TILE_EDGE).isel(z=slice(0, TILE_ROWS))
    prepared = prepare(model.equation, ds, "periodic")
    kernel = prepared.operators.rate((Update(),))
    system, depth = prepared.system, kernel.halo
    rng = np.random.default_rng(0)
    padded = tuple(n + 2 * depth for n in system.grid.shape)
    rates = prepared.operators.equation.rates

    def work(_: int) -> float:
        blocks = {name: (0.2 + 0.6 * rng.random(padded)).astype(np.float32) for name in kernel.inputs}
        shape = system.grid.shape
        blocks |= {f"base0_0_{rate}": np.zeros(shape, np.float32) for rate in rates}
        out = {f"target0_{rate}": np.zeros(shape, np.float32) for rate in rates}
        kept: dict[str, Any] = {}

        def empty(name: str, extent: tuple[int, ...], dtype: Any) -> Any:
            return kept.setdefault(name, np.empty(extent, dtype))

        kernel(blocks, {}, system.values(0.0), out, (1.0, 1e-3), empty)
        began = time.perf_counter()
        for _ in range(repeats):
            kernel(blocks, {}, system.values(0.0), out, (1.0, 1e-3), empty)
        return time.perf_counter() - began

    work(0)  # compiles
    with ThreadPoolExecutor(THREADS) as threads:
        seconds = list(threads.map(work, range(THREADS)))
    return statistics.mean(seconds) / repeats / (THREADS * system.grid.size * len(system.fields)) * 1e9


def copy_time(size: int) -> float:
    """Nanoseconds to read and write a float32 value, by copies on all threads."""
    source = np.ones((THREADS, size**3 // THREADS), np.float32)
    target = np.zeros_like(source)
    with ThreadPoolExecutor(THREADS) as threads:
        began = time.perf_counter()
        list(threads.map(lambda k: np.copyto(target[k], source[k]), range(THREADS)))
        return (time.perf_counter() - began) / source.size * 1e9


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run, print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="voxels along an axis")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5, help="of each run")
    parser.add_argument("--only", help="models whose name holds this")
    options = parser.parse_args(argv)
    chosen = {name: case for name, case in MODELS.items() if not options.only or options.only in name}
    for model, _, _ in chosen.values():
        step_time(model, start(model, 16), 2)  # compiles
    found: dict[str, dict[str, list[float]]] = {name: {"step": [], "arithmetic": []} for name in chosen}
    copies = []
    for _ in range(options.rounds):
        copies.append(copy_time(options.size))
        for name, (model, _, _) in chosen.items():
            size = options.size if "phases" not in name else options.size // 2
            found[name]["step"].append(step_time(model, start(model, size), options.steps))
            found[name]["arithmetic"].append(arithmetic_time(model, 200))
    copy, rows = statistics.median(copies), {}
    print(f"copy {copy:.2f} ns; ns per voxel and field, {options.size}^3, float32, {THREADS} threads")
    titles = f"{'step':>6} {'stages':>6} {'a stage':>8} {'bytes':>6} {'arithmetic':>10} {'of floor':>8}"
    print(f"{'model':30} {'stencil':18} {titles}")
    for name, (model, stages, kind) in chosen.items():
        step, arithmetic = (statistics.median(found[name][key]) for key in ("step", "arithmetic"))
        moved = copy * (1 + len(model.auxiliary) / len(model.fields) / 2)
        floor = max(moved, arithmetic)
        rows[name] = {"step": step, "stages": stages, "bytes": moved, "arithmetic": arithmetic, "floor": floor}
        print(
            f"{name:30} {kind:18} {step:6.2f} {stages:6d} {step / stages:8.2f} {moved:6.2f} {arithmetic:10.2f} "
            f"{step / floor:8.2f}"
        )
    results = {"size": options.size, "threads": THREADS, "machine": platform.machine(), "copy": copy, "models": rows}
    print(json.dumps(results))
    return results


if __name__ == "__main__":
    main()
