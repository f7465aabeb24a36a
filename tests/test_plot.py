"""Figures of slices: what is drawn, that only slices are loaded, and that nothing global is touched."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import voxdask as vd

SHAPE = (6, 8, 10)


def field(lazy: bool = False) -> xr.Dataset:
    values = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    ds = vd.dataset({"c": da.from_array(values, chunks=(2, 8, 10)) if lazy else values}, spacing=(2, 1, 0.5), unit="um")
    ds.c.attrs["units"] = "mol/l"
    return ds


def frames(count: int) -> xr.Dataset:
    times = xr.DataArray(np.arange(count) * 0.5, dims="time", name="time", attrs={"units": "s"})
    return xr.concat([field() + k for k in range(count)], times)


def drawn(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(ax.images[0].get_array()) for ax in figure.axes if ax.images]


@pytest.mark.parametrize("lazy", [False, True])
def test_three_slices_through_the_middle(lazy: bool) -> None:
    ds = field(lazy)
    figure = vd.plot_slices(ds)
    c = ds.c.values
    for image, expected in zip(drawn(figure), (c[3], c[:, 4], c[:, :, 5]), strict=True):
        np.testing.assert_array_equal(image, expected)
    first = figure.axes[0]
    assert (first.get_xlabel(), first.get_ylabel(), first.get_title()) == ("x (µm)", "y (µm)", "z = 7 µm")
    assert first.images[0].get_extent() == [0, 5, 0, 8]
    assert first.get_aspect() == 1
    assert figure.axes[-1].get_ylabel() == "c (mol/l)"


def test_one_colour_scale() -> None:
    figure = vd.plot_slices(frames(3))
    limits = {ax.images[0].get_clim() for ax in figure.axes if ax.images}
    assert limits == {(min(a.min() for a in drawn(figure)), max(a.max() for a in drawn(figure)))}
    limits = {ax.images[0].get_clim() for ax in vd.plot_slices(field(), vmin=-1, vmax=5).axes if ax.images}
    assert limits == {(-1, 5)}


@pytest.mark.parametrize(("count", "times"), [(1, [0]), (3, [0, 0.5, 1]), (10, [0, 1.5, 3, 4.5])])
def test_up_to_four_frames_from_first_to_last(count: int, times: list[float]) -> None:
    figure = vd.plot_slices(frames(count))
    assert len(drawn(figure)) == 3 * len(times)
    titles = [ax.get_title().split("\n")[0] for ax in figure.axes[: len(times)]]
    assert titles == [f"t = {t:g} s" for t in times]


def test_frames_by_time_and_slices_by_position() -> None:
    ds = frames(5)
    figure = vd.plot_slices(ds, time=[0.6, 2.0], position={"z": 0.5, "x": 5.0})
    c = ds.c.values
    for image, expected in zip(
        drawn(figure), (c[1, 0], c[4, 0], c[1, :, 4], c[4, :, 4], c[1, :, :, 9], c[4, :, :, 9]), strict=True
    ):
        np.testing.assert_array_equal(image, expected)
    assert len(drawn(vd.plot_slices(ds, time=1.0))) == 3
    assert vd.plot_slices(ds.isel(time=2)).axes[0].get_title() == "t = 1 s\nz = 7 µm"


def test_an_area_is_drawn_whole() -> None:
    ds = vd.dataset({"c": np.eye(4, 6)}, spacing=0.5)
    figure = vd.plot_slices(ds)
    (image,) = drawn(figure)
    np.testing.assert_array_equal(image, np.eye(4, 6))
    assert figure.axes[0].get_xlabel() == "x"
    assert figure.axes[0].get_title() == ""


def test_storage_order_decides_which_axis_is_up() -> None:
    figure = vd.plot_slices(field().transpose("x", "y", "z"))
    assert [(ax.get_ylabel(), ax.get_xlabel()) for ax in figure.axes[:3]] == [
        ("y (µm)", "z (µm)"),
        ("x (µm)", "z (µm)"),
        ("x (µm)", "y (µm)"),
    ]


def test_only_the_slices_are_loaded() -> None:
    touched: list[int] = []

    def rows(block_info: Any = None) -> np.ndarray:
        lo, hi = block_info[None]["array-location"][0]
        touched.append(lo)
        return np.zeros((hi - lo, 8, 8), np.float32)

    meta = np.empty((0, 0, 0), np.float32)
    volume = da.map_blocks(rows, chunks=((1,) * 100, (8,), (8,)), dtype=np.float32, meta=meta)
    ds = vd.dataset({"c": volume})
    vd.plot_slices(ds.isel(y=slice(4)).isel(z=slice(40, 44)))
    assert sorted(set(touched)) == [40, 41, 42, 43]
    touched.clear()
    vd.plot_slices(ds)
    assert len(touched) == 100, "a chunk that several slices cross is read once"


def test_a_store_is_read_slice_by_slice(tmp_path: Path) -> None:
    frames(3).to_zarr(tmp_path / "run.zarr", zarr_format=3, consolidated=False)
    for chunks in ({}, None):
        with xr.open_zarr(tmp_path / "run.zarr", chunks=chunks, consolidated=False) as ds:
            assert len(drawn(ds.vd.plot_slices())) == 9


def test_nan_and_labels_are_drawn() -> None:
    ds = field()
    ds.c[3, 0, 0] = np.nan
    assert np.isfinite(vd.plot_slices(ds).axes[0].images[0].get_clim()).all()
    assert len(drawn(vd.plot_slices((field() > 100).astype(np.uint8)))) == 3
    assert len(drawn(vd.plot_slices(field() * np.nan))) == 3


def test_accessors() -> None:
    ds = field().assign(d=field().c + 1)
    for figure in (ds.vd.plot_slices("d"), ds.d.vd.plot_slices(), vd.plot_slices(ds, name="d")):
        np.testing.assert_array_equal(drawn(figure)[0], ds.d.values[3])
    assert ds.vd.report is None
    run = vd.simulate(vd.models.ReactionDiffusion(0.1), field(), dt=0.1, steps=2, progress=False)
    assert run.vd.report == vd.Report.of(run.attrs)


def test_a_notebook_shows_it(tmp_path: Path) -> None:
    figure = vd.plot_slices(field())
    assert figure._repr_png_().startswith(b"\x89PNG")
    figure.savefig(tmp_path / "slices.pdf")


def test_nothing_global_is_touched() -> None:
    code = "import sys, voxdask; assert 'matplotlib.pyplot' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: vd.plot_slices(np.zeros((3, 3))), "expected an xarray"),
        (lambda: vd.plot_slices(field().assign(d=field().c)), "'c', 'd'"),
        (lambda: vd.plot_slices(field(), name="u"), "name is 'u'"),
        (lambda: vd.plot_slices(field(), time=1.0), "no time dim"),
        (lambda: vd.plot_slices(frames(3), time=7.0), "between 0 and 1"),
        (lambda: vd.plot_slices(frames(3), time=[]), "between 0 and 1"),
        (lambda: vd.plot_slices(field(), position={"w": 1.0}), "dim 'w'"),
        (lambda: vd.plot_slices(field(), position={"x": 9.0}), "between 0 and 5"),
        (lambda: vd.plot_slices(field().isel(z=0, drop=True), position={"x": 1.0}), "drawn whole"),
        (lambda: vd.plot_slices(vd.dataset({"c": np.zeros(4)})), "two or three"),
        (lambda: vd.plot_slices(xr.DataArray(np.zeros((4, 4)), dims=("y", "x"))), "no coordinate"),
        (lambda: vd.plot_slices(vd.dataset({"c": np.zeros((2, 4, 4))}, dims=("phase", "y", "x"))), "phase"),
    ],
)
def test_what_does_not_fit_is_refused(call: Callable[[], Figure], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()
