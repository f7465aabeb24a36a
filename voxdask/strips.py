"""Strips of a tile: so few lines of its rows that a stage finds in cache what another made. Integers only."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Bytes of a strip of one array, ghost layers and all: equations have few, and the many of a family would make strips
#: so narrow that what lies around them would cost more than the cache saves.
STRIP_BYTES = 2 << 20
#: A strip is so many times as wide as its ghost layers are deep, as these are evaluated twice; before the strips of a
#: tile are made as wide as each other.
LEAST_WIDTH = 4


def strip_lines(shape: Sequence[int], halo: int, itemsize: int) -> int:
    """Lines along the second axis of which a strip is made: all of a plane or a line, a few of a volume.

    Parameters
    ----------
    shape : sequence of int
        Of what is evaluated, without ghost layers.
    halo : int
        Depth of the ghost layers.
    itemsize : int

    Returns
    -------
    int

    Examples
    --------
    >>> strip_lines((4, 1024, 1024), halo=2, itemsize=4), strip_lines((4, 64, 64), halo=2, itemsize=4)
    (57, 64)
    """
    if len(shape) < 3:
        return shape[-1] if len(shape) > 1 else 1
    width = _widest(shape, halo, itemsize)
    return -(-shape[1] // -(-shape[1] // width))  # all about as wide as each other


def strip_bytes(shape: Sequence[int], halo: int, itemsize: int) -> int:
    """Most bytes of a strip of one array, ghost layers and all, also of fewer rows than in `shape`.

    Examples
    --------
    >>> strip_bytes((4, 1024, 1024), halo=2, itemsize=4), strip_bytes((4, 64, 64), halo=2, itemsize=4)
    (2097152, 147968)
    """
    whole = itemsize * math.prod(n + 2 * halo for n in shape)
    if len(shape) < 3:
        return whole
    line = _line_bytes(shape, halo, itemsize)
    return min(whole, max(STRIP_BYTES, (_widest(shape, halo, itemsize) + 2 * halo) * line))


def _widest(shape: Sequence[int], halo: int, itemsize: int) -> int:
    width = STRIP_BYTES // max(_line_bytes(shape, halo, itemsize), 1) - 2 * halo
    return min(shape[1], max(width, LEAST_WIDTH * halo, 1))


def _line_bytes(shape: Sequence[int], halo: int, itemsize: int) -> int:
    """Bytes of one line of all rows."""
    return itemsize * math.prod(n + 2 * halo for n in (shape[0], *shape[2:]))
