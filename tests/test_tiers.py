"""One body for all tiers: block, chunks, Dask arrays and spilled agree with each other and with NumPy."""

from __future__ import annotations

import itertools
import time as clock
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import reference
import xarray as xr
from conftest import THICK, THIN, Tier, make_tier
from hypothesis import given, settings
from hypothesis import strategies as st

import voxdask as vd
from voxdask import backend, planning, problem, slabs, tiles
from voxdask.inputs import reader
from voxdask.plans import Plan

SHAPE = (7, 6, 5)
DIMS = ("z", "y", "x")
START = 0.5  # time at the start


def smooth(shape: tuple[int, ...], seed: int, low: float = 0.25, high: float = 0.75) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape)


def make_ds(shape: tuple[int, ...] = SHAPE, dtype: str = "float64", nodes: tuple[str, ...] = ()) -> xr.Dataset:
    names = ("a", "b", "c", "w")
    fields = {name: smooth(shape, seed).astype(dtype) for seed, name in enumerate(names)}
    spacing = (0.5, 0.75, 1.0)[-len(shape) :]
    nodes = tuple(dim for dim in nodes if dim in DIMS[-len(shape) :])
    return vd.dataset(fields, spacing=spacing, unit="um", node_centred=nodes).assign_coords(time=START)


def like(ds: xr.Dataset, seed: int, **drop: int) -> xr.DataArray:
    """Values on the grid of a dataset, or on a face of it."""
    grid = ds.c.isel(drop, drop=True).drop_vars("time")
    return grid.copy(data=smooth(grid.shape, seed))


@dataclass(frozen=True)
class Exchange(vd.Model):
    """Two fields that react where an auxiliary one lets them."""

    rate: float = 0.7

    fields = ("a", "b")
    auxiliary = ("w",)

    def rhs(self, t: Any, a: Any, b: Any, w: Any) -> Any:
        return vd.div(w * vd.grad(a)) - self.rate * a * b, 0.5 * vd.laplace(b) + self.rate * a * b - w * b


def reaction(D: Any) -> vd.Model:
    return vd.models.ReactionDiffusion(D, source=lambda t, c, x: t * c * (1 - c) + 0.1 * x.x)


MODELS = {
    "cahn-hilliard": lambda ds: vd.models.CahnHilliard(eps=1.5),
    "number": lambda ds: reaction(0.4),
    "field": lambda ds: reaction(like(ds, 7)),
    "function": lambda ds: vd.models.ReactionDiffusion(lambda c: 0.3 + c**2),
    "exchange": lambda ds: Exchange(),
}


def value(t: float) -> float:
    return 0.3 + 0.2 * t


MIXES = {
    "periodic": lambda ds: "periodic",
    "zero flux": lambda ds: "neumann",
    "dirichlet": lambda ds: vd.Dirichlet(0.3, 0.6),
    "flux": lambda ds: vd.Neumann(0.2, -0.1),
    "mixed": lambda ds: {"z": ("neumann", vd.Dirichlet(value)), "x": (vd.Dirichlet(0.4), vd.Neumann(0.1))},
    "faces": lambda ds: {
        "z": vd.Dirichlet(like(ds, 8, z=0), 0.5),
        "y": vd.Neumann(0.0, like(ds, 9, y=0).transpose("x", "z")),
        "x": vd.Dirichlet(lambda t: t * like(ds, 5, x=0), value),
    },
    "two of three": lambda ds: {"z": "dirichlet", "y": "neumann"},
    "first only": lambda ds: {"y": (vd.Dirichlet(0.5), "neumann"), "x": "neumann"},
}
NODES: list[tuple[str, ...]] = [(), DIMS, ("z",), ("y", "x")]
STEPPERS = {"imex": 0.2, "rk4": 0.002, "euler": 0.002}


def agree(result: xr.Dataset, expected: xr.Dataset) -> None:
    """To 1e-12 in float64, 1e-5 in float32, relative to the largest value; labels exactly."""
    assert list(result.data_vars) == list(expected.data_vars)
    for name, field in expected.items():
        tolerance = 1e-5 if field.dtype == np.float32 else 1e-12
        assert result[name].dims == field.dims and result[name].dtype == field.dtype
        assert result[name].attrs == field.attrs
        error = np.abs(result[name].values - field.values).max() / np.abs(field.values).max()
        assert error <= tolerance, f"{name}: {error:.2e}"
    for name, coordinate in expected.coords.items():
        xr.testing.assert_identical(result.coords[name], coordinate)


def moved(run: xr.Dataset) -> bool:
    return all(np.abs(run[name][-1] - run[name][0]).max() > 1e-6 for name in run)


# every mix with every kind of axes; models, steppers, dtypes and shapes in turn
CASES = [
    (mix, nodes, model, stepper, dtype)
    for (mix, nodes), model, (stepper, dtype) in zip(
        itertools.product(MIXES, NODES),
        itertools.cycle(MODELS),
        itertools.cycle([("imex", "float64"), ("imex", "float64"), ("rk4", "float64"), ("imex", "float32"),
                         ("euler", "float64"), ("imex", "float64"), ("rk4", "float64")]),
        strict=False,
    )
]  # fmt: skip


@pytest.mark.parametrize(("mix", "nodes", "model", "stepper", "dtype"), CASES)
def test_tiers_agree(
    mix: str, nodes: tuple[str, ...], model: str, stepper: str, dtype: str, tmp_path: Path
) -> None:
    ds = make_ds(SHAPE, dtype, nodes)
    options: dict[str, Any] = {
        "dt": STEPPERS[stepper] * (0.01 if model == "cahn-hilliard" and stepper != "imex" else 1),
        "steps": 3,
        "save_every": 2,
        "stepper": stepper,
        "boundary": MIXES[mix](ds),
    }
    names = ("block", "chunks-3", "dask-2", "spilled", "spilled-thick", "spilled-deep")
    block, *others = (make_tier(name, tmp_path) for name in names)
    expected = block.simulate(MODELS[model](ds), ds, **options)
    assert moved(expected) and expected.sizes["time"] == 3
    for tier in others:
        agree(tier.simulate(MODELS[model](ds), ds, **options), expected)


@pytest.mark.parametrize("stepper", ["imex", "rk4", "etdrk4", "tsit5"])
def test_threads_that_share_a_slab_change_nothing(
    stepper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ds = make_ds((11, 6, 5), nodes=("z",))
    end: dict[str, Any] = {"t_end": START + 1e-3} if stepper == "tsit5" else {"dt": 1e-3, "steps": 3}
    options = {"stepper": stepper, "boundary": {"z": vd.Dirichlet(0.4), "x": "neumann"}, **end}
    runs, asked, pool = [], list[int](), slabs._pool
    monkeypatch.setattr(slabs, "_pool", lambda threads: (asked.append(threads), pool(threads))[1])
    for threads in (1, 3):
        assert not asked
        monkeypatch.setattr(Plan, "slab_threads", threads)
        runs.append(make_tier("chunks-7", tmp_path).simulate(Exchange(), ds, **options))
    xr.testing.assert_identical(runs[0].drop_attrs(), runs[1].drop_attrs())
    assert set(asked) == {3}


@pytest.fixture(params=["thick", "thin"])
def tiles_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Tiles of grids of this size; and those of large ones: row by row, long lines beside their columns."""
    if request.param == "thin":
        monkeypatch.setattr(tiles, "MOST_LINES", 0)
        monkeypatch.setattr(tiles, "LEAST_LINES", 0)
        monkeypatch.setattr(planning, "TILE_BYTES", 1)
        monkeypatch.setattr(problem, "TILE_BYTES", 1)
    return str(request.param)


@pytest.mark.parametrize("size", [39, 40])
def test_spectra_that_are_kept_of_a_halved_first_axis(tiles_of: str, size: int, tmp_path: Path) -> None:
    ds = make_ds((size, 6, 5))[["c"]]
    boundary = {"y": "neumann", "x": "dirichlet"}
    options: dict[str, Any] = {"dt": 0.1, "steps": 2, "stepper": "etdrk4", "boundary": boundary}
    block, *others = (make_tier(name, tmp_path) for name in ("block", "spilled", "spilled-thick"))
    expected = block.simulate(vd.models.CahnHilliard(eps=1.5), ds, **options)
    for tier in others:  # such a spectrum is complex, and longer than the real one
        agree(tier.simulate(vd.models.CahnHilliard(eps=1.5), ds, **options), expected)


@pytest.mark.parametrize("nodes", NODES[:3])
@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("model", ["cahn-hilliard", "field"])
def test_block_equals_numpy(tiles_of: str, model: str, mix: str, nodes: tuple[str, ...]) -> None:
    ds = make_ds(SHAPE, "float64", nodes)
    boundary = MIXES[mix](ds)
    axes = reference.axes_of(ds, boundary)
    laplace = reference.laplace_matrix(SHAPE, axes)
    if model == "field":
        D, x = like(ds, 7).values, ds.x.values
        rate = reference.reaction_diffusion(axes, D, lambda t, c: t * c * (1 - c) + 0.1 * x)
        stiff = D.max() * laplace
    else:
        rate = reference.cahn_hilliard(axes, 1.5, 1.0)
        stiff = -2 * 1.5 / 4 * laplace @ laplace
    methods: dict[Any, Any] = {
        vd.steppers.IMEX(wavenumbers="stencil"): (0.2, reference.imex(rate, stiff, axes)),
        "rk4": (0.001, reference.rk4(rate, axes)),
        "euler": (0.001, reference.euler(rate, axes)),
    }
    for stepper, (dt, step) in methods.items():
        u = reference.hold(ds.c.values, axes, START)
        frames = [u]
        for k in range(3):
            u = step(START + k * dt, dt, u)
            frames.append(u)
        run = vd.simulate(
            MODELS[model](ds), ds, dt=dt, steps=3, stepper=stepper, boundary=boundary, save_every=1, progress=False
        )
        np.testing.assert_allclose(run.c.values, frames, rtol=0, atol=1e-11 * np.abs(frames).max())


@st.composite
def geometries(draw: Any) -> tuple[xr.Dataset, Any]:
    """A dataset of any odd shape and a boundary mix that fits it."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    dims = DIMS[-len(shape) :]
    nodes = tuple(dim for dim, n in zip(dims, shape, strict=True) if n >= 3 and draw(st.booleans()))
    ends = ["neumann", "dirichlet", vd.Dirichlet(value, 0.2), vd.Neumann(0.1, -0.2)]
    conditions = ["periodic", *ends, *itertools.product(ends, ends)]
    boundary = {dim: draw(st.sampled_from(conditions)) for dim in dims}
    return make_ds(shape, "float64", nodes), boundary


@settings(max_examples=30)
@given(geometries(), st.integers(1, 10), st.lists(st.integers(1, 9), min_size=3, max_size=3))
def test_any_shape_and_chunking(geometry: tuple[xr.Dataset, Any], rows: int, grid: list[int]) -> None:
    ds, boundary = geometry
    options: dict[str, Any] = {"dt": 0.1, "steps": 2, "boundary": boundary, "progress": False}
    model = vd.models.ReactionDiffusion(0.4, source=lambda t, c, x: 0.1 * t + 0.1 * x.x)
    expected = vd.simulate(model, ds, **options)
    assert expected.c.isnull().sum() == 0
    chunked = ds.chunk(dict(zip(ds.c.dims, grid, strict=False)))
    agree(vd.simulate(model, ds, chunks=rows, **options), expected)
    agree(vd.simulate(model, chunked, **options), expected)
    agree(model.right_hand_side(chunked, boundary=boundary), model.right_hand_side(ds, boundary=boundary))


@pytest.mark.parametrize("model", ["cahn-hilliard", "field", "exchange"])
@pytest.mark.parametrize("mix", MIXES)
def test_lazy_right_hand_side(model: str, mix: str) -> None:
    ds = make_ds()
    boundary = MIXES[mix](ds)
    expected = MODELS[model](ds).right_hand_side(ds, boundary=boundary, time=1.5)
    for sizes in ({"z": 2}, {"z": 3, "y": 2, "x": 4}, {}):
        lazy = MODELS[model](ds).right_hand_side(ds.chunk(sizes), boundary=boundary, time=1.5)
        assert all(isinstance(field.data, da.Array) for field in lazy.values())
        agree(lazy, expected)


def test_nothing_is_computed_before_it_is_asked_for() -> None:
    def fail(block: np.ndarray) -> np.ndarray:
        raise RuntimeError("computed")

    c = da.zeros((8, 8), chunks=4).map_blocks(fail, dtype=float, meta=np.empty((0, 0)))
    lazy = vd.models.CahnHilliard().right_hand_side(vd.dataset({"c": c}))
    with pytest.raises(RuntimeError, match="computed"):
        lazy.c.compute()


@pytest.mark.parametrize("mix", MIXES)
def test_the_order_of_dims_is_storage_only(mix: str) -> None:
    ds = make_ds()
    options: dict[str, Any] = {"dt": 0.1, "steps": 2, "progress": False, "boundary": MIXES[mix](ds)}
    expected = vd.simulate(MODELS["cahn-hilliard"](ds), ds, **options)
    turned = ds.transpose("x", "z", "y")
    result = vd.simulate(MODELS["cahn-hilliard"](ds), turned, **options)
    assert result.c.dims == ("time", "x", "z", "y")
    np.testing.assert_allclose(result.c.transpose(*expected.c.dims), expected.c, rtol=0, atol=1e-12)


def test_labels_are_kept(tier: Tier) -> None:
    ds = make_ds()[["c"]].assign_attrs(title="electrode")
    ds.c.attrs = {"units": "mol", "long_name": "concentration"}
    ds.z.attrs["note"] = "kept"
    run = tier.simulate(vd.models.CahnHilliard(), ds, dt=0.1, steps=1)
    assert run.c.dims == ("time", *DIMS) and run.c.attrs == ds.c.attrs
    for dim in DIMS:
        np.testing.assert_array_equal(run[dim], ds[dim])
        assert run[dim].attrs["units"] == "um" and run[dim].attrs["spacing"] == ds[dim].attrs["spacing"]
    np.testing.assert_array_equal(run.time, [START, START + 0.1])
    rate = vd.models.CahnHilliard().right_hand_side(ds)
    assert rate.c.dims == ds.c.dims and rate.z.attrs == ds.z.attrs


@pytest.mark.parametrize(
    ("given_dtype", "dtype"),
    [("float32", "float32"), ("float64", "float64"), ("int16", "float32"), ("uint8", "float32"), ("bool", "float32")],
)
def test_dtypes(given_dtype: str, dtype: str, tier: Tier) -> None:
    ds = vd.dataset({"c": (smooth(SHAPE, 0) > 0.5).astype(given_dtype)})
    before = ds.copy(deep=True)
    run = tier.simulate(vd.models.ReactionDiffusion(0.1), ds, dt=0.1, steps=1)
    assert run.c.dtype == dtype
    np.testing.assert_array_equal(run.c[0], ds.c)
    xr.testing.assert_identical(ds, before)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_arrays_of_the_caller_are_not_touched(stepper: str, tier: Tier) -> None:
    ds = make_ds(nodes=("y",))
    coefficient = like(ds, 7)
    before, kept = ds.copy(deep=True), coefficient.copy(deep=True)
    for field in (*ds.values(), coefficient):
        field.values.flags.writeable = False
    options: dict[str, Any] = {"dt": 1e-3, "steps": 2, "stepper": stepper, "boundary": vd.Dirichlet(0.4)}
    for model in (vd.models.ReactionDiffusion(coefficient), Exchange()):
        run = tier.simulate(model, ds, **options)
        for field in run.values():
            field.values[...] = 0  # the result is the caller's own
    xr.testing.assert_identical(ds, before)
    xr.testing.assert_identical(coefficient, kept)


def test_parameters_of_any_storage(tier: Tier) -> None:
    ds = make_ds()
    coefficient = like(ds, 7)
    options: dict[str, Any] = {"dt": 0.05, "steps": 2, "boundary": {"y": "neumann"}}
    expected = vd.simulate(reaction(coefficient), ds, progress=False, **options)
    for other in (
        coefficient.transpose("x", "z", "y"),
        coefficient.chunk(x=2, z=3),
        coefficient.astype("float32").astype("float64") * 0 + coefficient,
        coefficient.drop_vars(DIMS),
        xr.DataArray(np.asfortranarray(coefficient.values), dims=DIMS),
    ):
        # a lazy coefficient makes the block a chunked run, and that is all
        if other.chunks and tier.name == "block":
            continue
        agree(tier.simulate(reaction(other), ds, **options), expected)


def test_a_strided_field(tier: Tier) -> None:
    big = smooth((14, 12, 10), 0)
    options: dict[str, Any] = {"dt": 0.05, "steps": 2}
    for array in (big[::2, ::2, ::2], np.asfortranarray(big[::2, ::2, ::2]), big[::-2, 1::2, ::2][::-1]):
        expected = vd.simulate(reaction(0.3), vd.dataset({"c": array.copy("C")}), progress=False, **options)
        agree(tier.simulate(reaction(0.3), vd.dataset({"c": array}), **options), expected)


@pytest.mark.parametrize(("threads", "limit"), [(1, THIN), (2, THIN), (2, THICK), (4, THICK)])
@pytest.mark.parametrize("size", [1, 7, 40])
def test_every_chunk_of_a_lazy_field_is_computed_once(
    threads: int, size: int, limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once for a look at the start and once to take it, whatever slabs and threads there are."""
    monkeypatch.setattr(backend, "cpu_count", lambda: threads)
    made = Counter[Any]()

    def lazy(name: str) -> da.Array:
        def piece(block_info: Any = None) -> np.ndarray:
            made[name, block_info[None]["chunk-location"][0]] += 1
            clock.sleep(2e-3)
            return np.full(block_info[None]["chunk-shape"], 0.5)

        rows = tuple(min(size, 40 - lo) for lo in range(0, 40, size))
        return da.map_blocks(piece, chunks=(rows, (3,), (2,)), dtype=float, meta=np.empty((0, 0, 0)))

    ds = vd.dataset({"A": lazy("A"), "B": lazy("B")})
    run = vd.simulate(
        vd.models.GrayScott(), ds, dt=0.1, steps=1, memory_limit=limit, store=tmp_path / "run.zarr", progress=False
    )
    assert vd.Report.of(run.attrs).tier == "spilled"
    assert len(made) == 2 * -(-40 // size) and set(made.values()) == {2}


@pytest.mark.parametrize(("room", "computed"), [(8, 7), (9, 4)])
def test_chunks_are_kept_as_long_as_there_is_room(room: int, computed: int) -> None:
    """Two threads that read of two chunks each in turn: of one chunk that is kept the next takes the place."""
    made = list[int]()

    def piece(block: np.ndarray, block_info: Any = None) -> np.ndarray:
        made.append(block_info[None]["chunk-location"][0])
        return block

    array = da.arange(16, chunks=4).map_blocks(piece, dtype=int, meta=np.empty(0, int))
    read = reader(array, room * 4 * array.dtype.itemsize)
    for lo in (0, 6, 2, 4, 8, 12, 14, 10):
        np.testing.assert_array_equal(read(lo, lo + 2), [lo, lo + 1])
    assert len(made) == computed


def test_an_empty_chunk_of_a_lazy_field_computes_no_other() -> None:
    made = list[int]()

    def piece(block_info: Any = None) -> np.ndarray:
        made.append(block_info[None]["chunk-location"][0])
        return np.full(block_info[None]["chunk-shape"], 0.5)

    array = da.map_blocks(piece, chunks=((3, 0, 5, 1),), dtype=float, meta=np.empty(0))
    read = reader(array, 1 << 20)
    assert [len(read(lo, lo + 3)) for lo in (0, 3, 6)] == [3, 3, 3]
    assert made == [0, 2, 3]
