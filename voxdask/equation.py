"""What an equation says, read off a model's ``rhs`` once: symbols, parameters, coefficients."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import sympy as sp
import xarray as xr

from voxdask.attributes import symbolic_copy
from voxdask.families import JOINING, MEMBERS
from voxdask.lowering import Program, fourier_symbol, lower
from voxdask.members import member_name
from voxdask.symbols import Field, Parameter, Vector, t

#: How common names of parameters are written in LaTeX, unless another symbol is written so.
_SHORT = {"eps": "varepsilon", "epsilon": "varepsilon", "diffusivity": "D", "mobility": "M"}

#: Names that an equation gives a meaning of its own.
_RESERVED = ("t", "x", "y", "z", "dt")


@dataclass(frozen=True)
class Weight:
    """What semi-implicit steps multiply an unknown by, so that the sum of the product is conserved.

    Attributes
    ----------
    field : str
        An auxiliary field, such as an indicator.
    least : float
        The weight is not below this.
    """

    field: str
    least: float = 0.0


@dataclass(frozen=True)
class Family:
    """What makes each field of a model a family: a scalar field for every index of a leading dim.

    Attributes
    ----------
    dim : str
        Name of the dim.
    parameters : dict of str to DataArray
        Parameters of which every member has one, along that dim.
    total : float, optional
        What the members of a dataset must sum to.
    members : int
        How many there are; 0 before a dataset says so.
    """

    dim: str
    parameters: dict[str, xr.DataArray]
    total: float | None = None
    members: int = 0


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
    weights : dict of str to Weight
        What semi-implicit steps multiply unknowns by.
    limits : dict of str to (float, float)
        Between which values an auxiliary field may lie.
    stiffness : float
        How many times stiffer than in the uniform state the equation may be.
    family : Family, optional
        If every field is one; `expressions` are those of one member.
    """

    fields: tuple[str, ...]
    auxiliary: tuple[str, ...]
    expressions: tuple[sp.Expr, ...]
    parameters: dict[str, float]
    coefficients: dict[str, xr.DataArray]
    reference: dict[str, float]
    weights: dict[str, Weight] = dataclasses.field(default_factory=dict)
    limits: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    stiffness: float = 1.0
    family: Family | None = None

    @property
    def unknowns(self) -> tuple[str, ...]:
        """Names of the scalar fields that change: the fields, or the members of each."""
        return self._each(self.fields)

    @property
    def rates(self) -> tuple[str, ...]:
        """Names of the results of a program: the rate of change of each unknown."""
        return self._each(tuple(map(rate_name, self.fields)))

    def _each(self, names: tuple[str, ...]) -> tuple[str, ...]:
        if self.family is None:
            return names
        return tuple(member_name(name, k) for name in names for k in range(self.family.members))

    def of_members(self, members: int) -> Equation:
        """The equation of a family of so many members, each with its parameters."""
        if self.family is None:
            return self
        parameters = {**self.parameters, MEMBERS.name: float(members)}
        for name, values in self.family.parameters.items():
            if values.size != members:
                raise ValueError(
                    f"the model has {values.size} values of {name!r} along {self.family.dim!r}, the dataset {members}"
                )
            parameters |= {member_name(name, k): float(value) for k, value in enumerate(values.values)}
        family = dataclasses.replace(self.family, members=members)
        return dataclasses.replace(self, parameters=parameters, family=family)

    def program(self, axes: tuple[str, ...]) -> Program:
        """The stages of the right-hand side on a grid with these axes; those of one member of a family."""
        rates = tuple(map(rate_name, self.fields))
        family = self.fields if self.family else ()
        return lower(self.expressions, rates, axes, fallback=self.fields[0], family=family)

    def symbols(self, axes: tuple[str, ...]) -> tuple[sp.Expr, ...]:
        """The stiff growth rate of each unknown, in ``q_<axis>`` and parameters.

        A coefficient that varies in space enters with the parameter ``max_<name>``.
        """
        uniform = {name: sp.nsimplify(value, rational=True) for name, value in self.reference.items()}
        for name in (*self.auxiliary, *self.coefficients):
            uniform.setdefault(name, Parameter(f"max_{name}", positive=True))
        state, values = tuple(uniform.items()), tuple(self.parameters.items())
        times = sp.nsimplify(self.stiffness, rational=True)
        named, copies = zip(self.fields, self.expressions, strict=True), self.family.members if self.family else 1
        rates = [times * _stiff_rate(e, name, state, axes, values) for name, e in named]
        return tuple(rate for rate in rates for _ in range(copies))

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
    family = _family(model, symbolic, coefficients)
    own = tuple(family.parameters) if family else ()
    _check_names(kind, (*fields, *auxiliary, *coefficients), (*parameters, *own))
    result = symbolic.rhs(t, *map(_field, (*fields, *auxiliary)))
    results = tuple(result) if isinstance(result, tuple | list) else (result,)
    if len(results) != len(fields):
        raise TypeError(f"{kind}.rhs returned {len(results)} expressions for {len(fields)} fields {fields}")
    expressions = tuple(_right_hand_side(name, e) for name, e in zip(fields, results, strict=True))
    known = {*fields, *auxiliary, *parameters, *own, *coefficients, "t", "x", "y", "z"}
    for e in expressions:
        if e.has(*JOINING) and family is None:
            raise ValueError(f'{kind}.rhs joins members of a family, but {kind} has none; say family = "phase"')
        unknown = sorted(s.name for s in e.free_symbols if s.name not in known)
        if unknown:
            raise ValueError(f"{kind}.rhs uses {unknown[0]!r}, which is no field, parameter, coordinate or t")
    weights = dict(getattr(model, "weights", {}))
    for name, weight in weights.items():
        if name not in fields or weight.field not in auxiliary:
            raise ValueError(f"{kind}.weights says {name!r}: {weight.field!r}; give a field and an auxiliary field")
    limits = dict(getattr(model, "limits", {}))
    for name in limits:
        if name not in auxiliary:
            raise ValueError(f"{kind}.limits names {name!r}; give an auxiliary field")
    reference = dict(model.reference())
    stiffness = float(getattr(model, "stiffness", 1.0))
    return Equation(
        fields, auxiliary, expressions, parameters, coefficients, reference, weights, limits, stiffness, family
    )


def _family(model: HasEquation, symbolic: Any, coefficients: dict[str, xr.DataArray]) -> Family | None:
    """The family of a model, if it has one; coefficients along its dim are parameters of its members."""
    dim, total = getattr(model, "family", None), getattr(model, "family_total", None)
    if dim is None:
        return None
    if dim != "phase":
        raise ValueError(f"{type(model).__name__}.family is {dim!r}; the dim of a family is 'phase'")
    own = {name: values for name, values in coefficients.items() if values.dims == (dim,)}
    for name, values in own.items():
        if not np.isfinite(values.values).all():
            raise ValueError(f"{type(model).__name__}.{name} holds NaN or infinity; a parameter must be finite")
        del coefficients[name]
        object.__setattr__(symbolic, name, Parameter(name, real=True))
    return Family(dim, own, total)


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
