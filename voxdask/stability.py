"""The largest step that an explicit stepper survives, estimated from the stiff part."""

from __future__ import annotations

import warnings

import sympy as sp

from voxdask.prepare import Prepared
from voxdask.steppers.base import Stepper


def stable_step(prepared: Prepared, stepper: Stepper, time: float = 0.0) -> float:
    """The step at which the fastest decaying mode of the linearised equation starts to grow.

    Parameters
    ----------
    prepared : Prepared
    stepper : Stepper
        Its attribute ``real_limit`` is the length of its stability interval on the negative real axis.
    time : float, default 0
        When coefficients that depend on time are taken.

    Returns
    -------
    float
        Infinite without a stiff part, or for a stepper that treats it implicitly.
    """
    limit = getattr(stepper, "real_limit", None)
    if limit is None:
        return float("inf")
    system, steepest = prepared.system, 0.0
    known = system.values(time)
    for axis in system.axes:
        squares = axis.transform().squared_wavenumbers(axis.spacing, "stencil", half=False)
        known[f"q_{axis.dim}"] = float(squares.max(initial=0.0))
    for symbol in prepared.operators.equation.symbols(system.grid.dims):
        rate = sp.sympify(symbol).subs({s: known[s.name] for s in symbol.free_symbols})
        steepest = max(steepest, -float(rate))
    return float(limit / steepest) if steepest > 0 else float("inf")


def warn_if_unstable(prepared: Prepared, stepper: Stepper, dt: float, time: float = 0.0) -> None:
    """Warn when `dt` is beyond the stable step at a time, and name that.

    Of an equation that is singular in every uniform state nothing is known, and explicit steps need not know it.
    """
    try:
        stable = stable_step(prepared, stepper, time)
    except ValueError:
        return
    if dt > stable:
        warnings.warn(
            f"dt={dt:g} is beyond the stable step of {type(stepper).__name__}, about {stable:.3g} here; "
            'use that, or stepper="imex"',
            UserWarning,
            stacklevel=3,
        )
