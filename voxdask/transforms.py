"""One-dimensional transforms of a block along an axis, by boundary kind.

They go through the ``scipy.fft`` interface, so that a backend registered there serves (``scipy.fft.
set_backend``). Kinds that CuPy lacks are made from the Fourier transform of an even or odd extension.
"""

from __future__ import annotations

from typing import Any

from voxdask import backend
from voxdask.boundary import Transform

#: Cosine and sine transforms that cupyx.scipy.fft offers.
_ON_DEVICE = (2, 3)


def forward(block: Any, transform: Transform, axis: int, *, overwrite: bool = False) -> Any:
    """Transform a real or complex block along `axis`.

    Parameters
    ----------
    block : array
    transform : Transform
        Its held nodes must be zero in `block` and stay so in the result.
    axis : int
    overwrite : bool
        The block may be used as workspace.

    Returns
    -------
    array
        Of the same shape.
    """
    return _apply(block, transform, axis, overwrite, inverse=False)


def inverse(block: Any, transform: Transform, axis: int, *, overwrite: bool = False) -> Any:
    """Undo :func:`forward`.

    Parameters
    ----------
    block : array
    transform : Transform
    axis : int
    overwrite : bool
        The block may be used as workspace.

    Returns
    -------
    array
        Of the same shape.
    """
    return _apply(block, transform, axis, overwrite, inverse=True)


def forward_half(block: Any, axis: int) -> Any:
    """Fourier transform of a real block, without the modes that symmetry gives."""
    return backend.fft_module(block).rfft(block, axis=axis)


def inverse_half(block: Any, axis: int, size: int, *, overwrite: bool = False) -> Any:
    """Undo :func:`forward_half` for an axis of `size` voxels."""
    return backend.fft_module(block).irfft(block, n=size, axis=axis, overwrite_x=overwrite)


def _apply(block: Any, transform: Transform, axis: int, overwrite: bool, inverse: bool) -> Any:
    fft = backend.fft_module(block)
    if transform.family == "fft":
        return (fft.ifft if inverse else fft.fft)(block, axis=axis, overwrite_x=overwrite)
    n = block.shape[axis]
    if (transform.start, transform.stop) != (0, n):
        unknown = (*(slice(None),) * axis, slice(transform.start, transform.stop))
        result = backend.namespace(block).zeros_like(block)
        whole = Transform(
            transform.family, transform.kind, 0, transform.stop - transform.start, transform.shift, transform.length
        )
        result[unknown] = _apply(block[unknown], whole, axis, False, inverse)
        return result
    name = f"i{transform.family}" if inverse else transform.family
    if backend.is_device_array(block) and transform.kind not in _ON_DEVICE:
        return by_extension(block, transform, axis, inverse)
    return getattr(fft, name)(block, type=transform.kind, axis=axis, overwrite_x=overwrite)


def by_extension(block: Any, transform: Transform, axis: int, inverse: bool) -> Any:
    """A cosine or sine transform of type 1 or 4 through the Fourier transform of an extension.

    Type 1 is its own inverse up to 2 (n - 1) (cosine) or 2 (n + 1) (sine), type 4 up to 2 n.

    Parameters
    ----------
    block : array
    transform : Transform
        Of kind 1 or 4, without held nodes.
    axis : int
    inverse : bool

    Returns
    -------
    array
    """
    xp, fft = backend.namespace(block), backend.fft_module(block)
    if block.dtype.kind == "c":
        real = by_extension(block.real, transform, axis, inverse)
        return real + 1j * by_extension(block.imag, transform, axis, inverse)
    u = xp.moveaxis(block, axis, -1)
    n, sine = u.shape[-1], transform.family == "dst"
    if transform.kind == 1:
        zero = u[..., :1] * 0
        parts = [zero, u, zero, -u[..., ::-1]] if sine else [u, u[..., -2:0:-1]]
        modes = fft.rfft(xp.concatenate(parts, axis=-1), axis=-1)
        result = -modes.imag[..., 1 : n + 1] if sine else modes.real
        scale = 2 * (n + 1) if sine else 2 * (n - 1)
    elif transform.kind == 4:
        # samples at odd eighths: the odd modes of a period of 8 n, where u fills every odd place once
        sign = -1 if sine else 1
        quarter = xp.concatenate([u, -sign * u[..., ::-1]], axis=-1)
        whole = xp.concatenate([quarter, -quarter], axis=-1)
        spread = xp.zeros((*u.shape[:-1], 8 * n), dtype=u.dtype)
        spread[..., 1::2] = whole
        modes = fft.rfft(spread, axis=-1)[..., 1 : 2 * n : 2]
        result = (-modes.imag if sine else modes.real) / 2
        scale = 2 * n
    else:
        raise ValueError(f"no extension for {transform.family} of type {transform.kind}; use 1 or 4")
    result = xp.moveaxis(result, -1, axis).astype(block.dtype, copy=False)
    return result / scale if inverse else result
