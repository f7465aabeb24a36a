"""Strips of a tile: so few lines of its rows that a stage finds in cache what another made. Integers only."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Bytes of a strip of one array, ghost layers and all.
STRIP_BYTES = 2 << 20
#: A strip is so many times as wide as its ghost layers are deep at the least, as these are evaluated twice.
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
    (59, 64)
    """
    if len(shape) < 3:
        return shape[-1] if len(shape) > 1 else 1
    line = itemsize * (shape[0] + 2 * halo) * math.prod(n + 2 * halo for n in shape[2:])
    lines = min(shape[1], max(STRIP_BYTES // line - 2 * halo, LEAST_WIDTH * halo, 1))
    return -(-shape[1] // -(-shape[1] // lines))  # all about as wide as each other


def strip_bytes(shape: Sequence[int], halo: int, itemsize: int) -> int:
    """Bytes of a strip of one array, ghost layers and all, of which :func:`strip_lines` says how wide it is.

    Examples
    --------
    >>> strip_bytes((4, 1024, 1024), halo=2, itemsize=4)
    2072448
    """
    strip = (shape[0], strip_lines(shape, halo, itemsize), *shape[2:])[: len(shape)]
    return itemsize * math.prod(n + 2 * halo for n in strip)
