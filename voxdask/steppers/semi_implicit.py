"""Semi-implicit Fourier methods: the stiff part backward, the rest forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import sympy as sp

from voxdask.steppers.base import Fields, State, Target

Wavenumbers = Literal["spectral", "stencil"]


class Spectral:
    """What semi-implicit and exponential steppers have in common: a choice of wavenumbers."""

    wavenumbers: Wavenumbers

    def __post_init__(self) -> None:
        if self.wavenumbers not in ("spectral", "stencil"):
            raise ValueError(f"wavenumbers is {self.wavenumbers!r}; use 'spectral' or 'stencil'")


@dataclass(frozen=True)
class IMEX(Spectral):
    r"""Semi-implicit Fourier method of order 1.

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

    wavenumbers: Wavenumbers = "spectral"
    order: ClassVar[int] = 1
    registers: ClassVar[int] = 1
    spectra: ClassVar[int] = 1
    history: ClassVar[int] = 0

    def step(self, fields: Fields, t: float, dt: float, u: State) -> tuple[State, ...]:
        """One step."""
        return fields.implicit(t, u, dt, backward_euler, into=u)


def backward_euler(dt: sp.Expr, rate: sp.Expr, r: sp.Expr) -> tuple[sp.Expr, ...]:
    """The gain of :class:`IMEX`."""
    return (dt / (1 - dt * rate) * r,)


@dataclass(frozen=True)
class SBDF2(Spectral):
    r"""Semi-implicit backward differences of order 2; the first step is one of :class:`IMEX`.

    .. math::

        \frac{3 u^{n+1} - 4 u^n + u^{n-1}}{2 \Delta t} = 2 N(u^n) - N(u^{n-1}) + L u^{n+1}, \qquad N = f - L

    Solved for the increment beyond extrapolation, which meets homogeneous boundary conditions,

    .. math::

        u^{n+1} = 2 u^n - u^{n-1} + T^{-1}\left[ \frac{1}{3 - 2 \Delta t\, \lambda}
        T[4 \Delta t f^n - 2 \Delta t f^{n-1} - 2 (u^n - u^{n-1})] \right]

    so that the previous state and its rate of change are all that is carried.

    Parameters
    ----------
    wavenumbers : {"spectral", "stencil"}
        As for :class:`IMEX`.

    References
    ----------
    Ascher, Ruuth, Wetton (1995), SIAM J. Numer. Anal. 32, 797, equation (7), doi:10.1137/0732037

    Examples
    --------
    >>> SBDF2().order
    2
    """

    wavenumbers: Wavenumbers = "spectral"
    order: ClassVar[int] = 2
    registers: ClassVar[int] = 3
    spectra: ClassVar[int] = 1
    history: ClassVar[int] = 2

    def step(self, fields: Fields, t: float, dt: float, u: State, *history: State) -> tuple[State, ...]:
        """One step; carries the state before and its rate of change."""
        if not history:
            new, rate = fields.implicit(t, u, dt, backward_euler, keep=Target((), 1.0, rate=True))
            return new, u, rate
        before, rate = history
        new, rate = fields.implicit(
            t,
            u,
            dt,
            _backward_differences,
            source=Target(((u, -2.0), (before, 2.0), (rate, -2 * dt)), 4 * dt, rate=True),
            keep=Target((), 1.0, into=rate, rate=True),
            base=((u, 2.0), (before, -1.0)),
            into=before,
        )
        return new, u, rate


def _backward_differences(dt: sp.Expr, rate: sp.Expr, r: sp.Expr) -> tuple[sp.Expr, ...]:
    return (r / (3 - 2 * dt * rate),)
