"""What was once found broken, and by whom it would be missed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr

import voxdask as vd

QUIET: dict[str, Any] = {"progress": False, "stepper": "euler"}
MODEL = vd.models.ReactionDiffusion(0.05)


def make(shape: tuple[int, ...] = (6, 7, 5), **attrs: Any) -> xr.Dataset:
    ds = vd.dataset({"c": np.random.default_rng(3).random(shape)})
    ds.c.attrs.update(attrs)
    return ds


@dataclass(frozen=True)
class Blowup(vd.Model):
    fields = ("c",)

    def rhs(self, t: Any, c: Any) -> Any:
        return c**2


def test_one_bad_voxel_stops_a_run_on_threads() -> None:
    c = np.zeros((64, 64, 64), np.float32)
    c[1, 2, 3] = 1e30
    ds = vd.dataset({"c": c})
    for _ in range(10):
        with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match=r"in step 1, .*give store=PATH"):
            vd.simulate(Blowup(), ds, dt=1.0, steps=1, **QUIET)


def test_a_change_is_taken_by_the_names_of_its_dims() -> None:
    ds, change = make(), make((6, 7, 5)) * 2
    expected = MODEL.tangent(ds, change)
    for apply in (MODEL.tangent, MODEL.adjoint):
        turned = apply(ds, change.transpose("x", "z", "y"))
        np.testing.assert_allclose(turned.c, expected.c, rtol=1e-12, atol=1e-15)  # linear and symmetric
    with pytest.raises(ValueError, match="the change has no field 'c'"):
        MODEL.tangent(ds, change.rename(c="d"))
    with pytest.raises(ValueError, match="'sensitivity of c' has sizes"):
        MODEL.adjoint(ds, change.isel(x=slice(2)))


def test_a_lazy_coefficient_is_computed_a_few_times_at_most() -> None:
    calls = []

    def block(block_info: Any = None) -> np.ndarray:
        calls.append(1)
        return np.full((4, 4), 0.1)

    lazy = da.map_blocks(block, chunks=((4, 4), (4,)), dtype=float, meta=np.empty((0, 0)))
    ds = vd.dataset({"c": np.ones((8, 4))}).assign(D=(("y", "x"), lazy))
    vd.simulate(vd.models.ReactionDiffusion(ds.D), ds[["c"]], dt=0.1, steps=40, chunks=4, **QUIET)
    assert len(calls) <= 8  # two blocks: their extremes, and the run


def test_images_cut_differently_have_different_names(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(60.0).reshape(6, 5, 2))
    a, b = (vd.open_image(tmp_path / "a.npy", chunks=n).image for n in (2, 3))
    assert float(abs(a - b).max()) == 0


def test_the_boundary_grammar_weighs_an_integral() -> None:
    ds = vd.dataset({"c": np.full(9, 0.5)}, node_centred=("x",))
    model = vd.models.CahnHilliard()
    periodic = [model.free_energy(ds, boundary=b) for b in ("periodic", {}, {"x": ("periodic", "periodic")})]
    assert len({float(energy) for energy in periodic}) == 1
    assert float(model.free_energy(ds, boundary="neumann") / periodic[0]) == pytest.approx(8 / 9)


@pytest.mark.parametrize(
    "attrs",
    [{"scale_factor": 2.0}, {"add_offset": 1.0}, {"dtype": "bool"}, {"_FillValue": 0.0},
     {"units": "days since 2000-01-01"}, {"missing_value": 0.5}],
    ids=lambda attrs: next(iter(attrs)),
)  # fmt: skip
def test_attributes_do_not_decode_what_is_stored(tmp_path: Path, attrs: dict[str, Any]) -> None:
    kept = vd.simulate(MODEL, make(), dt=0.1, steps=2, **QUIET)
    run = vd.simulate(MODEL, make(**attrs), dt=0.1, steps=2, store=tmp_path / "a.zarr", **QUIET)
    np.testing.assert_array_equal(run.c, kept.c)


def test_a_big_endian_field_keeps_its_precision() -> None:
    ds = make()
    swapped = vd.dataset({"c": ds.c.values.astype(">f8")})
    run = vd.simulate(MODEL, swapped, dt=0.1, steps=2, **QUIET)
    np.testing.assert_array_equal(run.c, vd.simulate(MODEL, ds, dt=0.1, steps=2, **QUIET).c)


def test_a_callback_may_change_its_frame() -> None:
    def spoil(frame: xr.Dataset) -> None:
        frame.c.values[...] = 7

    run = vd.simulate(MODEL, make(), dt=0.1, steps=2, save_every=1, callbacks=[spoil], **QUIET)
    assert float(run.c.max()) < 1


def test_times_that_cannot_be_told_apart() -> None:
    with pytest.raises(ValueError, match="dt is 1e-17, too small to be told apart"):
        vd.simulate(MODEL, make().assign_coords(time=1.0), dt=1e-17, steps=3, **QUIET)
    with pytest.raises(ValueError, match="'time' of the dataset is nan"):
        vd.simulate(MODEL, make().assign_coords(time=np.nan), dt=0.1, steps=3, **QUIET)


def test_an_empty_chunk_of_a_frame_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    vd.simulate(MODEL, make(), dt=0.1, steps=2, store=path, **QUIET)
    next((path / "c").glob("c.1.*")).write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="missing or empty"):
        vd.simulate(MODEL, make(), dt=0.1, steps=4, store=path, **QUIET)


@pytest.mark.parametrize("store", ["", b"x", 5, "s3://bucket/run.zarr"])
def test_a_store_is_a_path(store: Any) -> None:
    with pytest.raises(ValueError, match="give a path on a local disk"):
        vd.simulate(MODEL, make(), dt=0.1, steps=2, store=store, **QUIET)


def test_a_parameter_is_finite() -> None:
    @dataclass(frozen=True)
    class Growth(vd.Model):
        rate: float = 1.0
        fields = ("c",)

        def rhs(self, t: Any, c: Any) -> Any:
            return self.rate * c

    with pytest.raises(ValueError, match="rate is nan; a parameter must be finite"):
        vd.simulate(Growth(rate=float("nan")), make(), dt=0.1, steps=2, **QUIET)


def test_numbers_of_rows_may_be_numpy_integers() -> None:
    a = vd.simulate(MODEL, make(), dt=0.1, steps=2, chunks=np.int64(2), **QUIET)
    b = vd.simulate(vd.models.CahnHilliard(), make(), dt=0.001, steps=2, chunks=1, progress=False)
    assert a.c.chunks[1] == (2, 2, 2) and b.c.chunks[1] == (1,) * 6
    with pytest.raises(TypeError, match="chunks is True"):
        vd.simulate(MODEL, make(), dt=0.1, steps=2, chunks=True, **QUIET)
    assert dask.is_dask_collection(a.c)
