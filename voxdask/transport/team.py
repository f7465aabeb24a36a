"""Domains that an image is spread over, and how all of them are called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

#: Something of a domain for the neighbours below and above it, or of those for it; None where there is none.
Sides = tuple[T | None, T | None]


class Team(Protocol):
    """Domains one after the other along the first axis."""

    def all(self, step: str, *args: Any) -> list[Any]:
        """What a method of every domain returns."""

    def each(self, step: str, given: Sequence[Any], *args: Any) -> list[Any]:
        """The same, where the first argument is different for every domain."""

    def beside(self, step: str, edges: Sequence[Sides[Any]], *args: Any) -> list[Any]:
        """The same, where the first argument is what the neighbours have for the domain."""


class Alone:
    """A team of one, called directly.

    Examples
    --------
    >>> Alone([3, 1, 2]).all("index", 1)
    [1]
    """

    def __init__(self, domain: Any) -> None:
        self.domain = domain

    def all(self, step: str, *args: Any) -> list[Any]:
        """See :class:`Team`."""
        return [getattr(self.domain, step)(*args)]

    def each(self, step: str, given: Sequence[Any], *args: Any) -> list[Any]:
        """See :class:`Team`."""
        return self.all(step, given[0], *args)

    def beside(self, step: str, edges: Sequence[Sides[Any]], *args: Any) -> list[Any]:
        """See :class:`Team`."""
        return self.all(step, (None, None), *args)
