"""A run in this process: as one block in memory, or streamed through a window."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from voxdask import backend
from voxdask.block import BlockFields
from voxdask.chunkfiles import ChunkFiles
from voxdask.inputs import combine, look_rows, reader, require_finite
from voxdask.pencil import split
from voxdask.plans import Plan
from voxdask.prepare import Prepared
from voxdask.runner import NotFiniteError, history_name, states_in
from voxdask.steppers import Stepper
from voxdask.steppers.adaptive import Adaptive, Attempt, first_step
from voxdask.storage import RowsInFiles, RowsInMemory, SpectraInFiles, SpectraInMemory, Staged
from voxdask.store import FrameWriter, RunStore
from voxdask.streamed import StreamedFields
from voxdask.tiles import finite


class LocalRunner:
    """Tiers *block*, *streamed* and *spilled*."""

    @property
    def due(self) -> bool:
        """Never."""
        return False

    def __init__(self, prepared: Prepared, plan: Plan) -> None:
        self.prepared, self.plan, self.system, self.batch = prepared, plan, prepared.system, plan.batch
        self.like = backend.a_device_array() if plan.on_device else None
        self.threads = plan.threads
        self.state: Any
        self.history: tuple[Any, ...] = ()
        self.carried: tuple[Any, ...] = ()

    def examine(self) -> str:
        """Look at every value of the caller's fields, and sum them up."""
        readers, dtype = self._readers(), self.system.dtype

        def look(bounds: tuple[int, int]) -> dict[str, list[int]]:
            blocks = ((name, backend.to_host(read(*bounds))) for name, read in readers.items())
            return look_rows(self.system, bounds[0], ((name, b.astype(dtype, copy=False)) for name, b in blocks))

        checksums: dict[str, list[int]] = {name: [] for name in readers}
        with ThreadPoolExecutor(self.threads) as pool:
            for found in pool.map(look, split(self.system.grid.shape[0], self.plan.rows)):
                for name, rows in found.items():
                    checksums[name] += rows
        return combine(checksums)

    def start(self, time: float, store: RunStore | None) -> None:
        """Take the caller's fields."""
        self._open(store)
        readers, bring = self._readers(), backend.to_host if self.plan.streams else (lambda rows: rows)
        self.state = self.fields.fill(lambda name, lo, hi: bring(readers[name](lo, hi)), time)

    def resume(self, slot: Mapping[str, ChunkFiles], store: RunStore | None, *, history: bool) -> None:
        """Take the state of a checkpoint, and what the stepper carried beside it."""
        self._open(store)

        def read(number: int) -> Any:
            files = {name: slot[history_name(name, number)] for name in self.system.fields}
            return self.fields.fill(lambda name, lo, hi: files[name].read_rows(lo, hi))

        self.state, *carried = map(read, range(states_in(slot, self.system) if history else 1))
        self.history = tuple(carried)

    def steps(self, stepper: Stepper, times: Sequence[float], dt: float) -> None:
        """Take one step from each time."""
        for t in times:
            self.state, *history = stepper.step(self.fields, t, dt, self.state, *self.history)
            self.history = tuple(history)
        if not stepper.spectra:  # what ends a semi-implicit step is left to be done together with the next one
            self.settle()
            self.fields.check(self.state)
        if not self.fields.finite:
            raise NotFiniteError(times[-1])

    def settle(self) -> None:
        """Finish what steps left to be done; whether it is finite is seen where it is saved or shown."""
        for state in (self.state, *self.history, *self.carried):
            self.fields.settle(state)

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
        """Write the state to a slot, and as a frame if one is asked for; what is not finite ends it."""
        self.settle()
        # before the first step nothing is carried: the state itself is put into its place
        states = (self.state, *(self.history or (self.state,) * (states_in(slot, self.system) - 1)))

        def write(item: tuple[str, int, int]) -> None:
            name, lo, hi = item
            for number, state in enumerate(states):
                block = self._block(state, name, lo, hi)
                slot[history_name(name, number)].write_rows(lo, block)
                if number == 0 and frame is not None:
                    writer.write(frame, name, lo, block)

        self._write(write)

    def save_frame(self, state: Any, frame: int, writer: FrameWriter) -> None:
        """Write a state as a frame."""
        self.fields.settle(state)

        def write(item: tuple[str, int, int]) -> None:
            name, lo, hi = item
            writer.write(frame, name, lo, self._block(state, name, lo, hi))

        self._write(write)

    def _block(self, state: Any, name: str, lo: int, hi: int) -> np.ndarray:
        """Rows of a state as they are written, looked at while they are at hand: they may come from a disk."""
        block = np.ascontiguousarray(backend.to_host(self.fields.rows_of(state, name, lo, hi)))
        if not finite(block):
            raise NotFiniteError(f"the field {name!r} is NaN or infinite in rows {lo} to {hi}")
        return block

    def _write(self, write: Callable[[tuple[str, int, int]], None]) -> None:
        """Have every chunk of every field written."""
        ranges = split(self.system.grid.shape[0], self.plan.chunk_rows)
        thick = self.plan.tier == "spilled" and self.plan.chunk_rows > self.plan.save_rows
        with ThreadPoolExecutor(1 if thick else self.threads) as pool:
            for _ in pool.map(write, [(n, lo, hi) for n in self.system.fields for lo, hi in ranges]):
                pass

    def checkpointed(self, slot: Mapping[str, ChunkFiles] | None) -> None:
        """Nothing to be done: the state is where it was."""

    def snapshot(self, state: Any = None) -> dict[str, Any]:
        """The fields as they are until the next step, or those of another state, in the kind that they came in.

        What is not finite is not shown.
        """
        size, shown = self.system.grid.shape[0], state or self.state
        self.fields.settle(shown)

        def look(item: tuple[str, int, int]) -> bool:
            return finite(self.fields.rows_of(shown, *item))

        with ThreadPoolExecutor(self.threads) as pool:
            ranges = split(size, self.plan.save_rows)
            if not all(pool.map(look, [(n, lo, hi) for n in self.system.fields for lo, hi in ranges])):
                raise NotFiniteError("a field is NaN or infinite")
        there = any(map(backend.is_device_array, self.prepared.fields.values()))
        bring = backend.to_device if there and not self.plan.streams else backend.to_host
        return {name: bring(self.fields.rows_of(shown, name, 0, size)) for name in self.system.fields}

    def close(self) -> None:
        """Let threads and memory go."""
        if hasattr(self, "fields"):
            self.fields.close()
            del self.fields
            self.state, self.history, self.carried = None, (), ()

    def _open(self, store: RunStore | None) -> None:
        """Make the storage of the plan's tier, and put the constants there."""
        system, operators, plan = self.system, self.prepared.operators, self.plan
        self.fields: Any
        if plan.tier == "block":
            constants = {name: self._constant(name, a) for name, a in self.prepared.constants.items()}
            self.fields = BlockFields(system, operators, plan, constants, self.like)
            return
        make, spectra = self._in_memory() if plan.tier == "streamed" else self._in_files(store)
        constants_at_rest, count = make(system.constants, "constant"), itertools.count(1)
        for name, array in self.prepared.constants.items():
            read = reader(array, plan.memory_limit)
            for lo, hi in split(system.grid.shape[0], plan.slab_rows):
                block = np.ascontiguousarray(backend.to_host(read(lo, hi)), dtype=system.dtype)
                require_finite(name, lo, block)
                padding = [(0, 0), *((operators.program.halo,) * 2 for _ in block.shape[1:])]
                constants_at_rest.write(name, lo, np.pad(block, padding))
        self.fields = StreamedFields(
            system, operators, plan, lambda: make(system.fields, f"state{next(count)}"), spectra,
            constants_at_rest if system.constants else None, self.like,
        )  # fmt: skip

    def _in_files(self, store: RunStore | None) -> tuple[Callable[[Sequence[str], str], Any], Any]:
        """What makes rows in files, and spectra there."""
        system, plan = self.system, self.plan
        if store is None:
            raise ValueError("a spilled run needs a store to spill into")
        create, depth = store.scratch, self.prepared.operators.program.halo
        whole, chunks = (system.padded_rows(count, depth) for count in (system.grid.shape[0], plan.slab_rows))

        def make(names: Sequence[str], label: str) -> Any:
            rows = RowsInFiles({name: create(f"{label}_{name}", whole, chunks, system.dtype) for name in names})
            return rows if self.like is None else Staged(rows)

        spectra = SpectraInFiles(create, system.transform, plan.slab_rows, plan.pencil_columns, plan.streamed_columns)
        return make, spectra if self.like is None else Staged(spectra)

    def _in_memory(self) -> tuple[Callable[[Sequence[str], str], Any], Any]:
        """What makes rows in host memory, and spectra there."""
        whole = self.system.padded_rows(self.system.grid.shape[0], self.prepared.operators.program.halo)

        def make(names: Sequence[str], label: str) -> Any:
            return RowsInMemory({name: backend.pinned(whole, self.system.dtype) for name in names})

        return make, SpectraInMemory(self.system.transform)

    def _readers(self) -> dict[str, Callable[[int, int], Any]]:
        """What gives rows of each of the caller's fields."""
        arrays, plan = self.prepared.fields, self.plan
        # of streamed fields every thread has a slab at hand, which is filled
        left = plan.memory_limit - plan.threads * plan.slab_rows * plan.problem.padded_row_bytes * plan.streams
        return {name: reader(a, left // len(arrays)) for name, a in arrays.items()}

    def _constant(self, name: str, array: Any) -> Any:
        whole = reader(array, self.plan.memory_limit)(0, self.system.grid.shape[0])
        require_finite(name, 0, here := backend.to_host(whole))
        return here if self.like is None else whole
