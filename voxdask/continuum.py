"""An equation without a grid: its exact right-hand side, and the growth rate of a small wave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy as sp

from voxdask.families import JOINING, Deviation, Total
from voxdask.symbols import (
    DIFFERENTIAL,
    Clip,
    Component,
    Coordinate,
    Divergence,
    Dot,
    Face,
    Field,
    Gradient,
    Laplacian,
    Norm,
    NormalLaplacian,
    TangentialLaplacian,
)


def is_vector(e: sp.Expr) -> bool:
    """Whether an expression is a vector: a gradient, or a sum or product that holds one."""
    if isinstance(e, Gradient):
        return True
    return isinstance(e, sp.Add | sp.Mul) and any(is_vector(argument) for argument in e.args)


def exact(expression: sp.Expr, fields: Mapping[str, sp.Expr], axes: tuple[str, ...]) -> sp.Expr:
    """The right-hand side without discretisation: derivatives of known functions of x, y, z and t.

    A function inside :func:`~voxdask.symbols.clip` is taken to stay within its limits.

    Parameters
    ----------
    expression : Expr
    fields : mapping of str to Expr
        Each field as a function of the coordinates and time.
    axes : tuple of str

    Returns
    -------
    Expr

    Examples
    --------
    >>> from voxdask.symbols import Field, laplace, x
    >>> exact(laplace(Field("u")), {"u": x**3}, ("x",))
    6*x
    """
    positions = [Coordinate(axis, real=True) for axis in axes]

    def scalar(e: sp.Expr) -> sp.Expr:
        if isinstance(e, Field):
            return sp.sympify(fields[e.name])
        if isinstance(e, Face | Clip):
            return scalar(e.args[0])
        if isinstance(e, Laplacian):
            inner = scalar(e.args[0])
            return sp.Add(*(sp.diff(inner, s, 2) for s in positions))
        if isinstance(e, NormalLaplacian):
            return along_normal(scalar(e.args[0]))
        if isinstance(e, TangentialLaplacian):
            inner = scalar(e.args[0])
            return sp.Add(*(sp.diff(inner, s, 2) for s in positions)) - along_normal(inner)
        if isinstance(e, Divergence):
            return sp.Add(*(sp.diff(vector(e.args[0], s), s) for s in positions))
        if isinstance(e, Dot):
            return sp.Add(*(vector(e.args[0], s) * vector(e.args[1], s) for s in positions))
        if isinstance(e, Norm):
            return sp.sqrt(sp.Add(*(vector(e.args[0], s) ** 2 for s in positions)))
        if isinstance(e, Component):
            return vector(e.args[0], Coordinate(str(e.args[1]), real=True))
        if e.is_Atom:
            return e
        return e.func(*(scalar(argument) for argument in e.args))

    def along_normal(u: sp.Expr) -> sp.Expr:
        slopes = {s: sp.diff(u, s) for s in positions}
        square = sp.Add(*(slope**2 for slope in slopes.values()))
        bends = (sp.diff(u, a, b) * slopes[a] * slopes[b] for a in positions for b in positions)
        return sp.Add(*(bend / square for bend in bends)) if square != 0 else square

    def vector(v: sp.Expr, position: Coordinate) -> sp.Expr:
        if isinstance(v, sp.Add):
            return sp.Add(*(vector(term, position) for term in v.args))
        if isinstance(v, Gradient):
            return sp.diff(scalar(v.args[0]), position)
        if not is_vector(v):
            return scalar(v)
        return sp.Mul(*(vector(f, position) for f in v.args))

    return scalar(sp.sympify(expression))


def fourier_symbol(
    expression: sp.Expr,
    name: str,
    reference: Mapping[str, sp.Expr],
    axes: tuple[str, ...],
    values: Mapping[str, float] | None = None,
) -> sp.Expr:
    r"""Growth rate of a small wave in field `name` about a uniform state: the stiff part alone.

    The linearised equation is a polynomial in the wavenumbers; of its terms of the highest even degree
    those that damp are kept, if none does those of the next lower degree, else 0. It is returned in the
    squared wavenumbers :math:`q_a = k_a^2` along each axis, symbols ``q_<axis>``.

    Parameters
    ----------
    expression : Expr
        Right-hand side of the field's equation.
    name : str
        The field.
    reference : mapping of str to Expr
        Value of every field in the uniform state, and of a coordinate where the stiff part depends on it.
    axes : tuple of str
        Names of the axes.
    values : mapping of str to float, optional
        Values of parameters, which decide what damps; a parameter without one is taken to be positive.

    Returns
    -------
    Expr

    Raises
    ------
    ValueError
        If `reference` lacks a value, or the equation is singular there.

    Examples
    --------
    >>> from voxdask.symbols import Field, laplace
    >>> fourier_symbol(laplace(Field("u")), "u", {"u": 0}, ("x",))
    -q_x
    """
    waves = [sp.Symbol(f"k_{axis}", real=True) for axis in axes]
    rate = _Linearisation(name, reference, axes, waves).change(sp.sympify(expression))
    if rate.has(sp.nan, sp.oo, -sp.oo, sp.zoo):
        raise ValueError(
            f"the equation of {name!r} is singular in the uniform state {dict(reference)} about which its stiff "
            "part is linearised; let reference() return another"
        )
    terms = sp.Poly(rate, *waves).terms()
    for degree in sorted({sum(powers) for powers, _ in terms} - {0}, reverse=True):
        even = [
            (coefficient, sp.Mul(*(_square(axis) ** (p // 2) for axis, p in zip(axes, powers, strict=True))))
            for powers, coefficient in terms
            if sum(powers) == degree and all(p % 2 == 0 for p in powers)
        ]
        for place in sorted(set().union(*(coefficient.atoms(Coordinate) for coefficient, _ in even)), key=str):
            raise ValueError(
                f"the stiff part of {name!r} depends on {place.name!r}; let reference() say where to take it, "
                f"e.g. {{..., {place.name!r}: 0.0}}"
            )
        stiff = [coefficient * squares for coefficient, squares in even if _damps(coefficient, values or {})]
        if stiff:
            return sp.factor(sp.Add(*stiff))
    return sp.Integer(0)


def _square(axis: str) -> sp.Symbol:
    return sp.Symbol(f"q_{axis}", nonnegative=True)


def _damps(coefficient: sp.Expr, values: Mapping[str, float]) -> bool:
    """Whether a coefficient is negative, taking every parameter without a value to be positive."""
    numbers = {s: values.get(s.name, sp.Dummy(positive=True)) for s in coefficient.free_symbols}
    return bool(sp.sympify(coefficient.subs(numbers)).is_negative)


class _Linearisation:
    """The value of an expression in a uniform state, and its change under a unit wave in one field."""

    def __init__(
        self, field: str, reference: Mapping[str, sp.Expr], axes: Sequence[str], waves: Sequence[sp.Symbol]
    ) -> None:
        self.field, self.reference, self.axes, self.waves = field, reference, axes, waves

    def value(self, e: sp.Expr) -> sp.Expr:
        """A scalar in the uniform state, where every derivative vanishes."""
        pointwise = e.replace(Face, lambda u: u)
        leaves = {leaf: self.leaf(leaf)[0] for leaf in _leaves(pointwise)}
        return pointwise.xreplace(leaves)

    def change(self, e: sp.Expr) -> sp.Expr:
        """What the wave adds to a scalar."""
        pointwise = e.replace(Face, lambda u: u)
        places = {leaf: sp.Dummy(real=True) for leaf in _leaves(pointwise)}
        general = pointwise.xreplace(places)
        values, changes = zip(*map(self.leaf, places), strict=True) if places else ((), ())
        state = dict(zip(places.values(), values, strict=True))
        return sp.Add(
            *(sp.diff(general, place).xreplace(state) * change for place, change in zip(state, changes, strict=True))
        )

    def leaf(self, e: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
        """The value and change of a field, a coordinate or a differential expression."""
        if isinstance(e, Field | Coordinate):
            if isinstance(e, Field) and e.name not in self.reference:
                raise ValueError(f"no reference value for the field {e.name!r} of the equation")
            value = sp.sympify(self.reference.get(e.name, e))
            return value, sp.Integer(isinstance(e, Field) and e.name == self.field)
        if isinstance(e, JOINING):
            return self.joined(e)
        return sp.Integer(0), self.differential(e)

    def joined(self, e: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
        """The value and change of what joins a family: of two members in a voxel one gains what the other loses."""
        if isinstance(e, Total):
            return 2 * self.value(e.args[0]), sp.Integer(0)
        return sp.Integer(0), self.change(e.args[0]) if isinstance(e, Deviation) else sp.Integer(0)

    def differential(self, e: sp.Expr) -> sp.Expr:
        if isinstance(e, Laplacian | NormalLaplacian):  # the normal of a wave is its wave vector
            return -sp.Add(*(k**2 for k in self.waves)) * self.change(e.args[0])
        if isinstance(e, Divergence):
            return sp.Add(*(sp.I * k * self.vector(e.args[0], k) for k in self.waves))
        if isinstance(e, Component):
            return self.vector(e.args[0], self.waves[list(self.axes).index(str(e.args[1]))])
        return sp.Integer(0)  # a product is of second order in the wave, a norm has no derivative, fronts are flat

    def vector(self, v: sp.Expr, wave: sp.Symbol) -> sp.Expr:
        """Change of one component; every vector vanishes in a uniform state."""
        if isinstance(v, sp.Add):
            return sp.Add(*(self.vector(term, wave) for term in v.args))
        if isinstance(v, Gradient):
            return sp.I * wave * self.change(v.args[0])
        return sp.Mul(*(self.vector(f, wave) if is_vector(f) else self.value(f) for f in v.args))


def _leaves(e: sp.Expr) -> list[sp.Expr]:
    """The fields, coordinates and outermost differential expressions of a pointwise one."""
    found: dict[sp.Expr, None] = {}
    walk = sp.preorder_traversal(e)
    for node in walk:
        if isinstance(node, (Field, Coordinate, *DIFFERENTIAL, *JOINING)):
            found[node] = None
            walk.skip()
    return list(found)
