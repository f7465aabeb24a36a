"""Columns that stay in memory: what is put by rows is what pencils have, and the other way round."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxdask.boundary import Axis, End
from voxdask.pencil import GridTransform, split
from voxdask.resident import ResidentSpectra


def transform_of(shape: tuple[int, ...], first: str) -> GridTransform:
    ends = [End("periodic", 0.0) if a or first == "periodic" else End("neumann", 0.0) for a in range(len(shape))]
    axes = [Axis(f"x{a}", n, 1.0, False, end, end) for a, (n, end) in enumerate(zip(shape, ends, strict=True))]
    return GridTransform(tuple(axes), np.dtype(np.float32))


@given(
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple),
    first=st.sampled_from(["periodic", "neumann"]),
    data=st.data(),
)
def test_rows_and_pencils(shape: tuple[int, ...], first: str, data: Any) -> None:
    transform = transform_of(shape, first)
    rows, columns, *rest = transform.spectrum_shape
    stay, wide = data.draw(st.integers(1, columns)), data.draw(st.integers(1, columns))
    resident = ResidentSpectra(transform, stay, wide)
    expected = {
        name: np.random.default_rng(k).random(transform.spectrum_shape).astype(transform.spectrum_dtype)
        for k, name in enumerate("ab")
    }
    for lo, hi in data.draw(st.permutations(split(rows, data.draw(st.integers(1, rows))))):
        for name, array in expected.items():
            resident.put(name, lo, array[lo:hi])
    for name, array in expected.items():
        for start, stop in split(stay, wide):
            pencil, *saved = resident.pencil(name, start, 2)
            assert pencil.flags.c_contiguous and pencil.ctypes.data % 64 == 0
            np.testing.assert_array_equal(pencil, array[:, start:stop])
            assert [block.shape for block in saved] == [(transform.modes_shape[0], stop - start, *rest)] * 2
            assert {block.dtype for block in saved} == {transform.modes_dtype}
            pencil *= 2 + start
            array[:, start:stop] *= 2 + start
            saved[1][...] = start
    lo = data.draw(st.integers(0, rows - 1))
    for name, array in expected.items():
        out = np.full((rows - lo, columns, *rest), -1, transform.spectrum_dtype)
        resident.get(name, lo, out)
        np.testing.assert_array_equal(out[:, :stay], array[lo:, :stay])
        assert (out[:, stay:] == -1).all()
        assert all((resident.pencil(name, start, 2)[2] == start).all() for start, _ in split(stay, wide))


@pytest.mark.parametrize("columns", [0, 3])
def test_none_stay(columns: int) -> None:
    """Then nothing is done; what stays keeps out of each other's way."""
    resident = ResidentSpectra(transform_of((4, 6, 8), "neumann"), columns, 2)
    rows = np.ones((4, 6, 5), np.complex64)
    resident.put("a", 0, rows)
    resident.get("a", 0, out := np.zeros_like(rows))
    assert (out[:, :columns] == 1).all() and (out[:, columns:] == 0).all()
