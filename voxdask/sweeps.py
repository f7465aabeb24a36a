"""Run tile functions over fields in memory or in files, side by side on threads.

This is the :class:`~voxdask.steppers.Fields` of the tiers *block* and *spilled*: the same sweeps over
different storage. A step by :meth:`LocalFields.implicit` is three sweeps: slabs (ghost layers, right-hand
side, transforms along the local axes), pencils (transform along the first axis, gain, inverse), slabs
(inverse transforms, update).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from voxdask import backend, halo, tiles
from voxdask.halo import Rows
from voxdask.kernels import Kernel, Update
from voxdask.pencil import tiles as split
from voxdask.planning import Plan
from voxdask.steppers.base import RATE, Target, Terms
from voxdask.storage import FieldInMemory, FieldStorage, FilePool, MemoryPool, SpectrumStorage
from voxdask.system import Operators, System, saved_by
from voxdask.tiles import Workspace


class State:
    """The unknowns at one instant; their storage goes back to the pool with the last reference."""

    def __init__(self, fields: dict[str, FieldStorage], free: list[Any] | None) -> None:
        self.fields, self._free = fields, free

    @property
    def owned(self) -> bool:
        """Whether the storage is the run's own, or the caller's and not to be touched."""
        return self._free is not None

    def __del__(self) -> None:
        if self._free is not None:
            self._free.extend(self.fields.values())


class _Result:
    """A target on its way: its storage, and how a kernel makes it."""

    def __init__(self, fields: LocalFields, target: Target, *, stored: bool = True) -> None:
        self.fields, self.target, self.stored = fields, target, stored
        into, terms = target.into, list(target.terms)
        in_place = into is not None and into.owned and any(state is into for state, _ in terms)
        if in_place:
            terms.sort(key=lambda term: term[0] is not into)
        self.update = Update(len(terms), in_place)
        self.scales = [*(c for _, c in terms), target.weight]
        self.bases = [(k, state) for k, (state, _) in enumerate(terms) if not (in_place and k == 0)]
        if stored:
            self.state: State = into if into is not None and into.owned else fields.new()

    def done(self, system: System, name: str, lo: int, slab: Any, end: float) -> None:
        """Rows are written: see to the nodes whose value is given, and whether all are finite."""
        if self.target.rate:
            halo.release(slab, lo, system.axes)
        else:
            halo.hold(slab, lo, system.axes, end)
        if not tiles.finite(slab):  # threads may only ever clear it
            self.fields.finite = False
        self.state.fields[name].done(lo, slab)


class LocalFields:
    """Operations on fields for a stepper, over tiles on threads.

    Parameters
    ----------
    system : System
    operators : Operators
    plan : Plan
    pool : MemoryPool or FilePool
        Where fields and spectra come from.
    constants : mapping of str to FieldStorage
        Auxiliary fields and coefficients.
    workspace : Workspace, optional

    Attributes
    ----------
    finite : bool
        Whether every value written since the start was finite.
    """

    def __init__(
        self,
        system: System,
        operators: Operators,
        plan: Plan,
        pool: MemoryPool | FilePool,
        constants: Mapping[str, FieldStorage],
        workspace: Workspace | None = None,
    ) -> None:
        self.system, self.operators, self.plan, self.pool = system, operators, plan, pool
        self.constants = dict(constants)
        self.workspace = workspace or Workspace()
        self.finite = True
        self._spectra: dict[str, SpectrumStorage] = {}
        self._kept: dict[str, list[SpectrumStorage]] = {}
        # on a device one tile is the whole field, and the stream keeps the order
        whole, shape = pool.like is not None, system.transform.spectrum_shape
        self.rows, self.columns = (shape[0], shape[1]) if whole else (plan.rows, plan.columns)
        self.sum_rows = self.rows if whole else plan.sum_rows
        self.slabs = split(shape[0], max(self.rows, plan.slab_rows))
        self.pencils = split(shape[1], max(self.columns, plan.pencil_columns))
        self._threads = ThreadPoolExecutor(1 if whole else plan.threads, "voxdask")

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(cancel_futures=True)

    def given(self, arrays: Mapping[str, Any]) -> State:
        """A state over the caller's arrays, which are only read."""
        return State({name: FieldInMemory(a) for name, a in arrays.items()}, None)

    def new(self) -> State:
        """A state without values."""
        shape, dtype = self.system.grid.shape, self.system.dtype
        fields = {name: self.pool.field(shape, dtype) for name in self.system.fields}
        return State(fields, self.pool.free)

    def fill(self, block: Callable[[str, int, int], Any], time: float | None = None) -> State:
        """A state from ``block(name, lo, hi)``, rows of a field; at a `time` held nodes take their values."""
        state = self.new()

        def work(lo: int, hi: int) -> None:
            for name, field in state.fields.items():
                out = field.slab(lo, hi, name, filled=False)
                for a, b in split(hi - lo, self.rows):  # few rows at a time: what makes them takes memory too
                    out[a:b] = block(name, lo + a, lo + b)
                if time is not None:
                    halo.hold(out, lo, self.system.axes, time)
                field.done(lo, out)

        self._sweep(work, self.slabs)
        return state

    def rows_of(self, state: State, name: str, lo: int, hi: int) -> Any:
        """Rows of a field of a state."""
        return state.fields[name].read_rows(lo, hi)

    def advance(self, t: float, v: State, *targets: Target, end: float) -> tuple[State, ...]:
        """Evaluate r = rhs(t, v) once, and make every target; see :class:`voxdask.steppers.Fields`."""
        system, rates = self.system, self.operators.equation.rates
        results = [_Result(self, target) for target in targets]
        kernel = self.operators.rate(tuple(result.update for result in results))
        scales = [scale for result in results for scale in result.scales]
        sources = {**v.fields, **self.constants}

        def work(lo: int, hi: int) -> None:
            windows = self._windows(sources, lo, hi, kernel.halo)
            bases, slabs = self._slabs_of(results, lo, hi)
            for a, b in split(hi - lo, self.rows):
                tiles.rates(
                    system, kernel, t, lo + a, lo + b, windows, self.workspace,
                    bases={key: base[a:b] for key, base in bases.items()}, scales=scales,
                    out={key: slab[a:b] for key, slab in slabs.items()}, like=self.pool.like,
                )  # fmt: skip
            for m, result in enumerate(results):
                for name, rate in zip(system.fields, rates, strict=True):
                    result.done(system, name, lo, slabs[f"target{m}_{rate}"], end)

        self._sweep(work, self.slabs)
        return tuple(result.state for result in results)

    def implicit(
        self,
        t: float,
        v: State,
        dt: float,
        gain: Any,
        *,
        saved: int = 0,
        source: Target | None = None,
        keep: Target | None = None,
        base: Terms | None = None,
        into: State | None = None,
        end: float | None = None,
    ) -> tuple[State, ...]:
        """Evaluate r = rhs(t, v), and a new state by way of the modes; see :class:`voxdask.steppers.Fields`."""
        system, rates = self.system, self.operators.equation.rates
        filters, arrive = self.operators.filters(gain, saved), t + dt if end is None else end
        kept = [_Result(self, keep)] if keep else []
        made = [_Result(self, source or RATE, stored=False), *kept] if source or keep else []
        kernel = self.operators.rate(tuple(result.update for result in made))
        scales = [scale for result in made for scale in result.scales]
        sources = {**v.fields, **self.constants}
        spectra = {name: self._spectrum(name) for name in system.fields}
        stored = {name: self._saved(name, saved_by(filters)) for name in system.fields}

        def forward(lo: int, hi: int) -> None:
            windows = self._windows(sources, lo, hi, kernel.halo)
            bases, kept_slabs = self._slabs_of(made, lo, hi)
            slabs = {name: spectrum.slab(lo, hi, filled=False) for name, spectrum in spectra.items()}
            for a, b in split(hi - lo, self.rows):
                tile = tiles.rates(
                    system, kernel, t, lo + a, lo + b, windows, self.workspace,
                    bases={key: block[a:b] for key, block in bases.items()}, scales=scales,
                    out={key: slab[a:b] for key, slab in kept_slabs.items()}, like=self.pool.like,
                )  # fmt: skip
                for name, rate in zip(system.fields, rates, strict=True):
                    weight = tiles.weight_of(system, name, windows, lo + a, lo + b)
                    made_of = tile[f"target0_{rate}" if made else rate]
                    slabs[name][a:b] = tiles.to_spectrum(system, made_of, lo + a, weight)
            for name, slab in slabs.items():
                spectra[name].slab_done(lo, slab)
            for result in kept:
                for name, rate in zip(system.fields, rates, strict=True):
                    result.done(system, name, lo, kept_slabs[f"target1_{rate}"], arrive)

        def through(start: int, stop: int) -> None:
            for name, multiply in zip(system.fields, filters, strict=True):
                pencil = spectra[name].pencil(start, stop)
                # what was not saved before is only written, and may not be there yet
                beside = [spectrum.pencil(start, stop, filled=k < saved) for k, spectrum in enumerate(stored[name])]
                for a, b in split(stop - start, self.columns):
                    narrow = [block[:, a:b] for block in beside]
                    pencil[:, a:b] = tiles.filtered(system, pencil[:, a:b], start + a, multiply, t, dt, narrow)
                spectra[name].pencil_done(start, pencil)
                for spectrum, block in zip(stored[name], beside, strict=True):
                    spectrum.pencil_done(start, block)

        new = into if into is not None and into.owned else self.new()
        terms = base or ((v, 1.0),)

        def backward(lo: int, hi: int) -> None:
            weights = self._windows({w.field: self.constants[w.field] for w in system.weights.values()}, lo, hi, 0)
            for name, target in new.fields.items():
                spectrum = spectra[name].slab(lo, hi, filled=True)
                out = target.slab(lo, hi, name, filled=any(state is new for state, _ in terms))
                rows = [
                    (out if state is new else state.fields[name].slab(lo, hi, f"base{k}_{name}", filled=True), c)
                    for k, (state, c) in enumerate(terms)
                ]
                for a, b in split(hi - lo, self.rows):
                    weight = tiles.weight_of(system, name, weights, lo + a, lo + b)
                    tile = [(block[a:b], c) for block, c in rows]
                    if not tiles.updated(system, tile, spectrum[a:b], lo + a, arrive, out[a:b], weight):
                        self.finite = False
                target.done(lo, out)

        self._sweep(forward, self.slabs)
        self._sweep(through, self.pencils)
        self._sweep(backward, self.slabs)
        return (new, *(result.state for result in kept))

    def combine(self, *terms: tuple[State, float], end: float) -> State:
        """The sum of states and rates with coefficients; nodes that are given take their value at `end`."""
        new = self.new()

        def work(lo: int, hi: int) -> None:
            for name, target in new.fields.items():
                out = target.slab(lo, hi, name, filled=False)
                for a, b in split(hi - lo, self.sum_rows):
                    tiles.add_up(self._blocks_of(terms, name, lo + a, lo + b), out[a:b])
                halo.hold(out, lo, self.system.axes, end)
                if not tiles.finite(out):
                    self.finite = False
                target.done(lo, out)

        self._sweep(work, self.slabs)
        return new

    def error(self, terms: Terms, u: State, v: State, atol: float, rtol: float) -> float:
        """The size of a sum in units of the tolerance; see :class:`voxdask.steppers.Fields`."""
        sums: dict[tuple[str, int], Any] = {}

        def work(lo: int, hi: int) -> None:
            for name in self.system.fields:
                for a, b in split(hi - lo, self.sum_rows):
                    a, b = lo + a, lo + b
                    shape = (b - a, *self.system.grid.shape[1:])
                    total = self.workspace.empty("error", shape, self.system.dtype, self.pool.like)
                    tiles.add_up(self._blocks_of(terms, name, a, b), total)
                    states = (block for block, _ in self._blocks_of(((u, 1.0), (v, 1.0)), name, a, b))
                    sums[name, a] = tiles.square_sums(total, states, atol, rtol)

        self._sweep(work, self.slabs)
        every = [rows for _, rows in sorted(sums.items(), key=lambda item: item[0])]
        return tiles.root_mean_square(every, self.system.grid.size * len(self.system.fields))

    @staticmethod
    def _blocks_of(terms: Iterable[tuple[State, float]], name: str, lo: int, hi: int) -> Iterator[tuple[Any, float]]:
        """Rows of a field of one state after the other."""
        return ((state.fields[name].read_rows(lo, hi), c) for state, c in terms)

    def _slabs_of(self, results: Sequence[_Result], lo: int, hi: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rows of the bases and of the targets that are stored, by the names that a kernel gives them."""
        bases, slabs, read = {}, {}, dict[tuple[int, str], Any]()
        for m, result in enumerate(results):
            for name, rate in zip(self.system.fields, self.operators.equation.rates, strict=True):
                for k, state in result.bases:
                    if (id(state), name) not in read:
                        read[id(state), name] = state.fields[name].slab(lo, hi, f"base{m}_{k}_{name}", filled=True)
                    bases[f"base{m}_{k}_{rate}"] = read[id(state), name]
                if result.stored:
                    filled = result.update.in_place
                    slabs[f"target{m}_{rate}"] = result.state.fields[name].slab(lo, hi, f"{m}_{name}", filled=filled)
        return bases, slabs

    def evaluate(
        self, kernel: Kernel, t: float, sources: Mapping[str, FieldStorage], *, release: bool
    ) -> dict[str, Any]:
        """The outputs of a kernel on fields in memory, as whole arrays; `release` zeroes them at held nodes."""
        shape, xp = self.system.grid.shape, backend.namespace(self.pool.like)
        whole = {name: xp.empty(shape, self.system.dtype) for name in kernel.outputs}

        def work(lo: int, hi: int) -> None:
            windows = self._windows(sources, lo, hi, kernel.halo)
            out = {name: array[lo:hi] for name, array in whole.items()}
            tiles.rates(self.system, kernel, t, lo, hi, windows, self.workspace, out=out, like=self.pool.like)
            for block in out.values() if release else ():
                halo.release(block, lo, self.system.axes)

        self._sweep(work, self.slabs)
        return whole

    def _windows(self, sources: Mapping[str, FieldStorage], lo: int, hi: int, depth: int) -> dict[str, Rows]:
        first = self.system.axes[0]
        return {name: field.window(lo, hi, depth, first, name) for name, field in sources.items()}

    def _spectrum(self, name: str) -> SpectrumStorage:
        if name not in self._spectra:
            transform = self.system.transform
            self._spectra[name] = self.pool.spectrum(transform.spectrum_shape, transform.spectrum_dtype, name)
        return self._spectra[name]

    def _saved(self, name: str, count: int) -> list[SpectrumStorage]:
        """Spectra that a step keeps from one evaluation to the next."""
        transform, kept = self.system.transform, self._kept.setdefault(name, [])
        while len(kept) < count:
            label = f"{name}.saved{len(kept)}"
            kept.append(self.pool.spectrum(transform.modes_shape, transform.modes_dtype, label, whole=True))
        return kept[:count]

    def _sweep(self, work: Callable[[int, int], None], ranges: list[tuple[int, int]]) -> None:
        for _ in self._threads.map(lambda bounds: work(*bounds), ranges):
            pass
