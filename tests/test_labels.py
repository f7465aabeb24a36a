"""Labels to phases and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import voxdask as vd

FEW = hnp.arrays(
    np.int16, hnp.array_shapes(min_dims=1, max_dims=3, min_side=2, max_side=5), elements=st.integers(-2, 3)
)


def image(labels: np.ndarray) -> xr.DataArray:
    dims = ("z", "y", "x")[-labels.ndim :]
    coords = {dim: 0.5 * np.arange(n) + 0.25 for dim, n in zip(dims, labels.shape, strict=True)}
    return xr.DataArray(labels, coords, dims, name="image", attrs={"source": "scan"})


@given(FEW.filter(lambda labels: len(np.unique(labels)) > 1), st.booleans())
def test_labels_come_back(labels: np.ndarray, lazy: bool) -> None:
    given = image(labels).chunk(2) if lazy else image(labels)
    phi = vd.phases_from_labels(given)
    assert phi.dims == ("phase", *given.dims) and phi.dtype == np.float32 and phi.name == "phi"
    assert isinstance(phi.data, da.Array) is lazy
    assert phi.phase.values.tolist() == sorted(set(labels.ravel().tolist()))
    for phase in phi.phase.values:
        np.testing.assert_array_equal(phi.sel(phase=phase), labels == phase)
    back = vd.labels_from_phases(phi)
    assert isinstance(back.data, da.Array) is lazy
    xr.testing.assert_equal(back.astype(np.int16), given)


def test_phases_may_be_named() -> None:
    phi = vd.phases_from_labels(image(np.array([3, 1, 3])), phases=(3, 2, 1))
    assert phi.values.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]] and phi.phase.values.tolist() == [3, 2, 1]


def test_booleans_are_labels() -> None:
    phi = vd.phases_from_labels(image(np.array([True, False])))
    assert phi.sel(phase=1).values.tolist() == [1, 0]


def test_every_frame_gets_labels() -> None:
    phi = np.random.default_rng(0).random((4, 3, 5))
    frames = xr.DataArray(phi, dims=("time", "phase", "x"), coords={"time": [0.0, 1.0, 2.0, 3.0]})
    labels = vd.labels_from_phases(frames)
    assert labels.dims == ("time", "x") and labels.time.values.tolist() == [0.0, 1.0, 2.0, 3.0]
    np.testing.assert_array_equal(labels, phi.argmax(1))
    np.testing.assert_array_equal(vd.labels_from_phases(frames.chunk(2)), phi.argmax(1))


def test_a_lazy_image_is_not_read_if_its_phases_are_named() -> None:
    def read(block: np.ndarray) -> np.ndarray:
        raise OSError("read")

    labels = image(np.zeros((4, 4), int))
    lazy = labels.copy(data=da.from_array(labels.data, chunks=2).map_blocks(read, meta=np.empty((0, 0), int)))
    phi = vd.phases_from_labels(lazy, phases=[0, 1])
    with pytest.raises(OSError, match="read"):
        phi.compute()
    with pytest.raises(OSError, match="read"):
        vd.phases_from_labels(lazy)


def test_the_planes_of_a_lazy_image_are_those_of_one_in_memory() -> None:
    labels = image(np.random.default_rng(0).integers(0, 4, (6, 5, 4)))
    np.testing.assert_array_equal(vd.phases_from_labels(labels.chunk({"z": 2})), vd.phases_from_labels(labels))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: vd.phases_from_labels(np.zeros(3, int)), TypeError, "labels is a ndarray"),  # type: ignore[arg-type]
        (lambda: vd.phases_from_labels(image(np.zeros(3))), TypeError, "labels has dtype float64"),
        (lambda: vd.phases_from_labels(image(np.zeros(3, int))), ValueError, r"the labels are \(0,\)"),
        (lambda: vd.phases_from_labels(image(np.zeros(3, int)), phases=(0, 0)), ValueError, "names a label twice"),
        (lambda: vd.phases_from_labels(image(np.arange(3)), phases=(0, 1)), ValueError, "labels holds 2"),
        (
            lambda: vd.phases_from_labels(image(np.arange(3)).chunk(1), phases=(0, 1)).compute(),
            ValueError,
            "labels holds 2",
        ),
        (lambda: vd.phases_from_labels(image(np.arange(3)).rename(x="phase")), ValueError, "'phase' is the dim"),
        (lambda: vd.labels_from_phases(np.zeros(3)), TypeError, "phi is a ndarray"),  # type: ignore[arg-type]
        (lambda: vd.labels_from_phases(image(np.zeros(3))), ValueError, "it needs 'phase'"),
    ],
)
def test_bad_input_is_refused(call: Callable[[], Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call()
