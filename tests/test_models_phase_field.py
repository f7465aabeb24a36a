"""Cahn-Hilliard with its options, diffusion, series: growth rates, equilibria, energies, orders, what is refused.

Growth rates are compared with the eigenvalue of the stencil, K = 4 sin^2(k h / 2) / h^2; discretisation errors of
order h^2 are measured apart, by `rhs_order`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import sympy as sp
from numpy.polynomial import legendre as series
from scipy.optimize import brentq

import voxdask as vd
from voxdask.models import (
    AllenCahn,
    CahnHilliard,
    ChemicalDiffusion,
    DoubleWell,
    Obstacle,
    ReactionDiffusion,
    RegularSolution,
    exp_legendre,
    from_free_energy,
    legendre,
)
from voxdask.verify import rhs_order

x, pi = vd.x, sp.pi


def profile(distance: Any, eps: float) -> np.ndarray:
    """The flat interface, from phi'^2 / 2 = 9 / (2 eps^2) phi^2 (1 - phi)^2; 1 where the distance is positive."""
    return np.asarray(0.5 * (1 + np.tanh(1.5 * distance / eps)))


def line(length: float, n: int) -> tuple[np.ndarray, float]:
    """Voxel centres along a line, and the spacing."""
    h = length / n
    return (np.arange(n) + 0.5) * h, h


# --- Cahn-Hilliard -------------------------------------------------------------------------------------------------

MIXTURES: dict[str, CahnHilliard] = {
    "default": CahnHilliard(2.0, 0.7),
    "constant": CahnHilliard(2.0, 0.7, mobility="constant"),
    "regular": CahnHilliard(2.0, 0.7, potential=RegularSolution(3.0, 2.0)),
    "regular-constant": CahnHilliard(2.0, 0.7, potential=RegularSolution(3.0, 2.0), mobility="constant"),
    "well": CahnHilliard(2.0, 0.7, potential=DoubleWell(0.4), mobility=lambda c: 1 + c**2),
    "obstacle": CahnHilliard(2.0, 0.7, potential=Obstacle(0.4)),
    "series": CahnHilliard(2.0, 0.7, legendre([0.0, -0.5, 0.1, 1.0]), exp_legendre([-1.0, 0.5])),
}


@pytest.mark.parametrize("name", ["constant", "regular", "regular-constant", "obstacle"])
def test_a_small_wave_grows_at_its_rate(name: str) -> None:
    # linear theory (Cahn 1961, doi:10.1016/0001-6160(61)90182-1): -M K (f'' + 2 eps K), in this scaling
    c0, eps, D = 0.4, 2.0, 0.7
    curvatures = {
        "constant": 18 / eps * (1 - 6 * c0 + 6 * c0**2),
        "regular": 2 * (1 / (c0 * (1 - c0)) - 2 * 3.0),
        "regular-constant": 2 * (1 / (c0 * (1 - c0)) - 2 * 3.0),
        "obstacle": -8 * 0.4,
    }
    M = D if "constant" in name else D * c0 * (1 - c0)
    h, n = 0.5, 32
    for waves in (1, 2, 5):
        at, k = np.arange(n) * h, 2 * np.pi * waves / (n * h)
        K = 4 * math.sin(k * h / 2) ** 2 / h**2
        wave = np.cos(k * at)
        rate = MIXTURES[name].right_hand_side(vd.dataset({"c": c0 + 1e-5 * wave}, spacing=h)).c.values
        found = float((rate * wave).sum() / (wave * wave).sum()) / 1e-5
        assert found == pytest.approx(-M * K * (curvatures[name] + 2 * eps * K), rel=1e-6)


def test_a_pure_phase_takes_what_diffuses_through_it() -> None:
    # about c = 1, f'' = 18 / eps to either side; the vanishing mobility lets nothing in, and c is limited
    h, n, eps, D = 0.5, 32, 2.0, 0.7
    wave = np.cos(2 * np.pi * np.arange(n) / n)
    ds = vd.dataset({"c": 1 + 1e-5 * wave}, spacing=h)
    K = 4 * math.sin(np.pi / n) ** 2 / h**2
    expected = -D * K * (18 / eps + 2 * eps * K) * 1e-5 * wave
    found = MIXTURES["constant"].right_hand_side(ds).c
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())
    beyond = vd.dataset({"c": 1.1 + 0.05 * wave}, spacing=h)
    assert not MIXTURES["default"].right_hand_side(beyond).c.any()


@pytest.mark.study
@pytest.mark.parametrize("name", ["constant", "regular", "obstacle", "series"])
def test_energy_falls_and_mass_stays(name: str) -> None:
    model, start = MIXTURES[name], 0.5 + 0.2 * (np.random.default_rng(4).random((16, 18)) - 0.5)
    ds = vd.dataset({"c": start}, spacing=0.9)
    run = vd.simulate(model, ds, dt=0.1, steps=400, save_every=20, progress=False)
    assert float(run.c[-1].std()) > 2 * start.std()  # it separates
    np.testing.assert_allclose(run.c.mean(["y", "x"]), start.mean(), rtol=0, atol=1e-14)
    if name == "series":
        model = CahnHilliard(2.0, 0.7, lambda c: legendre([0.0, -0.5, 0.1, 1.0])(c))  # integrated by SymPy
    assert (np.diff(model.free_energy(run)) < 0).all()


def test_a_regular_solution_separates_into_its_binodal() -> None:
    # equal potentials by symmetry: ln(c / (1 - c)) + W (1 - 2 c) = 0 with W = 2.5
    low = brentq(lambda c: math.log(c / (1 - c)) + 2.5 * (1 - 2 * c), 1e-6, 0.4)
    at, h = line(24.0, 48)
    ds = vd.dataset({"c": 0.5 + 0.2 * np.tanh(at - 12)}, spacing=h)
    model = CahnHilliard(1.0, 4.0, potential=RegularSolution(2.5), mobility="constant")
    run = vd.simulate(model, ds, dt=0.05, t_end=100.0, boundary="neumann", progress=False)
    ends = run.c[-1].values[[0, -1]]
    np.testing.assert_allclose(ends, [low, 1 - low], rtol=0, atol=1e-3)


def test_an_obstacle_has_sines_for_interfaces() -> None:
    # eps c'^2 = 4 h c (1 - c): c = (1 + sin(2 x sqrt(h / eps))) / 2, pure outside
    eps, height = 2.0, 0.5
    at, h = line(20.0, 80)
    ds = vd.dataset({"c": profile(at - 10, eps)}, spacing=h)
    model = CahnHilliard(eps, 4.0, potential=Obstacle(height))
    run = vd.simulate(model, ds, dt=0.02, t_end=40.0, boundary="neumann", progress=False)
    angle = np.clip(2 * (at - 10) * math.sqrt(height / eps), -np.pi / 2, np.pi / 2)
    assert np.abs(run.c[-1].values - (1 + np.sin(angle)) / 2).max() < 0.02
    assert np.abs(ds.c.values - (1 + np.sin(angle)) / 2).max() > 0.05


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logarithms_of_pure_phases_are_finite(dtype: Any) -> None:
    ds = vd.dataset({"c": np.array([0.0, 1.0, 1.0, 0.0, -0.1, 1.1], dtype=dtype)})
    model = CahnHilliard(2.0, potential=RegularSolution(3.0), mobility="constant")
    assert np.isfinite(model.right_hand_side(ds).c).all()
    # between the limits, ln((1 - 1e-6) / 1e-6) to either side
    mu = float(RegularSolution(0.0)(sp.Float(1)))
    assert mu == pytest.approx(math.log(1e6), rel=1e-6)


POTENTIALS = {"well": DoubleWell(0.7), "regular": RegularSolution(2.5, 1.5), "obstacle": Obstacle(0.7)}


@pytest.mark.parametrize("name", POTENTIALS)
def test_a_potential_is_the_slope_of_its_energy(name: str) -> None:
    potential, step = POTENTIALS[name], 1e-5
    for c in (0.1, 0.35, 0.8):
        slope = (potential.energy(sp.Float(c + step)) - potential.energy(sp.Float(c - step))) / (2 * step)
        assert float(potential(sp.Float(c))) == pytest.approx(float(slope), rel=1e-7)


def test_the_energy_of_a_function_is_its_integral() -> None:
    ds = vd.dataset({"c": np.random.default_rng(0).uniform(-0.1, 1.1, (6, 7))})
    built = CahnHilliard(4.0)
    written = CahnHilliard(4.0, potential=lambda c: sp.Rational(9, 2) * c * (1 - c) * (1 - 2 * c))
    assert float(written.free_energy(ds)) == pytest.approx(float(built.free_energy(ds)), rel=1e-13)
    well = CahnHilliard(4.0, potential=DoubleWell(9 / (16 * 4.0)))
    assert float(well.free_energy(ds)) == pytest.approx(float(built.free_energy(ds)), rel=1e-13)
    np.testing.assert_allclose(well.right_hand_side(ds).c, built.right_hand_side(ds).c, rtol=0, atol=1e-13)
    strange = CahnHilliard(4.0, potential=lambda c: vd.exp(vd.sin(c) * c**2))
    with pytest.raises(TypeError, match="has no known integral"):
        strange.free_energy(ds)


def test_a_source_changes_the_mass() -> None:
    model = CahnHilliard(2.0, source=lambda t, c, p: 0.1 * t * (1 - c) * p.x)
    ds = vd.dataset({"c": np.random.default_rng(0).uniform(0.2, 0.8, (5, 6))})
    change = model.right_hand_side(ds, time=3.0).c - CahnHilliard(2.0).right_hand_side(ds).c
    np.testing.assert_allclose(change, (0.3 * (1 - ds.c) * ds.x).transpose("y", "x"), rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"potential": 3.0}, TypeError, "potential is a float; give a function potential.c., or None"),
        ({"potential": lambda c: vd.grad(c)}, TypeError, "potential returned a Vector; it must return one scalar"),
        ({"potential": lambda c: (c, c)}, TypeError, "potential returned a tuple"),
        ({"potential": lambda c: np.array([c, c])}, TypeError, "potential returned a ndarray"),
        ({"potential": lambda c: None}, TypeError, "potential returned a NoneType"),
        ({"potential": lambda t, c: c}, TypeError, r"potential\(t, c\) is called with 1 argument: missing"),
        ({"mobility": "variable"}, ValueError, "mobility is 'variable'; give \"constant\""),
        ({"mobility": 2.0}, TypeError, "mobility is a float; give a function mobility.c., or None"),
        ({"mobility": lambda c: [c]}, TypeError, "mobility returned a list"),
        ({"source": 1}, TypeError, "source is a int; give a function source.t, c, x."),
        ({"source": lambda t, c, p: p}, TypeError, "source returned a Position"),
        ({"eps": -1.0}, ValueError, "eps is -1.0; it must be positive"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_arguments_of_cahn_hilliard(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _ = CahnHilliard(**options).equation


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DoubleWell(0.0), "height is 0.0; it must be positive"),
        (lambda: Obstacle(-1.0), "height is -1.0"),
        (lambda: RegularSolution(math.nan), "interaction is nan; it must be finite"),
        (lambda: RegularSolution(3.0, 0.0), "scale is 0.0"),
    ],
)
def test_bad_potentials(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# --- diffusion -----------------------------------------------------------------------------------------------------


def test_a_tuple_is_a_product() -> None:
    rng = np.random.default_rng(0)
    ds = vd.dataset({"c": rng.uniform(0.2, 0.8, (5, 6)), "D": rng.uniform(1, 2, (5, 6))}, spacing=0.5)
    one = ReactionDiffusion((2.0, ds.D, lambda c: 1 + c)).right_hand_side(ds).c
    face = {a: [(u + np.roll(u, -1, a)) / 2 for u in (ds.c.values, ds.D.values)] for a in (0, 1)}
    expected = np.zeros((5, 6))
    for a, (c, D) in face.items():
        flux = 2 * D * (1 + c) * (np.roll(ds.c.values, -1, a) - ds.c.values) / 0.5
        expected += (flux - np.roll(flux, 1, a)) / 0.5
    np.testing.assert_allclose(one, expected, rtol=0, atol=1e-12)


def test_chemical_diffusion_ends_in_equal_potentials() -> None:
    # an ideal solution in a field V, in which its atmosphere is c = c0 exp(-V)
    @dataclass(frozen=True)
    class Ideal:
        field: Any

        def __call__(self, c: Any) -> Any:
            return vd.log(c) + self.field

    ds = vd.dataset({"c": np.ones((6, 7)), "V": np.random.default_rng(0).uniform(0, 1, (6, 7))})
    model = ChemicalDiffusion((2.0, lambda c: c), Ideal(ds.V))
    assert list(model.equation.coefficients) == ["potential_field"]
    run = vd.simulate(model, ds, dt=0.1, t_end=100.0, boundary="neumann", progress=False)
    atmosphere = np.exp(-ds.V)
    np.testing.assert_allclose(run.c[-1], atmosphere / atmosphere.mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ReactionDiffusion((1.0, -2.0)), ValueError, r"diffusivity\[1\] is -2.0; it must be positive"),
        (lambda: ReactionDiffusion("fast"), TypeError, "diffusivity is 'fast'; give a number, a DataArray, a function"),
        (lambda: ReactionDiffusion(()), ValueError, "diffusivity is an empty tuple"),
        (lambda: ReactionDiffusion(lambda c: (c, c)), TypeError, "diffusivity returned a tuple"),
        (lambda: ReactionDiffusion(source=2.0), TypeError, "source is a float; give a function"),
        (lambda: ChemicalDiffusion(1.0, None), TypeError, "potential is None; give a function"),
        (lambda: ChemicalDiffusion(1.0, lambda c: vd.grad(c)), TypeError, "potential returned a Vector"),
        (lambda: ChemicalDiffusion(0.0, vd.log), ValueError, "mobility is 0.0"),
    ],
)
def test_bad_arguments_of_diffusion(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _ = make().equation


# --- Legendre series -----------------------------------------------------------------------------------------------

COEFFICIENTS = [0.3, -0.2, 0.5, 0.1, -0.7, 0.25, 0.05, 0.4]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_series_agree_with_numpy(count: int) -> None:
    a, c = COEFFICIENTS[:count], np.linspace(0, 1, 11)
    f, g, F = (sp.lambdify(vd.x, e) for e in (legendre(a)(vd.x), exp_legendre(a)(vd.x), legendre(a).energy(vd.x)))
    np.testing.assert_allclose(f(c) + 0 * c, series.legval(2 * c - 1, a), rtol=0, atol=1e-14)
    np.testing.assert_allclose(g(c) + 0 * c, np.exp(series.legval(2 * c - 1, a)), rtol=1e-14)
    integral = series.legval(2 * c - 1, series.legint(a, lbnd=-1)) / 2
    np.testing.assert_allclose(F(c), integral, rtol=0, atol=1e-14)


def test_other_coefficients_compile_nothing() -> None:
    ds = vd.dataset({"c": np.random.default_rng(0).uniform(0, 1, 40)})
    programs = set()
    for a in (COEFFICIENTS, np.array(COEFFICIENTS) / 3):
        model = CahnHilliard(3.0, potential=legendre(a), mobility="constant")
        mu = series.legval(2 * ds.c.values - 1, a) - 6.0 * (np.roll(ds.c, 1) - 2 * ds.c + np.roll(ds.c, -1))
        expected = np.roll(mu, 1) - 2 * mu + np.roll(mu, -1)
        np.testing.assert_allclose(model.right_hand_side(ds).c, expected, rtol=0, atol=1e-12)
        programs.add(id(model.equation.program(("x",))))
    assert len(programs) == 1


@pytest.mark.parametrize(
    ("coefficients", "error"), [([], ValueError), ([math.nan], ValueError), (3.0, TypeError), ("12", TypeError)]
)
def test_bad_coefficients(coefficients: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="coefficients"):
        legendre(coefficients)


# --- orders --------------------------------------------------------------------------------------------------------

PERIODIC: tuple[Any, Any] = ("periodic", 0.5 + 0.2 * vd.sin(2 * pi * x + 0.7))
RISING: tuple[Any, Any] = (vd.Dirichlet(0.2, 0.8), 0.2 + 0.6 * x + 0.05 * vd.sin(pi * x))
ORDERS: dict[str, tuple[vd.Model, tuple[Any, Any], dict[str, Any]]] = {
    "constant": (CahnHilliard(0.5, mobility="constant"), PERIODIC, {}),
    "mobility": (CahnHilliard(0.5, mobility=lambda c: 1 + c**2), PERIODIC, {}),
    "regular": (CahnHilliard(0.5, potential=RegularSolution(2.5, 1.3)), PERIODIC, {}),
    "well": (CahnHilliard(0.5, potential=DoubleWell(1.3)), RISING, {}),
    "obstacle": (CahnHilliard(0.5, potential=Obstacle(1.3)), PERIODIC, {}),
    "series-source": (
        CahnHilliard(0.5, 1.0, legendre([0.1, 0.2, 0.3, 0.4]), exp_legendre([0.1, 0.2]), lambda t, c, p: -c * p.x * t),
        RISING,
        {},
    ),
    "allen-cahn-normal": (AllenCahn(0.5, 1.2, 1.1, 0.3, 0.25), PERIODIC, {}),
    "allen-cahn-full": (AllenCahn(0.5, 1.2, 1.1, lambda t, p: t * p.x, 1.0, "full"), PERIODIC, {}),
    "allen-cahn-force": (AllenCahn(0.5), RISING, {"force": 1 + x}),
    "product": (ReactionDiffusion((1.2, lambda c: 1 + c, 1.0)), RISING, {"diffusivity_2": 1 + vd.cos(2 * pi * x) / 3}),
    "chemical": (ChemicalDiffusion((1.2, lambda c: c), lambda c: vd.log(c) + c), RISING, {}),
    "chemical-D(x)": (ChemicalDiffusion(1.0, vd.exp), RISING, {"mobility": 1 + 0.3 * vd.cos(2 * pi * x)}),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERS)
def test_right_hand_sides_are_of_second_order(name: str) -> None:
    model, (boundary, u), more = ORDERS[name]
    study = rhs_order(model, {model.fields[0]: u, **more}, boundary=boundary, sizes=(48, 64, 96, 128), time=0.4)
    assert study.order == pytest.approx(2, abs=0.1)


def test_one_equation_however_it_is_written() -> None:
    ds = vd.dataset({"c": np.random.default_rng(0).uniform(0, 1, (6, 7))})
    flow = from_free_energy(
        lambda c, g: DoubleWell(1.3).energy(c) + 2 * vd.dot(g, g), mobility=lambda c: 1 + c**2, bounds=(0, 1)
    )
    model = CahnHilliard(2.0, potential=DoubleWell(1.3), mobility=lambda c: 1 + c**2)
    one, two = flow.right_hand_side(ds).c, model.right_hand_side(ds).c
    np.testing.assert_allclose(one, two, rtol=0, atol=1e-13 * float(abs(two).max()))
