"""Frames on disk: a Zarr v3 group whose metadata documents say how many frames there are, and what writes them.

The documents in memory run ahead of those on disk: an array opened as of a later frame can be written to, and
no reader sees that until the documents are replaced.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, ZstdCodec
from zarr.storage import LocalStore, StorePath

from voxdask.chunkfiles import FLAT_KEYS
from voxdask.disk import UNHARMED, describe_oserror, file_sizes, fsync_path, replace_file
from voxdask.grid import Grid
from voxdask.members import member_of

TIMES_PER_CHUNK = 1024
GROUP = {"zarr_format": 3, "node_type": "group"}


@dataclass(frozen=True)
class FrameFamily:
    """A field on disk that has members: their dim, their number, and their coordinate if there is one."""

    dim: str
    members: int
    coordinate: Any = None


Families = Mapping[str, FrameFamily]

Documents = dict[str, dict[str, Any]]
"""The metadata of Zarr v3 arrays, as in their zarr.json, by name."""


@dataclass(frozen=True)
class FrameWriter:
    """Writes chunks of frames, in any thread or, pickled, process; see ``RunStore.frame_writer``.

    Writing the same chunk twice is harmless. Until ``RunStore.commit``, no reader sees any of it.
    """

    path: Path
    committed: int
    arrays: Documents

    def write(self, frame: int, name: str, lo: int, block: NDArray[Any]) -> None:
        """Write one chunk, rows [lo, lo + len(block)) of a scalar field in frame `frame`, and sync it to disk.

        Raises
        ------
        ValueError
            If the frame is committed already, or `block` isn't one whole chunk of the field's dtype.
        OSError
            If the disk is full or fails.
        """
        if frame < self.committed:
            raise ValueError(f"frame {frame} is one of the {self.committed} committed: it can't be written")
        # The metadata on disk tells readers what is committed. Only this array object knows of the new frame.
        field, member = member_of(name)
        array = open_array(self.path, field, with_frames(self.arrays, frame + 1))
        place = (frame,) if member is None else (frame, member)
        (rows, *rest), length = array.chunks[len(place) :], array.shape[len(place)]
        shape = (min(rows, length - lo), *rest)
        if lo not in range(0, length, rows) or block.shape != shape or block.dtype != array.dtype:
            raise ValueError(
                f"{block.dtype}{block.shape} at row {lo} of {name!r} is not a whole chunk: {array.dtype}, "
                f"from a multiple of {rows}, {rows} rows (or what is left of {length})"
            )
        chunk = self.path / field / ".".join(map(str, ("c", *place, lo // rows, *(0 for _ in rest))))
        with describe_oserror(f"writing {block.nbytes} bytes of frame {frame}", chunk, UNHARMED):
            array[(*place, slice(lo, lo + len(block)))] = block
        fsync_path(chunk)  # Zarr renames, but never syncs


def build_group(
    path: Path,
    grid: Grid,
    fields: Mapping[str, Mapping[str, Any]],
    dtype: np.dtype[Any],
    rows: int,
    attributes: Mapping[str, Any],
    families: Families,
) -> None:
    """Write a group without frames to the directory `path`: coordinates, time, fields and the root's attributes."""

    def add(name: str, dims: Sequence[str], shape: Sequence[int], chunks: Sequence[int], **rest: Any) -> None:
        array = zarr.create_array(
            str(path / name),
            shape=tuple(shape),
            chunks=tuple(chunks),
            dimension_names=dims,
            fill_value=np.nan if np.dtype(rest["dtype"]).kind == "f" else 0,
            filters=None,
            serializer=BytesCodec(endian="little"),
            chunk_key_encoding=FLAT_KEYS,
            **rest,
        )
        arrays[name] = json.loads(json.dumps(array.metadata.to_dict()))

    arrays: Documents = {}
    chunks = (rows, *grid.shape[1:])
    for dim, values, attrs in grid.coords().values():
        plain = plain_json(f"coords[{dim!r}]", attrs)
        add(dim, (dim,), values.shape, values.shape, dtype="f8", compressors=None, attributes=plain)
        open_array(path, dim, arrays)[...] = values
    add("time", ("time",), (0,), (TIMES_PER_CHUNK,), dtype="f8", compressors=None)
    for name in fields:
        options = {"dtype": dtype, "compressors": ZstdCodec(), "attributes": fields[name]}
        dims, sizes = ((families[name].dim,), (families[name].members,)) if name in families else ((), ())
        add(name, ("time", *dims, *grid.dims), (0, *sizes, *grid.shape), (1, *(1 for _ in sizes), *chunks), **options)
    for family in {family.dim: family for family in families.values() if family.coordinate is not None}.values():
        values = np.asarray(family.coordinate)
        add(family.dim, (family.dim,), values.shape, values.shape, dtype=values.dtype, compressors=None)
        open_array(path, family.dim, arrays)[...] = values
    (path / "zarr.json").write_text(root_json(attributes, arrays))


def sync_frames(path: Path, arrays: Documents, times: Sequence[float], first: int) -> None:
    """Sync frames `first` and later to disk, and give each array of the run at `path` its length in `arrays`."""
    growing = [name for name, doc in arrays.items() if doc["dimension_names"][0] == "time"]
    start = first - first % TIMES_PER_CHUNK  # whole chunks, so that nothing is read back
    with describe_oserror("writing the times of frames", path / "time", UNHARMED):
        open_array(path, "time", arrays)[start:] = np.array(times[start:])
    for key in chunk_keys(arrays["time"], first):
        fsync_path(path / "time" / key)
    for name in growing:
        require_chunks(path / name, arrays[name], first)
    for name in growing:
        # For readers that ask the array, not the root. Syncs the directory, so the chunks' names, too.
        document = path / name / "zarr.json"
        replace_file(document, json.dumps(arrays[name]), document.with_suffix(".json.new"))


def root_json(attributes: Mapping[str, Any], arrays: Documents) -> str:
    """The root's zarr.json: `attributes`, and the metadata of all arrays, so that readers need no other."""
    consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
    return json.dumps({**GROUP, "attributes": attributes, "consolidated_metadata": consolidated}, indent=2)


def open_array(path: Path, name: str, arrays: Documents) -> zarr.Array[Any]:
    """The array `name` of the run at `path` as `arrays`, not its own metadata on disk, describes it."""
    array: Any = zarr.Array.from_dict(StorePath(LocalStore(path), name), arrays[name])
    return array.with_config({"write_empty_chunks": True})  # type: ignore[no-any-return]  # typed per format


def with_frames(arrays: Documents, frames: int) -> Documents:
    """`arrays` as they are when there are `frames` frames: as long as that along time."""
    return {
        name: {**doc, "shape": [frames, *doc["shape"][1:]]} if doc["dimension_names"][0] == "time" else doc
        for name, doc in arrays.items()
    }


def chunk_keys(document: Mapping[str, Any], first: int = 0) -> Iterator[str]:
    """Names of the chunk files of an array that hold index `first` of its first axis or one above."""
    chunks = document["chunk_grid"]["configuration"]["chunk_shape"]
    count, *counts = (-(-n // c) for n, c in zip(document["shape"], chunks, strict=True))
    for leading in range(first // chunks[0], count):
        for index in np.ndindex(*counts):
            yield ".".join(map(str, ("c", leading, *index)))


def require_chunks(path: Path, document: Mapping[str, Any], first: int = 0) -> None:
    """Raise a ``FileNotFoundError`` unless all `chunk_keys` of the array at `path` are there."""
    sizes = file_sizes(path)
    if lost := [key for key in chunk_keys(document, first) if not sizes.get(key)]:
        message = f"{len(lost)} chunk files are missing or empty, the first is {lost[0]}"
        raise FileNotFoundError(errno.ENOENT, message, str(path))


def plain_json(argument: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` as JSON gives them back: tuples become lists, NumPy scalars and arrays become Python's."""

    def convert(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} is not JSON-able")

    plain = {}
    for key, value in values.items():
        try:
            plain[str(key)] = json.loads(json.dumps(value, default=convert, allow_nan=False))
        except (TypeError, ValueError) as error:
            raise type(error)(f"{argument}[{key!r}]={value!r} can't be stored: {error}") from error
    return plain
