"""How much surface passes between eight voxels: a number for each of the 256 ways in which they can be in a phase.

Voxel centres are the corners of a cube. Corner n lies at the binary digits (n >> 2, n >> 1, n) & 1 along the three
axes, and configuration c has corner n in the phase if bit n of c is set.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from scipy.spatial import SphericalVoronoi

_CORNERS = np.array(list(itertools.product((0, 1), repeat=3)))
Loop = tuple[frozenset[int], ...]


@lru_cache
def marching_cubes_areas(spacing: tuple[float, float, float]) -> np.ndarray:
    r"""The area of the surface half way between corners inside and outside, for all 256 configurations.

    On each face of the cube, lines join the midpoints of those of its sides that have one end inside. Where all four
    do, two lines cut the two corners inside off from each other. The lines close into loops around the cube, of which
    each bounds a polygon, cut into the triangles that have the least area in all: so mirror images have the same
    area. Two cubes agree on the face between them, which makes the surface closed.

    Parameters
    ----------
    spacing : tuple of float
        Distance of the corners along the three axes.

    Returns
    -------
    ndarray
        256 areas, in the square of the unit of the spacing; of the two configurations without surface, zero.

    References
    ----------
    Lorensen and Cline (1987), Computer Graphics 21 (4), 163, doi:10.1145/37402.37422

    Examples
    --------
    >>> areas = marching_cubes_areas((1.0, 1.0, 1.0))
    >>> areas[0b1111].item(), round(areas[0b1].item(), 4)  # a plane; a corner, cut off by an equilateral triangle
    (1.0, 0.2165)
    """
    points = _CORNERS * np.asarray(spacing)
    areas = [
        sum(_least_area(np.array([points[[*edge]].mean(0) for edge in loop])) for loop in _loops(c)) for c in range(256)
    ]
    return _constant(np.array(areas))


def _faces() -> Iterator[list[int]]:
    """The corners of each face, in order around it."""
    for axis, side in itertools.product(range(3), (0, 1)):
        first, second = (1 << (2 - other) for other in range(3) if other != axis)
        corner = side << (2 - axis)
        yield [corner, corner + first, corner + first + second, corner + second]


def _loops(configuration: int) -> list[Loop]:
    """Loops of the sides of the cube that the surface cuts, each a pair of corners."""
    neighbours: dict[frozenset[int], list[frozenset[int]]] = {}
    for face in _faces():
        inside = [bool(configuration >> corner & 1) for corner in face]
        sides = [frozenset((face[k - 1], face[k])) for k in range(4)]  # side k ends at corner k, k + 1 begins there
        cut = [sides[k] for k in range(4) if inside[k - 1] != inside[k]]
        if len(cut) == 2:
            joined = [(cut[0], cut[1])]
        else:
            joined = [(sides[k], sides[(k + 1) % 4]) for k in range(4) if inside[k]] if cut else []
        for one, other in joined:
            neighbours.setdefault(one, []).append(other)
            neighbours.setdefault(other, []).append(one)
    loops = []
    while neighbours:
        start, (_, following) = neighbours.popitem()
        loop, here = [start], following
        while here != start:
            one, other = neighbours.pop(here)
            loop, here = [*loop, here], other if one == loop[-1] else one
        loops.append(tuple(loop))
    return loops


def _least_area(points: np.ndarray) -> float:
    """The least area of the triangles that a polygon in space, of few corners, can be cut into."""

    @lru_cache(None)
    def between(first: int, last: int) -> float:
        return min(
            (
                between(first, k) + between(k, last) + _triangle(points[first], points[k], points[last])
                for k in range(first + 1, last)
            ),
            default=0.0,
        )

    return between(0, len(points) - 1)


def _triangle(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> float:
    return float(np.linalg.norm(np.cross(b - a, c - a))) / 2


@lru_cache
def crofton_areas(spacing: tuple[float, ...]) -> np.ndarray:
    r"""The expected area by how often lines along 13 directions cross the surface, for all 256 configurations.

    .. math:: S = 2 \sum_k c_k \frac{V}{d_k} I_k , \qquad \sum_k c_k = 1

    Here :math:`I_k` pairs of corners that lie a distance :math:`d_k` apart along direction k differ, V is the volume of
    a voxel, and :math:`c_k` is the share of the sphere that is nearer to direction k, either way, than to any other. A
    pair that several cubes share counts for each by its part. With two axes, the factor is :math:`\pi/2`, for lengths
    by four directions in the plane.

    Parameters
    ----------
    spacing : tuple of float
        Distance of the corners along the first two axes, or along three.

    Returns
    -------
    ndarray
        256 areas, in the square of the unit of the spacing; with two axes, lengths per layer of voxels.

    References
    ----------
    Legland, Kieu and Devaux (2007), Image Anal. Stereol. 26, 83, doi:10.5566/ias.v26.p83-92

    Examples
    --------
    >>> areas = crofton_areas((1.0, 1.0, 1.0))
    >>> round(areas[0b1111].item(), 3)  # a plane along the axes is the worst case
    0.927
    """
    ndim = len(spacing)
    steps = [d for d in itertools.product((-1, 0, 1), repeat=ndim) if any(d)]
    lengths = np.linalg.norm(np.multiply(steps, spacing), axis=1)
    shares = _nearest_shares(np.multiply(steps, spacing) / lengths[:, None])
    factor = {2: np.pi / 2, 3: 2.0}[ndim] * float(np.prod(spacing))
    areas = np.zeros(256)
    inside = (np.arange(256)[:, None] >> np.arange(8) & 1).astype(bool)
    for step, length, share in zip(steps, lengths, shares, strict=True):
        whole = np.array((*step, *(0,) * (3 - ndim)))
        for n, corner in enumerate(_CORNERS):
            end = corner + whole
            if ((end >= 0) & (end <= 1)).all():
                cubes = 2 ** int((whole == 0).sum())
                areas += factor * share / length / cubes * (inside[:, n] != inside[:, int(end @ (4, 2, 1))])
    return _constant(areas)


def _constant(table: np.ndarray) -> np.ndarray:
    table.flags.writeable = False  # all callers share it
    return table


def _nearest_shares(directions: np.ndarray) -> np.ndarray:
    """The share of the circle or sphere that is nearest to each of some unit vectors."""
    if directions.shape[1] == 3:
        areas = SphericalVoronoi(directions).calculate_areas()
        return np.asarray(areas / areas.sum())
    angles = np.arctan2(directions[:, 0], directions[:, 1])
    order = np.argsort(angles)
    gaps = np.diff(angles[order], append=angles[order[0]] + 2 * np.pi)
    shares = np.empty(len(angles))
    shares[order] = (gaps + np.roll(gaps, 1)) / (4 * np.pi)
    return shares
