"""How a run goes to a GPU: as one block if it fits there, else through it, slab by slab. Integers only."""

from __future__ import annotations

from collections.abc import Sequence

from voxdask.costs import Rates
from voxdask.planning import OVERHEAD_BYTES, Plan, Problem, make_plan, spilled_seconds
from voxdask.spilling import FILE_BYTES, Cut, Route, cut
from voxdask.units import format_bytes

#: The share of a device's memory that is planned for: pools and plans of transforms take some, too.
_SHARE = 0.9


def block_bytes(problem: Problem) -> int:
    """Bytes on a device of a run that fits there: states, a rate of change, spectra, and a transform's workspace."""
    total = (problem.registers * problem.fields + problem.constants) * problem.padded_bytes
    total += problem.inner * problem.padded_bytes + problem.fields * problem.voxels * problem.itemsize
    return total + (problem.fields * problem.spectra + 2 * problem.spectral) * problem.spectrum_bytes


def turn_bytes(problem: Problem, rows: int, columns: int) -> int:
    """Bytes that work on a slab or a pencil takes on a device, beside what is at hand."""
    slab = problem.inner * (rows + 2 * problem.halo) * problem.padded_row_bytes
    slab += problem.fields * rows * problem.row_bytes + 3 * rows * problem.spectrum_row_bytes
    return max(slab, 3 * problem.shape[0] * columns * problem.mode_bytes if problem.spectral else 0)


def plan_on_device(
    problem: Problem,
    *,
    device_limit: int,
    memory_limit: int,
    routes: Sequence[Route],
    frame_bytes: int = 0,
    rates: Rates | None = None,
) -> Plan:
    """Choose a tier, and slabs and pencils, for a GPU.

    Parameters
    ----------
    problem : Problem
    device_limit, memory_limit : int
        Bytes that the run may take on the device, and on the host beside the caller's arrays.
    routes : sequence of Route
        The ways in which a run may go through the device.
    frame_bytes : int
        Frames that the run keeps on the host.
    rates : Rates, optional
        What parts of a step cost.

    Returns
    -------
    Plan
        Of the tier *block* if all fits on the device, *streamed* if fields lie on the host, *spilled* if in files.

    Raises
    ------
    MemoryError
        If not even slabs of one row fit on the device.

    Examples
    --------
    >>> problem = Problem((64, 64, 64), 4, 1, 0, 1, 2, 1, 1, 64, 33 * 8)
    >>> plan_on_device(problem, device_limit=10**9, memory_limit=10**9, routes=[]).tier
    'block'
    """
    size, limit = problem.shape[0], int(_SHARE * device_limit)
    whole = block_bytes(problem)
    if whole <= limit:
        thin = max(1, FILE_BYTES // problem.row_bytes)
        chunk = min(size, thin)
        return Plan(
            "block", problem, 1, min(size, thin), problem.columns, size, problem.columns, 1, 1, 0, chunk, chunk,
            OVERHEAD_BYTES + frame_bytes, 0, memory_limit, f"{format_bytes(whole)} fit on the GPU", device_bytes=whole,
        )  # fmt: skip

    def budget(rows: int, columns: int) -> int:
        return limit - turn_bytes(problem, rows, columns)

    cuts = [
        found
        for route in routes
        if (
            found := cut(
                route, problem.shape, columns=problem.columns, column_bytes=size * problem.mode_bytes,
                row_bytes=problem.padded_row_bytes, fill_slabs=1, budget=budget,
            )
        )
    ]  # fmt: skip
    if not cuts:
        raise MemoryError(
            f"the run cannot go through the GPU: slabs of one row of {' x '.join(map(str, problem.shape[1:])) or '1'} "
            f"voxels do not fit into the {format_bytes(device_limit)} that are free there"
        )
    best: Cut = min(cuts, key=lambda found: spilled_seconds(problem, found, 1, found.rows, rates))
    rows, columns, route = best.rows, best.columns, best.route
    state = problem.fields * problem.padded_row_bytes * size
    held = route.states * state + problem.constants * problem.padded_row_bytes * size
    held += problem.fields * problem.spectra * problem.spectrum_bytes
    taken = best.bytes + turn_bytes(problem, rows, columns)
    reason = f"{format_bytes(whole)} would not fit into {format_bytes(device_limit)} on the GPU"
    chunk = max(1, min(size, FILE_BYTES // problem.row_bytes))
    if OVERHEAD_BYTES + held + frame_bytes <= memory_limit:
        return Plan(
            "streamed", problem, 1, rows, columns, rows, columns, route.depth, route.steps, best.bytes, chunk, chunk,
            OVERHEAD_BYTES + held + frame_bytes, 0, memory_limit, reason, device_bytes=taken,
        )  # fmt: skip
    on_disk = make_plan(problem, memory_limit=memory_limit, threads=1, routes=lambda: [route])
    rows, columns = min(rows, on_disk.slab_rows), min(columns, on_disk.pencil_columns)
    return Plan(
        "spilled", problem, 1, rows, columns, rows, columns, route.depth, route.steps, best.bytes, on_disk.save_rows,
        on_disk.save_rows, on_disk.memory_bytes, on_disk.disk_bytes, memory_limit, f"{reason}, nor on the host",
        device_bytes=taken,
    )  # fmt: skip
