"""How much do the phases of an electrode hinder transport, by phase and direction?

Physics: steady diffusion from one face of a segmented tomogram to the other, in one phase at a time. With porosity
epsilon and effective diffusivity D_eff, the tortuosity factor is tau = epsilon D / D_eff: 1 for straight channels. A
blocking electrode, whose pores are filled from one side and charge all their walls, has another, tau_e, the one that an
impedance measurement sees; dead ends count for it. Without --image a sample of three phases is made up.

Answer: of a tomogram of 256^3 voxels with three labels, phase 85 hinders by 8.7 to 10.0, phase 0 by 2.1 to 2.2, phase
170 by 7.6 to 9.5, each to a tenth of a per mille: directions differ, as the sample is no larger than it must be.

Cost: 96^3 voxels, the default, take ten seconds on two cores, and as many once to compile; 256^3 a minute or two.

    python examples/tortuosity_of_an_electrode.py
    python examples/tortuosity_of_an_electrode.py --image electrode.tiff
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scipy.ndimage
import xarray as xr
from matplotlib.figure import Figure

import voxdask as vd


def main(argv: Sequence[str] | None = None) -> xr.Dataset:
    """Run the example as from the command line; return tau by phase and direction."""
    args = parse(argv)
    try:
        return study(args)
    except (OSError, ValueError, MemoryError) as error:
        raise SystemExit(f"tortuosity_of_an_electrode.py: {error}") from error


def study(args: argparse.Namespace) -> xr.Dataset:
    """Image, solves, table, picture."""
    image = crop(args.image, args.size) if args.image else sample(args.size or 96, args.seed)
    phases = [int(label) for label in np.unique(image)]
    found = {
        (phase, dim): vd.tortuosity(image, phase=phase, direction=dim, memory_limit=args.memory_limit)
        for phase in phases
        for dim in image.dims
    }
    electrodes = {
        (phase, dim): vd.electrode_tortuosity(
            image, phase=phase, direction=dim, moments=1, memory_limit=args.memory_limit
        )
        for phase in phases
        for dim in image.dims
    }
    coords = {"phase": phases, "direction": list(image.dims)}
    results = xr.Dataset(
        {
            name: (("phase", "direction"), [[getattr(of[p, d], key) for d in image.dims] for p in phases])
            for name, of, key in (
                ("tau", found, "tau"),
                ("tau_e", electrodes, "tau"),
                ("porosity", found, "porosity"),
                ("percolating", found, "percolating_porosity"),
                ("error", found, "error"),
                ("seconds", found, "wall_time"),
            )
        },
        coords,
    )
    print(table(results))
    best = min(found.values(), key=lambda one: abs(one.tau) if np.isfinite(one.tau) else np.inf)
    shown = found[args.phase, image.dims[-1]] if args.phase in phases else best
    draw(image, shown).savefig(args.output / "tortuosity.png")
    print(args.output / "tortuosity.png")
    return results


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--image", help="a segmented TIFF; without it, a sample is made up")
    parser.add_argument("--size", type=int, help="edge of the volume or crop (default: 96, or the whole image)")
    parser.add_argument("--phase", type=int, default=85, help="label of the phase in the picture (default: 85)")
    parser.add_argument("--memory-limit", help='such as "1GB"; beyond it, fields go to files')
    parser.add_argument("--output", type=Path, default=Path(), help="folder for tortuosity.png (default: .)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")
    args = parser.parse_args(argv)
    if args.size is not None and args.size < 16:
        parser.error(f"--size is {args.size}; it must be at least 16")
    if args.seed < 0:
        parser.error(f"--seed is {args.seed}; it must not be negative")
    args.output.mkdir(parents=True, exist_ok=True)
    return args


def crop(path: str, size: int | None) -> xr.DataArray:
    """The image, or the first corner of it."""
    image = vd.open_image(path).image
    if size is not None and size > min(image.shape):
        raise ValueError(f"--size is {size}, but {path} has {' x '.join(map(str, image.shape))} voxels")
    return image.isel({dim: slice(size) for dim in image.dims}).load()


def sample(size: int, seed: int) -> xr.DataArray:
    """Three phases of smoothed noise: solid 0, pores 85, and a binder 170 between them."""
    noise = np.random.default_rng(seed).standard_normal((size,) * 3)
    smooth = scipy.ndimage.gaussian_filter(noise, (3.0, 3.0, 4.0), mode="wrap")
    low, high = np.quantile(smooth, (0.4, 0.5))
    return vd.dataset({"image": np.select([smooth < low, smooth < high], [85, 170], 0).astype(np.uint8)}).image


def table(results: xr.Dataset) -> str:
    """Every phase and direction as text."""
    lines = ["phase  porosity  percolating  direction       tau     tau_e   error  seconds"]
    for phase in results.phase.values:
        for dim in results.direction.values:
            one = results.sel(phase=phase, direction=dim)
            shares = f"{phase:5d}  {float(one.porosity):8.4f}  {float(one.percolating):11.4f}  {dim:>9}"
            factors = f"{float(one.tau):8.4f}  {float(one.tau_e):8.4f}"
            lines.append(f"{shares}  {factors}  {float(one.error):.0e}  {float(one.seconds):7.1f}")
    return "\n".join(lines)


def draw(image: xr.DataArray, found: vd.Tortuosity) -> Figure:
    """A slice of the image, the flux through it, and how even the flux is along the direction."""
    figure = Figure(figsize=(14, 4.2), dpi=110, layout="constrained")
    first, second, third = figure.subplots(1, 3)
    middle = {image.dims[0]: image.sizes[image.dims[0]] // 2}
    first.imshow(image.isel(middle), cmap="Greys", origin="lower")
    labels = ", ".join(map(str, np.unique(image.isel(middle))))
    first.set_title(f"labels {labels}, from white to black")
    c = found.field
    around = {dim: slice(0, c.sizes[dim]) for dim in c.dims}
    around[image.dims[0]] = slice(max(0, middle[image.dims[0]] - 1), middle[image.dims[0]] + 2)
    block = np.asarray(c.isel(around))
    fluxes = [through_faces(block, axis) for axis in range(block.ndim)]
    flux = np.sqrt(np.sum(np.square(fluxes), axis=0))[len(block) // 2] * c.sizes[found.direction]
    drawn = second.imshow(flux, cmap="inferno", origin="lower", vmax=np.nanquantile(flux, 0.99))
    second.set_title(f"flux along {found.direction}, over that without obstacles")
    figure.colorbar(drawn, ax=second, shrink=0.85)
    for ax in (first, second):
        ax.set_axis_off()
    third.plot(found.profile[found.direction], found.profile, color="#1b5e7d", label="of each layer")
    third.axhline(found.tau, color="#c0612b", linestyle="--", label=f"tau = {found.tau:.4g}")
    third.set(xlabel=found.direction, ylabel="tortuosity factor")
    third.legend(frameon=False)
    third.spines[["top", "right"]].set_visible(False)
    return figure


def through_faces(c: np.ndarray, axis: int) -> np.ndarray:
    """What flows along an axis, the mean of both faces of a voxel; nothing does through a wall, where c is NaN."""
    between = np.nan_to_num(np.diff(c, axis=axis))
    wide = [(1, 1) if a == axis else (0, 0) for a in range(c.ndim)]
    padded = np.moveaxis(np.pad(between, wide), axis, 0)
    return np.where(np.isnan(c), np.nan, np.moveaxis(padded[1:] + padded[:-1], 0, axis) / 2)


if __name__ == "__main__":
    main()
