"""Models that follow from a free energy alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import sympy as sp

from voxdask.model import Model
from voxdask.models.factors import called, check_callable, check_factor, product, require_number, with_source
from voxdask.symbols import Field, Position, clip, div, face, grad
from voxdask.variation import variation


@dataclass(frozen=True)
class GradientFlow(Model):
    """Descent of a free energy; see :func:`from_free_energy`, which makes it."""

    density: Callable[[Any, Any], Any]
    mobility: Any = 1.0
    source: Callable[[Any, Any, Position], Any] | None = None
    conserved: bool = True
    fields: tuple[str, ...] = ("c",)  # type: ignore[misc]
    bounds: tuple[Any, Any] | None = dataclasses.field(default=None, metadata={"symbolic": False})
    state: float | None = dataclasses.field(default=None, metadata={"symbolic": False})

    def __post_init__(self) -> None:
        if not callable(self.density):
            raise TypeError(f"density is a {type(self.density).__name__}; give a function density(c, grad_c)")
        check_factor("mobility", self.mobility)
        check_callable("source", self.source, "t, c, x")
        if not isinstance(self.conserved, bool):
            raise TypeError(f"conserved is {self.conserved!r}; give True or False")
        if self.bounds is not None:
            numbers = isinstance(self.bounds, tuple) and all(isinstance(bound, Real) for bound in self.bounds)
            if not numbers or len(self.bounds) != 2 or not self.bounds[0] < self.bounds[1]:
                raise ValueError(f"bounds is {self.bounds!r}; give two numbers, the lower one first, or None")
        if self.state is not None:
            require_number("reference", self.state)

    def rhs(self, t: Any, c: Any) -> Any:
        """The divergence of the mobility times the gradient of the potential, or minus mobility times potential."""
        u = self._limited(c)
        mu = self._potential(c).xreplace({c: u})
        if self.conserved:
            change = div(product("mobility", self.mobility, face(u)) * grad(mu))
        else:
            change = -product("mobility", self.mobility, u) * mu
        return with_source(change, self.source, t, u)

    def energy_density(self, c: Any) -> Any:
        """Free energy per volume."""
        return self._density(c).xreplace({c: self._limited(c)})

    def reference(self) -> Mapping[str, float]:
        """The uniform state about which the stiff part is linearised."""
        low, high = self.bounds or (0, 1)
        return dict.fromkeys(self.fields, float((low + high) / 2 if self.state is None else self.state))

    def _density(self, c: Field) -> sp.Expr:
        return called("density", self.density, c, grad(c))

    def _potential(self, c: Field) -> sp.Expr:
        return variation(self._density(c), c)

    def _limited(self, c: Any) -> Any:
        return c if self.bounds is None else clip(c, *self.bounds)


def from_free_energy(
    density: Callable[[Any, Any], Any],
    *,
    mobility: Any = 1.0,
    conserved: bool = True,
    field: str = "c",
    bounds: tuple[float, float] | None = None,
    reference: float | None = None,
    source: Callable[[Any, Any, Position], Any] | None = None,
) -> GradientFlow:
    r"""A model that descends a free energy, from its density alone.

    .. math::

        \partial_t c = \nabla \cdot \big( M(c) \nabla \mu \big) + s \quad \text{(conserved)}, \qquad
        \partial_t c = -M(c)\, \mu + s \quad \text{(not)}, \qquad
        \mu = \frac{\partial f}{\partial c} - \nabla \cdot \frac{\partial f}{\partial \nabla c}

    Parameters
    ----------
    density : callable
        ``density(c, grad_c)``, f in energy per volume, written in :mod:`voxdask.symbols`: a function of c, of
        ``dot(grad_c, grad_c)`` and its powers, with coefficients that may depend on c; of ``laplace(c)`` too.
        Numbers in a function are constants of the compiled code; those in a frozen dataclass with a method
        ``__call__`` are parameters, ``density_<name>``, which can change without compiling anew.
    mobility : float, DataArray, callable or tuple of these, default 1.0
        M, of which a function gets c (at a face the mean of its two voxels); a tuple is a product.
    conserved : bool, default True
        Whether the total of c is conserved (as by Cahn-Hilliard) or not (as by Allen-Cahn).
    field : str, default "c"
        Name of the field.
    bounds : tuple of two numbers, optional
        Limits of c in the right-hand side, never in the state.
    reference : float, optional
        The uniform state about which the stiff part is linearised; by default the middle of `bounds`, or 1/2.
    source : callable, optional
        ``source(t, c, x)``, in units of c per time.

    Returns
    -------
    GradientFlow
        With ``energy_density``, so that :meth:`voxdask.Model.free_energy` works.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind; when the equation is read, if the density is no scalar or holds
        other differential operators.
    ValueError
        If `bounds` are not two numbers in order, or a mobility is not positive.

    References
    ----------
    Hohenberg and Halperin (1977), Rev. Mod. Phys. 49, 435, models A and B, doi:10.1103/RevModPhys.49.435

    Examples
    --------
    Cahn-Hilliard, from its energy:

    >>> import numpy as np, voxdask as vd
    >>> model = vd.models.from_free_energy(
    ...     lambda c, grad_c: 3 * c**2 * (1 - c) ** 2 + 3 * vd.dot(grad_c, grad_c),
    ...     mobility=lambda c: c * (1 - c), bounds=(0, 1))
    >>> ds = vd.dataset({"c": np.random.default_rng(0).uniform(0.4, 0.6, (8, 8))})
    >>> builtin = vd.models.CahnHilliard(eps=3.0)
    >>> bool(abs(model.right_hand_side(ds).c - builtin.right_hand_side(ds).c).max() < 1e-14)
    True
    """
    limits: Any = tuple(bounds) if isinstance(bounds, list) else bounds
    return GradientFlow(density, mobility, source, conserved, (field,), limits, reference)
