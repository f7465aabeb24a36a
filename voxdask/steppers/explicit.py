"""Explicit Runge-Kutta methods of fixed step: each stage is one evaluation, fused with its updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from voxdask.steppers.base import Fields, State, Target


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
    spectra: ClassVar[int] = 0
    history: ClassVar[int] = 0
    #: Length of the stability interval on the negative real axis.
    real_limit: ClassVar[float] = 2.0

    def step(self, fields: Fields, t: float, dt: float, u: State) -> tuple[State, ...]:
        """One step."""
        return fields.advance(t, u, Target(((u, 1.0),), dt), end=t + dt)


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
    spectra: ClassVar[int] = 0
    history: ClassVar[int] = 0
    #: Length of the stability interval on the negative real axis.
    real_limit: ClassVar[float] = 2.785

    def step(self, fields: Fields, t: float, dt: float, u: State) -> tuple[State, ...]:
        """One step."""
        end, base = t + dt, ((u, 1.0),)
        v, total = fields.advance(t, u, Target(base, dt / 2), Target(base, dt / 6), end=end)
        for weight in (dt / 2, dt):
            v, total = fields.advance(
                t + dt / 2, v, Target(base, weight), Target(((total, 1.0),), dt / 3, into=total), end=end
            )
        return fields.advance(end, v, Target(((total, 1.0),), dt / 6, into=total), end=end)
