"""Libraries that transform arrays, by name: each by way of the interface of :mod:`scipy.fft`."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.fft

from voxdask import backend

#: By name, the module and what to install.
_LIBRARIES = {
    "scipy": ("scipy.fft", "scipy"),
    "pyfftw": ("pyfftw.interfaces.scipy_fft", "pyfftw"),
    "mkl_fft": ("mkl_fft.interfaces.scipy_fft", "mkl_fft mkl-service"),
}

_FOURIER, _REAL = ("fft", "ifft", "rfft", "irfft"), ("dct", "idct", "dst", "idst")
#: Threads that import pyFFTW at once find it half made.
_one_at_a_time = threading.Lock()


def check_fft(name: str) -> str:
    """The name of a library of transforms, if it is one that can be loaded and used.

    Raises
    ------
    ValueError
        If no library has that name.
    ModuleNotFoundError
        If it is not installed; the message says what to install.
    RuntimeError
        If it cannot work beside what this process has loaded; the message says what to do.
    """
    if not isinstance(name, str) or name not in _LIBRARIES:
        raise ValueError(f"fft is {name!r}; use one of {', '.join(map(repr, _LIBRARIES))}")
    try:
        with _one_at_a_time:
            _library(name)
    except ImportError as error:
        package = _LIBRARIES[name][1]
        raise ModuleNotFoundError(f"fft={name!r} needs a package: python -m pip install {package} ({error})") from error
    return name


def fft_function(a: Any, name: str, library: str = "scipy") -> Callable[..., Any]:
    """A function of the ``scipy.fft`` interface, such as ``rfft``, for an array: on a device CuPy's."""
    if backend.is_device_array(a):
        return backend.device_fft_function(name)
    return getattr(_library(library), name, None) or getattr(scipy.fft, name)  # type: ignore[no-any-return]


@lru_cache
def _library(name: str) -> Any:
    """A library of transforms, set so that the threads that call it are all that there are."""
    if name == "mkl_fft":
        with suppress(ImportError):  # MKL has functions of the same names, which pyFFTW would call if it came later
            importlib.import_module("pyfftw")
    module = importlib.import_module(_LIBRARIES[name][0])
    if name == "pyfftw":
        return _pyfftw(module)
    if name == "mkl_fft":
        importlib.import_module("mkl").domain_set_num_threads(1, domain="fft")
        return SimpleNamespace(**{each: _laid_out(getattr(module, each)) for each in _FOURIER})
    return module


def _pyfftw(module: Any) -> SimpleNamespace:
    """pyFFTW's transforms, if it can plan one."""
    cache = importlib.import_module("pyfftw.interfaces.cache")
    cache.enable()  # it plans anew at each call unless plans are kept
    cache.set_keepalive_time(60)
    try:
        module.fft(np.zeros((3, 8, 4), complex), axis=1)
    except RuntimeError as error:
        raise RuntimeError(
            "fft='pyfftw' cannot plan a transform here: MKL, which was loaded before, has functions of the same names; "
            "import pyfftw first in this process, or use fft='mkl_fft'"
        ) from error
    real = {each: _of_real(getattr(module, each), each) for each in _REAL}
    return SimpleNamespace(**{each: getattr(module, each) for each in _FOURIER}, **real)


def _of_real(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A transform that is the library's for real arrays, and SciPy's for complex ones, which it does not take."""
    return lambda a, **options: (getattr(scipy.fft, name) if np.iscomplexobj(a) else function)(a, **options)


def _laid_out(function: Callable[..., Any]) -> Callable[..., Any]:
    """A transform whose calls of MKL take all lines along the first axis or the last of a whole array.

    Along an axis between others, or of an array with gaps, MKL goes line by line, which takes two to ten times as long.
    """

    def transform(a: Any, *, axis: int, overwrite_x: bool = False, **options: Any) -> Any:
        if axis in (0, a.ndim - 1):
            return function(np.ascontiguousarray(a), axis=axis, overwrite_x=overwrite_x, **options)
        made = None
        for k, plane in enumerate(a):
            result = transform(plane, axis=axis - 1, overwrite_x=overwrite_x, **options)
            if made is None:  # where the caller's array may take what is made of it, it does
                same = overwrite_x and (result.shape, result.dtype) == (plane.shape, a.dtype)
                made = a if same else np.empty((len(a), *result.shape), result.dtype)
            made[k] = result
        return made

    return transform
