"""Steady flow on the workers of a cluster: a domain on each, held by an actor, and one task that calls them all.

What two domains tell each other goes through that task. What is below their last level of graphs, a small part of the
whole, is put together and solved there.
"""

from __future__ import annotations

import contextlib
import uuid
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from distributed import KilledWorker, get_client, get_worker, wait
from distributed.client import FutureCancelledError

from voxdask import backend
from voxdask.clients import free_memory
from voxdask.grid import Grid
from voxdask.report import PeakMemory
from voxdask.transport.domain import Domain, Extent
from voxdask.transport.options import arrays_for
from voxdask.transport.parallel import even
from voxdask.transport.phases import Phase
from voxdask.transport.scan import Scan, medium_of
from voxdask.transport.solver import Solver, Steady
from voxdask.transport.team import Team
from voxdask.units import parse_bytes

#: An image of fewer voxels is solved here sooner than it is sent out.
LEAST_VOXELS = 1 << 21
#: Layers beyond its own that a domain reads: its neighbour's first blocks, and what tells how those are cut.
_GHOSTS = 4
#: Solves of one image, before losing a worker ends it.
_ATTEMPTS = 3
#: Seconds after which a call that has not returned is looked into.
_PATIENCE = 1.0
#: The share of a worker's memory that a solve may take; above it, the worker would begin to write to disk.
_SHARE = 0.6


@dataclass(frozen=True)
class Job:
    """What workers need to know of a solve; see :class:`~voxdask.transport.passage.Passage`.

    Attributes
    ----------
    grid, order
        Of the image's :class:`~voxdask.transport.scan.Scan`.
    phase : Phase
    dtype : dtype
    periodic : bool
    ends : str
    """

    grid: Grid
    order: tuple[int, ...]
    phase: Phase
    dtype: np.dtype
    periodic: bool
    ends: str

    @property
    def skipped(self) -> int:
        """Layers at each end of the image that are held, and no part of the medium."""
        return 1 if self.ends == "centre" else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the medium."""
        n0, n1, n2 = self.scan(None).shape
        return n0 - 2 * self.skipped, n1, n2

    def scan(self, block: np.ndarray | None) -> Scan:
        """Of some layers of the image."""
        if block is None:
            return Scan(None, self.grid, self.order)  # type: ignore[arg-type]
        return Scan(xr.DataArray(block, dims=self.grid.dims), replace(self.grid, shape=block.shape), self.order)

    def extents(self, workers: int) -> list[Extent]:
        """Domains for so many workers, or fewer; their bounds are those of blocks of two or more levels."""
        shape = n0, _, _ = self.shape
        own = even(n0, min(workers, n0 // (2 * self.blocks(workers))), self.blocks(workers))
        return [Extent(shape, (a, b), (max(a - _GHOSTS, 0), min(b + _GHOSTS, n0))) for a, b in own]

    def levels(self, workers: int) -> int:
        """Levels of graphs whose blocks are within domains."""
        return self.blocks(workers).bit_length() - 1

    def blocks(self, workers: int) -> int:
        """Layers of the largest blocks that domains are made of."""
        return 8 if self.shape[0] >= 32 * workers else 4

    def rows(self, layers: tuple[int, int]) -> slice:
        """Layers of the image for those of the medium, with an end that is beside them."""
        (lo, hi), n0, s = layers, self.shape[0], self.skipped
        return slice(lo + s if lo else 0, hi + s if hi < n0 else n0 + 2 * s)


@dataclass(frozen=True)
class Found:
    """What workers found: as :class:`~voxdask.transport.passage.Passed`, `percolating` in voxels, a field of Dask."""

    steady: Steady
    amount: float
    percolating: float
    share: np.ndarray
    field: da.Array
    peak_memory: int


class WorkerLostError(RuntimeError):
    """A worker died that had a part of the image."""


def is_worth_it(scan: Scan, ends: str) -> bool:
    """Whether an image is large enough for domains."""
    return scan.grid.size >= LEAST_VOXELS and scan.shape[0] >= 16


def solve(
    client: Any, scan: Scan, job: Job, tolerance: float, iterations: int, memory_limit: str | int | None, store: Any
) -> Found:
    """Solve on all workers; begun anew on those that are left if one dies.

    Raises
    ------
    RuntimeError
        If there are no workers, or they die again and again.
    MemoryError
        If not even four layers for each thread of a worker fit into its share of the limit.
    """
    limit = parse_bytes(memory_limit) if memory_limit is not None else None
    for attempt in range(_ATTEMPTS):
        try:
            return _attempt(client, scan, job, tolerance, iterations, limit, store)
        except (WorkerLostError, KilledWorker, FutureCancelledError) as error:
            if attempt == _ATTEMPTS - 1:
                raise RuntimeError(
                    f"workers of the cluster died in each of {_ATTEMPTS} solves ({error}); their logs may say why: "
                    "for want of memory, memory_limit helps"
                ) from error
    raise AssertionError


def _attempt(
    client: Any, scan: Scan, job: Job, tolerance: float, iterations: int, limit: int | None, store: Any
) -> Found:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise RuntimeError("the active Client has no workers yet; wait for them: client.wait_for_workers(1)")
    extents, tag, parts = job.extents(len(workers)), uuid.uuid4().hex[:12], list[Any]()
    try:
        for i, (extent, (address, worker)) in enumerate(zip(extents, workers.items(), strict=False)):
            there: dict[str, Any] = {"workers": [address], "allow_other_workers": True}
            image = scan.image.isel({scan.direction: job.rows(extent.known)}).data
            share = limit // len(extents) if limit else int(_SHARE * worker["memory_limit"]) or None
            given = (job, extent, client.compute(image, **there), worker["nthreads"], share, store, len(extents))
            parts.append(client.submit(Part, *given, actor=True, key=f"voxdask-domain-{i}-{tag}", **there))
            del given
        levels, key = job.levels(len(workers)), f"voxdask-transport-{tag}"
        found = _result(client.submit(_solve, parts, levels, tolerance, iterations, key=key))
        fields = []
        for i, part in enumerate(parts if found.percolating else ()):
            fields.append(client.submit(_field_of, part, key=f"voxdask-concentration-{i}-{tag}"))
            wait(fields)  # one after the other, as each is a copy
            if fields[-1].status != "finished":
                raise WorkerLostError("a worker died that had a part of the field")
    finally:
        parts.clear()  # an exception keeps this frame, which would keep what is on the cluster
    blocks, axis = [], job.order[0]
    for i, extent in enumerate(extents):
        shape = list(job.grid.shape)
        shape[axis] = extent.own[1] - extent.own[0]
        blocks.append(
            da.from_delayed(fields[i], shape, job.dtype) if fields else da.full(shape, np.nan, dtype=job.dtype)
        )
    return replace(found, field=da.concatenate(blocks, axis))


def _result(call: Any) -> Found:
    """What a call returns; what it raises, let go of on the cluster."""
    error = call.exception()
    if error is None:
        found: Found = call.result()
        return found
    call.release()
    if type(error) is RuntimeError and "Actor was lost" in str(error):
        raise WorkerLostError(str(error)) from error
    raise error


class Part:
    """A domain on a worker.

    Parameters
    ----------
    job : Job
    extent : Extent
    block : ndarray
        The layers of the image that it knows.
    threads : int
    limit : int, optional
        Bytes beyond which arrays go to files; by default the domain's share of what is free.
    store : path, optional
        Folder for these; by default the worker's own.
    domains : int
    """

    def __init__(
        self, job: Job, extent: Extent, block: Any, threads: int, limit: int | None, store: Any, domains: int
    ) -> None:
        self._memory, self._session = PeakMemory(), ""
        self._memory.__enter__()
        self._watched = weakref.finalize(self, self._memory.__exit__)
        block = backend.to_host(block)
        self.scan = job.scan(block)
        kind = job.phase.kind
        arrays, slabs = arrays_for(
            self.scan, kind, job.dtype, limit or free_memory() // domains, store or get_worker().local_directory,
            threads=threads,
        )  # fmt: skip
        at = extent.known[0] == 0, extent.known[1] == job.shape[0]
        medium, _ = medium_of(
            self.scan, job.phase.read, kind, arrays, job.dtype, periodic=(False, job.periodic, job.periodic),
            ends=job.ends, at=at,
        )  # fmt: skip
        known, own = job.rows(extent.known), job.rows(extent.own)
        mine = (slice(None),) * job.order[0] + (slice(own.start - known.start, own.stop - known.start),)
        self._amount = job.phase.read(block[mine])[1]
        self.domain: Domain | None = Domain(medium, arrays, threads, slabs, extent)

    def begin(self, session: str) -> tuple[float, str]:
        """Be of one solve from now on; how much conducts in the own layers, and the address of the worker.

        Raises
        ------
        WorkerLostError
            If it was of another.
        """
        if self._session:
            raise WorkerLostError("a solve lost the worker that it was called from")
        self._session = session
        return self._amount, get_worker().address

    def call(self, session: str, step: str, args: Sequence[Any]) -> Any:
        """A method of the domain; what it raises is returned, to be told from what a lost worker raises."""
        if session != self._session:  # made anew, where a worker died
            return WorkerLostError("a worker died that had a part of the image")
        try:
            return getattr(self.domain, step)(*args)
        except Exception as error:
            return error

    def take_field(self) -> np.ndarray:
        """The own layers of the field, with the axes of the image; the domain is let go.

        Raises
        ------
        WorkerLostError
            If there is none.
        """
        if not self._session or self.domain is None:
            raise WorkerLostError("a worker died that had a part of the field; solve again")
        field = self.scan.as_image(self.domain.field())
        self.end()
        return field

    def end(self) -> int:
        """Let go of the domain, as proxies of this actor live on until they are collected; its peak of memory."""
        self._watched()
        self.domain = None
        return self._memory.above_base

    def peak(self) -> int:
        """The most resident bytes above those at the start."""
        return self._memory.above_base


class _Workers(Team):
    """Parts, each on its worker."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts, self.size, self.session = parts, len(parts), uuid.uuid4().hex
        self.homes: Sequence[str] = ()
        begun = self.results([part.begin(self.session) for part in parts])
        self.amount = sum(amount for amount, _ in begun)
        self.homes = [home for _, home in begun]

    def call(self, step: str, each: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See :class:`~voxdask.transport.team.Team`."""
        calls = [part.call(self.session, step, args) for part, args in zip(self.parts, each, strict=True)]
        results = self.results(calls)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return results

    def results(self, calls: Sequence[Any]) -> list[Any]:
        """What calls of parts return; WorkerLostError if one of them is gone."""
        try:
            return [self._wait(call) for call in calls]
        except (OSError, RuntimeError) as error:
            raise WorkerLostError(f"a worker died that had a part of the image ({error})") from error

    def _wait(self, call: Any) -> Any:
        """What a call returns; of an actor whose worker dies it may never do."""
        while True:
            try:
                return call.result(timeout=_PATIENCE)
            except TimeoutError:
                client = get_client()
                found = client.sync(client.scheduler.who_has, keys=[part.key for part in self.parts])
                for part, home in zip(self.parts, self.homes, strict=False):
                    if home not in found.get(part.key, ()):  # others may have proxies
                        raise WorkerLostError(f"{home} is gone") from None


def _solve(parts: Sequence[Any], levels: int, tolerance: float, iterations: int) -> Found:
    """Call the parts of an image; runs on a worker."""
    team = _Workers(parts)
    passes = False
    try:
        solver = Solver(team, levels)
        steady = solver.flow_through(tolerance, iterations)
        passes = solver.percolating > 0
        share = np.concatenate(team.all("mask_field")) if passes else np.zeros(len(steady.layers.within))
        peak = max(team.results([part.peak() for part in parts]))
    finally:
        if not passes:
            with contextlib.suppress(RuntimeError):  # of parts that are lost
                for part in parts:
                    part.end()
    return Found(steady, team.amount, solver.percolating, share, da.zeros(0), peak)


def _field_of(part: Any) -> np.ndarray:
    field: np.ndarray = part.take_field().result()
    return field
