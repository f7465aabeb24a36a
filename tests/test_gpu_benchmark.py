"""The benchmark of a GPU: all that it does, on a stand-in for CuPy, at sizes that say nothing of speed."""

from __future__ import annotations

import argparse
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import dask.array as da
import numpy as np
import pytest

import voxdask as vd
from voxdask import backend

TINY = ["--size", "20", "--check-size", "8", "--steps", "2", "--rounds", "1", "--copy-bytes", "4096"]
#: Ghost layers and numbers take more than so small a field.
TINY += ["--over-pool", "0.2"]


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    module = importlib.import_module("gpu")
    chosen = ("Cahn-Hilliard", "smoothed-boundary diffusion")
    monkeypatch.setattr(module, "MODELS", {name: module.MODELS[name] for name in chosen})
    monkeypatch.setattr(module, "TIMED", chosen[:1])
    monkeypatch.setattr(module, "find_spec", lambda name: None)  # the peer takes minutes
    return module


def test_every_part_runs(benchmark: ModuleType, gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([*TINY, "--output", str(tmp_path / "gpu.json")]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert json.loads(printed.splitlines()[-1]) == found
    assert found["failed"] == {} and found["right"]["wrong"] == 0
    assert not [cell for cells in found["right"].values() if isinstance(cells, list) for cell in cells if cell == "-"]
    assert found["kernels"]["Cahn-Hilliard, float32"]["stages"] == 1
    assert {figures["tier"] for figures in found["steps"].values()} == {"block"}
    assert all(figures["bytes_per_voxel"] > 0 for figures in found["steps"].values())
    assert set(found["streamed"]) == {"euler", "imex", "rk4"}
    assert {figures["tier"] for figures in found["streamed"].values()} == {"streamed"}
    assert {figures["pool"] for figures in found["streamed"].values()} == {5 * 4 * 20**3}
    verdicts = {(figure["part"], figure["what"].split(",")[0]): figure["verdict"] for figure in found["targets"]}
    assert verdicts["steps", "memory"] == "pass"  # never more bytes than foreseen
    assert verdicts["peer", "evoxels compiled / voxdask"] == ""  # which is not installed
    assert all(verdicts["streamed", stepper] for stepper in ("euler", "imex", "rk4"))
    assert found["transport"]["wrong"] == 0 and found["transport"]["tortuosity on the gpu"]["bytes_per_voxel"] > 0
    for title in ("card", "largest error", "right-hand side", "ns/voxel/step", "streamed", "evoxels"):
        assert title in printed


def test_targets_are_met_or_missed(benchmark: ModuleType) -> None:
    step = {"ns": 0.2, "bytes_per_voxel": 20.5, "of_foreseen": 0.9}
    results = {
        "steps": {"Cahn-Hilliard, imex, 512, float32": step, "another": {"failed": "no room"}},
        "kernels": {"Cahn-Hilliard, float32": {"of_copy": 0.75}},
        "streamed": {"imex": {"of_bus": 0.85}, "euler": {"of_bus": 0.75}, "rk4": {"failed": "no room"}},
        "peer": {"compile, 512": {"ns_per_voxel": 0.7, "peak_bytes_per_voxel": 50.0}},
    }
    found = benchmark.targets(argparse.Namespace(size=512, over_pool=4.0), results)
    assert [(round(figure.value, 3), figure.verdict) for figure in found[:-1]] == [
        (3.5, "pass"), (20.5, "FAIL"), (0.41, "pass"), (0.75, "pass"), (0.9, "pass"), (0.75, "FAIL"), (0.85, "pass"),
    ]  # fmt: skip
    assert (found[-1].verdict, found[-1].as_json()["value"]) == ("", None)
    assert benchmark.summary(found) == "5 targets met, 2 missed, 1 not measured"
    assert "4 x the pool" in str(found[-1])


def test_the_page_shows_what_is_printed(benchmark: ModuleType) -> None:
    figures = benchmark.targets(argparse.Namespace(size=512, over_pool=4.0), {})
    page = Path(__file__).parents[1] / "benchmarks/README.md"
    assert "\n".join(map(str, figures)) in page.read_text(encoding="utf-8")


def test_the_page_says_what_plans_say(gpu: Any) -> None:
    """Of IMEX at 512^3 as one block, and of methods under a pool of a quarter of the field."""
    n, model = 512, vd.models.CahnHilliard()
    ds = vd.dataset({"c": da.full((n, n, n), 0.5, chunks=(8, n, n), dtype=np.float32)})

    def plan(stepper: str) -> vd.Plan:
        return vd.plan(model, ds, stepper=stepper, device="gpu", memory_limit="50GB", measure=False)

    assert round(plan("imex").device_bytes / n**3, 1) == 24.2
    gpu.limit = n**3
    found = {stepper: plan(stepper) for stepper in ("imex", "euler", "rk4")}
    assert {name: (each.tier, each.slab_rows, each.depth) for name, each in found.items()} == {
        "imex": ("streamed", 7, 1), "euler": ("streamed", 6, 3), "rk4": ("streamed", 5, 2),
    }  # fmt: skip
    assert found["imex"].pencil_columns == 10
    moved = {name: round((each.traffic_bytes or 0) / n**3, 1) for name, each in found.items()}
    assert moved == {"imex": 24.2, "euler": 2.7, "rk4": 28.4}


def test_a_part_that_fails_does_not_stop_the_rest(
    benchmark: ModuleType, gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(options: Any) -> Any:
        raise RuntimeError("broken")

    monkeypatch.setitem(benchmark.PARTS, "right", fail)
    assert benchmark.main([*TINY, "--only", "right", "peer"]) == 1
    printed = capsys.readouterr().out
    assert "right failed: RuntimeError: broken" in printed
    found = json.loads(printed.splitlines()[-1])
    assert found["failed"] == {"right": "RuntimeError: broken"} and "peer" in found and "card" in found


def test_a_wrong_model_is_named(benchmark: ModuleType, gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "MODELS", {"Cahn-Hilliard": benchmark.MODELS["Cahn-Hilliard"]})
    monkeypatch.setattr(benchmark, "TOLERANCES", dict.fromkeys(benchmark.TOLERANCES, -1.0))
    assert benchmark.main([*TINY, "--only", "right"]) == 1


def test_a_wrong_effective_property_is_named(
    benchmark: ModuleType, gpu: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.import_module("gpu_transport"), "TOLERANCE", -1.0)
    assert benchmark.main([*TINY, "--only", "transport"]) == 1
    assert capsys.readouterr().out.count("WRONG") == 8  # four properties in two precisions


def test_without_a_gpu_one_line_says_so(
    benchmark: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backend, "cupy", None)
    assert benchmark.main([]) == 2
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("no GPU: ") and "voxdask[gpu]" in line
