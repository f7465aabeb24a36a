"""Gray-Scott: states at rest, order, coefficients in space, and coupled species on every tier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import sympy as sp
import xarray as xr
from conftest import Tier

import voxdask as vd
from voxdask.models import GrayScott
from voxdask.verify import rhs_order

x, y, pi = vd.x, vd.y, sp.pi

#: feed, kill; with the last only (1, 0) is at rest, with the others two more states are.
RATES = [(0.055, 0.117), (0.04, 0.095), (0.03, 0.1)]


def states_at_rest(feed: float, kill: float) -> list[tuple[float, float]]:
    """Where feed (1 - A) = A B^2 = kill B: at (1, 0), and where A B = kill for A = 1 - kill B / feed."""
    roots = np.roots([-kill / feed, 1.0, -kill])
    return [(1.0, 0.0)] + [(1 - kill * b.real / feed, b.real) for b in roots if abs(b.imag) < 1e-12]


@pytest.mark.study
@pytest.mark.parametrize(("feed", "kill"), RATES)
@pytest.mark.parametrize("stepper", ["rk4", "imex"])
def test_uniform_states_at_rest_stay(feed: float, kill: float, stepper: str) -> None:
    states = states_at_rest(feed, kill)
    assert len(states) == (3 if feed > 4 * kill**2 else 1)
    for a, b in states:
        ds = vd.dataset({"A": np.full((6, 5), a), "B": np.full((6, 5), b)})
        model = GrayScott(feed=feed, kill=kill)
        rate = model.right_hand_side(ds)
        assert max(abs(rate.A).max(), abs(rate.B).max()) < 1e-15
        run = vd.simulate(model, ds, dt=0.2, steps=20, stepper=stepper, progress=False)
        assert abs(run.A[-1] - a).max() < 1e-13
        assert abs(run.B[-1] - b).max() < 1e-13


def test_mixing_alone_feeds_and_empties() -> None:
    """Without conversion each species relaxes by itself: 1 - (1 - A) e^-ft, and B e^-kt, with its mode D k^2."""
    n, feed, kill = 16, 0.3, 0.2
    mode = np.cos(2 * np.pi * (np.arange(n) + 0.5) / n)
    q = (2 * np.sin(np.pi / n)) ** 2
    ds = vd.dataset({"A": 0.6 + 0.1 * mode, "B": 0.5 + 0.1 * mode})
    model = GrayScott(D_A=0.7, D_B=0.4, feed=feed, kill=kill, interaction=lambda A, B: 0 * A)
    end = vd.simulate(model, ds, dt=0.01, t_end=2.0, stepper="rk4", progress=False).isel(time=-1)
    a = 1 - 0.4 * np.exp(-feed * 2) + 0.1 * mode * np.exp(-(feed + 0.7 * q) * 2)
    b = 0.5 * np.exp(-kill * 2) + 0.1 * mode * np.exp(-(kill + 0.4 * q) * 2)
    assert np.abs(end.A - a).max() < 1e-10
    assert np.abs(end.B - b).max() < 1e-10


ANY_INTERACTION = {"interaction": lambda A, B: A * B / (1 + A)}


@pytest.mark.parametrize(
    ("options", "coefficients"),
    [
        ({}, {}),
        (ANY_INTERACTION, {}),
        ({}, {"D_A": 1 + 0.3 * vd.cos(2 * pi * x), "kill": 0.1 + 0.05 * vd.sin(2 * pi * y)}),
    ],
    ids=["plain", "interaction", "fields"],
)
def test_right_hand_side_is_of_second_order(options: dict[str, Any], coefficients: dict[str, Any]) -> None:
    A = 0.6 + 0.2 * vd.sin(2 * pi * x + 0.3) * vd.cos(2 * pi * y)
    B = 0.3 + 0.1 * vd.cos(2 * pi * x) * vd.sin(2 * pi * y + 0.5)
    study = rhs_order(GrayScott(**options), {"A": A, "B": B, **coefficients}, dims=("y", "x"), sizes=(32, 48, 64, 96))
    assert study.order == pytest.approx(2, abs=0.1)
    assert study.errors[-1] > 1e-6


def test_coefficients_may_vary_in_space() -> None:
    """Against NumPy: div(D grad A) with D at a face the mean of its voxels, everything else by the voxel."""
    rng = np.random.default_rng(1)
    shape, h = (7, 6), 0.5
    a, b, d_a, d_b, feed, kill = (rng.uniform(0.2, 0.9, shape) for _ in range(6))
    fields = vd.dataset({"d_a": d_a, "d_b": d_b, "feed": feed, "kill": kill}, spacing=h)
    model = GrayScott(fields.d_a, fields.d_b, fields.feed, fields.kill)
    rate = model.right_hand_side(vd.dataset({"A": a, "B": b}, spacing=h))

    def diffused(d: np.ndarray, u: np.ndarray) -> np.ndarray:
        flows = [(d + np.roll(d, -1, axis)) / 2 * (np.roll(u, -1, axis) - u) / h for axis in (0, 1)]
        return np.asarray(sum((flow - np.roll(flow, 1, axis)) / h for axis, flow in enumerate(flows)))

    np.testing.assert_allclose(rate.A, diffused(d_a, a) - a * b**2 + feed * (1 - a), rtol=0, atol=1e-12)
    np.testing.assert_allclose(rate.B, diffused(d_b, b) + a * b**2 - kill * b, rtol=0, atol=1e-12)


@dataclass(frozen=True)
class Cycle(vd.Model):
    """Three species, each of which lives on the one before it: a user's own model."""

    diffusivity: Any = 0.3
    growth: float = 1.0
    competition: float = 0.5
    fields = ("u", "v", "w")

    def rhs(self, t: Any, u: Any, v: Any, w: Any) -> Any:
        def change(own: Any, prey: Any, hunter: Any) -> Any:
            growth = self.growth * own * (1 - own - self.competition * prey - 2 * self.competition * hunter)
            return vd.div(self.diffusivity * vd.grad(own)) + growth

        return change(u, v, w), change(v, w, u), change(w, u, v)


def random_state(model: Any, dtype: Any = np.float64) -> xr.Dataset:
    rng = np.random.default_rng(3)
    return vd.dataset({name: rng.uniform(0.1, 0.9, (9, 4, 6)).astype(dtype) for name in model.fields}, spacing=0.7)


@pytest.mark.parametrize("stepper", ["imex", "rk4"])
@pytest.mark.parametrize("name", ["gray-scott", "cycle"])
def test_coupled_species_are_the_same_on_every_tier(name: str, stepper: str, tier: Tier) -> None:
    field = vd.dataset({"D": np.linspace(0.2, 0.4, 9 * 4 * 6).reshape(9, 4, 6)}, spacing=0.7).D
    model: Any = {"gray-scott": GrayScott(D_A=field), "cycle": Cycle()}[name]
    ds = random_state(model)
    boundary = {"z": "neumann", "x": vd.Dirichlet(0.5)}
    options: dict[str, Any] = {"dt": 0.05, "steps": 3, "stepper": stepper, "boundary": boundary}
    block = vd.simulate(model, ds, progress=False, **options)
    run = tier.simulate(model, ds, **options)
    for species in model.fields:
        assert float(abs(run[species] - block[species]).max()) < 1e-13


def test_three_species_rest_where_all_are_equal() -> None:
    """u = v = w = 1 / (1 + 3 a) is at rest for competition a and 2 a."""
    level = 1 / (1 + 3 * 0.5)
    ds = vd.dataset({name: np.full((5, 4), level) for name in "uvw"})
    run = vd.simulate(Cycle(), ds, dt=0.1, steps=10, progress=False)
    for name in "uvw":
        assert abs(run[name][-1] - level).max() < 1e-14


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"D_A": 0.0}, ValueError, "D_A is 0.0; it must be positive"),
        ({"D_B": -1.0}, ValueError, "D_B is -1.0"),
        ({"feed": -0.1}, ValueError, "feed is -0.1"),
        ({"kill": float("nan")}, ValueError, "kill is nan"),
        ({"kill": "much"}, TypeError, "kill is 'much'; give a number or a DataArray"),
        ({"interaction": 2.0}, TypeError, "interaction is a float; give a function"),
    ],
)
def test_what_is_refused(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        GrayScott(**options)


def test_a_rate_may_be_zero() -> None:
    assert GrayScott(feed=0, kill=0.0).equation.parameters["kill"] == 0
