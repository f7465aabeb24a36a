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

from voxdask.transport.components import unite
from voxdask.transport.domain import Domain
from voxdask.transport.layers import Layers
from voxdask.transport.multigrid import Multigrid
from voxdask.transport.team import Local, Team

#: The smallest eigenvalue of the preconditioned operator is taken to be no larger than this, whatever Ritz values say.
_LEAST = 0.4
#: The share of the energy that is left in a field which is steady to round-off of its differences.
_STILL = (16 * float(np.finfo(np.float64).eps)) ** 2
#: Corrections from a true residual, before a solve is said to stall.
_RESTARTS = 4
#: Round-offs that weights, and with them the energy, may be off by.
_ROUNDED = 4.0


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
    team : Team
        Of domains. Voxels that are connected to no end of the medium, where it has ends, are cleared.
    levels : int, optional
        How many levels of graphs the domains have; what is below is solved here. By default all.

    Attributes
    ----------
    percolating, connected : int
        Voxels that are connected to both ends, and to at least one.
    """

    def __init__(self, team: Team, levels: int | None = None) -> None:
        self.team, self._levels = team, levels
        self._rounding = float(max(team.all("rounding")))
        self.percolating = self.connected = 0
        if any(team.all("has_ends")):
            counts = sum(team.each("keep_reached", unite(team.all("seams"))))
            self.percolating, self.connected = int(counts[3]), int(counts[1:].sum())

    @classmethod
    def alone(cls, domain: Domain) -> Solver:
        """On a domain that is the whole medium."""
        return cls(Local([domain]))

    def prepare(self) -> None:
        """Make the hierarchy and the fields; a medium that nothing passes through needs neither."""
        self._multigrid = Multigrid(self.team, self._levels)
        self.team.all("prepare")

    def flow_through(self, tolerance: float, most: int) -> Steady:
        """Steady flow between ends that are held at 0 and 1; none if nothing passes. See :meth:`solve`."""
        if not self.percolating:
            return self.nothing()
        self.prepare()
        self.team.all("start_linear", (0.0, 1.0))
        return self.solve(tolerance, most, (0.0, 1.0))

    def nothing(self) -> Steady:
        """What is found where no path leads through."""
        return Steady(Layers.joined(self.team.all("no_flow")), 0.0, 0.0, 0, True)

    def true_residual(
        self,
        held: tuple[float, float] = (0.0, 0.0),
        jumps: tuple[float, ...] = (0.0, 0.0, 0.0),
        charged: bool = False,
    ) -> Layers:
        """Write the residual from differences, and tell energy and flux by layers; see :meth:`solve`."""
        edges = self.team.all("edges_of_field")
        return Layers.joined(self.team.beside("true_residual", edges, held, jumps, charged))

    def solve(
        self,
        tolerance: float,
        most: int,
        held: tuple[float, float] = (0.0, 0.0),
        jumps: tuple[float, ...] = (0.0, 0.0, 0.0),
        charged: bool = False,
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
        charged : bool
            Whether the domains' `source` enters each voxel.
        """
        layers = self.true_residual(held, jumps, charged)
        energy = layers.energy
        iterations, error, least = 0, np.inf, _LEAST
        first: float | None = None
        for restart in range(_RESTARTS + 1):
            run = _Run(self.team, self._multigrid)
            squares = run.precondition()
            first = squares if first is None else first
            error = self._error(run.product / least, energy)
            still = squares == 0 or abs(run.product) <= _STILL * energy  # directions would be of round-off alone
            done = still or (iterations > 0 and error <= tolerance * energy)
            if done or iterations >= most or restart == _RESTARTS:
                break
            while True:
                if not run.turn():
                    break
                iterations += 1
                energy += run.gain if charged else -run.gain
                squares = run.precondition()
                ritz = run.smallest_ritz()
                lost = not ritz > 0  # directions are of round-off: go on from the true residual
                least = least if lost else min(ritz, _LEAST)
                error = run.product / least
                enough = (lost or error <= 0.5 * tolerance * energy) and run.turns >= 2
                if enough or iterations >= most or squares == 0 or not run.product > 0:
                    break
            run.finish()
            layers = self.true_residual(held, jumps, charged)
            energy = layers.energy
        return Steady(layers, error, (squares / (first or 1.0)) ** 0.5, iterations, done)

    def _error(self, left: float, energy: float) -> float:
        """An estimate of the energy's error, no less than what rounding weights takes."""
        return max(abs(left), _ROUNDED * self._rounding * abs(energy))


class _Run:
    """Iterations from one residual on."""

    def __init__(self, team: Team, multigrid: Multigrid) -> None:
        self.team, self.multigrid = team, multigrid
        self.step = 0.0
        self.product = self.gain = 0.0
        self.turns = 0
        self._last = 0.0
        self._steps: list[float] = []
        self._products: list[float] = []
        team.all("rest")

    def precondition(self) -> float:
        """r -= step A p and z = B r; sets (r, z), and returns (r, r)."""
        squares, edges = zip(*self.team.all("residual", self.step), strict=True)
        self.team.beside("residual_seams", edges)
        self._last = self.product
        self.product = sum(self.team.beside("correction", self.multigrid.solve()))
        return float(sum(squares))

    def turn(self) -> bool:
        """Choose the next direction, and the step along it; False if round-off is all that is left of it."""
        turn = self.product / self._last if self.turns else 0.0
        most, edges = zip(*self.team.all("direction", self.step, turn), strict=True)
        curvature = sum(most) + sum(self.team.beside("direction_seams", edges))
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
        self.team.all("step", self.step)

    def smallest_ritz(self) -> float:
        """The smallest eigenvalue that the directions so far know of."""
        steps, products = np.array(self._steps), np.array(self._products)
        turns = products[1:] / products[:-1]
        diagonal = 1 / steps
        diagonal[1:] += turns / steps[:-1]
        beside = np.sqrt(turns) / steps[:-1]
        return float(np.linalg.eigvalsh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))[0])
