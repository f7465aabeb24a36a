"""A segmented image of any size: opened, checked, read in slabs; how much of it is each phase."""

from __future__ import annotations

import math
import numbers
import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from voxdask import backend, graph
from voxdask.grid import Grid
from voxdask.images import open_image

#: An image, or the path of one.
Image = xr.DataArray | str | os.PathLike[str]

#: The most voxels that one task takes, and how many slabs each processor gets of an image in memory, to take turns.
_SLAB_VOXELS, _TURNS = 1 << 24, 4
#: Integers that span no more than this are counted in a table, so many at a time; others are sorted.
_TABLE = 1 << 16
#: A message lists no more labels than this.
_LISTED = 12


@dataclass(frozen=True)
class Segmented:
    """Labels on a grid, in storage order, and how they are read: in slabs, each some rows along the first axis.

    Attributes
    ----------
    image : DataArray
        As it was given, or opened.
    data : array
        Its voxels: NumPy, CuPy or dask.
    grid : Grid
    """

    image: xr.DataArray
    data: Any
    grid: Grid

    @property
    def lazy(self) -> bool:
        """Whether it is computed chunk by chunk when asked for."""
        return isinstance(self.data, da.Array)

    @cached_property
    def rows(self) -> int:
        """Rows of a slab: those of a chunk, or fewer."""
        fitting = max(_SLAB_VOXELS // math.prod(self.data.shape[1:]), 1)
        longest = max(self.data.chunks[0]) if self.lazy else -(-len(self.data) // (_TURNS * backend.cpu_count()))
        return int(min(fitting, longest))

    @property
    def starts(self) -> range:
        """The first row of every slab."""
        return range(0, len(self.data), self.rows)

    def slabs(self) -> list[graph.Value]:
        """Every slab as a value that has yet to be computed."""
        return graph.blocks_of(self.data, new_name("slab"), self.rows)

    def compute(self, values: Sequence[graph.Value]) -> tuple[Any, ...]:
        """Results of values; those of an image in memory are made here, on threads, whatever cluster there is."""
        return graph.compute(values, None if self.lazy else "threads")

    def counts(self) -> dict[int, int]:
        """How many voxels have each label that occurs, by label, rising."""
        total: dict[int, int] = {}
        for found, numbers_of in self.compute(each("count", _counts, self.slabs())):
            for label, count in zip(found.tolist(), numbers_of.tolist(), strict=True):
                total[int(label)] = total.get(int(label), 0) + count
        return dict(sorted(total.items()))

    def require(self, argument: str, labels: Sequence[int], counts: Sequence[int] | np.ndarray) -> None:
        """ValueError that names the first label of which there is no voxel, and those that occur."""
        for label, count in zip(labels, counts, strict=True):
            if not count:
                found = [str(n) for n in self.counts()]
                listed = ", ".join(found if len(found) <= _LISTED else [*found[: _LISTED - 2], "...", found[-1]])
                raise ValueError(f"{argument} names the label {label}, which is not in the image; it holds {listed}")


def open_segmented(image: Image) -> Segmented:
    """A segmented image, from a DataArray or from a file that :func:`voxdask.open_image` opens; reads no voxel.

    Raises
    ------
    TypeError
        If `image` is neither, or holds no labels.
    ValueError
        If it has other dims than one to three spatial ones with even coordinates, or samples at nodes.
    """
    image, grid = open_voxels(image)
    if image.dtype.kind not in "biu":
        raise TypeError(
            f"image has dtype {image.dtype}, but labels are whole numbers or truth values; give image.astype(int) "
            "where it holds labels, or a phase as a condition, e.g. image > threshold"
        )
    return Segmented(image, image.data, grid)


def open_voxels(image: Image) -> tuple[xr.DataArray, Grid]:
    """An image of any values and its grid; what lies in a file that xarray opened is read in slabs.

    Raises
    ------
    TypeError
        If `image` is neither a DataArray nor a path.
    ValueError
        If it has other dims than one to three spatial ones with even coordinates, or samples at nodes.
    """
    if isinstance(image, str | os.PathLike):
        image = open_image(image).image
    if not isinstance(image, xr.DataArray):
        raise TypeError(
            f"image is a {type(image).__name__}; give a DataArray, e.g. vd.dataset({{'image': array}}).image, or a path"
        )
    grid = Grid.from_dataset(image)
    if image.dims != grid.dims:
        raise ValueError(f"image has dims {image.dims}; choose a frame, so that {grid.dims} are left")
    if grid.node_centred:
        raise ValueError(f"image has its samples at nodes along {grid.node_centred[0]!r}; its values belong to voxels")
    if _is_unread(image):
        image = image.chunk(dict.fromkeys(image.dims, -1) | {image.dims[0]: _rows_on_disk(image)})
    return image, grid


def _is_unread(image: xr.DataArray) -> bool:
    """Whether xarray would read the whole array from a file when it is touched."""
    variable = image.variable
    return not (image.chunks or variable._in_memory or backend.is_device_array(variable._data))


def _rows_on_disk(image: xr.DataArray) -> int:
    """Rows of a slab of an array that is not read yet: whole chunks of the file, as many as fit."""
    stored = int(image.encoding.get("preferred_chunks", {}).get(image.dims[0], 1))
    return max(_SLAB_VOXELS // math.prod(image.shape[1:]) // stored, 1) * stored


def parse_labels(argument: str, value: Any) -> tuple[int, ...]:
    """A label or several, from an argument of that name.

    Raises
    ------
    TypeError
        If it holds anything but whole numbers.
    ValueError
        If one stands there twice.

    Examples
    --------
    >>> parse_labels("phase", 1), parse_labels("phase", (0, 2))
    ((1,), (0, 2))
    """
    labels = list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else [value]
    if not labels or not all(isinstance(label, numbers.Integral | np.bool_) for label in labels):
        raise TypeError(f"{argument} is {value!r}; give a label, which is a whole number, or several")
    whole = tuple(int(label) for label in labels)
    if len(set(whole)) < len(whole):
        raise ValueError(f"{argument} is {value!r}; it names a label twice")
    return whole


def new_name(what: str) -> str:
    """A name that no other task has."""
    return f"{what}-{uuid.uuid4().hex[:12]}"


def each(
    what: str, function: Callable[..., Any], slabs: Sequence[graph.Value], *others: Sequence[Any]
) -> list[graph.Value]:
    """A function of every slab, and of what others hold for it."""
    name = new_name(what)
    return [
        graph.call((name, i), function, slab, *rest) for i, (slab, *rest) in enumerate(zip(slabs, *others, strict=True))
    ]


def rows_below(slabs: Sequence[graph.Value]) -> list[Any]:
    """For every slab the first row of the next one, which is all that is kept of it; None for the last."""
    return [*each("first", _first_row, slabs[1:]), None]


def sums(results: Sequence[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """The sum over all slabs of each of the arrays that a function of a slab returns."""
    return tuple(np.sum(arrays, axis=0) for arrays in zip(*results, strict=True))


def mask_of(block: Any, labels: Sequence[int]) -> np.ndarray:
    """Which voxels of a block have one of some labels."""
    voxels = backend.to_host(block)
    mask = voxels == labels[0]
    for label in labels[1:]:
        mask |= voxels == label
    return np.asarray(mask)


def quantity(value: float, unit: str | None, power: int) -> tuple[tuple[()], float, dict[str, Any]]:
    """A number with a power of a unit of length, for a dataset."""
    if unit is None:
        return (), value, {}
    return (), value, {"units": {0: "1", 1: unit}.get(power, f"{unit}^{power}")}


def volume_fractions(image: Image) -> xr.DataArray:
    r"""The share of each phase in a segmented image.

    .. math:: \varphi_\alpha = \frac{\#\{x : \mathrm{image}(x) = \alpha\}}{\#\{x\}}

    Parameters
    ----------
    image : DataArray or path
        Labels (integers, or truth values) with one to three spatial dims, or a file that :func:`voxdask.open_image`
        opens. A Dask array is read chunk by chunk.

    Returns
    -------
    DataArray
        Named ``volume_fraction``, float64, dimensionless, over the dim ``phase``, whose coordinate holds all labels
        that occur, rising. They sum to 1.

    Raises
    ------
    TypeError
        If `image` is neither a DataArray nor a path, or holds other than labels.
    ValueError
        If it has other dims than spatial ones, or no even coordinates.

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> ds = vd.dataset({"image": np.array([[0, 0, 7], [0, 7, 9]], np.uint8)}, spacing=0.4, unit="um")
    >>> fractions = vd.volume_fractions(ds.image)
    >>> fractions.phase.values, float(fractions.sel(phase=0))
    (array([0, 7, 9]), 0.5)
    """
    segmented = open_segmented(image)
    counts = segmented.counts()
    found = np.array([*counts], np.uint64 if max(counts) > np.iinfo(np.int64).max else np.int64)
    shares = np.array([*counts.values()]) / segmented.grid.size
    attrs = {"long_name": "volume fraction", "units": "1"}
    return xr.DataArray(shares, {"phase": found}, ("phase",), "volume_fraction", attrs)


def _first_row(block: Any) -> Any:
    """A copy, so that the block can go."""
    return block[:1].copy()


def _counts(block: Any) -> tuple[np.ndarray, np.ndarray]:
    """The labels in a block, and how many voxels have each."""
    voxels = backend.to_host(block)
    if voxels.dtype == bool:
        voxels = voxels.view(np.uint8)
    lo, hi = int(voxels.min()), int(voxels.max())
    if hi - lo >= _TABLE:
        found, count = np.unique(voxels, return_counts=True)
        return found, count
    table, flat = np.zeros(hi - lo + 1, np.int64), voxels.reshape(-1)
    for at in range(0, flat.size, _TABLE):  # bincount makes a copy of eight bytes a voxel
        above = flat[at : at + _TABLE] - voxels.dtype.type(lo)  # right as an unsigned number, also where it overflows
        table += np.bincount(above.view(f"u{above.itemsize}").astype(np.int64), minlength=len(table))
    (present,) = np.nonzero(table)
    return np.array([lo + int(n) for n in present], voxels.dtype), table[present]
