"""A model on a grid: everything that a tile function needs to know, and no field.

A :class:`System` is small and can be sent to another process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import sympy as sp

from voxdask.boundary import Axis
from voxdask.equation import Equation, Weight, dt
from voxdask.familykernel import compile_family
from voxdask.filters import Filter, Gains, compile_filter
from voxdask.grid import Grid
from voxdask.kernels import Kernel, Update, compile_program
from voxdask.lowering import Program, lower
from voxdask.nodes import Field
from voxdask.pencil import SCALE, TRANSFORMED, GridTransform, saved_name

#: What a semi-implicit step adds, and what comes of it, in the kernel that does so.
CHANGE, SUM = "spectral.change", "sum"


@dataclass(frozen=True, eq=False)
class System:
    """A model discretised on a grid under boundary conditions.

    Attributes
    ----------
    grid : Grid
    axes : tuple of Axis
        The grid's axes with their ends.
    dtype : dtype
        Of the fields.
    fields : tuple of str
        Unknowns.
    constants : tuple of str
        Auxiliary fields and coefficients that vary in space.
    parameters : dict of str to float
        Numbers that kernels and filters read, without the time.
    transform : GridTransform
    weights : dict of str to Weight
        What semi-implicit steps multiply unknowns by.
    total : float, optional
        What the members of a family must sum to at the start.
    """

    grid: Grid
    axes: tuple[Axis, ...]
    dtype: np.dtype[Any]
    fields: tuple[str, ...]
    constants: tuple[str, ...]
    parameters: dict[str, float]
    transform: GridTransform
    weights: dict[str, Weight]
    total: float | None = None

    def ends(self, name: str) -> tuple[Axis, ...]:
        """The axes as an array sees them: coefficients are mirrored where fields are not periodic."""
        return self.axes if name in self.fields else tuple(axis.mirrored() for axis in self.axes)

    def padded_rows(self, count: int, depth: int) -> tuple[int, ...]:
        """The shape of rows of a field with ghost layers along all axes but the first."""
        return (count, *(n + 2 * depth for n in self.grid.shape[1:]))

    def values(self, time: float, **more: float) -> dict[str, float]:
        """The parameters at a time."""
        return {**self.parameters, "t": time, **more}

    def positions(self, axis: str, lo: int, hi: int, depth: int) -> np.ndarray:
        """Coordinates of positions lo - depth ... hi + depth - 1 along an axis."""
        a = self.grid.axis(axis)
        return (self.grid.origin[a] + self.grid.spacing[a] * np.arange(lo - depth, hi + depth)).astype(self.dtype)


def discretise(
    equation: Equation,
    grid: Grid,
    axes: tuple[Axis, ...],
    dtype: np.dtype[Any],
    maxima: Mapping[str, float],
    wavenumbers: Literal["spectral", "stencil"] = "spectral",
    fft: str = "scipy",
) -> System:
    """Put an equation on a grid.

    Parameters
    ----------
    equation : Equation
    grid : Grid
    axes : tuple of Axis
        See :func:`voxdask.boundary.parse`.
    dtype : dtype
        float32 or float64.
    maxima : mapping of str to float
        Largest value of each auxiliary field and coefficient, for the stiff part.
    wavenumbers : {"spectral", "stencil"}
    fft : str
        Name of the library that transforms arrays in memory.

    Returns
    -------
    System
    """
    parameters = dict(equation.parameters)
    parameters |= {f"inverse_spacing_{dim}": 1 / h for dim, h in zip(grid.dims, grid.spacing, strict=True)}
    parameters |= {f"max_{name}": value for name, value in maxima.items()}
    return System(
        grid=grid,
        axes=axes,
        dtype=np.dtype(dtype),
        fields=equation.unknowns,
        constants=(*equation.auxiliary, *equation.coefficients),
        parameters=parameters,
        transform=GridTransform(axes, np.dtype(dtype), wavenumbers, fft),
        weights=equation.weights,
        total=equation.family.total if equation.family else None,
    )


class Operators:
    """The compiled operators of an equation on a grid, made when they are first asked for.

    Parameters
    ----------
    equation : Equation
    dims : tuple of str
    """

    def __init__(self, equation: Equation, dims: tuple[str, ...]) -> None:
        self.equation, self.dims = equation, dims
        self.program: Program = equation.program(dims)

        self._rates: dict[tuple[Update, ...], Kernel] = {}
        self._filters: dict[Any, tuple[Filter, ...]] = {}

    def rate(self, updates: tuple[Update, ...] = ()) -> Kernel:
        """The right-hand side, or updates by it."""
        if updates not in self._rates:
            self._rates[updates] = self.compile(self.program, updates)
        return self._rates[updates]

    def compile(self, program: Program, updates: tuple[Update, ...] = ()) -> Kernel:
        """The kernel of a program that reads the fields of the equation."""
        family = self.equation.family
        if family is None:
            return compile_program(program, updates)
        return compile_family(program, family.members, tuple(family.parameters), updates)

    def update(self, name: str, update: Update) -> Kernel:
        """What adds a change to states of an unknown, divided by its weight if it has one."""
        weight, change = self.equation.weights.get(name), Field(CHANGE, real=True)
        if weight is not None:
            change /= sp.Max(Field(weight.field, real=True), sp.Float(weight.least))
        return compile_program(lower((change,), (SUM,), self.dims), (update,))

    def filters(self, gain: Callable[..., tuple[sp.Expr, ...]], saved: int = 0) -> tuple[Filter, ...]:
        """One filter for each unknown, from a stepper's function of the step, the stiff rate and spectra.

        Parameters
        ----------
        gain : callable
            ``gain(dt, rate, r, *saved)``, linear in the spectra; see :meth:`voxdask.steppers.Fields.implicit`.
        saved : int
            Number of spectra that were saved before.
        """
        if gain not in self._filters:
            self._filters[gain] = tuple(
                compile_filter(_gains(gain, symbol, saved), self.dims) for symbol in self.equation.symbols(self.dims)
            )
        return self._filters[gain]


def _gains(gain: Callable[..., tuple[sp.Expr, ...]], rate: sp.Expr, saved: int) -> Gains:
    """What becomes of every spectrum: the coefficients of a function that is linear in spectra."""
    names = [TRANSFORMED, *(saved_name(k) for k in range(saved))]
    spectra = [sp.Dummy(name, real=True) for name in names]
    back, *kept = (sp.sympify(e) for e in gain(dt, rate, *spectra))
    results = [SCALE * back, *kept]
    targets = [TRANSFORMED, *(saved_name(k) for k in range(len(results) - 1))]
    return tuple(
        (target, tuple((n, c) for n, s in zip(names, spectra, strict=True) if (c := sp.diff(e, s)) != 0))
        for target, e in zip(targets, results, strict=True)
    )


def saved_in(names: Iterable[str]) -> tuple[str, ...]:
    """The spectra among some that steps keep from one evaluation to the next.

    Examples
    --------
    >>> saved_in(("transformed", "saved0"))
    ('saved0',)
    """
    return tuple(name for name in names if name != TRANSFORMED)
