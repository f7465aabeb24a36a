"""A domain whose walls take up charge, and Lanczos's recursion over what they hold."""

from __future__ import annotations

import numpy as np

from voxdask.transport import sweeps
from voxdask.transport.domain import Domain


class Walls(Domain):
    """One of a team.

    Its `source` is wall area at first, and wall area times the last potential of the recursion later.
    """

    def find_walls(self, recursion: bool) -> float:
        """Find what each conducting voxel has of walls; the sum of it, relative to a face across the first axis."""
        medium, arrays = self.medium, self.arrays
        areas = tuple(c**0.5 for c in medium.factors)
        self._wall, self.source = (arrays.zeros(medium.shape, medium.dtype) for _ in range(2))
        given = (medium.values, medium.periodic, areas, self._wall)
        charge = sum(self.workers.map(lambda lo, hi: sweeps.wall_sweep(lo, hi, *given), self.ranges))
        self.workers.map(lambda lo, hi: np.copyto(self.source[lo:hi], self._wall[lo:hi]), self.ranges)
        if recursion:
            self._here, self._before = (arrays.zeros(medium.shape, medium.dtype) for _ in range(2))
        return float(charge)

    def weigh_field(self) -> float:
        """The sum of wall x^2."""
        return self._weigh(self.x)

    def advance(self, scale: float) -> float:
        """Let the potential be scale x, and the source that on the walls; the sum of wall potential^2."""
        here, before, factor = self._here, self._before, self.medium.dtype.type(scale)

        def move(lo: int, hi: int) -> None:
            before[lo:hi], here[lo:hi] = here[lo:hi], np.multiply(self.x[lo:hi], factor)
            np.multiply(self._wall[lo:hi], here[lo:hi], out=self.source[lo:hi])

        self.workers.map(move, self.ranges)
        return self._weigh(here)

    def orthogonalize(self, a: float, b: float) -> None:
        """x -= a potential + b the one before."""
        one, two = (self.medium.dtype.type(value) for value in (a, b))

        def subtract(lo: int, hi: int) -> None:
            self.x[lo:hi] -= one * self._here[lo:hi] + two * self._before[lo:hi]

        self.workers.map(subtract, self.ranges)

    def _weigh(self, x: np.ndarray) -> float:
        return float(
            sum(self.workers.map(lambda lo, hi: sweeps.weighted_square_sweep(lo, hi, self._wall, x), self.ranges))
        )
