"""Parts of masks of all shapes are those that scipy finds."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from images import labels_of

from voxdask.runs import Runs


@given(labels_of(2, side=9))
def test_parts_are_those_of_scipy(labels: np.ndarray) -> None:
    mask = labels == 1
    expected, count = scipy.ndimage.label(mask)
    runs = Runs.of(mask)
    np.testing.assert_array_equal(runs.paint(np.arange(count + 1)), expected)
    np.testing.assert_array_equal(runs.voxels, np.bincount(expected.ravel())[1:])
    for axis in range(mask.ndim):
        for end in (0, -1):
            np.testing.assert_array_equal(runs.face(axis, end), expected.take(end, axis))


@pytest.mark.parametrize("filled", [False, True])
@pytest.mark.parametrize("shape", [(1,), (7,), (1, 7), (7, 1), (1, 5, 1), (5, 1, 1), (1, 1, 5), (5, 1, 4)])
def test_thin_masks(shape: tuple[int, ...], filled: bool) -> None:
    runs = Runs.of(np.full(shape, filled))
    np.testing.assert_array_equal(runs.paint(np.array([0, 7])), np.full(shape, 7 if filled else 0))
    assert runs.voxels.tolist() == ([np.prod(shape)] if filled else [])


def test_a_spiral_is_one_part_whichever_way_it_is_stored() -> None:
    """Its arms are joined late, and through many others."""
    y, x = np.mgrid[-60:61, -60:61]
    mask = (np.hypot(y, x) - 5 * np.arctan2(y, x) / np.pi) % 10 < 5
    for stored in (mask, mask.T, np.asfortranarray(mask), mask[::-1, ::-1]):
        expected, count = scipy.ndimage.label(stored)
        np.testing.assert_array_equal(Runs.of(stored).paint(np.arange(count + 1)), expected)
