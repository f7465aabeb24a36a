r"""What a stepper is, and what it may do with fields. A stepper never sees a chunk, a device or a file.

A stepper is written against a few operations on fields. Two of them evaluate the right-hand side:

``advance(t, v, *targets, end)``
    evaluates r = rhs(t, v) once, and makes every :class:`Target` of it.
``implicit(t, v, dt, gain, ...)``
    returns :math:`\sum_k c_k u_k + T^{-1}[g(\Delta t, \lambda)\, T[r]]` with the gain *g* a function of the
    step and of the stiff rate :math:`\lambda` of every mode, written in symbols.

Two more serve adaptive steppers: ``combine`` makes a linear combination of states, ``error`` measures one.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Protocol

State = Any
Terms = tuple[tuple[State, float], ...]


class Target(NamedTuple):
    r"""A result of an evaluation: :math:`\sum_k c_k u_k + w\, r`.

    Attributes
    ----------
    terms : tuple of (State, float)
        States, or rates that were kept, with their coefficients.
    weight : float
        Of r, the rate of change.
    into : State, optional
        A state whose storage the result may take; it may be one of the terms, but not the state that is evaluated.
    rate : bool
        The result is a rate of change: zero at the nodes whose value is given.
    """

    terms: Terms
    weight: float
    into: State | None = None
    rate: bool = False


#: The rate of change itself, to be kept.
RATE = Target((), 1.0, rate=True)


class Fields(Protocol):
    """What a stepper may do with fields; see the module's description."""

    def advance(self, t: float, v: State, *targets: Target, end: float) -> tuple[State, ...]:
        """Evaluate r = rhs(t, v) once and make every target; nodes that are given take their value at `end`."""
        ...

    def implicit(
        self,
        t: float,
        v: State,
        dt: float,
        gain: Any,
        *,
        saved: int = 0,
        source: Target | None = None,
        keep: Target | None = None,
        base: Terms | None = None,
        into: State | None = None,
        end: float | None = None,
    ) -> tuple[State, ...]:
        r"""Evaluate r = rhs(t, v), and return a new state by way of the modes.

        Parameters
        ----------
        gain : callable
            ``gain(dt, rate, r, *saved)`` gives, linear in r and in the spectra that were saved before, the
            spectrum that is transformed back, then those to be saved for the next call.
        saved : int
            Number of spectra that were saved before.
        source : Target, optional
            What is transformed instead of r itself.
        keep : Target, optional
            Something else to be made of r; the second state that is returned.
        base : terms, optional
            What the change is added to; v by default.
        into : State, optional
            A state whose storage the result may take; it may be v, or one of the terms of `base`.
        end : float, optional
            When nodes that are given take their value; t + dt by default.
        """
        ...

    def combine(self, *terms: tuple[State, float], end: float) -> State:
        """The sum of states and rates with coefficients."""
        ...

    def error(self, terms: Terms, u: State, v: State, atol: float, rtol: float) -> float:
        """Root mean square over voxels and fields of a sum, each in units of atol + rtol max(abs(u), abs(v))."""
        ...


class Stepper(Protocol):
    """A time-stepping method.

    Attributes
    ----------
    order : int
        Order of accuracy in the step.
    registers : int
        Copies of the state that a step holds at once, the state among them.
    spectra : int
        Spectra of the state that a step holds at once; 0 if it does not transform.
    history : int
        States that are carried from step to step beside the state.
    """

    order: ClassVar[int]
    registers: ClassVar[int]
    spectra: ClassVar[int]
    history: ClassVar[int]

    def step(self, fields: Fields, t: float, dt: float, u: State, *history: State) -> tuple[State, ...]:
        """The state at t + dt, and what is carried on; what was given may be used up.

        Without a history the step is the first one.
        """
        ...
