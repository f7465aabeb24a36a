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
    Norm,
    NormalLaplacian,
    Parameter,
    TangentialLaplacian,
)
from voxdask.vector import Vector, as_scalar, vector_of

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
    "Norm",
    "NormalLaplacian",
    "Parameter",
    "Position",
    "TangentialLaplacian",
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
    "norm",
    "normal_laplace",
    "sin",
    "sqrt",
    "t",
    "tangential_laplace",
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
    return Laplacian(as_scalar("laplace", u))


@singledispatch
def normal_laplace(u: Any, **options: Any) -> Any:
    r"""Second derivative :math:`\partial_n^2 u` along the normal of the level sets of u.

    .. math::

        \partial_n^2 u = n \cdot (\nabla \nabla u)\, n, \qquad n = \frac{\nabla u}{|\nabla u|}

    It is the Laplacian without what the curvature of the level sets adds. At a voxel centre the gradient is taken
    by central differences, the second derivatives with three points, the mixed ones with the four corners: 19
    points in 3-D, of second order. It is zero where u has no normal: where its central differences, in u per
    voxel, have squares whose sum is at most 1e-12, about sixteen times the round-off of single precision at 1.

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

    References
    ----------
    Daubner et al. (2025), arXiv:2507.21748, eq. 7

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> y, x = np.mgrid[4:9, -2:3].astype(float)
    >>> ds = vd.dataset({"u": x**2 + y**2})   # circles: the Laplacian is 4, half of it due to curvature
    >>> float(vd.normal_laplace(ds.u, boundary="neumann").sel(x=2.5, y=2.5).round(6))
    2.0
    """
    _no_options("normal_laplace", options)
    return NormalLaplacian(as_scalar("normal_laplace", u))


@singledispatch
def tangential_laplace(u: Any, **options: Any) -> Any:
    r"""What the curvature of the level sets of u adds to its Laplacian.

    .. math::

        |\nabla u|\, \nabla \cdot \frac{\nabla u}{|\nabla u|} = \nabla^2 u - \partial_n^2 u

    Discretised as it stands, to second order: unit normals at faces, their divergence, and the central difference
    for the length of the gradient. Where u is flat, in the sense of :func:`normal_laplace`, the squares of the
    gradients' lengths have 1e-12 of u squared per voxel added to them, so that it tends to zero.

    Parameters
    ----------
    u : expression or DataArray
        A scalar.
    **options
        ``boundary=`` for a DataArray.

    Returns
    -------
    expression or DataArray
        In units of `u` per length squared.

    Raises
    ------
    TypeError
        If `u` is a vector, or neither an expression nor a DataArray.

    References
    ----------
    Daubner et al. (2025), arXiv:2507.21748, eq. 7

    Examples
    --------
    >>> import numpy as np, voxdask as vd
    >>> y, x = np.mgrid[4:9, -2:3] / 1.0
    >>> ds = vd.dataset({"u": np.hypot(x, y)})   # distance from a point: curvature 1 / u
    >>> at = vd.tangential_laplace(ds.u, boundary="neumann").sel(x=2.5, y=2.5)
    >>> float(at.round(2)), float(1 / ds.u.sel(x=2.5, y=2.5).round(2))
    (0.17, 0.16666666666666666)
    """
    _no_options("tangential_laplace", options)
    return TangentialLaplacian(as_scalar("tangential_laplace", u))


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
    return Vector(Gradient(as_scalar("grad", u)))


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
    return Divergence(vector_of("div", v))


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
    return Dot(vector_of("dot", a), vector_of("dot", b))


def norm(v: Vector) -> sp.Expr:
    r"""Length :math:`|v|` of a vector at voxel centres, from the mean of each component over its two faces.

    So :math:`|\nabla u|` takes central differences, and its sum along a line through a step that rises all
    the way is the height of the step. It has no derivative where it is zero.

    Parameters
    ----------
    v : Vector

    Returns
    -------
    expression

    Raises
    ------
    TypeError
        If `v` is not a vector.

    Examples
    --------
    >>> from voxdask.symbols import Field, grad, norm
    >>> psi = Field("psi")
    >>> norm(grad(psi))
    Norm(Gradient(psi))
    """
    return Norm(vector_of("norm", v))


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
    return Face(as_scalar("face", u))


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
    value, least, most = (as_scalar("clip", argument) for argument in (u, lower, upper))
    if (least > most) is sp.true:
        raise ValueError(f"clip has the limits {lower} and {upper}; the lower one comes first")
    return Clip(value, least, most)


def _pointwise(function: Callable[..., sp.Expr], name: str) -> Callable[[Any], Any]:
    def apply(u: Any) -> Any:
        return function(as_scalar(name, u))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The pointwise function {name} of a scalar expression or DataArray."
    return singledispatch(apply)


exp = _pointwise(sp.exp, "exp")
log = _pointwise(sp.log, "log")
sqrt = _pointwise(sp.sqrt, "sqrt")
sin = _pointwise(sp.sin, "sin")
cos = _pointwise(sp.cos, "cos")
tanh = _pointwise(sp.tanh, "tanh")
