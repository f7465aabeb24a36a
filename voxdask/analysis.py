"""The vocabulary of equations applied to data: integrals, and operators on DataArrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr

from voxdask import boundary as boundaries
from voxdask import evaluate, symbols
from voxdask.attributes import symbolic_copy
from voxdask.equation import Equation, HasEquation, equation_of
from voxdask.grid import Grid
from voxdask.symbols import Field


def integral(model: HasEquation, density: Callable[..., Any], ds: xr.Dataset, boundary: Any) -> xr.DataArray:
    """The integral over the grid of a method of a model, such as its energy density.

    Parameters
    ----------
    model : Model
    density : callable
        A bound method of `model`, taking its fields.
    ds : Dataset
        With a time dim, one integral for each frame.
    boundary : str, Dirichlet, Neumann, tuple or mapping

    Returns
    -------
    DataArray
    """
    equation = equation_of(model)
    method = getattr(symbolic_copy(model)[0], density.__name__)
    e = sp.sympify(method(*(Field(n, real=True) for n in (*equation.fields, *equation.auxiliary))))
    if "time" not in ds.dims:
        values = evaluate.expressions(equation, {"density": e}, ds, boundary)
        return weighted_sum(values["density"], boundary)
    frames = [
        weighted_sum(evaluate.expressions(equation, {"density": e}, ds.isel(time=i), boundary)["density"], boundary)
        for i in range(ds.sizes["time"])
    ]
    return xr.concat(frames, "time")


def weighted_sum(values: xr.DataArray, boundary: Any = "periodic") -> xr.DataArray:
    """The integral of a field by the midpoint rule, by the trapezoidal rule along node-centred axes.

    Parameters
    ----------
    values : DataArray
    boundary : str, Dirichlet, Neumann, tuple or mapping
        Along a node-centred axis that is not periodic, end nodes count half.

    Returns
    -------
    DataArray
        In float64, the field's unit times volume.
    """
    grid = Grid.from_dataset(values)
    total = values
    for axis in boundaries.parse(boundary, grid):
        if axis.node_centred and not axis.periodic:
            weight = np.ones(axis.size)
            weight[[0, -1]] = 0.5
            total = total * xr.DataArray(weight, dims=[axis.dim])
    return total.sum(grid.dims, dtype=np.float64) * float(np.prod(grid.spacing))


def _on_dataarray(e: Callable[[sp.Expr], sp.Expr], u: xr.DataArray, boundary: Any) -> xr.Dataset:
    name = "u"
    field = Field(name, real=True)
    equation = Equation((name,), (), (sp.Integer(0),), {}, {}, {name: 0.0})
    ds = u.to_dataset(name=name)
    return evaluate.expressions(equation, {"result": e(field)}, ds, boundary)


@symbols.laplace.register
def _(u: xr.DataArray, *, boundary: Any = "periodic") -> xr.DataArray:
    return _on_dataarray(symbols.laplace, u, boundary)["result"].rename(u.name)


@symbols.normal_laplace.register
def _(u: xr.DataArray, *, boundary: Any = "periodic") -> xr.DataArray:
    return _on_dataarray(symbols.normal_laplace, u, boundary)["result"].rename(u.name)


@symbols.tangential_laplace.register
def _(u: xr.DataArray, *, boundary: Any = "periodic") -> xr.DataArray:
    return _on_dataarray(symbols.tangential_laplace, u, boundary)["result"].rename(u.name)


@symbols.grad.register
def _(u: xr.DataArray, *, boundary: Any = "periodic") -> xr.Dataset:
    field = Field("u", real=True)
    equation = Equation(("u",), (), (sp.Integer(0),), {}, {}, {"u": 0.0})
    dims = Grid.from_dataset(u).dims
    components = {f"{u.name or 'u'}_{dim}": symbols.Component(symbols.Gradient(field), sp.Symbol(dim)) for dim in dims}
    return evaluate.expressions(equation, components, u.to_dataset(name="u"), boundary)


for _function, _ufunc in (
    (symbols.exp, np.exp),
    (symbols.log, np.log),
    (symbols.sqrt, np.sqrt),
    (symbols.sin, np.sin),
    (symbols.cos, np.cos),
    (symbols.tanh, np.tanh),
):
    _function.register(xr.DataArray, _ufunc)  # type: ignore[attr-defined]
