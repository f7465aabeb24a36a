"""Butcher tableaux: coefficients that check themselves."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

#: How far a sum of coefficients of double precision may be off, in units of the largest of its terms' sizes.
_ROUNDING = 64 * 2.0**-53

Tree = tuple["Tree", ...]
"""A rooted tree: the trees that hang from its root."""


@dataclass(frozen=True)
class Tableau:
    r"""An explicit Runge-Kutta method with an error estimate and an interpolant; the last stage is the result.

    .. math::

        k_i = f(t + c_i \Delta t,\; u + \Delta t \sum_{j<i} a_{ij} k_j), \qquad
        u(t + \theta \Delta t) \approx u + \Delta t \sum_i b_i(\theta) k_i

    The last row of `a` holds :math:`b_i = b_i(1)`, so that the last rate is the first one of the next step.

    Parameters
    ----------
    order : int
        Of the result; the estimate is the difference to a result of one order less, as is the interpolant.
    c : tuple of float
        When the stages are, in steps.
    a : tuple of tuple of float
        Row i has i numbers.
    error : tuple of float
        Weights of the rates in the error of a step.
    dense : tuple of tuple of float
        Coefficients of :math:`b_i(\theta)`: of :math:`\theta, \theta^2, \ldots`

    Raises
    ------
    ValueError
        If shapes do not match, or a row sum or an order condition does not hold.

    References
    ----------
    Hairer, Norsett, Wanner (1993), Solving Ordinary Differential Equations I, chapter II.2, theorem 2.13,
    doi:10.1007/978-3-540-78862-1

    Examples
    --------
    >>> heun = Tableau(2, (0, 1, 1), ((), (1,), (0.5, 0.5)), (-0.5, 0.5, 0), ((1, -0.5), (0, 0.5), (0, 0)))
    >>> heun.weights(0.5)
    (0.375, 0.125, 0.0)
    """

    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]
    dense: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        stages = len(self.c)
        if not len(self.a) == len(self.error) == len(self.dense) == stages:
            raise ValueError(f"c has {stages} numbers; a, error and dense must have as many rows")
        if any(len(row) != i for i, row in enumerate(self.a)):
            raise ValueError(f"the rows of a have {[*map(len, self.a)]} numbers; an explicit method has 0, 1, 2, ...")
        for i, (row, c) in enumerate(zip(self.a, self.c, strict=True)):
            _require(f"row {i} of a", row, c)
        b = (*self.a[-1], 0.0)
        for number in range(1, self.order + 1):
            for tree in trees(number):
                phi = [self._rate(tree, i) for i in range(stages)]
                terms = [w * p for w, p in zip(b, phi, strict=True)]
                _require(f"the result, for the tree {tree},", terms, 1 / density(tree))
                if number == self.order:
                    continue
                _require(f"error, for the tree {tree},", [w * p for w, p in zip(self.error, phi, strict=True)], 0.0)
                for power in range(max(map(len, self.dense))):
                    column = [row[power] if power < len(row) else 0.0 for row in self.dense]
                    expected = 1 / density(tree) if power + 1 == number else 0.0
                    terms = [w * p for w, p in zip(column, phi, strict=True)]
                    _require(f"dense, power {power + 1}, for the tree {tree},", terms, expected)
        for i, (row, weight) in enumerate(zip(self.dense, b, strict=True)):
            _require(f"row {i} of dense", row, weight)

    def weights(self, theta: float) -> tuple[float, ...]:
        """The weights of the rates, in steps, at a part `theta` of a step."""
        return tuple(sum(w * theta ** (k + 1) for k, w in enumerate(row)) for row in self.dense)

    def _rate(self, tree: Tree, i: int) -> float:
        """What a stage's rate makes of a tree: its elementary weight without the root's own."""
        return math.prod(sum(a * self._rate(branch, j) for j, a in enumerate(self.a[i])) for branch in tree)


@functools.cache
def trees(order: int) -> tuple[Tree, ...]:
    """All rooted trees with so many nodes: as many as there are conditions of that order.

    Examples
    --------
    >>> [len(trees(n)) for n in range(1, 7)]
    [1, 1, 2, 4, 9, 20]
    """
    found = {
        tuple(sorted(branches))
        for sizes in _partitions(order - 1)
        for branches in itertools.product(*map(trees, sizes))
    }
    return tuple(sorted(found))


def density(tree: Tree) -> int:
    """The number of nodes of a tree, times the densities of what hangs from its root."""
    return _size(tree) * math.prod(map(density, tree))


def _size(tree: Tree) -> int:
    return 1 + sum(map(_size, tree))


def _partitions(total: int, largest: int | None = None) -> Iterator[tuple[int, ...]]:
    """Every way to write a number as a sum of falling positive ones."""
    if total == 0:
        yield ()
    for first in range(min(total, largest or total), 0, -1):
        for rest in _partitions(total - first, first):
            yield (first, *rest)


def _require(what: str, terms: Sequence[float], expected: float) -> None:
    scale = max((abs(term) for term in terms), default=0.0) + abs(expected)
    if abs(math.fsum(terms) - expected) > _ROUNDING * max(scale, 1.0):
        raise ValueError(f"{what} sums up to {math.fsum(terms):.17g}; it must be {expected:.17g}")
