"""What is to be solved, and how an image is cut into domains for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from voxdask.grid import Grid
from voxdask.transport.arrays import Arrays
from voxdask.transport.domain import Domain, Extent
from voxdask.transport.medium import Medium
from voxdask.transport.parallel import even
from voxdask.transport.phases import Phase
from voxdask.transport.scan import Scan, medium_of

#: Layers beyond its own that a domain reads: its neighbour's first blocks, and what tells how those are cut.
_GHOSTS = 4


@dataclass(frozen=True)
class Job:
    """What is to be solved, without the image, so that it can be sent to workers.

    Attributes
    ----------
    grid, order
        Of the image's :class:`~voxdask.transport.scan.Scan`.
    phase : Phase
    dtype : dtype
        Of fields.
    periodic : bool
        Whether the sides are.
    ends : str
        "face" or "centre".
    held : (bool, bool)
        Which of the two ends are.
    domain : type
        Of domains.
    fields : int
        How many fields a domain has, for what it takes.
    """

    grid: Grid
    order: tuple[int, ...]
    phase: Phase
    dtype: np.dtype
    periodic: bool = False
    ends: str = "face"
    held: tuple[bool, bool] = (True, True)
    domain: type[Domain] = Domain
    fields: int = 4

    def medium(self, scan: Scan, arrays: Arrays, first: bool = True, last: bool = True) -> tuple[Medium, Any]:
        """Of layers of the image, with its first or last one or without; and how much in it conducts."""
        sides = (False, self.periodic, self.periodic)
        at = self.held[0] and first, self.held[1] and last
        return medium_of(
            scan, self.phase.read, self.phase.kind, arrays, self.dtype, periodic=sides, ends=self.ends, at=at
        )

    @property
    def skipped(self) -> int:
        """Layers at each end of the image that are held, and no part of the medium."""
        return 1 if self.ends == "centre" else 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the medium."""
        n0, n1, n2 = self.scan(None).shape
        return n0 - 2 * self.skipped, n1, n2

    def scan(self, block: np.ndarray | None) -> Scan:
        """Of some layers of the image."""
        if block is None:
            return Scan(None, self.grid, self.order)  # type: ignore[arg-type]
        return Scan(xr.DataArray(block, dims=self.grid.dims), replace(self.grid, shape=block.shape), self.order)

    def extents(self, workers: int) -> list[Extent]:
        """Domains for so many workers, or fewer; their bounds are those of blocks of two or more levels."""
        shape = n0, _, _ = self.shape
        own = even(n0, min(workers, n0 // (2 * self.blocks(workers))), self.blocks(workers))
        return [Extent(shape, (a, b), (max(a - _GHOSTS, 0), min(b + _GHOSTS, n0))) for a, b in own]

    def levels(self, workers: int) -> int:
        """Levels of graphs whose blocks are within domains."""
        return self.blocks(workers).bit_length() - 1

    def blocks(self, workers: int) -> int:
        """Layers of the largest blocks that domains are made of."""
        return 8 if self.shape[0] >= 32 * workers else 4

    def rows(self, layers: tuple[int, int]) -> slice:
        """Layers of the image for those of the medium, with an end that is beside them."""
        (lo, hi), n0, s = layers, self.shape[0], self.skipped
        return slice(lo + s if lo else 0, hi + s if hi < n0 else n0 + 2 * s)
