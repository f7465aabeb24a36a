"""Steps that a tolerance controls: accurate to it, the same on all tiers, exact at frames, resumed to the bit."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest
import reference
import xarray as xr
from conftest import THIN, Tier
from scipy.integrate import solve_ivp

import voxdask as vd
from voxdask import tiles
from voxdask.steppers import AdaptiveIMEX, Tsit5
from voxdask.steppers.tsit5 import TABLEAU

D = 0.4
MODEL = vd.models.ReactionDiffusion(D, source=lambda t, c, x: 2 * (1 + t) * c * (1 - c))
QUIET: dict[str, Any] = {"progress": False}
STEPPERS = {"tsit5": Tsit5(1e-5), "imex": AdaptiveIMEX(1e-2, extrapolate=True)}


def make_ds(shape: tuple[int, ...] = (6, 5, 4), dtype: Any = np.float64, **options: Any) -> xr.Dataset:
    return vd.dataset({"c": np.random.default_rng(0).uniform(0.2, 0.8, shape).astype(dtype)}, spacing=0.5, **options)


def smooth_ds() -> xr.Dataset:
    """A wave, so that no mode is near its limit of stability and orders show."""
    return vd.dataset({"c": 0.5 + 0.2 * np.cos(2 * np.pi * (np.arange(12) + 0.5) / 12)}, spacing=0.5)


def rate_of(ds: xr.Dataset, boundary: Any = "periodic") -> reference.Rate:
    """The semi-discrete system of MODEL in plain NumPy."""
    return reference.reaction_diffusion(reference.axes_of(ds, boundary), D, lambda t, c: 2 * (1 + t) * c * (1 - c))


def solve(rate: reference.Rate, ds: xr.Dataset, times: Any, method: str = "DOP853") -> np.ndarray:
    """SciPy's solution at rising times, the first of which is the start, close to round-off."""
    u = ds.c.values.astype(float)
    found = solve_ivp(
        lambda t, v: rate(t, v.reshape(u.shape)).ravel(), (times[0], times[-1]), u.ravel(), method,
        t_eval=times, rtol=1e-12, atol=1e-13,
    )  # fmt: skip
    assert found.success
    return found.y.T.reshape(-1, *u.shape)


def report_of(run: xr.Dataset) -> vd.Report:
    report = vd.Report.of(run.attrs)
    assert report is not None
    return report


def slope(sizes: Any, errors: Any) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


def test_order_with_the_controller_off() -> None:
    ds = smooth_ds()
    expected = solve(rate_of(ds), ds, [0, 1])[-1]
    counts = np.array([24, 28, 34, 40])
    # the coefficients of order 5 are small beside those of order 6: slopes come down to 5 from above
    errors = []
    for n in map(int, counts):
        run = vd.simulate(MODEL, ds, dt=1 / n, steps=n, stepper=Tsit5(adaptive=False), **QUIET)
        errors.append(abs(run.c[-1] - expected).max())
    assert errors[-1] > 1e4 * np.finfo(float).eps
    assert slope(1 / counts, errors) == pytest.approx(5, abs=0.2)


def test_order_where_it_shows() -> None:
    """In 40 digits steps can be so small that order 5 is all that is left: u' = 6 u (1 - u) (u - 0.4) + cos(t) / 4."""

    def end(n: int) -> Any:
        u, dt = mpmath.mpf("0.7"), mpmath.mpf(1) / n
        for step in range(n):
            rates: list[Any] = []
            for row, c in zip(TABLEAU.a, TABLEAU.c, strict=True):
                v = u + dt * sum((k * a for k, a in zip(rates, row, strict=True)), mpmath.mpf(0))
                rates.append(6 * v * (1 - v) * (v - mpmath.mpf("0.4")) + mpmath.cos((step + c) * dt) / 4)
            u = v
        return u

    with mpmath.workdps(40):
        ends = [end(n) for n in (80, 112, 160, 224, 320)]
        # what the digits of the coefficients add goes like the step; the finest run stands for the solution
        errors = [float(abs(u - ends[-1])) for u in ends[:-1]]
        bias = [e * (1 - (n / 320) ** 5) ** -1 for e, n in zip(errors, (80, 112, 160, 224), strict=True)]
    assert slope(1 / np.array([80, 112, 160, 224]), bias) == pytest.approx(5, abs=0.1)


@pytest.mark.parametrize("part", [0.25, 0.6, 0.9])
def test_frames_within_a_step_are_of_order_four(part: float) -> None:
    """Local errors of one step, of order one more."""
    ds, errors, sizes = smooth_ds(), [], 0.16 / 1.5 ** np.arange(4)
    for dt in sizes:
        run = vd.simulate(MODEL, ds, dt=dt, t_end=dt, save_at=[part * dt], stepper=Tsit5(0.5, 10.0), **QUIET)
        assert report_of(run).steps == 1 and run.time.values.tolist() == [part * dt, dt]
        errors.append(abs(run.c[0] - solve(rate_of(ds), ds, [0, part * dt])[-1]).max())
    assert slope(sizes, errors) == pytest.approx(5, abs=0.3)


@pytest.mark.parametrize("name", ["tsit5", "imex", "extrapolated"])
def test_errors_follow_the_tolerance(name: str) -> None:
    ds, times = smooth_ds(), [0.0, 0.13, 0.5, 1.0]
    expected = solve(rate_of(ds), ds, times)
    tolerances = 10.0 ** -np.arange(3, 9) if name == "tsit5" else 10.0 ** -np.arange(2, 6)
    errors, steps = [], []
    for tolerance in tolerances:
        stepper = Tsit5(tolerance, tolerance) if name == "tsit5" else AdaptiveIMEX(
            tolerance, tolerance, extrapolate=name == "extrapolated"
        )  # fmt: skip
        run = vd.simulate(MODEL, ds, t_end=1.0, save_at=times, stepper=stepper, **QUIET)
        np.testing.assert_array_equal(run.time, times)
        errors.append(float(abs(run.c - expected).max()))
        steps.append(report_of(run).steps)
    # an error of a step of tolerance makes one of a run of tolerance^(order / (order + 1)) for the plain method
    expected_slope = 0.5 if name == "imex" else 1.0
    assert slope(tolerances, errors) == pytest.approx(expected_slope, abs=0.25)
    assert steps == sorted(steps) and steps[-1] > 1.5 * steps[0]
    if name == "tsit5":
        assert max(np.array(errors) / tolerances) < 20


@pytest.mark.parametrize("tier", ["chunks-1", "dask-3", "spilled", "spilled-thick", "spilled-deep"], indirect=True)
@pytest.mark.parametrize("stepper", STEPPERS)
def test_all_tiers_take_the_same_steps(stepper: str, tier: Tier) -> None:
    ds = make_ds()
    options: dict[str, Any] = {"t_end": 0.6, "save_at": [0.0, 0.1, 0.11, 0.45], "stepper": STEPPERS[stepper]}
    block = vd.simulate(MODEL, ds, boundary={"y": "neumann"}, **options, **QUIET)
    run = tier.simulate(MODEL, ds, boundary={"y": "neumann"}, **options)
    np.testing.assert_array_equal(run.time, [0.0, 0.1, 0.11, 0.45, 0.6])
    np.testing.assert_allclose(run.c, block.c, rtol=1e-11)
    expected = solve(rate_of(ds, {"y": "neumann"}), ds, run.time.values)
    np.testing.assert_allclose(run.c, expected, atol=1e-2 if stepper == "imex" else 2e-5)
    one, other = report_of(block), report_of(run)
    assert (one.steps, one.rejected) == (other.steps, other.rejected)
    assert one.shortest_step == pytest.approx(other.shortest_step, rel=1e-9)


@pytest.mark.parametrize("tier", ["block", "chunks-2", "spilled"], indirect=True)
@pytest.mark.parametrize("stepper", STEPPERS)
def test_given_values_are_exact_at_nodes_of_frames(stepper: str, tier: Tier) -> None:
    ds = make_ds(node_centred=("z",))
    boundary = {"z": vd.Dirichlet(lambda t: 0.1 + t, lambda t: 0.5 - t / 2)}
    run = tier.simulate(
        MODEL, ds, t_end=0.3, save_at=[0.07, 0.2], stepper=STEPPERS[stepper], boundary=boundary
    )  # fmt: skip
    for k, t in enumerate([0.07, 0.2, 0.3]):
        np.testing.assert_allclose(run.c[k, 0], 0.1 + t, rtol=1e-15)
        np.testing.assert_allclose(run.c[k, -1], 0.5 - t / 2, rtol=1e-15)


def test_two_fields_and_float32() -> None:
    """A and B of Gray-Scott, uniform: an ordinary differential equation that SciPy solves."""
    model = vd.models.GrayScott()
    ds = vd.dataset({"A": np.full((4, 4), 0.5, np.float32), "B": np.full((4, 4), 0.25, np.float32)})
    run = vd.simulate(model, ds, t_end=100.0, save_at=[33.3], stepper=Tsit5(1e-4, 1e-6), **QUIET)

    def rate(t: float, v: Any) -> Any:
        a, b = v
        return [-a * b * b + model.feed * (1 - a), a * b * b - model.kill * b]

    expected = solve_ivp(rate, (0, 100), (0.5, 0.25), "DOP853", rtol=1e-10, t_eval=[33.3, 100.0]).y
    assert run.A.dtype == np.float32
    np.testing.assert_allclose(run.A[:, 1, 2], expected[0], rtol=1e-3)
    np.testing.assert_allclose(run.B[:, 1, 2], expected[1], rtol=1e-3)


def test_a_first_step_that_is_too_long_is_rejected() -> None:
    ds = make_ds()
    run = vd.simulate(MODEL, ds, dt=5.0, t_end=1.0, stepper="tsit5", **QUIET)
    report = report_of(run)
    assert report.rejected >= 1 and report.longest_step is not None and report.longest_step < 1.0
    np.testing.assert_allclose(run.c[-1], solve(rate_of(ds), ds, [0, 1])[-1], atol=1e-5)
    assert f"{report.rejected} rejected" in str(report)


@pytest.mark.parametrize("chunks", [None, 2])
def test_an_attempt_that_overflows_is_rejected(chunks: int | None) -> None:
    """c' = -1000 c^3 from c = 2 has the solution 1 / sqrt(1/4 + 2000 t); one step to the end goes like c^243."""
    model = vd.models.ReactionDiffusion(0.1, source=lambda t, c, x: -1000 * c**3)
    ds = vd.dataset({"c": np.full((4, 4), 2.0)})
    run = vd.simulate(model, ds, dt=1e80, t_end=0.1, stepper=Tsit5(1e-7), chunks=chunks, **QUIET)
    assert report_of(run).rejected >= 4
    np.testing.assert_allclose(run.c[-1], 1 / math.sqrt(0.25 + 200), rtol=1e-6)


def test_a_singularity_ends_a_run_with_its_time(tmp_path: Path) -> None:
    model = vd.models.ReactionDiffusion(0.1, source=lambda t, c, x: c**3)
    ds = vd.dataset({"c": np.full((4, 4), 2.0)})
    message = r"at time 0\.125\d* shrank .* lost in round-off.*rtol=1e-05 and atol=1e-08 be too small"
    with pytest.raises(FloatingPointError, match=message) as caught:
        vd.simulate(model, ds, t_end=1.0, save_at=[0.0, 0.1], store=tmp_path / "run.zarr", stepper="tsit5", **QUIET)
    assert "are kept in" in str(caught.value)
    assert xr.open_zarr(tmp_path / "run.zarr").time.values.tolist() == [0.0, 0.1]


def test_a_rate_that_is_never_finite() -> None:
    model = vd.models.ReactionDiffusion(0.1, source=lambda t, c, x: vd.sqrt(c - 1))
    with pytest.raises(FloatingPointError, match=r"15 attempts in a row failed at time 0, .* NaN or infinite"):
        vd.simulate(model, make_ds(), dt=0.1, t_end=1.0, stepper="tsit5", **QUIET)
    with pytest.raises(FloatingPointError, match="the rate of change at the start, at time 0, is not finite"):
        vd.simulate(model, make_ds(), t_end=1.0, stepper="tsit5", **QUIET)


def test_the_first_step() -> None:
    """c' = -c from c = 1: norms of state, rate and second derivative are 1/s, so that dt = (0.01 s)^(1/5)."""
    model = vd.models.ReactionDiffusion(0.1, source=lambda t, c, x: -c)
    ds = vd.dataset({"c": np.ones((4, 4))})
    report = report_of(vd.simulate(model, ds, t_end=10.0, stepper=Tsit5(1e-7, 1e-8), **QUIET))
    assert report.shortest_step == pytest.approx((0.01 * 1.1e-7) ** 0.2, rel=1e-6)


def test_steps_of_a_spinodal_decomposition_grow() -> None:
    """Cahn-Hilliard against SciPy's stiff solver; the mean stays to round-off."""
    model = vd.models.CahnHilliard(eps=3.0)
    ds = vd.dataset({"c": 0.5 + 0.05 * np.random.default_rng(3).standard_normal((12, 12))})
    rate = reference.cahn_hilliard(reference.axes_of(ds, "periodic"), 3.0, 1.0)
    times = [0.0, 5.0, 60.0]
    expected = solve_ivp(
        lambda t, v: rate(t, v.reshape(12, 12)).ravel(), (0, 60), ds.c.values.ravel(), "BDF",
        t_eval=times, rtol=1e-6, atol=1e-8,
    ).y.T.reshape(-1, 12, 12)  # fmt: skip
    for stepper, atol in ((AdaptiveIMEX(1e-3, 1e-3), 0.05), (AdaptiveIMEX(1e-3, 1e-3, extrapolate=True), 0.01)):
        run = vd.simulate(model, ds, t_end=60.0, save_at=times, stepper=stepper, **QUIET)
        report = report_of(run)
        assert report.shortest_step is not None and report.longest_step is not None
        assert report.longest_step > 20 * report.shortest_step
        np.testing.assert_allclose(run.c, expected, atol=atol)
        np.testing.assert_allclose(run.c.mean(["y", "x"]), float(ds.c.mean()), rtol=1e-13)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_memory_measured_is_within_memory_projected(stepper: str) -> None:
    ds = make_ds((96, 64, 64), np.float32)
    options: dict[str, Any] = {"dt": 1e-3, "save_at": [0.0005, 0.0006], "stepper": STEPPERS[stepper], **QUIET}
    vd.simulate(MODEL, ds, t_end=1e-3, **options)  # code and threads are there already
    report = report_of(vd.simulate(MODEL, ds, t_end=3e-3, **options))
    assert report.peak_memory <= report.projected_memory


class StopError(Exception):
    """Ends a run from a callback."""


def tier_options(kind: str, ds: xr.Dataset, stepper: Any) -> dict[str, Any]:
    if kind == "chunks":
        return {"chunks": 2}
    return {"memory_limit": THIN} if kind == "spilled" else {}


@pytest.mark.parametrize(
    ("stepper", "kind"),
    [("tsit5", "block"), ("tsit5", "chunks"), ("tsit5", "spilled"), ("imex", "block"), ("imex", "chunks")],
)
def test_an_interrupted_run_ends_with_the_same_bits(stepper: str, kind: str, tmp_path: Path) -> None:
    """Stopped at several frames, some of which fall into the same step."""
    ds, method = make_ds(), STEPPERS[stepper]
    times = [0.0, 0.1, 0.102, 0.104, 0.3, 0.41]
    options: dict[str, Any] = {"t_end": 0.8, "save_at": times, "stepper": method, **QUIET}
    options |= tier_options(kind, ds, method)
    whole = vd.simulate(MODEL, ds, store=tmp_path / "whole.zarr", **options).load()
    np.testing.assert_array_equal(whole.time, [*times, 0.8])
    path, stops = tmp_path / "run.zarr", 0
    for stop in (0, 2, 4):

        def end(frame: xr.Dataset, stop: int = stop) -> None:
            if frame.time >= times[stop]:
                raise StopError

        try:
            vd.simulate(MODEL, ds, store=path, callbacks=[end], **options)
        except StopError:
            stops += 1
            found = xr.open_zarr(path).load()
            np.testing.assert_array_equal(found.c, whole.c[: found.sizes["time"]])
    assert stops == 3
    resumed = vd.simulate(MODEL, ds, store=path, **options)
    np.testing.assert_array_equal(resumed.time, whole.time)
    np.testing.assert_array_equal(resumed.c, whole.c)
    assert 0 < report_of(resumed).steps < report_of(whole).steps
    again = vd.simulate(MODEL, ds, store=path, **options)
    assert report_of(again).steps == 0
    longer = vd.simulate(MODEL, ds, store=path, **{**options, "t_end": 0.9, "save_at": [0.85]})
    np.testing.assert_array_equal(longer.time, [*whole.time, 0.85, 0.9])
    with pytest.raises(ValueError, match=r"is at time 0\.9 already, beyond t_end=0\.8"):
        vd.simulate(MODEL, ds, store=path, **options)


def test_other_tolerances_are_another_run(tmp_path: Path) -> None:
    options: dict[str, Any] = {"t_end": 0.1, "store": tmp_path / "run.zarr", **QUIET}
    vd.simulate(MODEL, make_ds(), stepper=Tsit5(1e-5), **options)
    for changed in ({"stepper": Tsit5(1e-6)}, {"stepper": Tsit5(1e-5, 1e-9)}, {"stepper": Tsit5(1e-5), "dt": 0.1}):
        with pytest.raises(ValueError, match="made with other parameters"):
            vd.simulate(MODEL, make_ds(), **options, **changed)  # type: ignore[arg-type]


def test_frames_in_one_step_are_all_shown() -> None:
    seen: list[float] = []
    times = np.linspace(0, 0.01, 6)
    run = vd.simulate(
        MODEL, make_ds(), dt=0.01, t_end=0.01, save_at=times, stepper=Tsit5(0.5, 10.0),
        callbacks=[lambda frame: seen.append(float(frame.time))], **QUIET,
    )  # fmt: skip
    assert report_of(run).steps == 1
    assert seen == run.time.values.tolist() == times.tolist()
    assert (np.diff(run.c.mean(["z", "y", "x"])) > 0).all()


def test_no_time_to_pass() -> None:
    run = vd.simulate(MODEL, make_ds(), t_end=0.0, stepper="tsit5", **QUIET)
    assert run.time.values.tolist() == [0.0] and report_of(run).steps == 0
    np.testing.assert_array_equal(run.c[0], make_ds().c)


def test_the_bar_runs_over_time(capfd: pytest.CaptureFixture[str]) -> None:
    vd.simulate(MODEL, make_ds(), t_end=0.25, stepper="tsit5")
    shown = capfd.readouterr().err
    assert "time 0.25/0.25" in shown and "rejected" in shown


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "steps": ({"steps": 4}, ValueError, "chooses how many steps it takes: give t_end, and save_at .* steps=4"),
    "no end": ({}, ValueError, "give t_end"),
    "save_every": ({"t_end": 1.0, "save_every": 2}, ValueError, "save_every=2 counts steps.*save_at=np.linspace"),
    "outside": ({"t_end": 1.0, "save_at": [0.5, 1.5]}, ValueError, r"save_at holds 1\.5, outside 0 \.\.\. 1"),
    "no time": ({"t_end": 1.0, "save_at": ["x"]}, TypeError, "save_at holds 'x'; give a finite time"),
    "no sequence": ({"t_end": 1.0, "save_at": 0.5}, TypeError, "save_at is 0.5; give a sequence"),
    "before": ({"t_end": -1.0}, ValueError, "t_end is -1.0, before the start at 0"),
    "not finite": ({"t_end": math.inf}, TypeError, "t_end holds inf"),
    "dt": ({"t_end": 1.0, "dt": 0.0}, ValueError, "dt is 0.0; it must be positive"),
}


@pytest.mark.parametrize("case", BAD)
def test_arguments_that_do_not_fit(case: str) -> None:
    options, error, message = BAD[case]
    with pytest.raises(error, match=message):
        vd.simulate(MODEL, make_ds(), stepper="tsit5", **options, **QUIET)


def test_other_steppers_need_a_step() -> None:
    with pytest.raises(TypeError, match="dt is None; give the size of a step"):
        vd.simulate(MODEL, make_ds(), t_end=1.0, **QUIET)


def test_the_stable_step_is_only_said_where_it_counts() -> None:
    ds = make_ds((12,))
    with pytest.warns(UserWarning, match="beyond the stable step of Tsit5, about 0.548 here"):
        vd.simulate(MODEL, ds, dt=0.6, steps=1, stepper=Tsit5(adaptive=False), **QUIET)
    vd.simulate(MODEL, ds, dt=0.6, t_end=0.6, stepper=Tsit5(), **QUIET)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_size_of_an_error(dtype: Any) -> None:
    """The norm of Hairer, Norsett, Wanner (4.11), whatever the tiles."""
    rng = np.random.default_rng(1)
    e, u, v = (rng.standard_normal((7, 5, 3)).astype(dtype) for _ in range(3))
    scale = 0.1 + 0.2 * np.maximum(abs(u), abs(v)).astype(float)
    expected = math.sqrt(np.mean((e / scale) ** 2))

    def norm(rows: int, v: np.ndarray = v) -> float:
        cuts = [slice(lo, lo + rows) for lo in range(0, 7, rows)]
        return tiles.root_mean_square([tiles.square_sums(e[s].copy(), (u[s], v[s]), 0.1, 0.2) for s in cuts], e.size)

    assert norm(7) == pytest.approx(expected, rel=1e-6 if dtype == np.float32 else 1e-13)
    assert norm(1) == norm(2) == norm(3) == norm(7)
    for value in (np.inf, np.nan):
        broken = v.copy()
        broken[3, 2, 1] = value
        assert not math.isfinite(norm(2, broken))
