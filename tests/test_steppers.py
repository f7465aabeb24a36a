"""Every stepper: its order, its stability, the coefficients behind it, and the same result on every tier."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp
from conftest import DEEP, THICK

import voxdask as vd
from voxdask import chunked
from voxdask.block import BlockFields
from voxdask.chunked_runner import ChunkedRunner
from voxdask.filters import compile_filter
from voxdask.phi import Phi1, Phi2, Phi3
from voxdask.steppers import (
    ETD1,
    ETDRK4,
    IMEX,
    RK4,
    RKC1,
    RKC2,
    SBDF2,
    AdaptiveIMEX,
    Euler,
    Tsit5,
    is_adaptive,
    stepper_of,
)
from voxdask.steppers.chebyshev import Recurrence
from voxdask.verify import solution_order

ALL = [Euler(), RK4(), RKC1(stages=5), RKC2(stages=5), IMEX(), SBDF2(), ETD1(), ETDRK4()]
NAMES = ["euler", "rk4", "rkc1", "rkc2", "imex", "sbdf2", "etd1", "etdrk4"]
TAU = 2 * np.pi

# --- order --------------------------------------------------------------------------------------------------------

#: Steps that resolve the manufactured solution, and for explicit steppers are stable.
STEPS = {"euler": (100, 140, 200, 280), "rk4": (40, 56, 80, 112), "etdrk4": (20, 28, 40, 56)}


@pytest.mark.study
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("wave", "boundary"), [(vd.sin(TAU * vd.x), "periodic"), (vd.cos(TAU / 2 * vd.x), "neumann")], ids=["fft", "dct"]
)
def test_order(name: str, wave: Any, boundary: str) -> None:
    """Diffusion with logistic growth; errors against the same grid with a sixteenth of the smallest step."""
    model = vd.models.ReactionDiffusion(0.05, source=lambda t, c, x: 3 * c * (1 - c))
    known = 0.5 + 0.3 * vd.cos(3 * vd.t) * wave + 0.1 * vd.sin(vd.t)
    steps = STEPS.get(name, (40, 56, 80, 112))
    study = solution_order(
        model, {"c": known}, name, t_end=1.0, dt=[1 / n for n in steps], vary="dt", sizes=12, boundary=boundary
    )
    assert abs(study.order - stepper_of(name).order) < 0.1


# --- tiers and boundaries -----------------------------------------------------------------------------------------

BOUNDARIES = {
    "periodic": "periodic",
    "mixed": {"y": (vd.Neumann(0.2), vd.Dirichlet(0.4)), "x": "neumann"},
    "held": {"y": vd.Dirichlet(0.3, lambda t: 0.3 + 0.1 * t)},
}


def make_ds(dtype: Any = np.float64, node_centred: tuple[str, ...] = ("y",)) -> Any:
    values = 0.5 + 0.2 * np.random.default_rng(1).standard_normal((11, 9)).astype(dtype)
    return vd.dataset({"c": values}, spacing=(1.0, 0.7), node_centred=node_centred)


@pytest.mark.parametrize("stepper", ALL, ids=NAMES)
@pytest.mark.parametrize("boundary", BOUNDARIES.values(), ids=BOUNDARIES)
def test_tiers_agree(stepper: Any, boundary: Any, tmp_path: Path) -> None:
    model = vd.models.ReactionDiffusion(lambda c: 0.3 + 0.1 * c, source=lambda t, c, x: vd.sin(t) * c)
    common: dict[str, Any] = {"dt": 0.1, "steps": 4, "stepper": stepper, "boundary": boundary, "progress": False}
    ds = make_ds()
    block = vd.simulate(model, ds, **common).c[-1]
    assert abs(block - ds.c).max() > 1e-2
    chunked = vd.simulate(model, ds, chunks=4, **common)
    assert chunked.vd.report.tier == "chunked"
    np.testing.assert_allclose(chunked.c[-1], block, rtol=0, atol=1e-13)
    limit = DEEP
    spilled = vd.simulate(model, ds, memory_limit=limit, store=tmp_path / "run.zarr", **common)
    assert spilled.vd.report.tier == "spilled"
    np.testing.assert_allclose(spilled.c[-1], block, rtol=0, atol=1e-13)
    again = vd.simulate(model, ds.chunk({"y": 3}), **common)
    np.testing.assert_allclose(again.c[-1], block, rtol=0, atol=1e-13)


@pytest.mark.parametrize("stepper", [*ALL, Tsit5(), AdaptiveIMEX()], ids=[*NAMES, "tsit5", "adaptive-imex"])
def test_chunks_evaluate_no_more_than_a_block(stepper: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over batch after batch: what one batch of steps leaves behind must not have its past made again in the next."""
    ran: dict[str, list[None]] = {"block": [], "chunks": []}
    evaluate, advance = BlockFields._evaluate, chunked.advance_slab

    def in_block(*args: Any, **options: Any) -> None:
        ran["block"].append(None)
        evaluate(*args, **options)

    def in_chunks(*args: Any) -> Any:
        ran["chunks"].append(None)
        return advance(*args)

    monkeypatch.setattr(BlockFields, "_evaluate", in_block)
    monkeypatch.setattr(chunked, "advance_slab", in_chunks)
    model, steps = vd.models.CahnHilliard(), 3 * ChunkedRunner.batch + 1
    common: dict[str, Any] = {"dt": 1e-3, "steps": steps, "stepper": stepper, "progress": False}
    if is_adaptive(stepper):
        common = {"t_end": 0.2, "dt": 1e-3, "stepper": stepper, "progress": False}
    block = vd.simulate(model, make_ds(), **common)
    run = vd.simulate(model, make_ds(), chunks=4, **common)
    np.testing.assert_allclose(run.c, block.c, rtol=0, atol=1e-13)
    assert len(ran["chunks"]) == 3 * len(ran["block"])  # slabs of 4, 4 and 3 rows


@pytest.mark.parametrize("stepper", [SBDF2(), ETDRK4(), RKC2(3)], ids=["sbdf2", "etdrk4", "rkc2"])
@pytest.mark.parametrize("how", [{}, {"chunks": 3}, {"memory_limit": THICK}], ids=["block", "chunked", "spilled"])
def test_a_run_that_goes_on_has_the_same_bits(stepper: Any, how: Any, tmp_path: Path) -> None:
    """What a stepper carries from step to step is kept in the store."""
    model, ds = vd.models.CahnHilliard(), make_ds(np.float32)
    common: dict[str, Any] = {"dt": 0.02, "stepper": stepper, "save_every": 2, "progress": False, **how}
    whole = vd.simulate(model, ds, steps=6, store=tmp_path / "whole.zarr", **common)
    for steps in (0, 2, 4, 6):
        cut = vd.simulate(model, ds, steps=steps, store=tmp_path / "cut.zarr", **common)
    np.testing.assert_array_equal(cut.c, whole.c)
    assert cut.vd.report.tier == ("spilled" if "memory_limit" in how else "chunked" if "chunks" in how else "block")
    if "memory_limit" not in how:  # which needs a store
        np.testing.assert_array_equal(vd.simulate(model, ds, steps=6, **common).c, whole.c)


@pytest.mark.study
@pytest.mark.parametrize("stepper", ALL, ids=NAMES)
@pytest.mark.parametrize("node_centred", [("x",), ()], ids=["nodes", "cells"])
def test_a_value_that_moves(stepper: Any, node_centred: tuple[str, ...]) -> None:
    """Diffusion below a held value of sin(2 t), against a fine run; steps end with the value of their end."""
    model = vd.models.ReactionDiffusion(0.3, source=lambda t, c, x: vd.cos(2 * t) * c)
    ds = vd.dataset({"c": np.zeros(9)}, spacing=1 / 8, node_centred=node_centred)
    common: dict[str, Any] = {"boundary": (vd.Dirichlet(lambda t: np.sin(2 * t)), vd.Dirichlet(0.0)), "progress": False}
    fine = vd.simulate(model, ds, dt=5e-4, t_end=0.5, stepper="rk4", **common).c[-1]
    run = vd.simulate(model, ds, dt=0.01, t_end=0.5, stepper=stepper, **common).c[-1]
    if node_centred:
        assert float(run[0]) == pytest.approx(np.sin(1.0), abs=1e-14)
    assert abs(run - fine).max() < (2e-2 if stepper.order == 1 else 1e-3 if stepper.order == 2 else 3e-5)


def test_two_fields_keep_their_spectra_apart() -> None:
    """ETDRK4 saves spectra between stages; two uncoupled copies must each go their own way."""

    @dataclass(frozen=True)
    class Two(vd.Model):
        fields = ("a", "b")

        def rhs(self, t: Any, a: Any, b: Any) -> Any:
            return 0.3 * vd.laplace(a) + a * (1 - a), 0.7 * vd.laplace(b) - b**3

    rng = np.random.default_rng(0)
    ds = vd.dataset({"a": rng.random((6, 8)), "b": rng.random((6, 8))})
    run = vd.simulate(Two(), ds, dt=0.1, steps=3, stepper="etdrk4", progress=False)
    for field, model in (
        ("a", vd.models.ReactionDiffusion(0.3, lambda t, c, x: c * (1 - c))),
        ("b", vd.models.ReactionDiffusion(0.7, lambda t, c, x: -(c**3))),
    ):
        alone = vd.simulate(
            model, ds[[field]].rename({field: "c"}), dt=0.1, steps=3, stepper="etdrk4", progress=False
        )
        np.testing.assert_allclose(run[field], alone.c, rtol=0, atol=1e-14)


# --- exponential integrators --------------------------------------------------------------------------------------


def exact_phi(k: int, z: float) -> float:
    with mpmath.workdps(120):
        result = mpmath.exp(z)
        for j in range(k):
            result = (result - 1 / mpmath.factorial(j)) / z
        return float(result)


@pytest.mark.parametrize(("function", "k"), [(Phi1, 1), (Phi2, 2), (Phi3, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_phi_functions(function: Any, k: int, dtype: Any) -> None:
    """Against 120 digits, from far below round-off to where the exponential is gone."""
    points = np.array([*-np.logspace(-18, 4, 67), -1.0, -0.999999, 1e-9, 0.3, 1.7], dtype)
    q = sp.Symbol("q_x", nonnegative=True)
    kernel = compile_filter((("r", (("r", function(q)),)),), ("x",))
    values = np.ones(len(points), dtype)
    kernel({"r": values}, [points], {})
    expected = [exact_phi(k, float(z)) for z in points]
    np.testing.assert_allclose(values, expected, rtol=40 * np.finfo(dtype).eps)


def test_exponential_euler_is_exact_for_linear_decay() -> None:
    """A mode decays by exp(-D q dt) in one step of any size, q the eigenvalue of the stencil."""
    n, dt = 16, 7.0
    wave = np.cos(TAU * 3 * (np.arange(n) + 0.5) / n)
    ds = vd.dataset({"c": wave})
    for stepper in (ETD1("stencil"), ETDRK4("stencil")):
        run = vd.simulate(vd.models.ReactionDiffusion(0.4), ds, dt=dt, steps=1, stepper=stepper, progress=False)
        decay = np.exp(-0.4 * 4 * np.sin(np.pi * 3 / n) ** 2 * dt)
        np.testing.assert_allclose(run.c[-1], decay * wave, rtol=0, atol=1e-13)


# --- Chebyshev methods --------------------------------------------------------------------------------------------


def amplification(stepper: Any, z: float) -> float:
    """What a step does to a mode of a linear equation, by the recurrence applied to numbers."""
    k = stepper.recurrence
    before, y = 1.0, 1 + k.mu_tilde[1] * z
    for j in range(2, stepper.stages + 1):
        new = (1 - k.mu[j] - k.nu[j]) + k.mu[j] * y + k.nu[j] * before + (k.mu_tilde[j] * y + k.gamma_tilde[j]) * z
        before, y = y, new
    return y


@pytest.mark.parametrize("stages", [2, 3, 5, 8, 20])
@pytest.mark.parametrize("method", [RKC1, RKC2])
def test_chebyshev_stability(method: Any, stages: int) -> None:
    """Damped all along the interval that is claimed, not far beyond; its length as in the source's section 2."""
    stepper = method(stages)
    inside = [amplification(stepper, -z) for z in np.linspace(0, stepper.real_limit, 2001)]
    assert np.abs(inside).max() <= 1 + 1e-10
    assert abs(amplification(stepper, -1.5 * stepper.real_limit)) > 1
    eta = stepper.damping
    length = (2 - 4 / 3 * eta) * stages**2 if method is RKC1 else 2 / 3 * (stages**2 - 1) * (1 - 2 / 15 * eta)
    assert stepper.real_limit == pytest.approx(length, rel=0.03)


@pytest.mark.parametrize("method", [RKC1, RKC2])
def test_chebyshev_consistency(method: Any) -> None:
    """The polynomial agrees with the exponential up to z to the order of the method."""
    stepper = method(6)
    z = np.array([0.04, 0.02, 0.01])
    errors = np.abs([amplification(stepper, -x) - np.exp(-x) for x in z])
    slope = np.polyfit(np.log(z), np.log(errors), 1)[0]
    assert slope == pytest.approx(stepper.order + 1, abs=0.1)


def test_many_stages_survive_where_euler_does_not() -> None:
    """With 10 stages a step of 40 times Euler's limit decays, on all tiers alike."""
    ds = vd.dataset({"c": np.random.default_rng(0).random((8, 10))})
    model = vd.models.ReactionDiffusion(1.0)
    limit = 2 / 8.0  # the largest eigenvalue of the stencil is 8
    run = vd.simulate(model, ds, dt=40 * limit, steps=100, stepper=RKC1(10), progress=False)
    assert float(run.c[-1].std()) < 0.05 * float(ds.c.std())
    with pytest.warns(UserWarning, match=r"stable step of Euler, about 0\.25"), pytest.raises(FloatingPointError):
        vd.simulate(model, ds, dt=40 * limit, steps=400, stepper="euler", progress=False)
    with pytest.warns(UserWarning, match=r"stable step of RKC2, about"):
        vd.simulate(model, ds, dt=40 * limit, steps=1, stepper=RKC2(10), progress=False)


def test_a_recurrence_checks_itself() -> None:
    good = RKC2(4).recurrence
    with pytest.raises(ValueError, match="the stages reach"):
        Recurrence(good.mu * 1.01, good.nu, good.mu_tilde, good.gamma_tilde, good.c)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: RKC1(stages=1), ValueError, "stages of RKC1 is 1; give 2 or more"),
        (lambda: RKC2(stages=2.5), TypeError, "stages of RKC2 is 2.5; give a whole number"),
        (lambda: RKC2(damping=0.0), ValueError, "damping of RKC2 is 0.0"),
        (lambda: SBDF2("exact"), ValueError, "wavenumbers is 'exact'"),
        (lambda: stepper_of("ab2"), ValueError, "stepper is 'ab2'; use one of 'euler', 'rk4'"),
    ],
)
def test_bad_options(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
