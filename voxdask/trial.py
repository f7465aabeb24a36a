"""What parts of a step cost on this machine, found out by taking steps on a few rows of the grid."""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from voxdask import backend, tiles
from voxdask.block import BlockFields, BlockState
from voxdask.costs import FILE, TURN, Rates, sum_terms
from voxdask.disk import remove_stale
from voxdask.filters import Filter
from voxdask.plans import Plan
from voxdask.prepare import Prepared
from voxdask.steppers import Stepper, is_adaptive
from voxdask.steppers.base import Terms
from voxdask.system import System, saved_in

#: Bytes of fields and spectra that do not stay in any cache.
_BEYOND_CACHE = 128 << 20
#: Bytes that are written and read to measure a disk, at the most and at the least, and how often.
_DISK_BYTES, _LEAST_DISK_BYTES, _DISK_ROUNDS = 64 << 20, 8 << 20, 3
#: The share of the memory that is free up to which working files stay in the page cache. Beyond a fifth Linux has who
#: writes wait for the disk (``dirty_ratio``); 4.3 GB of 21 were kept, 8.6 GB were not.
_KEPT_SHARE = 0.3
#: Seconds for which what was measured holds: a run that follows its plan so soon goes the way that was planned.
_HOLDS = 600.0

_measured: dict[Hashable, tuple[float, Any]] = {}
#: Of two trials at once each would measure what the other leaves.
_one_at_a_time = threading.Lock()


class _Timed(BlockFields):
    """Adds up how long evaluations, updates and sums take, and how many rows or terms these were."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.seconds = {"evaluate": 0.0, "finish": 0.0, "sum": 0.0}
        self.counts = {"evaluate": 0, "finish": 0, "sum": 0}
        self.filters: Sequence[Filter] = ()

    def _timed(self, kind: str, count: int, work: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = work()
        self.seconds[kind] += time.perf_counter() - began
        self.counts[kind] += count
        return result

    def _evaluate(self, *args: Any, **options: Any) -> None:
        evaluate = super()._evaluate
        self._timed("evaluate", 1, lambda: evaluate(*args, **options))

    def _through(self, filters: Sequence[Filter], t: float, dt: float) -> None:
        super()._through(filters, t, dt)
        self.filters = filters

    def _updated(self, *args: Any, **options: Any) -> BlockState:
        updated = super()._updated
        state: BlockState = self._timed("finish", 1, lambda: updated(*args, **options))
        return state

    def combine(self, *terms: tuple[BlockState, float], end: float) -> BlockState:
        combine, count = super().combine, sum_terms((state for state, _ in terms), makes=1)
        state: BlockState = self._timed("sum", count, lambda: combine(*terms, end=end))
        return state

    def error(self, terms: Terms, u: BlockState, v: BlockState, atol: float, rtol: float) -> float:
        error, count = super().error, sum_terms((*(state for state, _ in terms), u, v), makes=0)
        self._timed("sum", count, lambda: error(terms, u, v, atol, rtol))
        return 0.5


def trial_rows(plan: Plan) -> int:
    """Rows of a trial: so many that they do not stay in the cache."""
    problem = plan.problem
    held = problem.registers * problem.fields * problem.row_bytes
    held += problem.fields * problem.spectra * problem.spectrum_row_bytes
    return min(problem.shape[0], max(math.ceil(_BEYOND_CACHE / max(held, 1)), 2 * plan.threads * plan.rows))


def trial_bytes(plan: Plan) -> int:
    """Memory that a trial takes, about."""
    share = (trial_rows(plan) + 2 * plan.problem.halo) / plan.problem.shape[0]
    problem = plan.problem
    states = (problem.registers + problem.constants / problem.fields) * problem.fields * problem.padded_bytes
    return int(1.2 * share * (states + problem.fields * problem.spectra * problem.spectrum_bytes))


def measure(prepared: Prepared, plan: Plan, stepper: Stepper, folder: Path | None = None) -> Rates:
    """Take steps on a few rows, and take the time; asked the same again within minutes, give the same answer.

    Parameters
    ----------
    prepared : Prepared
    plan : Plan
        Its threads and tiles are those of the trial.
    stepper : Stepper
    folder : Path, optional
        One that is there, on the disk that a run would be spilled to, to be measured, too.

    Returns
    -------
    Rates
    """
    plan = replace(plan, threads=min(plan.threads, backend.cpu_count()))  # those of a cluster are not all here
    with _one_at_a_time:
        rates: Rates = _recalled(_question(prepared, plan, stepper), lambda: _measure(prepared, plan, stepper))
        if folder is None:
            return rates
        asked = plan.threads, _beyond_page_cache(plan), min(_DISK_BYTES, max(trial_bytes(plan), _LEAST_DISK_BYTES))
        try:
            moved = _recalled((folder.stat().st_dev, *asked), lambda: _moved_seconds(folder, *asked))
        except OSError:  # nothing can be written there: as disks usually are
            moved = plan.problem.nominal_rates.moved
        return replace(rates, moved=moved)


def _recalled(asked: Hashable, measure: Callable[[], Any]) -> Any:
    """What was measured within the last minutes when the same was asked, or is now."""
    now = time.monotonic()
    for old in [key for key, (when, _) in _measured.items() if now - when > _HOLDS]:
        del _measured[old]
    if asked not in _measured:
        _measured[asked] = now, measure()
    return _measured[asked][1]


def _question(prepared: Prepared, plan: Plan, stepper: Stepper) -> Hashable:
    """All that the rates of work depend on, but for the machine and what else it does."""
    system = prepared.system
    method = stepper if isinstance(stepper, Hashable) else object()  # of what may change, nothing is kept
    work = prepared.operators.rate(), method, system.transform.wavenumbers, system.transform.fft, system.dtype
    ends = tuple((axis.lo.kind, axis.hi.kind, axis.node_centred) for axis in system.axes)
    return (*work, ends, plan.problem, plan.tier, plan.threads, plan.rows, plan.columns)


def _measure(prepared: Prepared, plan: Plan, stepper: Stepper) -> Rates:
    rows = trial_rows(plan)
    tried = _steps(prepared, plan, stepper, rows, plan.rows)
    threads, per = plan.threads, {k: tried.seconds[k] / max(tried.counts[k], 1) / rows for k in tried.seconds}
    thin, around = max(1, plan.rows // 2), 0.0
    if plan.tier == "spilled" and thin < plan.rows:
        thinner = _steps(prepared, plan, stepper, rows, thin)
        slower = thinner.seconds["evaluate"] / max(thinner.counts["evaluate"], 1) / rows
        around = max(0.0, (slower - per["evaluate"]) / (1 / thin - 1 / plan.rows))
    return Rates(
        evaluate=threads * max(per["evaluate"] - around / plan.rows, 0.2 * per["evaluate"]),
        around=threads * around,
        forward=0.0,  # part of an evaluation
        finish=threads * per["finish"],
        # who sums nothing up still copies rows of neighbours
        add=threads * per["sum"] if tried.counts["sum"] else plan.problem.nominal_rates.add,
        through=threads * _column_seconds(prepared.system, plan, tried) if tried.filters else 0.0,
        moved=0.0,
        turn=TURN,
        file=FILE,
    )


def _steps(prepared: Prepared, plan: Plan, stepper: Stepper, rows: int, tile_rows: int) -> _Timed:
    """Steps on a slab of some rows, the first of which is not counted: it compiles."""
    system = prepared.system
    grid = replace(system.grid, shape=(rows, *system.grid.shape[1:]))
    axes = tuple(replace(axis.homogeneous(), size=n) for axis, n in zip(system.axes, grid.shape, strict=True))
    thin = replace(system, grid=grid, axes=axes, transform=replace(system.transform, axes=axes))
    shared = 1 / max(len(system.fields), 1) if system.total else 0.5
    constants = {name: np.full(grid.shape, 0.5, system.dtype) for name in system.constants}
    small = replace(plan, rows=min(tile_rows, rows), problem=replace(plan.problem, shape=grid.shape))
    fields = _Timed(thin, prepared.operators, small, constants)

    def pattern(name: str, lo: int, hi: int) -> Any:
        line = np.linspace(0.9, 1.1, grid.shape[-1], dtype=system.dtype)
        return np.broadcast_to(line if grid.shape[1:] else line[lo:hi], (hi - lo, *grid.shape[1:]))

    try:
        with np.errstate(all="ignore"):
            state = fields.fill(lambda name, lo, hi: shared * pattern(name, lo, hi))
            carried: tuple[Any, ...] = ()
            for k in range(4):
                if k == 2:  # what a stepper carries is there from the second step on
                    fields.seconds, fields.counts = dict.fromkeys(fields.seconds, 0.0), dict.fromkeys(fields.counts, 0)
                if is_adaptive(stepper):
                    carried = stepper.attempt(fields, 0.0, 1e-9, state, *carried).carried
                else:
                    state, *rest = stepper.step(fields, 0.0, 1e-9, state, *carried)
                    carried = tuple(rest)
    finally:
        fields.close()
    return fields


def _column_seconds(system: System, plan: Plan, tried: _Timed) -> float:
    """Seconds of a column of one field on its way through the pencils, with all threads at work."""
    shape, dtype = system.transform.spectrum_shape, system.transform.spectrum_dtype
    columns = min(shape[1], plan.columns * plan.threads * 4)
    spectrum = np.zeros((shape[0], columns, *shape[2:]), dtype)
    multiply, width, workspace = tried.filters[0], plan.columns, tiles.Workspace()
    modes, dtype = (system.transform.modes_shape[0], columns, *shape[2:]), system.transform.modes_dtype
    saved = {kept: np.zeros(modes, dtype) for kept in saved_in(multiply.arrays)}

    def through(start: int) -> None:
        part = spectrum[:, start : start + width]
        beside = {kept: block[:, start : start + width] for kept, block in saved.items()}
        part[...] = tiles.filtered(system, part, 0, multiply, system.values(0.0, dt=1e-9), beside, workspace)

    with ThreadPoolExecutor(plan.threads) as threads, np.errstate(all="ignore"):
        taken = []
        for _ in range(3):
            began = time.perf_counter()
            list(threads.map(through, range(0, columns, width)))
            taken.append(time.perf_counter() - began)
    return min(taken) / columns


def _moved_seconds(folder: Path, threads: int, beyond: bool, size: int) -> float:
    """Seconds of a thread for a byte to or from files while all of them are at it; of the disk, if those are more."""
    # what is read and written lies beyond the cache, where all threads share the way to memory
    parts = np.array_split(np.ones(size, np.uint8), 8)

    def move(path: Path, part: np.ndarray) -> None:
        with path.open("r+b", buffering=0) as file:
            file.write(part.data)
        with path.open("rb", buffering=0) as file:
            file.readinto(part.data)

    remove_stale(folder, r"\.voxdask-trial-\w{8}")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".voxdask-trial-") as place:
        files = [Path(place, str(k)) for k in range(len(parts))]
        for path, part in zip(files, parts, strict=True):  # blocks are found for a file when it is first written
            path.write_bytes(part.data)
        with ThreadPoolExecutor(threads) as pool:
            began = time.process_time()
            for _ in range(_DISK_ROUNDS):
                list(pool.map(move, files, parts))
            thread = (time.process_time() - began) / (_DISK_ROUNDS * 2 * size)
        if not beyond:
            return thread
        began = time.perf_counter()
        for path, part in zip(files, parts, strict=True):
            with path.open("r+b", buffering=0) as file:
                file.write(part.data)
                os.fsync(file.fileno())
        written = (time.perf_counter() - began) / size
    # half of the bytes are written; while the disk takes them, all threads may wait
    return max(thread, threads * written / 2)


def _beyond_page_cache(plan: Plan) -> bool:
    """Whether the system writes out what a run puts into files, rather than keep it to itself until it is replaced."""
    # the two slots of checkpoints are not read again
    working = plan.disk_bytes - 2 * plan.problem.fields * plan.problem.voxels * plan.problem.itemsize
    return bool(working > _KEPT_SHARE * psutil.virtual_memory().available)
