"""Solves on the workers of a cluster: a domain on each, held by an actor, and one task that calls them all.

What two domains tell each other goes through that task. What is below their last level of graphs, a small part of the
whole, is put together and solved there.
"""

from __future__ import annotations

import contextlib
import uuid
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import dask.array as da
import numpy as np
from distributed import KilledWorker, get_client, get_worker, wait
from distributed.client import FutureCancelledError

from voxdask import backend
from voxdask.clients import WORKER_SHARE, free_memory
from voxdask.report import PeakMemory
from voxdask.transport.domain import Domain, Extent
from voxdask.transport.job import Job
from voxdask.transport.options import arrays_for
from voxdask.transport.scan import Scan
from voxdask.transport.solver import Solver
from voxdask.transport.team import Team
from voxdask.units import parse_bytes

#: What a solver is to do: its result, and whether the field is wanted.
Work = Callable[[Solver], tuple[Any, bool]]

#: An image of fewer voxels is solved here sooner than it is sent out.
LEAST_VOXELS = 1 << 21
#: Solves of one image, before losing a worker ends it.
_ATTEMPTS = 3
#: Seconds after which a call that has not returned is looked into.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Done:
    """What came of it.

    Attributes
    ----------
    result : Any
        Of the work.
    amount : Any
        Of what conducts, in voxels, as the phase tells it.
    has_field : bool
    peak_memory : int
        The most resident bytes above those at the start, of any worker; 0 where there are none.
    """

    result: Any
    amount: Any
    has_field: bool
    peak_memory: int = 0


class WorkerLostError(RuntimeError):
    """A worker died that had a part of the image."""


def is_worth_it(scan: Scan) -> bool:
    """Whether an image is large enough for domains."""
    return scan.grid.size >= LEAST_VOXELS and scan.shape[0] >= 18


def carry_out(
    client: Any, scan: Scan, job: Job, work: Work, memory_limit: str | int | None, store: Any
) -> tuple[Done, da.Array | None]:
    """Have all workers do what a solver is to do; begun anew on those that are left if one dies.

    Raises
    ------
    RuntimeError
        If there are no workers, or they die again and again.
    MemoryError
        If not even four layers for each thread of a worker fit into its share of the limit.
    """
    limit = parse_bytes(memory_limit) if memory_limit is not None else None
    last: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            return _attempt(client, scan, job, work, limit, store)
        except (WorkerLostError, KilledWorker, FutureCancelledError) as error:
            last = error
    raise RuntimeError(
        f"workers of the cluster died in each of {_ATTEMPTS} solves ({last}); their logs may say why: for want of "
        "memory, memory_limit helps"
    ) from last


def _attempt(
    client: Any, scan: Scan, job: Job, work: Work, limit: int | None, store: Any
) -> tuple[Done, da.Array | None]:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    if not workers:
        raise RuntimeError("the active Client has no workers yet; wait for them: client.wait_for_workers(1)")
    extents, tag, parts = job.extents(len(workers)), uuid.uuid4().hex[:12], list[Any]()
    try:
        for i, (extent, (address, worker)) in enumerate(zip(extents, workers.items(), strict=False)):
            there: dict[str, Any] = {"workers": [address], "allow_other_workers": True}
            image = scan.image.isel({scan.direction: job.rows(extent.known)}).data
            share = limit // len(extents) if limit else int(WORKER_SHARE * worker["memory_limit"]) or None
            given = (job, extent, client.compute(image, **there), worker["nthreads"], share, store, len(extents))
            parts.append(client.submit(Part, *given, actor=True, key=f"voxdask-domain-{i}-{tag}", **there))
            del given
        done = _result(client.submit(_call, parts, job.levels(len(workers)), work, key=f"voxdask-transport-{tag}"))
        if not done.has_field:
            return done, None
        fields = []
        for i, part in enumerate(parts):
            fields.append(client.submit(_field_of, part, key=f"voxdask-concentration-{i}-{tag}"))
            wait(fields)  # one after the other, as each is a copy
            if fields[-1].status != "finished":
                raise WorkerLostError("a worker died that had a part of the field")
    finally:
        parts.clear()  # an exception keeps this frame, which would keep what is on the cluster
    blocks, axis = [], job.order[0]
    for field, extent in zip(fields, extents, strict=True):
        shape = list(job.grid.shape)
        shape[axis] = extent.own[1] - extent.own[0]
        blocks.append(da.from_delayed(field, shape, job.dtype))
    return done, da.concatenate(blocks, axis)


def _result(call: Any) -> Done:
    """What a call returns; what it raises, let go of on the cluster."""
    error = call.exception()
    if error is None:
        done: Done = call.result()
        return done
    call.release()
    if type(error) is RuntimeError and "Actor was lost" in str(error):  # distributed has no type of its own for that
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
        scan, self.job = job.scan(block), job
        arrays, slabs = arrays_for(
            scan, job.phase.kind, job.dtype, limit or free_memory() // domains,
            store or get_worker().local_directory, fields=job.fields, threads=threads,
        )  # fmt: skip
        medium, _ = job.medium(scan, arrays, extent.known[0] == 0, extent.known[1] == job.shape[0])
        known, own = job.rows(extent.known), job.rows(extent.own)
        mine = (slice(None),) * job.order[0] + (slice(own.start - known.start, own.stop - known.start),)
        self._amount = job.phase.read(block[mine])[1]
        self.domain: Domain | None = job.domain(medium, arrays, threads, slabs, extent)

    def begin(self, session: str) -> tuple[Any, str]:
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
        field = self.job.scan(None).as_image(self.domain.field())
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


def _call(parts: Sequence[Any], levels: int, work: Work) -> Done:
    """Call the parts of an image; runs on a worker."""
    team, has_field = _Workers(parts), False
    try:
        result, has_field = work(Solver(team, levels))
        return Done(result, team.amount, has_field, max(team.results([part.peak() for part in parts])))
    finally:
        if not has_field:
            with contextlib.suppress(RuntimeError):  # of parts that are lost
                for part in parts:
                    part.end()


def _field_of(part: Any) -> np.ndarray:
    field: np.ndarray = part.take_field().result()
    return field
