"""Conjugate gradients on a voxel image, preconditioned by one sweep of smoothing around a cycle on graphs of pieces.

An iteration makes three passes over the voxels. What it gains in energy is known before anything is read again, so that
the energy of a steady field, which is its effective diffusivity, is followed as the iteration goes on.

References
----------
Hestenes, M. R. & Stiefel, E. Methods of conjugate gradients for solving linear systems. J. Res. Natl. Bur. Stand. 49,
409 (1952), doi:10.6028/jres.049.044. Golub, G. H. & Strakos, Z. Estimates in quadratic formulas. Numer. Algorithms 8,
241 (1994), doi:10.1007/BF02142693: the energy that is left, from what each step gains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from voxdask.transport import sweeps
from voxdask.transport.arrays import Arrays
from voxdask.transport.medium import Medium
from voxdask.transport.multigrid import OMEGA, Multigrid
from voxdask.transport.parallel import Workers, even
from voxdask.transport.pieces import Pieces, cut

#: The smallest eigenvalue of the preconditioned operator is taken to be no larger than this, whatever Ritz values say.
_LEAST = 0.4
#: Corrections from a true residual, before a solve is said to stall.
_RESTARTS = 4
#: Round-offs that weights, and with them the energy, may be off by.
_ROUNDED = 4.0


@dataclass(frozen=True)
class Layers:
    """Flux and energy, w (difference)^2, by layers along the first axis, and the sum of source and field.

    Attributes
    ----------
    flux, between : ndarray, shape (n0 + 1,)
        Through each layer of faces, those at the ends among them; what those faces have of the energy.
    within : ndarray, shape (n0,)
        What the faces within each layer of voxels have of the energy.
    given : float
    """

    flux: np.ndarray
    between: np.ndarray
    within: np.ndarray
    given: float = 0.0

    @property
    def energy(self) -> float:
        """What a solve brings down; with a source, up."""
        dissipated = float(self.between.sum() + self.within.sum())
        return 2 * self.given - dissipated if self.given else dissipated

    @property
    def by_voxels(self) -> np.ndarray:
        """The energy of each layer of voxels, with half of the faces to others and all of those at an end."""
        inner = self.between[1:-1] / 2
        of_voxels = self.within.copy()
        of_voxels[:-1] += inner
        of_voxels[1:] += inner
        of_voxels[0] += self.between[0]
        of_voxels[-1] += self.between[-1]
        return of_voxels


@dataclass(frozen=True)
class Steady:
    """What was found.

    Attributes
    ----------
    layers : Layers
        Flux and energy of the field, from differences in double precision.
    error : float
        Estimated error of `energy`, from the true residual.
    residual : float
        Norm of the true residual relative to that at the start.
    iterations : int
    converged : bool
    """

    layers: Layers
    error: float
    residual: float
    iterations: int
    converged: bool

    @property
    def energy(self) -> float:
        """Of the field."""
        return self.layers.energy


class Solver:
    """Solves on one medium, for any number of right-hand sides.

    Parameters
    ----------
    medium : Medium
        Voxels that are connected to no end of it, where it has ends, are cleared.
    arrays : Arrays
    threads : int
    slabs : int
        How many slabs the voxels are cut into; at least one for each thread.

    Attributes
    ----------
    pieces : Pieces
    x : ndarray
        The field.
    """

    def __init__(self, medium: Medium, arrays: Arrays, threads: int, slabs: int) -> None:
        self.medium, self.arrays = medium, arrays
        self.workers = Workers(threads, arrays)
        self.pieces: Pieces = cut(medium, arrays, self.workers, slabs)
        self.ranges = even(medium.shape[0], slabs, 1 + self.pieces.halved[0])
        self._multigrid: Multigrid | None = None
        self._slabs = slabs

    def prepare(self) -> None:
        """Make the hierarchy and the fields; a medium that nothing passes through needs neither."""
        medium, arrays = self.medium, self.arrays
        self._multigrid = Multigrid(self.pieces.graph, arrays, self.workers, self._slabs)
        n0, n1, n2 = medium.shape
        self.x, self._r, self._z = (arrays.zeros(medium.shape, medium.dtype) for _ in range(3))
        self._p = arrays.zeros((n0 + 2, n1 + 2, n2 + 2), medium.dtype)

    def start_linear(self, held: tuple[float, float]) -> None:
        """Let the field rise along the first axis from one end to the other."""
        n0 = self.medium.shape[0]
        conducting = self.medium.values[1:-1, 1:-1, 1:-1]
        rise = held[0] + (held[1] - held[0]) * (np.arange(n0) + 0.5) / n0

        def fill(lo: int, hi: int) -> None:
            for h in range(lo, hi):
                np.multiply(conducting[h] > 0, rise[h], out=self.x[h], casting="unsafe")

        self.workers.map(fill, self.ranges)

    def flow_through(self, tolerance: float, most: int) -> Steady:
        """Steady flow between ends that are held at 0 and 1; none if nothing passes. See :meth:`solve`."""
        if not self.pieces.percolating:
            return self.nothing()
        self.prepare()
        self.start_linear((0.0, 1.0))
        return self.solve(tolerance, most, (0.0, 1.0))

    def nothing(self) -> Steady:
        """What is found where no path leads through."""
        n0 = self.medium.shape[0]
        return Steady(Layers(np.zeros(n0 + 1), np.zeros(n0 + 1), np.zeros(n0)), 0.0, 0.0, 0, True)

    def clear(self) -> None:
        """Let the field be zero."""
        self.workers.map(lambda lo, hi: self.x[lo:hi].fill(0), self.ranges)

    def keep(self, out: np.ndarray) -> None:
        """Copy the field."""
        self.workers.map(lambda lo, hi: np.copyto(out[lo:hi], self.x[lo:hi]), self.ranges)

    def take_sum(self, one: np.ndarray, two: np.ndarray) -> None:
        """Let the field be the sum of two."""
        self.workers.map(lambda lo, hi: np.add(one[lo:hi], two[lo:hi], out=self.x[lo:hi]), self.ranges)

    def true_residual(
        self,
        held: tuple[float, float] = (0.0, 0.0),
        jumps: tuple[float, ...] = (0.0, 0.0, 0.0),
        source: np.ndarray | None = None,
    ) -> Layers:
        """Write the residual from differences, and tell energy and flux by layers; see :meth:`solve`."""
        m, n0 = self.medium, self.medium.shape[0]
        flux, between, within = np.zeros(n0 + 1), np.zeros(n0 + 1), np.zeros(n0)
        around = (m.values, m.ends, *map(float, m.weights), m.periodic, held, jumps, flux, between, within)

        def sweep(lo: int, hi: int) -> float:
            sweeps.true_residual_sweep(lo, hi, self.x, self._r, *around)
            return float(sweeps.add_source_sweep(lo, hi, source, self.x, self._r)) if source is not None else 0.0

        given = self.workers.map(sweep, self.ranges)
        return Layers(flux, between, within, sum(given))

    def solve(
        self,
        tolerance: float,
        most: int,
        held: tuple[float, float] = (0.0, 0.0),
        jumps: tuple[float, ...] = (0.0, 0.0, 0.0),
        source: np.ndarray | None = None,
    ) -> Steady:
        """From the field as it is, to one whose energy is off by no more than a share.

        Parameters
        ----------
        tolerance : float
            Of the energy: the sum of w (difference)^2, which comes down to that of the steady field; with a source,
            twice the sum of source and field less that, which goes up to the sum of source and steady field.
        most : int
            Iterations.
        held : tuple of float
            What the ends are held at.
        jumps : tuple of float
            What the field rises by, beside itself, across a face of each axis.
        source : ndarray, optional
            What enters each voxel.
        """
        layers = self.true_residual(held, jumps, source)
        energy = layers.energy
        iterations, error, least = 0, np.inf, _LEAST
        first: float | None = None
        for restart in range(_RESTARTS + 1):
            run = _Run(self)
            squares = run.precondition()
            first = squares if first is None else first
            error = self._error(run.product / least, energy)
            done = squares == 0 or (iterations > 0 and error <= tolerance * energy)
            if done or iterations >= most or restart == _RESTARTS:
                break
            while True:
                if not run.turn():
                    break
                iterations += 1
                energy += run.gain if source is not None else -run.gain
                squares = run.precondition()
                least = min(run.smallest_ritz(), _LEAST)
                error = run.product / least
                enough = error <= 0.5 * tolerance * energy and run.turns >= 2
                if enough or iterations >= most or squares == 0 or not run.product > 0:
                    break
            run.finish()
            layers = self.true_residual(held, jumps, source)
            energy = layers.energy
        return Steady(layers, error, (squares / (first or 1.0)) ** 0.5, iterations, done)

    def _error(self, left: float, energy: float) -> float:
        """An estimate of the energy's error, no less than what rounding weights takes."""
        rounded = 0.0 if self.medium.exact else _ROUNDED * float(np.finfo(self.medium.dtype).eps)
        return max(abs(left), rounded * abs(energy))


class _Run:
    """Iterations from one residual on."""

    def __init__(self, solver: Solver) -> None:
        self.solver, self.medium = solver, solver.medium
        real = self.medium.dtype.type
        self.omega, self.zero = real(OMEGA), real(0)
        self.step = 0.0
        self.product = self.gain = 0.0
        self.turns = 0
        self._last = 0.0
        self._steps: list[float] = []
        self._products: list[float] = []
        solver.workers.map(lambda lo, hi: solver._p[lo : hi + 2].fill(0), solver.ranges)

    def precondition(self) -> float:
        """r -= step A p and z = B r; sets (r, z), and returns (r, r)."""
        s, m, real = self.solver, self.medium, self.medium.dtype.type
        assert s._multigrid is not None
        level = s._multigrid.levels[0]
        target = level.vectors["b"]
        s.workers.series(lambda lo, hi: target[lo:hi].fill(0), len(target))
        around = (m.values, m.ends, *m.weights, m.periodic, s.pieces.piece, s.pieces.base, s.pieces.halved)
        over, step = s.workers.map, real(self.step)
        squares = sum(
            over(lambda lo, hi: sweeps.residual_sweep(lo, hi, step, self.omega, s._p, s._r, *around, target), s.ranges)
        )
        seams = sorted({h for lo, hi in s.ranges for h in (lo, hi - 1)})
        s.workers.each(lambda h: sweeps.residual_seam(h, self.omega, s._r, *around, target), seams)
        e = s._multigrid.solve()
        self._last = self.product
        self.product = sum(
            over(lambda lo, hi: sweeps.correction_sweep(lo, hi, self.omega, s._r, s._z, *around, e), s.ranges)
        )
        return float(squares)

    def turn(self) -> bool:
        """Choose the next direction, and the step along it; False if round-off is all that is left of it."""
        s, m, real = self.solver, self.medium, self.medium.dtype.type
        turn = self.product / self._last if self.turns else 0.0
        given = (real(self.step), real(turn), s.x, s._z, s._p, m.values, m.ends, *m.weights, m.periodic)
        curvature = sum(s.workers.map(lambda lo, hi: sweeps.direction_sweep(lo, hi, *given), s.ranges))
        if m.periodic[0]:
            s._p[0], s._p[-1] = s._p[-2], s._p[1]
        curvature += sum(
            s.workers.each(
                lambda h: sweeps.direction_seam(h, s._p, m.values, m.weights[0]), (hi - 1 for _, hi in s.ranges)
            )
        )
        if not (self.product > 0 and 0 < curvature < np.inf):
            self.step = 0.0
            return False
        self.step = self.product / curvature
        self.gain = self.step * self.product
        self.turns += 1
        self._steps.append(self.step)
        self._products.append(self.product)
        return True

    def finish(self) -> None:
        """Take the last step."""
        s, step = self.solver, self.medium.dtype.type(self.step)

        def add(lo: int, hi: int) -> None:
            for h in range(lo, hi):
                s.x[h] += step * s._p[h + 1, 1:-1, 1:-1]

        s.workers.map(add, s.ranges)

    def smallest_ritz(self) -> float:
        """The smallest eigenvalue that the directions so far know of."""
        steps, products = np.array(self._steps), np.array(self._products)
        turns = products[1:] / products[:-1]
        diagonal = 1 / steps
        diagonal[1:] += turns / steps[:-1]
        beside = np.sqrt(turns) / steps[:-1]
        return float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))[0])
