"""What a step costs, from what its parts cost: seconds from rows, columns and bytes. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from voxdask.windows import Chain

#: The share of the time in which a thread works: at the end of every sweep some wait for the others.
_AT_WORK = 0.97


@dataclass(frozen=True)
class Rates:
    """What parts of a step cost on a machine, in seconds of one thread while all of them work.

    Attributes
    ----------
    evaluate : float
        A row of the right-hand side of every field, and of what is made of it.
    around : float
        What every tile costs beyond its rows: the rows around it of intermediate results.
    forward, finish : float
        A row of the transforms of the local axes, and of their inverses and the update.
    add : float
        A row of a term of a sum.
    through : float
        A column: the transform along the first axis, the filter, the inverse.
    moved : float
        A byte to or from storage.
    turn : float
        Seconds that a turn of a sweep takes beside, in which not all threads work.
    """

    evaluate: float
    around: float
    forward: float
    finish: float
    add: float
    through: float
    moved: float
    turn: float


def nominal(row_voxels: int, column_voxels: int, fields: int, stages: int, halo: int) -> Rates:
    """Rates of a common processor, for plans that are made before anything is measured."""
    ns = 1e-9 * row_voxels * fields
    return Rates(
        evaluate=1.1 * stages * ns,
        around=1.1 * max(stages - 1, 0) * halo * ns,
        forward=2.2 * ns,
        finish=4.3 * ns,
        add=0.6 * ns,
        through=3.8e-9 * column_voxels,
        moved=0.2e-9,
        turn=3e-4,
    )


def sweep_seconds(chain: Chain, size: int, rows: int, tile_rows: int, threads: int, rates: Rates) -> float:
    """Seconds of a sweep over rows that are streamed.

    Parameters
    ----------
    chain : Chain
    size : int
        Rows of the axis.
    rows, tile_rows : int
        Thickness of a slab and of a tile.
    threads : int
    rates : Rates
    """
    tile = min(tile_rows, math.ceil(rows / math.ceil(threads / 2)))  # two slabs are under way at once
    work = 0.0
    for link in chain.links:
        if link.work in ("advance", "forward"):
            work += rates.evaluate + rates.around / tile + (rates.forward if link.work == "forward" else 0.0)
        else:
            work += rates.finish if link.work == "finish" else rates.add * len(link.uses)
        # rows of both neighbours are copied to every slab, read and written
        work += 2 * link.reach / rows * 2 * rates.add
    turns, moved = len(chain.links) * math.ceil(size / rows), chain.traffic * rates.moved
    # while the first slab is read and the last one is written, nothing else is to be done
    ends = moved * rows / 2
    return size * (work + moved) / (_AT_WORK * threads) + turns * rates.turn + ends


def pencils_seconds(
    transforms: Sequence[tuple[int, int]], columns: int, column_bytes: int, wide: int, threads: int, rates: Rates
) -> float:
    """Seconds of transforms along the first axis, of spectra that are streamed.

    Parameters
    ----------
    transforms : sequence of (int, int)
        For each transform, spectra that are read and written.
    columns, column_bytes : int
        Columns of a spectrum of all fields, and bytes of one.
    wide : int
        Columns of a pencil.
    threads : int
    rates : Rates
    """
    seconds = 0.0
    for read, written in transforms:
        moved = (read + written) * column_bytes * rates.moved
        seconds += columns * (rates.through + moved) / (_AT_WORK * threads) + moved * wide / 2
        seconds += math.ceil(columns / wide) * rates.turn
    return seconds
