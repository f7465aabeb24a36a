"""The time loop: when it stops, what it keeps, what it says, and how it goes on."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from conftest import THICK, THIN, Tier, make_tier

import voxdask as vd
from voxdask.block import BlockFields
from voxdask.chunked import ChunkedFields
from voxdask.steppers import Target
from voxdask.store import RunStore
from voxdask.streamed import StreamedFields

MODEL = vd.models.ReactionDiffusion(0.4, source=lambda t, c, x: 0.1 * t)
BLOW_UP = vd.models.ReactionDiffusion(1.0, source=lambda t, c, x: 50 * c**3)
QUIET: dict[str, Any] = {"progress": False}


def make_ds(shape: tuple[int, ...] = (6, 5, 4), **options: Any) -> xr.Dataset:
    return vd.dataset({"c": np.random.default_rng(0).uniform(0.2, 0.8, shape)}, spacing=0.5, **options)


def test_times_of_frames(tier: Tier) -> None:
    ds = make_ds()
    every = tier.simulate(MODEL, ds, dt=0.1, steps=7, save_every=3)
    np.testing.assert_allclose(every.time, [0, 0.3, 0.6, 0.7])
    picked = tier.simulate(MODEL, ds, dt=0.1, t_end=0.7, save_at=[0.3, 0.6])
    np.testing.assert_allclose(picked.time, [0.3, 0.6, 0.7])
    ends = tier.simulate(MODEL, ds, dt=0.1, t_end=0.7)
    np.testing.assert_allclose(ends.time, [0, 0.7])
    np.testing.assert_array_equal(picked.c, every.c[1:])
    np.testing.assert_array_equal(ends.c, every.c[[0, -1]])
    np.testing.assert_array_equal(ends.c[0], ds.c)


def test_what_another_run_has_left_is_refused_before_fields_are_read(tmp_path: Path) -> None:
    ds, path = make_ds(), tmp_path / "run.zarr"
    vd.simulate(MODEL, ds, dt=0.1, steps=2, store=path, chunks=4, **QUIET)
    unread = ds.copy(data={"c": da.from_array(Unreadable(), chunks=(2, 5, 4))})
    for options in ({"dt": 0.2}, {"dt": 0.1, "boundary": "neumann"}):
        with pytest.raises(ValueError, match="made with other parameters"):
            vd.simulate(MODEL, unread, steps=2, store=path, **options, **QUIET)
    with pytest.raises(FileExistsError):
        vd.simulate(MODEL, unread, dt=0.1, steps=2, store=path, resume=False, **QUIET)
    with RunStore.open(path).lock(), pytest.raises(BlockingIOError):
        vd.simulate(MODEL, unread, dt=0.1, steps=2, store=path, **QUIET)


class Unreadable:
    """An array whose values may not be asked for."""

    shape, dtype, ndim = (6, 5, 4), np.dtype(float), 3

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("it was read")


def test_a_plan_is_for_the_chunks_of_a_store(tmp_path: Path) -> None:
    ds, path = make_ds((24, 5, 4)), tmp_path / "run.zarr"
    vd.simulate(MODEL, ds, dt=0.1, steps=1, store=path, chunks=5, **QUIET)
    plan = vd.plan(MODEL, ds, chunks=8, store=path, measure=False)
    assert (plan.chunk_rows, plan.slab_rows) == (5, 10)


def test_no_steps(tier: Tier) -> None:
    ds = make_ds()
    run = tier.simulate(MODEL, ds, dt=0.1, steps=0)
    assert run.sizes["time"] == 1
    np.testing.assert_array_equal(run.c[0], ds.c)


def test_a_frame_is_a_start(tier: Tier) -> None:
    """The scalar time of a frame is where the next run begins; two halves are one whole."""
    ds = make_ds()
    whole = tier.simulate(MODEL, ds, dt=0.1, steps=6, save_every=3)
    half = tier.simulate(MODEL, whole.isel(time=1), dt=0.1, t_end=0.6)
    np.testing.assert_allclose(half.time, [0.3, 0.6])
    np.testing.assert_allclose(half.c[-1], whole.c[-1], rtol=1e-14)


def test_callbacks_see_frames(tier: Tier) -> None:
    first: list[xr.Dataset] = []
    second: list[float] = []
    run = tier.simulate(
        MODEL, make_ds(), dt=0.1, steps=4, save_every=2,
        callbacks=(lambda frame: first.append(frame.load()), lambda frame: second.append(float(frame.time))),
    )  # fmt: skip
    assert second == run.time.values.tolist()
    for k, frame in enumerate(first):
        assert frame.c.dims == ("z", "y", "x")
        np.testing.assert_array_equal(frame.c, run.c[k])


def test_a_callback_may_stop_a_run(tmp_path: Path) -> None:
    def stop(frame: xr.Dataset) -> None:
        if frame.time > 0.15:
            raise KeyboardInterrupt

    path = tmp_path / "run.zarr"
    options: dict[str, Any] = {"dt": 0.1, "steps": 4, "save_every": 1, **QUIET}
    with pytest.raises(KeyboardInterrupt):
        vd.simulate(MODEL, make_ds(), store=path, callbacks=[stop], **options)
    assert xr.open_zarr(path).sizes["time"] == 3
    resumed = vd.simulate(MODEL, make_ds(), store=path, **options)
    np.testing.assert_array_equal(resumed.c, vd.simulate(MODEL, make_ds(), **options).c)


def test_progress_is_shown_if_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    vd.simulate(MODEL, make_ds(), dt=0.1, steps=3, progress=False)
    assert capfd.readouterr() == ("", "")
    vd.simulate(MODEL, make_ds(), dt=0.1, steps=3)
    out, err = capfd.readouterr()
    assert out == "" and "3/3" in err and "step" in err


def test_report(tier: Tier) -> None:
    ds = make_ds((16, 16, 16))
    run = tier.simulate(MODEL, ds, dt=0.1, steps=5)
    report = vd.Report.of(run.attrs)
    assert report is not None
    assert (report.voxels, report.steps) == (4096, 5)
    assert 0 < report.step_time <= report.wall_time < 60
    assert 0 < report.ns_per_voxel_step <= report.step_time / 4096 * 1e9
    assert report.peak_memory >= 0 and report.projected_memory > 0
    assert "5 steps of 4,096 voxels" in str(report)
    assert vd.Report.of({}) is None


def test_memory_measured_is_within_memory_projected(tmp_path: Path) -> None:
    ds = make_ds((64, 64, 64))
    for name in ("block", "spilled-thick"):
        tier = make_tier(name, tmp_path)
        tier.simulate(MODEL, ds, dt=0.1, steps=1)  # code and threads are there already
        report = vd.Report.of(tier.simulate(MODEL, ds, dt=0.1, steps=3).attrs)
        assert report is not None and report.peak_memory <= report.projected_memory


@pytest.mark.parametrize("stepper", ["imex", "rk4", "euler"])
def test_given_values_are_exact_at_nodes(stepper: str, tier: Tier) -> None:
    ds = make_ds(node_centred=("z", "x"))
    face = xr.DataArray(np.linspace(0.2, 0.8, 20).reshape(5, 4), dims=("y", "x"))
    boundary = {
        "z": vd.Dirichlet(lambda t: 0.1 + t, lambda t: (1 + t) * face),
        "x": (vd.Dirichlet(lambda t: 0.5 - t), "neumann"),
    }
    run = tier.simulate(MODEL, ds, dt=0.01, steps=3, save_every=1, stepper=stepper, boundary=boundary)
    for k, t in enumerate(run.time.values):
        frame = run.c[k]
        np.testing.assert_array_equal(frame.isel(z=0, x=slice(1, None)), 0.1 + t)
        np.testing.assert_array_equal(frame.isel(x=0, z=slice(1, -1)), 0.5 - t)
        inner = {"y": slice(None), "x": slice(1, None)}
        np.testing.assert_array_equal(frame.isel(z=-1, **inner), ((1 + t) * face).isel(inner))


def test_nan_ends_a_run(tier: Tier) -> None:
    ds = make_ds()
    message = r"became NaN or infinite (in|between) step"
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError, match=message):
        tier.simulate(BLOW_UP, ds, dt=0.1, steps=40)


@pytest.mark.parametrize("kind", ["block", "chunks", "spilled"])
def test_what_was_saved_before_a_nan_stays(kind: str, tmp_path: Path) -> None:
    ds, path = make_ds(), tmp_path / "run.zarr"
    options: dict[str, Any] = {"dt": 0.1, "steps": 40, "save_every": 1, "store": path, **QUIET}
    if kind == "chunks":
        options["chunks"] = 2
    if kind == "spilled":
        options["memory_limit"] = THIN
    with np.errstate(all="ignore"), pytest.raises(FloatingPointError) as caught:
        vd.simulate(BLOW_UP, ds, **options)
    saved = xr.open_zarr(path).load()
    assert np.isfinite(saved.c).all() and saved.sizes["time"] >= 2
    step = saved.sizes["time"]
    assert f"in step {step}, before time {0.1 * step:g}" in str(caught.value)
    assert "dt=0.1 may be too large" in str(caught.value) and "are kept" in str(caught.value)


@pytest.mark.parametrize(("kind", "stored"), [("block", False), ("block", True), ("spilled", True)])
def test_nan_that_a_frame_would_show_is_seen_as_it_is_saved(
    kind: str, stored: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No slot and no frame with it counts, each state is read once for that, and the run goes on from the last one."""
    ds, path, fields = make_ds((9, 5, 4)), tmp_path / "run.zarr", StreamedFields if kind == "spilled" else BlockFields
    options: dict[str, Any] = {"dt": 0.1, "steps": 6, "save_every": 2, **QUIET}
    expected = vd.simulate(MODEL, ds, **options)
    options |= {"store": path} if stored else {}
    options |= {"memory_limit": THICK} if kind == "spilled" else {}
    read, rows_of = list[tuple[int, int]](), fields.rows_of

    def spoiled(self: Any, state: Any, name: str, lo: int, hi: int) -> Any:
        rows = rows_of(self, state, name, lo, hi)
        read.append((lo, hi))
        if sum(hi - lo for lo, hi in read) > (2 if stored else 4) * 9:  # in the third frame
            rows = np.full_like(rows, np.inf)
        return rows

    monkeypatch.setattr(fields, "rows_of", spoiled)
    with pytest.raises(FloatingPointError, match=r"(in step|between steps 3 and) 4, before time 0.4; .* too large; "):
        vd.simulate(MODEL, ds, **options)
    if stored:
        assert sum(hi - lo for lo, hi in read) <= 3 * 9
        monkeypatch.setattr(fields, "rows_of", rows_of)
        np.testing.assert_array_equal(xr.open_zarr(path).time, expected.time[:2])
        run = vd.simulate(MODEL, ds, **options)
        assert vd.Report.of(run.attrs).steps == 4
        np.testing.assert_allclose(run.c, expected.c, rtol=1e-12)


def test_resume_extends(tier: Tier, tmp_path: Path) -> None:
    ds, path = make_ds(), tmp_path / "run.zarr"
    whole = tier.simulate(MODEL, ds, dt=0.1, steps=8, save_every=2)
    keys: dict[str, Any] = {"dt": 0.1, "save_every": 2, "store": path, **QUIET}
    if tier.name.startswith("chunks"):
        keys["chunks"] = int(tier.name[-1])
    elif tier.name.startswith("spilled"):
        keys["memory_limit"] = THIN
    elif tier.name.startswith("dask"):
        ds = ds.chunk(3)
    first = vd.simulate(MODEL, ds, t_end=0.4, **keys)
    assert first.sizes["time"] == 3 and vd.Report.of(first.attrs).steps == 4
    again = vd.simulate(MODEL, ds, t_end=0.4, **keys)  # nothing is left to do
    assert vd.Report.of(again.attrs).steps == 0
    np.testing.assert_array_equal(again.c, first.c)
    longer = vd.simulate(MODEL, ds, t_end=0.8, **keys)
    assert vd.Report.of(longer.attrs).steps == 4
    np.testing.assert_array_equal(longer.time, whole.time)
    np.testing.assert_array_equal(longer.c, whole.c)
    assert not list((path / ".state").glob("scratch/*"))


def test_a_run_may_go_on_in_another_tier(tmp_path: Path) -> None:
    ds, path = make_ds(), tmp_path / "run.zarr"
    expected = vd.simulate(MODEL, ds, dt=0.1, steps=6, save_every=1, **QUIET)
    keys: dict[str, Any] = {"dt": 0.1, "save_every": 1, "store": path, **QUIET}
    for steps, more in enumerate(
        [{"chunks": 4}, {}, {"memory_limit": THIN}, {"chunks": 1}, {}, {"chunks": 3}], start=1
    ):
        run = vd.simulate(MODEL, ds, steps=steps, **keys, **more)
        assert vd.Report.of(run.attrs).steps == 1
    np.testing.assert_allclose(run.c, expected.c, rtol=1e-12)


@pytest.mark.parametrize(
    ("first", "slabs"),
    [({"chunks": 1}, 3), ({"chunks": 2}, 3), ({"chunks": 3}, 3), ({"chunks": 13}, 1), ({"memory_limit": THIN}, 3)],
)
@pytest.mark.parametrize("stepper", ["imex", "sbdf2", "rk4"])
def test_slabs_of_a_run_that_goes_on_are_as_planned(
    first: dict[str, Any], slabs: int, stepper: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the chunks of its store, a slab is several of them; the bits are those of a run that was not ended."""
    ds, seen, begun = make_ds((13, 5, 4)), list[list[tuple[int, int]]](), ChunkedFields.__init__

    def shown(self: ChunkedFields, *arguments: Any) -> None:
        begun(self, *arguments)
        seen.append(self.slabs)

    monkeypatch.setattr(ChunkedFields, "__init__", shown)
    keys: dict[str, Any] = {"dt": 0.01, "save_every": 1, "stepper": stepper, **QUIET}
    vd.simulate(MODEL, ds, steps=2, store=tmp_path / "run.zarr", **first, **keys)
    run = vd.simulate(MODEL, ds, steps=5, store=tmp_path / "run.zarr", chunks=5, **keys)
    assert vd.Report.of(run.attrs).steps == 3 and len(seen[-1]) == slabs
    expected = vd.simulate(MODEL, ds, steps=5, store=tmp_path / "whole.zarr", chunks=5, **keys)
    if "chunks" in first:
        np.testing.assert_array_equal(run.c, expected.c)
    else:
        np.testing.assert_allclose(run.c, expected.c, rtol=1e-12)


@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("options", [{"chunks": 4}, {"memory_limit": THICK}, {"memory_limit": THIN}])
def test_a_run_that_goes_on_looks_at_its_fields_once(begun: bool, options: dict[str, Any], tmp_path: Path) -> None:
    """Whatever the chunks of its store, and whether that has a state; local runs read what they begin with again."""
    made = Counter[int]()

    def piece(block_info: Any = None) -> np.ndarray:
        made[block_info[None]["chunk-location"][0]] += 1
        return np.full(block_info[None]["chunk-shape"], 0.5)

    c = da.map_blocks(piece, chunks=((3, 3, 3, 3), (5,), (4,)), dtype=float, meta=np.empty((0, 0, 0)))
    ds, keys = vd.dataset({"c": c}), {"dt": 0.1, "store": tmp_path / "run.zarr", **QUIET}
    with contextlib.nullcontext() if begun else pytest.MonkeyPatch.context() as patch:
        if patch is not None:
            patch.setattr(RunStore, "commit", lambda *_, **__: 1 / 0)
        with contextlib.nullcontext() if begun else pytest.raises(ZeroDivisionError):
            vd.simulate(MODEL, ds, steps=1, chunks=2, **keys)
    made.clear()
    run = vd.simulate(MODEL, ds, steps=2, **options, **keys)
    assert vd.Report.of(run.attrs).steps == (1 if begun else 2)
    assert len(made) == 4 and set(made.values()) == {1 if begun or "chunks" in options else 2}


def test_the_store_opens_as_a_plain_dataset(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    ds = make_ds(unit="um").assign_attrs(sample="A1")
    ds.c.attrs["units"] = "mol"
    run = vd.simulate(MODEL, ds, dt=0.1, steps=2, store=path, **QUIET)
    opened = xr.open_zarr(path)
    np.testing.assert_array_equal(opened.c, run.c)
    assert opened.c.attrs["units"] == "mol" and opened.attrs["sample"] == "A1" and opened.x.attrs["units"] == "um"
    assert "ReactionDiffusion" in opened.attrs["model"] and opened.attrs["made_by"].startswith("voxdask ")
    assert opened.attrs["dt"] == 0.1 and json.loads(opened.attrs["parameters"]) == {"diffusivity": 0.4}


def test_resume_false_refuses(tmp_path: Path) -> None:
    ds, path = make_ds(), tmp_path / "run.zarr"
    vd.simulate(MODEL, ds, dt=0.1, steps=1, store=path, **QUIET)
    with pytest.raises(FileExistsError, match="resume=False; use another path"):
        vd.simulate(MODEL, ds, dt=0.1, steps=2, store=path, resume=False, **QUIET)
    assert xr.open_zarr(path).sizes["time"] == 2


FACE = xr.DataArray(np.zeros((5, 4)), dims=("y", "x"))
COEFFICIENT = xr.DataArray(np.full((6, 5, 4), 0.4), dims=("z", "y", "x"))
CHANGES: dict[str, tuple[Callable[[xr.Dataset], xr.Dataset], Any, dict[str, Any], str]] = {
    "parameter": (lambda ds: ds, vd.models.ReactionDiffusion(0.5, MODEL.source), {}, "parameters"),
    "source": (lambda ds: ds, vd.models.ReactionDiffusion(0.4, lambda t, c, x: 0.2 * t), {}, "equation"),
    "field": (lambda ds: ds, vd.models.ReactionDiffusion(COEFFICIENT, MODEL.source), {}, "parameters"),
    "model": (lambda ds: ds, vd.models.CahnHilliard(), {}, "model"),
    "boundary": (lambda ds: ds, MODEL, {"boundary": {"y": "neumann"}}, "boundary"),
    "face": (lambda ds: ds, MODEL, {"boundary": {"z": (vd.Dirichlet(FACE + 1), "neumann")}}, "boundary"),
    "function": (lambda ds: ds, MODEL, {"boundary": {"z": (vd.Dirichlet(lambda t: t), "neumann")}}, "boundary"),
    "dt": (lambda ds: ds, MODEL, {"dt": 0.2}, "dt"),
    "stepper": (lambda ds: ds, MODEL, {"stepper": "euler"}, "stepper"),
    "options": (lambda ds: ds, MODEL, {"stepper": vd.steppers.IMEX("stencil")}, "stepper"),
    "start": (lambda ds: ds + 1e-9, MODEL, {}, "checksum of the fields at the start"),
    "start time": (lambda ds: ds.assign_coords(time=1.0), MODEL, {}, "start_time"),
    "dtype": (lambda ds: ds.astype("float32"), MODEL, {}, "dtype"),
    "spacing": (lambda ds: vd.dataset({"c": ds.c.values}, spacing=0.25), MODEL, {}, "grid"),
    "shape": (lambda ds: ds.isel(x=slice(2)), MODEL, {}, "grid"),
    "nodes": (lambda ds: ds.assign_coords(x=ds.x.assign_attrs(location="node")), MODEL, {}, "grid"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_of_something_else_is_refused(change: str, tmp_path: Path) -> None:
    alter, model, options, named = CHANGES[change]
    ds, path = make_ds(), tmp_path / "run.zarr"
    boundary = {"z": (vd.Dirichlet(FACE), "neumann")} if change == "face" else "periodic"
    if change == "function":
        boundary = {"z": (vd.Dirichlet(lambda t: 2 * t), "neumann")}
    vd.simulate(MODEL, ds, dt=0.1, steps=2, store=path, boundary=boundary, **QUIET)
    before = xr.open_zarr(path).load()
    with pytest.raises(ValueError, match="a run that was made with other parameters") as caught:
        vd.simulate(model, alter(ds), store=path, **{"dt": 0.1, "steps": 4, "boundary": boundary, **options, **QUIET})
    assert f"'{named}'" in str(caught.value)
    assert "Give the stored ones to resume it, or another path" in str(caught.value)
    xr.testing.assert_identical(xr.open_zarr(path).load(), before)


def test_frames_that_a_run_has_passed_are_missed_aloud(tmp_path: Path) -> None:
    path, ds = tmp_path / "run.zarr", make_ds()
    vd.simulate(MODEL, ds, dt=0.1, steps=4, store=path, **QUIET)
    with pytest.warns(UserWarning, match=r"at time 0\.4 already and has no frames at 0\.2; .* another store") as warned:
        run = vd.simulate(MODEL, ds, dt=0.1, steps=6, save_at=[0.2, 0.5], store=path, **QUIET)
    assert warned[0].filename == __file__
    assert np.allclose(run.time, [0, 0.4, 0.5, 0.6])


def test_fewer_steps_than_there_are(tmp_path: Path) -> None:
    ds, path = make_ds(), tmp_path / "run.zarr"
    vd.simulate(MODEL, ds, dt=0.1, steps=4, store=path, **QUIET)
    with pytest.raises(ValueError, match="is at step 4 already, beyond the 2 asked for"):
        vd.simulate(MODEL, ds, dt=0.1, steps=2, store=path, **QUIET)


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    ds, path = make_ds(), tmp_path / "run.zarr"
    vd.simulate(MODEL, ds, dt=0.1, steps=1, store=path, **QUIET)
    with RunStore.open(path).lock(), pytest.raises(BlockingIOError, match="Another process or thread writes this run"):
        vd.simulate(MODEL, ds, dt=0.1, steps=2, store=path, **QUIET)
    assert vd.simulate(MODEL, ds, dt=0.1, steps=2, store=path, **QUIET).sizes["time"] == 3


def test_a_user_stepper(tier: Tier) -> None:
    """A stepper is ten lines against two operations, and runs on every tier."""

    class Heun:
        order, registers, spectra, history = 2, 3, 0, 0

        def step(self, fields: Any, t: float, dt: float, u: Any) -> Any:
            base = ((u, 1.0),)
            v, total = fields.advance(t, u, Target(base, dt), Target(base, dt / 2), end=t + dt)
            return fields.advance(t + dt, v, Target(((total, 1.0),), dt / 2, into=total), end=t + dt)

        def __repr__(self) -> str:
            return "Heun()"

    ds = make_ds()
    run = tier.simulate(MODEL, ds, dt=0.01, steps=3, stepper=Heun())
    u = ds
    for k in range(3):
        one = MODEL.right_hand_side(u, time=0.01 * k)
        two = MODEL.right_hand_side(u + 0.01 * one, time=0.01 * (k + 1))
        u = u + 0.005 * (one + two)
    np.testing.assert_allclose(run.c[-1], u.c, rtol=1e-12)
