"""Opening a TIFF: its headers are checked before they are believed, and tell pages, dtype and voxel size."""

from __future__ import annotations

import math
import os
import re
import struct
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from voxdask.sources import FileError, Pages, Raw, Source, check_content, reading

# What a decoder may be asked to allocate at once, and how far a file may swell when decoded: no codec in use
# reaches the second on data that hold anything.
_MAX_DECODED_CHUNK = 2 * 2**30
_MAX_EXPANSION = 10_000

_ALIASES = {
    # Micro sign, Greek mu, and the escape that ImageJ writes.
    **dict.fromkeys(("\u00b5m", "\u03bcm", "\\u00b5m"), "um"),
    **dict.fromkeys(("micron", "microns", "micrometer", "micrometre"), "um"),
    **dict.fromkeys(("\u00e5", "\\u00c5"), "angstrom"),
    **{"nanometer": "nm", "nanometre": "nm", "millimeter": "mm", "millimetre": "mm", "in": "inch"},
}
_NO_UNIT = ("", "pixel", "pixels", "voxel", "voxels")

Sizes = dict[str, tuple[float, str | None]]
"""Voxel size and its unit, by dim, as far as metadata tell."""


def open_tiff(path: str) -> tuple[Source, Sizes]:
    """The one image in a TIFF, checked against the bytes of the file, and the voxel size it tells."""
    with reading(path, "TIFF"), tifffile.TiffFile(path) as tif:
        count = _count_pages(tif)
        ome = _check_ome(tif, count)
        series = tif.series
        if len(series) != 1:
            shapes = ", ".join(str(each.shape) for each in series)
            raise FileError(f"holds {len(series)} images ({shapes}): save each in a file of its own")
        image = series[0]
        shape = _check_axes(image)
        dtype = check_content(shape, image.dtype)
        _check_description(tif, image, count)
        sizes = _ome_sizes(ome) if ome is not None else _imagej_sizes(tif) if tif.is_imagej else {}
        stamp = os.stat(path).st_mtime_ns
        offset, keyframe = image.dataoffset, image.keyframe
        if offset is not None and keyframe.is_final:
            _check_bytes(shape, dtype, math.prod(shape) * dtype.itemsize, tif.filehandle.size - offset)
            return Raw(path, shape, dtype.newbyteorder(tif.byteorder), offset, "C", stamp), sizes
        pages: list[Any] = list(image)
        _check_segments(pages, keyframe, shape, tif.filehandle.size)
        _check_codec(keyframe)
        rows = min(keyframe.chunks[0], shape[0]) if len(pages) == 1 else 1
        return Pages(path, tuple(page.index for page in pages), shape, dtype, stamp, rows), sizes


def _count_pages(tif: tifffile.TiffFile) -> int:
    """Follow the chain of pages; tifffile passes over a break in it, and follows some circles for ever."""
    form, file = tif.tiff, tif.filehandle
    offset, seen, codes = tif.pages.first.offset, set[int](), set[int]()
    while offset:
        if offset in seen:
            raise FileError("is damaged: its pages refer to each other in a circle")
        seen.add(offset)
        try:
            file.seek(min(offset, file.size))
            (tags,) = struct.unpack(form.tagnoformat, file.read(form.tagnosize))
            if tags > 4096:  # tifffile's own limit
                raise FileError(f"is damaged: its page {len(seen) - 1} claims {tags} tags")
            entries = file.read(tags * form.tagsize)
            (offset,) = struct.unpack(form.offsetformat, file.read(form.offsetsize))
        except struct.error:
            raise FileError(f"is truncated: it ends before its page {len(seen)}; copy it again") from None
        if len(seen) == 1:
            starts = range(0, len(entries), form.tagsize)
            codes = {struct.unpack_from(form.tagnoformat[0] + "H", entries, start)[0] for start in starts}
    # tifffile drops a tag whose value it can't read, and with this one goes the voxel size.
    if 270 in codes and 270 not in tif.pages.first.tags:
        raise FileError("is truncated: its description lies beyond the end; copy it again")
    return len(seen)


def _check_ome(tif: tifffile.TiffFile, count: int) -> ElementTree.Element | None:
    """Hold OME metadata against the file before tifffile makes lists as long as they say."""
    if not tif.is_ome:
        return None
    root = ElementTree.fromstring(tif.ome_metadata or "")
    for uuid in root.iterfind(".//{*}UUID"):
        other = uuid.get("FileName", "")
        if uuid.text != root.get("UUID") and other.lower() != os.path.basename(tif.filename).lower():
            raise FileError(f"is part of an OME-TIFF in several files (with {other!r}): merge them into one")
    capacity = count * math.prod(tif.pages.first.shape)
    for pixels in root.iterfind(".//{*}Pixels"):
        claimed = [int(pixels.get(f"Size{axis}", 1)) for axis in "TCZYX"]
        counts = ("IFD", "PlaneCount", "NumPlanes")
        planes = [int(n) for data in pixels for key, n in data.items() if key in counts]
        if math.prod(claimed) > capacity or max(planes, default=0) > count:
            raise FileError(
                f"claims TCZYX = {claimed} in its OME metadata, but has {count} pages: it is truncated"
            )
    return root


def _check_axes(image: tifffile.TiffPageSeries) -> tuple[int, ...]:
    kept = [(axis, n) for axis, n in zip(image.axes, image.shape, strict=True) if n != 1 or axis in "YX"]
    # I and Q are tifffile's names for a run of pages of which the file says nothing more.
    if not re.fullmatch("[ZIQ]?YX", "".join(axis for axis, _ in kept)):
        raise FileError(
            f"has axes {image.axes} of shape {image.shape}, not (Z)YX: save one channel and one time in a "
            "file of its own, RGB as grey values, and a stack with axes='ZYX' in its metadata"
        )
    return tuple(n for _, n in kept)


def _check_description(tif: tifffile.TiffFile, image: tifffile.TiffPageSeries, count: int) -> None:
    """Where tifffile finds a description and pages at odds, it opens what is left, with a log line."""
    told = next((kind for kind in ("shaped", "ome", "imagej") if getattr(tif, f"is_{kind}")), None)
    described = tif.shaped_metadata[0]["shape"] if told == "shaped" and tif.shaped_metadata else image.shape
    too_few = image.dataoffset is None and len(image) > count
    if too_few or math.prod(described) != image.size or (told and image.kind in ("generic", "uniform")):
        raise FileError(
            f"describes an image ({told} metadata, shape {tuple(described)}) that its {count} pages don't "
            "bear out: it is truncated or damaged; copy or save it again"
        )


def _check_segments(pages: list[Any], keyframe: tifffile.TiffPage, shape: tuple[int, ...], size: int) -> None:
    """Every strip or tile lies in the file, and decoding them all stays in proportion to it."""
    if None in pages or len(pages) * math.prod(keyframe.shape) != math.prod(shape):
        raise FileError(f"has shape {shape} in {len(pages)} pages of {keyframe.shape}: pages are missing")
    stored = 0
    for number, page in enumerate(pages):
        ends = [offset + n for offset, n in zip(page.dataoffsets, page.databytecounts, strict=True)]
        if len(ends) < math.prod(keyframe.chunked) or max(ends) > size:
            raise FileError(f"is truncated: data of page {number} lie beyond the {size} bytes of the file")
        stored += sum(page.databytecounts)
    dtype = np.dtype(keyframe.dtype)
    decoded_chunk = math.prod(keyframe.chunks) * dtype.itemsize
    if decoded_chunk > _MAX_DECODED_CHUNK:
        raise FileError(f"has strips or tiles of {decoded_chunk} bytes: save it in tiles below 2 GiB")
    declared = math.prod(shape) * keyframe.bitspersample // 8
    least = declared if keyframe.compression == 1 else declared // _MAX_EXPANSION
    _check_bytes(shape, dtype, least, min(stored, size))


def _check_bytes(shape: tuple[int, ...], dtype: np.dtype[Any], needed: int, present: int) -> None:
    if needed > present:
        raise FileError(
            f"claims shape {shape} of {dtype}, which takes at least {needed} bytes, but holds {present}: "
            "it is truncated or damaged; copy or save it again"
        )


def _check_codec(keyframe: tifffile.TiffPage) -> None:
    codecs, predictors = tifffile.TIFF.DECOMPRESSORS, tifffile.TIFF.UNPREDICTORS
    if keyframe.compression not in codecs or keyframe.predictor not in predictors:
        raise ImportError(
            f"{keyframe.parent.filename!r} is compressed with {keyframe.compression!r}, predictor "
            f"{keyframe.predictor!r}, which this installation can't decode: pip install imagecodecs"
        )


def _ome_sizes(root: ElementTree.Element) -> Sizes:
    pixels = root.find(".//{*}Pixels")
    if pixels is None:
        return {}
    return {
        axis.lower(): (float(size), unit_name(pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m")))
        for axis in "ZYX"
        if (size := pixels.get(f"PhysicalSize{axis}")) is not None
    }


def _imagej_sizes(tif: tifffile.TiffFile) -> Sizes:
    meta = tif.imagej_metadata or {}
    unit = unit_name(str(meta.get("unit", "")))
    page = tif.pages.first
    # Without a unit of its own, ImageJ takes a resolution per inch or cm for the printer's, not the sample's.
    per_unit = page.resolution if unit is not None or page.resolutionunit == 1 else (1.0, 1.0)
    sizes = {dim: (1 / n, unit) for dim, n in zip("xy", per_unit, strict=True) if n > 0}
    # ImageJ leaves the distance of the slices of a stack out where it is one.
    if "spacing" in meta or meta.get("slices", 1) > 1:
        sizes["z"] = (float(meta.get("spacing", 1.0)), unit)
    return sizes if unit is not None or any(size != 1 for size, _ in sizes.values()) else {}


def unit_name(name: str) -> str | None:
    """The one name used here for a unit of length, such as "um"; None for what is no unit, such as pixels."""
    name = name.strip()
    return None if name.lower() in _NO_UNIT else _ALIASES.get(name, _ALIASES.get(name.lower(), name))
