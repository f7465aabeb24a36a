"""Known functions put into an equation: what their rate of change is, and what source makes them its solution.

The exact rate of change is derived from the same equation as the stencils (:func:`voxdask.continuum.exact`), so
that nothing is written down twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import sympy as sp
import xarray as xr

from voxdask import boundary as boundaries
from voxdask import continuum
from voxdask.attributes import names_of, with_values
from voxdask.equation import Equation, equation_of
from voxdask.grid import SPATIAL_DIMS, Grid, dataset, per_dim
from voxdask.model import Model
from voxdask.simulate import simulate
from voxdask.steppers import Stepper
from voxdask.symbols import Coordinate, Parameter, Position, t

Known = Any | Callable[[sp.Expr, Position], Any]


class Case:
    """A model with known functions for its fields, auxiliary fields and coefficients, on grids of any size."""

    def __init__(
        self,
        model: Model,
        exact: Mapping[str, Known],
        dims: tuple[str, ...],
        extent: float | Mapping[str, float],
        node_centred: Sequence[str],
        boundary: Any,
    ) -> None:
        unknown = [dim for dim in dims if dim not in SPATIAL_DIMS]
        if unknown:
            raise ValueError(f"dims holds {unknown[0]!r}; a known function is one of x, y, z and t")
        self.model, self.dims, self.boundary = model, dims, boundary
        self.extent = dict(zip(dims, per_dim(extent, dims, "extent"), strict=True))
        self.node_centred = (node_centred,) if isinstance(node_centred, str) else tuple(node_centred)
        self.positions = [Coordinate(dim, real=True) for dim in dims]
        self.known = {name: self._expression(name, e) for name, e in exact.items()}
        given = equation_of(model)
        if given.family is not None:
            raise NotImplementedError(
                f"{type(model).__name__} has a family of fields along {given.family.dim!r}; an order study takes "
                "single fields, so compare model.right_hand_side with its exact values and hand the errors to an "
                "OrderStudy"
            )
        attributes = names_of(model)
        self.coefficients = tuple(name for name in self.known if name in attributes)
        for name in (*given.fields, *given.auxiliary, *given.coefficients):
            if name not in self.known:
                raise ValueError(f"exact has no entry for {name!r}; it has {', '.join(map(repr, self.known))}")
        for name in self.known:
            if name not in (*given.fields, *given.auxiliary, *self.coefficients):
                raise ValueError(f"exact holds {name!r}, which is no field or parameter of {type(model).__name__}")
        self._functions = self.functions(self.known)
        self.equation: Equation = equation_of(self.on(self.grid(4)[0], 0.0)[0])

    def _expression(self, name: str, known: Known) -> sp.Expr:
        expression = known
        if callable(known) and not isinstance(known, sp.Basic):
            expression = known(t, Position())
        try:
            expression = sp.sympify(expression, strict=True)
        except sp.SympifyError:
            raise TypeError(
                f"exact[{name!r}] is a {type(known).__name__}; give an expression in vd.x, vd.y, vd.z and vd.t"
            ) from None
        stray = sorted(map(str, expression.free_symbols - {*self.positions, t}))
        if stray:
            raise ValueError(
                f"exact[{name!r}] uses the symbol {stray[0]!r}, which is neither vd.t nor one of "
                f"{', '.join(f'vd.{dim}' for dim in self.dims)}"
            )
        return expression

    def functions(self, expressions: Mapping[str, sp.Expr]) -> dict[str, Callable[[Grid, float], np.ndarray]]:
        """Each expression as a function of a grid and a time."""
        return {name: self._function(e) for name, e in expressions.items()}

    def _function(self, expression: sp.Expr) -> Callable[[Grid, float], np.ndarray]:
        compiled = sp.lambdify([*self.positions, t], expression, "numpy", cse=True)

        def values(grid: Grid, time: float) -> np.ndarray:
            places = np.meshgrid(*map(grid.coordinate, grid.dims), indexing="ij", sparse=True)
            return np.array(np.broadcast_to(compiled(*places, time), grid.shape), dtype=np.float64)

        return values

    @property
    def rates(self) -> dict[str, sp.Expr]:
        """The exact rate of change of every field, in coordinates and time alone."""
        numbers = self._numbers()
        return {
            name: continuum.exact(e, self.known, self.dims).xreplace(numbers)
            for name, e in zip(self.equation.fields, self.equation.expressions, strict=True)
        }

    def _numbers(self) -> dict[sp.Expr, sp.Expr]:
        return {Parameter(n, real=True): sp.Float(value) for n, value in self.equation.parameters.items()}

    def grid(self, n: int) -> tuple[Grid, Any]:
        """The grid of n intervals along every axis, and the boundary on it."""
        spacing = tuple(self.extent[dim] / n for dim in self.dims)
        origin = tuple(0.0 if dim in self.node_centred else h / 2 for dim, h in zip(self.dims, spacing, strict=True))
        grid = Grid(self.dims, (n,) * len(self.dims), spacing, origin, node_centred=self.node_centred)
        axes = boundaries.parse(self._condition(grid), grid)
        shape = tuple(n + (axis.node_centred and not axis.periodic) for axis in axes)
        grid = dataclasses.replace(grid, shape=shape)
        return grid, self._condition(grid)

    def _condition(self, grid: Grid) -> Any:
        return self.boundary(grid) if callable(self.boundary) else self.boundary

    def on(self, grid: Grid, time: float) -> tuple[Model, xr.Dataset]:
        """The model with its coefficients on a grid, and all known functions there."""
        ds = dataset(
            {name: f(grid, time) for name, f in self._functions.items()},
            spacing=grid.spacing,
            origin=grid.origin,
            dims=grid.dims,
            node_centred=grid.node_centred,
        )
        if not self.coefficients:
            return self.model, ds
        return with_values(self.model, {name: ds[name] for name in self.coefficients}), ds

    def with_source(self) -> Model:
        """The model with the source that makes the known functions its solution; coefficients become auxiliary."""
        numbers, equation, rates = self._numbers(), self.equation, self.rates
        for name in (*equation.auxiliary, *equation.coefficients):
            if self.known[name].has(t):
                raise ValueError(f"exact[{name!r}] changes in time, but the model is given it once; leave out vd.t")
        expressions = tuple(
            e.xreplace(numbers) + sp.diff(self.known[name], t) - rates[name]
            for name, e in zip(equation.fields, equation.expressions, strict=True)
        )

        @dataclass(frozen=True)
        class Manufactured(Model):
            fields: ClassVar[tuple[str, ...]] = equation.fields
            auxiliary: ClassVar[tuple[str, ...]] = (*equation.auxiliary, *equation.coefficients)

            def rhs(self, t: Any, *fields: Any) -> Any:
                return expressions

            def reference(self) -> Mapping[str, float]:
                return equation.reference

        return Manufactured()


class Solution:
    """A manufactured solution: runs of the equation with the source that makes known functions solve it.

    Parameters
    ----------
    case : Case
    stepper : str or Stepper
    t_end : float
        End of the runs, which start at 0.
    """

    def __init__(self, case: Case, stepper: str | Stepper, t_end: float) -> None:
        self.case, self.stepper, self.t_end = case, stepper, t_end
        self.model = case.with_source()
        self._known = case.functions({name: case.known[name] for name in case.equation.fields})

    def run(self, n: int, steps: int) -> tuple[Grid, dict[str, np.ndarray]]:
        """The grid of n intervals, and the fields at the end."""
        grid, condition = self.case.grid(n)
        result = simulate(
            self.model,
            self.case.on(grid, 0.0)[1],
            dt=self.t_end / steps,
            steps=steps,
            stepper=self.stepper,
            boundary=condition,
            progress=False,
        )
        return grid, {name: result[name].values[-1] for name in self._known}

    def exact(self, grid: Grid) -> dict[str, np.ndarray]:
        """The known functions at the end."""
        return {name: function(grid, self.t_end) for name, function in self._known.items()}


def distance(found: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]) -> float:
    """The largest difference over all fields."""
    return max(float(np.abs(found[name] - known[name]).max()) for name in known)
