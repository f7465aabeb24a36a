"""What models share: checks of what they are given, and functions of the unknown among their parameters."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp
import xarray as xr

from voxdask.model import require_not_negative
from voxdask.symbols import Position, Vector


def require_number(name: str, value: Any) -> None:
    """Raise unless this is a finite real number.

    Parameters
    ----------
    name : str
        What it is called in the error.
    value : anything

    Raises
    ------
    TypeError, ValueError
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}; give a number")
    if not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; it must be finite")


def check_factor(name: str, value: Any) -> None:
    """Raise unless this is a positive number, a DataArray, a function of the unknown, or a tuple of these.

    Parameters
    ----------
    name : str
        What it is called in the error.
    value : anything

    Raises
    ------
    TypeError, ValueError
    """
    if isinstance(value, tuple):
        if not value:
            raise ValueError(f"{name} is an empty tuple; give one factor or more")
        for i, factor in enumerate(value):
            check_factor(f"{name}[{i}]", factor)
        return
    if isinstance(value, xr.DataArray):
        require_not_negative(name, value)
        return
    if callable(value):
        return
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        raise TypeError(
            f"{name} is {value!r}; give a number, a DataArray, a function of the unknown, or a tuple of these"
        )
    if not (math.isfinite(value) and float(value) > 0):
        raise ValueError(f"{name} is {value!r}; it must be positive and finite")


def product(name: str, factor: Any, u: Any) -> Any:
    """The value of what :func:`check_factor` accepts, where the unknown is `u`.

    Parameters
    ----------
    name : str
        What it is called in errors.
    factor : expression, callable or tuple of these
    u : expression

    Returns
    -------
    expression

    Raises
    ------
    TypeError
        If a function returns anything but a scalar expression.

    Examples
    --------
    >>> from voxdask.symbols import Field
    >>> product("diffusivity", (2, lambda c: 1 + c**2), Field("c"))
    2*c**2 + 2
    """
    if isinstance(factor, tuple):
        result = product(f"{name}[0]", factor[0], u)
        for i, other in enumerate(factor[1:], start=1):
            result = result * product(f"{name}[{i}]", other, u)
        return result
    return called(name, factor, u) if callable(factor) else factor


def check_callable(name: str, value: Any, arguments: str) -> None:
    """Raise TypeError unless this is None or can be called.

    Parameters
    ----------
    name : str
    value : anything
    arguments : str
        What it is called with, for the error.

    Raises
    ------
    TypeError
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name} is a {type(value).__name__}; give a function {name}({arguments}), or None")


def called(name: str, function: Callable[..., Any], *arguments: Any) -> sp.Expr:
    """What a function from outside returns, if that is one scalar expression.

    Parameters
    ----------
    name : str
        What it is called in the error.
    function : callable
    *arguments
        What it is called with.

    Returns
    -------
    Expr

    Raises
    ------
    TypeError
        If it takes another number of arguments, or returns a vector, an array, several expressions or none.
    ValueError
        If it returns what is not finite, or complex.

    Examples
    --------
    >>> import voxdask as vd
    >>> called("potential", lambda c: (c, c), vd.x)
    Traceback (most recent call last):
    TypeError: potential returned a tuple; it must return one scalar expression, such as c * (1 - c)
    """
    _check_arguments(name, function, arguments)
    try:
        value = function(*arguments)
    except TypeError as error:
        error.add_note(f"{name} is read once, in symbols: write it with vd.sin, vd.clip, ... instead of NumPy and if")
        raise
    try:
        expression = None if isinstance(value, Vector | bool) else sp.sympify(value, strict=True)
    except (sp.SympifyError, ValueError):
        expression = None
    if not isinstance(expression, sp.Expr):
        raise TypeError(
            f"{name} returned a {type(value).__name__}; it must return one scalar expression, such as c * (1 - c)"
        )
    if expression.has(sp.nan, sp.zoo, sp.I) or expression.is_infinite:
        raise ValueError(f"{name} returned {expression}, which is no finite real number")
    return expression


def _check_arguments(name: str, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Raise TypeError if a function, as far as can be known, does not take these arguments."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some compiled functions have none
        return
    try:
        signature.bind(*arguments)
    except TypeError as error:
        count = f"{len(arguments)} argument{'s' * (len(arguments) != 1)}"
        raise TypeError(f"{name}{signature} is called with {count}: {error}") from None


def with_source(change: Any, source: Callable[..., Any] | None, t: Any, u: Any) -> Any:
    """A rate of change and ``source(t, u, x)``, if there is one.

    Parameters
    ----------
    change : expression
    source : callable or None
    t, u : expression
        Time and the unknown.

    Returns
    -------
    expression

    Raises
    ------
    TypeError
        If the source is no scalar.
    """
    return change if source is None else change + called("source", source, t, u, Position())
