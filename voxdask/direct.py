"""Direct I/O: bytes that go between memory and a file past the page cache of the system."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from voxdask.recycler import pages

#: What places in a file, lengths and addresses must be multiples of: no disk asks for more than a page.
BLOCK_BYTES = 4096
#: Bytes that a call of the system moves, from or to memory of its own: what the caller has may lie anywhere.
BUFFER_BYTES = 1 << 20

_FLAG = getattr(os, "O_DIRECT", 0)  # of Linux


def available(folder: Path) -> bool:
    """Whether files in a folder can be opened so that they are read and written past the page cache."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".voxdask-trial-") as file:
        try:
            os.close(os.open(file.name, os.O_RDONLY | _FLAG))
        except OSError:
            return False
    return _FLAG != 0


def write(path: str, views: Sequence[memoryview]) -> None:
    """Overwrite the beginning of a file, up to the end of a block: nothing is known of what follows the views there.

    Where files can't be written past the page cache, they are written through it.

    Parameters
    ----------
    path : str
        Of a file, which is made if there is none.
    views : sequence of memoryview
        Bytes, one after the other as they are to lie in the file.

    Raises
    ------
    OSError
        If the disk is full or fails.

    Examples
    --------
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write(folder + "/u", [memoryview(b"slabs, "), memoryview(b"pencils")])
    ...     there = bytearray(7)
    ...     read(folder + "/u", 7, [memoryview(there)])
    >>> there
    bytearray(b'pencils')
    """
    buffer = pages(min(BUFFER_BYTES, _whole_blocks(sum(view.nbytes for view in views))))
    place = filled = 0
    file = _open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for view in views:
            rest = np.frombuffer(view, np.uint8)
            while len(rest):
                part = rest[: len(buffer) - filled]
                buffer[filled : filled + len(part)] = part
                rest, filled = rest[len(part) :], filled + len(part)
                if filled == len(buffer):
                    _write_all(file, buffer, place)
                    place, filled = place + filled, 0
        if filled:
            _write_all(file, buffer[: _whole_blocks(filled)], place)
    finally:
        os.close(file)


def read(path: str, offset: int, views: Sequence[memoryview]) -> None:
    """Fill views with what lies in a file from `offset` on.

    Raises
    ------
    OSError
        If the file ends before they are full; ``FileNotFoundError`` if there is none.
    """
    end, place = offset + sum(view.nbytes for view in views), offset - offset % BLOCK_BYTES
    buffer = pages(min(BUFFER_BYTES, _whole_blocks(end - place)))
    start = stop = 0  # of what has been read and is yet to be handed on
    file = _open(path, os.O_RDONLY)
    try:
        for view in views:
            rest = np.frombuffer(view, np.uint8)
            while len(rest):
                if start == stop:
                    stop = os.preadv(file, [buffer[: _whole_blocks(end - place)].data], place)
                    start = max(offset - place, 0)
                    if stop <= start or (stop % BLOCK_BYTES and place + stop < end):
                        raise OSError(errno.EIO, f"Only {place + stop} of {end} bytes")
                    place += stop
                part = rest[: stop - start]
                part[...] = buffer[start : start + len(part)]
                rest, start = rest[len(part) :], start + len(part)
    finally:
        os.close(file)


def _open(path: str, flags: int) -> int:
    try:
        return os.open(path, flags | _FLAG, 0o666)
    except OSError as error:
        if error.errno != errno.EINVAL:  # so says a file system that can't
            raise
    return os.open(path, flags, 0o666)


def _write_all(file: int, blocks: np.ndarray, place: int) -> None:
    while len(blocks):
        written = os.pwrite(file, blocks.data, place)
        blocks, place = blocks[written:], place + written


def _whole_blocks(size: int) -> int:
    return -(-size // BLOCK_BYTES) * BLOCK_BYTES
