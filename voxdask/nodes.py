"""What equations are made of: fields, parameters, coordinates, and differential operators on them.

Users write these through the functions of :mod:`voxdask.symbols`.
"""

# mypy: disallow-subclassing-any=False

from __future__ import annotations

from typing import Any

import sympy as sp
from sympy.core.logic import fuzzy_and


class Field(sp.Symbol):
    """A scalar that varies over the grid: an unknown, an auxiliary field or a coefficient."""


class Parameter(sp.Symbol):
    """A number that is known when a kernel is called, not when it is compiled."""


class Coordinate(sp.Symbol):
    """The position along the axis of the same name."""


def _powered(text: str, exponent: str | None) -> str:
    """LaTeX of a power of something that is not a single letter."""
    return text if exponent is None else rf"\left( {text} \right)^{{{exponent}}}"


def _bracketed(printer: Any, e: sp.Basic) -> str:
    text = str(printer._print(e))
    return text if e.is_Atom or isinstance(e, Clip | Face) else rf"\left( {text} \right)"


def _vector_latex(printer: Any, v: sp.Expr) -> str:
    """LaTeX of a vector, scalars first: what a nabla acts on stays plain."""
    if isinstance(v, sp.Add):
        first, *rest = (_vector_latex(printer, term) for term in v.as_ordered_terms())
        return first + "".join(f" - {text[1:].lstrip()}" if text.startswith("-") else f" + {text}" for text in rest)
    if not isinstance(v, sp.Mul):
        return str(printer._print(v))
    scalar, vector = v.as_independent(Gradient, as_Add=False)
    if isinstance(vector, sp.Add):
        return f"{_bracketed(printer, scalar)} {_bracketed(printer, vector)}"
    front = str(printer._print(scalar)) if not isinstance(scalar, sp.Add) else _bracketed(printer, scalar)
    return f"{'-' if scalar == -1 else front} {printer._print(vector)}"


class Gradient(sp.Function):
    """Gradient of a scalar; a vector."""

    nargs = 1

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _powered(rf"\nabla {_bracketed(printer, self.args[0])}", exp)


class Divergence(sp.Function):
    """Divergence of a vector."""

    nargs = 1

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _powered(rf"\nabla \cdot \left( {_vector_latex(printer, self.args[0])} \right)", exp)


class Laplacian(sp.Function):
    """Divergence of the gradient of a scalar."""

    nargs = 1

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _powered(rf"\nabla^2 {_bracketed(printer, self.args[0])}", exp)


class NormalLaplacian(sp.Function):
    """Second derivative of a scalar along its own gradient."""

    nargs = 1

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _powered(rf"\partial_n^2 {_bracketed(printer, self.args[0])}", exp)


class TangentialLaplacian(sp.Function):
    """The rest of the Laplacian of a scalar: the length of its gradient times the curvature of its level sets."""

    nargs = 1

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        gradient = rf"\nabla {_bracketed(printer, self.args[0])}"
        text = rf"\left| {gradient} \right| \nabla \cdot \frac{{{gradient}}}{{\left| {gradient} \right|}}"
        return _powered(text, exp)


class Dot(sp.Function):
    """Scalar product of two vectors."""

    nargs = 2

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        left, right = (_vector_latex(printer, v) for v in self.args)
        if left == right:
            return _powered(rf"\left| {left} \right|^2", exp)
        return _powered(rf"\left( {left} \right) \cdot \left( {right} \right)", exp)


class Norm(sp.Function):
    """Length of a vector."""

    nargs = 1

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _powered(rf"\left| {_vector_latex(printer, self.args[0])} \right|", exp)


class Component(sp.Function):
    """One component of a vector, by the name of the axis."""

    nargs = 2

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _powered(rf"\left( {_vector_latex(printer, self.args[0])} \right)_{{{self.args[1]}}}", exp)


class Face(sp.Function):
    """Mean of an expression over the two voxels that share a face."""

    nargs = 1

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        return _powered(rf"\overline{{{printer._print(self.args[0])}}}", exp)


class Clip(sp.Function):
    """An expression limited to [lower, upper]; NaN stays NaN."""

    nargs = 3

    @classmethod
    def eval(cls, value: sp.Expr, lower: sp.Expr, upper: sp.Expr) -> sp.Expr | None:
        """Numbers are limited at once."""
        if value.is_number and lower.is_number and upper.is_number:
            return sp.Max(lower, sp.Min(upper, value))
        return None

    def _eval_is_extended_real(self) -> Any:
        return fuzzy_and(a.is_extended_real for a in self.args)

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        """Derivative with respect to one argument: 1 inside the interval, 0 where it is limited."""
        value, lower, upper = self.args
        if argindex == 1:
            return Inside(value, lower, upper)
        limited = value < lower if argindex == 2 else value > upper
        return sp.Piecewise((1, limited), (0, True))

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        value, lower, upper = (printer._print(argument) for argument in self.args)
        return _powered(rf"\left[ {value} \right]_{{{lower}}}^{{{upper}}}", exp)


class Inside(sp.Function):
    """1 where an expression lies in [lower, upper], 0 elsewhere: the derivative of :class:`Clip`."""

    nargs = 3

    @classmethod
    def eval(cls, value: sp.Expr, lower: sp.Expr, upper: sp.Expr) -> sp.Expr | None:
        """Numbers are compared at once."""
        if value.is_number and lower.is_number and upper.is_number:
            return sp.Integer(bool(lower <= value) and bool(value <= upper))
        return None

    def fdiff(self, argindex: int = 1) -> sp.Expr:
        """Zero almost everywhere."""
        return sp.Integer(0)


#: What makes a derivative of a field; anything else acts on every voxel by itself.
DIFFERENTIAL = (Gradient, Divergence, Laplacian, NormalLaplacian, TangentialLaplacian, Dot, Component, Norm)
