"""What a stepper will ask for, found out by letting it take steps over fields that are not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from voxdask.deferred import Advance, Deferred, Kind, Link, Stream, StreamedState
from voxdask.filters import Filter
from voxdask.spilling import Route, Transform
from voxdask.steppers import Stepper, is_adaptive
from voxdask.steppers.adaptive import first_step
from voxdask.steppers.base import Terms
from voxdask.system import Operators, saved_in
from voxdask.windows import Chain, Width

#: Evaluations in one sweep that are worth a thought, and steps.
_DEPTHS = (1, 2, 3, 4, 6, 8, 12, 16)


class _Rehearsal(Deferred):
    """Notes the shape of what would run."""

    def __init__(
        self, operators: Operators, depth: int, constants: bool, weighted: bool, width: Callable[[Kind], Width]
    ) -> None:
        super().__init__(operators, depth, Stream("constants", object()) if constants else None, weighted)
        self._width = width
        self.chains: list[Chain] = []
        self.pencils: list[Transform] = []
        self.states = self.evaluations = 0

    def new_storage(self) -> Any:
        self.states += 1
        return object()

    def new_spectra(self) -> Any:
        return object()

    def width(self, kind: Kind) -> Width:
        return self._width(kind)

    def run(self, links: Sequence[Link], streams: Sequence[Stream], chain: Chain) -> None:
        self.chains.append(chain)
        self.evaluations += sum(isinstance(link, Advance) for link in links)

    def transform(self, filters: Sequence[Filter], t: float, dt: float) -> None:
        # what is transformed is read, even if no mode of it is
        read, written, held = (
            max(1 + len(saved_in(names)) for names in every)
            for every in zip(*((each.reads, each.writes, each.arrays) for each in filters), strict=True)
        )
        self.pencils.append(Transform(read, written, held))

    def error(self, terms: Terms, u: StreamedState, v: StreamedState, atol: float, rtol: float) -> float:
        self.sizes(terms, u, v, atol, rtol)
        return 0.5


def routes(
    stepper: Stepper, operators: Operators, *, constants: bool, weighted: bool, width: Callable[[Kind], Width]
) -> tuple[Route, ...]:
    """The ways in which a stepper may go over streamed fields.

    Parameters
    ----------
    stepper : Stepper
    operators : Operators
    constants, weighted : bool
        Whether there are constants, and whether semi-implicit steps read them.
    width : callable
        How wide a stream of some kind is.

    Returns
    -------
    tuple of Route
        One for each number of evaluations in a sweep that is worth a thought.
    """

    def rehearse(depth: int, steps: int) -> tuple[int, Route]:
        fields = _Rehearsal(operators, depth, constants, weighted, width)
        state = StreamedState(Stream("state", fields.new_storage(), fields.free))
        history: tuple[StreamedState, ...] = ()
        begun = (0, 0)

        def batch() -> None:
            nonlocal state, history
            for _ in range(steps):
                if is_adaptive(stepper):
                    attempt = stepper.attempt(fields, 0.0, 1.0, state, *history)
                    if attempt.at is not None:
                        fields.settle(attempt.at(0.5))
                    state, history = attempt.state, attempt.carried
                    del attempt
                else:
                    state, *rest = stepper.step(fields, 0.0, 1.0, state, *history)
                    history = tuple(rest)
            if not stepper.spectra:
                settle()

        def settle() -> None:
            for each in (state, *history):
                fields.settle(each)

        if is_adaptive(stepper):
            first_step(stepper, fields, 0.0, state, 1.0)
        for _ in range(3):  # a first time, another until all that is carried is there, and one that is like all others
            begun = (len(fields.chains), len(fields.pencils))
            batch()
        usual = (tuple(fields.chains[begun[0] :]), tuple(fields.pencils[begun[1] :]))
        evaluations = fields.evaluations
        for batches in (1, 2, 3):  # a state that is saved is finished first; the next steps go on from what is at rest
            settle()
            for _ in range(batches):
                batch()
        settle()
        every = tuple(dict.fromkeys(fields.chains))
        return evaluations, Route(depth, steps, usual[0], every, usual[1], fields.states, 1 + stepper.history)

    evaluations, shallow = rehearse(1, 1)
    if stepper.spectra:
        return (shallow,)
    stages = round(evaluations / 3)
    found = [shallow, *(rehearse(depth, 1)[1] for depth in _DEPTHS if 1 < depth < stages), rehearse(stages, 1)[1]]
    if not is_adaptive(stepper):
        found += [rehearse(stages * n, n)[1] for n in _DEPTHS if n > 1 and stages * n <= _DEPTHS[-1]]
    return tuple(dict.fromkeys(found))
