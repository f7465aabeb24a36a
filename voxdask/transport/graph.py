"""Graphs of pieces: their edges as compressed rows, and the loops over them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from voxdask.transport.conductance import jit
from voxdask.transport.parallel import Ranges


@dataclass
class Graph:
    """A level of the hierarchy: nodes that conduct to each other, and to the ends.

    Attributes
    ----------
    shape : tuple of int
        Blocks along each axis.
    spacing : tuple of float
        Of the blocks.
    ptr, col, weight : ndarray
        Edges of node i are ``ptr[i]:ptr[i + 1]`` (int64): the node at the other end (int32), and what each conducts.
    diagonal : ndarray
        The sum of what a node's edges conduct, and of what it conducts to the ends.
    end : ndarray
        What it conducts to the ends; let go once the next level is made.
    place : ndarray, shape (nodes, 3)
        Block of each node; let go once the next level is made.
    parent : ndarray
        Node of the next level, -1 if it has none.
    ranges : list of (int, int)
        Ranges of nodes that threads may work on: those of different ranges have different parents.
    layers : (int, int)
        The layers of blocks along the first axis that the domain works on: all, unless there are several domains.
    own : (int, int)
        The range of its nodes.
    known : (int, int)
        The same with the ghosts before and after, which are nodes of the domains below and above.
    shared : (int, int)
        How many of the first and of the last own nodes are ghosts there.
    beside : (bool, bool)
        Whether there are domains below and above, which may know no node of this one.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    ptr: np.ndarray
    col: np.ndarray
    weight: np.ndarray
    diagonal: np.ndarray
    end: np.ndarray | None
    place: np.ndarray | None
    parent: np.ndarray | None = None
    ranges: Ranges = ()
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    layers: tuple[int, int] = field(init=False)
    own: tuple[int, int] = field(init=False)
    known: tuple[int, int] = field(init=False)
    shared: tuple[int, int] = (0, 0)
    beside: tuple[bool, bool] = (False, False)

    def __post_init__(self) -> None:
        self.layers, self.own, self.known = (0, self.shape[0]), (0, self.nodes), (0, self.nodes)

    def divide(self, layers: tuple[int, int], below: bool, above: bool) -> None:
        """Own the nodes of some layers of blocks; know a layer more where there is a neighbour."""
        assert self.place is not None
        self.layers, self.beside, (lo, hi), layer = layers, (below, above), layers, self.place[:, 0]
        start, stop = map(int, np.searchsorted(layer, layers))
        self.own = start, stop
        self.known = int(np.searchsorted(layer, lo - below)), int(np.searchsorted(layer, hi + above))
        first, last = map(int, np.searchsorted(layer, (lo + below, hi - above)))
        self.shared = first - start, stop - last

    @property
    def edges(self) -> tuple[np.ndarray, ...]:
        """What tells A, as the loops take it."""
        return self.ptr, self.col, self.weight, self.diagonal

    @property
    def nodes(self) -> int:
        """How many there are, ghosts among them."""
        return len(self.diagonal)


@jit
def roots(lo, hi, ptr, col, parent):
    """Join nodes that an edge connects: afterwards nodes of one component lead to the same root, their first node."""
    for i in range(lo, hi):
        for e in range(ptr[i], ptr[i + 1]):
            if col[e] < i:
                _join(parent, i, col[e])


@jit
def find(parent, i):
    """The root of a node."""
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@jit
def _join(parent, i, j):
    a, b = find(parent, i), find(parent, j)
    if a < b:
        parent[b] = a
    elif b < a:
        parent[a] = b


@jit
def mark(lo, hi, parent, sides, found):
    """Tell roots which ends their components are connected to."""
    for i in range(lo, hi):
        found[find(parent, i)] |= sides[i]


@jit
def spread(lo, hi, parent, found):
    """Tell every node what its root knows."""
    for i in range(lo, hi):
        found[i] = found[find(parent, i)]


@jit
def roots_of(lo, hi, parent):
    """The roots of some nodes."""
    out = np.empty(hi - lo, np.int64)
    for i in range(lo, hi):
        out[i - lo] = find(parent, i)
    return out


@jit
def diagonals(lo, hi, ptr, weight, end, out):
    """What nodes conduct in all."""
    for i in range(lo, hi):
        s = end[i]
        for e in range(ptr[i], ptr[i + 1]):
            s += weight[e]
        out[i] = s


@jit
def same_block(one, two, halved):
    """Whether two blocks are in one block of the next level."""
    a, b, c = halved
    return one[0] >> a == two[0] >> a and one[1] >> b == two[1] >> b and one[2] >> c == two[2] >> c


@jit
def strongest(lo, hi, ptr, weight, out):
    """The best edge of every node."""
    for i in range(lo, hi):
        s = np.float32(0)
        for e in range(ptr[i], ptr[i + 1]):
            s = max(s, weight[e])
        out[i] = s


@jit
def join_strong(lo, hi, ptr, col, weight, place, halved, strong, best, parent):
    """Join nodes of one block of the next level that conduct well to each other."""
    for i in range(lo, hi):
        for e in range(ptr[i], ptr[i + 1]):
            j = col[e]
            if j < i and weight[e] >= strong * max(best[i], best[j]) and same_block(place[i], place[j], halved):
                _join(parent, i, j)


@jit
def join_single(lo, hi, ptr, col, weight, place, halved, strong, best, size, parent):
    """Join nodes that are on their own to the one of their block that they conduct to best, if that is well enough."""
    for i in range(lo, hi):
        if size[find(parent, i)] > 1:
            continue
        to, most = -1, strong * best[i]
        for e in range(ptr[i], ptr[i + 1]):
            if weight[e] >= most and same_block(place[i], place[col[e]], halved):
                to, most = col[e], weight[e]
        if to >= 0:
            one, two = find(parent, i), find(parent, to)
            size[min(one, two)] = size[one] + size[two]
            _join(parent, one, two)


@jit
def sizes(lo, hi, parent, out):
    """Nodes of each root."""
    for i in range(lo, hi):
        out[find(parent, i)] += 1


@jit
def number_roots(lo, hi, n, parent, diagonal, place, halved, shape, key):
    """Write the block of every root, in their order, but for nodes that conduct nothing; returns how many there are."""
    for i in range(lo, hi):
        if diagonal[i] > 0 and find(parent, i) == i:
            b0, b1, b2 = place[i, 0] >> halved[0], place[i, 1] >> halved[1], place[i, 2] >> halved[2]
            key[n] = (np.int64(b0) * shape[1] + b1) * shape[2] + b2
            n += 1
    return n


@jit
def assign(lo, hi, n, parent, diagonal, order, out):
    """The number of every node's root, in a given order of the roots; -1 for nodes that conduct nothing."""
    for i in range(lo, hi):
        if diagonal[i] <= 0:
            out[i] = -1
        elif parent[i] == i:
            out[i] = order[n]
            n += 1
        else:
            out[i] = out[find(parent, i)]
    return n


@jit
def sum_up(lo, hi, total, counts):
    """Turn counts from the second place on into where each group ends; returns the sum so far."""
    for i in range(lo, hi):
        total += counts[i + 1]
        counts[i + 1] = total
    return total


@jit
def count_members(lo, hi, parent, start):
    """Count the nodes of each parent c into ``start[c + 1]``."""
    for i in range(lo, hi):
        if parent[i] >= 0:
            start[parent[i] + 1] += 1


@jit
def place_members(lo, hi, parent, free, member):
    """Write the nodes of each parent, in order, from its `free` place on."""
    for i in range(lo, hi):
        c = parent[i]
        if c >= 0:
            member[free[c]] = i
            free[c] += 1


@jit
def gather(
    lo, hi, fill, edges, mark, ptr, col, weight, end, place, parent, start, member, place1, halved, ptr1, col1,
    weight1, end1,
):  # fmt: skip
    """The edges of the next level's nodes: counted, or filled in. Returns how many there are so far."""
    half = np.array([0.5 if s else 1.0 for s in halved])
    for c in range(lo, hi):
        first = edges
        ended = 0.0
        for m in range(start[c], start[c + 1]):
            i = member[m]
            ended += end[i]
            for e in range(ptr[i], ptr[i + 1]):
                q = parent[col[e]]
                if q == c or q < 0:
                    continue
                if mark[q] < first:
                    mark[q] = edges
                    if fill:
                        col1[edges], weight1[edges] = q, 0
                    edges += 1
                if fill:
                    share = 1.0
                    for axis in range(3):
                        if place1[q, axis] != place1[c, axis]:
                            share = half[axis]
                    weight1[mark[q]] += weight[e] * share
        ptr1[c + 1] = edges
        if fill:
            end1[c] = ended * half[0]
    return edges


@jit
def _residual_of(i, ptr, col, weight, diagonal, b, x):
    """b - A x at a node."""
    s = b[i] - diagonal[i] * x[i]
    for e in range(ptr[i], ptr[i + 1]):
        s += weight[e] * x[col[e]]
    return s


@jit
def restrict(lo, hi, ptr, col, weight, diagonal, b, x, parent, target):
    """Add b - A x to the parents."""
    for i in range(lo, hi):
        s = _residual_of(i, ptr, col, weight, diagonal, b, x)
        if parent[i] >= 0:
            target[parent[i]] += s


@jit
def residual(lo, hi, ptr, col, weight, diagonal, b, x, out):
    """b - A x."""
    for i in range(lo, hi):
        out[i] = _residual_of(i, ptr, col, weight, diagonal, b, x)


@jit
def scaled(lo, hi, omega, diagonal, b, x):
    """x = omega b / diagonal."""
    for i in range(lo, hi):
        x[i] = omega * b[i] / diagonal[i] if diagonal[i] > 0 else b[i] * 0


@jit
def add_from_parent(lo, hi, x, e, parent):
    """x += P e."""
    for i in range(lo, hi):
        if parent[i] >= 0:
            x[i] += e[parent[i]]


@jit
def smooth(lo, hi, omega, ptr, col, weight, diagonal, b, x, out):
    """x + omega (b - A x) / diagonal."""
    for i in range(lo, hi):
        s = _residual_of(i, ptr, col, weight, diagonal, b, x)
        out[i] = x[i] + omega * s / diagonal[i] if diagonal[i] > 0 else x[i]


@jit
def add(lo, hi, x, y):
    """x += y."""
    for i in range(lo, hi):
        x[i] += y[i]
