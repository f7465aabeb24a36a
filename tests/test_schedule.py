"""Steps and frames of a run: integers and times only."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxdask.schedule import make_schedule

NONE = {"t_end": None, "steps": None, "save_every": None, "save_at": None}


def schedule(start: float = 0.0, dt: Any = 0.1, **options: Any) -> Any:
    return make_schedule(start, dt, **{**NONE, **options})


@given(
    start=st.floats(-1e3, 1e3),
    dt=st.floats(1e-6, 1e3),
    steps=st.integers(0, 100_000),
    every=st.integers(1, 100),
)
def test_end_and_steps_say_the_same(start: float, dt: float, steps: int, every: int) -> None:
    by_steps = schedule(start, dt, steps=steps, save_every=every)
    assert by_steps.steps == steps and by_steps.saves[-1] == steps and by_steps.time(0) == start
    assert all(save % every == 0 for save in by_steps.saves[:-1])
    assert list(by_steps.saves) == sorted({*range(0, steps, every), steps})
    end = by_steps.time(steps)
    if abs(start) / dt < 1e8:  # else rounding of the times is more than a small part of a step
        assert schedule(start, dt, t_end=end, save_every=every) == by_steps
        assert schedule(start, dt, t_end=end, save_at=[end, start]).saves == tuple(sorted({0, steps}))


@pytest.mark.parametrize("dt", [0.1, 1 / 3, 1e-7, 3, np.float32(0.1), np.float64(0.1), np.int64(2)])
def test_round_numbers_are_whole_steps(dt: Any) -> None:
    for count in (1, 3, 7, 10, 1000, 123_456, 10_000_000):
        assert schedule(0.0, dt, t_end=count * float(dt)).steps == count
    assert schedule(0.0, 0.1, t_end=100.0).steps == 1000
    assert schedule(0.0, np.float32(0.1), t_end=100.0).steps == 1000


@pytest.mark.parametrize(
    ("options", "saves"),
    [
        ({"steps": 0}, (0,)),
        ({"steps": 7}, (0, 7)),
        ({"steps": 7, "save_every": 3}, (0, 3, 6, 7)),
        ({"steps": 6, "save_every": 3}, (0, 3, 6)),
        ({"steps": 6, "save_every": 100}, (0, 6)),
        ({"steps": 6, "save_at": []}, (6,)),
        ({"steps": 6, "save_at": (0.5, 0.1, 0.1)}, (1, 5, 6)),
        ({"t_end": 0.6, "save_at": np.array([0.0, 0.3])}, (0, 3, 6)),
    ],
)
def test_saves(options: dict[str, Any], saves: tuple[int, ...]) -> None:
    assert schedule(**options).saves == saves


def test_times_count_from_the_start() -> None:
    late = schedule(5.0, 0.5, t_end=7.0, save_at=[5.5])
    assert (late.steps, late.saves, late.time(1)) == (4, (1, 4), 5.5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"dt": -0.1, "steps": 1}, ValueError, r"dt is -0.1; it must be positive"),
        ({"dt": 0, "steps": 1}, ValueError, r"dt is 0.0; it must be positive"),
        ({"dt": np.nan, "steps": 1}, ValueError, r"dt is nan; it must be positive and finite"),
        ({"dt": np.inf, "steps": 1}, ValueError, r"dt is inf; it must be positive and finite"),
        ({"dt": "0.1", "steps": 1}, TypeError, r"dt is '0.1'; give a number"),
        ({"dt": None, "steps": 1}, TypeError, r"dt is None; give the size of a step"),
        ({"dt": True, "steps": 1}, TypeError, r"dt is True; give a number"),
        ({}, ValueError, r"give exactly one of t_end and steps, got t_end=None and steps=None"),
        ({"steps": 1, "t_end": 0.1}, ValueError, r"exactly one of t_end and steps, got t_end=0.1 and steps=1"),
        ({"steps": 1.0}, TypeError, r"steps is 1.0; give a whole number of steps"),
        ({"steps": True}, TypeError, r"steps is True"),
        ({"steps": -1}, ValueError, r"steps is -1; it must be at least 0"),
        ({"t_end": -0.1}, ValueError, r"t_end is -0.1, before the start at 0"),
        ({"t_end": 0.25}, ValueError, r"t_end=0.25 is not a whole number of steps of dt=0.1 after the start at 0; "),
        ({"t_end": 100_000.05}, ValueError, r"t_end=100000.05 is not a whole number of steps of dt=0.1"),
        ({"t_end": np.inf}, TypeError, r"t_end holds inf; give a finite time"),
        ({"t_end": "1"}, TypeError, r"t_end holds '1'; give a finite time"),
        ({"steps": 9, "save_every": 0}, ValueError, r"save_every is 0; it must be at least 1"),
        ({"steps": 9, "save_every": 0.5}, TypeError, r"save_every is 0.5; give a whole number of steps"),
        ({"steps": 9, "save_every": 2, "save_at": [0.1]}, ValueError, r"save_every .* or save_at .*, not both"),
        ({"steps": 9, "save_at": [0.15]}, ValueError, r"save_at=0.15 is not a whole number of steps"),
        ({"steps": 9, "save_at": [1.0]}, ValueError, r"save_at holds 1, outside 0 ... 0.9"),
        ({"steps": 9, "save_at": [-0.1]}, ValueError, r"save_at holds -0.1, outside 0 ... 0.9"),
        ({"steps": 9, "save_at": 0.1}, TypeError, r"save_at is 0.1; give a sequence of times"),
        ({"steps": 9, "save_at": "0.1"}, TypeError, r"save_at is '0.1'; give a sequence of times"),
        ({"steps": 9, "save_at": [None]}, TypeError, r"save_at holds None; give a finite time"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        schedule(**options)
