"""What an equation says, read off a model's ``rhs`` once: symbols, parameters, coefficients."""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import sympy as sp
import xarray as xr

from voxdask.lowering import Program, fourier_symbol, lower
from voxdask.symbols import Field, Parameter, Vector, t

#: How common names of parameters are written in LaTeX, unless another symbol is written so.
_SHORT = {"eps": "varepsilon", "epsilon": "varepsilon", "diffusivity": "D", "mobility": "M"}

#: Names that an equation gives a meaning of its own.
_RESERVED = ("t", "x", "y", "z", "dt")

#: The time step, as it stands in a stepper's function of the stiff rate.
dt = Parameter("dt", positive=True)


class HasEquation(Protocol):
    """A frozen dataclass of parameters with the names of its fields and a right-hand side."""

    @property
    def fields(self) -> tuple[str, ...]: ...

    @property
    def auxiliary(self) -> tuple[str, ...]: ...

    def rhs(self, t: sp.Expr, *fields: sp.Expr) -> Any: ...

    def reference(self) -> Mapping[str, float]: ...


@dataclass(frozen=True, eq=False)
class Equation:
    """The symbolic right-hand sides of a model, and the values of what stands in them.

    Attributes
    ----------
    fields : tuple of str
        Unknowns.
    auxiliary : tuple of str
        Fields that the dataset supplies and that do not change.
    expressions : tuple of Expr
        One right-hand side for each unknown.
    parameters : dict of str to float
        Numbers, by the name of the model's attribute.
    coefficients : dict of str to DataArray
        Parameters that vary in space.
    reference : dict of str to float
        The uniform state about which the stiff part is linearised.
    """

    fields: tuple[str, ...]
    auxiliary: tuple[str, ...]
    expressions: tuple[sp.Expr, ...]
    parameters: dict[str, float]
    coefficients: dict[str, xr.DataArray]
    reference: dict[str, float]

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of the results of a program: the rate of change of each unknown."""
        return tuple(rate_name(name) for name in self.fields)

    def program(self, axes: tuple[str, ...]) -> Program:
        """The stages of the right-hand side on a grid with these axes."""
        return lower(self.expressions, self.rates, axes, fallback=self.fields[0])

    def symbols(self, axes: tuple[str, ...]) -> tuple[sp.Expr, ...]:
        """The stiff growth rate of each unknown, in ``q_<axis>`` and parameters.

        A coefficient that varies in space enters with the parameter ``max_<name>``.
        """
        uniform = {name: sp.nsimplify(value, rational=True) for name, value in self.reference.items()}
        for name in (*self.auxiliary, *self.coefficients):
            uniform.setdefault(name, Parameter(f"max_{name}", positive=True))
        state, values = tuple(uniform.items()), tuple(self.parameters.items())
        return tuple(
            _stiff_rate(e, name, state, axes, values) for e, name in zip(self.expressions, self.fields, strict=True)
        )

    def latex(self) -> str:
        """The equations as LaTeX, one line each."""
        symbols = set().union(*(e.free_symbols for e in self.expressions), map(_field, self.fields))
        taken = {s.name for s in symbols}
        names = {s: _latex_name(_SHORT[s.name] if _SHORT.get(s.name, s.name) not in taken else s.name) for s in symbols}
        lines = (
            rf"\partial_t {names[_field(name)]} &= {sp.latex(e, symbol_names=names)}"
            for name, e in zip(self.fields, self.expressions, strict=True)
        )
        return r"\begin{aligned}" + r"\\ ".join(lines) + r"\end{aligned}"


def _latex_name(name: str) -> str:
    """A symbol in LaTeX: Greek by its name, a single letter in italics, a word upright."""
    word, *below = name.split("_")
    text = str(sp.latex(sp.Symbol(word)))
    if len(word) > 1 and text == word:
        text = rf"\mathrm{{{word}}}"
    rest = ",".join(_latex_name(part) for part in below if part)
    return f"{text}_{{{rest}}}" if rest else text


def _field(name: str) -> Field:
    return Field(name, real=True)


@lru_cache(maxsize=256)
def _stiff_rate(
    expression: sp.Expr,
    name: str,
    uniform: tuple[tuple[str, sp.Expr], ...],
    axes: tuple[str, ...],
    values: tuple[tuple[str, float], ...],
) -> sp.Expr:
    return fourier_symbol(expression, name, dict(uniform), axes, dict(values))


def rate_name(field: str) -> str:
    """Name of the array that holds the rate of change of a field."""
    return f"{field}.rate"


def equation_of(model: HasEquation) -> Equation:
    """Read a model's equation by calling its ``rhs`` with symbols in place of numbers and fields.

    Parameters
    ----------
    model : Model

    Returns
    -------
    Equation

    Raises
    ------
    TypeError
        If the model is no dataclass, names no fields, or its ``rhs`` returns something that is not one
        scalar expression for each field.
    ValueError
        If a name stands for two things, or ``rhs`` uses a symbol that is neither a field, a parameter, a
        coordinate nor the time.
    """
    kind = type(model).__name__
    if isinstance(model, type):
        raise TypeError(f"model is the class {model.__name__}; give an instance of it, {model.__name__}()")
    if not hasattr(model, "rhs"):
        raise TypeError(f"model is a {type(model).__name__}; give an instance of a class with rhs(self, t, *fields)")
    if not dataclasses.is_dataclass(model):
        raise TypeError(f"{kind} must be a dataclass: decorate it with @dataclass(frozen=True)")
    fields, auxiliary = _names(model, "fields"), _names(model, "auxiliary")
    if not fields:
        raise TypeError(f'{kind}.fields must be a tuple of names such as ("c",), got ()')
    symbolic, parameters, coefficients = symbolic_copy(model)
    _check_names(kind, (*fields, *auxiliary, *coefficients), tuple(parameters))
    result = symbolic.rhs(t, *map(_field, (*fields, *auxiliary)))
    results = tuple(result) if isinstance(result, tuple | list) else (result,)
    if len(results) != len(fields):
        raise TypeError(f"{kind}.rhs returned {len(results)} expressions for {len(fields)} fields {fields}")
    expressions = tuple(_right_hand_side(name, e) for name, e in zip(fields, results, strict=True))
    known = {*fields, *auxiliary, *parameters, *coefficients, "t", "x", "y", "z"}
    for e in expressions:
        unknown = sorted(s.name for s in e.free_symbols if s.name not in known)
        if unknown:
            raise ValueError(f"{kind}.rhs uses {unknown[0]!r}, which is no field, parameter, coordinate or t")
    return Equation(fields, auxiliary, expressions, parameters, coefficients, dict(model.reference()))


def _names(model: HasEquation, attribute: str) -> tuple[str, ...]:
    names = getattr(model, attribute, ())
    if isinstance(names, str) or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise TypeError(f'{type(model).__name__}.{attribute} must be a tuple of names such as ("c",), got {names!r}')
    return tuple(names)


def _check_names(kind: str, arrays: tuple[str, ...], parameters: tuple[str, ...]) -> None:
    """Every name stands for one thing; those of coordinates, time and step are taken."""
    seen: set[str] = set()
    for name in (*arrays, *parameters):
        if name in _RESERVED or name.startswith("inverse_spacing_") or (name == "time" and name in arrays):
            raise ValueError(f"{kind} names a field or parameter {name!r}, which means something else; rename it")
        if name in seen or (name in parameters and name.removeprefix("max_") in arrays):
            raise ValueError(f"{kind} uses the name {name!r} for two things; rename one")
        seen.add(name)


def _right_hand_side(field: str, e: Any) -> sp.Expr:
    if isinstance(e, Vector):
        raise TypeError(f"the right-hand side of {field!r} is a vector; take div() or dot() of it")
    try:
        expression = sp.sympify(e, strict=True)
    except sp.SympifyError:
        expression = None
    if not isinstance(expression, sp.Expr):
        raise TypeError(f"the right-hand side of {field!r} is a {type(e).__name__}; return an expression")
    return expression


def symbolic_copy(model: HasEquation) -> tuple[Any, dict[str, float], dict[str, xr.DataArray]]:
    """A copy of the model whose numbers are parameters and whose arrays are fields."""
    copy = object.__new__(type(model))
    parameters: dict[str, float] = {}
    coefficients: dict[str, xr.DataArray] = {}
    for attribute in dataclasses.fields(model):  # type: ignore[arg-type]
        name, value = attribute.name, getattr(model, attribute.name)
        symbol: Any = value
        if isinstance(value, xr.DataArray):
            coefficients[name] = value
            symbol = _field(name)
        elif _is_number(value) and attribute.type not in (int, "int"):
            parameters[name] = float(value)
            if not math.isfinite(value):
                raise ValueError(f"{type(model).__name__}.{name} is {value}; a parameter must be finite")
            symbol = Parameter(name, real=True)
        object.__setattr__(copy, name, symbol)
    return copy, parameters, coefficients


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
