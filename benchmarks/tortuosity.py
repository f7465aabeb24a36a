"""How fast is tortuosity, how does it grow with the image, and does the peer agree?

Physics: steady diffusion through one phase of voxel images, from face to face, float32: smoothed noise of two
porosities, overlapping spheres, and a tomogram of an electrode.
Cost: about ten minutes on two cores, and 30 GB of disk and more minutes for 1024^3 voxels under 2 GB; the peer takes
half an hour beside.
Command: ``python benchmarks/tortuosity.py``; with the peer (taufactor, in an environment of its own)
``--peer-python PATH``; with a tomogram ``--image electrode.tiff``; ``--only growth`` for a part.

The error of a figure is against the same image solved in float64 to 1e-9. Prints tables, and JSON as the last line.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import xarray as xr
from distributed import Client, LocalCluster

import voxdask as vd
from voxdask import backend

PEER = Path(__file__).with_name("peer_taufactor.py")
THREADS = backend.cpu_count()
PARTS = ("growth", "agreement", "race", "spilled", "cluster")


def noise(size: int, porosity: float, coarse: int = 128) -> np.ndarray:
    """Smoothed noise above a threshold: the same medium at every size, made at `coarse`^3 and refined."""
    rough = np.random.default_rng(0).standard_normal((coarse,) * 3, dtype=np.float32)
    smooth = scipy.ndimage.gaussian_filter(rough, 3.0, mode="wrap")
    if size != coarse:
        smooth = scipy.ndimage.zoom(smooth, size / coarse, order=1, mode="grid-wrap", grid_mode=True)
    cut = np.quantile(smooth.ravel()[:: max(1, smooth.size // 4_000_000)], 1 - porosity)
    return (smooth > cut).astype(np.uint8)


def spheres(size: int, share: float = 0.6) -> np.ndarray:
    """Pores between overlapping spheres of a twelfth of the size, at random places, to a share of the volume."""
    rng, radius = np.random.default_rng(1), size / 12
    reach = int(np.ceil(radius))
    offset = np.arange(-reach, reach + 1)
    ball = offset[:, None, None] ** 2 + offset[:, None] ** 2 + offset**2 <= radius**2
    solid = np.zeros((size,) * 3, bool)
    count = round(-np.log(1 - share) * size**3 / ball.sum())
    for middle in rng.random((count, 3)):
        places = np.ix_(*((int(m * size) + offset) % size for m in middle))
        solid[places] |= ball
    return (~solid).astype(np.uint8)


MEDIA = {
    "noise 0.5": lambda size: noise(size, 0.5),
    "noise 0.25": lambda size: noise(size, 0.25),
    "spheres 0.4": spheres,
}


def as_image(array: np.ndarray) -> xr.DataArray:
    """Of an array that is 1 where it conducts."""
    return vd.dataset({"image": array}).image


def growth(media: tuple[str, ...], sizes: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Iterations, time and memory by size, to 1e-3."""
    rows = []
    for name in media:
        for size in sizes:
            image = as_image(MEDIA[name](size))
            vd.tortuosity(image.isel(z=slice(8), y=slice(8), x=slice(8)), direction="z")
            found = [vd.tortuosity(image, direction="z", tolerance=1e-3) for _ in range(rounds)]
            sharp = vd.tortuosity(image, direction="z", tolerance=1e-6) if size <= 256 else found[0]
            rows.append(
                {
                    "medium": name,
                    "size": size,
                    "tau": found[0].tau,
                    "error": abs(found[0].tau / sharp.tau - 1),
                    "iterations": found[0].iterations,
                    "iterations to 1e-6": sharp.iterations,
                    "seconds": statistics.median(one.wall_time for one in found),
                    "ns per voxel": statistics.median(one.wall_time for one in found) / size**3 * 1e9,
                    "bytes per voxel": max(one.peak_memory for one in found) / size**3,
                }
            )
            print_row(rows[-1])
    return rows


def agreement(path: str | None, crop: int | None, python: str | None, iterations: int) -> list[dict[str, Any]]:
    """Every phase and direction of a tomogram, and of random media, beside the peer."""
    images = {}
    if path:
        image = vd.open_image(path).image
        image = image.isel({dim: slice(crop) for dim in image.dims}).load()
        for phase in np.unique(image):
            for dim in image.dims:
                images[f"phase {phase}, {dim}"] = np.moveaxis((image.values == phase), image.dims.index(dim), 0)
    images |= {name: make(64) for name, make in MEDIA.items()}
    rows = []
    for name, array in images.items():
        array = np.ascontiguousarray(array).astype(np.uint8)
        found = vd.tortuosity(as_image(array), direction="z", tolerance=1e-4)
        row = {"image": name, "tau": found.tau, "error": found.error, "seconds": found.wall_time}
        row["flux spread"] = float(np.ptp(found.flux.values) / found.flux.mean())
        if python:
            peer = run_peer(python, array, iterations)
            row |= {"peer": peer["history"][-1][1], "peer seconds": peer["history"][-1][2]}
            row |= {"peer converged": peer["converged"], "apart": row["peer"] / found.tau - 1}
        rows.append(row)
        print_row(row)
    return rows


def race(media: tuple[str, ...], size: int, python: str | None, iterations: int) -> list[dict[str, Any]]:
    """Seconds until tau is within 1e-3 of its converged value, beside the peer."""
    rows = []
    for name in media:
        array = MEDIA[name](size)
        image = as_image(array)
        exact = vd.tortuosity(image, direction="z", tolerance=1e-8, dtype="float64", iterations=300).tau
        found = [vd.tortuosity(image, direction="z", tolerance=1e-3) for _ in range(3)]
        row = {"medium": name, "size": size, "exact": exact, "error": found[0].tau / exact - 1}
        row["seconds"] = statistics.median(one.wall_time for one in found)
        if python:
            peer = run_peer(python, array, iterations)
            there = [t for _, tau, t in peer["history"] if abs(tau / exact - 1) < 1e-3]
            last = peer["history"][-1]
            row |= {"peer reached 1e-3": bool(there), "peer seconds": there[0] if there else last[2]}
            row |= {"peer error at end": last[1] / exact - 1, "times faster": row["peer seconds"] / row["seconds"]}
        rows.append(row)
        print_row(row)
    return rows


def spilled(size: int, limit: str, folder: str | None) -> list[dict[str, Any]]:
    """A large image, in a file, under a small limit."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        path = f"{place}/image.npy"
        np.save(path, noise(size, 0.5))
        corner = vd.open_image(path).image.isel(z=slice(64), y=slice(64), x=slice(64))
        vd.tortuosity(corner, direction="z", memory_limit="4MB", store=place)
        found = vd.tortuosity(path, direction="z", tolerance=1e-3, memory_limit=limit, store=place)
    row = {"medium": "noise 0.5", "size": size, "limit": limit, "tau": found.tau, "error": found.error}
    row |= {"iterations": found.iterations, "seconds": found.wall_time, "peak": found.peak_memory}
    row["ns per voxel"] = found.wall_time / size**3 * 1e9
    print_row(row)
    return [row]


def cluster(sizes: tuple[int, ...], rounds: int, folder: str | None) -> list[dict[str, Any]]:
    """The same image, from a file, by all threads here, and by as many processes of one thread each."""
    rows = []
    options: dict[str, Any] = {"n_workers": THREADS, "threads_per_worker": 1, "host": "127.0.0.1"}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = f"{place}/image.npy"
            np.save(path, noise(size, 0.5))
            corner = vd.open_image(path).image.isel(z=slice(128), y=slice(128), x=slice(128))
            vd.tortuosity(corner, direction="z")
            here = [vd.tortuosity(path, direction="z", tolerance=1e-3) for _ in range(rounds)]
            with LocalCluster(dashboard_address="127.0.0.1:0", **options) as processes, Client(processes):
                vd.tortuosity(corner, direction="z")
                there = [vd.tortuosity(path, direction="z", tolerance=1e-3) for _ in range(rounds)]
        row = {"medium": "noise 0.5", "size": size, "processes": THREADS, "iterations": there[0].iterations}
        row |= {"apart": there[0].tau / here[0].tau - 1, "seconds": statistics.median(one.wall_time for one in there)}
        row["seconds here"] = statistics.median(one.wall_time for one in here)
        row["times longer"] = row["seconds"] / row["seconds here"]
        row["bytes per voxel of a process"] = max(one.peak_memory for one in there) / (size**3 / THREADS)
        rows.append(row)
        print_row(row)
    return rows


def run_peer(python: str, array: np.ndarray, iterations: int) -> dict[str, Any]:
    """The peer's word on an image, from its own process."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/image.npy"
        np.save(path, array)
        command = [python, str(PEER), path, str(iterations), str(THREADS)]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def print_row(row: dict[str, Any]) -> None:
    """A line of a table."""
    cells = (f"{name} {value:.5g}" if isinstance(value, float) else f"{name} {value}" for name, value in row.items())
    print("  " + ", ".join(cells), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the parts that were asked for."""
    summary, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--sizes", type=int, nargs="+", default=(128, 256, 512), help="of the parts growth and cluster")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--race-size", type=int, default=256)
    parser.add_argument("--spilled-size", type=int, default=1024)
    parser.add_argument("--memory-limit", default="2GB", help="of the part spilled")
    parser.add_argument("--store", help="folder for images in files")
    parser.add_argument("--media", nargs="+", choices=list(MEDIA), default=list(MEDIA), help="of growth and race")
    parser.add_argument("--image", help="a tomogram for the part agreement")
    parser.add_argument("--crop", type=int, help="edge of the corner of it that is taken")
    parser.add_argument("--peer-python", help="a Python that has taufactor")
    parser.add_argument("--peer-iterations", type=int, default=3000)
    parser.add_argument("--output", type=Path, help="file for the JSON")
    args = parser.parse_args(argv)
    run = {
        "growth": lambda: growth(tuple(args.media), tuple(args.sizes), args.rounds),
        "agreement": lambda: agreement(args.image, args.crop, args.peer_python, args.peer_iterations),
        "race": lambda: race(tuple(args.media), args.race_size, args.peer_python, args.peer_iterations),
        "cluster": lambda: cluster(tuple(args.sizes), args.rounds, args.store),
        "spilled": lambda: spilled(args.spilled_size, args.memory_limit, args.store),
    }
    result: dict[str, Any] = {"machine": platform.processor() or platform.machine(), "threads": THREADS}
    for part in args.only:
        print(part, flush=True)
        result[part] = run[part]()
    text = json.dumps(result, default=float)
    if args.output:
        args.output.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
