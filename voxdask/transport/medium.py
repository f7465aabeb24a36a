"""A voxel image that conducts: diffusivities with ghosts, what the ends conduct, factors of the axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from voxdask.transport.arrays import Arrays

#: Layers that are gone through before mapped memory is given back.
_LAYERS = 32


@dataclass(frozen=True)
class Medium:
    """What a solve needs to know of an image.

    Attributes
    ----------
    values : ndarray, shape (n0 + 2, n1 + 2, n2 + 2)
        0 and 1 (uint8), or diffusivities relative to the largest; with one layer of ghosts, see
        :mod:`voxdask.transport.conductance`.
    ends : ndarray, shape (2, n1, n2)
        Weights between the first or last layer and the end beyond, held at a value; zero where there is none.
    factors : tuple of float
        Of each axis, (h0 / h)^2.
    periodic : tuple of bool
        Of each axis.
    """

    values: np.ndarray
    ends: np.ndarray
    factors: tuple[float, float, float]
    periodic: tuple[bool, bool, bool]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis."""
        n0, n1, n2 = self.values.shape
        return n0 - 2, n1 - 2, n2 - 2

    @property
    def dtype(self) -> np.dtype:
        """Of fields on it."""
        return self.ends.dtype

    @property
    def rounding(self) -> float:
        """What weights may be off by, relative: nothing where they are whole numbers."""
        exact = self.values.dtype == np.uint8 and set(self.factors) == {1.0}
        return 0.0 if exact else float(np.finfo(self.dtype).eps)

    @property
    def weights(self) -> tuple[np.floating, ...]:
        """The factors of the axes, as compiled code takes them."""
        return tuple(self.dtype.type(c) for c in self.factors)

    def wrap(self, arrays: Arrays) -> None:
        """Fill the ghosts along periodic axes from the other side."""
        for lo in range(0, len(self.values), _LAYERS):
            some = self.values[lo : lo + _LAYERS]
            for axis in (1, 2):
                if self.periodic[axis]:
                    v = np.moveaxis(some, axis, 0)
                    v[0], v[-1] = v[-2], v[1]
            arrays.give_back()
        if self.periodic[0]:
            self.values[0], self.values[-1] = self.values[-2], self.values[1]
