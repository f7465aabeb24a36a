"""A domain on a worker of a cluster, held by an actor; and the task that calls all of them."""

from __future__ import annotations

import contextlib
import uuid
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from distributed import get_client, get_worker

from voxdask import backend
from voxdask.clients import free_memory
from voxdask.report import PeakMemory
from voxdask.transport.domain import Domain, Extent
from voxdask.transport.job import Job
from voxdask.transport.options import arrays_for
from voxdask.transport.solver import Solver
from voxdask.transport.team import Team

#: What a solver is to do: its result, and whether the field is wanted.
Work = Callable[[Solver], tuple[Any, bool]]

#: Voxels that are counted at once.
_READ = 1 << 22
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
        self.domain: Domain | None = None
        self._memory, self._session = PeakMemory(), ""
        self._memory.__enter__()
        self._watched = weakref.finalize(self, self._memory.__exit__)
        block = backend.to_host(block)
        scan, self.job = job.scan(block), job
        arrays, slabs = arrays_for(
            scan, job.phase.kind, job.dtype, limit or free_memory() // domains,
            store or get_worker().local_directory, fields=job.fields, threads=threads,
        )  # fmt: skip
        medium, _ = job.medium(scan, arrays, extent.known)
        mine = block[(slice(None),) * job.order[0] + (job.own_rows(extent),)]
        rows = max(1, _READ // max(1, mine[0].size))
        self._amount = sum(job.phase.read(mine[lo : lo + rows])[1] for lo in range(0, len(mine), rows))
        self._made = medium, arrays, threads, slabs, extent

    def begin(self, session: str) -> Any:
        """Make the domain, now that the image is let go of, for one solve; how much conducts in the own layers.

        Raises
        ------
        WorkerLostError
            If there was another one.
        """
        if self._session:
            raise WorkerLostError("a solve lost the worker that it was called from")
        self._session = session
        self.domain = self.job.domain(*self._made)
        del self._made
        return self._amount

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
        field: np.ndarray = self.job.scan(None).as_image(self.domain.field())
        self.end()
        return field

    def end(self) -> None:
        """Let go of the domain, as proxies of this actor live on until they are collected."""
        self._watched()
        self.domain = None

    def peak(self) -> int:
        """The most resident bytes above those at the start."""
        return self._memory.above_base


class _Workers(Team):
    """Parts, each on its worker."""

    def __init__(self, parts: Sequence[Any], homes: Sequence[str], periodic: bool) -> None:
        self.parts, self.homes, self.size, self.session = parts, homes, len(parts), uuid.uuid4().hex
        self.periodic = periodic
        self.amount = sum(self.results([part.begin(self.session) for part in parts]))

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
                for part, home in zip(self.parts, self.homes, strict=True):
                    if home not in found.get(part.key, ()):  # others may have proxies
                        raise WorkerLostError(f"{home} is gone") from None


def call_parts(parts: Sequence[Any], homes: Sequence[str], periodic: bool, levels: int, work: Work) -> Done:
    """Have the parts of an image, which are at some addresses, do what a solver is to do; runs on a worker."""
    has_field = False
    try:
        team = _Workers(parts, homes, periodic)
        result, has_field = work(Solver(team, levels))
        return Done(result, team.amount, has_field, max(team.results([part.peak() for part in parts])))
    finally:
        if not has_field:
            with contextlib.suppress(RuntimeError):  # of parts that are lost
                for part in parts:
                    part.end()


def field_of(part: Any) -> np.ndarray:
    """See :meth:`Part.take_field`."""
    field: np.ndarray = part.take_field().result()
    return field
