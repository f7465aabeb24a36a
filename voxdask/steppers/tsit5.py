"""The explicit Runge-Kutta pair of Tsitouras, of order 5 with an estimate and an interpolant of order 4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from voxdask.control import PID, STANDARD
from voxdask.steppers.adaptive import Attempt, Tolerances
from voxdask.steppers.base import RATE, Fields, State
from voxdask.steppers.tableau import Tableau

TABLEAU = Tableau(
    order=5,
    c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    a=(
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401, -0.028269050394068383),
        (
            *(0.09646076681806523, 0.01, 0.4798896504144996),
            *(1.379008574103742, -3.290069515436081, 2.324710524099774),
        ),
    ),
    error=(
        *(-0.00178001105222577714, -0.0008164344596567469, 0.007880878010261995, -0.1447110071732629),
        *(0.5823571654525552, -0.45808210592918697, 1 / 66),
    ),
    dense=(
        (1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216),
        (0.0, 0.1317, -0.2234, 0.1017),
        (0.0, 3.930296236894751, -5.941033872131505, 2.490627285651253),
        (0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902),
        (0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928),
        (0.0, -27.896526289197286, 65.09189467479368, -34.87065786149661),
        (0.0, 1.5, -4.0, 2.5),
    ),
)


@dataclass(frozen=True)
class Tsit5(Tolerances):
    r"""Explicit Runge-Kutta method of order 5 whose steps follow a tolerance.

    .. math::

        k_i = f(t + c_i \Delta t,\; u + \Delta t \sum_{j<i} a_{ij} k_j), \qquad
        u(t + \theta \Delta t) = u + \Delta t \sum_i b_i(\theta) k_i, \qquad
        \varepsilon = \Big\| \Delta t \sum_i e_i k_i \Big\|

    Six evaluations for each step: the last rate is the first of the next one. Frames between steps are
    interpolated to order 4, so that steps are as long whatever is saved.

    Parameters
    ----------
    rtol : float, default 1e-5
        Tolerance of a step, relative to the fields.
    atol : float, default 1e-8
        Tolerance of a step, in units of the fields; added to the relative one.
    adaptive : bool, default True
        With False, steps are all of the length `dt`, as with other steppers, and tolerances without effect.
    control : PID
        How steps follow errors.

    Raises
    ------
    TypeError, ValueError
        If a tolerance is no number, or out of range.

    References
    ----------
    Tsitouras (2011), Comput. Math. Appl. 62, 770, table 1 and section 4, doi:10.1016/j.camwa.2011.06.002

    Examples
    --------
    >>> Tsit5(rtol=1e-6).order
    5
    """

    rtol: float = 1e-5
    atol: float = 1e-8
    adaptive: bool = True
    control: PID = STANDARD
    order: ClassVar[int] = 5
    estimate: ClassVar[int] = 5
    dense: ClassVar[bool] = True
    registers: ClassVar[int] = 10
    spectra: ClassVar[int] = 0
    history: ClassVar[int] = 0
    #: Length of the stability interval on the negative real axis.
    real_limit: ClassVar[float] = 3.506

    def step(self, fields: Fields, t: float, dt: float, u: State) -> tuple[State, ...]:
        """A step of a given length, whatever its error."""
        (rate,) = fields.advance(t, u, RATE, end=t)
        return (_stages(fields, t, dt, u, rate)[0],)

    def attempt(self, fields: Fields, t: float, dt: float, u: State, *carried: State) -> Attempt:
        """A step and its error; carries the rate of change at its end."""
        (rate,) = carried or fields.advance(t, u, RATE, end=t)
        new, rates = _stages(fields, t, dt, u, rate)
        rates += fields.advance(t + dt, new, RATE, end=t + dt)
        terms = tuple((k, dt * e) for k, e in zip(rates, TABLEAU.error, strict=True))

        def at(time: float) -> State:
            weights = TABLEAU.weights((time - t) / dt)
            return fields.combine((u, 1.0), *((k, dt * w) for k, w in zip(rates, weights, strict=True)), end=time)

        return Attempt(new, fields.error(terms, u, new, self.atol, self.rtol), rates[-1:], at)


def _stages(fields: Fields, t: float, dt: float, u: State, rate: State) -> tuple[State, tuple[State, ...]]:
    """The state at t + dt, and the rates of the stages before it.

    Stages are summed up apart from the rates: one kernel does for all of them, where fused with sums of two to six
    rates it would be compiled for each, and the sums cost no more.
    """
    a, c, rates = TABLEAU.a, TABLEAU.c, (rate,)
    v = fields.combine((u, 1.0), (rate, dt * a[1][0]), end=t + c[1] * dt)
    for now, row, after in zip(c[1:], a[2:], c[2:], strict=False):
        rates += fields.advance(t + now * dt, v, RATE, end=t + now * dt)
        terms = ((k, dt * w) for k, w in zip(rates, row, strict=True))
        v = fields.combine((u, 1.0), *terms, end=t + after * dt)
    return v, rates
