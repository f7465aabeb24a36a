r"""From an equation to stages of stencils.

A discrete expression is a function of a grid offset, counted in half voxels. A field at an even offset
is a neighbour's value, at an odd one the mean of the two neighbours there. A gradient lives at odd
offsets, a divergence takes it back to even ones, and the compact conservative stencil of second order
falls out. A differential operator applied to an expression that already holds one starts a new
*stage*, an intermediate array (the chemical potential of Cahn-Hilliard); all else is inlined.

The derivatives of a program are programs too: :func:`tangent` and :func:`adjoint` differentiate each
stage with respect to its inputs at each offset.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import lru_cache

import sympy as sp

from voxdask.continuum import exact, fourier_symbol, is_vector
from voxdask.families import JOINING, MEMBERS, Deviation, Level, Total, gathered, level_stages
from voxdask.program import Offset, Program, Sample, Stage, inverse_spacing, needed, samples_of
from voxdask.symbols import (
    DIFFERENTIAL,
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

__all__ = [
    "Program",
    "Sample",
    "Stage",
    "adjoint",
    "cotangent_name",
    "exact",
    "fourier_symbol",
    "inlined",
    "inverse_spacing",
    "lower",
    "tangent",
    "tangent_name",
]


#: Neighbours that one stage may read: those that Cahn-Hilliard reads of one field in three dimensions, twice over.
_MOST_SAMPLES = 50

#: The sum of squared central differences, per voxel, up to which a field has no normal: 16 ulp of float32 at 1.
_FLAT = sp.Float("1e-12")


@lru_cache(maxsize=256)
def lower(
    expressions: tuple[sp.Expr, ...],
    names: tuple[str, ...],
    axes: tuple[str, ...],
    fallback: str | None = None,
    family: tuple[str, ...] = (),
) -> Program:
    """Discretise scalar expressions on a grid with the given axes.

    Parameters
    ----------
    expressions : tuple of Expr
        One for each output.
    names : tuple of str
        Names of the outputs.
    axes : tuple of str
        Names of the array axes, in storage order.
    fallback : str, optional
        The array that says how large the results are where the expressions hold no field.
    family : tuple of str
        Fields of which every member of a family has one.

    Returns
    -------
    Program

    Raises
    ------
    ValueError
        If an expression names a coordinate that is no axis of the grid, or is a vector.

    Examples
    --------
    >>> from voxdask.symbols import Field, laplace
    >>> program = lower((laplace(laplace(Field("u"))),), ("du",), ("y", "x"))
    >>> len(program.stages), program.halo
    (2, 2)
    """
    lowering = _Lowering(axes)
    final = tuple(lowering.at(sp.sympify(e), lowering.centre) for e in expressions)
    inner = gathered(lowering.stages.values())
    return Program(axes, (*inner, Stage(names, final)), fallback=fallback, family=family)


class _Lowering:
    def __init__(self, axes: tuple[str, ...]) -> None:
        self.axes = axes
        self.centre: Offset = (0,) * len(axes)
        self.stages: dict[sp.Expr, Stage] = {}

    def at(self, e: sp.Expr, offset: Offset) -> sp.Expr:
        """The discrete form of a scalar expression at an offset in half voxels."""
        if isinstance(e, Field):
            return self.mean(e.name, offset)
        if isinstance(e, Coordinate):
            return self.position(e, offset)
        if e.is_Atom:
            return e
        if isinstance(e, JOINING):
            return self.joined(e, offset)
        if isinstance(e, Gradient):
            raise ValueError(f"a vector stands where a scalar is needed: {e}; take div() or dot() of it")
        if isinstance(e, Laplacian):
            return self.at(Divergence(Gradient(*e.args)), offset)
        if isinstance(e, NormalLaplacian):
            return self.along_normal(self.staged(e.args[0]), offset)
        if isinstance(e, TangentialLaplacian):
            return self.across_normal(self.staged(e.args[0]), offset)
        if isinstance(e, Divergence):
            return sp.Add(*(self.difference(e.args[0], a, offset) for a in range(len(self.axes))))
        if isinstance(e, Dot):
            u, v = e.args
            return sp.Add(*(self.component(u, *p) * self.component(v, *p) for p in self.faces(offset))) / 2
        if isinstance(e, Component):
            v, axis = e.args
            a = self.index(str(axis))
            if isinstance(v, Gradient):  # the means at both faces but for what cancels
                u = self.staged(v.args[0])
                lower, upper = (self.at(u, _shift(offset, a, side)) for side in (-2, 2))
                return (upper - lower) * inverse_spacing(self.axes[a]) / 2
            return sp.Add(*(self.component(v, b, face) for b, face in self.faces(offset) if b == a)) / 2
        if isinstance(e, Norm):
            means = (self.at(Component(e.args[0], sp.Symbol(axis)), offset) for axis in self.axes)
            return sp.sqrt(sp.Add(*(mean**2 for mean in means)))
        if isinstance(e, Face):
            corners = _corners(offset)
            return sp.Add(*(self.at(e.args[0], corner) for corner in corners)) / len(corners)
        if isinstance(e, sp.Abs) and not e.args[0].is_extended_real:
            u = self.at(e.args[0], offset)
            return sp.Piecewise((-u, u < 0), (u, True))  # the derivative of Abs holds that of the real part
        return e.func(*(self.at(argument, offset) for argument in e.args))

    def difference(self, v: sp.Expr, axis: int, offset: Offset) -> sp.Expr:
        """The share of one axis in a divergence."""
        lower, upper = (self.component(v, axis, _shift(offset, axis, side)) for side in (-1, 1))
        return (upper - lower) * inverse_spacing(self.axes[axis])

    def along_normal(self, u: sp.Expr, offset: Offset) -> sp.Expr:
        """The second derivative along the gradient, from voxel centres alone."""

        def at(*moves: tuple[int, int]) -> sp.Expr:
            place = offset
            for axis, voxels in moves:
                place = _shift(place, axis, 2 * voxels)
            return self.at(u, place)

        axes, pairs = range(len(self.axes)), itertools.combinations(range(len(self.axes)), 2)
        scale = [inverse_spacing(axis) for axis in self.axes]
        steps = [(at((a, 1)) - at((a, -1))) / 2 for a in axes]
        slopes = [step * s for step, s in zip(steps, scale, strict=True)]
        bends = [slopes[a] ** 2 * (at((a, 1)) - 2 * at() + at((a, -1))) * scale[a] ** 2 for a in axes]
        for a, b in pairs:
            corners = (i * j * at((a, i), (b, j)) for i in (-1, 1) for j in (-1, 1))
            bends.append(slopes[a] * slopes[b] * sp.Add(*corners) * scale[a] * scale[b] / 2)
        square = sp.Add(*(slope**2 for slope in slopes))
        sloping = sp.Add(*(step**2 for step in steps)) > _FLAT
        # zero where flat; a choice of the divisor, unlike one of the result, leaves loops without a branch
        return sp.Add(*bends) / sp.Piecewise((square, sloping), (sp.oo, True))

    def across_normal(self, u: sp.Expr, offset: Offset) -> sp.Expr:
        """The length of the gradient times the divergence of unit normals at faces."""
        gradient, axes = Gradient(Face(u)), range(len(self.axes))
        flat = _FLAT * sp.Add(*(inverse_spacing(axis) ** 2 for axis in self.axes))

        def length(place: Offset) -> sp.Expr:
            return sp.sqrt(sp.Add(flat, *(self.component(gradient, b, place) ** 2 for b in axes)))

        def normal(place: Offset, a: int) -> sp.Expr:
            return self.component(gradient, a, place) / length(place)

        ends = ((a, side, _shift(offset, a, side)) for a in axes for side in (-1, 1))
        return length(offset) * sp.Add(*(side * normal(p, a) * inverse_spacing(self.axes[a]) for a, side, p in ends))

    def faces(self, offset: Offset) -> list[tuple[int, Offset]]:
        """The axes, and the offsets half a voxel away along each."""
        return [(a, _shift(offset, a, side)) for a in range(len(self.axes)) for side in (-1, 1)]

    def component(self, v: sp.Expr, axis: int, offset: Offset) -> sp.Expr:
        """One component of a vector expression at an offset in half voxels."""
        if v.is_zero:
            return sp.Integer(0)
        if isinstance(v, sp.Add):
            return sp.Add(*(self.component(term, axis, offset) for term in v.args))
        if isinstance(v, Gradient):
            u = self.staged(v.args[0])
            lower, upper = (self.at(u, _shift(offset, axis, side)) for side in (-1, 1))
            return (upper - lower) * inverse_spacing(self.axes[axis])
        factors = v.args if isinstance(v, sp.Mul) else ()
        vectors = [factor for factor in factors if is_vector(factor)]
        if len(vectors) != 1:
            raise ValueError(f"not a vector: {v}; a vector is a sum of scalars times gradients")
        scalars = [self.at(factor, offset) for factor in factors if factor is not vectors[0]]
        return sp.Mul(*scalars, self.component(vectors[0], axis, offset))

    def staged(self, e: sp.Expr) -> sp.Expr:
        """The expression itself, or the field of a new stage if it holds a differential operator."""
        if not e.has(*DIFFERENTIAL):
            return e
        if e not in self.stages:
            expression = self.at(e, self.centre)
            self.stages[e] = Stage((f"stage.{len(self.stages)}",), (expression,))
        return Field(self.stages[e].outputs[0], real=True)

    def joined(self, e: sp.Expr, offset: Offset) -> sp.Expr:
        """What joins the members of a family, at an offset in half voxels."""
        if isinstance(e, Deviation):
            u = self.staged(e.args[0])
            return self.at(u, offset) - self.at(Total(u), offset) / MEMBERS
        if e not in self.stages:
            u = self.at(e.args[0], self.centre)
            if isinstance(e, Level):
                self.stages[e], *rise = level_stages(f"level.{len(self.stages)}", u, self.centre)
                self.stages |= {sp.Tuple(e, k): stage for k, stage in enumerate(rise)}
            else:
                name = f"total.{len(self.stages)}"
                self.stages[e] = Stage((name,), (u,), totals=(name,))
        return self.mean(self.stages[e].outputs[0], offset)

    def mean(self, name: str, offset: Offset) -> sp.Expr:
        corners = _corners(offset)
        samples = (Sample(name, tuple(o // 2 for o in corner)) for corner in corners)
        return sp.Add(*samples) / len(corners)

    def position(self, coordinate: Coordinate, offset: Offset) -> sp.Expr:
        half_steps = offset[self.index(coordinate.name)]
        return coordinate + sp.Rational(half_steps, 2) / inverse_spacing(coordinate.name)

    def index(self, axis: str) -> int:
        if axis not in self.axes:
            raise ValueError(f"the equation names {axis!r}, but the grid has dims {', '.join(self.axes)}")
        return self.axes.index(axis)


def _shift(offset: Offset, axis: int, half_steps: int) -> Offset:
    return tuple(o + half_steps * (a == axis) for a, o in enumerate(offset))


def _corners(offset: Offset) -> list[Offset]:
    return list(itertools.product(*((o,) if o % 2 == 0 else (o - 1, o + 1) for o in offset)))


@lru_cache(maxsize=64)
def inlined(program: Program) -> Program | None:
    """The same program in one stage: what inner stages make is made anew wherever it is read.

    A processor of much arithmetic and little memory bandwidth is better off so, if that is not too much.

    Parameters
    ----------
    program : Program

    Returns
    -------
    Program, optional
        None if it has one stage anyway, joins members of a family, or reads too many neighbours.

    Examples
    --------
    >>> from voxdask.symbols import Field, laplace
    >>> program = lower((laplace(laplace(Field("u"))),), ("du",), ("x",))
    >>> [stage.samples for stage in inlined(program).stages]
    [(u[-2], u[-1], u[0], u[1], u[2])]
    """
    if len(program.stages) == 1 or program.family or any(stage.totals for stage in program.stages):
        return None
    made: dict[str, sp.Expr] = {}

    def written_out(e: sp.Expr) -> sp.Expr:
        return e.xreplace(
            {s: _translate(made[s.array], s.offset, program.axes) for s in e.atoms(Sample) if s.array in made}
        )

    *inner, last = program.stages
    for stage in inner:
        made |= {name: written_out(e) for name, e in zip(stage.outputs, stage.expressions, strict=True)}
    one = Stage(last.outputs, tuple(map(written_out, last.expressions)))
    if len(one.samples) > _MOST_SAMPLES:
        return None
    result = Program(program.axes, (one,), program.output_margin, program.fallback)
    return result if (result.halo, result.inputs) == (program.halo, program.inputs) else None


def tangent_name(array: str) -> str:
    """Name of the array that holds a small change of `array`."""
    return f"{array}.change"


def cotangent_name(array: str) -> str:
    """Name of the array that holds the sensitivity to `array`."""
    return f"{array}.weight"


def tangent(program: Program, active: Iterable[str]) -> Program:
    """The derivative of a program along changes of the `active` inputs.

    Parameters
    ----------
    program : Program
    active : iterable of str
        Inputs that change; see :func:`tangent_name`.

    Returns
    -------
    Program
        Its outputs are the changes of the program's; it reads the inputs and their changes.

    Examples
    --------
    >>> from voxdask.symbols import Field, laplace
    >>> program = lower((laplace(Field("u") ** 2),), ("du",), ("x",))
    >>> tangent(program, ["u"]).inputs
    ('u', 'u.change')
    """
    changing = set(active)
    stages = []
    for stage in program.stages:
        changes = []
        for e in stage.expressions:
            samples = [s for s in samples_of(e) if s.array in changing]
            changes.append(sp.Add(*(sp.diff(e, s) * Sample(tangent_name(s.array), s.offset) for s in samples)))
        names = tuple(tangent_name(name) for name in stage.outputs)
        changing.update(stage.outputs)
        if stage is program.stages[-1]:
            stages.append(Stage(names, tuple(changes)))
        else:
            stages.append(Stage((*stage.outputs, *names), (*stage.expressions, *changes)))
    return Program(program.axes, needed(stages), fallback=program.fallback)


def adjoint(program: Program, active: Iterable[str]) -> Program:
    """The transpose of :func:`tangent`: from sensitivities to the outputs to those to the inputs.

    A stage's coefficients are read at the negated offset. The result reaches `program.halo` beyond the
    region of interest; what lies there belongs to ghost layers and is folded back by the transposed
    boundary rule. The sensitivities to the outputs must be zero outside the region of interest.

    Parameters
    ----------
    program : Program
    active : iterable of str
        Inputs whose sensitivities are wanted; see :func:`cotangent_name`.

    Returns
    -------
    Program
        Its outputs are the sensitivities to the inputs; it reads the inputs and the sensitivities to the outputs.

    Examples
    --------
    >>> from voxdask.symbols import Field, laplace
    >>> program = lower((laplace(Field("u") ** 2),), ("du",), ("x",))
    >>> adjoint(program, ["u"]).outputs
    ('u.weight',)
    """
    wanted = tuple(active)
    shares: dict[str, list[sp.Expr]] = {name: [] for name in wanted}
    shares |= {name: [] for stage in program.stages[:-1] for name in stage.outputs}

    def totals(names: Sequence[str]) -> Stage:
        return Stage(tuple(map(cotangent_name, names)), tuple(sp.Add(*shares[name]) for name in names))

    backward: list[Stage] = []
    for stage in reversed(program.stages):
        if stage is not program.stages[-1]:
            backward.append(totals(stage.outputs))
        for name, e in zip(stage.outputs, stage.expressions, strict=True):
            for sample in samples_of(e):
                if sample.array in shares:
                    back = tuple(-o for o in sample.offset)
                    weight = _translate(sp.diff(e, sample), back, program.axes)
                    shares[sample.array].append(weight * Sample(cotangent_name(name), back))
    stages = (*program.stages[:-1], *backward, totals(wanted))
    return Program(program.axes, needed(stages), output_margin=program.halo, fallback=program.fallback)


def _translate(e: sp.Expr, by: Offset, axes: tuple[str, ...]) -> sp.Expr:
    """The expression as it reads from a voxel `by` further along."""
    moved: dict[sp.Basic, sp.Basic] = {
        s: Sample(s.array, tuple(o + b for o, b in zip(s.offset, by, strict=True))) for s in e.atoms(Sample)
    }
    for coordinate in e.atoms(Coordinate):
        moved[coordinate] = coordinate + by[axes.index(coordinate.name)] / inverse_spacing(coordinate.name)
    return e.xreplace(moved)
