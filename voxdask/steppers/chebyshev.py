r"""Stabilised explicit methods: s evaluations buy a step of about s^2 explicit ones.

.. math::

    Y_0 &= u, \qquad Y_1 = Y_0 + \tilde\mu_1 \Delta t f_0 \\
    Y_j &= (1 - \mu_j - \nu_j) Y_0 + \mu_j Y_{j-1} + \nu_j Y_{j-2}
        + \tilde\mu_j \Delta t f(t + c_{j-1} \Delta t, Y_{j-1}) + \tilde\gamma_j \Delta t f_0

Source of all formulas: Verwer, Hundsdorfer, Sommeijer (1990), Numer. Math. 57, 157, doi:10.1007/BF01386405
"""

from __future__ import annotations

import numbers
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from numpy.polynomial import Chebyshev

from voxdask.steppers.base import RATE, Fields, State, Target


@dataclass(frozen=True)
class Recurrence:
    """Coefficients of stages 1 to s, and where in the step each is reached; entry j of every array is stage j.

    Parameters
    ----------
    mu, nu, mu_tilde, gamma_tilde, c : array
        Of length s + 1; the first entries of `mu`, `nu` and `gamma_tilde` are zero.

    Raises
    ------
    ValueError
        If a linear function of time would not be followed exactly.
    """

    mu: np.ndarray
    nu: np.ndarray
    mu_tilde: np.ndarray
    gamma_tilde: np.ndarray
    c: np.ndarray

    def __post_init__(self) -> None:
        reached = np.zeros(len(self.c))
        for j in range(1, len(reached)):
            before = reached[j - 2] if j > 1 else 0.0
            reached[j] = (
                self.mu[j] * reached[j - 1] + self.nu[j] * before + self.mu_tilde[j] + self.gamma_tilde[j]
            )
        if not np.allclose(reached, self.c, atol=1e-10) or abs(self.c[-1] - 1) > 1e-10:
            raise ValueError(f"the stages reach {reached}, not {self.c}")


class _Chebyshev(ABC):
    """What both methods share: checks, and a step by the recurrence."""

    stages: int
    damping: float
    order: ClassVar[int]

    def __post_init__(self) -> None:
        name = type(self).__name__
        if isinstance(self.stages, bool) or not hasattr(self.stages, "__index__"):
            raise TypeError(f"stages of {name} is {self.stages!r}; give a whole number")
        if operator.index(self.stages) < 2:
            raise ValueError(f"stages of {name} is {self.stages}; give 2 or more")
        if not isinstance(self.damping, numbers.Real) or isinstance(self.damping, bool):
            raise TypeError(f"damping of {name} is {self.damping!r}; give a number")
        if not 0 < self.damping < 10:
            raise ValueError(f"damping of {name} is {self.damping!r}; give a small positive number")

    @cached_property
    def _chebyshev(self) -> tuple[float, np.ndarray, np.ndarray, np.ndarray]:
        """w0, and Chebyshev polynomials of degree 0 to s with two derivatives there."""
        w0 = 1 + self.damping / self.stages**2
        polynomials = [Chebyshev.basis(j) for j in range(self.stages + 1)]
        values = ([p.deriv(m)(w0) for p in polynomials] for m in range(3))
        t, dt, ddt = (np.array(v, dtype=float) for v in values)
        return w0, t, dt, ddt

    @property
    @abstractmethod
    def recurrence(self) -> Recurrence:
        """The coefficients of the stages."""

    def step(self, fields: Fields, t: float, dt: float, u: State) -> tuple[State, ...]:
        """One step."""
        k, end = self.recurrence, t + dt
        start = Target(((u, 1.0),), k.mu_tilde[1] * dt)
        if not k.gamma_tilde.any():
            (current,), rate = fields.advance(t, u, start, end=end), None
        else:
            current, rate = fields.advance(t, u, start, RATE, end=end)
        before = u
        for j in range(2, self.stages + 1):
            terms = [(current, k.mu[j]), (before, k.nu[j])]
            if before is u:
                terms[1] = (u, 1 - k.mu[j])
            elif abs(1 - k.mu[j] - k.nu[j]) > 1e-14:
                terms.append((u, 1 - k.mu[j] - k.nu[j]))
            if rate is not None:
                terms.append((rate, k.gamma_tilde[j] * dt))
            free = None if before is u else before
            target = Target(tuple(terms), k.mu_tilde[j] * dt, into=free)
            before, (current,) = current, fields.advance(t + k.c[j - 1] * dt, current, target, end=end)
        return (current,)


@dataclass(frozen=True)
class RKC1(_Chebyshev):
    r"""Runge-Kutta-Chebyshev method of order 1, stable along :math:`-(2 - \tfrac43 \eta) s^2`.

    Parameters
    ----------
    stages : int, default 8
        s, evaluations of the right-hand side in a step.
    damping : float, default 0.05
        :math:`\eta`; the first Chebyshev argument is :math:`1 + \eta / s^2`.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two stages or the damping is not positive.

    References
    ----------
    Verwer, Hundsdorfer, Sommeijer (1990), equations (2.7) to (2.10), doi:10.1007/BF01386405

    Examples
    --------
    >>> round(RKC1(stages=4).real_limit)
    31
    """

    stages: int = 8
    damping: float = 0.05
    order: ClassVar[int] = 1
    registers: ClassVar[int] = 3
    spectra: ClassVar[int] = 0
    history: ClassVar[int] = 0

    @property
    def real_limit(self) -> float:
        """Length of the stability interval on the negative real axis."""
        w0, t, dt, _ = self._chebyshev
        return float((1 + w0) * dt[-1] / t[-1])

    @cached_property
    def recurrence(self) -> Recurrence:
        """The coefficients of the stages."""
        w0, t, dt, _ = self._chebyshev
        w1, b = t[-1] / dt[-1], 1 / t
        mu, nu, mu_tilde = np.zeros((3, self.stages + 1))
        mu[2:], nu[2:] = 2 * w0 * b[2:] / b[1:-1], -b[2:] / b[:-2]
        mu_tilde[1], mu_tilde[2:] = w1 / w0, 2 * w1 * b[2:] / b[1:-1]
        return Recurrence(mu, nu, mu_tilde, np.zeros_like(mu), w1 * dt / t)


@dataclass(frozen=True)
class RKC2(_Chebyshev):
    r"""Runge-Kutta-Chebyshev method of order 2, stable along about :math:`-\tfrac23 (s^2 - 1)(1 - \tfrac{2}{15} \eta)`.

    Parameters
    ----------
    stages : int, default 8
        s, evaluations of the right-hand side in a step.
    damping : float, default 2/13
        As for :class:`RKC1`.

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two stages or the damping is not positive.

    References
    ----------
    Verwer, Hundsdorfer, Sommeijer (1990), equations (2.7) and (2.12) to (2.16), doi:10.1007/BF01386405

    Examples
    --------
    >>> round(RKC2(stages=4).real_limit)
    10
    """

    stages: int = 8
    damping: float = 2 / 13
    order: ClassVar[int] = 2
    registers: ClassVar[int] = 4
    spectra: ClassVar[int] = 0
    history: ClassVar[int] = 0

    @property
    def real_limit(self) -> float:
        """Length of the stability interval on the negative real axis."""
        w0, _, dt, ddt = self._chebyshev
        return float((1 + w0) * ddt[-1] / dt[-1])

    @cached_property
    def recurrence(self) -> Recurrence:
        """The coefficients of the stages."""
        w0, t, dt, ddt = self._chebyshev
        w1, b = dt[-1] / ddt[-1], np.empty(self.stages + 1)
        b[2:] = ddt[2:] / dt[2:] ** 2
        b[:2] = b[2]
        mu, nu, mu_tilde, gamma_tilde, c = np.zeros((5, self.stages + 1))
        mu[2:], nu[2:] = 2 * w0 * b[2:] / b[1:-1], -b[2:] / b[:-2]
        mu_tilde[1], mu_tilde[2:] = b[1] * w1, 2 * w1 * b[2:] / b[1:-1]
        gamma_tilde[2:] = -(1 - b[1:-1] * t[1:-1]) * mu_tilde[2:]
        c[2:] = w1 * ddt[2:] / dt[2:]
        c[1] = c[2] / dt[2]
        return Recurrence(mu, nu, mu_tilde, gamma_tilde, c)
