"""Every example is run, small, and its numbers are checked."""

import importlib.util
import sys
import zlib
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


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def spinodal() -> ModuleType:
    return example("spinodal_decomposition")


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


def test_gray_scott_corals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = example("gray_scott_corals").main(["--size", "96", "--t-end", "1200", "--output", str(tmp_path)])
    told = capsys.readouterr().out
    # the tips are fast at first: in the large run they slow down to 0.024
    assert float(told.split("speed of the tips ")[1].split(",")[0]) == pytest.approx(0.035, abs=0.003)
    assert 0.3 < float(told.split("within their reach ")[1].split()[0]) < 0.6
    for species in (run.A, run.B):
        assert float(species.min()) > -1e-3
        assert float(species.max()) < 1.001
    assert (tmp_path / "corals.png").stat().st_size > 10_000


@pytest.mark.study
def test_your_own_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ratio, discs = example("your_own_model").main(["--output", str(tmp_path)])
    assert ratio == pytest.approx(1, abs=0.005)  # sqrt(D r / 2) (1 - 2 a) for a flat front
    areas = [(discs.u[:, :, k * 96 : (k + 1) * 96] * 0.25).sum(("y", "x")).values for k in range(4)]
    assert [bool(area[-1] > area[0]) for area in areas] == [False, False, True, True]  # critical: D / V = 3.5
    assert "critical radius 3.54" in capsys.readouterr().out
    assert (tmp_path / "bistable.png").stat().st_size > 10_000


def test_particle_in_an_electrode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = example("particle_in_an_electrode").main(["--size", "40", "--output", str(tmp_path)])
    told = capsys.readouterr().out
    assert float(told.split("utilisation ")[-1].split(",")[0]) == pytest.approx(0.940, abs=0.005)  # 0.908 at 128^3
    assert (np.diff(run.utilisation) > 0).all()
    assert (run.surface[1:] > run.utilisation[1:]).all()
    assert (tmp_path / "particles.png").stat().st_size > 10_000


def test_a_particle_that_is_a_ball(tmp_path: Path) -> None:
    """The utilisation of Crank's series for a sphere of the same radius."""
    away = np.sqrt(((np.indices((40, 40, 40)) + 0.5 - 20) ** 2).sum(0))
    tifffile.imwrite(tmp_path / "ball.tiff", np.where(away < 15, np.uint8(170), np.uint8(0)))
    arguments = ["--image", str(tmp_path / "ball.tiff"), "--phase", "170", "--output", str(tmp_path)]
    run = example("particle_in_an_electrode").main([*arguments, "--biot", "0.5", "--t-end", "0.5"])
    assert float(abs(run.utilisation - run.sphere).max()) < 0.005
    # 400 shells in r by finite volumes, stepped with scipy's BDF
    assert float(run.sphere[-1]) == pytest.approx(0.495023, abs=1e-6)


@pytest.mark.skipif(not ELECTRODE.exists(), reason="the electrode tomogram is not here")
def test_particle_in_a_real_electrode(tmp_path: Path) -> None:
    arguments = ["--image", str(ELECTRODE), "--phase", "85", "--size", "48", "--output", str(tmp_path)]
    run = example("particle_in_an_electrode").main(arguments)
    assert 0.8 < float(run.utilisation[-1]) < float(run.sphere[-1])


@pytest.mark.study
def test_grain_growth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--size", "128", "--grains", "20", "--steps", "200", "--seed", "1", "--output", str(tmp_path)]
    frames = example("grain_growth").main([*arguments, "--store", str(tmp_path / "run.zarr")])
    told = float(capsys.readouterr().out.split("dA/dt = ")[1].split()[0])
    assert told == pytest.approx(np.pi / 3, rel=0.25)  # von Neumann and Mullins; 1.24, few grains
    assert frames.alive.values[-1] < 20 and (np.diff(frames.mean_area) >= 0).all()
    np.testing.assert_allclose(frames.area.sum("phase"), 128**2, rtol=1e-5)
    assert xr.open_zarr(tmp_path / "run.zarr").phi.dims == ("time", "phase", "y", "x")
    assert (tmp_path / "grains.png").stat().st_size > 10_000


def test_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = example("cluster").main(["--size", "24", "--steps", "8", "--output", str(tmp_path)])
    told = capsys.readouterr().out
    assert (here.vd.report.tier, there.vd.report.tier) == ("block", "chunked")
    assert here.sizes["time"] == 5 and float(abs(here.c[-1] - here.c[0]).max()) > 0.05
    assert here.c.values.tobytes() == there.c.values.tobytes()
    assert told.count("0 of 13,824") == 5 and f"{zlib.crc32(there.c[-1].values):08x}" in told
    assert (tmp_path / "cluster.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("cluster", ["--size", "8"], "--size is 8"),
        ("cluster", ["--steps", "0"], "--steps is 0"),
        ("cluster", ["--workers", "0"], "--workers is 0"),
        ("grain_growth", ["--size", "8"], "--size is 8"),
        ("grain_growth", ["--grains", "1"], "--grains is 1"),
        ("grain_growth", ["--steps", "0"], "--steps is 0"),
        ("gray_scott_corals", ["--size", "8"], "--size is 8"),
        ("gray_scott_corals", ["--dt", "0"], "--dt is 0"),
        ("gray_scott_corals", ["--seed", "-1"], "--seed is -1"),
        ("your_own_model", ["--threshold", "0.7"], "--threshold is 0.7"),
        ("particle_in_an_electrode", ["--size", "8"], "--size is 8"),
        ("particle_in_an_electrode", ["--biot", "-1"], "--biot is -1"),
        ("particle_in_an_electrode", ["--image", "nowhere.tiff"], "nowhere.tiff"),
        ("particle_in_an_electrode", ["--image", "flat.tiff", "--phase", "3"], "phase 3 is not in the image"),
        ("particle_in_an_electrode", ["--image", "flat.tiff", "--size", "64"], "--size is 64"),
    ],
)
def test_examples_refuse(
    name: str,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("flat.tiff", np.ones((24, 24, 24), np.uint8))
    with pytest.raises(SystemExit) as refusal:
        example(name).main(arguments)
    assert message in f"{refusal.value} {capsys.readouterr().err}"
    assert not list(Path().glob("*.png"))


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "examples").glob("*.py"))])
def test_an_example_states_physics_cost_and_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = example(name)
    assert module.__doc__ is not None
    assert module.__doc__.partition("\n")[0].endswith("?")
    for words in ("Physics:", "Answer:", "Cost:", f"python examples/{name}.py"):
        assert words in module.__doc__
    with pytest.raises(SystemExit) as done:
        module.main(["--help"])
    assert done.value.code == 0
    assert "Physics:" in capsys.readouterr().out


def test_tortuosity_of_an_electrode(tmp_path: Path) -> None:
    results = example("tortuosity_of_an_electrode").main(["--size", "32", "--output", str(tmp_path)])
    assert (tmp_path / "tortuosity.png").stat().st_size > 10_000
    assert results.tau.dims == ("phase", "direction") and results.sizes == {"phase": 3, "direction": 3}
    assert (results.tau >= 1).all() and (results.error <= 1e-4).all()
    assert (results.percolating <= results.porosity).all()
    assert float(results.porosity.sum("phase").max()) == pytest.approx(1)


@pytest.mark.skipif(not ELECTRODE.exists(), reason="the tomogram is not here")
def test_tortuosity_of_the_tomogram(tmp_path: Path) -> None:
    arguments = ["--image", str(ELECTRODE), "--size", "64", "--output", str(tmp_path)]
    results = example("tortuosity_of_an_electrode").main(arguments)
    assert results.phase.values.tolist() == [0, 85, 170]
    with pytest.raises(SystemExit, match="--size is 999"):
        example("tortuosity_of_an_electrode").main(["--image", str(ELECTRODE), "--size", "999"])
