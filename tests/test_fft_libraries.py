"""Libraries of transforms go by their name; what is not installed says how it would be."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.fft

import voxdask as vd
from voxdask import ffts
from voxdask.transforms import forward, forward_half, inverse, inverse_half

with suppress(ImportError):  # before MKL, whichever test comes first: later it could not plan
    importlib.import_module("pyfftw")

BOUNDARIES: dict[str, Any] = {"periodic": "periodic", "mixed": {"y": "neumann", "x": ("neumann", "dirichlet")},
                               "halved along the second axis": {"x": "neumann"},
                               "halved along the first axis": {"x": "neumann", "y": "neumann"}}  # fmt: skip


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


def test_libraries_may_take_turns_in_a_process() -> None:
    """In one of its own, where neither is loaded: pyFFTW's functions have the names of some of MKL's."""
    for name in ("pyfftw", "mkl_fft"):
        pytest.importorskip(name)
    code = """
import numpy as np
import voxdask as vd
ds = vd.dataset({"c": np.random.default_rng(0).uniform(0.3, 0.7, (8, 6, 10))})
one, two = (vd.simulate(vd.models.CahnHilliard(), ds, dt=0.1, steps=1, fft=fft) for fft in ("mkl_fft", "pyfftw"))
np.testing.assert_allclose(one.c, two.c, rtol=1e-12)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("first", ["mkl", "mkl_fft"])
def test_pyfftw_after_others_loaded_mkl(first: str) -> None:
    """It could make no plan any more, which is said before a run begins; MKL is left its threads for all else."""
    for name in ("pyfftw", "mkl_fft", "mkl"):
        pytest.importorskip(name)
    code = f"""
import {first}
import mkl
import numpy as np
import voxdask as vd
ds, before = vd.dataset({{"c": np.full((8, 6, 10), 0.5)}}), mkl.get_max_threads()
vd.plan(vd.models.CahnHilliard(), ds, fft="mkl_fft", measure=False)
assert mkl.get_max_threads() == before and mkl.domain_get_max_threads("fft") == 1
try:
    vd.plan(vd.models.CahnHilliard(), ds, fft="pyfftw", measure=False)
    raise AssertionError("pyFFTW should not be let to work beside MKL's functions")
except RuntimeError as error:
    assert "import pyfftw first in this process, or use fft='mkl_fft'" in str(error), error
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("last", ["periodic", "neumann"])
@pytest.mark.parametrize("kind", ["neumann", "dirichlet", ("neumann", "dirichlet"), ("dirichlet", "neumann")])
@pytest.mark.parametrize("name", ["pyfftw", "mkl_fft"])
def test_cosines_and_sines_of_complex_modes(name: str, kind: Any, last: str) -> None:
    """An axis before one that is periodic is transformed after it."""
    pytest.importorskip(name)
    ds = vd.dataset({"c": np.random.default_rng(0).random((6, 7))})
    options: dict[str, Any] = {"dt": 0.1, "steps": 2, "boundary": {"y": kind, "x": last}, "progress": False}
    found, expected = (vd.simulate(vd.models.ReactionDiffusion(1.0), ds, fft=fft, **options) for fft in (name, "scipy"))
    np.testing.assert_allclose(found.c, expected.c, rtol=1e-12)


def test_threads_may_load_libraries_together() -> None:
    for name in ("pyfftw", "mkl_fft"):
        pytest.importorskip(name)
    code = """
from concurrent.futures import ThreadPoolExecutor
from voxdask.ffts import check_fft
with ThreadPoolExecutor(4) as threads:
    list(threads.map(check_fft, ("pyfftw", "mkl_fft") * 2))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["fftpack", ["scipy"], None])
def test_what_names_no_library(name: Any) -> None:
    with pytest.raises(ValueError, match=r"fft is .*; use one of 'scipy', 'pyfftw', 'mkl_fft'"):
        vd.plan(vd.models.CahnHilliard(), start(), fft=name, measure=False)


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
    monkeypatch.setattr(ffts, "_library", lambda name: counting if name == "pyfftw" else scipy.fft)
    options: dict[str, Any] = {"dt": 0.1, "steps": 1, "fft": "pyfftw", "progress": False}
    vd.simulate(vd.models.CahnHilliard(), start(), **options)
    block = counting.calls
    vd.simulate(vd.models.CahnHilliard(), start(), chunks=4, **options)
    assert 0 < block < counting.calls


def test_what_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    ffts._library.cache_clear()
    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ModuleNotFoundError, match=r"fft='mkl_fft' needs a package: .* install mkl_fft mkl-service"):
        vd.simulate(vd.models.CahnHilliard(), start(), dt=0.1, steps=1, fft="mkl_fft")
    ffts._library.cache_clear()


@pytest.mark.parametrize("kind", ["fft", "dct", "dst"])
def test_kinds_that_a_library_lacks_are_scipys(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    axis = {"fft": "periodic", "dct": "neumann", "dst": "dirichlet"}[kind]
    (one,) = vd.boundary.parse(axis, vd.Grid.from_dataset(vd.dataset({"c": np.zeros(5)})))
    monkeypatch.setattr(ffts, "_library", lambda name: Counting())
    u = np.random.default_rng(1).standard_normal((3, 5))
    transform = one.transform()
    modes = forward(u, transform, 1, fft="pyfftw")
    np.testing.assert_allclose(inverse(modes, transform, 1, fft="pyfftw") * transform.scale, u, atol=1e-14)


@pytest.fixture
def calls_of_mkl(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[bool, bool]]]:
    """MKL as SciPy stands in for it: whether each call is along the first axis or the last, and of a whole array."""
    calls: list[tuple[bool, bool]] = []

    def counted(name: str) -> Any:
        def function(a: Any, *, axis: int, **options: Any) -> Any:
            calls.append((axis in (0, a.ndim - 1), a.flags.c_contiguous))
            return getattr(scipy.fft, name)(a, axis=axis, **options)

        return function

    interface = SimpleNamespace(**{name: counted(name) for name in ("fft", "ifft", "rfft", "irfft")})
    mkl = SimpleNamespace(domain_set_num_threads=lambda *_, **__: None)
    modules = {"mkl_fft.interfaces.scipy_fft": interface, "mkl": mkl, "pyfftw": None}
    ffts._library.cache_clear()
    monkeypatch.setattr(importlib, "import_module", modules.__getitem__)
    yield calls
    ffts._library.cache_clear()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_lines_are_laid_out_for_mkl(
    axis: int, strided: bool, overwrite: bool, calls_of_mkl: list[tuple[bool, bool]]
) -> None:
    """It is given whole arrays, and the first axis or the last; what may not be overwritten is not."""
    transform = vd.boundary.parse("periodic", vd.Grid.from_dataset(start()))[axis].transform()
    whole = np.random.default_rng(2).standard_normal((8, 6, 10, 2)).view(complex)[..., 0]
    block = np.repeat(whole, 2, axis=1)[:, ::2] if strided else whole.copy()
    modes = forward(block, transform, axis, overwrite=overwrite, fft="mkl_fft")
    np.testing.assert_allclose(modes, np.fft.fft(whole, axis=axis), rtol=1e-12, atol=1e-12)
    assert calls_of_mkl and set(calls_of_mkl) == {(True, True)}
    if not overwrite:
        np.testing.assert_array_equal(block, whole)


@pytest.mark.parametrize("strided", [False, True])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_real_lines_are_laid_out_for_mkl(
    dtype: str, axis: int, strided: bool, calls_of_mkl: list[tuple[bool, bool]]
) -> None:
    whole = np.random.default_rng(2).standard_normal((8, 6, 10)).astype(dtype)
    block = np.repeat(whole, 2, axis=1)[:, ::2] if strided else whole.copy()
    modes = forward_half(block, axis, fft="mkl_fft")
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(modes, np.fft.rfft(whole, axis=axis), **close)
    back = inverse_half(modes, axis, whole.shape[axis], overwrite=True, fft="mkl_fft")
    np.testing.assert_allclose(back, whole * whole.shape[axis], **close)
    assert back.dtype == dtype and calls_of_mkl and set(calls_of_mkl) == {(True, True)}
