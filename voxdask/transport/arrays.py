"""Large arrays of a solve: in memory, or in files that are mapped, whose pages are given back behind the sweeps."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
import weakref
from typing import Any

import numpy as np

#: Arrays below this size are never put in files.
_LEAST = 1 << 20


class Arrays:
    """Gives out arrays.

    Parameters
    ----------
    folder : str, optional
        Where files go; None keeps all in memory.

    Examples
    --------
    >>> arrays = Arrays()
    >>> arrays.zeros((2, 3), np.float32).sum(), arrays.spilled
    (np.float32(0.0), False)
    """

    def __init__(self, folder: str | None = None) -> None:
        self.folder = folder
        self._maps: list[weakref.ref[mmap.mmap]] = []  # an array keeps its file; without one, it goes

    @property
    def spilled(self) -> bool:
        """Whether large arrays are in files."""
        return self.folder is not None

    def anew(self) -> Arrays:
        """Arrays of the same kind, of which none was given out."""
        return Arrays(self.folder)

    def zeros(self, shape: int | tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of zeros; OSError if a file's disk has no room for it."""
        shape, dtype = (shape,) if isinstance(shape, int) else shape, np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if self.folder is None or size < _LEAST:
            return np.zeros(shape, dtype)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            _reserve(file.fileno(), size, self.folder)
            mapped = mmap.mmap(file.fileno(), size)
        self._maps.append(weakref.ref(mapped))
        return np.frombuffer(mapped, dtype).reshape(shape)

    def give_back(self) -> None:
        """Let the system have the memory of mapped pages; they are read again where they are used again."""
        for reference in self._maps:
            mapped = reference()
            if mapped is not None:
                mapped.madvise(mmap.MADV_DONTNEED)


def _reserve(file: int, size: int, folder: str) -> None:
    # a page of a mapped file that the disk has no room for would kill the process at the first write
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        else:
            os.truncate(file, size)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: no room for {size:,} bytes of working arrays", folder) from None
