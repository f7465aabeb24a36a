"""Work on ranges, by a few threads; behind each range mapped memory is given back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from voxdask.transport.arrays import Arrays

Ranges = Sequence[tuple[int, int]]


class Workers:
    """Threads of a solve.

    Parameters
    ----------
    threads : int
    arrays : Arrays
        Whose mapped memory is given back.
    """

    def __init__(self, threads: int, arrays: Arrays) -> None:
        self.threads, self.arrays = threads, arrays
        self._pool = ThreadPoolExecutor(threads, "voxdask-transport")

    def map(self, work: Callable[[int, int], Any], ranges: Ranges) -> list[Any]:
        """What work gives for every range, in their order."""

        def job(bounds: tuple[int, int]) -> Any:
            result = work(*bounds)
            if self.arrays.spilled:
                self.arrays.give_back()
            return result

        if len(ranges) == 1:
            return [job(ranges[0])]
        return list(self._pool.map(job, ranges))

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown()


def even(size: int, count: int, step: int = 1) -> list[tuple[int, int]]:
    """About `count` ranges of about the same size that start at multiples of `step`.

    Examples
    --------
    >>> even(10, 3, 2)
    [(0, 4), (4, 6), (6, 10)]
    """
    steps = -(-size // step)
    count = max(1, min(count, steps))
    cuts = [min(size, round(steps * i / count) * step) for i in range(count + 1)]
    return [(a, b) for a, b in itertools.pairwise(cuts) if a < b]
