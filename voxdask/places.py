"""Where a run lies: its path, and the disk that it is on."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

from voxdask.plans import Plan
from voxdask.units import format_bytes


def store_path(store: Any) -> str:
    """A path on a disk; ``~`` is the user's home.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> store_path("runs/first.zarr")
    'runs/first.zarr'
    >>> store_path("s3://first")
    Traceback (most recent call last):
    ValueError: store is 's3://first'; give a path on a disk, a local one or one that all workers of a cluster see
    """
    if not isinstance(store, str | os.PathLike) or not os.fspath(store) or "://" in os.fspath(store):
        raise ValueError(
            f"store is {store!r}; give a path on a disk, a local one or one that all workers of a cluster see"
        )
    return os.path.expanduser(os.fspath(store))


def folder_of(store: str | os.PathLike[str] | None) -> Path:
    """A folder that is there and no run, on the disk of a store; the working directory if there is none."""
    if store is None:
        return Path.cwd()
    there = Path(store_path(store)).resolve()
    while not there.is_dir() or Path(there, "zarr.json").exists():
        there = there.parent
    return there


def require_disk(plan: Plan, path: str | os.PathLike[str], held: int = 0) -> None:
    """OSError if the disk has no room for what a spilled run needs, beyond the bytes that it holds there already."""
    needed, free = plan.disk_bytes - held, shutil.disk_usage(folder_of(path)).free
    if needed > free:
        raise OSError(
            errno.ENOSPC,
            f"the run needs {format_bytes(needed)} of disk beside frames, and {format_bytes(free)} are free",
            os.fspath(path),
        )
