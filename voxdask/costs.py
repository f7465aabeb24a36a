"""What a step costs, from what its parts cost: seconds from rows, columns and bytes. Numbers only."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from voxdask.windows import Chain

#: The share of the time in which a thread works: some wait at the end of every slab, or of a sweep if they go ahead.
_AT_WORK, _AT_WORK_AHEAD = 0.9, 0.97
#: Seconds beside a turn, and for a file, that are not measured anew.
TURN, FILE = 3e-4, 5e-5
#: What a GPU's memory, and the bus to it either way, are taken to give: bytes in a second.
DEVICE_BYTES, BUS_BYTES = 1e12, 2.5e10


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
        A row of a term of a sum; see :func:`sum_terms`.
    through : float
        A column: the transform along the first axis, the filter, the inverse.
    moved : float
        A byte to or from storage.
    turn : float
        Seconds that a turn of a sweep takes beside, in which not all threads work.
    file : float
        To open a file of a crossing of slabs and pencils, and find the place in it.
    """

    evaluate: float
    around: float
    forward: float
    finish: float
    add: float
    through: float
    moved: float
    turn: float
    file: float


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
        turn=TURN,
        file=FILE,
    )


def nominal_on_device(row_bytes: int, column_bytes: int, fields: int, stages: int, halo: int) -> Rates:
    """The same of a common GPU, where whatever is done is as fast as its memory, and all else is brought by a bus."""
    row = row_bytes * fields / DEVICE_BYTES
    return Rates(
        evaluate=2 * stages * row,
        around=2 * max(stages - 1, 0) * halo * row,
        forward=4 * row,
        finish=6 * row,
        add=row,
        through=6 * column_bytes / DEVICE_BYTES,
        moved=1 / BUS_BYTES,
        turn=TURN,
        file=FILE,
    )


def sum_terms(reads: Iterable[Hashable], makes: int) -> int:
    """Arrays that go by in a sum, or in its size: what it reads, each once, and what it makes.

    Examples
    --------
    >>> sum_terms(["u", "v"], makes=1), sum_terms(["u", "v", "u"], makes=0)
    (3, 2)
    """
    return len(set(reads)) + makes


def at_each(threads: int, ahead: int) -> int:
    """Threads that are at each slab or pencil: all of them, or half where two are worked on at once."""
    return math.ceil(threads / 2) if ahead else threads


def shares(size: int, width: int, threads: int, ahead: int) -> int:
    """Into how many parts a slab or pencil is cut, of at most `width`: as many for one thread as for another."""
    each = at_each(threads, ahead)
    return min(size, each * math.ceil(size / (each * width)))


def _at_work(parts: int, threads: int, ahead: int) -> float:
    """Threads that are at work, of a slab or pencil in so many parts, on the average."""
    busy = min(threads, (2 if ahead else 1) * min(parts, at_each(threads, ahead)))
    return busy * (_AT_WORK_AHEAD if ahead else _AT_WORK)


def sweep_seconds(
    chain: Chain, size: int, rows: int, tile_rows: int, threads: int, rates: Rates, ahead: int = 0
) -> float:
    """Seconds of a sweep over rows that are streamed.

    Parameters
    ----------
    chain : Chain
    size : int
        Rows of the axis.
    rows, tile_rows : int
        Thickness of a slab, and most of a tile.
    threads : int
    rates : Rates
    ahead : int
        Slabs under way when another is begun.
    """
    parts = shares(rows, tile_rows, threads, ahead)
    tile = rows / parts
    work = 0.0
    for link in chain.links:
        if link.work in ("advance", "forward"):
            work += rates.evaluate + rates.around / tile + (rates.forward if link.work == "forward" else 0.0)
        else:
            terms = sum_terms(link.uses, len(link.makes))
            work += rates.finish if link.work == "finish" else rates.add * terms
        # rows of both neighbours are copied to every slab, read and written
        work += 2 * link.reach / rows * 2 * rates.add
    turns, moved = len(chain.links) * math.ceil(size / rows), chain.traffic * rates.moved
    # while the first slab is read and the last one is written, nothing else is to be done
    ends = moved * rows / 2
    return size * (work + moved) / _at_work(parts, threads, ahead) + turns * rates.turn + ends


def pencils_seconds(
    transforms: Sequence[int],
    columns: int,
    column_bytes: int,
    wide: int,
    tile_columns: int,
    slabs: int,
    threads: int,
    rates: Rates,
    ahead: int = 0,
    resident: int = 0,
) -> float:
    """Seconds of transforms along the first axis, of spectra that are streamed.

    Parameters
    ----------
    transforms : sequence of int
        For each transform, spectra that are read or written, twice if both.
    columns, column_bytes : int
        Columns of a spectrum of all fields, and bytes of one.
    wide, tile_columns : int
        Columns of a pencil, and most of a tile.
    slabs : int
        What the first axis is cut into.
    threads : int
    rates : Rates
    ahead : int
        Slabs under way when another is begun.
    resident : int
        Columns, of all these, that stay in memory.
    """
    seconds, streamed = 0.0, columns - resident
    for spectra in transforms:
        moved = spectra * column_bytes * rates.moved
        at_work = _at_work(shares(wide, tile_columns, threads, ahead), threads, ahead)
        seconds += (columns * rates.through + streamed * moved) / at_work
        if not resident:  # while the first pencil is read and the last one written, nothing else is to be done
            seconds += moved * wide / 2
        # every crossing is written by a slab, read and written by a pencil, and read by a slab
        seconds += math.ceil(streamed / wide) * (rates.turn + 4 * slabs * rates.file / threads)
        seconds += math.ceil(resident / wide) * rates.turn
    return seconds
