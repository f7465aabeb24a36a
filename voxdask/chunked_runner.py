"""A run in Dask chunks, on local threads or on a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dask.array as da
import numpy as np

from voxdask import backend, graph
from voxdask.chunked import ChunkedFields, ChunkedState, split_arrays
from voxdask.chunkfiles import ChunkFiles
from voxdask.inputs import combine, look_rows
from voxdask.passes import Context
from voxdask.pencil import split
from voxdask.plans import Plan
from voxdask.prepare import Prepared
from voxdask.runner import NotFiniteError, history_name, states_in
from voxdask.slabs import clear_memory, finite_slab, start_slab
from voxdask.steppers import Stepper
from voxdask.steppers.adaptive import Adaptive, Attempt, first_step
from voxdask.store import FrameWriter, RunStore

#: Tasks that the scheduler of a cluster may remember, beyond which it is made to forget them; and of how many batches,
#: as those of many slabs are so many that states would be written all the time.
_MOST_TASKS, _MOST_BATCHES = 5000, 4


class ChunkedRunner:
    """Tier *chunked*, on local threads or on a cluster."""

    batch = 8

    @property
    def due(self) -> bool:
        """Whether the scheduler of a cluster remembers so many tasks that it should be made to forget them."""
        return self.distributed and self.fields.tasks > max(_MOST_TASKS, _MOST_BATCHES * self._tasks_of_batch)

    def __init__(self, prepared: Prepared, plan: Plan) -> None:
        self.prepared, self.plan, self.system, self.distributed = prepared, plan, prepared.system, plan.workers > 0
        self.fields = ChunkedFields(self.system, prepared.operators, plan, {})
        given = prepared.constants.items()
        self._hold(self._slabs({n: a for n, a in given if not self.distributed or isinstance(a, da.Array)}))
        self._tasks_of_batch = 0
        self.state: ChunkedState
        self.history: tuple[ChunkedState, ...] = ()
        self.carried: tuple[ChunkedState, ...] = ()

    def examine(self) -> str:
        """Look at every value of the caller's fields, and sum them up."""
        given = self._slabs(self.prepared.fields)
        (self.given,) = self.fields.persist(ChunkedState(given))
        checksums: dict[str, list[int]] = {name: [] for name in given}
        for result in graph.compute(self.fields.map(look_slab, self.given)):
            for name, rows in result.items():
                checksums[name] += rows
        return combine(checksums)

    def start(self, time: float, store: RunStore | None) -> None:
        """Take the caller's fields."""
        self._begin(store)
        started = self.fields.map(start_slab, self.given, time)
        chunks = {name: [self.fields.item(s, name) for s in started] for name in self.system.fields}
        (self.state,) = self.fields.persist(ChunkedState(chunks))
        self.given = ChunkedState({})

    def resume(self, slot: Mapping[str, ChunkFiles], store: RunStore | None, *, history: bool) -> None:
        """Take the state of a checkpoint, and what the stepper carried beside it."""
        self._begin(store)
        self.given = ChunkedState({})
        self._read(slot, history=history)

    def _read(self, slot: Mapping[str, ChunkFiles], *, history: bool) -> None:
        on_device = any(backend.is_device_array(getattr(a, "_meta", a)) for a in self.prepared.fields.values())
        chunks = {name: self._slabs_in(files, on_device) for name, files in slot.items()}
        fields = self.system.fields
        states = [
            ChunkedState({name: chunks[history_name(name, number)] for name in fields})
            for number in range(states_in(slot, self.system) if history else 1)
        ]
        self.state, *carried = self.fields.persist(*states)
        self.history = tuple(carried)

    def steps(self, stepper: Stepper, times: Sequence[float], dt: float) -> None:
        """Take one step from each time, as one graph."""
        states, before = (self.state, *self.history), self.fields.tasks
        for t in times:
            states = stepper.step(self.fields, t, dt, *states)
        self.state, *history = self.fields.persist(*states)
        self.history = tuple(history)
        if not all(all(found.values()) for found in graph.compute(self.fields.map(finite_slab, self.state))):
            raise NotFiniteError(times[-1])
        self._tasks_of_batch = self.fields.tasks - before

    def first_step(self, stepper: Adaptive, t: float, span: float) -> float:
        """A step to begin with, of at most `span`."""
        return first_step(stepper, self.fields, t, self.state, span)

    def attempt(self, stepper: Adaptive, t: float, dt: float) -> Attempt:
        """Try a step, as one graph."""
        return stepper.attempt(self.fields, t, dt, self.state, *self.carried)

    def accept(self, attempt: Attempt, *, keep: bool) -> None:
        """Go on from what an attempt came to; `keep` what it carries, too."""
        self.state, *carried = self.fields.persist(attempt.state, *(attempt.carried if keep else ()))
        self.carried = tuple(carried)

    def save(self, slot: Mapping[str, ChunkFiles], frame: int | None, writer: FrameWriter) -> None:
        """Write the state to a slot, and as a frame if one is asked for, each chunk by the task that holds it."""
        shown = None if frame is None else (frame, writer)
        rows = self.plan.chunk_rows
        jobs = self.fields.map(write_slab, self.state, rows, dict(slot), 0, shown)
        carried = self.history or (self.state,) * (states_in(slot, self.system) - 1)
        for number, state in enumerate(carried, 1):
            jobs += self.fields.map(write_slab, state, rows, dict(slot), number, None)
        graph.compute(jobs)

    def save_frame(self, state: ChunkedState, frame: int, writer: FrameWriter) -> None:
        """Write a state as a frame."""
        graph.compute(self.fields.map(write_slab, state, self.plan.chunk_rows, None, 0, (frame, writer)))

    def checkpointed(self, slot: Mapping[str, ChunkFiles] | None) -> None:
        """On a cluster go on from what is on disk, or comes by way of the client: nobody knows how it was made."""
        if not self.distributed:
            return
        if slot is not None:
            self._read(slot, history=bool(self.history))
            self.carried = ()
        elif self.due:
            count, states = 1 + len(self.history), (self.state, *self.history, *self.carried)
            self.state, *rest = self.fields.forget_how(*states)
            self.history, self.carried = tuple(rest[: count - 1]), tuple(rest[count - 1 :])
        else:
            return
        self.fields.tasks = 0

    def snapshot(self, state: ChunkedState | None = None) -> dict[str, Any]:
        """The fields, or those of another state, as Dask arrays."""
        (shown,) = self.fields.persist(state) if state else (self.state,)
        if self.distributed:
            (shown,) = self.fields.forget_how(shown)  # whoever keeps a frame would keep all steps before it, too
            self.state = self.state if state else shown
        return {name: self.fields.array(chunks) for name, chunks in shown.chunks.items()}

    def settle(self) -> None:
        """Steps are finished, and looked at, as they are taken."""

    def close(self) -> None:
        """The chunks go with the last reference; memory for more is given up."""
        clear_memory()
        if self.distributed:
            graph.run_everywhere(clear_memory)

    def _begin(self, store: RunStore | None) -> None:
        """On a cluster see to it that all workers see the store, and have the constants that are in memory here."""
        if not self.distributed:
            return
        constants = {n: a for n, a in self.prepared.constants.items() if not isinstance(a, da.Array)}
        if store is None:
            self._hold(self._slabs(constants))
            return
        graph.require_everywhere(store.path / ".state")
        chunks = {}
        for name, array in constants.items():  # what is sent to a worker goes with it; a file can be read again
            rows = (self.plan.slab_rows, *array.shape[1:])
            files = store.scratch(f"constant_{name}", array.shape, rows, self.system.dtype)
            for lo, hi in self.fields.slabs:
                block = backend.to_host(array[lo:hi])
                files.write_rows(lo, np.ascontiguousarray(block, dtype=self.system.dtype))
            chunks[name] = self._slabs_in(files, backend.is_device_array(array))
        self._hold(chunks)

    def _hold(self, constants: Mapping[str, list[Any]]) -> None:
        """Make slabs of constants once, not in every graph."""
        if constants:
            self.fields.constants |= self.fields.persist(ChunkedState(dict(constants)))[0].chunks

    def _slabs_in(self, files: ChunkFiles, on_device: bool) -> list[Any]:
        return [self.fields.task("read", read_slab, files, lo, hi, on_device) for lo, hi in self.fields.slabs]

    def _slabs(self, arrays: Mapping[str, Any]) -> dict[str, list[Any]]:
        dtype = self.system.dtype
        given = {name: array.astype(dtype, copy=False) for name, array in arrays.items()}
        return split_arrays(given, self.plan.slab_rows, self.distributed)


def look_slab(context: Context, lo: int, blocks: Mapping[str, Any]) -> dict[str, list[int]]:
    """Checksums of the rows of a slab; raises if it is no start."""
    return look_rows(context.system, lo, ((name, backend.to_host(block)) for name, block in blocks.items()))


def read_slab(files: ChunkFiles, lo: int, hi: int, on_device: bool) -> Any:
    """Rows of a field in files, where those of the caller were: on the host, or on a device."""
    rows = files.read_rows(lo, hi)
    return backend.to_device(rows) if on_device else rows


def write_slab(
    context: Context,
    lo: int,
    blocks: Mapping[str, Any],
    rows: int,
    slot: Mapping[str, ChunkFiles] | None,
    number: int,
    frame: tuple[int, FrameWriter] | None,
) -> None:
    """Write a slab of a state to a slot, and as chunks of some rows of a frame, and see it to the disk."""
    for name, block in ((name, backend.to_host(block)) for name, block in blocks.items()):
        if slot is not None:
            files = slot[history_name(name, number)]
            files.write_rows(lo, block)
            files.sync_rows(lo, lo + len(block))
        if frame is not None:
            for a, b in split(len(block), rows):
                frame[1].write(frame[0], name, lo + a, block[a:b])
