r"""Steppers that choose their step: an attempt says how far it may be off, a controller accepts it or not.

The error of an attempt is measured in units of the tolerance,

.. math::

    \varepsilon = \sqrt{\operatorname{mean}\left(
    \frac{e}{\mathrm{atol} + \mathrm{rtol} \max(|u^n|, |u^{n+1}|)} \right)^2}

over all voxels and fields; up to 1 it is accepted. Source: Hairer, Norsett, Wanner (1993), Solving Ordinary
Differential Equations I, section II.4, equation (4.11), doi:10.1007/978-3-540-78862-1
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeGuard

from voxdask.control import PID, STANDARD
from voxdask.steppers.base import RATE, Fields, State
from voxdask.steppers.semi_implicit import Spectral, Wavenumbers, backward_euler


class Attempt(NamedTuple):
    """What came of a step that was tried.

    Attributes
    ----------
    state : State
        At the end of the step.
    error : float
        In units of the tolerance; not finite if a value is not.
    carried : tuple of State
        What the next attempt can use if this one is accepted; it can do without.
    at : callable, optional
        The state at a time within the step.
    """

    state: State
    error: float
    carried: tuple[State, ...] = ()
    at: Callable[[float], State] | None = None


class Adaptive(Protocol):
    """A stepper whose step is controlled; see :class:`voxdask.steppers.Stepper` for the rest.

    Attributes
    ----------
    estimate : int
        The power of the step that the error of one step goes like.
    dense : bool
        States within a step can be had; otherwise steps end wherever a state is asked for.
    rtol, atol : float
        Tolerances.
    control : PID
    """

    estimate: ClassVar[int]
    dense: ClassVar[bool]

    @property
    def rtol(self) -> float: ...
    @property
    def atol(self) -> float: ...
    @property
    def control(self) -> PID: ...

    def attempt(self, fields: Fields, t: float, dt: float, u: State, *carried: State) -> Attempt:
        """Try a step; `u` is left as it is."""
        ...


class Tolerances:
    """What adaptive steppers have in common: checks of what was asked."""

    rtol: float
    atol: float
    control: PID

    def __post_init__(self) -> None:
        for name in ("rtol", "atol"):
            value = getattr(self, name)
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                raise TypeError(f"{name} is {value!r}; give a number")
        if not 0 <= self.rtol < 1:
            raise ValueError(f"rtol is {self.rtol}; it must be 0 or more, and below 1")
        if not (self.atol > 0 and math.isfinite(self.atol)):
            raise ValueError(f"atol is {self.atol}; it must be positive, or no error would do where a field is zero")
        if not isinstance(self.control, PID):
            raise TypeError(f"control is {self.control!r}; give a vd.steppers.PID")


def is_adaptive(stepper: Any) -> TypeGuard[Adaptive]:
    """Whether a stepper chooses its step.

    Examples
    --------
    >>> is_adaptive(AdaptiveIMEX())
    True
    """
    return bool(getattr(stepper, "adaptive", False))


def first_step(stepper: Adaptive, fields: Fields, t: float, u: State, span: float) -> float:
    r"""A step to begin with, from the size of the state, its rate of change, and how fast that changes.

    .. math::

        \Delta t_0 = 0.01 \frac{\|u\|}{\|f\|}, \qquad
        \Delta t_1 = \left( \frac{0.01}{\max(\|f\|, \|f(u + \Delta t_0 f) - f\| / \Delta t_0)} \right)^{1/k},
        \qquad \Delta t = \min(100 \Delta t_0, \Delta t_1)

    Parameters
    ----------
    stepper : Adaptive
        Its attribute ``estimate`` is k; norms are in units of its tolerances.
    fields : Fields
    t : float
    u : State
        Left as it is.
    span : float
        Longest step.

    Returns
    -------
    float
        In units of time.

    References
    ----------
    Hairer, Norsett, Wanner (1993), Solving Ordinary Differential Equations I, section II.4, "Starting step size",
    doi:10.1007/978-3-540-78862-1
    """

    def size(*terms: tuple[State, float]) -> float:
        return fields.error(terms, u, u, stepper.atol, stepper.rtol)

    (rate,) = fields.advance(t, u, RATE, end=t)
    level, speed = size((u, 1.0)), size((rate, 1.0))
    if not math.isfinite(speed):
        raise FloatingPointError(f"the rate of change at the start, at time {t:g}, is not finite")
    small = min(0.01 * level / speed if min(level, speed) > 1e-5 else 1e-6 * span, span)
    ahead = fields.combine((u, 1.0), (rate, small), end=t + small)
    (later,) = fields.advance(t + small, ahead, RATE, end=t + small)
    bend = size((later, 1.0), (rate, -1.0)) / small
    if not math.isfinite(bend):
        return small
    steepest = max(speed, bend)
    large = (0.01 / steepest) ** (1 / stepper.estimate) if steepest > 1e-15 else span
    return min(100 * small, large, span)


@dataclass(frozen=True)
class AdaptiveIMEX(Tolerances, Spectral):
    r"""Semi-implicit Fourier steps of a length that follows the solution: one against two of half the length.

    .. math::

        \varepsilon = \| \Phi_{\Delta t / 2}(\Phi_{\Delta t / 2}(u)) - \Phi_{\Delta t}(u) \|

    with :math:`\Phi` a step of :class:`IMEX`. The two halves are what is kept, which are of order 1; the difference
    is about their error. States between steps can't be had, so steps end at the times of frames.

    Parameters
    ----------
    rtol : float, default 1e-3
        Tolerance of a step, relative to the fields.
    atol : float, default 1e-4
        Tolerance of a step, in units of the fields; added to the relative one.
    extrapolate : bool, default False
        Keep twice the halves less the whole, which is of order 2, but less stable.
    wavenumbers : {"spectral", "stencil"}
        As for :class:`IMEX`.
    control : PID
        How steps follow errors.

    Raises
    ------
    ValueError
        If a tolerance is out of range, or `wavenumbers` is something else.

    References
    ----------
    Hairer, Norsett, Wanner (1993), Solving Ordinary Differential Equations I, section II.4, equation (4.4),
    doi:10.1007/978-3-540-78862-1

    Examples
    --------
    >>> AdaptiveIMEX(rtol=1e-2).estimate
    2
    """

    rtol: float = 1e-3
    atol: float = 1e-4
    extrapolate: bool = False
    wavenumbers: Wavenumbers = "spectral"
    control: PID = STANDARD
    order: ClassVar[int] = 1
    estimate: ClassVar[int] = 2
    dense: ClassVar[bool] = False
    adaptive: ClassVar[bool] = True
    registers: ClassVar[int] = 4
    spectra: ClassVar[int] = 1
    history: ClassVar[int] = 0

    def __post_init__(self) -> None:
        Tolerances.__post_init__(self)
        Spectral.__post_init__(self)

    def step(self, fields: Fields, t: float, dt: float, u: State) -> tuple[State, ...]:
        """A step of a given length, whatever its error."""
        return (self.attempt(fields, t, dt, u).state,)

    def attempt(self, fields: Fields, t: float, dt: float, u: State, *carried: State) -> Attempt:
        """One step and two of half the length."""
        end, half = t + dt, dt / 2
        (whole,) = fields.implicit(t, u, dt, backward_euler, end=end)
        (new,) = fields.implicit(t, u, half, backward_euler)
        (new,) = fields.implicit(t + half, new, half, backward_euler, into=new, end=end)
        error = fields.error(((new, 1.0), (whole, -1.0)), u, new, self.atol, self.rtol)
        if self.extrapolate:
            new = fields.combine((new, 2.0), (whole, -1.0), end=end)
        return Attempt(new, error)
