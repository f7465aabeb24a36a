"""A model's attributes: which of them are numbers and arrays of its equation, and how to put in others.

Tuples and frozen dataclasses among them are looked into: what a model's attribute ``potential`` holds under
``interaction`` is the parameter ``potential_interaction``, what stands second in ``diffusivity`` is ``diffusivity_1``.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import xarray as xr

from voxdask.symbols import Field, Parameter

_Model = TypeVar("_Model")


def symbolic_copy(model: Any) -> tuple[Any, dict[str, float], dict[str, xr.DataArray]]:
    """A copy of the model whose numbers are parameters and whose arrays are fields.

    Attributes that are annotated ``int`` or ``tuple[int, ...]`` stay what they are, and so do those whose dataclass
    field has ``metadata={"symbolic": False}``.

    Parameters
    ----------
    model : Model
        A dataclass.

    Returns
    -------
    copy : Model
    parameters : dict of str to float
    coefficients : dict of str to DataArray

    Raises
    ------
    ValueError
        If a number is not finite, or two have one name.

    Examples
    --------
    >>> import voxdask as vd
    >>> model = vd.models.CahnHilliard(2.0, potential=vd.models.RegularSolution(interaction=3.0))
    >>> symbolic_copy(model)[1]
    {'eps': 2.0, 'diffusivity': 1.0, 'potential_interaction': 3.0, 'potential_scale': 1.0}
    """
    kind = type(model).__name__
    parameters: dict[str, float] = {}
    coefficients: dict[str, xr.DataArray] = {}

    def symbol(name: str, value: Any) -> Any:
        array = isinstance(value, xr.DataArray)
        if not array and not _is_number(value):
            return value
        if name in parameters or name in coefficients:
            raise ValueError(f"{kind} uses the name {name!r} for two things; rename one")
        if array:
            coefficients[name] = value
            return Field(name, real=True)
        if not math.isfinite(value):
            raise ValueError(f"{kind}.{name} is {value}; a parameter must be finite")
        parameters[name] = float(value)
        return Parameter(name, real=True)

    return _copied(model, "", symbol), parameters, coefficients


def names_of(model: Any) -> tuple[str, ...]:
    """The names under which :func:`with_values` can put in something else.

    Parameters
    ----------
    model : Model

    Returns
    -------
    tuple of str
    """
    return tuple(_names(model, ""))


def with_values(model: _Model, values: Mapping[str, Any]) -> _Model:
    """A copy of the model with other attributes, by name; the new ones are checked as those of any model.

    Parameters
    ----------
    model : Model
    values : mapping of str to anything

    Returns
    -------
    Model

    Raises
    ------
    ValueError
        If the model has nothing of such a name.

    Examples
    --------
    >>> import voxdask as vd
    >>> model = vd.models.CahnHilliard(2.0, potential=vd.models.RegularSolution(interaction=3.0))
    >>> with_values(model, {"potential_interaction": 2.5}).potential.interaction
    2.5
    """
    known = names_of(model)
    for name in values:
        if name not in known:
            raise ValueError(f"{type(model).__name__} has no {name!r}; it has {', '.join(known)}")
    changed: _Model = _replaced(model, "", values)
    return changed


def _copied(value: Any, name: str, leaf: Callable[[str, Any], Any]) -> Any:
    """A copy with ``leaf(name, value)`` in place of what tuples and dataclasses hold."""
    if isinstance(value, tuple):
        return _tuple_like(value, [_copied(item, below, leaf) for below, item in _items(value, name)])
    if not _is_record(value) and name:
        return leaf(name, value)
    copy = object.__new__(type(value))
    for attribute, below, item in _attributes(value, name):
        object.__setattr__(copy, attribute.name, _copied(item, below, leaf) if _is_symbolic(attribute) else item)
    return copy


def _replaced(value: Any, name: str, values: Mapping[str, Any]) -> Any:
    if name in values:
        return values[name]
    if isinstance(value, tuple):
        return _tuple_like(value, [_replaced(item, below, values) for below, item in _items(value, name)])
    if not _is_record(value) and name:
        return value
    changes = {a.name: (item, _replaced(item, below, values)) for a, below, item in _attributes(value, name) if a.init}
    changes = {attribute: new for attribute, (old, new) in changes.items() if new is not old}
    return dataclasses.replace(value, **changes) if changes else value


def _names(value: Any, name: str) -> Iterator[str]:
    if name:
        yield name
    if isinstance(value, tuple):
        for below, item in _items(value, name):
            yield from _names(item, below)
    elif _is_record(value) or not name:
        for attribute, below, item in _attributes(value, name):
            if attribute.init:
                yield from _names(item, below)


def _items(value: tuple[Any, ...], name: str) -> Iterator[tuple[str, Any]]:
    return ((f"{name}_{i}", item) for i, item in enumerate(value))


def _attributes(value: Any, name: str) -> Iterator[tuple[dataclasses.Field[Any], str, Any]]:
    for attribute in dataclasses.fields(value):
        yield attribute, f"{name}_{attribute.name}" if name else attribute.name, getattr(value, attribute.name)


def _tuple_like(value: tuple[Any, ...], items: list[Any]) -> tuple[Any, ...]:
    """The items as a tuple of the same kind; the tuple itself if they are its own."""
    if all(new is old for new, old in zip(items, value, strict=True)):
        return value
    return type(value)(*items) if hasattr(value, "_fields") else tuple(items)


def _is_record(value: Any) -> bool:
    """Whether this is an instance of a frozen dataclass."""
    if isinstance(value, type) or not dataclasses.is_dataclass(value):
        return False
    return bool(getattr(value, "__dataclass_params__").frozen)  # noqa: B009 (unknown to type checkers)


def _is_symbolic(attribute: dataclasses.Field[Any]) -> bool:
    whole = attribute.type in (int, "int") or str(attribute.type).startswith("tuple[int,")
    return not whole and bool(attribute.metadata.get("symbolic", True))


def _is_number(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)
