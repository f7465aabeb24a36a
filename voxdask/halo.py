"""Ghost layers: a padded block from rows of fields, and the transpose of that.

A domain edge is a chunk edge whose neighbour is a reflection: rows that lie in another chunk are read
from it, rows that lie outside the domain are made from rows inside by the boundary rule. One function
serves block, chunk and boundary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Any, Protocol

import numpy as np

from voxdask import backend
from voxdask.boundary import Axis, End, Ghost, face_value

#: Rows whose ghost layers are filled at once.
_THIN = 16


class Rows(Protocol):
    """Whatever can give rows of a field.

    Attributes
    ----------
    unwrapped : bool
        Rows beyond a periodic axis may be asked for, as if it went on.
    """

    unwrapped: bool

    def pieces(self, lo: int, hi: int) -> Iterable[tuple[int, Any]]:
        """Rows [lo, hi) along the first axis, in pieces that are views, each with the row that it starts at."""
        ...


class ArrayRows:
    """Rows of an array that lies in memory; `start` is the row of its first one."""

    unwrapped = False

    def __init__(self, array: Any, start: int = 0) -> None:
        self.array, self.start = array, start

    def pieces(self, lo: int, hi: int) -> Iterable[tuple[int, Any]]:
        return ((lo, self.array[lo - self.start : hi - self.start]),)


class PieceRows:
    """Rows of an array that lies in memory in pieces, as a chunk sees itself and its neighbours."""

    def __init__(self, pieces: Iterable[tuple[int, Any]], *, unwrapped: bool = False) -> None:
        self.all = sorted(pieces, key=lambda piece: piece[0])
        self.unwrapped = unwrapped

    def pieces(self, lo: int, hi: int) -> Iterable[tuple[int, Any]]:
        return ((max(lo, s), a[max(lo - s, 0) : hi - s]) for s, a in self.all if s < hi and s + len(a) > lo)


class GatheredRows:
    """Rows that are put together whenever they are asked for: ``gather(lo, hi)`` gives an array of them."""

    unwrapped = False

    def __init__(self, gather: Callable[[int, int], Any]) -> None:
        self.gather = gather

    def pieces(self, lo: int, hi: int) -> Iterable[tuple[int, Any]]:
        return ((lo, self.gather(lo, hi)),)


class PaddedRows:
    """Rows of an array that has ghost layers of its own, up to date; see :func:`refresh`."""

    unwrapped = False

    def __init__(self, array: Any, depth: int, start: int = 0) -> None:
        self.array, self.depth, self.start = array, depth, start

    def pieces(self, lo: int, hi: int) -> Iterable[tuple[int, Any]]:
        return ((lo, inner(self.array[lo - self.start + self.depth : hi - self.start + self.depth], self.depth)),)

    def padded(self, lo: int, hi: int) -> Any:
        """Rows [lo, hi) with all of their ghost layers; a view."""
        return self.array[lo - self.start : hi - self.start + 2 * self.depth]


def inside(array: Any, depth: int) -> Any:
    """An array without its ghost layers; a view."""
    return array[(slice(depth, -depth),) * array.ndim] if depth else array


def inner(rows: Any, depth: int) -> Any:
    """Rows without the ghost layers along other axes than the first; a view."""
    return rows[(slice(None), *(slice(depth, -depth),) * (rows.ndim - 1))] if depth else rows


def rows_of(rows: Rows, lo: int, hi: int) -> Any:
    """Rows [lo, hi) in one array: a view where they lie in one piece."""
    parts = [part for _, part in rows.pieces(lo, hi)]
    return parts[0] if len(parts) == 1 else backend.namespace(parts[0]).concatenate(parts)


def pad(
    rows: Rows,
    lo: int,
    hi: int,
    depth: int,
    axes: Sequence[Axis],
    time: float,
    out: Any,
    have: tuple[int, int] = (0, 0),
) -> Any:
    """Rows [lo, hi) of a field with ghost layers on every side.

    Parameters
    ----------
    rows : Rows
        Gives any rows of the field.
    lo, hi : int
        Rows along the first axis.
    depth : int
        Number of ghost layers.
    axes : sequence of Axis
        In storage order.
    time : float
        When the boundary values are taken.
    out : array
        To be filled, of shape (hi - lo + 2 depth, n1 + 2 depth, ...).
    have : (int, int)
        Rows that are in `out` already, without ghost layers.

    Returns
    -------
    array
        `out`.
    """
    first = axes[0]
    inside_lo, inside_hi = lo - depth, hi + depth
    if not (first.periodic and rows.unwrapped):
        inside_lo, inside_hi = max(inside_lo, 0), min(inside_hi, first.size)
    shift = depth - lo
    edges = _Edges(out, axes, time, lo, depth, slice(inside_lo + shift, inside_hi + shift))
    below, above = (inside_lo, min(have[0], inside_hi)), (max(have[1], inside_lo), inside_hi)
    for a, b in (below, above) if have[0] < have[1] else ((inside_lo, inside_hi),):
        for row, piece in rows.pieces(a, b) if a < b else ():
            out[(slice(row + shift, row + shift + len(piece)), *edges.filled[1:])] = piece
    outside = [first.ghost(p) for p in (*range(lo - depth, inside_lo), *range(inside_hi, hi + depth))]
    if first.periodic:
        for ghost in outside:
            ((_, piece),) = rows.pieces(ghost.source, ghost.source + 1)
            out[edges.layer(0, ghost.position)] = piece[0]
        edges.filled[0], outside = slice(None), []
    edges.fill(depth, outside)
    return out


def refresh(array: Any, depth: int, axes: Sequence[Axis], time: float, each: Callable[..., Any] = map) -> None:
    """Fill the ghost layers of an array that has some, in place.

    Parameters
    ----------
    array : array
        Of shape (n0 + 2 depth, n1 + 2 depth, ...).
    depth : int
    axes : sequence of Axis
        In storage order.
    time : float
        When the boundary values are taken.
    each : callable
        Applies a function to every item of a list, such as the ``map`` of a pool of threads.
    """
    edges = _Edges(array, axes, time, 0, depth, slice(depth, depth + axes[0].size))
    edges.fill(depth, axes[0].ghosts(depth), each)


def fold(sensitivity: Any, depth: int, axes: Sequence[Axis]) -> Any:
    """The transpose of :func:`pad` on a whole block: what ghost layers hold goes back to their sources.

    Parameters
    ----------
    sensitivity : array
        With ghost layers of `depth`; it is overwritten.
    depth : int
    axes : sequence of Axis

    Returns
    -------
    array
        Without ghost layers; zero where a node is held.
    """
    filled = [slice(None)] * len(axes)
    for a in reversed(_order(axes)):
        filled[a] = slice(depth, depth + axes[a].size)
        for ghost in axes[a].ghosts(depth):
            layer, source = ((*filled[:a], p + depth, *filled[a + 1 :]) for p in (ghost.position, ghost.source))
            sensitivity[source] += ghost.sign * sensitivity[layer]
    inside = sensitivity[tuple(slice(depth, depth + axis.size) for axis in axes)]
    release(inside, 0, axes)
    return inside


def release(change: Any, lo: int, axes: Sequence[Axis]) -> None:
    """Set a change of rows [lo, lo + len) to zero at the nodes whose value is given."""
    for a, axis in enumerate(axes):
        for position in axis.held:
            at = position - lo if a == 0 else position
            if 0 <= at < change.shape[a]:
                change[(*(slice(None),) * a, at)] = 0


def hold(rows: Any, lo: int, axes: Sequence[Axis], time: float) -> None:
    """Set rows [lo, lo + len) of a field to the given value at the nodes where one is given."""
    _Edges(rows, axes, time, lo, 0, slice(None)).hold()


def _order(axes: Sequence[Axis]) -> list[int]:
    """Axes in the order of their names: what corners hold does not depend on the order of storage."""
    return sorted(range(len(axes)), key=lambda a: axes[a].dim)


class _Edges:
    """A padded block, how far it is filled along each axis, and what its edges need."""

    def __init__(self, out: Any, axes: Sequence[Axis], time: float, lo: int, depth: int, rows: slice) -> None:
        self.out, self.axes, self.time = out, axes, time
        #: Where position 0 of the domain lies along each axis.
        self.origin = [depth - lo] + [depth] * (len(axes) - 1)
        self.filled = [rows, *(slice(depth, depth + axis.size) for axis in axes[1:])]

    def fill(self, depth: int, outside: Sequence[Ghost], each: Callable[..., Any] = map) -> None:
        """Fill all ghost layers, those of the first axis as they are given; rows of others are shared out by `each`."""
        self.hold()
        for a in _order(self.axes):
            if a == 0:
                self.reflect(0, outside)
                continue
            ghosts, filled = self.axes[a].ghosts(depth), range(len(self.out))[self.filled[0]]
            width = len(filled) if backend.is_device_array(self.out) else _THIN
            thin = [slice(lo, min(lo + width, filled.stop)) for lo in range(filled.start, filled.stop, width)]

            def reflect(rows: slice, a: int = a, ghosts: Sequence[Ghost] = ghosts) -> None:
                self.within(rows).reflect(a, ghosts)

            for _ in each(reflect, thin):
                pass
            self.filled[a] = slice(None)

    def within(self, rows: slice) -> _Edges:
        """The same, of some of the rows that are filled."""
        part = copy(self)
        part.filled = [rows, *self.filled[1:]]
        return part

    def layer(self, a: int, position: int) -> tuple[Any, ...]:
        """Index of what is filled at a position along axis `a`."""
        return (*self.filled[:a], position + self.origin[a], *self.filled[a + 1 :])

    def reflect(self, a: int, ghosts: Sequence[Ghost]) -> None:
        """Fill ghost layers of axis `a`."""
        axis = self.axes[a]
        for ghost in ghosts:
            source = self.out[self.layer(a, ghost.source)]
            values = source if ghost.sign == 1 else -source
            for end, weight in ((axis.lo, ghost.lo_weight), (axis.hi, ghost.hi_weight)):
                if weight and not end.homogeneous:
                    values = values + self.out.dtype.type(weight) * self.given(a, end)
            self.out[self.layer(a, ghost.position)] = values
        self.filled[a] = slice(None)

    def hold(self) -> None:
        """Set the nodes whose value is given, before anything is reflected about them."""
        rows = range(self.out.shape[0])[self.filled[0]]
        for a in _order(self.axes):
            axis = self.axes[a]
            for position in axis.held:
                if a or position + self.origin[0] in rows:
                    end = axis.lo if position == 0 else axis.hi
                    self.out[self.layer(a, position)] = self.given(a, end)

    def given(self, a: int, end: End) -> Any:
        """The value at an end, over what is filled."""
        value = face_value(end, self.axes, a, self.time)
        if isinstance(value, float):
            return self.out.dtype.type(value)
        others = [b for b in range(len(self.axes)) if b != a]
        for place, b in enumerate(others):
            positions = [i - self.origin[b] for i in range(self.out.shape[b])[self.filled[b]]]
            if positions != list(range(self.axes[b].size)):
                value = _continued(value, self.axes[b], positions, place)
        return backend.namespace(self.out).asarray(value, dtype=self.out.dtype)


def _continued(value: np.ndarray, axis: Axis, positions: Sequence[int], place: int) -> np.ndarray:
    """Face values at positions along another axis, beyond the face too.

    They go on as a coefficient does, but oddly about a wall between voxels that holds the field itself: what is
    given there must fit the ghost layers of the wall, or equations of two stages lose an order at the edge.
    """
    mirrored, last = axis.mirrored(), axis.size - 1
    sources = [p if 0 <= p <= last else mirrored.ghost(p).source for p in positions]
    result = np.take(value, sources, place)
    for at, p in enumerate(positions):
        end, first, second = (axis.lo, 0, 1) if p < 0 else (axis.hi, last, last - 1)
        if not 0 <= p <= last and end.kind == "dirichlet" and not axis.node_centred and last > 0:
            twice_wall = 3 * value.take(first, place) - value.take(second, place)
            layer: tuple[Any, ...] = (*(slice(None),) * place, at)
            result[layer] = twice_wall - result.take(at, place)
    return result
