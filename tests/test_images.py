"""Lazy openers: every flavour gives the same dataset; nothing untrusted gets past the headers."""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import tifffile
import xarray as xr
from conftest import connected

from voxdask import images, sources
from voxdask.grid import Grid
from voxdask.images import open_image

ELECTRODE = Path(__file__).parents[2] / "shared" / "data" / "electrode.tiff"
SHAPE = (7, 48, 33)
Writer = Callable[[Path, np.ndarray], Path]


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60_000, SHAPE, np.uint16)


def tiff(**options: Any) -> Writer:
    def write(folder: Path, array: np.ndarray) -> Path:
        path = folder / "image.tif"
        tifffile.imwrite(path, array, **options)
        return path

    return write


def npy(folder: Path, array: np.ndarray) -> Path:
    path = folder / "image.npy"
    np.save(path, array)
    return path


def slices(folder: Path, array: np.ndarray) -> Path:
    for number, plane in enumerate(array, start=7):  # crosses from one digit to two
        tifffile.imwrite(folder / f"slice{number}.tif", plane, compression="zlib")
    (folder / "notes.txt").write_text("not an image")
    (folder / "._slice7.tif").write_text("what macOS leaves behind")
    return folder


FLAVOURS: dict[str, Writer] = {
    "plain": tiff(photometric="minisblack", metadata=None),
    "pages": tiff(photometric="minisblack", metadata=None, contiguous=False, compression="zlib"),
    "shaped": tiff(photometric="minisblack"),
    "tiled": tiff(photometric="minisblack", tile=(16, 16)),
    "zlib": tiff(photometric="minisblack", compression="zlib"),
    "zlib-strips": tiff(photometric="minisblack", compression="zlib", rowsperstrip=5, predictor=True),
    "zlib-tiles": tiff(photometric="minisblack", compression="zlib", tile=(16, 32)),
    "volumetric": tiff(photometric="minisblack", compression="zlib", tile=(16, 16, 16), volumetric=True),
    "bigtiff": tiff(photometric="minisblack", bigtiff=True),
    "big-endian": tiff(photometric="minisblack", byteorder=">"),
    "big-endian-zlib": tiff(photometric="minisblack", byteorder=">", compression="zlib"),
    "imagej": tiff(imagej=True, metadata={"axes": "ZYX"}),
    "ome": tiff(ome=True, photometric="minisblack", metadata={"axes": "ZYX"}),
    "ome-zlib": tiff(ome=True, photometric="minisblack", metadata={"axes": "ZYX"}, compression="zlib"),
    "npy": npy,
    "npy-fortran": lambda folder, array: npy(folder, np.asfortranarray(array)),
    "npy-big-endian": lambda folder, array: npy(folder, array.astype(">u2")),
    "folder": slices,
    "glob": lambda folder, array: slices(folder, array) / "slice*.tif",
}


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest, tmp_path: Path, volume: np.ndarray) -> Path:
    return FLAVOURS[request.param](tmp_path, volume)


@pytest.mark.parametrize("chunks", ["auto", 3, {"y": 20}, (2, 16, 16)])
def test_every_flavour_gives_the_volume(flavour: Path, volume: np.ndarray, chunks: Any) -> None:
    ds = open_image(flavour, voxel_size=(2.0, 0.5, 0.25), unit="um", chunks=chunks)
    assert ds.image.dims == ("z", "y", "x")
    assert ds.image.dtype == volume.dtype
    assert ds.image.dtype.isnative
    assert isinstance(ds.image.data, da.Array)
    assert Grid.from_dataset(ds) == Grid(("z", "y", "x"), SHAPE, (2.0, 0.5, 0.25), (1.0, 0.25, 0.125), "um")
    np.testing.assert_array_equal(ds.image.values, volume)


@pytest.mark.parametrize(
    "picked",
    [
        *(np.s_[2], np.s_[1:6:2, 3, ::5], np.s_[::-1, 40:2:-3], np.s_[-1, :, 7], np.s_[0:0]),
        *(np.s_[2, 3, 4], np.s_[1:5, 3, 9], np.s_[[5, 0, 3]], np.s_[:, [4, 7, 7]], np.s_[2:4, 5:9, [1, 30]]),
    ],
)
def test_indexing_reads_what_numpy_would(flavour: Path, volume: np.ndarray, picked: Any) -> None:
    for chunks in (4, -1):
        image = open_image(flavour, chunks=chunks).image
        np.testing.assert_array_equal(image[picked].values, volume[picked])


def test_lists_on_two_axes_are_orthogonal(flavour: Path, volume: np.ndarray) -> None:
    image = open_image(flavour).image
    expected = volume[np.ix_([0, 4, 5], range(48), [3, 20])]
    np.testing.assert_array_equal(image[[0, 4, 5], :, [3, 20]].values, expected)


def test_the_graph_travels_without_the_voxels(flavour: Path, volume: np.ndarray) -> None:
    array = open_image(flavour, chunks=2).image.data
    pickled = pickle.dumps(array)
    assert len(pickled) < volume.nbytes / 2
    np.testing.assert_array_equal(pickle.loads(pickled).compute(scheduler="sync"), volume)


def test_threads_read_side_by_side(flavour: Path, volume: np.ndarray) -> None:
    array = open_image(flavour, chunks=1).image.data
    for _ in range(3):
        np.testing.assert_array_equal(array.compute(scheduler="threads", num_workers=8), volume)


@pytest.mark.parametrize("flavour", ["shaped", "zlib-tiles", "folder"], indirect=True)
def test_distributed_workers_read_by_path(flavour: Path, volume: np.ndarray) -> None:
    with connected(1, 2, processes=False):
        np.testing.assert_array_equal(open_image(flavour, chunks=2).image.data.compute(), volume)


def test_opening_reads_no_voxels(flavour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise AssertionError("read")

    for source in (sources.Raw, sources.Pages, sources.Slices):
        monkeypatch.setattr(source, "__getitem__", refuse)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", refuse)
    ds = open_image(flavour)
    with pytest.raises(AssertionError, match="read"):
        ds.image.compute()


def test_a_slice_decodes_its_page_alone(tmp_path: Path, volume: np.ndarray, monkeypatch: Any) -> None:
    ds = open_image(FLAVOURS["zlib"](tmp_path, volume))
    read: list[int] = []
    region = sources.Pages._region

    def count(self: Any, tif: Any, index: int, key: Any) -> np.ndarray:
        read.append(index)
        return region(self, tif, index, key)

    monkeypatch.setattr(sources.Pages, "_region", count)
    np.testing.assert_array_equal(ds.image.isel(z=5).values, volume[5])
    assert read == [5]


def test_a_rewritten_file_gets_new_keys(tmp_path: Path, volume: np.ndarray) -> None:
    path = npy(tmp_path, volume)
    first = open_image(path).image.data
    assert open_image(path).image.data.name == first.name
    np.save(path, volume + 1)
    assert open_image(path).image.data.name != first.name


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64, np.bool_])
@pytest.mark.parametrize("writer", ["shaped", "zlib", "npy"])
def test_dtypes_are_kept(tmp_path: Path, dtype: type, writer: str) -> None:
    labels = np.random.default_rng(1).integers(0, 2, SHAPE).astype(dtype)
    image = open_image(FLAVOURS[writer](tmp_path, labels)).image
    assert image.dtype == dtype
    np.testing.assert_array_equal(image.values, labels)


@pytest.mark.parametrize("writer", ["plain", "tiled", "zlib-strips", "imagej", "ome", "npy"])
def test_flat_images(tmp_path: Path, volume: np.ndarray, writer: str) -> None:
    options = {"imagej": tiff(imagej=True), "ome": tiff(ome=True)}
    ds = open_image(options.get(writer, FLAVOURS[writer])(tmp_path, volume[0]), name="c", chunks=10)
    assert ds.c.dims == ("y", "x")
    np.testing.assert_array_equal(ds.c.values, volume[0])


def test_axes_of_length_one_are_dropped(tmp_path: Path, volume: np.ndarray) -> None:
    thin = volume[:, :1]
    tifffile.imwrite(tmp_path / "a.tif", thin[None, :, None], imagej=True, metadata={"axes": "TZCYX"})
    assert open_image(tmp_path / "a.tif").image.shape == thin.shape
    np.save(tmp_path / "b.npy", thin[None, None])
    np.testing.assert_array_equal(open_image(tmp_path / "b.npy").image.values, thin)


# Chunks.


def test_auto_chunks_are_slabs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, volume: np.ndarray) -> None:
    monkeypatch.setattr(images, "_SLAB_BYTES", 3 * volume[0].nbytes)
    path = FLAVOURS["zlib"](tmp_path, volume)
    assert open_image(path).image.chunks == ((3, 3, 1), (48,), (33,))
    # Rows of a flat image come in whole strips, so that none is decoded twice.
    monkeypatch.setattr(images, "_SLAB_BYTES", 12 * 33 * 2)
    flat = FLAVOURS["zlib-strips"](tmp_path, volume[0])
    assert open_image(flat).image.chunks == ((10, 10, 10, 10, 8), (33,))


def test_chunks_as_given(tmp_path: Path, volume: np.ndarray) -> None:
    path = npy(tmp_path, volume)
    assert open_image(path, chunks=100).image.chunks == ((7,), (48,), (33,))
    assert open_image(path, chunks=-1).image.chunks == ((7,), (48,), (33,))
    assert open_image(path, chunks={"x": 30}).image.chunks == ((7,), (48,), (30, 3))
    for chunks, message in [({"t": 1}, "'t'.*z, y, x"), (0, "chunks=0"), (-2, "chunks=-2")]:
        with pytest.raises(ValueError, match=message):
            open_image(path, chunks=chunks)


# Voxel size.


def sizes(ds: xr.Dataset) -> tuple[tuple[float, ...], str | None]:
    grid = Grid.from_dataset(ds)
    return grid.spacing, grid.unit


@pytest.mark.parametrize(
    ("unit", "expected"),
    [("um", "um"), ("micron", "um"), ("\\u00B5m", "um"), ("nm", "nm"), ("mm", "mm"), ("furlong", "furlong")],
)
def test_imagej_voxel_size(tmp_path: Path, volume: np.ndarray, unit: str, expected: str) -> None:
    write = tiff(imagej=True, resolution=(4.0, 2.0), metadata={"axes": "ZYX", "spacing": 3.0, "unit": unit})
    spacing, found = sizes(open_image(write(tmp_path, volume)))
    assert spacing == pytest.approx((3.0, 0.5, 0.25))
    assert found == expected


def test_imagej_leaves_a_slice_distance_of_one_out(tmp_path: Path, volume: np.ndarray) -> None:
    write = tiff(imagej=True, resolution=(4.0, 4.0), metadata={"axes": "ZYX", "unit": "um"})
    assert sizes(open_image(write(tmp_path, volume))) == ((1.0, 0.25, 0.25), "um")


def test_imagej_resolution_for_print_is_no_voxel_size(tmp_path: Path, volume: np.ndarray) -> None:
    write = tiff(imagej=True, resolution=(72.0, 72.0), resolutionunit="INCH", metadata={"axes": "ZYX"})
    assert sizes(open_image(write(tmp_path, volume))) == ((1.0, 1.0, 1.0), None)


def ome(**metadata: Any) -> Writer:
    return tiff(ome=True, photometric="minisblack", metadata={"axes": "ZYX", **metadata})


def test_ome_voxel_size(tmp_path: Path, volume: np.ndarray) -> None:
    write = ome(PhysicalSizeX=0.25, PhysicalSizeY=0.5, PhysicalSizeZ=2000.0, PhysicalSizeZUnit="nm")
    path = write(tmp_path, volume)
    assert sizes(open_image(path)) == ((2.0, 0.5, 0.25), "um")
    assert sizes(open_image(path, unit="nm")) == ((2000.0, 500.0, 250.0), "nm")
    assert sizes(open_image(path, voxel_size=3.0)) == ((3.0, 3.0, 3.0), None)
    with pytest.raises(ValueError, match="'nm', not 'furlong': pass voxel_size"):
        open_image(path, unit="furlong")


def test_voxel_size_of_some_axes_is_not_completed(tmp_path: Path, volume: np.ndarray) -> None:
    path = ome(PhysicalSizeX=0.25, PhysicalSizeY=0.5)(tmp_path, volume)
    with pytest.raises(ValueError, match=r"along y, x but not z: pass voxel_size=\(z, y, x\)"):
        open_image(path)
    assert sizes(open_image(path, voxel_size=0.25, unit="um")) == ((0.25,) * 3, "um")


def test_without_metadata_the_voxel_is_one(tmp_path: Path, volume: np.ndarray) -> None:
    for path in (FLAVOURS["shaped"](tmp_path, volume), npy(tmp_path, volume)):
        assert sizes(open_image(path)) == ((1.0, 1.0, 1.0), None)
        assert sizes(open_image(path, voxel_size={"x": 1, "y": 2, "z": 3})) == ((3.0, 2.0, 1.0), None)


@pytest.mark.parametrize(
    ("size", "message"),
    [(0.0, "voxel_size along 'z' is 0"), ((1, 2), "voxel_size=.*z, y, x"), ("wide", "numbers")],
)
def test_bad_voxel_size_is_named(tmp_path: Path, volume: np.ndarray, size: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        open_image(npy(tmp_path, volume), voxel_size=size)


# What bad input gets.


def refused(path: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        open_image(path)
    assert path.name in str(caught.value)
    assert type(caught.value) is ValueError


def test_nothing_there(tmp_path: Path) -> None:
    for path, message in [("a.tif", "nothing at"), ("*.tif", "nothing at"), ("", "holds no image.*npy")]:
        with pytest.raises(FileNotFoundError, match=message):
            open_image(tmp_path / path)


def test_unknown_extension(tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(b"x")
    refused(path, r"no known extension.*\.tif.*\.npy")
    with pytest.raises(ValueError, match="narrow the glob"):
        open_image(tmp_path / "*")


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
@pytest.mark.parametrize("content", [b"", b"II*\0", b"a text file, not an image\n" * 20])
def test_not_an_image(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"image{suffix}"
    path.write_bytes(content)
    refused(path, "not a readable|truncated")


@pytest.mark.parametrize("name", [n for n in FLAVOURS if n not in ("folder", "glob")])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.99])
def test_truncated(tmp_path: Path, volume: np.ndarray, name: str, kept: float) -> None:
    path = FLAVOURS[name](tmp_path, volume)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(path, "truncated|complete")


def test_imagej_stack_of_one_page_is_checked(tmp_path: Path, volume: np.ndarray) -> None:
    path = FLAVOURS["imagej"](tmp_path, volume)
    with tifffile.TiffFile(path) as tif:
        end = tif.pages[0].dataoffsets[0] + volume.nbytes // 2
        page = tif.pages[0].offset
        (tags,) = struct.unpack("<H" if tif.byteorder == "<" else ">H", path.read_bytes()[page : page + 2])
    content = bytearray(path.read_bytes()[:end])
    content[page + 2 + 12 * tags : page + 6 + 12 * tags] = bytes(4)  # ImageJ writes no further page
    path.write_bytes(content)
    refused(path, "imagej.*truncated")


@pytest.mark.parametrize(
    ("name", "claim", "message"),
    [
        ("shaped", b'"shape": [7, 48, 33]', "bear out|takes at least|pages"),
        ("zlib", b'"shape": [7, 48, 33]', "bear out|takes at least|pages"),
        ("ome", b'SizeZ="7"', "OME metadata.*truncated"),
        ("imagej", b"slices=7", "imagej.*truncated|pages"),
    ],
)
def test_description_that_the_bytes_do_not_bear_out(
    tmp_path: Path, volume: np.ndarray, name: str, claim: bytes, message: str
) -> None:
    path = FLAVOURS[name](tmp_path, volume)
    content = path.read_bytes()
    assert claim in content
    path.write_bytes(content.replace(claim, claim.replace(b"7", b"9", 1)))
    refused(path, message)


def rewrite_tags(path: Path, **values: int) -> None:
    with tifffile.TiffFile(path, mode="r+b") as tif:
        for name, value in values.items():
            tif.pages[0].tags[name].overwrite(value)


def test_huge_claims(tmp_path: Path) -> None:
    path = tiff(metadata=None)(tmp_path, np.zeros((64, 64), np.uint8))
    rewrite_tags(path, ImageLength=2**30, ImageWidth=2**30)
    refused(path, "takes at least 1152921504606846976 bytes|strips or tiles|lie beyond")

    path = tiff(metadata=None, compression="zlib", tile=(64, 64))(tmp_path, np.zeros((64, 64), np.uint8))
    rewrite_tags(path, TileWidth=2**20, TileLength=2**20, ImageWidth=2**20, ImageLength=2**20)
    refused(path, "strips or tiles of 1099511627776 bytes.*2 GiB")


def test_expansion_is_capped(tmp_path: Path, volume: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = FLAVOURS["zlib"](tmp_path, np.zeros_like(volume))
    assert open_image(path).image.shape == SHAPE
    monkeypatch.setattr("voxdask.tiff._MAX_EXPANSION", 10)
    refused(path, "takes at least")


def test_pages_in_a_circle(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    page = struct.pack("<H", 1) + struct.pack("<HHII", 256, 3, 1, 4)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8) + page + struct.pack("<I", 8))
    refused(path, "circle")


def test_pages_of_different_shapes(tmp_path: Path) -> None:
    path = tmp_path / "image.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(np.zeros((4, 4), np.uint8), metadata=None)
        writer.write(np.zeros((5, 4), np.uint8), metadata=None)
    refused(path, r"holds 2 images \(\(4, 4\), \(5, 4\)\)")


@pytest.mark.parametrize(
    ("axes", "shape"),
    [("CYX", (3, 8, 8)), ("TZYX", (2, 3, 8, 8)), ("TCYX", (2, 2, 8, 8)), ("YXS", (8, 8, 3))],
)
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_channels_and_times_are_refused(tmp_path: Path, axes: str, shape: tuple[int, ...], kind: str) -> None:
    options: dict[str, Any] = {kind: True, "photometric": "rgb" if "S" in axes else "minisblack"}
    path = tiff(metadata={"axes": axes}, **options)(tmp_path, np.zeros(shape, np.uint8))
    refused(path, rf"has axes {axes} of shape {re.escape(str(shape))}.*one channel")


def test_parts_of_a_multi_file_image_are_refused(tmp_path: Path, volume: np.ndarray) -> None:
    path = FLAVOURS["ome"](tmp_path, volume)
    content = path.read_bytes()
    claim = re.search(rb"<TiffData[^>]*/>", content)
    assert claim
    other = b'<TiffData><UUID FileName="../b.tif">urn:uuid:1</UUID></TiffData>'
    tifffile.tiffcomment(path, content[slice(*_xml(content))].replace(claim.group(), other))
    refused(path, r"several files \(with '../b.tif'\)")


def _xml(content: bytes) -> tuple[int, int]:
    return content.index(b"<?xml"), content.index(b"</OME>") + len(b"</OME>")


def test_missing_codec_says_what_to_install(
    tmp_path: Path, volume: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = FLAVOURS["zlib"](tmp_path, volume)
    monkeypatch.setattr(type(tifffile.TIFF.DECOMPRESSORS), "__contains__", lambda self, key: False)
    with pytest.raises(ImportError, match=r"image\.tif.*DEFLATE.*pip install imagecodecs"):
        open_image(path)


def test_complex_and_other_dtypes(tmp_path: Path) -> None:
    refused(tiff()(tmp_path, np.zeros((4, 5), np.complex64)), "complex.*modulus")
    refused(npy(tmp_path, np.zeros((4, 5), np.complex64)), "complex.*modulus")
    refused(npy(tmp_path, np.zeros((4, 5), "datetime64[s]")), "datetime64.*integers")
    refused(npy(tmp_path, np.zeros((4, 5), [("a", "f4")])), "dtype")


def test_bad_npy(tmp_path: Path) -> None:
    refused(npy(tmp_path, np.array([{}, []], dtype=object)), "without pickled|complete|[Pp]ython objects")
    refused(npy(tmp_path, np.zeros((0, 4))), "no image")
    refused(npy(tmp_path, np.zeros((2, 2, 2, 2))), "at most three axes")
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    (tmp_path / "a.npz").rename(tmp_path / "image.npy")
    refused(tmp_path / "image.npy", "not a readable")


@pytest.mark.parametrize(("shape", "dtype"), [((4, 6), "u1"), ((4, 5), "u2"), ((2, 4, 5), "u1")])
def test_slices_that_do_not_agree(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    for number in range(3):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.zeros((4, 5), np.uint8))
    tifffile.imwrite(tmp_path / "11.tif", np.zeros(shape, dtype))
    with pytest.raises(ValueError, match=r"11\.tif.*(slices must agree|a slice is 2-D)"):
        open_image(tmp_path)


def test_damage_behind_the_headers_is_named_on_reading(tmp_path: Path, volume: np.ndarray) -> None:
    path = FLAVOURS["zlib"](tmp_path, volume)
    with tifffile.TiffFile(path) as tif:
        start = tif.pages[0].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    ds = open_image(path)
    with pytest.raises(ValueError, match=r"image\.tif.*not a readable TIFF"):
        ds.image.compute()


# A real tomogram.


@pytest.mark.skipif(not ELECTRODE.exists(), reason="the shared tomogram is not here")
def test_electrode() -> None:
    ds = open_image(ELECTRODE, voxel_size=0.4, unit="um", chunks=64)
    assert ds.image.shape == (256,) * 3
    assert ds.image.dtype == np.uint8
    assert ds.image.data.npartitions == 4
    np.testing.assert_array_equal(np.unique(ds.image.isel(z=slice(0, 64)).values), [0, 85, 170])
    with dask.config.set(scheduler="sync"):
        np.testing.assert_array_equal(ds.image.isel(z=200).values, tifffile.imread(ELECTRODE, key=200))
