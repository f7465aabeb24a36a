"""The model on paper says of bytes what plans say."""

from __future__ import annotations

import importlib.util
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


def test_larger_is_dearer(paper: ModuleType) -> None:
    for machine in paper.MACHINES:
        made = [paper.step(n, machine) for n in (512, 1024, 2048)]
        assert all(step is not None for step in made)
        seconds = [step.seconds for step in made]
        assert seconds == sorted(seconds)
    assert paper.step(4096, paper.MACHINES[2]) is None  # of 80 GB, eight hold 640, and it takes 1100
