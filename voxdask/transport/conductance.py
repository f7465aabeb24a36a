"""How well faces between voxels conduct: the one place where the discrete operator div(D grad c) is written.

A voxel exchanges :math:`w (c_j - c_i)` with each of six neighbours. The weight :math:`w` is the harmonic mean of both
diffusivities, times a factor for the axis where voxels are no cubes; it is the flux through a face between two layers
in series. Planes are padded by a layer of ghosts on every side: of no diffusivity where nothing passes, of the other
side's where the image is periodic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.extending import overload

#: Sums may be taken in any order and products fused; NaN and infinity stay what they are.
FAST = {"contract", "reassoc", "arcp", "nsz"}
jit: Callable[..., Any] = numba.njit(nogil=True, fastmath=FAST, cache=True, error_model="numpy")

#: Keep 0 / 0 from being asked for.
TINY, TINY_DOUBLE = np.float32(1e-30), np.float64(1e-300)


def conductance(a: Any, b: Any) -> Any:
    """The weight of a face between two voxels: the harmonic mean, which of 0 and 1 is their product."""
    raise NotImplementedError("only in compiled code")


@overload(conductance, jit_options={"fastmath": FAST})
def _conductance(a, b):
    if isinstance(a, types.Integer):
        return lambda a, b: np.float32(a) * np.float32(b)
    if a is types.float64:
        return lambda a, b: (a * b + a * b) / (a + b + TINY_DOUBLE)
    return lambda a, b: (a * b + a * b) / (a + b + TINY)


@jit
def weights_between(low, high, out):
    """The weights of the faces between two layers, of planes of diffusivity without ghosts."""
    for j in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[j, k] = conductance(low[j, k], high[j, k])


@jit
def flow_row(out, below, here, above, low, middle, high, j, c0, c1, c2):
    """What leaves each voxel of row `j`: the sum over faces of w (v_i - v_j), of planes of v and of diffusivity."""
    b, a = below[j + 1, 1:-1], above[j + 1, 1:-1]
    n, s = here[j, 1:-1], here[j + 2, 1:-1]
    w, o, e = here[j + 1, :-2], here[j + 1, 1:-1], here[j + 1, 2:]
    mb, ma = low[j + 1, 1:-1], high[j + 1, 1:-1]
    mn, ms = middle[j, 1:-1], middle[j + 2, 1:-1]
    mw, mo, me = middle[j + 1, :-2], middle[j + 1, 1:-1], middle[j + 1, 2:]
    for k in range(len(out)):
        v, m = o[k], mo[k]
        out[k] = (
            c0 * (conductance(m, mb[k]) * (v - b[k]) + conductance(m, ma[k]) * (v - a[k]))
            + c1 * (conductance(m, mn[k]) * (v - n[k]) + conductance(m, ms[k]) * (v - s[k]))
            + c2 * (conductance(m, mw[k]) * (v - w[k]) + conductance(m, me[k]) * (v - e[k]))
        )


@jit
def diagonal_row(out, low, middle, high, j, c0, c1, c2):
    """The sum of all weights of each voxel of row `j`."""
    mb, ma = low[j + 1, 1:-1], high[j + 1, 1:-1]
    mn, ms = middle[j, 1:-1], middle[j + 2, 1:-1]
    mw, mo, me = middle[j + 1, :-2], middle[j + 1, 1:-1], middle[j + 1, 2:]
    for k in range(len(out)):
        m = mo[k]
        out[k] = (
            c0 * (conductance(m, mb[k]) + conductance(m, ma[k]))
            + c1 * (conductance(m, mn[k]) + conductance(m, ms[k]))
            + c2 * (conductance(m, mw[k]) + conductance(m, me[k]))
        )


@jit
def wrap_plane(plane, periodic1, periodic2):
    """Fill the ghosts of a plane along its periodic axes."""
    n1, n2 = plane.shape
    if periodic1:
        for k in range(n2):
            plane[0, k] = plane[n1 - 2, k]
            plane[n1 - 1, k] = plane[1, k]
    if periodic2:
        for j in range(n1):
            plane[j, 0] = plane[j, n2 - 2]
            plane[j, n2 - 1] = plane[j, 1]
