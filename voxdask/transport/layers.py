"""Flux and energy of a field, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Layers:
    """Flux and energy, w (difference)^2, by layers along the first axis, and the sum of source and field.

    Attributes
    ----------
    first : int
        The layer of voxels that they begin with.
    flux, between : ndarray, shape (n0 + 1,)
        Through each layer of faces, those at the ends among them; what those faces have of the energy.
    within : ndarray, shape (n0,)
        What the faces within each layer of voxels have of the energy.
    given : float
    """

    first: int
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

    @classmethod
    def joined(cls, parts: Sequence[Layers]) -> Layers:
        """Those of domains that lie one after the other."""
        n0 = parts[-1].first + len(parts[-1].within)
        flux, between, within = np.zeros(n0 + 1), np.zeros(n0 + 1), np.zeros(n0)
        for part in parts:  # the faces between two domains are the lower one's
            stop = part.first + len(part.within)
            flux[part.first : stop + 1] += part.flux
            between[part.first : stop + 1] += part.between
            within[part.first : stop] = part.within
        return cls(0, flux, between, within, sum(part.given for part in parts))

    @classmethod
    def none(cls, first: int, stop: int) -> Layers:
        """Where nothing flows."""
        n = stop - first
        return cls(first, np.zeros(n + 1), np.zeros(n + 1), np.zeros(n))
