"""A cycle through the levels of a team of domains: the preconditioner."""

from __future__ import annotations

from typing import Any

import numpy as np

from voxdask.transport.arrays import Arrays
from voxdask.transport.hierarchy import Hierarchy, assemble
from voxdask.transport.parallel import Workers
from voxdask.transport.team import Local, Sides, Team

#: A level of at most so many nodes is solved directly.
_DIRECT = 300


class Multigrid:
    """A W-cycle, twice on every level, with a damped Jacobi sweep around each correction.

    Parameters
    ----------
    team : Team
        Of domains or hierarchies that have their finest level.
    levels : int, optional
        How many of them the team is to have; what is below the last of these is put together here. By default all.
    """

    def __init__(self, team: Team, levels: int | None = None) -> None:
        self.team, self.last, self._below = team, 0, None
        while sum(team.all("own_nodes")) > _DIRECT and self.last + 1 != levels:
            if not any(team.beside("gather", team.all("merge"))):
                break
            self.last += 1
        if levels is not None:
            arrays = Arrays()
            workers = Workers(1, arrays)
            rows = team.all("rows")
            self._cuts = np.cumsum([len(part.end) for part in rows])[:-1]
            self._below = Hierarchy(assemble(rows, arrays, workers), arrays, workers, 1)
            self._multigrid = Multigrid(Local([self._below]))
        team.all("finish", levels is None)

    def solve(self, n: int = 0) -> list[Sides[np.ndarray]]:
        """What the vector `b` of a level gives, roughly, in its `sum`: the cycle, and once more for what it leaves."""
        if n == self.last:
            return self._solve_last()
        edges: list[Any] = []
        for b in ("b", "rest"):
            if b == "rest":
                self.team.beside("leave", edges, n)
            self.team.beside("restrict", self.team.all("smooth_first", n, b), n, b)
            edges = self.team.beside("correct", self.solve(n + 1), n, b)
        return edges

    def _solve_last(self) -> list[Sides[np.ndarray]]:
        if self._below is None:
            return self.team.all("solve_last")
        self._below.put(np.concatenate(self.team.all("take", self.last, "b")), 0, "b")
        self._multigrid.solve()
        return self.team.each("put", np.split(self._below.take(0, "sum"), self._cuts), self.last, "sum")
