"""Run passes over fields that do not fit where they are worked on: through a window of a few slabs of rows.

This is the :class:`~voxdask.steppers.Fields` of the tier *spilled*, whose fields lie in files, and of *streamed*, whose
fields lie in host memory and go through a GPU. What :class:`~voxdask.deferred.Deferred` puts off runs here: every turn
of a sweep is shared out among threads, which go on to the next one without waiting for each other, while rows are read
ahead and written behind. Pencils go by likewise.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial, wraps
from typing import Any

import numpy as np

from voxdask import backend, halo, passes, tiles, windows
from voxdask.at_hand import Window, view
from voxdask.costs import shares
from voxdask.deferred import Advance, Deferred, Finish, Kind, Link, Size, Stream, StreamedState, Sum
from voxdask.filters import Filter
from voxdask.halo import ArrayRows, GatheredRows
from voxdask.kernels import Update, update_of
from voxdask.passes import Context
from voxdask.pencil import TRANSFORMED, split
from voxdask.pipeline import SharedOut, at_once, pipeline
from voxdask.plans import DEVICE_SUMS, Plan
from voxdask.recycler import pages
from voxdask.resident import ResidentSpectra
from voxdask.spilling import pencils_ahead, pencils_held
from voxdask.steppers.base import Terms
from voxdask.storage import Spectra, StoredRows
from voxdask.system import SUM, Operators, System, saved_in
from voxdask.tiles import Workspace
from voxdask.units import format_bytes
from voxdask.windows import Chain, Turn, Width, aligned, domain_rows


class StreamedFields(Deferred):
    """Operations on fields for a stepper, over windows of rows.

    Parameters
    ----------
    system : System
    operators : Operators
    plan : Plan
    rows : callable
        ``rows()`` gives storage for another state.
    spectra : Spectra
    constants : StoredRows, optional
    like : array, optional
        An array of the kind that is worked on, if on a device: then a turn is not shared out, but one piece of work.

    Attributes
    ----------
    finite : bool
        Whether all that was looked at since the start was finite: every target that is stored, every sum, and a row of
        every pencil.
    """

    def __init__(
        self,
        system: System,
        operators: Operators,
        plan: Plan,
        rows: Callable[[], StoredRows],
        spectra: Spectra,
        constants: StoredRows | None,
        like: Any = None,
    ) -> None:
        given = Stream("constants", constants) if constants is not None else None
        super().__init__(operators, plan.depth, given, bool(system.weights))
        self.system, self.plan, self._new_rows, self._new_spectra, self.like = system, plan, rows, spectra, like
        self.context = Context.of(system, operators, plan)
        self.slabs = split(system.grid.shape[0], plan.slab_rows)
        self.resident = ResidentSpectra(system.transform, plan.resident_columns, plan.pencil_columns)
        self.pencils = self.resident.between(plan.streamed_columns)
        self.workspace, self.finite = Workspace(), True
        self._threads = ThreadPoolExecutor(plan.threads, "voxdask")
        self._io = ThreadPoolExecutor(2, "voxdask-io")
        self._memory = pages(0)
        self._sweep = lru_cache(maxsize=1)(windows.sweep)  # of many thin slabs it takes a few megabytes

    def close(self) -> None:
        """Let the threads go, and on a device what transforms keep."""
        self._threads.shutdown(cancel_futures=True)
        self._io.shutdown(cancel_futures=True)
        self._memory = pages(0)
        self.resident.give_up()
        if self.like is not None:
            backend.forget_transforms()

    def new_storage(self) -> StoredRows:
        """Storage for a state."""
        return self._new_rows()

    def new_spectra(self) -> Spectra:
        """Storage for the spectra of a state."""
        return self._new_spectra

    def width(self, kind: Kind) -> Width:
        """How wide a stream is."""
        return self.plan.problem.stream_width(kind).narrowed(self.plan.streamed_columns, self.plan.problem.columns)

    def fill(self, block: Callable[[str, int, int], Any], time: float | None = None) -> StreamedState:
        """A state from ``block(name, lo, hi)``, rows of a field; at a `time` held nodes take their values."""
        stream = Stream("state", self.free.pop() if self.free else self.new_storage(), self.free)

        def work(lo: int, hi: int) -> None:
            for name in self.system.fields:
                out = self._padded(lo, hi)
                rows = halo.inner(out, self.operators.program.halo)
                for a, b in split(hi - lo, self.plan.rows):  # few rows at a time: what makes them takes memory too
                    rows[a:b] = block(name, lo + a, lo + b)
                if time is not None:
                    halo.hold(rows, lo, self.system.axes, time)
                stream.storage.write(name, lo, out)

        each = self._threads.map if self.like is None else map
        for _ in each(work, *zip(*self.slabs, strict=True)):
            pass
        return StreamedState(stream)

    def rows_of(self, state: StreamedState, name: str, lo: int, hi: int) -> Any:
        """A copy of rows of a field of a state."""
        out = self._padded(lo, hi)
        state.stream.storage.read(name, lo, hi, out)
        return halo.inner(out, self.operators.program.halo)

    def _padded(self, lo: int, hi: int) -> Any:
        """Room for rows as they lie in storage."""
        shape, dtype = self.system.padded_rows(hi - lo, self.operators.program.halo), self.system.dtype
        return view(pages(math.prod(shape) * dtype.itemsize), 0, shape, dtype)

    def check(self, state: StreamedState) -> None:
        """What is stored was looked at when it was made."""

    def error(self, terms: Terms, u: StreamedState, v: StreamedState, atol: float, rtol: float) -> float:
        """The size of a sum in units of the tolerance; see :class:`voxdask.steppers.Fields`."""
        sums = self.sizes(terms, u, v, atol, rtol)
        every = [rows for _, rows in sorted(sums.items(), key=lambda item: item[0])]
        return tiles.root_mean_square(every, self.system.grid.size * len(self.system.fields))

    def run(self, links: Sequence[Link], streams: Sequence[Stream], chain: Chain) -> None:
        """Run a chain in one sweep."""
        size, periodic = self.system.grid.shape[0], self.system.axes[0].periodic
        sweep = self._sweep(chain, size, self.plan.slab_rows, periodic, self.plan.ahead)
        memory = self._memory_of(sweep.peak_bytes)
        window = Window(self.system, self.operators.program.halo, streams, sweep, memory, self.resident.columns)
        turns = sweep.turns

        @self._beside
        def load(t: int) -> None:
            for part in turns[t].loads:
                for name, block in window.rows_of(part):
                    for row, lo, hi in domain_rows(part.lo, part.hi, size):
                        streams[part.stream].storage.read(name, lo, hi, block[row - part.lo :][: hi - lo])

        @self._beside
        def begin(t: int) -> None:
            window.keep_heads(turns[t].loads)
            window.take(turns[t].makes)
            shared.prepare(t, lambda: self._jobs(links[turns[t].link], turns[t], window))

        @self._beside
        def end(t: int) -> None:
            shared.end(t)
            window.keep_heads(turns[t].makes)

        def drop(t: int) -> None:
            window.drop(part for part in turns[t].drops if part not in turns[t].stores)

        @self._beside
        def store(t: int) -> None:
            for part in turns[t].stores:
                for name, block in window.rows_of(part):
                    streams[part.stream].storage.write(name, part.lo, block)

        def stored(t: int) -> None:
            window.drop(part for part in turns[t].drops if part in turns[t].stores)

        with self._sharing_out() as shared:
            pipeline(
                self._io, len(turns), sweep.ahead, take=lambda t: window.take(turns[t].loads), load=load, begin=begin,
                end=end, store=store, stored=stored, drop=drop, after=lambda t: turns[t].after,
            )  # fmt: skip

    def transform(self, filters: Sequence[Filter], t: float, dt: float) -> None:
        """Transform all spectra along the first axis, combine modes, and transform back."""
        transform, multiply = self.system.transform, dict(zip(self.system.fields, filters, strict=True))
        items = [(j, name) for j in range(len(self.pencils)) for name in self.system.fields]
        held: dict[int, dict[str, Any]] = {}
        spectra = {name: (TRANSFORMED, *saved_in(each.arrays)) for name, each in multiply.items()}
        one = aligned(self.plan.problem.column_bytes * self.plan.pencil_columns)
        pencils, count = pencils_held(self.plan.ahead), max(map(len, spectra.values()))
        memory = self._memory_of(pencils * count * one if self.plan.streamed_columns else 0)

        def take(k: int) -> None:
            j, name = items[k]
            start, stop = self.pencils[j]
            if start < self.resident.columns:
                held[k] = self.resident.pencil(name, start, spectra[name])
                return
            held[k] = {}
            for place, which in enumerate(spectra[name], k % pencils * count):
                (size, _, *rest), dtype = transform.layout(which)
                held[k][which] = view(memory, place * one, (size, stop - start, *rest), dtype)

        @self._beside
        def load(k: int) -> None:
            j, name = items[k]
            if (start := self.pencils[j][0] - self.resident.columns) < 0:
                return
            self.spectra.read_columns(name, start, held[k][TRANSFORMED])
            for kept in saved_in(multiply[name].reads):
                self.spectra.read_saved(name, kept, start, held[k][kept])

        @self._beside
        def begin(k: int) -> None:
            (j, name), blocks = items[k], held[k]
            start, stop = self.pencils[j]

            def through(a: int, b: int) -> None:
                parts = {which: block[:, a:b] for which, block in blocks.items()}
                part = parts.pop(TRANSFORMED)

                def keep(c: int, d: int, made: Any) -> None:
                    part[:, c:d] = made

                if not passes.through(
                    self.context, multiply[name], start + a, start + b, lambda c, d: part[:, c:d], keep, t, dt, parts,
                    self.workspace,
                ):  # fmt: skip
                    self.finite = False  # threads may only ever clear it

            shared.begin(k, [partial(through, a, b) for a, b in self._shares(stop - start, self.plan.columns)])

        @self._beside
        def end(k: int) -> None:
            shared.end(k)

        @self._beside
        def store(k: int) -> None:
            j, name = items[k]
            if (start := self.pencils[j][0] - self.resident.columns) < 0:
                return
            self.spectra.write_columns(name, start, held[k][TRANSFORMED])
            for kept in saved_in(multiply[name].writes):
                self.spectra.write_saved(name, kept, start, held[k][kept])

        def stored(k: int) -> None:
            del held[k]

        with self._sharing_out() as shared:
            pipeline(
                self._io, len(items), pencils_ahead(self.plan.ahead), take=take, load=load, begin=begin, end=end,
                store=store, stored=stored,
            )  # fmt: skip

    @contextmanager
    def _sharing_out(self) -> Iterator[SharedOut]:
        """Work that is shared out among the threads; on a device it is all in one stream."""
        shared = SharedOut(self._threads.submit if self.like is None else at_once)
        try:
            yield shared
        finally:
            shared.give_up()

    def _beside(self, job: Callable[[int], None]) -> Callable[[int], None]:
        """A job that on a device runs beside those of other threads, and is done when it returns."""

        @wraps(job)
        def run(k: int) -> None:
            with backend.stream_of_its_own(self.like):
                job(k)

        return run

    def _memory_of(self, size: int) -> Any:
        """Memory for what is at hand in a sweep; one piece serves them all."""
        most = self.plan.hand_bytes
        if size > most:
            raise MemoryError(f"a sweep takes {format_bytes(size)}, more than the {format_bytes(most)} foreseen for it")
        if len(self._memory) < most:
            self._memory = pages(most) if self.like is None else backend.namespace(self.like).empty(most, np.uint8)
        return self._memory

    def _jobs(self, link: Link, turn: Turn, window: Window) -> list[Callable[[], None]]:
        """What a link does to a slab, in pieces, when the ghost layers are there."""
        size, sums = self.system.grid.shape[0], isinstance(link, Sum | Size)
        width, parts = (self.plan.sum_rows, DEVICE_SUMS) if sums else (self.plan.rows, 1)
        work: Callable[[int, int], None]
        if isinstance(link, Advance):
            work = self._advance(link, turn, window)
        elif isinstance(link, Finish):
            work = partial(self._finish, link, window)
        elif isinstance(link, Sum):
            work = partial(self._sum, link, window)
        else:
            assert isinstance(link, Size)
            work = partial(self._size, link, window)
        return [
            partial(work, row + a, row + b)
            for row, lo, hi in domain_rows(turn.lo, turn.hi, size)
            for a, b in self._shares(hi - lo, width, parts)
        ]

    def _advance(self, link: Advance, turn: Turn, window: Window) -> Callable[[int, int], None]:
        """What an evaluation does to some rows of a slab; ghost layers are filled first."""
        rates, fields = self.context.rates, self.system.fields
        depth = self.operators.program.halo
        updates = tuple(Update(len(made.terms), margin=depth if made.stream or made.terms else 0) for made in link.made)
        kernel = self.operators.rate(updates)
        scales = [scale for made in link.made for scale in (*(c for _, c in made.terms), made.weight)]
        given = [(link.source, name) for name in fields]
        given += [(link.constants, name) for name in self.system.constants] if link.constants else []
        sources = {name: window.complete(s, name, turn, link.t) for s, name in given}

        def work(lo: int, hi: int) -> None:
            bases, out = {}, {}
            for m, made in enumerate(link.made):
                for name, rate in zip(fields, rates, strict=True):
                    for k, (stream, _) in enumerate(made.terms):
                        bases[f"base{m}_{k}_{rate}"] = window.at(stream, name, lo, hi)
                    if made.stream is not None:
                        out[f"target{m}_{rate}"] = window.at(made.stream, name, lo, hi)

            def keep(name: str, a: int, b: int, rows: Any) -> None:
                assert link.spectra is not None
                self.resident.put(name, lo + a, rows)
                window.at(link.spectra, name, lo + a, lo + b)[...] = rows[:, self.resident.columns :]

            stored = [made.stream is not None and made.stream.storage is not None for made in link.made]
            if not passes.advance(
                self.context, kernel, link.t, lo, hi, sources, self.workspace, bases=bases, scales=scales, out=out,
                rated=[made.rate for made in link.made], end=link.end, spectra=keep if link.spectra else None,
                checked={name for name in out if stored[update_of(name)]}, like=self.like,
            ):  # fmt: skip
                self.finite = False  # threads may only ever clear it

        return work

    def _finish(self, link: Finish, window: Window, lo: int, hi: int) -> None:
        update = Update(len(link.terms), margin=self.operators.program.halo)
        for name in self.system.fields:
            weight, spectrum = self.system.weights.get(name), self._spectrum(window, link.spectra, name, lo, hi)
            bases = {f"base0_{k}_{SUM}": window.at(stream, name, lo, hi) for k, (stream, _) in enumerate(link.terms)}
            passes.backward(
                self.context, name, self.operators.update(name, update), lo, hi, spectrum, bases,
                [c for _, c in link.terms],
                window.rows(link.constants, weight.field) if weight and link.constants else None,
                link.end, window.at(link.made, name, lo, hi),
            )  # fmt: skip

    def _spectrum(self, window: Window, stream: Stream, name: str, lo: int, hi: int) -> ArrayRows | GatheredRows:
        """Rows of a spectrum, to be used up."""
        streamed, size = window.at(stream, name, lo, hi), self.system.grid.shape[0]
        if not self.resident.columns:  # where they are at hand
            return ArrayRows(streamed, lo)

        def gather(a: int, b: int) -> Any:
            shape = (b - a, *self.system.transform.spectrum_shape[1:])
            whole = self.workspace.empty("spectrum", shape, streamed.dtype, streamed)
            self.resident.get(name, a % size, whole)
            whole[:, self.resident.columns :] = streamed[a - lo : b - lo]
            return whole

        return GatheredRows(gather)

    def _sum(self, link: Sum, window: Window, lo: int, hi: int) -> None:
        for name in self.system.fields:
            out = window.inner(link.made, name, lo, hi)
            tiles.add_up(((window.inner(stream, name, lo, hi), c) for stream, c in link.terms), out)
            halo.hold(out, lo, self.system.axes, link.end)
            if not tiles.finite(out):
                self.finite = False

    def _size(self, link: Size, window: Window, lo: int, hi: int) -> None:
        for name in self.system.fields:
            shape = (hi - lo, *self.system.grid.shape[1:])
            total = self.workspace.empty("error", shape, self.system.dtype, self.like)
            tiles.add_up(((window.inner(stream, name, lo, hi), c) for stream, c in link.terms), total)
            states = (window.inner(stream, name, lo, hi) for stream in link.states)
            link.sums[name, lo] = tiles.square_sums(total, states, link.atol, link.rtol)

    def _shares(self, size: int, width: int, parts: int = 1) -> list[tuple[int, int]]:
        """Ranges about as wide as each other: of at most `width`, as many for one thread as for another.

        On a device there are as many `parts`.
        """
        count = shares(size, width, self.plan.threads, self.plan.ahead) if self.like is None else min(size, parts)
        return list(itertools.pairwise(size * k // count for k in range(count + 1)))
