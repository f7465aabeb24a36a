"""What is done to one chunk: the functions that Dask runs.

A chunk is a slab of some rows, or a pencil of some columns of modes. These are plain functions of a
:class:`~voxdask.passes.Context` and of arrays; they know nothing of graphs. What is done to one chunk is shared by
as many threads as the context says: all that a worker has, as it has one slab.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np

from voxdask import backend, halo, passes, tiles
from voxdask.filters import Filter
from voxdask.halo import GatheredRows, PieceRows
from voxdask.kernels import Kernel
from voxdask.passes import Context
from voxdask.pencil import TRANSFORMED, split
from voxdask.recycler import Recycler, keep_freed
from voxdask.system import SUM, System, saved_in
from voxdask.tiles import Workspace
from voxdask.windows import domain_rows

#: Memory of the tiles of every thread of this process; and of its chunks, which every step makes anew.
_workspace, recycler = Workspace(), Recycler()


def clear_memory() -> None:
    """Give up the memory of this process that was kept for tiles and chunks to come."""
    global _workspace
    _workspace = Workspace()  # one thread cannot reach into what another has in it
    recycler.clear()


#: Parts of a slab and its neighbours, each with the row that it starts at.
Pieces = list[tuple[int, Any]]

#: What a semi-implicit step has yet to do on a slab; see :func:`finish`.
Pending = dict[str, Any]


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """The threads of this process that share chunks, whichever task asks for them."""
    return ThreadPoolExecutor(threads, "voxdask-slab")


def _by_threads(context: Context, size: int, like: Any, work: Callable[[int, int], Any]) -> list[Any]:
    """``work(a, b)`` for parts of a range, one for each thread; on a device, which needs no others, for all of it."""
    parts = split(size, size if backend.is_device_array(like) else -(-size // context.threads))
    if len(parts) == 1:
        return [work(*parts[0])]
    return list(_pool(context.threads).map(work, *zip(*parts, strict=True)))


def _empty(shape: tuple[int, ...], dtype: Any, like: Any) -> Any:
    """A fresh array where another lies."""
    xp = backend.namespace(like)
    return recycler.empty(shape, dtype) if xp is np else xp.empty(shape, dtype)


def advance_slab(
    context: Context,
    kernel: Kernel,
    t: float,
    lo: int,
    hi: int,
    pieces: Mapping[str, Pieces],
    bases: Sequence[Sequence[Mapping[str, Any]]],
    scales: Sequence[float],
    rated: Sequence[bool],
    end: float,
    spectral: bool,
    parts: Sequence[tuple[int, int]] | None,
    pending: Pending | None = None,
) -> dict[Any, Any]:
    """Targets of one slab of every field, by (number, name).

    If `spectral`, the first target (the rate itself, if there is none) is not kept: rows of its spectrum are, by
    name, or by (name, part) if cut into `parts`. If the state is `pending`, it is finished first, ghost rows and all,
    and its rows are among the results, by ("state", name).
    """
    keep_freed()
    system, names = context.system, dict(zip(context.system.fields, context.rates, strict=True))
    sources, results = {name: PieceRows(parts) for name, parts in pieces.items()}, dict[Any, Any]()
    given = {
        f"base{m}_{k}_{rate}": blocks[name]
        for m, every in enumerate(bases)
        for k, blocks in enumerate(every)
        for name, rate in names.items()
        if blocks is not None
    }
    if pending is not None:
        depth, first = kernel.halo, system.axes[0]
        start, stop = (lo - depth, hi + depth) if first.periodic else (max(lo - depth, 0), min(hi + depth, first.size))
        finished = finish(context, pending, start, stop, (lo, hi))
        sources |= {name: PieceRows([(start, rows)], unwrapped=True) for name, rows in finished.items()}
        for name, rows in finished.items():
            results["state", name] = rows[lo - start : hi - start]
        for m, every in enumerate(bases):  # the state may be one of its own update's
            own = (k for k, blocks in enumerate(every) if blocks is None)
            given |= {f"base{m}_{k}_{rate}": results["state", name] for k in own for name, rate in names.items()}
    like = next(part for rows in sources.values() for _, part in rows.all)
    shape = (hi - lo, *system.grid.shape[1:])
    kept = [m for m in range(len(rated)) if not (spectral and m == 0)]
    results |= {(m, name): _empty(shape, system.dtype, like) for m in kept for name in names}
    _, columns, *rest = system.transform.spectrum_shape
    spans = list(enumerate(parts or [(0, columns)]))
    spectra = {
        (name, j): _empty((hi - lo, stop - start, *rest), system.transform.spectrum_dtype, like)
        for name in (names if spectral else ())
        for j, (start, stop) in spans
    }

    def keep(name: str, a: int, b: int, rows: Any) -> None:
        for j, (start, stop) in spans:
            spectra[name, j][a:b] = rows[:, start:stop]

    out = {f"target{m}_{rate}": results[m, name] for m in kept for name, rate in names.items()}

    def advance(a: int, b: int) -> None:
        passes.advance(
            context, kernel, t, lo + a, lo + b, sources, _workspace,
            bases={key: base[a:b] for key, base in given.items()}, scales=scales, rated=rated, end=end,
            out={key: block[a:b] for key, block in out.items()},
            spectra=(lambda name, c, d, rows: keep(name, a + c, a + d, rows)) if spectral else None, like=like,
        )  # fmt: skip

    _by_threads(context, hi - lo, like, advance)
    return {**results, **(spectra if parts else {name: made for (name, _), made in spectra.items()})}


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
    stored: Mapping[str, Any],
) -> Any:
    """Columns of a field's spectrum, filtered; from what slabs made, whole or `cut` to the columns.

    A filter reads what is `stored`, and leaves it as it is; if it writes spectra to be saved, they are given by name.
    """
    keep_freed()
    transform, first = context.system.transform, 0 if cut else start
    parts = [block if cut else block[name] for block in rows]
    shape = (slabs[-1][1], stop - start, *transform.spectrum_shape[2:])
    pencil = _empty(shape, transform.spectrum_dtype, parts[0])
    modes = (transform.modes_shape[0], *shape[1:])
    made = {kept: _empty(modes, transform.modes_dtype, parts[0]) for kept in saved_in(multiply.writes)}
    for kept in made.keys() & stored.keys():
        made[kept][...] = stored[kept]

    def gather(a: int, b: int) -> Any:
        tile = _workspace.spaced("pencil", (shape[0], b - a, *shape[2:]), transform.spectrum_dtype, parts[0])
        for (lo, hi), part in zip(slabs, parts, strict=True):
            tile[lo:hi] = part[:, first + a : first + b]
        return tile

    def keep(a: int, b: int, columns: Any) -> None:
        pencil[:, a:b] = columns

    def through(a: int, b: int) -> None:
        narrow = {name: block[:, a:b] for name, block in {**stored, **made}.items()}
        passes.through(
            context, multiply, start + a, start + b, lambda c, d: gather(a + c, a + d),
            lambda c, d, columns: keep(a + c, a + d, columns), t, dt, narrow,
        )  # fmt: skip

    _by_threads(context, stop - start, parts[0], through)
    return {TRANSFORMED: pencil, **made} if made else pencil


def finish(context: Context, pending: Pending, start: int, stop: int, own: tuple[int, int]) -> dict[str, Any]:
    """Rows [start, stop) of every field at the end of a semi-implicit step, beyond a periodic axis as if it went on.

    Parameters
    ----------
    context : Context
    pending : dict
        ``columns``: for every field pieces of every pencil, ``pencils`` their columns; ``kernels`` that add up,
        ``bases`` (pieces of every field of every term) with ``scales``; ``weights`` (pieces); ``end`` of the step.
    start, stop : int
    own : (int, int)
        The rows of the slab itself; those around it come from others.
    """
    system, size = context.system, context.system.grid.shape[0]
    finished = {}
    for name, pencils in pending["columns"].items():
        kernel, like = pending["kernels"][name], pencils[0][0][1]
        spectrum = _gathered(system, pending["pencils"], [PieceRows(pieces) for pieces in pencils], like)
        out = _empty((stop - start, *system.grid.shape[1:]), system.dtype, like)
        weight = system.weights.get(name)
        weights = PieceRows(pending["weights"][weight.field]) if weight else None
        terms = [PieceRows(pieces[name]) for pieces in pending["bases"]]
        for row, lo, hi in (part for cut in ((start, own[0]), own, (own[1], stop)) for part in domain_rows(*cut, size)):
            rows = out[row - start : row - start + hi - lo]
            update = partial(_update, context, name, kernel, spectrum, terms, weights, pending, lo, rows)
            _by_threads(context, hi - lo, like, update)
        finished[name] = out
    return finished


def _update(
    context: Context,
    name: str,
    kernel: Kernel,
    spectrum: GatheredRows,
    terms: Sequence[PieceRows],
    weights: PieceRows | None,
    pending: Pending,
    lo: int,
    out: Any,
    a: int,
    b: int,
) -> None:
    """Rows [lo + a, lo + b) of a field at the end of a semi-implicit step, to `out`, which begins at `lo`."""
    bases = {f"base0_{k}_{SUM}": halo.rows_of(rows, lo + a, lo + b) for k, rows in enumerate(terms)}
    passes.backward(
        context, name, kernel, lo + a, lo + b, spectrum, bases, pending["scales"], weights, pending["end"], out[a:b]
    )


def _gathered(
    system: System, ranges: Sequence[tuple[int, int]], pencils: Sequence[PieceRows], like: Any
) -> GatheredRows:
    """Rows of a spectrum that lies in pencils."""

    def gather(lo: int, hi: int) -> Any:
        shape = (hi - lo, *system.transform.spectrum_shape[1:])
        tile = _workspace.empty("spectrum", shape, system.transform.spectrum_dtype, like)
        for (first, last), rows in zip(ranges, pencils, strict=True):
            for row, piece in rows.pieces(lo, hi):
                tile[row - lo : row - lo + len(piece), first:last] = piece
        return tile

    return GatheredRows(gather)


def update_slab(context: Context, pending: Pending, lo: int, hi: int) -> dict[str, Any]:
    """Rows of every field at the end of a semi-implicit step."""
    return finish(context, pending, lo, hi, (lo, hi))


def combine_slab(context: Context, lo: int, blocks: Sequence[Any], weights: Sequence[float], end: float) -> Any:
    """The sum of rows of a field with coefficients."""
    out = _empty(blocks[0].shape, blocks[0].dtype, blocks[0])

    def add_up(start: int, stop: int) -> None:
        for a, b in split(stop - start, context.sum_rows):
            rows = slice(start + a, start + b)
            tiles.add_up(((block[rows], c) for block, c in zip(blocks, weights, strict=True)), out[rows])

    _by_threads(context, len(out), out, add_up)
    halo.hold(out, lo, context.system.axes, end)
    return out


def error_slab(
    context: Context, blocks: Sequence[Any], weights: Sequence[float], states: Sequence[Any], atol: float, rtol: float
) -> Any:
    """Row by row, squares of the sum of rows of a field in units of the tolerance."""

    def square(start: int, stop: int) -> list[Any]:
        found = []
        for a, b in split(stop - start, context.sum_rows):
            rows = slice(start + a, start + b)
            total = _workspace.empty("error", (b - a, *blocks[0].shape[1:]), blocks[0].dtype, blocks[0])
            tiles.add_up(((block[rows], c) for block, c in zip(blocks, weights, strict=True)), total)
            found.append(tiles.square_sums(total, (state[rows] for state in states), atol, rtol))
        return found

    sums = [part for found in _by_threads(context, len(blocks[0]), blocks[0], square) for part in found]
    return backend.namespace(blocks[0]).concatenate(sums)


def rate_slab(
    context: Context, kernel: Kernel, t: float, lo: int, hi: int, pieces: Mapping[str, Pieces], release: bool
) -> dict[str, Any]:
    """The outputs of a kernel on one slab."""
    system = context.system
    sources = {name: PieceRows(parts) for name, parts in pieces.items()}
    like = next(part for rows in sources.values() for _, part in rows.all)
    out = {name: _empty((hi - lo, *system.grid.shape[1:]), system.dtype, like) for name in kernel.outputs}

    def rate(start: int, stop: int) -> None:
        for a, b in split(stop - start, context.rows):
            tile = {name: block[start + a : start + b] for name, block in out.items()}
            tiles.rates(system, kernel, t, lo + start + a, lo + start + b, sources, _workspace, out=tile, like=like)
            for block in tile.values() if release else ():
                halo.release(block, lo + start + a, system.axes)

    _by_threads(context, hi - lo, like, rate)
    return out


def start_slab(context: Context, lo: int, blocks: Mapping[str, Any], time: float) -> dict[str, Any]:
    """Rows of every field in the run's dtype, with held nodes at their values."""
    result = {}
    for name, block in blocks.items():
        result[name] = backend.namespace(block).array(block, context.system.dtype, order="C")
        halo.hold(result[name], lo, context.system.axes, time)
    return result


def finite_slab(context: Context, lo: int, blocks: Mapping[str, Any]) -> dict[str, bool]:
    """Whether every value of each field is finite."""
    return {name: tiles.finite(block) for name, block in blocks.items()}
