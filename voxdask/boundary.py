r"""What the end of an axis means: ghost values and their transpose, transform, wavenumbers.

Every rule is affine. A ghost value is :math:`s\,u_m + w_{lo} v_{lo} + w_{hi} v_{hi}`, where *m* is the
voxel that the ghost mirrors, *s* is 1 or -1 and :math:`v` are the values given at the two ends. For the
*k*-th layer outside a cell-centred axis (the end is the face of the outermost voxel)

=============  =====================================
periodic       wraps
Dirichlet      :math:`2 v - u_{k-1}`
Neumann        :math:`u_{k-1} + (2k-1) h g`
=============  =====================================

and outside a node-centred one (the end is the outermost node, which a Dirichlet end holds at *v*)

=============  =====================================
Dirichlet      :math:`2 v - u_k`
Neumann        :math:`u_k + 2 k h g`
=============  =====================================

with *g* the derivative of the field along the outward normal.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from voxdask import backend
from voxdask.grid import Grid

Value = float | Callable[[float], Any] | xr.DataArray
Kind = Literal["periodic", "dirichlet", "neumann"]


@dataclass(frozen=True, eq=False)
class Dirichlet:
    """The field is held at a value at the two ends of an axis.

    Parameters
    ----------
    lo, hi : float, callable or DataArray
        Value at the lower and upper end, in units of the field: a number, a function of time, or a
        DataArray over the face. `hi` defaults to `lo`, which defaults to 0.

    Examples
    --------
    >>> import voxdask as vd
    >>> vd.Dirichlet(1.0, 0.0)
    Dirichlet(lo=1.0, hi=0.0)
    """

    lo: Value = 0.0
    hi: Value | None = None


@dataclass(frozen=True, eq=False)
class Neumann:
    """The derivative along the outward normal is prescribed at the two ends of an axis.

    Parameters
    ----------
    lo, hi : float, callable or DataArray
        Outward derivative at the lower and upper end, in units of the field per length: a number, a
        function of time, or a DataArray over the face. A flux j into the domain through an end of
        diffusivity D is ``j / D``. `hi` defaults to `lo`, which defaults to 0 (zero flux).

    Examples
    --------
    >>> import voxdask as vd
    >>> vd.Neumann(0.0, 0.5)
    Neumann(lo=0.0, hi=0.5)
    """

    lo: Value = 0.0
    hi: Value | None = None


@dataclass(frozen=True, eq=False)
class End:
    """One end of an axis: what kind, and the value given there."""

    kind: Kind
    value: Value = 0.0

    @property
    def homogeneous(self) -> bool:
        return isinstance(self.value, int | float) and self.value == 0


@dataclass(frozen=True)
class Ghost:
    """The value at a position outside the axis, as an affine function of one inside and the end values."""

    position: int
    source: int
    sign: int
    lo_weight: float
    hi_weight: float


@dataclass(frozen=True)
class Transform:
    """The transform along an axis in which its second difference is diagonal.

    Attributes
    ----------
    family : {"fft", "dct", "dst"}
    kind : int
        Type of the cosine or sine transform, 0 for the Fourier transform.
    start, stop : int
        The unknowns: a node that is held takes no part.
    shift, length : float
        Wavenumber of mode m is pi (m + shift) / length, for cosine and sine transforms.
    """

    family: Literal["fft", "dct", "dst"]
    kind: int
    start: int
    stop: int
    shift: float
    length: float

    @property
    def scale(self) -> float:
        """What makes an unscaled inverse transform after an unscaled forward one the identity."""
        n = self.stop - self.start
        if self.family == "fft":
            return 1 / n
        return 0.5 / (n if self.kind != 1 else n - 1 if self.family == "dct" else n + 1)

    def squared_wavenumbers(self, spacing: float, form: Literal["spectral", "stencil"], half: bool) -> np.ndarray:
        """k^2 of every mode, or its three-point equivalent 4 sin^2(k h / 2) / h^2.

        Parameters
        ----------
        spacing : float
        form : {"spectral", "stencil"}
        half : bool
            Only the modes that the transform of real data keeps.
        """
        n = self.stop - self.start
        if self.family == "fft":
            modes = np.arange(n // 2 + 1) if half else np.abs(np.fft.fftfreq(n, 1 / n))
            k = 2 * np.pi * modes / (n * spacing)
        else:
            k = np.pi * (np.arange(n) + self.shift) / (self.length * spacing)
        return k**2 if form == "spectral" else (2 / spacing * np.sin(k * spacing / 2)) ** 2


@dataclass(frozen=True)
class Axis:
    """An axis of a grid with its two ends.

    Attributes
    ----------
    dim : str
    size : int
    spacing : float
    node_centred : bool
    lo, hi : End
    """

    dim: str
    size: int
    spacing: float
    node_centred: bool
    lo: End
    hi: End

    @property
    def periodic(self) -> bool:
        return self.lo.kind == "periodic"

    @property
    def held(self) -> tuple[int, ...]:
        """Positions whose value is given: the ends of a node-centred axis under Dirichlet conditions."""
        if not self.node_centred:
            return ()
        ends = ((0, self.lo), (self.size - 1, self.hi))
        return tuple(position for position, end in ends if end.kind == "dirichlet")

    def mirrored(self) -> Axis:
        """The same axis for a coefficient: even reflection at every end that is not periodic."""
        if self.periodic:
            return self
        zero = End("neumann")
        return Axis(self.dim, self.size, self.spacing, self.node_centred, zero, zero)

    def homogeneous(self) -> Axis:
        """The same axis for a small change of the field: every given value is 0."""
        lo, hi = End(self.lo.kind), End(self.hi.kind)
        return Axis(self.dim, self.size, self.spacing, self.node_centred, lo, hi)

    def ghost(self, position: int) -> Ghost:
        """The rule for a position outside 0 ... size - 1, however far outside."""
        if self.periodic:
            return Ghost(position, position % self.size, 1, 0.0, 0.0)
        at, sign, weights = position, 1, [0.0, 0.0]
        while not 0 <= at < self.size:
            side = int(at >= self.size)
            end = (self.lo, self.hi)[side]
            last = self.size - 1
            beyond = 0 if self.node_centred else 1  # the end is a node, or half a voxel further out
            mirror = 2 * last + beyond - at if side else -beyond - at
            if end.kind == "dirichlet":
                weights[side] += 2.0 * sign
                sign = -sign
            else:
                weights[side] += sign * abs(mirror - at) * self.spacing
            at = mirror
        return Ghost(position, at, sign, *weights)

    def ghosts(self, depth: int) -> list[Ghost]:
        """The rules for `depth` layers beyond each end."""
        return [self.ghost(p) for p in (*range(-depth, 0), *range(self.size, self.size + depth))]

    def transform(self) -> Transform:
        """The transform that diagonalises the second difference under these ends."""
        n, kinds = self.size, self.lo.kind[0] + self.hi.kind[0]
        if self.periodic:
            return Transform("fft", 0, 0, n, 0.0, n)
        if self.node_centred:
            return {
                "nn": Transform("dct", 1, 0, n, 0.0, n - 1),
                "dd": Transform("dst", 1, 1, n - 1, 1.0, n - 1),
                "nd": Transform("dct", 3, 0, n - 1, 0.5, n - 1),
                "dn": Transform("dst", 3, 1, n, 0.5, n - 1),
            }[kinds]
        return {
            "nn": Transform("dct", 2, 0, n, 0.0, n),
            "dd": Transform("dst", 2, 0, n, 1.0, n),
            "nd": Transform("dct", 4, 0, n, 0.5, n),
            "dn": Transform("dst", 4, 0, n, 0.5, n),
        }[kinds]


def parse(boundary: Any, grid: Grid) -> tuple[Axis, ...]:
    """The axes of a grid under the conditions that a user wrote.

    Parameters
    ----------
    boundary : str, Dirichlet, Neumann, tuple or mapping
        ``"periodic"``, ``"neumann"`` (zero flux), ``"dirichlet"`` (zero), an instance with values, or a
        pair (lower, upper) of these, for all axes; or a mapping from dims to any of these. Dims that a
        mapping leaves out are periodic.
    grid : Grid

    Returns
    -------
    tuple of Axis
        In storage order.

    Raises
    ------
    TypeError
        For a condition or value of a type that means nothing here.
    ValueError
        For a dim that the grid has not, an unknown name, an axis periodic on one end only, a
        node-centred axis of fewer than three nodes that is not periodic, a value that is not finite, or a
        face value whose sizes or coordinates do not fit.

    Examples
    --------
    >>> from voxdask.grid import Grid
    >>> grid = Grid(("y", "x"), (4, 4), (1.0, 1.0), (0.5, 0.5))
    >>> [axis.lo.kind for axis in parse({"x": "neumann"}, grid)]
    ['periodic', 'neumann']
    """
    given: Mapping[str, Any]
    if isinstance(boundary, Mapping):
        given = boundary
        unknown = [dim for dim in given if dim not in grid.dims]
        if unknown:
            raise ValueError(f"boundary names the dim {unknown[0]!r}, but the grid has dims {grid.dims}")
    else:
        given = dict.fromkeys(grid.dims, boundary)
    return tuple(_axis(given.get(dim, "periodic"), grid, a) for a, dim in enumerate(grid.dims))


def _axis(condition: Any, grid: Grid, a: int) -> Axis:
    dim, size = grid.dims[a], grid.shape[a]
    if isinstance(condition, tuple | list):
        if len(condition) != 2:
            raise ValueError(f"boundary[{dim!r}] needs two ends (lower, upper), got {len(condition)}: {condition!r}")
        lo, hi = _ends(condition[0], dim)[0], _ends(condition[1], dim)[1]
    else:
        lo, hi = _ends(condition, dim)
    if (lo.kind == "periodic") != (hi.kind == "periodic"):
        raise ValueError(
            f"boundary[{dim!r}] is periodic on one end only; an axis is periodic on both ends or on none"
        )
    node_centred = dim in grid.node_centred
    if node_centred and lo.kind != "periodic" and size < 3:
        raise ValueError(f"the node-centred dim {dim!r} has {size} nodes; it needs at least 3 unless periodic")
    return Axis(dim, size, grid.spacing[a], node_centred, _at_face(lo, grid, a), _at_face(hi, grid, a))


def _ends(condition: Any, dim: str) -> tuple[End, End]:
    if isinstance(condition, str):
        if condition not in ("periodic", "neumann", "dirichlet"):
            raise ValueError(
                f"boundary[{dim!r}] is {condition!r}; use 'periodic', 'neumann', 'dirichlet', "
                "vd.Neumann(lo, hi) or vd.Dirichlet(lo, hi)"
            )
        return End(condition), End(condition)  # type: ignore[arg-type]
    if isinstance(condition, Dirichlet | Neumann):
        kind: Kind = "dirichlet" if isinstance(condition, Dirichlet) else "neumann"
        hi = condition.lo if condition.hi is None else condition.hi
        return End(kind, _number(condition.lo, dim)), End(kind, _number(hi, dim))
    raise TypeError(
        f"boundary[{dim!r}] is a {type(condition).__name__}; use 'periodic', 'neumann', 'dirichlet', "
        "vd.Neumann(lo, hi) or vd.Dirichlet(lo, hi)"
    )


def _number(value: Any, dim: str) -> Value:
    if isinstance(value, xr.DataArray):
        return value
    if callable(value):
        function: Callable[[float], Any] = value
        return function
    if not isinstance(value, numbers.Real):
        raise TypeError(
            f"a value in boundary[{dim!r}] is {value!r}; give a number, a function of time or a DataArray over the face"
        )
    return _finite(float(value), dim)


def _finite(value: float, dim: str) -> float:
    if not math.isfinite(value):
        raise ValueError(f"a value in boundary[{dim!r}] is {value}; it must be finite")
    return value


def _at_face(end: End, grid: Grid, a: int) -> End:
    """The same end; an array over the face checked, in memory and in storage order."""
    if not isinstance(end.value, xr.DataArray):
        return end
    dim, rest = grid.dims[a], [d for d in grid.dims if d != grid.dims[a]]
    face = _in_order(end.value, dim, {d: grid.shape[grid.axis(d)] for d in rest})
    for other in rest:
        if other in face.coords:
            there, here = np.asarray(face.coords[other].values, float), grid.coordinate(other)
            if not np.allclose(there, here, rtol=0, atol=1e-3 * grid.spacing[grid.axis(other)]):
                raise ValueError(
                    f"a value in boundary[{dim!r}] has other coordinates along {other!r} than the grid: "
                    f"{there[0]:g} ... {there[-1]:g}, not {here[0]:g} ... {here[-1]:g}"
                )
    return End(end.kind, face)


def _in_order(value: xr.DataArray, dim: str, sizes: Mapping[str, int]) -> xr.DataArray:
    """An array over the face at the end of `dim`, in host memory and in storage order."""
    if dict(value.sizes) != dict(sizes):
        raise ValueError(f"a value in boundary[{dim!r}] has sizes {dict(value.sizes)}; the face has {dict(sizes)}")
    if value.dtype.kind not in "biuf":
        raise TypeError(f"a value in boundary[{dim!r}] has dtype {value.dtype}; it must be real numbers")
    value = value.transpose(*sizes).compute()
    value = value.copy(data=backend.to_host(value.data))
    if not np.isfinite(value.values).all():
        raise ValueError(f"a value in boundary[{dim!r}] holds NaN or infinity; it must be finite")
    return value


def face_value(end: End, axes: Sequence[Axis], a: int, time: float) -> float | np.ndarray:
    """The value given at an end at a time: a number, or an array over the face in storage order.

    Raises
    ------
    TypeError, ValueError
        If a function of time returns what does not fit.
    """
    value = end.value
    if callable(value):
        value = value(time)
        if isinstance(value, xr.DataArray):
            value = _in_order(value, axes[a].dim, {axis.dim: axis.size for axis in axes if axis is not axes[a]})
        elif isinstance(value, np.ndarray) and value.ndim == 0:
            value = value.item()
    if isinstance(value, xr.DataArray):
        return np.asarray(value.values)
    if not isinstance(value, numbers.Real):
        raise TypeError(
            f"the function in boundary[{axes[a].dim!r}] returned a {type(value).__name__} at time {time:g}; "
            "it must return a number or a DataArray over the face"
        )
    return _finite(float(value), axes[a].dim)
