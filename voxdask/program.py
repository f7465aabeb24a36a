"""Stages of stencils: what a right-hand side becomes on a grid, before it is printed in any language."""

# mypy: disallow-subclassing-any=False

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import sympy as sp

from voxdask.symbols import Coordinate, Parameter

Offset = tuple[int, ...]


class Sample(sp.Symbol):
    """The value of an array at an integer offset from the voxel where a stage is evaluated."""

    array: str
    offset: Offset

    def __new__(cls, array: str, offset: Offset) -> Sample:
        sample: Sample = sp.Symbol.__xnew__(cls, f"{array}[{', '.join(map(str, offset))}]", real=True)
        sample.array, sample.offset = array, offset
        return sample

    def __getnewargs_ex__(self) -> tuple[tuple[str, Offset], dict[str, Any]]:
        return (self.array, self.offset), {}


def samples_of(*expressions: sp.Expr) -> tuple[Sample, ...]:
    """The samples that expressions hold, in an order that is the same in every process."""
    found: set[Sample] = set().union(*(e.atoms(Sample) for e in expressions))
    return tuple(sorted(found, key=lambda s: (s.array, s.offset)))


@dataclass(frozen=True)
class Stage:
    """One sweep over the grid: every output at a voxel from samples of the inputs around it.

    Attributes
    ----------
    outputs : tuple of str
    expressions : tuple of Expr
    totals : tuple of str
        Outputs that are summed over the members of a family.
    shared : bool
        The stage is evaluated once for all members of a family.
    level : str, optional
        The stages that name the same array follow one another, and are evaluated again as long as it rises anywhere.
    """

    outputs: tuple[str, ...]
    expressions: tuple[sp.Expr, ...]
    totals: tuple[str, ...] = ()
    shared: bool = False
    level: str | None = None

    @property
    def samples(self) -> tuple[Sample, ...]:
        return samples_of(*self.expressions)

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(sorted({s.array for s in self.samples}))

    @property
    def coordinates(self) -> tuple[str, ...]:
        return tuple(sorted({s.name for e in self.expressions for s in e.atoms(Coordinate)}))

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(sorted({s.name for e in self.expressions for s in e.atoms(Parameter)}))


@dataclass(frozen=True)
class Program:
    """Stages in order of evaluation; the last one gives the result.

    Arrays that stages make for each other have names that are no identifiers, such as ``stage.0``, so that
    they differ from every field.

    Attributes
    ----------
    axes : tuple of str
        Names of the array axes, in storage order.
    stages : tuple of Stage
    output_margin : int
        How far beyond the region of interest the last stage is evaluated (0 but for an adjoint).
    fallback : str, optional
        The input of a program whose stages read no array: it says how large the result is.
    family : tuple of str
        Inputs that every member of a family has one of; the stages are those of one member.
    """

    axes: tuple[str, ...]
    stages: tuple[Stage, ...]
    output_margin: int = 0
    fallback: str | None = None
    family: tuple[str, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        return self.stages[-1].outputs

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """Arrays that the caller supplies: fields, auxiliary fields and coefficients."""
        read = {name for stage in self.stages for name in stage.inputs}
        supplied = sorted(read - {name for stage in self.stages[:-1] for name in stage.outputs})
        return tuple(supplied) or ((self.fallback,) if self.fallback else ())

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(sorted({p for stage in self.stages for p in stage.parameters}))

    @property
    def member_arrays(self) -> tuple[str, ...]:
        """Intermediate arrays that every member of a family has one of."""
        own = [stage for stage in self.stages[:-1] if self.family and not stage.shared]
        return tuple(name for stage in own for name in stage.outputs if name not in stage.totals)

    def inner(self, members: int = 1) -> int:
        """Number of intermediate arrays."""
        own = self.member_arrays
        return sum(members if name in own else 1 for stage in self.stages[:-1] for name in stage.outputs)

    @cached_property
    def margins(self) -> tuple[int, ...]:
        """How far beyond the region of interest each stage is evaluated."""
        return (*(self._reach[stage.outputs[0]] for stage in self.stages[:-1]), self.output_margin)

    @cached_property
    def halo(self) -> int:
        """Depth of the ghost layers of every input."""
        return max((self._reach.get(name, self.output_margin) for name in self.inputs), default=0)

    def margin(self, array: str) -> int:
        """How far an array that a stage reads reaches beyond the region of interest."""
        return self.halo if array in self.inputs else self._reach[array]

    @cached_property
    def _reach(self) -> dict[str, int]:
        """How far beyond the region of interest each array is read."""
        reach: dict[str, int] = {}
        for stage in reversed(self.stages):
            own = self.output_margin
            if stage is not self.stages[-1]:
                own = max(reach.get(name, 0) for name in stage.outputs)
                reach.update(dict.fromkeys(stage.outputs, own))
            for sample in stage.samples:
                there = own + max(map(abs, sample.offset))
                reach[sample.array] = max(reach.get(sample.array, 0), there)
        return reach


def needed(stages: Sequence[Stage]) -> tuple[Stage, ...]:
    """The stages without what no later one reads."""
    kept, read = [stages[-1]], set(stages[-1].inputs)
    for stage in reversed(stages[:-1]):
        pairs = [(n, e) for n, e in zip(stage.outputs, stage.expressions, strict=True) if n in read]
        if pairs:
            names, expressions = zip(*pairs, strict=True)
            kept.append(Stage(names, expressions))
            read.update(kept[-1].inputs)
    return tuple(reversed(kept))


def inverse_spacing(axis: str) -> Parameter:
    """The parameter that holds 1/h along `axis`."""
    return Parameter(f"inverse_spacing_{axis}", positive=True)
