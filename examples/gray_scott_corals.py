"""How fast does a coral grow, and how much room does it leave?

Physics: a substrate A is fed everywhere, and a catalyst B turns it into more of itself and decays (Gray and Scott),

    dA/dt = D_A lap(A) - A B^2 + f (1 - A),    dB/dt = D_B lap(B) + A B^2 - k B,

with D_A = 1, D_B = 0.5, f = 0.055, k = 0.117 and pixels of size 1. All is A, at rest, but for a few spots of
B near the middle. Branches grow out of it, split, and keep away from each other: behind them A is used up.

Answer: the tips move at 0.024, a tenth of the speed sqrt(D_B k) = 0.24 at which B spreads in the time of its
decay: they wait for A to come to them. Branches fill half of the area that they reach.

Cost: the default, 256^2 pixels and 3000 steps, takes about ten seconds on two cores and 200 MB.

    python examples/gray_scott_corals.py
    python examples/gray_scott_corals.py --size 512 --t-end 12000
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

import voxdask as vd

SPOTS, RADIUS, CORAL, FRAMES = 5, 5.0, 0.2, 12


def main(argv: Sequence[str] | None = None) -> xr.Dataset:
    """Run the example as from the command line; return its frames."""
    args = parse(argv)
    start = spots(args.size, args.seed)
    steps = FRAMES * max(round(args.t_end / args.dt / FRAMES), 1)
    run = vd.simulate(
        vd.models.GrayScott(), start, dt=args.dt, steps=steps, save_every=steps // FRAMES, boundary="neumann"
    )
    print(f"\n{run.vd.report}\n")
    grown = measure(run)
    print(table(grown))
    print(f"\nspeed of the tips {speed(grown, args.size):.4f}, coral within their reach {float(grown.filled[-1]):.2f}")
    draw(run, grown, args.size).savefig(args.output / "corals.png")
    print(args.output / "corals.png")
    return run


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--size", type=int, default=256, help="edge of the square in pixels (default: 256)")
    parser.add_argument("--t-end", type=float, default=6000.0, help="time at the end (default: 6000)")
    parser.add_argument("--dt", type=float, default=2.0, help="time step (default: 2)")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for corals.png (default: .)")
    parser.add_argument("--seed", type=int, default=0, help="of the places of the spots (default: 0)")
    args = parser.parse_args(argv)
    if args.size < 32:
        parser.error(f"--size is {args.size}; it must be at least 32, a few branches wide")
    if not (args.dt > 0 and args.t_end >= FRAMES * args.dt):
        parser.error(f"--dt is {args.dt} and --t-end {args.t_end}; give a positive step, and {FRAMES} of them or more")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; it must not be negative")
    args.output.mkdir(parents=True, exist_ok=True)
    return args


def spots(size: int, seed: int) -> xr.Dataset:
    """A = 1 but for spots of B, scattered around the middle."""
    place = np.arange(size) + 0.5 - size / 2
    middles = np.random.default_rng(seed).normal(0.0, 2 * RADIUS, (SPOTS, 2))
    inside = sum(np.hypot(place[:, None] - y, place[None, :] - x) < RADIUS for y, x in middles) > 0
    a, b = np.where(inside, 0.5, 1.0), np.where(inside, 0.3, 0.0)
    return vd.dataset({"A": a.astype(np.float32), "B": b.astype(np.float32)})


def measure(run: xr.Dataset) -> xr.Dataset:
    """Per frame: how far the coral reaches from the middle, and how much of that disc it fills."""
    coral = run.B > CORAL
    r = np.hypot(run.x - run.x.mean(), run.y - run.y.mean())
    reach = (r * coral).max(("y", "x"))
    filled = coral.sum(("y", "x")) / np.maximum((r <= reach).sum(("y", "x")), 1)
    return xr.Dataset({"reach": reach, "filled": filled})


def growing(grown: xr.Dataset, size: int) -> xr.Dataset:
    """The frames after the start, in which no tip is near a wall."""
    return grown.isel(time=(grown.time.values > 0) & (grown.reach.values < size / 2 - 8))


def speed(grown: xr.Dataset, size: int) -> float:
    """The slope of reach over time."""
    free = growing(grown, size)
    return float(np.polyfit(free.time, free.reach, 1)[0]) if free.sizes["time"] > 1 else float("nan")


def table(grown: xr.Dataset) -> str:
    """The frames as text."""
    lines = ["    time   reach  filled"]
    for frame in (grown.isel(time=i) for i in range(grown.sizes["time"])):
        lines.append(f"{float(frame.time):8g}  {float(frame.reach):6.1f}  {float(frame.filled):6.2f}")
    return "\n".join(lines)


def draw(run: xr.Dataset, grown: xr.Dataset, size: int) -> Figure:
    """Three frames of B, and the reach over time."""
    figure = Figure(figsize=(13, 3.9), dpi=110, layout="constrained")
    *panels, curve = figure.subplots(1, 4, width_ratios=(1, 1, 1, 1.1))
    last = run.sizes["time"] - 1
    for ax, i in zip(panels, (last // 6, last // 2, last), strict=True):
        frame = run.B.isel(time=i)
        drawn = ax.imshow(frame.values, cmap="magma", vmin=0.0, vmax=0.4, origin="lower", interpolation="bicubic")
        ax.set_title(f"t = {float(frame.time):g}", fontsize="medium")
        ax.set_axis_off()
    figure.colorbar(drawn, ax=panels, label="catalyst B", shrink=0.85, pad=0.01)
    free = growing(grown, size)
    curve.plot(grown.time, grown.reach, "o", color="#b5367a", markersize=4)
    if free.sizes["time"] > 1:
        slope, offset = np.polyfit(free.time, free.reach, 1)
        curve.plot(free.time, slope * free.time + offset, color="#3b0f70", linewidth=1)
        curve.set_title(f"tips move at {slope:.3f}", fontsize="medium")
    curve.set_xlabel("time")
    curve.set_ylabel("reach from the middle (pixels)")
    curve.set_ylim(bottom=0)
    curve.spines[["top", "right"]].set_visible(False)
    return figure


if __name__ == "__main__":
    main()
