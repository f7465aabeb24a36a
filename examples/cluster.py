"""Does a run that two processes share end with the same bits as one in this process?

The call is the same: inside a `distributed.Client`, chunks of a field go to the workers of its cluster; each computes
its slabs and writes them to the store, and none of them ever holds the whole. Here the cluster is two processes of this
machine; `Client("tcp://...")` takes any other whose workers see the store.

Physics: a mixture with noise on top separates (Cahn and Hilliard), in a box that is periodic but for zero flux through
the faces across z,

    dc/dt = div( D c (1 - c) grad mu ),    mu = 18/eps c (1 - c) (1 - 2c) - 2 eps lap(c),

with D = 1, an interface eps of three voxels, and voxels of size 1. Steps are semi-implicit, so every step takes the
field's transform: half of what a worker makes of it goes to the other one, and comes back.

Answer: yes, in every voxel of every frame. What a slab computes depends on its rows and its neighbours', not on how
thick it is or where it lies. It is no faster on one machine, whose memory threads share: processes send copies.

Cost: the default, 128^3 voxels and 40 steps, takes about fifteen seconds on two cores and 700 MB in three processes.

    python examples/cluster.py
    python examples/cluster.py --size 256 --workers 4
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from distributed import Client, LocalCluster
from matplotlib.figure import Figure

import voxdask as vd

FRAMES = 4


def main(argv: Sequence[str] | None = None) -> tuple[xr.Dataset, xr.Dataset]:
    """Run the example as from the command line; return the frames of this process and those of the cluster."""
    args = parse(argv)
    model, start = vd.models.CahnHilliard(eps=3.0), mixture(args.size, args.seed)
    what: dict[str, Any] = {"dt": 1.0, "steps": args.steps, "save_every": max(args.steps // FRAMES, 1)}
    what["boundary"] = {"z": "neumann"}

    here = vd.simulate(model, start, **what)
    with tempfile.TemporaryDirectory(prefix="voxdask-") as folder, cluster(args.workers) as workers, Client(workers):
        chunks = -(-args.size // (2 * args.workers))
        there = vd.simulate(model, start, chunks=chunks, store=f"{folder}/run.zarr", **what).load()

    for name, run in (("here", here), ("there", there)):
        print(f"{name:5}  {run.vd.report.tier:7}  {run.vd.report.ns_per_voxel_step:.1f} ns per voxel and step")
    print(f"\n{table(here, there)}\n")
    draw(here, there, chunks).savefig(args.output / "cluster.png")
    print(args.output / "cluster.png")
    return here, there


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--size", type=int, default=128, help="edge of the box in voxels (default: 128)")
    parser.add_argument("--steps", type=int, default=40, help="number of steps (default: 40)")
    parser.add_argument("--workers", type=int, default=2, help="processes of the cluster (default: 2)")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for cluster.png (default: .)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    args = parser.parse_args(argv)
    if args.workers < 1:
        parser.error(f"--workers is {args.workers}; it must be at least 1")
    if args.size < max(16, 2 * args.workers):
        parser.error(f"--size is {args.size}; it must be at least 16, and two slices for each worker")
    if args.steps < 1:
        parser.error(f"--steps is {args.steps}; it must be at least 1")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; it must not be negative")
    args.output.mkdir(parents=True, exist_ok=True)
    return args


def mixture(size: int, seed: int) -> xr.Dataset:
    """Equal parts, and noise."""
    noise = np.random.default_rng(seed).standard_normal((size,) * 3, dtype=np.float32)
    return vd.dataset({"c": np.float32(0.5) + np.float32(0.05) * noise})


def cluster(workers: int) -> LocalCluster:
    """Processes of one thread each, that nobody from outside can talk to."""
    return LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0")


def table(here: xr.Dataset, there: xr.Dataset) -> str:
    """Frame by frame, a checksum of the bytes of each run, and how many voxels differ."""
    lines = ["    time      here     there  voxels that differ"]
    for time, a, b in zip(here.time.values, here.c.values, there.c.values, strict=True):
        lines.append(f"{time:8g}  {zlib.crc32(a):08x}  {zlib.crc32(b):08x}  {np.count_nonzero(a != b)} of {a.size:,}")
    return "\n".join(lines)


def draw(here: xr.Dataset, there: xr.Dataset, chunks: int) -> Figure:
    """A slice of the last frame of each run, and the slabs that the cluster computed."""
    figure = Figure(figsize=(9, 4.3), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2)
    for ax, run, title in zip(panels, (here, there), ("one process", "a cluster, slab by slab"), strict=True):
        frame = run.c.isel(time=-1, x=run.sizes["x"] // 2)
        drawn = ax.imshow(frame.values, cmap="RdBu_r", vmin=0.0, vmax=1.0, origin="lower")
        ax.set_title(title, fontsize="medium")
        ax.set_xlabel("y")
        ax.set_ylabel("z")
    for edge in range(chunks, there.sizes["z"], chunks):
        panels[1].axhline(edge - 0.5, color="black", linewidth=0.8)
    figure.colorbar(drawn, ax=panels, label="c", shrink=0.85)
    return figure


if __name__ == "__main__":
    main()
