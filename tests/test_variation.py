"""Variational derivatives against SymPy's Euler-Lagrange equations; models made from a free energy alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sympy as sp
from sympy.calculus.euler import euler_equations

import voxdask as vd
from voxdask.lowering import exact
from voxdask.models import AllenCahn, CahnHilliard, from_free_energy
from voxdask.symbols import Dot, Field, Gradient, Laplacian, Parameter, clip, div, dot, exp, grad, laplace, log, norm
from voxdask.variation import variation
from voxdask.verify import rhs_order

c, w = Field("c", real=True), Field("w", real=True)
eps = Parameter("eps", positive=True)

#: Densities of every kind that is understood.
DENSITIES: dict[str, sp.Expr] = {
    "bulk": c**3 * log(c) + eps * w,
    "gradient": eps * dot(grad(c), grad(c)),
    "power": dot(grad(c), grad(c)) ** 2,
    "coefficient": (1 + c**2) * dot(grad(c), grad(c)) + w * c,
    "given-coefficient": w * dot(grad(c), grad(c)),
    "coupled": dot(grad(c), 3 * grad(w) - c * grad(c)),
    "function": dot(grad(exp(c)), grad(c * w)),
    "length": norm(2 * grad(c) + grad(w)),
    "all": exp(-c) * (1 + dot(grad(c), grad(c))) ** 2 + dot(grad(c), grad(w)) ** 3,
    "laplacian": c * laplace(c) ** 2 + laplace(w) * laplace(c) * dot(grad(c), grad(c)),
}


@pytest.mark.parametrize("axes", [("x",), ("y", "x")], ids="".join)
@pytest.mark.parametrize("name", DENSITIES)
def test_it_is_the_euler_lagrange_equation(name: str, axes: tuple[str, ...]) -> None:
    if name == "length":
        axes = ("y", "x")  # of one component it is an absolute value
    places = [getattr(vd, axis) for axis in axes]
    functions = [sp.Function(n)(*places) for n in "cw"]
    density = exact(DENSITIES[name], dict(zip("cw", functions, strict=True)), axes)
    (equation,) = euler_equations(density, functions[:1], places)
    wave = 0.7 + 0.2 * sp.sin(2 * vd.x + 0.3) + 0.1 * (vd.y * vd.x if "y" in axes else vd.x**2)
    given = 0.4 + 0.3 * sp.cos(vd.x) + (0.2 * sp.sin(vd.y) if "y" in axes else 0)
    here = {vd.x: 0.31, vd.y: -0.47, eps: 1.7}
    expected = equation.lhs.subs(dict(zip(functions, (wave, given), strict=True))).doit().subs(here)
    found = exact(variation(DENSITIES[name], c), {"c": wave, "w": given}, axes).subs(here)
    assert float(found) == pytest.approx(float(expected), rel=1e-10, abs=1e-10)


def test_a_constant_coefficient_gives_a_laplacian() -> None:
    assert variation(eps * dot(grad(c), grad(c)), c) == -2 * eps * Laplacian(c)
    assert variation(c**2, c) == 2 * c
    assert variation(c * dot(grad(c), grad(c)), c) == Dot(Gradient(c), Gradient(c)) - div(2 * c * grad(c))


@pytest.mark.parametrize(
    ("density", "message"),
    [
        (grad(c).expression, "a density is a scalar, but this is a vector"),
        (div(c * grad(c)), "the density holds Divergence"),
        (dot(grad(laplace(c)), grad(c)), r"differentiates Laplacian\(c\)"),
        (laplace(c**2), r"differentiates c\*\*2"),
    ],
)
def test_what_is_no_density(density: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        variation(density, c)


# --- models --------------------------------------------------------------------------------------------------------


def mixing(e: float) -> Callable[[Any, Any], Any]:
    return lambda c, g: 9 / sp.Integer(e) * c**2 * (1 - c) ** 2 + e * dot(g, g)


def test_cahn_hilliard_from_its_energy() -> None:
    model = from_free_energy(mixing(3), mobility=lambda c: 2 * c * (1 - c), bounds=(0, 1))
    builtin = CahnHilliard(3.0, 2.0)
    numbers = {Parameter(n, real=True): sp.Integer(int(v)) for n, v in builtin.equation.parameters.items()}
    # symbolically: the potentials differ by nothing
    mine, theirs = (e.expressions[0].xreplace(numbers) for e in (model.equation, builtin.equation))
    (ours,), (built,) = (e.atoms(Gradient) - {Gradient(clip(c, 0, 1))} for e in (mine, theirs))
    assert sp.expand(ours.args[0] - built.args[0]) == 0
    assert sp.expand(mine.args[0] / ours - theirs.args[0] / built) == 0
    ds = vd.dataset({"c": np.random.default_rng(1).uniform(-0.1, 1.1, (6, 7, 8))}, spacing=(0.5, 0.7, 0.9))
    boundary = {"z": "neumann", "y": "periodic", "x": vd.Dirichlet(0.3)}
    one, two = (m.right_hand_side(ds, boundary=boundary).c for m in (model, builtin))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-13 * float(abs(two).max()))
    assert float(model.free_energy(ds)) == pytest.approx(float(builtin.free_energy(ds)), rel=1e-13)
    q = sp.Symbol("q_x", nonnegative=True)
    assert model.equation.symbols(("x",)) == (-3 * q**2,)  # -2 eps D / 4 k^4


def test_allen_cahn_from_its_energy() -> None:
    def density(phi: Any, g: Any) -> Any:
        well = sp.Rational(9, 2) / 4 * phi**2 * (1 - phi) ** 2
        return sp.Rational(3, 2) * (dot(g, g) / 2 + well) - sp.Rational(1, 4) * (phi**2 * 3 / 2 - phi**3) / 2

    model = from_free_energy(density, mobility=1.25, conserved=False, field="phi", bounds=(0, 1))
    builtin = AllenCahn(2.0, 1.5, 1.25, 0.25, 1.0, form="full")
    numbers = {Parameter(n, real=True): sp.nsimplify(v) for n, v in builtin.equation.parameters.items()}
    number = {Parameter("mobility", real=True): sp.Rational(5, 4)}
    difference = model.equation.expressions[0].xreplace(number) - builtin.equation.expressions[0].xreplace(numbers)
    assert sp.expand(difference) == 0
    ds = vd.dataset({"phi": np.random.default_rng(1).uniform(-0.1, 1.1, (6, 7))}, spacing=(0.5, 0.7))
    one, two = (m.right_hand_side(ds).phi for m in (model, builtin))
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-13 * float(abs(two).max()))
    assert float(model.free_energy(ds)) == pytest.approx(float(builtin.free_energy(ds)), rel=1e-13)
    assert model.equation.parameters == {"mobility": 1.25}


def test_a_gradient_coefficient_that_varies_is_of_second_order() -> None:
    model = from_free_energy(
        lambda c, g: (1 + c**2) * dot(g, g) + dot(g, g) ** 2 / 20 + c**4, mobility=(2.0, lambda c: 1 + c)
    )
    wave = {"c": 0.5 + 0.2 * vd.sin(2 * sp.pi * vd.x + 0.7)}
    assert rhs_order(model, wave, sizes=(48, 64, 96, 128)).order == pytest.approx(2, abs=0.1)


def test_the_energy_of_a_flow_falls() -> None:
    # crystal-like: f = c/2 (1 + lap)^2 c - c^2/8 + c^4/4, here by parts as ((1 + lap) c)^2 / 2
    model = from_free_energy(
        lambda c, g: (c + laplace(c)) ** 2 / 2 - c**2 / 8 + c**4 / 4, conserved=False, reference=0.0,
        source=None,
    )  # fmt: skip
    ds = vd.dataset({"c": np.random.default_rng(2).normal(0, 0.1, (12, 12))}, spacing=0.8)
    run = vd.simulate(model, ds, dt=0.05, steps=40, save_every=4, progress=False)
    energies = model.free_energy(run).values
    assert (np.diff(energies) < 0).all()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"density": 3}, TypeError, "density is a int; give a function density"),
        ({"density": lambda c, g: g}, TypeError, "density returned a Vector"),
        ({"bounds": (1, 0)}, ValueError, "bounds is .1, 0.; give two numbers, the lower one first"),
        ({"bounds": 1}, ValueError, "bounds is 1; give two numbers"),
        ({"mobility": -1.0}, ValueError, "mobility is -1.0; it must be positive"),
        ({"mobility": ()}, ValueError, "mobility is an empty tuple"),
        ({"reference": "half"}, TypeError, "reference is 'half'; give a number"),
        ({"source": 1.0}, TypeError, "source is a float; give a function source"),
        ({"field": "a b"}, TypeError, "must be a tuple of names"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _ = from_free_energy(options.pop("density", mixing(3)), **options).equation
