"""Lazy openers: a file, or a folder of slices, becomes a dask-backed dataset that no one has read yet."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize

from voxdask.grid import SPATIAL_DIMS, dataset, per_dim
from voxdask.sources import FileError, Raw, Slices, Source, check_content, reading
from voxdask.tiff import Sizes, open_tiff, unit_name

_TIFF_SUFFIXES = (".tif", ".tiff", ".btf", ".tf8")
_SUFFIXES = (*_TIFF_SUFFIXES, ".npy")
_SLAB_BYTES = 64 * 2**20

_METRES = {
    **{"m": Fraction(1), "cm": Fraction(1, 10**2), "mm": Fraction(1, 10**3), "um": Fraction(1, 10**6)},
    **{"nm": Fraction(1, 10**9), "angstrom": Fraction(1, 10**10), "inch": Fraction(254, 10**4)},
}


def open_image(
    path: str | os.PathLike[str],
    *,
    name: str = "image",
    voxel_size: float | Sequence[float] | Mapping[str, float] | None = None,
    unit: str | None = None,
    chunks: Any = "auto",
) -> xr.Dataset:
    """Open an image lazily: its headers are read and checked here, its voxels when they are asked for.

    Reads TIFF (multi-page, tiled, compressed, BigTIFF, ImageJ, OME), NumPy ``.npy``, and a folder or a glob
    of such 2-D slices, stacked in natural order (``s9`` before ``s10``). Tasks open the file by its path, so
    that they run in threads and on any worker that sees the same file system.

    Parameters
    ----------
    path
        A file, a folder of slices, or a glob such as ``"slices/*.tif"``.
    name
        Name of the variable in the dataset.
    voxel_size
        Voxel size in `unit`: one number, one per dim in the order (z, y, x), or a mapping by dim. By default
        what the OME or ImageJ metadata say; 1.0 where they say nothing.
    unit
        Unit of length. By default the one in the metadata, where the voxel size comes from there, else None.
        Where both are given, the size from the metadata is converted.
    chunks
        ``"auto"``: slabs of about 64 MiB along the first axis. A number: rows of a slab along the first axis.
        Otherwise a mapping by dim (an axis left out is whole), or anything that `dask.array` takes.

    Returns
    -------
    xr.Dataset
        One dask-backed variable in the dtype of the file (native byte order), dims the last of (z, y, x).
        Axes of length one beside y and x are dropped from a TIFF.

    Raises
    ------
    FileNotFoundError
        If there is nothing at `path`, or no image in the folder or glob.
    ValueError
        If the file is not an image, is truncated, claims a size that its bytes don't bear out, holds other
        than real numbers, has several channels or times, or gives a voxel size for some axes only; if slices
        differ in shape or dtype; if `chunks` or `voxel_size` don't fit.
    ImportError
        If the compression needs the package imagecodecs.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> np.save(f"{folder.name}/labels.npy", np.zeros((4, 5, 6), np.uint8))
    >>> ds = open_image(f"{folder.name}/labels.npy", voxel_size=0.4, unit="um", chunks=2)
    >>> ds.image.dims, ds.image.dtype, ds.image.chunks[0]
    (('z', 'y', 'x'), dtype('uint8'), (2, 2))
    >>> folder.cleanup()
    """
    found = _find(os.fspath(path))
    source, sizes = _open_file(found) if isinstance(found, str) else _open_slices(found)
    dims = SPATIAL_DIMS[-len(source.shape) :]
    if voxel_size is None:
        spacing, unit = _voxel_size(sizes, dims, unit, os.fspath(path))
    else:
        spacing = per_dim(voxel_size, dims, "voxel_size")
    for dim, size in zip(dims, spacing, strict=True):
        if not (math.isfinite(size) and size > 0):
            raise ValueError(f"voxel_size along {dim!r} is {size}; give one that is positive and finite")
    cut = _chunks(chunks, source, dims)
    array = da.from_array(
        source,
        chunks=cut,
        name=f"{name}-{tokenize(source, cut)}",
        meta=np.empty((0,) * len(dims), source.dtype),
    )
    return dataset({name: array}, spacing=spacing, unit=unit, dims=dims)


def _find(path: str) -> str | list[str]:
    """One file, or a folder's or glob's slices in natural order; absolute, as workers may run elsewhere."""
    supported = ", ".join(_SUFFIXES)
    if os.path.isdir(path):
        names = [n for n in os.listdir(path) if n.lower().endswith(_SUFFIXES) and not n.startswith(".")]
        if not names:
            raise FileNotFoundError(f"folder {path!r} holds no image; supported are {supported}")
        found = [os.path.join(path, n) for n in names]
    elif os.path.exists(path):
        if not path.lower().endswith(_SUFFIXES):
            raise ValueError(f"{path!r} has no known extension; supported are {supported}, folders and globs")
        return os.path.abspath(path)
    else:
        found = glob.glob(path, recursive=True) if glob.has_magic(path) else []
        if not found:
            raise FileNotFoundError(f"nothing at {path!r}: give a file, a folder of slices, or a glob")
    strange = [file for file in found if not file.lower().endswith(_SUFFIXES) or os.path.isdir(file)]
    if strange:
        raise ValueError(f"{strange[0]!r} is not an image file; narrow the glob to one of {supported}")
    return sorted(map(os.path.abspath, found), key=_natural)


def _natural(path: str) -> list[str | int]:
    return [int(part) if part.isdecimal() else part.lower() for part in re.split(r"(\d+)", path)]


def _open_slices(paths: Sequence[str]) -> tuple[Source, Sizes]:
    opened = [_open_file(path) for path in paths]
    first, sizes = opened[0]
    for path, (part, _) in zip(paths, opened, strict=True):
        if len(part.shape) != 2:
            raise ValueError(f"{path!r} has shape {part.shape}: a slice is 2-D; open a volume on its own")
        if (part.shape, part.dtype) != (first.shape, first.dtype):
            raise ValueError(
                f"{path!r} has shape {part.shape} and dtype {part.dtype}, but the first slice {paths[0]!r} "
                f"has {first.shape} and {first.dtype}: slices must agree"
            )
    parts = tuple(part for part, _ in opened)
    return Slices(parts, (len(parts), *first.shape), first.dtype), sizes


def _open_file(path: str) -> tuple[Source, Sizes]:
    return open_tiff(path) if path.lower().endswith(_TIFF_SUFFIXES) else (_open_npy(path), {})


def _open_npy(path: str) -> Source:
    with reading(path, ".npy"):
        with open(path, "rb") as file:
            if file.read(6) != b"\x93NUMPY":
                raise FileError("is not a readable .npy file: write the array with numpy.save")
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
        check_content(mapped.shape, mapped.dtype)
        extra = max(mapped.ndim - 3, 0)
        if any(n != 1 for n in mapped.shape[:extra]):
            raise FileError(f"has shape {mapped.shape}: save one volume of at most three axes")
        order = "C" if mapped.flags.c_contiguous else "F"
        return Raw(path, mapped.shape[extra:], mapped.dtype, mapped.offset, order, os.stat(path).st_mtime_ns)


def _voxel_size(
    sizes: Sizes, dims: Sequence[str], unit: str | None, path: str
) -> tuple[tuple[float, ...], str | None]:
    """What the metadata say, in one unit."""
    missing = [dim for dim in dims if dim not in sizes]
    if len(missing) == len(dims):
        return (1.0,) * len(dims), unit
    if missing:
        raise ValueError(
            f"{path!r} tells the voxel size along {', '.join(sizes)} but not {', '.join(missing)}: "
            f"pass voxel_size=({', '.join(dims)})"
        )
    target = unit_name(unit) if unit is not None else sizes[dims[-1]][1]
    spacing = []
    for size, own in (sizes[dim] for dim in dims):
        if own is None or own == target:
            spacing.append(size)
        elif own in _METRES and target in _METRES:
            spacing.append(size * float(_METRES[own] / _METRES[target]))
        else:
            raise ValueError(f"{path!r} gives its voxel size in {own!r}, not {target!r}: pass voxel_size too")
    return tuple(spacing), unit if unit is not None else target


def _chunks(chunks: Any, source: Source, dims: Sequence[str]) -> Any:
    shape = source.shape
    if isinstance(chunks, str) and chunks == "auto":
        row = math.prod(shape[1:]) * source.dtype.itemsize
        fitting = _SLAB_BYTES // row // source.rows * source.rows
        spec: Any = (min(max(fitting, source.rows), shape[0]), *shape[1:])
    elif isinstance(chunks, int | np.integer) and chunks != -1:
        if chunks < 1:
            raise ValueError(f"chunks={chunks}: a slab has at least one row (-1 takes all in one)")
        spec = (min(int(chunks), shape[0]), *shape[1:])
    elif isinstance(chunks, Mapping):
        unknown = [dim for dim in chunks if dim not in dims]
        if unknown:
            raise ValueError(f"chunks names dim {unknown[0]!r}; the dims of this image are {', '.join(dims)}")
        spec = tuple(chunks.get(dim, -1) for dim in dims)
    else:
        spec = chunks
    return da.core.normalize_chunks(spec, shape=shape, dtype=source.dtype)
