"""From an image of any kind to what conducts in it, the direction of the flow first; a few rows at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from voxdask import backend
from voxdask.grid import Grid
from voxdask.inputs import reader
from voxdask.segmented import open_voxels
from voxdask.transport.arrays import Arrays
from voxdask.transport.conductance import weights_between
from voxdask.transport.medium import Medium

#: Voxels that are read at once.
_READ = 1 << 22
#: Memory for chunks of a lazy image that are kept until all their rows are read.
_CHUNKS = 1 << 29


@dataclass(frozen=True)
class Scan:
    """An image, and how its axes are those of a solve.

    Attributes
    ----------
    image : DataArray
    grid : Grid
    order : tuple of int
        Axes of the image, the direction of the flow first; of one or two dims, axes of one voxel come in between.
    """

    image: xr.DataArray
    grid: Grid
    order: tuple[int, ...]

    @classmethod
    def of(cls, image: Any, direction: str | None = None) -> Scan:
        """Open an image, or take one; TypeError or ValueError if it is none."""
        image, grid = open_voxels(image)
        if direction is None:
            direction = grid.dims[0]
        if direction not in grid.dims:
            raise ValueError(f"direction is {direction!r}; the image has dims {', '.join(map(repr, grid.dims))}")
        first = grid.axis(direction)
        return cls(image, grid, (first, *(a for a in range(grid.ndim) if a != first)))

    @property
    def direction(self) -> str:
        return self.grid.dims[self.order[0]]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along the axes of the solve."""
        first, *others = (self.grid.shape[a] for a in self.order)
        padded = (1,) * (3 - self.grid.ndim)
        n0, n1, n2 = first, *padded, *others
        return n0, n1, n2

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel size along the axes of the solve; one where the image has none."""
        first, *others = (self.grid.spacing[a] for a in self.order)
        padded = (1.0,) * (3 - self.grid.ndim)  # of a unit of depth
        h0, h1, h2 = first, *padded, *others
        return h0, h1, h2

    @property
    def factors(self) -> tuple[float, float, float]:
        """(h0 / h)^2 of each axis."""
        h0, h1, h2 = self.spacing
        return 1.0, (h0 / h1) ** 2, (h0 / h2) ** 2

    def as_image(self, solved: Any) -> Any:
        """A view of an array of the solve, with the axes of the image."""
        drop = 3 - self.grid.ndim
        flat = solved.reshape(solved.shape[:1] + solved.shape[1 + drop :])
        return flat.transpose(*map(int, np.argsort(self.order)))

    def along(self, direction: str) -> Scan:
        """The same image, with another direction of the flow."""
        first = self.grid.axis(direction)
        return Scan(self.image, self.grid, (first, *(a for a in range(self.grid.ndim) if a != first)))

    def jump(self, dim: str) -> np.ndarray:
        """What a field of unit gradient along a dim rises by across a face of each axis, in units of the first."""
        order = [self.grid.dims[a] for a in self.order]
        axis = 0 if order[0] == dim else order.index(dim) + 3 - self.grid.ndim
        rise: np.ndarray = np.eye(3)[axis] * self.spacing[axis] / self.spacing[0]
        return rise

    def blocks(self) -> Iterator[np.ndarray]:
        """The image's values, a few rows at a time."""
        read = reader(self.image.data, _CHUNKS)
        for lo, hi in self._rows():
            yield backend.to_host(read(lo, hi))

    def _rows(self) -> list[tuple[int, int]]:
        rows, size = max(1, _READ // max(1, math.prod(self.grid.shape[1:]))), self.grid.shape[0]
        return [(lo, min(lo + rows, size)) for lo in range(0, size, rows)]

    def read(self, convert: Callable[[np.ndarray], np.ndarray], out: np.ndarray, arrays: Arrays) -> None:
        """Fill an array of the solve with what becomes of the image's values."""
        view = self.as_image(out)
        for (lo, hi), block in zip(self._rows(), self.blocks(), strict=True):
            view[lo:hi] = convert(block)
            arrays.give_back()


def medium_of(
    scan: Scan, read: Callable[[np.ndarray], tuple[np.ndarray, Any]], kind: Any, arrays: Arrays, dtype: Any, *,
    periodic: tuple[bool, bool, bool] = (False, False, False), ends: str | None = None,
    at: tuple[bool, bool] = (True, True),
) -> tuple[Medium, Any]:  # fmt: skip
    """Read a medium, and how much in it conducts.

    It is held at faces of the first and last layer, at their centres, or has no ends; `at` says which of the two are
    ends, if not both.
    """
    n0, n1, n2 = scan.shape
    values = arrays.zeros((n0 + 2, n1 + 2, n2 + 2), kind)
    total: Any = 0

    def convert(block: np.ndarray) -> np.ndarray:
        nonlocal total
        conducting, amount = read(block)
        total = total + amount
        return conducting

    scan.read(convert, values[1:-1, 1:-1, 1:-1], arrays)
    held = np.zeros((2, n1, n2), dtype)
    for side, (one, two) in enumerate(((1, 2), (-2, -3))):
        if ends == "face" and at[side]:
            held[side] = 2 * values[one, 1:-1, 1:-1].astype(dtype)
        elif ends == "centre" and at[side]:
            weights_between(values[one, 1:-1, 1:-1], values[two, 1:-1, 1:-1], held[side])
    if ends == "centre":  # the layers of the ends are no part of it
        values[1 if at[0] else 0] = values[-2 if at[1] else -1] = 0
        values = values[1 if at[0] else 0 : len(values) - (1 if at[1] else 0)]
    drop = 3 - scan.grid.ndim
    along = tuple(p and not 0 < axis <= drop for axis, p in enumerate(periodic))
    medium = Medium(values, held, scan.factors, along)  # type: ignore[arg-type]
    medium.wrap(arrays)
    return medium, total


def require_labels(image: xr.DataArray) -> None:
    """TypeError unless an image holds labels."""
    if image.dtype.kind not in "biu":
        raise TypeError(
            f"image has dtype {image.dtype}; a phase is chosen among labels, which are integers or truth values (of "
            "grey values: image > threshold; of labels in floats: image.astype(int); of fractions: phase=None)"
        )
