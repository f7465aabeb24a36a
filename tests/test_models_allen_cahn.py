"""Allen-Cahn: interfaces that stand, move with M F and shrink by curvature, as they should; forms, forces, orders."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import sympy as sp
import xarray as xr

import voxdask as vd
from voxdask.models import AllenCahn
from voxdask.verify import rhs_order

x, y, pi = vd.x, vd.y, sp.pi


def profile(distance: Any, eps: float) -> np.ndarray:
    """The flat interface, from phi'^2 / 2 = 9 / (2 eps^2) phi^2 (1 - phi)^2; 1 where the distance is positive."""
    return np.asarray(0.5 * (1 + np.tanh(1.5 * distance / eps)))


def line(length: float, n: int) -> tuple[np.ndarray, float]:
    """Voxel centres along a line, and the spacing."""
    h = length / n
    return (np.arange(n) + 0.5) * h, h


# --- Allen-Cahn: flat interfaces -----------------------------------------------------------------------------------

FORMS: dict[str, dict[str, Any]] = {
    "normal": {"curvature": 0.25},
    "curvature": {"curvature": 0.25, "form": "curvature"},
    "full": {"curvature": 1.0, "form": "full"},
}
forms = pytest.mark.parametrize("form", FORMS)


@forms
def test_the_flat_interface_stands(form: str) -> None:
    # phi = (1 + tanh(3 x / 2 eps)) / 2 (Daubner et al. 2025, arXiv:2507.21748); what is left is of order h^2
    rates = []
    for n in (64, 128):
        at, h = line(24.0, n)
        ds = vd.dataset({"phi": profile(at - 11.3, 3.0)}, spacing=h)
        rates.append(float(abs(AllenCahn(3.0, **FORMS[form]).right_hand_side(ds, boundary="neumann").phi).max()))
    assert rates[0] / rates[1] == pytest.approx(4, rel=0.05)
    assert rates[1] < 0.005 * 9 / 3.0**2  # small beside the well
    wide = vd.dataset({"phi": profile(at - 11.3, 4.5)}, spacing=h)  # no other width does
    assert float(abs(AllenCahn(3.0, **FORMS[form]).right_hand_side(wide, boundary="neumann").phi).max()) > 0.05


@pytest.mark.study
@pytest.mark.parametrize(("form", "force"), [("normal", 0.06), ("curvature", -0.06), ("full", -0.06)])
def test_a_driven_front_moves_with_m_f(form: str, force: float) -> None:
    # the exact travelling wave has the velocity M F; the grid takes a share of order h^2 off it
    M, t_end, lost = 1.5, 40.0, []
    for n in (60, 120):
        at, h = line(60.0, n)
        ds = vd.dataset({"phi": profile(at - 30, 4.0)}, spacing=h)
        model = AllenCahn(4.0, 0.8, M, force, **FORMS[form])
        run = vd.simulate(model, ds, dt=0.4 * h**2 / M, t_end=t_end, stepper="rk4", boundary="neumann", progress=False)
        grown = float((run.phi[-1] - run.phi[0]).sum()) * h
        lost.append(1 - grown / (M * force * t_end))
    assert 0 < lost[1] < 0.01
    assert lost[0] / lost[1] == pytest.approx(4, rel=0.1)


def test_forces_of_every_kind() -> None:
    at, h = line(20.0, 40)
    ds = vd.dataset({"phi": profile(at - 10, 3.0)}, spacing=h)
    found = [
        AllenCahn(3.0, force=force).right_hand_side(ds, boundary="neumann", time=2.0).phi.values
        for force in (0.3, xr.full_like(ds.phi, 0.3), lambda t, p: 0.15 * t, lambda t, p: 0.3 + 0 * p.x)
    ]
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=0, atol=1e-14)


def test_the_drive_is_that_of_the_length_of_the_gradient_on_the_flat_interface() -> None:
    errors = []
    for n in (64, 128):
        at, h = line(24.0, n)
        ds = vd.dataset({"phi": profile(at - 12, 3.0)}, spacing=h)
        rates = [AllenCahn(3.0, force=F).right_hand_side(ds, boundary="neumann").phi for F in (0.0, 1.0)]
        slope = abs(vd.grad(ds.phi, boundary="neumann").phi_x)
        errors.append(float(abs(rates[1] - rates[0] - slope).max()))
    assert errors[0] / errors[1] == pytest.approx(4, rel=0.1)
    assert errors[1] < 0.01


def test_the_state_is_limited_in_the_right_hand_side_alone() -> None:
    ds = vd.dataset({"phi": np.array([1.3, 1.1, 1.2, -0.2, -0.1, -0.4])})
    limited = ds.clip(0, 1)
    for form in FORMS:
        model = AllenCahn(2.0, force=0.1, **FORMS[form])
        assert model.right_hand_side(ds).identical(model.right_hand_side(limited))


# --- Allen-Cahn: curved interfaces ---------------------------------------------------------------------------------


def ball(ndim: int, n: int, radius: float, eps: float) -> xr.Dataset:
    """A quarter of a disk or an eighth of a ball about the origin."""
    distance = np.sqrt(((np.indices((n,) * ndim) + 0.5) ** 2).sum(axis=0))
    return vd.dataset({"phi": profile(radius - distance, eps)}, spacing=1.0)


def content(phi: xr.DataArray) -> np.ndarray:
    return np.asarray(phi.sum([dim for dim in phi.dims if dim != "time"]).values)


CURVED = {
    "circle-full": (2, 32, 24.0, "full", 1.0),
    "circle-normal": (2, 32, 24.0, "normal", 0.5),
    "circle-curvature": (2, 32, 24.0, "curvature", 0.5),
    "sphere-full": (3, 22, 17.0, "full", 1.0),
    "sphere-normal": (3, 22, 17.0, "normal", 0.5),
}


@pytest.mark.study
@pytest.mark.parametrize("case", CURVED)
def test_balls_shrink_by_curvature(case: str) -> None:
    # motion by mean curvature, v = M gamma kappa (d - 1) / R: R^2 = R0^2 - 2 (d - 1) M gamma kappa t
    ndim, n, radius, form, kappa = CURVED[case]
    M, gamma, eps = 1.25, 0.8, 3.0
    model = AllenCahn(eps, gamma, M, curvature=kappa, form=form)  # type: ignore[arg-type]
    t_end = 0.3 * radius**2 / (2 * (ndim - 1) * M * gamma * kappa)
    steps = 5 * math.ceil(t_end)
    run = vd.simulate(
        model, ball(ndim, n, radius, eps), dt=t_end / steps, steps=steps, stepper="rk4", boundary="neumann",
        save_every=steps // 5, progress=False,
    )  # fmt: skip
    amount = content(run.phi)[1:]  # without the start, whose profile the grid has yet to take
    square = amount * 4 / np.pi if ndim == 2 else (amount * 6 / np.pi) ** (2 / 3)
    rate = -np.polyfit(run.time.values[1:], square, 1)[0] / (2 * (ndim - 1) * M * gamma * kappa)
    assert rate == pytest.approx(1, abs=0.05)  # the interface has three voxels: 2 to 5 % slower than a sharp one


@pytest.mark.parametrize(("ndim", "form"), [(2, "normal"), (2, "curvature"), (3, "normal")])
def test_without_curvature_shapes_stay(ndim: int, form: Any) -> None:
    n, radius = (32, 20.0) if ndim == 2 else (20, 14.0)
    start = ball(ndim, n, radius, 3.0)
    t_end = 0.25 * radius**2 / (ndim - 1)  # with all of the curvature half of R^2 would be gone
    run = vd.simulate(
        AllenCahn(3.0, curvature=0.0, form=form), start, dt=t_end / math.ceil(t_end / 0.2), t_end=t_end,
        stepper="rk4", boundary="neumann", progress=False,
    )  # fmt: skip
    before, after = content(run.phi)
    assert after == pytest.approx(before, rel=0.03)


def test_the_energy_of_an_interface_and_its_descent() -> None:
    # gamma / 2 eps per area, from the integral of phi'^2 = 3 / eps phi (1 - phi) phi'
    at, h = line(30.0, 300)
    ds = vd.dataset({"phi": np.broadcast_to(profile(at - 15, 2.0), (4, 300))}, spacing=(1.0, h))
    energy = AllenCahn(2.0, gamma=3.0).free_energy(ds, boundary="neumann")
    assert float(energy) == pytest.approx(4.0 * 3.0 / (2 * 2.0), rel=1e-3)
    model = AllenCahn(2.0, 1.5, 0.7, 0.2, 1.0, "full")
    noise = vd.dataset({"phi": np.random.default_rng(3).random((16, 16))})
    for stepper, dt in (("rk4", 0.1), ("imex", 0.5)):
        run = vd.simulate(model, noise, dt=dt, steps=40, save_every=2, stepper=stepper, progress=False)
        assert (np.diff(model.free_energy(run)) < 1e-13).all()
    with pytest.raises(TypeError, match="the force changes in time"):
        AllenCahn(force=lambda t, p: t).free_energy(noise)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"eps": 0.0}, ValueError, "eps is 0.0; it must be positive"),
        ({"gamma": -1}, ValueError, "gamma is -1"),
        ({"mobility": math.nan}, ValueError, "mobility is nan"),
        ({"curvature": 1.5}, ValueError, "curvature is 1.5; give a number from 0"),
        ({"curvature": "none"}, TypeError, "curvature is 'none'; give a number"),
        ({"form": "half"}, ValueError, "form is 'half'; use 'normal', 'curvature' or 'full'"),
        ({"form": "full"}, ValueError, "form='full' takes all of the curvature, but curvature is 0.01"),
        ({"force": "up"}, TypeError, "force is 'up'; give a number"),
        ({"force": math.inf}, ValueError, "force is inf"),
        ({"force": lambda t, p: vd.grad(p.x)}, TypeError, "force returned a Vector"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_of_allen_cahn(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        _ = AllenCahn(**options).equation


# --- its discretisation -----------------------------------------------------------------------------------------------


@forms
def test_allen_cahn_is_of_second_order_in_two_dimensions(form: str) -> None:
    wave = 0.2 + 0.6 * x + 0.05 * vd.sin(pi * x) * vd.cos(pi * y)
    study = rhs_order(
        AllenCahn(0.5, 1.2, 1.1, 0.3, **FORMS[form]), {"phi": wave}, dims=("y", "x"), sizes=(24, 32, 48, 64),
        boundary={"x": vd.Dirichlet(0.2, 0.8), "y": "neumann"},
    )  # fmt: skip
    assert study.order == pytest.approx(2, abs=0.1)


@forms
def test_stiff_parts_damp_as_the_laplacian(form: str) -> None:
    q = sp.Symbol("q_x", nonnegative=True)
    symbol = AllenCahn(**FORMS[form]).equation.symbols(("x",))[0]
    assert sp.simplify(symbol.subs(dict.fromkeys(symbol.free_symbols - {q}, 1)) + q) == 0
