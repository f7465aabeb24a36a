"""Generated source, compiled once: by numba for the host, kept on disk, and by CuPy for a device."""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import pickle
import shutil
import sys
import tempfile
import threading
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import platformdirs

from voxdask import backend

#: What the type of an array's elements is called in C.
_REALS = {"f": "float", "d": "double"}

#: Held while a module is looked up or imported, and a failure counted.
_lock = threading.Lock()
#: How often numba could not read or write what it compiled of a source.
_failures: dict[str, int] = {}
_MOST_FAILURES = 2


def checked(name: str, array: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """The array, if compiled code may run over it; it has no bounds of its own."""
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{name!r} is {array.dtype}{list(array.shape)}; the kernel needs {dtype}{list(shape)}")
    if backend.is_device_array(array) and not array.flags.c_contiguous:
        raise ValueError(f"{name!r} is not C-contiguous, as an array on a device must be")
    return array


def load_host(source: str) -> ModuleType:
    """Import generated source from a file of its own, so that numba can cache what it compiles."""
    return _loaded(source)[0]


def run_host(source: str, name: str, *values: Any) -> None:
    """Call a function of generated source, whatever becomes of the cache of compiled code.

    Numba reads that before the function runs, and writes it, too. If it is damaged it is made anew; if that fails, as
    on a full disk, the source goes to a temporary directory.
    """
    while True:
        module, failures = _loaded(source)
        try:
            return getattr(module, name)(*values)  # type: ignore[no-any-return]
        except (EOFError, OSError, pickle.UnpicklingError):
            if failures == _MOST_FAILURES:
                raise
            folder = Path(str(module.__file__)).parent / "__pycache__"
            for file in folder.glob(f"kernel_{_digest(source)}*.nb*"):
                with suppress(OSError):
                    file.unlink()
            with _lock:
                _failures[source] = max(_failures.get(source, 0), failures + 1)  # other threads may have come further


def _loaded(source: str) -> tuple[ModuleType, int]:
    """The module of a source, and after how many failures; threads that come at once share it."""
    with _lock:
        failures = _failures.get(source, 0)
        return imported(source, failures), failures


@lru_cache(maxsize=512)
def imported(source: str, failures: int) -> ModuleType:
    """A module of generated source: the one to use after so many failures to keep what is compiled of it."""
    digest = _digest(source)
    name = f"kernel_{digest}.py"
    path = _write_once(temporary_directory(), name, source) if failures == _MOST_FAILURES else _stored(name, source)
    spec = importlib.util.spec_from_file_location(f"voxdask_kernel_{digest}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import the generated kernel {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # numba looks the module up by name when it reads its cache
    spec.loader.exec_module(module)
    return module


def _digest(source: str) -> str:
    return hashlib.sha256(f"{numba.__version__}\n{source}".encode()).hexdigest()[:24]


def _stored(name: str, text: str) -> Path:
    """A file with a text, in the user's cache, or in a temporary directory where that can't be written."""
    directory = Path(platformdirs.user_cache_dir("voxdask")) / "kernels"
    try:
        path = _write_once(directory, name, text)
        if os.access(directory, os.W_OK):  # numba writes beside it
            return path
    except OSError:
        pass
    return _write_once(temporary_directory(), name, text)


def _write_once(directory: Path, name: str, text: str) -> Path:
    """Write a file unless it is there and whole; many processes may do so at once."""
    path, data = directory / name, text.encode()
    if path.exists() and path.read_bytes() == data:
        return path
    directory.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=directory, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    return path


@lru_cache(maxsize=1)
def temporary_directory() -> Path:
    directory = tempfile.mkdtemp(prefix="voxdask-kernels-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return Path(directory)


@lru_cache(maxsize=512)
def load_device(source: str, dtype: str) -> Any:
    return backend.raw_module(f"typedef {_REALS[dtype]} real;\n{source}")
