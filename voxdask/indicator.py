"""From a segmented image to an indicator: 1 inside a phase, 0 outside, smooth in between."""

from __future__ import annotations

import math
import numbers
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import scipy.ndimage
import xarray as xr

from voxdask import backend, graph
from voxdask import boundary as boundaries
from voxdask.boundary import Axis
from voxdask.grid import Grid

Method = Literal["distance", "diffusion"]
Profile = Callable[[np.ndarray, Sequence[float], float], np.ndarray]

#: Where the profile ends, in widths: psi is within 2e-5 of 0 or 1 there, and is set to it.
_REACH = 2.5
#: Standard deviations of the Gaussian from 0.1 to 0.9 of its integral, and where it is cut off.
_DEVIATIONS, _TRUNCATE = 2 * 1.2815515655446004, 4.0
#: Voxels with their ghost layers that one task takes.
_SLAB_VOXELS = 1 << 22
#: An image with more values than this is taken to hold grey values rather than labels.
_MOST_LABELS = 64


def indicator(
    image: xr.DataArray,
    *,
    phase: int | Sequence[int] = 1,
    width: float,
    method: Method = "distance",
    boundary: Any = "periodic",
) -> xr.DataArray:
    r"""The indicator of a phase of a segmented image, with a smooth interface of a given width.

    .. math::

        \psi = \tfrac12 \Big( 1 + \tanh \frac{2 \ln 3 \; d}{w} \Big) \quad \text{or} \quad
        \psi = \tfrac12 \Big( 1 + \operatorname{erf} \frac{1.81\, d}{w} \Big)

    by distance or by diffusion, for a flat interface at distance d; both rise from 0.1 to 0.9 over the width w. By
    distance, d is the distance to the nearest point half way between two neighbouring voxels of which one is in
    the phase, positive inside; where it exceeds 2.5 w, :math:`\psi` is 1 or 0. That gives a profile of the same
    shape everywhere. Diffusion convolves the phase with a Gaussian, which rounds off edges and what is thinner
    than w, and smooths the steps of the voxels.

    Parameters
    ----------
    image : DataArray
        Labels (integers, or truth values) on an even grid, as of :func:`voxdask.open_image`. A Dask array
        stays lazy, in slabs along its first axis; it is read once here, to see which labels it holds.
    phase : int or sequence of int, default 1
        Label of the phase, or labels that belong to it.
    width : float
        Width w of the interface from 0.1 to 0.9, in units of length; at least a voxel, better three to six.
    method : {"distance", "diffusion"}, default "distance"
    boundary : str, tuple or mapping, default "periodic"
        As for :func:`voxdask.simulate`: the image goes on periodically, or is mirrored at every other end.

    Returns
    -------
    DataArray
        ``psi`` in [0, 1], float32, on the coordinates of the image.

    Raises
    ------
    TypeError
        If `image` is no DataArray, or holds other than labels.
    ValueError
        If the phase is not in the image, the image holds grey values, the width is not positive, below a
        voxel or beyond the image, or the method or boundary is unknown.

    References
    ----------
    Yu, Chen and Thornton (2012), Modelling Simul. Mater. Sci. Eng. 20, 075008, doi:10.1088/0965-0393/20/7/075008

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> ds = vd.dataset({"image": np.array([0, 0, 0, 1, 1, 1], np.uint8)}, spacing=0.5, unit="um")
    >>> vd.indicator(ds.image, width=1.0, boundary="neumann").values.round(3)
    array([0.004, 0.036, 0.25 , 0.75 , 0.964, 0.996], dtype=float32)
    """
    if not isinstance(image, xr.DataArray):
        raise TypeError(f"image is a {type(image).__name__}; give a DataArray, such as vd.open_image(path).image")
    if method not in ("distance", "diffusion"):
        raise ValueError(f"method is {method!r}; use 'distance' or 'diffusion'")
    grid = Grid.from_dataset(image)
    if set(image.dims) != set(grid.dims):
        raise ValueError(f"image has dims {image.dims}; choose a frame, so that {grid.dims} are left")
    _check_width(width, grid)
    labels = _labels(phase)
    _check_labels(image, labels)

    axes = tuple(axis.mirrored() for axis in boundaries.parse(boundary, grid))
    smoothing = _Smoothing(labels, axes, float(width), method)
    psi = _in_slabs(image.transpose(*grid.dims).data, smoothing)
    result = xr.DataArray(psi, dims=grid.dims, name="psi").transpose(*image.dims).assign_coords(image.coords)
    return result.assign_attrs(long_name=f"indicator of {', '.join(map(str, labels))}")


@dataclass(frozen=True)
class _Smoothing:
    """What every slab needs to know."""

    labels: tuple[int, ...]
    axes: tuple[Axis, ...]
    width: float
    method: Method

    @property
    def depths(self) -> tuple[int, ...]:
        """Ghost layers along each axis: as far as a voxel can see the interface."""
        reach = _REACH if self.method == "distance" else _TRUNCATE / _DEVIATIONS
        return tuple(math.ceil(reach * self.width / axis.spacing) + 1 for axis in self.axes)

    def sources(self, lo: int, hi: int) -> np.ndarray:
        """Where rows [lo, hi) with their ghost layers come from."""
        depth = self.depths[0]
        return np.array([_source(self.axes[0], p) for p in range(lo - depth, hi + depth)])


def _source(axis: Axis, position: int) -> int:
    return position if 0 <= position < axis.size else axis.ghost(position).source


def _in_slabs(image: Any, smoothing: _Smoothing) -> Any:
    """The indicator of an image in storage order, lazy as that is; a task takes some rows and those around them."""
    depth, *others = smoothing.depths
    row = math.prod(axis.size + 2 * d for axis, d in zip(smoothing.axes[1:], others, strict=True))
    rows = max(_SLAB_VOXELS // row - 2 * depth, depth)
    lazy = isinstance(image, da.Array)
    rows = min(max(max(image.chunks[0]), depth), rows) if lazy else rows
    rows = min(rows, len(image))
    name = f"indicator-{uuid.uuid4().hex[:12]}"
    blocks = graph.blocks_of(image, f"{name}-image", rows)
    slabs, sizes = [], []
    for i, lo in enumerate(range(0, len(image), rows)):
        hi = min(lo + rows, len(image))
        needed = sorted({int(source) // rows for source in smoothing.sources(lo, hi)})
        pieces = [(k * rows, blocks[k]) for k in needed]
        slabs.append(graph.call((f"{name}-slab", i), _smoothed, smoothing, lo, hi, pieces))
        sizes.append(hi - lo)
    whole = graph.array_of(name, slabs, (tuple(sizes), *((n,) for n in image.shape[1:])), np.float32)
    if lazy:
        return whole
    (psi,) = dask.compute(whole)
    return backend.to_device(psi) if backend.is_device_array(image) else psi


def _smoothed(smoothing: _Smoothing, lo: int, hi: int, pieces: Sequence[tuple[int, Any]]) -> np.ndarray:
    """Rows [lo, hi) of the indicator, from the pieces of the image that they see."""
    sources, first = smoothing.sources(lo, hi), pieces[0][1]
    inside = np.empty((len(sources), *first.shape[1:]), bool)
    for start, piece in pieces:
        here = (sources >= start) & (sources < start + len(piece))
        inside[here] = np.isin(backend.to_host(piece), smoothing.labels)[sources[here] - start]
    for a, (axis, depth) in enumerate(zip(smoothing.axes, smoothing.depths, strict=True)):
        if a:
            inside = inside.take([_source(axis, p) for p in range(-depth, axis.size + depth)], a)
    spacing = tuple(axis.spacing for axis in smoothing.axes)
    profile: Profile = _by_distance if smoothing.method == "distance" else _by_diffusion
    psi = profile(inside, spacing, smoothing.width)
    core = tuple(slice(d, n - d) for d, n in zip(smoothing.depths, psi.shape, strict=True))
    return np.asarray(psi[core], np.float32)


def _by_distance(inside: np.ndarray, spacing: Sequence[float], width: float) -> np.ndarray:
    """A hyperbolic tangent of the signed distance."""
    distance = _distance(inside, [h / width for h in spacing])
    psi = (1 + np.tanh(np.float32(2 * math.log(3)) * np.minimum(distance, _REACH))) / 2
    psi[distance > _REACH] = 1
    return np.asarray(np.where(inside, psi, 1 - psi))


def _distance(inside: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The distance to the nearest point half way between two neighbours of which one is inside, or infinite.

    It is exact up to the reach of the profile, which is a few voxels: so no more than those are looked at, one
    axis after the other, as squares of distances along different axes add up.
    """
    nearest = np.full(inside.shape, np.inf, np.float32)
    for a, h in enumerate(spacing):
        squared = np.full(inside.shape, np.inf, np.float32)
        differs = np.diff(inside, axis=a)  # whether the wall passes between a voxel and the next
        n = differs.shape[a]
        for k in range(min(math.ceil(_REACH / h), n)):
            square = np.float32(((k + 0.5) * h) ** 2)
            for voxels, faces in ((slice(0, n - k), slice(k, n)), (slice(1 + k, n + 1), slice(0, n - k))):
                there = squared[_along(a, voxels)]
                np.minimum(there, square, out=there, where=differs[_along(a, faces)])
        for b, other in enumerate(spacing):
            if b != a:
                squared = _spread(squared, b, other)
        np.minimum(nearest, squared, out=nearest)
    return np.asarray(np.sqrt(nearest))


def _spread(squared: np.ndarray, a: int, h: float) -> np.ndarray:
    """Squared distances with those of neighbours along an axis, and the way to them."""
    result = squared.copy()
    for k in range(1, min(math.ceil(_REACH / h), squared.shape[a] - 1) + 1):
        ahead, behind = _along(a, slice(k, None)), _along(a, slice(None, -k))
        way = np.float32((k * h) ** 2)
        np.minimum(result[behind], squared[ahead] + way, out=result[behind])
        np.minimum(result[ahead], squared[behind] + way, out=result[ahead])
    return result


def _along(a: int, part: slice) -> tuple[slice, ...]:
    return (*(slice(None),) * a, part)


def _by_diffusion(inside: np.ndarray, spacing: Sequence[float], width: float) -> np.ndarray:
    """A convolution with a Gaussian."""
    deviations = [width / _DEVIATIONS / h for h in spacing]
    psi = scipy.ndimage.gaussian_filter(inside.astype(np.float64), deviations, mode="nearest", truncate=_TRUNCATE)
    return np.asarray(np.clip(psi, 0, 1))


def _check_width(width: Any, grid: Grid) -> None:
    if not isinstance(width, numbers.Real) or isinstance(width, bool | np.bool_):
        raise TypeError(f"width is {width!r}; give a number, in units of length")
    if not (math.isfinite(width) and float(width) > 0):
        raise ValueError(f"width is {width!r}; it must be positive and finite")
    longest = max(n * h for n, h in zip(grid.shape, grid.spacing, strict=True))
    if float(width) > longest:
        raise ValueError(f"width is {width!r}, more than the image measures ({longest:g}); nothing would be inside")
    if float(width) < max(grid.spacing):
        raise ValueError(
            f"width is {width!r}, less than a voxel ({max(grid.spacing):g}); an interface needs three voxels or more"
        )


def _labels(phase: Any) -> tuple[int, ...]:
    labels = phase if isinstance(phase, Sequence | np.ndarray) and not isinstance(phase, str) else [phase]
    if not len(labels) or not all(isinstance(label, numbers.Integral | np.bool_) for label in labels):
        raise TypeError(f"phase is {phase!r}; give a label, or several")
    return tuple(int(label) for label in labels)


def _check_labels(image: xr.DataArray, labels: Sequence[int]) -> None:
    """Raise unless an image holds labels, and these among them."""
    if image.dtype.kind not in "biuf":
        raise TypeError(f"image has dtype {image.dtype}; it must hold labels, integers or truth values")
    name, rows = f"labels-{uuid.uuid4().hex[:12]}", max(_SLAB_VOXELS // max(image[0].size, 1), 1)
    blocks = graph.blocks_of(image.data, name, rows)
    (found,) = dask.compute([graph.call((f"{name}-values", i), _values, block) for i, block in enumerate(blocks)])
    values = np.unique(np.concatenate(found))
    whole = np.isfinite(values).all() and (values == np.floor(values)).all()
    if not whole or len(values) > _MOST_LABELS:
        raise ValueError(
            f"image is not segmented: it holds {'values that are no integers' if not whole else 'grey values'} "
            f"from {values[0]:g} to {values[-1]:g}; give a phase as a condition, e.g. image > threshold"
        )
    missing = [label for label in labels if label not in values]
    if missing:
        raise ValueError(f"phase {missing[0]} is not in the image, which holds {', '.join(f'{v:g}' for v in values)}")


def _values(block: Any) -> np.ndarray:
    """Distinct values in order, the first ones and the last; of an image of labels, all."""
    values = np.unique(backend.to_host(block))
    return values if len(values) <= _MOST_LABELS else values[[*range(_MOST_LABELS), -1]]
