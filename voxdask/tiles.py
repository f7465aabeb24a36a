"""What is done to one tile: the arithmetic of a sweep, whatever lies around it.

A tile is a few rows of every field, thin enough to stay in cache. These are plain functions of a
:class:`~voxdask.system.System`, rows of fields and a workspace; the same ones run over shared memory,
files and Dask chunks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from voxdask import backend, halo
from voxdask.filters import Filter
from voxdask.halo import PaddedRows, Rows
from voxdask.kernels import Kernel
from voxdask.system import CHANGE, SUM, System

#: Bytes of a line of the cache.
CACHE_LINE = 64
#: Rows of fewer lines of the cache lie side by side.
LEAST_LINES = 16
#: Rows of which a cache holds a line each, wherever they lie.
MOST_LINES = 512


class Workspace(threading.local):
    """Arrays that a thread uses again and again: fresh memory costs more than the arithmetic on it."""

    def __init__(self) -> None:
        self.buffers: dict[tuple[str, str], Any] = {}

    def empty(self, name: str, shape: tuple[int, ...], dtype: Any, like: Any = None) -> Any:
        """An uninitialised array; the one of the same name in this thread is given up."""
        xp, size, dtype = backend.namespace(like), math.prod(shape), np.dtype(dtype)
        key = (name, dtype.char)
        buffer = self.buffers.get(key)
        if buffer is None or buffer.size < size or not isinstance(buffer, xp.ndarray):
            self.buffers[key] = buffer = xp.empty(size, dtype)
        return buffer[:size].reshape(shape)

    def spaced(self, name: str, shape: tuple[int, ...], dtype: Any, like: Any = None) -> Any:
        """The same for lines along the first axis: on the host rows lie so that these are spread over a cache.

        Rows that are a power of two apart would push each other out of it, and those that begin anywhere would lie
        across more of its lines than they must.
        """
        if backend.is_device_array(like):
            return self.empty(name, shape, dtype, like)
        width, line = math.prod(shape[1:]), CACHE_LINE // np.dtype(dtype).itemsize
        apart = distance(width, line)
        memory = self.empty(name, (shape[0] * apart + line,), dtype)
        first = -memory.ctypes.data % CACHE_LINE // memory.itemsize
        return memory[first : first + shape[0] * apart].reshape(shape[0], apart)[:, :width].reshape(shape)


def distance(width: int, line: int) -> int:
    """How far apart rows of so many values should be, of which `line` are in a line of the cache.

    Examples
    --------
    >>> distance(512, 8), distance(513, 8), distance(3, 8)
    (520, 520, 3)
    """
    # what lies between narrow rows would take more than it saves
    return width if width < LEAST_LINES * line else (-(-width // line) | 1) * line


def rates(
    system: System,
    kernel: Kernel,
    time: float,
    lo: int,
    hi: int,
    rows: Mapping[str, Rows],
    workspace: Workspace,
    *,
    bases: Mapping[str, Any] | None = None,
    scales: Sequence[float] = (),
    out: Mapping[str, Any] | None = None,
    like: Any = None,
) -> dict[str, Any]:
    """Evaluate a kernel on rows [lo, hi), ghost layers and all.

    Parameters
    ----------
    system : System
    kernel : Kernel
        The right-hand side, or updates by it.
    time : float
    lo, hi : int
    rows : mapping of str to Rows
        Unknowns and constants.
    workspace : Workspace
    bases, scales, out
        As for :class:`~voxdask.kernels.Kernel`.
    like : array, optional
        An array of the kind that is wanted.

    Returns
    -------
    dict of str to array
        In the workspace, unless `out` says where.
    """
    depth = kernel.halo
    shape = system.padded_rows(hi - lo + 2 * depth, depth)

    def empty(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        if backend.is_device_array(like):  # the pool of a device gives the memory to whoever needs it next
            return backend.namespace(like).empty(shape, dtype)
        return workspace.empty(name, shape, dtype)

    blocks = dict(bases or {})
    for name in kernel.inputs:
        source = rows[name]
        if isinstance(source, PaddedRows):
            blocks[name] = source.padded(lo, hi)
        else:
            padded = empty(f"padded_{name}", shape, system.dtype)
            blocks[name] = halo.pad(source, lo, hi, depth, system.ends(name), time, padded)
    xp = backend.namespace(like)
    positions = {}
    for axis in kernel.coordinates:
        a = system.grid.axis(axis)
        # rows beyond a periodic axis are those at its other end
        start = lo % system.grid.shape[0] if a == 0 else 0
        stop = start + hi - lo if a == 0 else system.grid.shape[a]
        positions[axis] = xp.asarray(system.positions(axis, start, stop, depth))
    return kernel(blocks, positions, system.values(time), out, scales, empty)


def weight_of(system: System, name: str, rows: Mapping[str, Rows], lo: int, hi: int) -> Any:
    """Rows of what semi-implicit steps multiply an unknown by; None for one."""
    if name not in system.weights:
        return None
    weight = system.weights[name]
    values = halo.rows_of(rows[weight.field], lo, hi)
    return backend.namespace(values).maximum(values, values.dtype.type(weight.least))


def to_spectrum(system: System, rate: Any, lo: int, weight: Any = None) -> Any:
    """Rows of the spectrum of a rate of change, times a weight; the rate is used up."""
    if weight is not None:
        rate *= weight
    halo.release(rate, lo, system.axes)
    return system.transform.forward_slab(rate)


def filtered(
    system: System,
    block: Any,
    start: int,
    gain: Filter,
    parameters: Mapping[str, float],
    saved: Mapping[str, Any] | None = None,
    workspace: Workspace | None = None,
) -> Any:
    """Columns of a spectrum, transformed along the first axis, with a gain, and back.

    On the host they are left as they are if there is a workspace, else used up. Long lines whose values lie apart are
    transformed in the workspace, as they would push each other out of the cache; but not halved ones, of which a
    transform makes another array anyway.
    """
    overwrite = workspace is None or backend.is_device_array(block)
    halved = system.transform.half == 0
    if workspace and not overwrite and not halved and len(block) > MOST_LINES and not block.flags.c_contiguous:
        tile = workspace.spaced("columns", block.shape, block.dtype)
        tile[...] = block
        block, overwrite = tile, True
    return system.transform.filter_pencil(block, start, gain, parameters, saved, overwrite=overwrite)


def updated(
    system: System,
    kernel: Kernel,
    bases: Mapping[str, Any],
    scales: Sequence[float],
    spectrum: Any,
    lo: int,
    end: float,
    out: Any,
) -> None:
    """Add the inverse transform of rows of a spectrum to the same rows of fields.

    Parameters
    ----------
    system : System
    kernel : Kernel
        See :meth:`voxdask.system.Operators.update`.
    bases : mapping of str to array
        Rows of fields that the kernel reads, by the names that it gives them.
    scales : sequence of float
        Coefficients of the bases.
    spectrum : array
        Rows of the spectrum; used up.
    lo : int
    end : float
        Time at the end of the step, when held nodes take their values.
    out : array
        Has as many ghost layers along the other axes as the kernel says, which are left alone.
    """
    change = system.transform.inverse_slab(spectrum)
    halo.release(change, lo, system.axes)
    kernel({**bases, CHANGE: change}, {}, {}, {f"target0_{SUM}": out}, [*scales, 1.0])
    halo.hold(halo.inner(out, kernel.updates[0].margin), lo, system.axes, end)


def add_up(terms: Iterable[tuple[Any, float]], out: Any) -> None:
    """The sum of arrays with coefficients, each needed no longer than until the next; what is not finite stays so."""
    xp, dtype = backend.namespace(out), out.dtype.type
    with np.errstate(over="ignore", invalid="ignore"):
        for k, (block, c) in enumerate(terms):
            if k == 0:
                xp.multiply(block, dtype(c), out=out)
            else:
                out += block * dtype(c)


def square_sums(error: Any, states: Iterable[Any], atol: float, rtol: float) -> Any:
    """For each row, the sum of squares of an error in units of atol + rtol times the largest of states.

    It is of float64, does not depend on how rows are cut into tiles, and is not finite where a state is not. The
    error is used up.
    """
    xp, flat = backend.namespace(error), (error.shape[0], -1)
    scale = xp.zeros_like(error)
    with np.errstate(over="ignore", invalid="ignore"):
        for block in states:
            xp.maximum(scale, xp.abs(block), out=scale)
        bad = 0.0 * scale.reshape(flat).max(axis=1)  # an infinite state must not count as a wide tolerance
        scale *= rtol
        scale += atol
        error /= scale
        ratio = error.reshape(flat).astype(np.float64)
        ratio *= ratio
        return ratio.sum(axis=1) + bad


def root_mean_square(sums: Iterable[Any], count: int) -> float:
    """Of `count` values, from what :func:`square_sums` gave for rows in order."""
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sqrt(np.concatenate([backend.to_host(rows) for rows in sums]).sum() / count))


def finite(block: Any) -> bool:
    """Whether every value is finite; the sum tells at once unless it overflows."""
    xp = backend.namespace(block)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(xp.isfinite(block.sum())) or bool(xp.isfinite(block).all())
