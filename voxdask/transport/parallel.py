"""Work on ranges, by a few threads; behind each range mapped memory is given back."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from voxdask.transport.arrays import Arrays

#: Nodes that are gone through before mapped memory is given back.
_NODES = 1 << 17

Ranges = Sequence[tuple[int, int]]


class Workers:
    """Threads of a solve, which end with the last reference.

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

        if len(ranges) == 1 or self.threads == 1:
            return [job(bounds) for bounds in ranges]
        return list(self._pool.map(job, ranges))

    def each(self, work: Callable[[int], Any], items: Iterable[int]) -> list[Any]:
        """What work gives for every item, one after the other."""
        results = []
        for item in items:
            results.append(work(item))
            if self.arrays.spilled:
                self.arrays.give_back()
        return results

    def series(self, work: Callable[[int, int], Any], stop: int, start: int = 0) -> None:
        """One range of nodes after the other, where the order matters."""
        self.accumulate(lambda lo, hi, _: work(lo, hi), stop, start)

    def number(self, out: np.ndarray) -> None:
        """Fill an array with 0, 1, 2, ..."""
        self.series(lambda lo, hi: np.copyto(out[lo:hi], np.arange(lo, hi)), len(out))

    def accumulate(self, work: Callable[[int, int, int], Any], stop: int, start: int = 0) -> int:
        """The same, for what goes on from a count; returns the last one."""
        step, total = _NODES if self.arrays.spilled else max(stop - start, 1), 0
        for lo in range(start, stop, step):
            total = work(lo, min(lo + step, stop), total)
            if self.arrays.spilled:
                self.arrays.give_back()
        return total


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
