"""Chunk files: Zarr reads what we write, we read what Zarr writes, and nothing is made up."""

from __future__ import annotations

import errno
import os
import pickle
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from voxdask.chunkfiles import ChunkFiles
from voxdask.disk import file_sizes, replace_file

pytestmark = pytest.mark.filterwarnings("error")

DTYPES = ["float32", "float64", "complex64", "complex128", "uint8", "bool"]
no_deadline = settings(max_examples=40, deadline=None, derandomize=True)


@st.composite
def layouts(draw: st.DrawFn, slabs: bool) -> tuple[tuple[int, ...], tuple[int, ...], str]:
    shape = draw(st.lists(st.integers(1, 7), min_size=1, max_size=3).map(tuple))
    chunks = tuple(draw(st.integers(1, 8)) for _ in shape)
    return shape, (chunks[0], *shape[1:]) if slabs else chunks, draw(st.sampled_from(DTYPES))


def sample(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Values that tell every voxel and both parts of a complex number apart."""
    values = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    return (values * (1 + 0.5j) if np.dtype(dtype).kind == "c" else values).astype(dtype)


def chunk_slices(array: ChunkFiles) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    for index in np.ndindex(array.chunk_counts):
        yield index, tuple(slice(i * c, (i + 1) * c) for i, c in zip(index, array.chunks, strict=True))


@given(layout=layouts(slabs=True), data=st.data())
@no_deadline
def test_rows_round_trip(layout: tuple[Any, ...], data: st.DataObject) -> None:
    shape, chunks, dtype = layout
    expected = sample(shape, dtype)
    with tempfile.TemporaryDirectory() as folder:
        array = ChunkFiles.create(Path(folder, "u"), shape, chunks, dtype)
        assert array.missing_chunks() == array.chunk_counts[0]
        cut = data.draw(st.integers(0, array.chunk_counts[0])) * chunks[0]
        for lo, block in ((0, expected[:cut]), (cut, expected[cut:])):
            if len(block):
                array.write_rows(lo, block)
        assert array.missing_chunks() == 0
        assert np.array_equal(zarr.open_array(folder + "/u", mode="r")[...], expected)
        lo = data.draw(st.integers(0, shape[0]))
        hi = data.draw(st.integers(lo, shape[0]))
        assert np.array_equal(array.read_rows(lo, hi), expected[lo:hi])
        out = np.empty((hi - lo, *shape[1:]), dtype)
        assert array.read_rows(lo, hi, out) is out
        assert np.array_equal(out, expected[lo:hi])


@given(layout=layouts(slabs=False))
@no_deadline
def test_chunks_round_trip(layout: tuple[Any, ...]) -> None:
    shape, chunks, dtype = layout
    expected = sample(shape, dtype)
    with tempfile.TemporaryDirectory() as folder:
        array = ChunkFiles.create(Path(folder, "u"), shape, chunks, dtype)
        for index, part in chunk_slices(array):
            array.write_chunk(index, expected[part])
        assert array.missing_chunks() == 0
        assert np.array_equal(zarr.open_array(folder + "/u", mode="r")[...], expected)
        assert ChunkFiles.open(Path(folder, "u")) == array


@given(layout=layouts(slabs=False))
@no_deadline
def test_reads_what_zarr_wrote(layout: tuple[Any, ...]) -> None:
    shape, chunks, dtype = layout
    expected = sample(shape, dtype)
    with tempfile.TemporaryDirectory() as folder:
        array = ChunkFiles.create(Path(folder, "u"), shape, chunks, dtype)
        zarr.open_array(folder + "/u", mode="r+")[...] = expected
        for index, part in chunk_slices(array):
            assert np.array_equal(array.read_chunk(index), expected[part])
            out = np.empty(array.chunk_shape(index), dtype)
            assert array.read_chunk(index, out) is out


@pytest.mark.parametrize("shape", [(5,), (4, 3), (4, 3, 1), (3, 2, 3)])
def test_rows_may_lie_in_any_order(shape: tuple[int, ...], tmp_path: Path) -> None:
    """Backwards, each twice, all in one place, read-only: as they are written, and where they are read to."""
    expected = sample(shape, "float32")
    array = ChunkFiles.create(tmp_path / "u", shape, shape, "float32")
    index, doubled = (0,) * len(shape), np.repeat(expected, 2, axis=0)[::2]
    fixed = expected.copy()
    fixed.flags.writeable = False
    for block in (expected[::-1].copy()[::-1], doubled, fixed, np.broadcast_to(expected[:1], shape)):
        array.write_chunk(index, block)
        assert np.array_equal(zarr.open_array(tmp_path / "u", mode="r")[...], block)
    array.write_chunk(index, expected)
    for out in (np.zeros(shape, "float32")[::-1], np.zeros((2 * len(expected), *shape[1:]), "float32")[::2]):
        assert np.array_equal(array.read_chunk(index, out), expected)


@given(layout=layouts(slabs=False), data=st.data())
@no_deadline
def test_rows_may_lie_apart(layout: tuple[Any, ...], data: st.DataObject) -> None:
    """A chunk is written from, and any rows of it read into, a part of a wider array."""
    shape, chunks, dtype = layout
    expected = sample(shape, dtype)
    with tempfile.TemporaryDirectory() as folder:
        array = ChunkFiles.create(Path(folder, "u"), shape, chunks, dtype)
        for index, part in chunk_slices(array):
            block = expected[part]
            wide = np.zeros((len(block), *(n + (a == 0) for a, n in enumerate(block.shape[1:]))), dtype)
            inner = wide[:, 1:] if block.ndim > 1 else wide
            inner[...] = block
            array.write_chunk(index, inner)
            lo = data.draw(st.integers(0, len(block) - 1))
            hi = data.draw(st.integers(lo + 1, len(block)))
            inner[...] = 0
            array.read_chunk(index, inner[lo:hi], (lo, hi))
            assert np.array_equal(inner[lo:hi], block[lo:hi])
            assert not inner[:lo].any() and not inner[hi:].any()
            assert block.ndim == 1 or not wide[:, :1].any()


def test_metadata_is_plain_zarr(tmp_path: Path) -> None:
    ChunkFiles.create(tmp_path / "u", (4, 2), (2, 2), "complex64", dims=("kz", "y"))
    array: Any = zarr.open_array(str(tmp_path / "u"))
    assert array.compressors == () and array.filters == () and array.dtype == np.dtype("<c8")
    assert array.metadata.dimension_names == ("kz", "y")
    assert np.isnan(array.fill_value)


def test_threads_write_distinct_chunks(tmp_path: Path) -> None:
    array = ChunkFiles.create(tmp_path / "u", (64, 32, 32), (4, 32, 32), "float32")
    expected = sample(array.shape, "float32")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda lo: array.write_rows(lo, expected[lo : lo + 4]), range(0, 64, 4)))
    array.sync()
    array.sync_rows(3, 9)
    assert np.array_equal(pickle.loads(pickle.dumps(array)).read_rows(0, 64), expected)


def test_overwrites_in_place_and_copies_what_is_not_contiguous(tmp_path: Path) -> None:
    array = ChunkFiles.create(tmp_path / "u", (5, 4), (2, 4), "float32")
    array.write_rows(0, np.zeros((5, 4), np.float32))
    inode = (tmp_path / "u" / "c.2.0").stat().st_ino
    expected = sample((4, 5), "float32").T
    array.write_rows(0, expected)
    assert np.array_equal(array.read_rows(0, 5), expected)
    assert (tmp_path / "u" / "c.2.0").stat().st_ino == inode


@pytest.mark.parametrize(("lo", "count"), [(1, 2), (0, 1), (2, 3), (4, 2), (0, 0), (-2, 2)])
def test_partial_chunks_are_refused(tmp_path: Path, lo: int, count: int) -> None:
    array = ChunkFiles.create(tmp_path / "u", (5, 4), (2, 4), "float32")
    if (lo, count) == (2, 3):
        array.write_rows(lo, np.zeros((count, 4), np.float32))  # ends with the array
    else:
        with pytest.raises(ValueError, match="not whole chunks of 2"):
            array.write_rows(lo, np.zeros((count, 4), np.float32))


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    array = ChunkFiles.create(tmp_path / "u", (5, 4), (2, 4), "float32")
    pencils = ChunkFiles.create(tmp_path / "v", (5, 4), (2, 2), "float32")
    with pytest.raises(FileExistsError, match="nothing is yet"):
        ChunkFiles.create(tmp_path / "u", (5, 4), (2, 4), "float32")
    with pytest.raises(ValueError, match="same length"):
        ChunkFiles.create(tmp_path / "w", (5, 4), (2,), "float32")
    with pytest.raises(ValueError, match="dtype"):
        ChunkFiles.create(tmp_path / "w", (5,), (2,), "datetime64[s]")
    with pytest.raises(ValueError, match=r"takes float32\(2, 4\) here, not float64"):
        array.write_rows(0, np.zeros((2, 4)))
    with pytest.raises(ValueError, match="contiguous"):
        array.read_rows(0, 4, np.zeros((4, 4), np.float32).T)
    with pytest.raises(ValueError, match="contiguous"):
        pencils.read_chunk((0, 0), np.zeros((2, 4), np.float32)[:, ::2])
    with pytest.raises(ValueError, match="first axis alone"):
        pencils.read_rows(0, 2)
    with pytest.raises(IndexError, match="rows 3 to 6"):
        array.read_rows(3, 6)
    with pytest.raises(IndexError, match="chunk"):
        pencils.read_chunk((0, 2))
    with pytest.raises(FileNotFoundError):
        ChunkFiles.open(tmp_path / "nothing")
    zarr.create_array(str(tmp_path / "z"), shape=(4,), chunks=(2,), dtype="f4")
    with pytest.raises(ValueError, match="not one that ChunkFiles"):
        ChunkFiles.open(tmp_path / "z")


@pytest.mark.parametrize("document", [b"", b'{"zarr_format": 3,', b"[]", b"{}", b"\xff\xfe\x00"])
def test_a_damaged_document_is_named(tmp_path: Path, document: bytes) -> None:
    ChunkFiles.create(tmp_path / "u", (6, 4), (2, 4), "float32")
    (tmp_path / "u" / "zarr.json").write_bytes(document)
    with pytest.raises(ValueError, match=r"u.zarr\.json is damaged, it describes no array"):
        ChunkFiles.open(tmp_path / "u")


def test_missing_and_short_chunks_raise(tmp_path: Path) -> None:
    array = ChunkFiles.create(tmp_path / "u", (6, 4), (2, 4), "float32")
    array.write_rows(0, np.ones((6, 4), np.float32))
    os.remove(tmp_path / "u" / "c.1.0")
    os.truncate(tmp_path / "u" / "c.2.0", 20)
    assert array.missing_chunks() == 2
    with pytest.raises(FileNotFoundError, match=r"c\.1\.0"):
        array.read_rows(0, 6)
    with pytest.raises(FileNotFoundError, match=r"c\.1\.0"):
        array.sync()
    with pytest.raises(OSError, match=r"Only 20 of a chunk's 32 bytes.*c\.2\.0"):
        array.read_chunk((2, 0))
    assert np.array_equal(array.read_rows(4, 5), np.ones((1, 4)))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_write_errors_say_what_and_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    array = ChunkFiles.create(tmp_path / "u", (5, 4), (5, 4), "float64")

    def fail(*_: Any) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "pwritev", fail)
    with pytest.raises(
        OSError, match=r"writing 160 bytes \(the last checkpoint is unharmed\).*c\.0\.0"
    ) as caught:
        array.write_rows(0, np.zeros((5, 4)))
    assert caught.value.errno == code
    assert type(caught.value) is type(caught.value.__cause__)


def test_replace_file_is_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(tmp_path / "a", "old", tmp_path / "a.new")

    def fail(*_: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="unharmed") as caught:
        replace_file(tmp_path / "a", "new", tmp_path / "a.new")
    assert caught.value.errno == errno.EROFS
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_file_sizes_beside_a_writer(tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"abc")
    (tmp_path / "renamed meanwhile").symlink_to(tmp_path / "nowhere")  # listed, but gone when its size is asked for
    assert file_sizes(tmp_path) == {"there": 3}
