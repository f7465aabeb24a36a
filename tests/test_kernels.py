"""Compiled expressions against SymPy and NumPy; what a call checks; the cache of generated code."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numba
import numpy as np
import platformdirs
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from periodic import AXES, ahead, behind, positions, random_fields, run, run_program, scalars

from voxdask import compiling, kernels
from voxdask.filters import compile_filter
from voxdask.kernels import Kernel, Update, compile_program
from voxdask.lowering import lower
from voxdask.models import CahnHilliard
from voxdask.printing import Names
from voxdask.symbols import Clip, Coordinate, Field, Inside, Parameter, clip, exp, laplace, x

a, b = Field("a", real=True), Field("b", real=True)
k = Parameter("k", real=True)
q_x = sp.Symbol("q_x", nonnegative=True)


def pointwise(expressions: list[sp.Expr], fields: dict[str, np.ndarray], **values: float) -> list[np.ndarray]:
    """Every expression at every voxel, by one kernel."""
    names = tuple(f"result{i}" for i in range(len(expressions)))
    kernel = compile_program(lower(tuple(expressions), names, ("x",), fallback="a"))
    results = kernel(fields, {}, values)
    return [results[name] for name in names]


def by_sympy(e: sp.Expr, fields: dict[str, np.ndarray], **values: float) -> np.ndarray:
    """The same by NumPy through SymPy's own printer."""
    modules = [{"Clip": np.clip, "Inside": lambda u, low, high: ((low <= u) & (u <= high)).astype(float)}, "scipy"]
    function = sp.lambdify([a, b, k], e, modules)
    with np.errstate(all="ignore"):  # NumPy evaluates every branch of a choice
        return np.broadcast_to(function(fields["a"], fields["b"], values["k"]), fields["a"].shape)


# --- scalar expressions -------------------------------------------------------------------------------------------

EXPRESSIONS = [
    1 / a,
    a**-3,
    2 / (3 * a * b**2),
    a ** sp.Rational(1, 2),
    a ** sp.Rational(-1, 2),
    a ** sp.Rational(5, 2),
    a**0.5 * b**-1.5 + b**2.0,
    a ** sp.Rational(1, 3),
    a**-0.3,
    a**b,
    a**k,
    (a - b) ** 8,
    (a - b) ** 9,
    (a - b) ** -7,
    sp.expand((a + 2 * b) ** 4),
    ((a + b) ** 2 + 1) ** 3,
    -a - b,
    -(a + b) / (a - 2),
    -2 * a + 3,
    sp.pi * a + sp.E - sp.sqrt(2) + sp.Rational(1, 3) - sp.Float(0.1),
    sp.exp(-a) + sp.log(a + 1),
    sp.sin(a) + sp.cos(a) * sp.tan(b),
    sp.sinh(a) + sp.cosh(a) * sp.tanh(b),
    sp.asin(a) + sp.acos(a) * sp.atan(b) + sp.atan2(a - b, b),
    sp.asinh(a) + sp.acosh(1 + a) * sp.atanh(b),
    sp.erf(a) + sp.erfc(b),
    abs(a - b) + sp.sign(a - b),
    sp.Max(a, b, k) + sp.Min(a, b, sp.Rational(1, 2)),
    sp.Heaviside(a - b),
    sp.diff(sp.Max(a, b) ** 2 + abs(a - b), a),
    Clip(a, b - sp.Rational(1, 4), b) + clip(b, 0, sp.oo),
    Inside(a, sp.Rational(1, 4), b) * b,
    sp.Piecewise((a, a < b), (b**2, (a > 2 * b) | sp.Ne(a, k)), (3, True)),
    sp.Piecewise((a, sp.Not((a < b) & (b < k))), (b, sp.Xor(a < k, b < k)), (-1, True)),
    sp.Piecewise((1, a <= b), (2, a >= b)),
    sp.Piecewise((a + b, sp.Eq(a, a + 0 * b)), (b, True)),
    sp.Integer(0),
    sp.Rational(7, 3),
    k,
]


def test_expressions_agree_with_sympy() -> None:
    fields = random_fields("a", "b", shape=(50,))
    results = pointwise(EXPRESSIONS, fields, k=0.4)
    for e, result in zip(EXPRESSIONS, results, strict=True):
        np.testing.assert_allclose(result, by_sympy(e, fields, k=0.4), rtol=2e-13, err_msg=str(e))


def test_single_precision_stays_single() -> None:
    fields = random_fields("a", "b", shape=(50,), dtype=np.float32)
    double = {name: field.astype(np.float64) for name, field in fields.items()}
    results = pointwise(EXPRESSIONS, fields, k=0.4)
    for e, result in zip(EXPRESSIONS, results, strict=True):
        assert result.dtype == np.float32
        expected = by_sympy(e, double, k=float(np.float32(0.4)))
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max(), err_msg=str(e))


NUMBERS = st.sampled_from([sp.Integer(2), sp.Integer(-1), sp.Rational(1, 3), sp.Float(0.7), sp.pi, k])


def combined(inner: st.SearchStrategy[sp.Expr]) -> st.SearchStrategy[sp.Expr]:
    """Expressions of expressions, tame on all real numbers."""
    powers = st.sampled_from([-3, -2, sp.Rational(-3, 2), sp.Rational(1, 2), sp.Rational(3, 2), 2, 3, 9, 0.3])
    one = st.sampled_from([sp.sin, sp.tanh, abs, lambda e: sp.exp(-(e**2)), lambda e: sp.log(1 + e**2), sp.atan])
    two = st.sampled_from(
        [
            lambda e, f: e + f,
            lambda e, f: e - f,
            lambda e, f: e * f,
            lambda e, f: e / (1 + f**2),
            lambda e, f: sp.Max(e, f),
            lambda e, f: sp.Min(e, f),
            lambda e, f: Clip(e, f, f + 1),
            lambda e, f: sp.Piecewise((e, e < f), (f, True)),
        ]
    )
    return st.one_of(
        st.builds(lambda f, e: f(e), one, inner),
        st.builds(lambda f, e, g: f(e, g), two, inner, inner),
        st.builds(lambda e, p: (sp.tanh(e) + sp.Rational(6, 5)) ** p, inner, powers),
    )


TREES = st.recursive(st.one_of(st.sampled_from([a, b]), NUMBERS), combined, max_leaves=8)


@given(expressions=st.lists(TREES, min_size=8, max_size=8))
@settings(max_examples=4)
def test_random_expressions_agree_with_sympy(expressions: list[sp.Expr]) -> None:
    fields = random_fields("a", "b", shape=(20,))
    results = pointwise(expressions, fields, k=0.4)
    for e, result in zip(expressions, results, strict=True):
        expected = by_sympy(e, fields, k=0.4)
        scale = np.abs(expected).max() + 1
        np.testing.assert_allclose(result, expected, rtol=1e-11, atol=1e-11 * scale, err_msg=str(e))


def test_nan_is_kept() -> None:
    nan, one = np.full(20, np.nan), np.ones(20)
    kept = [clip(a, 0, 1), sp.Max(a, b), sp.Min(b, a), sp.Max(a, 0), abs(a), a**2, sp.Piecewise((b, a < b), (a, True))]
    for result in pointwise(kept, {"a": nan, "b": one}):
        assert np.isnan(result).all()
    undefined = sp.Piecewise((a, a < 0))
    assert np.isnan(pointwise([undefined], {"a": one})[0]).all()


@pytest.mark.parametrize(
    ("e", "message"),
    [
        (sp.gamma(a), "no kernel can be made of 'gamma'"),
        (sp.floor(a), "no kernel can be made of 'floor'"),
        (sp.sqrt(-2) * a, "holds I, which is no real number"),
        (sp.zoo * a, "which is no real number"),
        (sp.Symbol("stray") * a, "no kernel can be made of 'Symbol' in the equation: stray"),
    ],
)
def test_what_can_not_be_printed(e: sp.Expr, message: str) -> None:
    with pytest.raises(ValueError) as error:
        compile_program(lower((e,), ("result",), ("x",)))
    assert message in str(error.value)


def test_identifiers_never_collide() -> None:
    names, wild = Names(), ["c", "c_", "c__0", "c.0", "c.", "lambda", "\u03c8", "\u03c6", "x (um)", "0"]
    given_names = [names(kind, name) for kind in ("in", "in_c", "p") for name in wild]
    assert len(set(given_names)) == len(given_names)
    assert all(re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) for name in given_names)
    assert given_names[: len(wild)] == [names("in", name) for name in wild]


def test_fields_may_have_any_name() -> None:
    # what they are in C is seen in test_cuda.py
    taken = "p k0 i0 n0 v0 w0 math clip njit lambda c__0 out_c in_c range a rate0 position_x ψ".split()  # noqa: SIM905
    fields = random_fields(*taken, shape=(11,))
    numbers = {name: 0.1 * i for i, name in enumerate(taken)}
    e = sum(Parameter(n, real=True) * Field(n, real=True) ** 2 for n in taken) + x
    reference = sum(numbers[n] * fields[n] ** 2 for n in taken) + (np.arange(11) + 0.5) * 0.5
    assert np.allclose(run(e, fields, (0.5,), **numbers), reference, rtol=1e-13)


def test_a_result_may_be_named_like_a_field() -> None:
    kernel = compile_program(lower((laplace(a), a**2), ("a", "b"), ("x",)))
    assert kernel.inputs == ("a",)
    results = kernel({"a": np.arange(6.0) ** 2}, {}, {"inverse_spacing_x": 1.0})
    assert np.array_equal(results["a"], [2, 2, 2, 2])
    assert np.array_equal(results["b"], np.arange(1.0, 5) ** 4)


@pytest.mark.parametrize("lines", [1, 3, 100])
@pytest.mark.parametrize("shape", [(5, 7, 6), (1, 20, 2), (2, 1, 3), (6, 7), (9,)])
def test_what_is_evaluated_in_strips(lines: int, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "strip_lines", lambda *_: lines)
    axes, ndim, h, middle = AXES[-len(shape) :], len(shape), 0.5, len(shape) // 2
    place = Coordinate(axes[middle], real=True)
    program = lower((laplace(a**3 - place * laplace(a)) + b,), ("rate",), axes)
    kernel = compile_program(program, (Update(margin=1), Update(in_place=True)))
    fields = random_fields("a", "b", shape=shape)
    blocks = {name: np.pad(u, kernel.halo, mode="wrap") for name, u in fields.items()}
    places, numbers = positions(kernel, shape, [h] * ndim), scalars(kernel, [h] * ndim, {})

    def curved(u: np.ndarray) -> np.ndarray:
        return sum((ahead(u, i) + behind(u, i) - 2 * u for i in range(ndim)), np.zeros(u.shape)) / h**2

    along = places[axes[middle]].reshape(-1, *(1,) * (ndim - 1 - middle))
    rate = curved(blocks["a"] ** 3 - along * curved(blocks["a"])) + blocks["b"]
    rate = rate[(slice(kernel.halo, -kernel.halo),) * ndim]
    wide = [(0, 0), *[(1, 1)] * (ndim - 1)]
    out = {"target0_rate": np.pad(fields["a"], wide), "target1_rate": fields["b"].copy()}
    kernel({**blocks, "base0_0_rate": np.pad(fields["b"], wide)}, places, numbers, out, (2.0, 0.5, 1.0, -3.0))
    np.testing.assert_allclose(out["target1_rate"], fields["b"] - 3 * rate, rtol=1e-11, atol=1e-10)
    inner = (slice(None), *(slice(1, -1),) * (ndim - 1))
    np.testing.assert_allclose(out["target0_rate"][inner], 2 * fields["b"] + 0.5 * rate, rtol=1e-11, atol=1e-10)
    out["target0_rate"][inner] = 0
    assert not out["target0_rate"].any()  # ghost layers are left alone


def test_a_result_named_like_a_field_is_not_read_by_the_next_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "strip_lines", lambda *_: 2)
    fields, e = random_fields("a", shape=(4, 9, 5)), laplace(a**3 - laplace(a))
    (named,) = run_program(lower((e,), ("a",), AXES), fields, (1.0,) * 3).values()
    assert np.array_equal(named, run(e, fields, (1.0,) * 3))


# --- updates and filters ------------------------------------------------------------------------------------------


def test_updates() -> None:
    program = lower((laplace(a), a * k), ("p", "q"), ("x",))
    field, numbers = random_fields("a", shape=(12,)), {"k": 3.0, "inverse_spacing_x": 2.0}
    plain = compile_program(program)(field, {}, numbers)
    kernel = compile_program(program, (Update(), Update(in_place=True)))
    rng = np.random.default_rng(3)
    bases = {f"base0_0_{n}": rng.standard_normal(10) for n in "pq"}
    added = {f"target1_{n}": rng.standard_normal(10) for n in "pq"}
    before = {name: array.copy() for name, array in added.items()}
    results = kernel({**field, **bases}, {}, numbers, added, (1.0, 0.5, 1.0, -2.0))
    for n in "pq":
        assert np.allclose(results[f"target0_{n}"], bases[f"base0_0_{n}"] + 0.5 * plain[n], rtol=1e-13)
        assert results[f"target1_{n}"] is added[f"target1_{n}"]
        assert np.allclose(added[f"target1_{n}"], before[f"target1_{n}"] - 2 * plain[n], rtol=1e-13)
    base = bases["base0_0_p"].copy()  # a field may become its own update
    in_place = {f"target0_{n}": bases[f"base0_0_{n}"] for n in "pq"}
    compile_program(program, (Update(),))({**field, **bases}, {}, numbers, in_place, (1.0, 0.5))
    assert np.allclose(in_place["target0_p"], base + 0.5 * plain["p"], rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, np.complex128])
def test_filters(dtype: Any) -> None:
    q_y = sp.Symbol("q_y", nonnegative=True)
    multiply = compile_filter((("r", (("r", sp.exp(-k * q_y) / (1 + q_x)),)),), ("y", "x"))
    modes = np.arange(1, 13).reshape(3, 4).astype(dtype) * (1 + 0.5j if np.dtype(dtype).kind == "c" else 1)
    modes = modes.astype(dtype)
    squares = [np.linspace(0, 1, 3), np.linspace(0, 2, 4)]
    expected = modes * np.exp(-0.3 * squares[0][:, None]) / (1 + squares[1])
    assert multiply({"r": modes}, squares, {"k": 0.3}) is None
    np.testing.assert_allclose(modes, expected, rtol=1e-6 if np.dtype(dtype).char in "fF" else 1e-14)


def test_a_filter_combines_spectra_in_place() -> None:
    """All modes are read before one is written: r becomes s, s becomes r + 2 s."""
    mix = compile_filter((("r", (("s", sp.Integer(1)),)), ("s", (("r", 1 + 0 * q_x), ("s", k)))), ("x",))
    r, s = np.arange(4.0) + 1j, np.arange(4.0) ** 2 - 2j
    expected = s.copy(), r + 2 * s
    mix({"r": r, "s": s}, [np.zeros(4)], {"k": 2.0})
    np.testing.assert_allclose((r, s), expected, rtol=1e-15)


def test_a_filter_says_what_it_reads_and_writes() -> None:
    """What stays as it is isn't written, nor read unless it goes into something else."""
    one = sp.Integer(1)
    gains = (("r", (("r", one), ("s", k))), ("s", (("s", one),)), ("p", (("p", one),)))
    mix = compile_filter(gains, ("x",))
    assert (mix.targets, mix.writes, mix.reads, mix.arrays) == (("r", "s", "p"), ("r",), ("r", "s"), ("r", "s"))
    r, s = np.arange(4.0), np.arange(4.0) ** 2
    s.flags.writeable = False
    mix({"r": r, "s": s}, [np.zeros(4)], {"k": 2.0})
    np.testing.assert_array_equal(r, np.arange(4) + 2 * s)
    made = compile_filter((("s", (("r", one),)),), ("x",))
    assert (made.targets, made.writes, made.reads) == (("s",), ("s",), ("r",))
    with pytest.raises(ValueError, match=r"a filter of \['s', 'p'\] changes no spectrum"):
        compile_filter(gains[1:], ("x",))


def test_a_filter_knows_no_position() -> None:
    with pytest.raises(ValueError, match="depends on position"):
        compile_filter((("r", (("r", 1 + x * q_x),)),), ("x",))
    with pytest.raises(ValueError, match="squared wavenumbers along x"):
        compile_filter((("r", (("r", q_x + 1),)),), ("x",))({"r": np.ones(4)}, [np.ones(3)], {})


# --- what a call checks -------------------------------------------------------------------------------------------


def test_arrays_that_do_not_fit_are_refused() -> None:
    kernel = compile_program(lower((laplace(a) * b + x,), ("rate",), ("x",)), (Update(),))
    good = {"a": np.ones(8), "b": np.ones(8), "base0_0_rate": np.ones(6)}
    places, numbers = {"x": np.arange(8)}, {"inverse_spacing_x": 1.0}
    assert kernel(good, places, numbers, None, (1.0, 1.0))["target0_rate"].shape == (6,)
    for name, wrong in itertools.product(good, (np.ones(7), np.ones(8, np.float32), np.ones((8, 8)))):
        if name != "a" or wrong.ndim > 1:
            with pytest.raises(ValueError, match="the kernel needs"):
                kernel({**good, name: wrong}, places, numbers, None, (1.0, 1.0))
    with pytest.raises(ValueError, match="'target0_rate' is"):
        kernel(good, places, numbers, {"target0_rate": np.ones(8)}, (1.0, 1.0))
    with pytest.raises(ValueError, match="positions along x"):
        kernel(good, {"x": np.arange(6)}, numbers, None, (1.0, 1.0))


# --- speed --------------------------------------------------------------------------------------------------------


def test_the_inner_loop_is_vectorised_in_single_precision() -> None:
    kernel = compile_program(CahnHilliard().equation.program(AXES))
    for call, source in zip(kernel.calls, kernel.host, strict=True):
        module = compiling.load_host(source)
        types = [numba.float32[:, :, ::1]] * (len(call.writes) + len(call.reads)) + [numba.float32[::1]]
        types += [numba.int64] * 2  # where a strip begins, and how many lines it has
        options = {"nogil": True, "error_model": "numpy", "fastmath": module.FASTMATH}
        compiled = numba.njit(tuple(types), **options)(getattr(module, call.name).py_func)
        (text,) = compiled.inspect_llvm().values()
        assert re.search(r"fmul [^\n]*<\d+ x float>", text)
        assert not re.search(r"f(add|sub|mul|div) [^\n]*double|fpext", text)


# --- the cache ----------------------------------------------------------------------------------------------------


def dispatcher(kernel: Kernel, number: int = 0) -> Any:
    return getattr(compiling.load_host(kernel.host[number]), f"evaluate{number}")


def test_another_parameter_recompiles_nothing() -> None:
    kernel = compile_program(lower((k * a + sp.Rational(3, 7),), ("rate",), ("x",)))
    field = random_fields("a", shape=(8,))
    first = kernel(field, {}, {"k": 1.0})["rate"]
    stats = str(dispatcher(kernel).stats)
    assert len(dispatcher(kernel).signatures) == 1
    assert np.allclose(kernel(field, {}, {"k": 2.0})["rate"] - first, field["a"])
    assert str(dispatcher(kernel).stats) == stats
    assert len(dispatcher(kernel).signatures) == 1
    one, two = (compile_program(CahnHilliard(eps=eps).equation.program(("x",))) for eps in (3.0, 4.0))
    assert one is two


def test_what_kernels_share_is_compiled_once() -> None:
    """Stages that make something for the last one are the same, whatever becomes of the result."""
    program = CahnHilliard().equation.program(AXES)
    rate, update = compile_program(program), compile_program(program, (Update(2),))
    assert dispatcher(rate, 0) is dispatcher(update, 0) and dispatcher(rate, 1) is not dispatcher(update, 1)


@pytest.fixture
def fresh_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], None]:
    def use(directory: Path) -> None:
        monkeypatch.setattr(platformdirs, "user_cache_dir", lambda _: str(directory))

    compiling.imported.cache_clear()
    yield use  # type: ignore[misc]
    compiling.imported.cache_clear()


def test_threads_may_make_the_first_call_together(fresh_cache: Callable[[Path], None], tmp_path: Path) -> None:
    fresh_cache(tmp_path)
    kernel = compile_program(lower((exp(-a) * sp.Rational(5, 11),), ("rate",), ("x",)))
    field = random_fields("a", shape=(8,))
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: kernel(field, {}, {})["rate"], range(16)))
    assert all(np.allclose(result, np.exp(-field["a"]) * 5 / 11, rtol=1e-13) for result in results)
    assert len(dispatcher(kernel).signatures) == 1
    assert len(list((tmp_path / "kernels").glob("*.py"))) == 1
    assert not list((tmp_path / "kernels").glob("*.tmp"))


def test_a_cache_that_can_not_be_written_is_done_without(fresh_cache: Callable[[Path], None], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    fresh_cache(tmp_path / "file" / "cache")
    kernel = compile_program(lower((a * sp.Rational(5, 13),), ("rate",), ("x",)))
    assert np.allclose(kernel({"a": np.ones(4)}, {}, {})["rate"], 5 / 13)
    path = Path(compiling.load_host(kernel.host[0]).__file__ or "")
    assert path.parent == compiling.temporary_directory()


def test_a_torn_file_is_written_again(fresh_cache: Callable[[Path], None], tmp_path: Path) -> None:
    fresh_cache(tmp_path)
    kernel = compile_program(lower((a * sp.Rational(5, 17),), ("rate",), ("x",)))
    path = Path(compiling.load_host(kernel.host[0]).__file__ or "")
    path.write_text("")
    compiling.imported.cache_clear()
    assert np.allclose(kernel({"a": np.ones(4)}, {}, {})["rate"], 5 / 17)


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("size", [0, 100])
def test_what_numba_kept_and_was_damaged_is_made_anew(
    suffix: str, size: int, fresh_cache: Callable[[Path], None], tmp_path: Path
) -> None:
    fresh_cache(tmp_path)
    kernel = compile_program(lower((a * sp.Rational(5, 19),), ("rate",), ("x",)))

    def result() -> Any:
        compiling.imported.cache_clear()
        return kernel({"a": np.ones(4)}, {}, {})["rate"]

    assert np.allclose(result(), 5 / 19)
    (kept,) = tmp_path.rglob(f"*{suffix}")
    os.truncate(kept, size)
    assert np.allclose(result(), 5 / 19)
    (again,) = tmp_path.rglob(f"*{suffix}")
    assert again.stat().st_size > 100
    compiling._failures.clear()
    assert np.allclose(result(), 5 / 19)
    assert not compiling._failures


def test_threads_that_come_at_once_share_a_module(fresh_cache: Callable[[Path], None], tmp_path: Path) -> None:
    fresh_cache(tmp_path)
    kernel, start = compile_program(lower((a * sp.Rational(5, 29),), ("rate",), ("x",))), threading.Barrier(8)

    def load(_: int) -> Any:
        start.wait()
        return compiling.load_host(kernel.host[0])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(load, range(8)))) == 1


def test_a_cache_that_is_full_is_done_without(
    fresh_cache: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk has room for the source, but not for what numba makes of it."""
    fresh_cache(tmp_path)
    save = numba.core.caching.IndexDataCacheFile.save

    def full(self: Any, *given: Any) -> None:
        if str(tmp_path) in self._cache_path:
            raise OSError(28, "No space left on device")
        save(self, *given)

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", full)
    kernel = compile_program(lower((a * sp.Rational(5, 23),), ("rate",), ("x",)))
    field = random_fields("a", shape=(8,))
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: kernel(field, {}, {})["rate"], range(8)))
    assert all(np.allclose(result, field["a"] * 5 / 23) for result in results)
    path = Path(compiling.load_host(kernel.host[0]).__file__ or "")
    assert path.parent == compiling.temporary_directory()
    compiling._failures.clear()


CHILD = """
import sys, types
package = types.ModuleType("voxdask")  # without its __init__: all of it takes seconds to import
package.__path__ = [sys.argv[1]]
sys.modules["voxdask"] = package

import numpy as np
from voxdask import compiling, kernels
from voxdask.lowering import lower
from voxdask.symbols import Field, div, grad, laplace

c = Field("c", real=True)
kernel = kernels.compile_program(lower((div(c * grad(laplace(c) - c**3)),), ("rate",), ("x",)))
(rate,) = kernel({"c": np.linspace(0, 1, 12)}, {}, {"inverse_spacing_x": 1.0}).values()
functions = [getattr(compiling.load_host(text), call.name) for call, text in zip(kernel.calls, kernel.host)]
hits = sum(sum(f.stats.cache_hits.values()) for f in functions)
misses = sum(sum(f.stats.cache_misses.values()) for f in functions)
print(hits, misses, float(abs(rate).sum()))
"""


def test_processes_share_what_they_compile(tmp_path: Path) -> None:
    def start(seed: int) -> subprocess.Popen[str]:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONHASHSEED": str(seed)}
        command = [sys.executable, "-W", "error", "-c", CHILD, str(Path(kernels.__file__).parent)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def finish(process: subprocess.Popen[str]) -> tuple[int, int, float]:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        hits, misses, total = output.split()
        return int(hits), int(misses), float(total)

    together = [finish(process) for process in [start(1), start(2)]]
    later = finish(start(3))
    assert later[:2] == (2, 0)
    assert {total for *_, total in together} == {later[2]}
