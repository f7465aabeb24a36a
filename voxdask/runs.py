"""Connected parts of a mask, found run by run: voxels in a row along the last axis belong together at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit


@dataclass(frozen=True)
class Runs:
    """The runs of a mask of one to three axes, in the order of their first voxels.

    Attributes
    ----------
    shape : tuple of int
        Of the mask.
    begins : ndarray
        The first run of every line along the last axis, and how many there are in all.
    starts, stops : ndarray
        Where along its line each run starts, and where it has ended.
    parts : ndarray
        The connected part that each run belongs to, from 1, in the order of their first voxels.
    voxels : ndarray
        Size of each part.
    """

    shape: tuple[int, ...]
    begins: np.ndarray
    starts: np.ndarray
    stops: np.ndarray
    parts: np.ndarray
    voxels: np.ndarray

    @classmethod
    def of(cls, mask: np.ndarray) -> Runs:
        """Find the runs of a mask, and join those that share a face of a voxel.

        Examples
        --------
        >>> Runs.of(np.array([[True, True, False], [False, True, True], [True, False, False]])).parts
        array([1, 1, 2], dtype=int32)
        """
        planes, lines = (1, 1, *mask.shape[:-1])[-2:]
        flat = np.ascontiguousarray(mask).view(np.uint8).reshape(planes * lines, mask.shape[-1])
        begins, starts, stops = _find(flat)
        parts, voxels = _join(lines, begins, starts, stops)
        return cls(mask.shape, begins, starts, stops, parts, voxels)

    def paint(self, values: np.ndarray) -> np.ndarray:
        """An image of the first of some values outside the mask, of that at the number of its part within.

        Examples
        --------
        >>> Runs.of(np.array([True, False, True])).paint(np.array([0, 7, 9]))
        array([7, 0, 9])
        """
        image = np.full((len(self.begins) - 1, self.shape[-1]), values[0])
        _paint(np.arange(len(image)), self.begins, self.starts, self.stops, values[self.parts], image)
        return image.reshape(self.shape)

    def face(self, axis: int, end: int) -> np.ndarray:
        """The numbers of the parts, 0 outside the mask, at the first (0) or last (-1) voxels along an axis.

        Examples
        --------
        >>> runs = Runs.of(np.array([[True, False, False], [False, False, True]]))
        >>> runs.face(0, -1), runs.face(1, 0)
        (array([0, 0, 2], dtype=int32), array([1, 0], dtype=int32))
        """
        lines, across = np.arange(len(self.begins) - 1).reshape(self.shape[:-1]), self.shape[-1]
        if axis < len(self.shape) - 1:
            chosen = lines.take(end, axis)
            image = np.zeros((chosen.size, across), np.int32)
            _paint(chosen.ravel(), self.begins, self.starts, self.stops, self.parts, image)
            return image.reshape(*chosen.shape, across)
        numbers = np.zeros(lines.size, np.int32)
        filled = self.begins[1:] > self.begins[:-1]
        run = (self.begins[1:] - 1 if end else self.begins[:-1])[filled]
        numbers[filled] = np.where((self.stops[run] == across) if end else (self.starts[run] == 0), self.parts[run], 0)
        return numbers.reshape(lines.shape)


@njit(nogil=True, cache=True)
def _find(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # pragma: no cover
    """Where runs begin, line by line."""
    begins = np.zeros(len(mask) + 1, np.int64)
    for i in range(len(mask)):
        line, count, before = mask[i], 0, np.uint8(0)
        for here in line:
            count += here & ~before & 1
            before = here
        begins[i + 1] = begins[i] + count
    starts, stops = np.empty(begins[-1], np.int32), np.empty(begins[-1], np.int32)
    for i in range(len(mask)):
        line, run, before = mask[i], begins[i], np.uint8(0)
        for k in range(len(line)):
            if line[k] != before:
                before = line[k]
                if before:
                    starts[run] = k
                else:
                    stops[run] = k
                    run += 1
        if before:
            stops[run] = len(line)
    return begins, starts, stops


@njit(nogil=True, cache=True)
def _root(parents: np.ndarray, run: int) -> int:  # pragma: no cover
    """The first run of a part, to which the way is made shorter."""
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


@njit(nogil=True, cache=True)
def _join(
    lines: int, begins: np.ndarray, starts: np.ndarray, stops: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:  # pragma: no cover
    """The part of every run, and the size of every part."""
    parents = np.arange(len(starts), dtype=np.int32)
    for i in range(len(begins) - 1):
        for within in (True, False):  # the line before in its plane, and the same line in the plane before
            back = 1 if within else lines
            if (i % lines if within else i) < back:
                continue
            one, other = begins[i], begins[i - back]
            while one < begins[i + 1] and other < begins[i - back + 1]:
                if starts[one] < stops[other] and starts[other] < stops[one]:
                    a, b = _root(parents, one), _root(parents, other)
                    parents[max(a, b)] = min(a, b)
                if stops[one] < stops[other]:
                    one += 1
                else:
                    other += 1
    count = 0
    parts = np.empty(len(starts), np.int32)
    for run in range(len(starts)):  # a root comes before all others of its part
        if parents[run] == run:
            count += 1
            parts[run] = count
        else:
            parts[run] = parts[_root(parents, run)]
    voxels = np.zeros(count, np.int64)
    for run in range(len(starts)):
        voxels[parts[run] - 1] += stops[run] - starts[run]
    return parts, voxels


@njit(nogil=True, cache=True)
def _paint(
    lines: np.ndarray,
    begins: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    values: np.ndarray,
    image: np.ndarray,
) -> None:  # pragma: no cover
    """Some lines of an image, with a value for each run."""
    for i, line in enumerate(lines):
        for run in range(begins[line], begins[line + 1]):
            image[i, starts[run] : stops[run]] = values[run]
