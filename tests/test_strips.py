"""Strips of a tile: wide enough, and no larger than is foreseen."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from voxdask.strips import LEAST_WIDTH, STRIP_BYTES, strip_bytes, strip_lines


@given(
    st.tuples(st.integers(1, 64), st.integers(1, 3000), st.integers(1, 5000)),
    st.integers(0, 6),
    st.sampled_from([4, 8]),
    st.data(),
)
def test_strips_take_no_more_than_foreseen(
    shape: tuple[int, ...], halo: int, itemsize: int, data: st.DataObject
) -> None:
    rows = data.draw(st.integers(1, shape[0]))  # a tile may have fewer than was planned
    lines = strip_lines((rows, *shape[1:]), halo, itemsize)
    assert min(shape[1], LEAST_WIDTH * halo) <= 2 * lines and 1 <= lines <= shape[1]
    taken = itemsize * math.prod(n + 2 * halo for n in (rows, lines, shape[2]))
    assert taken <= strip_bytes(shape, halo, itemsize)
    narrowest = (min(shape[1], max(LEAST_WIDTH * halo, 1)) + 2 * halo) * taken // (lines + 2 * halo)
    assert taken <= max(STRIP_BYTES, narrowest)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=2), st.integers(0, 4))
def test_planes_and_lines_are_one_strip(shape: list[int], halo: int) -> None:
    assert strip_lines(shape, halo, 4) == (shape[1] if len(shape) == 2 else 1)
    assert strip_bytes(shape, halo, 4) == 4 * math.prod(n + 2 * halo for n in shape)
