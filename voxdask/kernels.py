"""Compiled programs: plain functions of padded arrays that declare their halo.

NumPy arrays run through numba, without the interpreter's lock, so that threads work side by side;
compiled code is cached on disk. CuPy arrays run through CUDA C. Nothing here knows where a block came
from or what lies beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from voxdask import backend
from voxdask.compiling import checked, load_device, run_host
from voxdask.loops import Loop, Update, loops_of, update_of
from voxdask.loopsource import cuda_source, numba_source
from voxdask.lowering import Program, inlined
from voxdask.printing import Scalars
from voxdask.strips import strip_lines

__all__ = ["Kernel", "Update", "compile_program", "update_of"]


class Strip(NamedTuple):
    """Lines of a block along its second axis, the first of them and how many."""

    first: int
    lines: int


@dataclass(frozen=True)
class _Call:
    """How one loop is called: which arrays it writes and reads, how far it reaches, whether it takes a strip."""

    name: str
    writes: tuple[str, ...]
    reads: tuple[str, ...]
    coordinates: tuple[str, ...]
    margin: int
    in_strips: bool


@dataclass(frozen=True)
class Kernel:
    """A program ready to run on padded blocks; cheap to send to another process.

    Attributes
    ----------
    axes : tuple of str
        Names of the array axes, in storage order.
    inputs, outputs : tuple of str
        Arrays that are read (padded by `halo` on every side) and results.
    coordinates : tuple of str
        Axes along which the positions of the padded block are needed.
    halo : int
        Depth of the ghost layers of every input.
    output_margin : int
        How far beyond the region of interest the outputs reach.
    parameters : tuple of str
        Numbers that a call supplies.
    host : tuple of str
        Source of each loop; those that kernels share are compiled once.
    """

    axes: tuple[str, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    coordinates: tuple[str, ...]
    halo: int
    output_margin: int
    parameters: tuple[str, ...]
    numbers: tuple[float, ...]
    updates: tuple[Update, ...]
    calls: tuple[_Call, ...]
    device_calls: tuple[_Call, ...]
    host: tuple[str, ...]
    device: str

    def __call__(
        self,
        blocks: Mapping[str, Any],
        positions: Mapping[str, Any],
        parameters: Mapping[str, float],
        out: Mapping[str, Any] | None = None,
        scales: Sequence[float] = (),
        empty: Callable[..., Any] | None = None,
    ) -> dict[str, Any]:
        """Evaluate every stage on a padded block.

        Parameters
        ----------
        blocks : mapping of str to array
            Every input, padded by `halo`; and, for update m, its bases ``base<m>_<k>_<output>``, padded by its margin
            along all axes but the first.
        positions : mapping of str to 1-D array
            Coordinates of the padded block along `coordinates`.
        parameters : mapping of str to float
        out : mapping of str to array, optional
            C-contiguous results to write into: outputs, or ``target<m>_<output>`` for updates, padded likewise.
        scales : sequence of float
            For each update the coefficients of its bases, then the weight of the result.
        empty : callable, optional
            ``empty(name, shape, dtype)`` gives the arrays that stages write; a fresh one by default.

        Returns
        -------
        dict of str to array

        Raises
        ------
        ValueError
            If an array does not fit.
        """
        bound = Bound(self, blocks, positions, out, scales, empty)
        packed, last = bound.scalars(parameters), bound.calls[-1]
        results = {name: bound.target(last, name) for name in last.writes}
        for strip in bound.strips():
            for call in bound.calls:
                written = results if call is last else {n: bound.target(call, n, strip) for n in call.writes}
                bound.run(call, list(written.values()), call.reads, packed, strip)
                if call is not last:  # a result may be named like an input, which the next strip reads
                    bound.arrays.update(written)
        return results


class Bound:
    """One call of a kernel: the arrays that its loops read and write, checked before they do.

    Attributes
    ----------
    arrays : dict of str to array
        What loops may read, by name; whoever runs one adds what it wrote.
    """

    def __init__(
        self,
        kernel: Kernel,
        blocks: Mapping[str, Any],
        positions: Mapping[str, Any],
        out: Mapping[str, Any] | None,
        scales: Sequence[float],
        empty: Callable[..., Any] | None,
    ) -> None:
        some = blocks[kernel.inputs[0]]
        self.kernel, self.blocks, self.out, self.scales, self.empty = kernel, blocks, out or {}, scales, empty
        self.xp, self.dtype = backend.namespace(some), some.dtype
        self.shape = tuple(n - 2 * kernel.halo for n in some.shape)
        self.along = {axis: self.xp.asarray(positions[axis], dtype=self.dtype) for axis in kernel.coordinates}
        for axis, places in self.along.items():
            checked(f"positions along {axis}", places, (some.shape[kernel.axes.index(axis)],), self.dtype)
        self.arrays = {name: checked(name, blocks[name], some.shape, self.dtype) for name in kernel.inputs}
        host = self.xp is np
        self.calls = kernel.calls if host else kernel.device_calls
        self.in_strips = host and self.calls[-1].in_strips  # a device has no such cache
        if host:
            sources = zip(kernel.calls, kernel.host, strict=True)
            self.functions = {call.name: partial(run_host, source, call.name) for call, source in sources}
        else:
            module = load_device(kernel.device, self.dtype.char)
            self.functions = {call.name: module.get_function(call.name) for call in self.calls}

    def scalars(self, parameters: Mapping[str, float]) -> Any:
        """Parameters and numbers, as loops take them."""
        values = [*(parameters[name] for name in self.kernel.parameters), *self.kernel.numbers]
        return self.xp.asarray(values, dtype=self.dtype)

    def strips(self) -> list[Strip]:
        """What all loops run over before they go on to the next strip."""
        lines = self.shape[1] if len(self.shape) > 1 else 1
        # one loop makes nothing for another, and results that reach further would overlap
        if not self.in_strips or len(self.calls) == 1 or self.kernel.output_margin:
            return [Strip(0, lines)]
        width = strip_lines(self.shape, self.kernel.halo, self.dtype.itemsize)
        return [Strip(first, min(width, lines - first)) for first in range(0, lines, width)]

    def target(self, call: _Call, name: str, strip: Strip | None = None, buffer: str | None = None) -> Any:
        """An array for a result: the caller's, or a new one, under another name if that is given.

        What one loop makes for another is as wide as a `strip`; without one, all lines are there.
        """
        extent, given = self._extent(call, name, strip), self.out.get(name) if call is self.calls[-1] else None
        if given is None:
            create = self.empty or (lambda _, shape, dtype: self.xp.empty(shape, dtype))
            given = create(buffer or name, extent, self.dtype)
        return checked(name, given, extent, self.dtype)

    def run(self, call: _Call, written: Sequence[Any], names: Sequence[str], packed: Any, strip: Strip) -> None:
        """Run one loop over a strip: what it writes, the names of what it reads, and its scalars."""
        arrays = self.arrays
        read = [
            arrays[n] if n in arrays else checked(n, self.blocks[n], self._extent(call, n), self.dtype) for n in names
        ]
        last = [self.dtype.type(scale) for scale in self.scales] if call is self.calls[-1] else []
        where = strip if self.in_strips else ()
        values = (*written, *read, *(self.along[axis] for axis in call.coordinates), packed, *last, *where)
        if self.xp is np:
            self.functions[call.name](*values)
        else:  # there arguments end with the extents
            extent = self._extent(call)
            backend.launch(self.functions[call.name], extent, (*values, *map(np.int32, extent)))

    def _extent(self, call: _Call, name: str | None = None, strip: Strip | None = None) -> tuple[int, ...]:
        """How large the region is that a loop runs over, or a base or target of it."""
        updates = self.kernel.updates if name and call is self.calls[-1] else ()
        around = updates[update_of(name)].margin if updates and name else 0
        shape = (self.shape[0], strip.lines, *self.shape[2:]) if strip and len(self.shape) > 1 else self.shape
        return tuple(n + 2 * (call.margin + (around if a else 0)) for a, n in enumerate(shape))


def compile_program(program: Program, updates: tuple[Update, ...] = ()) -> Kernel:
    """Print a program's kernels; they are compiled at the first call, once for each dtype.

    Parameters
    ----------
    program : Program
    updates : tuple of Update
        What to write instead of the result r, for every update; fuses an explicit stage.

    Returns
    -------
    Kernel

    Examples
    --------
    >>> import numpy as np
    >>> from voxdask.lowering import lower
    >>> from voxdask.symbols import Field, laplace
    >>> kernel = compile_program(lower((laplace(Field("u")),), ("du",), ("x",)))
    >>> kernel({"u": np.arange(6.0) ** 2}, {}, {"inverse_spacing_x": 1.0})["du"]
    array([2., 2., 2., 2.])
    """
    return _compile(program, tuple(updates))


@lru_cache(maxsize=256)
def _compile(program: Program, updates: tuple[Update, ...]) -> Kernel:
    if not program.inputs:
        raise ValueError("the equation reads no field, so nothing says how large its result is")
    scalars, loops = Scalars(program.parameters), loops_of(program, updates)
    one = inlined(program)
    on_device = loops if one is None else loops_of(one, updates)
    needed = {axis for loop in loops for axis in loop.coordinates}
    return Kernel(
        axes=program.axes,
        inputs=program.inputs,
        outputs=program.outputs,
        coordinates=tuple(axis for axis in program.axes if axis in needed),
        halo=program.halo,
        output_margin=program.output_margin,
        parameters=program.parameters,
        updates=updates,
        calls=_calls_of(loops),
        device_calls=_calls_of(on_device),
        host=tuple(numba_source(loop, scalars) for loop in loops),
        device=cuda_source(on_device, scalars),
        numbers=scalars.values(),  # printing collects them
    )


def _calls_of(loops: Sequence[Loop]) -> tuple[_Call, ...]:
    return tuple(
        _Call(loop.name, loop.writes, loop.reads, loop.coordinates, loop.margin, loop.in_strips) for loop in loops
    )
