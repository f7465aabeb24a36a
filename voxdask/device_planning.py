"""How a run goes to a GPU: as one block if it fits there, else through it, slab by slab. Integers only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from voxdask.planning import OVERHEAD_BYTES, least, spill, spilled_seconds
from voxdask.plans import Plan
from voxdask.problem import Problem
from voxdask.spilling import FILE_BYTES, Cut, Route, cut, window_bytes
from voxdask.units import format_bytes

#: The share of a device's memory that is planned for: pools and plans of transforms take some, too.
_SHARE = 0.9
#: Bytes of numbers and of little arrays.
_SMALL_BYTES = 1 << 12
#: Layers of ghost voxels, and what they are made of, that are there at once while one is filled.
_LAYERS = 3


def block_bytes(problem: Problem) -> int:
    """Bytes on a device of a run that fits there: states, a rate of change, spectra, and a transform's workspace."""
    total = _beside(problem) + (problem.registers * problem.fields + problem.constants) * problem.padded_bytes
    total += problem.inner * problem.padded_bytes + problem.fields * problem.voxels * problem.itemsize
    return total + (problem.fields * problem.spectra + 3 * problem.spectral) * problem.spectrum_bytes


def _beside(problem: Problem) -> int:
    """Bytes of ghost layers, of positions and wavenumbers, and of numbers."""
    layers = _LAYERS * max(problem.padded_bytes // (n + 2 * problem.halo) for n in problem.shape)
    return layers + 2 * sum(problem.shape) * problem.itemsize + _SMALL_BYTES


def turn_bytes(problem: Problem, rows: int, columns: int) -> int:
    """Bytes that work on a slab or a pencil takes on a device, beside what is at hand."""
    slab = problem.inner * (rows + 2 * problem.halo) * problem.padded_row_bytes
    slab += problem.fields * rows * problem.row_bytes + 4 * rows * problem.spectrum_row_bytes
    return _beside(problem) + max(slab, 4 * columns * problem.column_bytes if problem.spectral else 0)


def plan_on_device(
    problem: Problem,
    *,
    device_limit: int,
    memory_limit: int,
    routes: Sequence[Route],
    frame_bytes: int = 0,
    kept_bytes: int = 0,
) -> Plan:
    """Choose a tier, and slabs and pencils, for a GPU.

    Parameters
    ----------
    problem : Problem
    device_limit, memory_limit : int
        Bytes that the run may take on the device, and on the host beside the caller's arrays.
    routes : sequence of Route
        The ways in which a run may go through the device.
    frame_bytes, kept_bytes : int
        Frames that the run keeps on the host, and on the device if it fits there as one block.

    Returns
    -------
    Plan
        Of the tier *block* if all fits on the device, *streamed* if fields lie on the host, *spilled* if in files.

    Raises
    ------
    MemoryError
        If no slabs fit on the device, however thin.

    Examples
    --------
    >>> problem = Problem((64, 64, 64), 4, 1, 0, 1, 2, 1, 1, 64, 33 * 8)
    >>> plan_on_device(problem, device_limit=10**9, memory_limit=10**9, routes=[]).tier
    'block'
    """
    size, limit = problem.shape[0], int(_SHARE * device_limit)
    whole = block_bytes(problem) + kept_bytes
    if whole <= limit:
        thin = max(1, FILE_BYTES // problem.row_bytes)
        chunk = min(size, thin)
        return Plan(
            tier="block", problem=problem, threads=1, rows=min(size, thin), columns=problem.columns, slab_rows=size,
            pencil_columns=problem.columns, chunk_rows=chunk, save_rows=chunk,
            memory_bytes=OVERHEAD_BYTES + frame_bytes - kept_bytes, memory_limit=memory_limit,
            reason=f"{format_bytes(whole)} fit on the GPU", device_bytes=whole,
        )  # fmt: skip

    def cuts(free: int) -> list[Cut]:
        def budget(rows: int, columns: int) -> int:
            return free - turn_bytes(problem, rows, columns)

        every = (
            cut(
                route, problem, tile_rows=1, tile_columns=1, fill_slabs=1, ahead=0, budget=budget,
            )
            for route in routes
        )  # fmt: skip
        return [found for found in every if found]

    if not (found := cuts(limit)):
        raise MemoryError(_too_small(problem, device_limit, lambda free: free >= whole or bool(cuts(free))))
    rates = problem.device_rates
    best = min(found, key=lambda each: spilled_seconds(problem, each, 1, each.rows, each.columns, rates))
    rows, columns, route = best.rows, best.columns, best.route
    state = problem.fields * problem.padded_row_bytes * size
    held = route.states * state + problem.constants * problem.padded_row_bytes * size
    held += problem.fields * problem.spectra * problem.spectrum_bytes
    taken = best.bytes + turn_bytes(problem, rows, columns)
    reason = f"{format_bytes(whole)} would not fit into {format_bytes(device_limit)} on the GPU"
    chunk = max(1, min(size, FILE_BYTES // problem.row_bytes))
    if OVERHEAD_BYTES + held + frame_bytes <= memory_limit:
        return Plan(
            tier="streamed", problem=problem, threads=1, rows=rows, columns=columns, slab_rows=rows,
            pencil_columns=columns, depth=route.depth, batch=route.steps, hand_bytes=best.bytes, chunk_rows=chunk,
            save_rows=chunk, memory_bytes=OVERHEAD_BYTES + held + frame_bytes, memory_limit=memory_limit,
            reason=reason, device_bytes=taken,
        )  # fmt: skip
    on_disk = spill(problem, memory_limit, 1, OVERHEAD_BYTES + held, [route])
    rows, columns = min(rows, on_disk.slab_rows), min(columns, on_disk.pencil_columns)
    at_hand = max(best.bytes, window_bytes(route, size, rows, 0))  # slabs thinner than the reach take more
    return replace(
        on_disk, rows=rows, columns=columns, slab_rows=rows, pencil_columns=columns, hand_bytes=at_hand,
        reason=f"{reason}, nor on the host", device_bytes=taken + at_hand - best.bytes, ahead=0,
    )  # fmt: skip


def _too_small(problem: Problem, device_limit: int, fits: Callable[[int], bool]) -> str:
    """What to tell whoever's device has not even room for the thinnest slabs."""
    power = next(1 << k for k in range(63) if fits(1 << k))
    needed = int(least(power // 2, power, fits) / _SHARE) + 1
    return (
        f"the run cannot go through the GPU: {format_bytes(device_limit)} are free there, and the thinnest slabs "
        f"of {' x '.join(map(str, problem.shape[1:])) or '1'} voxels a row take {format_bytes(needed)}; end what else "
        'uses the GPU, or use device="cpu"'
    )
