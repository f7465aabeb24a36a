"""Filters: compiled functions that combine blocks of spectra, mode by mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import sympy as sp

from voxdask import backend
from voxdask.compiling import checked, load_device, run_host
from voxdask.loops import mode_loop
from voxdask.loopsource import cuda_source, numba_source
from voxdask.printing import Scalars
from voxdask.symbols import Parameter


@dataclass(frozen=True)
class Filter:
    """Combines blocks of spectra, in place, with gains that are functions of the squared wavenumbers.

    Attributes
    ----------
    axes : tuple of str
    parameters : tuple of str
        Numbers that a call supplies.
    targets : tuple of str
        Spectra that somebody needs afterwards; others may be given up.
    writes, reads : tuple of str
        Spectra that change, and those that go into them; a target that becomes itself does not change.
    """

    axes: tuple[str, ...]
    parameters: tuple[str, ...]
    numbers: tuple[float, ...]
    targets: tuple[str, ...]
    writes: tuple[str, ...]
    reads: tuple[str, ...]
    host: str
    device: str

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the spectra that a call takes, those that are written first."""
        return tuple(dict.fromkeys((*self.writes, *self.reads)))

    def __call__(
        self, spectra: Mapping[str, Any], squares: Sequence[Any], parameters: Mapping[str, float]
    ) -> None:
        """Combine in place.

        Parameters
        ----------
        spectra : mapping of str to array
            Real or complex, one axis for each of `axes`, all of one shape.
        squares : sequence of 1-D array
            Squared wavenumbers of the block along each axis.
        parameters : mapping of str to float
        """
        blocks = [spectra[name] for name in self.arrays]
        some = blocks[0]
        xp, real = backend.namespace(some), some.real.dtype
        for name, block in zip(self.arrays, blocks, strict=True):
            if block.shape != some.shape or block.dtype != some.dtype:
                raise ValueError(f"{name!r} is {block.dtype}{list(block.shape)}, not {some.dtype}{list(some.shape)}")
        packed = xp.asarray([*(parameters[name] for name in self.parameters), *self.numbers], dtype=real)
        along = [xp.asarray(square, dtype=real) for square in squares]
        for axis, square, n in zip(self.axes, along, some.shape, strict=True):
            checked(f"squared wavenumbers along {axis}", square, (n,), real)
        if xp is np:
            run_host(self.host, "combine", *blocks, *along, packed)
            return
        modes = [xp.ascontiguousarray(block) for block in blocks]
        components = np.int32(some.itemsize // real.itemsize)
        extents = map(np.int32, some.shape)
        function = load_device(self.device, real.char).get_function("combine")
        backend.launch(function, some.shape, (*modes, *along, packed, *extents, components))
        for block, contiguous in zip(blocks[: len(self.writes)], modes, strict=False):
            if contiguous is not block:
                block[...] = contiguous


Gains = tuple[tuple[str, tuple[tuple[str, sp.Expr], ...]], ...]
"""What becomes of each spectrum: its name, and the gain of every spectrum that goes into it."""


@lru_cache(maxsize=256)
def compile_filter(gains: Gains, axes: tuple[str, ...]) -> Filter:
    """Print a filter's kernels; they are compiled at the first call.

    Parameters
    ----------
    gains : tuple of (str, tuple of (str, Expr))
        For every spectrum that is needed afterwards the spectra that go into it, each with its gain in ``q_<axis>``,
        the squared wavenumbers, and parameters.
    axes : tuple of str

    Returns
    -------
    Filter

    Raises
    ------
    ValueError
        If a gain depends on position, or no spectrum changes.

    Examples
    --------
    >>> import numpy as np, sympy as sp
    >>> spectrum = np.ones(3)
    >>> half = compile_filter((("r", (("r", 1 / (1 + sp.Symbol("q_x", nonnegative=True))),)),), ("x",))
    >>> half({"r": spectrum}, [np.array([0.0, 1.0, 3.0])], {})
    >>> spectrum
    array([1.  , 0.5 , 0.25])
    """
    changes = [(name, dict(terms)) for name, terms in gains if dict(terms) != {name: 1}]
    if not changes:
        raise ValueError(f"a filter of {[name for name, _ in gains]} changes no spectrum")
    expressions = [gain for _, terms in changes for gain in terms.values()]
    parameters = {s.name for expression in expressions for s in expression.atoms(Parameter)}
    scalars = Scalars(tuple(sorted(parameters)))
    loop = mode_loop([terms for _, terms in changes], [name for name, _ in changes], axes)
    host, device = numba_source(loop, scalars), cuda_source([loop], scalars)
    return Filter(
        axes=axes,
        parameters=scalars.parameters,
        numbers=scalars.values(),  # printing collects them
        targets=tuple(name for name, _ in gains),
        writes=loop.writes,
        reads=tuple(dict.fromkeys(name for _, terms in changes for name in terms)),
        host=host,
        device=device,
    )
