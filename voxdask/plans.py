"""How a run is cut up: tier, slabs, pencils, and projected bytes, traffic and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from voxdask.problem import Problem, transform_rows
from voxdask.units import format_bytes, format_seconds

Tier = Literal["block", "chunked", "streamed", "spilled"]

#: Bytes of one field that are summed up at once: sums have no ghost rows to share, and take as much again in between.
SUM_TILE_BYTES = 1 << 18
#: Parts of a block or slab on a device that are summed up one after the other.
DEVICE_SUMS = 8

#: Where the traffic of a tier goes.
_TRAFFIC = {
    "block": "to and from memory",
    "chunked": "between slabs and pencils",
    "streamed": "to and from the GPU",
    "spilled": "to and from the disk",
}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How :func:`voxdask.simulate` will run, and what that takes.

    Attributes
    ----------
    tier : {"block", "chunked", "streamed", "spilled"}
        One block in memory; Dask chunks; from host memory through a GPU, or files, a few slabs at a time.
    problem : Problem
    threads : int
        Of all processes.
    workers : int
        Processes of a cluster; 0 if it runs in this one.
    rows, columns : int
        What is worked on at once: few enough to stay in cache.
    slab_rows, pencil_columns : int
        What is read and written at once: as thick as the memory has room for; of a chunked run, what one task works on.
    depth : int
        Most evaluations of the right-hand side in one sweep.
    batch : int
        Steps that are taken before a state is asked for.
    ahead : int
        Slabs of a streamed run under way when another is begun.
    hand_bytes : int
        Of the rows and pencils that a streamed run has at hand.
    chunk_rows, save_rows : int
        Thickness of the chunks that frames are saved in, and of those that every thread may save at once.
    memory_bytes : int
        Projected peak beside the caller's arrays.
    disk_bytes : int
        Projected size of the working files, without frames.
    memory_limit : int
    reason : str
    traffic_bytes : int, optional
        Foreseen for a step: to and from the disk, between workers, or to and from memory, by tier.
    step_seconds : float, optional
        Foreseen for a step.
    device_bytes : int
        Projected peak on a GPU, if it runs on one.
    resident_columns : int
        Columns of spectra of a spilled run that stay in memory: the first ones.
    """

    tier: Tier
    problem: Problem
    threads: int
    rows: int
    columns: int
    slab_rows: int
    pencil_columns: int
    chunk_rows: int
    save_rows: int
    memory_bytes: int
    memory_limit: int
    reason: str
    workers: int = 0
    depth: int = 1
    batch: int = 1
    hand_bytes: int = 0
    disk_bytes: int = 0
    traffic_bytes: int | None = None
    step_seconds: float | None = None
    device_bytes: int = 0
    ahead: int = 0
    resident_columns: int = 0

    @property
    def streamed_columns(self) -> int:
        """Columns of spectra that do not stay in memory."""
        return self.problem.columns - self.resident_columns

    @property
    def slab_threads(self) -> int:
        """Threads that share what is done to one chunk: all of a worker's, or the one that it is given to."""
        return max(1, self.threads // self.workers) if self.workers else 1

    @property
    def on_device(self) -> bool:
        """Whether the run is one on a GPU."""
        return self.device_bytes > 0

    @property
    def streams(self) -> bool:
        """Whether only a few slabs are at hand."""
        return self.tier in ("streamed", "spilled")

    @property
    def transform_rows(self) -> int:
        """Rows of a field that are transformed at once on the host."""
        return transform_rows(self.problem, self.rows)

    @property
    def sum_rows(self) -> int:
        """Rows of a field that are summed up at once."""
        return max(min(self.rows, SUM_TILE_BYTES // self.problem.row_bytes), 1)

    def __str__(self) -> str:
        shape = " x ".join(map(str, self.problem.shape))
        per_voxel, resident = self.memory_bytes / self.problem.voxels, self.resident_columns
        lines = [
            ("tier", f"{self.tier}: {self.reason}"),
            ("grid", f"{shape} = {self.problem.voxels:,} voxels, {8 * self.problem.itemsize}-bit"),
            (
                "slabs",
                f"{self.slab_rows} rows, worked on {self.rows} at a time by {self.threads} threads"
                + (f", up to {self.ahead + 1} under way" if self.ahead else ""),
            ),
            (
                "pencils",
                f"{self.pencil_columns} columns, worked on {self.columns} at a time"
                + (f"; {resident} of {self.problem.columns} stay in memory" if resident else ""),
            ),
            (
                "memory",
                f"{format_bytes(self.memory_bytes)} ({per_voxel:.2f} bytes per voxel) "
                f"of {format_bytes(self.memory_limit)}",
            ),
            ("disk", format_bytes(self.disk_bytes)),
        ]
        if self.on_device:
            lines.insert(5, ("on the GPU", format_bytes(self.device_bytes)))
        if self.streams:
            deep = f"{self.depth} evaluations" if self.depth > 1 else "one evaluation"
            lines.insert(4, ("sweeps", f"with {deep} in each" + (f", {self.batch} steps" if self.batch > 1 else "")))
        if self.traffic_bytes is not None:
            lines.append(("traffic", f"{format_bytes(self.traffic_bytes)} a step, {_TRAFFIC[self.tier]}"))
        if self.step_seconds is not None:
            ns = self.step_seconds / self.problem.voxels * 1e9
            lines.append(("time", f"{format_seconds(self.step_seconds)} a step ({ns:.1f} ns per voxel)"))
        return "\n".join(f"{name:10} {text}" for name, text in lines)

    def _repr_html_(self) -> str:
        return f"<pre>{self}</pre>"
