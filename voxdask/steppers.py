r"""One step each. A stepper never sees a chunk, a device or a file.

A stepper is written against two operations on fields:

``advance(t, v, *updates, add, end)``
    evaluates r = rhs(t, v) once and returns ``base + weight r`` for every (base, weight) in `updates`;
    `add` = (target, weight) adds to a field in place.
``implicit(t, u, dt, gain)``
    returns :math:`u + T^{-1}[g(\Delta t, \lambda)\, T[\mathrm{rhs}(t, u)]]` with the gain *g* a function
    of the step and of the stiff rate :math:`\lambda` of every mode, written in symbols; it may use up `u`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import sympy as sp

State = Any
Update = tuple[State, float]


class Fields(Protocol):
    """What a stepper may do with fields; see the module's description."""

    def advance(
        self, t: float, v: State, *updates: Update, add: Update | None = None, end: float
    ) -> tuple[State, ...]: ...

    def implicit(self, t: float, u: State, dt: float, gain: Any) -> State: ...


class Stepper(Protocol):
    """A time-stepping method.

    Attributes
    ----------
    order : int
        Order of accuracy in the step.
    registers : int
        Copies of the state that a step holds at once, the state among them.
    spectral : bool
        Whether it transforms.
    """

    order: ClassVar[int]
    registers: ClassVar[int]
    spectral: ClassVar[bool]

    def step(self, fields: Fields, t: float, dt: float, u: State) -> State:
        """The state at t + dt; `u` may be used up."""
        ...


@dataclass(frozen=True)
class Euler:
    r"""Explicit Euler: :math:`u + \Delta t\, f(t, u)`.

    Examples
    --------
    >>> Euler().order
    1
    """

    order: ClassVar[int] = 1
    registers: ClassVar[int] = 2
    spectral: ClassVar[bool] = False
    #: Length of the stability interval on the negative real axis.
    real_limit: ClassVar[float] = 2.0

    def step(self, fields: Fields, t: float, dt: float, u: State) -> State:
        """One step."""
        (v,) = fields.advance(t, u, (u, dt), end=t + dt)
        return v


@dataclass(frozen=True)
class RK4:
    r"""The classical Runge-Kutta method of order 4, each stage fused with its updates.

    .. math::

        k_1 = f(t, u), \quad k_2 = f(t + \tfrac{\Delta t}{2}, u + \tfrac{\Delta t}{2} k_1), \quad
        k_3 = f(t + \tfrac{\Delta t}{2}, u + \tfrac{\Delta t}{2} k_2), \quad k_4 = f(t + \Delta t, u + \Delta t k_3)

        u + \tfrac{\Delta t}{6} (k_1 + 2 k_2 + 2 k_3 + k_4)

    Source: Kutta (1901), Zeitschrift fuer Mathematik und Physik 46, 435.

    Examples
    --------
    >>> RK4().order
    4
    """

    order: ClassVar[int] = 4
    registers: ClassVar[int] = 4
    spectral: ClassVar[bool] = False
    #: Length of the stability interval on the negative real axis.
    real_limit: ClassVar[float] = 2.785

    def step(self, fields: Fields, t: float, dt: float, u: State) -> State:
        """One step."""
        end = t + dt
        v, total = fields.advance(t, u, (u, dt / 2), (u, dt / 6), end=end)
        (v,) = fields.advance(t + dt / 2, v, (u, dt / 2), add=(total, dt / 3), end=end)
        (v,) = fields.advance(t + dt / 2, v, (u, dt), add=(total, dt / 3), end=end)
        fields.advance(end, v, add=(total, dt / 6), end=end)
        return total


@dataclass(frozen=True)
class IMEX:
    r"""Semi-implicit Fourier method: the stiff part backward, the rest forward.

    .. math:: u + T^{-1}\left[ \frac{\Delta t}{1 - \Delta t\, \lambda}\, T[f(t, u)] \right]

    with :math:`\lambda` the Fourier symbol of the stiff part, and T the transform in which the Laplacian is
    diagonal under the boundary conditions.

    Parameters
    ----------
    wavenumbers : {"spectral", "stencil"}
        k, or 2/h sin(k h / 2), with which the linear part of the stencil is solved exactly.

    References
    ----------
    Zhu, Chen, Shen, Tikare (1999), Phys. Rev. E 60, 3564, equation (9), doi:10.1103/PhysRevE.60.3564

    Examples
    --------
    >>> IMEX().order
    1
    """

    wavenumbers: Literal["spectral", "stencil"] = "spectral"
    order: ClassVar[int] = 1
    registers: ClassVar[int] = 1
    spectral: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.wavenumbers not in ("spectral", "stencil"):
            raise ValueError(f"wavenumbers is {self.wavenumbers!r}; use 'spectral' or 'stencil'")

    def step(self, fields: Fields, t: float, dt: float, u: State) -> State:
        """One step."""
        return fields.implicit(t, u, dt, self.gain)

    @staticmethod
    def gain(dt: sp.Expr, rate: sp.Expr) -> sp.Expr:
        """What a mode of the rate of change is multiplied by."""
        return dt / (1 - dt * rate)


_BY_NAME: dict[str, type[Any]] = {"euler": Euler, "rk4": RK4, "imex": IMEX}


def stepper_of(stepper: str | Stepper) -> Stepper:
    """A stepper by name, or as it is given.

    Parameters
    ----------
    stepper : {"euler", "rk4", "imex"} or Stepper

    Returns
    -------
    Stepper

    Raises
    ------
    ValueError
        For an unknown name.
    TypeError
        For something that is no stepper.

    Examples
    --------
    >>> stepper_of("imex")
    IMEX(wavenumbers='spectral')
    """
    if isinstance(stepper, str):
        if stepper not in _BY_NAME:
            raise ValueError(f"stepper is {stepper!r}; use one of {', '.join(map(repr, _BY_NAME))}, or an instance")
        return _BY_NAME[stepper]()  # type: ignore[no-any-return]
    if isinstance(stepper, type):
        raise TypeError(f"stepper is the class {stepper.__name__}; give an instance of it, {stepper.__name__}()")
    if not hasattr(stepper, "step") or not hasattr(stepper, "registers"):
        raise TypeError(f"stepper is a {type(stepper).__name__}; give a name or an instance from vd.steppers")
    return stepper
