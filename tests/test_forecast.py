"""What is foreseen of a step: seconds by hand from rates made up, bytes as they are counted in a run."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import xarray as xr

import voxdask as vd
from voxdask import forecast as forecasting
from voxdask import trial
from voxdask.chunkfiles import ChunkFiles
from voxdask.costs import Rates, sweep_seconds
from voxdask.equation import equation_of
from voxdask.forecast import forecast
from voxdask.planning import plan_in_memory
from voxdask.plans import Plan
from voxdask.problem import Problem
from voxdask.rehearsal import routes
from voxdask.spilling import Route, Transform
from voxdask.steppers import ETDRK4, AdaptiveIMEX
from voxdask.system import Operators
from voxdask.windows import Chain, Link, Use

NOTHING = Rates(evaluate=0, around=0, forward=0, finish=0, add=0, through=0, moved=0, turn=0, file=0)

#: 60 rows of 8 x 10 voxels in float32, one field, halo 2; a spectrum has 8 columns of 6 modes.
PROBLEM = Problem((60, 8, 10), 4, 1, 0, 1, 2, 1, 1, 8, 6 * 8)


def semi_implicit(problem: Problem) -> Route:
    """The end of a step and the beginning of the next in one sweep, and one transform."""
    state, spectra = problem.stream_width("state"), problem.stream_width("spectra")
    links = (Link((Use(0), Use(1)), (2,), "finish"), Link((Use(2, problem.halo),), (3,), "forward"))
    chain = Chain(links, frozenset([2, 3]), (spectra, state, state, spectra))
    return Route(1, 1, (chain,), (chain,), (Transform(1, 1, 1),), 1, 1)


def plan_of(tier: str, threads: int, chunk_rows: int = 15) -> Plan:
    options: dict[str, Any] = {"chunked": tier == "chunked", "chunk_rows": chunk_rows}
    made = plan_in_memory(PROBLEM, memory_limit=1 << 40, threads=threads, **options)
    assert made.tier == tier
    return replace(made, rows=5)


@pytest.mark.parametrize(
    ("rate", "seconds"),
    [
        ("evaluate", 60 * 1e-3),  # every row
        ("around", 12 * 1e-3),  # every tile of five rows
        ("finish", 60 * 1e-3),
        ("through", 8 * 1e-3),  # every column
        ("forward", 0),  # was measured as a part of an evaluation
        ("add", 0),  # there are no sums
        ("moved", 0),  # memory is not storage
    ],
)
@pytest.mark.parametrize("threads", [1, 3])
def test_seconds_of_a_block(rate: str, seconds: float, threads: int) -> None:
    rates = replace(NOTHING, **{rate: 1e-3})
    plan = forecast(plan_of("block", threads), (semi_implicit(PROBLEM),), rates)
    assert plan.step_seconds == pytest.approx(seconds / threads, rel=1e-12, abs=1e-15)
    assert f"{plan.step_seconds / 4800 * 1e9:.1f} ns per voxel" in str(plan)


def test_a_sum_counts_its_terms_and_what_it_makes() -> None:
    state = PROBLEM.stream_width("state")
    links = (Link((Use(0, 2),), (1,)), Link((Use(0), Use(1)), (2,), "sum"))
    chain = Chain(links, frozenset([2]), (state,) * 3)
    route = Route(1, 1, (chain,), (chain,), (), 2, 1)
    rates = replace(NOTHING, add=1e-3)
    plan = forecast(plan_of("block", 1), (route,), rates)
    assert plan.step_seconds == pytest.approx(60 * 3 * 1e-3)
    alone = Chain((Link((Use(0), Use(1)), (2,), "sum"),), frozenset([2]), (state,) * 3)
    one, two = (sweep_seconds(alone, 60, 15, 5, threads, rates) for threads in (1, 2))
    assert one == 2 * two == pytest.approx(60 * 3 * 1e-3 / 0.9)  # some of the time a thread waits


@pytest.mark.parametrize("extrapolate", [False, True])
def test_a_trial_counts_the_terms_that_are_foreseen(extrapolate: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum costs the time of a term, as measured, by as many as it is divided by there."""
    tried, steps = list[trial._Timed](), trial._steps

    def keep(*args: Any) -> trial._Timed:
        tried.append(steps(*args))
        return tried[-1]

    monkeypatch.setattr(trial, "_steps", keep)
    stepper = AdaptiveIMEX(extrapolate=extrapolate)
    plan = vd.plan(vd.models.CahnHilliard(), made_up(), stepper=stepper)
    operators = Operators(equation_of(vd.models.CahnHilliard()), ("z", "y", "x"))
    ways = routes(stepper, operators, constants=False, weighted=False, width=plan.problem.stream_width)
    foreseen = forecast(replace(plan, threads=1), ways, replace(NOTHING, add=1.0)).step_seconds
    attempts = 2  # the first two of four are not counted
    assert foreseen == plan.problem.shape[0] * tried[0].counts["sum"] / attempts


def test_bytes_between_slabs_and_pencils() -> None:
    """Four slabs: three quarters of the spectrum change places twice; four rows of ghosts come to each slab."""
    plan = forecast(plan_of("chunked", 2), (semi_implicit(PROBLEM),), NOTHING)
    assert plan.traffic_bytes == 2 * 0.75 * (60 * 8 * 6 * 8) + 4 * 4 * (8 * 10 * 4)
    alone = forecast(plan_of("chunked", 2, 60), (semi_implicit(PROBLEM),), NOTHING)
    assert alone.traffic_bytes == 0


def test_tasks_take_time() -> None:
    """Four slabs, four tasks each; on a cluster two for every pair of a slab and a pencil besides, and bytes."""
    here = forecast(plan_of("chunked", 2), (semi_implicit(PROBLEM),), NOTHING)
    there = forecast(replace(plan_of("chunked", 2), workers=2), (semi_implicit(PROBLEM),), NOTHING)
    assert here.step_seconds == pytest.approx(16 * forecasting.TASK_SECONDS / 2)
    sent = there.traffic_bytes / forecasting.NETWORK_BYTES
    assert there.step_seconds == pytest.approx(48 * forecasting.REMOTE_TASK_SECONDS + sent / 2)


def test_threads_without_a_slab_do_not_count() -> None:
    rates = replace(NOTHING, evaluate=1.0)
    seconds = [
        forecast(plan_of("chunked", threads, 30), (semi_implicit(PROBLEM),), rates).step_seconds
        for threads in (1, 2, 8)
    ]
    assert seconds == pytest.approx([60 * forecasting.CHUNKED_SHARE / k for k in (1, 2, 2)], rel=0.02)


def made_up() -> xr.Dataset:
    return vd.dataset({"c": np.random.default_rng(0).uniform(0.4, 0.6, (66, 40, 48)).astype(np.float32)})


@pytest.mark.parametrize(
    ("stepper", "limit", "resident"),
    [("imex", "20MB", "some"), ("imex", "21MB", "all"), ("sbdf2", "20.7MB", "some"), ("rk4", "21MB", "no"),
     ("rkc2", "21MB", "no"), ("etdrk4", "20.5MB", "no"), ("etdrk4", "22MB", "some")],
)  # fmt: skip
def test_bytes_to_and_from_the_disk(
    stepper: str, limit: str, resident: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that go to and from files in eight steps more, and what lies in files, against what was foreseen."""
    model, ds = vd.models.CahnHilliard(), made_up()
    moved, stored, transfer = list[int](), list[int](), ChunkFiles._transfer

    def count(self: ChunkFiles, index: Any, offset: int, block: np.ndarray, call: Any) -> None:
        moved.append(block.nbytes)
        transfer(self, index, offset, block, call)

    def look(frame: xr.Dataset) -> None:
        files = [path for path in tmp_path.glob("*.zarr/.state/**/c.*") if path.is_file()]
        stored.append(sum(path.stat().st_size for path in files))

    monkeypatch.setattr(ChunkFiles, "_transfer", count)
    # measured anew, rates may choose another route
    monkeypatch.setattr(sys.modules["voxdask.simulate"], "_rates", lambda *given: None)
    options: dict[str, Any] = {"stepper": stepper, "memory_limit": limit}
    plan, totals = vd.plan(model, ds, store=tmp_path, **options), []
    assert resident == {0: "no", plan.problem.columns: "all"}.get(plan.resident_columns, "some")
    for steps in (8, 16):
        moved.clear(), stored.clear()
        path = tmp_path / f"run{steps}.zarr"
        run = vd.simulate(model, ds, dt=1e-4, steps=steps, store=path, callbacks=[look], progress=False, **options)
        assert vd.Report.of(run.attrs).tier == plan.tier == "spilled"
        totals.append(sum(moved))
        shutil.rmtree(path)
        assert 0.95 * plan.disk_bytes <= max(stored) <= plan.disk_bytes
    assert (totals[1] - totals[0]) / 8 == pytest.approx(plan.traffic_bytes, rel=0.05)


def test_a_stage_moves_what_it_reads_and_what_it_changes() -> None:
    """ETDRK4: the first stage saves a spectrum, the second reads it and saves another, the third makes one of both."""
    operators = Operators(equation_of(vd.models.CahnHilliard()), ("z", "y", "x"))
    (route,) = routes(ETDRK4(), operators, constants=False, weighted=False, width=PROBLEM.stream_width)
    assert route.pencils == (Transform(1, 2, 2), Transform(2, 2, 3), Transform(3, 2, 3), Transform(2, 1, 2))


def test_a_line_that_spills(tmp_path: Path) -> None:
    """Ways to go over it are tried on parts of it."""
    ds = vd.dataset({"c": np.random.default_rng(0).uniform(0.4, 0.6, 300_000).astype(np.float32)})
    options: dict[str, Any] = {"stepper": "euler", "memory_limit": "22MB", "store": tmp_path / "run.zarr"}
    assert vd.plan(vd.models.CahnHilliard(), ds, stepper="euler").step_seconds is not None
    plan = vd.plan(vd.models.CahnHilliard(), ds, **options)
    assert plan.tier == "spilled" and plan.step_seconds is not None
    run = vd.simulate(vd.models.CahnHilliard(), ds, dt=1e-4, steps=2, progress=False, **options)
    block = vd.simulate(vd.models.CahnHilliard(), ds, dt=1e-4, steps=2, stepper="euler", progress=False)
    np.testing.assert_allclose(run.c[-1], block.c[-1], rtol=1e-6)


def test_a_plan_without_measuring_foresees_no_time() -> None:
    plan = vd.plan(vd.models.CahnHilliard(), made_up(), measure=False)
    assert plan.step_seconds is None and plan.traffic_bytes is None and "ns per voxel" not in str(plan)


def test_ways_are_chosen_by_the_disk_if_files_do_not_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the choice and after it eight files are seen to the disk."""
    seen: list[int] = []
    monkeypatch.setattr(os, "fsync", seen.append)
    monkeypatch.setattr(trial, "_HOLDS", -1.0)
    options: dict[str, Any] = {"stepper": "rk4", "memory_limit": "21MB", "store": tmp_path / "run.zarr"}
    assert vd.plan(vd.models.CahnHilliard(), made_up(), **options).tier == "spilled"
    assert not seen
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1))
    assert vd.plan(vd.models.CahnHilliard(), made_up(), **options).tier == "spilled"
    assert len(seen) == 2 * 8


def test_a_run_goes_the_way_that_was_planned_minutes_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured again a machine is never quite as fast, and the best of ways that are alike may be another."""
    clock, shallow_pays = [0.0], replace(NOTHING, evaluate=1.0, moved=1e-12)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.chdir(tmp_path)

    def planned(seconds: float, rates: Rates, **options: Any) -> Plan:
        clock[0] = seconds
        monkeypatch.setattr(trial, "_measure", lambda *_: rates)
        return vd.plan(vd.models.CahnHilliard(), made_up(), stepper="rk4", memory_limit="21MB", **options)

    first = planned(0.0, shallow_pays)
    assert planned(300.0, replace(NOTHING, moved=1.0), store="run.zarr") == first  # on the same disk
    assert planned(601.0, replace(NOTHING, moved=1.0), store="run.zarr") != first


def test_a_disk_that_could_not_be_measured_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be written in a place that is given up; the work was measured, and is not again."""
    model, ds, seen = vd.models.CahnHilliard(), made_up(), list[str]()

    def watched(name: str, work: Any, first: Any = None) -> Any:
        def call(*given: Any) -> Any:
            seen.append(name)
            if first is not None and seen.count(name) == 1:
                raise first
            return work(*given)

        return call

    monkeypatch.setattr(trial, "_measured", {})
    monkeypatch.setattr(trial, "_measure", watched("work", trial._measure))
    monkeypatch.setattr(trial, "_moved_seconds", watched("disk", trial._moved_seconds, PermissionError(13, "no")))
    plans = [vd.plan(model, ds, memory_limit="20MB", store=tmp_path / "run.zarr") for _ in range(3)]
    assert seen == ["work", "disk", "disk"]
    assert plans[1] == plans[2] and plans[0].step_seconds != plans[1].step_seconds


def test_steppers_that_print_alike_are_measured_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Euler(vd.steppers.Euler):
        """One of the user's own, defined anew."""

    asked: list[Any] = []
    monkeypatch.setattr(trial, "_measured", {})
    monkeypatch.setattr(trial, "_measure", lambda *given: asked.append(given[-1]) or NOTHING)
    for stepper in (vd.steppers.Euler(), Euler(), vd.steppers.Euler(), Euler()):
        vd.plan(vd.models.CahnHilliard(), made_up(), stepper=stepper)
    assert [type(stepper) for stepper in asked] == [vd.steppers.Euler, Euler]


def test_trials_of_threads_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is given up after ten minutes is so by none while another looks at it."""
    clock, at_once, most = itertools.count(0.0, 400.0), [0], [0]
    monkeypatch.setattr(trial, "_measured", {})
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))

    def measure(*_: Any) -> Rates:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.01)
        at_once[0] -= 1
        return NOTHING

    monkeypatch.setattr(trial, "_measure", measure)
    with ThreadPoolExecutor(4) as threads:
        plans = list(threads.map(lambda _: vd.plan(vd.models.CahnHilliard(), made_up()), range(8)))
    assert most == [1] and len({plan.step_seconds for plan in plans}) == 1


def test_a_trial_leaves_nothing_behind(tmp_path: Path) -> None:
    plan = vd.plan(vd.models.CahnHilliard(), made_up(), memory_limit="21MB", store=tmp_path / "run.zarr")
    assert plan.tier == "spilled" and plan.step_seconds is not None and plan.step_seconds > 0
    assert os.listdir(tmp_path) == []
