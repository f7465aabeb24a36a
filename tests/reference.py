"""An independent reference: models, ghost layers and steps in plain NumPy, one layer and one matrix at a time.

Nothing here comes from voxdask but the objects in which a user writes a boundary condition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

import voxdask as vd

Array = np.ndarray
Rate = Callable[[float, Array], Array]


@dataclass(frozen=True)
class Axis:
    """An axis: name, spacing, whether node-centred, and (kind, value) at its two ends."""

    dim: str
    h: float
    node: bool
    lo: tuple[str, Any]
    hi: tuple[str, Any]

    @property
    def periodic(self) -> bool:
        return self.lo[0] == "periodic"

    def without_values(self, *, even: bool = False) -> Axis:
        """The same with given values of zero; `even`: reflected as a coefficient is."""
        if self.periodic:
            return self
        lo, hi = ("neumann", 0.0) if even else (self.lo[0], 0.0), ("neumann", 0.0) if even else (self.hi[0], 0.0)
        return replace(self, lo=lo, hi=hi)


def axes_of(ds: xr.Dataset, boundary: Any) -> list[Axis]:
    """The axes of a dataset, in storage order, under a boundary condition as a user writes it."""
    field = next(iter(ds.data_vars.values()))

    def end(condition: Any, side: int) -> tuple[str, Any]:
        if isinstance(condition, tuple):
            return end(condition[side], side)
        if isinstance(condition, str):
            return condition, 0.0
        value = condition.hi if side == 1 and condition.hi is not None else condition.lo
        return ("dirichlet" if isinstance(condition, vd.Dirichlet) else "neumann"), value

    axes = []
    for dim in field.dims:
        condition = boundary.get(dim, "periodic") if isinstance(boundary, dict) else boundary
        attrs = ds[dim].attrs
        axes.append(
            Axis(str(dim), attrs["spacing"], attrs["location"] == "node", end(condition, 0), end(condition, 1))
        )
    return axes


def at(value: Any, t: float) -> Any:
    """A boundary value at a time."""
    return value(t) if callable(value) else value


def hold(u: Array, axes: Sequence[Axis], t: float) -> Array:
    """A copy of a field with the nodes on Dirichlet ends at their values."""
    u = u.copy()
    for a in sorted(range(len(axes)), key=lambda a: axes[a].dim):
        axis = axes[a]
        for index, (kind, value) in ((0, axis.lo), (-1, axis.hi)):
            if axis.node and kind == "dirichlet":
                now = at(value, t)
                if isinstance(now, xr.DataArray):
                    now = now.transpose(*(other.dim for other in axes if other is not axis)).values
                u[(*(slice(None),) * a, index)] = now
    return u


def pad(u: Array, depth: int, axes: Sequence[Axis], t: float = 0.0) -> Array:
    """Ghost layers one at a time, by the design's formulas; axes in the order of their names.

    Axes of `u` beyond those of the grid are carried along.
    """
    u = hold(u, axes, t)
    padded: set[int] = set()
    for a in sorted(range(len(axes)), key=lambda a: axes[a].dim):
        axis, n = axes[a], u.shape[a]
        v = [_over_layer(at(value, t), a, axes, padded, depth) for _, value in (axis.lo, axis.hi)]
        inside = [u[(*(slice(None),) * a, i)] for i in range(n)]

        def layer(i: int, axis: Axis = axis, n: int = n, v: list[Any] = v, inside: list[Array] = inside) -> Array:
            if 0 <= i < n:
                return inside[i]
            if axis.periodic:
                return inside[i % n]
            side = int(i > 0)
            kind, k = (axis.lo, axis.hi)[side][0], (i - (n - 1) if side else -i)
            if axis.node:
                within = layer(n - 1 - k if side else k)
                return 2 * v[side] - within if kind == "dirichlet" else within + 2 * k * axis.h * v[side]
            within = layer(n - k if side else k - 1)
            return 2 * v[side] - within if kind == "dirichlet" else within + (2 * k - 1) * axis.h * v[side]

        u = np.stack([layer(i) for i in range(-depth, n + depth)], axis=a)
        padded.add(a)
    return u


def _over_layer(value: Any, a: int, axes: Sequence[Axis], padded: set[int], depth: int) -> Any:
    """A face value over a layer: wrapped, mirrored, or odd about a wall along the axes that are padded already."""
    if not isinstance(value, xr.DataArray):
        return value
    rest = [i for i in range(len(axes)) if i != a]
    array = value.transpose(*(axes[i].dim for i in rest)).values
    for place, i in enumerate(rest):
        if i in padded:
            mode = "wrap" if axes[i].periodic else "reflect" if axes[i].node else "symmetric"
            width = [(0, 0)] * array.ndim
            width[place] = (depth, depth)
            n = array.shape[place]
            ends = [np.take(array, [i], place) for i in (0, min(1, n - 1), n - 1, max(n - 2, 0))]
            array = np.pad(array, width, mode=mode)  # type: ignore[call-overload]
            for (kind, _), first, second, outer in (
                (axes[i].lo, ends[0], ends[1], slice(0, depth)),
                (axes[i].hi, ends[2], ends[3], slice(n + depth, None)),
            ):
                if kind == "dirichlet" and not axes[i].node and n > 1:
                    outside = (*(slice(None),) * place, outer)
                    array[outside] = 3 * first - second - array[outside]
    return array


def laplacian(u: Array, axes: Sequence[Axis]) -> Array:
    """The compact Laplacian of a padded array, one layer less on every side."""
    return divergence(np.ones_like(u), u, axes)


def divergence(D: Array, u: Array, axes: Sequence[Axis], at_faces: Callable[[Array], Array] = lambda d: d) -> Array:
    """div( f(face(D)) grad u ) of padded arrays, one layer less on every side."""
    total: Any = 0.0
    for a, axis in enumerate(axes):
        lower, upper = ((*(slice(None),) * a, s) for s in (slice(None, -1), slice(1, None)))
        flux = at_faces((D[lower] + D[upper]) / 2) * (u[upper] - u[lower]) / axis.h
        core = tuple(slice(None) if b == a else slice(1, -1) for b in range(len(axes)))
        total = total + ((flux[upper] - flux[lower]) / axis.h)[core]
    return total


def crop(u: Array, axes: Sequence[Axis]) -> Array:
    """One layer less on every side."""
    return u[(slice(1, -1),) * len(axes)]


def reaction_diffusion(
    axes: Sequence[Axis], D: Any, source: Callable[[float, Array], Array] = lambda t, c: np.zeros_like(c)
) -> Rate:
    """dc/dt = div(D grad c) + source(t, c), D a number or an array."""

    def rate(t: float, c: Array) -> Array:
        c = hold(c, axes, t)
        d = np.broadcast_to(np.asarray(D, float), c.shape)
        d = pad(d, 1, [axis.without_values(even=True) for axis in axes])
        return release(divergence(d, pad(c, 1, axes, t), axes) + source(t, c), axes)

    return rate


def cahn_hilliard(axes: Sequence[Axis], eps: float, D: float) -> Rate:
    """dc/dt = div( D c (1-c) grad( 18/eps c (1-c) (1-2c) - 2 eps lap c ) )."""

    def rate(t: float, c: Array) -> Array:
        c = np.clip(pad(c, 2, axes, t), 0, 1)
        inner = crop(c, axes)
        mu = 18 / eps * inner * (1 - inner) * (1 - 2 * inner) - 2 * eps * laplacian(c, axes)
        return release(divergence(inner, mu, axes, lambda c: D * c * (1 - c)), axes)

    return rate


def release(rate: Array, axes: Sequence[Axis]) -> Array:
    """Zero at the nodes that are held."""
    return rate * free(rate.shape, axes)


def free(shape: tuple[int, ...], axes: Sequence[Axis]) -> Array:
    """Which voxels are unknowns."""
    mask = np.ones(shape, bool)
    for a, axis in enumerate(axes):
        for index, (kind, _) in ((0, axis.lo), (-1, axis.hi)):
            if axis.node and kind == "dirichlet":
                mask[(*(slice(None),) * a, index)] = False
    return mask


def laplace_matrix(shape: tuple[int, ...], axes: Sequence[Axis]) -> Array:
    """The Laplacian with homogeneous ends as a dense matrix over the unknowns."""
    mask = free(shape, axes).ravel()
    identity = np.eye(mask.size)[:, mask].reshape(*shape, -1)
    matrix = laplacian(pad(identity, 1, [axis.without_values() for axis in axes]), axes)
    return matrix.reshape(mask.size, -1)[mask]


def imex(rate: Rate, stiff: Array, axes: Sequence[Axis]) -> Callable[[float, float, Array], Array]:
    """u + (1 - dt stiff)^-1 dt rate(u), `stiff` a matrix over the unknowns."""

    def step(t: float, dt: float, u: Array) -> Array:
        change = np.zeros_like(u)
        mask = free(u.shape, axes)
        change[mask] = np.linalg.solve(np.eye(len(stiff)) - dt * stiff, dt * rate(t, u)[mask])
        return hold(u + change, axes, t + dt)

    return step


def euler(rate: Rate, axes: Sequence[Axis]) -> Callable[[float, float, Array], Array]:
    """u + dt rate(u)."""
    return lambda t, dt, u: hold(u + dt * rate(t, u), axes, t + dt)


def rk4(rate: Rate, axes: Sequence[Axis]) -> Callable[[float, float, Array], Array]:
    """The classical Runge-Kutta method."""

    def step(t: float, dt: float, u: Array) -> Array:
        k1 = rate(t, u)
        k2 = rate(t + dt / 2, u + dt / 2 * k1)
        k3 = rate(t + dt / 2, u + dt / 2 * k2)
        k4 = rate(t + dt, u + dt * k3)
        return hold(u + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4), axes, t + dt)

    return step
