"""Every example is run, small, and its numbers are checked."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tifffile
import xarray as xr

import voxdask as vd

ROOT = Path(__file__).parents[1]
ELECTRODE = ROOT.parent / "shared" / "data" / "electrode.tiff"


@pytest.fixture(scope="module")
def spinodal() -> ModuleType:
    spec = importlib.util.spec_from_file_location("spinodal_decomposition", ROOT / "examples/spinodal_decomposition.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drift(run: xr.Dataset) -> float:
    """The largest relative change of mass, summed in float64."""
    mass = run.c.sum(("z", "y", "x"), dtype=np.float64)
    return float(abs(mass / mass[0] - 1).max())


def energies(run: xr.Dataset, boundary: str) -> np.ndarray:
    h = vd.Grid.from_dataset(run).spacing[0]
    return vd.models.CahnHilliard(eps=3 * h, diffusivity=h**3).free_energy(run, boundary=boundary).values


def relative(a: xr.DataArray, b: xr.DataArray) -> float:
    return float(abs(a - b).max() / abs(b).max())


def limit_that_spills(example: ModuleType, image: str | Path, size: int, boundary: str) -> str:
    """A byte less than what the run would take in memory."""
    start = example.start_field(example.open_tomogram(image, size), "float32", 0)
    plan = vd.plan(vd.models.CahnHilliard(eps=3.0), start, boundary=boundary)
    assert plan.tier == "chunked"
    return str(plan.memory_bytes - 1)


def block_and_spilled(
    example: ModuleType, arguments: Sequence[str], image: Path, size: int, folder: Path, boundary: str
) -> tuple[xr.Dataset, xr.Dataset]:
    block = example.main([*arguments, "--size", str(size), "--output", str(folder)])
    limit = limit_that_spills(example, image, size, boundary)
    spilled = example.main([*arguments, "--size", str(size), "--output", str(folder), "--memory-limit", limit])
    assert (block.vd.report.tier, spilled.vd.report.tier) == ("block", "spilled")
    return block, spilled


def test_spinodal_decomposition(spinodal: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = spinodal.main(["--size", "32", "--steps", "20", "--output", str(tmp_path)])
    told = capsys.readouterr().out
    assert run.sizes == {"time": 11, "z": 32, "y": 32, "x": 32}
    assert run.c.dtype == np.float32
    assert float(run.c[0].mean()) == pytest.approx(0.45 * 0.4 + 0.55 * 0.6, abs=1e-3)
    assert drift(run) < 1e-6
    assert (np.diff(energies(run, "periodic")) <= 0).all()
    assert float(run.c[-1].std()) > 0.2  # it has separated
    assert (tmp_path / "spinodal.png").stat().st_size > 10_000
    for words in ("tier", "block", "ns per voxel and step", "peak memory", "free energy", "32 x 32 x 32 voxels of 0.4"):
        assert words in told


def test_spinodal_decomposition_is_the_same_spilled(spinodal: ModuleType, tmp_path: Path) -> None:
    image = spinodal.write_tomogram(tmp_path / "tomogram.tiff", 32, 0)
    block, spilled = block_and_spilled(spinodal, ["--steps", "10"], image, 32, tmp_path, "periodic")
    assert relative(spilled.c, block.c) < 1e-5


def test_spinodal_decomposition_is_the_same_chunked(spinodal: ModuleType, tmp_path: Path) -> None:
    arguments = ["--size", "24", "--steps", "4", "--dtype", "float64", "--output", str(tmp_path)]
    block, chunked = spinodal.main(arguments), spinodal.main([*arguments, "--chunks", "5"])
    assert chunked.vd.report.tier == "chunked"
    assert relative(chunked.c, block.c) < 1e-12


def test_spinodal_decomposition_goes_on_from_a_store(spinodal: ModuleType, tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    arguments = ["--size", "24", "--output", str(tmp_path), "--store", str(store)]
    spinodal.main([*arguments, "--steps", "10"])
    run = spinodal.main([*arguments, "--steps", "12"])
    assert run.vd.report.steps == 2
    assert float(xr.open_zarr(store).time[-1]) == 24.0


def test_spinodal_decomposition_of_a_label_image(spinodal: ModuleType, tmp_path: Path) -> None:
    labels = np.random.default_rng(0).choice(np.array([0, 85, 170], np.uint8), (20, 24, 28))
    tifffile.imwrite(tmp_path / "labels.tiff", labels)
    run = spinodal.main(["--image", str(tmp_path / "labels.tiff"), "--steps", "4", "--output", str(tmp_path)])
    assert run.c.shape[1:] == labels.shape
    means = [float(run.c[0].values[labels == label].mean()) for label in (0, 85, 170)]
    assert means == pytest.approx([0.4, 0.5, 0.6], abs=1e-3)
    assert drift(run) < 1e-6


@pytest.mark.skipif(not ELECTRODE.exists(), reason="the electrode tomogram is not here")
def test_spinodal_decomposition_of_an_electrode(spinodal: ModuleType, tmp_path: Path) -> None:
    arguments = ["--image", str(ELECTRODE), "--steps", "10"]
    block, spilled = block_and_spilled(spinodal, arguments, ELECTRODE, 48, tmp_path, "neumann")
    assert relative(spilled.c, block.c) < 1e-5
    for run in (block, spilled):
        assert drift(run) < 1e-6
        assert (np.diff(energies(run, "neumann")) <= 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "4"], "--size is 4"),
        (["--steps", "0"], "--steps is 0"),
        (["--dt", "-1"], "--dt is -1"),
        (["--seed", "-1"], "--seed is -1"),
        (["--dtype", "int8"], "--dtype"),
        (["--image", "nowhere.tiff"], "nowhere.tiff"),
        (["--image", "flat.tiff"], "one value"),
        (["--image", "flat.tiff", "--size", "64"], "--size is 64"),
        (["--size", "16", "--memory-limit", "plenty"], "plenty"),
        (["--size", "16", "--memory-limit", "1kB"], "memory_limit"),
        (["--size", "16", "--chunks", "0"], "chunks is 0"),
    ],
)
def test_spinodal_decomposition_refuses(
    spinodal: ModuleType,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("flat.tiff", np.ones((20, 20, 20), np.uint8))
    with pytest.raises(SystemExit) as refusal:
        spinodal.main(arguments)
    assert message in f"{refusal.value} {capsys.readouterr().err}"
    assert not Path("spinodal.png").exists()


def test_spinodal_decomposition_explains_itself(
    spinodal: ModuleType, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["spinodal_decomposition.py", "--help"])
    with pytest.raises(SystemExit) as done:
        spinodal.main()
    assert done.value.code == 0
    assert "microstructure" in capsys.readouterr().out


def test_noise_does_not_depend_on_the_chunks(spinodal: ModuleType, tmp_path: Path) -> None:
    image = spinodal.open_tomogram(spinodal.write_tomogram(tmp_path / "tomogram.tiff", 16, 0), 16)
    start: Any = spinodal.start_field(image, "float32", 3)
    again: Any = spinodal.start_field(image.chunk(z=7, y=16), "float32", 3)
    xr.testing.assert_identical(start.compute(), again.compute())
