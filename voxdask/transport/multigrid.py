"""A hierarchy of graphs under a voxel image, and a cycle through it: the preconditioner.

Nodes of a level are merged with those of their block (2 x 2 x 2 blocks of the level before) that they conduct to, and
only with those. Corrections are constant over merged nodes. That alone would make a coarse level too stiff: the centres
of merged nodes are twice as far apart, so that an edge across blocks conducts half of what the edges in it do in sum.
"""

from __future__ import annotations

import itertools

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from voxdask.transport import graph as loops
from voxdask.transport.arrays import Arrays
from voxdask.transport.graph import Graph
from voxdask.transport.parallel import Workers, even
from voxdask.transport.pieces import STRONG, halved_axes

#: Damping of Jacobi's sweeps.
OMEGA = 0.85
#: A level of at most so many nodes is solved directly.
_DIRECT = 300
#: One of more, which has none below it as it conducts too little, is only smoothed.
_MOST_DIRECT = 3000
#: Levels of fewer nodes are worked on by one thread.
_SMALL = 20_000


class Multigrid:
    """A preconditioner on a graph: a W-cycle, twice on every level, with a damped Jacobi sweep around each correction.

    Parameters
    ----------
    finest : Graph
        Its ``end`` and ``place`` are let go.
    arrays : Arrays
    workers : Workers
    slabs : int
        Ranges that the nodes of a level are worked on in.
    """

    def __init__(self, finest: Graph, arrays: Arrays, workers: Workers, slabs: int) -> None:
        self.workers = workers
        self.levels = [finest]
        while finest.nodes > _DIRECT:
            coarser = _coarser(finest, arrays, workers, slabs)
            if coarser.nodes == finest.nodes and coarser.shape == finest.shape:
                finest.parent = None  # what is left conducts too little to be merged
                break
            self.levels.append(coarser)
            finest = coarser
        self.inverse = _inverse(finest) if finest.nodes <= _MOST_DIRECT else None
        for level in self.levels:
            level.end = level.place = None
            for name in ("b", "rest", "x", "smoothed", "sum"):
                level.vectors[name] = arrays.zeros(level.nodes, level.diagonal.dtype)

    def solve(self) -> np.ndarray:
        """What the right-hand side in ``levels[0].vectors["b"]`` gives, roughly: the cycle, twice."""
        return self._twice(0)

    def _twice(self, number: int) -> np.ndarray:
        """The cycle, and once more for what it leaves."""
        level, v = self.levels[number], self.levels[number].vectors
        if number == len(self.levels) - 1:
            if self.inverse is None:
                loops.scaled(0, level.nodes, level.diagonal.dtype.type(OMEGA), level.diagonal, v["b"], v["sum"])
            else:
                v["sum"][...] = self.inverse @ v["b"]
            return v["sum"]
        first, over = self._cycle(number, v["b"]), self.workers.map
        over(lambda lo, hi: np.copyto(v["sum"][lo:hi], first[lo:hi]), level.ranges)
        edges = (level.ptr, level.col, level.weight, level.diagonal)
        over(lambda lo, hi: loops.residual(lo, hi, *edges, v["b"], v["sum"], v["rest"]), level.ranges)
        second = self._cycle(number, v["rest"])
        over(lambda lo, hi: loops.add(lo, hi, v["sum"], second), level.ranges)
        return v["sum"]

    def _cycle(self, number: int, b: np.ndarray) -> np.ndarray:
        level, v, coarser = self.levels[number], self.levels[number].vectors, self.levels[number + 1]
        omega, x, target = level.diagonal.dtype.type(OMEGA), v["x"], coarser.vectors["b"]
        edges = (level.ptr, level.col, level.weight, level.diagonal)
        over = self.workers.map
        over(lambda lo, hi: loops.scaled(lo, hi, omega, level.diagonal, b, x), level.ranges)
        self.workers.series(lambda lo, hi: target[lo:hi].fill(0), len(target))
        over(lambda lo, hi: loops.restrict(lo, hi, *edges, b, x, level.parent, target), level.ranges)
        correction = self._twice(number + 1)
        over(lambda lo, hi: loops.add_from_parent(lo, hi, x, correction, level.parent), level.ranges)
        over(lambda lo, hi: loops.smooth(lo, hi, omega, *edges, b, x, v["smoothed"]), level.ranges)
        return v["smoothed"]


def _coarser(level: Graph, arrays: Arrays, workers: Workers, slabs: int) -> Graph:
    """Merge nodes."""
    assert level.end is not None and level.place is not None
    halved = halved_axes(level.spacing, level.shape)
    shape = tuple(-(-n // (1 + s)) for n, s in zip(level.shape, halved, strict=True))
    level.parent, place = _merge(level, arrays, workers, halved, shape)
    n, count, edges = level.nodes, len(place), (level.ptr, level.col, level.weight)
    start, member, free = arrays.zeros(count + 1, np.int32), arrays.zeros(n, np.int32), arrays.zeros(count, np.int32)
    workers.series(lambda lo, hi: loops.count_members(lo, hi, level.parent, start), n)
    workers.accumulate(lambda lo, hi, total: loops.sum_up(lo, hi, total, start), count)
    free[...] = start[:-1]
    workers.series(lambda lo, hi: loops.place_members(lo, hi, level.parent, free, member), n)
    ptr, end = arrays.zeros(count + 1, np.int64), arrays.zeros(count, level.weight.dtype)
    col, weight = np.zeros(0, np.int32), np.zeros(0, level.weight.dtype)
    mark = arrays.zeros(count, np.int64)

    def gather(fill: bool) -> None:
        mark[...] = -1
        around = (mark, *edges, level.end, level.place, level.parent, start, member, place, halved)
        workers.accumulate(lambda lo, hi, n: loops.gather(lo, hi, fill, n, *around, ptr, col, weight, end), count)

    gather(False)
    col, weight = arrays.zeros(int(ptr[-1]), np.int32), arrays.zeros(int(ptr[-1]), level.weight.dtype)
    gather(True)
    diagonal = arrays.zeros(count, level.weight.dtype)
    workers.series(lambda lo, hi: loops.diagonals(lo, hi, ptr, weight, end, diagonal), count)
    level.ranges = _ranges(level, halved[0], slabs if n > _SMALL else 1)
    spacing = tuple(h * (1 + s) for h, s in zip(level.spacing, halved, strict=True))
    return Graph(shape, spacing, ptr, col, weight, diagonal, end, place)


def _merge(
    level: Graph, arrays: Arrays, workers: Workers, halved: tuple[int, int, int], shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """The parent of every node, numbered in the order of blocks, and the blocks of the parents."""
    n, edges, series = level.nodes, (level.ptr, level.col, level.weight), workers.series
    best, parent, size = arrays.zeros(n, level.weight.dtype), arrays.zeros(n, np.int32), arrays.zeros(n, np.int32)
    series(lambda lo, hi: np.copyto(parent[lo:hi], np.arange(lo, hi)), n)
    alike = (level.place, halved, STRONG, best)
    series(lambda lo, hi: loops.strongest(lo, hi, level.ptr, level.weight, best), n)
    series(lambda lo, hi: loops.join_strong(lo, hi, *edges, *alike, parent), n)
    series(lambda lo, hi: loops.sizes(lo, hi, parent, size), n)
    series(lambda lo, hi: loops.join_single(lo, hi, *edges, *alike, size, parent), n)
    keys, blocks = arrays.zeros(n, np.int64), (level.diagonal, level.place, halved, shape)
    count = workers.accumulate(lambda lo, hi, n: loops.number_roots(lo, hi, n, parent, *blocks, keys), n)
    keys = keys[:count].copy()
    order = np.argsort(keys, kind="stable")
    rank = np.empty(count, np.int32)
    rank[order] = np.arange(count, dtype=np.int32)
    keys, place, numbered = keys[order], arrays.zeros((count, 3), np.int16), arrays.zeros(n, np.int32)
    place[:, 2], place[:, 1], place[:, 0] = keys % shape[2], keys // shape[2] % shape[1], keys // (shape[1] * shape[2])

    given = (parent, level.diagonal, rank, numbered)
    workers.accumulate(lambda lo, hi, n: loops.assign(lo, hi, n, *given), n)
    return numbered, place


def _ranges(level: Graph, halved: int, slabs: int) -> list[tuple[int, int]]:
    """Ranges of nodes, in whole layers of the next level's blocks."""
    assert level.place is not None
    layers = np.array([b for _, b in even(level.shape[0], slabs, 1 + halved)][:-1], int)
    cuts = [0, *map(int, np.searchsorted(level.place[:, 0], layers)), level.nodes]
    return [(a, b) for a, b in itertools.pairwise(cuts) if a < b] or [(0, 0)]


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
