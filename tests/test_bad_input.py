"""What does not fit ends in one clear exception, before work where that can be, and nothing saved is lost.

Images that are none, are truncated or claim a huge shape are in test_images.py.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
from conftest import THICK, THIN

import voxdask as vd
from voxdask import places
from voxdask.chunkfiles import ChunkFiles

MODEL = vd.models.CahnHilliard()
OK: dict[str, Any] = {"dt": 0.1, "steps": 2, "progress": False}


def make_ds(shape: tuple[int, ...] = (6, 5, 4), name: str = "c") -> xr.Dataset:
    return vd.dataset({name: np.random.default_rng(0).uniform(0.2, 0.8, shape)}, spacing=0.5)


def with_nan(where: tuple[int, ...] = (4, 3, 2), value: float = np.nan) -> xr.Dataset:
    ds = make_ds()
    ds.c[where] = value
    return ds


UNEVEN = make_ds().assign_coords(x=[0.0, 1.0, 2.0, 4.0])
ARGUMENTS: dict[str, tuple[Any, xr.Dataset, dict[str, Any], type[Exception], str]] = {
    "no field": (MODEL, make_ds(name="phi"), {}, ValueError, r"no field 'c', which the model needs; it has 'phi'"),
    "no fields": (MODEL, xr.Dataset(), {}, ValueError, r"no field 'c', which the model needs; it has none"),
    "no dataset": (MODEL, make_ds().c, {}, TypeError, r"expected an xarray.Dataset, got DataArray; .* vd.dataset"),
    "an array": (MODEL, np.zeros((4, 4)), {}, TypeError, r"expected an xarray.Dataset, got ndarray"),  # type: ignore[dict-item]
    "uneven": (MODEL, UNEVEN, {}, ValueError, r"coordinate 'x' is uneven: .* ds.interp\(x=...\)"),
    "no coordinate": (MODEL, make_ds().drop_vars("y"), {}, ValueError, r"dim 'y' has no coordinate"),
    "four dims": (
        MODEL, xr.Dataset({"c": (("w", "z", "y", "x"), np.zeros((2, 2, 2, 2)))}, {d: [0.0, 1.0] for d in "wzyx"}), {},
        ValueError, r"a grid has one, two or three axes",
    ),
    "time": (MODEL, make_ds().expand_dims(time=[0.0, 1.0]), {}, ValueError, r"has a time dim; .*isel\(time=-1\)"),
    "complex": (MODEL, make_ds() * 1j, {}, TypeError, r"the field 'c' has dtype complex128; it must be real"),
    "text": (MODEL, make_ds().astype(str), {}, TypeError, r"the field 'c' has dtype <U\d+; it must be real"),
    "model class": (
        vd.models.CahnHilliard, make_ds(), {}, TypeError,
        r"model is the class CahnHilliard; .*CahnHilliard\(\)",
    ),
    "no model": ("cahn-hilliard", make_ds(), {}, TypeError, r"model is a str; give an instance of a class with rhs"),
    "no dataclass": (type("M", (vd.Model,), {"fields": ("c",)})(), make_ds(), {}, TypeError, r"M must be a dataclass"),
    "complex parameter": (
        vd.models.ReactionDiffusion(make_ds().c * 1j), make_ds(), {}, TypeError, r"'diffusivity' has dtype complex128",
    ),
    "stepper": (MODEL, make_ds(), {"stepper": "leapfrog"}, ValueError, r"stepper is 'leapfrog'; use one of 'euler', "),
    "stepper class": (
        MODEL, make_ds(), {"stepper": vd.steppers.IMEX}, TypeError,
        r"stepper is the class IMEX; .*IMEX\(\)",
    ),
    "no stepper": (MODEL, make_ds(), {"stepper": 4}, TypeError, r"stepper is a int; give a name or an instance"),
    "dt": (MODEL, make_ds(), {"dt": "0.1"}, TypeError, r"dt is '0.1'; give a number"),
    "negative dt": (MODEL, make_ds(), {"dt": -0.1}, ValueError, r"dt is -0.1; it must be positive"),
    "both ends": (
        MODEL, make_ds(), {"t_end": 1.0}, ValueError,
        r"exactly one of t_end and steps, got t_end=1.0 and steps=2",
    ),
    "no end": (MODEL, make_ds(), {"steps": None}, ValueError, r"exactly one of t_end and steps"),
    "boundary dim": (
        MODEL, make_ds(), {"boundary": {"w": "neumann"}}, ValueError,
        r"names the dim 'w', .* \('z', 'y', 'x'\)",
    ),
    "one end": (MODEL, make_ds(), {"boundary": ("periodic", "neumann")}, ValueError, r"is periodic on one end only"),
    "boundary": (MODEL, make_ds(), {"boundary": 0}, TypeError, r"boundary\['z'\] is a int; use 'periodic'"),
    "chunks": (MODEL, make_ds(), {"chunks": 0}, ValueError, r"chunks is 0; it must be at least 1"),
    "chunks text": (
        MODEL, make_ds(), {"chunks": "auto"}, TypeError,
        r"chunks is 'auto'; give a whole number of rows along 'z'",
    ),
    "fft": (MODEL, make_ds(), {"fft": "fftw"}, ValueError, r"fft is 'fftw'; use one of 'scipy', 'pyfftw', 'mkl_fft'"),
    "limit": (MODEL, make_ds(), {"memory_limit": "abc"}, ValueError, r"memory_limit is 'abc'; give bytes or a text"),
    "device": (MODEL, make_ds(), {"device": "tpu"}, ValueError, r"device is 'tpu'; use 'auto', 'cpu' or 'gpu'"),
    "save_every": (MODEL, make_ds(), {"save_every": 0}, ValueError, r"save_every is 0; it must be at least 1"),
    "save_at": (MODEL, make_ds(), {"save_at": [5.0]}, ValueError, r"save_at holds 5, outside 0 ... 0.2"),
    "callbacks": (MODEL, make_ds(), {"callbacks": print}, TypeError, r"callbacks is .*; give a sequence of functions"),
    "a callback": (MODEL, make_ds(), {"callbacks": [3]}, TypeError, r"callbacks holds 3; give functions"),
    "parameter grid": (
        vd.models.ReactionDiffusion(make_ds((3, 5, 4)).c), make_ds(), {}, ValueError,
        r"'diffusivity' has sizes {'z': 3, .* the grid has {'z': 6, .* every field lives on the same grid",
    ),
    "parameter place": (
        vd.models.ReactionDiffusion(make_ds().c.assign_coords(z=np.arange(6.0))), make_ds(), {}, ValueError,
        r"'diffusivity' has other coordinates along 'z' than the dataset: 0 ... 5",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ARGUMENTS)
def test_arguments(case: str, tmp_path: Path) -> None:
    model, ds, options, error, message = ARGUMENTS[case]
    path = tmp_path / "run.zarr"
    with pytest.raises(error, match=message):
        vd.simulate(model, ds, store=path, **{**OK, **options})
    assert not path.exists() and not list(tmp_path.iterdir())


def test_two_fields_of_other_shape() -> None:
    model = vd.models.ReactionDiffusion(make_ds().c.isel(x=0))
    with pytest.raises(ValueError, match=r"'diffusivity' has sizes {'z': 6, 'y': 5}, but the grid has"):
        vd.simulate(model, make_ds(), **OK)


@pytest.mark.parametrize(
    ("change", "shape"),
    [(lambda b: b[:, ::2], r"3, 3, 4"), (lambda b: b[::2], r"2, 5, 4"), (lambda b: b[0], r"5, 4"),
     (lambda b: np.concatenate([b, b]), r"6, 5, 4")],
    ids=["columns", "rows", "fewer dims", "twice"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["chunked", "spilled", "coefficient"])
def test_blocks_of_another_shape_than_their_chunks_say(kind: str, change: Any, shape: str, tmp_path: Path) -> None:
    """As of a function given to map_blocks that crops, or coarsens, and does not say so."""
    c = make_ds().c.chunk(z=3)
    c = c.copy(data=c.data.map_blocks(change, dtype=c.dtype, meta=np.empty((0, 0, 0))))
    message = rf"block \(\d, 0, 0\) of '\w+' is of shape \({shape}\), its Dask chunks say \(3, 5, 4\)"
    with pytest.raises(ValueError, match=message):
        if kind == "coefficient":
            vd.simulate(vd.models.ReactionDiffusion(c), make_ds(), **OK)
        elif kind == "chunked":
            vd.simulate(MODEL, c.to_dataset(name="c"), **OK)
        else:
            vd.simulate(MODEL, c.to_dataset(name="c"), memory_limit=THIN, store=tmp_path / "run.zarr", **OK)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["block", "chunks", "dask", "spilled"])
def test_a_start_that_is_not_finite(kind: str, value: float, tmp_path: Path) -> None:
    ds, path = with_nan(value=value), tmp_path / "run.zarr"
    options: dict[str, Any] = {}
    if kind == "chunks":
        options["chunks"] = 2
    if kind == "spilled":
        options["memory_limit"] = THIN
    if kind == "dask":
        ds = ds.chunk(2)
    message = rf"the field 'c' holds {value} at index \(4, 3, 2\); every value must be finite .*ds.fillna"
    with pytest.raises(ValueError, match=message):
        vd.simulate(MODEL, ds, store=path, **OK, **options)
    assert not path.exists()
    if kind != "spilled":
        with pytest.raises(ValueError, match=message):
            vd.simulate(MODEL, ds, **OK, **options)


@pytest.mark.parametrize("kind", ["block", "chunks", "spilled"])
def test_a_parameter_that_is_not_finite(kind: str, tmp_path: Path) -> None:
    ds, model = make_ds(), vd.models.ReactionDiffusion(with_nan().c)
    options: dict[str, Any] = {"store": tmp_path / "run.zarr"}
    if kind == "chunks":
        options["chunks"] = 2
    if kind == "spilled":
        options["memory_limit"] = THIN
    with pytest.raises(ValueError, match=r"'diffusivity' holds NaN or infinity; every value must be"):
        vd.simulate(model, ds, **OK, **options)
    assert not (tmp_path / "run.zarr").exists()


def test_large_integers() -> None:
    """They become float32, which holds their size."""
    ds = vd.dataset({"c": da.full((4, 4), 2**62, dtype="uint64", chunks=2)})
    run = vd.simulate(vd.models.ReactionDiffusion(0.1), ds, **OK)
    assert np.isfinite(run.c).all()


@pytest.mark.parametrize("stepper", ["euler", "rk4"])
def test_an_explicit_step_that_is_too_large(stepper: str) -> None:
    ds, model = make_ds(), vd.models.ReactionDiffusion(2.0)
    highest = sum(4 * np.sin(np.pi * (n // 2) / n) ** 2 / 0.5**2 for n in ds.c.shape)
    stable = {"euler": 2.0, "rk4": 2.785}[stepper] / (2.0 * highest)
    name = {"euler": "Euler", "rk4": "RK4"}[stepper]
    options = {**OK, "stepper": stepper}
    message = rf"dt=1 is beyond the stable step of {name}, about {stable:.3g} here; use that, or stepper=\"imex\""
    with pytest.warns(UserWarning, match=message) as caught:
        vd.simulate(model, ds, **{**options, "dt": 1.0})
    assert caught[0].filename == __file__  # the caller's line
    vd.simulate(model, ds, **{**options, "dt": 0.99 * stable})
    vd.simulate(model, ds, **{**OK, "dt": 100.0})


def test_an_axis_of_one_voxel_limits_no_step() -> None:
    """A picture stored as a volume of one slice is as stable as the picture."""
    thin = vd.dataset({"c": np.random.default_rng(0).random((1, 1, 8))})
    run = vd.simulate(vd.models.ReactionDiffusion(1.0), thin, dt=0.49, steps=200, stepper="euler", progress=False)
    assert float(run.c[-1].std()) < float(thin.c.std())


def test_a_diffusivity_that_depends_on_time_is_taken_at_the_start() -> None:
    @dataclass(frozen=True)
    class Warming(vd.Model):
        fields = ("c",)

        def rhs(self, t: Any, c: Any) -> Any:
            return vd.div((1 + t) * vd.grad(c))

    ds = vd.dataset({"c": np.zeros(8)})
    with pytest.warns(UserWarning, match="about 0.25 here"):
        vd.simulate(Warming(), ds.assign_coords(time=1.0), dt=0.3, steps=1, stepper="euler", progress=False)
    vd.simulate(Warming(), ds, dt=0.3, steps=1, stepper="euler", progress=False)


def test_too_little_memory_even_to_spill(tmp_path: Path) -> None:
    ds = vd.dataset({"c": da.zeros((64, 4096, 4096), chunks=(1, 4096, 4096), dtype="float32")})
    with pytest.raises(MemoryError, match=r"memory_limit=40.0 MB even spilled .* takes? [0-9.]+ [MG]B"):
        vd.plan(MODEL, ds, memory_limit="40MB")
    with pytest.raises(MemoryError, match=r"memory_limit=40.0 MB even spilled"):
        vd.simulate(MODEL, ds, memory_limit="40MB", store=tmp_path / "run.zarr", **OK)
    assert not list(tmp_path.iterdir())


def test_spilling_needs_a_store() -> None:
    ds = make_ds()
    with pytest.raises(ValueError, match=r"spills to disk \(.*\): give store=PATH for it, on a disk that has .* free"):
        vd.simulate(MODEL, ds, memory_limit=THIN, **OK)


def test_what_is_at_the_store_is_something_else(tmp_path: Path) -> None:
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("notes")
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    for path in (file, folder):
        with pytest.raises((ValueError, OSError), match=str(path)):
            vd.simulate(MODEL, make_ds(), store=path, **OK)
    assert file.read_text() == "notes" and (folder / "thesis.txt").read_text() == "years of work"
    with pytest.raises(FileNotFoundError, match="its parent must be a directory"):
        vd.simulate(MODEL, make_ds(), store=tmp_path / "no" / "such" / "run.zarr", **OK)


def test_a_store_of_another_run(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    vd.simulate(MODEL, make_ds(), store=path, **OK)
    before = xr.open_zarr(path).load()
    with pytest.raises(ValueError, match="was made with other parameters") as caught:
        vd.simulate(vd.models.CahnHilliard(eps=4.0), make_ds(), store=path, **{**OK, "dt": 0.05})
    assert "'eps': 3.0" in str(caught.value) and "'eps': 4.0" in str(caught.value)
    assert "stored {'dt': 0.1}, given {'dt': 0.05}" in str(caught.value)
    xr.testing.assert_identical(xr.open_zarr(path).load(), before)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not _mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)):
        pytest.skip("mounting a tmpfs takes more rights than this process has")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _mount(*arguments: str) -> bool:
    if not sys.platform.startswith("linux") or shutil.which("mount") is None:
        return False
    return subprocess.run(["mount", *arguments], capture_output=True).returncode == 0


def test_a_directory_that_is_read_only(small_disk: Path) -> None:
    path = small_disk / "run.zarr"
    vd.simulate(MODEL, make_ds(), store=path, **OK)
    assert _mount("-o", "remount,ro", str(small_disk))
    with pytest.raises(OSError, match=r"(?i)read-only") as caught:
        vd.simulate(MODEL, make_ds(), store=small_disk / "new.zarr", **OK)
    assert "new.zarr" in str(caught.value) and caught.value.errno == errno.EROFS
    with pytest.raises(OSError, match=r"(?i)read-only"):
        vd.simulate(MODEL, make_ds(), store=path, **{**OK, "steps": 4})
    assert xr.open_zarr(path).load().sizes["time"] == 2
    assert _mount("-o", "remount,rw", str(small_disk))
    assert vd.simulate(MODEL, make_ds(), store=path, **{**OK, "steps": 4}).sizes["time"] == 3


@pytest.mark.parametrize("kind", ["block", "chunks", "spilled"])
def test_a_full_disk(kind: str, small_disk: Path) -> None:
    """One clear error; the frames that were saved open; with more space the run goes on, bit for bit."""
    ds, path = make_ds((16, 40, 40)), small_disk / "run.zarr"  # 205 kB a frame
    options: dict[str, Any] = {"dt": 0.1, "steps": 40, "save_every": 1, "progress": False}
    if kind == "chunks":
        options["chunks"] = 4
    if kind == "spilled":
        options["memory_limit"] = THICK
    with pytest.raises(OSError) as caught:
        vd.simulate(MODEL, ds, store=path, **options)
    assert caught.value.errno == errno.ENOSPC and "run.zarr" in str(caught.value)
    saved = xr.open_zarr(path).load()
    assert 1 <= saved.sizes["time"] < 41 and np.isfinite(saved.c).all()
    assert _mount("-o", "remount,size=64m", str(small_disk))
    resumed = vd.simulate(MODEL, ds, store=path, **options)
    options.pop("memory_limit", None)
    whole = vd.simulate(MODEL, ds, **options)
    assert vd.Report.of(resumed.attrs).steps == 41 - saved.sizes["time"]
    np.testing.assert_array_equal(resumed.c[: saved.sizes["time"]], saved.c)
    np.testing.assert_allclose(resumed.c, whole.c, rtol=1e-12)


def test_a_disk_without_room_for_scratch(small_disk: Path) -> None:
    """A spilled run that can't begin says what it could not write; with more space the same call does it all."""
    ds, path = make_ds((24, 40, 40)), small_disk / "run.zarr"  # 307 kB a state, its spectrum, and two of a checkpoint
    assert _mount("-o", "remount,size=1m", str(small_disk))
    options: dict[str, Any] = {"dt": 0.1, "steps": 2, "memory_limit": THICK, "progress": False}
    with pytest.raises(OSError, match=r"run\.zarr") as caught:
        vd.simulate(MODEL, ds, store=path, **options)
    assert caught.value.errno == errno.ENOSPC
    assert not path.exists()  # it was foreseen
    assert _mount("-o", "remount,size=64m", str(small_disk))
    run = vd.simulate(MODEL, ds, store=path, **options)
    assert run.sizes["time"] == 2 and vd.Report.of(run.attrs).steps == 2


def test_a_run_that_goes_on_without_room_for_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so before it begins: its spectra went when it last ended. What is done needs no room."""
    ds, path = make_ds((24, 40, 40)), tmp_path / "run.zarr"
    options: dict[str, Any] = {"dt": 0.1, "memory_limit": THICK, "progress": False, "store": path}
    needed = vd.plan(MODEL, ds, memory_limit=THICK, store=path, measure=False).disk_bytes
    vd.simulate(MODEL, ds, steps=2, **options)
    free = [0]
    monkeypatch.setattr(places.shutil, "disk_usage", lambda folder: SimpleNamespace(free=free[0]))
    finished = vd.simulate(MODEL, ds, steps=2, **options)
    assert vd.Report.of(finished.attrs).steps == 0
    with pytest.raises(OSError, match=r"needs .* of disk beside frames, and 0 B are free: .*run\.zarr") as caught:
        vd.simulate(MODEL, ds, steps=4, **options)
    assert caught.value.errno == errno.ENOSPC
    assert xr.open_zarr(path).sizes["time"] == 2
    scratch = path / ".state" / "scratch"
    scratch.mkdir()
    (scratch / "spectrum").write_bytes(bytes(1 << 20))  # of a process that was killed
    free[0] = needed - 2 * ds.c.nbytes - (1 << 12)  # both states of a checkpoint are there
    with pytest.raises(OSError, match="of disk beside frames"):
        vd.simulate(MODEL, ds, steps=4, **options)
    assert not scratch.exists()
    free[0] += 1 << 12
    resumed = vd.simulate(MODEL, ds, steps=4, **options)
    whole = vd.simulate(MODEL, ds, steps=4, dt=0.1, save_at=[0.2, 0.4], progress=False)
    np.testing.assert_allclose(resumed.c[-1], whole.c[-1], rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "after"), [("block", 0), ("block", 3), ("chunks", 4), ("spilled", 0), ("spilled", 9), ("spilled", 99)]
)
def test_a_write_that_fails(kind: str, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where no file system may be mounted."""
    ds, path = make_ds(), tmp_path / "run.zarr"
    options: dict[str, Any] = {"dt": 0.1, "steps": 8, "save_every": 1, "store": path, "progress": False}
    if kind == "chunks":
        options["chunks"] = 2
    if kind == "spilled":
        options["memory_limit"] = THIN
    left, transfer = iter(range(after)), ChunkFiles._transfer

    def fail(self: ChunkFiles, *arguments: Any) -> None:
        if arguments[-1] is os.pwritev and next(left, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        transfer(self, *arguments)

    monkeypatch.setattr(ChunkFiles, "_transfer", fail)
    with pytest.raises(OSError, match="No space left on device") as caught:
        vd.simulate(MODEL, ds, **options)
    assert caught.value.errno == errno.ENOSPC
    monkeypatch.setattr(ChunkFiles, "_transfer", transfer)
    saved = xr.open_zarr(path).load()
    assert np.isfinite(saved.c).all()
    assert saved.sizes["time"] > 0 or after < 20
    resumed = vd.simulate(MODEL, ds, **options)
    np.testing.assert_array_equal(resumed.c[: saved.sizes["time"]], saved.c)
    whole = vd.simulate(MODEL, ds, dt=0.1, steps=8, save_every=1, progress=False)
    np.testing.assert_allclose(resumed.c, whole.c, rtol=1e-12)


def test_a_disk_without_room_is_found_out_before_the_run(tmp_path: Path) -> None:
    ds = vd.dataset({"c": da.zeros((200_000, 512, 1024), chunks=(64, 512, 1024), dtype=np.float32)})
    with pytest.raises(OSError, match=r"the run needs .* of disk beside frames, and .* are free"):
        vd.simulate(MODEL, ds, dt=1.0, steps=1, memory_limit="8GB", store=tmp_path / "run.zarr")
    assert not list(tmp_path.iterdir())
