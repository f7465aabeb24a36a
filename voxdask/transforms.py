"""One-dimensional transforms of a block along an axis, by boundary kind.

They go through the ``scipy.fft`` interface, so that any library with that interface serves, by its name (see
:func:`voxdask.ffts.check_fft`). Kinds that CuPy lacks are made from the Fourier transform of an even or odd
extension. No direction scales: an inverse gives back its input divided by the ``scale`` of its :class:`Transform`,
which costs nothing where it goes into a factor that modes are multiplied by anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from voxdask import backend
from voxdask.boundary import Transform
from voxdask.ffts import fft_function

#: Cosine and sine transforms that cupyx.scipy.fft offers.
_ON_DEVICE = (2, 3)
#: Parts of a block that they go through in turn.
_PARTS = 16


def forward(block: Any, transform: Transform, axis: int, *, overwrite: bool = False, fft: str = "scipy") -> Any:
    """Transform a real or complex block along `axis`.

    Parameters
    ----------
    block : array
    transform : Transform
        Its held nodes must be zero in `block` and stay so in the result.
    axis : int
    overwrite : bool
        The block may be used as workspace.
    fft : str
        Name of the library.

    Returns
    -------
    array
        Of the same shape.
    """
    return backend.in_order(_apply(block, transform, axis, overwrite, fft, inverse=False))


def inverse(block: Any, transform: Transform, axis: int, *, overwrite: bool = False, fft: str = "scipy") -> Any:
    """Undo :func:`forward`, but for the factor ``transform.scale``.

    Parameters
    ----------
    block : array
    transform : Transform
    axis : int
    overwrite : bool
        The block may be used as workspace.
    fft : str
        Name of the library.

    Returns
    -------
    array
        Of the same shape.
    """
    return backend.in_order(_apply(block, transform, axis, overwrite, fft, inverse=True))


def forward_half(block: Any, axis: int, *, fft: str = "scipy") -> Any:
    """Fourier transform of a real block, without the modes that symmetry gives."""
    if backend.is_device_array(block):
        return forward_periodic(block, (axis,))
    return fft_function(block, "rfft", fft)(block, axis=axis)


def inverse_half(block: Any, axis: int, size: int, *, overwrite: bool = False, fft: str = "scipy") -> Any:
    """Undo :func:`forward_half` for an axis of `size` voxels, but for the factor 1 / size."""
    if backend.is_device_array(block):
        return inverse_periodic(block, (axis,), (size,))
    return fft_function(block, "irfft", fft)(block, n=size, axis=axis, norm="forward", overwrite_x=overwrite)


def forward_periodic(block: Any, axes: tuple[int, ...]) -> Any:
    """Fourier transform of a real block on a device along several axes in one plan, the last of which is halved."""
    return backend.in_order(fft_function(block, "rfftn")(block, axes=axes))


def inverse_periodic(block: Any, axes: tuple[int, ...], sizes: tuple[int, ...]) -> Any:
    """Undo :func:`forward_periodic`, but for the factor 1 / size of every axis; the block is used up."""
    inverted = fft_function(block, "irfftn")
    return backend.in_order(inverted(block, s=sizes, axes=axes, norm="forward", overwrite_x=True))


def _apply(block: Any, transform: Transform, axis: int, overwrite: bool, fft: str, inverse: bool) -> Any:
    name, norm = (f"i{transform.family}", "forward") if inverse else (transform.family, "backward")
    if transform.family == "fft" and axis == 0 and backend.is_device_array(block):
        # CuPy would copy one axis aside; beside another, of a single point, it transforms it in place
        return fft_function(block, f"{name}n")(block[None], axes=(0, 1), norm=norm, overwrite_x=overwrite)[0]
    if transform.family == "fft":
        return fft_function(block, name, fft)(block, axis=axis, norm=norm, overwrite_x=overwrite)
    n = block.shape[axis]
    if (transform.start, transform.stop) != (0, n):
        unknown = (*(slice(None),) * axis, slice(transform.start, transform.stop))
        result = block if overwrite else backend.namespace(block).zeros_like(block)
        whole = Transform(
            transform.family, transform.kind, 0, transform.stop - transform.start, transform.shift, transform.length
        )
        result[unknown] = _apply(block[unknown], whole, axis, overwrite, fft, inverse)
        return result
    function = fft_function(block, name, fft)
    if not backend.is_device_array(block):
        return function(block, type=transform.kind, axis=axis, norm=norm, overwrite_x=overwrite)

    def of_part(part: Any) -> Any:
        if transform.kind in _ON_DEVICE:
            return function(part, type=transform.kind, axis=axis, norm=norm)
        return by_extension(part, transform, axis)

    return _part_by_part(block, axis, of_part)


def _part_by_part(block: Any, axis: int, function: Callable[[Any], Any]) -> Any:
    """What a function makes of lines along an axis, of some at a time: it takes many times their memory."""
    if block.ndim == 1:
        return function(block)
    size, other = max((n, -a) for a, n in enumerate(block.shape) if a != axis)
    other, count = -other, min(size, _PARTS)
    result = backend.namespace(block).empty(block.shape, block.dtype)
    for k in range(count):
        lines = (slice(None),) * other + (slice(size * k // count, size * (k + 1) // count),)
        result[lines] = function(block[lines])
    backend.forget_transforms()  # of two shapes along every axis, beside those of whole blocks
    return result


def by_extension(block: Any, transform: Transform, axis: int) -> Any:
    """A cosine or sine transform of type 1 or 4 through the Fourier transform of an extension.

    Both types are their own inverses, but for the scale.

    Parameters
    ----------
    block : array
    transform : Transform
        Of kind 1 or 4, without held nodes.
    axis : int

    Returns
    -------
    array
    """
    xp, rfft = backend.namespace(block), fft_function(block, "rfft")
    if block.dtype.kind == "c":
        return by_extension(block.real, transform, axis) + 1j * by_extension(block.imag, transform, axis)
    u = xp.moveaxis(block, axis, -1)
    n, sine = u.shape[-1], transform.family == "dst"
    if transform.kind == 1:
        zero = u[..., :1] * 0
        parts = [zero, u, zero, -u[..., ::-1]] if sine else [u, u[..., -2:0:-1]]
        modes = rfft(xp.concatenate(parts, axis=-1), axis=-1)
        result = -modes.imag[..., 1 : n + 1] if sine else modes.real
    elif transform.kind == 4:
        # samples at odd eighths: the odd modes of a period of 8 n, where u fills every odd place once
        sign = -1 if sine else 1
        quarter = xp.concatenate([u, -sign * u[..., ::-1]], axis=-1)
        whole = xp.concatenate([quarter, -quarter], axis=-1)
        spread = xp.zeros((*u.shape[:-1], 8 * n), dtype=u.dtype)
        spread[..., 1::2] = whole
        modes = rfft(spread, axis=-1)[..., 1 : 2 * n : 2]
        result = (-modes.imag if sine else modes.real) / 2
    else:
        raise ValueError(f"no extension for {transform.family} of type {transform.kind}; use 1 or 4")
    return xp.moveaxis(result, -1, axis).astype(block.dtype, copy=False)
