"""Names of the members of a family: the fields of one variable that are told apart by a leading dim.

Member k of the field ``phi`` is the scalar field ``phi.k``. That is no identifier, so it clashes with no name that a
user gives. Halos, sweeps, chunks, files and spectra know members only; datasets and frames on disk know families.
"""

from __future__ import annotations

from collections.abc import Iterable


def member_name(field: str, k: int) -> str:
    """The name of member `k` of a family.

    Examples
    --------
    >>> member_name("phi", 2)
    'phi.2'
    """
    return f"{field}.{k}"


def member_of(name: str) -> tuple[str, int | None]:
    """The family of a scalar field and its number there; None for a field on its own.

    Examples
    --------
    >>> member_of("phi.2"), member_of("c")
    (('phi', 2), ('c', None))
    """
    field, dot, number = name.partition(".")
    return (field, int(number)) if dot else (name, None)


def families_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The scalar fields of every variable, in their order.

    Examples
    --------
    >>> families_of(["phi.0", "phi.1", "c"])
    {'phi': ['phi.0', 'phi.1'], 'c': ['c']}
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(member_of(name)[0], []).append(name)
    return found
