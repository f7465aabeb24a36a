"""Smoothed boundaries: the stencil, what is conserved, analytic profiles in a disc and a slab, and every tier."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import sympy as sp
import xarray as xr
from conftest import Tier

import voxdask as vd
from voxdask.models import (
    CahnHilliard,
    ReactionDiffusion,
    RegularSolution,
    SmoothedBoundaryCahnHilliard,
    SmoothedBoundaryDiffusion,
)
from voxdask.verify import rhs_order

x, y, pi = vd.x, vd.y, sp.pi
LEAST = 1e-4


def profile(distance: Any, width: float) -> Any:
    """0.1 to 0.9 over the width."""
    return (1 + np.tanh(2 * np.log(3) * distance / width)) / 2


def disc(n: int, width: float, edge: float = 2.6) -> tuple[xr.Dataset, np.ndarray]:
    """A disc of radius 1 in a square, and the distance from its centre."""
    h = edge / n
    place = (np.arange(n) + 0.5) * h - edge / 2
    r = np.hypot(place[:, None], place[None, :])
    return vd.dataset({"c": np.zeros((n, n)), "psi": profile(1 - r, width)}, spacing=h), r


def ball(shape: tuple[int, ...] = (9, 8, 10), dtype: Any = np.float64, seed: int = 0) -> xr.Dataset:
    """A rough composition in and around a ball of radius 3."""
    places = np.meshgrid(*(np.arange(n) + 0.5 - n / 2 for n in shape), indexing="ij")
    distance = 3.0 - np.sqrt(sum(place**2 for place in places))
    c = np.random.default_rng(seed).uniform(0.3, 0.7, shape)
    return vd.dataset({"c": c.astype(dtype), "psi": profile(distance, 3.0).astype(dtype)})


def surface(psi: np.ndarray, h: float = 1.0) -> np.ndarray:
    """|grad psi| by central differences, periodic."""
    slopes = [(np.roll(psi, -1, a) - np.roll(psi, 1, a)) / (2 * h) for a in range(psi.ndim)]
    return np.asarray(np.sqrt(sum(slope**2 for slope in slopes)))


def content(c: Any, psi: Any) -> float:
    """The sum of psi c, psi as the equation takes it."""
    return float((np.clip(psi, LEAST, 1) * c).sum())


# --- the stencil ----------------------------------------------------------------------------------------------------


def test_the_same_as_in_the_product_of_indicator_and_concentration() -> None:
    """The other way to write it: u = psi c changes by div(D (grad u - mean(u/psi) grad psi)) + |grad psi| j + psi f."""
    ds, d, j = ball(), 0.7, 0.2
    model = SmoothedBoundaryDiffusion(d, source=lambda t, c, p: t * c**2, flux=j)
    rate = model.right_hand_side(ds, time=1.5).c.values
    c, raw = ds.c.values, ds.psi.values
    psi = np.clip(raw, LEAST, 1)
    u = psi * c
    expected = surface(raw) * j + psi * 1.5 * c**2
    for a in range(3):
        flow = d * (np.roll(u, -1, a) - u - (c + np.roll(c, -1, a)) / 2 * (np.roll(psi, -1, a) - psi))
        expected += flow - np.roll(flow, 1, a)
    np.testing.assert_allclose(psi * rate, expected, rtol=0, atol=1e-14)


def test_phase_separation_in_numpy() -> None:
    ds, eps, d = ball(), 2.0, 0.6
    rate = SmoothedBoundaryCahnHilliard(eps, d, flux=-0.1).right_hand_side(ds).c.values
    c, raw = ds.c.values, ds.psi.values
    psi = np.clip(raw, LEAST, 1)

    def confined(mobility: Any, v: np.ndarray) -> np.ndarray:
        total = np.zeros_like(v)
        for a in range(3):
            flow = (psi + np.roll(psi, -1, a)) / 2 * mobility(a) * (np.roll(v, -1, a) - v)
            total += (flow - np.roll(flow, 1, a)) / psi
        return total

    def mobility(a: int) -> np.ndarray:
        mean = (c + np.roll(c, -1, a)) / 2
        return np.asarray(d * mean * (1 - mean))

    mu = 18 / eps * c * (1 - c) * (1 - 2 * c) - 2 * eps * confined(lambda a: 1.0, c)
    expected = confined(mobility, mu) - 0.1 * surface(raw) / psi
    np.testing.assert_allclose(rate, expected, rtol=0, atol=1e-11 * abs(expected).max())


@pytest.mark.study
@pytest.mark.parametrize(
    ("inside", "plain"),
    [
        (SmoothedBoundaryDiffusion(lambda c: 1 + c**2, flux=5.0), ReactionDiffusion(lambda c: 1 + c**2)),
        (SmoothedBoundaryDiffusion((0.3, lambda c: c)), ReactionDiffusion((0.3, lambda c: c))),
        (SmoothedBoundaryCahnHilliard(2.0, 0.5), CahnHilliard(2.0, 0.5)),
        (
            SmoothedBoundaryCahnHilliard(2.0, potential=RegularSolution(2.5), mobility="constant"),
            CahnHilliard(2.0, potential=RegularSolution(2.5), mobility="constant"),
        ),
    ],
    ids=["diffusion", "product", "cahn-hilliard", "regular-solution"],
)
def test_a_body_that_fills_the_box_has_no_surface(inside: vd.Model, plain: vd.Model) -> None:
    ds = ball()
    ds["psi"] = xr.ones_like(ds.psi)
    for boundary in ("periodic", vd.Neumann(0.1)):
        ours, theirs = (m.right_hand_side(ds, boundary=boundary).c for m in (inside, plain))
        assert float(abs(ours - theirs).max()) < 1e-12 * float(abs(theirs).max())
    ds["c"] = 3 * ds.c - 1  # what is limited to [0, 1] is the same, too
    ours, theirs = (m.right_hand_side(ds).c for m in (inside, plain))
    assert float(abs(ours - theirs).max()) < 1e-12 * float(abs(theirs).max())


def test_energy_falls_with_a_constant_mobility() -> None:
    """What diffuses through a phase takes a composition beyond it, which the equation must see."""
    y, x = np.mgrid[:32, :32] - 15.5
    psi = (1 + np.tanh((11 - np.hypot(x, y)) / 2.5)) / 2
    start = 0.5 + 0.05 * np.random.default_rng(0).standard_normal(psi.shape)
    ds = vd.dataset({"c": start, "psi": psi})
    model = SmoothedBoundaryCahnHilliard(mobility="constant")
    run = vd.simulate(model, ds, dt=0.2, steps=200, save_every=20, boundary="neumann", progress=False)
    energy = model.free_energy(run.assign(psi=ds.psi), boundary="neumann").values
    assert (np.diff(energy) < 0).all() and energy[-1] < 0.7 * energy[0]
    inside = run.c[-1].values[psi > 0.5]
    assert inside.min() > -0.05 and inside.max() < 1.05


@pytest.mark.parametrize("name", ["diffusion", "diffusivity", "cahn-hilliard"])
def test_right_hand_side_is_of_second_order(name: str) -> None:
    psi = 0.5 + 0.2 * vd.cos(2 * pi * x) * vd.cos(2 * pi * y) + 0.1 * vd.sin(2 * pi * x)
    c = 0.5 + 0.2 * vd.sin(2 * pi * x + 0.3) + 0.1 * vd.cos(2 * pi * y)
    model, more, sizes = {
        "diffusion": (SmoothedBoundaryDiffusion(0.7, flux=lambda t, c, p: t - c), {}, (32, 48, 64, 96)),
        "diffusivity": (
            SmoothedBoundaryDiffusion(1.0, source=lambda t, c, p: c**2, flux=xr.DataArray(0.0)),
            {"diffusivity": 1 + 0.3 * vd.cos(2 * pi * x), "flux": vd.sin(2 * pi * y)},
            (32, 48, 64, 96),
        ),
        "cahn-hilliard": (SmoothedBoundaryCahnHilliard(0.5, 1.3, flux=0.4), {}, (48, 64, 96, 128)),
    }[name]
    study = rhs_order(model, {"c": c, "psi": psi, **more}, dims=("y", "x"), sizes=sizes, time=0.6)
    assert study.order == pytest.approx(2, abs=0.1)
    assert study.errors[-1] > 1e-6


def test_a_flux_is_a_number_a_field_or_a_function() -> None:
    ds = ball()
    rates = [
        SmoothedBoundaryDiffusion(flux=flux).right_hand_side(ds, time=2.0).c
        for flux in (0.6, xr.full_like(ds.psi, 0.6), lambda t, c, p: 0.3 * t)
    ]
    for rate in rates[1:]:
        assert float(abs(rate - rates[0]).max()) < 1e-14
    varying = SmoothedBoundaryDiffusion(flux=lambda t, c, p: p.x * (1 - c)).right_hand_side(ds).c
    still = SmoothedBoundaryDiffusion().right_hand_side(ds).c
    entering = (varying - still) * np.clip(ds.psi, LEAST, 1)
    np.testing.assert_allclose(entering, surface(ds.psi.values) * ds.x.values * (1 - ds.c.values), rtol=0, atol=1e-14)


# --- what is conserved ----------------------------------------------------------------------------------------------


@pytest.mark.study
@pytest.mark.parametrize("stepper", ["rk4", "imex", "sbdf2"])
@pytest.mark.parametrize("name", ["diffusion", "cahn-hilliard"])
def test_the_content_grows_by_what_comes_in(name: str, stepper: str) -> None:
    ds, j, dt, steps = ball(), 0.02, 0.01, 30
    model = {
        "diffusion": SmoothedBoundaryDiffusion(lambda c: 0.5 + c, flux=j),
        "cahn-hilliard": SmoothedBoundaryCahnHilliard(2.0, 0.5, flux=j),
    }[name]
    run = vd.simulate(model, ds, dt=dt, steps=steps, stepper=stepper, save_every=10, progress=False)
    came_in = [content(c, ds.psi) - content(ds.c, ds.psi) for c in run.c]
    expected = j * surface(ds.psi.values).sum() * run.time.values
    np.testing.assert_allclose(came_in, expected, rtol=0, atol=1e-11)
    # the area of the ball's surface, but for the curvature of a thick interface
    assert surface(ds.psi.values).sum() == pytest.approx(4 * np.pi * 3**2, rel=0.1)


def test_a_uniform_composition_stays() -> None:
    ds = ball()
    ds["c"] = xr.full_like(ds.c, 0.4)
    for model in (SmoothedBoundaryDiffusion(), SmoothedBoundaryCahnHilliard()):
        run = vd.simulate(model, ds, dt=0.5, steps=10, progress=False)
        assert float(abs(run.c - 0.4).max()) < 1e-12


def test_phases_inside_lower_the_energy() -> None:
    model, ds = SmoothedBoundaryCahnHilliard(2.0), ball((12, 12, 12))
    run = vd.simulate(model, ds, dt=0.2, steps=100, save_every=5, progress=False)
    energies = model.free_energy(run.assign(psi=ds.psi)).values
    assert (np.diff(energies) < 0).all()
    assert energies[-1] < 0.8 * energies[0]
    assert abs(content(run.c[-1], ds.psi) - content(ds.c, ds.psi)) < 1e-9


def test_interfaces_meet_the_wall_at_a_right_angle() -> None:
    """A flat interface (1 + tanh(3 x / 2 eps)) / 2 across a channel stays as it is up to the walls."""
    n, m, eps = 24, 48, 4.0
    across = np.arange(n) + 0.5 - n / 2
    psi = np.broadcast_to(profile(7.0 - abs(across), 5.0)[:, None], (n, m))
    along = np.arange(m) + 0.5 - m / 2
    c = np.broadcast_to(profile(along, 2 * np.log(3) * 2 * eps / 3), (n, m))
    ds = vd.dataset({"c": c, "psi": psi})
    run = vd.simulate(SmoothedBoundaryCahnHilliard(eps), ds, dt=1.0, steps=100, boundary="neumann", progress=False)
    end = run.c[-1].values
    assert np.ptp(end[psi[:, 0] > 0.1], axis=0).max() < 1e-4
    assert abs(end - c).max() < 0.01  # the stencil of the tanh


# --- analytic solutions ---------------------------------------------------------------------------------------------


@pytest.mark.study
def test_a_disc_fills_through_its_wall() -> None:
    """After a long time c = 2 j t / R + j / (2 D R) (r^2 - R^2 / 2): Crank, The Mathematics of Diffusion (1975), 5.3.3.

    What is left of the start decays as exp(-14.7 D t / R^2). The error falls with the square of the width.
    """
    d, j, time = 0.8, 0.3, 1.0
    widths, errors = (0.4, 0.2, 0.1), []
    for width in widths:
        ds, r = disc(96, width)
        model = SmoothedBoundaryDiffusion(d, flux=j)
        run = vd.simulate(model, ds, dt=time / 1000, steps=1000, boundary="neumann", progress=False)
        exact = 2 * j * time + j / (2 * d) * (r**2 - 1 / 2)
        squared = (ds.psi * (run.c[-1] - exact) ** 2).sum() / ds.psi.sum()
        errors.append(float(np.sqrt(squared)) / (j / (2 * d)))  # relative to the spread of c
    assert errors[-1] < 0.015
    assert np.polyfit(np.log(widths), np.log(errors), 1)[0] > 1.8


def test_a_disc_evens_out() -> None:
    """Without influx the slowest round mode J0(3.8317 r) decays at D 3.8317^2."""
    from scipy.special import j0, jnp_zeros

    alpha, d, time = float(jnp_zeros(0, 1)[0]), 0.5, 0.1
    ds, r = disc(64, 0.15)
    ds["c"] = ds.c + j0(alpha * np.minimum(r, 1.0))
    model = SmoothedBoundaryDiffusion(d)
    run = vd.simulate(model, ds, dt=time / 200, steps=200, save_every=100, boundary="neumann", progress=False)
    middle = [float(c.values[31:33, 31:33].mean()) for c in run.c]
    rate = np.log(middle[1] / middle[2]) / (time / 2)
    assert rate == pytest.approx(d * alpha**2, rel=0.02)


@pytest.mark.study
def test_a_slab_exchanges_with_a_reservoir() -> None:
    """A flux k (1 - c) at both walls: 1 - c decays at D b^2 / a^2 with b tan b = k a / D; b = 0.86033 for 1.

    Crank (1975), 4.3.6 and table 4.1; here between 0.5 and 1 a^2 / D, where one term is left.
    """
    n, a, d, b = 200, 1.0, 0.7, 0.8603335890
    h = 3.0 / n
    place = (np.arange(n) + 0.5) * h - 1.5
    ds = vd.dataset({"c": np.zeros(n), "psi": profile(a - abs(place), 0.06)}, spacing=h)
    model = SmoothedBoundaryDiffusion(d, flux=lambda t, c, p: 0.7 * (1 - c))
    times = {"dt": 0.5 / d / 1000, "steps": 2000, "save_every": 1000}
    run = vd.simulate(model, ds, boundary="neumann", progress=False, **times)
    left = [float((ds.psi * (1 - c)).sum()) for c in run.c[1:]]
    assert np.log(left[0] / left[1]) / (0.5 / d) == pytest.approx(d * b**2 / a**2, rel=0.02)


# --- tiers, and what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize("stepper", ["imex", "rk4"])
@pytest.mark.parametrize("name", ["diffusion", "cahn-hilliard"])
def test_the_same_on_every_tier(name: str, stepper: str, tier: Tier) -> None:
    ds = ball((9, 4, 6))
    model = {
        "diffusion": SmoothedBoundaryDiffusion(ds.psi + 0.2, flux=lambda t, c, p: t * (1 - c)),
        "cahn-hilliard": SmoothedBoundaryCahnHilliard(2.0, flux=0.1),
    }[name]
    options: dict[str, Any] = {"dt": 0.004, "steps": 3, "stepper": stepper, "boundary": {"z": "neumann"}}
    block = vd.simulate(model, ds, progress=False, **options)
    run = tier.simulate(model, ds, **options)
    assert float(abs(run.c - block.c).max()) < 1e-12


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("values", [(-0.01, 1.0), (0.0, 255.0)])
def test_an_indicator_outside_its_range_is_refused(values: tuple[float, float], lazy: bool) -> None:
    ds = ball()
    ds["psi"] = values[0] + (values[1] - values[0]) * ds.psi.round()
    if lazy:
        ds = ds.chunk(z=3)
    message = rf"'psi' has values from {values[0]:g} to {values[1]:g}; they must lie in \[0, 1\]"
    for model in (SmoothedBoundaryDiffusion(), SmoothedBoundaryCahnHilliard()):
        for use in (model.right_hand_side, lambda ds, m=model: vd.simulate(m, ds, dt=1.0, steps=1)):
            with pytest.raises(ValueError, match=message):
                use(ds)


def test_round_off_is_no_error() -> None:
    ds = ball(dtype=np.float32)
    ds["psi"] = ds.psi * np.float32(1 + 1e-6) - np.float32(1e-7)
    vd.simulate(SmoothedBoundaryDiffusion(), ds, dt=0.1, steps=1, progress=False)


def test_a_lazy_indicator_is_read_once_to_check_it() -> None:
    ds, count = ball(), []

    def read(block: np.ndarray) -> np.ndarray:
        count.append(1)
        return block

    psi = da.from_array(ds.psi.values, chunks=(3, -1, -1)).map_blocks(read, meta=np.empty((0, 0, 0)))
    SmoothedBoundaryDiffusion().right_hand_side(ds.assign(psi=(ds.psi.dims, psi)))
    assert len(count) == 3  # a chunk each, once


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: SmoothedBoundaryDiffusion(0.0), ValueError, "diffusivity is 0.0; it must be positive"),
        (lambda: SmoothedBoundaryDiffusion(flux="in"), TypeError, "flux is 'in'; give a number"),
        (lambda: SmoothedBoundaryDiffusion(flux=float("inf")), ValueError, "flux is inf; it must be finite"),
        (lambda: SmoothedBoundaryDiffusion(source=1.0), TypeError, "source is a float; give a function"),
        (lambda: SmoothedBoundaryCahnHilliard(eps=-1.0), ValueError, "eps is -1.0; it must be positive"),
        (lambda: SmoothedBoundaryCahnHilliard(flux=None), TypeError, "flux is None; give a number"),
        (
            lambda: SmoothedBoundaryDiffusion(flux=lambda t, c, p: (t, c)).equation,
            TypeError,
            "flux returned a tuple; it must return one scalar expression",
        ),
    ],
)
def test_what_is_refused(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_the_indicator_is_asked_for() -> None:
    with pytest.raises(ValueError, match="no field 'psi', which the model needs"):
        vd.simulate(SmoothedBoundaryDiffusion(), ball()[["c"]], dt=1.0, steps=1)


def test_the_stiff_part_allows_for_the_interface() -> None:
    """The face mean of psi over psi itself: steps as stable as in the body take a multiple of D k^2."""
    q, d = sp.Symbol("q_x", nonnegative=True), vd.symbols.Parameter("diffusivity", real=True)
    assert SmoothedBoundaryDiffusion(0.5).equation.symbols(("x",)) == (-2 * d * q,)
    ds = ball()
    run = vd.simulate(SmoothedBoundaryDiffusion(), ds, dt=5.0, steps=200, progress=False)
    level = content(ds.c, ds.psi) / content(1.0, ds.psi)
    assert float(abs(run.c[-1] - level).max()) < 1e-3


def test_the_tangent_is_linear_in_the_unknown() -> None:
    """Diffusion and a constant flux: the change of the rate is the rate of the change without the flux."""
    ds, change = ball(), ball(seed=1)
    along = SmoothedBoundaryDiffusion(0.7, flux=0.3).tangent(ds, change).c
    alone = SmoothedBoundaryDiffusion(0.7).right_hand_side(change).c
    np.testing.assert_allclose(along, alone, rtol=0, atol=1e-10 * float(abs(alone).max()))


def test_limits_are_of_auxiliary_fields() -> None:
    model = type("Wrong", (SmoothedBoundaryDiffusion,), {"limits": {"c": (0.0, 1.0)}})()
    with pytest.raises(ValueError, match=r"Wrong\.limits names 'c'; give an auxiliary field"):
        _ = model.equation
