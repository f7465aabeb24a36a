"""The lines along which three phases of a segmented image meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from voxdask.clusters import join
from voxdask.segmented import Image, each, mask_of, open_segmented, parse_labels, quantity, rows_below, sums

#: A bit for each phase, and all of them.
_BITS, _ALL = (1, 2, 4), 7


def triple_phase_boundary(
    image: Image, phases: Sequence[int] = (0, 1, 2), *, percolating: bool | str = False
) -> xr.Dataset:
    r"""The length of the boundary of three phases in a segmented image, in all and by volume.

    .. math:: L = \sum_d n_d h_d, \qquad L_V = L / V

    where :math:`n_d` edges along axis d, each :math:`h_d` long, lie between four voxels that hold all three phases.
    Edges follow a smooth line in steps: L is the length of a line along an axis, and 1.5 times that of lines in all
    directions alike. Edges on the faces of the image have fewer voxels around them, and do not count.

    Parameters
    ----------
    image : DataArray or path
        Labels (integers, or truth values) with two or three spatial dims, or a file that :func:`voxdask.open_image`
        opens. A Dask array is read chunk by chunk.
    phases : sequence of three int, default (0, 1, 2)
        Labels of the phases.
    percolating : bool or str, default False
        True counts active edges alone: each phase is there with a voxel of a part that leads from one face of the image
        to the opposite one, in whichever direction, see :func:`voxdask.clusters`. The name of a dim: along that one.

    Returns
    -------
    Dataset
        ``length`` in the image's unit of length, and ``density``, by volume of the image, in its inverse square. Of a
        plane image, the number of points, and that by area.

    Raises
    ------
    TypeError
        If `image` is neither a DataArray nor a path, or holds other than labels; if `phases` are not labels.
    ValueError
        If there are not three different phases, one is not in the image, it has one dim, or `percolating` is no dim.

    References
    ----------
    Iwai et al. (2010), J. Power Sources 195, 955, doi:10.1016/j.jpowsour.2009.09.005; on its accuracy Jorgensen
    et al. (2014), J. Power Sources 261, 198

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> flat = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 2, 2]])  # the three meet in a point
    >>> ds = vd.dataset({"image": np.stack([flat] * 5)}, spacing=0.5, unit="um")
    >>> boundary = vd.triple_phase_boundary(ds.image)
    >>> boundary.length.item(), boundary.density.item(), boundary.density.units
    (2.5, 0.3333333333333333, 'um^-2')
    """
    labels = parse_labels("phases", phases)
    if len(labels) != len(_BITS):
        raise ValueError(f"phases is {phases!r}; give three labels, e.g. (0, 1, 2)")
    segmented = open_segmented(image)
    grid = segmented.grid
    if grid.ndim < 2:
        raise ValueError(f"image has the dims {grid.dims}; three phases meet in an image of two or three")
    if not isinstance(percolating, bool) and percolating not in grid.dims:
        raise ValueError(f"percolating is {percolating!r}; give True, False or one of the dims {', '.join(grid.dims)}")
    slabs = segmented.slabs()
    if percolating is False:
        coded = each("phases", _coded, slabs, [labels] * len(slabs))
    else:
        active = []
        for label, bit in zip(labels, _BITS, strict=True):
            joined = join(segmented, (label,), argument="phases")
            along = joined.percolates
            chosen = along.any(-1) if percolating is True else along[:, grid.axis(str(percolating))]
            active.append(joined.within(np.concatenate([[False], chosen]).astype(np.uint8) * np.uint8(bit)))
        coded = each("phases", _united, *active)
    edges, found = sums(segmented.compute(each("edges", _edges, coded, rows_below(coded))))
    if percolating is False:
        segmented.require("phases", labels, found)
    length = float(edges @ np.array((*grid.spacing, 1.0)[:3]))
    volume = grid.size * float(np.prod(grid.spacing))
    return xr.Dataset(
        {"length": quantity(length, grid.unit, grid.ndim - 2), "density": quantity(length / volume, grid.unit, -2)},
        attrs={"phases": list(labels), "percolating": str(percolating)},
    )


def _coded(block: Any, labels: Sequence[int]) -> np.ndarray:
    """A bit in every voxel that says which of the phases it is in."""
    codes = np.zeros(block.shape, np.uint8)
    for label, bit in zip(labels, _BITS, strict=True):
        codes |= mask_of(block, [label]).view(np.uint8) * np.uint8(bit)
    return codes


def _united(one: np.ndarray, two: np.ndarray, three: np.ndarray) -> np.ndarray:
    return np.asarray(one | two | three)


def _edges(codes: np.ndarray, below: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """How many edges along each axis have all bits around them; and how many voxels have each bit.

    A plane image has one layer, and edges across it.
    """
    codes = codes[..., np.newaxis] if codes.ndim == 2 else codes
    reaching = codes if below is None else np.concatenate([codes, below.reshape(1, *codes.shape[1:])])
    counts = []
    for axis in range(3):
        around = codes if axis == 0 else reaching
        for other in {0, 1, 2} - {axis}:
            ahead = (*(slice(None),) * other, slice(1, None))
            behind = (*(slice(None),) * other, slice(-1))
            around = around[ahead] | around[behind]
        counts.append(np.count_nonzero(around == _ALL))
    return np.array(counts), np.array([np.count_nonzero(codes & bit) for bit in _BITS])
