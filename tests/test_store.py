"""A run on disk: at any instant it opens, shows whole frames only, and holds the state of one step."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import subprocess
import time
import warnings
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import xarray as xr
import zarr

import voxdask as vd
from voxdask.grid import Grid
from voxdask.store import Checkpoint, RunStore

pytestmark = pytest.mark.filterwarnings("error")

GRID = Grid(("z", "y", "x"), (5, 4, 3), (1.0, 1.0, 2.0), (0.5, 0.5, 1.0), unit="um", node_centred=("x",))
FIELDS: dict[str, dict[str, Any]] = {"A": {"units": "mol/l"}, "B": {}}
ROWS = 2

# Processes that start fast, since they fork from one that has imported everything and runs no threads.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["voxdask.store", "dask.array"])


def create(path: Path, **changes: Any) -> RunStore:
    options: dict[str, Any] = {
        "grid": GRID,
        "fields": FIELDS,
        "dtype": "float32",
        "rows": ROWS,
        "identity": {"dt": 0.5},
    }
    return RunStore.create(path, **(options | changes))


def blocks(value: float) -> Iterator[tuple[int, np.ndarray]]:
    for lo in range(0, GRID.shape[0], ROWS):
        yield lo, np.full((min(ROWS, GRID.shape[0] - lo), *GRID.shape[1:]), value, np.float32)


def advance(store: RunStore) -> Checkpoint:
    """One step of a run whose frames and state hold their own number everywhere."""
    last, times = store.checkpoint, store.frame_times
    step, slot = (last.step + 1, 1 - last.slot) if last else (0, 0)
    writer = store.frame_writer()
    for name in FIELDS:
        for lo, block in blocks(len(times)):
            writer.write(len(times), name, lo, block)
    for array in store.slot(slot).values():
        for lo, block in blocks(step):
            array.write_rows(lo, block)
    return store.commit(step, step * 0.5, slot, frame_times=[*times, step * 0.5])


def check(path: Path) -> int:
    """Whether readers see whole frames only, and the state is of one step; the number of frames."""
    ds = xr.open_zarr(path)
    frames = int(ds.sizes["time"])
    assert np.array_equal(ds.time, 0.5 * np.arange(frames))
    for name in FIELDS:
        assert np.array_equal(
            ds[name].values, np.broadcast_to(np.arange(frames)[:, None, None, None], ds[name].shape)
        )
    return frames


def check_state(path: Path) -> None:
    store = RunStore.open(path)
    if last := store.checkpoint:
        assert last.frames == last.step + 1 == len(store.frame_times)
        for array in store.slot(last.slot).values():
            assert np.all(array.read_rows(0, GRID.shape[0]) == last.step)


def run_forever(path: Path) -> None:
    warnings.simplefilter("error")
    store = RunStore.open(path) if RunStore.exists(path) else create(path, state=["rhs"])
    with store.lock():
        while True:
            advance(store)


def hold_lock(path: Path, connection: Connection) -> None:
    try:
        with RunStore.open(path).lock():
            connection.send("locked")
            time.sleep(60)
    except BlockingIOError as error:
        connection.send(str(error))


def test_opens_from_the_first_instant(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    create(path, attrs={"model": "GrayScott", "feed": np.float32(0.5), "shape": (5, 4)})
    ds = xr.open_zarr(path)
    assert dict(ds.sizes) == {"time": 0, "z": 5, "y": 4, "x": 3}
    assert ds.A.dims == ("time", "z", "y", "x") and ds.A.dtype == np.float32 and ds.A.units == "mol/l"
    for dim, values, attrs in GRID.coords().values():
        assert np.array_equal(ds[dim], values) and ds[dim].dtype == np.float64 and ds[dim].attrs == attrs
    assert ds.attrs["model"] == "GrayScott" and ds.attrs["feed"] == 0.5 and ds.attrs["shape"] == [5, 4]
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.zarr"]
    store = RunStore.open(path)
    assert store.checkpoint is None and store.frame_times == [] and store.rows == ROWS


def test_commit_publishes_frames_and_state(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    store = create(path)
    with store.lock():
        for number in range(3):
            before = store.dataset()
            assert (
                advance(store) == store.checkpoint == Checkpoint(number, 0.5 * number, number % 2, number + 1)
            )
            assert before.sizes["time"] == number and np.array_equal(
                before.A.mean(("z", "y", "x")), range(number)
            )
            assert check(path) == number + 1
            check_state(path)
    assert store.dataset().A.chunksizes["z"] == (2, 2, 1) and store.dataset().A.chunksizes["time"] == (
        1,
        1,
        1,
    )
    array: Any = zarr.open_array(str(path / "A"), mode="r")
    assert np.isnan(array.fill_value) and "Zstd" in str(array.compressors)
    assert store.dataset().identical(xr.open_zarr(path, consolidated=False))


def test_uncommitted_frames_are_invisible_and_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    store = create(path)
    with store.lock():
        advance(store)
        for lo, block in blocks(-1):
            store.frame_writer().write(1, "A", lo, block)
    for consolidated in (None, True, False):
        assert xr.open_zarr(path, consolidated=consolidated).sizes["time"] == 1
    (path / "A" / "c.1.0.0.x.partial").touch()
    resumed = RunStore.open(path)
    with resumed.lock():
        advance(resumed)
    assert check(path) == 2
    assert not list(path.glob("A/*.partial"))


def test_many_frames_cross_the_chunks_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxdask.frames.TIMES_PER_CHUNK", 2)
    store = create(tmp_path / "run.zarr")
    with store.lock():
        for _ in range(5):
            advance(store)
    assert check(store.path) == 5
    assert RunStore.open(store.path).frame_times == [0.0, 0.5, 1.0, 1.5, 2.0]


def test_commit_without_a_frame(tmp_path: Path) -> None:
    store = create(tmp_path / "run.zarr")
    with store.lock():
        advance(store)
        for array in store.slot(1).values():
            for lo, block in blocks(7):
                array.write_rows(lo, block)
        store.commit(7, 3.5, 1, frame_times=store.frame_times)
    assert check(store.path) == 1
    assert RunStore.open(store.path).checkpoint == Checkpoint(7, 3.5, 1, 1)


def test_everything_is_on_disk_before_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = create(tmp_path / "run.zarr")
    synced: set[str] = set()
    at_commit: list[set[str]] = []
    fsync, replace = os.fsync, os.replace

    def spy_on_fsync(fd: int) -> None:
        fsync(fd)
        synced.add(os.path.relpath(os.readlink(f"/proc/self/fd/{fd}"), store.path))

    def spy_on_replace(source: Any, target: Any) -> None:
        if Path(target) == store.path / "zarr.json":
            at_commit.append(set(synced))
        replace(source, target)

    with store.lock():
        monkeypatch.setattr(os, "fsync", spy_on_fsync)
        monkeypatch.setattr(os, "replace", spy_on_replace)
        advance(store)
    chunks = [f"c.{i}.0.0" for i in range(3)]
    expected = {f".state/slot0/{name}/{chunk}" for name in FIELDS for chunk in [*chunks, "zarr.json", ""]}
    expected |= {f"{name}/c.0.{i}.0.0" for name in FIELDS for i in range(3)} | {"time/c.0", ".state/slot0"}
    expected |= {f"{name}/{part}" for name in (*FIELDS, "time") for part in ("zarr.json.new", "")}
    assert {name.rstrip("/") for name in expected} | {".state/zarr.json.new"} <= at_commit[0]
    assert "." in synced - at_commit[0]


def test_killed_at_any_instant(tmp_path: Path) -> None:
    path, delays, frames = tmp_path / "run.zarr", np.random.default_rng(0).uniform(0.0, 0.6, 90), 0
    for tried, delay in enumerate(delays):
        if tried >= 15 and frames > 15:  # more tries where a busy machine leaves the writer little time
            break
        process = processes.Process(target=run_forever, args=(path,))
        process.start()
        process.join(delay)
        assert process.exitcode is None, "the writer failed by itself"
        process.kill()
        process.join()
        if path.exists():
            before, frames = frames, check(path)
            assert frames >= before
            check_state(path)
    assert frames > 15, "the writer was never let to do its work"


def test_readers_beside_a_writer(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    create(path, state=["rhs"])
    process = processes.Process(target=run_forever, args=(path,))
    process.start()
    try:
        end, seen = time.monotonic() + 3, [0]
        while time.monotonic() < end or (len(set(seen)) < 4 and time.monotonic() < end + 10):
            seen.append(check(path))
            assert RunStore.open(path).frame_times[: seen[-1]] == [0.5 * n for n in range(seen[-1])]
        assert process.is_alive() and seen == sorted(seen) and len(set(seen)) >= 4
    finally:
        process.kill()
        process.join()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    store = create(path)
    here, there = processes.Pipe()
    with store.lock():
        with (
            pytest.raises(BlockingIOError, match=r"Another process or thread writes this run.*run\.zarr"),
            store.lock(),
        ):
            pass
        second = processes.Process(target=hold_lock, args=(path, there))
        second.start()
        assert "Another process or thread writes this run" in here.recv()
        second.join()
    holder = processes.Process(target=hold_lock, args=(path, there))
    holder.start()
    assert here.recv() == "locked"
    with pytest.raises(BlockingIOError), store.lock():
        pass
    holder.kill()
    holder.join()
    with store.lock():
        advance(store)
    with pytest.raises(RuntimeError, match=r"with store\.lock"):
        store.commit(1, 0.5, 1, frame_times=[0.0])


def test_taking_the_lock_catches_up_with_the_last_writer(tmp_path: Path) -> None:
    first = create(tmp_path / "run.zarr")
    second = RunStore.open(first.path)
    for store in (first, second, first):
        with store.lock():
            advance(store)
    assert check(first.path) == 3


def test_identity(tmp_path: Path) -> None:
    store = create(
        tmp_path / "run.zarr", identity={"dt": 0.5, "shape": (5, 4, 3), "stepper": "imex", "eps": 3.0}
    )
    store.check_identity({"dt": np.float64(0.5), "shape": [5, 4, 3], "stepper": "imex", "eps": 3})
    with pytest.raises(ValueError) as caught:
        store.check_identity({"dt": 0.25, "shape": (5, 4, 3), "stepper": "imex", "seed": None})
    message = str(caught.value)
    assert "stored {'dt': 0.5}, given {'dt': 0.25}" in message
    assert "stored {'eps': 3.0}, given nothing" in message
    assert "stored nothing, given {'seed': None}" in message
    assert "stepper" not in message and "another path" in message and str(store.path) in message


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rows": 6}, ValueError, "rows=6"),
        ({"rows": 0}, ValueError, "rows=0"),
        ({"dtype": "int32"}, ValueError, "int32"),
        ({"fields": {}}, ValueError, "a field at least"),
        ({"fields": {"time": {}}}, ValueError, "distinct names"),
        ({"fields": {"a/b": {}}}, ValueError, "'a/b'"),
        ({"fields": {"c": {}}, "state": ["c"]}, ValueError, "distinct names"),
        ({"attrs": {"voxdask": 1}}, ValueError, "taken"),
        ({"identity": {"model": object()}}, TypeError, r"identity\['model'\]"),
        ({"identity": {"dt": float("nan")}}, ValueError, r"identity\['dt'\]"),
    ],
)
def test_bad_arguments_leave_nothing_behind(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        create(tmp_path / "run.zarr", **changes)
    assert not list(tmp_path.iterdir())


def test_creating_leaves_what_others_build_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.zarr"
    others = [tmp_path / f".run.zarr.{'0' * 32}", tmp_path / ".run.zarr.partial"]
    for other in others:
        other.mkdir()
        (other / "zarr.json").touch()
    with monkeypatch.context() as patch, pytest.raises(OSError, match="no rename"):
        patch.setattr("voxdask.store.os.rename", Mock(side_effect=OSError(5, "no rename")))
        create(path)
    assert sorted(tmp_path.iterdir()) == sorted(others)
    create(path)
    assert sorted(tmp_path.iterdir()) == sorted([*others, path])
    with pytest.raises(FileExistsError):
        create(path)
    assert all((folder / "zarr.json").exists() for folder in (*others, path))


def test_paths_that_are_not_runs(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "folder").mkdir()
    xr.Dataset({"c": ("x", [1.0])}).to_zarr(tmp_path / "other.zarr", consolidated=False)
    for name in ("notes.txt", "folder", "other.zarr"):
        with pytest.raises(FileExistsError, match=name):
            create(tmp_path / name)
        with pytest.raises(ValueError, match=rf"{name} is not a voxdask run"):
            RunStore.open(tmp_path / name)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(FileNotFoundError, match=r"lost.*run\.zarr"):
        create(tmp_path / "lost" / "run.zarr")
    with pytest.raises(NotADirectoryError, match=r"parent must be a directory.*run\.zarr"):
        create(tmp_path / "notes.txt" / "run.zarr")
    with pytest.raises(FileNotFoundError, match=r"no run to open.*lost"):
        RunStore.open(tmp_path / "lost")


def test_commits_and_writes_that_make_no_sense(tmp_path: Path) -> None:
    store = create(tmp_path / "run.zarr")
    with store.lock():
        for _ in range(3):
            advance(store)
        commit, times = store.commit, store.frame_times
        for step, slot, frame_times, message in (
            (3, 0, times, "other slot"),
            (1, 1, times, "can't follow"),
            (3, 2, times, "neither 0 nor 1"),
            (3, 1, times[:2], "start with"),
            (3, 1, [*times, 0.7], "rise"),
            (3, 1, [*times, np.inf], "finite"),
        ):
            with pytest.raises(ValueError, match=message):
                commit(step, 1.5, slot, frame_times=frame_times)
        with pytest.raises(FileNotFoundError, match=r"3 chunk files.*c\.3\.0\.0\.0"):
            commit(3, 1.5, 1, frame_times=[*times, 1.5])
        write, block = pickle.loads(pickle.dumps(store.frame_writer())).write, np.zeros((2, 4, 3), np.float32)
        for frame, lo, wrong, message in (
            (2, 0, block, "committed"),
            (3, 1, block, "not a whole chunk"),
            (3, 4, block, "not a whole chunk"),
            (3, 6, block, "not a whole chunk"),
            (3, 0, block.astype(float), "float64"),
        ):
            with pytest.raises(ValueError, match=message):
                write(frame, "A", lo, wrong)
    assert check(store.path) == 3
    check_state(store.path)


@pytest.mark.parametrize("lost", ["A/c.1.2.0.0", "time/c.0", "x/c.0", ".state/slot1/B/c.0.0.0"])
def test_missing_files_are_named(tmp_path: Path, lost: str) -> None:
    store = create(tmp_path / "run.zarr")
    with store.lock():
        advance(store)
        advance(store)
    (store.path / lost).unlink()
    with pytest.raises(FileNotFoundError, match=rf"1 chunk files.*{os.path.dirname(lost)}"):
        RunStore.open(store.path)


def test_a_damaged_state_leaves_the_frames(tmp_path: Path) -> None:
    store = create(tmp_path / "run.zarr")
    with store.lock():
        advance(store)
    checkpoint = store.checkpoint
    assert checkpoint is not None
    (store.path / ".state" / f"slot{checkpoint.slot}" / "B" / "zarr.json").write_text("{")
    with pytest.raises(ValueError, match=r"run\.zarr: the state .* another path.*B.zarr\.json is damaged"):
        RunStore.open(store.path)
    assert check(store.path) == len(store.frame_times) > 0


def test_scratch(tmp_path: Path) -> None:
    store = create(tmp_path / "run.zarr")
    with pytest.raises(RuntimeError, match="lock"):
        store.scratch("u_hat", (5, 4), (2, 2), "complex64")
    with store.lock():
        for chunks in ((2, 2), (5, 1)):
            array = store.scratch("u_hat", (5, 4), chunks, "complex64")
            assert array.missing_chunks() == np.prod(array.chunk_counts)
            array.write_chunk((0, 0), np.zeros(chunks, np.complex64))
        store.clear_scratch()
        store.clear_scratch()
    assert not array.path.exists()
    assert check(store.path) == 0


def test_a_failed_commit_leaves_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = create(tmp_path / "run.zarr")
    replace = os.replace

    def fail_at_the_root(source: Any, target: Any) -> None:
        if Path(target) == store.path / "zarr.json":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        replace(source, target)

    with store.lock():
        advance(store)
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fail_at_the_root)
            with pytest.raises(OSError, match=r"Read-only.*unharmed.*run\.zarr/zarr\.json") as caught:
                advance(store)
        assert caught.value.errno == errno.EROFS
        assert check(store.path) == 1
        check_state(store.path)
        advance(store)
    assert check(store.path) == 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB, where the tests may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("mounting a small disk isn't permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_full_disk(small_disk: Path) -> None:
    store = create(small_disk / "run.zarr")
    with store.lock(), pytest.raises(OSError, match=r"No space left.*writing.*unharmed") as caught:
        while True:
            advance(store)
    assert caught.value.errno == errno.ENOSPC
    frames = check(store.path)
    assert frames >= 1
    check_state(store.path)


def test_read_only_disk(small_disk: Path) -> None:
    store = create(small_disk / "run.zarr")
    with store.lock():
        advance(store)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert check(store.path) == 1
    check_state(store.path)
    with pytest.raises(OSError, match=r"locking the run for writing.*run\.zarr"), store.lock():
        pass
    with pytest.raises(OSError, match=r"can be written to.*new\.zarr") as caught:
        create(small_disk / "new.zarr")
    assert caught.value.errno == errno.EROFS


def test_what_a_process_that_died_left_is_removed(tmp_path: Path) -> None:
    names = [".run.zarr." + "0" * 32, ".run.zarr." + "1" * 32, ".run.zarr.backup", ".other.zarr." + "0" * 32]
    for name in names:
        (tmp_path / name / "c").mkdir(parents=True)
        old = time.time() - (7200 if name != names[1] else 60)
        os.utime(tmp_path / name, (old, old))
    vd.simulate(
        vd.models.CahnHilliard(), vd.dataset({"c": np.full((4, 4, 4), 0.5)}), dt=0.1, steps=1,
        store=tmp_path / "run.zarr", progress=False,
    )  # fmt: skip
    assert sorted(os.listdir(tmp_path)) == sorted([*names[1:], "run.zarr"])
