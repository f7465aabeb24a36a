"""What a run is made of, in words and numbers: for its attributes, and to be the same where another goes on with it."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from voxdask.boundary import End
from voxdask.equation import HasEquation
from voxdask.prepare import Prepared
from voxdask.steppers import Stepper

#: Times at which a function is asked for its value, to be told from others; one of arrays over a face only at the few.
_FEW_TIMES = (0.0, 1e-3, 0.7, 5.0, 300.0)
_MANY_TIMES = tuple(np.geomspace(1e-3, 1e6, 361).tolist())


def description(model: HasEquation, prepared: Prepared, stepper: Stepper, dt: float | None) -> dict[str, Any]:
    """What made a run, for its attributes and for one that goes on with it."""
    equation, system = prepared.operators.equation, prepared.system
    return {
        "model": type(model).__name__,
        "equation": "; ".join(map(str, equation.expressions)),
        "parameters": equation.parameters,
        "stepper": repr(stepper),
        "boundary": {axis.dim: [end_in_words(axis.lo), end_in_words(axis.hi)] for axis in system.axes},
        "dt": "automatic" if dt is None else float(dt),
    }


def start_of(prepared: Prepared, start: float) -> dict[str, Any]:
    """What a run that goes on with another must share beside, as far as that takes no reading."""
    grid, equation = prepared.system.grid, prepared.operators.equation
    return {
        "start_time": start,
        "stiff_part": {
            "reference": {name: float(value) for name, value in equation.reference.items()},
            "stiffness": equation.stiffness,
            "weights": {name: [weight.field, weight.least] for name, weight in equation.weights.items()},
        },
        "dtype": str(prepared.system.dtype),
        "grid": {
            "dims": grid.dims,
            "shape": grid.shape,
            "spacing": grid.spacing,
            "origin": grid.origin,
            "node_centred": grid.node_centred,
        },
    }


def as_text(value: Any) -> Any:
    """A value as any file format can hold it as an attribute."""
    return value if isinstance(value, str | float) else json.dumps(value)


def end_in_words(end: End) -> str:
    """An end of an axis in words that stay the same from run to run; a function by its values at many times."""
    value = end.value
    if end.kind == "periodic":
        return end.kind
    if not callable(value):
        return f"{end.kind} {_value_in_words(value, repr)}"
    samples = [_sample(value, time) for time in _FEW_TIMES]
    if not any(sample.startswith("array") for sample in samples):
        more = " ".join(_sample(value, time) for time in _MANY_TIMES)
        samples.append(f"{zlib.crc32(more.encode()):08x}")
    return f"{end.kind} function {' '.join(samples)}"


def _sample(function: Callable[[float], Any], time: float) -> str:
    try:
        with np.errstate(all="ignore"):
            return _value_in_words(function(time), "{:.9g}".format)  # on other processors the last digits may differ
    except Exception:  # a function may not be defined at every time
        return "-"


def _value_in_words(value: Any, number: Callable[[float], str]) -> str:
    if isinstance(value, xr.DataArray):
        return f"array {zlib.crc32(value.values.tobytes()):08x}"
    return number(float(value))
