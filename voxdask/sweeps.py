"""Run tile functions over fields in memory or in files, side by side on threads.

This is the :class:`~voxdask.steppers.Fields` of the tiers *block* and *spilled*: the same sweeps over
different storage. A step by :meth:`LocalFields.implicit` is three sweeps: slabs (ghost layers, right-hand
side, transforms along the local axes), pencils (transform along the first axis, gain, inverse), slabs
(inverse transforms, update).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from voxdask import backend, halo, tiles
from voxdask.halo import Rows
from voxdask.kernels import Kernel, Update
from voxdask.pencil import tiles as split
from voxdask.planning import Plan
from voxdask.storage import FieldInMemory, FieldStorage, FilePool, MemoryPool, SpectrumStorage
from voxdask.system import Operators, System
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
        # on a device one tile is the whole field, and the stream keeps the order
        whole, shape = pool.like is not None, system.transform.spectrum_shape
        self.rows, self.columns = (shape[0], shape[1]) if whole else (plan.rows, plan.columns)
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

    def advance(
        self, t: float, v: State, *updates: tuple[State, float], add: tuple[State, float] | None = None, end: float
    ) -> tuple[State, ...]:
        """Evaluate r = rhs(t, v) once: ``base + weight r`` for each update, and add to a field in place."""
        system, rates = self.system, self.operators.equation.rates
        kernel = self.operators.rate((Update(base=True),) * len(updates) + ((Update(base=False),) if add else ()))
        targets = [self.new() for _ in updates] + ([add[0]] if add else [])
        weights = [weight for _, weight in (*updates, *([add] if add else []))]
        sources = {**v.fields, **self.constants}

        def work(lo: int, hi: int) -> None:
            windows = self._windows(sources, lo, hi, kernel.halo)
            bases, slabs = {}, {}
            for name, rate in zip(system.fields, rates, strict=True):
                for m, (base, _) in enumerate(updates):
                    bases[f"base{m}_{rate}"] = base.fields[name].slab(lo, hi, f"base{m}_{name}", filled=True)
                for m, target in enumerate(targets):
                    given = m == len(updates)
                    slabs[f"target{m}_{rate}"] = target.fields[name].slab(lo, hi, f"{m}_{name}", filled=given)
            for a, b in split(hi - lo, self.rows):
                tiles.rates(
                    system, kernel, t, lo + a, lo + b, windows, self.workspace,
                    bases={key: base[a:b] for key, base in bases.items()}, weights=weights,
                    out={key: slab[a:b] for key, slab in slabs.items()}, like=self.pool.like,
                )  # fmt: skip
            for name, rate in zip(system.fields, rates, strict=True):
                for m, target in enumerate(targets):
                    slab = slabs[f"target{m}_{rate}"]
                    halo.hold(slab, lo, system.axes, end)
                    if not tiles.finite(slab):  # threads may only ever clear it
                        self.finite = False
                    target.fields[name].done(lo, slab)

        self._sweep(work, self.slabs)
        return tuple(targets[: len(updates)])

    def implicit(self, t: float, u: State, dt: float, gain: Any) -> State:
        """u + T^-1[ gain(dt, rate) T[rhs(t, u)] ]; `u` is used up unless it is the caller's."""
        system, rates = self.system, self.operators.equation.rates
        kernel, filters = self.operators.rate(), self.operators.filters(gain)
        sources = {**u.fields, **self.constants}
        spectra = {name: self._spectrum(name) for name in system.fields}
        new = u if u.owned else self.new()

        def forward(lo: int, hi: int) -> None:
            windows = self._windows(sources, lo, hi, kernel.halo)
            slabs = {name: spectrum.slab(lo, hi, filled=False) for name, spectrum in spectra.items()}
            for a, b in split(hi - lo, self.rows):
                tile = tiles.rates(system, kernel, t, lo + a, lo + b, windows, self.workspace, like=self.pool.like)
                for name, rate in zip(system.fields, rates, strict=True):
                    slabs[name][a:b] = tiles.to_spectrum(system, tile[rate], lo + a)
            for name, slab in slabs.items():
                spectra[name].slab_done(lo, slab)

        def through(start: int, stop: int) -> None:
            for name, multiply in zip(system.fields, filters, strict=True):
                pencil = spectra[name].pencil(start, stop)
                for a, b in split(stop - start, self.columns):
                    pencil[:, a:b] = tiles.filtered(system, pencil[:, a:b], start + a, multiply, t, dt)
                spectra[name].pencil_done(start, pencil)

        def backward(lo: int, hi: int) -> None:
            for name, target in new.fields.items():
                spectrum = spectra[name].slab(lo, hi, filled=True)
                out = target.slab(lo, hi, name, filled=target is u.fields[name])
                rows = out if target is u.fields[name] else u.fields[name].read_rows(lo, hi)
                for a, b in split(hi - lo, self.rows):
                    if not tiles.updated(system, rows[a:b], spectrum[a:b], lo + a, t + dt, out[a:b]):
                        self.finite = False
                target.done(lo, out)

        self._sweep(forward, self.slabs)
        self._sweep(through, self.pencils)
        self._sweep(backward, self.slabs)
        return new

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

    def _sweep(self, work: Callable[[int, int], None], ranges: list[tuple[int, int]]) -> None:
        for _ in self._threads.map(lambda bounds: work(*bounds), ranges):
            pass
