"""A domain's graphs, each coarser than the one before, and the steps of a cycle through them.

Nodes of a level are merged with those of their block (2 x 2 x 2 blocks of the level before) that they conduct to, and
only with those. Corrections are constant over merged nodes. That alone would make a coarse level too stiff: the centres
of merged nodes are twice as far apart, so that an edge across blocks conducts half of what the edges in it do in sum.

A step that a neighbour waits for returns the edges of a vector; one that needs the neighbours' takes them as ghosts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from voxdask.transport import graph as loops
from voxdask.transport.arrays import Arrays
from voxdask.transport.graph import Graph
from voxdask.transport.parallel import Workers, even
from voxdask.transport.pieces import STRONG, halved_axes
from voxdask.transport.team import Sides

#: Damping of Jacobi's sweeps.
OMEGA = 0.85
#: A last level of more nodes, which has none below it as it conducts too little, is only smoothed.
_MOST_DIRECT = 3000
#: Levels of fewer nodes are worked on by one thread.
_SMALL = 20_000


@dataclass(frozen=True)
class Parents:
    """What a neighbour has to know of merged nodes at its side.

    Attributes
    ----------
    parent : ndarray of int32
        Of the nodes that the neighbour knows, counted from the first parent that it will know; -1 for none.
    place : ndarray, shape (parents, 3)
        Block of each parent that it will know.
    """

    parent: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class Rows:
    """The own nodes of a level, to be put together with those of the other domains; see :class:`Graph`.

    Attributes
    ----------
    shape, spacing, ptr, col, weight, end, place
        As there, `col` counted from the first own node.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    ptr: np.ndarray
    col: np.ndarray
    weight: np.ndarray
    end: np.ndarray
    place: np.ndarray


@dataclass(frozen=True)
class _Merged:
    """How the nodes of the last level were merged."""

    halved: tuple[int, int, int]
    shape: tuple[int, ...]
    layers: tuple[int, int]
    place: np.ndarray
    shared: tuple[int, int]


class Hierarchy:
    """The levels of a domain.

    Parameters
    ----------
    finest : Graph
    arrays : Arrays
    workers : Workers
    slabs : int
        Ranges that the nodes of a level are worked on in.
    """

    def __init__(self, finest: Graph, arrays: Arrays, workers: Workers, slabs: int) -> None:
        self.levels, self.arrays, self.workers, self.slabs = [finest], arrays, workers, slabs
        self._inverse: np.ndarray | None = None

    def own_nodes(self) -> int:
        """Of the last level."""
        start, stop = self.levels[-1].own
        return stop - start

    def merge(self) -> Sides[Parents]:
        """Merge the nodes of the last level; tells the neighbours of those that they know."""
        level = self.levels[-1]
        halved = halved_axes(level.spacing, level.shape)
        shape = tuple(-(-n // (1 + s)) for n, s in zip(level.shape, halved, strict=True))
        level.parent, place = self._merge(level, halved, shape)
        lo, hi = layers = level.layers[0] >> halved[0], -(-level.layers[1] // (1 + halved[0]))
        (start, stop), (first, last) = level.own, level.shared
        kept, shared = map(int, np.searchsorted(place[:, 0], (hi - 1, lo + 1)))
        known = shared if level.beside[0] else 0, len(place) - kept if level.beside[1] else 0
        self._merged = _Merged(halved, shape, layers, place, known)
        one = Parents(level.parent[start : start + first].copy(), place[:shared].copy())
        two = Parents(np.maximum(level.parent[stop - last : stop] - kept, -1), place[kept:].copy())
        return one, two

    def gather(self, ghosts: Sides[Parents]) -> bool:
        """Make the next level, with what the neighbours tell; False if it would be no coarser."""
        level, merged, (below, above) = self.levels[-1], self._merged, ghosts
        place, count = merged.place, len(merged.place)
        assert level.parent is not None
        if merged.shape == level.shape and count == level.nodes:
            level.parent = None  # what is left conducts too little to be merged
            return False
        ((start, stop), (low, high)), before = (level.own, level.known), 0
        if below is not None:
            before = len(below.place)
            mine = level.parent[start:stop]
            mine[mine >= 0] += before
            level.parent[low:start] = below.parent
            place = np.concatenate([below.place, place])
        if above is not None:
            level.parent[stop:high] = np.where(above.parent < 0, -1, above.parent + (before + count))
            place = np.concatenate([place, above.place])
        coarser = self._gathered(level, merged, place, (before, before + count))
        coarser.layers, coarser.own, coarser.shared = merged.layers, (before, before + count), merged.shared
        coarser.beside = level.beside
        self.levels.append(coarser)
        return True

    def rows(self) -> Rows:
        """The own nodes of the last level."""
        level = self.levels[-1]
        assert level.end is not None and level.place is not None
        (start, stop), (a, b) = level.own, level.ptr[[level.own[0], level.own[1]]]
        return Rows(
            level.shape, level.spacing, level.ptr[start : stop + 1] - a, level.col[a:b] - np.int32(start),
            level.weight[a:b], level.end[start:stop], level.place[start:stop],
        )  # fmt: skip

    def finish(self, last: bool) -> None:
        """Make the vectors of all levels; if the last one is the coarsest of all, what solves on it."""
        if last and self.levels[-1].nodes <= _MOST_DIRECT:
            self._inverse = _inverse(self.levels[-1])
        for level in self.levels:
            level.end = level.place = None
        self._make_vectors()

    def _make_vectors(self) -> None:
        for level in self.levels:
            for name in ("b", "rest", "x", "smoothed", "sum"):
                level.vectors[name] = self.arrays.zeros(level.nodes, level.diagonal.dtype)

    def smooth_first(self, n: int, b: str) -> Sides[np.ndarray]:
        """x = omega b / diagonal."""
        self._scale(n, b, "x")
        return self._edges(n, "x")

    def restrict(self, ghosts: Sides[np.ndarray], n: int, b: str) -> None:
        """The next level's b = R (b - A x)."""
        self._put(n, "x", ghosts)
        self._gather_rest(n, b)

    def correct(self, ghosts: Sides[np.ndarray], n: int, b: str) -> Sides[np.ndarray]:
        """x += P sum of the next level; x + omega (b - A x) / diagonal is `sum`, or is added to it."""
        self._put(n + 1, "sum", ghosts)
        self._prolong(n)
        self._smooth(n, b, add=b != "b")
        return self._edges(n, "sum")

    def leave(self, ghosts: Sides[np.ndarray], n: int) -> None:
        """Rest = b - A sum."""
        self._put(n, "sum", ghosts)
        self._rest(n)

    def solve_last(self) -> Sides[np.ndarray]:
        """Sum = the inverse of the last level times b, or one sweep."""
        last = len(self.levels) - 1
        if self._inverse is None:
            self._scale(last, "b", "sum")
        else:
            self._solve()
        return None, None

    def take(self, n: int, name: str) -> np.ndarray:
        """The own part of a vector."""
        start, stop = self.levels[n].own
        return self.levels[n].vectors[name][start:stop].copy()

    def put(self, part: np.ndarray, n: int, name: str) -> Sides[np.ndarray]:
        """Set the own part of a vector."""
        start, stop = self.levels[n].own
        self.levels[n].vectors[name][start:stop] = part
        return self._edges(n, name)

    def _scale(self, n: int, b: str, x: str) -> None:
        """x = omega b / diagonal."""
        level, v, omega = self.levels[n], self.levels[n].vectors, self._omega
        ranges = [(0, level.nodes)] if n + 1 == len(self.levels) else level.ranges
        self.workers.map(lambda lo, hi: loops.scaled(lo, hi, omega, level.diagonal, v[b], v[x]), ranges)

    def _gather_rest(self, n: int, b: str) -> None:
        """The next level's b = R (b - A x)."""
        level, v, target = self.levels[n], self.levels[n].vectors, self.levels[n + 1].vectors["b"]
        self.workers.series(lambda lo, hi: target[lo:hi].fill(0), len(target))
        self.workers.map(
            lambda lo, hi: loops.restrict(lo, hi, *level.edges, v[b], v["x"], level.parent, target), level.ranges
        )

    def _prolong(self, n: int) -> None:
        """x += P sum, of ghosts too."""
        level, x, e = self.levels[n], self.levels[n].vectors["x"], self.levels[n + 1].vectors["sum"]
        (start, stop), (low, high) = level.own, level.known
        beside = [(lo, hi) for lo, hi in ((low, start), (stop, high)) if lo < hi]
        self.workers.map(lambda lo, hi: loops.add_from_parent(lo, hi, x, e, level.parent), [*level.ranges, *beside])

    def _smooth(self, n: int, b: str, add: bool) -> None:
        """Sum = x + omega (b - A x) / diagonal, or that is added to it."""
        level, v, omega = self.levels[n], self.levels[n].vectors, self._omega
        out = v["smoothed"] if add else v["sum"]

        def smooth(lo: int, hi: int) -> None:
            loops.smooth(lo, hi, omega, *level.edges, v[b], v["x"], out)
            if add:
                loops.add(lo, hi, v["sum"], out)

        self.workers.map(smooth, level.ranges)

    def _rest(self, n: int) -> None:
        """Rest = b - A sum."""
        level, v = self.levels[n], self.levels[n].vectors
        self.workers.map(lambda lo, hi: loops.residual(lo, hi, *level.edges, v["b"], v["sum"], v["rest"]), level.ranges)

    def _solve(self) -> None:
        """Sum = the inverse of the last level times b."""
        v = self.levels[-1].vectors
        v["sum"][...] = self._inverse @ v["b"]

    @property
    def _omega(self) -> np.floating:
        """As compiled code takes it."""
        damping: np.floating = self.levels[0].diagonal.dtype.type(OMEGA)
        return damping

    def _edges(self, n: int, name: str) -> Sides[np.ndarray]:
        """What the neighbours know of a vector."""
        level, vector = self.levels[n], self.levels[n].vectors[name]
        (start, stop), (first, last) = level.own, level.shared
        return vector[start : start + first].copy(), vector[stop - last : stop].copy()

    def _put(self, n: int, name: str, ghosts: Sides[np.ndarray]) -> None:
        """Set what is known of the neighbours'."""
        level, vector, (below, above) = self.levels[n], self.levels[n].vectors[name], ghosts
        if below is not None:
            vector[level.known[0] : level.own[0]] = below
        if above is not None:
            vector[level.own[1] : level.known[1]] = above

    def _merge(
        self, level: Graph, halved: tuple[int, int, int], shape: tuple[int, ...]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The parent of every own node, numbered in the order of blocks, and the blocks of the parents."""
        assert level.place is not None
        arrays, n, edges, (start, stop) = self.arrays, level.nodes, (level.ptr, level.col, level.weight), level.own
        best, parent, size = arrays.zeros(n, level.weight.dtype), arrays.zeros(n, np.int32), arrays.zeros(n, np.int32)

        def series(work: Callable[[int, int], None]) -> None:
            self.workers.series(work, stop, start)

        self.workers.number(parent)
        alike = (level.place, halved, STRONG, best)
        series(lambda lo, hi: loops.strongest(lo, hi, level.ptr, level.weight, best))
        series(lambda lo, hi: loops.join_strong(lo, hi, *edges, *alike, parent))
        series(lambda lo, hi: loops.sizes(lo, hi, parent, size))
        series(lambda lo, hi: loops.join_single(lo, hi, *edges, *alike, size, parent))
        keys, blocks = arrays.zeros(stop - start, np.int64), (level.diagonal, level.place, halved, shape)
        count = self.workers.accumulate(
            lambda lo, hi, n: loops.number_roots(lo, hi, n, parent, *blocks, keys), stop, start
        )
        keys = keys[:count].copy()
        order = np.argsort(keys, kind="stable")
        rank = np.empty(count, np.int32)
        rank[order] = np.arange(count, dtype=np.int32)
        keys, place, numbered = keys[order], arrays.zeros((count, 3), level.place.dtype), arrays.zeros(n, np.int32)
        place[:, 2], place[:, 1], place[:, 0] = (
            keys % shape[2], keys // shape[2] % shape[1], keys // (shape[1] * shape[2])
        )  # fmt: skip
        given = (parent, level.diagonal, rank, numbered)
        self.workers.accumulate(lambda lo, hi, n: loops.assign(lo, hi, n, *given), stop, start)
        return numbered, place

    def _gathered(self, level: Graph, merged: _Merged, place: np.ndarray, own: tuple[int, int]) -> Graph:
        """The next level: its own nodes' edges, from those of their members."""
        arrays, workers, (start, stop), (first, last) = self.arrays, self.workers, level.own, own
        n, count, edges, halved = level.nodes, len(place), (level.ptr, level.col, level.weight), merged.halved
        begin, member, free = (arrays.zeros(size, np.int32) for size in (count + 1, n, count))
        workers.series(lambda lo, hi: loops.count_members(lo, hi, level.parent, begin), stop, start)
        workers.accumulate(lambda lo, hi, total: loops.sum_up(lo, hi, total, begin), count)
        free[...] = begin[:-1]
        workers.series(lambda lo, hi: loops.place_members(lo, hi, level.parent, free, member), stop, start)
        ptr, end = arrays.zeros(count + 1, np.int64), arrays.zeros(count, level.weight.dtype)
        col, weight = np.zeros(0, np.int32), np.zeros(0, level.weight.dtype)
        mark = arrays.zeros(count, np.int64)

        def gather(fill: bool) -> None:
            mark[...] = -1
            around = (mark, *edges, level.end, level.place, level.parent, begin, member, place, halved)
            workers.accumulate(
                lambda lo, hi, n: loops.gather(lo, hi, fill, n, *around, ptr, col, weight, end), last, first
            )

        gather(False)
        ptr[last:] = ptr[last]
        col, weight = arrays.zeros(int(ptr[-1]), np.int32), arrays.zeros(int(ptr[-1]), level.weight.dtype)
        gather(True)
        diagonal = arrays.zeros(count, level.weight.dtype)
        workers.series(lambda lo, hi: loops.diagonals(lo, hi, ptr, weight, end, diagonal), last, first)
        level.ranges = _ranges(level, halved[0], self.slabs if n > _SMALL else 1)
        spacing = tuple(h * (1 + s) for h, s in zip(level.spacing, halved, strict=True))
        return Graph(merged.shape, spacing, ptr, col, weight, diagonal, end, place)


def _ranges(level: Graph, halved: int, slabs: int) -> list[tuple[int, int]]:
    """Ranges of own nodes, in whole layers of the next level's blocks."""
    assert level.place is not None
    (lo, hi), (start, stop) = level.layers, level.own
    layers = np.array([lo + b for _, b in even(hi - lo, slabs, 1 + halved)][:-1], int)
    cuts = [start, *(start + np.searchsorted(level.place[start:stop, 0], layers)).tolist(), stop]
    return [(a, b) for a, b in itertools.pairwise(cuts) if a < b] or [(start, start)]


def assemble(parts: Sequence[Rows], arrays: Arrays, workers: Workers) -> Graph:
    """One graph from the rows of all domains."""
    nodes = np.cumsum([0, *(len(part.end) for part in parts)])
    edges = np.cumsum([0, *(len(part.col) for part in parts)])
    ptr = np.concatenate([np.zeros(1, np.int64), *(part.ptr[1:] + e for part, e in zip(parts, edges, strict=False))])
    # around a periodic axis, nodes of the last domain come before the first
    count = np.int32(nodes[-1])
    col = np.concatenate([(part.col + np.int32(n)) % count for part, n in zip(parts, nodes, strict=False)])
    weight, end, place = (np.concatenate([getattr(p, name) for p in parts]) for name in ("weight", "end", "place"))
    diagonal = arrays.zeros(len(end), weight.dtype)
    workers.series(lambda lo, hi: loops.diagonals(lo, hi, ptr, weight, end, diagonal), len(end))
    return Graph(parts[0].shape, parts[0].spacing, ptr, col, weight, diagonal, end, place)


def _inverse(level: Graph) -> np.ndarray:
    """The inverse of the coarsest level's matrix, but for the constants of components that reach no end."""
    assert level.end is not None
    n, row = level.nodes, np.repeat(np.arange(level.nodes), np.diff(level.ptr))
    weight, end = level.weight.astype(np.float64), level.end.astype(np.float64)
    diagonal = np.bincount(row, weight, n) + end  # exact sums, so that constants are in the null space to round-off
    scale = np.zeros(n)
    scale[diagonal > 0] = diagonal[diagonal > 0] ** -0.5
    matrix = np.diag(diagonal)
    np.subtract.at(matrix, (row, level.col), weight)
    matrix *= scale[:, None] * scale
    graph = scipy.sparse.csr_matrix((weight, level.col, level.ptr), (n, n))
    count, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    loose = (np.bincount(component, end, count) == 0)[component]
    constants = np.zeros((n, count))
    constants[loose, component[loose]] = diagonal[loose] ** 0.5
    size = np.linalg.norm(constants, axis=0)
    constants = constants[:, size > 0] / size[size > 0]
    null = constants @ constants.T
    matrix[diagonal == 0, diagonal == 0] = 1.0
    inverse = np.linalg.inv(matrix + null) - null
    inverse *= scale[:, None] * scale
    result: np.ndarray = inverse.astype(level.diagonal.dtype)
    return result
