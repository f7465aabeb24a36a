"""What a plan depends on, and what a tile of it takes: integers only."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from voxdask.costs import Rates, nominal, nominal_on_device
from voxdask.strips import strip_bytes
from voxdask.windows import Width

#: Bytes of one field, or of one spectrum's columns, that are worked on at once: so few that they stay in cache.
TILE_BYTES = 1 << 20


@dataclass(frozen=True)
class Problem:
    """What a plan depends on.

    Attributes
    ----------
    shape : tuple of int
        Voxels along each axis.
    itemsize : int
        Bytes of one value: 4 or 8.
    fields : int
        Unknowns.
    constants : int
        Auxiliary fields and coefficients that vary in space.
    inner : int
        Intermediate arrays of the right-hand side.
    halo : int
        Depth of the ghost layers.
    registers : int
        Copies of the state that a stepper holds at once.
    spectra : int
        Spectra of the state that a stepper holds at once; 0 if it does not transform.
    columns : int
        Columns of a spectrum: modes along the second axis.
    mode_bytes : int
        Bytes of one row and column of the spectrum.
    """

    shape: tuple[int, ...]
    itemsize: int
    fields: int
    constants: int
    inner: int
    halo: int
    registers: int
    spectra: int
    columns: int
    mode_bytes: int

    @property
    def spectral(self) -> bool:
        """Whether the stepper transforms."""
        return self.spectra > 0

    @property
    def voxels(self) -> int:
        return math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row (a plane of a volume) of one field."""
        return self.voxels // self.shape[0] * self.itemsize

    @property
    def padded_row_bytes(self) -> int:
        return math.prod(n + 2 * self.halo for n in self.shape[1:]) * self.itemsize

    @property
    def padded_bytes(self) -> int:
        """Bytes of one field with ghost layers."""
        return (self.shape[0] + 2 * self.halo) * self.padded_row_bytes

    @property
    def spectrum_row_bytes(self) -> int:
        return self.columns * self.mode_bytes if self.spectral else 0

    def stream_width(self, kind: Literal["state", "constants", "spectra"]) -> Width:
        """How wide all fields are, all constants, or all spectra."""
        if kind == "spectra":
            return Width(self.fields, self.spectrum_row_bytes, self.spectrum_row_bytes, spectral=True)
        # they lie in storage as they are at hand, with ghost layers along all axes but the first
        return Width(self.fields if kind == "state" else self.constants, self.padded_row_bytes, self.padded_row_bytes)

    @property
    def column_bytes(self) -> int:
        """Bytes of one column of the spectrum, also when a transform that halves the first axis makes it complex."""
        return (self.shape[0] + 2) * self.mode_bytes

    @property
    def nominal_rates(self) -> Rates:
        """What parts of a step are taken to cost before anything is measured."""
        voxels = self.voxels // self.shape[0]
        return nominal(voxels, self.voxels // self.columns, self.fields, 1 + self.inner, self.halo)

    @property
    def device_rates(self) -> Rates:
        """The same on a GPU."""
        return nominal_on_device(self.row_bytes, self.column_bytes, self.fields, 1 + self.inner, self.halo)

    @property
    def spectrum_bytes(self) -> int:
        return self.shape[0] * self.spectrum_row_bytes


def tile_bytes(problem: Problem, rows: int, columns: int, *, padded: bool = True) -> int:
    """Bytes that a thread needs to work on one tile: stages, results, modes, and fields that are `padded` for it."""
    around = (rows + 2 * problem.halo) * problem.padded_row_bytes
    slab = problem.inner * strip_bytes((rows, *problem.shape[1:]), problem.halo, problem.itemsize)
    slab += (problem.fields + problem.constants if padded else 0) * around
    slab += problem.fields * rows * problem.row_bytes
    # a transform makes the next array before the last is given up
    slab += 2 * transform_rows(problem, rows) * problem.spectrum_row_bytes
    # so that rows of columns do not lie a power of two apart, there is an eighth more between them
    return slab + (2 * columns * problem.column_bytes * 9 // 8 if problem.spectral else 0)


def transform_rows(problem: Problem, rows: int) -> int:
    """Of a tile of so many rows, how many are transformed at once."""
    return max(1, min(rows, TILE_BYTES // problem.row_bytes))
