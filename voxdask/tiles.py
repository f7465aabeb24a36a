"""What is done to one tile: the arithmetic of a sweep, whatever lies around it.

A tile is a few rows of every field, thin enough to stay in cache. These are plain functions of a
:class:`~voxdask.system.System`, rows of fields and a workspace; the same ones run over shared memory,
files and Dask chunks.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from voxdask import backend, halo
from voxdask.halo import Rows
from voxdask.kernels import Filter, Kernel
from voxdask.system import System


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
    weights: Sequence[float] = (),
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
    bases, weights, out
        As for :class:`~voxdask.kernels.Kernel`.
    like : array, optional
        An array of the kind that is wanted.

    Returns
    -------
    dict of str to array
        In the workspace, unless `out` says where.
    """
    depth = kernel.halo
    shape = (hi - lo + 2 * depth, *(n + 2 * depth for n in system.grid.shape[1:]))

    def empty(name: str, shape: tuple[int, ...], dtype: Any) -> Any:
        return workspace.empty(name, shape, dtype, like)

    blocks = dict(bases or {})
    for name in kernel.inputs:
        padded = empty(f"padded_{name}", shape, system.dtype)
        blocks[name] = halo.pad(rows[name], lo, hi, depth, system.ends(name), time, padded)
    xp = backend.namespace(like)
    positions = {}
    for axis in kernel.coordinates:
        a = system.grid.axis(axis)
        start, stop = (lo, hi) if a == 0 else (0, system.grid.shape[a])
        positions[axis] = xp.asarray(system.positions(axis, start, stop, depth))
    return kernel(blocks, positions, system.values(time), out, weights, empty)


def to_spectrum(system: System, rate: Any, lo: int) -> Any:
    """Rows of the spectrum of a rate of change; the rate is used up."""
    halo.release(rate, lo, system.axes)
    return system.transform.forward_slab(rate)


def filtered(system: System, block: Any, start: int, gain: Filter, time: float, dt: float) -> Any:
    """Columns of a spectrum, transformed along the first axis, multiplied by a gain, and back."""
    return system.transform.filter_pencil(block, start, gain, system.values(time, dt=dt))


def updated(
    system: System, u: Any, spectrum: Any, lo: int, end: float, out: Any
) -> bool:
    """Add the inverse transform of rows of a spectrum to the same rows of a field.

    Parameters
    ----------
    system : System
    u : array
        Rows of the field.
    spectrum : array
        Rows of the spectrum; used up.
    lo : int
    end : float
        Time at the end of the step, when held nodes take their values.
    out : array
        May be `u`.

    Returns
    -------
    bool
        Whether every value is finite.
    """
    change = system.transform.inverse_slab(spectrum)
    halo.release(change, lo, system.axes)
    backend.namespace(out).add(u, change, out=out)
    halo.hold(out, lo, system.axes, end)
    return finite(out)


def finite(block: Any) -> bool:
    """Whether every value is finite; the sum tells at once unless it overflows."""
    xp = backend.namespace(block)
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(xp.isfinite(block.sum())) or bool(xp.isfinite(block).all())
