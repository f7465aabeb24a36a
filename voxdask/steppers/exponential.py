r"""Exponential time differencing: the stiff part exactly, the rest by quadrature.

All of them work on increments of the state, which meet homogeneous boundary conditions; with
:math:`z = \Delta t\, \lambda` and :math:`\hat f = T[f]` the stiff part of an increment :math:`\delta` is
:math:`\lambda \hat\delta`, so that :math:`N(v) - N(u)` becomes
:math:`\hat f(v) - \hat f(u) - \lambda (\hat v - \hat u)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import sympy as sp

from voxdask.phi import Phi1, Phi2, Phi3
from voxdask.steppers.base import Fields, State
from voxdask.steppers.semi_implicit import Spectral, Wavenumbers


@dataclass(frozen=True)
class ETD1(Spectral):
    r"""Exponential Euler, of order 1.

    .. math:: u + T^{-1}\left[ \Delta t\, \varphi_1(\Delta t\, \lambda)\, T[f(t, u)] \right], \qquad
        \varphi_1(z) = \frac{e^z - 1}{z}

    Parameters
    ----------
    wavenumbers : {"spectral", "stencil"}
        As for :class:`~voxdask.steppers.IMEX`.

    References
    ----------
    Cox, Matthews (2002), J. Comput. Phys. 176, 430, equation (4), doi:10.1006/jcph.2002.6995

    Examples
    --------
    >>> ETD1().order
    1
    """

    wavenumbers: Wavenumbers = "spectral"
    order: ClassVar[int] = 1
    registers: ClassVar[int] = 1
    spectra: ClassVar[int] = 1
    history: ClassVar[int] = 0

    def step(self, fields: Fields, t: float, dt: float, u: State) -> tuple[State, ...]:
        """One step."""
        return fields.implicit(t, u, dt, _exponential_euler, into=u)


def _exponential_euler(dt: sp.Expr, rate: sp.Expr, r: sp.Expr) -> tuple[sp.Expr, ...]:
    return (dt * Phi1(dt * rate) * r,)


@dataclass(frozen=True)
class ETDRK4(Spectral):
    r"""Exponential Runge-Kutta method of order 4.

    .. math::

        a &= e^{z/2} u + \tfrac{\Delta t}{2} \varphi_1(\tfrac z2) N(u) \\
        b &= e^{z/2} u + \tfrac{\Delta t}{2} \varphi_1(\tfrac z2) N(a) \\
        c &= e^{z/2} a + \tfrac{\Delta t}{2} \varphi_1(\tfrac z2) (2 N(b) - N(u)) \\
        u^{n+1} &= e^z u + \Delta t \left[ (\varphi_1 - 3 \varphi_2 + 4 \varphi_3) N(u)
            + 2 (\varphi_2 - 2 \varphi_3) (N(a) + N(b)) + (4 \varphi_3 - \varphi_2) N(c) \right]

    Parameters
    ----------
    wavenumbers : {"spectral", "stencil"}
        As for :class:`~voxdask.steppers.IMEX`.

    References
    ----------
    Cox, Matthews (2002), J. Comput. Phys. 176, 430, equations (26) to (29), doi:10.1006/jcph.2002.6995;
    the functions :math:`\varphi_k` as in Kassam, Trefethen (2005), doi:10.1137/S1064827502410633

    Examples
    --------
    >>> ETDRK4().order
    4
    """

    wavenumbers: Wavenumbers = "spectral"
    order: ClassVar[int] = 4
    registers: ClassVar[int] = 2
    spectra: ClassVar[int] = 3
    history: ClassVar[int] = 0

    def step(self, fields: Fields, t: float, dt: float, u: State) -> tuple[State, ...]:
        """One step."""
        middle, end, base = t + dt / 2, t + dt, ((u, 1.0),)
        (v,) = fields.implicit(t, u, dt, _first_stage, end=middle)
        (v,) = fields.implicit(middle, v, dt, _second_stage, saved=1, base=base, into=v, end=middle)
        (v,) = fields.implicit(middle, v, dt, _third_stage, saved=2, base=base, into=v, end=end)
        return fields.implicit(end, v, dt, _last_stage, saved=1, base=base, into=v, end=end)


def _half(dt: sp.Expr, rate: sp.Expr) -> sp.Expr:
    """Half a step of exponential Euler."""
    return dt / 2 * Phi1(dt * rate / 2)


def _weights(z: sp.Expr) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """The weights of N(u), of N(a) + N(b), and of N(c), of a step of 1."""
    return Phi1(z) - 3 * Phi2(z) + 4 * Phi3(z), 2 * (Phi2(z) - 2 * Phi3(z)), 4 * Phi3(z) - Phi2(z)


def _first_stage(dt: sp.Expr, rate: sp.Expr, fu: sp.Expr) -> tuple[sp.Expr, ...]:
    """a - u; saves f(u)."""
    return _half(dt, rate) * fu, fu


def _second_stage(dt: sp.Expr, rate: sp.Expr, fa: sp.Expr, fu: sp.Expr) -> tuple[sp.Expr, ...]:
    """b - u; saves f(u) and N(a) - N(u)."""
    half = _half(dt, rate)
    change = fa - fu - rate * half * fu
    return half * (fu + change), fu, change


def _third_stage(dt: sp.Expr, rate: sp.Expr, fb: sp.Expr, fu: sp.Expr, na: sp.Expr) -> tuple[sp.Expr, ...]:
    """c - u; saves all of the last increment but what f(c) adds to it."""
    half = _half(dt, rate)
    nb = fb - fu - rate * half * (fu + na)
    c = (1 + dt * rate / 2 * Phi1(dt * rate / 2)) * half * fu + half * (fu + 2 * nb)
    _, middle, last = _weights(dt * rate)
    return c, dt * (Phi1(dt * rate) * fu + middle * (na + nb) - last * (fu + rate * c))


def _last_stage(dt: sp.Expr, rate: sp.Expr, fc: sp.Expr, rest: sp.Expr) -> tuple[sp.Expr, ...]:
    """The increment of a step."""
    return (rest + dt * _weights(dt * rate)[2] * fc,)
