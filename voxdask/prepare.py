"""From a user's dataset to a system and its arrays: what fits is checked here, before any work."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import xarray as xr

from voxdask import backend
from voxdask import boundary as boundaries
from voxdask.boundary import Axis
from voxdask.equation import Equation, Family
from voxdask.ffts import check_fft
from voxdask.grid import Grid
from voxdask.inputs import looked_at
from voxdask.members import families_of, member_name
from voxdask.system import Operators, System, discretise

#: How far a field may stray beyond its limits: what float32 makes of a sum.
_ROUND_OFF = 1e-5


@dataclass(frozen=True, eq=False)
class Prepared:
    """A system with its operators, and the arrays of its fields and constants in storage order."""

    system: System
    operators: Operators
    fields: dict[str, Any]
    constants: dict[str, Any]
    source: xr.Dataset

    @property
    def lazy(self) -> bool:
        """Whether any array is a Dask array."""
        return any(isinstance(a, da.Array) for a in (*self.fields.values(), *self.constants.values()))


def prepare(
    equation: Equation,
    ds: xr.Dataset,
    boundary: Any,
    wavenumbers: Literal["spectral", "stencil"] = "spectral",
    fft: str = "scipy",
) -> Prepared:
    """Check a dataset against an equation and discretise the one on the grid of the other.

    Parameters
    ----------
    equation : Equation
    ds : Dataset
        With every field and auxiliary field of the equation.
    boundary : str, Dirichlet, Neumann, tuple or mapping
        See :func:`voxdask.boundary.parse`.
    wavenumbers : {"spectral", "stencil"}
    fft : str
        Name of the library that transforms arrays in memory; see :func:`voxdask.ffts.check_fft`.

    Returns
    -------
    Prepared

    Raises
    ------
    TypeError
        If `ds` is no Dataset, or a field or coefficient is not real.
    ValueError
        If a field is missing, has other dims than the grid, or a coefficient lies on another grid or is not finite.
    """
    if not isinstance(ds, xr.Dataset):
        raise TypeError(f"expected an xarray.Dataset, got {type(ds).__name__}; make one with vd.dataset")
    for name in (*equation.fields, *equation.auxiliary):
        if name not in ds.data_vars:
            given = f"; a run keeps what changes alone, so give it: ds.assign({name}=...)"
            raise ValueError(
                f"the dataset has no field {name!r}, which the model needs; it has "
                f"{', '.join(map(repr, ds.data_vars)) or 'none'}{given if name in equation.auxiliary else ''}"
            )
    if "time" in ds.dims:
        raise ValueError("the dataset has a time dim; choose the frame to start from, e.g. ds.isel(time=-1)")
    used = ds[[*equation.fields, *equation.auxiliary]]
    grid = Grid.from_dataset(used)
    if equation.family:
        _check_same_members(equation.family, ds)
        equation = equation.of_members(_members(equation.fields, ds, equation.family.dim))
    fields = {n: a for name in equation.fields for n, a in _scalars(name, ds[name], grid, equation.family).items()}
    dtype = np.result_type(*(_float_type(name, a) for name, a in fields.items()))
    auxiliary = {name: ds[name] for name in equation.auxiliary}
    constants = {n: on_grid(n, a, grid) for n, a in {**auxiliary, **equation.coefficients}.items()}
    for name, coefficient in equation.coefficients.items():
        _check_same_grid(name, coefficient, grid)
    ranges = {name: _range(name, a) for name, a in constants.items()}
    for name, (least, most) in equation.limits.items():
        low, high = ranges[name]
        if low < least - _ROUND_OFF or high > most + _ROUND_OFF:
            raise ValueError(f"{name!r} has values from {low:g} to {high:g}; they must lie in [{least:g}, {most:g}]")
    maxima = {name: high for name, (_, high) in ranges.items()}
    axes = boundaries.parse(boundary, grid)
    if equation.family:
        _check_ends(equation.fields[0], equation.family, axes)
    system = discretise(equation, grid, axes, dtype, maxima, wavenumbers, check_fft(fft))
    return Prepared(system, Operators(equation, grid.dims), fields, constants, ds)


def wrap(
    prepared: Prepared, arrays: Mapping[str, Any], attrs: Mapping[str, Any] | None = None, leading: tuple[str, ...] = ()
) -> xr.Dataset:
    """A dataset on the grid of a prepared system; fields keep the attributes that they came with."""
    grid, family = prepared.system.grid, prepared.operators.equation.family
    source = prepared.source.drop_vars(leading, errors="ignore")
    coords: dict[str, Any] = {
        dim: source.coords[dim] if dim in source.coords else (dim, grid.coordinate(dim)) for dim in grid.dims
    }
    if family and family.dim in source.coords:
        coords[family.dim] = source.coords[family.dim]
    variables: dict[str, Any] = {}
    for name, members in families_of(arrays).items() if family else ((name, [name]) for name in arrays):
        dims, array = (*leading, *grid.dims), arrays[members[0]]
        if family and members != [name]:
            dims, array = (*leading, family.dim, *grid.dims), _joined([arrays[m] for m in members], len(leading))
        variables[name] = (dims, array, dict(source[name].attrs) if name in source else {})
    return xr.Dataset(variables, coords, dict(attrs or {}))


def empty_frames(names: Sequence[str], count: int, like: Any) -> dict[str, Any]:
    """Arrays for frames of scalar fields; those of a family lie in one, so that they are joined without a copy."""
    xp, frames = backend.namespace(like), dict[str, Any]()
    for name, members in families_of(names).items():
        if members == [name]:
            frames[name] = xp.empty((count, *like.shape), like.dtype)
        else:
            whole = xp.empty((count, len(members), *like.shape), like.dtype)
            frames |= {member: whole[:, k] for k, member in enumerate(members)}
    return frames


def _joined(members: Sequence[Any], axis: int) -> Any:
    """One array of the members of a family: the one that they are slices of, if there is such a one."""
    if isinstance(members[0], da.Array):
        return da.stack(members, axis)
    shape = (*members[0].shape[:axis], len(members), *members[0].shape[axis:])
    whole = members[0].base
    if whole is not None and whole.shape == shape and all(member.base is whole for member in members):
        return whole
    return backend.namespace(members[0]).stack(members, axis)


def _members(fields: Sequence[str], ds: xr.Dataset, dim: str) -> int:
    """How many members the fields of a dataset have."""
    for name in fields:
        if dim not in ds[name].dims:
            raise ValueError(
                f"{name!r} has no dim {dim!r}, only {ds[name].dims}; it needs a field for each {dim} "
                "(vd.phases_from_labels makes them from labels)"
            )
    members = int(ds.sizes[dim])
    if members < 2:
        raise ValueError(f"{fields[0]!r} has {members} {dim}; the equation needs 2 or more")
    return members


def _check_same_members(family: Family, ds: xr.Dataset) -> None:
    """Raise unless what differs from member to member is listed in the order of the dataset."""
    dim = family.dim
    for name, values in family.parameters.items():
        if dim in values.coords and dim in ds.coords and values.size == ds.sizes.get(dim):
            there, here = values.coords[dim].values, ds.coords[dim].values
            if not np.array_equal(there, here):
                raise ValueError(
                    f"the parameter {name!r} is given for {dim} {there.tolist()}, the dataset holds {here.tolist()}; "
                    f"bring it into that order, e.g. with .reindex, or drop its coordinate"
                )


def _check_ends(name: str, family: Family, axes: Sequence[Axis]) -> None:
    """Raise if a number at an end, which all members take alike, breaks their sum."""
    if family.total is None:
        return
    share = family.total / family.members
    for axis in axes:
        for end in (axis.lo, axis.hi):
            wanted = share if end.kind == "dirichlet" else 0.0
            given = isinstance(end.value, int | float) and end.kind != "periodic"
            if given and abs(end.value - wanted) * family.members > 1e-3:  # type: ignore[operator]
                raise ValueError(
                    f"the condition {end.kind} {end.value:g} along {axis.dim!r} holds for every member of {name!r}, "
                    f"whose sum must stay {family.total:g}; use 'neumann' or 'periodic'"
                )


def _scalars(name: str, field: xr.DataArray, grid: Grid, family: Family | None) -> dict[str, Any]:
    """The arrays of a field, or of its members, in storage order."""
    if family is None:
        return {name: on_grid(name, field, grid)}
    each = (field.isel({family.dim: k}) for k in range(family.members))
    return {member_name(name, k): on_grid(name, member, grid) for k, member in enumerate(each)}


def on_grid(name: str, da_: xr.DataArray, grid: Grid) -> Any:
    """The array of a field in the storage order of a grid; ValueError if it lies on another."""
    if set(da_.dims) != set(grid.dims) or dict(da_.sizes) != dict(zip(grid.dims, grid.shape, strict=True)):
        raise ValueError(
            f"{name!r} has sizes {dict(da_.sizes)}, but the grid has "
            f"{dict(zip(grid.dims, grid.shape, strict=True))}; every field lives on the same grid"
        )
    return da_.copy(data=looked_at(name, da_.data)).transpose(*grid.dims).data


def _float_type(name: str, array: Any) -> np.dtype[Any]:
    if array.dtype.kind not in "biuf":
        raise TypeError(f"the field {name!r} has dtype {array.dtype}; it must be real numbers")
    return np.dtype(np.float64 if array.dtype.kind == "f" and array.dtype.itemsize >= 8 else np.float32)


def _range(name: str, array: Any) -> tuple[float, float]:
    """The least and the largest value of a constant; raises if one is NaN or infinite."""
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name!r} has dtype {array.dtype}; it must be real numbers")
    low, high = (float(value) for value in dask.compute(array.min(), array.max()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{name!r} holds NaN or infinity; every value must be finite (e.g. with .fillna)")
    return low, high


def _check_same_grid(name: str, coefficient: xr.DataArray, grid: Grid) -> None:
    for dim in grid.dims:
        if dim in coefficient.coords:
            there = np.asarray(coefficient.coords[dim].values, dtype=float)
            h = grid.spacing[grid.axis(dim)]
            if not np.allclose(there, grid.coordinate(dim), rtol=0, atol=1e-3 * h):
                raise ValueError(
                    f"the parameter {name!r} has other coordinates along {dim!r} than the dataset: "
                    f"{there[0]:g} ... {there[-1]:g}; interpolate it to the grid of the fields first"
                )


def in_dtype(array: Any, dtype: np.dtype[Any]) -> Any:
    """An array as C-ordered values of a dtype, in the place where it lies; itself if it is so already."""
    return backend.namespace(array).ascontiguousarray(array, dtype=dtype)
