"""The Laplacian split along and across the normal: stencils by hand, radial functions, flat regions, derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import sympy as sp
from periodic import AXES, random_fields, run

import voxdask as vd
from voxdask.lowering import exact, fourier_symbol, lower
from voxdask.symbols import Field, laplace, normal_laplace, tangential_laplace
from voxdask.verify import rhs_order

x, y, z, pi = vd.x, vd.y, vd.z, sp.pi
u = Field("u", real=True)

GRIDS = [((9,), (0.5,)), ((7, 6), (0.5, 0.7)), ((5, 6, 7), (0.5, 0.7, 0.9))]
grids = pytest.mark.parametrize(("shape", "spacing"), GRIDS, ids=["1-D", "2-D", "3-D"])
parts = pytest.mark.parametrize("part", [normal_laplace, tangential_laplace], ids=["normal", "tangential"])


@dataclass(frozen=True)
class Part(vd.Model):
    """One of the operators as a model."""

    part: Callable[[Any], Any]
    fields = ("u",)

    def rhs(self, t: Any, u: Any) -> Any:
        return self.part(u)


def moved(values: np.ndarray, *steps: int) -> np.ndarray:
    """The values `steps` voxels further along each axis, periodic."""
    return np.roll(values, [-step for step in steps], range(values.ndim))


def slopes_and_bends(values: np.ndarray, spacing: Sequence[float]) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """The gradient and the matrix of second derivatives by central differences in NumPy."""
    unit = np.eye(values.ndim, dtype=int)
    gradient = [(moved(values, *e) - moved(values, *-e)) / (2 * h) for e, h in zip(unit, spacing, strict=True)]
    hessian = [[np.empty_like(values)] * values.ndim for _ in spacing]
    for a, b in itertools.product(range(values.ndim), repeat=2):
        if a == b:
            total = moved(values, *unit[a]) - 2 * values + moved(values, *-unit[a])
            hessian[a][a] = total / spacing[a] ** 2
        else:
            corners = sum(i * j * moved(values, *(i * unit[a] + j * unit[b])) for i in (-1, 1) for j in (-1, 1))
            hessian[a][b] = np.asarray(corners) / (4 * spacing[a] * spacing[b])
    return gradient, hessian


@grids
def test_the_stencil_is_n_h_n(shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    values = random_fields("u", shape=shape)["u"]
    g, H = slopes_and_bends(values, spacing)
    square = sum(s**2 for s in g)
    expected = sum(g[a] * H[a][b] * g[b] for a in range(len(g)) for b in range(len(g))) / square
    found = run(normal_laplace(u), {"u": values}, spacing)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    program = lower((normal_laplace(u),), ("r",), AXES[-len(shape) :])
    assert len(program.stages[0].samples) == {1: 3, 2: 9, 3: 19}[len(shape)]
    assert program.halo == 1


def test_fronts_along_an_axis_are_flat() -> None:
    rising = np.cumsum(random_fields("u", shape=(9,))["u"])
    curved = run(tangential_laplace(u), {"u": np.broadcast_to(rising, (4, 9))}, (0.5, 0.7))
    assert np.abs(curved[:, 1:-1]).max() < 1e-9  # it falls where the axis closes


#: Not symmetric, and sloping everywhere; the ghosts of both ends continue it.
SLOPING = {
    1: 0.2 + 0.6 * x + 0.05 * vd.sin(pi * x),
    2: 0.2 + 0.6 * x + 0.05 * vd.sin(pi * x) * vd.cos(pi * y),
    3: 0.2 + 0.6 * x + 0.05 * vd.sin(pi * x) * vd.cos(pi * y) * vd.cos(pi * z),
}


@pytest.mark.parametrize("ndim", [1, 2, 3])
@parts
def test_both_parts_are_of_second_order(part: Callable[[Any], Any], ndim: int) -> None:
    if ndim == 1 and part is tangential_laplace:
        return  # it is zero
    boundary = {"x": vd.Dirichlet(0.2, 0.8), "y": "neumann", "z": "neumann"}
    dims = AXES[-ndim:]
    study = rhs_order(
        Part(part), {"u": SLOPING[ndim]}, dims=dims, boundary={dim: boundary[dim] for dim in dims},
        sizes=(16, 20, 24, 32) if ndim == 3 else (24, 32, 48, 64),
    )  # fmt: skip
    assert study.order == pytest.approx(2, abs=0.1)


def test_a_wave_in_one_dimension_needs_no_slope_at_its_crest() -> None:
    study = rhs_order(Part(normal_laplace), {"u": 0.5 + 0.2 * vd.sin(2 * pi * x + 0.7)}, sizes=(48, 64, 96, 128))
    assert study.order == pytest.approx(2, abs=0.1)


def test_an_argument_with_derivatives_gets_a_stage() -> None:
    program = lower((normal_laplace(laplace(u)),), ("r",), ("y", "x"))
    assert (len(program.stages), program.halo) == (2, 2)
    wave = 0.5 + 0.2 * vd.sin(2 * pi * x + 0.7)
    study = rhs_order(Part(lambda v: normal_laplace(laplace(v))), {"u": wave}, sizes=(32, 48, 64, 96))
    assert study.order == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize("dims", ["x", "yx", "zyx"])
def test_exact_forms_of_radial_functions(dims: str) -> None:
    # of f(r): f'' along the normal, (d - 1) f' / r across it
    places = [sp.Symbol(dim) for dim in dims]
    here = {vd.x: sp.Rational(7, 10), vd.y: sp.Rational(-3, 10), vd.z: sp.Rational(1, 5)}
    r = sp.sqrt(sum(here[getattr(vd, str(s))] ** 2 for s in places))
    radius = sp.sqrt(sum(getattr(vd, dim) ** 2 for dim in dims))
    values = {"u": sp.tanh(3 * radius)}
    s = sp.Symbol("s", positive=True)
    first, second = (sp.diff(sp.tanh(3 * s), s, n).subs(s, r) for n in (1, 2))
    for e, expected in ((normal_laplace(u), second), (tangential_laplace(u), (len(dims) - 1) * first / r)):
        assert float(exact(e, values, tuple(dims)).subs(here)) == pytest.approx(float(expected), rel=1e-12, abs=1e-12)
    assert exact(normal_laplace(u), {"u": sp.Integer(1)}, tuple(dims)) == 0


@parts
def test_nothing_happens_where_the_field_is_flat(part: Callable[[Any], Any]) -> None:
    rng = np.random.default_rng(2)
    assert not run(part(u), {"u": np.ones((5, 6))}, (1.0, 1.0)).any()
    noise = (1 - 1e-7 * rng.integers(0, 3, (5, 6, 7))).astype(np.float32)  # a few steps of single precision
    found = run(part(u), {"u": noise}, (1.0, 1.0, 1.0))
    assert np.abs(found).max() <= (0 if part is normal_laplace else 1e-5)


@parts
def test_a_change_of_units_changes_units_alone(part: Callable[[Any], Any]) -> None:
    values = random_fields("u", shape=(6, 7))["u"]
    one = run(part(u), {"u": values}, (1.0, 1.5))
    for length in (1e-6, 1e9):
        scaled = run(part(u), {"u": values}, (length, 1.5 * length)) * length**2
        np.testing.assert_allclose(scaled, one, rtol=0, atol=1e-11 * np.abs(one).max())


def test_the_stiff_part() -> None:
    q_x, q_y = sp.symbols("q_x q_y", nonnegative=True)
    assert fourier_symbol(normal_laplace(u), "u", {"u": sp.Rational(1, 2)}, ("y", "x")) == -q_x - q_y
    both = laplace(u) - tangential_laplace(u) / 2
    assert fourier_symbol(both, "u", {"u": sp.Rational(1, 2)}, ("y", "x")) == -q_x - q_y


@pytest.mark.parametrize(
    ("part", "ndim"),
    [(normal_laplace, 2), (tangential_laplace, 2), (normal_laplace, 3)],
    ids=["normal-2-D", "tangential-2-D", "normal-3-D"],
)
def test_tangent_and_adjoint(part: Callable[[Any], Any], ndim: int) -> None:
    rng, shape = np.random.default_rng(1), (5, 6, 7)[-ndim:]
    model, options = Part(part), {"spacing": (0.5, 0.7, 0.9)[-ndim:]}
    state = vd.dataset({"u": rng.uniform(0.1, 0.9, shape)}, **options)
    change, weight = (vd.dataset({"u": rng.standard_normal(shape)}, **options) for _ in range(2))
    slope, back = model.tangent(state, change).u, model.adjoint(state, weight).u
    scale = float(abs(slope * weight.u).sum())
    assert abs(float((slope * weight.u).sum() - (back * change.u).sum())) <= 1e-11 * scale
    remainders, steps = [], 1e-4 * 0.5 ** np.arange(4)
    for step in steps:
        there = model.right_hand_side(state + step * change).u - model.right_hand_side(state).u
        remainders.append(float(abs(there - step * slope).max()))
    assert np.polyfit(np.log(steps), np.log(remainders), 1)[0] == pytest.approx(2, abs=0.1)


@parts
def test_on_data_in_memory_and_lazily(part: Callable[[Any], Any]) -> None:
    ds = vd.dataset({"u": random_fields("u", shape=(6, 5, 4))["u"]}, spacing=0.5)
    block = part(ds.u, boundary="neumann")
    lazy = part(ds.u.chunk(z=2), boundary="neumann")
    assert block.name == "u"
    assert lazy.chunks is not None
    np.testing.assert_array_equal(lazy.values, block.values)
    np.testing.assert_array_equal(block.values, Part(part).right_hand_side(ds, boundary="neumann").u.values)


def test_latex() -> None:
    assert sp.latex(normal_laplace(u)) == r"\partial_n^2 u"
    assert sp.latex(tangential_laplace(u)) == (
        r"\left| \nabla u \right| \nabla \cdot \frac{\nabla u}{\left| \nabla u \right|}"
    )


def test_a_vector_is_refused() -> None:
    with pytest.raises(TypeError, match="normal_laplace takes a scalar, got a vector"):
        normal_laplace(vd.grad(u))
    with pytest.raises(TypeError, match="takes no 'boundary'"):
        tangential_laplace(u, boundary="neumann")
