"""Where a solve is done: here, or on a cluster."""

from __future__ import annotations

import math
import traceback
import uuid
from typing import Any

import dask.array as da
import numpy as np

from voxdask import backend
from voxdask.clients import active_client, within_task
from voxdask.transport import cluster
from voxdask.transport.actor import Done, Work
from voxdask.transport.device import ON_DEVICE, check_size, require_room
from voxdask.transport.job import Job
from voxdask.transport.options import arrays_for
from voxdask.transport.scan import Scan
from voxdask.transport.solver import Solver


def carry_out(scan: Scan, job: Job, work: Work, memory_limit: str | int | None, store: Any) -> tuple[Done, Any]:
    """Have a solver do its work, and give the field, if it is wanted, with the axes of the image.

    A lazy image with an active client goes to its cluster, unless this is called from a task there, or the job is for
    the GPU of this process. The field is lazy then, and where it lies in files; it is on a GPU where the image is.

    Raises
    ------
    MemoryError
        If not even four layers fit into the limit, or the GPU has no room for all.
    RuntimeError
        If the active Client has no workers, or they die in solve after solve.
    """
    lazy = isinstance(scan.image.data, da.Array)
    client = active_client() if lazy and not job.on_device and not within_task() else None
    if client is not None and cluster.is_worth_it(scan):
        return cluster.carry_out(client, scan, job, work, memory_limit, store)
    if job.on_device:
        return _on_device(scan, job, work, memory_limit, store)
    arrays, slabs = arrays_for(scan, job.phase.kind, job.dtype, memory_limit, store, fields=job.fields)
    medium, amount = job.medium(scan, arrays)
    domain = job.domain(medium, arrays, backend.cpu_count(), slabs)
    result, has_field = work(Solver.alone(domain))
    field: Any = scan.as_image(domain.field()) if has_field else None
    if has_field and arrays.spilled:
        field = da.from_array(_Mapped(field), name=f"concentration-{uuid.uuid4().hex}", asarray=False)
    return Done(result, amount, has_field), field


def _on_device(scan: Scan, job: Job, work: Work, memory_limit: str | int | None, store: Any) -> tuple[Done, Any]:
    """On the GPU of this process; what is set up on the host has no fields."""
    check_size(job.shape)
    # what it takes in all is known when graphs are made; not less than this
    require_room((np.dtype(job.phase.kind).itemsize + (job.fields + 1) * job.dtype.itemsize) * math.prod(job.shape))
    arrays, slabs = arrays_for(scan, job.phase.kind, job.dtype, memory_limit, store, fields=0)
    medium, amount = job.medium(scan, arrays)
    domain = ON_DEVICE[job.domain](medium, arrays, backend.cpu_count(), slabs, job.fields)
    del medium  # the host need not keep what lies on the device
    try:
        result, has_field = work(Solver.alone(domain))
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # a notebook keeps the last error, and what its frames hold
        del domain
        if not backend.is_out_of_memory(error):
            raise
        error.__traceback__ = None
        raise MemoryError(
            f"the GPU has no memory left for the solve: {error}; end what else uses it, raise the limit of CuPy's "
            'memory pool if it has one, or use device="cpu"'
        ) from None
    if not has_field:
        return Done(result, amount, has_field), None
    field = domain.field()
    return Done(result, amount, has_field), scan.as_image(
        field if backend.is_device_array(scan.image.data) else backend.to_host(field)
    )


class _Mapped:
    """An array in a file, which Dask would copy if it knew."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.array(self.array[index])
