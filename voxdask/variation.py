r"""The variational derivative of a free energy: from a density to the potential that drives a field.

.. math::

    \frac{\delta}{\delta c} \int f(c, \nabla c, \nabla^2 c) = \frac{\partial f}{\partial c}
        - \nabla \cdot \frac{\partial f}{\partial \nabla c} + \nabla^2 \frac{\partial f}{\partial \nabla^2 c}
"""

from __future__ import annotations

import sympy as sp

from voxdask.continuum import is_vector
from voxdask.symbols import DIFFERENTIAL, Coordinate, Divergence, Dot, Field, Gradient, Laplacian, Norm


def variation(density: sp.Expr, field: Field) -> sp.Expr:
    """The variational derivative of the integral of a density with respect to a field.

    Boundary terms are left out: they vanish on periodic axes, and where nothing flows through a wall.

    Parameters
    ----------
    density : Expr
        In fields, their Laplacians, and scalar products and lengths of their gradients.
    field : Field
        What is varied; all else stays.

    Returns
    -------
    Expr
        A divergence whose coefficient is constant comes as a Laplacian.

    Raises
    ------
    TypeError
        If the density holds another differential operator, or is a vector.

    References
    ----------
    Gelfand and Fomin (1963), Calculus of Variations, section 7

    Examples
    --------
    >>> from voxdask.symbols import dot, grad
    >>> c = Field("c")
    >>> variation(c**4 / 4 + 3 * dot(grad(c), grad(c)) / 2, c)
    c**3 - 3*Laplacian(c)
    >>> variation(c * dot(grad(c), grad(c)), c)
    -Divergence(2*c*Gradient(c)) + Dot(Gradient(c), Gradient(c))
    """
    if is_vector(density):
        raise TypeError(f"a density is a scalar, but this is a vector: {density}; take dot() of it")
    e = density.replace(Norm, lambda v: sp.sqrt(Dot(v, v)))
    e = e.replace(Dot, _expanded)
    products = sorted(e.atoms(Dot), key=sp.default_sort_key)
    laplacians = sorted(e.atoms(Laplacian), key=sp.default_sort_key)
    places = {leaf: sp.Dummy(real=True) for leaf in (*products, *laplacians)}
    pointwise, back = e.xreplace(places), {place: leaf for leaf, place in places.items()}
    for leaf in (*(factor.args[0] for dot in products for factor in dot.args), *(node.args[0] for node in laplacians)):
        if not isinstance(leaf, Field):
            raise TypeError(f"the density differentiates {leaf}; write it in derivatives of fields alone")
    node = next((e for e in sp.preorder_traversal(pointwise) if isinstance(e, DIFFERENTIAL)), None)
    if node is not None:
        raise TypeError(f"the density holds {node}; use fields, their Laplacians, dot() and norm() of gradients")

    terms = [sp.diff(pointwise, field).xreplace(back)]
    fluxes: dict[Field, sp.Expr] = {}
    for product in products:
        slope = sp.diff(pointwise, places[product]).xreplace(back)
        for one, other in (product.args, product.args[::-1]):
            if one.args[0] == field:
                fluxes[other.args[0]] = fluxes.get(other.args[0], sp.Integer(0)) + slope
    terms += [-_flow(slope, other) for other, slope in fluxes.items()]
    for laplacian in laplacians:
        if laplacian.args[0] == field:
            terms.append(Laplacian(sp.diff(pointwise, places[laplacian]).xreplace(back)))
    return sp.Add(*terms)


def _flow(coefficient: sp.Expr, field: Field) -> sp.Expr:
    """The divergence of a coefficient times the gradient of a field."""
    if coefficient.has(Field, Coordinate, *DIFFERENTIAL):
        return Divergence(coefficient * Gradient(field))
    return coefficient * Laplacian(field)


def _expanded(a: sp.Expr, b: sp.Expr) -> sp.Expr:
    """A scalar product of sums of scalars times gradients, as a sum of scalars times products of gradients."""
    return sp.Add(*(s * r * Dot(*sorted((v, w), key=sp.default_sort_key)) for s, v in _terms(a) for r, w in _terms(b)))


def _terms(vector: sp.Expr) -> list[tuple[sp.Expr, sp.Expr]]:
    """A vector as scalars times gradients of fields."""
    terms = []
    for term in sp.Add.make_args(sp.expand_mul(vector)):
        scalar, gradient = term.as_independent(Gradient, as_Add=False)
        if not isinstance(gradient, Gradient):
            raise TypeError(f"the density holds the vector {term}; use sums of scalars times gradients")
        inner = gradient.args[0]
        if isinstance(inner, Field) or inner.has(*DIFFERENTIAL):
            terms.append((scalar, gradient))
        else:  # the chain rule
            terms += [(scalar * sp.diff(inner, f), Gradient(f)) for f in sorted(inner.atoms(Field), key=str)]
    return terms
