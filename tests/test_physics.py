"""What physics says: interfaces, growth rates, conservation, decay, steady states. Numbers come from the textbook.

Rates are compared with the eigenvalue of the stencil, K = sum of 4 sin^2(k h / 2) / h^2 over the axes, not with
k^2: the difference is the discretisation, whose order `test_verify.py` measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

import voxdask as vd
from voxdask.models import CahnHilliard, ReactionDiffusion
from voxdask.steppers import IMEX


def squared_wavenumber(k: float, h: float) -> float:
    return 4 * math.sin(k * h / 2) ** 2 / h**2


def amplitude(field: xr.DataArray, mode: np.ndarray) -> float:
    values = field.values - field.values.mean()
    return float((values * mode).sum() / (mode * mode).sum())


# --- Cahn-Hilliard -------------------------------------------------------------------------------------------------


def flat_interface(x: np.ndarray, eps: float) -> np.ndarray:
    """The solution of eps c'^2 = 9/eps c^2 (1 - c)^2, equal shares of the free energy: c' = 3/eps c (1 - c)."""
    return np.asarray(0.5 * (1 + np.tanh(1.5 * x / eps)))


@pytest.mark.study
@pytest.mark.parametrize("width", [0.5, 1.5], ids=["too-sharp", "too-wide"])
def test_an_interface_relaxes_to_its_width(width: float) -> None:
    eps, n, h = 3.0, 72, 0.25
    x = (np.arange(n) + 0.5) * h - n * h / 2
    interface, begin = flat_interface(x, eps), flat_interface(x, eps * width)
    ds = vd.dataset({"c": begin}, spacing=h)
    run = vd.simulate(CahnHilliard(eps=eps), ds, dt=0.25, steps=2400, boundary="neumann", progress=False)
    end = run.c.isel(time=-1).values
    assert np.abs(begin - interface).max() > 0.07
    assert np.abs(end - interface).max() < 0.003  # the stencil's own share is of order (h / eps)^2 = 0.007


def test_only_an_interface_of_the_right_width_is_stationary() -> None:
    rates = []
    for eps in (3.0, 2.0):
        for n in (256, 512):
            h = 32.0 / n
            x = (np.arange(n) + 0.5) * h - 16
            ds = vd.dataset({"c": flat_interface(x, eps)}, spacing=h)
            rates.append(float(abs(CahnHilliard(eps=3.0).right_hand_side(ds, boundary="neumann").c).max()))
    assert rates[0] / rates[1] == pytest.approx(4, rel=0.05)
    assert rates[2] / rates[3] == pytest.approx(1, rel=0.05)


def growth_rate(c0: float, K: float, eps: float, D: float) -> float:
    """Of a small wave about a uniform state: M(c0) (-K) (f''(c0) + 2 eps K) with M = D c (1 - c)."""
    curvature = 18 / eps * (1 - 6 * c0 + 6 * c0**2)
    return -D * c0 * (1 - c0) * K * (curvature + 2 * eps * K)


MODES = {
    "1d-long": ((1,), (24,), (1.0,)),
    "1d-fastest": ((4,), (24,), (1.0,)),
    "1d-damped": ((9,), (24,), (1.0,)),
    "3d-oblique": ((1, 2, -1), (12, 10, 8), (1.0, 0.8, 1.25)),
    "3d-steep": ((2, 0, 3), (12, 10, 8), (1.0, 0.8, 1.25)),
}


def wave(mode: tuple[int, ...], shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[np.ndarray, list[float]]:
    """A cosine with so many periods along each axis, and its wavenumbers."""
    ks = [2 * np.pi * m / (n * h) for m, n, h in zip(mode, shape, spacing, strict=True)]
    places = np.meshgrid(*((np.arange(n) + 0.5) * h for n, h in zip(shape, spacing, strict=True)), indexing="ij")
    return np.cos(sum(k * p for k, p in zip(ks, places, strict=True)) + 0.3), ks


@pytest.mark.parametrize("c0", [0.5, 0.35, 0.1], ids=["half", "spinodal", "outside"])
@pytest.mark.parametrize("mode", MODES)
def test_small_waves_grow_at_the_rate_of_the_dispersion_relation(mode: str, c0: float) -> None:
    eps, D = 3.0, 1.3
    dt, steps, spacing = 0.005, 20, MODES[mode][2]
    pattern, ks = wave(*MODES[mode])
    K = sum(squared_wavenumber(k, h) for k, h in zip(ks, spacing, strict=True))
    expected = growth_rate(c0, K, eps, D)
    ds = vd.dataset({"c": c0 + 1e-6 * pattern}, spacing=spacing)
    run = vd.simulate(CahnHilliard(eps, D), ds, dt=dt, steps=steps, stepper="euler", progress=False)
    # explicit Euler multiplies by 1 + dt rate in each step
    factor = (amplitude(run.c.isel(time=-1), pattern) / amplitude(ds.c, pattern)) ** (1 / steps)
    assert (factor - 1) / dt == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("wavenumbers", ["spectral", "stencil"])
@pytest.mark.parametrize("mode", ["1d-fastest", "3d-oblique"])
def test_imex_amplifies_small_waves_as_its_formula_says(mode: str, wavenumbers: Any) -> None:
    # one step: 1 + dt sigma / (1 - dt lambda), where lambda = -2 eps D / 4 k^4 at the reference c = 1/2
    eps, D, dt, c0, steps = 3.0, 1.3, 0.5, 0.4, 3
    pattern, ks = wave(*MODES[mode])
    K = sum(squared_wavenumber(k, h) for k, h in zip(ks, MODES[mode][2], strict=True))
    q = K if wavenumbers == "stencil" else sum(k**2 for k in ks)
    factor = 1 + dt * growth_rate(c0, K, eps, D) / (1 + dt * 2 * eps * D / 4 * q**2)
    ds = vd.dataset({"c": c0 + 1e-6 * pattern}, spacing=MODES[mode][2])
    run = vd.simulate(CahnHilliard(eps, D), ds, dt=dt, steps=steps, stepper=IMEX(wavenumbers), progress=False)
    assert amplitude(run.c.isel(time=-1), pattern) / 1e-6 == pytest.approx(factor**steps, rel=1e-5)


@pytest.fixture(scope="module")
def quench() -> np.ndarray:
    return 0.5 + 0.1 * (np.random.default_rng(7).random((24, 20)) - 0.5)


@pytest.mark.parametrize("boundary", ["periodic", "neumann", {"x": "neumann"}], ids=["periodic", "zero-flux", "mixed"])
@pytest.mark.parametrize("stepper, dt", [("imex", 0.5), ("euler", 0.01)], ids=["imex", "euler"])
def test_mass_is_conserved(quench: np.ndarray, stepper: str, dt: float, boundary: Any) -> None:
    ds = vd.dataset({"c": quench}, spacing=(1.0, 0.8))
    run = vd.simulate(CahnHilliard(), ds, dt=dt, steps=60, stepper=stepper, boundary=boundary, progress=False)
    end = run.c.isel(time=-1).values
    assert np.abs(end - quench).max() > 0.005
    assert end.sum() == pytest.approx(quench.sum(), rel=1e-13)


@pytest.mark.parametrize("dtype, drift", [(np.float32, 2e-6), (np.float64, 1e-14)], ids=["float32", "float64"])
def test_mass_over_a_thousand_steps(dtype: Any, drift: float) -> None:
    """Round-off alone: 3e-7 of the mass in float32, nothing in float64, where this was written."""
    start = (0.5 + 0.05 * np.random.default_rng(0).standard_normal((12, 12, 12))).astype(dtype)
    run = vd.simulate(CahnHilliard(), vd.dataset({"c": start}), dt=0.5, steps=1000, progress=False)
    first, last = run.c.sum(("z", "y", "x"), dtype=np.float64).values
    assert last == pytest.approx(first, rel=drift)


@pytest.mark.parametrize("boundary", ["periodic", "neumann"], ids=["periodic", "zero-flux"])
def test_free_energy_never_rises(quench: np.ndarray, boundary: str) -> None:
    ds, model = vd.dataset({"c": quench}), CahnHilliard(eps=3.0)
    run = vd.simulate(model, ds, dt=0.5, steps=300, boundary=boundary, save_every=10, progress=False)
    energy = model.free_energy(run, boundary=boundary).values
    assert (np.diff(energy) <= 1e-12 * energy[0]).all()
    assert energy[-1] < 0.7 * energy[0]
    # c = 1/2 everywhere has 9 / (16 eps) in each of the 480 pixels, and noise a little more
    assert energy[0] == pytest.approx(480 * 9 / 48, rel=0.1)


# --- diffusion -----------------------------------------------------------------------------------------------------

#: Boundary, node-centred or not, mode m -> wavenumber pi (m + shift) / L, and its eigenfunction.
EIGENMODES: dict[str, tuple[Any, bool, float, Callable[..., Any]]] = {
    "periodic-cells": ("periodic", False, 0.0, np.cos),
    "zero-flux-cells": ("neumann", False, 0.0, np.cos),
    "zero-flux-nodes": ("neumann", True, 0.0, np.cos),
    "dirichlet-cells": ("dirichlet", False, 0.0, np.sin),
    "dirichlet-nodes": ("dirichlet", True, 0.0, np.sin),
    "dirichlet-flux-cells": (("dirichlet", "neumann"), False, 0.5, np.sin),
    "dirichlet-flux-nodes": (("dirichlet", "neumann"), True, 0.5, np.sin),
    "flux-dirichlet-cells": (("neumann", "dirichlet"), False, 0.5, np.cos),
    "flux-dirichlet-nodes": (("neumann", "dirichlet"), True, 0.5, np.cos),
}


def eigenmode(name: str, m: int) -> tuple[xr.Dataset, Any, float, float, np.ndarray]:
    boundary, nodes, shift, function = EIGENMODES[name]
    n, h = 20, 0.4
    k = math.pi * (m + shift) / (n * h)
    x = np.arange(n + 1) * h if nodes else (np.arange(n) + 0.5) * h
    pattern = function(k * x)
    return vd.dataset({"c": pattern}, spacing=h, node_centred=("x",) * nodes), boundary, k, h, pattern


@pytest.mark.parametrize("m", [2, 6])
@pytest.mark.parametrize("name", EIGENMODES)
def test_a_mode_decays_exponentially(name: str, m: int) -> None:
    ds, boundary, k, h, pattern = eigenmode(name, m)
    D, t_end = 0.7, 0.5
    run = vd.simulate(ReactionDiffusion(D), ds, dt=0.01, t_end=t_end, stepper="rk4", boundary=boundary, progress=False)
    expected = pattern * math.exp(-D * squared_wavenumber(k, h) * t_end)
    np.testing.assert_allclose(run.c.isel(time=-1).values, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("wavenumbers", ["spectral", "stencil"])
@pytest.mark.parametrize("name", EIGENMODES)
def test_imex_damps_a_mode_as_its_formula_says(name: str, wavenumbers: Any) -> None:
    ds, boundary, k, h, pattern = eigenmode(name, 4)
    D, dt, steps, K = 0.7, 0.8, 3, squared_wavenumber(k, h)
    factor = 1 - dt * D * K / (1 + dt * D * (K if wavenumbers == "stencil" else k**2))
    run = vd.simulate(
        ReactionDiffusion(D), ds, dt=dt, steps=steps, stepper=IMEX(wavenumbers), boundary=boundary, progress=False
    )
    np.testing.assert_allclose(run.c.isel(time=-1).values, pattern * factor**steps, rtol=0, atol=1e-13)


def test_a_gaussian_spreads_as_the_heat_kernel() -> None:
    D, t_end, width, h = 0.8, 2.0, 1.2, {"y": 0.4, "x": 0.5}
    y, x = ((np.arange(n) + 0.5) * s - n * s / 2 for n, s in zip((50, 44), h.values(), strict=True))

    def gaussian(variance: float) -> np.ndarray:
        r2 = y[:, None] ** 2 + x[None, :] ** 2
        return np.exp(-r2 / (2 * variance)) / (2 * np.pi * variance)

    ds = vd.dataset({"c": gaussian(width**2)}, spacing=h)
    run = vd.simulate(ReactionDiffusion(D), ds, dt=0.01, t_end=t_end, stepper="euler", progress=False)
    end = run.c.isel(time=-1).values
    exact = gaussian(width**2 + 2 * D * t_end)
    assert np.abs(end - exact).max() < 0.02 * exact.max()
    # the second difference of x^2 is 2: on the grid too the variance grows by 2 D t, but for what reached the edge
    moment = (end * x**2).sum() / end.sum() - (ds.c.values * x**2).sum() / ds.c.values.sum()
    assert moment == pytest.approx(2 * D * t_end, rel=1e-4)


@pytest.mark.parametrize("nodes", [False, True], ids=["cells", "nodes"])
@pytest.mark.parametrize("ends", ["dirichlet", "flux-dirichlet"])
def test_the_steady_state_between_two_ends_is_linear(ends: str, nodes: bool) -> None:
    n, h, lo, hi = 16, 0.5, 0.9, 0.2
    x = np.arange(n + 1) * h if nodes else (np.arange(n) + 0.5) * h
    slope = (hi - lo) / (n * h)
    boundary = {"x": vd.Dirichlet(lo, hi) if ends == "dirichlet" else (vd.Neumann(-slope), vd.Dirichlet(hi))}
    noise = np.random.default_rng(3).random((4, x.size))
    ds = vd.dataset({"c": noise}, spacing=h, node_centred=("x",) * nodes)
    run = vd.simulate(ReactionDiffusion(2.0), ds, dt=20.0, steps=60, boundary=boundary, progress=False)
    np.testing.assert_allclose(run.c.isel(time=-1).values, np.broadcast_to(lo + slope * x, noise.shape), atol=1e-12)


@pytest.mark.parametrize("nodes", [False, True], ids=["cells", "nodes"])
@pytest.mark.parametrize("stepper", ["euler", "rk4", "imex"])
def test_mass_grows_by_what_flows_in(stepper: str, nodes: bool) -> None:
    D, h, lo, hi, dt, steps = 0.5, 0.4, 0.3, -0.1, 0.05, 40
    start = np.random.default_rng(5).random((6, 13))
    ds = vd.dataset({"c": start}, spacing=h, node_centred=("x",) * nodes)
    boundary = {"x": vd.Neumann(lo, hi)}
    run = vd.simulate(
        ReactionDiffusion(D), ds, dt=dt, steps=steps, stepper=stepper, boundary=boundary, progress=False
    )
    weight = np.ones(13)
    weight[[0, -1]] = 0.5 if nodes else 1.0  # the voxel of an end node lies half outside
    mass = (run.c.values * weight).sum(axis=(1, 2)) * h**2
    inflow = D * (lo + hi) * (6 * h) * dt * steps
    assert mass[-1] - mass[0] == pytest.approx(inflow, rel=1e-11)


def test_mass_follows_a_flux_that_changes_in_time() -> None:
    # RK4 takes the integral of the flux by Simpson's rule: error of order dt^4
    ds = vd.dataset({"c": np.zeros(10)}, spacing=0.5)
    boundary = vd.Neumann(lambda s: math.cos(s), 0.0)
    run = vd.simulate(
        ReactionDiffusion(1.0), ds, dt=0.05, t_end=2.0, stepper="rk4", boundary=boundary, progress=False
    )
    assert float(run.c.isel(time=-1).sum()) * 0.5 == pytest.approx(math.sin(2.0), abs=1e-8)


# --- against another program ---------------------------------------------------------------------------------------


def written_out(c: np.ndarray, h: float, ends: str) -> np.ndarray:
    """d/dx( (1/2 + c^2) dc/dx ) + c (1 - c) in NumPy, cell by cell, independent of the library."""
    if ends == "periodic":
        ghosts = c[-1], c[0]
    elif ends == "dirichlet":
        ghosts = 2 * 0.2 - c[0], 2 * 0.8 - c[-1]
    else:
        ghosts = c[0] + h * 0.3, c[-1] - h * 0.1
    padded = np.concatenate([ghosts[:1], c, ghosts[1:]])
    at_face = (padded[1:] + padded[:-1]) / 2
    flux = (0.5 + at_face**2) * np.diff(padded) / h
    return np.asarray(np.diff(flux) / h + c * (1 - c))


@pytest.mark.parametrize(
    "ends, boundary",
    [("periodic", "periodic"), ("dirichlet", vd.Dirichlet(0.2, 0.8)), ("flux", vd.Neumann(0.3, -0.1))],
    ids=["periodic", "dirichlet", "flux"],
)
def test_nonlinear_diffusion_agrees_with_scipy(ends: str, boundary: Any) -> None:
    n, h, t_end = 30, 0.5, 2.0
    start = 0.5 + 0.4 * (np.random.default_rng(11).random(n) - 0.5)
    model = ReactionDiffusion(lambda c: 0.5 + c**2, source=lambda t, c, x: c * (1 - c))
    ds = vd.dataset({"c": start}, spacing=h)
    run = vd.simulate(model, ds, dt=0.02, t_end=t_end, stepper="rk4", boundary=boundary, progress=False)
    other = solve_ivp(
        lambda _, c: written_out(c, h, ends), (0, t_end), start, method="DOP853", rtol=1e-11, atol=1e-12
    )
    np.testing.assert_allclose(run.c.isel(time=-1).values, other.y[:, -1], rtol=0, atol=1e-6)
