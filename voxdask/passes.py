"""What is done to a range of rows or columns, thin tile by thin tile, so that what is worked on stays in cache.

Plain functions of a :class:`Context` and of arrays: they know nothing of where these come from, nor of who
schedules. Every tier runs these.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from voxdask import backend, halo, tiles
from voxdask.filters import Filter
from voxdask.halo import Rows
from voxdask.kernels import Kernel
from voxdask.pencil import split
from voxdask.plans import Plan
from voxdask.system import Operators, System
from voxdask.tiles import Workspace


@dataclass(frozen=True, eq=False)
class Context:
    """What every pass of a run needs.

    Attributes
    ----------
    system : System
    rates : tuple of str
        Names of the rates of change, in the order of the fields.
    rows, columns : int
        Of a tile.
    transform_rows : int
        Of a tile that is transformed along the local axes, on the host; a device does best with all rows at once.
    sum_rows : int
        Of a tile of a sum of fields.
    threads : int
        That share what is done to a chunk.
    """

    system: System
    rates: tuple[str, ...]
    rows: int
    columns: int
    transform_rows: int
    sum_rows: int
    threads: int

    @classmethod
    def of(cls, system: System, operators: Operators, plan: Plan) -> Context:
        """What passes of a plan need."""
        return cls(
            system, operators.equation.rates, rows=plan.rows, columns=plan.columns, transform_rows=plan.transform_rows,
            sum_rows=plan.sum_rows, threads=plan.slab_threads,
        )  # fmt: skip

    def thin(self, size: int, like: Any) -> list[tuple[int, int]]:
        """Ranges of rows that are transformed at once, where an array is like another."""
        return split(size, self.rows if backend.is_device_array(like) else self.transform_rows)


def advance(
    context: Context,
    kernel: Kernel,
    t: float,
    lo: int,
    hi: int,
    sources: Mapping[str, Rows],
    workspace: Workspace,
    *,
    bases: Mapping[str, Any],
    scales: Sequence[float],
    out: Mapping[str, Any],
    rated: Sequence[bool],
    end: float,
    spectra: Callable[[str, int, int, Any], None] | None = None,
    checked: Collection[str] = (),
    like: Any = None,
) -> bool:
    """Evaluate the right-hand side on rows [lo, hi), and make targets of it.

    Parameters
    ----------
    context : Context
    kernel : Kernel
        The right-hand side, or updates by it.
    t : float
    lo, hi : int
    sources : mapping of str to Rows
        Unknowns and constants.
    workspace : Workspace
    bases, out : mapping of str to array
        Rows [lo, hi) of what updates read and write, by the names that the kernel gives them, with as many ghost
        layers along the other axes as the updates say. A target that is not among `out` is not kept.
    scales : sequence of float
        See :class:`~voxdask.kernels.Kernel`.
    rated : sequence of bool
        For every update, whether it makes a rate of change.
    end : float
        When held nodes take their values.
    spectra : callable, optional
        ``spectra(name, a, b, rows)`` is given rows [lo + a, lo + b) of the spectrum of every field: of the first
        update, or of the rate itself if there is none.
    checked : collection of str
        Targets that are looked at.
    like : array, optional
        An array of the kind that is wanted.

    Returns
    -------
    bool
        Whether every value of the targets that were to be looked at is finite.
    """
    system, names = context.system, tuple(zip(context.system.fields, context.rates, strict=True))
    margins, finite = [update.margin for update in kernel.updates], True

    for a, b in split(hi - lo, context.rows):
        made = tiles.rates(
            system, kernel, t, lo + a, lo + b, sources, workspace,
            bases={key: base[a:b] for key, base in bases.items()}, scales=scales,
            out={key: block[a:b] for key, block in out.items()}, like=like,
        )  # fmt: skip
        for m, rate in enumerate(rated):
            for _, name in names:
                if (key := f"target{m}_{name}") in out:
                    block = halo.inner(made[key], margins[m])
                    if rate:
                        halo.release(block, lo + a, system.axes)
                    else:
                        halo.hold(block, lo + a, system.axes, end)
                    finite = finite and (key not in checked or tiles.finite(block))
        for field, name in names if spectra else ():
            block = halo.inner(made[f"target0_{name}"], margins[0]) if rated else made[name]
            for c, d in context.thin(b - a, block):
                weight = tiles.weight_of(system, field, sources, lo + a + c, lo + a + d)
                modes = tiles.to_spectrum(system, block[c:d], lo + a + c, weight)
                spectra(field, a + c, a + d, modes)  # type: ignore[misc]
    return finite


def through(
    context: Context,
    multiply: Filter,
    start: int,
    stop: int,
    source: Callable[[int, int], Any],
    target: Callable[[int, int, Any], None],
    t: float,
    dt: float,
    saved: Mapping[str, Any],
    workspace: Workspace | None = None,
) -> bool:
    """Transform columns [start, stop) of a spectrum along the first axis, combine modes, and transform back.

    Parameters
    ----------
    context : Context
    multiply : Filter
    start, stop : int
    source : callable
        ``source(a, b)`` gives columns [start + a, start + b), every row of them; on a device, or without a workspace,
        they are used up.
    target : callable
        ``target(a, b, columns)`` is given columns [start + a, start + b) of the result.
    t, dt : float
    saved : mapping of str to array
        The same columns of spectra that are kept between evaluations; the filter may change them.
    workspace : Workspace, optional

    Returns
    -------
    bool
        Whether the result is finite: every mode is made of every voxel, so that a look at one row tells.
    """
    finite, values = True, context.system.values(t, dt=dt)
    for a, b in split(stop - start, context.columns):
        narrow = {kept: block[:, a:b] for kept, block in saved.items()}
        made = tiles.filtered(context.system, source(a, b), start + a, multiply, values, narrow, workspace)
        middle = len(made) // 2  # rows at the ends may be held, and zero
        finite = tiles.finite(made[middle : middle + 1]) and finite
        target(a, b, made)
    return finite


def backward(
    context: Context,
    name: str,
    kernel: Kernel,
    lo: int,
    hi: int,
    spectrum: Rows,
    bases: Mapping[str, Any],
    scales: Sequence[float],
    weights: Rows | None,
    end: float,
    out: Any,
) -> None:
    """Rows [lo, hi) of a field at the end of a semi-implicit step.

    Parameters
    ----------
    context : Context
    name : str
    kernel : Kernel
        See :meth:`voxdask.system.Operators.update`.
    lo, hi : int
    spectrum : Rows
        Of the spectrum; used up.
    bases, scales
        See :func:`voxdask.tiles.updated`.
    weights : Rows, optional
        What the change is divided by.
    end : float
    out : array
        Rows [lo, hi), with as many ghost layers along the other axes as the kernel says.
    """
    system = context.system
    for a, b in context.thin(hi - lo, out):
        blocks = {key: base[a:b] for key, base in bases.items()}
        if weights is not None:
            blocks[system.weights[name].field] = backend.in_order(halo.rows_of(weights, lo + a, lo + b))
        rows = halo.rows_of(spectrum, lo + a, lo + b)
        tiles.updated(system, kernel, blocks, scales, rows, lo + a, end, out[a:b])
