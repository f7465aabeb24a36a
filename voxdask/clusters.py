"""The connected parts of a phase of a segmented image, and which of them lead from one face to the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from voxdask import backend, graph
from voxdask.runs import Runs
from voxdask.segmented import Image, Segmented, each, mask_of, new_name, open_segmented, parse_labels

#: Ends of an axis: names, and where along it the voxels of that face are.
ENDS = {"lo": 0, "hi": -1}


def clusters(
    image: Image, phase: int | Sequence[int] = 1, *, periodic: bool | str | Sequence[str] = False
) -> xr.Dataset:
    r"""The connected parts of a phase: voxels that share a face, directly or by way of others in the phase.

    .. math:: s_d = \frac{\sum_{k \text{ percolates along } d} n_k}{\sum_k n_k}

    is the share of the phase, of which part k has :math:`n_k` voxels, that belongs to parts which *percolate* along d:
    within which a path leads from one face of the image to the opposite one, without passing through these two faces.
    Through others it may pass, where the image is periodic.

    Each slab is labelled by itself, then parts that meet at the rows between two slabs are joined: so no more than a
    few slabs (about 10 bytes a voxel for each thread, of at most 16 million voxels), and a few numbers for each part of
    each slab, are in memory at once. How the image is cut changes nothing.

    Parameters
    ----------
    image : DataArray or path
        Labels (integers, or truth values) with one to three spatial dims, or a file that :func:`voxdask.open_image`
        opens. A Dask array is read once here, and again where ``labels`` is computed, which stays lazy.
    phase : int or sequence of int, default 1
        Label of the phase, or labels that belong to it.
    periodic : bool, str or sequence of str, default False
        Dims along which the image goes on with itself: all, none, or those named.

    Returns
    -------
    Dataset
        ``labels``, on the coordinates of the image: 0 outside the phase, else the number of the part, from 1, in the
        order of their first voxels. Over the dim ``cluster``, with these numbers: ``voxels``, the size of each;
        ``touches``, also over ``axis`` (the names of the dims) and ``end`` ("lo" or "hi"), the faces of the image that
        it reaches; ``percolates``, also over ``axis``. Over ``axis`` alone: ``percolating_share``, dimensionless.

    Raises
    ------
    TypeError
        If `image` is neither a DataArray nor a path, or holds other than labels; if `phase` is no label.
    ValueError
        If `phase` is not in the image, or `periodic` names a dim that the image does not have.

    References
    ----------
    Hoshen and Kopelman (1976), Phys. Rev. B 14, 3438, doi:10.1103/PhysRevB.14.3438

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> ds = vd.dataset({"image": np.array([[1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 0]])})
    >>> found = vd.clusters(ds.image)
    >>> found.labels.values.tolist()
    [[1, 1, 1, 1], [0, 0, 0, 0], [0, 2, 2, 0]]
    >>> found.voxels.values, found.percolates.sel(axis="x").values, found.percolating_share.sel(axis="x").item()
    (array([4, 2]), array([ True, False]), 0.6666666666666666)
    >>> vd.clusters(ds.image, periodic=["y"]).sizes["cluster"]
    1
    """
    labels = parse_labels("phase", phase)
    segmented = open_segmented(image)
    dims = segmented.grid.dims
    joined = join(segmented, labels, _periodic_dims(periodic, dims))
    share = joined.percolates.T @ joined.voxels / joined.voxels.sum()
    shown = xr.DataArray(joined.labels(), segmented.image.coords, dims, attrs={"phase": list(labels)})
    return xr.Dataset(
        {
            "labels": shown,
            "voxels": ("cluster", joined.voxels),
            "touches": (("cluster", "axis", "end"), joined.touches),
            "percolates": (("cluster", "axis"), joined.percolates),
            "percolating_share": ("axis", share),
        },
        {"cluster": np.arange(1, len(joined.voxels) + 1), "axis": list(dims), "end": list(ENDS)},
    )


@dataclass(frozen=True)
class Parts:
    """What is known of the parts of one slab, numbered from 1 in the order of their first voxels.

    Attributes
    ----------
    voxels : ndarray
        Size of each.
    touches : ndarray of bool, (parts, axes, 2)
        Whether each reaches an end of the slab.
    joins : ndarray, (pairs, 2)
        Parts of the slab before and of this one that meet.
    wraps : mapping of int to ndarray, (pairs, 2)
        Parts that face each other across the ends of the image, by axis, the first left out.
    found : ndarray
        How many voxels have each label.
    """

    voxels: np.ndarray
    touches: np.ndarray
    joins: np.ndarray
    wraps: dict[int, np.ndarray]
    found: np.ndarray


@dataclass(frozen=True)
class Joined:
    """All parts of a phase of an image.

    Attributes
    ----------
    numbers : ndarray
        For the parts of all slabs, one slab after the other, the part of the whole that they belong to, from 1.
    offsets : ndarray
        Where those of each slab begin.
    voxels, touches, percolates : ndarray
        Of each part of the whole.
    """

    segmented: Segmented
    phase: tuple[int, ...]
    numbers: np.ndarray
    offsets: np.ndarray
    voxels: np.ndarray
    touches: np.ndarray
    percolates: np.ndarray

    def within(self, what: np.ndarray) -> list[graph.Value]:
        """For every slab, an entry of `what` for each voxel: the first outside the phase, else that of its part."""
        per_slab = [
            what[np.concatenate([[0], self.numbers[lo:hi]])]
            for lo, hi in zip(self.offsets[:-1], self.offsets[1:], strict=True)
        ]
        return each("parts", _painted, self.segmented.slabs(), [self.phase] * len(per_slab), per_slab)

    def labels(self) -> Any:
        """The number of the part of every voxel, as lazy as the image."""
        dtype = np.int32 if len(self.voxels) < np.iinfo(np.int32).max else np.int64
        slabs = self.within(np.arange(len(self.voxels) + 1, dtype=dtype))
        data = self.segmented.data
        if self.segmented.lazy:
            rows = tuple(min(self.segmented.rows, len(data) - lo) for lo in self.segmented.starts)
            return graph.array_of(new_name("clusters"), slabs, (rows, *((n,) for n in data.shape[1:])), dtype)
        whole = np.empty(data.shape, dtype)
        targets = [whole[lo : lo + self.segmented.rows] for lo in self.segmented.starts]
        self.segmented.compute(each("fill", _fill, slabs, targets))
        return backend.to_device(whole) if backend.is_device_array(data) else whole


def join(
    segmented: Segmented, phase: tuple[int, ...], periodic: Sequence[str] = (), *, argument: str = "phase"
) -> Joined:
    """Label each slab, and find out which parts of different slabs belong together.

    Raises
    ------
    ValueError
        If a label of the phase is not in the image.
    """
    dims, slabs = segmented.grid.dims, segmented.slabs()
    axes = [a for a, dim in enumerate(dims) if dim in periodic]
    n = len(slabs)
    labelled = each("label", _label, slabs, [phase] * n)
    above = [None, *each("last", _face, labelled, [-1] * n)]
    tasks = each("look", _look, labelled, above[:-1], slabs, [phase] * n, [axes] * n)
    if 0 in axes:
        tasks.append(graph.call(new_name("wrap"), _pairs, above[-1], *each("first", _face, labelled[:1], [0])))
    parts = segmented.compute(tasks)
    if 0 in axes:
        parts, around = parts[:-1], parts[-1]
    segmented.require(argument, phase, np.sum([part.found for part in parts], axis=0))

    offsets = np.cumsum([0, *(len(part.voxels) for part in parts)])
    inner = _shifted([part.joins for part in parts], [0, *offsets[:-2]], offsets[:-1])
    across = {a: _shifted([part.wraps[a] for part in parts], offsets[:-1], offsets[:-1]) for a in axes if a}
    if 0 in axes:
        across[0] = _shifted([around], [offsets[-2]], [0])
    total = int(offsets[-1])
    numbers = _union(total, [inner, *across.values()])
    touches = np.concatenate([part.touches for part in parts])
    touches[offsets[1] :, 0, 0] = False  # ends of slabs that are not ends of the image
    touches[: offsets[-2], 0, 1] = False
    return Joined(
        segmented,
        phase,
        numbers,
        offsets,
        np.bincount(numbers - 1, np.concatenate([part.voxels for part in parts])).astype(np.int64),
        _any_of(touches, numbers),
        np.stack(list(_percolating(touches, numbers, inner, across)), axis=-1),
    )


def _percolating(
    touches: np.ndarray, numbers: np.ndarray, inner: np.ndarray, across: dict[int, np.ndarray]
) -> Iterator[np.ndarray]:
    """For each axis which parts percolate; a path along a periodic one must not pass through its ends."""
    for axis in range(touches.shape[1]):
        uncrossed = numbers
        if axis in across:
            uncrossed = _union(len(numbers), [inner, *(pairs for a, pairs in across.items() if a != axis)])
        through = np.all(_any_of(touches[:, axis], uncrossed), axis=-1)
        yield _any_of(through[uncrossed - 1], numbers)


def _union(count: int, pairs: Sequence[np.ndarray]) -> np.ndarray:
    """Numbers from 1 that are the same for things which pairs connect, in the order of their first member."""
    rows, columns = np.concatenate(pairs).T
    links = coo_array((np.ones(len(rows), bool), (rows, columns)), (count, count))
    _, component = connected_components(links, directed=False)
    _, first, component = np.unique(component, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    return rank[component]


def _any_of(what: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """For each number, whether what holds for any that has it."""
    result = np.zeros((numbers.max(), *what.shape[1:]), bool)
    where = np.nonzero(what)
    result[(numbers[where[0]] - 1, *where[1:])] = True
    return result


def _shifted(pairs: Sequence[np.ndarray], first: Any, second: Any) -> np.ndarray:
    """Pairs of numbers in slabs as pairs of numbers in all of them, from 0."""
    shifted = [np.add(p, (a - 1, b - 1)) for p, a, b in zip(pairs, first, second, strict=True)]
    return np.concatenate([np.empty((0, 2), np.int64), *shifted])


def _label(block: Any, phase: tuple[int, ...]) -> Runs:
    """Parts of a slab, from 1 in the order of their first voxels."""
    return Runs.of(mask_of(block, phase))


def _painted(block: Any, phase: tuple[int, ...], what: np.ndarray) -> np.ndarray:
    return _label(block, phase).paint(what)


def _fill(block: np.ndarray, target: np.ndarray) -> None:
    target[...] = block


def _face(runs: Runs, end: int) -> np.ndarray:
    return runs.face(0, end)


def _pairs(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Which parts of two rows are opposite each other, each pair once."""
    both = (one > 0) & (other > 0)
    span = int(other.max(initial=0)) + 1
    pairs = one[both].astype(np.int64) * span + other[both]
    once = np.unique(pairs[np.diff(pairs, prepend=-1) != 0])  # most stand many times in a row
    return np.asarray(np.stack(np.divmod(once, span), axis=-1))


def _look(runs: Runs, above: np.ndarray | None, block: Any, phase: tuple[int, ...], axes: Sequence[int]) -> Parts:
    """All that is to be known of a slab before it is let go."""
    faces = {(axis, end): runs.face(axis, end) for axis in range(block.ndim) for end in ENDS.values()}
    touches = np.zeros((len(runs.voxels) + 1, block.ndim, len(ENDS)), bool)
    for (axis, end), face in faces.items():
        touches[face.ravel(), axis, end] = True
    joins = np.empty((0, 2), np.int64) if above is None else _pairs(above, faces[0, 0])
    wraps = {axis: _pairs(faces[axis, -1], faces[axis, 0]) for axis in axes if axis}
    several = len(phase) > 1
    found = [np.count_nonzero(mask_of(block, [label])) for label in phase] if several else [runs.voxels.sum()]
    return Parts(runs.voxels, touches[1:], joins, wraps, np.array(found))


def _periodic_dims(periodic: Any, dims: Sequence[str]) -> tuple[str, ...]:
    if isinstance(periodic, bool | np.bool_):
        return tuple(dims) if periodic else ()
    named = (periodic,) if isinstance(periodic, str) else tuple(periodic)
    for dim in named:
        if dim not in dims:
            raise ValueError(f"periodic names the dim {dim!r}, but the image has {', '.join(dims)}")
    return named
