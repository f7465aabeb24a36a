"""The run on disk: frames that anybody may open at any instant, a state to resume from, one atomic commit."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from filelock import FileLock, Timeout
from numpy.typing import DTypeLike

from voxdask.chunkfiles import ChunkFiles
from voxdask.disk import describe_oserror, fsync_path, remove_stale, replace_file
from voxdask.frames import (
    GROUP,
    Documents,
    Families,
    FrameFamily,
    FrameWriter,
    build_group,
    open_array,
    plain_json,
    require_chunks,
    root_json,
    sync_frames,
    with_frames,
)
from voxdask.grid import Grid
from voxdask.members import member_name

__all__ = ["Checkpoint", "FrameFamily", "FrameWriter", "RunStore"]

MANIFEST = "voxdask"
FORMAT = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a commit made current: the state after `step` steps, in `slot`, and the first `frames` frames.

    Steps that are controlled go on with what `control` holds.
    """

    step: int
    time: float
    slot: int
    frames: int
    control: dict[str, Any] | None = None


class RunStore:
    """A Zarr v3 group that ``xarray.open_zarr`` opens at any instant, and a hidden state beside it.

    ::

        run.zarr/
          zarr.json            attributes, manifest, metadata of all arrays below: the commit point
          z, y, x, time        coordinates
          c, ...               one array per field, (time, z, y, x), chunks (1, rows, y, x), zstd
          .state/slot0, slot1  the state, twice: ChunkFiles by name, chunks (rows, y, x)
          .state/scratch       whatever else needs disk, such as spectra
          .state/lock          held by the writer

    A reader learns from the root's ``zarr.json`` how many frames there are. :meth:`commit` replaces it after
    all that it names is on disk, so whatever else is being written, or was when the process died, isn't part
    of the run. The slot of the checkpoint isn't written to until a commit has moved on to the other one.

    Get one from :meth:`create` or :meth:`open`; write within :meth:`lock`.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> grid = Grid(dims=("y", "x"), shape=(4, 3), spacing=(1.0, 1.0), origin=(0.5, 0.5))
    >>> store = RunStore.create(folder.name + "/run.zarr", grid=grid, fields={"c": {"units": "1"}},
    ...                         dtype="float32", rows=2, identity={"dt": 0.5})
    >>> with store.lock():
    ...     for lo in (0, 2):
    ...         block = np.full((2, 3), lo, np.float32)
    ...         store.frame_writer().write(0, "c", lo, block)
    ...         store.slot(1)["c"].write_rows(lo, block)
    ...     store.commit(step=3, time=1.5, slot=1, frame_times=[1.5])
    Checkpoint(step=3, time=1.5, slot=1, frames=1, control=None)
    >>> xr.open_zarr(folder.name + "/run.zarr").c.sel(time=1.5).values[:, 0]
    array([0., 0., 2., 2.], dtype=float32)
    >>> folder.cleanup()
    """

    path: Path
    _attributes: dict[str, Any]
    _arrays: Documents
    _manifest: dict[str, Any]
    _times: list[float]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._locked = False
        self._load()

    @staticmethod
    def exists(path: str | os.PathLike[str]) -> bool:
        """Whether anything is at `path`."""
        return os.path.lexists(path)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        grid: Grid,
        fields: Mapping[str, Mapping[str, Any]],
        dtype: DTypeLike,
        rows: int,
        identity: Mapping[str, Any],
        attrs: Mapping[str, Any] | None = None,
        state: Sequence[str] = (),
        families: Families | None = None,
    ) -> RunStore:
        """Create a run without frames or checkpoint, at `path` where nothing may be yet.

        Parameters
        ----------
        grid : Grid
            Dims, shape and coordinates of every field.
        fields : mapping of str to mapping
            Attributes by field name.
        dtype : dtype-like
            Of fields and state: float32 or float64.
        rows : int
            Thickness of the slabs, along the first dim, that frames and state are chunked in.
        identity, attrs : mapping
            JSON-able. What a resume must share, see :meth:`check_identity`; attributes of the dataset.
        state : sequence of str
            Names of arrays that a slot holds beside the fields, of the same shape and dtype.
        families : mapping of str to FrameFamily, optional
            Fields that have members: one array in the frames, an array for each member in a slot.

        Raises
        ------
        FileExistsError, OSError
            If anything is at `path` (it is left alone), or the directory can't be made.
        ValueError, TypeError
            If a name or number doesn't fit, or `identity` or attributes are not JSON-able.
        """
        path, dtype = Path(path).absolute(), np.dtype(dtype)
        _check_names([*grid.dims, "time", *fields, *state])
        if not 1 <= rows <= grid.shape[0]:
            raise ValueError(f"rows={rows} is not between 1 and the {grid.shape[0]} of dim {grid.dims[0]!r}")
        if not fields or dtype not in (np.float32, np.float64):
            raise ValueError(f"{fields=} must name a field at least, and {dtype=} be float32 or float64")
        attributes = plain_json("attrs", attrs or {})
        if MANIFEST in attributes:
            raise ValueError(f"attribute {MANIFEST!r} is taken by the run's manifest; use another name")
        families = families or {}
        manifest = {"format": FORMAT, "rows": rows, "fields": [*fields], "state": [*state]}
        manifest |= {"members": {name: family.members for name, family in families.items()}}
        manifest |= {"identity": plain_json("identity", identity), "checkpoint": None}
        root = {**attributes, MANIFEST: json.dumps(manifest)}
        field_attrs = {name: plain_json(f"fields[{name!r}]", values) for name, values in fields.items()}
        if cls.exists(path):
            message = "A run is created only where nothing is yet: resume this one, or use another path"
            raise FileExistsError(errno.EEXIST, message, str(path))
        # Built beside and renamed: at `path` there is nothing or a whole store, however this ends.
        building = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        with describe_oserror("creating a run (its parent must be a directory that can be written to)", path):
            os.mkdir(building)
            try:
                _build(building, grid, field_attrs, dtype, rows, root, [*_scalars(manifest), *state], families)
                if cls.exists(path) or not _moved(building, path):
                    raise FileExistsError(errno.EEXIST, "Another process has just made a run here", str(path))
            except BaseException:
                shutil.rmtree(building, ignore_errors=True)
                raise
            fsync_path(path.parent)
        remove_stale(path.parent, rf"\.{re.escape(path.name)}\.[0-9a-f]{{32}}")
        return cls(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunStore:
        """Open the run at `path`, after a look whether all that its last commit names is there.

        Raises
        ------
        FileNotFoundError
            If nothing is at `path`, or files of a committed frame or of the checkpoint's slot are missing.
        ValueError
            If what is at `path` isn't a voxdask run, or what describes its state is damaged.
        """
        store = cls(path)
        for name, document in store._arrays.items():
            require_chunks(store.path / name, document)
        if checkpoint := store.checkpoint:
            for array in store.slot(checkpoint.slot).values():
                if missing := array.missing_chunks():
                    message = f"{missing} chunk files of the state of {checkpoint} are missing or short"
                    raise FileNotFoundError(errno.ENOENT, message, str(array.path))
        return store

    def check_identity(self, identity: Mapping[str, Any], *, whole: bool = True) -> None:
        """Raise a ``ValueError`` that lists what differs unless `identity`, or what it has, is the one stored."""
        old, new = self._manifest["identity"], plain_json("identity", identity)
        old = old if whole else {key: value for key, value in old.items() if key in new}
        both = [
            ({key: old[key]} if key in old else {}, {key: new[key]} if key in new else {})
            for key in old | new
        ]
        if differing := [f"  stored {a or 'nothing'}, given {b or 'nothing'}\n" for a, b in both if a != b]:
            raise ValueError(
                f"{self.path} holds a run that was made with other parameters:\n{''.join(differing)}"
                "Give the stored ones to resume it, or another path for a new run."
            )

    @contextmanager
    def lock(self) -> Iterator[RunStore]:
        """Be the only writer within the block. The lock goes with the process, however that ends.

        Raises
        ------
        BlockingIOError
            At once, if the run is locked already.
        OSError
            If the run can't be written to.
        """
        lock = FileLock(self.path / ".state" / "lock", thread_local=False)
        with describe_oserror("locking the run for writing", self.path):
            try:
                lock.acquire(timeout=0)
            except Timeout as error:
                message = "Another process or thread writes this run; wait for it or use another path"
                raise BlockingIOError(errno.EWOULDBLOCK, message) from error
        try:
            self._load()  # whoever held the lock before may have moved on
            for name in self._manifest["fields"]:  # chunks that a killed writer never renamed
                for leftover in (self.path / name).glob("*.partial"):
                    leftover.unlink(missing_ok=True)
            self._locked = True
            yield self
        finally:
            self._locked = False
            lock.release()

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The last commit; None before the first."""
        stored = self._manifest["checkpoint"]
        return Checkpoint(**stored) if stored else None

    @property
    def frame_times(self) -> list[float]:
        """Times of the committed frames."""
        return list(self._times)

    @property
    def rows(self) -> int:
        """Thickness of the slabs that frames and state are chunked in."""
        return int(self._manifest["rows"])

    def slot(self, number: int) -> dict[str, ChunkFiles]:
        """State arrays by name, in slot 0 or 1. Those of the checkpoint's slot must only be read.

        Raises
        ------
        ValueError
            If `number` is no slot, or what describes an array is damaged.
        """
        if number not in (0, 1):
            raise ValueError(f"slot {number} is neither 0 nor 1")
        folder = self.path / ".state" / f"slot{number}"
        names = [*_scalars(self._manifest), *self._manifest["state"]]
        try:
            return {name: ChunkFiles.open(folder / name) for name in names}
        except ValueError as error:
            message = "the state to go on from can't be read; a new run, at another path, can start from the last frame"
            raise ValueError(f"{self.path}: {message} ({error})") from error

    def state_bytes(self) -> int:
        """Bytes that both slots take of the disk."""
        files = (file for number in (0, 1) for file in (self.path / ".state" / f"slot{number}").rglob("*"))
        found = (file.stat() for file in files if file.is_file())
        return sum(min(file.st_size, file.st_blocks * 512) for file in found)  # what has holes takes less

    def scratch(self, name: str, shape: Sequence[int], chunks: Sequence[int], dtype: DTypeLike) -> ChunkFiles:
        """Create an array for intermediate results, in place of an older one of that name."""
        _check_names([name])
        self.clear_scratch(name)
        return ChunkFiles.create(self.path / ".state" / "scratch" / name, shape, chunks, dtype)

    def clear_scratch(self, name: str = "") -> None:
        """Delete the scratch array `name`, or all of them."""
        self._require_lock()
        path = self.path / ".state" / "scratch" / name
        with describe_oserror("deleting scratch", path):
            if path.exists():
                shutil.rmtree(path)

    def frame_writer(self) -> FrameWriter:
        """What writes the chunks of frames that are yet to be committed, here or in other processes."""
        fields = {name: self._arrays[name] for name in self._manifest["fields"]}
        return FrameWriter(self.path, len(self._times), fields)

    def commit(
        self,
        step: int,
        time: float,
        slot: int,
        *,
        frame_times: Sequence[float],
        control: Mapping[str, Any] | None = None,
    ) -> Checkpoint:
        """Make the state in `slot` and the frames at `frame_times` the current ones, atomically.

        Every chunk of the slot and of the new frames has been written before. Returns when all is on disk; if
        it raises, the previous commit still stands.

        Parameters
        ----------
        step, time : int, float
            What the slot holds.
        slot : int
            0 or 1; the committed one only if `step` is as committed, too.
        frame_times : sequence of float
            Times of all frames, those committed before first.
        control : mapping, optional
            JSON-able. What chooses the next step.

        Raises
        ------
        ValueError
            If this contradicts what is committed.
        RuntimeError
            Outside :meth:`lock`.
        OSError
            If a chunk is missing, or the disk is full or fails.
        """
        self._require_lock()
        memory = None if control is None else plain_json("control", control)
        old, new = self.checkpoint, Checkpoint(int(step), float(time), int(slot), len(frame_times), memory)
        times = [float(t) for t in frame_times]
        done = len(self._times)
        if times[:done] != self._times or not np.all(np.isfinite(times)) or np.any(np.diff(times) <= 0):
            raise ValueError(f"frame_times={times} must be finite and rise, and start with {self._times}")
        if old and (new.step < old.step or (new.slot == old.slot and new.step != old.step)):
            raise ValueError(f"{new} can't follow {old}: a later step is committed from the other slot")
        state = self.slot(new.slot)
        if old is None or new.slot != old.slot:
            for array in state.values():
                array.sync()
        arrays = with_frames(self._arrays, len(times))
        if len(times) > done:
            sync_frames(self.path, arrays, times, done)
        manifest = {**self._manifest, "checkpoint": asdict(new)}
        attributes = {**self._attributes, MANIFEST: json.dumps(manifest)}
        temporary = self.path / ".state" / "zarr.json.new"  # nobody who lists the group comes across it
        replace_file(self.path / "zarr.json", root_json(attributes, arrays), temporary)
        self._attributes, self._arrays, self._manifest, self._times = attributes, arrays, manifest, times
        return new

    def dataset(self) -> xr.Dataset:
        """The committed frames, lazily, as ``xarray.open_zarr`` gives them to anybody."""
        dataset: xr.Dataset = xr.open_zarr(self.path)
        return dataset

    def _load(self) -> None:
        if not self.exists(self.path):
            raise FileNotFoundError(errno.ENOENT, "There is no run to open", str(self.path))
        try:
            root = json.loads((self.path / "zarr.json").read_bytes())
            self._attributes, self._arrays = root["attributes"], root["consolidated_metadata"]["metadata"]
            self._manifest = json.loads(self._attributes[MANIFEST])
            written_as = self._manifest["format"]
        except (FileNotFoundError, NotADirectoryError, LookupError, TypeError, ValueError) as error:
            message = f"{self.path} is not a voxdask run: move it away, or use another path"
            raise ValueError(message) from error
        if written_as != FORMAT:
            raise ValueError(f"{self.path} is of format {written_as}; this voxdask reads format {FORMAT}")
        self._times = np.asarray(open_array(self.path, "time", self._arrays)[...]).tolist()

    def _require_lock(self) -> None:
        if not self._locked:
            raise RuntimeError(f"{self.path} can't be written without its lock: use `with store.lock():`")


def _build(
    path: Path,
    grid: Grid,
    fields: Mapping[str, Mapping[str, Any]],
    dtype: np.dtype[Any],
    rows: int,
    attributes: Mapping[str, Any],
    state: Sequence[str],
    families: Families,
) -> None:
    """Fill the empty directory `path` with a run without frames, and sync it to disk."""
    build_group(path, grid, fields, dtype, rows, attributes, families)
    chunks = (rows, *grid.shape[1:])
    for slot in ("slot0", "slot1"):
        for name in state:
            ChunkFiles.create(path / ".state" / slot / name, grid.shape, chunks, dtype, dims=grid.dims)
    # A group, or whoever lists the root is warned of a directory that is no part of the hierarchy.
    (path / ".state" / "zarr.json").write_text(json.dumps({**GROUP, "attributes": {}}))
    for folder, _, files in os.walk(path):
        for name in (*files, "."):
            fsync_path(Path(folder, name))


def _moved(building: Path, path: Path) -> bool:
    """Whether a directory could be renamed to where a moment ago was nothing."""
    try:
        os.rename(building, path)
    except OSError:
        if not RunStore.exists(path):
            raise
        return False
    return True


def _scalars(manifest: Mapping[str, Any]) -> list[str]:
    """The arrays of a state: a field, or the members of one."""
    members = manifest.get("members", {})
    each = ([member_name(f, k) for k in range(members[f])] if f in members else [f] for f in manifest["fields"])
    return [name for names in each for name in names]


def _check_names(names: Sequence[str]) -> None:
    """Raise unless all names are distinct and can be those of arrays on disk."""
    for name in names:
        if not name or name.startswith((".", "__")) or "/" in name or name == "zarr.json":
            raise ValueError(f"{name!r} can't name an array on disk: no '/', no '.' or '__' in front")
    if len(set(names)) < len(names):
        raise ValueError(f"dims, time, fields and state need distinct names: {', '.join(names)}")
