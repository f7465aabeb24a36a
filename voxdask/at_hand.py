"""The rows of streams that are at hand in a sweep: slabs in slots of one piece of memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from voxdask import halo
from voxdask.deferred import Stream
from voxdask.halo import PaddedRows, PieceRows
from voxdask.system import System
from voxdask.windows import Part, Sweep, Turn, aligned


class Window:
    """The rows that are at hand: slabs in slots of one piece of memory, which every sweep cuts up anew.

    A slab of a state or of constants has ghost layers; those along the first axis only where it is reached beyond.
    A slab of spectra is without the columns that are `resident` elsewhere: the first ones.
    """

    def __init__(
        self, system: System, depth: int, streams: Sequence[Stream], sweep: Sweep, memory: Any, resident: int
    ) -> None:
        self.system, self.depth, self.sweep, self.memory, self.resident = system, depth, sweep, memory, resident
        self.numbers = {id(stream): s for s, stream in enumerate(streams)}
        self.kinds = [stream.kind for stream in streams]
        self.ghosts = sweep.chain.ghosts
        self.blocks: dict[Part, dict[str, Any]] = {}
        self.places: dict[Part, int] = {}
        self.heads: list[dict[str, Any]] = []
        place = 0
        for s, rows in enumerate(sweep.heads):
            self.heads.append(self._arrays(s, rows, place) if rows else {})
            place += sweep.chain.widths[s].arrays * aligned(rows * sweep.chain.widths[s].held)
        self.free: dict[int, list[int]] = {}
        for size, count in sweep.slots.items():
            self.free[size] = [place + k * size for k in range(count)]
            place += size * count

    def take(self, parts: Iterable[Part]) -> None:
        """Have room for parts of streams."""
        for part in parts:
            s = part.stream
            self.places[part] = place = self.free[self.sweep.slot_bytes(s)].pop()
            self.blocks[part] = self._arrays(s, part.hi - part.lo + 2 * self.ghosts[s], place)

    def drop(self, parts: Iterable[Part]) -> None:
        """Forget parts."""
        for part in parts:
            del self.blocks[part]
            self.free[self.sweep.slot_bytes(part.stream)].append(self.places.pop(part))

    def rows_of(self, part: Part) -> Iterator[tuple[str, Any]]:
        """The rows of a part, without ghost rows, by name."""
        g = self.ghosts[part.stream]
        return ((name, array[g : g + part.hi - part.lo]) for name, array in self.blocks[part].items())

    def keep_heads(self, parts: Sequence[Part]) -> None:
        """Keep the first rows of a stream for the end of the sweep, where they follow the last ones."""
        for part in parts:
            head = self.heads[part.stream]
            for name, block in self.rows_of(part) if head else ():
                if 0 <= part.lo < len(head[name]):
                    rows = head[name][part.lo : part.hi]
                    rows[...] = block[: len(rows)]

    def rows(self, stream: Stream, name: str) -> PieceRows:
        """All rows of a stream that are at hand."""
        s, size = self.numbers[id(stream)], self.system.grid.shape[0]
        depth = 0 if stream.kind == "spectra" else self.depth
        g, blocks = self.ghosts[s], self.blocks.copy()  # it changes while threads look
        parts = [(part, blocks[part][name]) for part in blocks if part.stream == s]
        pieces = [(part.lo, halo.inner(rows[g : g + part.hi - part.lo], depth)) for part, rows in parts]
        if head := self.heads[s]:  # it may be shorter than it is reached beyond the end, if it is all that there is
            again = range(-(-self.ghosts[s] // size) + 1 if len(head[name]) == size else 1)
            pieces += [(size + k * size, halo.inner(head[name], depth)) for k in again]
        return PieceRows(pieces, unwrapped=True)

    def at(self, stream: Stream, name: str, lo: int, hi: int) -> Any:
        """Rows [lo, hi) of a stream, which lie in one slab, with ghost layers along the other axes."""
        part = self._part(stream, lo, hi)
        return dict(self.rows_of(part))[name][lo - part.lo : hi - part.lo]

    def inner(self, stream: Stream, name: str, lo: int, hi: int) -> Any:
        """The same without any ghost layers."""
        return halo.inner(self.at(stream, name, lo, hi), self.depth)

    def complete(self, stream: Stream, name: str, turn: Turn, time: float) -> PaddedRows:
        """The rows of a turn, with all of their ghost layers."""
        part = self._part(stream, turn.lo, turn.hi)
        block = self.blocks[part][name][turn.lo - part.lo : turn.hi - part.lo + 2 * self.depth]
        halo.pad(
            self.rows(stream, name), turn.lo, turn.hi, self.depth, self.system.ends(name), time, block,
            (part.lo, part.hi),
        )  # fmt: skip
        return PaddedRows(block, self.depth, turn.lo)

    def _part(self, stream: Stream, lo: int, hi: int) -> Part:
        s = self.numbers[id(stream)]
        return next(part for part in self.blocks.copy() if part.stream == s and part.lo <= lo and hi <= part.hi)

    def _arrays(self, s: int, rows: int, place: int) -> dict[str, Any]:
        system, kind, width = self.system, self.kinds[s], self.sweep.chain.widths[s]
        names = system.constants if kind == "constants" else system.fields
        if kind == "spectra":
            _, columns, *rest = system.transform.spectrum_shape
            shape, dtype = (rows, columns - self.resident, *rest), system.transform.spectrum_dtype
        else:
            shape, dtype = system.padded_rows(rows, self.depth), system.dtype
        apart = aligned(rows * width.held)
        return {name: view(self.memory, place + k * apart, shape, dtype) for k, name in enumerate(names)}


def view(memory: Any, place: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """An array at a place in memory."""
    count = math.prod(shape) * np.dtype(dtype).itemsize
    return memory[place : place + count].view(dtype).reshape(shape)
