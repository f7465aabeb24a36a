"""From frame to frame: steps of one size, or of sizes that a tolerance controls; a :class:`Saver` keeps frames."""

from __future__ import annotations

import math
import time as clock
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from tqdm.auto import tqdm

from voxdask.control import Memory, cut
from voxdask.report import Stopwatch
from voxdask.runner import NotFiniteError, Runner
from voxdask.schedule import Schedule, Span
from voxdask.steppers import Stepper
from voxdask.steppers.adaptive import Adaptive, Attempt
from voxdask.store import Checkpoint

#: A step that is not longer than so many of the smallest differences between times is lost in round-off.
_LEAST_STEP = 16


class Saver(Protocol):
    """Where a march leaves what is to be kept.

    Attributes
    ----------
    advice : str
        What to tell whoever's run ends early.
    """

    advice: str

    def frame(self, time: float, state: Any) -> None:
        """Keep a frame that lies within a step; it counts from the next commit on."""
        ...

    def commit(self, step: int, time: float, *, frame: bool = True, control: Memory | None = None) -> None:
        """The run has come so far; `frame` if the state is one."""
        ...


class March(Protocol):
    """Takes a run from its start, or from a checkpoint, to its end."""

    @property
    def frame_times(self) -> tuple[float, ...]: ...
    def done(self, checkpoint: Checkpoint) -> bool:
        """Whether nothing is left to do after a checkpoint; ValueError if that is beyond the end."""
        ...

    def run(self, runner: Runner, checkpoint: Checkpoint | None, saver: Saver, progress: bool) -> Stopwatch: ...


@dataclass(frozen=True)
class FixedMarch:
    """Steps of one size."""

    stepper: Stepper
    schedule: Schedule

    @property
    def frame_times(self) -> tuple[float, ...]:
        return self.schedule.frame_times

    def done(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.step > self.schedule.steps:
            raise ValueError(
                f"is at step {checkpoint.step} already, beyond the {self.schedule.steps} asked for: give more steps, "
                "or another path for a run of fewer"
            )
        return checkpoint.step == self.schedule.steps

    def run(self, runner: Runner, checkpoint: Checkpoint | None, saver: Saver, progress: bool) -> Stopwatch:
        schedule, watch, done = self.schedule, Stopwatch(), -1 if checkpoint is None else checkpoint.step
        saves, done = [step for step in schedule.saves if step > done], max(done, 0)
        first = done
        with tqdm(total=schedule.steps, initial=first, disable=not progress, unit="step") as bar:
            for target in saves:
                count = 0
                while done < target:
                    count = min(runner.batch if done > first else 1, target - done)
                    times = [schedule.time(done + k) for k in range(count)]
                    began = clock.perf_counter()
                    with self._explained(done, count, saver):
                        runner.steps(self.stepper, times, schedule.dt)
                        if done + count == target:
                            runner.settle()
                    watch.lap(count, clock.perf_counter() - began)
                    done += count
                    bar.update(count)
                    if runner.due and done < target:
                        saver.commit(done, schedule.time(done), frame=False)
                with self._explained(done - count, count, saver):
                    saver.commit(target, schedule.time(target))
        return watch

    @contextmanager
    def _explained(self, done: int, count: int, saver: Saver) -> Iterator[None]:
        """Say in which of the steps after `done` a field stopped being finite."""
        try:
            yield
        except NotFiniteError:
            last = done + count
            where = f"between steps {done + 1} and {last}" if count > 1 else f"in step {last}"
            raise FloatingPointError(
                f"a field became NaN or infinite {where}, before time {self.schedule.time(last):g}; "
                f"dt={self.schedule.dt:g} may be too large; {saver.advice}"
            ) from None


@dataclass(frozen=True)
class AdaptiveMarch:
    """Steps that a tolerance controls.

    A step ends at the end of the run, and at the times of frames unless the stepper gives states within steps.
    A commit holds the state at the end of the step in which frames fell, and what the controller knows.
    """

    stepper: Adaptive
    span: Span

    @property
    def frame_times(self) -> tuple[float, ...]:
        return self.span.frame_times

    def done(self, checkpoint: Checkpoint) -> bool:
        if checkpoint.time > self.span.end:
            raise ValueError(f"is at time {checkpoint.time:g} already, beyond t_end={self.span.end:g}")
        return checkpoint.time == self.span.end

    def run(self, runner: Runner, checkpoint: Checkpoint | None, saver: Saver, progress: bool) -> Stopwatch:
        stepper, end, watch = self.stepper, self.span.end, Stopwatch()
        step, t, memory = 0, self.span.start, None
        waiting = [time for time in self.frame_times if checkpoint is None or time > checkpoint.time]
        if checkpoint is not None:
            step, t = checkpoint.step, checkpoint.time
            memory = Memory.of(checkpoint.control) if checkpoint.control else None
        elif waiting[0] == t:
            saver.commit(0, waiting.pop(0))
        with _bar(self.span, t, progress) as bar:
            if memory is None and t < end:
                memory = Memory(self.span.dt or runner.first_step(stepper, t, end - t))
            while t < end:
                assert memory is not None
                left = (end if stepper.dense else waiting[0]) - t
                dt = cut(memory.dt, left)
                after = t + left if dt == left else t + dt
                if dt < left and dt <= _LEAST_STEP * math.ulp(max(abs(t), abs(end))):
                    raise FloatingPointError(f"{self._lost(t, dt)}; {saver.advice}")
                began = clock.perf_counter()
                attempt = runner.attempt(stepper, t, dt)
                if attempt.error <= 1:
                    reached = [time for time in waiting if time <= after]
                    del waiting[: len(reached)]
                    memory = stepper.control.accept(memory, dt, attempt.error, stepper.estimate)
                    self._within(attempt, [time for time in reached if time < after], saver)
                    # a rate at a time that differs by round-off would not be there after a resume
                    runner.accept(attempt, keep=after == t + dt)
                    step, t = step + 1, after
                    watch.step(dt, clock.perf_counter() - began)
                    bar.update(after - bar.n - self.span.start)
                else:
                    reached = []
                    failed, memory = attempt.error, stepper.control.reject(memory, dt, attempt.error, stepper.estimate)
                    watch.reject(clock.perf_counter() - began)
                    if memory.rejected >= stepper.control.rejections:
                        raise FloatingPointError(f"{self._stuck(t, dt, memory.rejected, failed)}; {saver.advice}")
                del attempt  # its states would take memory beside those of the next
                bar.set_postfix_str(f"{step} steps, {watch.rejected} rejected, dt={memory.dt:.2g}", refresh=False)
                if reached or runner.due:
                    saver.commit(step, t, frame=reached[-1:] == [t], control=memory)
        return watch

    @staticmethod
    def _within(attempt: Attempt, times: list[float], saver: Saver) -> None:
        for time in times:
            assert attempt.at is not None
            saver.frame(time, attempt.at(time))

    def _lost(self, t: float, dt: float) -> str:
        return (
            f"the step at time {t:.9g} shrank to {dt:.3g}, which is lost in round-off; the solution may have a "
            f"singularity there, or {self._tolerances()} be too small"
        )

    def _stuck(self, t: float, dt: float, count: int, error: float) -> str:
        what = f"an error of {error:.3g} tolerances" if math.isfinite(error) else "a field that was NaN or infinite"
        return (
            f"{count} attempts in a row failed at time {t:.9g}, the last with dt={dt:.3g} for {what}; the solution "
            f"may have a singularity there, or {self._tolerances()} be too small"
        )

    def _tolerances(self) -> str:
        return f"rtol={self.stepper.rtol:g} and atol={self.stepper.atol:g}"


@contextmanager
def _bar(span: Span, t: float, progress: bool) -> Iterator[Any]:
    """A bar over time."""
    form = "{percentage:3.0f}%|{bar}| time {n:.4g}/{total:.4g} [{elapsed}<{remaining}{postfix}]"
    total, begun = span.end - span.start, t - span.start
    with tqdm(total=total, initial=begun, disable=not progress, bar_format=form) as bar:
        yield bar
