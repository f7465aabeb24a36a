"""What a study of convergence finds: errors at several resolutions, and the orders fitted to them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import least_squares

from voxdask.plot import ShownFigure

#: Fewer points than this don't tell a slope from an accident.
LEAST_REFINEMENTS = 4


@dataclass(frozen=True)
class OrderStudy:
    r"""Errors at several resolutions and the order fitted to them.

    .. math:: \log e_i \approx p \log h_i + \mathrm{const}

    Parameters
    ----------
    vary : {"h", "dt"}
        What was refined: the grid spacing or the time step.
    spacings : tuple of float
        Grid spacings along the first dim, or time steps.
    errors : tuple of float
        Largest error at each, in the units of what was compared.

    Raises
    ------
    ValueError
        If there are fewer than four refinements, as many errors as spacings are not given, or an error is zero
        or not finite, which leaves no slope to fit.

    Examples
    --------
    >>> study = OrderStudy("h", (0.8, 0.4, 0.2, 0.1), (0.64, 0.16, 0.04, 0.01))
    >>> print(study)
           h      error  order
         0.8       0.64
         0.4       0.16   2.00
         0.2       0.04   2.00
         0.1       0.01   2.00
    fitted order 2.00
    """

    vary: Literal["h", "dt"]
    spacings: tuple[float, ...]
    errors: tuple[float, ...]

    def __post_init__(self) -> None:
        check_refinements("spacings", self.spacings)
        if len(self.errors) != len(self.spacings):
            raise ValueError(f"{len(self.errors)} errors do not fit {len(self.spacings)} spacings")
        if not all(math.isfinite(e) and e > 0 for e in self.errors):
            raise ValueError(
                f"errors are {self.errors}: with zeros or infinities among them there is no order to fit; "
                "choose a function that the discretisation does not represent exactly"
            )

    @property
    def order(self) -> float:
        """Slope of the logarithm of the error, by least squares over all refinements."""
        h, e = np.log(self.spacings), np.log(self.errors)
        h = h - h.mean()
        return float(h @ e / (h @ h))

    @property
    def orders(self) -> tuple[float, ...]:
        """Slope between each refinement and the next."""
        return tuple((np.diff(np.log(self.errors)) / np.diff(np.log(self.spacings))).tolist())

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for h, e, p in zip(self.spacings, self.errors, (None, *self.orders), strict=True):
            yield f"{h:.3g}", f"{e:.3g}", "" if p is None else f"{p:.2f}"

    def __str__(self) -> str:
        rows = [(self.vary, "error", "order"), *self._rows()]
        lines = [f"{h:>8}{e:>11}{p:>7}".rstrip() for h, e, p in rows]
        return "\n".join([*lines, f"fitted order {self.order:.2f}"])

    def _repr_html_(self) -> str:
        body = "".join(f"<tr><td>{h}</td><td>{e}</td><td>{p}</td></tr>" for h, e, p in self._rows())
        return (
            f"<table><thead><tr><th>{self.vary}</th><th>error</th><th>order</th></tr></thead><tbody>{body}</tbody>"
            f"<tfoot><tr><th colspan=2>fitted order</th><th>{self.order:.2f}</th></tr></tfoot></table>"
        )


@dataclass(frozen=True)
class ErrorSurface:
    r"""Errors over grid spacings and time steps, and the orders fitted to all of them at once.

    .. math:: e(h, \Delta t) \approx \left| A h^p \pm B \Delta t^q \right|

    Parameters
    ----------
    spacings, steps : tuple of float
        Grid spacings along the first dim, and time steps; falling.
    errors : tuple of tuple of float
        Largest error for every spacing (rows) and step (columns).

    Raises
    ------
    ValueError
        If there are fewer than four spacings or steps, or an error is not positive and finite.

    Examples
    --------
    >>> h, dt = (0.8, 0.4, 0.2, 0.1), (1.0, 0.5, 0.25, 0.125)
    >>> surface = ErrorSurface(h, dt, tuple(tuple(a**2 + b for b in dt) for a in h))
    >>> round(surface.space_order, 2), round(surface.time_order, 2)
    (2.0, 1.0)
    """

    spacings: tuple[float, ...]
    steps: tuple[float, ...]
    errors: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        check_refinements("spacings", self.spacings)
        check_refinements("steps", self.steps)
        table = np.array(self.errors)
        if table.shape != (len(self.spacings), len(self.steps)):
            raise ValueError(f"errors are {table.shape}, for {len(self.spacings)} spacings and {len(self.steps)} steps")
        if not (np.isfinite(table).all() and (table > 0).all()):
            raise ValueError("errors holds zeros or infinities, to which no order can be fitted; take smaller steps")

    @property
    def space_order(self) -> float:
        """p of the fit."""
        return self._fit[0]

    @property
    def time_order(self) -> float:
        """q of the fit."""
        return self._fit[1]

    @property
    def _fit(self) -> tuple[float, float]:
        """p and q; both shares of the error may have the same sign or opposite ones."""
        h, dt = np.log(self.spacings)[:, None], np.log(self.steps)[None, :]
        e = np.array(self.errors)
        h, dt = h - h.min(), dt - dt.min()

        def misfit(x: np.ndarray, sign: float) -> np.ndarray:
            shares = np.exp(x[0] + x[1] * h) + sign * np.exp(x[2] + x[3] * dt)
            return np.asarray((np.abs(shares) - e) / e).ravel()

        starts = [(np.log(e[:, -1].min()), 2.0, np.log(e[-1].max()) - q * dt.max(), q) for q in (1.0, 2.0, 4.0)]
        fits = [least_squares(misfit, x, args=(sign,), loss="soft_l1") for x in starts for sign in (1.0, -1.0)]
        _, p, _, q = min(fits, key=lambda fit: float(fit.cost)).x
        return float(p), float(q)

    def __str__(self) -> str:
        head = "h \\ dt".rjust(9) + "".join(f"{step:>10.3g}" for step in self.steps)
        rows = [
            f"{h:>9.3g}" + "".join(f"{e:>10.2e}" for e in errors)
            for h, errors in zip(self.spacings, self.errors, strict=True)
        ]
        orders = f"order {self.space_order:.2f} in space, {self.time_order:.2f} in time"
        return "\n".join([head, *rows, orders])

    def plot(self) -> Figure:
        """Draw the error over spacing and step, with lines of equal error.

        Returns
        -------
        Figure
            Which notebooks show; save it with ``savefig``.
        """
        figure = ShownFigure(figsize=(5.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        levels = np.log10(np.array(self.errors))
        mesh = axes.pcolormesh(self.steps, self.spacings, levels, shading="nearest", cmap="viridis")
        lines = axes.contour(self.steps, self.spacings, levels, colors="white", linewidths=0.7)
        axes.clabel(lines, fmt=lambda level: f"1e{level:.1f}", fontsize=7)
        axes.set(xscale="log", yscale="log", xlabel="time step", ylabel="grid spacing")
        axes.set_title(f"order {self.space_order:.2f} in space, {self.time_order:.2f} in time")
        figure.colorbar(mesh, label="log10 of the largest error")
        return figure


def check_refinements(name: str, values: Sequence[Any]) -> None:
    if len(set(values)) < LEAST_REFINEMENTS:
        raise ValueError(f"{name} is {values!r}; an order needs at least {LEAST_REFINEMENTS} different refinements")
