"""The vocabulary of equations: fields, differential operators, coordinates and time.

Applied to a symbol these functions build an equation, which :mod:`voxdask.lowering` turns into
stencils, a Fourier symbol or an exact right-hand side. Applied to an :class:`xarray.DataArray` they
evaluate (see :mod:`voxdask.analysis`, which registers that half). A vector, such as a gradient,
carries no components until the axes of a grid are known: the same equation serves 1-D, 2-D and 3-D.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from typing import Any, NamedTuple

import sympy as sp

from voxdask.nodes import (
    DIFFERENTIAL,
    Clip,
    Component,
    Coordinate,
    Divergence,
    Dot,
    Face,
    Field,
    Gradient,
    Inside,
    Laplacian,
    Parameter,
)

__all__ = [
    "DIFFERENTIAL",
    "Clip",
    "Component",
    "Coordinate",
    "Divergence",
    "Dot",
    "Face",
    "Field",
    "Gradient",
    "Inside",
    "Laplacian",
    "Parameter",
    "Position",
    "Vector",
    "clip",
    "cos",
    "div",
    "dot",
    "exp",
    "face",
    "grad",
    "laplace",
    "log",
    "sin",
    "sqrt",
    "t",
    "tanh",
    "x",
    "y",
    "z",
]


#: Time, and the position along the axis of the same name, for use in an equation.
t = Parameter("t", real=True)
x = Coordinate("x", real=True)
y = Coordinate("y", real=True)
z = Coordinate("z", real=True)


class Position(NamedTuple):
    """Where a function of position is evaluated."""

    x: Coordinate = x
    y: Coordinate = y
    z: Coordinate = z


class Vector:
    """A vector field, such as a gradient times a mobility; made by :func:`grad`.

    Vectors can be added, scaled by a scalar expression, and passed to :func:`div` and :func:`dot`.
    """

    #: NumPy scalars and arrays leave products to this class.
    __array_ufunc__ = None

    def __init__(self, expression: sp.Expr) -> None:
        self.expression = expression

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.expression + _vector("+", other))

    def __radd__(self, other: object) -> Vector:
        return self if other == 0 else NotImplemented  # where sum() starts

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.expression - _vector("-", other))

    def __neg__(self) -> Vector:
        return Vector(-self.expression)

    def __mul__(self, factor: Any) -> Vector:
        if isinstance(factor, Vector):
            raise TypeError("the product of two vectors is ambiguous; use dot(a, b)")
        return Vector(_scalar("a factor of a vector", factor) * self.expression)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Vector:
        return Vector(self.expression / _scalar("the divisor of a vector", divisor))

    def __repr__(self) -> str:
        return f"Vector({self.expression})"


def _vector(operation: str, other: Any) -> sp.Expr:
    if not isinstance(other, Vector):
        raise TypeError(f"{operation} takes vectors such as grad(u), got {type(other).__name__}")
    return other.expression


def _scalar(name: str, value: Any) -> sp.Expr:
    if isinstance(value, Vector):
        raise TypeError(f"{name} takes a scalar, got a vector: {value!r}")
    try:
        expression = sp.sympify(value, strict=True)
    except sp.SympifyError:
        expression = None
    if not isinstance(expression, sp.Expr):
        raise TypeError(f"{name} takes a scalar expression, got {type(value).__name__}")
    return expression


def _no_options(name: str, options: dict[str, Any]) -> None:
    if options:
        raise TypeError(f"{name} of an expression takes no {next(iter(options))!r}; that is for DataArrays")


@singledispatch
def laplace(u: Any, **options: Any) -> Any:
    r"""Laplacian :math:`\nabla^2 u`, discretised to second order with 2 d + 1 points.

    Parameters
    ----------
    u : expression or DataArray
        A scalar. A DataArray needs coordinates; dask arrays stay lazy.
    **options
        ``boundary=`` for a DataArray (see :func:`voxdask.simulate`).

    Returns
    -------
    expression or DataArray
        In units of `u` per length squared.

    Raises
    ------
    TypeError
        If `u` is a vector, or neither an expression nor a DataArray.

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> ds = vd.dataset({"u": np.cos(2 * np.pi * (np.arange(8) + 0.5) / 8)})
    >>> float((vd.laplace(ds.u) / ds.u).mean().round(6))   # -4 sin^2(pi/8)
    -0.585786
    """
    _no_options("laplace", options)
    return Laplacian(_scalar("laplace", u))


@singledispatch
def grad(u: Any, **options: Any) -> Any:
    r"""Gradient :math:`\nabla u`, a vector known at the faces between voxels.

    Parameters
    ----------
    u : expression or DataArray
        A scalar.
    **options
        ``boundary=`` for a DataArray.

    Returns
    -------
    Vector or Dataset
        In an equation a :class:`Vector`; of a DataArray ``u`` its components at voxel centres, ``u_x`` and so on.

    Raises
    ------
    TypeError
        If `u` is a vector, or neither an expression nor a DataArray.

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> ds = vd.dataset({"u": np.arange(5.0) ** 2}, spacing=1.0)
    >>> vd.grad(ds.u, boundary="neumann").u_x.values
    array([0.5, 2. , 4. , 6. , 3.5])
    """
    _no_options("grad", options)
    return Vector(Gradient(_scalar("grad", u)))


def div(v: Vector) -> sp.Expr:
    r"""Divergence :math:`\nabla \cdot v` of face values, taken back to voxel centres.

    What leaves one voxel enters the next, so a sum over the grid is conserved to round-off.

    Parameters
    ----------
    v : Vector
        Such as ``mobility * grad(mu)``.

    Returns
    -------
    expression

    Raises
    ------
    TypeError
        If `v` is not a vector.

    Examples
    --------
    >>> from voxdask.symbols import Field, div, grad
    >>> c = Field("c")
    >>> div(c * grad(c))
    Divergence(c*Gradient(c))
    """
    return Divergence(_vector("div", v))


def dot(a: Vector, b: Vector) -> sp.Expr:
    r"""Scalar product :math:`a \cdot b`; at a voxel centre the mean over its faces.

    Parameters
    ----------
    a, b : Vector

    Returns
    -------
    expression

    Raises
    ------
    TypeError
        If either is not a vector.

    Examples
    --------
    >>> from voxdask.symbols import Field, dot, grad
    >>> c = Field("c")
    >>> dot(grad(c), grad(c))
    Dot(Gradient(c), Gradient(c))
    """
    return Dot(_vector("dot", a), _vector("dot", b))


def face(u: Any) -> sp.Expr:
    """Mean of `u` over the two voxels that share a face; `u` itself away from faces.

    Without it a function at a face takes the mean of the *fields*: ``face(f(c))`` is the mean of
    ``f``, plain ``f(c)`` inside :func:`div` is ``f`` of the mean.

    Parameters
    ----------
    u : expression

    Returns
    -------
    expression

    Raises
    ------
    TypeError
        If `u` is a vector.

    Examples
    --------
    >>> from voxdask.symbols import Field, div, face, grad
    >>> c = Field("c")
    >>> div(face(c**2) * grad(c))
    Divergence(Face(c**2)*Gradient(c))
    """
    return Face(_scalar("face", u))


def clip(u: Any, lower: Any, upper: Any) -> sp.Expr:
    """Limit `u` to [lower, upper].

    Parameters
    ----------
    u, lower, upper : expression or float

    Returns
    -------
    expression

    Raises
    ------
    TypeError
        If `u` is a vector.
    ValueError
        If `lower` is a larger number than `upper`.

    Examples
    --------
    >>> from voxdask.symbols import Field, clip
    >>> clip(Field("c"), 0, 1)
    Clip(c, 0, 1)
    """
    value, least, most = (_scalar("clip", argument) for argument in (u, lower, upper))
    if (least > most) is sp.true:
        raise ValueError(f"clip has the limits {lower} and {upper}; the lower one comes first")
    return Clip(value, least, most)


def _pointwise(function: Callable[..., sp.Expr], name: str) -> Callable[[Any], Any]:
    def apply(u: Any) -> Any:
        return function(_scalar(name, u))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The pointwise function {name} of a scalar expression or DataArray."
    return singledispatch(apply)


exp = _pointwise(sp.exp, "exp")
log = _pointwise(sp.log, "log")
sqrt = _pointwise(sp.sqrt, "sqrt")
sin = _pointwise(sp.sin, "sin")
cos = _pointwise(sp.cos, "cos")
tanh = _pointwise(sp.tanh, "tanh")
