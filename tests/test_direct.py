"""Direct I/O: bytes come back as they were written, on file systems that have it and on others."""

from __future__ import annotations

import errno
import itertools
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import voxdask as vd
from voxdask import direct, trial
from voxdask.chunkfiles import ChunkFiles
from voxdask.direct import BLOCK_BYTES, BUFFER_BYTES

EDGES = [1, 511, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, BUFFER_BYTES - 7, BUFFER_BYTES, BUFFER_BYTES + 9]


def cut_up(data: np.ndarray, lengths: list[int]) -> list[memoryview]:
    edges = np.cumsum([0, *lengths])
    return [data[a:b].data for a, b in itertools.pairwise(edges)]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Paths and flags of files, as they are opened."""
    seen, system = list[tuple[str, int]](), os.open

    def watched(path: Any, flags: int, *mode: Any, **options: Any) -> int:
        seen.append((str(path), flags))
        return system(path, flags, *mode, **options)

    monkeypatch.setattr(os, "open", watched)
    return seen


@given(
    written=st.lists(st.sampled_from(EDGES), min_size=1, max_size=5),
    wanted=st.lists(st.sampled_from(EDGES), min_size=1, max_size=5),
    offset=st.integers(0, 3 * BLOCK_BYTES),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_what_is_written_is_read(written: list[int], wanted: list[int], offset: int) -> None:
    data = np.random.default_rng(0).integers(0, 256, sum(written), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/u"
        direct.write(path, cut_up(data, written))
        assert Path(path).read_bytes()[: len(data)] == data.tobytes()  # the system's cache knows of it
        found = np.zeros(sum(wanted), np.uint8)
        if offset + len(found) > os.path.getsize(path):
            with pytest.raises(OSError, match=f"Only .* of {offset + len(found)} bytes"):
                direct.read(path, offset, cut_up(found, wanted))
        elif offset + len(found) <= len(data):
            direct.read(path, offset, cut_up(found, wanted))
            np.testing.assert_array_equal(found, data[offset : offset + len(found)])


def test_a_shorter_write_leaves_what_follows(tmp_path: Path) -> None:
    path, old = str(tmp_path / "u"), np.full(3 * BLOCK_BYTES, 7, np.uint8)
    direct.write(path, [old.data])
    direct.write(path, [np.zeros(10, np.uint8).data])
    assert Path(path).read_bytes()[BLOCK_BYTES:] == bytes([7]) * 2 * BLOCK_BYTES


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES + 17, BUFFER_BYTES + 17])
def test_a_file_that_was_cut_off(size: int, tmp_path: Path) -> None:
    path = tmp_path / "u"
    path.write_bytes(bytes(size))
    with pytest.raises(OSError, match=f"Only {size} of {2 * BUFFER_BYTES} bytes") as caught:
        direct.read(str(path), 0, [memoryview(bytearray(2 * BUFFER_BYTES))])
    assert caught.value.errno == errno.EIO
    with pytest.raises(FileNotFoundError):
        direct.read(str(tmp_path / "v"), 0, [memoryview(bytearray(1))])


def test_a_file_system_that_has_no_direct_access(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = os.open

    def refuse(path: Any, flags: int, *mode: Any, **options: Any) -> int:
        if flags & direct._FLAG:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return system(path, flags, *mode, **options)

    monkeypatch.setattr(direct, "_FLAG", 1 << 30)  # also where the system has no such flag
    monkeypatch.setattr(os, "open", refuse)
    direct.write(str(tmp_path / "u"), [memoryview(b"slab")])
    found = bytearray(3)
    direct.read(str(tmp_path / "u"), 1, [memoryview(found)])
    assert found == b"lab"
    assert not direct.available(tmp_path)
    assert os.listdir(tmp_path) == ["u"]


def test_an_error_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files = ChunkFiles.create(tmp_path / "u", (4, 3), (2, 3), "float32", uncached=True)
    files.write_rows(0, np.ones((4, 3), np.float32))
    os.truncate(tmp_path / "u" / "c.1.0", 10)
    with pytest.raises(OSError, match=r"Only 10 of 24 bytes, while reading 24 bytes of chunk .*c\.1\.0"):
        files.read_rows(0, 4)
    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match=r"No space left on device, while writing 24 bytes .*unharmed.*c\.0\.0"):
        files.write_rows(0, np.ones((2, 3), np.float32))


def mixture() -> xr.Dataset:
    return vd.dataset({"c": np.random.default_rng(0).uniform(0.4, 0.6, (66, 40, 48)).astype(np.float32)})


@pytest.mark.parametrize(("stepper", "limit"), [("imex", "20MB"), ("sbdf2", "20.7MB"), ("rk4", "21MB")])
def test_a_run_past_the_cache_has_the_same_bits(
    stepper: str, limit: str, tmp_path: Path, opened: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Working files go past it if that is measured to be faster; what is kept for good never does."""
    if not direct.available(tmp_path):
        pytest.skip("no direct I/O in the folder for temporary files")
    runs, model = [], vd.models.CahnHilliard()
    for uncached in (None, (0.0, 0.0)):
        rates = {"moved": 1e-9, "uncached": uncached}
        monkeypatch.setattr(trial, "_disk_rates", lambda *_, rates=rates: rates)
        monkeypatch.setattr(trial, "beyond_page_cache", lambda _: True)
        monkeypatch.setattr(trial, "_HOLDS", -1.0)
        options: dict[str, Any] = {"stepper": stepper, "memory_limit": limit, "store": tmp_path / f"{uncached}.zarr"}
        plan = vd.plan(model, mixture(), **options)
        assert plan.uncached == (uncached is not None) == ("past the page cache" in str(plan))
        opened.clear()
        runs.append(vd.simulate(model, mixture(), dt=1e-4, steps=9, progress=False, **options))
        assert vd.Report.of(runs[-1].attrs).tier == "spilled"
        ways = {("scratch" in path, bool(flags & direct._FLAG)) for path, flags in opened if "/c." in path}
        assert ways == {(False, False), (True, uncached is not None)}
    np.testing.assert_array_equal(runs[1].c, runs[0].c)


def test_nothing_goes_past_the_cache_if_files_stay_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["voxdask.trial"], "beyond_page_cache", lambda _: False)
    plan = vd.plan(vd.models.CahnHilliard(), mixture(), memory_limit="20MB", store=tmp_path / "run.zarr")
    assert plan.tier == "spilled" and not plan.uncached


def test_the_disk_is_measured_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is moved, and of the time that passes, by a clock that is stopped but for the calls of the system."""
    if not direct.available(tmp_path):
        pytest.skip("no direct I/O in the folder for temporary files")
    files, parts = [tmp_path / str(k) for k in range(4)], [np.ones(BUFFER_BYTES, np.uint8) for _ in range(4)]
    for path, part in zip(files, parts, strict=True):
        direct.write(str(path), [part.data])
    moved, preadv, pwrite = list[int](), os.preadv, os.pwrite

    def count(call: Any) -> Any:
        return lambda *given: moved.append(call(*given)) or moved[-1]

    monkeypatch.setattr(os, "preadv", count(preadv))
    monkeypatch.setattr(os, "pwrite", count(pwrite))
    monkeypatch.setattr(trial.time, "perf_counter", lambda: sum(moved) * 3.0)
    monkeypatch.setattr(trial.time, "process_time", lambda: sum(moved) * 2.0)
    assert trial._moved_past_cache(files, parts) == (2.0, 3.0)
    assert sum(moved) == trial._DISK_ROUNDS * 2 * 4 * BUFFER_BYTES
