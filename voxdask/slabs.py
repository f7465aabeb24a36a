"""What is done to one chunk: the functions that Dask runs, each over thin tiles.

A chunk is a slab of some rows, or a pencil of some columns of modes. These are plain functions of a
:class:`Context` and of arrays; they know nothing of graphs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxdask import halo, tiles
from voxdask.halo import ArrayRows, PieceRows
from voxdask.kernels import Filter, Kernel
from voxdask.pencil import tiles as split
from voxdask.system import System
from voxdask.tiles import Workspace

_workspace = Workspace()

Pieces = dict[str, list[tuple[int, Any]]]


@dataclass(frozen=True, eq=False)
class Context:
    """What every task of a run needs."""

    system: System
    rates: tuple[str, ...]
    rows: int
    columns: int
    sum_rows: int


def advance_slab(
    context: Context,
    kernel: Kernel,
    t: float,
    lo: int,
    hi: int,
    pieces: Pieces,
    bases: Sequence[Sequence[Mapping[str, Any]]],
    scales: Sequence[float],
    rated: Sequence[bool],
    end: float,
    spectral: bool,
    parts: Sequence[tuple[int, int]] | None,
) -> dict[Any, Any]:
    """Targets of one slab of every field, by (number, name).

    If `spectral`, the first target (the rate itself, if there is none) is not kept: rows of its spectrum are, by
    name, or by (name, part) if cut into `parts`.
    """
    system, names = context.system, dict(zip(context.system.fields, context.rates, strict=True))
    sources = {name: PieceRows(parts) for name, parts in pieces.items()}
    shape = (hi - lo, *system.grid.shape[1:])
    kept = [m for m in range(len(rated)) if not (spectral and m == 0)]
    targets = {(m, name): np.empty(shape, system.dtype) for m in kept for name in names}
    modes = (hi - lo, *system.transform.spectrum_shape[1:])
    spectra = {name: np.empty(modes, system.transform.spectrum_dtype) for name in (names if spectral else ())}
    for a, b in split(hi - lo, context.rows):
        given = {
            f"base{m}_{k}_{rate}": blocks[name][a:b]
            for m, every in enumerate(bases)
            for k, blocks in enumerate(every)
            for name, rate in names.items()
        }
        out = {f"target{m}_{names[name]}": target[a:b] for (m, name), target in targets.items()}
        tile = tiles.rates(
            system, kernel, t, lo + a, lo + b, sources, _workspace, bases=given, scales=scales, out=out
        )
        for (m, _), target in targets.items():
            if rated[m]:
                halo.release(target[a:b], lo + a, system.axes)
            else:
                halo.hold(target[a:b], lo + a, system.axes, end)
        for name, spectrum in spectra.items():
            weight = tiles.weight_of(system, name, sources, lo + a, lo + b)
            made = tile[f"target0_{names[name]}" if rated else names[name]]
            spectrum[a:b] = tiles.to_spectrum(system, made, lo + a, weight)
    if parts is None:
        return {**targets, **spectra}
    cut = {(n, j): np.ascontiguousarray(s[:, a:b]) for n, s in spectra.items() for j, (a, b) in enumerate(parts)}
    return {**targets, **cut}


def filter_pencil(
    context: Context,
    name: str,
    multiply: Filter,
    start: int,
    stop: int,
    slabs: Sequence[tuple[int, int]],
    rows: Sequence[Any],
    cut: bool,
    t: float,
    dt: float,
    stored: Sequence[Any],
) -> Any:
    """Columns of a field's spectrum, filtered; from what slabs made, whole or `cut` to the columns.

    A filter that saves spectra gives these too.
    """
    system = context.system
    shape = (slabs[-1][1], stop - start, *system.transform.spectrum_shape[2:])
    pencil = np.empty(shape, system.transform.spectrum_dtype)
    for (lo, hi), made in zip(slabs, rows, strict=True):
        pencil[lo:hi] = made if cut else made[name][:, start:stop]
    modes = (system.transform.modes_shape[0], *shape[1:])
    saved = [np.empty(modes, system.transform.modes_dtype) for _ in multiply.arrays[1:]]
    for block, values in zip(saved, stored, strict=False):  # more may be saved than were before
        block[...] = values
    for a, b in split(stop - start, context.columns):
        narrow = [block[:, a:b] for block in saved]
        pencil[:, a:b] = tiles.filtered(system, pencil[:, a:b], start + a, multiply, t, dt, narrow)
    return (pencil, *saved) if saved else pencil


def update_slab(
    context: Context,
    name: str,
    bases: Sequence[tuple[Any, float]],
    weighing: Any,
    lo: int,
    hi: int,
    pencils: Sequence[tuple[int, int]],
    columns: Sequence[Any],
    cut: bool,
    end: float,
) -> Any:
    """Rows of a field at the end of a step; from pencils, whole or `cut` to the rows."""
    system = context.system
    new = np.empty((hi - lo, *system.grid.shape[1:]), system.dtype)
    weights = {} if weighing is None else {system.weights[name].field: ArrayRows(weighing, lo)}
    for a, b in split(hi - lo, context.rows):
        shape = (b - a, *system.transform.spectrum_shape[1:])
        spectrum = _workspace.empty("spectrum", shape, system.transform.spectrum_dtype)
        rows = slice(a, b) if cut else slice(lo + a, lo + b)
        for (start, stop), pencil in zip(pencils, columns, strict=True):
            spectrum[:, start:stop] = pencil[rows]
        weight = tiles.weight_of(system, name, weights, lo + a, lo + b) if weights else None
        tile = [(block[a:b], c) for block, c in bases]
        tiles.updated(system, tile, spectrum, lo + a, end, new[a:b], weight)
    return new


def combine_slab(context: Context, lo: int, blocks: Sequence[Any], weights: Sequence[float], end: float) -> Any:
    """The sum of rows of a field with coefficients."""
    out = np.empty_like(blocks[0])
    for a, b in split(len(out), context.sum_rows):
        tiles.add_up(((block[a:b], c) for block, c in zip(blocks, weights, strict=True)), out[a:b])
    halo.hold(out, lo, context.system.axes, end)
    return out


def error_slab(
    context: Context, blocks: Sequence[Any], weights: Sequence[float], states: Sequence[Any], atol: float, rtol: float
) -> Any:
    """Row by row, squares of the sum of rows of a field in units of the tolerance."""
    sums = []
    for a, b in split(len(blocks[0]), context.sum_rows):
        total = _workspace.empty("error", (b - a, *blocks[0].shape[1:]), blocks[0].dtype)
        tiles.add_up(((block[a:b], c) for block, c in zip(blocks, weights, strict=True)), total)
        sums.append(tiles.square_sums(total, (state[a:b] for state in states), atol, rtol))
    return np.concatenate(sums)


def rate_slab(
    context: Context, kernel: Kernel, t: float, lo: int, hi: int, pieces: Pieces, release: bool
) -> dict[str, Any]:
    """The outputs of a kernel on one slab."""
    system = context.system
    sources = {name: PieceRows(parts) for name, parts in pieces.items()}
    out = {name: np.empty((hi - lo, *system.grid.shape[1:]), system.dtype) for name in kernel.outputs}
    for a, b in split(hi - lo, context.rows):
        tile = {name: block[a:b] for name, block in out.items()}
        tiles.rates(system, kernel, t, lo + a, lo + b, sources, _workspace, out=tile)
        for block in tile.values() if release else ():
            halo.release(block, lo + a, system.axes)
    return out


def start_slab(context: Context, lo: int, blocks: Mapping[str, Any], time: float) -> dict[str, Any]:
    """Rows of every field in the run's dtype, with held nodes at their values."""
    result = {}
    for name, block in blocks.items():
        result[name] = np.array(block, context.system.dtype, order="C")
        halo.hold(result[name], lo, context.system.axes, time)
    return result


def finite_slab(context: Context, lo: int, blocks: Mapping[str, Any]) -> dict[str, bool]:
    """Whether every value of each field is finite."""
    return {name: tiles.finite(block) for name, block in blocks.items()}
