"""Kernels of families: the stages of one member, compiled once, run over all members of a block."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from voxdask.kernels import Bound, Kernel, Strip, Update, compile_program
from voxdask.members import member_name
from voxdask.program import Program


@dataclass(frozen=True)
class _Role:
    """What a stage is to the members: see :class:`voxdask.program.Stage`."""

    totals: tuple[str, ...]
    shared: bool
    level: str | None


@dataclass(frozen=True)
class FamilyKernel(Kernel):
    """A program of one member that runs for every member; it is called as a :class:`~voxdask.kernels.Kernel` is.

    Attributes
    ----------
    members : int
    own : tuple of str
        Arrays of the program that every member has one of, the results among them.
    own_parameters : tuple of str
        Parameters that every member has one of.
    """

    members: int
    own: tuple[str, ...]
    own_parameters: tuple[str, ...]
    roles: tuple[_Role, ...]

    def __call__(
        self,
        blocks: Mapping[str, Any],
        positions: Mapping[str, Any],
        parameters: Mapping[str, float],
        out: Mapping[str, Any] | None = None,
        scales: Sequence[float] = (),
        empty: Callable[..., Any] | None = None,
    ) -> dict[str, Any]:
        """Evaluate every stage on a padded block, for every member; see :meth:`voxdask.kernels.Kernel.__call__`."""
        bound, own = Bound(self, blocks, positions, out, scales, empty), frozenset(self.own_parameters)
        packed = [
            bound.scalars({p: parameters[member_name(p, k) if p in own else p] for p in self.parameters})
            for k in range(self.members if own else 1)
        ]

        results = {n: bound.target(bound.calls[-1], n) for w in bound.calls[-1].writes for n in self._named(w)}
        for strip in bound.strips():
            self._evaluate(bound, packed, results, strip)
        return results

    def _evaluate(self, bound: Bound, packed: Sequence[Any], results: Mapping[str, Any], strip: Strip) -> None:
        """Evaluate every stage on a strip."""

        def evaluate(number: int, spare: str | None = None) -> None:
            """Evaluate one stage for every member; a level goes to a `spare`, to be compared with the last."""
            call, role = bound.calls[number], self.roles[number]
            shared = {name: bound.target(call, name, strip, spare) for name in call.writes if name not in self.own}
            for name in role.totals:
                shared[name].fill(0)
            known = {**shared, **results}
            for k in range(1 if role.shared else self.members):
                mine = {n: member_name(n, k) for n in self.own}
                written = {mine.get(n, n): known.get(mine.get(n, n)) for n in call.writes}
                for name, array in written.items():
                    written[name] = bound.target(call, name, strip) if array is None else array
                reads = [mine.get(n, n) for n in call.reads]
                bound.run(call, list(written.values()), reads, packed[k % len(packed)], strip)
                if call is not bound.calls[-1]:  # a result may be named like an input, which the next strip reads
                    bound.arrays.update(written)

        for level, group in itertools.groupby(range(len(bound.calls)), key=lambda number: self.roles[number].level):
            numbers, rising = list(group), level is not None
            for attempt in itertools.count(1):
                last = bound.arrays[level] if rising else None
                for number in numbers:
                    # an odd attempt starts from the array of that name, an even one from the spare
                    spare = f"{level}.next" if rising and attempt % 2 else None
                    evaluate(number, spare if self.roles[number].shared else None)
                # every attempt but the last drops a member somewhere
                if last is None or attempt > self.members or not _rises(last, bound.arrays[level]):
                    break

    def _named(self, name: str) -> list[str]:
        return [member_name(name, k) for k in range(self.members)]


def _rises(last: Any, now: Any) -> bool:
    with np.errstate(invalid="ignore"):
        return bool((now > last).any())


def compile_family(
    program: Program, members: int, own_parameters: tuple[str, ...] = (), updates: tuple[Update, ...] = ()
) -> FamilyKernel:
    """Print the kernels of a family's program; nothing that is compiled depends on the number of members.

    Parameters
    ----------
    program : Program
        With a `family`.
    members : int
    own_parameters : tuple of str
        Parameters that every member has one of, ``<name>.<k>`` at a call.
    updates : tuple of Update
        As for :func:`voxdask.kernels.compile_program`.

    Returns
    -------
    FamilyKernel

    Examples
    --------
    >>> import numpy as np
    >>> from voxdask.families import deviation
    >>> from voxdask.lowering import lower
    >>> from voxdask.symbols import Field
    >>> program = lower((deviation(Field("u")),), ("du",), ("x",), family=("u",))
    >>> kernel = compile_family(program, 2)
    >>> kernel({"u.0": np.array([1.0, 2.0]), "u.1": np.zeros(2)}, {}, {"family.members": 2.0})["du.1"]
    array([-0.5, -1. ])
    """
    one = compile_program(program, updates)
    given = {field.name: getattr(one, field.name) for field in fields(one)}
    own = {*program.family, *program.member_arrays, *one.calls[-1].writes}
    own |= {name for name in one.calls[-1].reads if name.startswith("base")} - {*program.inputs}
    own |= {*program.outputs}

    def expanded(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(m for n in names for m in ([member_name(n, k) for k in range(members)] if n in own else [n]))

    return FamilyKernel(
        **{**given, "inputs": expanded(one.inputs), "outputs": expanded(one.outputs)},
        members=members,
        own=tuple(sorted(own)),
        own_parameters=own_parameters,
        roles=tuple(_Role(stage.totals, stage.shared, stage.level) for stage in program.stages),
    )
