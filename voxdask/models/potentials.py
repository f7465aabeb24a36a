"""Free energies of a homogeneous mixture, and their derivatives: chemical potentials of phase separation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import sympy as sp

from voxdask.models.factors import called, require_number
from voxdask.symbols import clip, log

#: How near to 0 and 1 a logarithm is taken; 1 - 1e-6 is 17 steps of single precision below 1.
NEAREST = sp.Float("1e-6")

#: How near to 0 and 1 the walls of an obstacle begin.
WALL = sp.Rational(1, 50)


@dataclass(frozen=True)
class DoubleWell:
    r"""A double well with minima at 0 and 1.

    .. math:: f(c) = 16\, h\, c^2 (1 - c)^2, \qquad \mu(c) = 32\, h\, c (1 - c) (1 - 2 c)

    Parameters
    ----------
    height : float, default 1.0
        h, the barrier f(1/2), energy per volume; 9 / (16 eps) in the default of :class:`CahnHilliard`.

    Raises
    ------
    ValueError
        If `height` is not positive.

    References
    ----------
    Cahn and Hilliard (1958), J. Chem. Phys. 28, 258, doi:10.1063/1.1744102

    Examples
    --------
    >>> DoubleWell(2.0)(0.25), DoubleWell(2.0).energy(0.5)
    (6.0, 2.0)
    """

    height: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("height", self.height)

    def __call__(self, c: Any) -> Any:
        """The chemical potential at composition c."""
        return 32 * self.height * c * (1 - c) * (1 - 2 * c)

    def energy(self, c: Any) -> Any:
        """The free energy per volume at composition c."""
        return 16 * self.height * c**2 * (1 - c) ** 2


@dataclass(frozen=True)
class RegularSolution:
    r"""A regular solution: ideal entropy of mixing, and an interaction that is quadratic in c.

    .. math::

        f(c) = s \big( c \ln c + (1 - c) \ln(1 - c) + \Omega\, c (1 - c) \big), \qquad
        \mu(c) = s \Big( \ln \frac{c}{1 - c} + \Omega (1 - 2 c) \Big)

    Logarithms are taken of c limited to [1e-6, 1 - 1e-6], which single precision tells from 0 and 1; so the
    potential is bounded. It separates into phases where :math:`\Omega > 2`.

    Parameters
    ----------
    interaction : float, default 3.0
        :math:`\Omega`, in units of the thermal energy.
    scale : float, default 1.0
        s, energy per volume: R T per molar volume.

    Raises
    ------
    TypeError, ValueError
        If `interaction` is no finite number, or `scale` is not positive.

    References
    ----------
    Hildebrand (1929), J. Am. Chem. Soc. 51, 66, doi:10.1021/ja01376a009

    Examples
    --------
    >>> import sympy as sp
    >>> round(float(RegularSolution(interaction=3.0)(sp.Float(0.25))), 6)   # 1.5 - ln 3
    0.401388
    """

    interaction: float = 3.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        require_number("interaction", self.interaction)
        _require_positive("scale", self.scale)

    def __call__(self, c: Any) -> Any:
        """The chemical potential at composition c."""
        inside = clip(c, NEAREST, 1 - NEAREST)
        return self.scale * (log(inside) - log(1 - inside) + self.interaction * (1 - 2 * c))

    def energy(self, c: Any) -> Any:
        """The free energy per volume at composition c."""
        inside = clip(c, NEAREST, 1 - NEAREST)
        mixing = inside * log(inside) + (1 - inside) * log(1 - inside)
        return self.scale * (mixing + self.interaction * c * (1 - c))


@dataclass(frozen=True)
class Obstacle:
    r"""A double obstacle: a parabola between 0 and 1, steep walls at both.

    .. math::

        f(c) = 4\, h \big( c (1 - c) + w\, b(c)^2 + w\, b(1 - c)^2 \big), \qquad
        \mu(c) = 4\, h\, \big( 1 - 2 c - 2\, b(c) + 2\, b(1 - c) \big), \qquad b(c) = \max(0, 1 - c / w)

    The walls are those of a regularised obstacle, w = 0.02 thick; as a model limits c to [0, 1], they stand inside
    that interval, and the phases are at about w / 2 from its ends. The potential has the slope 8 h / w there, which
    asks for short steps unless the mobility vanishes too, as that of :class:`CahnHilliard` does by default. The flat
    interface is a sine, :math:`\pi \sqrt{\kappa / 8 h}` wide in all for a gradient energy
    :math:`\tfrac{\kappa}{2} |\nabla c|^2`.

    Parameters
    ----------
    height : float, default 1.0
        h, the barrier f(1/2), energy per volume.

    Raises
    ------
    ValueError
        If `height` is not positive.

    References
    ----------
    Blowey and Elliott (1991), Eur. J. Appl. Math. 2, 233, doi:10.1017/S095679250000053X

    Examples
    --------
    >>> float(Obstacle(0.5)(0.25)), float(Obstacle(0.5).energy(0.5))
    (1.0, 0.5)
    """

    height: float = 1.0

    def __post_init__(self) -> None:
        _require_positive("height", self.height)

    def __call__(self, c: Any) -> Any:
        """The chemical potential at composition c."""
        return 4 * self.height * (1 - 2 * c - 2 * _in_wall(c) + 2 * _in_wall(1 - c))

    def energy(self, c: Any) -> Any:
        """The free energy per volume at composition c."""
        return 4 * self.height * (c * (1 - c) + WALL * (_in_wall(c) ** 2 + _in_wall(1 - c) ** 2))


def _in_wall(c: Any) -> Any:
    """How far inside the wall at 0 this is: 1 at 0, 0 from where it begins."""
    return sp.Piecewise((1 - c / WALL, c < WALL), (0, True))


def energy_of(potential: Callable[[Any], Any], c: Any) -> Any:
    """The free energy per volume that has this chemical potential: its method ``energy``, or the integral.

    Parameters
    ----------
    potential : callable
        A function of c in the vocabulary of :mod:`voxdask.symbols`.
    c : expression

    Returns
    -------
    expression
        An integral is zero at c = 0, if it is finite there.

    Raises
    ------
    TypeError
        If the integral is not known in closed form.

    Examples
    --------
    >>> import voxdask as vd
    >>> energy_of(lambda c: c**2, vd.x)
    x**3/3
    """
    method = getattr(potential, "energy", None)
    if method is not None:
        return called("potential.energy", method, c)
    s = sp.Symbol("c", real=True)
    total = sp.integrate(called("potential", potential, s), s)
    if total.has(sp.Integral):
        raise TypeError(
            f"potential {potential!r} has no known integral, so there is no energy density; give a callable "
            "with a method energy(c), as those in voxdask.models have"
        )
    least = total.subs(s, 0)
    return (total - least if least.is_finite else total).xreplace({s: sp.sympify(c)})


def _require_positive(name: str, value: Any) -> None:
    require_number(name, value)
    if not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be positive")
