"""Steady conduction between voxels by SciPy's direct solvers, and images to have it on."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import xarray as xr

import voxdask as vd

#: Options of solves that are to be as good as a direct one.
EXACT: dict[str, Any] = {"dtype": "float64", "tolerance": 1e-13}


def image_of(labels: np.ndarray, **options: Any) -> xr.DataArray:
    return vd.dataset({"image": labels}, **options).image


def random_labels(shape: tuple[int, ...], seed: int = 0, labels: int = 4, fine: bool = False) -> np.ndarray:
    """Labels in clusters, or noise."""
    rng = np.random.default_rng(seed)
    noise = rng.random(shape)
    if not fine:
        for axis in range(len(shape)):
            noise = noise + np.roll(noise, 1, axis)
    return np.searchsorted(np.quantile(noise, np.arange(1, labels) / labels), noise).astype(np.uint8)


def network(values: np.ndarray, spacing: tuple[float, ...], periodic: tuple[bool, ...]) -> tuple[Any, list[Any]]:
    """The conductances between neighbours as a sparse matrix, and as (voxel, neighbour, conductance) by axis."""
    index = np.arange(values.size).reshape(values.shape)
    volume, faces = math.prod(spacing), []
    for axis, h in enumerate(spacing):
        if values.shape[axis] == 1 and not periodic[axis]:
            faces.append((np.zeros(0, int), np.zeros(0, int), np.zeros(0)))
            continue
        a, b = (np.take(index, range(values.shape[axis]), axis), np.roll(index, -1, axis))
        if not periodic[axis]:
            a, b = (np.take(each, range(values.shape[axis] - 1), axis) for each in (a, b))
        a, b = a.ravel(), b.ravel()
        va, vb = values.ravel()[a], values.ravel()[b]
        both = va + vb
        w = np.divide(2 * va * vb, both, out=np.zeros(len(a)), where=both > 0) * volume / h**2
        faces.append((a, b, w))
    a, b, w = (np.concatenate([face[k] for face in faces]) for k in range(3))
    n = values.size
    matrix = sp.coo_matrix((np.r_[-w, -w], (np.r_[a, b], np.r_[b, a])), (n, n)).tocsr()
    return sp.diags(-np.asarray(matrix.sum(1)).ravel()) + matrix, faces


def reference_through(values: np.ndarray, axis: int, spacing: tuple[float, ...], sides: bool = False) -> float:
    """D_eff by a direct solve, held at the outer faces."""
    periodic = tuple(sides and a != axis for a in range(values.ndim))
    matrix, _ = network(values, spacing, periodic)
    index = np.arange(values.size).reshape(values.shape)
    face = 2 * math.prod(spacing) / spacing[axis] ** 2
    ends = [np.take(index, i, axis).ravel() for i in (0, -1)]
    weights = [face * values.ravel()[end] for end in ends]
    diagonal = np.zeros(values.size)
    for end, weight in zip(ends, weights, strict=True):
        np.add.at(diagonal, end, weight)
    right = np.zeros(values.size)
    np.add.at(right, ends[1], weights[1])
    loose = np.asarray(abs(matrix).sum(1)).ravel() + diagonal == 0
    _, part = sp.csgraph.connected_components(matrix, directed=False)
    held = np.isin(part, part[diagonal > 0])
    solved = held & ~loose
    c = np.zeros(values.size)
    system = (matrix + sp.diags(diagonal)).tocsr()[solved][:, solved]
    c[solved] = scipy.sparse.linalg.spsolve(system.tocsc(), right[solved])
    flux = (weights[0] * c[ends[0]]).sum()
    length = values.shape[axis] * spacing[axis]
    return float(flux * length**2 / (values.size * math.prod(spacing)))


def reference_tensor(values: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The tensor under periodic mean gradients, by direct solves."""
    matrix, faces = network(values, spacing, (True,) * values.ndim)
    _, part = sp.csgraph.connected_components(matrix, directed=False)
    first = np.zeros(values.size, bool)
    first[np.unique(part, return_index=True)[1]] = True  # one voxel of each component is at zero
    solver = scipy.sparse.linalg.splu(matrix.tocsr()[~first][:, ~first].tocsc())
    fields = []
    for j, h in enumerate(spacing):
        a, b, w = faces[j]
        right = np.zeros(values.size)
        np.add.at(right, a, w * h)
        np.add.at(right, b, -w * h)
        c = np.zeros(values.size)
        c[~first] = solver.solve(right[~first])
        fields.append(c)
    result = np.zeros((values.ndim, values.ndim))
    for i, j in itertools.product(range(values.ndim), repeat=2):
        for axis, (a, b, w) in enumerate(faces):
            rises = [fields[q][b] - fields[q][a] + (spacing[axis] if q == axis else 0) for q in (i, j)]
            result[i, j] += (w * rises[0] * rises[1]).sum()
    return result / (values.size * math.prod(spacing))


def walls_of(values: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """The area of each conducting voxel's faces to others."""
    result = np.zeros(values.shape)
    for axis, h in enumerate(spacing):
        beside = np.diff((values > 0).astype(int), axis=axis)
        lower, upper = ([(0, 1) if a == axis else (0, 0) for a in range(3)] for _ in range(2))
        upper[axis] = (1, 0)
        result += (1.0 * np.pad(beside == -1, lower) + np.pad(beside == 1, upper)) * math.prod(spacing) / h
    return result


def reference_electrode(
    values: np.ndarray, spacing: tuple[float, ...]
) -> tuple[Any, np.ndarray, np.ndarray]:
    """Of the voxels that are open to the first layer's face: the matrix, what each conducts to it, and has of walls."""
    matrix, _ = network(values, spacing, (False,) * values.ndim)
    end = np.zeros(values.shape)
    end[0] = 2 * math.prod(spacing) / spacing[0] ** 2 * values[0]
    end = end.ravel()
    _, part = sp.csgraph.connected_components(matrix, directed=False)
    held = np.isin(part, part[end > 0])
    system = (matrix + sp.diags(end)).tocsr()[held][:, held]
    return system, end[held], walls_of(values, spacing).ravel()[held]
