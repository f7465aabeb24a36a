"""Parts of a phase are those of an image labelled as a whole, however it is cut."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import dask
import dask.array as da
import numpy as np
import pytest
import scipy.ndimage
import xarray as xr
from conftest import connected
from hypothesis import given
from hypothesis import strategies as st
from images import CUTS, ELECTRODE, cut_up, image, labels_of

import voxdask as vd
from voxdask import segmented

DIMS = ("z", "y", "x")


def neighbours(voxel: tuple[int, ...], shape: tuple[int, ...], wrapped: set[int]) -> Iterator[tuple[int, ...]]:
    for axis, step in ((a, s) for a in range(len(shape)) for s in (-1, 1)):
        at = voxel[axis] + step
        if axis in wrapped or 0 <= at < shape[axis]:
            yield (*voxel[:axis], at % shape[axis], *voxel[axis + 1 :])


def flood(mask: np.ndarray, starts: list[tuple[int, ...]], wrapped: set[int]) -> set[tuple[int, ...]]:
    """All voxels that a path from some of them leads to."""
    reached, waiting = set(starts), list(starts)
    while waiting:
        for voxel in neighbours(waiting.pop(), mask.shape, wrapped):
            if mask[voxel] and voxel not in reached:
                reached.add(voxel)
                waiting.append(voxel)
    return reached


def parts_of(mask: np.ndarray, wrapped: set[int]) -> np.ndarray:
    """Parts one by one, in the order of their first voxels."""
    labels, count = np.zeros(mask.shape, int), 0
    for voxel in zip(*np.nonzero(mask), strict=True):
        if not labels[voxel]:
            count += 1
            for other in flood(mask, [voxel], wrapped):
                labels[other] = count
    return labels


@given(labels_of(2, side=8), CUTS)
def test_parts_are_those_of_scipy(labels: np.ndarray, cut: Any) -> None:
    labels.flat[-1] = 1
    expected, count = scipy.ndimage.label(labels)
    with cut_up(image(labels), cut) as given_image:
        found = vd.clusters(given_image)
        assert isinstance(found.labels.data, da.Array) is (cut[0] is not None)
        np.testing.assert_array_equal(found.labels, expected)
    assert found.cluster.values.tolist() == [*range(1, count + 1)]
    np.testing.assert_array_equal(found.voxels, np.bincount(expected.ravel())[1:])
    for axis, dim in enumerate(found.labels.dims):
        ends = [set(expected.take(where, axis).ravel()) for where in (0, -1)]
        for number in range(1, count + 1):
            touched = [number in end for end in ends]
            assert found.touches.sel(cluster=number, axis=dim).values.tolist() == touched
            assert found.percolates.sel(cluster=number, axis=dim).item() is all(touched)


@given(labels_of(2, side=5), CUTS, st.sets(st.integers(0, 2)))
def test_periodic_parts_are_those_of_a_flood(labels: np.ndarray, cut: Any, wrapped: set[int]) -> None:
    labels.flat[-1] = 1
    whole = image(labels)
    wrapped = {axis for axis in wrapped if axis < labels.ndim}
    expected = parts_of(labels == 1, wrapped)
    with cut_up(whole, cut) as given_image:
        found = vd.clusters(given_image, periodic=[str(whole.dims[axis]) for axis in wrapped])
        np.testing.assert_array_equal(found.labels, expected)
    for axis, dim in enumerate(whole.dims):
        first = [voxel for voxel in zip(*np.nonzero(labels), strict=True) if voxel[axis] == 0]
        through = set()
        for voxel in first:  # a path from face to face may use the ends of other axes, not of this one
            if any(v[axis] == labels.shape[axis] - 1 for v in flood(labels == 1, [voxel], wrapped - {axis})):
                through.add(expected[voxel])
        percolates = found.percolates.sel(axis=dim)
        assert set(found.cluster.values[percolates.values]) == through
        share = np.isin(expected, [*through]).sum() / labels.sum() if through else 0
        assert found.percolating_share.sel(axis=dim).item() == pytest.approx(share)


@pytest.mark.parametrize(("open_", "percolates"), [(0.25, False), (0.4, True)])
def test_random_voxels_percolate_above_their_threshold(open_: float, percolates: bool) -> None:
    """Sites of the simple cubic lattice do at 0.3116 (Stauffer and Aharony, Introduction to Percolation Theory)."""
    labels = np.random.default_rng(0).random((64, 64, 64)) < open_
    found = vd.clusters(image(labels))
    assert found.percolates.any("cluster").values.tolist() == [percolates] * 3
    assert (found.percolating_share > 0.5).values.tolist() == [percolates] * 3


def test_a_part_across_the_end_of_a_periodic_axis_need_not_percolate() -> None:
    labels = np.array([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]])
    assert vd.clusters(image(labels)).sizes["cluster"] == 3
    found = vd.clusters(image(labels), periodic=["x"])
    assert found.labels.values.tolist() == [[1, 0, 0, 1], [0, 0, 0, 0], [0, 2, 0, 0]]
    assert found.touches.sel(cluster=1, axis="x").all() and not found.percolates.any()


def test_several_labels_are_one_phase() -> None:
    labels = np.array([0, 2, 1, 0, 3, 2])
    assert vd.clusters(image(labels), (2, 1)).labels.values.tolist() == [0, 1, 1, 0, 0, 2]


def test_labels_lie_on_the_coordinates_of_the_image() -> None:
    whole = image(np.ones((2, 3, 4), int), (0.5, 0.4, 0.3))
    found = vd.clusters(whole)
    xr.testing.assert_identical(found.labels.coords.to_dataset(), whole.coords.to_dataset())
    assert vd.Grid.from_dataset(found.labels) == vd.Grid.from_dataset(whole)


@pytest.mark.skipif(not ELECTRODE.exists(), reason="the electrode tomogram is not here")
def test_a_tomogram() -> None:
    whole = vd.open_image(ELECTRODE, voxel_size=0.4, unit="um", chunks=30).image.isel(z=slice(0, 96), y=slice(0, 128))
    expected, count = scipy.ndimage.label(whole.values == 170)
    found = vd.clusters(whole, 170)
    assert found.sizes["cluster"] == count
    np.testing.assert_array_equal(found.labels, expected)


def test_on_a_cluster() -> None:
    labels = np.random.default_rng(0).random((12, 9, 8)) < 0.4
    expected = vd.clusters(image(labels), periodic=True)
    with connected(1, 2, processes=False):
        for given_image in (image(labels), image(labels).chunk(5)):
            found = vd.clusters(given_image, periodic=True).compute()
            xr.testing.assert_identical(found, expected)


def test_memory_is_that_of_a_few_slabs() -> None:
    """An image of 64 MB in slabs of 256 kB, of which each thread takes 10 bytes a voxel."""
    voxels, threads = 1 << 18, 2

    def make(block_info: Any = None) -> np.ndarray:
        z = np.arange(*block_info[None]["array-location"][0])[:, None, None]
        return np.asarray((z + np.arange(256)[:, None]) % 32 < np.arange(256) // 16)

    data = da.map_blocks(make, chunks=((4,) * 256, (256,), (256,)), dtype=bool, meta=np.empty((0, 0, 0), bool))
    whole = image(data)
    with mock.patch.object(segmented, "_SLAB_VOXELS", voxels), dask.config.set(num_workers=threads):
        vd.clusters(whole.isel(z=slice(0, 8)))  # what a first run loads stays
        tracemalloc.start()
        vd.clusters(whole)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    tasks = 256 * 8 * 4_000  # what Dask knows of them
    assert peak < threads * 10 * voxels + tasks, f"{peak} bytes"


def test_a_file_stays_lazy(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).random((8, 6, 5)) < 0.5
    np.save(tmp_path / "image.npy", labels)
    found = vd.clusters(tmp_path / "image.npy")
    assert isinstance(found.labels.data, da.Array)
    np.testing.assert_array_equal(found.labels, scipy.ndimage.label(labels)[0])
