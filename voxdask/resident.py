"""Columns of spectra that stay in memory from one sweep to the next, where the others are streamed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from voxdask.at_hand import view
from voxdask.pencil import TRANSFORMED, GridTransform, split
from voxdask.recycler import pages
from voxdask.windows import aligned


class ResidentSpectra:
    """The first columns of the spectrum of every field, in pencils that are transformed where they lie.

    Parameters
    ----------
    transform : GridTransform
    columns, wide : int
        How many columns stay in memory, and how wide a pencil is.
    """

    def __init__(self, transform: GridTransform, columns: int, wide: int) -> None:
        self.transform, self.columns, self.wide = transform, columns, wide
        self._arrays: dict[tuple[str, str], list[np.ndarray]] = {}
        self._lock = threading.Lock()

    def between(self, streamed: int) -> list[tuple[int, int]]:
        """Pencils that stay, evenly among those of so many other columns, which are read and written meanwhile."""
        stay = split(self.columns, self.wide)
        others = [(self.columns + a, self.columns + b) for a, b in split(streamed, self.wide)]
        places = [(k / len(ranges), each) for ranges in (stay, others) for k, each in enumerate(ranges)]
        return [each for _, each in sorted(places)]

    def give_up(self) -> None:
        """Let the memory go."""
        self._arrays.clear()

    def pencil(self, name: str, start: int, spectra: Iterable[str]) -> dict[str, np.ndarray]:
        """Every row of the pencil that begins at a column, of the spectrum between two sweeps and of those saved."""
        return {which: self._pencils(name, which)[start // self.wide] for which in spectra}

    def put(self, name: str, lo: int, rows: Any) -> None:
        """Overwrite rows from `lo` on by the first columns of these."""
        for (start, stop), pencil in zip(split(self.columns, self.wide), self._pencils(name), strict=True):
            pencil[lo : lo + len(rows)] = rows[:, start:stop]

    def get(self, name: str, lo: int, out: Any) -> None:
        """Copy rows from `lo` on to the first columns of `out`."""
        for (start, stop), pencil in zip(split(self.columns, self.wide), self._pencils(name), strict=True):
            out[:, start:stop] = pencil[lo : lo + len(out)]

    def _pencils(self, name: str, which: str = TRANSFORMED) -> list[np.ndarray]:
        """Of the spectrum between two sweeps, or of one that was saved."""
        with self._lock:
            if (name, which) not in self._arrays:
                (rows, _, *rest), dtype = self.transform.layout(which)
                self._arrays[name, which] = _in_one_piece(split(self.columns, self.wide), rows, rest, dtype)
            return self._arrays[name, which]


def _in_one_piece(
    ranges: Sequence[tuple[int, int]], rows: int, rest: Sequence[int], dtype: np.dtype[Any]
) -> list[np.ndarray]:
    """Arrays of so many columns, one after the other; each by itself, so that its rows lie close to each other."""
    shapes = [(rows, stop - start, *rest) for start, stop in ranges]
    sizes = [aligned(int(np.prod(shape)) * dtype.itemsize) for shape in shapes]
    memory = pages(sum(sizes))
    places = np.cumsum([0, *sizes])
    return [view(memory, int(place), shape, dtype) for place, shape in zip(places, shapes, strict=False)]
