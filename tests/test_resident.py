"""Columns that stay in memory: what is put by rows is what pencils have, and the other way round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import voxdask as vd
from voxdask import backend
from voxdask.boundary import Axis, End
from voxdask.pencil import TRANSFORMED, GridTransform, saved_name, split
from voxdask.resident import ResidentSpectra
from voxdask.spilling import pencils_held


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
    resident, kept = ResidentSpectra(transform, stay, wide), (saved_name(0), saved_name(1))
    expected = {
        name: np.random.default_rng(k).random(transform.spectrum_shape).astype(transform.spectrum_dtype)
        for k, name in enumerate("ab")
    }
    for lo, hi in data.draw(st.permutations(split(rows, data.draw(st.integers(1, rows))))):
        for name, array in expected.items():
            resident.put(name, lo, array[lo:hi])
    for name, array in expected.items():
        for start, stop in split(stay, wide):
            pencil, *saved = resident.pencil(name, start, (TRANSFORMED, *kept)).values()
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
        assert all((resident.pencil(name, start, kept)[kept[1]] == start).all() for start, _ in split(stay, wide))


@pytest.mark.parametrize("columns", [0, 3])
def test_none_stay(columns: int) -> None:
    """Then nothing is done; what stays keeps out of each other's way."""
    resident = ResidentSpectra(transform_of((4, 6, 8), "neumann"), columns, 2)
    rows = np.ones((4, 6, 5), np.complex64)
    resident.put("a", 0, rows)
    resident.get("a", 0, out := np.zeros_like(rows))
    assert (out[:, :columns] == 1).all() and (out[:, columns:] == 0).all()


@given(stay=st.integers(0, 40), streamed=st.integers(0, 40), wide=st.integers(1, 9))
def test_pencils_that_stay_are_among_the_others(stay: int, streamed: int, wide: int) -> None:
    pencils = ResidentSpectra(transform_of((4, 80), "neumann"), stay, wide).between(streamed)
    assert [k for pencil in sorted(pencils) for k in range(*pencil)] == list(range(stay + streamed))
    kinds = [start < stay for start, _ in pencils]
    assert all(stop <= stay for (_, stop), here in zip(pencils, kinds, strict=True) if here)
    count = sum(kinds)
    for place in range(len(kinds)):  # never more than one away from their share
        assert abs(sum(kinds[:place]) - place * count / len(kinds)) <= 1


@pytest.mark.parametrize(("limit", "ahead"), [("50MB", False), ("55MB", True)])
def test_a_run_whose_spectra_all_stay(
    limit: str, ahead: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has memory at hand for slabs, and not for pencils on their way, of which there are none."""
    monkeypatch.setattr(backend, "cpu_count", lambda: 2)
    values = np.random.default_rng(0).uniform(0.4, 0.6, (512, 96, 64)).astype(np.float32)
    model, ds = vd.models.CahnHilliard(eps=3.0), vd.dataset({"c": values})
    options: dict[str, Any] = {"stepper": "imex", "memory_limit": limit}
    plan = vd.plan(model, ds, measure=False, **options)
    assert plan.tier == "spilled" and plan.resident_columns == plan.problem.columns
    assert (plan.ahead > 0) == ahead
    assert pencils_held(plan.ahead) * plan.pencil_columns * plan.problem.column_bytes > plan.hand_bytes
    whole = vd.simulate(model, ds, dt=1e-2, steps=3, stepper="imex", progress=False)
    spilled = vd.simulate(model, ds, dt=1e-2, steps=3, store=tmp_path / "run.zarr", progress=False, **options)
    np.testing.assert_array_equal(spilled.c.values, whole.c.values)
