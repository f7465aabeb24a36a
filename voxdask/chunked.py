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

import dask
import dask.array as da

from voxdask import graph, tiles
from voxdask.graph import Value
from voxdask.kernels import Filter, Kernel, Update
from voxdask.pencil import tiles as split
from voxdask.planning import Plan
from voxdask.slabs import (
    Context,
    Pieces,
    advance_slab,
    combine_slab,
    error_slab,
    filter_pencil,
    rate_slab,
    update_slab,
)
from voxdask.steppers.base import RATE, Target, Terms
from voxdask.system import Operators, System, saved_by


@dataclass(eq=False)
class ChunkedState:
    """One Dask value for each slab of each field."""

    chunks: dict[str, list[Any]]


class ChunkedFields:
    """Operations on fields for a stepper, as Dask tasks.

    Parameters
    ----------
    system : System
    operators : Operators
    plan : Plan
    constants : mapping of str to list
        A Dask value for each slab of every auxiliary field and coefficient.
    distributed : bool
        Send slices between tasks rather than whole chunks.
    """

    def __init__(
        self,
        system: System,
        operators: Operators,
        plan: Plan,
        constants: Mapping[str, Sequence[Any]],
        distributed: bool = False,
    ) -> None:
        self.system, self.operators, self.plan, self.distributed = system, operators, plan, distributed
        self.slabs = split(system.grid.shape[0], plan.chunk_rows)
        columns = system.transform.spectrum_shape[1]
        self.pencils = split(columns, max(-(-columns // len(self.slabs)), 1))
        self.constants = {name: list(chunks) for name, chunks in constants.items()}
        self._token, self._count = uuid.uuid4().hex[:12], itertools.count()
        self._kernels: dict[Kernel | Filter, Value] = {}
        self._kept: dict[str, list[list[Any]]] = {}
        context = Context(system, operators.equation.rates, plan.rows, plan.columns, plan.sum_rows)
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
        made: tuple[Target, ...] = ((source or RATE), *([keep] if keep else [])) if source or keep else ()
        forward = self._advanced(t, v, made, arrive, spectrum=True, parts=parts)
        new, terms, beside = {}, base or ((v, 1.0),), {}
        for name, multiply in zip(self.system.fields, filters, strict=True):
            kept = self._kept.get(name, [])[: saved_by([multiply])]
            through = []
            for j, (start, stop) in enumerate(self.pencils):
                rows = [self.item(result, (name, j)) for result in forward] if self.distributed else forward
                stored = [spectrum[j] for spectrum in kept]
                through.append(
                    self.task(
                        "pencil", filter_pencil,
                        self.context, name, multiply, start, stop, self.slabs, rows, self.distributed, t, dt, stored,
                    )
                )  # fmt: skip
            if saves := len(multiply.arrays) - 1:
                beside[name] = [[self.item(pencil, k + 1) for pencil in through] for k in range(saves)]
                through = [self.item(pencil, 0) for pencil in through]
            new[name] = self._updated(name, terms, through, arrive)
        self._kept = beside
        states = [ChunkedState(new)]
        if keep:
            states.append(self._state(forward, 1))
        return tuple(states)

    def combine(self, *terms: tuple[ChunkedState, float], end: float) -> ChunkedState:
        """The sum of states and rates with coefficients; nodes that are given take their value at `end`."""
        weights = [c for _, c in terms]
        chunks: dict[str, list[Any]] = {name: [] for name in self.system.fields}
        for i, (lo, _) in enumerate(self.slabs):
            for name, made in chunks.items():
                blocks = [state.chunks[name][i] for state, _ in terms]
                made.append(self.task("combine", combine_slab, self.context, lo, blocks, weights, end))
        return ChunkedState(chunks)

    def error(self, terms: Terms, u: ChunkedState, v: ChunkedState, atol: float, rtol: float) -> float:
        """The size of a sum in units of the tolerance; computes it, and keeps the states that it takes."""
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
        return tiles.root_mean_square(dask.compute(*kept[len(places) :]), count)

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
        """One task for each slab: every target by (number, field); the spectrum of the first one by field."""
        kernel = self.operators.rate(tuple(Update(len(target.terms)) for target in targets))
        scales = [scale for target in targets for scale in (*(c for _, c in target.terms), target.weight)]
        rated = [target.rate for target in targets]
        results = []
        for i, (lo, hi) in enumerate(self.slabs):
            bases = [
                [{name: state.chunks[name][i] for name in self.system.fields} for state, _ in target.terms]
                for target in targets
            ]
            pieces = self._pieces(v, i, kernel.halo)
            job = self.task(
                "slab" if spectrum else "advance", advance_slab,
                self.context, kernel, t, lo, hi, pieces, bases, scales, rated, end, spectrum, parts,
            )  # fmt: skip
            results.append(job)
        return results

    def _updated(self, name: str, terms: Terms, through: Sequence[Any], end: float) -> list[Any]:
        """A field of a new state from the pencils of its change."""
        cut, chunks = self.distributed, []
        for i, (lo, hi) in enumerate(self.slabs):
            columns = [self.item(pencil, slice(lo, hi)) for pencil in through] if cut else list(through)
            bases = [(state.chunks[name][i], c) for state, c in terms]
            weight = self.system.weights.get(name)
            weighing = None if weight is None else self.constants[weight.field][i]
            job = self.task(
                "update", update_slab,
                self.context, name, bases, weighing, lo, hi, self.pencils, columns, cut, end,
            )  # fmt: skip
            chunks.append(job)
        return chunks

    def _state(self, results: Sequence[Value], number: int) -> ChunkedState:
        fields = self.system.fields
        return ChunkedState({name: [self.item(result, (number, name)) for result in results] for name in fields})

    def rates(self, t: float, u: ChunkedState, kernel: Kernel, *, release: bool) -> dict[str, list[Any]]:
        """The outputs of a kernel on every slab; `release` sets them to zero at held nodes."""
        results = [
            self.task("rate", rate_slab, self.context, kernel, t, lo, hi, self._pieces(u, i, kernel.halo), release)
            for i, (lo, hi) in enumerate(self.slabs)
        ]
        return {name: [self.item(result, name) for result in results] for name in kernel.outputs}

    def map(self, function: Callable[..., Any], state: ChunkedState, *arguments: Any) -> list[Any]:
        """``function(context, lo, {field: block}, *arguments)`` for every slab, as Dask values."""
        values = []
        for i, (lo, _) in enumerate(self.slabs):
            blocks = {name: state.chunks[name][i] for name in self.system.fields}
            values.append(self.task(function.__name__, function, self.context, lo, blocks, *arguments))
        return values

    def persist(self, *states: ChunkedState) -> list[ChunkedState]:
        """Compute states together and keep their chunks where they were made."""
        flat = iter(graph.persist([chunk for state in states for chunks in state.chunks.values() for chunk in chunks]))
        return [
            ChunkedState({name: list(itertools.islice(flat, len(chunks))) for name, chunks in state.chunks.items()})
            for state in states
        ]

    def array(self, chunks: Sequence[Any], dtype: Any = None) -> da.Array:
        """A Dask array from one value for each slab."""
        rest = ((n,) for n in self.system.grid.shape[1:])
        name = f"voxdask-array-{self._token}-{next(self._count)}"
        sizes = (tuple(hi - lo for lo, hi in self.slabs), *rest)
        return graph.array_of(name, chunks, sizes, dtype or self.system.dtype)

    def _pieces(self, v: ChunkedState, i: int, depth: int) -> Pieces:
        """The chunks that slab i and its ghost layers touch; of neighbours on a cluster only those rows."""
        (lo, hi), first = self.slabs[i], self.system.axes[0]
        around = [first.ghost(p).source if not 0 <= p < first.size else p for p in range(lo - depth, hi + depth)]
        touched: dict[int, list[int]] = {}
        for row in around:
            touched.setdefault(row // self.plan.chunk_rows, []).append(row)
        pieces: Pieces = {}
        for name, chunks in {**v.chunks, **self.constants}.items():
            pieces[name] = []
            for k, rows in touched.items():
                start, chunk = self.slabs[k][0], chunks[k]
                if self.distributed and k != i:
                    a, b = min(rows) - start, max(rows) + 1 - start
                    start, chunk = start + a, self.item(chunk, slice(a, b))
                pieces[name].append((start, chunk))
        return pieces

    def task(self, label: str, function: Callable[..., Any], *arguments: Any) -> Value:
        """One Dask value; a repeated step gets keys of its own."""
        key = f"voxdask-{label}-{self._token}-{next(self._count)}"
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


def split_arrays(arrays: Mapping[str, Any], rows: int, distributed: bool = False) -> dict[str, list[Any]]:
    """A Dask value for each slab of every array; those in memory are sent to a cluster at once."""
    return graph.blocks_of_each(arrays, f"voxdask-input-{uuid.uuid4().hex[:12]}", rows, distributed)
