"""Loops over voxels: what is read, computed and written at every one of them, whatever language says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sympy as sp

from voxdask.program import Program, Sample
from voxdask.symbols import Coordinate


@dataclass(frozen=True)
class Update:
    """What becomes of a result r: ``target = c_0 base_0 + c_1 base_1 + ... + w r``.

    Attributes
    ----------
    bases : int
        Number of bases.
    in_place : bool
        The first base is the target itself; compiled code must know, or it would not vectorise.
    margin : int
        How far bases and target reach beyond the result along all axes but the first, as rows with ghost layers do.
    """

    bases: int = 1
    in_place: bool = False
    margin: int = 0

    @property
    def scales(self) -> int:
        """Numbers that a call supplies: a coefficient for each base, then the weight of r."""
        return self.bases + 1


@dataclass(frozen=True)
class Store:
    """A sum of products, and where it goes. A factor is an array, a scale, or the number of a result."""

    target: str
    terms: tuple[tuple[str | int, ...], ...]

    @property
    def arrays(self) -> tuple[str, ...]:
        """Arrays that are read where the target is written."""
        return tuple(term[-1] for term in self.terms if isinstance(term[-1], str))


@dataclass(frozen=True)
class Loop:
    """One function over the voxels of a block.

    Attributes
    ----------
    name : str
    axes : tuple of str
    writes, reads : tuple of str
        Arrays, in the order in which a call passes them.
    coordinates : tuple of str
        Axes along which a call passes positions, after the arrays.
    margin : int
        How far beyond the region of interest the loop runs.
    expressions : tuple of Expr
        The results, in samples, coordinates and parameters.
    reach : dict of str to int
        How far each array, and the positions under the name "", reach beyond the region that the loop runs over.
    stores : tuple of Store
    around : dict of str to int
        How far the targets and bases of stores reach beyond that region along all axes but the first, if at all.
    scales : tuple of str
        Numbers that a call passes last.
    whole : frozenset of str
        Arrays that hold all lines along the second axis where a loop runs over a strip of them; "" are positions.
    modes : bool
        Arrays hold modes, real or complex; results are real.
    """

    name: str
    axes: tuple[str, ...]
    writes: tuple[str, ...]
    reads: tuple[str, ...]
    coordinates: tuple[str, ...]
    margin: int
    expressions: tuple[sp.Expr, ...]
    samples: tuple[Sample, ...]
    reach: dict[str, int]
    stores: tuple[Store, ...]
    around: dict[str, int] = field(default_factory=dict)
    scales: tuple[str, ...] = ()
    whole: frozenset[str] = frozenset()
    modes: bool = False

    @property
    def in_strips(self) -> bool:
        """On the host it runs over a strip of lines at a time."""
        return len(self.axes) > 2 and not self.modes


def loops_of(program: Program, updates: tuple[Update, ...] = ()) -> list[Loop]:
    """One loop for each stage; `updates` say what becomes of the results of the last one."""
    loops: list[Loop] = []
    made = {name for stage in program.stages[:-1] for name in stage.outputs}
    for number, (stage, margin) in enumerate(zip(program.stages, program.margins, strict=True)):
        stores = tuple(
            Store(name, ((name,), (r,)) if name in stage.totals else ((r,),)) for r, name in enumerate(stage.outputs)
        )
        used = updates if number == len(program.stages) - 1 else ()
        if used:
            results = list(enumerate(stage.outputs))
            stores = tuple(_update_store(update, m, name, r) for m, update in enumerate(used) for r, name in results)
        targets = tuple(store.target for store in stores)
        bases = tuple(name for store in stores for name in store.arrays if name not in targets)
        reach = {name: program.margin(name) - margin for name in stage.inputs}
        loops.append(
            Loop(
                name=f"evaluate{number}",
                axes=program.axes,
                writes=targets,
                reads=(*bases, *stage.inputs),
                coordinates=tuple(axis for axis in program.axes if axis in stage.coordinates),
                margin=margin,
                expressions=stage.expressions,
                samples=stage.samples,
                reach={**reach, "": program.halo - margin},
                stores=stores,
                around={name: used[update_of(name)].margin for name in (*targets, *bases) if used},
                scales=tuple(f"w{m}_{k}" for m, update in enumerate(used) for k in range(update.scales)),
                whole=frozenset(("", *targets, *bases, *stage.inputs)) - made,
            )
        )
    return loops


def update_of(name: str) -> int:
    """Which update a target or a base belongs to.

    Examples
    --------
    >>> update_of("target1_c.rate"), update_of("base0_2_c.rate")
    (1, 0)
    """
    return int(name.removeprefix("target").removeprefix("base").split("_")[0])


def _update_store(update: Update, m: int, name: str, result: int) -> Store:
    target = f"target{m}_{name}"
    bases = [f"base{m}_{k}_{name}" for k in range(update.bases)]
    if update.in_place:
        bases[0] = target
    terms = tuple((f"w{m}_{k}", base) for k, base in enumerate(bases))
    return Store(target, (*terms, (f"w{m}_{update.bases}", result)))


def mode_loop(gains: Sequence[Mapping[str, sp.Expr]], targets: Sequence[str], axes: tuple[str, ...]) -> Loop:
    """The loop that combines spectra: ``target = sum of gain * spectrum``, a gain for each spectrum by its name.

    Gains are functions of the squared wavenumbers ``q_<axis>``. Every mode is read before one is written.
    """
    squares = {sp.Symbol(f"q_{axis}", nonnegative=True): Coordinate(axis, real=True) for axis in axes}
    expressions: list[sp.Expr] = []
    stores = []
    for target, gain in zip(targets, gains, strict=True):
        terms = []
        for name, expression in gain.items():
            if expression.has(Coordinate):
                raise ValueError(f"a filter depends on position: {expression}")
            terms.append((len(expressions), name))
            expressions.append(expression.xreplace(squares))
        stores.append(Store(target, tuple(terms)))
    read = dict.fromkeys(name for store in stores for name in store.arrays if name not in targets)
    return Loop(
        name="combine",
        axes=axes,
        writes=tuple(targets),
        reads=tuple(read),
        coordinates=axes,
        margin=0,
        expressions=tuple(expressions),
        samples=(),
        reach={"": 0},
        stores=tuple(stores),
        modes=True,
    )
