"""A sweep over rows that holds only a window of them: which rows are made when, and what is held. Integers only.

A *chain* is a list of links, each of which makes rows of some *streams* (a state, a rate of change, a spectrum)
from rows of others, in place or reaching a few rows beyond. All links go over the rows together, each a little
behind the one before, so that what a link makes is used while it is still at hand, and what nobody needs
afterwards is never stored. Rows come in *slabs*; a :class:`Turn` is what one link does to one slab.

Turns are begun in order. With a sweep that goes *ahead* some are still under way when another is begun, so that threads
need not wait for each other: then links keep a slab more between them than their reach takes, and a turn says which
others must have ended. That takes memory, so slabs are thinner than those of turns one at a time.

Along a periodic axis rows go on beyond both ends: rows below 0 are made first, apart, from what is stored at the
other end; the first rows of every stream are kept until the end, where they follow the last ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

Work = Literal["advance", "forward", "finish", "sum"]

#: Arrays begin at whole multiples of so many bytes.
ALIGNED = 64
#: Turns under way when another is begun, in a sweep that goes ahead: one that is worked on, one that threads go on to.
AHEAD = 2


class Width(NamedTuple):
    """How wide a stream is: its arrays, and bytes of a row of each as it is held and as it lies in storage.

    Of a `spectral` stream some columns may stay in memory for good; then only the others are streamed.
    """

    arrays: int
    held: int
    moved: int
    spectral: bool = False

    def narrowed(self, streamed: int, columns: int) -> Width:
        """The width if only so many of all columns of spectra are streamed."""
        held, moved = (size * streamed // columns for size in (self.held, self.moved))
        return self._replace(held=held, moved=moved) if self.spectral else self


class Use(NamedTuple):
    """A stream that a link reads, and how many rows it reaches beyond those that it makes."""

    stream: int
    reach: int = 0


@dataclass(frozen=True)
class Link:
    """What one link reads and makes, and what kind of work that is."""

    uses: tuple[Use, ...]
    makes: tuple[int, ...] = ()
    work: Work = "advance"

    @property
    def reach(self) -> int:
        return max((use.reach for use in self.uses), default=0)


@dataclass(frozen=True)
class Chain:
    """Links in order.

    Attributes
    ----------
    links : tuple of Link
    stored : frozenset of int
        Streams that are written to storage as they are made.
    widths : tuple of Width
        Of each stream.
    """

    links: tuple[Link, ...]
    stored: frozenset[int]
    widths: tuple[Width, ...]

    @cached_property
    def loaded(self) -> frozenset[int]:
        """Streams that are read from storage: those that no link makes."""
        used = {use.stream for link in self.links for use in link.uses}
        return frozenset(used - {stream for link in self.links for stream in link.makes})

    @property
    def traffic(self) -> int:
        """Bytes of a row that are read from storage and written to it."""
        return sum(self.widths[s].arrays * self.widths[s].moved for s in (*self.loaded, *self.stored))

    def narrowed(self, streamed: int, columns: int) -> Chain:
        """The chain if only so many of all columns of spectra are streamed."""
        return replace(self, widths=tuple(width.narrowed(streamed, columns) for width in self.widths))

    @cached_property
    def ghosts(self) -> tuple[int, ...]:
        """How far each stream is reached beyond a slab: ghost rows that its slabs have."""
        reach = [0] * len(self.widths)
        for link in self.links:
            for use in link.uses:
                reach[use.stream] = max(reach[use.stream], use.reach)
        return tuple(reach)

    def margins(self, periodic: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """How far beyond the ends of a periodic axis rows are made by each link, and needed of each stream."""
        streams, links = [0] * len(self.widths), [0] * len(self.links)
        for i in reversed(range(len(self.links)) if periodic else ()):
            link = self.links[i]
            links[i] = max((streams[s] for s in link.makes), default=0)
            for s in link.makes:
                streams[s] = links[i]
            for use in link.uses:
                streams[use.stream] = max(streams[use.stream], links[i] + use.reach)
        return tuple(links), tuple(streams)


class Part(NamedTuple):
    """Rows [lo, hi) of a stream; below 0 they are those at the other end."""

    stream: int
    lo: int
    hi: int


@dataclass(frozen=True)
class Turn:
    """What one link does to one slab.

    Attributes
    ----------
    link : int
    lo, hi : int
        Rows that it makes.
    loads : tuple of Part
        Read from storage, to be at hand from now on.
    makes, stores : tuple of Part
        What is made, and which of it is written to storage.
    drops : tuple of Part
        Not needed after this turn.
    after : int
        The last turn that must have ended before this one begins; -1 if none must.
    """

    link: int
    lo: int
    hi: int
    loads: tuple[Part, ...]
    makes: tuple[Part, ...]
    stores: tuple[Part, ...]
    drops: tuple[Part, ...]
    after: int


@dataclass(frozen=True)
class Sweep:
    """The turns of a chain, in order.

    Attributes
    ----------
    turns : tuple of Turn
    heads : tuple of int
        Of each stream, how many of its first rows are kept until the end.
    chain : Chain
    rows : int
        Thickness of a slab.
    ahead : int
        Turns that may be under way when another is begun.
    """

    turns: tuple[Turn, ...]
    heads: tuple[int, ...]
    chain: Chain
    rows: int
    ahead: int

    def slot_bytes(self, stream: int) -> int:
        """Bytes that a slab of a stream takes, ghost rows and all."""
        width = self.chain.widths[stream]
        return width.arrays * aligned((self.rows + 2 * self.chain.ghosts[stream]) * width.held)

    @cached_property
    def slots(self) -> dict[int, int]:
        """How many slabs of each size are held at once, at the most."""
        held, most = dict[int, int](), dict[int, int]()

        def change(parts: Iterable[Part], by: int) -> None:
            for part in parts:
                size = self.slot_bytes(part.stream)
                held[size] = held.get(size, 0) + by
                most[size] = max(most.get(size, 0), held[size])

        late: list[Part] = []
        change(self.turns[0].loads if self.turns else (), 1)
        for t, turn in enumerate(self.turns):
            if t > self.ahead:  # of what ended, the last turn's is being written
                ended = self.turns[t - self.ahead - 1]
                change(late, -1)
                change((part for part in ended.drops if part not in ended.stores), -1)
                late = [part for part in ended.drops if part in ended.stores]
            change(self.turns[t + 1].loads if t + 1 < len(self.turns) else (), 1)
            change(turn.makes, 1)
        return most

    @property
    def head_bytes(self) -> int:
        """Bytes of the first rows that are kept until the end."""
        widths = zip(self.heads, self.chain.widths, strict=True)
        return sum(width.arrays * aligned(rows * width.held) for rows, width in widths)

    @property
    def peak_bytes(self) -> int:
        """Bytes that are held at once."""
        return self.head_bytes + sum(size * count for size, count in self.slots.items())


def aligned(size: int) -> int:
    """Bytes, rounded up so that what follows is aligned."""
    return -(-size // ALIGNED) * ALIGNED


def sweep(chain: Chain, size: int, rows: int, periodic: bool, ahead: int = AHEAD) -> Sweep:
    """Put the turns of a chain in order.

    Parameters
    ----------
    chain : Chain
    size : int
        Rows of the axis.
    rows : int
        Thickness of a slab.
    periodic : bool
    ahead : int
        Turns that may be under way when another is begun.

    Returns
    -------
    Sweep
        Every row that a turn reads is at hand when the turns that it comes after have ended, and not yet dropped.

    Examples
    --------
    >>> state, rate = 0, 1
    >>> chain = Chain((Link((Use(state, reach=1),), (rate,)),), frozenset([rate]), (Width(1, 8, 8),) * 2)
    >>> [(turn.lo, turn.hi, turn.loads) for turn in sweep(chain, 4, 2, periodic=False).turns]
    [(0, 2, (Part(stream=0, lo=0, hi=2), Part(stream=0, lo=2, hi=4))), (2, 4, ())]
    """
    margins, streams = chain.margins(periodic)
    order = sorted(
        (lo // rows + behind, i, lo, hi)
        for i, behind in enumerate(_lags(chain, rows, apart=1 if ahead else 0))
        for lo, hi in slabs(-margins[i], size, rows)
    )
    known, last = dict[tuple[int, int], Part](), dict[Part, int]()
    ready, used = dict[Part, int](), dict[Part, int]()
    held = dict[int, int]()  # who was the last to read spectra, slab by slab
    loads: list[list[Part]] = [[] for _ in order]
    makes: list[tuple[Part, ...]] = []
    after: list[int] = []
    for t, (_, i, lo, hi) in enumerate(order):
        needed = -1
        for stream, reach in chain.links[i].uses:
            start, stop = max(lo - reach, -streams[stream]), min(hi + reach, size)
            for a, b in slabs(-streams[stream], size, rows, start, stop):
                part = known.get((stream, a))
                if part is None:
                    part = known[stream, a] = Part(stream, a, b)
                    loads[t].append(part)
                last[part] = t
                needed = max(needed, ready.get(part, -1))
            mine = known[stream, max(lo // rows * rows, -streams[stream])]
            if reach:  # ghost layers are filled, and given nodes set, in place: who began before is done with that slab
                needed = max(needed, used.get(mine, -1))
            used[mine] = t
            if hi + reach > size:  # the first rows follow the last
                heads = (ready.get(known[stream, a], -1) for a, _ in slabs(0, min(streams[stream], size), rows))
                needed = max([needed, *heads])
        # columns that stay in memory lie there once, for the spectra that are read and those that are made
        made = any(chain.widths[stream].spectral for stream in chain.links[i].makes)
        read = any(chain.widths[use.stream].spectral for use in chain.links[i].uses)
        if made or read:
            here = {k for _, a, b in domain_rows(lo, hi, size) for k in range(a // rows, -(-b // rows))}
            needed = max([needed, *(held.get(k, -1) for k in here if made)])
            held |= dict.fromkeys(here, t) if read else {}
        makes.append(tuple(Part(stream, lo, hi) for stream in chain.links[i].makes))
        known |= {(part.stream, part.lo): part for part in makes[-1]}
        last |= dict.fromkeys(makes[-1], t)
        ready |= dict.fromkeys(makes[-1], t)
        after.append(needed)
    drops: list[list[Part]] = [[] for _ in order]
    for part, t in last.items():
        drops[t].append(part)
    turns = [
        Turn(i, lo, hi, tuple(loads[t]), makes[t], _stored(makes[t], chain.stored), tuple(drops[t]), after[t])
        for t, (_, i, lo, hi) in enumerate(order)
    ]
    return Sweep(tuple(turns), tuple(min(margin, size) for margin in streams), chain, rows, ahead)


def _lags(chain: Chain, rows: int, apart: int) -> list[int]:
    """How many slabs each link is behind the first: so many more than where what it reads was made.

    None is before an earlier one: storage may pass from a stream to one that a later link makes.
    """
    found: list[int] = []
    makers = {stream: i for i, link in enumerate(chain.links) for stream in link.makes}
    for link in chain.links:
        made = (found[makers[s]] + math.ceil(reach / rows) + apart for s, reach in link.uses if s in makers)
        found.append(max(made, default=0))
        if len(found) > 1:
            found[-1] = max(found[-1], found[-2] + apart)
    return found


def _stored(parts: Sequence[Part], stored: frozenset[int]) -> tuple[Part, ...]:
    """What of the parts goes to storage: rows below 0 are there under another name."""
    return tuple(part for part in parts if part.stream in stored and part.lo >= 0)


def slabs(first: int, size: int, rows: int, start: int | None = None, stop: int | None = None) -> list[tuple[int, int]]:
    """Slabs of rows `first` ... size - 1, cut at whole multiples; those that touch [start, stop).

    Examples
    --------
    >>> slabs(-1, 5, 2)
    [(-1, 0), (0, 2), (2, 4), (4, 5)]
    >>> slabs(-1, 5, 2, 3, 5)
    [(2, 4), (4, 5)]
    """
    start, stop = first if start is None else start, size if stop is None else stop
    lows = range(start // rows * rows, stop, rows)
    return [(max(lo, first), min(lo + rows, size)) for lo in lows]


def domain_rows(start: int, stop: int, size: int) -> list[tuple[int, int, int]]:
    """Rows [start, stop) of an axis that goes on periodically, as (row, lo, hi): what lies at `row` is [lo, hi).

    Examples
    --------
    >>> domain_rows(-2, 12, 10)
    [(-2, 8, 10), (0, 0, 10), (10, 0, 2)]
    """
    ranges, row = [], start
    while row < stop:
        lo = row % size
        hi = min(size, lo + stop - row)
        ranges.append((row, lo, hi))
        row += hi - lo
    return ranges
