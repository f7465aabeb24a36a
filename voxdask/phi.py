r"""The functions of exponential integrators, as symbols that kernels can evaluate.

.. math:: \varphi_1(z) = \frac{e^z - 1}{z}, \qquad \varphi_{k+1}(z) = \frac{\varphi_k(z) - 1/k!}{z}

The recurrence loses all digits near 0. Generated code uses it for :math:`|z| \ge 1`, and elsewhere the Taylor
series of :math:`\varphi_3` with the recurrence turned round, which is stable there.
"""

# mypy: disallow-subclassing-any=False

from __future__ import annotations

import math
from typing import ClassVar

import sympy as sp

#: Terms of the Taylor series of the third function: at abs(z) = 1 the next one is 1e-17 of the first.
_TERMS = 16


class _Phi(sp.Function):
    """One of the functions of exponential integrators, of a real argument."""

    nargs = 1
    index: ClassVar[int]

    @classmethod
    def eval(cls, z: sp.Expr) -> sp.Expr | None:
        """Its value at 0."""
        return sp.Rational(1, math.factorial(cls.index)) if z.is_zero else None

    def _eval_is_extended_real(self) -> bool | None:
        return True if self.args[0].is_extended_real else None

    def _eval_rewrite_as_exp(self, z: sp.Expr, **kwargs: object) -> sp.Expr:
        result = sp.exp(z)
        for k in range(self.index):
            result = (result - sp.Rational(1, math.factorial(k))) / z
        return result


class Phi1(_Phi):
    r""":math:`\varphi_1`.

    Examples
    --------
    >>> Phi1(0), Phi1(sp.Symbol("z")).rewrite(sp.exp)
    (1, (exp(z) - 1)/z)
    """

    index = 1


class Phi2(_Phi):
    r""":math:`\varphi_2`.

    Examples
    --------
    >>> Phi2(0)
    1/2
    """

    index = 2


class Phi3(_Phi):
    r""":math:`\varphi_3`.

    Examples
    --------
    >>> Phi3(0)
    1/6
    """

    index = 3


def horner(cast: str = "") -> str:
    """The Taylor series of the third function in z, as text that Python and C both read.

    Parameters
    ----------
    cast : str, optional
        What stands before every number; without it they are doubles.

    Examples
    --------
    >>> round(eval(horner(), {"z": 0.0}), 6)
    0.166667
    """
    numbers = [f"{cast}{1 / math.factorial(n + 3)!r}" for n in range(_TERMS)]
    text = numbers.pop()
    while numbers:
        text = f"({numbers.pop()} + z * {text})"
    return text
