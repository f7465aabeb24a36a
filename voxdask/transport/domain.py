"""A domain: the layers of a medium that one process works on, with what a solve keeps for them, and its sweeps.

Beyond the layers that it owns a domain knows some of its neighbours': ghosts. A sweep that a neighbour waits for
returns the first and last layer of what it wrote; one that needs the neighbours' takes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from voxdask.transport import sweeps
from voxdask.transport.arrays import Arrays
from voxdask.transport.components import Components, Seams
from voxdask.transport.hierarchy import OMEGA, Hierarchy
from voxdask.transport.layers import Layers
from voxdask.transport.medium import Medium
from voxdask.transport.parallel import Workers, even
from voxdask.transport.pieces import cut, halved_axes
from voxdask.transport.team import Sides
from voxdask.transport.windings import Windings, windings


@dataclass(frozen=True)
class Extent:
    """Where a domain lies in the whole medium.

    Attributes
    ----------
    shape : tuple of int
        Of the whole medium.
    own : (int, int)
        Its layers along the first axis.
    known : (int, int)
        The same with ghosts; those beyond an end are of the other side.
    """

    shape: tuple[int, int, int]
    own: tuple[int, int]
    known: tuple[int, int]

    @classmethod
    def whole(cls, shape: tuple[int, int, int]) -> Extent:
        """All of a medium."""
        return cls(shape, (0, shape[0]), (0, shape[0]))

    @property
    def rows(self) -> tuple[int, int]:
        """The own layers, counted from the first known one."""
        return self.own[0] - self.known[0], self.own[1] - self.known[0]

    @property
    def neighbours(self) -> tuple[bool, bool]:
        """Whether there are domains below and above."""
        return self.known[0] < self.own[0], self.own[1] < self.known[1]


class Domain(Hierarchy):
    """One of a team.

    Parameters
    ----------
    medium : Medium
        The known layers.
    arrays : Arrays
    threads : int
    slabs : int
        How many slabs the voxels are cut into; at least one for each thread.
    extent : Extent, optional
        By default the whole of the medium.

    Attributes
    ----------
    x : ndarray
        The field.
    source : ndarray
        What enters each voxel, for solves that have one.
    ranges : list of (int, int)
        Slabs of the own layers.
    """

    x: np.ndarray
    source: np.ndarray

    def __init__(
        self, medium: Medium, arrays: Arrays, threads: int, slabs: int, extent: Extent | None = None
    ) -> None:
        self.medium, self.extent = medium, extent or Extent.whole(medium.shape)
        workers, (lo, hi) = Workers(threads, arrays), self.extent.rows
        halved = halved_axes([c**-0.5 for c in medium.factors], self.extent.shape)
        place = np.int16 if max(self.extent.shape) < np.iinfo(np.int16).max else np.int32
        self.pieces = cut(medium, halved, arrays, workers, slabs, place)
        self.ranges = [(lo + a, lo + b) for a, b in even(hi - lo, slabs, 1 + halved[0])]
        super().__init__(self.pieces.graph, arrays, workers, slabs)
        self._kept: dict[str, np.ndarray] = {}
        self._place()

    def _place(self) -> None:
        """Tell the first graph where in the whole it is, and which nodes are whose."""
        graph, halved, (below, above) = self.pieces.graph, self.pieces.halved, self.extent.neighbours
        assert graph.place is not None
        graph.shape = tuple(-(-n // (1 + s)) for n, s in zip(self.extent.shape, halved, strict=True))
        graph.place[:, 0] += self.extent.known[0] >> halved[0]
        lo, hi = self.extent.own
        graph.divide((lo >> halved[0], -(-hi // (1 + halved[0]))), below, above)

    def rounding(self) -> float:
        """What weights may be off by, relative."""
        return self.medium.rounding

    def has_ends(self) -> bool:
        """Whether any voxel conducts to an end."""
        return bool(self.medium.ends.any())

    def no_flow(self) -> Layers:
        """Through the own layers."""
        return Layers.none(*self.extent.own)

    def seams(self) -> Seams:
        """Join what is connected within the domain; what neighbours need to know of it."""
        self._components = Components(self.pieces.graph, self.pieces.sides, self.arrays, self.workers)
        return self._components.seams()

    def keep_reached(self, known: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
        """Clear what is connected to no end, given this of some roots; own voxels by the ends that they reach."""
        reached = self._components.spread(*known)
        del self._components
        self.pieces.keep(reached, self.arrays, self.workers, self.slabs)
        graph = self.pieces.graph
        graph.divide(graph.layers, *self.extent.neighbours)
        return self.pieces.voxels(reached[reached > 0], self.extent.rows, self.workers, self.slabs)

    def windings(self) -> Windings:
        """What leads once around a periodic axis, as far as the domain knows."""
        return windings(self.pieces, self.extent.rows, self.arrays, self.workers)

    def prepare(self) -> None:
        """Make the fields; a medium that nothing passes through needs none."""
        shape = n0, n1, n2 = self.medium.shape
        self.x, self._r, self._z = (self.arrays.zeros(shape, self.medium.dtype) for _ in range(3))
        self._p = self.arrays.zeros((n0 + 2, n1 + 2, n2 + 2), self.medium.dtype)

    def start_linear(self, held: tuple[float, float]) -> None:
        """Let the field rise along the first axis of the whole from one end to the other."""
        (first, _), n0 = self.extent.known, self.extent.shape[0]
        conducting = self.medium.values[1:-1, 1:-1, 1:-1]

        def fill(lo: int, hi: int) -> None:
            for h in range(lo, hi):
                value = held[0] + (held[1] - held[0]) * (first + h + 0.5) / n0
                np.multiply(conducting[h] > 0, value, out=self.x[h], casting="unsafe")

        self.workers.map(fill, self.ranges)

    def clear(self) -> None:
        """Let the field be zero."""
        self.workers.map(lambda lo, hi: self.x[lo:hi].fill(0), self.ranges)

    def keep(self, name: str) -> None:
        """Copy the field."""
        out = self._kept[name] = self.arrays.zeros(self.medium.shape, self.medium.dtype)
        self.workers.map(lambda lo, hi: np.copyto(out[lo:hi], self.x[lo:hi]), self.ranges)

    def take_sum(self, first: str, second: str) -> None:
        """Let the field be the sum of two that were kept."""
        one, two = self._kept[first], self._kept[second]
        self.workers.map(lambda lo, hi: np.add(one[lo:hi], two[lo:hi], out=self.x[lo:hi]), self.ranges)

    def mask_field(self) -> np.ndarray:
        """Let the field be NaN where nothing conducts; the conducting voxels of each own layer."""
        conducting, (first, stop) = self.medium.values[1:-1, 1:-1, 1:-1], self.extent.rows
        share = np.zeros(stop - first)

        def mask(lo: int, hi: int) -> None:
            for h in range(lo, hi):
                inside = conducting[h] > 0
                share[h - first] = np.count_nonzero(inside)
                np.copyto(self.x[h], np.nan, where=~inside)

        self.workers.map(mask, self.ranges)
        return share

    def field(self) -> np.ndarray:
        """The own layers of the field."""
        lo, hi = self.extent.rows
        return self.x[lo:hi]

    def edges_of_field(self) -> Sides[np.ndarray]:
        """Of x."""
        return self._edge_layers(self.x)

    def true_residual(
        self,
        ghosts: Sides[np.ndarray],
        held: tuple[float, float],
        jumps: tuple[float, ...],
        charged: bool,
    ) -> Layers:
        """r = b - A x, from differences; see :meth:`Solver.solve`."""
        self._put_layers(self.x, ghosts)
        m, n0 = self.medium, self.medium.shape[0]
        flux, between, within = np.zeros(n0 + 1), np.zeros(n0 + 1), np.zeros(n0)
        around = (m.values, m.ends, *map(float, m.weights), m.periodic, held, jumps, flux, between, within)

        def sweep(lo: int, hi: int) -> float:
            sweeps.true_residual_sweep(lo, hi, self.x, self._r, *around)
            return float(sweeps.add_source_sweep(lo, hi, self.source, self.x, self._r)) if charged else 0.0

        given = self.workers.map(sweep, self.ranges)
        lo, hi = self.extent.rows
        return Layers(self.extent.own[0], flux[lo : hi + 1], between[lo : hi + 1], within[lo:hi], sum(given))

    def rest(self) -> None:
        """p = 0."""
        self.workers.map(lambda lo, hi: self._p[lo : hi + 2].fill(0), self.ranges)

    def residual(self, step: float) -> tuple[float, Sides[np.ndarray]]:
        """r -= step A p, of which what a sweep leaves goes to the nodes; (r, r), and the edges of r."""
        target, real = self.levels[0].vectors["b"], self.medium.dtype.type
        self.workers.series(lambda lo, hi: target[lo:hi].fill(0), len(target))
        alpha, omega, around = real(step), real(OMEGA), (*self._around(), *self._nodes(), target)
        squares = self.workers.map(
            lambda lo, hi: sweeps.residual_sweep(lo, hi, alpha, omega, self._p, self._r, *around), self.ranges
        )
        return sum(squares), self._edge_layers(self._r)

    def residual_seams(self, ghosts: Sides[np.ndarray]) -> None:
        """What :meth:`residual` leaves out between slabs."""
        self._put_layers(self._r, ghosts)
        omega = self.medium.dtype.type(OMEGA)
        around = (*self._around(), *self._nodes(), self.levels[0].vectors["b"])
        seams = sorted({h for lo, hi in self.ranges for h in (lo, hi - 1)})
        self.workers.each(lambda h: sweeps.residual_seam(h, omega, self._r, *around), seams)

    def correction(self, ghosts: Sides[np.ndarray]) -> float:
        """z = B r, with the nodes' correction; (r, z)."""
        self._put(0, "sum", ghosts)
        omega = self.medium.dtype.type(OMEGA)
        around = (*self._around(), *self._nodes(), self.levels[0].vectors["sum"])
        products = self.workers.map(
            lambda lo, hi: sweeps.correction_sweep(lo, hi, omega, self._r, self._z, *around), self.ranges
        )
        return float(sum(products))

    def direction(self, step: float, turn: float) -> tuple[float, Sides[np.ndarray]]:
        """x += step p; p = z + turn p; (p, A p) but for the faces between slabs, and the edges of p."""
        real = self.medium.dtype.type
        given = (real(step), real(turn), self.x, self._z, self._p, *self._around())
        curvature = self.workers.map(lambda lo, hi: sweeps.direction_sweep(lo, hi, *given), self.ranges)
        if self.medium.periodic[0]:
            self._p[0], self._p[-1] = self._p[-2], self._p[1]
        return sum(curvature), self._edge_layers(self._p[1:-1])

    def direction_seams(self, ghosts: Sides[np.ndarray]) -> float:
        """What :meth:`direction` leaves out."""
        self._put_layers(self._p[1:-1], ghosts)
        m, seams = self.medium, [hi - 1 for _, hi in self.ranges]
        return float(sum(self.workers.each(lambda h: sweeps.direction_seam(h, self._p, m.values, m.weights[0]), seams)))

    def step(self, step: float) -> None:
        """x += step p."""
        alpha = self.medium.dtype.type(step)

        def add(lo: int, hi: int) -> None:
            for h in range(lo, hi):
                self.x[h] += alpha * self._p[h + 1, 1:-1, 1:-1]

        self.workers.map(add, self.ranges)

    def _around(self) -> tuple[Any, ...]:
        return (self.medium.values, self.medium.ends, *self.medium.weights, self.medium.periodic)

    def _nodes(self) -> tuple[Any, ...]:
        return (self.pieces.piece, self.pieces.base, self.pieces.halved)

    def _edge_layers(self, field: np.ndarray) -> Sides[np.ndarray]:
        (lo, hi), (below, above) = self.extent.rows, self.extent.neighbours
        return field[lo].copy() if below else None, field[hi - 1].copy() if above else None

    def _put_layers(self, field: np.ndarray, ghosts: Sides[np.ndarray]) -> None:
        (lo, hi), (below, above) = self.extent.rows, ghosts
        if below is not None:
            field[lo - 1] = below
        if above is not None:
            field[hi] = above
