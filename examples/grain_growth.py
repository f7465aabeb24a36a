"""How do the grains of a polycrystal grow?

Physics: each grain is a phase with a fraction phi, 1 inside and 0 outside, of the multi-phase Allen-Cahn equation with
one interfacial energy gamma and one mobility M. Boundaries move at M gamma times their curvature and meet in threes at
120 degrees. Both together mean that in 2-D the area of a grain with n neighbours changes at the constant rate

    dA/dt = pi/3 M gamma (n - 6)

(von Neumann 1952; Mullins 1956, doi:10.1063/1.1722511): grains with fewer than six neighbours vanish, and the mean area
grows in proportion to time. It starts from the Voronoi cells of random points, which are labels, as a segmented image
would be; the box repeats itself.

Answer: those with more than six neighbours, at the cost of the others. Of 60 grains a little over half are left when
time is 500 (h^2 / M gamma), and the rates lie on the line of the law, though 10 to 20 % steeper: interfaces four
pixels wide are not quite thin beside the grains.

Cost: the default, 60 grains on 192^2 pixels and 500 steps, takes about half a minute on two cores and 300 MB.

    python examples/grain_growth.py
    python examples/grain_growth.py --size 384 --grains 150
    python examples/grain_growth.py --store grains.zarr
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.spatial import cKDTree

import voxdask as vd

EPS = 4.0  # width of an interface, in pixels
LAW = np.pi / 3


def main(argv: Sequence[str] | None = None) -> xr.Dataset:
    """Run the example as from the command line; return its labels, areas and numbers of neighbours."""
    args = parse(argv)
    try:
        return study(args)
    except (OSError, ValueError, MemoryError, FloatingPointError) as error:
        raise SystemExit(f"grain_growth.py: {error}") from error


def study(args: argparse.Namespace) -> xr.Dataset:
    """Labels, phases, run, table, picture."""
    labels = voronoi(args.size, args.grains, args.seed)
    start = vd.phases_from_labels(labels, phases=range(args.grains)).to_dataset()
    model = vd.models.MultiPhaseAllenCahn(eps=EPS)
    print(f"{args.grains} grains on {args.size} x {args.size} pixels\n\n{vd.plan(model, start, stepper='sbdf2')}\n")
    run = vd.simulate(
        model, start, dt=1.0, steps=args.steps, stepper="sbdf2", save_every=max(args.steps // 10, 1), store=args.store
    )
    print(f"\n{run.vd.report}\n")
    frames = measure(run)
    print(table(frames))
    n, rate = rates(frames)
    slope = float(np.sum(rate * (n - 6)) / np.sum((n - 6.0) ** 2))
    frames.attrs |= {"slope": slope, "grains": len(n)}
    print(f"\ndA/dt = {slope:.3f} (n - 6), from {len(n)} intervals; pi/3 = {LAW:.3f}")
    picture = Path(args.output or ".") / "grains.png"
    draw(frames, n, rate).savefig(picture)
    print(f"\n{picture}" + (f" and {args.store}" if args.store else ""))
    return frames


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--size", type=int, default=192, help="edge of the box in pixels (default: 192)")
    parser.add_argument("--grains", type=int, default=60, help="number of grains at the start (default: 60)")
    parser.add_argument("--steps", type=int, default=500, help="number of steps of 1 h^2 / (M gamma) (default: 500)")
    parser.add_argument("--store", help="keep the run here, as a Zarr group; a run that is there goes on")
    parser.add_argument("--output", help="folder for grains.png (default: .)")
    parser.add_argument("--seed", type=int, default=0, help="of the points (default: 0)")
    args = parser.parse_args(argv)
    if args.size < 32:
        parser.error(f"--size is {args.size}; it must be at least 32, some interfaces wide")
    if not 2 <= args.grains <= args.size**2 / (2 * EPS) ** 2:
        parser.error(f"--grains is {args.grains}; it must be from 2 to as many as are two interfaces wide each")
    if args.steps < 1:
        parser.error(f"--steps is {args.steps}; it must be at least 1")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; it must not be negative")
    if args.output is not None:
        try:
            Path(args.output).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--output: {error}")
    return args


def voronoi(size: int, grains: int, seed: int) -> xr.DataArray:
    """Every pixel labelled with the nearest of some random points, in a box that repeats itself."""
    points = np.random.default_rng(seed).uniform(0, size, (grains, 2))
    middles = np.arange(size) + 0.5
    pixels = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1)
    nearest = cKDTree(points, boxsize=size).query(pixels)[1]
    return xr.DataArray(nearest, {"y": middles, "x": middles}, ("y", "x"))


def measure(run: xr.Dataset) -> xr.Dataset:
    """Per frame: labels; of each grain its area (the integral of its fraction) and number of neighbours."""
    labels = vd.labels_from_phases(run.phi).compute()
    area = run.phi.sum(("y", "x"), dtype=np.float64).compute()
    neighbours = xr.zeros_like(area, dtype=int)
    for k, frame in enumerate(labels.values):
        pairs = np.concatenate([np.stack([frame, np.roll(frame, 1, axis)], -1).reshape(-1, 2) for axis in (0, 1)])
        pairs = np.unique(np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1), axis=0)
        neighbours[k] = np.bincount(pairs.ravel(), minlength=area.sizes["phase"])
    alive = xr.DataArray([len(np.unique(frame)) for frame in labels.values], dims="time")
    cells = labels.sizes["y"] * labels.sizes["x"]
    return xr.Dataset(
        {"labels": labels, "area": area, "neighbours": neighbours, "alive": alive, "mean_area": cells / alive}
    )


def rates(frames: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours and growth rate of every grain that keeps its neighbours from one frame to the next."""
    n, area, time = frames.neighbours.values, frames.area.values, frames.time.values
    rate = np.diff(area, axis=0) / np.diff(time)[:, None]
    radius = np.sqrt(np.minimum(area[:-1], area[1:]).clip(min=0) / np.pi)
    # a small grain is all interface; the first frame is sharp and has corners that are not at 120 degrees
    steady = (n[:-1] == n[1:]) & (radius > 1.5 * EPS) & (np.arange(len(rate))[:, None] > 0)
    return n[:-1][steady], rate[steady]


def table(frames: xr.Dataset) -> str:
    """The frames as text."""
    lines = ["    time  grains  mean area  per time"]
    for k in range(frames.sizes["time"]):
        now, was = frames.isel(time=k), frames.isel(time=max(k - 1, 0))
        grown = f"{float(now.mean_area - was.mean_area) / float(now.time - was.time):10.2f}" if k else ""
        lines.append(f"{float(now.time):8g}  {int(now.alive):6d}  {float(now.mean_area):9.1f}{grown}")
    return "\n".join(lines)


def draw(frames: xr.Dataset, n: np.ndarray, rate: np.ndarray) -> Figure:
    """Grains at the start and at the end; their mean area over time; how fast each grew."""
    figure = Figure(figsize=(11, 9.5), dpi=110, layout="constrained")
    (before, after), (growth, law) = figure.subplots(2, 2, height_ratios=(1.25, 1))
    hues = np.random.default_rng(1).permutation(np.linspace(0.15, 0.95, frames.sizes["phase"]))
    for ax, k in ((before, 0), (after, -1)):
        show(ax, frames.labels.isel(time=k).values, hues)
        ax.set_title(f"t = {float(frames.time[k]):g}, {int(frames.alive[k])} grains")
    growth.plot(frames.time, frames.mean_area, "o-", color="#313695", markersize=4)
    growth.set_xlabel(r"time ($h^2 / M \gamma$)")
    growth.set_title(r"mean area of a grain ($h^2$)", fontsize="medium")
    growth.set_ylim(bottom=0)
    law.axhline(0, color="0.8", linewidth=0.8)
    spread = np.random.default_rng(2).uniform(-0.12, 0.12, len(n))
    law.plot(n + spread, rate, ".", color="#a50026", alpha=0.35, label="grains")
    sides = np.array([2.5, max([*n, 9]) + 0.5])
    law.plot(sides, LAW * (sides - 6), color="0.2", linewidth=1.2, label=r"$\frac{\pi}{3} (n - 6)$")
    law.set_xlabel("number of neighbours n")
    law.set_title(r"growth of a grain, $dA/dt$ ($M \gamma$)", fontsize="medium")
    law.legend(frameon=False)
    for ax in (growth, law):
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def show(ax: Axes, labels: np.ndarray, hues: np.ndarray) -> None:
    """Labels in a colour each, with dark boundaries."""
    ax.imshow(hues[labels], cmap="YlGnBu", vmin=0, vmax=1.1, origin="lower", interpolation="nearest")
    edge = (labels != np.roll(labels, 1, 0)) | (labels != np.roll(labels, 1, 1))
    ax.imshow(np.where(edge, 0.0, np.nan), cmap="gray", vmin=0, vmax=1, origin="lower", interpolation="nearest")
    ax.set_axis_off()


if __name__ == "__main__":
    main()
