"""Libraries of transforms go by their name; what is not installed says how it would be."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import scipy.fft

import voxdask as vd
from voxdask import backend
from voxdask.transforms import forward, inverse

BOUNDARIES: dict[str, Any] = {"periodic": "periodic", "mixed": {"y": "neumann", "x": ("neumann", "dirichlet")}}


def start() -> Any:
    return vd.dataset({"c": np.random.default_rng(0).uniform(0.3, 0.7, (8, 6, 10))})


@pytest.mark.parametrize("boundary", BOUNDARIES.values(), ids=BOUNDARIES)
@pytest.mark.parametrize("name", ["pyfftw", "mkl_fft"])
def test_every_library_gives_the_same(name: str, boundary: Any) -> None:
    pytest.importorskip(name)
    options: dict[str, Any] = {"dt": 0.1, "steps": 3, "boundary": boundary, "progress": False}
    model = vd.models.CahnHilliard()
    expected = vd.simulate(model, start(), **options)
    np.testing.assert_allclose(vd.simulate(model, start(), fft=name, **options).c, expected.c, rtol=1e-12)


class Counting:
    """The interface of ``scipy.fft``, in part: what is missing is SciPy's."""

    def __init__(self) -> None:
        self.calls = 0

    def rfft(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        return scipy.fft.rfft(*args, **options)


def test_a_library_is_called_on_threads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What SciPy's own ``set_backend`` is told in one thread, others do not hear."""
    counting = Counting()
    monkeypatch.setattr(backend, "_fft_library", lambda name: counting if name == "pyfftw" else scipy.fft)
    options: dict[str, Any] = {"dt": 0.1, "steps": 1, "fft": "pyfftw", "progress": False}
    vd.simulate(vd.models.CahnHilliard(), start(), **options)
    block = counting.calls
    vd.simulate(vd.models.CahnHilliard(), start(), chunks=4, **options)
    assert 0 < block < counting.calls


def test_what_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    backend._fft_library.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"fft='mkl_fft' needs a package: .* install mkl_fft mkl-service"):
        vd.simulate(vd.models.CahnHilliard(), start(), dt=0.1, steps=1, fft="mkl_fft")
    backend._fft_library.cache_clear()


@pytest.mark.parametrize("kind", ["fft", "dct", "dst"])
def test_kinds_that_a_library_lacks_are_scipys(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    axis = {"fft": "periodic", "dct": "neumann", "dst": "dirichlet"}[kind]
    (one,) = vd.boundary.parse(axis, vd.Grid.from_dataset(vd.dataset({"c": np.zeros(5)})))
    monkeypatch.setattr(backend, "_fft_library", lambda name: Counting())
    u = np.random.default_rng(1).standard_normal((3, 5))
    transform = one.transform()
    modes = forward(u, transform, 1, fft="pyfftw")
    np.testing.assert_allclose(inverse(modes, transform, 1, fft="pyfftw") * transform.scale, u, atol=1e-14)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_lines_are_laid_out_for_mkl(axis: int, strided: bool, overwrite: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given whole arrays, and the first axis or the last; what may not be overwritten is not."""
    asked: list[tuple[int, bool]] = []

    class First:
        @staticmethod
        def fft(a: Any, *, axis: int, **options: Any) -> Any:
            asked.append((axis % a.ndim in (0, a.ndim - 1), a.flags.c_contiguous))
            return scipy.fft.fft(a, axis=axis, **options)

    monkeypatch.setattr(backend, "_fft_library", lambda name: First)
    transform = vd.boundary.parse("periodic", vd.Grid.from_dataset(start()))[axis].transform()
    whole = np.random.default_rng(2).standard_normal((8, 6, 10, 2)).view(complex)[..., 0]
    block = np.repeat(whole, 2, axis=1)[:, ::2] if strided else whole.copy()
    modes = forward(block, transform, axis, overwrite=overwrite, fft="mkl_fft")
    np.testing.assert_allclose(modes, np.fft.fft(whole, axis=axis), rtol=1e-12, atol=1e-12)
    assert asked and set(asked) == {(True, True)}
    if not overwrite:
        np.testing.assert_array_equal(block, whole)
