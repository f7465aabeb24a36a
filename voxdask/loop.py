"""The time loop: start or resume, march, save, report."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from voxdask import backend
from voxdask.chunked_runner import ChunkedRunner
from voxdask.control import Memory
from voxdask.inputs import checksum_of
from voxdask.local_runner import LocalRunner
from voxdask.march import March
from voxdask.places import require_disk
from voxdask.planning import has_room_for_chunks, with_chunks
from voxdask.plans import Plan
from voxdask.prepare import Prepared, empty_frames, wrap
from voxdask.report import PeakMemory, Report, Stopwatch
from voxdask.runner import Runner, history_name
from voxdask.store import Checkpoint, FrameFamily, RunStore
from voxdask.units import format_bytes

Callback = Callable[[xr.Dataset], None]

#: Attributes by which the CF conventions encode values; a frame holds the values themselves.
_ENCODINGS = frozenset(
    [
        *("scale_factor", "add_offset", "_FillValue", "missing_value", "dtype", "_Unsigned"),
        *("valid_range", "calendar", "coordinates", "grid_mapping"),
    ]
)


def make_runner(prepared: Prepared, plan: Plan) -> Runner:
    """The runner of a plan's tier."""
    return ChunkedRunner(prepared, plan) if plan.tier == "chunked" else LocalRunner(prepared, plan)


def planned_for(store: RunStore, plan: Plan) -> Plan:
    """A plan for the chunks that a store has."""
    if store.rows == plan.chunk_rows:
        return plan
    if not has_room_for_chunks(plan, store.rows):
        raise MemoryError(
            f"{store.path} holds frames in chunks of {store.rows} rows, more than the {plan.save_rows} that "
            "memory_limit has room for; resume with a larger memory_limit"
        )
    return with_chunks(plan, store.rows)


class Loop:
    """The time loop proper, over whatever runner the plan asks for."""

    def __init__(
        self,
        prepared: Prepared,
        march: March,
        history: int,
        plan: Plan,
        attrs: Mapping[str, Any],
        progress: bool,
        callbacks: tuple[Callback, ...],
    ) -> None:
        self.prepared, self.march, self.history, self.attrs = prepared, march, history, dict(attrs)
        self.plan, self.progress, self.callbacks = plan, progress, callbacks

    def in_memory(self, start: float) -> xr.Dataset:
        """Run, and keep the frames where the fields are."""
        return self._explained(partial(self._in_memory, start), _InMemory.advice)

    def _in_memory(self, start: float) -> xr.Dataset:
        with PeakMemory() as memory:
            runner = make_runner(self.prepared, self.plan)
            try:
                runner.examine()
                runner.start(start, None)
                saver = _InMemory(self, runner)
                watch = self.march.run(runner, None, saver, self.progress)
            finally:
                runner.close()
        report = self._report(watch, memory).as_json()
        return self.dataset(saver.frames, saver.times).assign_attrs(**self.attrs, report=report)

    def in_store(self, path: str | os.PathLike[str], resume: bool, identity: dict[str, Any]) -> xr.Dataset:
        """Run, or go on with what is there, and commit every frame to a store."""
        return self._explained(partial(self._in_store, path, resume, identity), _InStore.advice.format(path))

    def _in_store(self, path: str | os.PathLike[str], resume: bool, identity: dict[str, Any]) -> xr.Dataset:
        with PeakMemory() as memory, ExitStack() as stack:
            if RunStore.exists(path) and not resume:
                raise FileExistsError(f"store={os.fspath(path)!r} exists and resume=False; use another path")
            there = RunStore.open(path) if RunStore.exists(path) else None
            if there is not None:  # before anything is read: fields may be large
                there.check_identity(identity, whole=False)
                self.plan = planned_for(there, self.plan)
                stack.enter_context(there.lock())
            else:
                require_disk(self.plan, path)
            runner = make_runner(self.prepared, self.plan)
            coefficients = {name: checksum_of(array) for name, array in self.prepared.constants.items()}
            checksums = {"coefficients": coefficients, "checksum of the fields at the start": runner.examine()}
            identity = {**identity, **checksums}
            if there is None:
                store = self._create(path, identity)
                stack.enter_context(store.lock())
            else:
                store = there
                store.check_identity(identity)
            stack.callback(store.clear_scratch)
            stack.callback(runner.close)  # first of all: its threads may still write
            checkpoint, watch = store.checkpoint, Stopwatch()
            if checkpoint is None or not self._done(store, checkpoint):
                if there is not None and self.plan.disk_bytes:
                    store.clear_scratch()  # of a process that was killed
                    require_disk(self.plan, path, store.state_bytes())
                if checkpoint is None:
                    runner.start(identity["start_time"], store)
                else:
                    runner.resume(store.slot(checkpoint.slot), store, history=checkpoint.step > 0)
                watch = self.march.run(runner, checkpoint, _InStore(self, runner, store), self.progress)
        return store.dataset().assign_attrs(report=self._report(watch, memory).as_json())

    def _explained(self, run: Callable[[], xr.Dataset], advice: str) -> xr.Dataset:
        """What a run gives; where the GPU has no memory left, say what would do."""
        try:
            return run()
        except Exception as error:
            if not backend.is_out_of_memory(error):
                raise
            error.__traceback__ = None  # its frames hold what lies on the device
            raise MemoryError(
                f"the GPU has no memory left, though the run was to take {format_bytes(self.plan.device_bytes)} there: "
                f"{error}; run again, to be planned for what is free then, end what else uses the GPU, raise the limit "
                f'of CuPy\'s memory pool if it has one, or use device="cpu" or a coarser grid; {advice}'
            ) from None

    def _done(self, store: RunStore, checkpoint: Checkpoint) -> bool:
        try:
            done = self.march.done(checkpoint)
        except ValueError as error:
            raise ValueError(f"{store.path} {error}") from None
        past = [time for time in self.march.frame_times if time <= checkpoint.time]
        kept = np.asarray(store.frame_times)
        if missed := [f"{time:g}" for time in past if not np.isclose(time, kept, rtol=1e-9, atol=0.0).any()]:
            warnings.warn(
                f"{store.path} is at time {checkpoint.time:g} already and has no frames at {', '.join(missed[:5])}"
                f"{', ...' if missed[5:] else ''}; they can't be made any more, use another store for them",
                UserWarning,
                stacklevel=6,
            )
        return done

    def _create(self, path: str | os.PathLike[str], identity: dict[str, Any]) -> RunStore:
        system, source = self.prepared.system, self.prepared.source
        return RunStore.create(
            path,
            grid=system.grid,
            fields={name: _plain_attrs(source[name].attrs) for name in self.prepared.operators.equation.fields},
            dtype=system.dtype,
            rows=self.plan.chunk_rows,
            identity=identity,
            attrs=self.attrs,
            state=[history_name(name, k + 1) for k in range(self.history) for name in system.fields],
            families=self._families(),
        )

    def _families(self) -> dict[str, FrameFamily]:
        """How the fields that have members lie in frames."""
        equation, source = self.prepared.operators.equation, self.prepared.source
        if equation.family is None:
            return {}
        dim = equation.family.dim
        coordinate = source.coords[dim].values if dim in source.coords else None
        if coordinate is not None and coordinate.dtype.kind not in "iuf":
            raise TypeError(
                f"the coordinate {dim!r} has dtype {coordinate.dtype}, which a store can't hold; "
                f"give numbers, or leave it out: ds.drop_vars({dim!r})"
            )
        return dict.fromkeys(equation.fields, FrameFamily(dim, equation.family.members, coordinate))

    def dataset(self, frames: Mapping[str, Any], times: Sequence[float]) -> xr.Dataset:
        """Frames as whoever asked for the run gets them."""
        whole = {name: da.stack(f) if isinstance(f, list) else f for name, f in frames.items()}
        one = wrap(self.prepared, whole, leading=("time",))
        return one.assign_coords(time=("time", np.asarray(times, dtype=float)))

    def call_back(self, frame: Callable[[], xr.Dataset]) -> None:
        """Show a frame to whoever asked to see them."""
        if self.callbacks:
            shown = frame().isel(time=0)
            for callback in self.callbacks:
                callback(shown)

    def _report(self, watch: Stopwatch, memory: PeakMemory) -> Report:
        voxels = self.prepared.system.grid.size
        return Report(
            tier=self.plan.tier,
            voxels=voxels,
            steps=watch.steps,
            wall_time=watch.wall_time,
            step_time=watch.step_time,
            ns_per_voxel_step=watch.ns_per_voxel_step(voxels),
            peak_memory=memory.above_base,
            projected_memory=self.plan.memory_bytes,
            rejected=watch.rejected,
            shortest_step=watch.shortest,
            longest_step=watch.longest,
            workers=self.plan.workers,
        )


class _InMemory:
    """Keeps frames where the fields are."""

    advice = "give store=PATH to keep the frames of a run that ends so"

    def __init__(self, loop: Loop, runner: Runner) -> None:
        self.loop, self.runner, self.count = loop, runner, len(loop.march.frame_times)
        self.frames: dict[str, Any] = {}
        self.times: list[float] = []
        self.shown = 0

    def frame(self, time: float, state: Any) -> None:
        self._keep(time, self.runner.snapshot(state))

    def commit(self, step: int, time: float, *, frame: bool = True, control: Memory | None = None) -> None:
        if frame:
            self._keep(time, self.runner.snapshot())
        self.runner.checkpointed(None)
        while self.shown < len(self.times):
            k = self.shown
            self.shown += 1
            self.loop.call_back(partial(self._show, k))

    def _show(self, k: int) -> xr.Dataset:
        return self.loop.dataset(_copies(self.frames, k), self.times[k : k + 1])

    def _keep(self, time: float, fields: Mapping[str, Any]) -> None:
        if not self.frames:
            some = next(iter(fields.values()))
            lazy = isinstance(some, da.Array)
            self.frames = {name: [] for name in fields} if lazy else empty_frames(list(fields), self.count, some)
        for name, field in fields.items():
            if isinstance(field, da.Array):
                self.frames[name].append(field)
            else:
                self.frames[name][len(self.times)] = field
        self.times.append(time)


class _InStore:
    """Commits frames to a store."""

    advice = "the frames that were saved before are kept in {}"

    def __init__(self, loop: Loop, runner: Runner, store: RunStore) -> None:
        self.loop, self.runner, self.store = loop, runner, store
        self.times = store.frame_times
        self.advice = _InStore.advice.format(store.path)

    def frame(self, time: float, state: Any) -> None:
        self.runner.save_frame(state, len(self.times), self.store.frame_writer())
        self.times.append(time)

    def commit(self, step: int, time: float, *, frame: bool = True, control: Memory | None = None) -> None:
        store, before = self.store, self.store.checkpoint
        number = 0 if before is None else 1 - before.slot
        slot = store.slot(number)
        self.runner.save(slot, len(self.times) if frame else None, store.frame_writer())
        self.times += [time] * frame
        shown = range(len(store.frame_times), len(self.times))
        memory = None if control is None else control.as_dict()
        store.commit(step, time, number, frame_times=self.times, control=memory)
        self.runner.checkpointed(slot)
        for k in shown:
            self.loop.call_back(partial(self._show, k))

    def _show(self, k: int) -> xr.Dataset:
        return self.store.dataset().isel(time=slice(k, k + 1))


def _copies(frames: Mapping[str, Any], k: int) -> dict[str, Any]:
    """One frame, which whoever gets it may change."""
    return {name: f[k : k + 1] if isinstance(f, list) else f[k : k + 1].copy() for name, f in frames.items()}


def _plain_attrs(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes of a field without those that xarray would take for an encoding of its values."""
    dates = str(attrs.get("units", "")).split()[1:2] == ["since"]
    return {key: value for key, value in attrs.items() if key not in _ENCODINGS and not (dates and key == "units")}
