"""A transform of a grid in two sweeps: slabs transform the local axes, pencils the first one.

Between the sweeps lies the *spectrum*, an array of the modes of the local axes by the rows of the first.
Slabs read and write rows of it, pencils columns: transform, redistribution and what each sweep covers are
three separate things, and only the last two know of tiles.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from voxdask import backend, transforms
from voxdask.boundary import Axis
from voxdask.filters import Filter
from voxdask.symbols import Parameter

#: Name of the spectrum that is being transformed, in a filter.
TRANSFORMED = "transformed"

#: What a filter multiplies the modes by that are transformed back: no transform scales.
SCALE = Parameter("transform.scale", positive=True)


def saved_name(number: int) -> str:
    """Name of a spectrum that was saved, in a filter.

    Examples
    --------
    >>> saved_name(0)
    'saved0'
    """
    return f"saved{number}"


@dataclass(frozen=True)
class GridTransform:
    """The transform that belongs to the boundary conditions of a grid.

    A real transform halves the data once: along the last local axis that is periodic, or along the
    first axis if only that is.

    Attributes
    ----------
    axes : tuple of Axis
        In storage order.
    dtype : dtype
        Of the fields.
    wavenumbers : {"spectral", "stencil"}
        k, or 2/h sin(k h / 2), which makes the linear part of a stencil exact.
    fft : str
        Name of the library that transforms arrays in memory.
    """

    axes: tuple[Axis, ...]
    dtype: np.dtype[Any]
    wavenumbers: Literal["spectral", "stencil"] = "spectral"
    fft: str = "scipy"

    @property
    def half(self) -> int | None:
        """The axis along which real data is halved."""
        periodic = [a for a, axis in enumerate(self.axes) if axis.periodic]
        return periodic[-1] if periodic else None

    @property
    def complex(self) -> bool:
        """Whether the spectrum between the sweeps is complex."""
        return self.half not in (None, 0)

    @property
    def spectrum_dtype(self) -> np.dtype[Any]:
        return np.result_type(self.dtype, np.complex64) if self.complex else self.dtype

    @property
    def spectrum_shape(self) -> tuple[int, ...]:
        """Rows by modes of the local axes; a grid of one axis has one column."""
        local = [n // 2 + 1 if a == self.half else n for a, n in enumerate(self.shape) if a > 0]
        return (self.shape[0], *(local or [1]))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(axis.size for axis in self.axes)

    @cached_property
    def scale(self) -> float:
        """What makes an inverse after a forward transform the identity."""
        return math.prod(axis.transform().scale for axis in self.axes)

    @cached_property
    def squares(self) -> tuple[np.ndarray, ...]:
        """Squared wavenumbers of every mode along each axis; zero where a held node takes no part."""
        values = []
        for a, axis in enumerate(self.axes):
            transform = axis.transform()
            q = transform.squared_wavenumbers(axis.spacing, self.wavenumbers, half=a == self.half)
            if transform.family != "fft":
                q = np.pad(q, (transform.start, axis.size - transform.stop))
            values.append(q.astype(self.dtype))
        return tuple(values)

    def forward_slab(self, block: Any) -> Any:
        """Transform the local axes of some rows.

        Parameters
        ----------
        block : array
            Rows of a real field; it may be used as workspace.

        Returns
        -------
        array
            The same rows of the spectrum.
        """
        if self._in_one_plan(block):
            return transforms.forward_periodic(block, tuple(range(1, len(self.axes))))
        for a in self._local():
            if a == self.half:
                block = transforms.forward_half(block, a, fft=self.fft)
            else:
                block = transforms.forward(block, self.axes[a].transform(), a, overwrite=True, fft=self.fft)
        return block if len(self.axes) > 1 else block[:, None]

    def inverse_slab(self, block: Any) -> Any:
        """Undo :meth:`forward_slab`, but for a scale.

        Parameters
        ----------
        block : array
            Rows of a spectrum; it may be used as workspace.

        Returns
        -------
        array
            The same rows of a real field.
        """
        if self._in_one_plan(block):
            return transforms.inverse_periodic(block, tuple(range(1, len(self.axes))), self.shape[1:])
        for a in reversed(self._local()):
            if a == self.half:
                block = transforms.inverse_half(block, a, self.shape[a], overwrite=True, fft=self.fft)
            else:
                block = transforms.inverse(block, self.axes[a].transform(), a, overwrite=True, fft=self.fft)
        return block if len(self.axes) > 1 else block[:, 0]

    @property
    def modes_shape(self) -> tuple[int, ...]:
        """Shape of a spectrum that is transformed along the first axis too."""
        rows, *rest = self.spectrum_shape
        return (rows // 2 + 1 if self.half == 0 else rows, *rest)

    @property
    def modes_dtype(self) -> np.dtype[Any]:
        """Type of a spectrum that is transformed along the first axis too."""
        return np.result_type(self.dtype, np.complex64) if self.half == 0 else self.spectrum_dtype

    def layout(self, which: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and type of a spectrum: of :data:`TRANSFORMED`, or of one that is saved."""
        if which == TRANSFORMED:
            return self.spectrum_shape, self.spectrum_dtype
        return self.modes_shape, self.modes_dtype

    def filter_pencil(
        self,
        block: Any,
        start: int,
        gain: Filter,
        parameters: Mapping[str, float],
        saved: Mapping[str, Any] | None = None,
        *,
        overwrite: bool = False,
    ) -> Any:
        """Transform columns along the first axis, apply `gain`, and transform back; nothing scales but the gain.

        Parameters
        ----------
        block : array
            Columns ``start`` and following of a spectrum, every row of them.
        start : int
        gain : Filter
            Of :data:`TRANSFORMED` and spectra that were saved; it is given :data:`SCALE`.
        parameters : mapping of str to float
        saved : mapping of str to array, optional
            By :func:`saved_name` the same columns of spectra of shape :attr:`modes_shape` and type
            :attr:`modes_dtype`, which the gain may change.
        overwrite : bool
            The block may be used as workspace.

        Returns
        -------
        array
            Of the same shape.
        """
        transform, xp = self.axes[0].transform(), backend.namespace(block)
        halved, fft = self.half == 0, self.fft
        if halved:
            modes = transforms.forward_half(block, 0, fft=fft)
        else:
            modes = transforms.forward(block, transform, 0, overwrite=overwrite, fft=fft)
        squares = [xp.asarray(q) for q in self.squares]
        spectra = {TRANSFORMED: modes, **(saved or {})}
        values = {**parameters, SCALE.name: self.scale}
        if len(squares) == 1:
            gain({name: spectrum[:, 0] for name, spectrum in spectra.items()}, squares, values)
        else:
            squares[1] = squares[1][start : start + block.shape[1]]
            gain(spectra, squares, values)
        if halved:
            return transforms.inverse_half(modes, 0, self.shape[0], overwrite=True, fft=fft)
        return transforms.inverse(modes, transform, 0, overwrite=True, fft=fft)

    def _in_one_plan(self, block: Any) -> bool:
        """Whether a device transforms all local axes at once."""
        local = self.axes[1:]
        return bool(local) and all(axis.periodic for axis in local) and backend.is_device_array(block)

    def _local(self) -> list[int]:
        """Local axes in the order of a forward transform: real ones, the halved one, complex ones."""
        local = range(1, len(self.axes))
        real = [a for a in local if not self.axes[a].periodic]
        others = [a for a in local if self.axes[a].periodic and a != self.half]
        return [*real, *([self.half] if self.complex and self.half else []), *others]


def split(size: int, width: int) -> list[tuple[int, int]]:
    """Half-open ranges of `width` that cover 0 ... size - 1.

    Examples
    --------
    >>> split(10, 4)
    [(0, 4), (4, 8), (8, 10)]
    """
    return [(lo, min(lo + width, size)) for lo in range(0, size, width)]
