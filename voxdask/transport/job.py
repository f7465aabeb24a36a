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
    ends : str, optional
        "face" or "centre"; None for an image that is periodic along all axes.
    held : (bool, bool)
        Which of the two ends are.
    domain : type
        Of domains.
    fields : int
        How many fields a domain has, for what it takes.
    on_device : bool
        Whether they lie on a GPU.
    """

    grid: Grid
    order: tuple[int, ...]
    phase: Phase
    dtype: np.dtype
    periodic: bool = False
    ends: str | None = "face"
    held: tuple[bool, bool] = (True, True)
    domain: type[Domain] = Domain
    fields: int = 4
    on_device: bool = False

    def medium(self, scan: Scan, arrays: Arrays, known: tuple[int, int] | None = None) -> tuple[Medium, Any]:
        """Of the known layers, by default all; and how much in it conducts."""
        n0 = self.shape[0]
        first, last = known or (0, n0)
        whole, at = (first, last) == (0, n0), (self.held[0] and first == 0, self.held[1] and last == n0)
        periodic = (self.ends is None and whole, self.periodic, self.periodic)
        return medium_of(
            scan, self.phase.read, self.phase.kind, arrays, self.dtype, periodic=periodic, ends=self.ends, at=at
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
        around = self.ends is None
        if len(own) == 1 or (around and n0 % self.blocks(workers)):  # blocks that an end cuts have no others beside
            return [Extent.whole(shape)]
        least, most = (-_GHOSTS, n0 + _GHOSTS) if around else (0, n0)
        return [Extent(shape, (a, b), (max(a - _GHOSTS, least), min(b + _GHOSTS, most))) for a, b in own]

    def levels(self, workers: int) -> int:
        """Levels of graphs whose blocks are within domains."""
        return self.blocks(workers).bit_length() - 1

    def blocks(self, workers: int) -> int:
        """Layers of the largest blocks that domains are made of."""
        n0 = self.shape[0]
        return 8 if n0 >= 32 * workers and not (self.ends is None and n0 % 8) else 4

    def rows(self, layers: tuple[int, int]) -> np.ndarray:
        """Layers of the image for those of the medium, with an end that is beside them."""
        (lo, hi), n0, s = layers, self.shape[0], self.skipped
        if self.ends is None:
            return np.arange(lo, hi) % n0
        return np.arange(lo + s if lo else 0, hi + s if hi < n0 else n0 + 2 * s)

    def own_rows(self, extent: Extent) -> slice:
        """Those of the known layers of the image that are its own."""
        known, own = self.rows(extent.known), self.rows(extent.own)
        before = extent.own[0] - extent.known[0] if self.ends is None else int(own[0] - known[0])
        return slice(before, before + len(own))
