"""Segmented images of every kind are opened, counted and refused alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import tifffile
import xarray as xr
from hypothesis import given
from images import CUTS, ELECTRODE, cut_up, image, labels_of

import voxdask as vd

LABELS = np.random.default_rng(0).integers(0, 3, (6, 5, 4)).astype(np.uint8)
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "volume_fractions": vd.volume_fractions,
    "surface_area": vd.surface_area,
    "triple_phase_boundary": vd.triple_phase_boundary,
    "clusters": vd.clusters,
}


@given(labels_of(5), CUTS)
def test_fractions_are_those_of_numpy(labels: np.ndarray, cut: Any) -> None:
    with cut_up(image(labels), cut) as given_image:
        fractions = vd.volume_fractions(given_image)
    found, counts = np.unique(labels, return_counts=True)
    assert fractions.dims == ("phase",)
    np.testing.assert_array_equal(fractions.phase, found)
    np.testing.assert_array_equal(fractions, counts / labels.size)


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        *(([-5, 2, 2, 7], np.int8), ([0, 1, 1, 1], bool), ([70_000, 0, 0, 1], np.int32)),
        *(([-(2**63), 3, 2**40, 3], np.int64), ([0, 5, 2**64 - 1, 5], np.uint64)),
    ],
)
def test_labels_of_any_integer_type(labels: list[int], dtype: type) -> None:
    fractions = vd.volume_fractions(image(np.array(labels, dtype)))
    assert fractions.phase.values.tolist() == sorted({int(n) for n in labels})
    assert fractions.sum() == 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_kind_of_image_gives_the_same(name: str, tmp_path: Path) -> None:
    function, whole = FUNCTIONS[name], image(LABELS, unit=None)
    expected = function(whole).compute()
    np.save(tmp_path / "image.npy", LABELS)
    tifffile.imwrite(tmp_path / "image.tif", LABELS, photometric="minisblack")
    whole.to_dataset().chunk(2).to_zarr(tmp_path / "image.zarr", consolidated=False)
    kinds: dict[str, Any] = {
        "npy": tmp_path / "image.npy",
        "tiff": str(tmp_path / "image.tif"),
        "dask": whole.chunk(3),
        "zarr": xr.open_zarr(tmp_path / "image.zarr", consolidated=False).image,
        "lazy zarr": xr.open_zarr(tmp_path / "image.zarr", consolidated=False, chunks=None).image,
        "strided": whole.copy(data=np.asfortranarray(LABELS)),
    }
    for kind, given_image in kinds.items():
        xr.testing.assert_identical(function(given_image).compute(), expected), kind


def test_what_xarray_has_not_read_is_read_in_slabs(tmp_path: Path) -> None:
    image(LABELS).to_dataset().to_zarr(tmp_path / "image.zarr", consolidated=False)
    lazy = xr.open_zarr(tmp_path / "image.zarr", consolidated=False, chunks=None).image
    assert isinstance(vd.clusters(lazy).labels.data, da.Array)
    assert not lazy.variable._in_memory


@pytest.mark.parametrize("name", ["surface_area", "triple_phase_boundary"])
def test_the_order_of_dims_is_storage(name: str) -> None:
    spacing = {"z": 3.0, "y": 2.0, "x": 0.5}
    whole = vd.dataset({"image": LABELS}, spacing=spacing, unit="um").image
    xr.testing.assert_allclose(FUNCTIONS[name](whole.transpose("x", "z", "y")), FUNCTIONS[name](whole))


def test_parts_have_their_size_in_any_order_of_dims() -> None:
    whole = image(LABELS)
    one, other = vd.clusters(whole), vd.clusters(whole.transpose("x", "z", "y"))
    assert other.labels.dims == ("x", "z", "y")
    assert sorted(one.voxels.values) == sorted(other.voxels.values)
    xr.testing.assert_equal(one.percolating_share, other.percolating_share.sel(axis=one.axis))


@pytest.mark.skipif(not ELECTRODE.exists(), reason="the electrode tomogram is not here")
def test_fractions_of_a_tomogram() -> None:
    fractions = vd.volume_fractions(ELECTRODE)
    assert fractions.phase.values.tolist() == [0, 85, 170]
    np.testing.assert_allclose(fractions, np.array([7548361, 6718710, 2510145]) / 256**3, rtol=1e-15)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("given_image", "kind", "message"),
    [
        (LABELS, TypeError, r"image is a ndarray; give a DataArray, .* or a path"),
        (image(LABELS.astype(float)), TypeError, r"image has dtype float64, .*image.astype\(int\).*image > threshold"),
        (image(LABELS).drop_vars("y"), ValueError, "dim 'y' has no coordinate"),
        (image(LABELS).expand_dims(time=[0.0]), ValueError, r"image has dims \('time', 'z', 'y', 'x'\); choose"),
        (vd.dataset({"i": LABELS}, node_centred="y").i, ValueError, "image has its samples at nodes along 'y'"),
        ("nothing.tif", FileNotFoundError, "nothing at 'nothing.tif'"),
    ],
)
def test_what_is_no_segmented_image(name: str, given_image: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        FUNCTIONS[name](given_image)


SMALL = image(LABELS)
ARGUMENTS: dict[str, tuple[str, Any, dict[str, Any], type[Exception], str]] = {
    "absent": ("surface_area", SMALL, {"phase": 7}, ValueError, "phase names the label 7, .*; it holds 0, 1, 2"),
    "one absent": ("surface_area", SMALL, {"phase": (1, 300), "method": "faces"}, ValueError, "names the label 300"),
    "absent of a lazy one": ("surface_area", SMALL.chunk(2), {"phase": -1}, ValueError, "phase names the label -1"),
    "half": ("surface_area", SMALL, {"phase": 1.5}, TypeError, "phase is 1.5; give a label"),
    "text": ("surface_area", SMALL, {"phase": "pore"}, TypeError, "phase is 'pore'; give a label"),
    "twice": ("surface_area", SMALL, {"phase": (1, 1)}, ValueError, r"phase is \(1, 1\); it names a label twice"),
    "method": ("surface_area", SMALL, {"method": "cubes"}, ValueError, "method is 'cubes'; use 'marching-cubes', "),
    "one dim": ("surface_area", SMALL[0, 0], {}, ValueError, r"image has the dims \('x',\); a surface needs two or"),
    "no part": ("clusters", SMALL, {"phase": 7}, ValueError, "phase names the label 7, which is not in the image"),
    "no such part": ("clusters", SMALL, {"phase": (0, 7)}, ValueError, "phase names the label 7, which is not in the"),
    "no label": ("clusters", SMALL, {"phase": []}, TypeError, r"phase is \[\]; give a label"),
    "other dim": ("clusters", SMALL, {"periodic": "t"}, ValueError, "periodic names the dim 't', .* has z, y, x"),
    "two phases": ("triple_phase_boundary", SMALL, {"phases": (0, 1)}, ValueError, r"phases is \(0, 1\); give three"),
    "same phase": ("triple_phase_boundary", SMALL, {"phases": (0, 1, 1)}, ValueError, "names a label twice"),
    "one phase": ("triple_phase_boundary", SMALL, {"phases": 1}, ValueError, "phases is 1; give three labels"),
    "no phase": ("triple_phase_boundary", SMALL, {"phases": (0, 1, 7)}, ValueError, "phases names the label 7"),
    "no active phase": (
        "triple_phase_boundary", SMALL, {"phases": (0, 1, 7), "percolating": True}, ValueError, "names the label 7",
    ),
    "along what": ("triple_phase_boundary", SMALL, {"percolating": "t"}, ValueError, "percolating is 't'; .* z, y, x"),
    "on a line": ("triple_phase_boundary", SMALL[0, 0], {}, ValueError, "three phases meet in an image of two or"),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_bad_arguments_are_named(case: str) -> None:
    name, given_image, options, kind, message = ARGUMENTS[case]
    with pytest.raises(kind, match=message):
        FUNCTIONS[name](given_image, **options)


def test_a_message_lists_a_few_of_many_labels() -> None:
    with pytest.raises(ValueError, match=r"it holds 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, \.\.\., 99$"):
        vd.clusters(image(np.arange(100)), 100)
