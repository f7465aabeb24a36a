"""On a cluster: the same field as the block, by processes and by threads, several of which share a slab."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from conftest import THIN, connected
from distributed import Client

import voxdask as vd

SHAPE = (12, 7, 6)
QUIET: dict[str, Any] = {"progress": False}


@dataclass(frozen=True)
class Exchange(vd.Model):
    """Two fields and an auxiliary one, of a module that workers import by value or not at all."""

    rate: float = 0.7

    fields = ("a", "b")
    auxiliary = ("w",)

    def rhs(self, t: Any, a: Any, b: Any, w: Any) -> Any:
        return vd.div(w * vd.grad(a)) - self.rate * a * b, 0.5 * vd.laplace(b) + self.rate * a * b


@pytest.fixture(scope="module", params=["processes", "threads"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    processes = request.param == "processes"
    with connected(threads=1 if processes else 3, processes=processes) as client:
        yield client


def make_ds(dtype: str = "float64") -> xr.Dataset:
    names = ("a", "b", "c", "w")
    fields = {n: np.random.default_rng(k).uniform(0.2, 0.8, SHAPE).astype(dtype) for k, n in enumerate(names)}
    return vd.dataset(fields, spacing=0.5, node_centred=("y",))


FACE = xr.DataArray(np.linspace(0.3, 0.6, 42).reshape(7, 6), dims=("y", "x"))
MIXES: dict[str, Any] = {
    "periodic": "periodic",
    "mixed": {"z": (vd.Dirichlet(FACE), "neumann"), "y": vd.Dirichlet(0.4), "x": vd.Neumann(0.1)},
}


def compare(model: Any, ds: xr.Dataset, tolerance: float, chunks: Any = 5, **options: Any) -> None:
    block = vd.simulate(model, ds, **options, **QUIET)
    given = {"chunks": chunks} if isinstance(chunks, int) else {}
    run = vd.simulate(model, ds if given else ds.chunk(chunks), **options, **given, **QUIET)
    assert vd.Report.of(run.attrs).tier == "chunked"
    for name, field in block.items():
        assert isinstance(run[name].data, da.Array) and run[name].dtype == field.dtype
        assert float(np.abs(run[name] - field).max() / np.abs(field).max()) <= tolerance


@pytest.mark.parametrize(("stepper", "mix"), [("imex", "mixed"), ("rk4", "periodic"), ("etdrk4", "mixed")])
def test_equals_the_block(client: Client, stepper: str, mix: str) -> None:
    dt = 2e-4 if stepper == "rk4" else 0.1
    options: dict[str, Any] = {"dt": dt, "steps": 3, "stepper": stepper, "boundary": MIXES[mix]}
    compare(vd.models.CahnHilliard(eps=1.5), make_ds(), 1e-12, **options)
    compare(Exchange(), make_ds(), 1e-12, {"z": 3, "x": 4}, **options)


@pytest.mark.parametrize("stepper", ["euler", "rkc1", "rkc2", "etd1", "sbdf2", "tsit5", "adaptiveimex"])
def test_every_other_stepper_equals_the_block(client: Client, stepper: str) -> None:
    adaptive = stepper in ("tsit5", "adaptiveimex")
    options: dict[str, Any] = {"t_end": 2e-3} if adaptive else {"dt": 2e-4, "steps": 3}
    options |= {"stepper": stepper, "boundary": MIXES["mixed"]}
    compare(vd.models.CahnHilliard(eps=1.5), make_ds(), 1e-12, **options)


def test_float32(client: Client) -> None:
    compare(vd.models.CahnHilliard(eps=1.5), make_ds("float32"), 1e-5, dt=0.1, steps=10, save_every=4)


@pytest.mark.parametrize("rows", [1, 12])
def test_any_chunks(client: Client, rows: int) -> None:
    """Thinner than the halo, and one for all."""
    compare(vd.models.CahnHilliard(eps=1.5), make_ds(), 1e-12, rows, dt=0.1, steps=2)


def test_each_worker_has_a_slab(client: Client) -> None:
    """However many threads it has: they share it."""
    plan = vd.plan(vd.models.CahnHilliard(eps=1.5), make_ds().chunk(z=5), measure=False)
    assert plan.tier == "chunked" and plan.workers == 2 and plan.chunk_rows == SHAPE[0] // 2
    assert plan.threads == sum(client.nthreads().values()) == 2 * plan.slab_threads


def test_lazy_right_hand_side(client: Client) -> None:
    model, ds = vd.models.CahnHilliard(eps=1.5), make_ds()
    lazy = model.right_hand_side(ds.chunk(z=5), boundary=MIXES["mixed"])
    np.testing.assert_allclose(lazy.c, model.right_hand_side(ds, boundary=MIXES["mixed"]).c, rtol=1e-12, atol=1e-12)


def test_a_store_and_resume(client: Client, tmp_path: Path) -> None:
    model, ds = vd.models.CahnHilliard(eps=1.5), make_ds()
    options: dict[str, Any] = {"dt": 0.1, "save_every": 2, "boundary": MIXES["mixed"], **QUIET}
    expected = vd.simulate(model, ds, steps=6, **options)
    first = vd.simulate(model, ds.chunk(z=5), steps=3, store=tmp_path / "run.zarr", **options)
    np.testing.assert_allclose(first.time, [0, 0.2, 0.3])
    run = vd.simulate(model, ds.chunk(z=4), steps=6, store=tmp_path / "run.zarr", **options)
    assert vd.Report.of(run.attrs).steps == 3 and vd.Report.of(run.attrs).tier == "chunked"
    np.testing.assert_allclose(run.time, [0, 0.2, 0.3, 0.4, 0.6])
    for time in (0.2, 0.4, 0.6):
        there = expected.c.sel(time=time, method="nearest")
        np.testing.assert_allclose(run.c.sel(time=time, method="nearest"), there, rtol=1e-12)


@pytest.mark.parametrize("stepper", ["imex", "etdrk4"])
def test_the_scheduler_forgets_the_steps(client: Client, stepper: str, tmp_path: Path) -> None:
    """The lineage is cut at every checkpoint; nothing is left after the run."""
    ds = make_ds()

    def tasks(dask_scheduler: Any) -> int:
        return len(dask_scheduler.tasks)

    counts: list[int] = []
    vd.simulate(
        vd.models.CahnHilliard(), ds, dt=0.1, steps=10, save_every=1, chunks=4, store=tmp_path / "run.zarr",
        stepper=stepper, callbacks=[lambda frame: counts.append(client.run_on_scheduler(tasks))], **QUIET,
    )  # fmt: skip
    assert len(counts) == 11
    # a look may fall before the last ones are dropped, but a lineage that is kept shows in every look
    assert min(counts[5:]) <= np.median(counts[:5]) + 3


def test_a_bad_start_says_where(client: Client) -> None:
    ds = make_ds()
    ds.c[7, 3, 2] = np.nan
    with pytest.raises(ValueError, match=r"the field 'c' holds nan at index \(7, 3, 2\)"):
        vd.simulate(vd.models.CahnHilliard(), ds, dt=0.1, steps=1, chunks=3, **QUIET)


def test_nan_ends_a_run(client: Client) -> None:
    model = vd.models.ReactionDiffusion(1.0, source=lambda t, c, x: 50 * c**3)
    with pytest.raises(FloatingPointError, match=r"became NaN or infinite between steps \d+ and \d+"):
        vd.simulate(model, make_ds(), dt=0.1, steps=40, chunks=4, **QUIET)


def test_memory_of_the_cluster_counts(client: Client) -> None:
    def memory(dask_scheduler: Any) -> int:
        return sum(worker.memory_limit for worker in dask_scheduler.workers.values())

    plan = vd.plan(vd.models.CahnHilliard(), make_ds(), chunks=4)
    assert plan.tier == "chunked" and plan.threads == sum(client.nthreads().values())
    assert plan.memory_limit <= 0.6 * client.run_on_scheduler(memory) + 1
    assert vd.plan(vd.models.CahnHilliard(), make_ds()).tier == "block"


def test_persisted_arrays_in_a_store_and_spilled(client: Client, tmp_path: Path) -> None:
    """Their values are on the workers alone."""
    ds = make_ds()[["c", "w"]]
    model = vd.models.ReactionDiffusion(diffusivity=ds.w.chunk(z=5).persist())
    options: dict[str, Any] = {"dt": 0.1, "steps": 2, **QUIET}
    expected = vd.simulate(vd.models.ReactionDiffusion(diffusivity=ds.w), ds[["c"]], **options)
    given = ds[["c"]].chunk(z=5).persist()
    run = vd.simulate(model, given, store=tmp_path / "chunked.zarr", **options)
    assert run.vd.report.workers == 2 and "projected on 2 workers" in str(run.vd.report)
    np.testing.assert_allclose(run.c, expected.c, rtol=1e-12)
    thin = vd.simulate(model, given, store=tmp_path / "spilled.zarr", memory_limit=THIN, **options)
    assert thin.vd.report.tier == "spilled" and thin.vd.report.workers == 0
    np.testing.assert_allclose(thin.c, expected.c, rtol=1e-12)


def test_what_is_too_large_for_a_cluster_runs_here(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """However little memory the workers have; nobody has asked for a limit."""
    monkeypatch.setattr(importlib.import_module("voxdask.simulate"), "cluster_memory", lambda client: 1)
    plan = vd.plan(vd.models.CahnHilliard(), make_ds(), chunks=4, measure=False)
    assert plan.tier == "block" and plan.memory_limit > 1e6


def test_large_arrays_in_memory_are_no_part_of_a_graph(client: Client) -> None:
    """Distributed warns of graphs beyond 10 MB, and it is right."""
    ds = vd.dataset({"c": np.full((128, 128, 128), 0.5)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = vd.simulate(vd.models.ReactionDiffusion(0.1), ds, dt=0.1, steps=1, chunks=32, **QUIET)
        assert float(run.c[-1].max()) == pytest.approx(0.5)
