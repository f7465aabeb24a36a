"""Blocks of up to 2 x 2 x 2 voxels, cut into pieces that conduct within; the graph that has them as nodes.

A block that a wall runs through holds several pieces. A coarse grid that took it for one would let through what the
image does not, which is why multigrid on voxel images fails near percolation; a graph of pieces keeps what is apart
apart. A block's pieces are numbered by their first voxels; nodes are in the order of the blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxdask.transport.arrays import Arrays
from voxdask.transport.conductance import conductance, jit
from voxdask.transport.graph import Graph, diagonals, find, sum_up
from voxdask.transport.medium import Medium
from voxdask.transport.parallel import Workers, even
from voxdask.transport.sweeps import NONE

#: Voxels are of one piece if the face between them conducts this share of the best face of either.
STRONG = 0.1
#: Nodes that four bytes can number.
_MOST_NODES = 2**31


@jit
def _weights_of(values, ends, c0, c1, c2, h, j, k, w):
    """The weights of a voxel's six faces: below, above, north, south, left, right. Returns what the ends conduct."""
    m = values[h + 1, j + 1, k + 1]
    w[0], w[1] = c0 * conductance(m, values[h, j + 1, k + 1]), c0 * conductance(m, values[h + 2, j + 1, k + 1])
    w[2], w[3] = c1 * conductance(m, values[h + 1, j, k + 1]), c1 * conductance(m, values[h + 1, j + 2, k + 1])
    w[4], w[5] = c2 * conductance(m, values[h + 1, j + 1, k]), c2 * conductance(m, values[h + 1, j + 1, k + 2])
    end = c0 * 0
    if h == 0:
        end += ends[0, j, k]
    if h == values.shape[0] - 3:
        end += ends[1, j, k]
    return end


@jit
def _cut(lo, hi, values, ends, c0, c1, c2, halved, strong, piece, count):
    """Number the pieces of the blocks in layers `lo` to `hi` of blocks."""
    n0, n1, n2 = piece.shape
    s0, s1, s2 = halved
    w = np.empty((8, 6), np.float64)
    best, parent, number = np.empty(8), np.empty(8, np.int64), np.empty(8, np.int64)
    for b0 in range(lo, hi):
        for b1 in range(count.shape[1]):
            for b2 in range(count.shape[2]):
                for q in range(8):
                    parent[q] = -1
                    a, b, c = q >> 2, (q >> 1) & 1, q & 1
                    h, j, k = (b0 << s0) + a, (b1 << s1) + b, (b2 << s2) + c
                    if a > s0 or b > s1 or c > s2 or h >= n0 or j >= n1 or k >= n2:
                        continue
                    piece[h, j, k] = NONE
                    if values[h + 1, j + 1, k + 1] == 0:
                        continue
                    end = _weights_of(values, ends, c0, c1, c2, h, j, k, w[q])
                    best[q] = w[q].max()
                    if best[q] > 0 or end > 0:
                        parent[q] = q
                    else:
                        values[h + 1, j + 1, k + 1] = 0  # nothing passes through a voxel on its own
                for q in range(8):
                    if parent[q] < 0:
                        continue
                    for axis in range(3):
                        other = q | (4 >> axis)
                        if other == q or parent[other] < 0:
                            continue
                        if w[q, 2 * axis + 1] >= strong * max(best[q], best[other]) and w[q, 2 * axis + 1] > 0:
                            one, two = find(parent, q), find(parent, other)
                            parent[max(one, two)] = min(one, two)
                for q in range(8):  # a voxel on its own goes with the neighbour that it conducts to best
                    if parent[q] != q:
                        continue
                    alone = True
                    for other in range(8):
                        if other != q and parent[other] >= 0 and find(parent, other) == q:
                            alone = False
                    if not alone:
                        continue
                    to, most = -1, strong * best[q]
                    for axis in range(3):
                        other = q ^ (4 >> axis)
                        face = w[q, 2 * axis + (1 if other > q else 0)]
                        if parent[other] >= 0 and face > 0 and face >= most:
                            to, most = other, face
                    if to >= 0:
                        one, two = q, find(parent, to)
                        parent[max(one, two)] = min(one, two)
                found = 0
                for q in range(8):
                    if parent[q] < 0:
                        continue
                    root = find(parent, q)
                    if root == q:
                        number[q] = found
                        found += 1
                    a, b, c = q >> 2, (q >> 1) & 1, q & 1
                    piece[(b0 << s0) + a, (b1 << s1) + b, (b2 << s2) + c] = number[root]
                count[b0, b1, b2] = found


@jit
def _link(
    lo, hi, fill, values, ends, c0, c1, c2, halved, periodic, piece, base, count, ptr, col, weight, end, place, sides
):
    """The edges of the nodes in layers `lo` to `hi` of blocks: counted into `ptr`, or filled in."""
    n0, n1, n2 = piece.shape
    s0, s1, s2 = halved
    half = np.array([0.5 if s else 1.0 for s in halved])
    w = np.empty(6)
    to, much, number = np.empty((8, 48), np.int64), np.empty((8, 48)), np.empty(8, np.int64)
    ended = np.empty(8)
    for b0 in range(lo, hi):
        for b1 in range(count.shape[1]):
            for b2 in range(count.shape[2]):
                if count[b0, b1, b2] == 0:
                    continue
                first = base[b0, b1, b2]
                number[:] = 0
                ended[:] = 0
                for q in range(8):
                    a, b, c = q >> 2, (q >> 1) & 1, q & 1
                    h, j, k = (b0 << s0) + a, (b1 << s1) + b, (b2 << s2) + c
                    if a > s0 or b > s1 or c > s2 or h >= n0 or j >= n1 or k >= n2 or piece[h, j, k] == NONE:
                        continue
                    mine = piece[h, j, k]
                    if fill and h == 0 and ends[0, j, k] > 0:
                        sides[first + mine] |= 1
                    if fill and h == n0 - 1 and ends[1, j, k] > 0:
                        sides[first + mine] |= 2
                    ended[mine] += _weights_of(values, ends, c0, c1, c2, h, j, k, w) * half[0]
                    for face in range(6):
                        if w[face] == 0:
                            continue
                        step = 2 * (face & 1) - 1
                        i0, i1, i2 = h, j, k
                        if face < 2:
                            i0 = (h + step + n0) % n0
                        elif face < 4:
                            i1 = (j + step + n1) % n1
                        else:
                            i2 = (k + step + n2) % n2
                        other = base[i0 >> s0, i1 >> s1, i2 >> s2] + piece[i0, i1, i2]
                        if other == first + mine:
                            continue
                        # pieces of one block conduct at full strength; across blocks centres are twice as far apart
                        inside = i0 >> s0 == b0 and i1 >> s1 == b1 and i2 >> s2 == b2
                        share = w[face] * (1.0 if inside else half[face >> 1])
                        known = False
                        for e in range(number[mine]):
                            if to[mine, e] == other:
                                much[mine, e] += share
                                known = True
                                break
                        if not known:
                            to[mine, number[mine]], much[mine, number[mine]] = other, share
                            number[mine] += 1
                for mine in range(count[b0, b1, b2]):
                    if not fill:
                        ptr[first + mine + 1] = number[mine]
                        continue
                    end[first + mine] = ended[mine]
                    place[first + mine, 0], place[first + mine, 1], place[first + mine, 2] = b0, b1, b2
                    for e in range(number[mine]):
                        col[ptr[first + mine] + e], weight[ptr[first + mine] + e] = to[mine, e], much[mine, e]


@jit
def _forget(lo, hi, values, piece, base, count, halved, floating):
    """Let go of pieces that float, and number the others of a block anew."""
    n0, n1, n2 = piece.shape
    s0, s1, s2 = halved
    new = np.empty(8, np.int64)
    for b0 in range(lo, hi):
        for b1 in range(count.shape[1]):
            for b2 in range(count.shape[2]):
                kept, changed = 0, False
                for q in range(count[b0, b1, b2]):
                    if floating[base[b0, b1, b2] + q]:
                        new[q], changed = NONE, True
                    else:
                        new[q] = kept
                        kept += 1
                if not changed:
                    continue
                count[b0, b1, b2] = kept
                for h in range(b0 << s0, min(n0, (b0 + 1) << s0)):
                    for j in range(b1 << s1, min(n1, (b1 + 1) << s1)):
                        for k in range(b2 << s2, min(n2, (b2 + 1) << s2)):
                            if piece[h, j, k] != NONE:
                                piece[h, j, k] = new[piece[h, j, k]]
                                if piece[h, j, k] == NONE:
                                    values[h + 1, j + 1, k + 1] = 0


@jit
def _count(lo, hi, piece, base, halved, reached):
    """Voxels of layers `lo` to `hi` by the ends that they are connected to."""
    _, n1, n2 = piece.shape
    s0, s1, s2 = halved
    found = np.zeros(4, np.int64)
    for h in range(lo, hi):
        for j in range(n1):
            for k in range(n2):
                q = piece[h, j, k]
                if q != NONE:
                    found[reached[base[h >> s0, j >> s1, k >> s2] + q]] += 1
    return found


@jit
def _number(lo, hi, n, count, first):
    """The first node of each block, from the counts of all; returns the nodes so far."""
    for i in range(lo, hi):
        first[i] = n
        n += count[i]
    return n


@jit
def _renumber(lo, hi, n, floating, new):
    """New numbers of nodes that do not float; returns how many there are so far."""
    for i in range(lo, hi):
        new[i] = n
        if not floating[i]:
            n += 1
    return n


@jit
def _drop(lo, hi, edges, floating, ptr, col, weight, diagonal, end, place, new):
    """Take nodes that float out of a graph, in place; no edge leads from them to others. Returns the edges so far."""
    for i in range(lo, hi):
        start, stop = ptr[i], ptr[i + 1]
        if floating[i]:
            continue
        ptr[new[i]] = edges
        diagonal[new[i]], end[new[i]] = diagonal[i], end[i]
        for axis in range(3):
            place[new[i], axis] = place[i, axis]
        for e in range(start, stop):
            col[edges], weight[edges] = new[col[e]], weight[e]
            edges += 1
    return edges


@dataclass
class Pieces:
    """Which node of the first graph a voxel belongs to: ``base`` of its block plus its ``piece``.

    Attributes
    ----------
    medium : Medium
    piece : ndarray of uint8
        For every voxel; NONE where it conducts nothing.
    base : ndarray of int32
        The first node of every block.
    count : ndarray of uint8
        Pieces of every block.
    halved : tuple of int
        1 for every axis along which a block is two voxels long.
    graph : Graph
        Of the pieces; blocks are counted from the first of the medium.
    sides : ndarray of uint8
        For every node, which ends it conducts to itself: 1 for the first, 2 for the last.
    """

    medium: Medium
    piece: np.ndarray
    base: np.ndarray
    count: np.ndarray
    halved: tuple[int, int, int]
    graph: Graph
    sides: np.ndarray

    def keep(self, reached: np.ndarray, arrays: Arrays, workers: Workers, slabs: int) -> None:
        """Clear the nodes that reach nothing, and their voxels; no edge may lead from them to others."""
        loose = reached == 0
        if not loose.any():
            return
        medium, graph = self.medium, self.graph
        assert graph.end is not None and graph.place is not None
        given = (medium.values, self.piece, self.base, self.count, self.halved, loose)
        workers.map(lambda lo, hi: _forget(lo, hi, *given), even(len(self.base), slabs))
        medium.wrap(arrays)
        nodes = graph.nodes
        new = arrays.zeros(nodes, np.int32)
        kept = workers.accumulate(lambda lo, hi, n: _renumber(lo, hi, n, loose, new), nodes)
        rows = (graph.ptr, graph.col, graph.weight, graph.diagonal, graph.end, graph.place)
        edges = workers.accumulate(lambda lo, hi, n: _drop(lo, hi, n, loose, *rows, new), nodes)
        graph.ptr[kept] = edges
        graph.ptr, graph.col, graph.weight = graph.ptr[: kept + 1], graph.col[:edges], graph.weight[:edges]
        graph.end, graph.place, graph.diagonal = graph.end[:kept], graph.place[:kept], graph.diagonal[:kept]
        _number_blocks(self.count, self.base, workers)

    def voxels(self, reached: np.ndarray, rows: tuple[int, int], workers: Workers, slabs: int) -> np.ndarray:
        """How many voxels of some layers reach nothing, the first end, the last, and both; `reached` by nodes."""
        found = np.zeros(4, np.int64)
        ranges = [(rows[0] + lo, rows[0] + hi) for lo, hi in even(rows[1] - rows[0], slabs)]
        for some in workers.map(
            lambda lo, hi: _count(lo, hi, self.piece, self.base, self.halved, reached), ranges
        ):
            found += some
        return found


def cut(
    medium: Medium, halved: tuple[int, int, int], arrays: Arrays, workers: Workers, slabs: int, place: Any = np.int16
) -> Pieces:
    """Cut a medium into pieces; `place` is the type of the numbers of blocks along an axis."""
    shape = medium.shape
    spacing = tuple(c**-0.5 for c in medium.factors)
    blocks = tuple(-(-n // (1 + s)) for n, s in zip(shape, halved, strict=True))
    piece, count = arrays.zeros(shape, np.uint8), np.zeros(blocks, np.uint8)
    base = arrays.zeros(blocks, np.int32)
    ranges = even(blocks[0], slabs)
    given = (medium.values, medium.ends, *medium.weights, halved)
    workers.map(lambda lo, hi: _cut(lo, hi, *given, STRONG, piece, count), ranges)
    nodes = _number_blocks(count, base, workers)
    if nodes >= _MOST_NODES:
        raise ValueError(f"image has {nodes:,} connected pieces of eight voxels; {_MOST_NODES:,} can be numbered")
    ptr, end = arrays.zeros(nodes + 1, np.int64), arrays.zeros(nodes, medium.dtype)
    places, sides = arrays.zeros((nodes, 3), place), np.zeros(nodes, np.uint8)
    col, weight = np.zeros(0, np.int32), np.zeros(0, medium.dtype)

    def link(fill: bool) -> None:
        around = (*given, medium.periodic, piece, base, count, ptr, col, weight, end, places, sides)
        workers.map(lambda lo, hi: _link(lo, hi, fill, *around), ranges)

    link(False)
    workers.accumulate(lambda lo, hi, n: sum_up(lo, hi, n, ptr), nodes)
    col, weight = arrays.zeros(int(ptr[-1]), np.int32), arrays.zeros(int(ptr[-1]), medium.dtype)
    link(True)
    diagonal = arrays.zeros(nodes, medium.dtype)
    workers.series(lambda lo, hi: diagonals(lo, hi, ptr, weight, end, diagonal), nodes)
    wide = tuple(h * (1 + s) for h, s in zip(spacing, halved, strict=True))
    graph = Graph(blocks, wide, ptr, col, weight, diagonal, end, places)
    return Pieces(medium, piece, base, count, halved, graph, sides)


def _number_blocks(count: np.ndarray, base: np.ndarray, workers: Workers) -> int:
    """Number the pieces of all blocks; how many there are."""
    flat = count.ravel(), base.ravel()
    return workers.accumulate(lambda lo, hi, n: _number(lo, hi, n, *flat), count.size)


def halved_axes(spacing: Sequence[float], shape: Sequence[int]) -> tuple[int, int, int]:
    """1 for the axes that the next level is coarser along: those that are finer than twice the finest."""
    finest = min((h for h, n in zip(spacing, shape, strict=True) if n > 1), default=0.0)
    a, b, c = (int(n > 1 and h < 1.999 * finest) for h, n in zip(spacing, shape, strict=True))
    return a, b, c
