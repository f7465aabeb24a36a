"""Solves on a cluster: a domain on each worker, held by an actor, and one task that calls them all.

What two domains tell each other goes through that task. What is below their last level of graphs, a small part of the
whole, is put together and solved there.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from typing import Any

import dask.array as da
from distributed import Future, KilledWorker, wait
from distributed.client import FutureCancelledError

from voxdask.clients import WORKER_SHARE, workers_of
from voxdask.transport.actor import Done, Part, Work, WorkerLostError, call_parts, field_of
from voxdask.transport.job import Job
from voxdask.transport.scan import Scan
from voxdask.units import parse_bytes

#: An image of fewer voxels is solved here sooner than it is sent out.
LEAST_VOXELS = 1 << 21
#: Solves of one image, before losing a worker ends it.
_ATTEMPTS = 3
#: Seconds after which what has not returned is looked into, and after which there are no workers.
_PATIENCE, _STARTING = 1.0, 30.0


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
        If the client is asynchronous, there are no workers, or they die again and again.
    MemoryError
        If not even four layers for each thread of a worker fit into its share of the limit.
    """
    if client.asynchronous:
        raise RuntimeError("the active Client is asynchronous; a solve needs one that is not")
    limit = parse_bytes(memory_limit) if memory_limit is not None else None
    last: Exception | None = None
    for _ in range(_ATTEMPTS):
        try:
            return _attempt(client, scan, job, work, limit, store)
        except (WorkerLostError, KilledWorker, FutureCancelledError) as error:
            last = error
        if client.status != "running":
            raise RuntimeError("the Client was closed during the solve") from last
    raise RuntimeError(
        f"workers of the cluster died in each of {_ATTEMPTS} solves ({last}); their logs may say why: for want of "
        "memory, memory_limit helps"
    ) from last


def _attempt(
    client: Any, scan: Scan, job: Job, work: Work, limit: int | None, store: Any
) -> tuple[Done, da.Array | None]:
    workers = _workers_there(client)
    extents, tag = job.extents(len(workers)), uuid.uuid4().hex[:12]
    homes, held, fields = list(workers)[: len(extents)], list[Any](), list[Any]()
    try:
        for i, (extent, address) in enumerate(zip(extents, homes, strict=True)):
            image = scan.image.isel({scan.direction: job.rows(extent.known)}).data
            share = limit // len(extents) if limit else int(WORKER_SHARE * workers[address]["memory_limit"]) or None
            given = (share, store, len(extents))
            held.append(
                client.submit(
                    Part, job, extent, client.compute(image, workers=[address]), workers[address]["nthreads"], *given,
                    actor=True, key=f"voxdask-domain-{i}-{tag}", workers=[address],
                )
            )  # fmt: skip
        parts, key = list(held), f"voxdask-transport-{tag}"
        levels, around = job.levels(len(workers)), job.ends is None
        held.append(client.submit(call_parts, parts, homes, around, levels, work, key=key))
        done: Done = _result(client, held[-1], homes)
        for i, part in enumerate(parts if done.has_field else ()):  # one after the other, as each is a copy
            fields.append(client.submit(field_of, part, key=f"voxdask-concentration-{i}-{tag}"))
            for field in fields:
                _result(client, field, homes, gather=False)
    except BaseException:
        with contextlib.suppress(Exception):  # of a client that is closed
            client.cancel([*fields, *held], force=True)
        fields.clear()
        raise
    finally:  # an exception keeps this frame, which would keep what is on the cluster
        held.clear()
        parts = []
    if not done.has_field:
        return done, None
    blocks, axis = [], job.order[0]
    for field, extent in zip(fields, extents, strict=True):
        shape = list(job.grid.shape)
        shape[axis] = extent.own[1] - extent.own[0]
        blocks.append(da.from_delayed(field, shape, job.dtype))
    return done, da.concatenate(blocks, axis)


def _workers_there(client: Any) -> dict[str, Any]:
    """The workers by address; a cluster that starts them on demand, or again, is given the time."""
    if not workers_of(client):
        call = client.submit(int, key=f"voxdask-start-{uuid.uuid4().hex[:12]}")
        with contextlib.suppress(TimeoutError):
            wait([call], timeout=_STARTING)
    workers = workers_of(client)
    if not workers:
        raise RuntimeError("the active Client has no workers yet; wait for them: client.wait_for_workers(1)")
    return workers


def _result(client: Any, call: Future, homes: Sequence[str], gather: bool = True) -> Any:
    """What a call returns; WorkerLostError if a worker is gone, as what can only run there would wait forever."""
    while True:
        try:
            wait([call], timeout=_PATIENCE)
            break
        except TimeoutError:
            if gone := set(homes) - set(workers_of(client)):
                raise WorkerLostError(f"{gone.pop()} is gone") from None
    error = call.exception()
    if error is None:
        return call.result() if gather else None
    call.release()
    if type(error) is RuntimeError and "Actor was lost" in str(error):  # distributed has no type of its own for that
        raise WorkerLostError(str(error)) from error
    raise error
