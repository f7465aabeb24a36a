"""From a labelled image to a field for each phase, and back."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr

from voxdask import backend


def phases_from_labels(labels: xr.DataArray, *, phases: Sequence[int] | None = None) -> xr.DataArray:
    r"""The fraction of each phase in every voxel of a labelled image: 1 where it is, 0 elsewhere.

    .. math:: \phi_\alpha(x) = 1 \text{ where } \mathrm{labels}(x) = \alpha, \text{ else } 0

    Parameters
    ----------
    labels : DataArray
        Whole numbers, such as a segmented image or numbered grains. Dask arrays stay lazy.
    phases : sequence of int, optional
        The labels, each a phase, in this order. By default all that occur, rising; for that a lazy image is read once.

    Returns
    -------
    DataArray
        Named phi, float32, with a leading dim ``phase`` whose coordinate holds the labels.

    Raises
    ------
    TypeError
        If `labels` is no DataArray of whole numbers, or `phases` holds others.
    ValueError
        If `phases` names a label twice, fewer than two, or leaves out one that occurs (of an image in memory; a lazy
        one is looked at when it is computed).

    Examples
    --------
    >>> labels = xr.DataArray([0, 0, 7, 7], dims="x", coords={"x": [0.5, 1.5, 2.5, 3.5]})
    >>> phi = phases_from_labels(labels)
    >>> phi.phase.values, phi.sel(phase=7).values
    (array([0, 7]), array([0., 0., 1., 1.], dtype=float32))
    """
    if not isinstance(labels, xr.DataArray):
        raise TypeError(f"labels is a {type(labels).__name__}; give a DataArray, e.g. vd.open_image(path).image")
    if labels.dtype.kind not in "biu":
        raise TypeError(f"labels has dtype {labels.dtype}; labels are whole numbers, e.g. labels.astype(int)")
    if "phase" in labels.dims:
        raise ValueError(f"labels has dims {labels.dims}; 'phase' is the dim that the result gets")
    found = tuple(_labels_in(labels.data)) if phases is None else _whole_numbers(phases)
    if len(set(found)) < len(found):
        raise ValueError(f"phases={found} names a label twice")
    if len(found) < 2:
        raise ValueError(f"the labels are {found}, but two phases or more are needed")
    known = np.asarray(found)
    checked = phases is not None
    if checked and not isinstance(labels.data, da.Array):
        _require_known(backend.to_host(labels.data), known)
    if isinstance(labels.data, da.Array):
        block = _checked_ones if checked else _ones
        data = da.stack([labels.data.map_blocks(block, n, known, dtype=np.float32) for n in found])
    else:
        xp = backend.namespace(labels.data)
        data = xp.stack([_ones(labels.data, n, known) for n in found])
    coords: dict[Any, Any] = {"phase": known, **dict(labels.coords)}
    return xr.DataArray(data, coords, ("phase", *labels.dims), "phi")


def labels_from_phases(phi: xr.DataArray) -> xr.DataArray:
    r"""The label of the largest phase in every voxel, :math:`\arg\max_\alpha \phi_\alpha(x)`.

    Parameters
    ----------
    phi : DataArray
        With a dim ``phase``, whose coordinate holds the labels (0, 1, ... without one). Dask arrays stay lazy. Other
        dims, such as time, are kept.

    Returns
    -------
    DataArray
        Named labels.

    Raises
    ------
    TypeError
        If `phi` is no DataArray.
    ValueError
        If it has no dim ``phase``.

    Examples
    --------
    >>> phi = xr.DataArray([[0.9, 0.2], [0.1, 0.8]], dims=("phase", "x"), coords={"phase": [0, 7]})
    >>> labels_from_phases(phi).values
    array([0, 7])
    """
    if not isinstance(phi, xr.DataArray):
        raise TypeError(f"phi is a {type(phi).__name__}; give a DataArray with a dim 'phase', e.g. run.phi")
    if "phase" not in phi.dims:
        raise ValueError(f"phi has dims {phi.dims}; it needs 'phase'")
    known = phi.coords["phase"].values if "phase" in phi.coords else np.arange(phi.sizes["phase"])
    moved = phi.transpose("phase", ...)
    if isinstance(moved.data, da.Array):
        whole = moved.data.rechunk({0: -1})
        data = whole.map_blocks(_largest, known, dtype=known.dtype, drop_axis=0)
    else:
        data = _largest(moved.data, known)
    coords = {name: c for name, c in phi.coords.items() if "phase" not in c.dims}
    return xr.DataArray(data, coords, moved.dims[1:], "labels")


def _whole_numbers(phases: Any) -> tuple[int, ...]:
    each = tuple(phases) if isinstance(phases, Iterable) and not isinstance(phases, str) else ()
    if not each or not all(isinstance(phase, numbers.Integral) for phase in each):
        raise TypeError(f"phases is {phases!r}; give a sequence of labels, which are whole numbers")
    return tuple(int(phase) for phase in each)


def _ones(labels: Any, phase: int, phases: np.ndarray) -> Any:
    return (labels == phase).astype(np.float32)


def _checked_ones(labels: Any, phase: int, phases: np.ndarray) -> Any:
    if phase == phases[0]:  # once for every block
        _require_known(labels, phases)
    return _ones(labels, phase, phases)


def _require_known(labels: Any, phases: np.ndarray) -> None:
    unknown = np.setdiff1d(labels, phases)
    if unknown.size:
        raise ValueError(f"labels holds {unknown[0]}, which is not one of phases={tuple(phases.tolist())}; name it too")


def _labels_in(labels: Any) -> list[int]:
    """All labels that occur, rising; a lazy image chunk by chunk."""
    if not isinstance(labels, da.Array):
        return [int(n) for n in np.unique(backend.to_host(labels))]
    found = dask.compute(*(dask.delayed(np.unique)(block) for block in labels.to_delayed().ravel()))
    return [int(n) for n in np.unique(np.concatenate(found))]


def _largest(phi: Any, known: np.ndarray) -> Any:
    xp = backend.namespace(phi)
    return xp.asarray(known)[phi.argmax(axis=0)]
