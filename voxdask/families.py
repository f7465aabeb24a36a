r"""The vocabulary of families: fields such as phase fractions, of which a grid holds any number N.

A model with ``family = "phase"`` has fields whose variables carry that leading dim. Its ``rhs`` is written for one
member; the others enter through :func:`total` and :func:`deviation`. So no equation, kernel or compile time depends
on N.
"""

# mypy: disallow-subclassing-any=False

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sympy as sp

from voxdask.nodes import Clip, Parameter
from voxdask.program import Offset, Sample, Stage
from voxdask.vector import as_scalar

#: How many members a family has, as it stands in stages.
MEMBERS = Parameter("family.members", positive=True)

#: A sum over members is taken to be at least this where it divides.
_LEAST_SUM = sp.Rational(1, 10**6)


class Total(sp.Function):
    """The sum of an expression over the members of a family."""

    nargs = 1

    def _eval_is_extended_real(self) -> Any:
        return self.args[0].is_extended_real

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        text = rf"\sum_\beta \left( {printer._print(self.args[0])} \right)_\beta"
        return text if exp is None else rf"\left( {text} \right)^{{{exp}}}"


class Deviation(sp.Function):
    """An expression of one member minus its mean over all members of the family."""

    nargs = 1

    def _eval_is_extended_real(self) -> Any:
        return self.args[0].is_extended_real

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        text = rf"\mathrm{{dev}} \left( {printer._print(self.args[0])} \right)"
        return text if exp is None else rf"\left( {text} \right)^{{{exp}}}"


class Level(sp.Function):
    """The number that an expression must exceed, so that what exceeds it sums to 1 over the family."""

    nargs = 1

    def _eval_is_extended_real(self) -> Any:
        return self.args[0].is_extended_real

    def _latex(self, printer: Any, exp: str | None = None) -> str:
        text = rf"\tau \left( {printer._print(self.args[0])} \right)"
        return text if exp is None else rf"\left( {text} \right)^{{{exp}}}"


#: What joins the members of a family.
JOINING = (Total, Deviation, Level)


def total(e: Any) -> sp.Expr:
    r"""The sum of an expression over the members of a family, :math:`\sum_\beta e_\beta`.

    Parameters
    ----------
    e : expression
        Of one member.

    Returns
    -------
    expression
        The same for every member.

    Raises
    ------
    TypeError
        If `e` is a vector.

    Examples
    --------
    >>> from voxdask.symbols import Field
    >>> total(Field("phi") ** 2)
    Total(phi**2)
    """
    return Total(as_scalar("total", e))


def deviation(e: Any) -> sp.Expr:
    r"""An expression minus its mean over the members of a family, :math:`e_\alpha - \frac{1}{N} \sum_\beta e_\beta`.

    Deviations sum to zero: a rate of change that is one keeps the sum of the members.

    Parameters
    ----------
    e : expression
        Of one member.

    Returns
    -------
    expression

    Raises
    ------
    TypeError
        If `e` is a vector.

    Examples
    --------
    >>> from voxdask.symbols import Field, laplace
    >>> deviation(laplace(Field("phi")))
    Deviation(Laplacian(phi))
    """
    return Deviation(as_scalar("deviation", e))


def onto_simplex(e: Any, *, exact: bool = False) -> sp.Expr:
    r"""Project the members of a family onto the Gibbs simplex, where none is negative and all sum to 1.

    .. math::

        q_\alpha = \frac{\max(e_\alpha, 0)}{\sum_\beta \max(e_\beta, 0)} \qquad\text{or}\qquad
        q_\alpha = \max(e_\alpha - \tau, 0), \quad \sum_\beta \max(e_\beta - \tau, 0) = 1

    The second is the nearest point in the Euclidean norm.

    Parameters
    ----------
    e : expression
        Of one member.
    exact : bool, default False
        Take the second.

    Returns
    -------
    expression

    Raises
    ------
    TypeError
        If `e` is a vector.

    References
    ----------
    Held, Wolfe, Crowder (1974), Math. Program. 6, 62, doi:10.1007/BF01580223; by fixed-point iteration as in Michelot
    (1986), J. Optim. Theory Appl. 50, 195, doi:10.1007/BF00938486

    Examples
    --------
    >>> from voxdask.symbols import Field
    >>> onto_simplex(Field("phi"), exact=True)
    Clip(phi - Level(phi), 0, oo)
    """
    value = as_scalar("onto_simplex", e)
    if exact:
        return Clip(value - Level(value), 0, sp.oo)
    positive = Clip(value, 0, sp.oo)
    return positive / Clip(Total(positive), _LEAST_SUM, sp.oo)


def level_stages(name: str, e: sp.Expr, centre: Offset) -> tuple[Stage, Stage, Stage]:
    r"""Stages that find the :class:`Level` of a discrete expression.

    .. math::

        \tau \leftarrow \max\Big(\tau, \frac{1}{n} \Big(\sum_{e_\beta > \tau} e_\beta - 1 \Big) \Big), \qquad
        n = \#\{\beta: e_\beta > \tau\}

    It rises from minus infinity, passes each member once at most, and stays where no more members drop out.

    Parameters
    ----------
    name : str
        Of the array that holds it.
    e : Expr
        In samples.
    centre : tuple of int
        The offset zero.

    Returns
    -------
    tuple of Stage
        The start; the sum and number of what exceeds the level; the next level.
    """
    level, above, count = (Sample(n, centre) for n in (name, f"{name}.sum", f"{name}.count"))
    exceeds = e > level
    sums = (sp.Piecewise((e, exceeds), (0, True)), sp.Piecewise((1, exceeds), (0, True)))
    rise = sp.Max(level, (above - 1) / sp.Max(count, 1))
    names = (above.array, count.array)
    return (
        Stage((name,), (-sp.oo,), shared=True),
        Stage(names, sums, totals=names, level=name),
        Stage((name,), (rise,), shared=True, level=name),
    )


def gathered(stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """The same stages, with sums over members made by the stage that makes what they add, or all at once."""
    result: list[Stage] = []
    for stage in stages:
        place = _place(result, stage) if stage.totals == stage.outputs and stage.level is None else None
        if place is None:
            result.append(stage)
            continue
        host = result[place]
        made = {
            Sample(name, s.offset): e
            for s in stage.samples
            for name, e in zip(host.outputs, host.expressions, strict=True)
        }
        expressions = tuple(e.xreplace(made) for e in stage.expressions)
        result[place] = Stage(
            (*host.outputs, *stage.outputs), (*host.expressions, *expressions), (*host.totals, *stage.totals)
        )
    return tuple(result)


def _place(before: list[Stage], stage: Stage) -> int | None:
    """The stage whose loop can make some totals too."""
    read = set(stage.inputs)
    for place in reversed(range(len(before))):
        host = before[place]
        if host.shared or host.level:
            if read & set(host.outputs):
                return None
            continue
        makes = set(host.outputs) - set(host.totals)
        if read and read <= makes and all(isinstance(e, Sample) and not any(e.offset) for e in stage.expressions):
            return place
        if read & set(host.outputs):
            return None
        if host.totals == host.outputs:
            return place
    return None
