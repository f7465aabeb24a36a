"""One step each: a method is a few lines of mathematics over operations on fields."""

from __future__ import annotations

from typing import Any

from voxdask.control import PID
from voxdask.steppers.adaptive import Adaptive, AdaptiveIMEX, Attempt, is_adaptive
from voxdask.steppers.base import RATE, Fields, State, Stepper, Target, Terms
from voxdask.steppers.chebyshev import RKC1, RKC2
from voxdask.steppers.explicit import RK4, Euler
from voxdask.steppers.exponential import ETD1, ETDRK4
from voxdask.steppers.semi_implicit import IMEX, SBDF2
from voxdask.steppers.tsit5 import Tsit5

__all__ = [
    "ETD1",
    "ETDRK4",
    "IMEX",
    "PID",
    "RATE",
    "RK4",
    "RKC1",
    "RKC2",
    "SBDF2",
    "Adaptive",
    "AdaptiveIMEX",
    "Attempt",
    "Euler",
    "Fields",
    "State",
    "Stepper",
    "Target",
    "Terms",
    "Tsit5",
    "is_adaptive",
    "stepper_of",
]

_BY_NAME: dict[str, type[Any]] = {
    stepper.__name__.lower(): stepper
    for stepper in (Euler, RK4, RKC1, RKC2, IMEX, SBDF2, ETD1, ETDRK4, Tsit5, AdaptiveIMEX)
}


def stepper_of(stepper: str | Stepper) -> Stepper:
    """A stepper by name, or as it is given.

    Parameters
    ----------
    stepper : str or Stepper
        "euler", "rk4", "rkc1", "rkc2", "imex", "sbdf2", "etd1", "etdrk4", "tsit5" or "adaptiveimex".

    Returns
    -------
    Stepper

    Raises
    ------
    ValueError
        For an unknown name.
    TypeError
        For something that is no stepper.

    Examples
    --------
    >>> stepper_of("imex")
    IMEX(wavenumbers='spectral')
    """
    if isinstance(stepper, str):
        if stepper not in _BY_NAME:
            raise ValueError(f"stepper is {stepper!r}; use one of {', '.join(map(repr, _BY_NAME))}, or an instance")
        return _BY_NAME[stepper]()  # type: ignore[no-any-return]
    if isinstance(stepper, type):
        raise TypeError(f"stepper is the class {stepper.__name__}; give an instance of it, {stepper.__name__}()")
    if lacking := [name for name in ("step", "order", "registers", "spectra", "history") if not hasattr(stepper, name)]:
        raise TypeError(
            f"stepper is a {type(stepper).__name__}; give a name or an instance from vd.steppers, or what has "
            f"{', '.join(lacking)} too, as vd.steppers.Stepper says"
        )
    return stepper
