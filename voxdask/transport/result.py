"""What results have in common: they print as a table, and say when an iteration ended too early."""

from __future__ import annotations

import html
import warnings
from abc import ABC, abstractmethod

from voxdask.transport.solver import Steady
from voxdask.units import format_bytes, format_seconds


class Table(ABC):
    """A result that prints as its `title` and `rows`."""

    @property
    def title(self) -> str:
        """What it is."""
        return type(self).__name__

    @property
    @abstractmethod
    def rows(self) -> dict[str, str]:
        """What it says, by name."""

    def __repr__(self) -> str:
        rows = self.rows
        wide = max(map(len, rows))
        return "\n".join([self.title, *(f"  {name:<{wide}}  {text}" for name, text in rows.items())])

    def _repr_html_(self) -> str:
        cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in self.rows.items())
        return f"<table><caption>{html.escape(self.title)}</caption>{cells}</table>"


def cost_of(voxels: int, wall_time: float, peak_memory: int) -> str:
    """What a result took, for its table."""
    return f"{voxels:,} voxels in {format_seconds(wall_time)}, {format_bytes(peak_memory)}"


def name_of(phase: tuple[int, ...] | None) -> str:
    """What conducts, for a table."""
    return "shares of voxels" if phase is None else ", ".join(map(str, phase))


def way_of(direction: str, ends: str, sides: str) -> str:
    """Which way it flows, for a table."""
    return f"{direction}, ends at {ends}s, {sides} sides"


def relative_error(steady: Steady) -> float:
    """Of the energy; zero where nothing flows."""
    return steady.error / steady.energy if steady.energy else 0.0


def warn_unless(converged: bool, what: str, error: float, tolerance: float) -> None:
    """RuntimeWarning at the caller of a public function, if an iteration ended too early."""
    if not converged:
        warnings.warn(
            f"{what} is known to {error:.1e} of its value, not {tolerance:.1e}: allow more iterations or a larger "
            "tolerance, or use dtype='float64'",
            RuntimeWarning,
            stacklevel=3,
        )
