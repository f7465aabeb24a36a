"""What callers of public functions may ask for: checked, and turned into where arrays go."""

from __future__ import annotations

import math
import numbers
import os
import tempfile
import warnings
from typing import Any

import numpy as np

from voxdask import backend
from voxdask.clients import free_memory
from voxdask.transport.arrays import Arrays
from voxdask.transport.scan import Scan
from voxdask.units import format_bytes, parse_bytes

#: Edges of a node of the graph, and all levels of it over the first, of a medium that conducts everywhere.
_EDGES, _LEVELS = 6.5, 8 / 7
#: The share of the limit that slabs of a solve from files may have at hand.
_AT_HAND = 0.25
#: Voxel sizes further apart than this are worth a warning.
_ANISOTROPY = 10.0


def bytes_per_voxel(kind: np.dtype, dtype: np.dtype, fields: int) -> float:
    """What a solve takes at most: what conducts, pieces of blocks and their first nodes, fields, and the graphs."""
    node = 8 + _EDGES * (4 + dtype.itemsize) + 7 * dtype.itemsize + 6 + 4 + 20  # pointer, edges, vectors, place, parent
    return kind.itemsize + 1.75 + fields * dtype.itemsize + node / 8 * _LEVELS


def arrays_for(
    scan: Scan, kind: Any, dtype: np.dtype, memory_limit: str | int | None, store: Any, *, fields: int = 4,
    threads: int | None = None,
) -> tuple[Arrays, int]:  # fmt: skip
    """Where the arrays of a solve go, and how many slabs it takes for so many threads, by default all.

    Raises
    ------
    ValueError
        If `store` is no folder.
    MemoryError
        If slabs of four layers do not fit into the limit.
    """
    threads = threads or backend.cpu_count()
    limit = parse_bytes(memory_limit) if memory_limit is not None else free_memory()
    needed = bytes_per_voxel(np.dtype(kind), dtype, fields) * scan.grid.size
    if needed <= limit:
        return Arrays(), 2 * threads if threads > 1 else 1
    folder = os.fspath(store) if store is not None else tempfile.gettempdir()
    if not os.path.isdir(folder):
        raise ValueError(f"store is {folder!r}, which is no folder")
    slabs = math.ceil(needed * threads / (_AT_HAND * limit))
    most = max(scan.shape[0] // 4, 1)
    if slabs > 4 * most:
        least = needed * threads / (_AT_HAND * 4 * most)
        given = "memory_limit is" if memory_limit is not None else "what may be taken is"
        raise MemoryError(f"{given} {format_bytes(limit)}; slabs of four layers need {format_bytes(int(least))}")
    return Arrays(folder), min(slabs, most)


def real_dtype(dtype: Any) -> np.dtype:
    """Single or double precision; ValueError if it is neither."""
    try:
        real: np.dtype = np.dtype(dtype)
    except TypeError:
        real = np.dtype(object)
    if dtype is None or real not in (np.dtype("float32"), np.dtype("float64")):
        raise ValueError(f"dtype is {dtype!r}; use 'float32' or 'float64'")
    return real


def on_device(device: Any, image: Any) -> bool:
    """Whether a solve is done on a GPU: ValueError if `device` is unknown, RuntimeError if there is none."""
    one_of("device", device, ("auto", "cpu", "gpu"))
    if device == "gpu":
        backend.require_device()
    return device == "gpu" or (device == "auto" and backend.is_device_array(image.data))


def one_of(argument: str, value: Any, choices: tuple[str, ...]) -> None:
    """ValueError unless a value is one of some choices."""
    if value not in choices:
        raise ValueError(f"{argument} is {value!r}; use {', '.join(map(repr, choices[:-1]))} or {choices[-1]!r}")


def check_limits(tolerance: float, iterations: int) -> None:
    """ValueError unless an iteration can end."""
    if not isinstance(tolerance, numbers.Real) or not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance!r}; give a relative error between 0 and 1")
    if not isinstance(iterations, numbers.Integral) or isinstance(iterations, bool) or iterations < 1:
        raise ValueError(f"iterations is {iterations!r}; give a positive whole number")


def warn_of_flat_voxels(scan: Scan) -> None:
    """UserWarning at the caller of a public function, if voxel sizes are far apart."""
    least, most = min(scan.grid.spacing), max(scan.grid.spacing)
    if most > _ANISOTROPY * least:
        warnings.warn(
            f"voxels measure {' x '.join(f'{h:g}' for h in scan.grid.spacing)}, a factor of {most / least:.3g} apart: "
            "the result is no better than the coarsest; is the voxel size right?",
            UserWarning,
            stacklevel=3,
        )
