"""Functions of a composition as Legendre series, whose coefficients can be changed or learned."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sympy as sp

from voxdask.symbols import exp

#: Coefficients that a series may have: what is written out grows by half with each.
_MOST = 20


@dataclass(frozen=True)
class Legendre:
    """A Legendre series; see :func:`legendre`, which makes it."""

    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        _check(self.coefficients)

    def __call__(self, c: Any) -> Any:
        """The series at composition c."""
        return _series(self.coefficients, 2 * c - 1)

    def energy(self, c: Any) -> Any:
        """The integral of the series from 0 to c."""
        # the integral of P_n from -1 is (P_(n+1) - P_(n-1)) / (2 n + 1), with P_(-1) = -1; dc is half of that
        integral: list[Any] = [0] * (len(self.coefficients) + 1)
        for n, a in enumerate(self.coefficients):
            share = a * sp.Rational(1, 2 * (2 * n + 1))
            integral[n + 1] += share
            integral[max(n - 1, 0)] += -share if n else share
        return _series(tuple(integral), 2 * c - 1)


@dataclass(frozen=True)
class ExpLegendre:
    """The exponential of a Legendre series; see :func:`exp_legendre`, which makes it."""

    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        _check(self.coefficients)

    def __call__(self, c: Any) -> Any:
        """The exponential of the series at composition c."""
        return exp(_series(self.coefficients, 2 * c - 1))


def legendre(coefficients: Iterable[float]) -> Legendre:
    r"""A Legendre series on [0, 1], for use as a potential, diffusivity or mobility in any model.

    .. math:: f(c) = \sum_n a_n P_n(2 c - 1)

    Parameters
    ----------
    coefficients : iterable of float
        :math:`a_0, a_1, \ldots`, in the units of the function. In a model they are parameters, such as
        ``potential_coefficients_0``: other values of the same number compile nothing anew.

    Returns
    -------
    Legendre
        A function of c, with its integral as the method ``energy``.

    Raises
    ------
    TypeError, ValueError
        If there are no coefficients, or one is no finite number.

    References
    ----------
    NIST Digital Library of Mathematical Functions, 18.9.1 and 18.9.7, https://dlmf.nist.gov/18.9

    Examples
    --------
    >>> import voxdask as vd
    >>> float(vd.models.legendre([0.0, 1.0, 0.5])(0.75))   # P_1 + P_2 / 2 at 1/2
    0.4375
    """
    return Legendre(_listed(coefficients))


def exp_legendre(coefficients: Iterable[float]) -> ExpLegendre:
    r"""The exponential of a Legendre series on [0, 1]: a function that is positive, such as a diffusivity.

    .. math:: f(c) = \exp \sum_n a_n P_n(2 c - 1)

    Parameters
    ----------
    coefficients : iterable of float
        :math:`a_0, a_1, \ldots`; parameters in a model, as those of :func:`legendre`.

    Returns
    -------
    ExpLegendre
        A function of c.

    Raises
    ------
    TypeError, ValueError
        If there are no coefficients, or one is no finite number.

    Examples
    --------
    >>> import voxdask as vd
    >>> diffusivity = vd.models.exp_legendre([-1.0, 0.5])
    >>> vd.models.ReactionDiffusion(diffusivity).equation.parameters
    {'diffusivity_coefficients_0': -1.0, 'diffusivity_coefficients_1': 0.5}
    """
    return ExpLegendre(_listed(coefficients))


def _listed(coefficients: Iterable[float]) -> tuple[float, ...]:
    if isinstance(coefficients, str) or not isinstance(coefficients, Iterable):
        raise TypeError(f"coefficients is {coefficients!r}; give a sequence of numbers")
    try:
        return tuple(float(a) for a in coefficients)
    except (TypeError, ValueError):
        raise TypeError(f"coefficients is {coefficients!r}; give a sequence of numbers") from None


def _check(coefficients: tuple[float, ...]) -> None:
    if not coefficients:
        raise ValueError("coefficients is empty; give one number or more")
    if len(coefficients) > _MOST:
        raise ValueError(f"coefficients holds {len(coefficients)} numbers; more than {_MOST} make no kernel in time")
    for a in coefficients:
        if not math.isfinite(a):
            raise ValueError(f"coefficients holds {a!r}; give finite numbers")


def _series(coefficients: tuple[Any, ...], s: Any) -> Any:
    """The sum of a_n P_n(s), by Clenshaw's recurrence, from P_(n+1) = ((2 n + 1) s P_n - n P_(n-1)) / (n + 1)."""
    one, two = sp.Integer(0), sp.Integer(0)
    for n in reversed(range(len(coefficients))):
        one, two = (
            coefficients[n] + sp.Rational(2 * n + 1, n + 1) * s * one - sp.Rational(n + 1, n + 2) * two,
            one,
        )
    return one
