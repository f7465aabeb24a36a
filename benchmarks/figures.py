"""A figure that was measured, and what it should be: what benchmarks print, and write as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """A figure, and what it should be; without a target it is for the record.

    Attributes
    ----------
    part : str
        Of the benchmark.
    what : str
    value : float
        NaN if it could not be measured.
    unit : str
    target : float, optional
    least : bool
        Whether the figure should be no less than the target, instead of no more.
    """

    part: str
    what: str
    value: float
    unit: str = ""
    target: float | None = None
    least: bool = False

    @property
    def verdict(self) -> str:
        """Whether the target is met; nothing without one, or without a figure."""
        if self.target is None or math.isnan(self.value):
            return ""
        return "pass" if (self.value >= self.target if self.least else self.value <= self.target) else "FAIL"

    def as_json(self) -> dict[str, Any]:
        """The figure and its verdict, by name; what JSON has no number for is None."""
        return {**asdict(self), "value": None if math.isnan(self.value) else self.value, "verdict": self.verdict}

    def __str__(self) -> str:
        bound = "" if self.target is None else f"{'>=' if self.least else '<='} {self.target:.4g} {self.unit}"
        value = f"{'-':>10}" if math.isnan(self.value) else f"{self.value:10.4g}"
        return f"{self.part:9} {self.what:62} {value} {self.unit:5} {bound:18} {self.verdict}".rstrip()


def summary(figures: list[Figure]) -> str:
    """How many targets are met."""
    met, missed = (sum(figure.verdict == verdict for figure in figures) for verdict in ("pass", "FAIL"))
    unknown = sum(figure.target is not None and not figure.verdict for figure in figures)
    return f"{met} targets met, {missed} missed" + (f", {unknown} not measured" if unknown else "")
