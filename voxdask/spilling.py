"""How a run that does not fit goes over its fields: routes, and slabs and pencils as thick as a limit allows.

Integers only; no array, no dask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import NamedTuple

from voxdask.problem import Problem
from voxdask.windows import Chain, aligned, sweep

#: Most bytes of a slab of one field in a file of its own.
FILE_BYTES = 64 << 20
#: Slabs and pencils that a sweep is cut into at the least, so that reading, work and writing overlap.
LEAST_PARTS = 6
#: Wide pencils, of more than so many bytes, are so many at the least: nothing else is done while the first is read and
#: the last one written. Narrow ones would make files small.
PENCIL_BYTES, WIDE_PENCILS = 32 << 20, 16


class Transform(NamedTuple):
    """Spectra of a field that a transform along the first axis reads and writes, and has at hand meanwhile."""

    read: int
    written: int
    held: int


@dataclass(frozen=True)
class Route:
    """The sweeps of a stepper over streamed fields, with so many evaluations in each.

    Attributes
    ----------
    depth : int
        Most evaluations of the right-hand side in one sweep.
    steps : int
        Steps that are taken before a state is asked for.
    chains : tuple of Chain
        The sweeps over rows in these steps, once they are under way.
    all_chains : tuple of Chain
        These, and those at the beginning and the end of a run.
    pencils : tuple of Transform
        Those in these steps.
    states : int
        States that lie in storage at once.
    kept : int
        States of a checkpoint.
    """

    depth: int
    steps: int
    chains: tuple[Chain, ...]
    all_chains: tuple[Chain, ...]
    pencils: tuple[Transform, ...]
    states: int
    kept: int

    def narrowed(self, streamed: int, columns: int) -> Route:
        """The route if only so many of all columns of spectra are streamed."""
        if streamed == columns:
            return self
        chains, every = (
            tuple(chain.narrowed(streamed, columns) for chain in chains) for chains in (self.chains, self.all_chains)
        )
        return replace(self, chains=chains, all_chains=every)

    @property
    def spectra(self) -> int:
        """Spectra of a pencil that are at hand while it is transformed."""
        return max((each.held for each in self.pencils), default=0)


@dataclass(frozen=True)
class Cut:
    """Slabs and pencils of a route, and what they take.

    Attributes
    ----------
    route : Route
    rows, columns : int
        Thickness of a slab and width of a pencil.
    bytes : int
        Of the rows and pencils at hand.
    ahead : int
        Slabs under way when another is begun.
    resident : int
        Columns of the spectra of every field that stay in memory: the first ones.
    """

    route: Route
    rows: int
    columns: int
    bytes: int
    ahead: int
    resident: int = 0


@lru_cache(maxsize=1024)
def _peak_bytes(chain: Chain, size: int, rows: int, ahead: int) -> int:
    return sweep(chain, size, rows, periodic=True, ahead=ahead).peak_bytes


def window_bytes(route: Route, size: int, rows: int, ahead: int) -> int:
    """Most bytes of rows that a route holds at once, along an axis of any kind."""
    peak = 0
    for chain in route.all_chains:
        reach = sum(link.reach for link in chain.links)
        # beyond so many rows the window only moves on
        enough = min(size, rows * (4 * len(chain.links) + LEAST_PARTS) + 2 * reach)
        peak = max(peak, _peak_bytes(chain, enough, min(rows, enough), ahead))
    return peak


def pencils_ahead(ahead: int) -> int:
    """Pencils under way when another is begun: one at most, as they are wide."""
    return min(ahead, 1)


def pencils_held(ahead: int) -> int:
    """Pencils at hand at once: one on its way in, those at work, one on its way out."""
    return pencils_ahead(ahead) + 3


def pencil_bytes(route: Route, column_bytes: int, columns: int, ahead: int) -> int:
    """Bytes of the pencils that a route holds at once."""
    return pencils_held(ahead) * route.spectra * aligned(columns * column_bytes)


def cut(
    route: Route,
    problem: Problem,
    *,
    tile_rows: int,
    tile_columns: int,
    fill_slabs: int,
    ahead: int,
    budget: Callable[[int, int], int],
    resident: int = 0,
) -> Cut | None:
    """The thickest slabs and widest pencils of a route under a limit.

    Parameters
    ----------
    route : Route
    problem : Problem
    tile_rows, tile_columns : int
        What is worked on at once.
    fill_slabs : int
        Slabs of one field that are filled at once, before there is a window.
    ahead : int
        Slabs under way when another is begun.
    budget : callable
        ``budget(rows, columns)`` gives the bytes that are left for what is at hand beside tiles of that size.
    resident : int
        Columns of the spectrum that stay in memory, which the budget has been told; only the others are streamed.

    Returns
    -------
    Cut, optional
        None if no slabs fit, however thin.
    """
    size, columns, column_bytes = problem.shape[0], problem.columns, problem.column_bytes
    row_bytes, streamed = problem.padded_row_bytes, columns - resident
    route = route.narrowed(streamed, columns)
    most_rows = max(1, min(size // LEAST_PARTS, FILE_BYTES // row_bytes))
    widest = max(columns // WIDE_PENCILS, PENCIL_BYTES // column_bytes)
    most_columns = max(1, min(columns // LEAST_PARTS, widest)) if route.pencils else 1

    def rows_fit(wide: int, rows: int) -> bool:
        held = max(window_bytes(route, size, rows, ahead), fill_slabs * rows * row_bytes)
        return held <= budget(rows, wide)

    # thick slabs leave room for tiles of pencils as wide as they should be, if there is any
    widths = (min(tile_columns, most_columns), 1)
    # slabs thinner than the reach take more, the thinner they are, as more of them are held
    reach = min(max((link.reach for chain in route.all_chains for link in chain.links), default=1), most_rows)
    rows = next((fit for wide in widths if (fit := _largest(most_rows, partial(rows_fit, wide), reach))), 0)
    if rows == 0:
        return None
    rows -= rows % tile_rows if rows > tile_rows else 0  # whole tiles have the fewest rows around them
    at_hand = max(window_bytes(route, size, rows, ahead), fill_slabs * rows * row_bytes)

    def hand_bytes(wide: int) -> int:
        return max(at_hand, pencil_bytes(route, column_bytes, wide, ahead) if streamed else 0)

    wide = _largest(most_columns, lambda wide: hand_bytes(wide) <= budget(rows, wide))
    if wide == 0:
        return None
    cut_up = streamed or columns
    wide = math.ceil(cut_up / math.ceil(cut_up / wide))  # as many pencils, all about as wide
    return Cut(route, rows, wide, hand_bytes(wide), ahead, resident)


def _largest(most: int, fits: Callable[[int], bool], rising: int = 1) -> int:
    """The largest number from 1 to `most` that fits, or 0; from `rising` on, smaller ones do if larger ones do."""
    low, high = max(rising, 1), most
    if not fits(low):
        return next((number for number in range(low - 1, 0, -1) if fits(number)), 0)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low
