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
import numpy as np

from voxdask import graph, halo, tiles
from voxdask.graph import Value
from voxdask.halo import PieceRows
from voxdask.kernels import Filter, Kernel, Update
from voxdask.pencil import tiles as split
from voxdask.planning import Plan
from voxdask.system import Operators, System
from voxdask.tiles import Workspace

_workspace = Workspace()

Pieces = dict[str, list[tuple[int, Any]]]


@dataclass(frozen=True, eq=False)
class Context:
    """What every task of a run needs."""

    system: System
    rates: tuple[str, ...]
    rows: int
    columns: int


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
        context = Context(system, operators.equation.rates, plan.rows, plan.columns)
        self.context = graph.constant(f"voxdask-context-{self._token}", context)

    def advance(
        self,
        t: float,
        v: ChunkedState,
        *updates: tuple[ChunkedState, float],
        add: tuple[ChunkedState, float] | None = None,
        end: float,
    ) -> tuple[ChunkedState, ...]:
        """Evaluate r = rhs(t, v) once: ``base + weight r`` for each update, and for `add` in its place."""
        every = [*updates, *([add] if add else [])]
        kernel = self.operators.rate((Update(base=True),) * len(every))
        weights = [weight for _, weight in every]
        results = []
        for i, (lo, hi) in enumerate(self.slabs):
            bases = [{name: base.chunks[name][i] for name in self.system.fields} for base, _ in every]
            pieces = self._pieces(v, i, kernel.halo)
            results.append(
                self.task("advance", advance_slab, self.context, kernel, t, lo, hi, pieces, bases, weights, end)
            )
        states = []
        for m in range(len(every)):
            states.append(
                ChunkedState(
                    {name: [self.item(result, (m, name)) for result in results] for name in self.system.fields}
                )
            )
        if add is not None:
            add[0].chunks = states.pop().chunks
        return tuple(states)

    def implicit(self, t: float, u: ChunkedState, dt: float, gain: Any) -> ChunkedState:
        """u + T^-1[ gain(dt, rate) T[rhs(t, u)] ]."""
        kernel, filters = self.operators.rate(), self.operators.filters(gain)
        cut = self.distributed
        parts = self.pencils if cut else None
        forward = []
        for i, (lo, hi) in enumerate(self.slabs):
            pieces = self._pieces(u, i, kernel.halo)
            forward.append(self.task("slab", transform_slab, self.context, kernel, t, lo, hi, pieces, parts))
        new: dict[str, list[Any]] = {}
        for name, multiply in zip(self.system.fields, filters, strict=True):
            through = []
            for j, (start, stop) in enumerate(self.pencils):
                rows = [self.item(result, (name, j)) for result in forward] if cut else forward
                through.append(
                    self.task(
                        "pencil", filter_pencil, self.context, name, multiply, start, stop, self.slabs, rows, cut, t, dt
                    )
                )
            new[name] = []
            for i, (lo, hi) in enumerate(self.slabs):
                columns = [self.item(pencil, slice(lo, hi)) for pencil in through] if cut else through
                new[name].append(
                    self.task(
                        "update",
                        update_slab,
                        self.context,
                        u.chunks[name][i],
                        lo,
                        hi,
                        self.pencils,
                        columns,
                        cut,
                        t + dt,
                    )
                )
        return ChunkedState(new)

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

    def persist(self, state: ChunkedState) -> ChunkedState:
        """Compute a state and keep its chunks where they were made."""
        names, n = list(state.chunks), len(self.slabs)
        flat = graph.persist([chunk for name in names for chunk in state.chunks[name]])
        return ChunkedState({name: flat[k * n : (k + 1) * n] for k, name in enumerate(names)})

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


def split_array(array: Any, rows: int, distributed: bool = False) -> list[Any]:
    """A Dask value for each slab of an array; one in memory is sent to a cluster at once."""
    return graph.blocks_of(array, f"voxdask-input-{uuid.uuid4().hex[:12]}", rows, distributed)


def advance_slab(
    context: Context,
    kernel: Kernel,
    t: float,
    lo: int,
    hi: int,
    pieces: Pieces,
    bases: Sequence[Mapping[str, Any]],
    weights: Sequence[float],
    end: float,
) -> dict[tuple[int, str], Any]:
    """Updates of one slab of every field."""
    system = context.system
    sources = {name: PieceRows(parts) for name, parts in pieces.items()}
    targets = {(m, name): np.empty_like(base[name]) for m, base in enumerate(bases) for name in system.fields}
    for a, b in split(hi - lo, context.rows):
        given, out = {}, {}
        for (m, name), target in targets.items():
            rate = context.rates[system.fields.index(name)]
            given[f"base{m}_{rate}"], out[f"target{m}_{rate}"] = bases[m][name][a:b], target[a:b]
        tiles.rates(
            system, kernel, t, lo + a, lo + b, sources, _workspace, bases=given, weights=weights, out=out
        )
        for block in targets.values():
            halo.hold(block[a:b], lo + a, system.axes, end)
    return targets


def transform_slab(
    context: Context,
    kernel: Kernel,
    t: float,
    lo: int,
    hi: int,
    pieces: Pieces,
    parts: Sequence[tuple[int, int]] | None,
) -> dict[Any, Any]:
    """Rows of the spectrum of every field's rate of change, by name; by (name, part) if cut into `parts`."""
    system = context.system
    sources = {name: PieceRows(p) for name, p in pieces.items()}
    shape = (hi - lo, *system.transform.spectrum_shape[1:])
    spectra = {name: np.empty(shape, system.transform.spectrum_dtype) for name in system.fields}
    for a, b in split(hi - lo, context.rows):
        results = tiles.rates(system, kernel, t, lo + a, lo + b, sources, _workspace)
        for name, rate in zip(system.fields, context.rates, strict=True):
            spectra[name][a:b] = tiles.to_spectrum(system, results[rate], lo + a)
    if parts is None:
        return spectra
    return {(n, j): np.ascontiguousarray(s[:, a:b]) for n, s in spectra.items() for j, (a, b) in enumerate(parts)}


def filter_pencil(
    context: Context,
    name: str,
    multiply: Filter,
    start: int,
    stop: int,
    slabs: Sequence[tuple[int, int]],
    rows: Sequence[Any],
    cut: bool,
    t: float,
    dt: float,
) -> Any:
    """Columns of a field's spectrum, filtered; from what slabs made, whole or `cut` to the columns."""
    system = context.system
    shape = (slabs[-1][1], stop - start, *system.transform.spectrum_shape[2:])
    pencil = np.empty(shape, system.transform.spectrum_dtype)
    for (lo, hi), made in zip(slabs, rows, strict=True):
        pencil[lo:hi] = made if cut else made[name][:, start:stop]
    for a, b in split(stop - start, context.columns):
        pencil[:, a:b] = tiles.filtered(system, pencil[:, a:b], start + a, multiply, t, dt)
    return pencil


def update_slab(
    context: Context,
    u: Any,
    lo: int,
    hi: int,
    pencils: Sequence[tuple[int, int]],
    columns: Sequence[Any],
    cut: bool,
    end: float,
) -> Any:
    """Rows of a field at the end of a step; from pencils, whole or `cut` to the rows."""
    system = context.system
    new = np.empty_like(u)
    for a, b in split(hi - lo, context.rows):
        shape = (b - a, *system.transform.spectrum_shape[1:])
        spectrum = _workspace.empty("spectrum", shape, system.transform.spectrum_dtype)
        rows = slice(a, b) if cut else slice(lo + a, lo + b)
        for (start, stop), pencil in zip(pencils, columns, strict=True):
            spectrum[:, start:stop] = pencil[rows]
        tiles.updated(system, u[a:b], spectrum, lo + a, end, new[a:b])
    return new


def rate_slab(
    context: Context, kernel: Kernel, t: float, lo: int, hi: int, pieces: Pieces, release: bool
) -> dict[str, Any]:
    """The outputs of a kernel on one slab."""
    system = context.system
    sources = {name: PieceRows(parts) for name, parts in pieces.items()}
    out = {name: np.empty((hi - lo, *system.grid.shape[1:]), system.dtype) for name in kernel.outputs}
    for a, b in split(hi - lo, context.rows):
        tile = {name: block[a:b] for name, block in out.items()}
        tiles.rates(system, kernel, t, lo + a, lo + b, sources, _workspace, out=tile)
        for block in tile.values() if release else ():
            halo.release(block, lo + a, system.axes)
    return out


def start_slab(context: Context, lo: int, blocks: Mapping[str, Any], time: float) -> dict[str, Any]:
    """Rows of every field in the run's dtype, with held nodes at their values."""
    result = {}
    for name, block in blocks.items():
        result[name] = np.array(block, context.system.dtype, order="C")
        halo.hold(result[name], lo, context.system.axes, time)
    return result


def finite_slab(context: Context, lo: int, blocks: Mapping[str, Any]) -> dict[str, bool]:
    """Whether every value of each field is finite."""
    return {name: tiles.finite(block) for name, block in blocks.items()}
