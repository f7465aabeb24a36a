"""A run on each tier: where its state comes from, how it is checked, and where its frames go.

The time loop of :mod:`voxdask.loop` drives a :class:`Runner` without knowing which it has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from voxdask.chunkfiles import ChunkFiles
from voxdask.steppers import Stepper
from voxdask.steppers.adaptive import Adaptive, Attempt
from voxdask.store import FrameWriter, RunStore
from voxdask.system import System


class NotFiniteError(FloatingPointError):
    """A field holds NaN or infinity."""


class Runner(Protocol):
    """What the time loop asks of a tier."""

    #: Steps that one call should take, between which nothing is looked at.
    batch: int

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint, though no frame is asked for."""
        ...

    def examine(self) -> str: ...
    def start(self, time: float, store: RunStore | None) -> None: ...
    def resume(self, slot: Mapping[str, ChunkFiles], store: RunStore | None, *, history: bool) -> None: ...
    def steps(self, stepper: Stepper, times: Sequence[float], dt: float) -> None: ...
    def settle(self) -> None: ...
    def first_step(self, stepper: Adaptive, t: float, span: float) -> float: ...
    def attempt(self, stepper: Adaptive, t: float, dt: float) -> Attempt: ...
    def accept(self, attempt: Attempt, *, keep: bool) -> None: ...
    def save(self, slot: Mapping[str, ChunkFiles], frame: int | None, writer: FrameWriter) -> None: ...
    def save_frame(self, state: Any, frame: int, writer: FrameWriter) -> None: ...
    def checkpointed(self, slot: Mapping[str, ChunkFiles] | None) -> None: ...
    def snapshot(self, state: Any = None) -> dict[str, Any]: ...
    def close(self) -> None: ...


def history_name(field: str, number: int) -> str:
    """Name in a slot of a field of the state (number 0), and of what a stepper carries beside it.

    Examples
    --------
    >>> history_name("c", 0), history_name("c", 1)
    ('c', 'c.history1')
    """
    return f"{field}.history{number}" if number else field


def states_in(slot: Mapping[str, ChunkFiles], system: System) -> int:
    """Number of states in a slot: the state, and what a stepper carries beside it."""
    return len(slot) // len(system.fields)
