"""Memory that is used again: fresh pages cost more than the arithmetic on them."""

from __future__ import annotations

import ctypes
import math
import mmap
import os
import platform
import threading
import weakref
from functools import cache
from typing import Any

import numpy as np

#: Arrays below this size are left to the allocator, which keeps them anyway.
_LEAST = 1 << 20
#: Options of the GNU allocator (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD), with the largest values that it chooses by itself.
_ALLOCATOR = {-3: 32 << 20, -1: 64 << 20}


@cache
def keep_freed() -> None:
    """On a worker, have the allocator keep what arrays give up, as it does in other processes.

    Dask starts workers with ``MALLOC_TRIM_THRESHOLD_=65536``, so that memory goes back to the system with every array.
    Then transforms, which make one of a megabyte for every few rows, take twice as long for the fresh pages. Another
    value is left alone.
    """
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") == "65536" and platform.libc_ver()[0] == "glibc":
        library = ctypes.CDLL(None)
        for option, most in _ALLOCATOR.items():
            library.mallopt(option, most)


def pages(size: int) -> np.ndarray:
    """Bytes in pages of their own, which the system has back with the last reference; zero."""
    # an allocator would keep what is given up for arrays of that size, beside others of the next sweep
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    memory = mmap.mmap(-1, max(size, 1), **private)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.uint8)


class Recycler:
    """Gives out arrays, and takes their memory back with the last reference to them or to a view of them.

    Parameters
    ----------
    most : int
        Bytes that are kept for those to come; what comes back beyond that is given up.

    Examples
    --------
    >>> recycler = Recycler(1 << 24)
    >>> a = recycler.empty((1024, 1024), np.float32)
    >>> place = a.ctypes.data
    >>> view = a[1:]
    >>> del a, view
    >>> recycler.empty((1024, 1024), np.float32).ctypes.data == place
    True
    """

    def __init__(self, most: int = 1 << 40) -> None:
        self.most = most
        self._free: dict[int, list[np.ndarray]] = {}
        self._kept = 0
        self._lock = threading.RLock()  # a reference may go, and memory come back, at any moment

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An uninitialised array."""
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        if size < _LEAST:
            return np.empty(shape, dtype)
        with self._lock:
            waiting = self._free.get(size)
            memory = waiting.pop() if waiting else None
            if memory is not None:
                self._kept -= size
        if memory is None:
            memory = np.empty(size, np.uint8)
        # NumPy lets views refer to the owner of memory; a memoryview between makes that the array that is watched
        owner = np.frombuffer(memory.data, np.uint8)
        weakref.finalize(owner, self._take_back, memory).atexit = False
        array: np.ndarray = owner.view(dtype).reshape(shape)
        return array

    def clear(self) -> None:
        """Give up what is kept."""
        with self._lock:
            self._free.clear()
            self._kept = 0

    def _take_back(self, memory: np.ndarray) -> None:
        with self._lock:
            if self._kept + memory.nbytes <= self.most:
                self._free.setdefault(memory.nbytes, []).append(memory)
                self._kept += memory.nbytes
