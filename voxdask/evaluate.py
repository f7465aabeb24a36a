"""Evaluate a program on a dataset, as one block or lazily on Dask slabs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dask.array as da
import numpy as np
import sympy as sp
import xarray as xr

from voxdask import backend, halo
from voxdask.block import BlockFields
from voxdask.chunked import ChunkedFields, ChunkedState, split_arrays
from voxdask.equation import Equation
from voxdask.kernels import Kernel, compile_program
from voxdask.lowering import Program, adjoint, cotangent_name, lower, tangent, tangent_name
from voxdask.planning import plan_in_memory
from voxdask.plans import Plan
from voxdask.prepare import Prepared, in_dtype, on_grid, prepare, wrap
from voxdask.problem import Problem

#: Lazy results do not ask how much memory there is: whoever computes them schedules.
_PLENTY = 1 << 62
_SLAB_BYTES = 64 << 20


def problem_of(prepared: Prepared, registers: int = 1, spectra: int = 0) -> Problem:
    """What a plan depends on, read off a prepared system."""
    system, program = prepared.system, prepared.operators.program
    shape, dtype = system.transform.spectrum_shape, system.transform.spectrum_dtype
    return Problem(
        shape=system.grid.shape,
        itemsize=system.dtype.itemsize,
        fields=len(system.fields),
        constants=len(system.constants),
        inner=program.inner(len(system.fields) // len(program.family or system.fields)),
        halo=program.halo,
        registers=registers,
        spectra=spectra,
        columns=shape[1],
        mode_bytes=int(np.prod(shape[2:], dtype=int)) * dtype.itemsize,
    )


def right_hand_side(equation: Equation, ds: xr.Dataset, boundary: Any, time: float) -> xr.Dataset:
    """The rates of change of every unknown; see :meth:`voxdask.Model.right_hand_side`."""
    prepared = prepare(equation, ds, boundary)
    kernel = prepared.operators.rate()
    results = evaluate(prepared, kernel, time, release=True)
    read = prepared.operators.equation
    return wrap(prepared, {name: results[rate] for name, rate in zip(read.unknowns, read.rates, strict=True)})


def expressions(
    equation: Equation, named: Mapping[str, sp.Expr], ds: xr.Dataset, boundary: Any, time: float = 0.0
) -> xr.Dataset:
    """Other expressions in the symbols of an equation, on a dataset that fits it."""
    prepared = prepare(equation, ds, boundary)
    family = equation.fields if equation.family else ()
    program = lower(tuple(named.values()), tuple(named), prepared.system.grid.dims, family=family)
    return wrap(prepared, evaluate(prepared, prepared.operators.compile(program), time, release=False))


def evaluate(prepared: Prepared, kernel: Kernel, time: float, *, release: bool) -> dict[str, Any]:
    """The outputs of a kernel that reads fields and constants; `release` sets them to zero at held nodes."""
    system = prepared.system
    threads = 1 if prepared.lazy else backend.cpu_count()
    plan = plan_in_memory(problem_of(prepared), memory_limit=_PLENTY, threads=threads, why="an evaluation")
    if prepared.lazy:
        return _lazily(prepared, plan, kernel, time, release)
    given = {**prepared.fields, **prepared.constants}
    there = any(map(backend.is_device_array, prepared.fields.values()))
    bring = backend.to_device if there else backend.to_host
    arrays = {n: in_dtype(bring(a), system.dtype) for n, a in given.items()}
    fields = BlockFields(system, prepared.operators, plan, {}, backend.a_device_array() if there else None)
    try:
        return fields.evaluate(kernel, time, arrays, release=release)
    finally:
        fields.close()


def _lazily(prepared: Prepared, plan: Plan, kernel: Kernel, time: float, release: bool) -> dict[str, Any]:
    system = prepared.system
    rows = max(_SLAB_BYTES // plan.problem.row_bytes, kernel.halo, 1)
    lazy = [a for a in prepared.fields.values() if isinstance(a, da.Array)]
    rows = min(rows, system.grid.shape[0], *(max(a.chunks[0]) for a in lazy))
    plan = plan_in_memory(plan.problem, memory_limit=_PLENTY, threads=1, chunked=True, chunk_rows=rows, why=plan.reason)

    def slabs(arrays: Mapping[str, Any]) -> dict[str, list[Any]]:
        return split_arrays({n: a.astype(system.dtype, copy=False) for n, a in arrays.items()}, plan.slab_rows)

    constants = slabs(prepared.constants)
    fields = ChunkedFields(system, prepared.operators, plan, constants)
    state = ChunkedState(slabs(prepared.fields))
    return {name: fields.array(chunks) for name, chunks in fields.rates(time, state, kernel, release=release).items()}


def derivative(
    equation: Equation, ds: xr.Dataset, change: xr.Dataset, boundary: Any, time: float, transpose: bool
) -> xr.Dataset:
    """The tangent or adjoint of the right-hand side at a state, applied to a change or a sensitivity.

    Works on one block; see :meth:`voxdask.Model.tangent` and :meth:`voxdask.Model.adjoint`.
    """
    if equation.family is not None:
        raise NotImplementedError("there is no tangent or adjoint of an equation that joins the members of a family")
    prepared = prepare(equation, ds, boundary)
    system = prepared.system
    given = {**prepared.fields, **prepared.constants}
    arrays = {n: np.asarray(backend.to_host(a), system.dtype) for n, a in given.items()}
    label = "sensitivity" if transpose else "change"
    changes = {}
    for name in equation.fields:
        if name not in change:
            raise ValueError(f"the {label} has no field {name!r}, which the model has")
        changes[name] = np.array(
            backend.to_host(on_grid(f"{label} of {name}", change[name], system.grid)), system.dtype, order="C"
        )
    for block in changes.values():
        halo.release(block, 0, system.axes)
    program = prepared.operators.program
    if transpose:
        return wrap(prepared, _transposed(prepared, program, arrays, changes, time))
    kernel = compile_program(tangent(program, system.fields))
    inputs: dict[str, tuple[Any, Any]] = {n: (a, system.ends(n)) for n, a in arrays.items()}
    inputs |= {tangent_name(n): (a, tuple(x.homogeneous() for x in system.axes)) for n, a in changes.items()}
    results = _on_block(prepared, kernel, inputs, time)
    rates = {n: results[tangent_name(r)] for n, r in zip(equation.fields, equation.rates, strict=True)}
    for block in rates.values():
        halo.release(block, 0, system.axes)
    return wrap(prepared, rates)


def _transposed(
    prepared: Prepared, program: Program, arrays: Mapping[str, Any], weights: Mapping[str, Any], time: float
) -> dict[str, Any]:
    system = prepared.system
    kernel = compile_program(adjoint(program, system.fields))
    inputs: dict[str, tuple[Any, Any]] = {n: (a, system.ends(n)) for n, a in arrays.items()}
    for name, rate in zip(system.fields, prepared.operators.equation.rates, strict=True):
        inputs[cotangent_name(rate)] = (weights[name], None)
    results = _on_block(prepared, kernel, inputs, time)
    return {n: halo.fold(results[cotangent_name(n)], kernel.output_margin, system.axes) for n in system.fields}


def _on_block(prepared: Prepared, kernel: Kernel, inputs: Mapping[str, tuple[Any, Any]], time: float) -> dict[str, Any]:
    """Run a kernel on a whole block; an array without ends is padded with zeros."""
    system, depth = prepared.system, kernel.halo
    shape = tuple(n + 2 * depth for n in system.grid.shape)
    core = tuple(slice(depth, depth + n) for n in system.grid.shape)
    blocks = {}
    for name in kernel.inputs:
        array, axes = inputs[name]
        blocks[name] = np.zeros(shape, system.dtype)
        if axes is None:
            blocks[name][core] = array
        else:
            halo.pad(halo.ArrayRows(array), 0, shape[0] - 2 * depth, depth, axes, time, blocks[name])
    positions = {
        axis: system.positions(axis, 0, system.grid.shape[system.grid.axis(axis)], depth) for axis in kernel.coordinates
    }
    return kernel(blocks, positions, system.values(time))
