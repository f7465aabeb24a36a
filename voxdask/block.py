"""Run passes over fields in memory, side by side on threads, or on a device.

This is the :class:`~voxdask.steppers.Fields` of the tier *block*. A step by :meth:`BlockFields.implicit` is three
sweeps: slabs (right-hand side, transforms along the local axes), pencils (transform along the first axis, gain,
inverse), slabs (inverse transforms, update). A state has ghost layers of its own, which are filled before it is
read, so that a stencil reads it where it lies. On a device a tile is the whole field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from voxdask import backend, halo, passes, tiles
from voxdask.filters import Filter
from voxdask.halo import ArrayRows, PaddedRows, Rows
from voxdask.kernels import Kernel, Update
from voxdask.passes import Context
from voxdask.pencil import TRANSFORMED, split
from voxdask.plans import DEVICE_SUMS, Plan
from voxdask.steppers.base import RATE, Target, Terms
from voxdask.system import SUM, Operators, System, saved_in
from voxdask.tiles import Workspace


class BlockState:
    """The unknowns at one instant, with ghost layers; the arrays go back to a pool with the last reference."""

    def __init__(self, arrays: dict[str, Any], depth: int, free: list[dict[str, Any]]) -> None:
        self.arrays, self.depth, self._free = arrays, depth, free

    def __del__(self) -> None:
        self._free.append(self.arrays)

    def inside(self, name: str) -> Any:
        """A field without its ghost layers."""
        return halo.inside(self.arrays[name], self.depth)


class _Result:
    """A target on its way: its arrays, and how a kernel makes it."""

    def __init__(self, fields: BlockFields, target: Target, *, stored: bool = True) -> None:
        into, terms = target.into, list(target.terms)
        in_place = into is not None and any(state is into for state, _ in terms)
        if in_place:
            terms.sort(key=lambda term: term[0] is not into)
        self.update = Update(len(terms), in_place, fields.depth if stored or terms else 0)
        self.scales = [*(c for _, c in terms), target.weight]
        self.bases = [(k, state) for k, (state, _) in enumerate(terms) if not (in_place and k == 0)]
        self.rate, self.stored = target.rate, stored
        if stored:
            self.state: BlockState = into or fields.new()


class BlockFields:
    """Operations on fields for a stepper, over tiles on threads.

    Parameters
    ----------
    system : System
    operators : Operators
    plan : Plan
    constants : mapping of str to array
        Auxiliary fields and coefficients.
    like : array, optional
        An array of the kind that is wanted, if on a device.

    Attributes
    ----------
    finite : bool
        Whether all that was looked at since the start was finite: every increment of semi-implicit steps, every sum,
        and the states of :meth:`check`.
    """

    def __init__(
        self,
        system: System,
        operators: Operators,
        plan: Plan,
        constants: Mapping[str, Any],
        like: Any = None,
    ) -> None:
        self.system, self.operators, self.like = system, operators, like
        self.xp, self.depth, self.finite = backend.namespace(like), operators.program.halo, True
        self.workspace, self._free = Workspace(), list[dict[str, Any]]()
        rows, columns = (system.grid.shape[0], plan.problem.columns) if like is not None else (plan.rows, plan.columns)
        sum_rows = max(1, rows // DEVICE_SUMS) if like is not None else plan.sum_rows
        self.context = replace(Context.of(system, operators, plan), rows=rows, columns=columns, sum_rows=sum_rows)
        self._thin = plan.rows
        self.slabs = split(system.grid.shape[0], rows)
        self.pencils = split(plan.problem.columns, columns)
        self._threads = ThreadPoolExecutor(1 if like is not None else plan.threads, "voxdask")
        self._spectra: dict[str, dict[str, Any]] = {}
        self._padded = tuple(n + 2 * self.depth for n in system.grid.shape)
        self.constants: dict[str, PaddedRows] = {}
        for name, array in constants.items():
            padded = self.xp.empty(self._padded, system.dtype)
            halo.inside(padded, self.depth)[...] = self.xp.asarray(array)
            halo.refresh(padded, self.depth, system.ends(name), 0.0)
            self.constants[name] = PaddedRows(padded, self.depth)

    def close(self) -> None:
        """Let the threads go, and on a device what transforms keep."""
        self._threads.shutdown(cancel_futures=True)
        if self.like is not None:
            backend.forget_transforms()

    def new(self) -> BlockState:
        """A state without values."""
        if self._free:
            return BlockState(self._free.pop(), self.depth, self._free)
        arrays = {name: self.xp.empty(self._padded, self.system.dtype) for name in self.system.fields}
        return BlockState(arrays, self.depth, self._free)

    def fill(self, block: Callable[[str, int, int], Any], time: float | None = None) -> BlockState:
        """A state from ``block(name, lo, hi)``, rows of a field; at a `time` held nodes take their values."""
        state = self.new()

        def work(lo: int, hi: int) -> None:
            for name in self.system.fields:
                out = state.inside(name)[lo:hi]
                for a, b in split(hi - lo, self._thin):
                    out[a:b] = self.xp.asarray(block(name, lo + a, lo + b))
                if time is not None:
                    halo.hold(out, lo, self.system.axes, time)

        self._sweep(work, self.slabs)
        return state

    def rows_of(self, state: BlockState, name: str, lo: int, hi: int) -> Any:
        """Rows of a field of a state."""
        return state.inside(name)[lo:hi]

    def settle(self, state: BlockState) -> None:
        """Nothing is put off."""

    def check(self, state: BlockState) -> None:
        """Look whether every value of a state is finite."""

        def work(lo: int, hi: int) -> None:
            if not all(tiles.finite(state.inside(name)[lo:hi]) for name in self.system.fields):
                self.finite = False

        self._sweep(work, self.slabs)

    def advance(self, t: float, v: BlockState, *targets: Target, end: float) -> tuple[BlockState, ...]:
        """Evaluate r = rhs(t, v) once, and make every target; see :class:`voxdask.steppers.Fields`."""
        results = [_Result(self, target) for target in targets]
        self._evaluate(t, v, results, end)
        return tuple(result.state for result in results)

    def implicit(
        self,
        t: float,
        v: BlockState,
        dt: float,
        gain: Any,
        *,
        saved: int = 0,
        source: Target | None = None,
        keep: Target | None = None,
        base: Terms | None = None,
        into: BlockState | None = None,
        end: float | None = None,
    ) -> tuple[BlockState, ...]:
        """Evaluate r = rhs(t, v), and a new state by way of the modes; see :class:`voxdask.steppers.Fields`."""
        filters, arrive = self.operators.filters(gain, saved), t + dt if end is None else end
        kept = [_Result(self, keep)] if keep else []
        made = [_Result(self, source or RATE, stored=False), *kept] if source or keep else []
        self._evaluate(t, v, made, arrive, spectral=True)
        self._through(filters, t, dt)
        return (self._updated(base or ((v, 1.0),), into, arrive), *(result.state for result in kept))

    def _through(self, filters: Sequence[Filter], t: float, dt: float) -> None:
        """One sweep of pencils: transforms along the first axis, and the filters."""
        named = tuple(zip(self.system.fields, filters, strict=True))
        stored = {name: {kept: self._spectrum(name, kept) for kept in saved_in(each.arrays)} for name, each in named}

        def through(start: int, stop: int) -> None:
            for name, multiply in named:
                pencil = self._spectrum(name)[:, start:stop]

                def columns(a: int, b: int, pencil: Any = pencil) -> Any:
                    return pencil[:, a:b]

                def keep(a: int, b: int, made: Any, name: str = name, pencil: Any = pencil) -> None:
                    if self.like is None:
                        pencil[:, a:b] = made
                    else:
                        self._spectra[name][TRANSFORMED] = made

                beside = {kept: spectrum[:, start:stop] for kept, spectrum in stored[name].items()}
                if not passes.through(
                    self.context, multiply, start, stop, columns, keep, t, dt, beside, self.workspace
                ):  # fmt: skip
                    self.finite = False  # threads may only ever clear it

        self._sweep(through, self.pencils)

    def combine(self, *terms: tuple[BlockState, float], end: float) -> BlockState:
        """The sum of states and rates with coefficients; nodes that are given take their value at `end`."""
        new = self.new()

        def work(lo: int, hi: int) -> None:
            for name in self.system.fields:
                out = new.inside(name)[lo:hi]
                for a, b in split(hi - lo, self.context.sum_rows):
                    tiles.add_up(self._blocks_of(terms, name, lo + a, lo + b), out[a:b])
                halo.hold(out, lo, self.system.axes, end)
                if not tiles.finite(out):
                    self.finite = False

        self._sweep(work, self.slabs)
        return new

    def error(self, terms: Terms, u: BlockState, v: BlockState, atol: float, rtol: float) -> float:
        """The size of a sum in units of the tolerance; see :class:`voxdask.steppers.Fields`."""
        sums: dict[tuple[str, int], Any] = {}

        def work(lo: int, hi: int) -> None:
            for name in self.system.fields:
                for a, b in split(hi - lo, self.context.sum_rows):
                    a, b = lo + a, lo + b
                    shape = (b - a, *self.system.grid.shape[1:])
                    total = self.workspace.empty("error", shape, self.system.dtype, self.like)
                    tiles.add_up(self._blocks_of(terms, name, a, b), total)
                    states = (block for block, _ in self._blocks_of(((u, 1.0), (v, 1.0)), name, a, b))
                    sums[name, a] = tiles.square_sums(total, states, atol, rtol)

        self._sweep(work, self.slabs)
        every = [rows for _, rows in sorted(sums.items(), key=lambda item: item[0])]
        return tiles.root_mean_square(every, self.system.grid.size * len(self.system.fields))

    def evaluate(self, kernel: Kernel, t: float, arrays: Mapping[str, Any], *, release: bool) -> dict[str, Any]:
        """The outputs of a kernel on arrays without ghost layers; `release` zeroes them at held nodes."""
        shape, sources = self.system.grid.shape, {name: ArrayRows(array) for name, array in arrays.items()}
        whole = {name: self.xp.empty(shape, self.system.dtype) for name in kernel.outputs}

        def work(lo: int, hi: int) -> None:
            out = {name: array[lo:hi] for name, array in whole.items()}
            tiles.rates(self.system, kernel, t, lo, hi, sources, self.workspace, out=out, like=self.like)
            for block in out.values() if release else ():
                halo.release(block, lo, self.system.axes)

        self._sweep(work, self.slabs)
        return whole

    def _evaluate(
        self,
        t: float,
        v: BlockState,
        results: Sequence[_Result],
        end: float,
        *,
        spectral: bool = False,
    ) -> None:
        """One sweep of slabs: the right-hand side, and what is made of it, or its spectra."""
        for name in self.system.fields:
            halo.refresh(v.arrays[name], self.depth, self.system.axes, t, self._each(self.slabs))
        kernel = self.operators.rate(tuple(result.update for result in results))
        scales = [scale for result in results for scale in result.scales]
        sources: dict[str, Rows] = {n: PaddedRows(a, self.depth) for n, a in v.arrays.items()}
        sources |= self.constants

        def work(lo: int, hi: int) -> None:
            def keep(name: str, a: int, b: int, rows: Any) -> None:
                if self.like is None:
                    self._spectrum(name)[lo + a : lo + b] = rows
                else:
                    self._spectra.setdefault(name, {})[TRANSFORMED] = rows

            bases, out = self._slabs_of(results, lo, hi)
            passes.advance(
                self.context, kernel, t, lo, hi, sources, self.workspace, bases=bases, scales=scales, out=out,
                rated=[result.rate for result in results], end=end, like=self.like,
                spectra=keep if spectral else None,
            )  # fmt: skip

        for name in self.system.fields if spectral and self.like is None else ():
            self._spectrum(name)  # there before threads ask for it

        self._sweep(work, self.slabs)

    def _slabs_of(self, results: Sequence[_Result], lo: int, hi: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Rows of the bases and of the targets that are stored, by the names of a kernel."""
        bases, slabs, rows = {}, {}, slice(lo + self.depth, hi + self.depth)
        for m, result in enumerate(results):
            for name, rate in zip(self.system.fields, self.context.rates, strict=True):
                for k, state in result.bases:
                    bases[f"base{m}_{k}_{rate}"] = state.arrays[name][rows]
                if result.stored:
                    slabs[f"target{m}_{rate}"] = result.state.arrays[name][rows]
        return bases, slabs

    def _updated(self, terms: Terms, into: BlockState | None, end: float) -> BlockState:
        """A state by adding what spectra hold to a sum of others."""
        result = _Result(self, Target(terms, 1.0, into))
        kernels = {name: self.operators.update(name, result.update) for name in self.system.fields}

        def work(lo: int, hi: int) -> None:
            rows = slice(lo + self.depth, hi + self.depth)
            for name, kernel in kernels.items():
                weight = self.system.weights.get(name)
                bases = {f"base0_{k}_{SUM}": state.arrays[name][rows] for k, state in result.bases}
                passes.backward(
                    self.context, name, kernel, lo, hi, ArrayRows(self._spectrum(name)), bases,
                    result.scales[:-1], self.constants[weight.field] if weight else None, end,
                    result.state.arrays[name][rows],
                )  # fmt: skip

        self._sweep(work, self.slabs)
        if self.like is not None:  # whoever needs memory next may have it
            for spectra in self._spectra.values():
                del spectra[TRANSFORMED]
        return result.state

    def _blocks_of(self, terms: Iterable[tuple[BlockState, float]], name: str, lo: int, hi: int) -> Iterator[Any]:
        """Rows of a field of one state after the other."""
        return ((state.inside(name)[lo:hi], c) for state, c in terms)

    def _spectrum(self, name: str, which: str = TRANSFORMED) -> Any:
        """The spectrum of a field, or one that a step keeps from one evaluation to the next."""
        made = self._spectra.setdefault(name, {})
        if which not in made:
            made[which] = self.xp.empty(*self.system.transform.layout(which))
        return made[which]

    def _sweep(self, work: Callable[[int, int], None], ranges: list[tuple[int, int]]) -> None:
        for _ in self._each(ranges)(lambda bounds: work(*bounds), ranges):
            pass

    def _each(self, ranges: list[tuple[int, int]]) -> Callable[..., Iterator[Any]]:
        """What calls a function for parts: threads, unless there is only one part."""
        return map if len(ranges) == 1 else self._threads.map
