"""Sweeps over the voxels of a solve, each of which reads and writes a field as few times as it can.

A slab is the layers `lo` to `hi` (of voxels, without ghosts). What needs the neighbours of a slab's first and last
layer after the sweep is left to a *seam*, which is done when all slabs are. Search directions have ghosts; all else
has none.
"""

from __future__ import annotations

import numpy as np

from voxdask.transport.conductance import TINY, conductance, diagonal_row, flow_row, jit, wrap_plane

#: The piece of a voxel that belongs to none: it does not conduct.
NONE = 255


@jit
def _end_flow(out, here, j, end):
    o = here[j + 1, 1:-1]
    for k in range(len(out)):
        out[k] += end[j, k] * o[k]


@jit
def _add(out, other):
    for k in range(len(out)):
        out[k] += other[k]


@jit
def _operator_row(out, h, j, below, here, above, values, ends, c0, c1, c2):
    """Row `j` of layer `h` of A v."""
    flow_row(out, below, here, above, values[h], values[h + 1], values[h + 2], j, c0, c1, c2)
    if h == 0:
        _end_flow(out, here, j, ends[0])
    if h == values.shape[0] - 3:
        _end_flow(out, here, j, ends[1])


@jit
def _smoothed_row(out, h, j, r, omega, values, ends, c0, c1, c2):
    """Omega r / diagonal, of row `j` of layer `h`."""
    diagonal_row(out, values[h], values[h + 1], values[h + 2], j, c0, c1, c2)
    if h == 0:
        _add(out, ends[0, j])
    if h == values.shape[0] - 3:
        _add(out, ends[1, j])
    for k in range(len(out)):
        out[k] = omega * r[k] / (out[k] + TINY)


@jit
def _smoothed_plane(out, h, r, omega, values, ends, c0, c1, c2, periodic):
    """Omega r / diagonal of layer `h`, wherever in or beside the image that is, with ghosts."""
    n0 = r.shape[0]
    if h < 0 or h >= n0:
        if not periodic[0]:
            out[:] = 0
            return
        h = (h + n0) % n0
    for j in range(r.shape[1]):
        _smoothed_row(out[j + 1, 1:-1], h, j, r[h, j], omega, values, ends, c0, c1, c2)
    wrap_plane(out, periodic[1], periodic[2])


@jit
def _restrict(h, below, here, above, r, values, ends, c0, c1, c2, piece, base, halved, target):
    """Add r - A v of layer `h` to the nodes that its voxels belong to."""
    row = np.empty(r.shape[2], r.dtype)
    s0, s1, s2 = halved
    for j in range(r.shape[1]):
        _operator_row(row, h, j, below, here, above, values, ends, c0, c1, c2)
        first, mine, old = base[h >> s0, j >> s1], piece[h, j], r[h, j]
        for k in range(len(row)):
            row[k] = old[k] - row[k]
        for k in range(len(row)):
            if mine[k] != NONE:
                target[first[k >> s2] + mine[k]] += row[k]


@jit
def residual_sweep(lo, hi, alpha, omega, p, r, values, ends, c0, c1, c2, periodic, piece, base, halved, target):
    """r -= alpha A p; then what smoothing leaves of it goes to the nodes. Returns the sum of r^2."""
    _n0, n1, n2 = r.shape
    planes = np.zeros((3, n1 + 2, n2 + 2), r.dtype)
    row = np.empty(n2, r.dtype)
    total = 0.0
    for h in range(lo, hi):
        v = planes[(h - lo) % 3]
        for j in range(n1):
            _operator_row(row, h, j, p[h], p[h + 1], p[h + 2], values, ends, c0, c1, c2)
            mine, squares = r[h, j], alpha * 0
            for k in range(n2):
                mine[k] -= alpha * row[k]
                squares += mine[k] * mine[k]
            total += squares
            _smoothed_row(v[j + 1, 1:-1], h, j, mine, omega, values, ends, c0, c1, c2)
        wrap_plane(v, periodic[1], periodic[2])
        if h - 1 > lo:
            below, here = planes[(h - lo - 2) % 3], planes[(h - lo - 1) % 3]
            _restrict(h - 1, below, here, v, r, values, ends, c0, c1, c2, piece, base, halved, target)
    return total


@jit
def residual_seam(h, omega, r, values, ends, c0, c1, c2, periodic, piece, base, halved, target):
    """What :func:`residual_sweep` leaves out at layer `h`."""
    _n0, n1, n2 = r.shape
    planes = np.zeros((3, n1 + 2, n2 + 2), r.dtype)
    for a in range(3):
        _smoothed_plane(planes[a], h + a - 1, r, omega, values, ends, c0, c1, c2, periodic)
    _restrict(h, planes[0], planes[1], planes[2], r, values, ends, c0, c1, c2, piece, base, halved, target)


@jit
def _corrected_plane(out, h, r, omega, values, ends, c0, c1, c2, periodic, piece, base, halved, e):
    """Omega r / diagonal + P e of layer `h`, wherever in or beside the image that is, with ghosts."""
    n0, n1, n2 = r.shape
    if h < 0 or h >= n0:
        if not periodic[0]:
            out[:] = 0
            return
        h = (h + n0) % n0
    s0, s1, s2 = halved
    for j in range(n1):
        o = out[j + 1, 1:-1]
        _smoothed_row(o, h, j, r[h, j], omega, values, ends, c0, c1, c2)
        first, mine = base[h >> s0, j >> s1], piece[h, j]
        for k in range(n2):
            if mine[k] != NONE:
                o[k] += e[first[k >> s2] + mine[k]]
    wrap_plane(out, periodic[1], periodic[2])


@jit
def correction_sweep(lo, hi, omega, r, z, values, ends, c0, c1, c2, periodic, piece, base, halved, e):
    """z = v + omega (r - A v) / diagonal with v = omega r / diagonal + P e. Returns the sum of r z."""
    _n0, n1, n2 = r.shape
    planes = np.zeros((3, n1 + 2, n2 + 2), r.dtype)
    row = np.empty(n2, r.dtype)
    total = 0.0
    for h in range(lo - 1, hi + 1):
        above = planes[(h - lo + 1) % 3]
        _corrected_plane(above, h, r, omega, values, ends, c0, c1, c2, periodic, piece, base, halved, e)
        i = h - 1
        if i < lo:
            continue
        below, here = planes[(i - lo) % 3], planes[(i - lo + 1) % 3]
        for j in range(n1):
            _operator_row(row, i, j, below, here, above, values, ends, c0, c1, c2)
            old, out, v, product = r[i, j], z[i, j], here[j + 1, 1:-1], omega * 0
            for k in range(n2):
                row[k] = old[k] - row[k]
            _smoothed_row(out, i, j, row, omega, values, ends, c0, c1, c2)
            for k in range(n2):
                out[k] += v[k]
                product += old[k] * out[k]
            total += product
    return total


@jit
def _energy_between(below, above, low, high, c):
    """The sum of w (difference)^2 over the faces between two layers."""
    n1, n2 = below.shape
    total = 0.0
    for j in range(1, n1 - 1):
        a, b, ma, mb, squares = below[j, 1:-1], above[j, 1:-1], low[j, 1:-1], high[j, 1:-1], c * 0
        for k in range(n2 - 2):
            d = b[k] - a[k]
            squares += conductance(ma[k], mb[k]) * d * d
        total += c * squares
    return total


@jit
def direction_sweep(lo, hi, alpha, beta, x, z, p, values, ends, c0, c1, c2, periodic):
    """x += alpha p; p = z + beta p. Returns the sum of p A p but for the faces above the last layer."""
    n0, n1, n2 = x.shape
    total = 0.0
    for h in range(lo, hi):
        here, m = p[h + 1], values[h + 1]
        for j in range(n1):
            mine, solution, new = here[j + 1, 1:-1], x[h, j], z[h, j]
            for k in range(n2):
                old = mine[k]
                solution[k] += alpha * old
                mine[k] = new[k] + beta * old
        wrap_plane(here, periodic[1], periodic[2])
        for j in range(n1):
            o, right, s = here[j + 1, 1:-1], here[j + 1, 2:], here[j + 2, 1:-1]
            mo, mr, ms = m[j + 1, 1:-1], m[j + 1, 2:], m[j + 2, 1:-1]
            squares = alpha * 0
            for k in range(n2):
                d, e = right[k] - o[k], s[k] - o[k]
                squares += c2 * conductance(mo[k], mr[k]) * d * d + c1 * conductance(mo[k], ms[k]) * e * e
            total += squares
        if h > lo:
            total += _energy_between(p[h], here, values[h], m, c0)
        for end in range(2):
            if h == (0, n0 - 1)[end]:
                for j in range(n1):
                    for k in range(n2):
                        total += ends[end, j, k] * here[j + 1, k + 1] ** 2
    return total


@jit
def direction_seam(h, p, values, c0):
    """What :func:`direction_sweep` leaves out above layer `h`."""
    return _energy_between(p[h + 1], p[h + 2], values[h + 1], values[h + 2], c0)


@jit
def _load_plane(out, h, x, periodic):
    n0 = x.shape[0]
    if h < 0 or h >= n0:
        h = (h + n0) % n0  # beyond an end that is not periodic no face conducts
    out[1:-1, 1:-1] = x[h]
    wrap_plane(out, periodic[1], periodic[2])


@jit
def true_residual_sweep(lo, hi, x, r, values, ends, c0, c1, c2, periodic, held, jumps, flux, between, within):
    """r = b - A x, from differences in double precision, and the sum of w (difference)^2 by layers.

    The ends are `held` at two values; across every face of an axis the field also rises by a jump. The flux through
    each layer of faces along the first axis, from the first end on, goes into `flux`; what the sum has of them into
    `between`, and of the faces within layers of voxels into `within`.
    """
    n0, n1, n2 = x.shape
    planes = np.zeros((3, n1 + 2, n2 + 2))
    _load_plane(planes[0], lo - 1, x, periodic)
    _load_plane(planes[1], lo, x, periodic)
    for h in range(lo, hi):
        _load_plane(planes[(h - lo + 2) % 3], h + 1, x, periodic)
        below, here, above = planes[(h - lo) % 3], planes[(h - lo + 1) % 3], planes[(h - lo + 2) % 3]
        low, m, high = values[h], values[h + 1], values[h + 2]
        for j in range(1, n1 + 1):
            for k in range(1, n2 + 1):
                v, mo = here[j, k], m[j, k]
                wb, wa = c0 * conductance(mo, low[j, k]), c0 * conductance(mo, high[j, k])
                wn, ws = c1 * conductance(mo, m[j - 1, k]), c1 * conductance(mo, m[j + 1, k])
                wl, wr = c2 * conductance(mo, m[j, k - 1]), c2 * conductance(mo, m[j, k + 1])
                up, down = above[j, k] - v + jumps[0], below[j, k] - v - jumps[0]
                south, north = here[j + 1, k] - v + jumps[1], here[j - 1, k] - v - jumps[1]
                right, left = here[j, k + 1] - v + jumps[2], here[j, k - 1] - v - jumps[2]
                s = wa * up + wb * down + ws * south + wn * north + wr * right + wl * left
                within[h] += ws * south * south + wr * right * right
                between[h + 1] += wa * up * up
                flux[h + 1] += wa * up
                if h == 0:
                    d = held[0] - v
                    s += ends[0, j - 1, k - 1] * d
                    between[0] += ends[0, j - 1, k - 1] * d * d
                    flux[0] -= ends[0, j - 1, k - 1] * d
                if h == n0 - 1:
                    d = held[1] - v
                    s += ends[1, j - 1, k - 1] * d
                    between[n0] += ends[1, j - 1, k - 1] * d * d
                    flux[n0] += ends[1, j - 1, k - 1] * d
                r[h, j - 1, k - 1] = s


@jit
def wall_sweep(lo, hi, values, periodic, areas, out):
    """What each conducting voxel has of faces to voxels that do not conduct, inside the image; returns their sum."""
    n0, n1, n2 = out.shape
    total = 0.0
    for h in range(lo, hi):
        for j in range(n1):
            for k in range(n2):
                s = 0.0
                if values[h + 1, j + 1, k + 1] > 0:
                    s += areas[0] * ((h > 0 or periodic[0]) and values[h, j + 1, k + 1] == 0)
                    s += areas[0] * ((h < n0 - 1 or periodic[0]) and values[h + 2, j + 1, k + 1] == 0)
                    s += areas[1] * ((j > 0 or periodic[1]) and values[h + 1, j, k + 1] == 0)
                    s += areas[1] * ((j < n1 - 1 or periodic[1]) and values[h + 1, j + 2, k + 1] == 0)
                    s += areas[2] * ((k > 0 or periodic[2]) and values[h + 1, j + 1, k] == 0)
                    s += areas[2] * ((k < n2 - 1 or periodic[2]) and values[h + 1, j + 1, k + 2] == 0)
                out[h, j, k] = s
                total += s
    return total


@jit
def add_source_sweep(lo, hi, source, x, r):
    """r += source; returns the sum of source x."""
    _, n1, n2 = r.shape
    total = 0.0
    for h in range(lo, hi):
        for j in range(n1):
            for k in range(n2):
                r[h, j, k] += source[h, j, k]
                total += np.float64(source[h, j, k]) * x[h, j, k]
    return total


@jit
def weighted_square_sweep(lo, hi, weight, x):
    """The sum of weight x^2."""
    _, n1, n2 = x.shape
    total = 0.0
    for h in range(lo, hi):
        for j in range(n1):
            for k in range(n2):
                total += np.float64(weight[h, j, k]) * x[h, j, k] * x[h, j, k]
    return total
