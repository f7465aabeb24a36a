"""The array namespace of a chunk: NumPy, or CuPy where it is installed and the array is on a device."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import scipy.fft

try:
    import cupy
except ImportError:  # the extra `gpu` is not installed
    cupy = None


def is_device_array(a: Any) -> bool:
    """Whether an array lies on a GPU."""
    return cupy is not None and isinstance(a, cupy.ndarray)


def namespace(a: Any) -> Any:
    """The module that made an array: :mod:`numpy` or :mod:`cupy`."""
    return cupy if is_device_array(a) else np


def fft_module(a: Any) -> Any:
    """The ``scipy.fft`` interface for an array."""
    if is_device_array(a):
        import cupyx.scipy.fft

        return cupyx.scipy.fft
    return scipy.fft


def to_host(a: Any) -> np.ndarray:
    """A NumPy array with the same values, copied from the device where it lies there."""
    return cupy.asnumpy(a) if is_device_array(a) else np.asarray(a)


def to_device(a: Any) -> Any:
    """A CuPy array with the same values; raises RuntimeError without CuPy or a GPU."""
    if cupy is None or not cupy.is_available():
        raise RuntimeError('device="gpu" needs a CUDA GPU and CuPy: python -m pip install "voxdask[gpu]"')
    return cupy.asarray(a)


def raw_module(source: str) -> Any:
    """Compiled CUDA C; raises RuntimeError without CuPy."""
    if cupy is None:
        raise RuntimeError('CUDA kernels need CuPy: python -m pip install "voxdask[gpu]"')
    return cupy.RawModule(code=source, options=("--std=c++14",))


def cpu_count() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
