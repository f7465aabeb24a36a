"""A run on each tier: where its state comes from, how it is checked, and where its frames go.

The time loop of :mod:`voxdask.simulate` drives a :class:`Runner` without knowing which it has.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import dask
import dask.array as da
import numpy as np

from voxdask import backend
from voxdask.chunked import ChunkedFields, ChunkedState, Context, finite_slab, split_array, start_slab
from voxdask.chunkfiles import ChunkFiles
from voxdask.pencil import tiles as split
from voxdask.planning import Plan
from voxdask.prepare import Prepared, to_host_dtype
from voxdask.steppers import Stepper
from voxdask.storage import FieldInMemory, FieldStorage, FilePool, MemoryPool
from voxdask.store import FrameWriter, RunStore
from voxdask.sweeps import LocalFields, State
from voxdask.tiles import Workspace

#: Copies of a chunk that computing it is taken to need.
_LAZY_COPIES = 8
#: Memory for the chunks of a lazy coefficient while its checksum is taken.
_CHECKSUM_BYTES = 1 << 30


class NotFiniteError(FloatingPointError):
    """A field holds NaN or infinity."""


class Runner(Protocol):
    """What the time loop asks of a tier."""

    #: Steps that one call should take, between which nothing is looked at.
    batch: int

    def examine(self) -> str: ...
    def start(self, time: float, store: RunStore | None) -> None: ...
    def resume(self, slot: Mapping[str, ChunkFiles], store: RunStore) -> None: ...
    def steps(self, stepper: Stepper, times: Sequence[float], dt: float) -> None: ...
    def save(self, slot: Mapping[str, ChunkFiles], frame: int, writer: FrameWriter) -> None: ...
    def checkpointed(self, slot: Mapping[str, ChunkFiles]) -> None: ...
    def snapshot(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


def make_runner(prepared: Prepared, plan: Plan, distributed: bool) -> Runner:
    """The runner of a plan's tier."""
    return ChunkedRunner(prepared, plan, distributed) if plan.tier == "chunked" else LocalRunner(prepared, plan)


def row_checksums(block: np.ndarray) -> list[int]:
    """A checksum for each row, so that the whole does not depend on how it was cut."""
    return [zlib.crc32(np.ascontiguousarray(row).data) for row in block]


def combine(checksums: Mapping[str, Sequence[int]]) -> str:
    """One checksum of all fields."""
    text = ";".join(f"{name}:{','.join(map(str, rows))}" for name, rows in sorted(checksums.items()))
    return f"{zlib.crc32(text.encode()):08x}"


def checksum_of(array: Any) -> str:
    """A checksum of an array of any kind, read a row at a time."""
    read = _reader(array, _CHECKSUM_BYTES)
    return combine({"": [row_checksums(backend.to_host(read(i, i + 1)))[0] for i in range(array.shape[0])]})


class LocalRunner:
    """Tiers *block* and *spilled*."""

    batch = 1

    def __init__(self, prepared: Prepared, plan: Plan) -> None:
        self.prepared, self.plan, self.system = prepared, plan, prepared.system
        some = next(iter(prepared.fields.values()))
        self.like = some if backend.is_device_array(some) else None
        self.workers = 1 if self.like is not None else plan.threads
        self.state: State

    def examine(self) -> str:
        """Look at every value of the caller's fields, and sum them up."""
        checksums: dict[str, list[int]] = {name: [] for name in self.prepared.fields}
        readers = {name: _reader(a, self.plan.memory_limit) for name, a in self.prepared.fields.items()}

        def look(item: tuple[str, int, int]) -> list[int]:
            name, lo, hi = item
            block = backend.to_host(readers[name](lo, hi)).astype(self.system.dtype, copy=False)
            _require_finite(name, lo, block)
            return row_checksums(block)

        ranges = split(self.system.grid.shape[0], self.plan.rows)
        items = [(name, lo, hi) for name in checksums for lo, hi in ranges]
        with ThreadPoolExecutor(self.workers) as threads:
            for (name, _, _), rows in zip(items, threads.map(look, items), strict=True):
                checksums[name] += rows
        return combine(checksums)

    def start(self, time: float, store: RunStore | None) -> None:
        """Take the caller's fields."""
        self._open(store)
        borrowed = self._borrowed()
        if borrowed is not None:
            self.state = self.fields.given(borrowed)
        else:
            readers = {name: _reader(a, self.plan.memory_limit) for name, a in self.prepared.fields.items()}
            self.state = self.fields.fill(lambda name, lo, hi: readers[name](lo, hi), time)

    def resume(self, slot: Mapping[str, ChunkFiles], store: RunStore) -> None:
        """Take the state of a checkpoint."""
        self._open(store)
        xp = backend.namespace(self.like)
        self.state = self.fields.fill(lambda name, lo, hi: xp.asarray(slot[name].read_rows(lo, hi)))

    def steps(self, stepper: Stepper, times: Sequence[float], dt: float) -> None:
        """Take one step from each time."""
        for t in times:
            self.state = stepper.step(self.fields, t, dt, self.state)
            if not self.fields.finite:
                raise NotFiniteError(t)

    def save(self, slot: Mapping[str, ChunkFiles], frame: int, writer: FrameWriter) -> None:
        """Write the state to a slot and as a frame."""
        state = self.state

        def write(item: tuple[str, int, int]) -> None:
            name, lo, hi = item
            block = np.ascontiguousarray(backend.to_host(self.fields.rows_of(state, name, lo, hi)))
            slot[name].write_rows(lo, block)
            writer.write(frame, name, lo, block)

        ranges = split(self.system.grid.shape[0], self.plan.chunk_rows)
        thick = self.plan.tier == "spilled" and self.plan.chunk_rows > self.plan.slab_rows
        with ThreadPoolExecutor(1 if thick else self.workers) as threads:
            for _ in threads.map(write, [(n, lo, hi) for n in state.fields for lo, hi in ranges]):
                pass

    def checkpointed(self, slot: Mapping[str, ChunkFiles]) -> None:
        """Nothing to be done: the state is where it was."""

    def snapshot(self) -> dict[str, Any]:
        """The fields as they are until the next step, in the kind of array that they came in."""
        size = self.system.grid.shape[0]
        return {name: self.fields.rows_of(self.state, name, 0, size) for name in self.system.fields}

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
        read, size = _reader(array, self.plan.memory_limit), self.system.grid.shape[0]
        if isinstance(self.pool, MemoryPool):
            whole = to_host_dtype(read(0, size), self.system.dtype)
            _require_finite(name, 0, backend.to_host(whole))
            return FieldInMemory(whole)
        storage = self.pool.field(self.system.grid.shape, self.system.dtype)
        for lo, hi in split(size, self.plan.slab_rows):
            block = np.ascontiguousarray(read(lo, hi), dtype=self.system.dtype)
            _require_finite(name, lo, block)
            storage.done(lo, block)
        return storage


def _reader(array: Any, limit: int) -> Callable[[int, int], Any]:
    """Rows of an array of any kind; a Dask array is computed chunk by chunk, each once if it fits."""
    if not isinstance(array, da.Array):
        return lambda lo, hi: array[lo:hi]
    chunk_bytes = math.prod(max(c) for c in array.chunks) * array.dtype.itemsize * math.prod(array.numblocks[1:])
    if _LAZY_COPIES * chunk_bytes > limit:
        return lambda lo, hi: array[lo:hi].compute(scheduler="synchronous")
    return _LazyRows(array).read_rows


class _LazyRows:
    """Rows of a Dask array in order: the chunks that the last rows came from are kept."""

    def __init__(self, array: da.Array) -> None:
        self.array = array
        self.bounds = np.cumsum((0, *array.chunks[0]))
        self.lock, self.kept = threading.Lock(), dict[int, Any]()

    def read_rows(self, lo: int, hi: int) -> Any:
        first, last = np.searchsorted(self.bounds, [lo, hi - 1], side="right") - 1
        with self.lock:
            wanted = range(int(first), int(last) + 1)
            self.kept = {i: block for i, block in self.kept.items() if i in wanted}
            for i in wanted:
                if i not in self.kept:
                    chunk = self.array[self.bounds[i] : self.bounds[i + 1]]
                    self.kept[i] = chunk.compute(scheduler="synchronous")
            parts = [
                self.kept[i][max(lo - self.bounds[i], 0) : hi - self.bounds[i]] for i in wanted
            ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


class ChunkedRunner:
    """Tier *chunked*, on local threads or on a cluster."""

    batch = 8

    def __init__(self, prepared: Prepared, plan: Plan, distributed: bool) -> None:
        self.prepared, self.plan, self.system, self.distributed = prepared, plan, prepared.system, distributed
        self.fields = ChunkedFields(self.system, prepared.operators, plan, {}, distributed)
        constants = ChunkedState({n: self._slabs(a) for n, a in prepared.constants.items()})
        if constants.chunks:
            self.fields.constants = self.fields.persist(constants).chunks  # once, not in every graph
        self.state: ChunkedState

    def examine(self) -> str:
        """Look at every value of the caller's fields, and sum them up."""
        given = {name: self._slabs(a) for name, a in self.prepared.fields.items()}
        self.given = self.fields.persist(ChunkedState(given))
        checksums: dict[str, list[int]] = {name: [] for name in given}
        for result in dask.compute(*self.fields.map(look_slab, self.given)):
            for name, rows in result.items():
                checksums[name] += rows
        return combine(checksums)

    def start(self, time: float, store: RunStore | None) -> None:
        """Take the caller's fields."""
        started = self.fields.map(start_slab, self.given, time)
        chunks = {name: [self.fields.item(s, name) for s in started] for name in self.system.fields}
        self.state = self.fields.persist(ChunkedState(chunks))
        self.given = ChunkedState({})

    def resume(self, slot: Mapping[str, ChunkFiles], store: RunStore | None = None) -> None:
        """Take the state of a checkpoint."""
        self.given = ChunkedState({})
        chunks = {
            name: [self.fields.task("read", read_slab, files, lo, hi) for lo, hi in self.fields.slabs]
            for name, files in slot.items()
        }
        self.state = self.fields.persist(ChunkedState(chunks))

    def steps(self, stepper: Stepper, times: Sequence[float], dt: float) -> None:
        """Take one step from each time, as one graph."""
        state = self.state
        for t in times:
            state = stepper.step(self.fields, t, dt, state)
        self.state = self.fields.persist(state)
        if not all(all(found.values()) for found in dask.compute(*self.fields.map(finite_slab, self.state))):
            raise NotFiniteError(times[-1])

    def save(self, slot: Mapping[str, ChunkFiles], frame: int, writer: FrameWriter) -> None:
        """Write the state to a slot and as a frame, each chunk by the task that holds it."""
        dask.compute(*self.fields.map(write_slab, self.state, dict(slot), frame, writer))

    def checkpointed(self, slot: Mapping[str, ChunkFiles]) -> None:
        """On a cluster go on from what is on disk, so that the scheduler forgets how it was made."""
        if self.fields.distributed:
            self.resume(slot)

    def snapshot(self) -> dict[str, Any]:
        """The fields as Dask arrays."""
        return {name: self.fields.array(chunks) for name, chunks in self.state.chunks.items()}

    def close(self) -> None:
        """The chunks go with the last reference."""

    def _slabs(self, array: Any) -> list[Any]:
        return split_array(array.astype(self.system.dtype, copy=False), self.plan.chunk_rows, self.distributed)


def look_slab(context: Context, lo: int, blocks: Mapping[str, Any]) -> dict[str, list[int]]:
    """Checksums of the rows of a slab; raises if a value is not finite."""
    for name, block in blocks.items():
        _require_finite(name, lo, block)
    return {name: row_checksums(block) for name, block in blocks.items()}


def read_slab(files: ChunkFiles, lo: int, hi: int) -> np.ndarray:
    """Rows of a field of a checkpoint."""
    return files.read_rows(lo, hi)


def write_slab(
    context: Context,
    lo: int,
    blocks: Mapping[str, Any],
    slot: Mapping[str, ChunkFiles],
    frame: int,
    writer: FrameWriter,
) -> None:
    """Write a slab to a slot and as a part of a frame, and see it to the disk."""
    for name, block in blocks.items():
        slot[name].write_rows(lo, block)
        slot[name].sync_rows(lo, lo + len(block))
        writer.write(frame, name, lo, block)


def _require_finite(name: str, lo: int, block: np.ndarray) -> None:
    if not np.isfinite(block).all():
        where = np.argwhere(~np.isfinite(block))[0]
        where[0] += lo
        raise ValueError(
            f"the field {name!r} holds {block[(where[0] - lo, *where[1:])]} at index {tuple(map(int, where))}; "
            "every value must be finite (replace it, e.g. with ds.fillna)"
        )
