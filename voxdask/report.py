"""What a run took: wall time, nanoseconds per voxel and step, peak memory."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from voxdask.units import format_bytes


@dataclass(frozen=True)
class Report:
    """What a run took.

    Attributes
    ----------
    tier : str
    voxels, steps : int
        Of this call: a resumed run counts what it did itself.
    wall_time : float
        Seconds in the time loop, saving included.
    step_time : float
        Seconds in steps alone.
    ns_per_voxel_step : float
        Median over the steps; the first one, which may compile kernels, is left out.
    peak_memory : int
        Bytes resident above what the process held when the run began; code that it compiled is among them. Of a run
        on a cluster, those of the client, not of its workers.
    projected_memory : int
        Bytes that the plan foresaw; of a run on a cluster, of all workers.
    rejected : int
        Attempts at a step whose error was beyond the tolerance; `steps` leaves them out.
    shortest_step, longest_step : float, optional
        Where a tolerance controls steps: their range, in units of time.
    workers : int
        Processes of a cluster that the run was on; 0 if it was in this one.
    """

    tier: str
    voxels: int
    steps: int
    wall_time: float
    step_time: float
    ns_per_voxel_step: float
    peak_memory: int
    projected_memory: int
    rejected: int = 0
    shortest_step: float | None = None
    longest_step: float | None = None
    workers: int = 0

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> Report | None:
        """The report in the attributes of a dataset, if there is one."""
        stored = attrs.get("report")
        return cls(**json.loads(stored)) if stored else None

    def as_json(self) -> str:
        """A text that any file format can hold as an attribute; :meth:`of` reads it."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        controlled = ""
        if self.shortest_step is not None:
            controlled = f"dt={self.shortest_step:.3g} ... {self.longest_step:.3g}, {self.rejected} rejected, "
        projected, peak = format_bytes(self.projected_memory), format_bytes(self.peak_memory)
        memory = f"{peak} of {projected} projected"
        if self.workers:  # their peaks are not known here
            memory = f"{peak} here, {projected} projected on {self.workers} workers"
        return (
            f"{self.steps} steps of {self.voxels:,} voxels ({controlled}{self.tier}) in {self.wall_time:.2f} s: "
            f"{self.ns_per_voxel_step:.1f} ns per voxel and step; peak memory {memory}"
        )


class PeakMemory:
    """Watches the resident memory of this process from a thread, every few milliseconds."""

    def __init__(self, interval: float = 0.005) -> None:
        self.interval = interval
        self.base = self.peak = 0
        self._process = psutil.Process()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="voxdask-memory", daemon=True)

    def __enter__(self) -> PeakMemory:
        self.base = self.peak = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()
        self._look()

    @property
    def above_base(self) -> int:
        """Highest resident bytes seen above those at the start."""
        return max(self.peak - self.base, 0)

    def _look(self) -> None:
        self.peak = max(self.peak, self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self._look()


class Stopwatch:
    """Adds up the time of steps, and keeps the first apart."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.laps: list[tuple[int, float]] = []
        self.rejected = 0
        self.shortest: float | None = None
        self.longest: float | None = None

    def lap(self, steps: int, seconds: float) -> None:
        """Note that some steps took some seconds."""
        self.laps.append((steps, seconds))

    def step(self, dt: float, seconds: float) -> None:
        """Note that a step of a length of its own took some seconds."""
        self.lap(1, seconds)
        self.shortest, self.longest = min(self.shortest or dt, dt), max(self.longest or dt, dt)

    def reject(self, seconds: float) -> None:
        """Note that an attempt that came to nothing took some seconds."""
        self.lap(1, seconds)
        self.rejected += 1

    @property
    def steps(self) -> int:
        """Steps that were taken."""
        return sum(steps for steps, _ in self.laps) - self.rejected

    @property
    def wall_time(self) -> float:
        return time.perf_counter() - self.started

    @property
    def step_time(self) -> float:
        return sum(seconds for _, seconds in self.laps)

    def ns_per_voxel_step(self, voxels: int) -> float:
        """Median nanoseconds, without the first lap where there are others."""
        laps = self.laps[1:] or self.laps
        return statistics.median(seconds / n for n, seconds in laps) / voxels * 1e9 if laps else 0.0
