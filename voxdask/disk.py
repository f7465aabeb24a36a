"""Files and directories: synced, replaced at once, removed when stale; errors that say what was being done to which."""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: What an error says beside where a run on disk is as good as before.
UNHARMED = "the last checkpoint is unharmed"
#: How long nobody can be at work in a directory without a change in it.
_STALE_SECONDS = 3600.0


def file_sizes(folder: str | os.PathLike[str]) -> dict[str, int]:
    """Size in bytes of each file in `folder`; one that a writer renames or removes meanwhile is left out."""
    sizes = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                sizes[entry.name] = entry.stat().st_size
    return sizes


def fsync_path(path: str | os.PathLike[str]) -> None:
    """Return once the file or directory `path` is on disk."""
    with describe_oserror("syncing to disk", path, UNHARMED):
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def replace_file(path: Path, text: str, temporary: Path) -> None:
    """Replace the file `path` by `text`, atomically and durably; `temporary` is a path on the same disk."""
    with describe_oserror(f"writing {len(text)} bytes", path, UNHARMED):
        try:
            temporary.write_text(text, encoding="utf-8")
            fsync_path(temporary)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    fsync_path(path.parent)


def remove_stale(folder: Path, pattern: str) -> None:
    """Remove directories of a name that is a regular expression's, left by processes that died over an hour ago."""
    with suppress(OSError):  # who may not look there, or remove it, goes on without
        for path in folder.iterdir():
            if re.fullmatch(pattern, path.name) and time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


@contextmanager
def describe_oserror(action: str, path: str | os.PathLike[str], consolation: str = "") -> Iterator[None]:
    """Re-raise an ``OSError`` with the same errno, and so class, saying what was being done to which path.

    Examples
    --------
    >>> with describe_oserror("reading 8 bytes", "lost.npy"):
    ...     raise OSError(errno.ENOENT, "No such file or directory")
    Traceback (most recent call last):
    FileNotFoundError: [Errno 2] No such file or directory, while reading 8 bytes: 'lost.npy'
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"{reason}, while {action}" + (f" ({consolation})" if consolation else "")
        raise OSError(error.errno or errno.EIO, message, os.fspath(path)) from error
