"""Ghost layers: the same however the rows are cut, equal to an independent reference, and their transpose."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import reference
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import voxdask as vd
from voxdask import halo
from voxdask.boundary import Axis, parse
from voxdask.grid import Grid

TIME = 0.75
NAMES = ("z", "y", "x")


@dataclass(frozen=True)
class Case:
    """A field on a grid, and a condition on its ends."""

    ds: xr.Dataset
    boundary: dict[str, Any]
    depth: int
    seed: int

    @property
    def axes(self) -> tuple[Axis, ...]:
        return parse(self.boundary, Grid.from_dataset(self.ds))

    def random(self, *shape: int) -> np.ndarray:
        return np.random.default_rng(self.seed).standard_normal(shape)


@st.composite
def cases(draw: Any, most: int = 5, deepest: int = 7) -> Case:
    dims = draw(st.permutations(NAMES))[: draw(st.integers(1, 3))]
    boundary, nodes, sizes = {}, [], {}
    kinds = st.sampled_from(["neumann", "dirichlet", "number", "moving", "face", "flux"])
    for dim in dims:
        sizes[dim] = draw(st.integers(1, most))
    random = np.random.default_rng(draw(st.integers(0, 99)))

    def condition(dim: str, kind: str) -> Any:
        rest = {d: n for d, n in sizes.items() if d != dim}
        face = xr.DataArray(random.standard_normal(tuple(rest.values())[::-1]), dims=list(rest)[::-1])
        return {
            "neumann": "neumann",
            "dirichlet": "dirichlet",
            "number": vd.Dirichlet(1.5, -0.5),
            "moving": vd.Dirichlet(lambda t: 2 * t, lambda t: t * face),
            "face": vd.Dirichlet(face, 3.0),
            "flux": vd.Neumann(face, -0.25),
        }[kind]

    for dim in dims:
        if draw(st.booleans()):
            nodes.append(dim)
            sizes[dim] = max(sizes[dim], 3)
    for dim in dims:
        if draw(st.integers(0, 3)):
            boundary[dim] = (condition(dim, draw(kinds)), condition(dim, draw(kinds)))
    spacing = {dim: draw(st.sampled_from([0.5, 1.0, 2.0])) for dim in dims}
    field = np.zeros([sizes[dim] for dim in dims])
    ds = vd.dataset({"c": field}, dims=dims, spacing=spacing, node_centred=nodes)
    seed = draw(st.integers(0, 99))
    return Case(ds.copy(data={"c": np.random.default_rng(seed).standard_normal(field.shape)}), boundary,
                draw(st.integers(0, deepest)), seed)  # fmt: skip


def whole(case: Case, u: np.ndarray, axes: tuple[Axis, ...] | None = None) -> np.ndarray:
    """The padded block, from one array."""
    out = np.full([n + 2 * case.depth for n in u.shape], 1e300)  # what is not filled overflows
    return halo.pad(halo.ArrayRows(u), 0, len(u), case.depth, axes or case.axes, TIME, out)


@settings(max_examples=100)
@given(cases())
def test_equals_the_reference(case: Case) -> None:
    u = case.ds.c.values
    before = u.copy()
    expected = reference.pad(u, case.depth, reference.axes_of(case.ds, case.boundary), TIME)
    np.testing.assert_allclose(whole(case, u), expected, rtol=1e-12, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_array_equal(u, before)


@settings(max_examples=100)
@given(cases(), st.data())
def test_any_cut_gives_the_same(case: Case, data: Any) -> None:
    u, axes, depth = case.ds.c.values, case.axes, case.depth
    expected, size = whole(case, u), len(u)
    cuts = sorted({0, size, *data.draw(st.lists(st.integers(0, size)))})
    slabs = list(itertools.pairwise(cuts))
    pieces = [(lo, u[lo:hi]) for lo, hi in slabs]
    for lo, hi in slabs:
        for rows in (halo.ArrayRows(u), halo.PieceRows(pieces[::-1])):
            out = np.full([hi - lo + 2 * depth, *expected.shape[1:]], 1e300)
            halo.pad(rows, lo, hi, depth, axes, TIME, out)
            np.testing.assert_array_equal(out, expected[lo : hi + 2 * depth])


@settings(max_examples=100)
@given(cases(), st.data())
def test_the_order_of_dims_is_storage_only(case: Case, data: Any) -> None:
    dims = data.draw(st.permutations(list(case.ds.c.dims)))
    turned = Case(case.ds.transpose(*dims), case.boundary, case.depth, case.seed)
    there = xr.DataArray(whole(case, case.ds.c.values), dims=case.ds.c.dims)
    here = whole(turned, np.ascontiguousarray(turned.ds.c.values))
    np.testing.assert_array_equal(here, there.transpose(*dims).values)


@settings(max_examples=100)
@given(cases(most=4))
def test_fold_is_the_transpose(case: Case) -> None:
    """<w, P u> = <P^T w, u> for the homogeneous part P, over what is free."""
    axes = tuple(axis.homogeneous() for axis in case.axes)
    u = case.ds.c.values.copy()
    halo.release(u, 0, axes)
    padded = whole(case, u, axes)
    w = case.random(*padded.shape)
    left, scale = np.vdot(w, padded), np.linalg.norm(w) * np.linalg.norm(padded) + 1e-300
    folded = halo.fold(w.copy(), case.depth, axes)
    assert abs(left - np.vdot(folded, u)) <= 1e-12 * scale
    assert folded.shape == u.shape


@settings(max_examples=100)
@given(cases())
def test_pad_is_affine(case: Case) -> None:
    """Its change under a change of the field is what `homogeneous` ends say."""
    u, v = case.ds.c.values, case.random(*case.ds.c.shape)
    halo.release(v, 0, case.axes)
    change = whole(case, v, tuple(axis.homogeneous() for axis in case.axes))
    np.testing.assert_allclose(whole(case, u + v) - whole(case, u), change, rtol=0, atol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize(
    ("boundary", "node", "mode"),
    [("periodic", (), "wrap"), ("neumann", (), "symmetric"), ("neumann", NAMES, "reflect")],
)
def test_equals_numpy_pad(boundary: str, node: tuple[str, ...], mode: Any, depth: int) -> None:
    u = np.random.default_rng(1).random((4, 3, 5)).astype(np.float32)
    axes = parse(boundary, Grid.from_dataset(vd.dataset({"c": u}, node_centred=node)))
    out = np.empty([n + 2 * depth for n in u.shape], np.float32)
    halo.pad(halo.ArrayRows(u), 0, 4, depth, axes, 0.0, out)
    np.testing.assert_array_equal(out, np.pad(u, depth, mode=mode))


@settings(max_examples=100)
@given(cases(), st.data())
def test_hold_and_release(case: Case, data: Any) -> None:
    u, axes = case.ds.c.values, case.axes
    lo = data.draw(st.integers(0, len(u) - 1))
    hi = data.draw(st.integers(lo + 1, len(u)))
    ends = reference.axes_of(case.ds, case.boundary)
    free, held = reference.free(u.shape, ends), u.copy()
    halo.hold(held, 0, axes, TIME)
    np.testing.assert_array_equal(held[free], u[free])
    np.testing.assert_array_equal(held, whole(Case(case.ds, case.boundary, 0, 0), u))
    rows = u[lo:hi].copy()
    halo.hold(rows, lo, axes, TIME)
    np.testing.assert_array_equal(rows, held[lo:hi])
    halo.release(rows, lo, axes)
    np.testing.assert_array_equal(rows, np.where(free, u, 0)[lo:hi])


def test_float32_stays_float32() -> None:
    u = np.ones((3, 3), np.float32)
    face = xr.DataArray(np.full(3, 0.1), dims="x")
    axes = parse({"y": vd.Dirichlet(face)}, Grid.from_dataset(vd.dataset({"c": u})))
    out = np.empty((5, 5), np.float32)
    halo.pad(halo.ArrayRows(u), 0, 3, 1, axes, 0.0, out)
    assert out[0, 1] == np.float32(2) * np.float32(0.1) - 1
