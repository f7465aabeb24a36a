"""The time loop: start or resume, step, check, save, report."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from tqdm.auto import tqdm

from voxdask import backend
from voxdask.planning import Plan, has_room_for_chunks
from voxdask.prepare import Prepared, wrap
from voxdask.report import PeakMemory, Report, Stopwatch
from voxdask.runner import NotFiniteError, Runner, make_runner
from voxdask.schedule import Schedule
from voxdask.steppers import Stepper
from voxdask.store import RunStore

Callback = Callable[[xr.Dataset], None]

#: Attributes by which the CF conventions encode values; a frame holds the values themselves.
_ENCODINGS = frozenset(
    [
        *("scale_factor", "add_offset", "_FillValue", "missing_value", "dtype", "_Unsigned"),
        *("valid_range", "calendar", "coordinates", "grid_mapping"),
    ]
)


class Loop:
    """The time loop proper, over whatever runner the plan asks for."""

    def __init__(
        self,
        prepared: Prepared,
        stepper: Stepper,
        schedule: Schedule,
        plan: Plan,
        distributed: bool,
        attrs: Mapping[str, Any],
        progress: bool,
        callbacks: tuple[Callback, ...],
    ) -> None:
        self.prepared, self.stepper, self.schedule, self.attrs = prepared, stepper, schedule, dict(attrs)
        self.plan, self.distributed, self.progress, self.callbacks = plan, distributed, progress, callbacks

    def in_memory(self) -> xr.Dataset:
        """Run, and keep the frames where the fields are."""
        frames: dict[str, Any] = {}
        saves, times = self.schedule.saves, [self.schedule.time(step) for step in self.schedule.saves]

        def save(runner: Runner, step: int) -> None:
            k = saves.index(step)
            for name, now in runner.snapshot().items():
                if isinstance(now, da.Array):
                    frames.setdefault(name, []).append(now)
                else:
                    frames.setdefault(name, backend.namespace(now).empty((len(saves), *now.shape), now.dtype))[k] = now
            self._call_back(lambda: self._dataset(_copies(frames, k), times[k : k + 1]))

        with PeakMemory() as memory:
            runner = make_runner(self.prepared, self.plan, self.distributed)
            try:
                runner.examine()
                runner.start(self.schedule.start, None)
                watch = self._run(runner, 0, saves, save, "give store=PATH to keep the frames of a run that ends so")
            finally:
                runner.close()
        return self._dataset(frames, times).assign_attrs(**self.attrs, report=self._report(watch, memory).as_json())

    def in_store(self, path: str | os.PathLike[str], resume: bool, identity: dict[str, Any]) -> xr.Dataset:
        """Run, or go on with what is there, and commit every frame to a store."""
        with PeakMemory() as memory, ExitStack() as stack:
            if RunStore.exists(path) and not resume:
                raise FileExistsError(f"store={os.fspath(path)!r} exists and resume=False; use another path")
            runner = make_runner(self.prepared, self.plan, self.distributed)
            store = self._open(path, {**identity, "start": runner.examine()})
            stack.enter_context(store.lock())
            stack.callback(store.clear_scratch)
            stack.callback(lambda: runner.close())  # first of all: its threads may still write
            saves, first = self.schedule.saves, 0
            if store.rows != self.plan.chunk_rows:
                if not has_room_for_chunks(self.plan, store.rows):
                    raise MemoryError(
                        f"{store.path} holds frames in chunks of {store.rows} rows, more than the "
                        f"{self.plan.slab_rows} that memory_limit has room for; resume with a larger memory_limit"
                    )
                self.plan = replace(self.plan, chunk_rows=store.rows)
                runner = make_runner(self.prepared, self.plan, self.distributed)
                runner.examine()
            if store.checkpoint is None:
                runner.start(self.schedule.start, store)
            else:
                first = store.checkpoint.step
                saves = tuple(step for step in saves if step > first)
                if first > self.schedule.steps:
                    raise ValueError(
                        f"{store.path} is at step {first} already, beyond the {self.schedule.steps} asked for"
                    )
                if saves:
                    runner.resume(store.slot(store.checkpoint.slot), store)

            def save(runner: Runner, step: int) -> None:
                checkpoint, time = store.checkpoint, self.schedule.time(step)
                number = 0 if checkpoint is None else 1 - checkpoint.slot
                slot = store.slot(number)
                runner.save(slot, len(store.frame_times), store.frame_writer())
                store.commit(step, time, number, frame_times=[*store.frame_times, time])
                runner.checkpointed(slot)
                self._call_back(lambda: store.dataset().isel(time=slice(-1, None)))

            watch = self._run(runner, first, saves, save, f"the frames that were saved before are kept in {path}")
        return store.dataset().assign_attrs(report=self._report(watch, memory).as_json())

    def _run(
        self, runner: Runner, first: int, saves: Sequence[int], save: Callable[[Runner, int], None], advice: str
    ) -> Stopwatch:
        schedule, watch, done = self.schedule, Stopwatch(), first
        with tqdm(total=schedule.steps, initial=first, disable=not self.progress, unit="step") as bar:
            for target in saves:
                while done < target:
                    count = min(runner.batch if done > first else 1, target - done)
                    times = [schedule.time(done + k) for k in range(count)]
                    began = clock.perf_counter()
                    try:
                        runner.steps(self.stepper, times, schedule.dt)
                    except NotFiniteError:
                        raise FloatingPointError(f"{self._not_finite(done, count)}; {advice}") from None
                    watch.lap(count, clock.perf_counter() - began)
                    done += count
                    bar.update(count)
                save(runner, target)
        return watch

    def _not_finite(self, done: int, count: int) -> str:
        last = done + count
        where = f"in step {last}" if count == 1 else f"between steps {done + 1} and {last}"
        return (
            f"a field became NaN or infinite {where}, before time {self.schedule.time(last):g}; "
            f"dt={self.schedule.dt:g} may be too large"
        )

    def _open(self, path: str | os.PathLike[str], identity: dict[str, Any]) -> RunStore:
        if RunStore.exists(path):
            store = RunStore.open(path)
            store.check_identity(identity)
            return store
        system, source = self.prepared.system, self.prepared.source
        return RunStore.create(
            path,
            grid=system.grid,
            fields={name: _plain_attrs(source[name].attrs) for name in system.fields},
            dtype=system.dtype,
            rows=self.plan.chunk_rows,
            identity=identity,
            attrs=self.attrs,
        )

    def _dataset(self, frames: Mapping[str, Any], times: Sequence[float]) -> xr.Dataset:
        whole = {name: da.stack(f) if isinstance(f, list) else f for name, f in frames.items()}
        one = wrap(self.prepared, {name: a[0] for name, a in whole.items()})
        variables = {name: (("time", *one[name].dims), a, one[name].attrs) for name, a in whole.items()}
        return xr.Dataset(variables, {**one.coords, "time": ("time", np.asarray(times, dtype=float))})

    def _call_back(self, frame: Callable[[], xr.Dataset]) -> None:
        if self.callbacks:
            shown = frame().isel(time=0)
            for callback in self.callbacks:
                callback(shown)

    def _report(self, watch: Stopwatch, memory: PeakMemory) -> Report:
        voxels = self.prepared.system.grid.size
        return Report(
            tier=self.plan.tier,
            voxels=voxels,
            steps=sum(n for n, _ in watch.laps),
            wall_time=watch.wall_time,
            step_time=watch.step_time,
            ns_per_voxel_step=watch.ns_per_voxel_step(voxels),
            peak_memory=memory.above_base,
            projected_memory=self.plan.memory_bytes,
        )


def _copies(frames: Mapping[str, Any], k: int) -> dict[str, Any]:
    """One frame, which whoever gets it may change."""
    return {name: f[k : k + 1] if isinstance(f, list) else f[k : k + 1].copy() for name, f in frames.items()}


def _plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a field without those that xarray would take for an encoding of its values."""
    dates = str(attrs.get("units", "")).split()[1:2] == ["since"]
    return {key: value for key, value in attrs.items() if key not in _ENCODINGS and not (dates and key == "units")}
