"""What is connected to an end of an image, through any number of domains, each of which joins its own nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph

from voxdask.transport import graph as loops
from voxdask.transport.arrays import Arrays
from voxdask.transport.graph import Graph
from voxdask.transport.parallel import Workers


@dataclass(frozen=True)
class Seams:
    """Roots of the nodes that two domains know, in the order of the nodes, and what reaches them.

    Attributes
    ----------
    below, first, last, above : ndarray
        Of the last nodes of the domain below, of this domain's first and last ones, and of the first ones above.
    roots, reached : ndarray
        Each of these roots once, and the ends that its component is connected to within the domain.
    """

    below: np.ndarray
    first: np.ndarray
    last: np.ndarray
    above: np.ndarray
    roots: np.ndarray
    reached: np.ndarray


class Components:
    """The components of a domain's nodes.

    Parameters
    ----------
    graph : Graph
    sides : ndarray of uint8
        For every node, which ends it conducts to itself: 1 for the first, 2 for the last.
    arrays : Arrays
    workers : Workers
    """

    def __init__(self, graph: Graph, sides: np.ndarray, arrays: Arrays, workers: Workers) -> None:
        self.graph, self.workers = graph, workers
        self.parent, self.reached = arrays.zeros(len(sides), np.int32), np.zeros(len(sides), np.uint8)
        parent, (start, _), (_, high) = self.parent, graph.own, graph.known
        workers.number(parent)
        workers.series(lambda lo, hi: loops.roots(lo, hi, graph.ptr, graph.col, parent), high, start)
        workers.series(lambda lo, hi: loops.mark(lo, hi, parent, sides, self.reached), len(sides))

    def seams(self) -> Seams:
        """What the neighbours need to know."""
        (start, stop), (low, high), (lower, upper) = self.graph.own, self.graph.known, self.graph.shared
        nodes = ((low, start), (start, start + lower), (stop - upper, stop), (stop, high))
        below, first, last, above = (loops.roots_of(lo, hi, self.parent) for lo, hi in nodes)
        known = np.unique(np.concatenate([below, first, last, above]))
        return Seams(below, first, last, above, known, self.reached[known])

    def spread(self, known: np.ndarray, reached: np.ndarray) -> np.ndarray:
        """The ends that every node reaches, from those of some roots; what no one else knows here reaches both."""
        self.reached[known] |= reached
        workers, (low, high) = self.workers, self.graph.known
        workers.series(lambda lo, hi: loops.spread(lo, hi, self.parent, self.reached), len(self.reached))
        self.reached[:low] = self.reached[high:] = 3
        return self.reached


def unite(domains: Sequence[Seams]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For every domain roots, and which ends their components are connected to through all of them."""
    first = np.cumsum([0, *(len(domain.roots) for domain in domains)])
    rows, columns = [], []
    for i in range(len(domains) - 1):
        one, two = domains[i], domains[i + 1]
        for mine, others in ((one.last, two.below), (one.above, two.first)):
            rows.append(first[i] + np.searchsorted(one.roots, mine))
            columns.append(first[i + 1] + np.searchsorted(two.roots, others))
    row, column = (np.concatenate(some) if some else np.zeros(0, int) for some in (rows, columns))
    size = int(first[-1])
    links = scipy.sparse.coo_matrix((np.ones(len(row), bool), (row, column)), (size, size))
    count, component = scipy.sparse.csgraph.connected_components(links, directed=False)
    reached = np.zeros(count, np.uint8)
    np.bitwise_or.at(reached, component, np.concatenate([domain.reached for domain in domains]))
    return [
        (domain.roots, reached[component[lo:hi]])
        for domain, lo, hi in zip(domains, first[:-1], first[1:], strict=True)
    ]
