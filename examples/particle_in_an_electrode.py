"""Does an electrode fill faster than equal spheres with the same volume and surface?

Physics: the particles of a battery electrode take up lithium through their surface, and it spreads inside. The
fraction c of places taken obeys, inside the particles alone,

    dc/dt = div(D grad c),    D dc/dn = k (1 - c)  at the surface.

The particles are a phase of a segmented tomogram. The smoothed boundary method puts their surface on the voxel grid:
an indicator psi, 1 inside and 0 outside with an interface of four voxels, made from the distance to the surface, and

    dc/dt = (div(psi D grad c) + |grad psi| k (1 - c)) / psi.

Lengths count in R = 3 V / S, the radius of equal spheres with the same volume and surface; times in R^2 / D. The Biot
number k R / D is 1 by default: uptake and diffusion take about as long. What is compared is the utilisation, the mean
of c over the particles, with that of a sphere (Crank, The Mathematics of Diffusion, 1975, section 6.3). Without
--image a packing of spheres of several sizes is made up, which repeats itself; a real sample lies in a sealed box.

Answer: at first, a little; not to the end. What is small and thin is soon full: at t = 0.1 R^2 / D the packing is at
0.235 and spheres at 0.229. Then all wait for the middle of the large particles: at t = R^2 / D it is 0.908 against
0.916, and 0.904 in a crop of 128^3 voxels of a real electrode. With voxels of 0.73 of the size the packing is at 0.232
and 0.903. A single sphere of 18 voxels comes out within 0.003; at a Biot number of 5 within 0.03, as c then changes
much across the interface: that takes finer voxels.

Cost: the default, 128^3 voxels, takes half a minute to a minute on two cores and 500 MB.

    python examples/particle_in_an_electrode.py
    python examples/particle_in_an_electrode.py --image electrode.tiff --phase 85 --size 128
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.optimize
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

import voxdask as vd

FRAMES = 10


def main(argv: Sequence[str] | None = None) -> xr.Dataset:
    """Run the example as from the command line; return frames and measures."""
    args = parse(argv)
    try:
        return study(args)
    except (OSError, ValueError, MemoryError, FloatingPointError) as error:
        raise SystemExit(f"particle_in_an_electrode.py: {error}") from error


def study(args: argparse.Namespace) -> xr.Dataset:
    """Image, indicator, run, table, picture."""
    image = crop(args.image, args.size) if args.image else packing(args.size or 128, args.seed)
    boundary = "neumann" if args.image else "periodic"
    h = max(vd.Grid.from_dataset(image).spacing)
    psi = vd.indicator(image.load(), phase=args.phase, width=4 * h, boundary=boundary)
    radius, volume, surface = equal_sphere(psi, boundary)
    print(
        f"{' x '.join(map(str, image.shape))} voxels of {h:g}: particles fill {volume / image.size / h**3:.3f}, "
        f"surface {surface:.4g}, R = 3 V / S = {radius:.4g}"
    )
    rate = args.biot / radius  # of uptake, with D = 1
    model = vd.models.SmoothedBoundaryDiffusion(1.0, flux=lambda t, c, x: rate * (1 - c))
    steps = FRAMES * max(round(2 * (radius / h) ** 2 * args.t_end / FRAMES), 10)  # steps of h^2 / 2 D or shorter
    start = xr.Dataset({"c": xr.zeros_like(psi), "psi": psi})
    dt = args.t_end * radius**2 / steps
    run = vd.simulate(model, start, dt=dt, steps=steps, save_every=steps // FRAMES, boundary=boundary)
    print(f"\n{run.vd.report}\n")

    measured = measure(run, psi, boundary, radius)
    measured["sphere"] = ("time", sphere(measured.scaled.values, args.biot))
    print(table(measured))
    last = measured.isel(time=-1)
    print(f"\nutilisation {float(last.utilisation):.4f}, of equal spheres {float(last.sphere):.4f}")
    draw(run, psi, measured).savefig(args.output / "particles.png")
    print(args.output / "particles.png")
    return run.merge(measured)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--image", help="a segmented TIFF; without it, a packing of spheres is made up")
    parser.add_argument("--phase", type=int, default=1, help="label of the particles (default: 1)")
    parser.add_argument("--size", type=int, help="edge of the volume or crop (default: 128, or the whole image)")
    parser.add_argument("--biot", type=float, default=1.0, help="k R / D (default: 1)")
    parser.add_argument("--t-end", type=float, default=1.0, help="time at the end, in units of R^2 / D (default: 1)")
    parser.add_argument("--output", type=Path, default=Path(), help="folder for particles.png (default: .)")
    parser.add_argument("--seed", type=int, default=0, help="of the packing (default: 0)")
    args = parser.parse_args(argv)
    if args.size is not None and args.size < 24:
        parser.error(f"--size is {args.size}; it must be at least 24, a particle wide")
    if not (args.biot > 0 and args.t_end > 0):
        parser.error(f"--biot is {args.biot} and --t-end {args.t_end}; they must be positive")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; it must not be negative")
    args.output.mkdir(parents=True, exist_ok=True)
    return args


def crop(path: str, size: int | None) -> xr.DataArray:
    """The image, or the first corner of it."""
    image = vd.open_image(path).image
    if size is not None and size > min(image.shape):
        raise ValueError(f"--size is {size}, but {path} has {' x '.join(map(str, image.shape))} voxels")
    return image.isel({dim: slice(size) for dim in image.dims})


def packing(size: int, seed: int) -> xr.DataArray:
    """Spheres of several sizes, which may touch and overlap a little, in a box that repeats itself."""
    rng, spheres = np.random.default_rng(seed), []
    inside = np.zeros((size,) * 3, np.uint8)
    place = np.arange(size) + 0.5
    for _ in range(3000):
        middle, radius = rng.uniform(0, size, 3), size * rng.uniform(0.08, 0.2)
        away = [np.linalg.norm((middle - m + size / 2) % size - size / 2) - radius - r for m, r in spheres]
        if min(away, default=0.0) < -0.02 * size:
            continue
        spheres.append((middle, radius))
        z, y, x = (((place - m + size / 2) % size - size / 2) ** 2 for m in middle)
        inside[z[:, None, None] + y[:, None] + x < radius**2] = 1
    return vd.dataset({"image": inside}).image


def steepness(psi: xr.DataArray, boundary: str) -> xr.DataArray:
    """|grad psi|, which stands for the surface."""
    slopes = vd.grad(psi, boundary=boundary)
    return np.sqrt(sum(slopes[name] ** 2 for name in slopes))


def equal_sphere(psi: xr.DataArray, boundary: str) -> tuple[float, float, float]:
    """R = 3 V / S, volume and surface of the particles."""
    cell = float(np.prod(vd.Grid.from_dataset(psi).spacing))
    volume = float(psi.sum(dtype=np.float64)) * cell
    surface = float(steepness(psi, boundary).sum(dtype=np.float64)) * cell
    return 3 * volume / surface, volume, surface


def measure(run: xr.Dataset, psi: xr.DataArray, boundary: str, radius: float) -> xr.Dataset:
    """Per frame: the means of c over the particles and over their surface."""

    def mean(weight: xr.DataArray) -> xr.DataArray:
        return (weight * run.c).sum(psi.dims, dtype=np.float64) / weight.sum(dtype=np.float64)

    return xr.Dataset(
        {"utilisation": mean(psi), "surface": mean(steepness(psi, boundary))},
        {"scaled": ("time", run.time.values / radius**2)},
    )


def sphere(times: np.ndarray, biot: float) -> np.ndarray:
    """Utilisation of a sphere, in units of R^2 / D: Crank (1975), section 6.3."""
    roots = [
        scipy.optimize.brentq(lambda b: b * np.cos(b) + (biot - 1) * np.sin(b), (n + 1e-9) * np.pi, (n + 1) * np.pi)
        for n in range(100)
    ]
    b2 = np.square(roots)
    shares = 6 * biot**2 / (b2 * (b2 + biot * (biot - 1)))
    return np.asarray(1 - (shares * np.exp(-b2 * times[:, None])).sum(1) / shares.sum())


def table(measured: xr.Dataset) -> str:
    """The frames as text."""
    lines = ["D t / R^2  utilisation  of spheres  at the surface"]
    for frame in (measured.isel(time=i) for i in range(measured.sizes["time"])):
        lines.append(
            f"{float(frame.scaled):9.2f}  {float(frame.utilisation):11.4f}  {float(frame.sphere):10.4f}  "
            f"{float(frame.surface):14.4f}"
        )
    return "\n".join(lines)


def draw(run: xr.Dataset, psi: xr.DataArray, measured: xr.Dataset) -> Figure:
    """Three frames of a slice through the middle, and the utilisation over time."""
    figure = Figure(figsize=(14, 4.1), dpi=110, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(3.3, 1.1))
    panels, curve = left.subplots(1, 3), right.subplots()
    middle = {psi.dims[0]: psi.sizes[psi.dims[0]] // 2} if psi.ndim == 3 else {}
    for ax, i in zip(panels, (1, FRAMES // 3, FRAMES), strict=True):
        drawn = through(ax, run.c.isel(time=i, **middle), psi.isel(middle))
        ax.set_title(f"D t / R² = {float(measured.scaled[i]):.2g}", fontsize="medium")
    left.colorbar(drawn, ax=panels, label="places taken c", shrink=0.85, pad=0.01)
    curve.plot(measured.scaled, measured.utilisation, "o-", color="#1b5e7d", markersize=4, label="this electrode")
    curve.plot(measured.scaled, measured.sphere, "--", color="#c0612b", label="equal spheres")
    curve.set_xlabel("D t / R²")
    curve.set_ylabel("utilisation")
    curve.set_ylim(0, 1)
    curve.legend(frameon=False, loc="lower right")
    curve.spines[["top", "right"]].set_visible(False)
    return figure


def through(ax: Axes, c: xr.DataArray, psi: xr.DataArray) -> AxesImage:
    """A slice: particles in colour, what is around them pale."""
    ax.imshow(np.full((*psi.shape, 3), 0.93), origin="lower")
    drawn = ax.imshow(c.values, cmap="viridis", vmin=0.0, vmax=1.0, origin="lower", alpha=psi.values.clip(0, 1))
    ax.set_axis_off()
    return drawn


if __name__ == "__main__":
    main()
