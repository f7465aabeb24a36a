"""Run equations and kernels on small periodic arrays, with nothing of voxdask between them and NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp

from voxdask.kernels import Kernel, compile_program
from voxdask.lowering import Program, lower

Array = np.ndarray

AXES = ("z", "y", "x")


def random_fields(*names: str, shape: Sequence[int], seed: int = 0, dtype: Any = np.float64) -> dict[str, Array]:
    """Fields with values in (0.1, 0.9), where logarithms and roots are tame."""
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(0.1, 0.9, shape).astype(dtype) for name in names}


def scalars(kernel: Kernel, spacing: Sequence[float], values: Mapping[str, float]) -> dict[str, float]:
    """All numbers that a kernel may ask for."""
    return {f"inverse_spacing_{axis}": 1 / h for axis, h in zip(kernel.axes, spacing, strict=True)} | dict(values)


def positions(kernel: Kernel, shape: Sequence[int], spacing: Sequence[float]) -> dict[str, Array]:
    """Voxel i lies at (i + 1/2) h."""
    return {
        axis: (np.arange(-kernel.halo, n + kernel.halo) + 0.5) * h
        for axis, n, h in zip(kernel.axes, shape, spacing, strict=True)
    }


def run_program(
    program: Program, fields: Mapping[str, Array], spacing: Sequence[float], **values: float
) -> dict[str, Any]:
    """The results of a program on periodic fields."""
    kernel = compile_program(program)
    blocks = {name: np.pad(fields[name], kernel.halo, mode="wrap") for name in kernel.inputs}
    shape = next(iter(fields.values())).shape
    return kernel(blocks, positions(kernel, shape, spacing), scalars(kernel, spacing, values))


def run(e: sp.Expr, fields: Mapping[str, Array], spacing: Sequence[float], **values: float) -> Array:
    """One expression on periodic fields; the axes are the last of (z, y, x)."""
    program = lower((e,), ("result",), AXES[-len(spacing) :], fallback=next(iter(fields)))
    return np.asarray(run_program(program, fields, spacing, **values)["result"])


def ahead(u: Array, a: int) -> Array:
    """The neighbour at the upper side along axis a."""
    return np.roll(u, -1, a)


def behind(u: Array, a: int) -> Array:
    """The neighbour at the lower side along axis a."""
    return np.roll(u, 1, a)


def laplacian(u: Array, spacing: Sequence[float]) -> Array:
    """The compact Laplacian."""
    return np.asarray(sum((ahead(u, a) - 2 * u + behind(u, a)) / h**2 for a, h in enumerate(spacing)))


def divergence(mobility: Any, u: Array, spacing: Sequence[float]) -> Array:
    """div(m grad u), `mobility(a)` at the upper face of every voxel along axis a."""
    total = np.zeros_like(u)
    for a, h in enumerate(spacing):
        flux = mobility(a) * (ahead(u, a) - u) / h
        total += (flux - behind(flux, a)) / h
    return total


def face_mean(u: Array, a: int) -> Array:
    """The mean over the voxels at the upper face along axis a."""
    return np.asarray((u + ahead(u, a)) / 2)


def gradient_product(u: Array, v: Array, spacing: Sequence[float]) -> Array:
    """grad u . grad v, the mean over faces."""
    total = np.zeros_like(u)
    for a, h in enumerate(spacing):
        product = (ahead(u, a) - u) * (ahead(v, a) - v) / h**2
        total += (product + behind(product, a)) / 2
    return total
