"""A sweep over a window of rows: everything that a turn reads is at hand, and what is held is what was foreseen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxdask.windows import AHEAD, ALIGNED, Chain, Link, Part, Sweep, Turn, Use, Width, domain_rows, slabs, sweep

AHEADS = st.sampled_from([0, AHEAD])
WIDTHS = st.tuples(st.integers(1, 3), st.integers(1, 99), st.integers(1, 99), st.booleans())


@st.composite
def chains(draw: Any) -> Chain:
    """Links that read any streams from before, loaded or made, and make one or two."""
    links, known = [], draw(st.integers(1, 3))
    count = known
    for _ in range(draw(st.integers(1, 5))):
        read = draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=3, unique=True))
        made = draw(st.integers(1, 2))
        links.append(Link(tuple(Use(s, draw(st.integers(0, 3))) for s in read), tuple(range(count, count + made))))
        count += made
    made_streams = range(known, count)
    stored = draw(st.sets(st.sampled_from(made_streams)))
    return Chain(tuple(links), frozenset(stored), tuple(Width(*draw(WIDTHS)) for _ in range(count)))


def values(chain: Chain, size: int, periodic: bool) -> list[list[int]]:
    """Rows of every stream by whole arrays: a link adds up what it reaches, and its own number."""
    loaded = [[17 * s + row for row in range(size)] for s in range(len(chain.widths))]
    streams = {s: loaded[s] for s in chain.loaded}

    def at(stream: int, row: int) -> int:
        return streams[stream][row % size]

    for i, link in enumerate(chain.links):
        made = [_made(i, row, at, link, size, periodic) for row in range(size)]
        streams |= dict.fromkeys(link.makes, made)
    return [streams.get(s, []) for s in range(len(chain.widths))]


def _made(i: int, row: int, at: Any, link: Link, size: int, periodic: bool) -> int:
    total = i
    for stream, reach in link.uses:
        around = [r for r in range(row - reach, row + reach + 1) if periodic or 0 <= r < size]
        total += sum((k + 1) * at(stream, r) for k, r in enumerate(around))
    return total % 10007


class Machine:
    """Takes turns, and holds no more than it is told to; storage of a stream may be that of another."""

    def __init__(self, chain: Chain, size: int, periodic: bool) -> None:
        self.chain, self.size, self.periodic = chain, size, periodic
        self.stored = {s: [17 * s + row for row in range(size)] for s in chain.loaded}
        self.held: dict[Part, list[int]] = {}
        self.going: dict[Part, list[int]] = {}
        self.heads: dict[int, list[int]] = {}

    def run(self, plan: Sweep) -> Iterator[Counter[int]]:
        """Slabs that are held, by their size, turn by turn, with as many under way as may be."""
        late: list[Part] = []
        ended = 0

        def end_until(stop: int) -> None:
            nonlocal late, ended
            for turn in plan.turns[ended : max(stop, ended)]:
                for part in turn.makes:
                    self.held[part] = self._end(plan, part)
                for part in turn.stores:
                    self.stored.setdefault(part.stream, [-1] * self.size)[part.lo : part.hi] = self.held[part]
                for part in late + [part for part in turn.drops if part not in turn.stores]:
                    del self.held[part]
                late = [part for part in turn.drops if part in turn.stores]
            ended = max(ended, stop)

        self._load(plan, plan.turns[0].loads)
        for t, turn in enumerate(plan.turns):
            end_until(t - plan.ahead)
            if t + 1 < len(plan.turns):
                self._load(plan, plan.turns[t + 1].loads)
            assert turn.after < t
            end_until(turn.after + 1)
            link, rows = self.chain.links[turn.link], range(turn.lo, turn.hi)
            made = [_made(turn.link, row, self._at, link, self.size, self.periodic) for row in rows]
            for part in turn.makes:
                self.going[part] = made
            yield Counter(plan.slot_bytes(part.stream) for part in (*self.held, *self.going))
        end_until(len(plan.turns))
        for part in late:
            del self.held[part]

    def _end(self, plan: Sweep, part: Part) -> list[int]:
        rows = self.going.pop(part)
        self._keep_head(plan, part, rows)
        return rows

    def _load(self, plan: Sweep, parts: tuple[Part, ...]) -> None:
        for part in parts:
            self._hold(plan, part, [self.stored[part.stream][row % self.size] for row in range(part.lo, part.hi)])

    def _hold(self, plan: Sweep, part: Part, rows: list[int]) -> None:
        assert part not in self.held
        self.held[part] = rows
        self._keep_head(plan, part, rows)

    def _keep_head(self, plan: Sweep, part: Part, rows: list[int]) -> None:
        if 0 <= part.lo < plan.heads[part.stream]:
            head = self.heads.setdefault(part.stream, [])
            head += rows[: plan.heads[part.stream] - part.lo]

    def _at(self, stream: int, row: int) -> int:
        if row >= self.size:
            return self.heads[stream][(row - self.size) % self.size]
        for part, rows in self.held.items():
            if part.stream == stream and part.lo <= row < part.hi:
                return rows[row - part.lo]
        raise AssertionError(f"row {row} of stream {stream} is not at hand")


@settings(max_examples=300)
@given(chains(), st.integers(1, 13), st.integers(1, 6), st.booleans(), AHEADS)
def test_every_chain_gives_what_arrays_give(chain: Chain, size: int, rows: int, periodic: bool, ahead: int) -> None:
    plan = sweep(chain, size, min(rows, size), periodic, ahead)
    machine, expected = Machine(chain, size, periodic), values(chain, size, periodic)
    most: Counter[int] = Counter()
    for held in machine.run(plan):
        most |= held
    for stream in chain.stored:
        assert machine.stored[stream] == expected[stream]
    assert not machine.held
    assert most <= Counter(plan.slots)
    assert plan.peak_bytes >= sum(size * count for size, count in most.items())


@settings(max_examples=100)
@given(chains(), st.integers(1, 13), st.integers(1, 6), st.booleans(), AHEADS)
def test_whole_slabs_are_stored_once(chain: Chain, size: int, rows: int, periodic: bool, ahead: int) -> None:
    rows = min(rows, size)
    plan = sweep(chain, size, rows, periodic, ahead)
    for stream in chain.stored:
        parts = sorted(part for turn in plan.turns for part in turn.stores if part.stream == stream)
        assert [(part.lo, part.hi) for part in parts] == slabs(0, size, rows)
    for stream in chain.loaded:
        parts = [part for turn in plan.turns for part in turn.loads if part.stream == stream and part.lo >= 0]
        assert len(parts) == len(set(parts))


@settings(max_examples=200)
@given(chains(), st.integers(1, 13), st.integers(1, 6), st.booleans(), AHEADS)
def test_whoever_writes_in_place_is_alone(chain: Chain, size: int, rows: int, periodic: bool, ahead: int) -> None:
    """A link that reaches beyond its rows fills the ghost layers of what it reads, where that lies.

    One that makes spectra overwrites those that were read, where their columns stay in memory.
    """
    turns = sweep(chain, size, min(rows, size), periodic, ahead).turns

    def reads(turn: Turn) -> dict[int, int]:
        return {use.stream: use.reach for use in chain.links[turn.link].uses}

    def spectral(streams: Iterable[int]) -> bool:
        return any(chain.widths[s].spectral for s in streams)

    def lies_at(turn: Turn) -> set[int]:
        return {row % size for row in range(turn.lo, turn.hi)}

    for t, turn in enumerate(turns):
        for other in turns[max(turn.after + 1, t - ahead, 0) : t]:
            shared = reads(turn).keys() & reads(other).keys()
            fills = [s for s in shared if reads(turn)[s]]
            assert not fills or other.hi <= turn.lo or turn.hi <= other.lo
            if spectral(chain.links[turn.link].makes) and spectral(reads(other)):
                assert not lies_at(turn) & lies_at(other)


def test_spectra_are_not_overwritten_before_they_are_read() -> None:
    """A step ends in a state that is only stored, while another one is evaluated: nothing but memory ties the two."""
    spectra, state = Width(1, 8, 8, spectral=True), Width(1, 8, 8)
    finish, forward = Link((Use(0), Use(1)), (2,), "finish"), Link((Use(3, 2),), (4,), "forward")
    chain = Chain((finish, forward), frozenset([2, 4]), (spectra, state, state, state, spectra))
    turns = sweep(chain, 64, 8, periodic=True).turns
    finished = {turn.lo: t for t, turn in enumerate(turns) if turn.link == 0}
    begun = [turn for turn in turns if turn.link == 1]
    assert [turn.lo for turn in begun] == [*finished] and all(turn.after >= finished[turn.lo] for turn in begun)


def test_what_is_held_does_not_grow_with_the_axis() -> None:
    """Eight stages in a window: about as many slabs of the state as there are stages, of each stage three."""
    links = tuple(Link((Use(k, reach=2), Use(0)), (k + 1,)) for k in range(8))
    chain = Chain(links, frozenset([8]), (Width(1, ALIGNED, ALIGNED),) * 9)
    peaks = {size: sweep(chain, size, 8, periodic=True).peak_bytes for size in (200, 400, 800)}
    assert len(set(peaks.values())) == 1
    slabs_held = peaks[800] / (12 * ALIGNED)  # of 8 rows, and 2 ghost rows on either side
    assert slabs_held < 8 + 4 + 8 * 4 + 8


@pytest.mark.parametrize(("start", "stop", "size"), [(-7, 9, 3), (0, 5, 5), (2, 4, 5), (-1, 1, 1)])
def test_domain_rows_cover(start: int, stop: int, size: int) -> None:
    ranges = domain_rows(start, stop, size)
    assert [row + k for row, lo, hi in ranges for k in range(hi - lo)] == list(range(start, stop))
    assert all((row - lo) % size == 0 and 0 <= lo < hi <= size for row, lo, hi in ranges)
