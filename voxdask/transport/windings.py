"""Whether what conducts leads once around periodic axes, through any number of domains.

Nodes that conduct to each other are joined, with how many copies of the image lie between each and its root. Two paths
to a node that differ in that lead around.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from voxdask.transport.arrays import Arrays
from voxdask.transport.conductance import jit
from voxdask.transport.parallel import Workers
from voxdask.transport.pieces import Pieces
from voxdask.transport.sweeps import NONE

#: Layers that are gone through before mapped memory is given back.
_LAYERS = 32


@dataclass(frozen=True)
class Windings:
    """What a domain knows.

    Attributes
    ----------
    found : ndarray of bool, shape (3,)
        Whether something within leads around each axis.
    first, above : ndarray, shape (n, 4)
        For the first own nodes, and for those of the domain above, the root, and copies along each axis to it.
    """

    found: np.ndarray
    first: np.ndarray
    above: np.ndarray


def windings(pieces: Pieces, rows: tuple[int, int], arrays: Arrays, workers: Workers) -> Windings:
    """Join what conducts across the faces above, south and right of the own layers."""
    graph, found = pieces.graph, np.zeros(3, np.bool_)
    parent, shift = arrays.zeros(graph.nodes, np.int32), arrays.zeros((graph.nodes, 3), np.int16)
    workers.number(parent)
    given = (pieces.piece, pieces.base, pieces.halved, pieces.medium.periodic, parent, shift, found)
    for lo in range(*rows, _LAYERS):
        _lead(lo, min(lo + _LAYERS, rows[1]), *given)
        arrays.give_back()
    (start, stop), (_, high) = graph.own, graph.known
    sides = ((start, start + graph.shared[0]), (stop, high))
    first, above = (_roots_of(lo, hi, parent, shift) for lo, hi in sides)
    return Windings(found, first, above)


def led_around(domains: Sequence[Windings]) -> tuple[bool, bool, bool]:
    """Whether something leads around each periodic axis; along the others the mean flux is zero."""
    found = np.logical_or.reduce([domain.found for domain in domains])
    if len(domains) > 1:
        most = (max(d.first[:, 0].max(initial=0), d.above[:, 0].max(initial=0)) for d in domains)
        base = np.cumsum([0, *(1 + int(root) for root in most)])
        parent, shift = np.arange(base[-1]), np.zeros((base[-1], 3), np.int16)
        for i, domain in enumerate(domains):
            j = (i + 1) % len(domains)
            mine, others = domain.above.copy(), domains[j].first.copy()
            mine[:, 0] += base[i]
            others[:, 0] += base[j]
            _join(mine, others, int(j == 0), parent, shift, found)
    a, b, c = found.tolist()
    return a, b, c


@jit
def _shifted_root(parent, shift, i, total):
    """The root of a node, and how many copies of the image lie between them along each axis."""
    total[:] = 0
    j = i
    while parent[j] != j:
        total += shift[j]
        j = parent[j]
    root, left, j = j, total.copy(), i
    while j != root:
        after, own = parent[j], shift[j].copy()
        parent[j] = root
        shift[j] = left
        left -= own
        j = after
    return root


@jit
def _unite(ra, rb, between, parent, shift, found):
    """Join two roots that so many copies lie between; what joins a root with itself leads around."""
    if ra == rb:
        for axis in range(3):
            found[axis] |= between[axis] != 0
    elif ra < rb:
        parent[rb] = ra
        shift[rb] = between
    else:
        parent[ra] = rb
        shift[ra] = -between


@jit
def _lead(lo, hi, piece, base, halved, periodic, parent, shift, found):
    """Join what conducts across the faces of layers `lo` to `hi`, and find paths to another copy of a voxel."""
    shape = piece.shape
    s0, s1, s2 = halved
    one, two = np.zeros(3, np.int16), np.zeros(3, np.int16)
    for h in range(lo, hi):
        for j in range(shape[1]):
            for k in range(shape[2]):
                if piece[h, j, k] == NONE:
                    continue
                a = base[h >> s0, j >> s1, k >> s2] + piece[h, j, k]
                for axis in range(3):
                    i0, i1, i2 = h + (axis == 0), j + (axis == 1), k + (axis == 2)
                    around = (i0 == shape[0]) or (i1 == shape[1]) or (i2 == shape[2])
                    if around and not periodic[axis]:
                        continue
                    i0, i1, i2 = i0 % shape[0], i1 % shape[1], i2 % shape[2]
                    if piece[i0, i1, i2] == NONE:
                        continue
                    b = base[i0 >> s0, i1 >> s1, i2 >> s2] + piece[i0, i1, i2]
                    if a == b and not around:
                        continue
                    ra, rb = _shifted_root(parent, shift, a, one), _shifted_root(parent, shift, b, two)
                    one -= two
                    if around:
                        one[axis] += 1
                    _unite(ra, rb, one, parent, shift, found)


@jit
def _roots_of(lo, hi, parent, shift):
    """The roots of some nodes, and the copies along each axis that lie between them."""
    out, total = np.empty((hi - lo, 4), np.int64), np.zeros(3, np.int16)
    for i in range(lo, hi):
        out[i - lo, 0] = _shifted_root(parent, shift, i, total)
        out[i - lo, 1:] = total
    return out


@jit
def _join(mine, others, around, parent, shift, found):
    """Join nodes that two domains know, the second `around` copies along the first axis on."""
    one, two = np.zeros(3, np.int16), np.zeros(3, np.int16)
    for i in range(len(mine)):
        ra, rb = _shifted_root(parent, shift, mine[i, 0], one), _shifted_root(parent, shift, others[i, 0], two)
        for axis in range(3):
            one[axis] += mine[i, axis + 1] - two[axis] - others[i, axis + 1]
        one[0] += around
        _unite(ra, rb, one, parent, shift, found)
