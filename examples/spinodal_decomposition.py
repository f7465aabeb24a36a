"""How long does a mixture that phase-separates remember the microstructure in which it began?

Physics: a porous tomogram seeds the composition c of a binary mixture: a little richer in the bright phase (the
grains, c = 0.6) than in the dark one (the pores, c = 0.4), grey values between them in proportion, with small noise
on top. Both compositions lie inside the spinodal (0.21 < c < 0.79), so the mixture is unstable everywhere. It separates
by the Cahn-Hilliard equation, which conserves mass and lowers the free energy,

    dc/dt = div( D c (1 - c) grad mu ),    mu = 18/eps c (1 - c) (1 - 2c) - 2 eps lap(c),

with an interface eps of three voxels; time is counted in units of h^3 / D for voxels of size h. The tomogram that is
made up repeats itself, and so does the box; a real one lies in a sealed box (zero flux). The memory of the
microstructure is the correlation of c with the image.

Answer: it does not forget. Separation sets in where grains meet pores, and layers grow from there. The correlation
falls from 0.98 to 0.75 while the pattern forms (t < 80), then rises slowly as the pattern coarsens towards the grains.
What is finer than the wave that grows fastest, 4 pi / 3 interfaces long, is remembered less.

Cost: the default, 192^3 voxels and 100 steps, takes about half a minute on two cores and 500 MB, compilation included.
Under a memory limit the run spills to disk; that takes several times as long.

    python examples/spinodal_decomposition.py
    python examples/spinodal_decomposition.py --size 256 --memory-limit 200MB
    python examples/spinodal_decomposition.py --image tomogram.tiff --store run.zarr
"""

from __future__ import annotations

import argparse
import atexit
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dask
import matplotlib as mpl
import numpy as np
import scipy.ndimage
import tifffile
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Polygon
from matplotlib.transforms import Affine2D

import voxdask as vd

DARK, BRIGHT, NOISE = 0.4, 0.6, 0.02


def main(argv: Sequence[str] | None = None) -> xr.Dataset:
    """Run the example as from the command line; return its frames."""
    args = parse(argv)
    try:
        return study(args)
    except (OSError, ValueError, MemoryError, FloatingPointError) as error:
        raise SystemExit(f"spinodal_decomposition.py: {error}") from error


def study(args: argparse.Namespace) -> xr.Dataset:
    """Image, start, plan, run, table, picture."""
    scratch = tempfile.TemporaryDirectory(prefix="voxdask-")
    atexit.register(scratch.cleanup)  # the result may be opened lazily from there
    path = args.image or write_tomogram(Path(args.output or scratch.name) / "tomogram.tiff", args.size, args.seed)
    image = open_tomogram(path, args.size)
    start = start_field(image, args.dtype, args.seed)
    h = max(vd.Grid.from_dataset(image).spacing)
    model = vd.models.CahnHilliard(eps=3 * h, diffusivity=h**3)
    boundary = "neumann" if args.image else "periodic"
    where: dict[str, Any] = {"boundary": boundary, "chunks": args.chunks, "memory_limit": args.memory_limit}
    plan, store = vd.plan(model, start, **where), args.store
    if args.memory_limit is None and args.chunks is None and plan.tier != "spilled":
        start = start.load()  # an array in memory runs as one block
        plan = vd.plan(model, start, **where)
    elif store is None:
        store = Path(scratch.name) / "run.zarr"
    print(f"{path}: {' x '.join(map(str, image.shape))} voxels of {h:g} {image.x.attrs.get('units', '')}\n\n{plan}\n")

    save_every = max(args.steps // 10, 1)
    run = vd.simulate(model, start, dt=args.dt, steps=args.steps, save_every=save_every, store=store, **where)
    print(f"\n{run.vd.report}\n")

    frames = measure(model, run, image, boundary)
    print(table(frames))
    picture = Path(args.output or ".") / "spinodal.png"
    draw(image, run, frames).savefig(picture)
    print(f"\n{picture}" + (f" and {store}" if args.store else ""))
    return run


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--image", help="a segmented TIFF to start from; without it, one is made up")
    parser.add_argument("--size", type=int, help="edge of the volume or crop (default: 192, or the whole image)")
    parser.add_argument("--steps", type=int, default=100, help="number of steps (default: 100)")
    parser.add_argument("--dt", type=float, default=2.0, help="time step, in units of h^3 / D (default: 2)")
    parser.add_argument("--memory-limit", help="spill to disk what does not fit, e.g. 200MB")
    parser.add_argument("--chunks", type=int, help="run in Dask chunks of so many slices")
    parser.add_argument("--store", help="keep the run here, as a Zarr group; a run that is there goes on")
    parser.add_argument("--output", help="folder for spinodal.png and tomogram.tiff (default: ., and a temporary one)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    args = parser.parse_args(argv)
    if args.size is not None and args.size < 16:
        parser.error(f"--size is {args.size}; it must be at least 16, some interfaces wide")
    if args.steps < 1:
        parser.error(f"--steps is {args.steps}; it must be at least 1")
    if not args.dt > 0:
        parser.error(f"--dt is {args.dt}; it must be positive")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; it must not be negative")
    if args.output is not None:
        try:
            Path(args.output).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            parser.error(f"--output: {error}")
    args.size = args.size or (None if args.image else 192)
    return args


def write_tomogram(path: Path, size: int, seed: int) -> Path:
    """A porous medium as TIFF: smoothed noise, cut where 55 % is solid; grains 255, pores 0, voxels of 0.4 um."""
    noise = np.random.default_rng(seed).standard_normal((size,) * 3, dtype=np.float32)
    smooth = scipy.ndimage.gaussian_filter(noise, max(size / 26, 2.0), mode="wrap")
    grains = np.where(smooth > np.quantile(smooth, 0.45), np.uint8(255), np.uint8(0))
    tifffile.imwrite(
        path,
        grains,
        imagej=True,
        resolution=(1 / 0.4, 1 / 0.4),
        metadata={"axes": "ZYX", "spacing": 0.4, "unit": "um"},
    )
    return path


def open_tomogram(path: str | Path, size: int | None) -> xr.DataArray:
    """The image, or its first corner of an edge of `size`; lazy, a chunk for each slice."""
    image = vd.open_image(path, chunks=1).image
    if size is not None and size > min(image.shape):
        raise ValueError(f"--size is {size}, but {path} has {' x '.join(map(str, image.shape))} voxels")
    return image.isel({dim: slice(size) for dim in image.dims})


def start_field(image: xr.DataArray, dtype: str, seed: int) -> xr.Dataset:
    """The composition that the image seeds, lazy; noise depends on the slice and not on the chunks."""
    lo, hi = (float(v) for v in dask.compute(image.min(), image.max()))
    if lo == hi:
        raise ValueError(f"the image holds the one value {lo:g}; it has no phases to start from")

    def compose(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        first = block_info[0]["array-location"][0][0]
        c = (DARK + (BRIGHT - DARK) / (hi - lo) * (block - lo)).astype(dtype)
        for k, plane in enumerate(c):
            plane += NOISE * np.random.default_rng((seed, first + k)).standard_normal(plane.shape, dtype)
        return c

    c = image.copy(data=image.data.map_blocks(compose, dtype=dtype, meta=np.empty((0,) * image.ndim, dtype)))
    return c.to_dataset(name="c")


def measure(model: vd.Model, run: xr.Dataset, image: xr.DataArray, boundary: str) -> xr.Dataset:
    """Per frame: mass, free energy and correlation with the image, in float64, a few slices at a time."""
    cell = float(np.prod(vd.Grid.from_dataset(image).spacing))
    space, c = image.dims, run.c
    image = image.chunk({dim: c.chunksizes[dim] for dim in space}) if c.chunks else image.compute()
    sums = {
        "c": c.sum(space, dtype=np.float64),
        "cc": (c * c).sum(space, dtype=np.float64),
        "ci": (c * image).sum(space, dtype=np.float64),
        "i": image.sum(dtype=np.float64),
        "ii": (image.astype(np.float64) ** 2).sum(),
        "energy": model.free_energy(run, boundary=boundary),
    }
    s = dict(zip(sums, dask.compute(*sums.values()), strict=True))
    n = image.size
    covariance = s["ci"] / n - s["c"] / n * s["i"] / n
    variances = (s["cc"] / n - (s["c"] / n) ** 2) * (s["ii"] / n - (s["i"] / n) ** 2)
    return xr.Dataset({"mass": s["c"] * cell, "energy": s["energy"], "memory": covariance / variances**0.5})


def table(frames: xr.Dataset) -> str:
    """The frames as text."""
    lines = ["    time            mass  relative drift     free energy  memory"]
    for frame in (frames.isel(time=i) for i in range(frames.sizes["time"])):
        drift = float(frame.mass / frames.mass[0] - 1)
        lines.append(
            f"{float(frame.time):8g}  {float(frame.mass):14.6f}  {drift:14.1e}  "
            f"{float(frame.energy):14.3f}  {float(frame.memory):6.3f}"
        )
    return "\n".join(lines)


def draw(image: xr.DataArray, run: xr.Dataset, frames: xr.Dataset) -> Figure:
    """The tomogram and four frames as cubes; free energy and memory over time."""
    last = run.sizes["time"] - 1
    chosen = sorted({0, round(0.2 * last), round(0.4 * last), last})
    figure = Figure(figsize=(12, 5.4), dpi=110, layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.4, 1))
    panels = above.subplots(1, 1 + len(chosen))
    solid(panels[0], image, LinearSegmentedColormap.from_list("sample", ["#3b4754", "#f4efe6"]))
    panels[0].set_title("tomogram")
    for ax, i in zip(panels[1:], chosen, strict=True):
        frame = run.c.isel(time=i)
        drawn = solid(ax, frame, mpl.colormaps["RdYlBu_r"], 0.0, 1.0)
        ax.set_title(f"t = {float(frame.time):g}")
    above.colorbar(drawn, ax=panels, label="composition c", shrink=0.75, pad=0.01)
    curves = {"energy": "free energy", "memory": "memory: correlation of c with the tomogram"}
    for ax, (name, title) in zip(below.subplots(1, 2), curves.items(), strict=True):
        ax.plot(frames.time, frames[name], "o-", color="#313695", markersize=4, clip_on=False)
        ax.set_title(title, fontsize="medium")
        ax.set_xlabel("time (h³ / D)")
        ax.set_ylim(bottom=0)
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def solid(
    ax: Axes, field: xr.DataArray, cmap: Colormap, lowest: float | None = None, highest: float | None = None
) -> AxesImage:
    """A volume seen from a corner: its three faces there, which are all that is loaded; an area as it is."""
    ax.set_aspect("equal")
    ax.set_axis_off()
    grid = vd.Grid.from_dataset(field)
    size = np.multiply(grid.shape, grid.spacing) / max(np.multiply(grid.shape, grid.spacing))
    if field.ndim == 2:
        extent = (0, size[1], 0, size[0])
        return ax.imshow(field.values, cmap=cmap, vmin=lowest, vmax=highest, extent=extent, origin="lower")
    up, left, right = size[:, None] * [(0, 1), (-np.sqrt(3) / 2, 1 / 2), (np.sqrt(3) / 2, 1 / 2)]
    here = np.zeros(2)
    top, front, side = dask.compute(field[-1], field[:, 0], field[:, :, 0])
    faces = [(top, up, right, left, 0.0), (front, here, right, up, 0.1), (side, here, left, up, 0.25)]
    lowest = min(float(face.min()) for face, *_ in faces) if lowest is None else lowest
    highest = max(float(face.max()) for face, *_ in faces) if highest is None else highest
    for face, origin, across, along, shade in faces:
        drawn = ax.imshow(face.values, cmap=cmap, vmin=lowest, vmax=highest, extent=(0, 1, 0, 1), origin="lower")
        drawn.set_transform(Affine2D.from_values(*across, *along, *origin) + ax.transData)
        corners = [origin, origin + across, origin + across + along, origin + along]
        ax.add_patch(Polygon(corners, facecolor=(0, 0, 0, shade), edgecolor="black", linewidth=0.8))
    ax.set_xlim(left[0] - 0.02, right[0] + 0.02)
    ax.set_ylim(-0.02, up[1] + left[1] + right[1] + 0.02)
    return drawn


if __name__ == "__main__":
    main()
