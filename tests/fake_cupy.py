"""The few parts of CuPy that voxdask uses, on the host, so that what runs on a GPU can be tested without one.

An array here is none of NumPy's, and is refused wherever CuPy refuses to mix the two. Memory comes from a pool with a
limit. A copy between host and device happens when its stream is waited for, or goes on; until then its target holds
NaN, as all fresh memory does. Kernels are CUDA C, compiled for the host. Transforms lay out results as CuPy's do.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import cuda_shim
import numpy as np
import scipy.fft
from cuda_shim import HostModule
from numpy.lib.mixins import NDArrayOperatorsMixin


class OutOfMemoryError(MemoryError):
    """What CuPy raises."""

    def __init__(self, size: int, total: int, limit: int) -> None:
        super().__init__(f"Out of memory allocating {size:,} bytes (allocated so far: {total:,} bytes, {limit:,})")


class Pool:
    """Counts bytes, and how many there were at most; `limit` is that of the pool, `device` what the GPU has."""

    def __init__(self) -> None:
        self.used = self.peak = self.limit = 0
        self.device, self.lock, self.ranges = 1 << 33, threading.RLock(), dict[int, int]()

    def take(self, host: np.ndarray) -> None:
        most, size, start = self.limit or self.device, host.nbytes, host.ctypes.data
        with self.lock:
            if self.used + size > most:
                raise OutOfMemoryError(size, self.used, most)
            self.used += size
            self.peak = max(self.peak, self.used)
            self.ranges[start] = size
        weakref.finalize(host, self._give_back, start, size)

    def _give_back(self, start: int, size: int) -> None:
        with self.lock:
            self.used -= size
            self.ranges.pop(start, None)

    def holds(self, start: int, size: int) -> bool:
        """Whether bytes lie in one piece of the device's memory."""
        with self.lock:
            return any(at <= start and start + size <= at + n for at, n in self.ranges.items())

    def get_limit(self) -> int:
        return self.limit

    def set_limit(self, size: int = 0) -> None:
        self.limit = size

    def used_bytes(self) -> int:
        return self.used

    def total_bytes(self) -> int:
        return self.peak

    def free_bytes(self) -> int:
        return 0

    def free_all_blocks(self) -> None:
        self.peak = self.used


pool = Pool()
_current = threading.local()


class Stream:
    """Copies that are yet to be done, in their order."""

    everyone: ClassVar[weakref.WeakValueDictionary[int, Stream]] = weakref.WeakValueDictionary()

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.waiting: list[Callable[[], None]] = []
        self.ptr = id(self)
        self.everyone[self.ptr] = self

    def __enter__(self) -> Stream:
        _current.stack = [*getattr(_current, "stack", []), self]
        return self

    def __exit__(self, *exception: object) -> None:
        _current.stack = _current.stack[:-1]

    def synchronize(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()


_null = Stream()


def get_current_stream() -> Stream:
    stack = getattr(_current, "stack", [])
    return stack[-1] if stack else _null


class ndarray(NDArrayOperatorsMixin):  # noqa: N801
    """An array on the device; `host` is its memory."""

    def __init__(self, host: np.ndarray, base: ndarray | None = None) -> None:
        self.host, self.base = host, base
        if base is None:
            pool.take(host)

    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    nbytes = property(lambda self: self.host.nbytes)
    itemsize = property(lambda self: self.host.itemsize)
    strides = property(lambda self: self.host.strides)
    flags = property(lambda self: SimpleNamespace(c_contiguous=self.host.flags.c_contiguous))
    data = property(lambda self: SimpleNamespace(ptr=self.host.ctypes.data))
    real = property(lambda self: self._view(self.host.real))
    imag = property(lambda self: self._view(self.host.imag))

    def _view(self, host: np.ndarray) -> ndarray:
        return ndarray(host, self if self.base is None else self.base)

    def __array__(self, *options: Any, **more: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if method != "__call__":
            return NotImplemented
        with np.errstate(all="ignore"):
            if out is None:
                return _fresh(ufunc(*map(_host, inputs), **options))
            ufunc(*map(_host, inputs), out=tuple(map(_on_device, out)), **options)
        return out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        own = globals().get(function.__name__)
        return NotImplemented if own is None else own(*args, **options)

    def __getitem__(self, key: Any) -> ndarray:
        return self._view(np.asarray(self.host[key]))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.host[key] = _host(value)

    def __len__(self) -> int:
        return len(self.host)

    def __bool__(self) -> bool:
        return bool(_on_device(self))

    def __float__(self) -> float:
        return float(_on_device(self))

    def fill(self, value: float) -> None:
        self[...] = value

    def get(self) -> np.ndarray:
        return np.array(_on_device(ascontiguousarray(self)))

    def reshape(self, *shape: Any) -> ndarray:
        host = self.host.reshape(*shape)
        return self._view(host) if np.shares_memory(host, self.host) or not host.size else _fresh(host)

    def view(self, dtype: Any) -> ndarray:
        return self._view(self.host.view(dtype))

    def transpose(self, *axes: Any) -> ndarray:
        return self._view(self.host.transpose(*axes))

    def swapaxes(self, a: int, b: int) -> ndarray:
        return self._view(self.host.swapaxes(a, b))

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return self if self.dtype == dtype and not copy else _fresh(_on_device(self).astype(dtype))

    def copy(self, order: str = "C") -> ndarray:
        return _fresh(_on_device(self).copy(order))

    def __deepcopy__(self, memo: Any) -> ndarray:
        return self.copy()


def _reduction(name: str) -> Callable[..., Any]:
    def reduce(self: ndarray, *args: Any, **options: Any) -> ndarray:
        with np.errstate(all="ignore"):
            return _fresh(getattr(_on_device(self), name)(*args, **options))

    return reduce


for _name in ("sum", "max", "min", "all", "any"):
    setattr(ndarray, _name, _reduction(_name))


def _on_device(value: Any) -> np.ndarray:
    """The memory of an array on the device, once all that the stream of this thread has to do before is done."""
    if not isinstance(value, ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    get_current_stream().synchronize()
    return value.host


def _host(value: Any) -> Any:
    """The memory of an array on the device, or a number; CuPy refuses arrays of NumPy."""
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type {type(value)}")
    return _on_device(value) if isinstance(value, ndarray) else value


def _fresh(host: Any) -> ndarray:
    """An array of its own, as it may be freed."""
    return ndarray(np.array(host, order="K", copy=True))


def asarray(a: Any, dtype: Any = None) -> ndarray:
    if not isinstance(a, ndarray):
        return _fresh(np.asarray(a, dtype))
    return a if dtype is None or a.dtype == dtype else a.astype(dtype)


def array(a: Any, dtype: Any = None, order: str = "K") -> ndarray:
    return ndarray(np.array(a.host if isinstance(a, ndarray) else a, dtype, order=order))


def ascontiguousarray(a: Any, dtype: Any = None) -> ndarray:
    fits = isinstance(a, ndarray) and a.flags.c_contiguous and dtype in (None, a.dtype)
    return a if fits else ndarray(np.array(a.host if isinstance(a, ndarray) else a, dtype, order="C"))


def asnumpy(a: Any) -> np.ndarray:
    return a.get()


def empty(shape: Any, dtype: Any = float) -> ndarray:
    host = np.empty(shape, dtype)
    host.view(np.uint8).reshape(-1)[...] = 255  # NaN
    return ndarray(host)


def zeros(shape: Any, dtype: Any = float) -> ndarray:
    return ndarray(np.zeros(shape, dtype))


def zeros_like(a: ndarray) -> ndarray:
    return ndarray(np.zeros_like(_on_device(a)))


def concatenate(parts: Sequence[ndarray], axis: int = 0) -> ndarray:
    return _fresh(np.concatenate([_on_device(part) for part in parts], axis))


def stack(parts: Sequence[ndarray], axis: int = 0) -> ndarray:
    return _fresh(np.stack([_on_device(part) for part in parts], axis))


def moveaxis(a: ndarray, source: int, target: int) -> ndarray:
    return a._view(np.moveaxis(_on_device(a), source, target))


def abs(a: ndarray) -> ndarray:
    return _fresh(np.abs(_on_device(a)))


def isfinite(a: ndarray) -> ndarray:
    return _fresh(np.isfinite(_on_device(a)))


def nanmin(a: ndarray, axis: Any = None) -> ndarray:
    return _fresh(np.nanmin(_on_device(a), axis))


def maximum(a: Any, b: Any, out: ndarray | None = None) -> ndarray:
    return np.maximum(a, b, out=out)  # type: ignore[return-value]


def multiply(a: Any, b: Any, out: ndarray | None = None) -> ndarray:
    return np.multiply(a, b, out=out)  # type: ignore[return-value]


def get_default_memory_pool() -> Pool:
    return pool


def is_available() -> bool:
    return True


#: Where kernels are compiled, and those that are: they outlive a test.
folder = Path()
_modules: dict[tuple[str, ...], HostModule] = {}


class RawModule:
    """CUDA C, compiled for the host."""

    def __init__(self, code: str, options: Sequence[str] = ()) -> None:
        key = (code, *cuda_shim.contraction)
        if key not in _modules:
            _modules[key] = HostModule(code, folder)
        self.module = _modules[key]

    def get_function(self, name: str) -> Callable[..., None]:
        run = self.module.get_function(name)
        return lambda grid, block, values: run(grid, block, [_host(value) for value in values])


class _Runtime:
    memcpyHostToDevice, memcpyDeviceToHost = 1, 2  # noqa: N815

    def memGetInfo(self) -> tuple[int, int]:  # noqa: N802
        return pool.device - pool.used, pool.device

    def getDeviceProperties(self, device: int) -> dict[str, Any]:  # noqa: N802
        return {"name": b"none: CUDA C on the host"}

    def memcpy2DAsync(  # noqa: N802
        self, to: int, to_pitch: int, source: int, pitch: int, width: int, height: int, kind: int, stream: int
    ) -> None:
        there, at = (to, to_pitch) if kind == self.memcpyHostToDevice else (source, pitch)
        here, by = (source, pitch) if kind == self.memcpyHostToDevice else (to, to_pitch)
        assert pool.holds(there, (height - 1) * at + width), "not on the device"
        assert not pool.holds(here, (height - 1) * by + width), "not on the host"
        assert width <= min(pitch, to_pitch), "rows overlap"

        def copy() -> None:
            for k in range(height):
                ctypes.memmove(to + k * to_pitch, source + k * pitch, width)

        Stream.everyone[stream].waiting.append(copy)


runtime = _Runtime()
cuda = SimpleNamespace(
    Stream=Stream, get_current_stream=get_current_stream, runtime=runtime,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError), Device=lambda: SimpleNamespace(id=0),
)  # fmt: skip


def empty_pinned(shape: Any, dtype: Any = float) -> np.ndarray:
    host = np.empty(shape, dtype)
    host.view(np.uint8).reshape(-1)[...] = 255
    return host


# --- transforms as cupyx.scipy.fft of CuPy 14 has them ---------------------------------------------------------------


class _Plans(threading.local):
    """Those that a thread made last, each with a workspace as large as what it is given."""

    def __init__(self) -> None:
        self.workspaces: dict[Any, ndarray] = {}

    def use(self, key: Any, size: int) -> None:
        kept = self.workspaces.pop(key, None)
        self.workspaces[key] = empty(size, np.uint8) if kept is None else kept
        if len(self.workspaces) > 16:
            del self.workspaces[next(iter(self.workspaces))]


_plans = _Plans()


def _in_plan_of_one(a: ndarray, axis: int, make: Callable[[np.ndarray], np.ndarray]) -> ndarray:
    """Along the last axis, to where this one is swapped: the result is laid out so."""
    last = ascontiguousarray(a.swapaxes(axis, -1))
    return _fresh(make(_on_device(last))).swapaxes(axis, -1)


def _fourier(name: str) -> Callable[..., ndarray]:
    function, real = getattr(scipy.fft, name), "r" in name

    def transform(
        a: ndarray, s: Any = None, axes: Any = None, norm: str | None = None, overwrite_x: bool = False
    ) -> ndarray:
        # both ways of a complex transform have one plan
        kind = name if real else "complex"
        _plans.use((kind, a.shape, tuple(axes), a.dtype.char), a.nbytes)
        if len(axes) == 1:
            return _in_plan_of_one(a, axes[0], lambda u: function(u, s, (-1,), norm))
        block = ascontiguousarray(a)
        made = function(_on_device(block), s, axes, norm)
        if name == "irfftn" and overwrite_x:
            block.host[...] = np.nan
        if overwrite_x and not real:
            block.host[...] = made
            return block
        return ndarray(np.ascontiguousarray(made))

    return transform


def _one(name: str, many: str) -> Callable[..., ndarray]:
    def transform(
        a: ndarray, n: int | None = None, axis: int = -1, norm: str | None = None, overwrite_x: bool = False
    ) -> ndarray:
        return getattr(fft, many)(a, None if n is None else (n,), (axis,), norm, overwrite_x)  # type: ignore[no-any-return]

    return transform


def _cosine(name: str) -> Callable[..., ndarray]:
    function = getattr(scipy.fft, name)

    def transform(
        a: ndarray, type: int = 2, n: Any = None, axis: int = -1, norm: str | None = None, overwrite_x: bool = False
    ) -> ndarray:
        if a.dtype.kind == "c":
            return transform(a.real, type, n, axis, norm) + 1j * transform(a.imag, type, n, axis, norm)
        if type not in (2, 3):
            raise NotImplementedError("Only DCT-II and DCT-III have been implemented.")
        wide = np.result_type(a.dtype, np.complex64)
        made = _in_plan_of_one(a.astype(wide), axis, lambda u: function(u.real, type, n, -1, norm).astype(wide))
        return made.real if (type == 2) == (name[0] == "d") else _fresh(made.real.host)

    return transform


fft = SimpleNamespace(
    **{name: _fourier(name) for name in ("fftn", "ifftn", "rfftn", "irfftn")},
    **{name: _one(name, f"{name}n") for name in ("fft", "ifft", "rfft", "irfft")},
    **{name: _cosine(name) for name in ("dct", "idct", "dst", "idst")},
    config=SimpleNamespace(clear_plan_cache=lambda: _plans.workspaces.clear()),
)
