"""How long the next step may be: a PID controller of the step size. Numbers only; knows no field."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Memory:
    """What a controller knows when it chooses a step.

    Attributes
    ----------
    dt : float
        The step to try next, in units of time.
    errors : tuple of float
        Errors of the last accepted steps in units of the tolerance, the latest first; two at most.
    rejected : int
        Attempts that were rejected since the last accepted step.

    Examples
    --------
    >>> Memory.of(Memory(0.5, (1.0,)).as_dict())
    Memory(dt=0.5, errors=(1.0,), rejected=0)
    """

    dt: float
    errors: tuple[float, ...] = field(default=())
    rejected: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Numbers that JSON keeps to the last bit; :meth:`of` reads them."""
        return {"dt": self.dt, "errors": list(self.errors), "rejected": self.rejected}

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Memory:
        """What :meth:`as_dict` gave."""
        return cls(float(stored["dt"]), tuple(map(float, stored["errors"])), int(stored["rejected"]))


@dataclass(frozen=True)
class PID:
    r"""Chooses steps so that the estimated error of each stays close below its tolerance.

    After an accepted step with error :math:`\varepsilon_n`, in units of the tolerance, of a method whose estimate
    goes like :math:`\Delta t^k`,

    .. math::

        \frac{\Delta t_{n+1}}{\Delta t_n} = s\; \varepsilon_n^{-(k_I + k_P + k_D) / k}\;
        \varepsilon_{n-1}^{(k_P + 2 k_D) / k}\; \varepsilon_{n-2}^{-k_D / k}

    within limits; after a rejected one :math:`s\, \varepsilon_n^{-1/k}`, and the step that is accepted next does not
    make it longer. With the parts P and I alone, as by default, steps that stability limits become smooth.

    Parameters
    ----------
    integral, proportional, derivative : float, default 0.3, 0.4, 0
        The parts :math:`k_I, k_P, k_D`.
    safety : float, default 0.9
        s, between 0 and 1.
    shrink, grow : float, default 0.2, 5
        Least and largest factor between two steps.
    rejections : int, default 15
        Attempts in a row that may fail.

    Raises
    ------
    TypeError, ValueError
        If a number is none, or out of its range.

    References
    ----------
    Söderlind (2003), ACM Trans. Math. Softw. 29, 1, equation (31) and table I, doi:10.1145/641876.641877

    Examples
    --------
    >>> control = PID()
    >>> memory = control.accept(Memory(0.1), 0.1, error=1e-3, order=5)
    >>> round(memory.dt, 3), memory.errors
    (0.237, (0.001,))
    >>> round(control.reject(memory, 0.2, error=32.0, order=5).dt, 3)
    0.09
    """

    integral: float = 0.3
    proportional: float = 0.4
    derivative: float = 0.0
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 5.0
    rejections: int = 15

    def __post_init__(self) -> None:
        for name in ("integral", "proportional", "derivative", "safety", "shrink", "grow"):
            if not isinstance(getattr(self, name), numbers.Real):
                raise TypeError(f"{name} is {getattr(self, name)!r}; give a number")
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; it must be finite")
        if self.integral <= 0:
            raise ValueError(f"integral is {self.integral}; it must be positive, or errors would drift")
        if not 0 < self.safety < 1:
            raise ValueError(f"safety is {self.safety}; it must lie between 0 and 1")
        if not 0 < self.shrink < 1 < self.grow:
            raise ValueError(f"shrink={self.shrink} and grow={self.grow} must lie on either side of 1")
        if self.rejections < 1:
            raise ValueError(f"rejections is {self.rejections}; it must be at least 1")

    def accept(self, memory: Memory, dt: float, error: float, order: int) -> Memory:
        """What to know after a step of `dt` that was accepted.

        Parameters
        ----------
        memory : Memory
            As the step was chosen.
        dt : float
            The step that was taken; one shorter than chosen, to end at a given time, makes the next no shorter.
        error : float
            Its error in units of the tolerance, at most 1.
        order : int
            k, the power of the step that the estimate goes like.

        Returns
        -------
        Memory
        """
        # an error of zero says no more than that it is small
        errors = (max(error, _LEAST), *memory.errors)[:3]
        beta = (
            self.integral + self.proportional + self.derivative,
            -self.proportional - 2 * self.derivative,
            self.derivative,
        )
        factor = self.safety * math.prod(e ** (-b / order) for e, b in zip(errors, beta, strict=False))
        factor = min(max(factor, self.shrink), 1.0 if memory.rejected else self.grow)
        return Memory(max(factor * dt, memory.dt if dt < memory.dt else 0.0), errors[:2])

    def reject(self, memory: Memory, dt: float, error: float, order: int) -> Memory:
        """What to know after an attempt of `dt` that failed; an `error` that is not finite is one, too."""
        factor = self.shrink
        if math.isfinite(error):
            factor = min(max(self.safety * error ** (-1 / order), self.shrink), self.safety)
        return Memory(factor * dt, memory.errors, memory.rejected + 1)


#: The least error that counts, in units of the tolerance.
_LEAST = 1e-10


#: The controller that steppers use.
STANDARD = PID()


def cut(dt: float, left: float) -> float:
    """A step of at most `dt` towards a time that is `left` away: no crumb remains before it.

    Parameters
    ----------
    dt, left : float
        The step that was chosen; what is left. Both positive.

    Returns
    -------
    float
        `left` itself if the step reaches it; half of it if another step would then do.

    Examples
    --------
    >>> cut(0.3, 0.2), cut(0.3, 0.4), cut(0.3, 1.0)
    (0.2, 0.2, 0.3)
    """
    if dt >= left:
        return left
    return left / 2 if 2 * dt > left else dt
