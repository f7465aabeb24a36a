"""Orders of convergence, measured: of the right-hand side in space, of the solution in space and in time.

All studies start from known functions; see :mod:`voxdask.manufactured`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from voxdask import boundary as boundaries
from voxdask.manufactured import Case, Known, Solution, distance
from voxdask.model import Model
from voxdask.steppers import Stepper
from voxdask.studies import ErrorSurface, OrderStudy, check_refinements

__all__ = ["ErrorSurface", "OrderStudy", "error_surface", "rhs_order", "solution_order"]

#: How much smaller than the smallest step that of the reference run is.
_REFERENCE_RATIO = 16


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
    case = Case(model, exact, tuple(dims), extent, node_centred, boundary)
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
        known = {name: rate(grid, time)[free] for name, rate in rates.items()}
        errors.append(distance({name: found[name].values[free] for name in rates}, known))
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
    solution = Solution(Case(model, exact, tuple(dims), extent, node_centred, boundary), stepper, t_end)

    def steps_of(step: float) -> int:
        return math.ceil(t_end / step * (1 - 1e-9)) if vary == "h" else _whole_steps(t_end, step)

    finest = None
    if against == "finest":
        n, smallest = min(resolutions, key=lambda resolution: resolution[1])
        finest = solution.run(n, steps_of(smallest / _REFERENCE_RATIO))[1]
    spacings, errors = [], []
    for n, step in resolutions:
        grid, end = solution.run(n, steps_of(step))
        spacings.append(grid.spacing[0] if vary == "h" else step)
        errors.append(distance(end, solution.exact(grid) if finest is None else finest))
    return OrderStudy(vary, tuple(spacings), tuple(errors))


def error_surface(
    model: Model,
    exact: Mapping[str, Known],
    stepper: str | Stepper,
    *,
    t_end: float,
    dt: Sequence[float],
    sizes: Sequence[int] = (8, 12, 16, 24),
    extent: float | Mapping[str, float] = 1.0,
    dims: Sequence[str] = ("x",),
    boundary: Any = "periodic",
    node_centred: Sequence[str] = (),
) -> ErrorSurface:
    r"""Errors of the solution over grid spacing and time step, by the method of manufactured solutions.

    .. math:: e(h, \Delta t) = \max_i \left| u_{h, \Delta t}(x_i, t_{end}) - u^*(x_i, t_{end}) \right|

    Parameters
    ----------
    model, exact, stepper, t_end, extent, dims, boundary, node_centred
        As for :func:`solution_order`.
    dt : sequence of float
        Four time steps or more, each a fraction of `t_end`.
    sizes : sequence of int
        Four grids or more, as for :func:`rhs_order`.

    Returns
    -------
    ErrorSurface

    Raises
    ------
    TypeError, ValueError
        As for :func:`solution_order`.

    References
    ----------
    Roache (2002), J. Fluids Eng. 124, 4, doi:10.1115/1.1436090

    Examples
    --------
    >>> import voxdask as vd
    >>> wave = 0.5 + 0.3 * vd.exp(-vd.t) * vd.sin(6.283185307179586 * vd.x)
    >>> surface = error_surface(vd.models.ReactionDiffusion(0.1), {"c": wave}, "imex", t_end=1.0,
    ...                         dt=(0.1, 0.05, 0.025, 0.0125))
    >>> round(surface.space_order, 1), round(surface.time_order, 1)
    (1.9, 1.0)
    """
    counts, steps = _check_sizes(sizes), [step for _, step in _time_refinements(1, dt)]
    solution = Solution(Case(model, exact, tuple(dims), extent, node_centred, boundary), stepper, t_end)
    spacings, errors = [], []
    for n in counts:
        ends = [solution.run(n, _whole_steps(t_end, step)) for step in steps]
        grid = ends[0][0]
        spacings.append(grid.spacing[0])
        errors.append(tuple(distance(end, solution.exact(grid)) for _, end in ends))
    return ErrorSurface(tuple(spacings), tuple(steps), tuple(errors))


def _whole_steps(t_end: float, step: float) -> int:
    steps = round(t_end / step)
    if abs(steps * step - t_end) > 1e-6 * step:
        raise ValueError(f"t_end={t_end:g} is not a whole number of steps of dt={step:g}")
    return steps


def _check_sizes(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, Sequence):
        raise TypeError(f"sizes is {sizes!r}; give a sequence of numbers of voxels")
    check_refinements("sizes", sizes)
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
    check_refinements("dt", dt)
    if not isinstance(sizes, int):
        raise TypeError(f"sizes is {sizes!r}; with vary='dt' give one number of voxels")
    return [(sizes, step) for step in dt]
