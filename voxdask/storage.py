"""Where the fields and spectra of a streamed run lie: in files, or in host memory when a device works on them.

Rows and columns are copied to and from where they are worked on. A field is in slabs of rows; a spectrum is in
crossings of slabs and pencils, so that whole chunks are written whichever way it is gone through.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from voxdask.backend import finish_transfers, pinned, transfer
from voxdask.chunkfiles import ChunkFiles
from voxdask.pencil import GridTransform, split


class StoredRows(Protocol):
    """Rows of arrays of several names, where they lie between two sweeps."""

    def read(self, name: str, lo: int, hi: int, out: np.ndarray) -> None:
        """Copy rows [lo, hi) to `out`, whose rows may lie apart."""
        ...

    def write(self, name: str, lo: int, block: np.ndarray) -> None:
        """Overwrite the slab that begins at `lo`."""
        ...


class Spectra(StoredRows, Protocol):
    """Spectra between two sweeps, and those that a step keeps from one evaluation to the next."""

    def read_columns(self, name: str, start: int, out: np.ndarray) -> None:
        """Copy every row of the pencil that begins at column `start` to `out`."""
        ...

    def write_columns(self, name: str, start: int, block: np.ndarray) -> None: ...

    def read_saved(self, name: str, kept: str, start: int, out: np.ndarray) -> None:
        """The same of a spectrum that was saved."""
        ...

    def write_saved(self, name: str, kept: str, start: int, block: np.ndarray) -> None: ...


class RowsInFiles:
    """Rows in chunk files as thick as a slab."""

    def __init__(self, files: Mapping[str, ChunkFiles]) -> None:
        self.files = files

    def read(self, name: str, lo: int, hi: int, out: np.ndarray) -> None:
        self.files[name].read_rows(lo, hi, out)

    def write(self, name: str, lo: int, block: np.ndarray) -> None:
        self.files[name].write_rows(lo, block)


class SpectraInFiles:
    """Spectra in chunk files, each the crossing of a slab and a pencil; saved ones in whole pencils.

    The columns of a spectrum are counted from the first that does not stay in memory: these are its `streamed` ones.
    """

    def __init__(
        self, create: Callable[..., ChunkFiles], transform: GridTransform, rows: int, columns: int, streamed: int
    ) -> None:
        self.create, self.transform, self.rows, self.columns = create, transform, rows, columns
        self.streamed = streamed
        self.files: dict[str, ChunkFiles] = {}
        self._lock = threading.Lock()

    def read(self, name: str, lo: int, hi: int, out: np.ndarray) -> None:
        for first, last in split(self.transform.spectrum_shape[0], self.rows):
            a, b = max(lo, first), min(hi, last)
            for start, stop in self._pencils() if a < b else ():
                index = self._index(first // self.rows, start)
                self._crossings(name).read_chunk(index, out[a - lo : b - lo, start:stop], (a - first, b - first))

    def write(self, name: str, lo: int, block: np.ndarray) -> None:
        for start, stop in self._pencils():
            self._crossings(name).write_chunk(self._index(lo // self.rows, start), block[:, start:stop])

    def read_columns(self, name: str, start: int, out: np.ndarray) -> None:
        files = self._crossings(name)
        for lo, hi in split(files.shape[0], self.rows):
            files.read_chunk(self._index(lo // self.rows, start), out[lo:hi])

    def write_columns(self, name: str, start: int, block: np.ndarray) -> None:
        files = self._crossings(name)
        for lo, hi in split(files.shape[0], self.rows):
            files.write_chunk(self._index(lo // self.rows, start), block[lo:hi])

    def read_saved(self, name: str, kept: str, start: int, out: np.ndarray) -> None:
        self._saved(name, kept).read_chunk(self._index(0, start), out)

    def write_saved(self, name: str, kept: str, start: int, block: np.ndarray) -> None:
        self._saved(name, kept).write_chunk(self._index(0, start), block)

    def _pencils(self) -> list[tuple[int, int]]:
        return split(self.streamed, self.columns)

    def _index(self, slab: int, start: int) -> tuple[int, ...]:
        return (slab, start // self.columns, *(0 for _ in self.transform.spectrum_shape[2:]))

    def _crossings(self, name: str) -> ChunkFiles:
        return self._made(f"spectrum_{name}", self.transform.spectrum_shape, self.transform.spectrum_dtype, self.rows)

    def _saved(self, name: str, kept: str) -> ChunkFiles:
        shape = self.transform.modes_shape
        return self._made(f"spectrum_{name}.{kept}", shape, self.transform.modes_dtype, shape[0])

    def _made(self, name: str, shape: tuple[int, ...], dtype: Any, rows: int) -> ChunkFiles:
        with self._lock:
            if name not in self.files:
                whole = (shape[0], self.streamed, *shape[2:])
                self.files[name] = self.create(name, whole, (rows, self.columns, *shape[2:]), dtype)
            return self.files[name]


class RowsInMemory:
    """Rows of arrays in host memory, that a device works on."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.arrays = arrays

    def read(self, name: str, lo: int, hi: int, out: Any) -> None:
        transfer(self.arrays[name][lo:hi], out)

    def write(self, name: str, lo: int, block: Any) -> None:
        transfer(block, self.arrays[name][lo : lo + len(block)])


class SpectraInMemory:
    """Spectra in host memory, that a device works on."""

    def __init__(self, transform: GridTransform) -> None:
        self.transform = transform
        self.arrays: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def read(self, name: str, lo: int, hi: int, out: Any) -> None:
        transfer(self._spectrum(name)[lo:hi], out)

    def write(self, name: str, lo: int, block: Any) -> None:
        transfer(block, self._spectrum(name)[lo : lo + len(block)])

    def read_columns(self, name: str, start: int, out: Any) -> None:
        transfer(self._spectrum(name)[:, start : start + out.shape[1]], out)

    def write_columns(self, name: str, start: int, block: Any) -> None:
        transfer(block, self._spectrum(name)[:, start : start + block.shape[1]])

    def read_saved(self, name: str, kept: str, start: int, out: Any) -> None:
        transfer(self._saved(name, kept)[:, start : start + out.shape[1]], out)

    def write_saved(self, name: str, kept: str, start: int, block: Any) -> None:
        transfer(block, self._saved(name, kept)[:, start : start + block.shape[1]])

    def _spectrum(self, name: str) -> np.ndarray:
        return self._made(name, self.transform.spectrum_shape, self.transform.spectrum_dtype)

    def _saved(self, name: str, kept: str) -> np.ndarray:
        return self._made(f"{name}.{kept}", self.transform.modes_shape, self.transform.modes_dtype)

    def _made(self, name: str, shape: Sequence[int], dtype: Any) -> np.ndarray:
        with self._lock:
            if name not in self.arrays:
                self.arrays[name] = pinned(tuple(shape), dtype)
            return self.arrays[name]


class Staged:
    """What lies in files, for a device: by way of host memory that the bus reads at its full speed."""

    def __init__(self, storage: Any) -> None:
        self.storage, self._local = storage, threading.local()

    def read(self, name: str, lo: int, hi: int, out: Any) -> None:
        self._read(lambda buffer: self.storage.read(name, lo, hi, buffer), out)

    def write(self, name: str, lo: int, block: Any) -> None:
        self.storage.write(name, lo, self._brought(block))

    def read_columns(self, name: str, start: int, out: Any) -> None:
        self._read(lambda buffer: self.storage.read_columns(name, start, buffer), out)

    def write_columns(self, name: str, start: int, block: Any) -> None:
        self.storage.write_columns(name, start, self._brought(block))

    def read_saved(self, name: str, kept: str, start: int, out: Any) -> None:
        self._read(lambda buffer: self.storage.read_saved(name, kept, start, buffer), out)

    def write_saved(self, name: str, kept: str, start: int, block: Any) -> None:
        self.storage.write_saved(name, kept, start, self._brought(block))

    def _read(self, fill: Callable[[np.ndarray], None], out: Any) -> None:
        buffer = self._buffer(out.shape, out.dtype)
        fill(buffer)
        transfer(buffer, out)
        finish_transfers()  # the buffer may be used again

    def _brought(self, block: Any) -> np.ndarray:
        buffer = self._buffer(block.shape, block.dtype)
        transfer(block, buffer)
        finish_transfers()
        return buffer

    def _buffer(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = getattr(self._local, "memory", None)
        if memory is None or memory.nbytes < size:
            self._local.memory = memory = pinned((size,), np.uint8)
        buffer: np.ndarray = memory[:size].view(dtype).reshape(shape)
        return buffer
