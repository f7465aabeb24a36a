"""Arrays larger than memory: the chunk files of an uncompressed Zarr array, read and written directly."""

from __future__ import annotations

import errno
import math
import operator
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import DTypeLike, NDArray
from zarr.codecs import BytesCodec, Endian

from voxdask.disk import UNHARMED, describe_oserror, file_sizes, fsync_path

#: Buffers that one call of the system may read into or write from: the least that any system allows is 1024.
_MOST_VIEWS = 1024

# Key parts are joined by dots, so that an array is one flat directory: one fsync and one listing cover it.
FLAT_KEYS: dict[str, Any] = {"name": "default", "separator": "."}


@dataclass(frozen=True)
class ChunkFiles:
    """A Zarr v3 array on a local disk whose chunk files are read and written directly.

    The array is uncompressed, little-endian and in C order, so a chunk file is the plain C array: reads take
    only the bytes that they need, straight into a NumPy buffer, without the interpreter lock. Any Zarr reader
    opens it. An instance holds a path and three facts, no open file: threads may share it, and it pickles.

    Writes go in place and aren't synced. Distinct chunks may be written at once; one that is being written
    must not be read; after a crash an array is worth what the last :meth:`sync` left of it.

    Parameters
    ----------
    path : Path
        Directory of the array.
    shape, chunks : tuple of int
        Shape of the array and of a chunk, at least 1 along every axis.
    dtype : numpy.dtype
        Boolean, integer, floating or complex.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> u = ChunkFiles.create(folder.name + "/u", shape=(5, 3), chunks=(2, 3), dtype="float32")
    >>> for lo in range(0, 5, 2):
    ...     u.write_rows(lo, np.full((min(2, 5 - lo), 3), lo, np.float32))
    >>> u.read_rows(1, 4)[:, 0]
    array([0., 2., 2.], dtype=float32)
    >>> zarr.open_array(folder.name + "/u")[4, 0]
    array(4., dtype=float32)
    >>> folder.cleanup()
    """

    path: Path
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        shape: Sequence[int],
        chunks: Sequence[int],
        dtype: DTypeLike,
        *,
        dims: Sequence[str] | None = None,
    ) -> ChunkFiles:
        """Create an array without chunks at `path`, where nothing may be yet.

        Raises
        ------
        FileExistsError
            If something is at `path`.
        ValueError
            If `shape` and `chunks` don't fit together, or `dtype` isn't numeric.
        """
        path = Path(path).absolute()
        shape = tuple(map(operator.index, shape))
        chunks = tuple(map(operator.index, chunks))
        dtype = np.dtype(dtype).newbyteorder("<")
        if not shape or len(shape) != len(chunks) or min(*shape, *chunks) < 1:
            raise ValueError(f"{shape=} and {chunks=} must have the same length and hold integers >= 1")
        if dtype.kind not in "biufc":
            raise ValueError(f"dtype={dtype} is not boolean, integer, floating or complex")
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, "an array is created only where nothing is yet", str(path))
        with describe_oserror("creating an array", path):
            zarr.create_array(
                str(path),
                shape=shape,
                chunks=chunks,
                dtype=dtype,
                fill_value=np.nan if dtype.kind in "fc" else 0,
                filters=None,
                serializer=BytesCodec(endian="little"),
                compressors=None,
                chunk_key_encoding=FLAT_KEYS,
                dimension_names=dims,
            )
        return cls(path, shape, chunks, dtype)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ChunkFiles:
        """Open the array at `path`.

        Raises
        ------
        FileNotFoundError
            If there is no Zarr array at `path`.
        ValueError
            If its chunk files aren't plain C arrays with flat keys, or its ``zarr.json`` is damaged.
        """
        path = Path(path).absolute()
        try:
            array = zarr.open_array(str(path), mode="r", zarr_format=3)
        except (AttributeError, LookupError, TypeError, ValueError) as error:  # Zarr looks no further than it must
            raise ValueError(f"{path / 'zarr.json'} is damaged, it describes no array: {error}") from error
        encoding = array.metadata.to_dict()["chunk_key_encoding"]
        codecs = array.metadata.codecs  # type: ignore[union-attr]  # it is v3
        # A byte order of None is that of one-byte types.
        plain = [isinstance(c, BytesCodec) and c.endian in (Endian.little, None) for c in codecs] == [True]
        if not plain or encoding != {"name": "default", "configuration": {"separator": "."}}:
            raise ValueError(f"{path} is a Zarr array, but not one that ChunkFiles.create made")
        return cls(path, array.shape, array.chunks, array.dtype)

    @cached_property
    def chunk_counts(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.shape, self.chunks, strict=True))

    def chunk_shape(self, index: Sequence[int]) -> tuple[int, ...]:
        """Shape of what chunk `index` holds of the array: less than `chunks` at the far edges."""
        counts = self.chunk_counts
        if len(index) != len(counts) or not all(0 <= i < n for i, n in zip(index, counts, strict=True)):
            raise IndexError(f"chunk {tuple(index)} is outside the {counts} chunks of {self.path}")
        return tuple(min(c, n - i * c) for i, c, n in zip(index, self.chunks, self.shape, strict=True))

    def read_rows(self, lo: int, hi: int, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows [lo, hi) of the first axis, of an array that is chunked along it alone.

        Parameters
        ----------
        lo, hi : int
            0 <= lo <= hi <= shape[0]; any rows will do, across chunks.
        out : ndarray, optional
            Of shape (hi - lo, *shape[1:]) and the array's dtype, every row C-contiguous: filled and returned.

        Raises
        ------
        OSError
            If a chunk file is missing or shorter than the rows that are read from it. Never filled in.
        """
        self._check_slabs()
        if not 0 <= lo <= hi <= self.shape[0]:
            raise IndexError(f"rows {lo} to {hi} are outside the {self.shape[0]} rows of {self.path}")
        out = np.empty((hi - lo, *self.shape[1:]), self.dtype) if out is None else out
        self._check_block(out, (hi - lo, *self.shape[1:]))
        rows = self.chunks[0]
        for slab in range(lo // rows, -(-hi // rows)):
            start, stop = max(lo, slab * rows), min(hi, (slab + 1) * rows)
            offset = (start - slab * rows) * self._row_bytes
            self._transfer(self._slab_index(slab), offset, out[start - lo : stop - lo], os.preadv)
        return out

    def write_rows(self, lo: int, block: NDArray[Any]) -> None:
        """Overwrite rows [lo, lo + len(block)), in an array that is chunked along the first axis alone.

        Rows may lie apart; if they aren't C-contiguous, the block is copied.

        Raises
        ------
        ValueError
            If the rows don't start and end at chunk boundaries (or the array's end): part of a chunk can't be
            written safely beside another writer.
        """
        self._check_slabs()
        rows, length, hi = self.chunks[0], self.shape[0], lo + len(block)
        if not 0 <= lo < hi <= length or lo % rows or (hi % rows and hi != length):
            raise ValueError(f"rows {lo} to {hi} of {length} are not whole chunks of {rows} in {self.path}")
        self._check_block(block, (hi - lo, *self.shape[1:]))
        for start in range(lo, hi, rows):
            self._transfer(self._slab_index(start // rows), 0, block[start - lo : start - lo + rows], os.pwritev)

    def read_chunk(
        self, index: Sequence[int], out: NDArray[Any] | None = None, rows: tuple[int, int] | None = None
    ) -> NDArray[Any]:
        """Chunk `index`, without padding: of shape ``chunk_shape(index)``, or those `rows` of it.

        Parameters
        ----------
        index : sequence of int
        out : ndarray, optional
            Filled and returned. Its rows may lie apart, each of them C-contiguous: they are read into where they lie.
        rows : (int, int), optional
            Half-open range within the chunk.

        Raises
        ------
        OSError
            If the chunk file is missing or short.
        """
        shape = self.chunk_shape(index)
        lo, hi = rows or (0, shape[0])
        out = np.empty((hi - lo, *shape[1:]), self.dtype) if out is None else out
        self._check_block(out, (hi - lo, *shape[1:]))
        if shape[2:] == self.chunks[2:]:
            self._transfer(index, lo * self._row_bytes, out, os.preadv)
        else:
            padded = np.empty((hi - lo, *self.chunks[1:]), self.dtype)
            self._transfer(index, lo * self._row_bytes, padded, os.preadv)
            out[...] = padded[tuple(map(slice, out.shape))]
        return out

    def write_chunk(self, index: Sequence[int], block: NDArray[Any]) -> None:
        """Overwrite chunk `index` by `block`, of shape ``chunk_shape(index)``; its rows may lie apart."""
        shape = self.chunk_shape(index)
        self._check_block(block, shape)
        if shape[2:] != self.chunks[2:]:
            padded = np.zeros((shape[0], *self.chunks[1:]), self.dtype)
            padded[tuple(map(slice, shape))] = block
            block = padded
        self._transfer(index, 0, block, os.pwritev)

    def missing_chunks(self) -> int:
        """Number of chunk files that are absent or don't have a whole chunk's size."""
        sizes = file_sizes(self.path)
        files = map(self._chunk_name, np.ndindex(self.chunk_counts))
        return sum(sizes.get(name) != self._chunk_bytes for name in files)

    def sync(self) -> None:
        """Return once all chunks, metadata and directory entries are on disk.

        Raises
        ------
        OSError
            If a chunk is missing, or the disk is full or fails.
        """
        for index in np.ndindex(self.chunk_counts):
            fsync_path(self._chunk_path(index))
        for path in (self.path / "zarr.json", self.path, self.path.parent):
            fsync_path(path)

    def sync_rows(self, lo: int, hi: int) -> None:
        """Return once the contents of the chunks that hold rows [lo, hi) are on disk."""
        self._check_slabs()
        for slab in range(lo // self.chunks[0], -(-hi // self.chunks[0])):
            fsync_path(self._chunk_path(self._slab_index(slab)))

    @cached_property
    def _row_bytes(self) -> int:
        return math.prod(self.chunks[1:]) * self.dtype.itemsize

    @cached_property
    def _chunk_bytes(self) -> int:
        return math.prod(self.chunks) * self.dtype.itemsize

    def _chunk_name(self, index: Sequence[int]) -> str:
        return ".".join(("c", *map(str, index)))

    def _chunk_path(self, index: Sequence[int]) -> str:
        return os.path.join(self.path, self._chunk_name(index))

    def _slab_index(self, slab: int) -> tuple[int, ...]:
        return (slab, *(0 for _ in self.shape[1:]))

    def _check_slabs(self) -> None:
        if self.chunks[1:] != self.shape[1:]:
            raise ValueError(
                f"{self.path} has chunks {self.chunks} of {self.shape}: rows need one that is chunked along "
                "the first axis alone; use read_chunk and write_chunk"
            )

    def _check_block(self, block: NDArray[Any], shape: tuple[int, ...]) -> None:
        if block.shape != shape or block.dtype != self.dtype:
            raise ValueError(f"{self.path} takes {self.dtype}{shape} here, not {block.dtype}{block.shape}")

    def _transfer(
        self, index: Sequence[int], offset: int, block: NDArray[Any], call: Callable[[int, list[memoryview], int], int]
    ) -> None:
        """Read rows of a chunk from its file into a block, or write them, where these lie."""
        path, writing = self._chunk_path(index), call is os.pwritev
        if writing and not block[0].flags.c_contiguous:
            block = np.ascontiguousarray(block)
        views, whole = self._views(block), (len(block) - 1) * self._row_bytes + block[:1].nbytes
        action = f"writing {block.nbytes} bytes" if writing else f"reading {block.nbytes} bytes of chunk {tuple(index)}"
        with describe_oserror(action, path, UNHARMED if writing else ""):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT if writing else os.O_RDONLY, 0o666)
            try:
                done, first = 0, 0
                while first < len(views):
                    count = call(fd, views[first : first + _MOST_VIEWS], offset + done)
                    if count == 0 and not writing:
                        message = f"Only {offset + done} of a chunk's {self._chunk_bytes} bytes"
                        raise OSError(errno.EIO, message)
                    done += count
                    if done == whole:  # nearly always at once
                        break
                    while first < len(views) and count >= views[first].nbytes:
                        count -= views[first].nbytes
                        first += 1
                    if count:
                        views[first] = views[first][count:]
                if writing and done < self._chunk_bytes:
                    # Zarr's edge chunks have full size. Last: a failed first write must leave a short file.
                    os.ftruncate(fd, self._chunk_bytes)
            finally:
                os.close(fd)

    def _views(self, block: NDArray[Any]) -> list[memoryview]:
        """The bytes of a block as they lie in a file: in one view, or one for each row, and padding between these."""
        padding = self._row_bytes - math.prod(block.shape[1:]) * self.dtype.itemsize
        if block.flags.c_contiguous and not padding:
            return [_as_bytes(block)] if block.size else []
        apart, wide = block.strides[0], block[:1].nbytes  # of one axis, block[0] would be a copy
        if block[:1].flags.c_contiguous and block.strides[-1] == block.itemsize and apart >= wide > 0:
            # slices of one view of all that lies there: of sixty rows they are made in 13 us instead of 76
            last = (len(block) - 1) * apart
            whole = np.lib.stride_tricks.as_strided(block.view(np.uint8), (last + wide,), (1,)).data
            rows = [whole[start : start + wide] for start in range(0, last + 1, apart)]
            if not padding:
                return rows
        else:
            rows = [_as_bytes(block[k : k + 1]) for k in range(len(block))]
        between = memoryview(bytearray(padding))
        views = [view for row in rows for view in (row, between) if view.nbytes]
        return views[:-1] if padding else views  # what follows the last row is as good as not there


def _as_bytes(array: NDArray[Any]) -> memoryview:
    """The bytes of a C-contiguous array, without a copy."""
    if not array.flags.c_contiguous:
        raise ValueError(f"rows must be C-contiguous, not of strides {array.strides}")
    return array.reshape(-1).view(np.uint8).data
