"""Segmented images for tests, and every way in which they may lie in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import xarray as xr
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import voxdask as vd
from voxdask import segmented

ELECTRODE = Path(__file__).parents[2] / "shared" / "data" / "electrode.tiff"


def image(labels: np.ndarray, spacing: float | Sequence[float] = 1.0, unit: str | None = "um") -> xr.DataArray:
    return vd.dataset({"image": labels}, spacing=spacing, unit=unit).image


def labels_of(phases: int, ndim: int | None = None, side: int = 6) -> st.SearchStrategy[np.ndarray]:
    """Small images with so many phases."""
    shapes = hnp.array_shapes(min_dims=ndim or 1, max_dims=ndim or 3, max_side=side)
    return hnp.arrays(np.uint8, shapes, elements=st.integers(0, phases - 1))


#: How an image is cut: chunks of a Dask array, or None for one in memory; and voxels of a slab.
CUTS = st.tuples(st.none() | st.tuples(*[st.integers(1, 6)] * 3), st.integers(1, 100))


@contextmanager
def cut_up(whole: xr.DataArray, cut: tuple[tuple[int, ...] | None, int]) -> Iterator[xr.DataArray]:
    chunks, voxels = cut
    with mock.patch.object(segmented, "_SLAB_VOXELS", voxels):
        yield whole if chunks is None else whole.chunk(dict(zip(whole.dims, chunks, strict=False)))
