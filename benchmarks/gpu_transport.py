"""The part of `gpu.py` that is about effective properties: are they right on the GPU, and how soon are they known?

Physics: steady diffusion through smoothed noise of a porosity of a half, in both precisions.
"""

from __future__ import annotations

import argparse
from typing import Any

import tortuosity as library
import xarray as xr

import voxdask as vd
from voxdask import backend

DTYPES = ("float32", "float64")
#: How far results on the GPU may be from those on the CPU, of solves to a hundredth of that.
TOLERANCE = 1e-3


def transport(options: argparse.Namespace) -> tuple[dict[str, Any], list[tuple[str, ...]]]:
    """Results beside those of the CPU on a small image; whole calls to two tolerances, and what an iteration takes."""
    found: dict[str, Any] = {"wrong": 0}
    rows: list[tuple[str, ...]] = [("effective property, apart from the CPU", *DTYPES)]
    small = library.as_image(library.noise(options.check_size, 0.5))
    for name, measure in _MEASURES.items():
        apart = [abs(measure(small, dtype, "gpu") / measure(small, dtype, "cpu") - 1) for dtype in DTYPES]
        found[name] = apart
        found["wrong"] += sum(not error <= TOLERANCE for error in apart)
        rows.append((name, *(f"{error:.1e}" if error <= TOLERANCE else f"WRONG {error:.1e}" for error in apart)))
    rows.append(("tortuosity", "size", "seconds", "iterations", "ns/voxel/iteration", "bytes/voxel"))
    image, voxels = library.as_image(library.noise(options.size, 0.5)), options.size**3
    pool = backend.cupy.get_default_memory_pool()
    for device in ("cpu", "gpu"):
        vd.tortuosity(small, direction="z", device=device)
        pool.free_all_blocks()
        before = pool.total_bytes()
        soon, sharp = (
            vd.tortuosity(image, direction="z", device=device, tolerance=tolerance) for tolerance in (1e-3, 1e-5)
        )
        more = max(sharp.iterations - soon.iterations, 1)
        figures = {
            "seconds": soon.wall_time, "iterations": soon.iterations, "tau": soon.tau,
            "ns_per_iteration": (sharp.wall_time - soon.wall_time) / more / voxels * 1e9,
            "bytes_per_voxel": (pool.total_bytes() - before) / voxels if device == "gpu" else soon.peak_memory / voxels,
        }  # fmt: skip
        found[f"tortuosity on the {device}"] = figures
        shown = (f"{figures['seconds']:.2f}", str(soon.iterations), f"{figures['ns_per_iteration']:.2f}")
        rows.append((f"on the {device}", f"{options.size}^3", *shown, f"{figures['bytes_per_voxel']:.1f}"))
    return found, rows


def _tau(image: xr.DataArray, dtype: str, device: Any) -> float:
    return vd.tortuosity(image, direction="z", dtype=dtype, device=device, tolerance=1e-5).tau


def _share(image: xr.DataArray, dtype: str, device: Any) -> float:
    share = 0.25 + 0.5 * image
    return vd.tortuosity(share, phase=None, sides="periodic", dtype=dtype, device=device, tolerance=1e-5).tau


def _tensor(image: xr.DataArray, dtype: str, device: Any) -> float:
    given: dict[str, Any] = {"diffusivities": {0: 0.1, 1: 1.0}, "dtype": dtype, "device": device, "tolerance": 1e-5}
    return float(vd.effective_diffusivity(image, **given).tensor.sum())


def _electrode(image: xr.DataArray, dtype: str, device: Any) -> float:
    return vd.electrode_tortuosity(image, moments=3, dtype=dtype, device=device, tolerance=1e-5).tau


_MEASURES = {
    "tortuosity": _tau, "tortuosity of shares, periodic": _share, "sum of a tensor": _tensor, "electrode": _electrode,
}  # fmt: skip
