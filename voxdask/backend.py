"""The array namespace of a chunk: NumPy, or CuPy where it is installed and the array is on a device."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

try:
    import cupy
    import cupyx
    import cupyx.scipy.fft as device_fft
except ImportError:  # the extra `gpu` is not installed
    cupy = cupyx = device_fft = None


def is_device_array(a: Any) -> bool:
    """Whether an array lies on a GPU."""
    return cupy is not None and isinstance(a, cupy.ndarray)


def namespace(a: Any) -> Any:
    """The module that made an array: :mod:`numpy` or :mod:`cupy`."""
    return cupy if is_device_array(a) else np


def device_fft_function(name: str) -> Callable[..., Any]:
    """CuPy's function of the ``scipy.fft`` interface, such as ``rfft``."""
    return getattr(device_fft, name)  # type: ignore[no-any-return]


def forget_transforms() -> None:
    """Give up the plans that CuPy keeps of this thread's transforms, each with a workspace on the device."""
    cupy.fft.config.clear_plan_cache()


def to_host(a: Any) -> np.ndarray:
    """A NumPy array with the same values, copied from the device where it lies there."""
    return cupy.asnumpy(a) if is_device_array(a) else np.asarray(a)


def require_device() -> None:
    """RuntimeError without CuPy or a GPU."""
    if cupy is None or not cupy.is_available():
        raise RuntimeError('device="gpu" needs a CUDA GPU and CuPy: python -m pip install "voxdask[gpu]"')


def to_device(a: Any) -> Any:
    """A CuPy array with the same values; itself if it is one."""
    return cupy.asarray(a)


def in_order(a: Any) -> Any:
    """An array that a kernel may run over: on a device in C order, which CuPy's transforms, say, do not keep."""
    return cupy.ascontiguousarray(a) if is_device_array(a) else a


def a_device_array() -> Any:
    """An empty array on the GPU, for others to be like."""
    return cupy.empty(0, np.float32)


def device_memory() -> int:
    """Bytes that may still be taken on the GPU: what is free there, or what the limit of CuPy's pool leaves."""
    pool, (free, _) = cupy.get_default_memory_pool(), cupy.cuda.runtime.memGetInfo()
    free += pool.free_bytes()
    limit = pool.get_limit()
    return int(min(free, limit - pool.used_bytes()) if limit else free)


def pinned(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Host memory that a GPU reads and writes at the speed of the bus."""
    array: np.ndarray = cupyx.empty_pinned(shape, dtype)
    return array


_streams = threading.local()


@contextmanager
def stream_of_its_own(like: Any) -> Iterator[None]:
    """Work within the block runs beside that of other threads on a device, and is done at its end."""
    if not is_device_array(like):
        yield
        return
    if not hasattr(_streams, "own"):  # one for each thread: CuPy's pool keeps what was freed for the stream it was for
        _streams.own = cupy.cuda.Stream(non_blocking=True)
    with _streams.own as stream:
        try:
            yield
        finally:  # whoever caught an error may give up memory that is still written to
            stream.synchronize()


def transfer(source: Any, target: Any) -> None:
    """Copy from host or device to either; rows along the first axis may lie apart, each of them in one piece.

    Between host and device, the copy is done when the stream of this thread is.
    """
    if is_device_array(source) == is_device_array(target):
        target[...] = source
        return
    rows = len(target) if target.ndim > 1 else 1
    if not target.size:
        return
    width = target.nbytes // rows
    pitches = [a.strides[0] if a.ndim > 1 and len(a) > 1 else width for a in (target, source)]
    pointers = [a.data.ptr if is_device_array(a) else a.ctypes.data for a in (target, source)]
    runtime = cupy.cuda.runtime
    kind = runtime.memcpyHostToDevice if is_device_array(target) else runtime.memcpyDeviceToHost
    stream = cupy.cuda.get_current_stream().ptr
    runtime.memcpy2DAsync(pointers[0], pitches[0], pointers[1], pitches[1], width, rows, kind, stream)


def finish_transfers() -> None:
    """Return once all that this thread has given to the device is done."""
    cupy.cuda.get_current_stream().synchronize()


#: CUDA's largest number of thread blocks along y and z.
MOST_BLOCKS = 65535
#: What CUDA and cuFFT call it, when the pool of CuPy is not the one that found out.
_NO_MEMORY = ("cudaErrorMemoryAllocation", "CUFFT_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the GPU has no memory left."""
    if cupy is None:
        return False
    return isinstance(error, cupy.cuda.memory.OutOfMemoryError) or any(name in str(error) for name in _NO_MEMORY)


def raw_module(source: str) -> Any:
    """Compiled CUDA C; raises RuntimeError without CuPy."""
    if cupy is None:
        raise RuntimeError('CUDA kernels need CuPy: python -m pip install "voxdask[gpu]"')
    return cupy.RawModule(code=source, options=("--std=c++14",))


def launch(function: Any, extent: tuple[int, ...], values: tuple[Any, ...]) -> None:
    """Run a device function with about one thread for each voxel, the last axis fastest."""
    if 0 in extent:
        return
    threads = (256,) if len(extent) == 1 else (64, 4, 1)[: len(extent)]
    blocks = [-(-n // t) for n, t in zip(reversed(extent), threads, strict=True)]
    function((blocks[0], *(min(n, MOST_BLOCKS) for n in blocks[1:])), threads, values)


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
