"""How a run goes to a GPU, in integers: never more bytes than there are, and more room never makes it worse."""

from __future__ import annotations

from functools import lru_cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import voxdask as vd
from voxdask.device_planning import block_bytes, plan_on_device, turn_bytes
from voxdask.equation import equation_of
from voxdask.planning import OVERHEAD_BYTES, spilled_seconds
from voxdask.plans import Plan
from voxdask.problem import Problem
from voxdask.rehearsal import routes
from voxdask.spilling import Cut, Route
from voxdask.steppers import Stepper, stepper_of
from voxdask.system import Operators

PLENTY = 1 << 50
STEPPERS = ("imex", "euler", "rk4", "sbdf2", "etdrk4", "tsit5")


@lru_cache
def operators() -> Operators:
    return Operators(equation_of(vd.models.CahnHilliard()), ("z", "y", "x"))


def routes_of(problem: Problem, stepper: Stepper) -> tuple[Route, ...]:
    return routes(stepper, operators(), constants=False, weighted=False, width=problem.stream_width)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Problem, tuple[Route, ...]]:
    shape = tuple(draw(st.integers(1, 2000)) for _ in range(3))
    stepper, itemsize = stepper_of(draw(st.sampled_from(STEPPERS))), draw(st.sampled_from([4, 8]))
    problem = Problem(
        shape, itemsize, 1, 0, draw(st.integers(0, 1)), 2, stepper.registers, stepper.spectra, shape[1],
        (shape[2] // 2 + 1) * 2 * itemsize,
    )  # fmt: skip
    return problem, routes_of(problem, stepper)


def plan(problem: Problem, ways: tuple[Route, ...], free: int, host: int = PLENTY) -> Plan | None:
    try:
        return plan_on_device(problem, device_limit=free, memory_limit=host, routes=ways)
    except MemoryError:
        return None


def rank(made: Plan | None) -> int:
    """How good a tier is."""
    return 0 if made is None else {"spilled": 1, "streamed": 2, "block": 3}[made.tier]


@given(problems(), st.integers(16, 45), st.integers(20, 45))
def test_a_plan_never_takes_more_than_there_is(case: tuple[Problem, tuple[Route, ...]], power: int, host: int) -> None:
    problem, ways = case
    made = plan(problem, ways, 1 << power, 1 << host)
    assume(made is not None)
    assert made is not None and made.on_device
    assert 0 < made.device_bytes <= 1 << power
    assert 1 <= made.slab_rows <= problem.shape[0] and 1 <= made.pencil_columns <= problem.columns
    if made.streams:
        assert made.hand_bytes + turn_bytes(problem, made.slab_rows, made.pencil_columns) <= 1 << power
        assert block_bytes(problem) > 0.9 * (1 << power)
        assert made.memory_bytes <= 1 << host
    else:
        assert made.device_bytes == block_bytes(problem)


@settings(max_examples=15)
@given(problems(), st.integers(16, 44), st.integers(1, 30))
def test_more_room_on_the_device_is_never_worse(
    case: tuple[Problem, tuple[Route, ...]], power: int, more: int
) -> None:
    problem, ways = case
    less = plan(problem, ways, 1 << power)
    enough = plan(problem, ways, (1 << power) + more * (1 << power) // 10)
    assert rank(enough) >= rank(less)
    if less is not None and enough is not None and less.tier == enough.tier == "streamed":
        slow, fast = (_seconds(problem, ways, each) for each in (less, enough))
        assert fast <= slow * 1.05  # slabs come before pencils, so that a little may be lost


def _seconds(problem: Problem, ways: tuple[Route, ...], made: Plan) -> float:
    (route,) = (way for way in ways if (way.depth, way.steps) == (made.depth, made.batch))
    found = Cut(route, made.slab_rows, made.pencil_columns, made.hand_bytes, made.ahead)
    return spilled_seconds(problem, found, 1, found.rows, found.columns, problem.device_rates)


@settings(max_examples=15)
@given(problems(), st.integers(20, 44))
def test_more_room_on_the_host_is_never_worse(case: tuple[Problem, tuple[Route, ...]], power: int) -> None:
    problem, ways = case
    try:
        less = plan_on_device(problem, device_limit=1 << power, memory_limit=2 * OVERHEAD_BYTES, routes=ways)
    except MemoryError:
        less = None
    assert rank(plan(problem, ways, 1 << power)) >= rank(less)


@settings(max_examples=12)
@given(problems(), st.integers(1, 20))
def test_a_device_too_small_is_told_what_it_takes(case: tuple[Problem, tuple[Route, ...]], power: int) -> None:
    problem, ways = case
    assume(plan(problem, ways, 1 << power) is None)
    message = r"are free there, and the thinnest slabs of .* take .*device=\"cpu\""
    with pytest.raises(MemoryError, match=message) as caught:
        plan_on_device(problem, device_limit=1 << power, memory_limit=PLENTY, routes=ways)
    number, unit = str(caught.value).split(" take ")[1].split(";")[0].split()
    needed = float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert plan(problem, ways, int(1.06 * needed) + 1) is not None  # what is told has three digits
    assert plan(problem, ways, int(0.94 * needed)) is None


def test_frames_that_stay_on_the_device_take_room_there() -> None:
    problem = Problem((64, 64, 64), 4, 1, 0, 1, 2, 1, 1, 64, 33 * 8)
    ways = routes_of(problem, stepper_of("imex"))
    free = int(block_bytes(problem) / 0.9) + 2
    assert plan_on_device(problem, device_limit=free, memory_limit=PLENTY, routes=ways).tier == "block"
    made = plan_on_device(
        problem, device_limit=free, memory_limit=PLENTY, routes=ways, frame_bytes=100, kept_bytes=100
    )  # fmt: skip
    assert made.tier == "streamed" and "would not fit" in made.reason


def test_a_plan_prints_what_lies_on_the_gpu() -> None:
    problem = Problem((64, 64, 64), 4, 1, 0, 1, 2, 1, 1, 64, 33 * 8)
    assert "on the GPU" in str(plan_on_device(problem, device_limit=1 << 30, memory_limit=PLENTY, routes=[]))
