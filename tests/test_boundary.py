"""What an axis end means: ghost rules against formulas, parsing against messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import voxdask as vd
from voxdask.boundary import Axis, End, face_value, parse
from voxdask.grid import Grid
from voxdask.identity import end_in_words

H = 0.5
GRID = Grid(("z", "y", "x"), (4, 3, 5), (H, 1.0, 2.0), (0.0, 0.5, 1.0), node_centred=("z",))


def axis(lo: End, hi: End, *, size: int = 6, node: bool = False) -> Axis:
    return Axis("x", size, H, node, lo, hi)


def padded(u: np.ndarray, ends: Axis, depth: int, lo: float = 0.0, hi: float = 0.0) -> list[float]:
    """What the rules say, one ghost at a time."""
    values = {p: u[p] for p in range(len(u))}
    for ghost in ends.ghosts(depth):
        values[ghost.position] = ghost.sign * u[ghost.source] + ghost.lo_weight * lo + ghost.hi_weight * hi
    return [values[p] for p in sorted(values)]


@pytest.mark.parametrize("node", [False, True])
def test_dirichlet_ghosts(node: bool) -> None:
    u, v, w = np.arange(6.0) ** 2, 3.0, -1.0
    ends = axis(End("dirichlet", v), End("dirichlet", w), node=node)
    if node:
        u[0], u[-1] = v, w
        expected = [2 * v - u[2], 2 * v - u[1], *u, 2 * w - u[-2], 2 * w - u[-3]]
    else:
        expected = [2 * v - u[1], 2 * v - u[0], *u, 2 * w - u[-1], 2 * w - u[-2]]
    assert padded(u, ends, 2, v, w) == expected
    assert ends.held == ((0, 5) if node else ())


@pytest.mark.parametrize("node", [False, True])
def test_neumann_ghosts(node: bool) -> None:
    u, g, k = np.arange(6.0) ** 2, 3.0, -1.0
    ends = axis(End("neumann", g), End("neumann", k), node=node)
    if node:
        expected = [u[2] + 4 * H * g, u[1] + 2 * H * g, *u, u[-2] + 2 * H * k, u[-3] + 4 * H * k]
    else:
        expected = [u[1] + 3 * H * g, u[0] + H * g, *u, u[-1] + H * k, u[-2] + 3 * H * k]
    assert padded(u, ends, 2, g, k) == expected
    assert ends.held == ()


@given(size=st.integers(1, 6), depth=st.integers(0, 15))
def test_equal_to_numpy_pad(size: int, depth: int) -> None:
    u = np.random.default_rng(size).random(size)
    modes = (("periodic", False, "wrap"), ("neumann", False, "symmetric"), ("neumann", True, "reflect"))
    for kind, node, mode in modes:
        if node and size < 3:
            continue
        ends = axis(End(kind), End(kind), size=size, node=node)
        assert padded(u, ends, depth) == np.pad(u, depth, mode=mode).tolist()


@given(
    size=st.integers(3, 6),
    node=st.booleans(),
    kinds=st.tuples(st.sampled_from(["dirichlet", "neumann"]), st.sampled_from(["dirichlet", "neumann"])),
    slope=st.floats(-2, 2),
    offset=st.floats(-2, 2),
    depth=st.integers(1, 14),
)
def test_a_linear_field_goes_on_beyond_its_ends(
    size: int, node: bool, kinds: tuple[Any, Any], slope: float, offset: float, depth: int
) -> None:
    """Every rule is exact for it, however often it is reflected."""
    start, stop = (0.0, (size - 1) * H) if node else (-H / 2, (size - 0.5) * H)
    values = [
        offset + slope * x if kind == "dirichlet" else sign * slope
        for kind, x, sign in zip(kinds, (start, stop), (-1, 1), strict=True)
    ]
    ends = axis(End(kinds[0], values[0]), End(kinds[1], values[1]), size=size, node=node)
    u = offset + slope * H * np.arange(size)
    expected = offset + slope * H * np.arange(-depth, size + depth)
    largest = np.abs(expected).max()
    np.testing.assert_allclose(padded(u, ends, depth, *values), expected, rtol=0, atol=1e-12 * (1 + largest))


def test_coefficients_and_changes_see_other_ends() -> None:
    (z, *_), (y, *_) = parse(vd.Dirichlet(1.0), GRID), parse("periodic", GRID)
    assert z.mirrored().lo.kind == "neumann" and z.mirrored().held == () and z.mirrored().lo.homogeneous
    assert y.mirrored() is y
    assert z.homogeneous().lo.kind == "dirichlet" and z.homogeneous().lo.homogeneous and z.homogeneous().held == (0, 3)


@pytest.mark.parametrize(
    ("boundary", "kinds"),
    [
        ("neumann", ["nn", "nn", "nn"]),
        ({"y": "dirichlet"}, ["pp", "dd", "pp"]),
        ({"z": ("neumann", "dirichlet"), "x": (vd.Dirichlet(1), vd.Neumann(2))}, ["nd", "pp", "dn"]),
        (("dirichlet", "neumann"), ["dn", "dn", "dn"]),
    ],
)
def test_parse(boundary: Any, kinds: list[str]) -> None:
    axes = parse(boundary, GRID)
    assert [a.lo.kind[0] + a.hi.kind[0] for a in axes] == kinds
    assert [(a.dim, a.size, a.spacing, a.node_centred) for a in axes] == [
        ("z", 4, H, True), ("y", 3, 1.0, False), ("x", 5, 2.0, False)
    ]  # fmt: skip


def test_values_by_end() -> None:
    boundary = {"y": vd.Dirichlet(2), "x": vd.Neumann(1, -1), "z": (vd.Dirichlet(3, 4), "neumann")}
    pair, two, one = parse(boundary, GRID)
    assert (two.lo.value, two.hi.value) == (2.0, 2.0)
    assert (one.lo.value, one.hi.value) == (1.0, -1.0)
    assert (pair.lo.value, pair.hi.value) == (3.0, 0.0)


def face(**sizes: int) -> xr.DataArray:
    return xr.DataArray(np.random.default_rng(0).random(tuple(sizes.values())), dims=list(sizes))


@pytest.mark.parametrize("lazy", [False, True])
def test_face_values(lazy: bool) -> None:
    value = face(x=5, z=4)
    axes = parse({"y": vd.Dirichlet(value.chunk() if lazy else value)}, GRID)
    np.testing.assert_array_equal(face_value(axes[1].lo, axes, 1, 0.0), value.values.T)
    moving = parse({"y": vd.Neumann(lambda t: t * value, lambda t: 2 * t)}, GRID)
    np.testing.assert_array_equal(face_value(moving[1].lo, moving, 1, 3.0), 3 * value.values.T)
    assert face_value(moving[1].hi, moving, 1, 3.0) == 6.0
    line = parse(vd.Dirichlet(xr.DataArray(0.5)), Grid(("x",), (3,), (1.0,), (0.5,)))
    assert face_value(line[0].lo, line, 0, 0.0) == 0.5


@pytest.mark.parametrize(
    ("boundary", "error", "message"),
    [
        ({"w": "neumann"}, ValueError, r"the dim 'w', but the grid has dims \('z', 'y', 'x'\)"),
        ({"y": ("periodic", "neumann")}, ValueError, r"boundary\['y'\] is periodic on one end only"),
        ({"y": (vd.Dirichlet(1), "periodic")}, ValueError, r"boundary\['y'\] is periodic on one end only"),
        ({"y": "reflect"}, ValueError, r"boundary\['y'\] is 'reflect'; use 'periodic', 'neumann', 'dirichlet'"),
        ({"y": 0.0}, TypeError, r"boundary\['y'\] is a float; use 'periodic'"),
        (None, TypeError, r"boundary\['z'\] is a NoneType; use 'periodic'"),
        (vd.Dirichlet, TypeError, r"boundary\['z'\] is a type; use 'periodic'"),
        ({"y": ("neumann",) * 3}, ValueError, r"boundary\['y'\] needs two ends \(lower, upper\), got 3"),
        ({"y": vd.Dirichlet("1.0")}, TypeError, r"a value in boundary\['y'\] is '1.0'; give a number, a function"),
        ({"y": vd.Dirichlet(np.zeros((4, 5)))}, TypeError, r"give a number, a function of time or a DataArray"),
        ({"y": vd.Dirichlet(np.nan)}, ValueError, r"a value in boundary\['y'\] is nan; it must be finite"),
        ({"y": vd.Neumann(0, np.inf)}, ValueError, r"a value in boundary\['y'\] is inf; it must be finite"),
        ({"y": vd.Neumann(0, 1j)}, TypeError, r"a value in boundary\['y'\] is 1j; give a number"),
        (
            {"y": vd.Dirichlet(face(z=4, x=4))}, ValueError,
            r"boundary\['y'\] has sizes {'z': 4, 'x': 4}; the face has {'z': 4, 'x': 5}",
        ),
        ({"y": vd.Dirichlet(face(z=4, y=3))}, ValueError, r"the face has {'z': 4, 'x': 5}"),
        ({"y": vd.Dirichlet(face(z=4))}, ValueError, r"the face has {'z': 4, 'x': 5}"),
        ({"y": vd.Dirichlet(face(z=4, x=5) * np.inf)}, ValueError, r"boundary\['y'\] holds NaN or infinity"),
        ({"y": vd.Dirichlet(face(z=4, x=5) * 1j)}, TypeError, r"boundary\['y'\] has dtype complex128"),
        (
            {"y": vd.Dirichlet(face(z=4, x=5).assign_coords(x=np.arange(5.0)))}, ValueError,
            r"other coordinates along 'x' than the grid: 0 ... 4, not 1 ... 9",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(boundary: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        parse(boundary, GRID)


def test_too_few_nodes() -> None:
    grid = Grid(("x",), (2,), (1.0,), (0.0,), node_centred=("x",))
    with pytest.raises(ValueError, match="the node-centred dim 'x' has 2 nodes; it needs at least 3 unless periodic"):
        parse("neumann", grid)
    assert parse("periodic", grid)[0].size == 2


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (lambda t: "warm", TypeError, r"boundary\['y'\] returned a str at time 2"),
        (lambda t: np.zeros(3), TypeError, r"boundary\['y'\] returned a ndarray at time 2"),
        (lambda t: np.nan, ValueError, r"boundary\['y'\] is nan"),
        (lambda t: face(z=4, x=3), ValueError, r"the face has {'z': 4, 'x': 5}"),
    ],
)
def test_what_a_function_returns_is_checked(function: Any, error: type[Exception], message: str) -> None:
    axes = parse({"y": vd.Dirichlet(function)}, GRID)
    with pytest.raises(error, match=message):
        face_value(axes[1].lo, axes, 1, 2.0)


def test_descriptions_tell_ends_apart() -> None:
    array = face(z=4, x=5)
    values: list[Any] = [0.0, 1.0, array, array + 1, lambda t: t, lambda t: 2 * t, lambda t: 1 / t, lambda t: t * array]
    values += [1e6, 1e6 + 4e-4, lambda t: float(t >= 20), lambda t: float(t >= 50)]
    ends = [parse({"y": condition(v)}, GRID)[1].lo for condition in (vd.Dirichlet, vd.Neumann) for v in values]
    assert len({end_in_words(end) for end in ends}) == len(ends)
    again = parse({"y": vd.Dirichlet(array.copy())}, GRID)[1].lo
    assert end_in_words(again) == end_in_words(ends[2])
    assert end_in_words(End("periodic")) == "periodic"
