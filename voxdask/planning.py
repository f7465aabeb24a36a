"""How a run is cut up: tier, slabs, pencils and projected bytes. Integers only; no array, no dask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Tier = Literal["block", "chunked", "spilled"]

#: Bytes of one field, or of one spectrum's columns, that are worked on at once: so few that they stay in cache.
TILE_BYTES = 1 << 20
#: The same for rows of a field that lies in memory: thicker tiles share more of their ghost rows.
MEMORY_TILE_BYTES = 4 << 20
#: The same for sums of fields, which have nothing to share, and take as much again for what is between.
SUM_TILE_BYTES = 1 << 18
#: Bytes of a run that do not grow with the grid: code, buffers of files, thread stacks.
OVERHEAD_BYTES = 16 << 20
#: Bytes of one chunk of a saved frame, before compression.
FRAME_CHUNK_BYTES = 8 << 20
#: Most bytes of a slab of one field in a file of its own.
FILE_BYTES = 64 << 20


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
    def spectrum_row_bytes(self) -> int:
        return self.columns * self.mode_bytes if self.spectral else 0

    @property
    def spectrum_bytes(self) -> int:
        return self.shape[0] * self.spectrum_row_bytes


@dataclass(frozen=True)
class Plan:
    """How :func:`voxdask.simulate` will run, and what that takes.

    Attributes
    ----------
    tier : {"block", "chunked", "spilled"}
        One block in memory; Dask chunks; or files, a slab at a time.
    problem : Problem
    threads : int
    rows, columns : int
        What is worked on at once: few enough to stay in cache.
    slab_rows, pencil_columns : int
        What is held at once: as many of these as the memory has room for.
    chunk_rows : int
        Thickness of the chunks that frames are saved in.
    memory_bytes : int
        Projected peak beside the caller's arrays.
    disk_bytes : int
        Projected size of the working files, without frames.
    memory_limit : int
    reason : str
    """

    tier: Tier
    problem: Problem
    threads: int
    rows: int
    columns: int
    slab_rows: int
    pencil_columns: int
    chunk_rows: int
    memory_bytes: int
    disk_bytes: int
    memory_limit: int
    reason: str

    @property
    def sum_rows(self) -> int:
        """Rows of a field that are summed up at once."""
        return max(min(self.rows, SUM_TILE_BYTES // self.problem.row_bytes), 1)

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.problem.shape))
        per_voxel = self.memory_bytes / self.problem.voxels
        lines = [
            ("tier", f"{self.tier}: {self.reason}"),
            ("grid", f"{shape} = {self.problem.voxels:,} voxels, {8 * self.problem.itemsize}-bit"),
            ("slabs", f"{self.slab_rows} rows, worked on {self.rows} at a time by {self.threads} threads"),
            ("pencils", f"{self.pencil_columns} columns, worked on {self.columns} at a time"),
            (
                "memory",
                f"{format_bytes(self.memory_bytes)} ({per_voxel:.2f} bytes per voxel) "
                f"of {format_bytes(self.memory_limit)}",
            ),
            ("disk", format_bytes(self.disk_bytes)),
        ]
        return "\n".join(f"{name:8} {text}" for name, text in lines)

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>"


def tile_bytes(problem: Problem, rows: int, columns: int) -> int:
    """Bytes that a thread needs to work on one tile: padded fields, stages, results, modes."""
    padded = (rows + 2 * problem.halo) * problem.padded_row_bytes
    slab = (problem.fields + problem.constants + problem.inner) * padded
    slab += problem.fields * rows * problem.row_bytes
    # a transform makes the next array before the last is given up
    slab += 2 * rows * problem.spectrum_row_bytes
    return slab + (2 * problem.shape[0] * columns * problem.mode_bytes if problem.spectral else 0)


def buffer_bytes(problem: Problem, slab_rows: int, pencil_columns: int) -> int:
    """Bytes that a thread needs beside to read and write files: slabs and pencils, windows, crossings."""
    window = (slab_rows + 2 * problem.halo) * problem.row_bytes
    total = (problem.fields + problem.constants) * window
    # slabs to write and to start from, and rows on their way into a frame, once more while they are compressed
    slabs = problem.registers if problem.spectral else 1 + 2 * max(problem.registers - 2, 1)
    total += (slabs * problem.fields + 3) * slab_rows * problem.row_bytes
    if problem.spectral:
        pencil = problem.shape[0] * pencil_columns * problem.mode_bytes
        total += problem.fields * max(slab_rows * problem.spectrum_row_bytes, pencil)
        kept = problem.spectra - 1  # spectra that are kept between evaluations lie in files as whole pencils
        total += kept * pencil + (pencil if kept else slab_rows * pencil_columns * problem.mode_bytes)
    return total


def spilled_bytes(problem: Problem, threads: int, rows: int, columns: int, slab_rows: int, pencil_columns: int) -> int:
    """Projected peak of a spilled run."""
    work = tile_bytes(problem, rows, columns) + buffer_bytes(problem, slab_rows, pencil_columns)
    return OVERHEAD_BYTES + threads * work


def memory_bytes(problem: Problem, tier: Tier, threads: int, rows: int, columns: int) -> int:
    """Projected peak of a run in memory on one machine, beside the caller's arrays."""
    total = OVERHEAD_BYTES + threads * tile_bytes(problem, rows, columns)
    state = problem.registers * problem.fields * problem.voxels * problem.itemsize
    spectra = problem.fields * problem.spectra * problem.spectrum_bytes
    # Dask makes the next state and spectrum while the last are read
    return total + (2 if tier == "chunked" else 1) * (state + spectra)


def make_plan(
    problem: Problem,
    *,
    memory_limit: int,
    threads: int,
    chunked: bool = False,
    chunk_rows: int | None = None,
    frame_bytes: int = 0,
    why: str = "",
) -> Plan:
    """Choose tier, tiles and chunks.

    Parameters
    ----------
    problem : Problem
    memory_limit : int
        Bytes that the run may take beside the caller's arrays.
    threads : int
    chunked : bool
        Run Dask chunks if that fits.
    chunk_rows : int, optional
        Thickness of the chunks that the caller wants.
    frame_bytes : int
        Frames that the run keeps in memory, if it does not spill.
    why : str
        Reason to be given for the tier that the caller's arrays ask for.

    Returns
    -------
    Plan

    Raises
    ------
    MemoryError
        If not even tiles of one row fit; the message says what is needed.

    Examples
    --------
    >>> problem = Problem((64, 64, 64), 4, 1, 0, 1, 2, 1, 1, 64, 33 * 8)
    >>> make_plan(problem, memory_limit=10**9, threads=2).tier
    'block'
    >>> make_plan(problem, memory_limit=18 * 10**6, threads=2).tier
    'spilled'
    """
    rows, columns = _cache_tiles(problem, MEMORY_TILE_BYTES)
    tier: Tier = "chunked" if chunked else "block"
    in_memory = memory_bytes(problem, tier, threads, rows, columns) + frame_bytes
    if in_memory > memory_limit:
        return _spill(problem, memory_limit, threads, in_memory)
    size = problem.shape[0]
    if chunked:
        whole = min(size, chunk_rows or max(-(-size // (2 * threads)), problem.halo, 1))
        rows, slab_rows = min(rows, whole), whole
    else:
        slab_rows, whole = rows, min(size, max(FRAME_CHUNK_BYTES // problem.row_bytes, rows))
    reason = why or f"{format_bytes(in_memory)} fit in memory"
    return Plan(
        tier, problem, threads, rows, columns, slab_rows, columns, whole, in_memory, 0, memory_limit, reason
    )


def has_room_for_chunks(plan: Plan, chunk_rows: int) -> bool:
    """Whether a plan can save chunks as thick as an earlier one chose, one at a time if they are thicker than slabs."""
    more = 3 * (chunk_rows - plan.threads * plan.slab_rows) * plan.problem.row_bytes
    return plan.tier != "spilled" or more <= OVERHEAD_BYTES // 4


def _cache_tiles(problem: Problem, row_tile_bytes: int) -> tuple[int, int]:
    # the many fields of a family share the cache, which two find room in
    rows = max(row_tile_bytes // (problem.row_bytes * max(problem.fields // 2, 1)), 2 * problem.halo, 1)
    columns = max(TILE_BYTES // (problem.shape[0] * max(problem.mode_bytes, 1)), 1)
    return min(rows, problem.shape[0]), min(columns, problem.columns)


def _spill(problem: Problem, memory_limit: int, threads: int, in_memory: int) -> Plan:
    """The thickest slabs and pencils under a limit; thinner tiles, then fewer threads, where these do not fit."""
    disk = (problem.registers + 4) * problem.fields + problem.constants
    disk_bytes = disk * problem.voxels * problem.itemsize + problem.fields * problem.spectra * problem.spectrum_bytes
    cache_rows, cache_columns = _cache_tiles(problem, TILE_BYTES)

    def needed(workers: int, rows: int, columns: int) -> int:
        thin = (min(cache_rows, rows), min(cache_columns, columns))
        return spilled_bytes(problem, workers, *thin, rows, columns)

    def widest(workers: int, rows: int) -> int:
        """Most columns of a pencil beside slabs of some rows; 0 if not even one fits."""
        low, high = 0, max(1, problem.columns // (2 * workers)) if problem.spectral else 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if needed(workers, rows, middle) <= memory_limit else (low, middle - 1)
        return low

    for workers in range(threads, 0, -1):
        # work for every thread in every sweep, and no file of more than 64 MiB
        most = max(1, min(problem.shape[0] // (2 * workers), FILE_BYTES // problem.row_bytes))
        # the largest crossings of slabs and pencils make the fewest files; thick slabs read the fewest ghost rows
        size, rows = max((rows * widest(workers, rows), rows) for rows in range(1, most + 1))
        if size == 0:
            continue
        columns = size // rows
        thin = (min(cache_rows, rows), min(cache_columns, columns))
        reason = f"{format_bytes(in_memory)} would not fit into {format_bytes(memory_limit)}"
        total = needed(workers, rows, columns)
        return Plan(
            "spilled", problem, workers, *thin, rows, columns, rows, total, disk_bytes, memory_limit, reason
        )
    raise MemoryError(
        f"the run cannot fit into memory_limit={format_bytes(memory_limit)} even spilled to disk: a slab of one row "
        f"of {' x '.join(map(str, problem.shape[1:])) or '1'} voxels takes {format_bytes(needed(1, 1, 1))}"
    )


def format_bytes(count: int) -> str:
    """Bytes for people.

    Examples
    --------
    >>> format_bytes(3_200_000)
    '3.2 MB'
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def parse_bytes(text: str | int | float) -> int:
    """Bytes from a number or a text such as ``"200MB"`` or ``"1.5 GiB"``.

    Raises
    ------
    ValueError
        If it is neither, or not positive.

    Examples
    --------
    >>> parse_bytes("200MB"), parse_bytes("1 KiB")
    (200000000, 1024)
    """
    units = {"": 1, "B": 1} | {f"{p}B": 1000 ** (i + 1) for i, p in enumerate("kMGT")}
    units |= {f"{p}iB": 1024 ** (i + 1) for i, p in enumerate("KMGT")}
    lower = {unit.lower(): factor for unit, factor in units.items()}
    words = str(text).strip()
    digits = words.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    try:
        count = float(digits) * lower[words[len(digits) :].strip().lower()]
    except (ValueError, KeyError):
        raise ValueError(f'memory_limit is {text!r}; give bytes or a text such as "200MB" or "4GiB"') from None
    if not count > 0 or math.isinf(count):
        raise ValueError(f"memory_limit is {text!r}; it must be positive")
    return int(count)
