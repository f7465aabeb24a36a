"""Transforms diagonalise the stencil under each kind of end, and a grid's transform solves what it should."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import reference
import scipy.fft
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import voxdask as vd
from voxdask import tiles, transforms
from voxdask.boundary import Axis, Transform, parse
from voxdask.equation import dt
from voxdask.filters import compile_filter
from voxdask.grid import Grid
from voxdask.pencil import SCALE, TRANSFORMED, GridTransform, split
from voxdask.problem import Problem, tile_bytes
from voxdask.tiles import MOST_LINES

PAIRS = ["periodic", "neumann", "dirichlet", ("neumann", "dirichlet"), ("dirichlet", "neumann")]
H = 0.7


def one_axis(pair: Any, size: int, node: bool) -> tuple[Axis, np.ndarray]:
    """An axis, and the three-point second difference on it as a matrix over the unknowns."""
    ds = vd.dataset({"c": np.zeros(size)}, spacing=H, node_centred=("x",) if node else ())
    (axis,) = parse(pair, Grid.from_dataset(ds))
    return axis, reference.laplace_matrix((size,), reference.axes_of(ds, pair))


def on_unknowns(axis: Axis, values: np.ndarray) -> np.ndarray:
    """An array along the axis, zero where a node is held."""
    transform = axis.transform()
    whole = np.zeros((axis.size, *values.shape[1:]), values.dtype)
    whole[transform.start : transform.stop] = values
    return whole


@pytest.mark.parametrize(
    ("pair", "node", "size"),
    [
        (pair, node, size)
        for pair in PAIRS
        for node in (False, True)
        for size in (1, 2, 3, 4, 9)
        if size > 2 or not node or pair == "periodic"
    ],
)
def test_diagonalises_the_second_difference(pair: Any, node: bool, size: int) -> None:
    axis, matrix = one_axis(pair, size, node)
    transform = axis.transform()
    assert len(matrix) == transform.stop - transform.start
    squares = transform.squared_wavenumbers(H, "stencil", half=False)
    u = np.random.default_rng(0).standard_normal((len(matrix), 2))
    result = transforms.forward(on_unknowns(axis, matrix @ u), transform, 0)
    expected = -on_unknowns(axis, squares[:, None]) * transforms.forward(on_unknowns(axis, u), transform, 0)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-13 * size * (4 / H**2))
    np.testing.assert_allclose(np.sort(squares), np.sort(-np.linalg.eigvals(matrix).real), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("node", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_inverse(pair: Any, node: bool, dtype: str) -> None:
    axis, matrix = one_axis(pair, 7, node)
    random = np.random.default_rng(1)
    u = on_unknowns(axis, random.standard_normal((len(matrix), 3))).astype(dtype)
    if u.dtype.kind == "c":
        u += 1j * on_unknowns(axis, random.standard_normal((len(matrix), 3)))
    tolerance = 20 * np.finfo(u.dtype).eps
    for a, block in ((0, u), (1, np.ascontiguousarray(u.T))):
        kept = block.copy()
        modes = transforms.forward(block, axis.transform(), a)
        back = transforms.inverse(modes, axis.transform(), a, overwrite=True) * u.dtype.type(axis.transform().scale)
        np.testing.assert_array_equal(block, kept)
        np.testing.assert_allclose(back, block, rtol=0, atol=tolerance)
        assert modes.dtype == (np.result_type(u.dtype, np.complex64) if axis.periodic else u.dtype)
        held = np.setdiff1d(np.arange(axis.size), np.arange(axis.transform().start, axis.transform().stop))
        assert not np.take(back, held, a).any() and not np.take(modes, held, a).any()


@pytest.mark.parametrize("size", [1, 2, 5, 6])
def test_half_transform(size: int) -> None:
    (axis, _), u = one_axis("periodic", size, False), np.random.default_rng(2).random((3, size))
    transform = axis.transform()
    modes = transforms.forward_half(u, 1)
    np.testing.assert_allclose(modes, transforms.forward(u, transform, 1)[:, : size // 2 + 1], atol=1e-14)
    np.testing.assert_allclose(transforms.inverse_half(modes, 1, size) * transform.scale, u, atol=1e-14)
    for form in ("spectral", "stencil"):
        whole = transform.squared_wavenumbers(H, form, half=False)  # type: ignore[arg-type]
        half = transform.squared_wavenumbers(H, form, half=True)  # type: ignore[arg-type]
        np.testing.assert_array_equal(half, whole[: size // 2 + 1])


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("node", [False, True])
def test_wavenumbers(pair: Any, node: bool) -> None:
    axis, _ = one_axis(pair, 6, node)
    k = np.sqrt(axis.transform().squared_wavenumbers(H, "spectral", half=False))
    stencil = axis.transform().squared_wavenumbers(H, "stencil", half=False)
    np.testing.assert_allclose(stencil, 4 * np.sin(k * H / 2) ** 2 / H**2, atol=1e-14)
    length = (5 if node and pair != "periodic" else 6) * H
    lowest = {"periodic": 0, "neumann": 0, "dirichlet": np.pi / length}.get(pair, np.pi / (2 * length))
    assert k[0] == pytest.approx(lowest)
    assert k[1] - k[0] == pytest.approx((2 if pair == "periodic" else 1) * np.pi / length)
    assert k.max() <= np.pi / H * (1 + 1e-14)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize(("family", "kind"), [("dct", 1), ("dct", 4), ("dst", 1), ("dst", 4)])
def test_extension_equals_scipy(family: Any, kind: int, size: int, dtype: str) -> None:
    """What stands in on a GPU for the kinds that CuPy lacks."""
    transform = Transform(family, kind, 0, size, 0.0, size)
    u = np.random.default_rng(3).standard_normal((2, size, 3)).astype(dtype)
    if dtype == "complex128":
        u += 1j * u[::-1]
    tolerance = 50 * np.finfo(dtype).eps
    assert transforms.by_extension(u, transform, 1).dtype == u.dtype
    for inverse in (False, True):
        name = f"i{family}" if inverse else family
        expected = getattr(scipy.fft, name)(u, type=kind, axis=1)
        result = transforms.by_extension(u, transform, 1) * (transform.scale if inverse else 1)
        np.testing.assert_allclose(result, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_no_other_extension() -> None:
    with pytest.raises(ValueError, match="no extension for dct of type 2; use 1 or 4"):
        transforms.by_extension(np.ones(3), Transform("dct", 2, 0, 3, 0.0, 3), 0)


@st.composite
def mixtures(draw: Any, most: int = 5) -> tuple[Any, dict[str, Any]]:
    """A dataset and boundary conditions, any mixture of kinds, cell- and node-centred."""
    dims = ("z", "y", "x")[-draw(st.integers(1, 3)) :]
    boundary = {dim: draw(st.sampled_from(PAIRS)) for dim in dims}
    nodes = tuple(dim for dim in dims if draw(st.booleans()))
    least = {dim: 3 if dim in nodes and boundary[dim] != "periodic" else 1 for dim in dims}
    shape = [draw(st.integers(least[dim], most)) for dim in dims]
    spacing = [draw(st.sampled_from([0.5, 1.0, 1.5])) for _ in dims]
    values = np.random.default_rng(draw(st.integers(0, 99))).standard_normal(shape)
    return vd.dataset({"c": values}, spacing=spacing, node_centred=nodes), boundary


@settings(max_examples=100)
@given(mixtures(), st.integers(1, 3), st.integers(1, 3), st.sampled_from([0.1, 3.0]))
def test_solves_an_implicit_step(mixture: tuple[Any, dict[str, Any]], rows: int, columns: int, step: float) -> None:
    """T^-1[ T[b] / (1 + dt q) ] is the solution of (1 - dt lap) x = b, in any slabs and pencils."""
    ds, boundary = mixture
    axes, b = parse(boundary, Grid.from_dataset(ds)), ds.c.values.copy()
    dims = tuple(axis.dim for axis in axes)
    ends = reference.axes_of(ds, boundary)
    free = reference.free(b.shape, ends)
    b[~free] = 0
    matrix = reference.laplace_matrix(b.shape, ends)
    x = np.zeros_like(b)
    x[free] = np.linalg.solve(np.eye(len(matrix)) - step * matrix, b[free])

    transform = GridTransform(axes, b.dtype, "stencil")
    squares = [sp.Symbol(f"q_{dim}", nonnegative=True) for dim in dims]
    gain = compile_filter(((TRANSFORMED, ((TRANSFORMED, SCALE / (1 + dt * sp.Add(*squares))),)),), dims)
    slabs = split(len(b), rows)
    spectrum = np.concatenate([transform.forward_slab(b[lo:hi].copy()) for lo, hi in slabs])
    assert spectrum.shape == transform.spectrum_shape and spectrum.dtype == transform.spectrum_dtype
    for start, stop in split(spectrum.shape[1], columns):
        pencil = spectrum[:, start:stop].copy()
        spectrum[:, start:stop] = transform.filter_pencil(pencil, start, gain, {"dt": step})
    result = np.concatenate([transform.inverse_slab(spectrum[lo:hi].copy()) for lo, hi in slabs])
    assert result.shape == b.shape and result.dtype == b.dtype
    np.testing.assert_allclose(result, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("boundary", "half"),
    [
        ("periodic", 2),
        ("neumann", None),
        ({"x": "neumann"}, 1),
        ({"y": "neumann", "x": "neumann"}, 0),
        ({"z": "neumann"}, 2),
    ],
)
def test_real_data_is_halved_once(boundary: Any, half: int | None) -> None:
    axes = parse(boundary, Grid.from_dataset(vd.dataset({"c": np.zeros((4, 5, 6))})))
    transform = GridTransform(axes, np.dtype(np.float32))
    assert transform.half == half
    assert transform.spectrum_dtype == (np.complex64 if half in (1, 2) else np.float32)
    shape = [4, 5, 6]
    if half in (1, 2):
        shape[half] = shape[half] // 2 + 1
    assert transform.spectrum_shape == tuple(shape)
    assert all(q.dtype == np.float32 for q in transform.squares)


@given(st.integers(1, 40), st.integers(1, 50))
def test_tiles_cover(size: int, width: int) -> None:
    ranges = split(size, width)
    assert [i for lo, hi in ranges for i in range(lo, hi)] == list(range(size))
    assert all(hi - lo == width for lo, hi in ranges[:-1]) and 0 < ranges[-1][1] - ranges[-1][0] <= width


@pytest.mark.parametrize("boundary", ["periodic", "neumann", {"z": "periodic", "y": "neumann", "x": "neumann"}])
@pytest.mark.parametrize("size", [MOST_LINES, MOST_LINES + 1])
def test_long_lines_are_transformed_beside_their_columns(boundary: Any, size: int) -> None:
    """As NumPy does it, in the first case, and bit for bit as where the columns lie."""
    ds = vd.dataset({"c": np.zeros((size, 2, 256), np.float32)})
    axes = parse(boundary, Grid.from_dataset(ds))
    transform = GridTransform(axes, np.dtype(np.float32))
    rng = np.random.default_rng(1)
    block = rng.standard_normal(transform.spectrum_shape).astype(transform.spectrum_dtype)
    if transform.complex:
        block += 1j * rng.standard_normal(block.shape).astype(np.float32)
    gain = compile_filter(((TRANSFORMED, ((TRANSFORMED, SCALE * sp.Symbol("q_x", nonnegative=True)),)),), tuple("xyz"))
    given, system = block.copy(), SimpleNamespace(transform=transform)
    there = tiles.filtered(system, block, 0, gain, {}, workspace=tiles.Workspace())  # type: ignore[arg-type]
    np.testing.assert_array_equal(block, given)
    np.testing.assert_array_equal(there, tiles.filtered(system, block, 0, gain, {}))  # type: ignore[arg-type]
    if boundary == "periodic":
        modes = np.fft.fft(given.astype(complex), axis=0) * transform.squares[0][:, None, None]
        expected = np.fft.ifft(modes, axis=0)  # no transform scales, the gain does
        np.testing.assert_allclose(there, expected * transform.scale * size, rtol=0, atol=1e-5 * abs(expected).max())


@pytest.mark.parametrize("node", [False, True])
@pytest.mark.parametrize("boundary", ["periodic", "dirichlet", {"z": "periodic", "y": "neumann", "x": "neumann"}])
def test_columns_take_what_a_plan_foresees(boundary: Any, node: bool) -> None:
    """Of long lines, a copy among it: halved, with held nodes, or neither."""
    ds = vd.dataset({"c": np.zeros((600, 2, 256), np.float32)}, node_centred=("z",) if node else ())
    transform = GridTransform(parse(boundary, Grid.from_dataset(ds)), np.dtype(np.float32))
    block, system = np.zeros(transform.spectrum_shape, transform.spectrum_dtype), SimpleNamespace(transform=transform)
    gain = compile_filter(((TRANSFORMED, ((TRANSFORMED, SCALE),)),), tuple("zyx"))
    pencil = np.zeros((600, 6, *block.shape[2:]), block.dtype)[:, ::3]  # its values lie apart
    problem = Problem(block.shape, 4, 1, 0, 0, 0, 1, 1, 2, block[0, 0].nbytes)

    def filtered() -> None:
        tiles.filtered(system, pencil, 0, gain, {}, workspace=tiles.Workspace())  # type: ignore[arg-type]

    filtered()  # compiles
    tracemalloc.start()
    filtered()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    without = replace(problem, spectra=0)
    assert block.nbytes < peak <= tile_bytes(problem, 0, 2) - tile_bytes(without, 0, 2) + (1 << 16)


@pytest.mark.parametrize("width", [127, 128, 512, 513])
def test_rows_lie_on_lines_of_the_cache(width: int) -> None:
    workspace = tiles.Workspace()
    for rows in (5, 3):
        array = workspace.spaced("any", (rows, 1, width), np.complex64)
        assert array.shape == (rows, 1, width) and array.ctypes.data % tiles.CACHE_LINE == 0
        assert array.strides[0] == 8 * width if width < 128 else array.strides[0] % 128 == 64
        array[...] = 1
    assert np.shares_memory(array, workspace.spaced("any", (5, 1, width), np.complex64))
