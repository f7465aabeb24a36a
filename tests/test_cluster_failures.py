"""What a cluster of processes may do to a run: workers die, do not see the store, and a scheduler remembers."""

from __future__ import annotations

import genericpath
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from conftest import connected
from distributed import Client

import voxdask as vd
from voxdask import chunked_runner
from voxdask.chunked_runner import ChunkedRunner
from voxdask.equation import equation_of
from voxdask.evaluate import problem_of
from voxdask.planning import plan_in_memory
from voxdask.prepare import prepare

MODEL = vd.models.CahnHilliard(eps=1.5)
QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture
def mortal() -> Iterator[Client]:
    """A cluster of its own: a nanny does not start a worker again that is killed while it is still starting."""
    with connected() as client:
        yield client


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A cluster whose workers nobody kills."""
    with connected() as client:
        yield client


def make_ds() -> xr.Dataset:
    c = np.random.default_rng(3).uniform(0.2, 0.8, (12, 10, 8))
    return vd.dataset({"c": c}, spacing=0.5)


@pytest.mark.parametrize("stepper", ["sbdf2", "tsit5"])
def test_a_run_survives_dead_workers_bit_for_bit(mortal: Client, stepper: str, tmp_path: Path) -> None:
    """Both workers are killed, one while there is nothing to do, one while steps are taken."""
    options: dict[str, Any] = {"chunks": 6, "stepper": stepper, "boundary": {"y": "neumann"}, **QUIET}
    if stepper == "tsit5":
        options |= {"t_end": 0.01, "save_at": np.linspace(0, 0.01, 8)}
    else:
        options |= {"dt": 0.1, "steps": 21, "save_every": 3}
    undisturbed = vd.simulate(MODEL, make_ds(), store=tmp_path / "undisturbed.zarr", **options).load()
    first, second = mortal.run(os.getpid).values()
    frames, timers = 0, list[threading.Timer]()

    def disturb(frame: xr.Dataset) -> None:
        nonlocal frames
        frames += 1
        if frames == 3:
            os.kill(first, signal.SIGKILL)
        if frames == 6:
            timers.append(threading.Timer(0.05, os.kill, (second, signal.SIGKILL)))
            timers[0].start()

    run = vd.simulate(MODEL, make_ds(), store=tmp_path / "run.zarr", callbacks=[disturb], **options).load()
    timers[0].join()
    assert frames == 8 and vd.Report.of(run.attrs).tier == "chunked"
    np.testing.assert_array_equal(run.time, undisturbed.time)
    assert run.c.values.tobytes() == undisturbed.c.values.tobytes()


def test_what_workers_were_sent_survives_them(mortal: Client, tmp_path: Path) -> None:
    """A coefficient in memory, in slabs of which most are on one worker alone; both are killed in turn."""
    rng = np.random.default_rng(3)
    fields = {"c": rng.uniform(0.2, 0.8, (16, 6, 5)), "psi": rng.uniform(0.3, 1.0, (16, 6, 5))}
    model, ds = vd.models.SmoothedBoundaryDiffusion(0.8), vd.dataset(fields, spacing=0.5)
    options: dict[str, Any] = {"dt": 0.01, "steps": 12, "save_every": 2, "chunks": 2, **QUIET}
    undisturbed, frames = vd.simulate(model, ds, store=tmp_path / "undisturbed.zarr", **options).load(), 0
    first, second = mortal.run(os.getpid).values()

    def disturb(frame: xr.Dataset) -> None:
        nonlocal frames
        frames += 1
        if frames in (2, 4):
            os.kill(first if frames == 2 else second, signal.SIGKILL)

    run = vd.simulate(model, ds, store=tmp_path / "run.zarr", callbacks=[disturb], **options).load()
    assert frames == 7 and run.c.values.tobytes() == undisturbed.c.values.tobytes()
    assert not list(tmp_path.rglob("constant_*"))


def test_without_a_store_dead_workers_end_a_run_and_the_message_says_what_helps(mortal: Client) -> None:
    pids = mortal.run(os.getpid).values()

    def disturb(frame: xr.Dataset) -> None:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(RuntimeError, match=r"workers of the cluster died.*store=PATH"):
        vd.simulate(MODEL, make_ds(), dt=0.1, steps=30, save_every=15, chunks=6, callbacks=[disturb], **QUIET)
    mortal.wait_for_workers(2, timeout=120)
    run = vd.simulate(MODEL, make_ds(), dt=0.1, steps=2, chunks=6, **QUIET)
    assert np.isfinite(run.c[-1].values).all()  # the cluster is as good as before


def tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


@pytest.mark.parametrize("case", ["a store", "memory", "frames in memory"])
def test_a_scheduler_holds_few_tasks(
    client: Client, case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After every two steps of a run of more than a thousand tasks, some twenty in each step."""
    most, batch = 50, 2
    monkeypatch.setattr(chunked_runner, "_MOST_TASKS", most)
    monkeypatch.setattr(chunked_runner, "_MOST_BATCHES", 1)
    monkeypatch.setattr(ChunkedRunner, "batch", batch)
    steps, counts, made = ChunkedRunner.steps, list[int](), list[int]()

    def counted(self: ChunkedRunner, *arguments: Any) -> None:
        before = self.fields.tasks
        steps(self, *arguments)
        made.append(self.fields.tasks - before)
        counts.append(client.run_on_scheduler(tasks))

    monkeypatch.setattr(ChunkedRunner, "steps", counted)
    options: dict[str, Any] = {"store": tmp_path / "run.zarr"} if case == "a store" else {}
    frames = 30 if case == "frames in memory" else 1
    run = vd.simulate(MODEL, make_ds(), dt=0.1, steps=60, save_every=60 // frames, chunks=6, **options, **QUIET)
    assert run.sizes["time"] == frames + 1 and sum(made) > 1000
    # two chunks for every frame; what was given up a moment ago may still be there
    assert max(counts[len(counts) // 2 :]) <= 3 * (most + max(made)) + 2 * frames


@pytest.mark.parametrize(
    ("made", "of_batch", "due"), [(5000, 10, False), (5001, 10, True), (9999, 2500, False), (10001, 2500, True)]
)
def test_a_run_is_due_to_be_cut_after_so_many_tasks_or_batches(made: int, of_batch: int, due: bool) -> None:
    prepared = prepare(equation_of(MODEL), make_ds(), "periodic")
    plan = plan_in_memory(problem_of(prepared), memory_limit=1 << 30, threads=2, workers=2, chunked=True, chunk_rows=6)
    runner = ChunkedRunner(prepared, plan)
    runner.fields.tasks, runner._tasks_of_batch = made, of_batch
    assert runner.due == due


def blind(yes: bool) -> None:
    """Have this process see no file, or see them again."""
    os.path.exists = (lambda path: False) if yes else genericpath.exists


@pytest.mark.parametrize("begun", [False, True])
def test_a_store_that_a_worker_does_not_see(client: Client, begun: bool, tmp_path: Path) -> None:
    """Before the first step of a run, and of one that goes on; once all see it, it does."""
    options: dict[str, Any] = {"dt": 0.1, "chunks": 6, "save_every": 2, "store": tmp_path / "run.zarr", **QUIET}
    if begun:
        vd.simulate(MODEL, make_ds(), steps=2, **options)
    worker = next(iter(client.nthreads()))
    client.run(blind, True, workers=[worker])
    try:
        with pytest.raises(
            ValueError, match=r"run\.zarr' is not seen by 1 of 2 workers .* a disk that all of them share"
        ):
            vd.simulate(MODEL, make_ds(), steps=4, **options)
    finally:
        client.run(blind, False, workers=[worker])
    assert not [path for path in tmp_path.rglob("*") if "seen" in path.name]
    run = vd.simulate(MODEL, make_ds(), steps=4, **options)
    assert vd.Report.of(run.attrs).steps == (2 if begun else 4)
    np.testing.assert_array_equal(run.c, vd.simulate(MODEL, make_ds(), dt=0.1, steps=4, save_every=2, **QUIET).c)
