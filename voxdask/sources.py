"""Sources: small, picklable descriptions of where the voxels of a file lie, which dask indexes block by block.

Dask folds the indexing that follows into the same key, so that ``ds.image.isel(z=5)`` reads one page, not its
slab. What every format checks and how it reports a bad file is here, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import tifffile
import zarr

_T = TypeVar("_T")


class Source(Protocol):
    """What dask needs to know of voxels, and how it reads them."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype[Any]: ...
    @property
    def rows(self) -> int: ...  # along the first axis, what is decoded at once
    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray: ...


@dataclass(frozen=True)
class Raw:
    """Uncompressed samples in one piece."""

    path: str
    shape: tuple[int, ...]
    stored: np.dtype[Any]
    offset: int
    order: Any
    stamp: int
    rows: int = 1

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.stored.newbyteorder("=")

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        mapped = np.memmap(self.path, self.stored, "r", self.offset, self.shape, self.order)
        return np.array(mapped[key], self.dtype)


@dataclass(frozen=True)
class Pages:
    """TIFF pages that need a decoder: one that is the whole image, or one per row of the first axis."""

    path: str
    pages: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stamp: int
    rows: int = 1

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        with reading(self.path, "TIFF"), tifffile.TiffFile(self.path) as tif:
            if len(self.pages) == 1:
                return self._region(tif, self.pages[0], key)
            return _gather(self.pages, key, self, lambda page, rest: self._region(tif, page, rest))

    def _region(self, tif: tifffile.TiffFile, index: int, key: tuple[Any, ...]) -> np.ndarray:
        page: Any = tif.pages[index]
        whole = all(
            isinstance(k, slice) and range(n)[k] == range(n) for k, n in zip(key, page.shape, strict=True)
        )
        if whole or not all(isinstance(k, slice | int | np.integer) for k in key):
            # One worker: dask runs as many of these side by side as there are cores.
            return np.asarray(page.asarray(maxworkers=1)[key], self.dtype)
        # Decodes only the strips or tiles that the region touches.
        return np.asarray(zarr.open_array(page.aszarr(maxworkers=1), mode="r")[key], self.dtype)


@dataclass(frozen=True)
class Slices:
    """One 2-D source per row of the first axis."""

    slices: tuple[Source, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    rows: int = 1

    def __getitem__(self, key: tuple[Any, ...]) -> np.ndarray:
        return _gather(self.slices, key, self, lambda part, rest: part[rest])


def _gather(
    parts: Sequence[_T],
    key: tuple[Any, ...],
    source: Source,
    read: Callable[[_T, tuple[Any, ...]], np.ndarray],
) -> np.ndarray:
    """Index a stack of 2-D parts of which only the picked ones are read."""
    picked, rest = np.arange(len(parts))[key[0]], key[1:]
    if picked.ndim == 0:
        return read(parts[int(picked)], rest)
    plane = np.broadcast_to(np.zeros((), source.dtype), source.shape[1:])[rest].shape
    out = np.empty((picked.size, *plane), source.dtype)
    for row, index in enumerate(picked):
        out[row] = read(parts[int(index)], rest)
    return out


class FileError(Exception):
    """What is wrong with a file, without its name, which `reading` adds."""


@contextlib.contextmanager
def reading(path: str, kind: str) -> Iterator[None]:
    """Turn whatever goes wrong with the bytes of a file of that kind into a ``ValueError`` that names it."""
    try:
        yield
    except FileError as refusal:
        raise ValueError(f"{path!r} {refusal}") from None
    except (OSError, ImportError):
        raise
    except Exception as error:  # whatever a parser trips over in bytes that nobody vouched for
        raise ValueError(
            f"{path!r} is not a readable {kind} file ({error}): give a complete, undamaged one"
        ) from error


def check_content(shape: tuple[int, ...], dtype: np.dtype[Any] | None) -> np.dtype[Any]:
    """Raise unless a file of this shape and dtype holds real numbers; return the dtype."""
    if dtype is not None and dtype.kind == "c":
        raise FileError(f"holds complex numbers ({dtype}): save the real part, imaginary part or modulus")
    if dtype is None or dtype.kind not in "biuf":
        raise FileError(f"holds samples of dtype {dtype}: save them as integers, booleans or floats")
    if not shape or 0 in shape:
        raise FileError(f"has shape {shape}, which holds no image: every axis needs at least one voxel")
    return dtype
