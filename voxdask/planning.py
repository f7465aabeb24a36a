"""Which way a run takes: tier, tiles, slabs and pencils that fit under a limit. Integers only; no array, no dask."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from voxdask.costs import Rates, pencils_seconds, sweep_seconds
from voxdask.plans import Plan, Tier
from voxdask.problem import TILE_BYTES, Problem, tile_bytes
from voxdask.spilling import Cut, Route, cut
from voxdask.units import format_bytes
from voxdask.windows import AHEAD, aligned

#: As TILE_BYTES, for rows of a field that lies in memory: thicker tiles share more of their ghost rows.
MEMORY_TILE_BYTES = 8 << 20
#: Tiles of a field in memory for each thread at the least, so that none waits long for the others.
TILES_PER_THREAD = 4
#: Bytes of such a tile at the least: to hand a smaller one to another thread takes longer than to work on it.
LEAST_TILE_BYTES = 1 << 16
#: Bytes of a run that do not grow with the grid: code, buffers of files, thread stacks.
OVERHEAD_BYTES = 16 << 20
#: Shares of all columns, of so many, that are thought of as staying in memory.
RESIDENT_SHARES = 16
#: Ways whose times are measured to be as close as this are alike: measured again, the other may be the faster.
ALIKE = 1.05
#: Bytes of one chunk of a saved frame, before compression.
FRAME_CHUNK_BYTES = 8 << 20
#: Copies of a chunk while it is saved: without ghost layers, compressed, and as it is handed to the file.
FRAME_COPIES = 3
#: Slabs of one field for each thread that saves a frame: what it holds, and what compressing them leaves behind.
SAVE_SLABS = 6


def memory_bytes(problem: Problem, tier: Tier, threads: int, rows: int, columns: int) -> int:
    """Projected peak of a run in memory on one machine, beside the caller's arrays."""
    block = tier == "block"
    total = OVERHEAD_BYTES + threads * tile_bytes(problem, rows, columns, padded=not block)
    field = problem.padded_bytes if block else problem.voxels * problem.itemsize
    total += problem.constants * (field if block else 0)
    total += threads * FRAME_COPIES * min(FRAME_CHUNK_BYTES, problem.voxels * problem.itemsize)
    states = problem.registers * problem.fields * field
    spectra = problem.fields * problem.spectra * problem.spectrum_bytes
    if block:
        return total + states + spectra
    # Dask makes what is next while the last is read; slabs and pencils, there and back, are arrays of their own
    return total + (3 * states + 4 * spectra if problem.spectral else 2 * states)


def make_plan(
    held: Plan,
    *,
    routes: Callable[[], Sequence[Route]] = tuple,
    rates: Callable[[Plan], Rates | None] = lambda plan: None,
) -> Plan:
    """A run as it is planned if it fits into memory, else one that spills.

    Parameters
    ----------
    held : Plan
        In memory; see :func:`plan_in_memory`.
    routes : callable
        Gives the ways in which a run may be spilled; asked only if it must be.
    rates : callable
        Gives what parts of a step cost in a run by a plan that was made without; asked only if there is a choice of
        routes. Along a single one, threads and slabs are chosen by nominal rates.

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
    >>> make_plan(plan_in_memory(problem, memory_limit=10**9, threads=2)).tier
    'block'
    >>> make_plan(plan_in_memory(problem, memory_limit=18 * 10**6, threads=2))
    Traceback (most recent call last):
    MemoryError: the run takes 31.5 MB, more than memory_limit=18.0 MB, and can't be spilled
    """
    if held.memory_bytes <= held.memory_limit:
        return held
    ways, given = routes(), (held.problem, held.memory_limit, held.threads, held.memory_bytes)
    plan = spill(*given, ways, resident=True)
    measured = rates(plan) if len(ways) > 1 else None
    return spill(*given, ways, measured, resident=True) if measured else plan


def plan_in_memory(
    problem: Problem,
    *,
    memory_limit: int,
    threads: int,
    chunked: bool = False,
    chunk_rows: int | None = None,
    workers: int = 0,
    frame_bytes: int = 0,
    why: str = "",
) -> Plan:
    """A run whose fields lie in memory; whether they fit there, its bytes say.

    Parameters
    ----------
    problem : Problem
    memory_limit : int
        Bytes that the run may take beside the caller's arrays; on a cluster, of all its processes.
    threads : int
        On a cluster, of all its processes.
    chunked : bool
        Run Dask chunks, not a block.
    chunk_rows : int, optional
        Thickness of the chunks that the caller wants.
    workers : int
        Processes of a cluster. Each has one slab, which its threads share: so there is least to exchange. Local threads
        have two slabs each, to take turns.
    frame_bytes : int
        Frames that the run keeps in memory.
    why : str
        Reason to be given for the tier that the caller's arrays ask for.

    Returns
    -------
    Plan
    """
    rows, columns = _cache_tiles(problem, MEMORY_TILE_BYTES)
    if not chunked:  # all threads share a block; thinner tiles would make ghost rows more often than their own
        share = math.ceil(problem.shape[0] / (TILES_PER_THREAD * threads))
        rows = min(rows, max(share, 2 * problem.halo, LEAST_TILE_BYTES // problem.row_bytes, 1))
    tier: Tier = "chunked" if chunked else "block"
    in_memory = memory_bytes(problem, tier, threads, rows, columns) + frame_bytes
    size = problem.shape[0]
    if chunked:
        whole = min(size, chunk_rows or max(-(-size // (workers or 2 * threads)), problem.halo, 1))
        rows, slab_rows = min(rows, whole), whole
    else:
        slab_rows, whole = rows, min(size, max(FRAME_CHUNK_BYTES // problem.row_bytes, rows))
    reason = why or f"{format_bytes(in_memory)} fit in memory"
    return Plan(
        tier=tier, problem=problem, threads=threads, workers=workers, rows=rows, columns=columns, slab_rows=slab_rows,
        pencil_columns=columns, chunk_rows=whole, save_rows=whole, memory_bytes=in_memory, memory_limit=memory_limit,
        reason=reason,
    )  # fmt: skip


def has_room_for_chunks(plan: Plan, chunk_rows: int) -> bool:
    """Whether a plan can save chunks as thick as an earlier one chose, one at a time if they are thicker than slabs."""
    more = SAVE_SLABS * (chunk_rows - plan.threads * plan.save_rows) * plan.problem.row_bytes
    return plan.tier != "spilled" or more <= OVERHEAD_BYTES // 4


def with_chunks(plan: Plan, chunk_rows: int) -> Plan:
    """A plan for chunks of a store that an earlier one chose.

    A task of a chunked run writes whole ones: its slabs are the multiple of them that is nearest to what was planned.
    What the run takes is not counted by slabs, and stays.

    Examples
    --------
    >>> problem = Problem((64, 64, 64), 4, 1, 0, 1, 2, 1, 1, 64, 33 * 8)
    >>> plan = plan_in_memory(problem, memory_limit=10**9, threads=2, chunked=True, chunk_rows=16)
    >>> [with_chunks(plan, rows).slab_rows for rows in (1, 6, 24, 40, 64)]
    [16, 18, 24, 40, 64]
    """
    if plan.tier != "chunked":
        return replace(plan, chunk_rows=chunk_rows)
    slab_rows = max((plan.slab_rows + chunk_rows // 2) // chunk_rows, 1) * chunk_rows
    slab_rows = min(slab_rows, plan.problem.shape[0])
    return replace(plan, chunk_rows=chunk_rows, slab_rows=slab_rows, rows=min(plan.rows, slab_rows))


def _cache_tiles(problem: Problem, row_tile_bytes: int) -> tuple[int, int]:
    # the many fields of a family share the cache, which two find room in
    rows = row_tile_bytes // (problem.row_bytes * max(problem.fields // 2, 1))
    # a thicker tile makes fewer rows around it, but takes more memory, which a step that transforms has other uses for;
    # with several stages it is worth that, as what they make for each other is no more than a strip
    rows = max(rows, (4 if problem.inner or not problem.spectral else 2) * problem.halo, 1)
    columns = max(TILE_BYTES // (problem.shape[0] * max(problem.mode_bytes, 1)), 1)
    return min(rows, problem.shape[0]), min(columns, problem.columns)


def spill(
    problem: Problem,
    memory_limit: int,
    threads: int,
    in_memory: int,
    routes: Sequence[Route],
    rates: Rates | None = None,
    *,
    resident: bool = False,
) -> Plan:
    """The fastest of the thickest slabs and pencils that fit under a limit, by route and by how many threads.

    If some columns of spectra may be `resident`, so are as many as are worth the memory that they take.

    Raises
    ------
    MemoryError
        If there is no route, or no slabs fit, however thin.
    """
    if not routes:
        raise MemoryError(
            f"the run takes {format_bytes(in_memory)}, more than memory_limit={format_bytes(memory_limit)}, "
            "and can't be spilled"
        )
    cache_rows, cache_columns = _cache_tiles(problem, TILE_BYTES)

    def tiles(workers: int, rows: int, columns: int) -> int:
        tile = tile_bytes(problem, min(cache_rows, rows), min(cache_columns, columns), padded=False)
        return workers * tile * 5 // 4  # an allocator keeps some of what the threads of a trial had

    def resident_bytes(route: Route, columns: int) -> int:
        return problem.fields * route.spectra * aligned(columns * problem.column_bytes)

    def cut_for(route: Route, workers: int, limit: int, ahead: int = 0, kept: int = 0) -> Cut | None:
        beside = fixed_bytes(workers, limit) + resident_bytes(route, kept)

        def budget(rows: int, columns: int) -> int:
            return limit - beside - tiles(workers, rows, columns)

        return cut(
            route, problem, tile_rows=cache_rows, tile_columns=cache_columns, fill_slabs=workers, ahead=ahead,
            budget=budget, resident=kept,
        )  # fmt: skip

    def save_rows(workers: int, limit: int) -> int:
        room = min(FRAME_CHUNK_BYTES, limit // (8 * SAVE_SLABS * workers))
        return max(1, min(problem.shape[0], room // problem.row_bytes))

    def fixed_bytes(workers: int, limit: int) -> int:
        return OVERHEAD_BYTES + workers * SAVE_SLABS * save_rows(workers, limit) * problem.row_bytes

    # more threads take more memory, which makes slabs thinner
    ways = itertools.product(range(threads, 0, -1), routes, (AHEAD, 0))
    cuts = [
        (workers, found)
        for workers, route, ahead in ways
        if (workers > 1 or not ahead) and (found := cut_for(route, workers, memory_limit, ahead))
    ]

    def seconds(each: tuple[int, Cut]) -> float:
        return spilled_seconds(problem, each[1], each[0], cache_rows, cache_columns, rates)

    if cuts:
        # of those alike the first, of few evaluations in a sweep, so that a run takes the way that was planned
        longest = min(map(seconds, cuts)) * (ALIKE if rates else 1)
        workers, best = next(each for each in cuts if seconds(each) <= longest)
        if resident and problem.spectral:
            shares = {problem.columns * share // RESIDENT_SHARES for share in range(1, RESIDENT_SHARES + 1)} - {0}
            more = (cut_for(best.route, workers, memory_limit, best.ahead, kept) for kept in sorted(shares))
            workers, best = min([(workers, best), *((workers, found) for found in more if found)], key=seconds)
        rows, columns, route = best.rows, best.columns, best.route
        thin = (min(cache_rows, rows), min(cache_columns, columns))
        total = fixed_bytes(workers, memory_limit) + tiles(workers, *thin) + best.bytes
        total += resident_bytes(route, best.resident)
        save = save_rows(workers, memory_limit)
        # files are whole chunks, the last one of a row of them too
        height, width = _whole(problem.shape[0], rows), _whole(problem.columns - best.resident, columns)
        disk = (route.states * problem.fields + problem.constants) * height * problem.padded_row_bytes
        disk += 2 * route.kept * problem.fields * _whole(problem.shape[0], save) * problem.row_bytes
        disk += problem.fields * problem.spectra * height * width * problem.mode_bytes
        reason = f"{format_bytes(in_memory)} would not fit into {format_bytes(memory_limit)}"
        return Plan(
            tier="spilled", problem=problem, threads=workers, rows=thin[0], columns=thin[1], slab_rows=rows,
            pencil_columns=columns, depth=route.depth, batch=route.steps, hand_bytes=best.bytes, chunk_rows=save,
            save_rows=save, memory_bytes=total, disk_bytes=disk, memory_limit=memory_limit, reason=reason,
            ahead=best.ahead, resident_columns=best.resident,
        )  # fmt: skip
    power = next(1 << k for k in range(20, 63) if any(cut_for(route, 1, 1 << k) for route in routes))
    needed = least(power // 2, power, lambda limit: any(cut_for(route, 1, limit) for route in routes))
    needed = int(1.05 * needed)  # it is printed to two digits, which may round down
    raise MemoryError(
        f"the run cannot fit into memory_limit={format_bytes(memory_limit)} even spilled to disk: with the thinnest "
        f"slabs of {' x '.join(map(str, problem.shape[1:])) or '1'} voxels a row, "
        f"and {format_bytes(OVERHEAD_BYTES)} whatever the size, it takes {format_bytes(needed)}"
    )


def spilled_seconds(
    problem: Problem, found: Cut, threads: int, tile_rows: int, tile_columns: int, rates: Rates | None = None
) -> float:
    """What a step along a route costs."""
    rates, route = rates or problem.nominal_rates, found.route
    seconds = sum(
        sweep_seconds(chain, problem.shape[0], found.rows, tile_rows, threads, rates, found.ahead)
        for chain in route.chains
    )
    slabs, fields = math.ceil(problem.shape[0] / found.rows), problem.fields
    seconds += pencils_seconds(
        [each.read + each.written for each in route.pencils], fields * problem.columns, problem.column_bytes,
        found.columns, tile_columns, slabs, threads, rates, found.ahead, fields * found.resident,
    )  # fmt: skip
    return seconds / route.steps


def _whole(size: int, width: int) -> int:
    """The least multiple of a width that is not below a size."""
    return -(-size // width) * width


def least(low: int, high: int, fits: Callable[[int], bool]) -> int:
    """The smallest number from `low` + 1 to `high` that fits, which `high` does."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high
