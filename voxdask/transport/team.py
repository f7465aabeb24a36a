"""Domains that an image is spread over, and how all of them are called."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeVar

T = TypeVar("T")

#: Something of a domain for the neighbours below and above it, or of those for it; None where there is none.
Sides = tuple[T | None, T | None]


class Team(ABC):
    """Domains one after the other along the first axis."""

    size: int
    periodic: bool = False  # whether the last is below the first

    @abstractmethod
    def call(self, step: str, each: Sequence[tuple[Any, ...]]) -> list[Any]:
        """What a method of every domain returns, each called with arguments of its own."""

    def all(self, step: str, *args: Any) -> list[Any]:
        """What a method of every domain returns."""
        return self.call(step, [args] * self.size)

    def each(self, step: str, given: Sequence[Any], *args: Any) -> list[Any]:
        """The same, where the first argument is different for every domain."""
        return self.call(step, [(own, *args) for own in given])

    def beside(self, step: str, edges: Sequence[Sides[Any]], *args: Any) -> list[Any]:
        """The same, where the first argument is what the neighbours have for the domain."""
        around = self.periodic and self.size > 1  # a domain alone goes around by itself
        below = [edges[-1][1] if around else None, *(last for _, last in edges[:-1])]
        above = [*(first for first, _ in edges[1:]), edges[0][0] if around else None]
        return self.each(step, list(zip(below, above, strict=True)), *args)


class Local(Team):
    """Domains in this process, called directly.

    Examples
    --------
    >>> Local([[3, 1, 2], [5, 1]]).all("index", 1)
    [1, 1]
    """

    def __init__(self, domains: Sequence[Any], periodic: bool = False) -> None:
        self.domains, self.size, self.periodic = domains, len(domains), periodic

    def call(self, step: str, each: Sequence[tuple[Any, ...]]) -> list[Any]:
        """See :class:`Team`."""
        return [getattr(domain, step)(*args) for domain, args in zip(self.domains, each, strict=True)]
