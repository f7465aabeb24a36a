"""Indicators from segmented images: profile, distance, chunks, boundaries, and what is refused."""

from __future__ import annotations

import importlib
from typing import Any

import dask.array as da
import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import xarray as xr

import voxdask as vd

module = importlib.import_module("voxdask.indicator")


def medium(shape: tuple[int, ...] = (24, 20, 16), seed: int = 0) -> np.ndarray:
    """Two phases of smoothed noise, labels 0 and 1, periodic."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    return (scipy.ndimage.gaussian_filter(noise, 2, mode="wrap") > 0).astype(np.uint8)


def image(labels: np.ndarray, **options: Any) -> xr.DataArray:
    return vd.dataset({"image": labels}, **options).image


@pytest.mark.parametrize("spacing", [1.0, (0.5, 2.0), (2.0, 0.5)], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_flat_interface_by_distance(spacing: Any, axis: int) -> None:
    """(1 + tanh(2 ln 3 d / w)) / 2 with d from the face between the voxels, 0.1 and 0.9 a width apart."""
    labels = np.zeros((12, 12), np.uint8)
    (labels if axis == 0 else labels.T)[6:] = 1
    psi = vd.indicator(image(labels, spacing=spacing), width=4.0, boundary="neumann")
    h = np.broadcast_to(spacing, 2)[axis]
    d = (np.arange(12) - 5.5) * h
    expected = (1 + np.tanh(2 * np.log(3) * d / 4)) / 2
    expected[abs(d) > 10] = (d > 0)[abs(d) > 10]
    across = psi.values if axis == 0 else psi.values.T
    np.testing.assert_allclose(across, np.broadcast_to(expected[:, None], (12, 12)), rtol=0, atol=2e-7)
    assert (1 + np.tanh(2 * np.log(3) * 0.5)) / 2 == pytest.approx(0.9)  # half a width inside


@pytest.mark.parametrize("spacing", [1.0, 0.25])
def test_a_flat_interface_by_diffusion(spacing: float) -> None:
    """The error function that rises from 0.1 to 0.9 over the width."""
    labels = np.repeat(np.array([0, 1], np.uint8), 40)
    psi = vd.indicator(image(labels, spacing=spacing), width=8 * spacing, method="diffusion", boundary="neumann")
    d = np.arange(80) - 39.5
    deviation = 8 / (2 * scipy.special.ndtri(0.9))
    np.testing.assert_allclose(psi, scipy.special.ndtr(d / deviation), rtol=0, atol=2e-3)


@pytest.mark.parametrize("spacing", [(0.2, 0.2, 0.2), (0.6, 0.15, 0.2), (0.2, 0.15, 0.6)], ids=str)
def test_distances_are_those_of_scipy(spacing: tuple[float, ...]) -> None:
    """The nearest point half way between voxels, as scipy finds it on a grid of twice the resolution along one axis."""
    inside = medium() > 0
    nearest = np.full(inside.shape, np.inf)
    for a, h in enumerate(spacing):
        voxels = np.moveaxis(inside, a, 0)
        places = np.ones((2 * len(voxels) - 1, *voxels.shape[1:]), bool)
        places[1::2] = voxels[1:] == voxels[:-1]
        others = [s for b, s in enumerate(spacing) if b != a]
        there = scipy.ndimage.distance_transform_edt(places, sampling=(h / 2, *others))[::2]
        nearest = np.minimum(nearest, np.moveaxis(there, 0, a))
    found, near = module._distance(inside, spacing), nearest <= module._REACH
    assert near.mean() > 0.9
    np.testing.assert_allclose(found[near], nearest[near], rtol=1e-6)
    assert (found[~near] > module._REACH).all()


@pytest.mark.parametrize("method", ["distance", "diffusion"])
def test_a_disc_keeps_its_area_and_its_edge(method: Any) -> None:
    """On the mean over many places of the centre: pi R^2 and 2 pi R.

    A profile about the edge adds pi times its variance to the area, that of the logistic function; a convolution
    keeps the area.
    """
    rng, n, radius, width = np.random.default_rng(0), 48, 14.3, 4.0
    areas, edges = [], []
    for _ in range(10):
        centre = n / 2 + rng.uniform(-0.5, 0.5, 2)
        i, j = np.indices((n, n))
        disc = np.hypot(i - centre[0], j - centre[1]) < radius
        psi = vd.indicator(image(disc), width=width, method=method).values.astype(float)
        slopes = [(np.roll(psi, -1, a) - np.roll(psi, 1, a)) / 2 for a in (0, 1)]
        areas.append(psi.sum())
        edges.append(np.hypot(*slopes).sum())
    variance = {"distance": np.pi**2 / 3 * (width / (4 * np.log(3))) ** 2, "diffusion": 0.0}[method]
    assert np.mean(areas) == pytest.approx(np.pi * (radius**2 + variance), rel=0.003)
    # voxels have corners: that makes the edge a little longer than that of the disc
    assert np.mean(edges) == pytest.approx(2 * np.pi * radius, rel={"distance": 0.03, "diffusion": 0.01}[method])


@pytest.mark.parametrize("boundary", ["periodic", "neumann", {"z": "neumann"}], ids=str)
@pytest.mark.parametrize("method", ["distance", "diffusion"])
@pytest.mark.parametrize("spacing", [1.0, (2.0, 1.0, 1.5)], ids=str)
def test_lazy_chunks_give_what_memory_gives(
    method: Any, boundary: Any, spacing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = image(medium(), spacing=spacing)
    whole = vd.indicator(labels, width=4.0, method=method, boundary=boundary)
    assert isinstance(whole.data, np.ndarray)
    monkeypatch.setattr(module, "_SLAB_VOXELS", 1)  # as thin as may be
    lazy = vd.indicator(labels.chunk(z=3, y=7), width=4.0, method=method, boundary=boundary)
    assert isinstance(lazy.data, da.Array) and lazy.data.numblocks[0] > 1
    assert (lazy.dims, lazy.dtype, lazy.name) == (labels.dims, np.float32, "psi")
    np.testing.assert_array_equal(lazy.values, whole.values)
    assert 0 <= whole.min() < 0.1 and 0.9 < whole.max() <= 1


@pytest.mark.parametrize("node_centred", [(), ("y", "x")], ids=["cells", "nodes"])
@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
@pytest.mark.parametrize("method", ["distance", "diffusion"])
def test_an_image_goes_on_beyond_its_edge(method: Any, boundary: str, node_centred: tuple[str, ...]) -> None:
    """The same as in the middle of the image continued by hand."""
    labels = medium((16, 14))
    mode: Any = "wrap" if boundary == "periodic" else "reflect" if node_centred else "symmetric"
    psi = vd.indicator(image(labels, node_centred=node_centred), width=3.0, method=method, boundary=boundary)
    wide = vd.indicator(image(np.pad(labels, 13, mode=mode)), width=3.0, method=method, boundary="neumann")
    np.testing.assert_allclose(psi, wide[13:-13, 13:-13], rtol=0, atol=1e-6)


def test_coordinates_and_order_of_dims_are_kept() -> None:
    labels = image(medium(), spacing=(0.4, 0.5, 0.6), unit="um")
    psi = vd.indicator(labels, width=2.0)
    xr.testing.assert_identical(psi.coords.to_dataset(), labels.coords.to_dataset())
    turned = vd.indicator(labels.transpose("x", "z", "y"), width=2.0)
    assert turned.dims == ("x", "z", "y")
    np.testing.assert_allclose(turned.transpose(*psi.dims), psi, rtol=0, atol=1e-6)


def test_phases() -> None:
    """A phase may be several labels; all of them make one body."""
    labels = np.array([0, 0, 0, 85, 85, 170, 170, 170], np.uint8).repeat(4)
    one, two, both = (
        vd.indicator(image(labels), phase=phase, width=3.0, boundary="neumann") for phase in (85, 170, (85, 170))
    )
    solid = vd.indicator(image(labels > 0), phase=True, width=3.0, boundary="neumann")
    np.testing.assert_array_equal(both, solid)
    assert float(both[20]) > 0.999  # between the two
    assert float(one[19]) == pytest.approx(float(two[20]), abs=1e-6)
    floats = vd.indicator(image((labels / 85).astype(np.float32)), phase=[1, 2], width=3.0, boundary="neumann")
    np.testing.assert_array_equal(both, floats)
    everything = vd.indicator(image(np.ones((5, 6), np.uint8)), width=2.0)
    assert (everything == 1).all()


def test_an_indicator_drives_a_model_out_of_core(tmp_path: Any) -> None:
    """Lazy from the labels on: the content of the body grows by the influx."""
    labels = image(medium()).chunk(z=6)
    psi = vd.indicator(labels, width=4.0)
    ds = vd.dataset({"c": da.zeros(psi.shape, chunks=psi.chunks)}).assign(psi=psi)
    model = vd.models.SmoothedBoundaryDiffusion(flux=0.1)
    run = vd.simulate(model, ds, dt=0.5, steps=4, store=tmp_path / "run.zarr", progress=False)
    psi = psi.values.astype(float)
    slopes = [(np.roll(psi, -1, a) - np.roll(psi, 1, a)) / 2 for a in range(3)]
    content = float((np.clip(psi, 1e-4, 1) * run.c[-1]).sum())
    assert content == pytest.approx(0.1 * 2.0 * np.sqrt(sum(s**2 for s in slopes)).sum(), rel=1e-6)


GREY = np.random.default_rng(0).integers(0, 200, (20, 20)).astype(np.uint8)


@pytest.mark.parametrize(
    ("labels", "options", "kind", "message"),
    [
        (medium(), {"width": 0.0}, ValueError, "width is 0.0; it must be positive and finite"),
        (medium(), {"width": float("nan")}, ValueError, "width is nan; it must be positive"),
        (medium(), {"width": "wide"}, TypeError, "width is 'wide'; give a number"),
        (medium(), {"width": 0.9}, ValueError, "width is 0.9, less than a voxel .1."),
        (medium(), {"width": 3.0, "phase": 7}, ValueError, "phase 7 is not in the image, which holds 0, 1"),
        (medium(), {"width": 3.0, "phase": 0.5}, TypeError, "phase is 0.5; give a label, or several"),
        (medium(), {"width": 3.0, "phase": ()}, TypeError, r"phase is \(\); give a label"),
        (medium(), {"width": 3.0, "method": "magic"}, ValueError, "method is 'magic'; use 'distance' or 'diffusion'"),
        (medium(), {"width": 3.0, "boundary": "open"}, ValueError, "boundary.* is 'open'; use 'periodic'"),
        (GREY, {"width": 3.0}, ValueError, "not segmented: it holds grey values from 0 to 199; .* image > threshold"),
        (GREY / 200, {"width": 3.0}, ValueError, "not segmented: it holds values that are no integers from 0 to 0.995"),
        (np.where(GREY > 9, 1.0, np.nan), {"width": 3.0}, ValueError, "not segmented"),
        (GREY * 1j, {"width": 3.0}, TypeError, "image has dtype complex128; it must hold labels"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_refused(labels: np.ndarray, options: Any, kind: type[Exception], message: str, lazy: bool) -> None:
    given = image(labels).chunk({"x": 5}) if lazy else image(labels)
    with pytest.raises(kind, match=message):
        vd.indicator(given, **options)


def test_what_is_no_image() -> None:
    with pytest.raises(TypeError, match="image is a ndarray; give a DataArray"):
        vd.indicator(medium(), width=3.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="choose a frame"):
        vd.indicator(image(medium()).expand_dims("time"), width=3.0)
