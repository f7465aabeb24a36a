"""The base class of models: parameters and a right-hand side, and what follows from them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from voxdask import evaluate
from voxdask.analysis import integral
from voxdask.equation import Equation, equation_of


class Model:
    r"""Base class of models; subclass it as a frozen dataclass with ``fields`` and ``rhs``.

    The equation is written once, in ``rhs``, in the vocabulary of :mod:`voxdask.symbols`; kernels, halo,
    Fourier symbol, exact right-hand side, tangent, adjoint and LaTeX are derived from it. Numbers among the
    dataclass's attributes are parameters that can change without compiling anew (all but those annotated
    ``int``); DataArrays among them are coefficients that vary in space. Those in a tuple or a frozen dataclass count
    too, as ``<attribute>_<position>`` and ``<attribute>_<name>``.

    Attributes
    ----------
    fields : tuple of str
        Names of the unknowns, in the order of `rhs`.
    auxiliary : tuple of str
        Names of given fields, passed to `rhs` after the unknowns.
    weights : mapping of str to Weight, optional
        By what semi-implicit steps multiply an unknown, so that the sum of the product is conserved.
    limits : mapping of str to (float, float), optional
        Between which values an auxiliary field may lie; a dataset in which it does not is refused.
    stiffness : float, optional
        How many times stiffer than in the uniform state the equation may be, 1 by default.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> import numpy as np, voxdask as vd
    >>> @dataclass(frozen=True)
    ... class Fisher(vd.Model):
    ...     diffusivity: float = 1.0
    ...     rate: float = 1.0
    ...     fields = ("c",)
    ...
    ...     def rhs(self, t, c):
    ...         return self.diffusivity * vd.laplace(c) + self.rate * c * (1 - c)
    >>> Fisher().right_hand_side(vd.dataset({"c": np.full(4, 0.5)})).c.values
    array([0.25, 0.25, 0.25, 0.25])
    """

    fields: ClassVar[tuple[str, ...]]
    auxiliary: ClassVar[tuple[str, ...]] = ()

    def rhs(self, t: Any, *fields: Any) -> Any:
        """The rate of change of every unknown; subclasses write it in :mod:`voxdask.symbols`.

        Derivatives in space are those of ``grad``, ``div`` and ``laplace``: to SymPy's own ``diff`` a field is a
        symbol, whose derivative by a coordinate is zero.

        Parameters
        ----------
        t : expression
            Time.
        *fields : expression
            The unknowns, then the auxiliary fields.

        Returns
        -------
        expression or tuple of expression
        """
        raise TypeError(f"{type(self).__name__} has no right-hand side: define rhs(self, t, *fields)")

    def reference(self) -> Mapping[str, float]:
        """The uniform state about which the stiff part is linearised; 1/2 for every field by default."""
        return dict.fromkeys(self.fields, 0.5)

    @property
    def equation(self) -> Equation:
        """What ``rhs`` says, in symbols."""
        return equation_of(self)

    def right_hand_side(self, ds: xr.Dataset, *, boundary: Any = "periodic", time: float = 0.0) -> xr.Dataset:
        """Evaluate the right-hand side once.

        Parameters
        ----------
        ds : Dataset
            With every field of the model; Dask arrays stay lazy.
        boundary : str, Dirichlet, Neumann, tuple or mapping, default "periodic"
            See :func:`voxdask.simulate`.
        time : float, default 0

        Returns
        -------
        Dataset
            Rates of change, in units of each field per time; zero at nodes that are held.

        Raises
        ------
        TypeError, ValueError
            If the dataset or boundary does not fit the model.

        Examples
        --------
        >>> import numpy as np, voxdask as vd
        >>> ds = vd.dataset({"c": np.array([0.0, 1.0, 0.0, 0.0])})
        >>> vd.models.ReactionDiffusion(2.0).right_hand_side(ds).c.values
        array([ 2., -4.,  2.,  0.])
        """
        return evaluate.right_hand_side(self.equation, ds, boundary, time)

    def tangent(
        self, ds: xr.Dataset, change: xr.Dataset, *, boundary: Any = "periodic", time: float = 0.0
    ) -> xr.Dataset:
        r"""The change of the right-hand side under a small change of the fields, :math:`J \delta u`.

        Parameters
        ----------
        ds, change : Dataset
            State, and its change, on one block in memory.
        boundary, time
            As for :meth:`right_hand_side`.

        Returns
        -------
        Dataset

        Raises
        ------
        TypeError, ValueError
            If a dataset or boundary does not fit the model.

        Examples
        --------
        >>> import numpy as np, voxdask as vd
        >>> ds = vd.dataset({"c": np.array([0.0, 1.0, 0.0, 0.0])})
        >>> vd.models.ReactionDiffusion(2.0).tangent(ds, ds).c.values   # it is linear
        array([ 2., -4.,  2.,  0.])
        """
        return evaluate.derivative(self.equation, ds, change, boundary, time, transpose=False)

    def adjoint(
        self, ds: xr.Dataset, sensitivity: xr.Dataset, *, boundary: Any = "periodic", time: float = 0.0
    ) -> xr.Dataset:
        r"""The transpose of :meth:`tangent`, :math:`J^T w`: from what the rates to what the fields matter.

        Parameters
        ----------
        ds, sensitivity : Dataset
            State, and a weight for each rate of change, on one block in memory.
        boundary, time
            As for :meth:`right_hand_side`.

        Returns
        -------
        Dataset

        Raises
        ------
        TypeError, ValueError
            If a dataset or boundary does not fit the model.

        Examples
        --------
        >>> import numpy as np, voxdask as vd
        >>> ds = vd.dataset({"c": np.array([0.0, 1.0, 0.0, 0.0])})
        >>> vd.models.ReactionDiffusion(2.0).adjoint(ds, ds).c.values   # it is symmetric
        array([ 2., -4.,  2.,  0.])
        """
        return evaluate.derivative(self.equation, ds, sensitivity, boundary, time, transpose=True)

    def free_energy(self, ds: xr.Dataset, *, boundary: Any = "periodic") -> Any:
        """The integral of the model's ``energy_density`` over the grid.

        Parameters
        ----------
        ds : Dataset
            A state; lazy on Dask arrays. A time dim gives one value for each frame.
        boundary : default "periodic"
            As for :meth:`right_hand_side`.

        Returns
        -------
        DataArray
            Energy density times volume (area, length).

        Raises
        ------
        TypeError
            If the model defines no ``energy_density``.

        Examples
        --------
        >>> import numpy as np, voxdask as vd
        >>> flat = vd.dataset({"c": np.full((4, 4), 0.5)})
        >>> float(vd.models.CahnHilliard(eps=9.0).free_energy(flat))   # 9/eps/16 of 16 pixels
        1.0
        """
        density = getattr(self, "energy_density", None)
        if density is None:
            raise TypeError(f"{type(self).__name__} defines no energy_density(self, *fields)")
        return integral(self, density, ds, boundary)

    def _repr_latex_(self) -> str:
        return f"${self.equation.latex()}$"

    def _require_positive(self, *names: str) -> None:
        """Raise ValueError unless the named numbers are positive and finite."""
        for name in names:
            value = getattr(self, name)
            if isinstance(value, xr.DataArray):
                require_not_negative(name, value)
                continue
            if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
                raise TypeError(f"{name} is {value!r}; give a number or a DataArray")
            if not (math.isfinite(value) and float(value) > 0):
                raise ValueError(f"{name} is {value!r}; it must be positive and finite")


def require_not_negative(name: str, field: xr.DataArray) -> None:
    """Raise ValueError if a field that is in memory holds a negative value; a lazy one is taken on trust."""
    if field.chunks is None and field.dtype.kind in "if" and field.size and float(field.data.min()) < 0:
        raise ValueError(f"{name} holds {float(field.min()):g}; no value may be negative")
