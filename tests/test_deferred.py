"""Operations that are put off give what they give at once, in as few sweeps and as little storage as may be."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxdask.deferred import Advance, Deferred, Finish, Kind, Link, Stream, StreamedState, Sum
from voxdask.steppers.base import Target
from voxdask.steppers.chebyshev import RKC2
from voxdask.steppers.explicit import RK4, Euler
from voxdask.steppers.semi_implicit import IMEX, SBDF2
from voxdask.windows import Chain, Width

PRIME = 10007


def rate(t: Any, v: Any) -> Any:
    """A right-hand side of one number."""
    return t - v * v / 3


class Numbers(Deferred):
    """Fields of one number each: storage is a list of one, which the next owner overwrites.

    A stream is read where a link first needs it, and written as soon as it is made, as rows of a sweep are.
    """

    def __init__(self, depth: int, modulus: int | None = None) -> None:
        operators: Any = SimpleNamespace(program=SimpleNamespace(halo=1), filters=lambda gain, saved: (gain,))
        super().__init__(operators, depth, None, False)
        self.modulus, self.sweeps, self.transforms, self.states = modulus, list[Chain](), 0, 0

    def state(self, value: Any) -> StreamedState:
        stream = Stream("state", self.new_storage(), self.free)
        stream.storage[0] = value
        return StreamedState(stream)

    def value(self, state: StreamedState) -> Any:
        self.settle(state)
        return state.stream.storage[0]

    def new_storage(self) -> Any:
        self.states += 1
        return [None]

    def new_spectra(self) -> Any:
        return [None]

    def width(self, kind: Kind) -> Width:
        return Width(1, 8, 8)

    def transform(self, filters: Sequence[Any], t: float, dt: float) -> None:
        self.transforms += 1
        self.spectra[0] = self.reduced(self.spectra[0] * dt)

    def reduced(self, value: Any) -> Any:
        return value if self.modulus is None else value % self.modulus

    def run(self, links: Sequence[Link], streams: Sequence[Stream], chain: Chain) -> None:
        self.sweeps.append(chain)
        hand: dict[int, Any] = {}

        def read(stream: Stream) -> Any:
            if id(stream) not in hand:
                assert streams.index(stream) in chain.loaded
                hand[id(stream)] = stream.storage[0]
            return hand[id(stream)]

        def total(terms: Any) -> Any:
            return sum(read(stream) * c for stream, c in terms)

        for link in links:
            made: list[tuple[Stream, Any]] = []
            if isinstance(link, Advance):
                r = self.rate(link.t, read(link.source))
                made = [(m.stream, total(m.terms) + m.weight * r) for m in link.made]  # type: ignore[misc]
                if link.spectra is not None:
                    made.append((link.spectra, made[0][1] if made else r))
            elif isinstance(link, Finish):
                made = [(link.made, total(link.terms) + read(link.spectra))]
            elif isinstance(link, Sum):
                made = [(link.made, total(link.terms))]
            for stream, value in made:
                if stream is None:
                    continue
                hand[id(stream)] = self.reduced(value)
                if streams.index(stream) in chain.stored:
                    stream.storage[0] = hand[id(stream)]

    def rate(self, t: Any, v: Any) -> Any:
        return rate(t, v) if self.modulus is None else (t + 3 * v * v) % self.modulus


class AtOnce:
    """The same on plain numbers, at once."""

    def __init__(self, modulus: int | None = None) -> None:
        self.like = Numbers(1, modulus)

    def advance(self, t: Any, v: Any, *targets: Target, end: Any) -> tuple[Any, ...]:
        r = self.like.rate(t, v)
        return tuple(self.like.reduced(sum(u * c for u, c in m.terms) + m.weight * r) for m in targets)

    def implicit(self, t: Any, v: Any, dt: Any, gain: Any, **options: Any) -> tuple[Any, ...]:
        source, keep = options.get("source") or Target((), 1), options.get("keep")
        (modes,) = self.advance(t, v, source, end=None)
        base = options.get("base") or ((v, 1),)
        new = self.like.reduced(sum(u * c for u, c in base) + self.like.reduced(modes * dt))
        return (new, *self.advance(t, v, keep, end=None)) if keep else (new,)

    def combine(self, *terms: Any, end: Any) -> Any:
        return self.like.reduced(sum(u * c for u, c in terms))


def march(fields: Any, stepper: Any, u: Any, steps: int, *, settle: int = 0) -> Any:
    """The state after some steps, settled every so many."""
    history: tuple[Any, ...] = ()
    for k in range(steps):
        u, *rest = stepper.step(fields, 0.1 * k, 0.1, u, *history)
        history = tuple(rest)
        if settle and (k + 1) % settle == 0:
            for each in (u, *history):
                fields.settle(each)
    return u


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("stepper", [Euler(), RK4(), RKC2(stages=5), IMEX(), SBDF2()], ids=lambda s: type(s).__name__)
def test_steps_are_those_taken_at_once(stepper: Any, depth: int) -> None:
    fields = Numbers(depth)
    found = fields.value(march(fields, stepper, fields.state(0.7), 12, settle=2))
    assert found == march(AtOnce(), stepper, 0.7, 12)


def test_rk4_by_the_book() -> None:
    fields, u, t, h = Numbers(4), 0.7, 0.0, 0.1
    for k in range(10):
        t = 0.1 * k
        k1 = rate(t, u)
        k2 = rate(t + h / 2, u + h / 2 * k1)
        k3 = rate(t + h / 2, u + h / 2 * k2)
        k4 = rate(t + h, u + h * k3)
        u += h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    assert fields.value(march(fields, RK4(), fields.state(0.7), 10, settle=1)) == pytest.approx(u, rel=1e-14)


@pytest.mark.parametrize(
    ("depth", "settle", "sweeps", "states"),
    [(1, 1, 48, 3), (2, 1, 24, 3), (3, 1, 24, 3), (4, 1, 12, 1), (8, 2, 6, 1), (16, 4, 3, 1)],
)
def test_sweeps_of_rk4(depth: int, settle: int, sweeps: int, states: int) -> None:
    """Twelve steps of four evaluations: a sweep for every `depth` of them, cut where a state is asked for.

    One sweep for a step reads a state and writes one, in the place of the old. Between sweeps within a step there
    are three: the state that all start from, the sum that grows, and the next to be evaluated.
    """
    fields = Numbers(depth)
    march(fields, RK4(), fields.state(0.7), 12, settle=settle)
    assert len(fields.sweeps) == sweeps
    assert fields.states == states
    if states == 1:
        assert {(len(chain.loaded), len(chain.stored)) for chain in fields.sweeps} == {(1, 1)}


def test_the_end_of_a_semi_implicit_step_and_the_beginning_of_the_next_are_one_sweep() -> None:
    fields = Numbers(1)
    state = march(fields, IMEX(), fields.state(0.7), 5)
    assert (len(fields.sweeps), fields.transforms, fields.states) == (5, 5, 1)
    fields.settle(state)
    assert (len(fields.sweeps), fields.transforms) == (6, 5)
    # in the middle: the spectrum and the state before are read; the state and the next spectrum are written
    assert [(len(chain.loaded), len(chain.stored)) for chain in fields.sweeps[1:5]] == [(2, 2)] * 4
    assert [[link.work for link in chain.links] for chain in fields.sweeps[1:5]] == [["finish", "forward"]] * 4


def test_what_nobody_asks_for_is_not_made() -> None:
    fields = Numbers(4)
    u = fields.state(0.5)
    used, unused = fields.advance(0.0, u, Target(((u, 1.0),), 0.1), Target((), 1.0), end=0.1)
    total = fields.combine((used, 2.0), end=0.1)
    del unused, total
    fields.settle(used)
    (chain,) = fields.sweeps
    assert [link.work for link in chain.links] == ["advance"] and len(chain.stored) == 1
    (again,) = fields.advance(0.0, used, Target((), 1.0), end=0.1)
    del again
    fields.flush()
    assert len(fields.sweeps) == 1


def test_a_state_that_is_kept_keeps_its_value() -> None:
    fields = Numbers(4)
    start = fields.state(0.7)
    kept = [start]
    for k in range(5):
        kept.append(march(fields, RK4(), kept[-1], 1))
        fields.settle(kept[-1])
        assert len({id(state.stream.storage) for state in kept}) == k + 2
    plain = [0.7]
    for _ in range(5):
        plain.append(march(AtOnce(), RK4(), plain[-1], 1))
    assert [fields.value(state) for state in kept] == plain
    del start, kept
    assert len(fields.free) == fields.states == 6


@settings(max_examples=200)
@given(st.integers(1, 5), st.data())
def test_any_operations(depth: int, data: Any) -> None:
    """Evaluations, semi-implicit steps and sums of states that are kept or dropped, in any order; exact integers."""
    fields, at_once = Numbers(depth, PRIME), AtOnce(PRIME)
    states, plain = [fields.state(5), fields.state(8)], [5, 8]

    def draw_terms() -> list[tuple[int, int]]:
        return data.draw(st.lists(st.tuples(st.integers(0, len(plain) - 1), st.integers(1, 9)), min_size=1, max_size=3))

    def both(terms: list[tuple[int, int]]) -> Any:
        return [tuple((pool[k], c) for k, c in terms) for pool in (states, plain)]

    for t in range(data.draw(st.integers(1, 12))):
        v, kind = data.draw(st.integers(0, len(plain) - 1)), data.draw(st.sampled_from("aaicdds"))
        if kind == "a":
            terms = [both(draw_terms()) for _ in range(data.draw(st.integers(1, 2)))]
            weight = data.draw(st.integers(1, 9))
            states += fields.advance(t, states[v], *(Target(a, weight) for a, _ in terms), end=t)
            plain += at_once.advance(t, plain[v], *(Target(b, weight) for _, b in terms), end=t)
        elif kind == "i":
            (base, base_plain), keep = both(draw_terms()), data.draw(st.booleans())
            options: dict[str, Any] = {"keep": Target((), 2, rate=True)} if keep else {}
            states += fields.implicit(t, states[v], 7, None, base=base, **options)
            plain += at_once.implicit(t, plain[v], 7, None, base=base_plain, **options)
        elif kind == "c":
            terms, terms_plain = both(draw_terms())
            states.append(fields.combine(*terms, end=t))
            plain.append(at_once.combine(*terms_plain, end=t))
        elif kind == "d" and len(plain) > 1:
            del states[v], plain[v]
        else:
            assert fields.value(states[v]) == plain[v]
        terms = base = None  # type: ignore[assignment]  # nothing else may refer to a state
    assert [fields.value(state) for state in states] == plain
    assert len({id(state.stream.storage) for state in states}) == len(states)
    states.clear()
    fields.flush()  # what was put off and nobody asks for lets go of what it would have read
    assert len(fields.free) == fields.states
