"""A run on each tier: where its state comes from, how it is checked, and where its frames go.

The time loop of :mod:`voxdask.simulate` drives a :class:`Runner` without knowing which it has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import dask
import dask.array as da
import numpy as np

from voxdask import backend
from voxdask.chunked import ChunkedFields, ChunkedState, split_arrays
from voxdask.chunkfiles import ChunkFiles
from voxdask.inputs import combine, look_rows, reader, require_finite
from voxdask.pencil import tiles as split
from voxdask.planning import Plan
from voxdask.prepare import Prepared, to_host_dtype
from voxdask.slabs import Context, finite_slab, start_slab
from voxdask.steppers import Stepper
from voxdask.steppers.adaptive import Adaptive, Attempt, first_step
from voxdask.storage import FieldInMemory, FieldStorage, FilePool, MemoryPool
from voxdask.store import FrameWriter, RunStore
from voxdask.sweeps import LocalFields, State
from voxdask.system import System
from voxdask.tiles import Workspace


class NotFiniteError(FloatingPointError):
    """A field holds NaN or infinity."""


class Runner(Protocol):
    """What the time loop asks of a tier."""

    #: Steps that one call should take, between which nothing is looked at.
    batch: int

    def examine(self) -> str: ...
    def start(self, time: float, store: RunStore | None) -> None: ...
    def resume(self, slot: Mapping[str, ChunkFiles], store: RunStore | None, *, history: bool) -> None: ...
    def steps(self, stepper: Stepper, times: Sequence[float], dt: float) -> None: ...
    def first_step(self, stepper: Adaptive, t: float, span: float) -> float: ...
    def attempt(self, stepper: Adaptive, t: float, dt: float) -> Attempt: ...
    def accept(self, attempt: Attempt, *, keep: bool) -> None: ...
    def save(self, slot: Mapping[str, ChunkFiles], frame: int | None, writer: FrameWriter) -> None: ...
    def save_frame(self, state: Any, frame: int, writer: FrameWriter) -> None: ...
    def checkpointed(self, slot: Mapping[str, ChunkFiles]) -> None: ...
    def snapshot(self, state: Any = None) -> dict[str, Any]: ...
    def close(self) -> None: ...


def make_runner(prepared: Prepared, plan: Plan, distributed: bool) -> Runner:
    """The runner of a plan's tier."""
    return ChunkedRunner(prepared, plan, distributed) if plan.tier == "chunked" else LocalRunner(prepared, plan)


def history_name(field: str, number: int) -> str:
    """Name in a slot of a field of the state (number 0), and of what a stepper carries beside it.

    Examples
    --------
    >>> history_name("c", 0), history_name("c", 1)
    ('c', 'c.history1')
    """
    return f"{field}.history{number}" if number else field


def states_in(slot: Mapping[str, ChunkFiles], system: System) -> int:
    """Number of states in a slot: the state, and what a stepper carries beside it."""
    return len(slot) // len(system.fields)


class LocalRunner:
    """Tiers *block* and *spilled*."""

    batch = 1

    def __init__(self, prepared: Prepared, plan: Plan) -> None:
        self.prepared, self.plan, self.system = prepared, plan, prepared.system
        some = next(iter(prepared.fields.values()))
        self.like = some if backend.is_device_array(some) else None
        self.workers = 1 if self.like is not None else plan.threads
        self.state: State
        self.history: tuple[State, ...] = ()
        self.carried: tuple[State, ...] = ()

    def examine(self) -> str:
        """Look at every value of the caller's fields, and sum them up."""
        readers, dtype = self._readers(), self.system.dtype

        def look(bounds: tuple[int, int]) -> dict[str, list[int]]:
            blocks = ((name, backend.to_host(read(*bounds))) for name, read in readers.items())
            return look_rows(self.system, bounds[0], ((name, b.astype(dtype, copy=False)) for name, b in blocks))

        checksums: dict[str, list[int]] = {name: [] for name in readers}
        with ThreadPoolExecutor(self.workers) as threads:
            for found in threads.map(look, split(self.system.grid.shape[0], self.plan.rows)):
                for name, rows in found.items():
                    checksums[name] += rows
        return combine(checksums)

    def start(self, time: float, store: RunStore | None) -> None:
        """Take the caller's fields."""
        self._open(store)
        borrowed = self._borrowed()
        if borrowed is not None:
            self.state = self.fields.given(borrowed)
        else:
            readers = self._readers()
            self.state = self.fields.fill(lambda name, lo, hi: readers[name](lo, hi), time)

    def resume(self, slot: Mapping[str, ChunkFiles], store: RunStore | None, *, history: bool) -> None:
        """Take the state of a checkpoint, and what the stepper carried beside it."""
        self._open(store)
        xp = backend.namespace(self.like)

        def read(number: int) -> State:
            files = {name: slot[history_name(name, number)] for name in self.system.fields}
            return self.fields.fill(lambda name, lo, hi: xp.asarray(files[name].read_rows(lo, hi)))

        self.state, *carried = map(read, range(states_in(slot, self.system) if history else 1))
        self.history = tuple(carried)

    def steps(self, stepper: Stepper, times: Sequence[float], dt: float) -> None:
        """Take one step from each time."""
        for t in times:
            self.state, *history = stepper.step(self.fields, t, dt, self.state, *self.history)
            self.history = tuple(history)
            if not self.fields.finite:
                raise NotFiniteError(t)

    def first_step(self, stepper: Adaptive, t: float, span: float) -> float:
        """A step to begin with, of at most `span`."""
        return first_step(stepper, self.fields, t, self.state, span)

    def attempt(self, stepper: Adaptive, t: float, dt: float) -> Attempt:
        """Try a step; its error says whether all is finite."""
        attempt = stepper.attempt(self.fields, t, dt, self.state, *self.carried)
        self.fields.finite = True
        return attempt

    def accept(self, attempt: Attempt, *, keep: bool) -> None:
        """Go on from what an attempt came to; `keep` what it carries, too."""
        self.state, self.carried = attempt.state, attempt.carried if keep else ()

    def save(self, slot: Mapping[str, ChunkFiles], frame: int | None, writer: FrameWriter) -> None:
        """Write the state to a slot, and as a frame if one is asked for."""
        # before the first step nothing is carried: the state itself is put into its place
        states = (self.state, *(self.history or (self.state,) * (states_in(slot, self.system) - 1)))

        def write(item: tuple[str, int, int]) -> None:
            name, lo, hi = item
            for number, state in enumerate(states):
                block = np.ascontiguousarray(backend.to_host(self.fields.rows_of(state, name, lo, hi)))
                slot[history_name(name, number)].write_rows(lo, block)
                if number == 0 and frame is not None:
                    writer.write(frame, name, lo, block)

        self._write(write)

    def save_frame(self, state: State, frame: int, writer: FrameWriter) -> None:
        """Write a state as a frame."""

        def write(item: tuple[str, int, int]) -> None:
            name, lo, hi = item
            rows = backend.to_host(self.fields.rows_of(state, name, lo, hi))
            writer.write(frame, name, lo, np.ascontiguousarray(rows))

        self._write(write)

    def _write(self, write: Callable[[tuple[str, int, int]], None]) -> None:
        """Have every chunk of every field written."""
        ranges = split(self.system.grid.shape[0], self.plan.chunk_rows)
        thick = self.plan.tier == "spilled" and self.plan.chunk_rows > self.plan.slab_rows
        with ThreadPoolExecutor(1 if thick else self.workers) as threads:
            for _ in threads.map(write, [(n, lo, hi) for n in self.system.fields for lo, hi in ranges]):
                pass

    def checkpointed(self, slot: Mapping[str, ChunkFiles]) -> None:
        """Nothing to be done: the state is where it was."""

    def snapshot(self, state: State | None = None) -> dict[str, Any]:
        """The fields as they are until the next step, or those of another state, in the kind that they came in."""
        size, shown = self.system.grid.shape[0], state or self.state
        return {name: self.fields.rows_of(shown, name, 0, size) for name in self.system.fields}

    def close(self) -> None:
        if hasattr(self, "fields"):
            self.fields.close()

    def _open(self, store: RunStore | None) -> None:
        """Make the storage of the plan's tier, and put the constants there."""
        self.pool: MemoryPool | FilePool
        workspace = Workspace()
        if self.plan.tier == "block":
            self.pool = MemoryPool(np.empty(0) if self.like is None else self.like)
        elif store is not None:
            plan = self.plan
            self.pool = FilePool(store.scratch, plan.slab_rows, plan.pencil_columns, workspace)
        else:
            raise ValueError("a spilled run needs a store to spill into")
        constants = {name: self._constant(name, a) for name, a in self.prepared.constants.items()}
        self.fields = LocalFields(self.system, self.prepared.operators, self.plan, self.pool, constants, workspace)

    def _readers(self) -> dict[str, Callable[[int, int], Any]]:
        """What gives rows of each of the caller's fields."""
        arrays = self.prepared.fields
        return {name: reader(a, self.plan.memory_limit // len(arrays)) for name, a in arrays.items()}

    def _borrowed(self) -> dict[str, Any] | None:
        """The caller's arrays, if they can be read as they are."""
        arrays = self.prepared.fields
        fits = all(
            not isinstance(a, da.Array) and a.dtype == self.system.dtype and a.flags.c_contiguous
            for a in arrays.values()
        )
        held = any(axis.held for axis in self.system.axes)
        return arrays if fits and not held and self.plan.tier == "block" else None

    def _constant(self, name: str, array: Any) -> FieldStorage:
        read, size = reader(array, self.plan.memory_limit), self.system.grid.shape[0]
        if isinstance(self.pool, MemoryPool):
            whole = to_host_dtype(read(0, size), self.system.dtype)
            require_finite(name, 0, backend.to_host(whole))
            return FieldInMemory(whole)
        storage = self.pool.field(self.system.grid.shape, self.system.dtype)
        for lo, hi in split(size, self.plan.slab_rows):
            block = np.ascontiguousarray(read(lo, hi), dtype=self.system.dtype)
            require_finite(name, lo, block)
            storage.done(lo, block)
        return storage


class ChunkedRunner:
    """Tier *chunked*, on local threads or on a cluster."""

    batch = 8

    def __init__(self, prepared: Prepared, plan: Plan, distributed: bool) -> None:
        self.prepared, self.plan, self.system, self.distributed = prepared, plan, prepared.system, distributed
        self.fields = ChunkedFields(self.system, prepared.operators, plan, {}, distributed)
        constants = ChunkedState(self._slabs(prepared.constants))
        if constants.chunks:
            self.fields.constants = self.fields.persist(constants)[0].chunks  # once, not in every graph
        self.state: ChunkedState
        self.history: tuple[ChunkedState, ...] = ()
        self.carried: tuple[ChunkedState, ...] = ()

    def examine(self) -> str:
        """Look at every value of the caller's fields, and sum them up."""
        given = self._slabs(self.prepared.fields)
        (self.given,) = self.fields.persist(ChunkedState(given))
        checksums: dict[str, list[int]] = {name: [] for name in given}
        for result in dask.compute(*self.fields.map(look_slab, self.given)):
            for name, rows in result.items():
                checksums[name] += rows
        return combine(checksums)

    def start(self, time: float, store: RunStore | None) -> None:
        """Take the caller's fields."""
        started = self.fields.map(start_slab, self.given, time)
        chunks = {name: [self.fields.item(s, name) for s in started] for name in self.system.fields}
        (self.state,) = self.fields.persist(ChunkedState(chunks))
        self.given = ChunkedState({})

    def resume(self, slot: Mapping[str, ChunkFiles], store: RunStore | None, *, history: bool) -> None:
        """Take the state of a checkpoint, and what the stepper carried beside it."""
        self.given = ChunkedState({})
        chunks = {
            name: [self.fields.task("read", read_slab, files, lo, hi) for lo, hi in self.fields.slabs]
            for name, files in slot.items()
        }
        fields = self.system.fields
        states = [
            ChunkedState({name: chunks[history_name(name, number)] for name in fields})
            for number in range(states_in(slot, self.system) if history else 1)
        ]
        self.state, *carried = self.fields.persist(*states)
        self.history = tuple(carried)

    def steps(self, stepper: Stepper, times: Sequence[float], dt: float) -> None:
        """Take one step from each time, as one graph."""
        states = (self.state, *self.history)
        for t in times:
            states = stepper.step(self.fields, t, dt, *states)
        self.state, *history = self.fields.persist(*states)
        self.history = tuple(history)
        if not all(all(found.values()) for found in dask.compute(*self.fields.map(finite_slab, self.state))):
            raise NotFiniteError(times[-1])

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
        jobs = self.fields.map(write_slab, self.state, dict(slot), 0, shown)
        carried = self.history or (self.state,) * (states_in(slot, self.system) - 1)
        for number, state in enumerate(carried, 1):
            jobs += self.fields.map(write_slab, state, dict(slot), number, None)
        dask.compute(*jobs)

    def save_frame(self, state: ChunkedState, frame: int, writer: FrameWriter) -> None:
        """Write a state as a frame."""
        dask.compute(*self.fields.map(write_slab, state, None, 0, (frame, writer)))

    def checkpointed(self, slot: Mapping[str, ChunkFiles]) -> None:
        """On a cluster go on from what is on disk, so that the scheduler forgets how it was made."""
        if self.fields.distributed:
            self.resume(slot, None, history=bool(self.history))
            self.carried = ()

    def snapshot(self, state: ChunkedState | None = None) -> dict[str, Any]:
        """The fields, or those of another state, as Dask arrays."""
        (shown,) = self.fields.persist(state) if state else (self.state,)
        return {name: self.fields.array(chunks) for name, chunks in shown.chunks.items()}

    def close(self) -> None:
        """The chunks go with the last reference."""

    def _slabs(self, arrays: Mapping[str, Any]) -> dict[str, list[Any]]:
        dtype = self.system.dtype
        given = {name: array.astype(dtype, copy=False) for name, array in arrays.items()}
        return split_arrays(given, self.plan.chunk_rows, self.distributed)


def look_slab(context: Context, lo: int, blocks: Mapping[str, Any]) -> dict[str, list[int]]:
    """Checksums of the rows of a slab; raises if it is no start."""
    return look_rows(context.system, lo, blocks.items())


def read_slab(files: ChunkFiles, lo: int, hi: int) -> np.ndarray:
    """Rows of a field of a checkpoint."""
    return files.read_rows(lo, hi)


def write_slab(
    context: Context,
    lo: int,
    blocks: Mapping[str, Any],
    slot: Mapping[str, ChunkFiles] | None,
    number: int,
    frame: tuple[int, FrameWriter] | None,
) -> None:
    """Write a slab of a state to a slot, and as a part of a frame, and see it to the disk."""
    for name, block in blocks.items():
        if slot is not None:
            files = slot[history_name(name, number)]
            files.write_rows(lo, block)
            files.sync_rows(lo, lo + len(block))
        if frame is not None:
            frame[1].write(frame[0], name, lo, block)
