"""Vector fields as equations write them: without components until the axes of a grid are known."""

from __future__ import annotations

from typing import Any

import sympy as sp


class Vector:
    """A vector field, such as a gradient times a mobility; made by :func:`grad`.

    Vectors can be added, scaled by a scalar expression, and passed to :func:`div` and :func:`dot`.
    """

    #: NumPy scalars and arrays leave products to this class.
    __array_ufunc__ = None

    def __init__(self, expression: sp.Expr) -> None:
        self.expression = expression

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.expression + vector_of("+", other))

    def __radd__(self, other: object) -> Vector:
        return self if other == 0 else NotImplemented  # where sum() starts

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.expression - vector_of("-", other))

    def __neg__(self) -> Vector:
        return Vector(-self.expression)

    def __mul__(self, factor: Any) -> Vector:
        if isinstance(factor, Vector):
            raise TypeError("the product of two vectors is ambiguous; use dot(a, b)")
        return Vector(as_scalar("a factor of a vector", factor) * self.expression)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Vector:
        return Vector(self.expression / as_scalar("the divisor of a vector", divisor))

    def __repr__(self) -> str:
        return f"Vector({self.expression})"


def vector_of(operation: str, other: Any) -> sp.Expr:
    """The expression of a vector; TypeError for anything else."""
    if not isinstance(other, Vector):
        raise TypeError(f"{operation} takes vectors such as grad(u), got {type(other).__name__}")
    return other.expression


def as_scalar(name: str, value: Any) -> sp.Expr:
    """A scalar expression; TypeError for anything else."""
    if isinstance(value, Vector):
        raise TypeError(f"{name} takes a scalar, got a vector: {value!r}")
    try:
        expression = sp.sympify(value, strict=True)
    except sp.SympifyError:
        expression = None
    if not isinstance(expression, sp.Expr):
        raise TypeError(f"{name} takes a scalar expression, got {type(value).__name__}")
    return expression
