"""The step-size controller, and the coefficients of the pair that it steers: numbers alone."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxdask.control import PID, Memory, cut
from voxdask.steppers.tableau import Tableau, density, trees
from voxdask.steppers.tsit5 import TABLEAU, Tsit5

errors = st.floats(1e-8, 1.0)
steps = st.floats(1e-6, 1e6)


def settle(control: PID, constant: float, order: int, dt: float, count: int = 60) -> list[float]:
    """Steps for a problem whose error is `constant` dt^order, rejections left out."""
    memory, taken = Memory(dt), []
    for _ in range(count):
        error = constant * memory.dt**order
        if error <= 1:
            taken.append(memory.dt)
            memory = control.accept(memory, memory.dt, error, order)
        else:
            memory = control.reject(memory, memory.dt, error, order)
    return taken


@pytest.mark.parametrize("control", [PID(), PID(1.0, 0.0), PID(1 / 18, 1 / 9, 1 / 18)], ids=repr)
@pytest.mark.parametrize("order", [2, 5])
@pytest.mark.parametrize("start", [1e-4, 3.0])
def test_steps_settle_where_the_error_is_below_the_tolerance(control: PID, order: int, start: float) -> None:
    """A fixed point has factor 1, s = eps^(kI/k): the parts P and D cancel there."""
    last = settle(control, 7.0, order, start, 300)[-1]
    expected = control.safety ** (order / control.integral)
    assert 7.0 * last**order == pytest.approx(expected, rel=1e-3)


def test_the_formula() -> None:
    """Söderlind's equation (31) in logarithms, with all three parts."""
    control = PID(0.2, 0.3, 0.1, shrink=1e-9, grow=1e9)
    memory = control.accept(Memory(2.0, (0.5, 0.25)), 2.0, 0.125, 3)
    log2 = math.log2(0.9) + (3 * 0.6 - 1 * 0.5 + 2 * 0.1) / 3  # -log2 of the errors is 3, 1, 2
    assert memory.dt == pytest.approx(2.0 * 2**log2, rel=1e-14)
    assert memory.errors == (0.125, 0.5)


@given(error=errors, before=errors, dt=steps)
def test_factors_are_limited(error: float, before: float, dt: float) -> None:
    control = PID()
    memory = control.accept(Memory(dt, (before,)), dt, error, 2)
    assert 0.2 * dt * (1 - 1e-12) <= memory.dt <= 5 * dt * (1 + 1e-12)
    assert control.accept(Memory(dt, (before,), rejected=1), dt, error, 2).dt <= dt
    failed = control.reject(Memory(dt, (before,)), dt, 1 / error, 2)
    assert 0.2 * dt * (1 - 1e-12) <= failed.dt <= 0.9 * dt
    assert (failed.errors, failed.rejected) == ((before,), 1)


@pytest.mark.parametrize("error", [math.nan, math.inf])
def test_what_is_not_finite_shrinks_the_step(error: float) -> None:
    memory = PID().reject(Memory(1.0, (), 3), 1.0, error, 5)
    assert memory == Memory(0.2, (), 4)


def test_a_step_cut_short_does_not_shorten_the_next() -> None:
    control = PID()
    assert control.accept(Memory(1.0, (0.5,)), 1e-3, 1e-9, 2).dt == 1.0
    assert control.accept(Memory(1.0, (0.5,)), 0.5, 1e-9, 2).dt == 2.5
    assert control.accept(Memory(1.0), 1.0, 0.0, 2).dt == 5.0  # no error at all


@given(dt=steps, left=steps)
def test_cut_leaves_no_crumb(dt: float, left: float) -> None:
    step = cut(dt, left)
    assert 0 < step <= min(dt, left)
    assert step == left or left - step >= dt / 2 * (1 - 1e-9)
    assert step >= min(dt, left) / 2


@given(dt=steps, error=errors)
def test_memory_survives_json(dt: float, error: float) -> None:
    memory = Memory(dt, (error, error / 3), 2)
    assert Memory.of(json.loads(json.dumps(memory.as_dict()))) == memory


@pytest.mark.parametrize(
    "options",
    [
        {"integral": 0.0}, {"proportional": math.nan}, {"safety": 1.0}, {"safety": 0.0}, {"shrink": 1.0},
        {"grow": 1.0}, {"shrink": 0.0}, {"rejections": 0},
    ],
)  # fmt: skip
def test_numbers_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}( is |=)"):
        PID(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"rtol": -1.0}, {"rtol": 1.0}, {"rtol": math.nan}, {"atol": 0.0}])
def test_tolerances_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))} is "):
        Tsit5(**options)


def test_trees() -> None:
    """As many as conditions in Hairer, Norsett, Wanner, table 2.1 and 2.2, with their densities."""
    assert [len(trees(n)) for n in range(1, 8)] == [1, 1, 2, 4, 9, 20, 48]
    assert sorted(map(density, trees(4))) == [4, 8, 12, 24]
    assert sorted(map(density, trees(5))) == [5, 10, 15, 20, 20, 30, 40, 60, 120]


def test_the_pair() -> None:
    """The interpolant meets the start, the end and the rates there; weights of known value."""
    assert TABLEAU.weights(0.0) == (0.0,) * 7
    assert TABLEAU.weights(1.0) == pytest.approx((*TABLEAU.a[-1], 0.0), abs=1e-13)
    for theta, stage in ((0.0, 0), (1.0, 6)):
        slopes = [sum((k + 1) * w * theta**k for k, w in enumerate(row)) for row in TABLEAU.dense]
        assert slopes == pytest.approx([float(i == stage) for i in range(7)], abs=1e-12)


def nudged(tableau: Tableau, name: str, size: float) -> Any:
    def nudge(value: Any) -> Any:
        return (*value[:-1], nudge(value[-1])) if isinstance(value, tuple) else value + size

    return nudge(getattr(tableau, name))


@pytest.mark.parametrize("name", ["c", "a", "error", "dense"])
def test_a_wrong_digit_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="it must be"):
        dataclasses.replace(TABLEAU, **{name: nudged(TABLEAU, name, 1e-12)})
    assert dataclasses.replace(TABLEAU, **{name: nudged(TABLEAU, name, 0.0)}) == TABLEAU


@pytest.mark.parametrize("changes", [{"error": (0.0,)}, {"a": ((),) * 7}, {"c": (0.0, 1.0)}])
def test_wrong_shapes_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="numbers"):
        dataclasses.replace(TABLEAU, **changes)
