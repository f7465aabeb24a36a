"""Which steps a run takes and when it keeps a frame; integers and times only."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: How far a time may lie from a whole number of steps: a part of that number, and steps at most.
_RELATIVE, _STEPS = 1e-6, 0.01


@dataclass(frozen=True)
class Schedule:
    """Steps of one size.

    Attributes
    ----------
    start : float
    dt : float
    steps : int
    saves : tuple of int
        Numbers of steps after which a frame is kept, rising; the last one is `steps`.
    """

    start: float
    dt: float
    steps: int
    saves: tuple[int, ...]

    def time(self, step: int) -> float:
        """Time after a number of steps."""
        return self.start + step * self.dt

    @property
    def frame_times(self) -> tuple[float, ...]:
        """When a frame is kept."""
        return tuple(map(self.time, self.saves))


@dataclass(frozen=True)
class Span:
    """Steps of any size.

    Attributes
    ----------
    start, end : float
    dt : float, optional
        The first step to try; None leaves it to the stepper.
    frame_times : tuple of float
        When a frame is kept, rising; the last one is `end`.
    """

    start: float
    end: float
    dt: float | None
    frame_times: tuple[float, ...]


def make_schedule(
    start: float,
    dt: float | None,
    t_end: float | None,
    steps: int | None,
    save_every: int | None,
    save_at: Sequence[float] | None,
) -> Schedule:
    """Check the arguments of a run that concern time.

    Raises
    ------
    TypeError
        If a number of steps is no integer, or a time no number.
    ValueError
        If `dt` is not positive, not exactly one of `t_end` and `steps` is given, a time is not a whole
        number of steps from the start or lies outside the run, or both `save_every` and `save_at` are given.

    Examples
    --------
    >>> make_schedule(0.0, 0.5, 3.0, None, 4, None).saves
    (0, 4, 6)
    """
    dt = _step(dt)
    if (t_end is None) == (steps is None):
        raise ValueError(f"give exactly one of t_end and steps, got t_end={t_end!r} and steps={steps!r}")
    count = whole_number("steps", steps, 0) if t_end is None else _whole("t_end", t_end, start, dt)
    if count < 0:
        raise ValueError(f"t_end is {t_end}, before the start at {start:g}")
    if save_every is not None and save_at is not None:
        raise ValueError("give save_every (a number of steps) or save_at (times), not both")
    if save_at is not None:
        saves = {_whole("save_at", time, start, dt) for time in _times(save_at)} | {count}
        outside = [s for s in saves if not 0 <= s <= count]
        if outside:
            raise ValueError(
                f"save_at holds {start + outside[0] * dt:g}, outside {start:g} ... {start + count * dt:g}"
            )
    elif save_every is not None:
        saves = {*range(0, count, whole_number("save_every", save_every, 1)), count}
    else:
        saves = {0, count}
    schedule = Schedule(float(start), dt, count, tuple(sorted(saves)))
    if count and not schedule.time(count - 1) < schedule.time(count) > start < schedule.time(1):
        raise ValueError(f"dt is {dt:g}, too small to be told apart at times around {schedule.time(count):g}")
    return schedule


def make_span(
    start: float,
    dt: float | None,
    t_end: float | None,
    steps: int | None,
    save_every: int | None,
    save_at: Sequence[float] | None,
) -> Span:
    """Check the arguments that concern time of a run whose stepper chooses its steps.

    Raises
    ------
    TypeError
        If a time is no number.
    ValueError
        If steps are to be counted, `t_end` is missing or before the start, a time lies outside the run, or `dt`
        is not positive.

    Examples
    --------
    >>> make_span(0.0, None, 3.0, None, None, [0.1, 2.5]).frame_times
    (0.1, 2.5, 3.0)
    """
    if steps is not None or t_end is None:
        raise ValueError(
            f"the stepper chooses how many steps it takes: give t_end, and save_at for frames on the way; "
            f"got t_end={t_end!r} and steps={steps!r}"
        )
    if save_every is not None:
        raise ValueError(
            f"save_every={save_every!r} counts steps, but the stepper chooses their size: give the times of frames, "
            "such as save_at=np.linspace(0, t_end, 11)"
        )
    end = _finite("t_end", t_end)
    if end < start:
        raise ValueError(f"t_end is {t_end}, before the start at {start:g}")
    near = _RELATIVE * (end - start)
    times = {start, end}
    if save_at is not None:
        given = [_finite("save_at", time) for time in _times(save_at)]
        if outside := [time for time in given if not start - near <= time <= end + near]:
            raise ValueError(f"save_at holds {outside[0]:g}, outside {start:g} ... {end:g}")
        # a sum of steps may miss the ends by round-off
        times = {start if time - start <= near else end if end - time <= near else time for time in given} | {end}
    return Span(float(start), end, None if dt is None else _step(dt), tuple(sorted(times)))


def whole_number(name: str, value: Any, least: int, of: str = "steps") -> int:
    """An argument as an int; TypeError unless it is a whole number, ValueError if it is too small."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; give a whole number of {of}")
    if value < least:
        raise ValueError(f"{name} is {value}; it must be at least {least}")
    return int(value)


def _step(dt: Any) -> float:
    if dt is None:
        raise TypeError("dt is None; give the size of a step (adaptive steppers, such as 'tsit5', choose their own)")
    if not isinstance(dt, numbers.Real) or isinstance(dt, bool):
        raise TypeError(f"dt is {dt!r}; give a number")
    step = float(dt)
    if not (math.isfinite(step) and step > 0):
        raise ValueError(f"dt is {step}; it must be positive and finite")
    return step


def _times(save_at: Any) -> Iterable[Any]:
    if not isinstance(save_at, Iterable) or isinstance(save_at, str):
        raise TypeError(f"save_at is {save_at!r}; give a sequence of times")
    return save_at


def _finite(name: str, time: Any) -> float:
    if not isinstance(time, numbers.Real) or isinstance(time, bool) or not math.isfinite(time):
        raise TypeError(f"{name} holds {time!r}; give a finite time")
    return float(time)


def _whole(name: str, time: Any, start: float, dt: float) -> int:
    count = (_finite(name, time) - start) / dt
    if abs(count - round(count)) > min(_RELATIVE * max(1.0, abs(count)), _STEPS):
        nearest = start + round(count) * dt
        raise ValueError(
            f"{name}={time:.12g} is not a whole number of steps of dt={dt:g} after the start at {start:g}; "
            f"the nearest is {nearest:.12g}"
        )
    return round(count)
