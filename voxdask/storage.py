"""Where the fields and spectra of a run lie: in memory, or in files a slab at a time.

Both kinds answer the same questions, so that a sweep does not know which it has. What is asked for is
whole slabs of rows and whole pencils of columns; in memory these are views, from files they are read into
buffers that a thread uses again and again. ``done`` gives back what was written to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from voxdask import backend
from voxdask.boundary import Axis
from voxdask.chunkfiles import ChunkFiles
from voxdask.halo import ArrayRows, PieceRows, Rows
from voxdask.pencil import tiles
from voxdask.tiles import Workspace


class FieldStorage(Protocol):
    """One field of a state."""

    def window(self, lo: int, hi: int, depth: int, first: Axis, name: str) -> Rows:
        """Rows [lo, hi) and all that their ghost layers of a depth touch, ready to be read in tiles."""
        ...

    def slab(self, lo: int, hi: int, name: str, *, filled: bool) -> Any:
        """A block to write rows [lo, hi) to; `filled` with what is there."""
        ...

    def done(self, lo: int, block: Any) -> None:
        """The rows of a slab are written."""
        ...

    def read_rows(self, lo: int, hi: int) -> Any:
        """A copy or view of rows [lo, hi), good until this thread asks for others."""
        ...


class SpectrumStorage(Protocol):
    """The spectrum between two sweeps; slabs and pencils as they were cut when it was made."""

    def slab(self, lo: int, hi: int, *, filled: bool) -> Any: ...
    def slab_done(self, lo: int, block: Any) -> None: ...
    def pencil(self, start: int, stop: int, *, filled: bool = True) -> Any: ...
    def pencil_done(self, start: int, block: Any) -> None: ...


class FieldInMemory:
    """A field in one array."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def window(self, lo: int, hi: int, depth: int, first: Axis, name: str) -> Rows:
        return ArrayRows(self.array)

    def slab(self, lo: int, hi: int, name: str, *, filled: bool) -> Any:
        return self.array[lo:hi]

    def done(self, lo: int, block: Any) -> None:
        """The block is the array."""

    def read_rows(self, lo: int, hi: int) -> Any:
        return self.array[lo:hi]


class FieldInFiles:
    """A field in chunk files as thick as a slab."""

    def __init__(self, files: ChunkFiles, workspace: Workspace) -> None:
        self.files, self.workspace = files, workspace

    def window(self, lo: int, hi: int, depth: int, first: Axis, name: str) -> Rows:
        inside_lo, inside_hi = max(lo - depth, 0), min(hi + depth, first.size)
        pieces = [(inside_lo, self._read(inside_lo, inside_hi, f"window_{name}"))]
        if first.periodic and depth:
            outside = (*range(lo - depth, inside_lo), *range(inside_hi, hi + depth))
            rows = {first.ghost(p).source for p in outside} - {*range(inside_lo, inside_hi)}
            pieces += [(row, self.files.read_rows(row, row + 1)) for row in rows]
        return PieceRows(pieces)

    def slab(self, lo: int, hi: int, name: str, *, filled: bool) -> Any:
        if filled:
            return self._read(lo, hi, f"slab_{name}")
        return self.workspace.empty(f"slab_{name}", (hi - lo, *self.files.shape[1:]), self.files.dtype)

    def done(self, lo: int, block: Any) -> None:
        self.files.write_rows(lo, block)

    def read_rows(self, lo: int, hi: int) -> Any:
        return self._read(lo, hi, "rows")

    def _read(self, lo: int, hi: int, name: str) -> Any:
        shape = (hi - lo, *self.files.shape[1:])
        return self.files.read_rows(lo, hi, self.workspace.empty(name, shape, self.files.dtype))


class SpectrumInMemory:
    """A spectrum in one array."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def slab(self, lo: int, hi: int, *, filled: bool) -> Any:
        return self.array[lo:hi]

    def slab_done(self, lo: int, block: Any) -> None:
        """The block is the array."""

    def pencil(self, start: int, stop: int, *, filled: bool = True) -> Any:
        return self.array[:, start:stop]

    def pencil_done(self, start: int, block: Any) -> None:
        """The block is the array."""


class SpectrumInFiles:
    """A spectrum in chunk files, each the crossing of a slab and a pencil, so that whole chunks are written."""

    def __init__(self, files: ChunkFiles, workspace: Workspace, name: str) -> None:
        self.files, self.workspace, self.name = files, workspace, name
        self.slabs = tiles(files.shape[0], files.chunks[0])
        self.pencils = tiles(files.shape[1], files.chunks[1])
        self._rest = (0,) * (len(files.shape) - 2)

    def slab(self, lo: int, hi: int, *, filled: bool) -> Any:
        block = self.workspace.empty(self.name, (hi - lo, *self.files.shape[1:]), self.files.dtype)
        for j, (start, stop) in enumerate(self.pencils) if filled else ():
            block[:, start:stop] = self._read(lo // self.files.chunks[0], j)
        return block

    def slab_done(self, lo: int, block: Any) -> None:
        for j, (start, stop) in enumerate(self.pencils):
            self._write(lo // self.files.chunks[0], j, block[:, start:stop])

    def pencil(self, start: int, stop: int, *, filled: bool = True) -> Any:
        shape = (self.files.shape[0], stop - start, *self.files.shape[2:])
        block = self.workspace.empty(self.name, shape, self.files.dtype)
        for i, (lo, hi) in enumerate(self.slabs) if filled else ():
            block[lo:hi] = self._read(i, start // self.files.chunks[1])
        return block

    def pencil_done(self, start: int, block: Any) -> None:
        for i, (lo, hi) in enumerate(self.slabs):
            self._write(i, start // self.files.chunks[1], block[lo:hi])

    def _read(self, i: int, j: int) -> Any:
        index = (i, j, *self._rest)
        shape = self.files.chunk_shape(index)
        return self.files.read_chunk(index, self.workspace.empty("crossing", shape, self.files.dtype))

    def _write(self, i: int, j: int, block: Any) -> None:
        crossing = self.workspace.empty("crossing", block.shape, block.dtype)
        crossing[...] = block
        self.files.write_chunk((i, j, *self._rest), crossing)


class MemoryPool:
    """Makes fields and spectra in memory like a given array, and takes fields back."""

    def __init__(self, like: Any) -> None:
        self.xp = backend.namespace(like)
        self.like = like if self.xp is not np else None
        self.free: list[FieldInMemory] = []

    def field(self, shape: tuple[int, ...], dtype: Any) -> FieldStorage:
        return self.free.pop() if self.free else FieldInMemory(self.xp.empty(shape, dtype))

    def spectrum(self, shape: tuple[int, ...], dtype: Any, name: str, *, whole: bool = False) -> SpectrumStorage:
        return SpectrumInMemory(self.xp.empty(shape, dtype))


class FilePool:
    """Makes fields and spectra in scratch files, and takes fields back.

    Parameters
    ----------
    scratch : callable
        ``scratch(name, shape, chunks, dtype)`` makes an array of chunk files.
    rows, columns : int
        Thickness of a slab and width of a pencil.
    workspace : Workspace
        For what is read.
    """

    like = None

    def __init__(self, scratch: Callable[..., ChunkFiles], rows: int, columns: int, workspace: Workspace) -> None:
        self.scratch, self.rows, self.columns, self.workspace = scratch, rows, columns, workspace
        self.free: list[FieldInFiles] = []
        self.count = 0

    def field(self, shape: tuple[int, ...], dtype: Any) -> FieldStorage:
        if self.free:
            return self.free.pop()
        self.count += 1
        files = self.scratch(f"register{self.count}", shape, (self.rows, *shape[1:]), dtype)
        return FieldInFiles(files, self.workspace)

    def spectrum(self, shape: tuple[int, ...], dtype: Any, name: str, *, whole: bool = False) -> SpectrumStorage:
        """A spectrum in crossings of slabs and pencils; in `whole` pencils if it is read in no other way."""
        chunks = (shape[0] if whole else self.rows, self.columns, *shape[2:])
        name = f"spectrum_{name}"
        return SpectrumInFiles(self.scratch(name, shape, chunks, dtype), self.workspace, name)
