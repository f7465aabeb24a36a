"""Run tile functions over Dask chunks, on local threads or on a cluster.

This is the :class:`~voxdask.steppers.Fields` of the tier *chunked*. A state is one Dask value for each slab
of each field. A right-hand side is one task for each slab, which refers to its neighbours and slices them
itself; halo, kernel and local transforms of a slab are one task, a pencil is another, and the redistribution
between them is what their arguments say. Inside, a task runs over thin tiles, as the other tiers do.
"""

from __future__ import annotations

import itertools
import operator
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da

from voxdask import graph, tiles
from voxdask.filters import Filter
from voxdask.graph import Value
from voxdask.kernels import Kernel, Update
from voxdask.passes import Context
from voxdask.pencil import TRANSFORMED, split
from voxdask.plans import Plan
from voxdask.slabs import (
    Pending,
    Pieces,
    advance_slab,
    combine_slab,
    error_slab,
    filter_pencil,
    rate_slab,
    update_slab,
)
from voxdask.steppers.base import RATE, Target, Terms
from voxdask.system import Operators, System, saved_in
from voxdask.windows import domain_rows

#: A slab finishes its ghost rows itself if it is at least so many times thicker than they are deep.
_TWICE = 8


@dataclass(eq=False)
class Unfinished:
    """What the end of a semi-implicit step is to be made of: pencils of its change, and what that is added to."""

    pencils: dict[str, list[Any]]
    terms: tuple[tuple[ChunkedState, float], ...]
    end: float


@dataclass(eq=False)
class ChunkedState:
    """One Dask value for each slab of each field; or, as long as nobody asks for these, what they are to be made of."""

    made: dict[str, list[Any]] | None
    unfinished: Unfinished | None = None

    @property
    def chunks(self) -> dict[str, list[Any]]:
        if self.made is None:
            raise RuntimeError("the state is not finished")
        return self.made

    def finish(self, chunks: dict[str, list[Any]]) -> None:
        """Its values are known."""
        self.made, self.unfinished = chunks, None


class ChunkedFields:
    """Operations on fields for a stepper, as Dask tasks.

    Parameters
    ----------
    system : System
    operators : Operators
    plan : Plan
    constants : mapping of str to list
        A Dask value for each slab of every auxiliary field and coefficient.
    """

    def __init__(
        self,
        system: System,
        operators: Operators,
        plan: Plan,
        constants: Mapping[str, Sequence[Any]],
    ) -> None:
        self.system, self.operators, self.plan = system, operators, plan
        self.distributed = plan.workers > 0  # then slices are sent between tasks, rather than whole chunks
        self.slabs = split(system.grid.shape[0], plan.slab_rows)
        columns = system.transform.spectrum_shape[1]
        self.pencils = split(columns, max(-(-columns // len(self.slabs)), 1))
        self.constants = {name: list(chunks) for name, chunks in constants.items()}
        self._token, self._count, self.tasks = uuid.uuid4().hex[:12], itertools.count(), 0
        self._kernels: dict[Kernel | Filter, Value] = {}
        self._kept: dict[str, dict[str, list[Any]]] = {}
        context = Context.of(system, operators, plan)
        self.context = graph.constant(f"voxdask-context-{self._token}", context)

    def advance(self, t: float, v: ChunkedState, *targets: Target, end: float) -> tuple[ChunkedState, ...]:
        """Evaluate r = rhs(t, v) once, and make every target; see :class:`voxdask.steppers.Fields`."""
        results = self._advanced(t, v, targets, end)
        return tuple(self._state(results, m) for m in range(len(targets)))

    def implicit(
        self,
        t: float,
        v: ChunkedState,
        dt: float,
        gain: Any,
        *,
        saved: int = 0,
        source: Target | None = None,
        keep: Target | None = None,
        base: Terms | None = None,
        into: ChunkedState | None = None,
        end: float | None = None,
    ) -> tuple[ChunkedState, ...]:
        """Evaluate r = rhs(t, v), and a new state by way of the modes; see :class:`voxdask.steppers.Fields`."""
        arrive, parts = t + dt if end is None else end, self.pencils if self.distributed else None
        filters = self.operators.filters(gain, saved)
        terms = base or ((v, 1.0),)
        made: tuple[Target, ...] = ((source or RATE), *([keep] if keep else [])) if source or keep else ()
        forward = self._advanced(t, v, made, arrive, spectrum=True, parts=parts)
        pencils = {}
        for name, multiply in zip(self.system.fields, filters, strict=True):
            kept, through = self._kept.pop(name, {}), []
            for j, (start, stop) in enumerate(self.pencils):
                rows = [self.item(result, (name, j)) for result in forward] if self.distributed else forward
                # what it does not read must not come in: that would have all of its past made again
                stored = {each: kept[each][j] for each in saved_in(multiply.reads)}
                through.append(
                    self.task(
                        "pencil", filter_pencil,
                        self.context, name, multiply, start, stop, self.slabs, rows, self.distributed, t, dt, stored,
                    )
                )  # fmt: skip
            if saved_in(multiply.writes):
                written = {each: [self.item(pencil, each) for pencil in through] for each in multiply.writes}
                through, kept = written[TRANSFORMED], kept | written
            pencils[name] = through
            self._kept[name] = {each: kept[each] for each in saved_in(multiply.targets)}
        for state, _ in terms:
            self.settle(state)
        states = [ChunkedState(None, Unfinished(pencils, terms, arrive))]
        if keep:
            states.append(self._state(forward, 1))
        return tuple(states)

    def combine(self, *terms: tuple[ChunkedState, float], end: float) -> ChunkedState:
        """The sum of states and rates with coefficients; nodes that are given take their value at `end`."""
        self.settle(*(state for state, _ in terms))
        weights = [c for _, c in terms]
        chunks: dict[str, list[Any]] = {name: [] for name in self.system.fields}
        for i, (lo, _) in enumerate(self.slabs):
            for name, made in chunks.items():
                blocks = [state.chunks[name][i] for state, _ in terms]
                made.append(self.task("combine", combine_slab, self.context, lo, blocks, weights, end))
        return ChunkedState(chunks)

    def error(self, terms: Terms, u: ChunkedState, v: ChunkedState, atol: float, rtol: float) -> float:
        """The size of a sum in units of the tolerance; computes it, and keeps the states that it takes."""
        self.settle(u, v, *(state for state, _ in terms))
        weights, sums = [c for _, c in terms], []
        for name in sorted(self.system.fields):
            for i in range(len(self.slabs)):
                blocks = [state.chunks[name][i] for state, _ in terms]
                pair = [state.chunks[name][i] for state in (u, v)]
                sums.append(self.task("error", error_slab, self.context, blocks, weights, pair, atol, rtol))
        # in one graph with what it is made from: computed later, that would all be done once more
        states = {id(state): state for state in (u, v, *(state for state, _ in terms))}.values()
        places = [(state.chunks[name], i) for state in states for name in state.chunks for i in range(len(self.slabs))]
        kept = graph.persist([*(chunks[i] for chunks, i in places), *sums])
        for (chunks, i), value in zip(places, kept, strict=False):
            chunks[i] = value
        count = self.system.grid.size * len(self.system.fields)
        return tiles.root_mean_square(graph.compute(kept[len(places) :]), count)

    def settle(self, *states: ChunkedState) -> None:
        """Have states that are unfinished finished by tasks of their own."""
        for state in states:
            if state.made is None:
                results = [
                    self.task("update", update_slab, self.context, self._pending(state, lo, hi), lo, hi)
                    for lo, hi in self.slabs
                ]
                state.finish({name: [self.item(made, name) for made in results] for name in self.system.fields})

    def _advanced(
        self,
        t: float,
        v: ChunkedState,
        targets: Sequence[Target],
        end: float,
        *,
        spectrum: bool = False,
        parts: Sequence[tuple[int, int]] | None = None,
    ) -> list[Value]:
        """One task for each slab: every target by (number, field); the spectrum of the first one by field.

        A state that is unfinished is finished by the same tasks, if slabs are so thick that what they do twice, the
        ghost rows between them, is little: then no slab waits for its neighbours.
        """
        kernel = self.operators.rate(tuple(Update(len(target.terms)) for target in targets))
        scales = [scale for target in targets for scale in (*(c for _, c in target.terms), target.weight)]
        rated = [target.rate for target in targets]
        if _TWICE * kernel.halo > self.plan.slab_rows:
            self.settle(v)
        finishing, results = v.made is None, []
        self.settle(*(state for target in targets for state, _ in target.terms if state is not v))
        for i, (lo, hi) in enumerate(self.slabs):
            bases = [
                [
                    None if state.made is None else {name: state.chunks[name][i] for name in self.system.fields}
                    for state, _ in target.terms
                ]
                for target in targets
            ]
            pending = self._pending(v, lo - kernel.halo, hi + kernel.halo) if finishing else None
            pieces = self._pieces({} if finishing else v.chunks, i, kernel.halo)
            results.append(
                self.task(
                    "slab" if spectrum else "advance", advance_slab,
                    self.context, kernel, t, lo, hi, pieces, bases, scales, rated, end, spectrum, parts, pending,
                )
            )  # fmt: skip
        if finishing:
            fields = self.system.fields
            v.finish({name: [self.item(result, ("state", name)) for result in results] for name in fields})
        return results

    def _pending(self, state: ChunkedState, start: int, stop: int) -> Pending:
        """What finishing rows of a state takes; see :func:`voxdask.slabs.finish`."""
        assert state.unfinished is not None
        unfinished, weights = state.unfinished, self.system.weights
        if not self.system.axes[0].periodic:
            start, stop = max(start, 0), min(stop, self.system.grid.shape[0])
        ranges = [(lo, hi) for _, lo, hi in domain_rows(start, stop, self.system.grid.shape[0])]
        columns = {
            name: [
                [(lo, self.item(pencil, slice(lo, hi))) for lo, hi in ranges] if self.distributed else [(0, pencil)]
                for pencil in pencils
            ]
            for name, pencils in unfinished.pencils.items()
        }
        update = Update(len(unfinished.terms))
        return {
            "columns": columns,
            "pencils": self.pencils,
            "kernels": {name: self._shared(self.operators.update(name, update)) for name in self.system.fields},
            "bases": [self._parts(term.chunks, ranges) for term, _ in unfinished.terms],
            "scales": [c for _, c in unfinished.terms],
            "weights": self._parts({w.field: self.constants[w.field] for w in weights.values()}, ranges),
            "end": unfinished.end,
        }

    def _state(self, results: Sequence[Value], number: int) -> ChunkedState:
        fields = self.system.fields
        return ChunkedState({name: [self.item(result, (number, name)) for result in results] for name in fields})

    def rates(self, t: float, u: ChunkedState, kernel: Kernel, *, release: bool) -> dict[str, list[Any]]:
        """The outputs of a kernel on every slab; `release` sets them to zero at held nodes."""
        results = []
        for i, (lo, hi) in enumerate(self.slabs):
            pieces = self._pieces(u.chunks, i, kernel.halo)
            results.append(self.task("rate", rate_slab, self.context, kernel, t, lo, hi, pieces, release))
        return {name: [self.item(result, name) for result in results] for name in kernel.outputs}

    def map(self, function: Callable[..., Any], state: ChunkedState, *arguments: Any) -> list[Any]:
        """``function(context, lo, {field: block}, *arguments)`` for every slab, as Dask values."""
        self.settle(state)
        values = []
        for i, (lo, _) in enumerate(self.slabs):
            blocks = {name: state.chunks[name][i] for name in self.system.fields}
            values.append(self.task(function.__name__, function, self.context, lo, blocks, *arguments))
        return values

    def persist(self, *states: ChunkedState) -> list[ChunkedState]:
        """Compute states together and keep their chunks where they were made."""
        self.settle(*states)
        flat = iter(graph.persist([chunk for state in states for chunks in state.chunks.values() for chunk in chunks]))
        return [
            ChunkedState({name: list(itertools.islice(flat, len(chunks))) for name, chunks in state.chunks.items()})
            for state in states
        ]

    def forget_how(self, *states: ChunkedState) -> list[ChunkedState]:
        """The same states, on a cluster, as if they had come from nowhere; one chunk after the other passes by here."""
        return [
            ChunkedState({name: [graph.sent_again(chunk) for chunk in chunks] for name, chunks in state.chunks.items()})
            for state in states
        ]

    def array(self, chunks: Sequence[Any], dtype: Any = None) -> da.Array:
        """A Dask array from one value for each slab."""
        rest = ((n,) for n in self.system.grid.shape[1:])
        name = f"voxdask-array-{self._token}-{next(self._count)}"
        sizes = (tuple(hi - lo for lo, hi in self.slabs), *rest)
        return graph.array_of(name, chunks, sizes, dtype or self.system.dtype)

    def _pieces(self, chunks: Mapping[str, Sequence[Any]], i: int, depth: int) -> dict[str, Pieces]:
        """The parts of fields and constants that slab i and its ghost layers touch."""
        (lo, hi), first = self.slabs[i], self.system.axes[0]
        rows = {first.ghost(p).source if not 0 <= p < first.size else p for p in range(lo - depth, hi + depth)}
        return self._parts({**chunks, **self.constants}, _runs(sorted(rows)))

    def _parts(self, chunks: Mapping[str, Sequence[Any]], ranges: Sequence[tuple[int, int]]) -> dict[str, Pieces]:
        """What holds ranges of rows: whole chunks, or on a cluster no more of them than that, unless it is most."""
        parts = {name: list[tuple[int, Any]]() for name in chunks}
        wanted = [(k, lo, hi) for k, _ in enumerate(self.slabs) for lo, hi in self._within(k, ranges)]
        for k in dict.fromkeys(k for k, _, _ in wanted):
            runs = [(lo, hi) for other, lo, hi in wanted if other == k]
            start, stop = self.slabs[k]
            if not self.distributed or 2 * sum(hi - lo for lo, hi in runs) > stop - start:
                runs = [(start, stop)]
            for name, every in chunks.items():
                for lo, hi in runs:
                    part = every[k] if (lo, hi) == (start, stop) else self.item(every[k], slice(lo - start, hi - start))
                    parts[name].append((lo, part))
        return parts

    def _within(self, k: int, ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The parts of ranges that lie in slab k."""
        start, stop = self.slabs[k]
        return [(max(lo, start), min(hi, stop)) for lo, hi in ranges if max(lo, start) < min(hi, stop)]

    def task(self, label: str, function: Callable[..., Any], *arguments: Any) -> Value:
        """One Dask value; a repeated step gets keys of its own."""
        key = f"voxdask-{label}-{self._token}-{next(self._count)}"
        self.tasks += 1
        return graph.call(key, function, *(self._shared(a) if isinstance(a, Kernel | Filter) else a for a in arguments))

    def _shared(self, kernel: Kernel | Filter) -> Value:
        """A kernel as one task of the graph, rather than a copy of its source in every task."""
        if kernel not in self._kernels:
            name = f"voxdask-kernel-{self._token}-{len(self._kernels)}"
            self._kernels[kernel] = graph.constant(name, kernel)
        return self._kernels[kernel]

    def item(self, value: Any, index: Any) -> Value:
        """``value[index]`` as a task."""
        return self.task("item", operator.getitem, value, index)


def _runs(rows: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges without a gap of rising numbers.

    Examples
    --------
    >>> _runs([0, 1, 2, 7, 8])
    [(0, 3), (7, 9)]
    """
    starts = [k for k, row in enumerate(rows) if k == 0 or row != rows[k - 1] + 1]
    return [(rows[a], rows[b - 1] + 1) for a, b in itertools.pairwise([*starts, len(rows)])]


def split_arrays(arrays: Mapping[str, Any], rows: int, distributed: bool = False) -> dict[str, list[Any]]:
    """A Dask value for each slab of every array; those in memory are sent to a cluster at once."""
    return graph.blocks_of_each(arrays, f"voxdask-input-{uuid.uuid4().hex[:12]}", rows, distributed)
