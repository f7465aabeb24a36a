"""Orders of convergence, measured: of the right-hand side in space, of the solution in space and in time.

Both studies start from a known function. Its exact rate of change is derived from the same equation as the
stencils (:func:`voxdask.continuum.exact`), so that nothing is written down twice.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import sympy as sp
import xarray as xr

from voxdask import boundary as boundaries
from voxdask import continuum
from voxdask.equation import Equation, equation_of
from voxdask.grid import SPATIAL_DIMS, Grid, dataset, per_dim
from voxdask.model import Model
from voxdask.simulate import simulate
from voxdask.steppers import Stepper
from voxdask.symbols import Coordinate, Parameter, Position, t

#: Fewer points than this don't tell a slope from an accident.
_LEAST_REFINEMENTS = 4
#: How much smaller than the smallest step that of the reference run is.
_REFERENCE_RATIO = 16

Known = Any | Callable[[sp.Expr, Position], Any]


@dataclass(frozen=True)
class OrderStudy:
    r"""Errors at several resolutions and the order fitted to them.

    .. math:: \log e_i \approx p \log h_i + \mathrm{const}

    Parameters
    ----------
    vary : {"h", "dt"}
        What was refined: the grid spacing or the time step.
    spacings : tuple of float
        Grid spacings along the first dim, or time steps.
    errors : tuple of float
        Largest error at each, in the units of what was compared.

    Raises
    ------
    ValueError
        If there are fewer than four refinements, as many errors as spacings are not given, or an error is zero
        or not finite, which leaves no slope to fit.

    Examples
    --------
    >>> study = OrderStudy("h", (0.8, 0.4, 0.2, 0.1), (0.64, 0.16, 0.04, 0.01))
    >>> print(study)
           h      error  order
         0.8       0.64
         0.4       0.16   2.00
         0.2       0.04   2.00
         0.1       0.01   2.00
    fitted order 2.00
    """

    vary: Literal["h", "dt"]
    spacings: tuple[float, ...]
    errors: tuple[float, ...]

    def __post_init__(self) -> None:
        _check_refinements("spacings", self.spacings)
        if len(self.errors) != len(self.spacings):
            raise ValueError(f"{len(self.errors)} errors do not fit {len(self.spacings)} spacings")
        if not all(math.isfinite(e) and e > 0 for e in self.errors):
            raise ValueError(
                f"errors are {self.errors}: with zeros or infinities among them there is no order to fit; "
                "choose a function that the discretisation does not represent exactly"
            )

    @property
    def order(self) -> float:
        """Slope of the logarithm of the error, by least squares over all refinements."""
        h, e = np.log(self.spacings), np.log(self.errors)
        h = h - h.mean()
        return float(h @ e / (h @ h))

    @property
    def orders(self) -> tuple[float, ...]:
        """Slope between each refinement and the next."""
        return tuple((np.diff(np.log(self.errors)) / np.diff(np.log(self.spacings))).tolist())

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for h, e, p in zip(self.spacings, self.errors, (None, *self.orders), strict=True):
            yield f"{h:.3g}", f"{e:.3g}", "" if p is None else f"{p:.2f}"

    def __str__(self) -> str:
        rows = [(self.vary, "error", "order"), *self._rows()]
        lines = [f"{h:>8}{e:>11}{p:>7}".rstrip() for h, e, p in rows]
        return "\n".join([*lines, f"fitted order {self.order:.2f}"])

    def _repr_html_(self) -> str:
        body = "".join(f"<tr><td>{h}</td><td>{e}</td><td>{p}</td></tr>" for h, e, p in self._rows())
        return (
            f"<table><thead><tr><th>{self.vary}</th><th>error</th><th>order</th></tr></thead><tbody>{body}</tbody>"
            f"<tfoot><tr><th colspan=2>fitted order</th><th>{self.order:.2f}</th></tr></tfoot></table>"
        )


def rhs_order(
    model: Model,
    exact: Mapping[str, Known],
    *,
    sizes: Sequence[int] = (16, 24, 32, 48, 64),
    extent: float | Mapping[str, float] = 1.0,
    dims: Sequence[str] = ("x",),
    boundary: Any = "periodic",
    node_centred: Sequence[str] = (),
    time: float = 0.0,
) -> OrderStudy:
    r"""Order in space of a model's right-hand side, in the maximum norm.

    .. math:: e(h) = \max_i \left| \mathrm{rhs}_h(u)_i - \mathrm{rhs}(u)(x_i) \right|

    Parameters
    ----------
    model : Model
    exact : mapping of str to expression or callable
        Every field and auxiliary field as a function of ``vd.x``, ``vd.y``, ``vd.z`` and ``vd.t``, or as a
        callable of t and the position (``lambda t, x: sin(x.x)``). The name of a parameter makes that a
        coefficient that varies in space, laid out anew on every grid. Where the equation clips a field, the
        function must stay within the limits, on the ghost layers too.
    sizes : sequence of int
        Voxels along every axis; intervals between nodes along node-centred ones. Four or more.
    extent : float or mapping by dim, default 1
        Length of the domain, which starts at zero.
    dims : sequence of str, default ("x",)
        Axes in storage order.
    boundary : str, Dirichlet, Neumann, tuple, mapping or callable, default "periodic"
        See :func:`voxdask.simulate`; a callable gets the Grid and returns one of these (for values over a
        face). `exact` must satisfy it. A ghost value is exact for functions that are odd about a Dirichlet
        value, and for those that are even about a Neumann end but for a linear part; the ghosts of other
        functions are off by O(h^2), which spoils the right-hand side, though not the solution, at the ends.
    node_centred : sequence of str
        Axes with samples at both ends (at one if periodic). Nodes that are held are left out of the error.
    time : float, default 0

    Returns
    -------
    OrderStudy

    Raises
    ------
    ValueError
        If there are fewer than four sizes, `exact` lacks a field, or names a symbol that is no axis of the grid.
    TypeError
        If an entry of `exact` is no expression.

    References
    ----------
    Roache (2002), J. Fluids Eng. 124, 4, doi:10.1115/1.1436090

    Examples
    --------
    >>> import voxdask as vd
    >>> wave = 0.5 + 0.3 * vd.sin(6.283185307179586 * vd.x)
    >>> round(rhs_order(vd.models.ReactionDiffusion(2.0), {"c": wave}).order, 1)
    2.0
    """
    counts = _check_sizes(sizes)
    case = _Case(model, exact, tuple(dims), extent, node_centred, boundary)
    rates = case.functions(case.rates)
    spacings, errors = [], []
    for n in counts:
        grid, condition = case.grid(n)
        sized, ds = case.on(grid, time)
        found = sized.right_hand_side(ds, boundary=condition, time=time)
        free = tuple(
            slice(int(0 in axis.held), axis.size - int(axis.size - 1 in axis.held))
            for axis in boundaries.parse(condition, grid)
        )
        spacings.append(grid.spacing[0])
        errors.append(max(_distance(found[f].values[free], rates[f](grid, time)[free]) for f in rates))
    return OrderStudy("h", tuple(spacings), tuple(errors))


def solution_order(
    model: Model,
    exact: Mapping[str, Known],
    stepper: str | Stepper,
    *,
    t_end: float,
    dt: float | Sequence[float],
    vary: Literal["h", "dt"] = "h",
    sizes: int | Sequence[int] = (16, 24, 32, 48),
    dt_power: float = 2.0,
    reference: Literal["exact", "finest"] | None = None,
    extent: float | Mapping[str, float] = 1.0,
    dims: Sequence[str] = ("x",),
    boundary: Any = "periodic",
    node_centred: Sequence[str] = (),
) -> OrderStudy:
    r"""Order of the solution in space or in time, by the method of manufactured solutions.

    The source that makes `exact` the solution is derived from the equation and added to it:

    .. math:: \partial_t u = \mathrm{rhs}(t, u) + s, \qquad s = \partial_t u^* - \mathrm{rhs}(t, u^*)

    Parameters
    ----------
    model : Model
    exact : mapping of str to expression or callable
        :math:`u^*`, as for :func:`rhs_order`.
    stepper : str or Stepper
    t_end : float
        End of the runs, which start at 0.
    dt : float or sequence of float
        Time step on the coarsest grid (``vary="h"``), or four or more steps, each a fraction of `t_end`
        (``vary="dt"``).
    vary : {"h", "dt"}, default "h"
        What is refined.
    sizes : int or sequence of int
        As for :func:`rhs_order` with ``vary="h"``; one number with ``vary="dt"``.
    dt_power : float, default 2
        With ``vary="h"`` the step shrinks as :math:`h^p` (rounded down to a fraction of `t_end`): 2 keeps the
        error in time of a first-order stepper in step, and an explicit one stable on diffusion; 4 does the
        latter for Cahn-Hilliard; 0 keeps the step.
    reference : {"exact", "finest"}, optional
        What runs are compared with, in the maximum norm at `t_end`. "exact" (default with ``vary="h"``) is
        :math:`u^*`. "finest" (default with ``vary="dt"``) is a run on the same grid with a sixteenth of the
        smallest step: free of the error in space, which otherwise hides that in time. It makes a first-order
        stepper look better by 0.03, and matters not for higher orders.
    extent, dims, boundary, node_centred
        As for :func:`rhs_order`.

    Returns
    -------
    OrderStudy

    Raises
    ------
    ValueError
        If there are fewer than four refinements, the finest reference is asked of a study in space, `exact`
        lacks a field or names a symbol that is no axis of the grid, a coefficient changes in time, or `t_end` is
        not a whole number of steps.
    TypeError
        If an entry of `exact` is no expression, or `sizes` or `dt` is a number where a sequence is needed, or the
        other way round.

    References
    ----------
    Roache (2002), J. Fluids Eng. 124, 4, doi:10.1115/1.1436090

    Examples
    --------
    >>> import voxdask as vd
    >>> wave = 0.5 + 0.3 * vd.exp(-vd.t) * vd.sin(6.283185307179586 * vd.x)
    >>> study = solution_order(vd.models.ReactionDiffusion(0.01), {"c": wave}, "imex", vary="dt", sizes=16,
    ...                        t_end=1.0, dt=(0.2, 0.1, 0.05, 0.025))
    >>> bool(abs(study.order - 1) < 0.1)
    True
    """
    if vary not in ("h", "dt"):
        raise ValueError(f"vary is {vary!r}; use 'h' or 'dt'")
    against = reference or ("exact" if vary == "h" else "finest")
    if against not in ("exact", "finest") or (vary == "h" and against == "finest"):
        raise ValueError(f"reference is {reference!r}; use 'exact', or 'finest' with vary='dt'")
    resolutions = _space_refinements(sizes, dt, dt_power) if vary == "h" else _time_refinements(sizes, dt)
    case = _Case(model, exact, tuple(dims), extent, node_centred, boundary)
    sourced, known = case.with_source(), case.functions({name: case.known[name] for name in case.equation.fields})

    def run(n: int, step: float) -> tuple[Grid, xr.Dataset]:
        grid, condition = case.grid(n)
        ds = case.on(grid, 0.0)[1]
        steps = math.ceil(t_end / step * (1 - 1e-9)) if vary == "h" else round(t_end / step)
        if vary == "dt" and abs(steps * step - t_end) > 1e-6 * step:
            raise ValueError(f"t_end={t_end:g} is not a whole number of steps of dt={step:g}")
        result = simulate(
            sourced, ds, dt=t_end / steps, steps=steps, stepper=stepper, boundary=condition, progress=False
        )
        return grid, result.isel(time=-1)

    finest = None
    if against == "finest":
        n, smallest = min(resolutions, key=lambda resolution: resolution[1])
        finest = run(n, smallest / _REFERENCE_RATIO)[1]
    spacings, errors = [], []
    for n, step in resolutions:
        grid, end = run(n, step)
        truth = {f: known[f](grid, t_end) if finest is None else finest[f].values for f in known}
        spacings.append(grid.spacing[0] if vary == "h" else step)
        errors.append(max(_distance(end[f].values, truth[f]) for f in known))
    return OrderStudy(vary, tuple(spacings), tuple(errors))


class _Case:
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
        attributes = {attribute.name for attribute in dataclasses.fields(model)}  # type: ignore[arg-type]
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
        return dataclasses.replace(self.model, **{name: ds[name] for name in self.coefficients}), ds  # type: ignore[type-var]

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


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def _check_refinements(name: str, values: Sequence[Any]) -> None:
    if len(set(values)) < _LEAST_REFINEMENTS:
        raise ValueError(f"{name} is {values!r}; an order needs at least {_LEAST_REFINEMENTS} different refinements")


def _check_sizes(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, Sequence):
        raise TypeError(f"sizes is {sizes!r}; give a sequence of numbers of voxels")
    _check_refinements("sizes", sizes)
    if not all(isinstance(n, int) and n >= 3 for n in sizes):
        raise ValueError(f"sizes is {sizes!r}; give whole numbers, 3 or more")
    return tuple(sizes)


def _space_refinements(sizes: Any, dt: Any, power: float) -> list[tuple[int, float]]:
    counts = _check_sizes(sizes)
    if isinstance(dt, Sequence):
        raise TypeError(f"dt is {dt!r}; with vary='h' give one number, the step on the coarsest grid")
    return [(n, dt * (min(counts) / n) ** power) for n in counts]


def _time_refinements(sizes: Any, dt: Any) -> list[tuple[int, float]]:
    if not isinstance(dt, Sequence):
        raise TypeError(f"dt is {dt!r}; with vary='dt' give a sequence of steps")
    _check_refinements("dt", dt)
    if not isinstance(sizes, int):
        raise TypeError(f"sizes is {sizes!r}; with vary='dt' give one number of voxels")
    return [(sizes, step) for step in dt]
