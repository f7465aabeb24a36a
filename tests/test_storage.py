"""Rows and columns of what is streamed: what is written one way is read the other, wherever it lies."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxdask import storage
from voxdask.boundary import Axis, End
from voxdask.chunkfiles import ChunkFiles
from voxdask.pencil import GridTransform

KINDS = ("files", "memory", "staged")


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Host memory stands for that which a device reads, and for that of the device."""
    monkeypatch.setattr(storage, "pinned", np.empty)
    monkeypatch.setattr(storage, "finish_transfers", lambda: None)


def maker(folder: Path) -> Callable[..., ChunkFiles]:
    count = itertools.count()
    return lambda name, *rest: ChunkFiles.create(folder / f"{next(count)}" / name, *rest)


def make_rows(kind: str, folder: Path, names: tuple[str, ...], shape: tuple[int, ...], rows: int) -> Any:
    if kind == "memory":
        return storage.RowsInMemory({name: np.full(shape, np.nan, np.float32) for name in names})
    create = maker(folder)
    files = {name: create(name, shape, (rows, *shape[1:]), np.float32) for name in names}
    return storage.Staged(storage.RowsInFiles(files)) if kind == "staged" else storage.RowsInFiles(files)


def make_spectra(kind: str, folder: Path, transform: GridTransform, rows: int, columns: int) -> Any:
    if kind == "memory":
        return storage.SpectraInMemory(transform)
    files = storage.SpectraInFiles(maker(folder), transform, rows, columns, transform.spectrum_shape[1])
    return storage.Staged(files) if kind == "staged" else files


def cuts(size: int, width: int) -> list[tuple[int, int]]:
    return [(lo, min(lo + width, size)) for lo in range(0, size, width)]


def transform_of(shape: tuple[int, ...]) -> GridTransform:
    """Real along a first axis that is not periodic, complex between the sweeps if there is another."""
    ends = [End("neumann", 0.0), *(End("periodic", 0.0) for _ in shape[1:])]
    axes = [Axis(f"x{a}", n, 1.0, False, end, end) for a, (n, end) in enumerate(zip(shape, ends, strict=True))]
    return GridTransform(tuple(axes), np.dtype(np.float32))


shapes = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)


@pytest.mark.parametrize("kind", KINDS)
@given(shape=shapes, rows=st.integers(1, 9), data=st.data())
def test_rows(kind: str, shape: tuple[int, ...], rows: int, data: Any, tmp_path_factory: Any) -> None:
    rows = min(rows, shape[0])
    stored = make_rows(kind, tmp_path_factory.mktemp("rows"), ("a", "b"), shape, rows)
    arrays = {name: np.random.default_rng(k).random(shape, np.float32) for k, name in enumerate("ab")}
    for lo, hi in data.draw(st.permutations(cuts(shape[0], rows))):
        for name, array in arrays.items():
            stored.write(name, lo, array[lo:hi])
    lo = data.draw(st.integers(0, shape[0]))
    hi = data.draw(st.integers(lo, shape[0]))
    for name, array in arrays.items():
        apart = np.full((hi - lo, 2, *shape[1:]), -1, np.float32)
        stored.read(name, lo, hi, apart[:, 0])
        np.testing.assert_array_equal(apart[:, 0], array[lo:hi])
        assert (apart[:, 1] == -1).all()


@pytest.mark.parametrize("kind", KINDS)
@given(shape=shapes, rows=st.integers(1, 9), columns=st.integers(1, 9), data=st.data())
def test_spectra(kind: str, shape: tuple[int, ...], rows: int, columns: int, data: Any, tmp_path_factory: Any) -> None:
    """Written by rows and read by columns, changed by columns and read by any rows."""
    transform = transform_of(shape)
    whole, dtype = transform.spectrum_shape, transform.spectrum_dtype
    rows, columns = min(rows, whole[0]), min(columns, whole[1])
    spectra = make_spectra(kind, tmp_path_factory.mktemp("spectra"), transform, rows, columns)
    expected = {name: np.random.default_rng(k).random(whole).astype(dtype) * (1 + k) for k, name in enumerate("ab")}
    for lo, hi in data.draw(st.permutations(cuts(whole[0], rows))):
        for name, array in expected.items():
            spectra.write(name, lo, array[lo:hi])
    for start, stop in data.draw(st.permutations(cuts(whole[1], columns))):
        for name, array in expected.items():
            pencil = np.empty((whole[0], stop - start, *whole[2:]), dtype)
            spectra.read_columns(name, start, pencil)
            np.testing.assert_array_equal(pencil, array[:, start:stop])
            array[:, start:stop] *= 2 + start
            spectra.write_columns(name, start, pencil * (2 + start))
            spectra.write_saved(name, "saved1", start, pencil)
    lo = data.draw(st.integers(0, whole[0]))
    hi = data.draw(st.integers(lo, whole[0]))
    for name, array in expected.items():
        out = np.full((hi - lo, *whole[1:]), -1, dtype)
        spectra.read(name, lo, hi, out)
        np.testing.assert_array_equal(out, array[lo:hi])
        for start, stop in cuts(whole[1], columns):
            saved = np.empty((whole[0], stop - start, *whole[2:]), dtype)
            spectra.read_saved(name, "saved1", start, saved)
            np.testing.assert_array_equal(saved * (2 + start), array[:, start:stop])


def test_crossings_are_files_of_their_own(tmp_path: Path) -> None:
    """A spectrum of 5 rows and 7 columns, in slabs of 2 and pencils of 3: nine files, none larger than 2 x 3."""
    spectra = make_spectra("files", tmp_path, transform_of((5, 7, 4)), 2, 3)
    for lo, hi in cuts(5, 2):
        spectra.write("a", lo, np.zeros((hi - lo, 7, 3), np.complex64))
    files = [path for path in tmp_path.rglob("c.*") if path.is_file()]
    assert sorted(path.name for path in files) == [f"c.{i}.{j}.0" for i in range(3) for j in range(3)]
    assert {path.stat().st_size for path in files} == {2 * 3 * 3 * 8}
    one = next(path for path in files if path.name == "c.1.2.0")
    one.unlink()
    with pytest.raises(FileNotFoundError, match=r"c\.1\.2\.0"):
        spectra.read_columns("a", 6, np.empty((5, 1, 3), np.complex64))
    spectra.read_columns("a", 3, np.empty((5, 3, 3), np.complex64))  # the others are there


def test_a_staged_block_may_be_thinner_than_the_last(tmp_path: Path) -> None:
    """One buffer serves a thread: a short block after a long one takes a part of it."""
    stored = make_rows("staged", tmp_path, ("a",), (5, 3), 2)
    for lo, hi in cuts(5, 2):
        stored.write("a", lo, np.full((hi - lo, 3), lo, np.float32))
    out = np.empty((5, 3), np.float32)
    stored.read("a", 0, 5, out)
    assert out[:, 0].tolist() == [0, 0, 2, 2, 4]
    stored.read("a", 4, 5, out[:1])
    assert out[:, 0].tolist() == [4, 0, 2, 2, 4]
