"""Grids to and from xarray coordinates."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from voxdask.grid import Grid, dataset, per_dim


def axis_dataset(values: np.ndarray, **attrs: object) -> xr.Dataset:
    """A 1-D dataset with the given coordinate, as another program might have made it."""
    return xr.Dataset({"c": ("x", np.zeros(len(values)))}, coords={"x": ("x", values, attrs)})


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    ndim = draw(st.integers(1, 3))
    dims = tuple(draw(st.permutations(["z", "y", "x"])))[:ndim]
    per_axis = {"min_size": ndim, "max_size": ndim}
    spacing = draw(st.lists(st.floats(1e-9, 1e6), **per_axis))
    offsets = draw(st.lists(st.floats(-1e4, 1e4), **per_axis))
    return Grid(
        dims=dims,
        shape=tuple(draw(st.lists(st.integers(1, 12), **per_axis))),
        spacing=tuple(spacing),
        origin=tuple(h * offset for h, offset in zip(spacing, offsets, strict=True)),
        unit=draw(st.sampled_from([None, "um", "nm"])),
        node_centred=tuple(dim for dim in dims if draw(st.booleans())),
    )


@given(grid=grids())
@settings(max_examples=100, deadline=None)
def test_round_trip_is_exact(grid: Grid) -> None:
    ds = dataset(
        {"c": np.zeros(grid.shape, np.float32)},
        spacing=grid.spacing,
        origin=grid.origin,
        unit=grid.unit,
        dims=grid.dims,
        node_centred=grid.node_centred,
    )
    assert Grid.from_dataset(ds) == grid
    assert Grid.from_dataset(ds.c) == grid


@given(grid=grids())
@settings(max_examples=50, deadline=None)
def test_spacing_is_recovered_from_values_alone(grid: Grid) -> None:
    ds = dataset({"c": np.zeros(grid.shape)}, spacing=grid.spacing, origin=grid.origin, dims=grid.dims)
    for dim in grid.dims:
        if ds.sizes[dim] > 1:
            del ds[dim].attrs["spacing"]
    np.testing.assert_allclose(Grid.from_dataset(ds).spacing, grid.spacing, rtol=1e-9)


def test_default_coordinates_start_the_domain_at_zero() -> None:
    ds = dataset({"c": np.zeros((2, 3, 4))}, spacing=(1.0, 2.0, 3.0), unit="um", node_centred=("y",))
    assert ds.c.dims == ("z", "y", "x")
    assert ds.z.values.tolist() == [0.5, 1.5]
    assert ds.y.values.tolist() == [0.0, 2.0, 4.0]
    assert ds.x.values.tolist() == [1.5, 4.5, 7.5, 10.5]
    assert ds.x.dtype == np.float64
    assert ds.y.attrs == {"units": "um", "location": "node", "spacing": 2.0}
    assert ds.x.attrs == {"units": "um", "location": "cell", "spacing": 3.0}


@pytest.mark.parametrize(
    ("shape", "dims"), [((5,), ("x",)), ((4, 5), ("y", "x")), ((3, 4, 5), ("z", "y", "x"))]
)
def test_dims_default_to_the_last_of_zyx(shape: tuple[int, ...], dims: tuple[str, ...]) -> None:
    ds = dataset({"c": np.zeros(shape)})
    assert ds.c.dims == dims
    grid = Grid.from_dataset(ds)
    assert (grid.ndim, grid.size, grid.unit) == (len(shape), np.prod(shape), None)
    assert all("units" not in ds[dim].attrs for dim in dims)


def test_arrays_are_taken_as_they_are() -> None:
    memory = np.zeros((4, 4), np.uint8)

    def read(block: np.ndarray) -> np.ndarray:
        raise AssertionError("loaded")

    lazy = da.from_array(memory).map_blocks(read, dtype=memory.dtype, meta=memory[:0, :0])
    ds = dataset({"a": memory, "b": lazy})
    assert np.shares_memory(ds.a.data, memory)
    assert ds.b.data is lazy


def test_counted_dims_are_passed_over() -> None:
    ds = dataset({"phi": np.zeros((3, 4, 5))}, dims=("phase", "y", "x"), spacing=(2.0, 1.0))
    frames = ds.expand_dims(time=[0.0, 0.1, 5.0])
    for each in (ds, frames, frames.phi):
        grid = Grid.from_dataset(each)
        assert (grid.dims, grid.shape, grid.spacing) == (("y", "x"), (4, 5), (2.0, 1.0))


def test_dims_follow_the_storage_of_the_widest_field() -> None:
    ds = dataset({"c": np.zeros((2, 3, 4))}, dims=("x", "z", "y"))
    ds = ds.assign(area=ds.c.isel(x=0, drop=True))[["area", "c"]]
    assert Grid.from_dataset(ds).dims == ("x", "z", "y")


@pytest.mark.parametrize("origin", [0.0, 1000.0, -5.0])
def test_float32_coordinates_are_accepted(origin: float) -> None:
    ds = dataset({"c": np.zeros(2000)}, spacing=0.1, origin=origin)
    stored = ds.assign_coords(x=("x", ds.x.values.astype(np.float32), ds.x.attrs))
    assert Grid.from_dataset(stored).spacing == (0.1,)
    foreign = axis_dataset(stored.x.values)
    assert Grid.from_dataset(foreign).spacing == pytest.approx((0.1,), rel=1e-5)


def test_float32_coordinates_widened_by_others_are_accepted() -> None:
    values = (0.05 + 0.1 * np.arange(2000)).astype(np.float32).astype(np.float64)
    assert Grid.from_dataset(axis_dataset(values)).spacing == pytest.approx((0.1,), rel=1e-5)


def test_integer_coordinates_and_slices() -> None:
    assert Grid.from_dataset(axis_dataset(np.arange(5))).origin == (0.0,)
    ds = dataset({"c": np.zeros((4, 10))}, spacing=2.0)
    grid = Grid.from_dataset(ds.isel(y=[2], x=slice(3, 6)))
    assert (grid.shape, grid.spacing, grid.origin) == ((1, 3), (2.0, 2.0), (5.0, 7.0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0.0, 1.0, 2.5, 3.0]), "'x' is uneven.*interp"),
        (np.logspace(0, 1, 8), "'x' is uneven"),
        (np.array([3.0, 2.0, 1.0]), "'x' is not increasing.*sortby"),
        (np.array([1.0, 1.0]), "'x' is not increasing"),
        (np.array([0.0, np.nan, 2.0]), "'x' holds NaN"),
        (np.array(["a", "b"]), "'x' has dtype.*real numbers"),
        (np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]"), "'x' has dtype"),
        (np.array([1.0]), r"'x' has one sample.*attrs\['spacing'\]"),
        (np.array([], float), "'x' has length 0"),
    ],
)
def test_bad_coordinates_are_named(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid.from_dataset(axis_dataset(values))


def test_missing_coordinate_is_named() -> None:
    with pytest.raises(ValueError, match=r"'y' has no coordinate.*voxdask\.dataset"):
        Grid.from_dataset(dataset({"c": np.zeros((3, 3))}).drop_vars("y"))


@pytest.mark.parametrize(
    ("attrs", "message"),
    [
        ({"spacing": 2.0}, "spaced by 1, but its attribute spacing says 2"),
        ({"spacing": 1.00001}, "attribute spacing"),
        ({"spacing": 0.4}, "spaced by 1, but its attribute spacing says 0.4.*del ds"),
        ({"spacing": 0.0}, "attribute spacing is 0.0; it must be"),
        ({"spacing": "wide"}, "attribute spacing is 'wide'"),
        ({"location": "edge"}, "'cell' or 'node'"),
    ],
)
def test_bad_attributes_are_named(attrs: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Grid.from_dataset(axis_dataset(np.arange(4.0), **attrs))


@pytest.mark.parametrize("step", [2, 3])
def test_thinned_and_coarsened_axes_have_the_spacing_of_their_values(step: int) -> None:
    ds = dataset({"c": np.zeros((7, 60))}, spacing={"y": 1.0, "x": 0.1})
    thin = Grid.from_dataset(ds.isel(y=slice(None, None, step), x=slice(1, None, step)))
    assert thin.spacing == pytest.approx((step, 0.1 * step), rel=1e-15)
    assert thin.origin == pytest.approx((0.5, 0.15), rel=1e-12)
    coarse = Grid.from_dataset(ds.coarsen(x=step).mean())
    assert coarse.spacing == pytest.approx((1.0, 0.1 * step), rel=1e-15)
    assert coarse.origin == pytest.approx((0.5, 0.05 * step), rel=1e-12)


def test_the_spacing_of_numbered_voxels_is_not_passed_over() -> None:
    with pytest.raises(ValueError, match=r"spaced by 1, but its attribute spacing says 0\.5"):
        Grid.from_dataset(axis_dataset(np.arange(4), spacing=0.5))


def test_units_must_agree() -> None:
    ds = dataset({"c": np.zeros((3, 3))}, unit="um")
    ds.x.attrs["units"] = "mm"
    with pytest.raises(ValueError, match=r"different units .mm, um"):
        Grid.from_dataset(ds)


def test_too_many_axes() -> None:
    dims = tuple("abcd")
    ds = xr.Dataset({"field": (dims, np.zeros((2,) * 4))}, coords={dim: [0.0, 1.0] for dim in dims})
    with pytest.raises(ValueError, match="one, two or three axes"):
        Grid.from_dataset(ds)


@pytest.mark.parametrize(
    ("fields", "options", "message"),
    [
        ({}, {}, "fields is empty"),
        ({"a": np.zeros(3), "b": np.zeros(4)}, {}, r"share one shape, but have a \(3,\), b \(4,\)"),
        ({"a": np.zeros(())}, {}, "shape"),
        ({"a": np.zeros((2, 2, 2, 2))}, {}, r"shape \(2, 2, 2, 2\)"),
        ({"a": np.zeros((2, 2))}, {"dims": ("x",)}, "one name per axis"),
        ({"a": np.zeros((2, 2))}, {"dims": "yx"}, "one name per axis"),
        ({"a": np.zeros((2, 2))}, {"dims": ("x", "x")}, "distinct names"),
        ({"a": np.zeros((0, 2))}, {}, "'y' is 0"),
        ({"a": np.zeros((2, 2))}, {"spacing": 0.0}, "spacing along 'y' is 0.0"),
        ({"a": np.zeros((2, 2))}, {"spacing": (1.0, -1.0)}, "spacing along 'x' is -1.0"),
        ({"a": np.zeros((2, 2))}, {"spacing": np.inf}, "positive and finite"),
        ({"a": np.zeros((2, 2))}, {"spacing": np.nan}, "positive and finite"),
        ({"a": np.zeros((2, 2))}, {"spacing": (1.0, 1.0, 1.0)}, "one for each of y, x"),
        ({"a": np.zeros((2, 2))}, {"spacing": {"x": 1.0}}, "one entry for each of y, x"),
        ({"a": np.zeros((2, 2))}, {"spacing": "wide"}, "made of numbers"),
        ({"a": np.zeros((2, 2))}, {"origin": np.nan, "spacing": 1.0}, "origin along 'y'"),
        ({"a": np.zeros((2, 2))}, {"node_centred": ("z",)}, "'z' is not an axis.*y, x"),
    ],
)
def test_bad_arguments_are_named(
    fields: dict[str, np.ndarray], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataset(fields, **options)  # type: ignore[arg-type]


def test_labelled_field_is_refused() -> None:
    with pytest.raises(TypeError, match=r"'c' is an xarray object.*\.data"):
        dataset({"c": xr.DataArray(np.zeros(3))})


def test_grid_checks_itself() -> None:
    with pytest.raises(ValueError, match="one entry per axis"):
        Grid(("x",), (3, 4), (1.0,), (0.5,))


def test_axis_and_coordinate_name_the_known_dims() -> None:
    grid = Grid(("y", "x"), (2, 3), (1.0, 0.1), (0.0, 5.0))
    assert grid.axis("x") == 1
    assert grid.coordinate("x").tolist() == pytest.approx([5.0, 5.1, 5.2])
    for lookup in (grid.axis, grid.coordinate):
        with pytest.raises(ValueError, match=r"'z'.*y, x"):
            lookup("z")


def test_per_dim() -> None:
    assert per_dim(np.float32(2), ("y", "x"), "spacing") == (2.0, 2.0)
    assert per_dim(np.array([1, 2]), ("y", "x"), "spacing") == (1.0, 2.0)
    with pytest.raises(ValueError, match="voxel_size"):
        per_dim((1, 2, 3), ("y", "x"), "voxel_size")
