"""The model on paper says of bytes what plans say."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import dask.array as da
import numpy as np
import pytest
import xarray as xr

import voxdask as vd

ROOT = Path(__file__).parents[1]
MODEL = vd.models.CahnHilliard()


@pytest.fixture(scope="module")
def paper() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling_model", ROOT / "benchmarks/scaling_model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["scaling_model"] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


def volume(n: int) -> xr.Dataset:
    return vd.dataset({"c": da.full((n, n, n), 0.5, chunks=(max(n // 64, 1), n, n), dtype=np.float32)})


def test_bytes_that_are_moved(paper: ModuleType, tmp_path: Path) -> None:
    machine = replace(paper.MACHINES[0], workers=4)
    chunked = vd.plan(MODEL, volume(96), chunks=24)
    assert paper.chunked(96, machine).moved == pytest.approx(chunked.traffic_bytes, rel=0.01)
    spilled = vd.plan(MODEL, volume(96), memory_limit="25MB", store=tmp_path)
    assert (spilled.tier, spilled.resident_columns) == ("spilled", 0)
    assert paper.spilled(96, replace(machine, memory=0)).moved == pytest.approx(spilled.traffic_bytes, rel=0.01)
    roomy = vd.plan(MODEL, volume(96), memory_limit="33MB", store=tmp_path)
    assert (roomy.tier, roomy.resident_columns) == ("spilled", 96)
    assert paper.spilled(96, machine).moved == pytest.approx(roomy.traffic_bytes, rel=0.01)


def test_bytes_of_memory(paper: ModuleType) -> None:
    """At sizes where what does not grow is little."""
    machine = replace(paper.MACHINES[0], workers=4)
    plan = vd.plan(MODEL, volume(1024), chunks=256, memory_limit="1TB", measure=False)
    assert plan.tier == "chunked"
    assert 4 * paper.chunked(1024, machine).memory == pytest.approx(plan.memory_bytes, rel=0.05)
    with pytest.raises(MemoryError, match=r"takes (\d\.\d) GB") as caught:
        vd.plan(MODEL, volume(4096), memory_limit="1GB", measure=False)
    least = float(str(caught.value).split(" takes ")[1].split()[0]) * 1e9
    # the number of threads decides how many rows are filled or saved at once
    assert paper.spilled(4096, replace(machine, memory=0)).memory == pytest.approx(least, rel=0.25)


def test_the_page_shows_what_the_model_says(paper: ModuleType) -> None:
    assert "\n".join(paper.table()) in (ROOT / "docs/scaling.md").read_text(encoding="utf-8")


def test_measured_points_beside_the_model(paper: ModuleType, tmp_path: Path) -> None:
    """Two processes: half of a spectrum to and fro and ghost rows, at 10 MB/s, and 16 ms of the scheduler."""
    rows = {
        "block, 256^3": 8.0, "block beside processes, 256^3": 9.0, "block, 512^3": 9.0, "distributed, 256^3": 250.0,
        "from worker to worker, arrays": 0.01, "the disk alone, 512^3 under 1000 MB": 20.0,
        "step, 512^3 under 1000 MB": 25.0,
    }  # fmt: skip
    figures = [{"what": what, "value": value} for what, value in rows.items()]
    found = {"size": 256, "limit": 10**9, "threads": 2, "rows": figures}
    (tmp_path / "scale.json").write_text(json.dumps(found), encoding="utf-8")
    _, _, *lines = paper.check(tmp_path / "scale.json")
    shown = {line.split(" | ")[0].strip("| "): float(line.split(" | ")[2]) for line in lines}
    assert shown["block, 256^3"] == 8.0 and shown["block, 512^3"] == pytest.approx(8.0 * (1 + 0.75 * 3 / 24), abs=0.06)
    assert shown["step, 512^3 under 1000 MB"] == 20.0  # the disk, which is slower
    spectrum, ghosts = 256 * 256 * 258 * 4, 2 * 2 * 2 * 256 * 256 * 4
    seconds = (spectrum + ghosts) / 2 / 1e7 + 16e-3
    assert shown["distributed, 256^3"] == pytest.approx(9.0 + seconds / 256**3 * 1e9, abs=0.06)


def test_larger_is_dearer(paper: ModuleType) -> None:
    for machine in paper.MACHINES:
        made = [paper.step(n, machine) for n in (512, 1024, 2048)]
        assert all(step is not None for step in made)
        seconds = [step.seconds for step in made]
        assert seconds == sorted(seconds)
    assert paper.step(4096, paper.MACHINES[2]) is None  # of 80 GB, eight hold 640, and it takes 1100
