"""Domains of which a solve keeps all on a GPU: set up on the host, and worked on there by what device.cu holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from typing import Any

import numpy as np

from voxdask import backend
from voxdask.transport import graph as loops
from voxdask.transport.arrays import Arrays
from voxdask.transport.conductance import TINY, TINY_DOUBLE
from voxdask.transport.domain import Domain
from voxdask.transport.hierarchy import OMEGA
from voxdask.transport.layers import Layers
from voxdask.transport.medium import Medium
from voxdask.transport.sweeps import NONE
from voxdask.transport.team import Sides
from voxdask.transport.walls import Walls
from voxdask.units import format_bytes

#: Voxels along the second axis that a thread goes through.
_ROWS = 16
#: What the pool rounds the sizes of arrays up by, in all.
_ROUNDING = 1 << 18

_NOWHERE: Sides[Any] = (None, None)


def source(dtype: np.dtype, kind: np.dtype) -> str:
    """CUDA C for fields of one type on a medium of another."""
    real = {"f": "float", "d": "double"}[dtype.char]
    whole = kind == np.uint8
    least = TINY if dtype.char == "f" else TINY_DOUBLE
    head = [f"typedef {real} real;", f"typedef {'unsigned char' if whole else real} value;"]
    head += [f"#define ROWS {_ROWS}", f"#define NONE {NONE}", f"#define TINY ((real){float(TINY)!r})"]
    head += [f"#define LEAST ((real){float(least)!r})"]
    text = resources.files(__package__).joinpath("device.cu").read_text(encoding="utf-8")
    return "\n".join([*head, *(["#define WHOLE"] if whole else []), text])


@lru_cache
def _module(dtype: np.dtype, kind: np.dtype) -> Any:
    return backend.raw_module(source(dtype, kind))


class DeviceDomain(Domain):
    """A whole medium, on a GPU once its graphs are made; see :class:`Domain`.

    No sum depends on which thread comes first.

    Parameters
    ----------
    medium, arrays, threads, slabs
        As for :class:`Domain`; for what is made on the host.
    fields : int
        How many fields the solve would keep on the host, for what it takes here.
    """

    def __init__(self, medium: Medium, arrays: Arrays, threads: int, slabs: int, fields: int = 4) -> None:
        self.fields = fields
        super().__init__(medium, arrays, threads, slabs)

    def bytes_needed(self) -> int:
        """What all takes on the device: graphs, vectors, the medium, fields, sums."""
        (n0, n1, n2), medium, pieces, real = self.medium.shape, self.medium, self.pieces, self.medium.dtype.itemsize
        graphs = sum(sum(a.nbytes for a in level.edges) + 4 * real * level.nodes for level in self.levels)
        # a parent of each node, the nodes of each parent, and where these begin
        merged = sum(8 * finer.nodes + 4 * (coarser.nodes + 1) for finer, coarser in pairwise(self.levels))
        inverse = self._inverse.nbytes if self._inverse is not None else 0
        voxels = medium.values.nbytes + medium.ends.nbytes + pieces.piece.nbytes + pieces.base.nbytes
        # one field is made of two, in place on the host; and what conducts is marked for a while
        fields = ((self.fields + 1) * real + 1) * n0 * n1 * n2
        segments = -(-n1 // _ROWS)
        sums = 8 * segments * n2 * (4 * n0 + 2)
        return graphs + merged + inverse + voxels + fields + sums + _ROUNDING

    def _make_vectors(self) -> None:
        """Let graphs lie on the device, with vectors of zeros."""
        require_room(self.bytes_needed())
        xp = backend.namespace(backend.a_device_array())
        self._members: list[tuple[Any, ...]] = []
        for finer, coarser in pairwise(self.levels):
            assert finer.parent is not None
            self._members.append(tuple(map(_upload, _members(finer.parent, coarser.nodes))))
            finer.parent = _upload(finer.parent)
        for level in self.levels:
            level.ptr, level.col, level.weight, level.diagonal = map(_upload, level.edges)
            level.vectors = {name: xp.zeros(level.nodes, self.medium.dtype) for name in ("b", "rest", "x", "sum")}
        if self._inverse is not None:
            self._inverse = _upload(self._inverse)

    def prepare(self) -> None:
        """Make the fields, and let the medium lie on the device."""
        medium, pieces = self.medium, self.pieces
        n0, n1, n2 = medium.shape
        module, self._functions = _module(medium.dtype, medium.values.dtype), dict[str, Any]()
        self._function = module.get_function
        self.medium = replace(medium, values=_upload(medium.values), ends=_upload(medium.ends))
        self.pieces = replace(pieces, medium=self.medium, piece=_upload(pieces.piece), base=_upload(pieces.base))
        self.x, self._r, self._z, self._p, self._q = (self._zeros() for _ in range(5))
        self._columns = (-(-n1 // _ROWS), n0, n2)
        self._sums = self._empty(self._columns)

    def start_linear(self, held: tuple[float, float]) -> None:
        """See :class:`Domain`."""
        n0, _, _ = self.medium.shape
        rise = held[0] + (held[1] - held[0]) * (np.arange(n0) + 0.5) / n0
        self.x[...] = _upload(rise.astype(self.medium.dtype))[:, None, None]
        self.x *= self._conducting()

    def clear(self) -> None:
        """See :class:`Domain`."""
        self.x.fill(0)

    def keep(self, name: str) -> None:
        """See :class:`Domain`."""
        self._kept[name] = self.x.copy()

    def take_sum(self, first: str, second: str) -> None:
        """See :class:`Domain`."""
        self.x[...] = self._kept[first]
        self.x += self._kept[second]

    def mask_field(self) -> np.ndarray:
        """See :class:`Domain`."""
        share = self._conducting().sum(axis=(1, 2))
        self._sweep("mask", self.x, self.medium.values)
        return backend.to_host(share)

    def true_residual(
        self,
        ghosts: Sides[np.ndarray],
        held: tuple[float, float],
        jumps: tuple[float, ...],
        charged: bool,
    ) -> Layers:
        """See :class:`Domain`."""
        segments, _, n2 = self._columns
        sums, entered = self._empty((3, *self._columns)), self._empty((2, segments, n2))
        numbers = map(np.float64, (*held, *jumps))
        self._sweep("true_residual", self.x, self._r, *numbers, sums, entered, *self._conduct(), around=True)
        flux, between, within = backend.to_host(sums.sum(axis=(1, 3)))
        first = backend.to_host(entered.sum(axis=(1, 2)))
        given = 0.0
        if charged:
            self._r += self.source
            given = self._products(self.source, self.x, squared=False)
        return Layers(0, np.append(first[0], flux), np.append(first[1], between), within, given)

    def rest(self) -> None:
        """See :class:`Domain`."""
        self._p.fill(0)

    def residual(self, step: float) -> tuple[float, Sides[np.ndarray]]:
        """See :class:`Domain`; there are no seams."""
        r, z, target, real = self._r, self._z, self.levels[0].vectors["b"], self.medium.dtype.type
        medium, (m0, m1, m2) = self._conduct(), self.pieces.base.shape
        self._sweep("residual", real(step), real(OMEGA), self._p, r, z, self._sums, *medium, around=True)
        target.fill(0)
        extent = (-(-m1 // _ROWS), m0, m2)
        self._sweep("gather", r, z, *self._nodes(), target, *medium, around=True, extent=extent)
        return self._total(), _NOWHERE

    def residual_seams(self, ghosts: Sides[np.ndarray]) -> None:
        """There are none."""

    def correction(self, ghosts: Sides[np.ndarray]) -> float:
        """See :class:`Domain`."""
        self._sweep("prolong", self.levels[0].vectors["sum"], self._z, *self._nodes())
        omega = self.medium.dtype.type(OMEGA)
        self._sweep("correction", omega, self._r, self._z, self._q, self._sums, *self._conduct(), around=True)
        self._z, self._q = self._q, self._z
        return self._total()

    def direction(self, step: float, turn: float) -> tuple[float, Sides[np.ndarray]]:
        """See :class:`Domain`; there are no seams."""
        real = self.medium.dtype.type
        self._sweep("direction", real(step), real(turn), self.x, self._z, self._p)
        self._sweep("curvature", self._p, self._sums, *self._conduct(), around=True)
        return self._total(), _NOWHERE

    def direction_seams(self, ghosts: Sides[np.ndarray]) -> float:
        """There are none."""
        return 0.0

    def step(self, step: float) -> None:
        """See :class:`Domain`."""
        self._add(step, self._p)

    def _add(self, factor: float, field: Any) -> None:
        """x += factor times a field."""
        backend.namespace(field).multiply(field, self.medium.dtype.type(factor), out=self._q)
        self.x += self._q

    def _nodes(self) -> tuple[Any, ...]:
        return (self.pieces.piece, self.pieces.base, *map(np.int32, self.pieces.halved))

    def _conduct(self) -> tuple[Any, ...]:
        return (self.medium.values, self.medium.ends, *self.medium.weights)

    def _conducting(self) -> Any:
        return self.medium.values[1:-1, 1:-1, 1:-1] > 0

    def _sweep(self, name: str, *values: Any, around: bool = False, extent: tuple[int, ...] | None = None) -> None:
        """Run a kernel with a thread for every few voxels."""
        numbers = [*self.medium.shape]
        if around:
            numbers.append(sum(1 << a for a in range(3) if self.medium.periodic[a]))
        self._call(name, extent or self._columns, *values, *map(np.int32, numbers))

    def _call(self, name: str, extent: tuple[int, ...], *values: Any) -> None:
        if name not in self._functions:  # looking one up takes as long as a small launch
            self._functions[name] = self._function(name)
        backend.launch(self._functions[name], extent, values)

    def _total(self) -> float:
        return float(self._sums.sum())

    def _products(self, a: Any, x: Any, squared: bool) -> float:
        self._sweep("products", a, x, np.int32(squared), self._sums)
        return self._total()

    def _zeros(self) -> Any:
        return backend.namespace(self.medium.values).zeros(self.medium.shape, self.medium.dtype)

    def _empty(self, shape: tuple[int, ...]) -> Any:
        return backend.namespace(self.medium.values).empty(shape, np.float64)

    # --- of levels; see Hierarchy ---

    def _scale(self, n: int, b: str, x: str) -> None:
        level, v = self.levels[n], self.levels[n].vectors
        self._over_nodes("scaled_nodes", level.nodes, self._omega, level.diagonal, v[b], v[x])

    def _gather_rest(self, n: int, b: str) -> None:
        level, v, target = self.levels[n], self.levels[n].vectors, self.levels[n + 1].vectors["b"]
        self._over_nodes("gather_nodes", len(target), *level.edges, v[b], v["x"], *self._members[n], target)

    def _prolong(self, n: int) -> None:
        level, e = self.levels[n], self.levels[n + 1].vectors["sum"]
        self._over_nodes("prolong_nodes", level.nodes, level.parent, e, level.vectors["x"])

    def _smooth(self, n: int, b: str, add: bool) -> None:
        level, v = self.levels[n], self.levels[n].vectors
        given = (self._omega, *level.edges, v[b], v["x"], np.int32(add), v["sum"])
        self._over_nodes("smooth_nodes", level.nodes, *given)

    def _rest(self, n: int) -> None:
        level, v = self.levels[n], self.levels[n].vectors
        self._over_nodes("rest_of_nodes", level.nodes, *level.edges, v["b"], v["sum"], v["rest"])

    def _solve(self) -> None:
        v = self.levels[-1].vectors
        self._over_nodes("solve_nodes", self.levels[-1].nodes, self._inverse, v["b"], v["sum"])

    def _edges(self, n: int, name: str) -> Sides[np.ndarray]:
        return _NOWHERE

    def _over_nodes(self, name: str, nodes: int, *values: Any) -> None:
        self._call(name, (nodes,), *values, np.int32(nodes))


class DeviceWalls(DeviceDomain):
    """The same whose walls take up charge; see :class:`Walls`."""

    def find_walls(self, recursion: bool) -> float:
        """See :class:`Walls`."""
        areas = (np.float64(c**0.5) for c in self.medium.factors)
        self._wall = self._zeros()
        self._sweep("walls", *areas, self._wall, self._sums, self.medium.values, around=True)
        self.source = self._wall.copy()
        if recursion:
            self._here, self._before = self._zeros(), self._zeros()
        return self._total()

    def weigh_field(self) -> float:
        """See :class:`Walls`."""
        return self._products(self._wall, self.x, squared=True)

    def advance(self, scale: float) -> float:
        """See :class:`Walls`."""
        multiply = backend.namespace(self.x).multiply
        self._before, self._here = self._here, self._before
        multiply(self.x, self.medium.dtype.type(scale), out=self._here)
        multiply(self._wall, self._here, out=self.source)
        return self._products(self._wall, self._here, squared=True)

    def orthogonalize(self, a: float, b: float) -> None:
        """See :class:`Walls`."""
        self._add(-a, self._here)
        self._add(-b, self._before)


def check_size(shape: Sequence[int]) -> None:
    """ValueError for what has more layers or rows than a launch can cover."""
    for n, most in zip(shape[:2], (4 * backend.MOST_BLOCKS, _ROWS * backend.MOST_BLOCKS), strict=True):
        if n > most:
            raise ValueError(f"image has {n:,} voxels along an axis, a GPU takes {most:,}: use device='cpu'")


def require_room(needed: int) -> None:
    """MemoryError unless so many bytes are free on the device, for a solve that takes them."""
    free = backend.device_memory()
    if needed > free:
        raise MemoryError(
            f"the solve takes {format_bytes(needed)} on the GPU, where {format_bytes(free)} are free; end what "
            'else uses it, or use device="cpu"'
        )


#: For every kind of domain, the one whose fields lie on a GPU.
ON_DEVICE: dict[type[Domain], type[DeviceDomain]] = {Domain: DeviceDomain, Walls: DeviceWalls}


def _members(parent: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the nodes of each parent begin, and these nodes."""
    begin, member = np.zeros(count + 1, np.int32), np.zeros(len(parent), np.int32)
    loops.count_members(0, len(parent), parent, begin)
    loops.sum_up(0, count, 0, begin)
    loops.place_members(0, len(parent), parent, begin[:-1].copy(), member)
    return begin, member


def _upload(a: np.ndarray) -> Any:
    """A copy on the device, by way of no pinned memory that CuPy would keep."""
    out = backend.namespace(backend.a_device_array()).empty(a.shape, a.dtype)
    backend.transfer(np.ascontiguousarray(a), out)
    backend.finish_transfers()
    return out
