"""The grid under a dataset: which axes, how many samples, how far apart, from where."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

SPATIAL_DIMS = ("z", "y", "x")
# Frames of a run and phases of a field are counted, not measured: they carry no spacing.
COUNTED_DIMS = ("time", "phase")

# How far a sample may lie from its place on an even axis, relative to the spacing. Coordinates that went
# through float32 stray by up to 1e-4 on an axis of 2000 samples; an axis uneven by intent strays by far more.
_EVENNESS = 1e-3


@dataclass(frozen=True)
class Grid:
    """An even, axis-aligned grid in one to three dimensions.

    Parameters
    ----------
    dims
        Names of the axes, in storage order.
    shape
        Samples along each axis.
    spacing
        Distance between neighbouring samples along each axis, in `unit`.
    origin
        Coordinate of the first sample (a voxel centre or a node) along each axis, in `unit`.
    unit
        Unit of length, for example ``"um"``; None where it isn't known.
    node_centred
        The axes whose end samples lie on the domain boundary, rather than half a voxel inside it.

    Raises
    ------
    ValueError
        If the axes are not one to three with distinct names, a length is not positive, a spacing is not
        positive and finite, an origin is not finite, or a node-centred axis is not among `dims`.

    Examples
    --------
    >>> grid = Grid(("y", "x"), (4, 8), (0.5, 0.5), (0.25, 0.25), unit="um")
    >>> grid.size
    32
    >>> grid.coordinate("y").tolist()
    [0.25, 0.75, 1.25, 1.75]
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    unit: str | None = None
    node_centred: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(self.dims), len(self.shape), len(self.spacing), len(self.origin)}
        if len(lengths) != 1:
            raise ValueError(
                f"dims {self.dims}, shape {self.shape}, spacing {self.spacing} and origin {self.origin} "
                "must have one entry per axis each"
            )
        if not 1 <= self.ndim <= 3 or len(set(self.dims)) != self.ndim:
            raise ValueError(f"dims {self.dims}: a grid has one, two or three axes with distinct names")
        for dim, n, h, x0 in zip(self.dims, self.shape, self.spacing, self.origin, strict=True):
            if n < 1:
                raise ValueError(f"shape along {dim!r} is {n}; every axis needs at least one sample")
            if not (math.isfinite(h) and h > 0):
                raise ValueError(f"spacing along {dim!r} is {h}; it must be positive and finite")
            if not math.isfinite(x0):
                raise ValueError(f"origin along {dim!r} is {x0}; it must be finite")
        for dim in self.node_centred:
            self.axis(dim)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.dims)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    def axis(self, dim: str) -> int:
        """Return the position of `dim` in storage order.

        Raises
        ------
        ValueError
            If the grid has no such axis.

        Examples
        --------
        >>> Grid(("y", "x"), (4, 8), (1.0, 1.0), (0.5, 0.5)).axis("x")
        1
        """
        if dim not in self.dims:
            raise ValueError(f"dim {dim!r} is not an axis of this grid; its axes are {', '.join(self.dims)}")
        return self.dims.index(dim)

    def coordinate(self, dim: str) -> np.ndarray:
        """Return the float64 coordinates of the samples along `dim`, in `unit`.

        Raises
        ------
        ValueError
            If the grid has no such axis.

        Examples
        --------
        >>> Grid(("x",), (3,), (2.0,), (1.0,)).coordinate("x").tolist()
        [1.0, 3.0, 5.0]
        """
        axis = self.axis(dim)
        return self.origin[axis] + self.spacing[axis] * np.arange(self.shape[axis], dtype=np.float64)

    def coords(self) -> dict[str, tuple[str, np.ndarray, dict[str, Any]]]:
        """Return the axes as xarray coordinates, one ``(dim, values, attrs)`` per axis.

        The attributes hold what the values alone can't: ``location`` (``"node"`` or ``"cell"``), ``spacing``
        (an axis of length one has no differences) and ``units`` where the unit is known.

        Examples
        --------
        >>> grid = Grid(("x",), (1,), (2.0,), (1.0,), unit="um")
        >>> grid.coords()["x"]
        ('x', array([1.]), {'location': 'cell', 'spacing': 2.0, 'units': 'um'})
        """
        coords = {}
        for dim, h in zip(self.dims, self.spacing, strict=True):
            attrs = {"location": "node" if dim in self.node_centred else "cell", "spacing": h}
            if self.unit is not None:
                attrs["units"] = self.unit
            coords[dim] = (dim, self.coordinate(dim), attrs)
        return coords

    @classmethod
    def from_dataset(cls, ds: xr.Dataset | xr.DataArray) -> Grid:
        """Read the grid from the coordinates of a dataset or an array.

        The dims ``time`` and ``phase`` are passed over. An axis is even if no sample strays from its place by
        more than a thousandth of the spacing, beside what its dtype can't resolve.

        Parameters
        ----------
        ds
            Dataset or array with one numeric, increasing, even coordinate per spatial dim. The attributes
            ``spacing``, ``location`` and ``units`` of a coordinate are read where present. Floats that are a whole
            number of these spacings apart, as those of ``ds.isel(x=slice(None, None, 2))`` are, have their own.

        Raises
        ------
        ValueError
            If a coordinate is missing, not numeric, not increasing or uneven; if its length is one and it has
            no attribute ``spacing``; if that attribute contradicts the values; or if the units differ.

        Examples
        --------
        >>> grid = Grid.from_dataset(dataset({"c": np.zeros((4, 8))}, spacing=0.5, unit="um"))
        >>> grid.dims, grid.spacing, grid.origin, grid.unit
        (('y', 'x'), (0.5, 0.5), (0.25, 0.25), 'um')
        """
        dims = tuple(dim for dim in _storage_order(ds) if dim not in COUNTED_DIMS)
        axes = [_read_axis(ds, dim) for dim in dims]
        units = sorted({str(unit) for *_, unit in axes if unit is not None})
        if len(units) > 1:
            raise ValueError(f"coordinates have different units ({', '.join(units)}); convert them to one")
        return cls(
            dims=dims,
            shape=tuple(ds.sizes[dim] for dim in dims),
            spacing=tuple(h for h, *_ in axes),
            origin=tuple(x0 for _, x0, *_ in axes),
            unit=units[0] if units else None,
            node_centred=tuple(dim for dim, axis in zip(dims, axes, strict=True) if axis[2] == "node"),
        )


def dataset(
    fields: Mapping[str, Any],
    *,
    spacing: float | Sequence[float] | Mapping[str, float] = 1.0,
    origin: float | Sequence[float] | Mapping[str, float] | None = None,
    unit: str | None = None,
    dims: Sequence[str] | None = None,
    node_centred: Sequence[str] = (),
) -> xr.Dataset:
    """Label arrays with the coordinates of a voxel grid.

    The arrays are neither copied, converted nor loaded.

    Parameters
    ----------
    fields
        Arrays by name: numpy, cupy or dask, all of one shape.
    spacing
        Voxel size in `unit`: one number, one per spatial dim in order, or a mapping by dim.
    origin
        Coordinate of the first sample, given like `spacing`. By default the domain starts at zero: half a
        spacing on cell-centred axes, zero on node-centred ones.
    unit
        Unit of length, for example ``"um"``.
    dims
        Names of the axes; the last of ``("z", "y", "x")`` by default. May hold ``"phase"`` or ``"time"``
        beside one to three spatial dims; those get no coordinate.
    node_centred
        The dims whose end samples lie on the domain boundary.

    Returns
    -------
    xr.Dataset
        The fields, with one float64 coordinate per spatial dim.

    Raises
    ------
    ValueError
        If the fields differ in shape, there are not one to three spatial axes, the names don't fit the shape,
        or a spacing is not positive and finite.
    TypeError
        If a field already carries labels (a DataArray).

    Examples
    --------
    >>> ds = dataset({"c": np.zeros((2, 4))}, spacing={"y": 1.0, "x": 0.5}, unit="um")
    >>> ds.x.values.tolist()
    [0.25, 0.75, 1.25, 1.75]
    """
    shape = _common_shape(fields)
    if dims is None:
        if not 1 <= len(shape) <= 3:
            raise ValueError(f"fields have shape {shape}: name the axes with dims=, one to three spatial")
        dims = SPATIAL_DIMS[-len(shape) :]
    elif isinstance(dims, str) or len(dims) != len(shape):
        raise ValueError(f"dims {dims!r} do not fit fields of shape {shape}: give one name per axis")
    lengths = dict(zip(dims, shape, strict=True))
    space = tuple(dim for dim in dims if dim not in COUNTED_DIMS)
    nodes = (node_centred,) if isinstance(node_centred, str) else tuple(node_centred)

    h = per_dim(spacing, space, "spacing")
    if origin is None:
        start = tuple(0.0 if dim in nodes else step / 2 for dim, step in zip(space, h, strict=True))
    else:
        start = per_dim(origin, space, "origin")
    grid = Grid(space, tuple(lengths[dim] for dim in space), h, start, unit, nodes)
    return xr.Dataset({name: (tuple(dims), array) for name, array in fields.items()}, coords=grid.coords())


def per_dim(
    value: float | Sequence[float] | Mapping[str, float], dims: Sequence[str], argument: str
) -> tuple[float, ...]:
    """Spread one number, a sequence in the order of `dims`, or a mapping by dim to one number per dim.

    Raises
    ------
    ValueError
        If the numbers don't fit `dims`; the message names `argument`.

    Examples
    --------
    >>> per_dim(0.5, ("y", "x"), "spacing")
    (0.5, 0.5)
    >>> per_dim({"x": 1, "y": 2}, ("y", "x"), "spacing")
    (2.0, 1.0)
    """
    numbers: Sequence[Any]
    if isinstance(value, Mapping):
        if set(value) != set(dims):
            raise ValueError(f"{argument}={dict(value)!r} must have one entry for each of {', '.join(dims)}")
        numbers = [value[dim] for dim in dims]
    elif np.ndim(value) == 0:
        numbers = [value] * len(dims)
    else:
        numbers = np.asarray(value).tolist()
        if len(numbers) != len(dims):
            raise ValueError(f"{argument}={value!r} must be one number, or one for each of {', '.join(dims)}")
    try:
        return tuple(float(number) for number in numbers)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument}={value!r} must be made of numbers") from error


def _common_shape(fields: Mapping[str, Any]) -> tuple[int, ...]:
    if not fields:
        raise ValueError("fields is empty: give at least one array by name")
    for name, array in fields.items():
        if isinstance(array, xr.DataArray | xr.Variable):
            raise TypeError(f"field {name!r} is an xarray object: pass its bare array, .data, and dims=")
    shapes = {name: tuple(np.shape(array)) for name, array in fields.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"fields must share one shape, but have {listed}")
    return next(iter(shapes.values()))


def _storage_order(ds: xr.Dataset | xr.DataArray) -> tuple[str, ...]:
    """Dims as the fields hold them; ``Dataset.sizes`` alone follows the order of coordinates."""
    if isinstance(ds, xr.DataArray):
        return tuple(str(dim) for dim in ds.dims)
    fields = sorted(ds.data_vars.values(), key=lambda field: -field.ndim)
    return tuple(dict.fromkeys(str(dim) for dims in (*(f.dims for f in fields), ds.sizes) for dim in dims))


def _read_axis(ds: xr.Dataset | xr.DataArray, dim: str) -> tuple[float, float, str, str | None]:
    """Spacing, origin, location and unit of one axis."""
    if dim not in ds.coords:
        raise ValueError(
            f"dim {dim!r} has no coordinate: "
            "assign one (ds.assign_coords) or build the dataset with voxdask.dataset"
        )
    coordinate = ds.coords[dim]
    attrs = coordinate.attrs
    location = attrs.get("location", "cell")
    if location not in ("cell", "node"):
        raise ValueError(f"coordinate {dim!r}: attribute location is {location!r}, not 'cell' or 'node'")
    if coordinate.dtype.kind not in "iuf":
        raise ValueError(f"coordinate {dim!r} has dtype {coordinate.dtype}; it must hold real numbers")
    if coordinate.size == 0:
        raise ValueError(f"dim {dim!r} has length 0; every axis needs at least one sample")

    values = coordinate.values.astype(np.float64)
    stated = _stated_spacing(attrs, dim)
    if values.size > 1:
        resolution = float(np.finfo(coordinate.dtype).eps) if coordinate.dtype.kind == "f" else 0.0
        spacing = _even_spacing(values, resolution, dim, stated)
    elif stated is not None:
        spacing = stated
    else:
        raise ValueError(
            f"coordinate {dim!r} has one sample, which doesn't tell its spacing: "
            f"set it as ds[{dim!r}].attrs['spacing'], or build the dataset with voxdask.dataset(spacing=...)"
        )
    return spacing, float(values[0]), location, attrs.get("units")


def _stated_spacing(attrs: Mapping[str, Any], dim: str) -> float | None:
    if "spacing" not in attrs:
        return None
    try:
        spacing = float(attrs["spacing"])
    except (TypeError, ValueError):
        spacing = math.nan
    if not 0 < spacing < math.inf:
        raise ValueError(f"coordinate {dim!r}: attribute spacing is {attrs['spacing']!r}; it must be a positive number")
    return spacing


def _even_spacing(values: np.ndarray, resolution: float, dim: str, stated: float | None) -> float:
    if not np.isfinite(values).all():
        raise ValueError(f"coordinate {dim!r} holds NaN or infinity; every sample needs a finite position")
    if not (np.diff(values) > 0).all():
        raise ValueError(f"coordinate {dim!r} is not increasing; ds.sortby({dim!r}) would put it in order")
    mean = float(values[-1] - values[0]) / (values.size - 1)
    rounding = resolution * float(np.abs(values).max())
    strays = float(np.abs(values - (values[0] + mean * np.arange(values.size))).max())
    if strays > _EVENNESS * mean + 2 * rounding:
        raise ValueError(
            f"coordinate {dim!r} is uneven: a sample lies {strays / mean:.3g} spacings from its place; "
            f"resample onto an even axis with ds.interp({dim}=...)"
        )
    if stated is None:
        return mean
    # isel and coarsen leave attributes as they were: values a whole number of spacings apart were thinned out by them;
    # not so integers, which number voxels
    kept = stated * (max(round(mean / stated), 1) if resolution else 1)
    if not math.isclose(kept, mean, rel_tol=1e-6, abs_tol=2 * rounding / (values.size - 1)):
        raise ValueError(
            f"coordinate {dim!r} is spaced by {mean:.9g}, but its attribute spacing says {stated:.9g}; "
            f"where the values are right, del ds[{dim!r}].attrs['spacing']"
        )
    return kept
