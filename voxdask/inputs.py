"""The caller's arrays, of any kind: how their rows are read, looked at and summed up."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
from distributed import futures_of

from voxdask import backend
from voxdask.members import member_of
from voxdask.system import System

#: Copies of a chunk that computing it is taken to need.
_LAZY_COPIES = 8
#: How far fractions may be from their sum at the start.
_TOTAL_TOLERANCE = 1e-3
#: Memory for the chunks of a lazy coefficient while its checksum is taken.
_CHECKSUM_BYTES = 1 << 30


def row_checksums(block: np.ndarray) -> list[int]:
    """A checksum for each row, so that the whole does not depend on how it was cut."""
    return [zlib.crc32(np.ascontiguousarray(row).data) for row in block]


def combine(checksums: Mapping[str, Sequence[int]]) -> str:
    """One checksum of all fields."""
    text = ";".join(f"{name}:{','.join(map(str, rows))}" for name, rows in sorted(checksums.items()))
    return f"{zlib.crc32(text.encode()):08x}"


def checksum_of(array: Any) -> str:
    """A checksum of an array of any kind, read a row at a time."""
    read = reader(array, _CHECKSUM_BYTES)
    return combine({"": [row_checksums(backend.to_host(read(i, i + 1)))[0] for i in range(array.shape[0])]})


def looked_at(name: str, array: Any) -> Any:
    """The array; the blocks of a Dask array, whose shapes Dask takes on trust, are looked at as they are computed."""
    if not isinstance(array, da.Array):
        return array
    return array.map_blocks(partial(_of_its_shape, name, array.chunks), dtype=array.dtype, meta=array._meta)


def _of_its_shape(name: str, chunks: tuple[tuple[int, ...], ...], block: Any, block_id: tuple[int, ...] = ()) -> Any:
    expected = tuple(sizes[i] for sizes, i in zip(chunks, block_id, strict=True))
    if np.shape(block) != expected:
        raise ValueError(
            f"block {block_id} of {name!r} is of shape {np.shape(block)}, its Dask chunks say {expected}; the function "
            "that makes the blocks must keep their shape, or be given chunks= (see dask.array.map_blocks)"
        )
    return block


def reader(array: Any, limit: int) -> Callable[[int, int], Any]:
    """Rows of an array of any kind, for any threads, to be read once each in about their order.

    A Dask array is computed chunk by chunk, each once if there is room for those that were read in part: of n threads
    at most n where they are, and n - 1 between them.
    """
    if not isinstance(array, da.Array):
        return lambda lo, hi: array[lo:hi]
    chunk_bytes = math.prod(max(c) for c in array.chunks) * array.dtype.itemsize * math.prod(array.numblocks[1:])
    room = limit // max(chunk_bytes, 1) - (_LAZY_COPIES - 1)
    # what was persisted is on a cluster, which is asked for it
    scheduler = None if futures_of(array) else "synchronous"
    if room < 1:
        return lambda lo, hi: array[lo:hi].compute(scheduler=scheduler)
    return _LazyRows(array, room, scheduler).read_rows


class _LazyRows:
    """Rows of a Dask array: a chunk is kept until all of its rows were read, as long as there is room for it."""

    def __init__(self, array: da.Array, room: int, scheduler: str | None) -> None:
        self.array, self.room, self.scheduler = array, room, scheduler
        self.bounds = np.cumsum((0, *array.chunks[0]))
        self.unread = list(array.chunks[0])
        self.lock, self.kept = threading.Lock(), dict[int, Any]()

    def read_rows(self, lo: int, hi: int) -> Any:
        first, last = np.searchsorted(self.bounds, [lo, hi - 1], side="right") - 1
        with self.lock:
            parts = []
            for i in range(int(first), int(last) + 1):
                start, stop = self.bounds[i], self.bounds[i + 1]
                if start == stop:  # to make an empty chunk, Dask would compute another
                    continue
                chunk = self._chunk(i)
                parts.append(chunk[max(lo - start, 0) : hi - start])
                self.unread[i] -= len(parts[-1])
                if self.unread[i] > 0:
                    self.kept[i] = chunk
                else:
                    self.unread[i] = stop - start
            return backend.namespace(parts[0]).concatenate(parts)  # a copy, which holds no chunk that has been let go

    def _chunk(self, i: int) -> Any:
        """A chunk, which is taken out of those that are kept, or computed."""
        if i in self.kept:
            return self.kept.pop(i)
        while len(self.kept) >= self.room:
            del self.kept[next(iter(self.kept))]  # nobody has read of it for longest
        return self.array[self.bounds[i] : self.bounds[i + 1]].compute(scheduler=self.scheduler)


def look_rows(system: System, lo: int, blocks: Iterable[tuple[str, Any]]) -> dict[str, list[int]]:
    """Checksums of rows of every field, by name; raises if one is not finite, or members do not sum to their total."""
    checksums: dict[str, list[int]] = {}
    totals: dict[str, Any] = {}
    for name, block in blocks:
        require_finite(name, lo, block)
        checksums[name] = row_checksums(block)
        family = member_of(name)[0]
        if system.total is not None:
            totals[family] = totals[family] + block if family in totals else block
    for family, total in totals.items():
        off = abs(total - system.total)
        if off.max() > _TOTAL_TOLERANCE:
            first, *rest = map(int, np.unravel_index(off.argmax(), off.shape))
            raise ValueError(
                f"the members of {family!r} sum to {total[(first, *rest)]:g} at index {(first + lo, *rest)}; they must "
                f"sum to {system.total:g} in every voxel (divide them by their sum)"
            )
    return checksums


def require_finite(name: str, lo: int, block: np.ndarray) -> None:
    """ValueError that names the first value of a block, rows from `lo`, that is NaN or infinite."""
    if not np.isfinite(block).all():
        where = np.argwhere(~np.isfinite(block))[0]
        where[0] += lo
        raise ValueError(
            f"the field {name!r} holds {block[(where[0] - lo, *where[1:])]} at index {tuple(map(int, where))}; "
            "every value must be finite (replace it, e.g. with ds.fillna)"
        )
