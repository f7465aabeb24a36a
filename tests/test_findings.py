"""What was once found broken, and by whom it would be missed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import sympy as sp
import xarray as xr
from conftest import THICK, THIN

import voxdask as vd
from voxdask import backend
from voxdask.models.factors import called

QUIET: dict[str, Any] = {"progress": False, "stepper": "euler"}
MODEL = vd.models.ReactionDiffusion(0.05)


def make(shape: tuple[int, ...] = (6, 7, 5), **attrs: Any) -> xr.Dataset:
    ds = vd.dataset({"c": np.random.default_rng(3).random(shape)})
    ds.c.attrs.update(attrs)
    return ds


def linearised(state: float, times: float = 1.0) -> vd.Model:
    """A model whose stiff part is taken elsewhere, or as so many times stiffer; not a parameter of it."""

    @dataclass(frozen=True)
    class Linearised(vd.Model):
        fields = ("c",)
        stiffness = times

        def rhs(self, t: Any, c: Any) -> Any:
            return vd.div((1 + c**2) * vd.grad(c))

        def reference(self) -> dict[str, float]:
            return {"c": state}

    return Linearised()


@dataclass(frozen=True)
class Curvature(vd.Model):
    """The gradient vanishes in every uniform state, and is divided by."""

    fields = ("c",)

    def rhs(self, t: Any, c: Any) -> Any:
        g = vd.grad(c)
        return vd.div(g / vd.norm(g))


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
    with pytest.raises(ValueError, match="give a path on a disk, a local one or one that all workers"):
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


# --- found when the models and steppers of the paper were new ------------------------------------------------------


@pytest.mark.parametrize("save_every", [1, 2, 3])
def test_memory_is_foreseen_for_steps_that_follow_a_saved_state(
    save_every: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of SBDF2, which goes on from two states at rest; the window is as small as two threads have it."""
    monkeypatch.setattr(backend, "cpu_count", lambda: 2)
    ds = vd.dataset({"c": np.random.default_rng(0).uniform(0.4, 0.6, (23, 97, 65))})
    options: dict[str, Any] = {"dt": 0.02, "steps": 5, "stepper": "sbdf2", "save_every": save_every, "progress": False}
    options["boundary"] = {"z": (vd.Dirichlet(0.4), "neumann")}
    run = vd.simulate(vd.models.CahnHilliard(), ds, memory_limit=28_390_467, store=tmp_path / "run.zarr", **options)
    assert run.vd.report.tier == "spilled"
    np.testing.assert_allclose(run.c, vd.simulate(vd.models.CahnHilliard(), ds, **options).c, rtol=0, atol=1e-12)


@pytest.mark.parametrize("thin", [True, False], ids=["thin", "thick"])
@pytest.mark.parametrize("stepper", ["sbdf2", "etdrk4"])
def test_a_spilled_stepper_keeps_its_spectra(stepper: str, thin: bool, tmp_path: Path) -> None:
    """A spectrum that is saved for the next stage was read before it was there."""
    ds = make()
    options: dict[str, Any] = {"dt": 0.1, "steps": 3, "stepper": stepper, "boundary": {"x": "neumann"}}
    limit = THIN if thin else THICK
    block = vd.simulate(MODEL, ds, progress=False, **options)
    run = vd.simulate(MODEL, ds, memory_limit=limit, store=tmp_path / "a.zarr", progress=False, **options)
    assert run.vd.report.tier == "spilled"
    np.testing.assert_allclose(run.c, block.c, rtol=1e-12)


def test_a_function_returns_a_finite_real_number() -> None:
    """The derivative of c * nan is zero in symbols, so such an energy drove nothing."""
    for value in (sp.nan, sp.oo, sp.I):
        with pytest.raises(ValueError, match=r"density returned .*, which is no finite real number"):
            called("density", lambda c, factor: c * factor if factor != sp.oo else factor, vd.x, value)
    with pytest.raises(ValueError, match="density returned nan"):
        _ = vd.models.from_free_energy(lambda c, grad_c: c * float("nan")).equation


def test_a_field_of_coefficients_is_not_negative() -> None:
    field = make().c - 5
    for model, name in (("ReactionDiffusion", "diffusivity"), ("GrayScott", "feed"), ("CahnHilliard", "eps")):
        with pytest.raises(ValueError, match=f"{name} holds -[0-9.]+; no value may be negative"):
            getattr(vd.models, model)(**{name: field})
    vd.models.ReactionDiffusion(field * 0)


def test_an_interface_is_no_wider_than_the_image() -> None:
    """Ghost layers for it would fill any memory."""
    image = vd.dataset({"image": np.eye(5)}).image > 0
    for method in ("distance", "diffusion"):
        with pytest.raises(ValueError, match=r"width is 1000.0, more than the image measures \(5\)"):
            vd.indicator(image, width=1e3, method=method)


def test_labels_are_whole_numbers() -> None:
    labels = xr.DataArray([0, 0, 1, 2], dims="x", coords={"x": range(4)})
    for phases in ([0.5, 1.2, 2.0], "012", 3):
        with pytest.raises(TypeError, match=r"phases is .*; give a sequence of labels"):
            vd.phases_from_labels(labels, phases=phases)  # type: ignore[arg-type]


def test_what_all_phases_share_keeps_their_sum() -> None:
    labels = xr.DataArray([7, 7, 0, 0], dims="x", coords={"x": range(4)})
    ds = vd.phases_from_labels(labels).to_dataset()
    model = vd.models.MultiPhaseAllenCahn
    for ends in ("dirichlet", vd.Dirichlet(1.0), vd.Neumann(0.1)):
        with pytest.raises(ValueError, match="whose sum must stay 1; use 'neumann' or 'periodic'"):
            vd.simulate(model(), ds, dt=0.1, steps=1, boundary=ends, progress=False)
    energies = xr.DataArray([1.0, 2.0], dims="phase", coords={"phase": [7, 0]})
    with pytest.raises(ValueError, match=r"'bulk_energies' is given for phase \[7, 0\], the dataset holds \[0, 7\]"):
        vd.simulate(model(bulk_energies=energies), ds, dt=0.1, steps=1, progress=False)


def test_a_series_is_short_and_of_numbers() -> None:
    with pytest.raises(ValueError, match="coefficients holds 200 numbers; more than 20"):
        vd.models.legendre([0.1] * 200)
    for wrong in (["a"], [1j], [None]):
        with pytest.raises(TypeError, match=r"coefficients is .*; give a sequence of numbers"):
            vd.models.exp_legendre(wrong)  # type: ignore[arg-type]


def test_a_run_does_not_go_on_with_another_stiff_part_or_boundary(tmp_path: Path) -> None:
    def at(time: float) -> vd.Dirichlet:
        return vd.Dirichlet(lambda t: 0.0 if t < time else 1.0)

    def run(name: str, steps: int, model: vd.Model, end: Any = "neumann") -> xr.Dataset:
        options: dict[str, Any] = {"dt": 0.01, "boundary": {"y": end}, "store": tmp_path / name, "progress": False}
        return vd.simulate(model, make(), steps=steps, **options)

    first = linearised(0.0)
    run("stiff", 2, first)
    for other in (linearised(3.0), linearised(0.0, 2.0)):
        with pytest.raises(ValueError, match="stiff_part"):
            run("stiff", 4, other)
    assert vd.Report.of(run("stiff", 4, linearised(0.0)).attrs).steps == 2
    run("ends", 2, first, at(20.0))
    with pytest.raises(ValueError, match="boundary"):
        run("ends", 4, first, at(50.0))
    assert vd.Report.of(run("ends", 4, first, at(20.0)).attrs).steps == 2


def test_explicit_steps_need_no_uniform_state() -> None:
    """A cone is as curved as a circle: its level sets at a distance r move at 1 / r."""
    y, x = np.mgrid[:24, :24] - 11.5
    c = np.hypot(y, x)
    run = vd.simulate(Curvature(), vd.dataset({"c": c}), dt=1e-3, steps=1, boundary="neumann", **QUIET)
    rate, away = (run.c[-1].values - c) / 1e-3, (c > 6) & (c < 10)
    np.testing.assert_allclose(rate[away], 1 / c[away], rtol=0.02)
    with pytest.raises(ValueError, match="singular in the uniform state"):
        vd.simulate(Curvature(), vd.dataset({"c": c}), dt=1e-3, steps=1, progress=False)


def test_of_two_that_make_a_run_one_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other has made it after the last look, in the moment of the renaming."""
    rename, path = os.rename, tmp_path / "run.zarr"

    def late(source: Any, target: Any) -> None:
        monkeypatch.setattr(os, "rename", rename)
        vd.simulate(MODEL, make(), dt=0.1, steps=1, store=path, **QUIET)
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(FileExistsError, match="Another process has just made a run here"):
        vd.simulate(MODEL, make(), dt=0.1, steps=1, store=path, **QUIET)
    assert os.listdir(tmp_path) == ["run.zarr"]
    assert xr.open_zarr(path).sizes["time"] == 2
