"""Operations on fields that are put off until somebody asks for their results, so that several become one sweep.

A stepper asks for one operation after another. :class:`Deferred` only notes these, as links of a chain, and has the
chain run in one sweep (see :mod:`voxdask.windows`) when it is as long as it may be, when a transform needs the
whole of a result, or when rows of a state are asked for. So the end of a semi-implicit step and the beginning of the
next are one sweep, and several stages of an explicit step are. What is no longer referred to when the chain runs is
never stored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from voxdask import windows
from voxdask.filters import Filter
from voxdask.steppers.base import RATE, Target, Terms
from voxdask.system import Operators
from voxdask.windows import Chain, Use, Width, Work

Kind = Literal["state", "constants", "spectra"]


class Stream:
    """Rows of every field of a state, of every constant, or of every spectrum.

    Attributes
    ----------
    kind : {"state", "constants", "spectra"}
    storage : object, optional
        Where it lies; None as long as it is only on its way.
    wanted : bool
        Whether it is referred to by anything but links.
    """

    def __init__(self, kind: Kind, storage: Any = None, free: list[Any] | None = None) -> None:
        self.kind, self.storage, self.wanted, self._free = kind, storage, kind != "state", free

    def __del__(self) -> None:
        if self._free is not None and self.storage is not None:
            self._free.append(self.storage)


class StreamedState:
    """The unknowns at one instant, or a rate of change; storage goes back to where it came from with the last one."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        stream.wanted = True

    def __del__(self) -> None:
        self.stream.wanted = False


@dataclass(eq=False)
class Made:
    """What an evaluation makes: a sum of streams and of the rate of change r."""

    terms: tuple[tuple[Stream, float], ...]
    weight: float
    rate: bool
    stream: Stream | None


@dataclass(eq=False)
class Link(ABC):
    """One operation that is put off."""

    @abstractmethod
    def uses(self) -> Iterator[tuple[Stream, int]]:
        """What it reads, and how far beyond the rows that it makes."""

    def makes(self) -> Iterator[Stream]:
        """What it makes."""
        yield from ()

    @property
    def work(self) -> Work:
        """What kind of work it is."""
        return "sum"


@dataclass(eq=False)
class Advance(Link):
    """An evaluation of the right-hand side; the first result goes to the spectra if there are such."""

    t: float
    end: float
    source: Stream
    made: tuple[Made, ...]
    spectra: Stream | None
    constants: Stream | None
    reach: int

    def uses(self) -> Iterator[tuple[Stream, int]]:
        yield self.source, self.reach
        if self.constants is not None:
            yield self.constants, self.reach
        for made in self.made:
            yield from ((stream, 0) for stream, _ in made.terms)

    def makes(self) -> Iterator[Stream]:
        yield from (made.stream for made in self.made if made.stream is not None)
        if self.spectra is not None:
            yield self.spectra

    @property
    def work(self) -> Work:
        return "advance" if self.spectra is None else "forward"


@dataclass(eq=False)
class Finish(Link):
    """The end of a semi-implicit step: inverse transforms along the local axes, and the update."""

    end: float
    spectra: Stream
    terms: tuple[tuple[Stream, float], ...]
    constants: Stream | None
    made: Stream

    def uses(self) -> Iterator[tuple[Stream, int]]:
        yield self.spectra, 0
        yield from ((stream, 0) for stream, _ in self.terms)
        if self.constants is not None:
            yield self.constants, 0

    def makes(self) -> Iterator[Stream]:
        yield self.made

    @property
    def work(self) -> Work:
        return "finish"


@dataclass(eq=False)
class Sum(Link):
    """A sum of states and rates."""

    end: float
    terms: tuple[tuple[Stream, float], ...]
    made: Stream

    def uses(self) -> Iterator[tuple[Stream, int]]:
        yield from ((stream, 0) for stream, _ in self.terms)

    def makes(self) -> Iterator[Stream]:
        yield self.made


@dataclass(eq=False)
class Size(Link):
    """The size of a sum in units of the tolerance: sums of squares by field and first row."""

    terms: tuple[tuple[Stream, float], ...]
    states: tuple[Stream, Stream]
    atol: float
    rtol: float
    sums: dict[tuple[str, int], Any] = field(default_factory=dict)

    def uses(self) -> Iterator[tuple[Stream, int]]:
        yield from ((stream, 0) for stream, _ in self.terms)
        yield from ((stream, 0) for stream in self.states)


class Deferred(ABC):
    """The :class:`~voxdask.steppers.Fields` of a stepper that notes operations, and runs chains of them.

    Parameters
    ----------
    operators : Operators
    depth : int
        Most evaluations of the right-hand side in one sweep.
    constants : Stream, optional
    weighted : bool
        Whether semi-implicit steps read constants.
    """

    def __init__(self, operators: Operators, depth: int, constants: Stream | None, weighted: bool) -> None:
        self.operators, self.depth, self.constants, self.weighted = operators, depth, constants, weighted
        self.chain: list[Link] = []
        self.free: list[Any] = []
        self.spectra: Any = None

    @abstractmethod
    def new_storage(self) -> Any:
        """Storage for a state."""

    @abstractmethod
    def new_spectra(self) -> Any:
        """Storage for the spectra of a state."""

    @abstractmethod
    def run(self, links: Sequence[Link], streams: Sequence[Stream], chain: Chain) -> None:
        """Run a chain; `streams` are those that it numbers."""

    @abstractmethod
    def transform(self, filters: Sequence[Filter], t: float, dt: float) -> None:
        """Transform all spectra along the first axis, combine modes, and transform back."""

    @abstractmethod
    def width(self, kind: Kind) -> Width:
        """How wide a stream is."""

    def advance(self, t: float, v: StreamedState, *targets: Target, end: float) -> tuple[StreamedState, ...]:
        """Evaluate r = rhs(t, v) once, and make every target; see :class:`voxdask.steppers.Fields`."""
        if sum(isinstance(link, Advance) for link in self.chain) >= self.depth:
            self.flush()
        made = tuple(self._made(target) for target in targets)
        self._note_advance(t, v, made, None, end)
        return tuple(StreamedState(m.stream) for m in made if m.stream is not None)

    def implicit(
        self,
        t: float,
        v: StreamedState,
        dt: float,
        gain: Any,
        *,
        saved: int = 0,
        source: Target | None = None,
        keep: Target | None = None,
        base: Terms | None = None,
        into: StreamedState | None = None,
        end: float | None = None,
    ) -> tuple[StreamedState, ...]:
        """Evaluate r = rhs(t, v), and a new state by way of the modes; see :class:`voxdask.steppers.Fields`."""
        filters, arrive = self.operators.filters(gain, saved), t + dt if end is None else end
        self.spectra = self.spectra or self.new_spectra()
        made: tuple[Made, ...] = (self._made(source or RATE, kept=False),) if source or keep else ()
        made += (self._made(keep),) if keep else ()
        kept = tuple(StreamedState(m.stream) for m in made if m.stream is not None)
        terms = tuple((state.stream, c) for state, c in base or ((v, 1.0),))
        self._note_advance(t, v, made, Stream("spectra", self.spectra), arrive)
        self.flush()
        self.transform(filters, t, dt)
        new = Stream("state", free=self.free)
        weights = self.constants if self.weighted else None
        self.chain.append(Finish(arrive, Stream("spectra", self.spectra), terms, weights, new))
        return (StreamedState(new), *kept)

    def combine(self, *terms: tuple[StreamedState, float], end: float) -> StreamedState:
        """The sum of states and rates with coefficients; nodes that are given take their value at `end`."""
        new = Stream("state", free=self.free)
        self.chain.append(Sum(end, tuple((state.stream, c) for state, c in terms), new))
        return StreamedState(new)

    def sizes(
        self, terms: Terms, u: StreamedState, v: StreamedState, atol: float, rtol: float
    ) -> dict[tuple[str, int], Any]:
        """Sums of squares of a sum in units of the tolerance, by field and first row."""
        link = Size(tuple((state.stream, c) for state, c in terms), (u.stream, v.stream), atol, rtol)
        self.chain.append(link)
        self.flush()
        return link.sums

    def settle(self, state: StreamedState) -> None:
        """Have a state made, if it is on its way."""
        if state.stream.storage is None:
            self.flush()

    def flush(self) -> None:
        """Run what was put off."""
        links, self.chain = _needed(self.chain), []
        if not links:
            return
        streams, chain = numbered(links, self.width)
        taken = self._storages(streams, chain)
        self.run(links, streams, chain)
        for stream in taken:
            stream.storage = None

    def _storages(self, streams: Sequence[Stream], chain: Chain) -> list[Stream]:
        """Give storage to what is made: that of a state that nobody will need again, if its rows are read before.

        Returns the streams that storage was taken from.
        """
        first = {s: i for i, link in reversed([*enumerate(chain.links)]) for s, _ in link.uses}
        given_up = [s for s in sorted(chain.loaded) if streams[s].kind == "state" and not streams[s].wanted]
        taken = []
        for i, link in enumerate(chain.links):
            for s in link.makes:
                if s not in chain.stored or streams[s].storage is not None:
                    continue
                old = next((o for o in given_up if first[o] <= i), None)
                if old is None:
                    streams[s].storage = self.free.pop() if self.free else self.new_storage()
                else:
                    given_up.remove(old)
                    taken.append(streams[old])
                    streams[s].storage = streams[old].storage
        return taken

    def _made(self, target: Target, *, kept: bool = True) -> Made:
        terms = tuple((state.stream, c) for state, c in target.terms)
        return Made(terms, target.weight, target.rate, Stream("state", free=self.free) if kept else None)

    def _note_advance(
        self, t: float, v: StreamedState, made: tuple[Made, ...], spectra: Stream | None, end: float
    ) -> None:
        reach = self.operators.program.halo
        self.chain.append(Advance(t, end, v.stream, made, spectra, self.constants, reach))


def _needed(links: Sequence[Link]) -> list[Link]:
    """The links whose results somebody will want."""
    kept: list[Link] = []
    wanted: set[int] = set()
    for link in reversed(links):
        made = [*link.makes()]
        if not made or any(stream.wanted or id(stream) in wanted for stream in made):
            kept.append(link)
            wanted |= {id(stream) for stream, _ in link.uses()}
    return kept[::-1]


def numbered(links: Sequence[Link], width: Callable[[Kind], Width]) -> tuple[list[Stream], Chain]:
    """The streams of a chain, and its shape."""
    numbers: dict[int, int] = {}
    streams: list[Stream] = []

    def number(stream: Stream) -> int:
        if id(stream) not in numbers:
            numbers[id(stream)] = len(streams)
            streams.append(stream)
        return numbers[id(stream)]

    shapes = []
    for link in links:
        reach: dict[int, int] = {}
        for stream, r in link.uses():
            s = number(stream)
            reach[s] = max(reach.get(s, 0), r)
        uses, makes = tuple(Use(s, r) for s, r in reach.items()), tuple(map(number, link.makes()))
        shapes.append(windows.Link(uses, makes, link.work))
    made = {s for shape in shapes for s in shape.makes}
    stored = frozenset(s for s in made if streams[s].wanted)
    return streams, Chain(tuple(shapes), stored, tuple(width(stream.kind) for stream in streams))
