"""CUDA without a GPU: every printed kernel compiles, and its arithmetic is right on the host."""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cuda_shim
import numpy as np
import pytest
import sympy as sp
from periodic import AXES, random_fields

import voxdask
from voxdask import backend, compiling, kernels
from voxdask.equation import dt
from voxdask.filters import Filter, compile_filter
from voxdask.kernels import Kernel, Update, compile_program
from voxdask.lowering import Program, adjoint, inlined, lower, tangent
from voxdask.models import AllenCahn, CahnHilliard, ReactionDiffusion, RegularSolution
from voxdask.phi import Phi1, Phi2, Phi3
from voxdask.symbols import Field, Parameter, div, dot, exp, grad, laplace, sin, t, x

a, b = Field("lambda", real=True), Field("b", real=True)
k = Parameter("double", real=True)

TWO = (
    div(a * grad(b) + k * grad(a)) - dot(grad(a), grad(b)) * sp.Max(a, b),
    laplace(laplace(b) * a) + sp.Piecewise((sin(x) * b**3, (a > b) & (b > 0)), (exp(-a) / sp.sqrt(b + t**2), True)),
)


def names() -> sp.Expr:
    """Fields and parameters that are named like something in a kernel, or in no way that C allows."""
    taken = "p k0 i0 n0 v0 w0 u0 s0_0 at0 real clip larger exp math numba lambda double c__0 c out_c in_c p_c ψ φ"
    fields = [Field(name, real=True) for name in taken.split()]
    parameters = [Parameter(name, real=True) for name in taken.split()]
    return laplace(sum(p * f for p, f in zip(parameters, fields, strict=True)) ** 3) / fields[0]  # type: ignore[operator]


def two_fields(axes: tuple[str, ...]) -> Program:
    return lower(TWO, ("lambda.rate", "b.rate"), axes)


def cahn_hilliard(axes: tuple[str, ...]) -> Program:
    return CahnHilliard().equation.program(axes)


def sourced(axes: tuple[str, ...]) -> Program:
    model = ReactionDiffusion(lambda c: 1 + c**2, source=lambda t, c, x: c * sin(x.x) + t)
    return model.equation.program(axes)


PROGRAMS: dict[str, Callable[[], tuple[Program, tuple[Update, ...]]]] = {
    "cahn-hilliard-1-D": lambda: (cahn_hilliard(("x",)), ()),
    "cahn-hilliard-2-D": lambda: (cahn_hilliard(("y", "x")), (Update(),)),
    "cahn-hilliard-3-D": lambda: (cahn_hilliard(AXES), ()),
    "logarithms-3-D": lambda: (CahnHilliard(potential=RegularSolution(3.0)).equation.program(AXES), ()),
    "source-3-D-updates": lambda: (sourced(("x", "z", "y")), (Update(), Update(2, in_place=True))),
    "two-fields-2-D": lambda: (two_fields(("x", "y")), ()),
    "two-fields-1-D-add": lambda: (two_fields(("x",)), (Update(in_place=True),)),
    "names-1-D": lambda: (lower((names(),), ("out_c",), ("x",)), (Update(), Update(2, in_place=True))),
    "adjoint-1-D": lambda: (adjoint(cahn_hilliard(("x",)), ["c"]), ()),
    "tangent-2-D": lambda: (tangent(two_fields(("y", "x")), ["lambda", "b"]), ()),
    "tangent-3-D": lambda: (tangent(cahn_hilliard(AXES), ["c"]), ()),
    "adjoint-3-D": lambda: (adjoint(cahn_hilliard(AXES), ["c"]), ()),
    "normal-3-D": lambda: (AllenCahn().equation.program(AXES), ()),
    "curvature-adjoint-2-D": lambda: (adjoint(AllenCahn(form="curvature").equation.program(("y", "x")), ["phi"]), ()),
}


def filters() -> dict[str, Filter]:
    symbol = CahnHilliard().equation.symbols(AXES)[0]
    plane = CahnHilliard().equation.symbols(("y", "x"))[0]
    def one(gain: sp.Expr, axes: tuple[str, ...]) -> Filter:
        return compile_filter((("r", (("r", gain),)),), axes)

    stages = (Phi2(dt * plane), Phi1(dt * plane) - 3 * Phi3(dt * plane))
    return {
        "imex-3-D": one(dt / (1 - dt * symbol), AXES),
        "etd-2-D": compile_filter((("r", (("r", stages[0]), ("s", stages[1]))), ("s", (("r", dt),))), ("y", "x")),
        "one-1-D": one(sp.exp(-sp.Symbol("q_x", nonnegative=True)), ("x",)),
    }


def values(kernel: Kernel | Filter) -> dict[str, float]:
    """A number for every parameter, each different."""
    return {name: 0.5 + 0.1 * i for i, name in enumerate(kernel.parameters)}


# --- it compiles ---------------------------------------------------------------------------------------------------


def ptx(source: str, architecture: str) -> str:
    """What NVRTC makes of a source."""
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc")
    program = nvrtc.createProgram(source, "kernel.cu", (), ())
    try:
        nvrtc.compileProgram(program, (f"--gpu-architecture={architecture}", "--std=c++14"))
    except nvrtc.NVRTCError:
        pytest.fail(f"{nvrtc.getProgramLog(program)}\n{source}")
    return str(nvrtc.getPTX(program))


def source_of(kernel: Kernel | Filter, real: str) -> str:
    return f"typedef {real} real;\n{kernel.device}"


#: From Turing to Hopper: CUDA 13 compiles for nothing older, such as Volta (7.0).
ARCHITECTURES = ["compute_75", "compute_80", "compute_86", "compute_89", "compute_90"]


@pytest.mark.parametrize("real", ["float", "double"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_every_program_compiles(name: str, real: str) -> None:
    program, updates = PROGRAMS[name]()
    kernel = compile_program(program, updates)
    for architecture in ARCHITECTURES:
        text = ptx(source_of(kernel, real), architecture)
        assert text.count(".entry evaluate") == len(kernel.device_calls)
        if real == "float" and not any(e.has(sp.sin) for stage in program.stages for e in stage.expressions):
            assert ".f64" not in text  # reducing the argument of a sine takes doubles


#: Of programs of several stages: what a device runs is one, if that is not too much.
STAGED = ["cahn-hilliard-2-D", "cahn-hilliard-3-D", "two-fields-2-D", "logarithms-3-D"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("real", ["float", "double"])
def test_programs_in_one_stage_with_ghost_layers_compile(real: str, architecture: str) -> None:
    for name in STAGED:
        program, _ = PROGRAMS[name]()
        assert len(program.stages) > 1
        kernel = compile_program(program, (Update(margin=program.halo), Update(2, in_place=True, margin=program.halo)))
        assert (len(kernel.device_calls) == 1) == (inlined(program) is not None)
        text = ptx(source_of(kernel, real), architecture)
        assert text.count(".entry evaluate") == len(kernel.device_calls)
    kernel = compile_program(lower((b,), ("sum",), AXES), (Update(2, margin=2),))  # as a semi-implicit step ends
    assert ".entry evaluate0" in ptx(source_of(kernel, real), architecture)


@pytest.mark.parametrize("real", ["float", "double"])
def test_every_filter_compiles(real: str) -> None:
    for kernel, architecture in itertools.product(filters().values(), ARCHITECTURES):
        text = ptx(source_of(kernel, real), architecture)
        assert ".entry combine" in text
        assert (".f64" in text) == (real == "double")


# --- its arithmetic ------------------------------------------------------------------------------------------------


@pytest.fixture
def on_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], None]:
    """A switch: from then on kernels take the way of a device, into C compiled for the host."""
    if cuda_shim.COMPILER is None:
        pytest.skip("there is no C compiler (cc, gcc or clang) to run printed CUDA with")

    def switch() -> None:
        compiling.load_device.cache_clear()
        monkeypatch.setattr(kernels.backend, "namespace", lambda _: cuda_shim.namespace)
        monkeypatch.setattr(kernels.backend, "raw_module", lambda source: cuda_shim.HostModule(source, tmp_path))

    return switch


@pytest.fixture(autouse=True)
def forget_devices() -> Any:
    yield
    compiling.load_device.cache_clear()


TOLERANCES = {np.float32: 1e-6, np.float64: 1e-13}
PLAIN = ["cahn-hilliard-3-D", "source-3-D-updates", "two-fields-1-D-add"]
DOUBLE = ["cahn-hilliard-1-D", "cahn-hilliard-2-D", "names-1-D", "adjoint-1-D", "tangent-2-D"]
DOUBLE += ["normal-3-D", "curvature-adjoint-2-D"]


@pytest.mark.parametrize(
    ("name", "dtype"), [(n, np.float32) for n in PLAIN] + [(n, np.float64) for n in PLAIN + DOUBLE]
)
def test_programs_on_host_and_device_agree(name: str, dtype: Any, on_device: Callable[[], None]) -> None:
    program, updates = PROGRAMS[name]()
    kernel = compile_program(program, updates)
    shape = (5, 7, 70)[-len(program.axes) :]  # more than one block of threads, none of them full
    padded = tuple(n + 2 * kernel.halo for n in shape)
    blocks = random_fields(*kernel.inputs, shape=padded, dtype=dtype)
    finals = [f"{name}" for name in program.outputs]
    bases = [
        f"base{m}_{k}_{name}"
        for m, update in enumerate(updates)
        for k in range(update.in_place, update.bases)
        for name in finals
    ]
    blocks |= random_fields(*bases, shape=shape, seed=1, dtype=dtype)
    places = {axis: np.linspace(-1, 1, n) for axis, n in zip(program.axes, padded, strict=True)}
    scales = [0.25, -0.5, 0.75, 1.5, 2.0][: sum(update.scales for update in updates)]

    def results() -> dict[str, Any]:
        targets = [f"target{m}_{name}" for m in range(len(updates)) for name in finals]
        out = random_fields(*targets, shape=shape, seed=2, dtype=dtype)
        return kernel(blocks, places, values(kernel), out, scales)

    expected = results()
    on_device()
    for name, array in results().items():
        assert array.dtype == dtype
        assert np.abs(array - expected[name]).max() <= TOLERANCES[dtype] * np.abs(expected[name]).max()


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("complex_modes", [False, True], ids=["real", "complex"])
def test_filters_on_host_and_device_agree(dtype: Any, complex_modes: bool, on_device: Callable[[], None]) -> None:
    rng, cases = np.random.default_rng(0), []
    for multiply in filters().values():
        shape = (5, 7, 70)[-len(multiply.axes) :]
        modes = rng.standard_normal(shape) + (1j * rng.standard_normal(shape) if complex_modes else 0)
        modes = modes.astype(np.result_type(dtype, np.complex64) if complex_modes else dtype)
        squares = [rng.uniform(0, 2, n) for n in shape]
        expected = {name: modes * (k + 1) for k, name in enumerate(multiply.arrays)}
        multiply(expected, squares, values(multiply))
        cases.append((multiply, modes, squares, expected))
    on_device()
    for multiply, modes, squares, expected in cases:
        for order in "CF":
            spectra = {name: np.array(modes * (k + 1), order=order) for k, name in enumerate(multiply.arrays)}
            multiply(spectra, squares, values(multiply))
            for name, spectrum in spectra.items():
                assert spectrum.dtype == modes.dtype
                assert np.abs(spectrum - expected[name]).max() <= TOLERANCES[dtype] * np.abs(expected[name]).max()


# --- its launch ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1,), (256,), (1000,), (3, 65), (1, 1, 1), (5, 9, 130), (2, 4, 64), (70000, 2, 3)])
def test_a_launch_covers_every_voxel_once(shape: tuple[int, ...]) -> None:
    seen = np.zeros(shape, int)

    def function(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...]) -> None:
        assert arguments == ("values",)
        assert np.prod(block) <= 1024
        assert all(n <= 65535 for n in grid[1:])
        threads = [g * b for g, b in zip(grid, block, strict=True)][::-1]  # the last axis is the fastest
        for start in np.ndindex(*map(min, shape, threads)):
            if len(shape) == 3 and shape[0] > 65535:  # one plane stands for all: only the first axis is cut
                if start[1:] == (0, 0):
                    seen[start[0] :: threads[0]] += 1
            else:
                seen[tuple(slice(i, None, n) for i, n in zip(start, threads, strict=True))] += 1

    backend.launch(function, shape, ("values",))
    assert (seen == 1).all()


def test_nothing_is_launched_for_nothing() -> None:
    backend.launch(lambda *_: pytest.fail("launched"), (3, 0, 4), ())


def test_rows_beyond_the_largest_grid_run(on_device: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "MOST_BLOCKS", 2)
    kernel = compile_program(lower((laplace(b) + x,), ("rate",), AXES))
    blocks, places = random_fields("b", shape=(9, 21, 12)), {"x": np.arange(12.0)}
    expected = kernel(blocks, places, values(kernel))["rate"]
    on_device()
    assert np.allclose(kernel(blocks, places, values(kernel))["rate"], expected, rtol=1e-13)


# --- its place -----------------------------------------------------------------------------------------------------


def test_only_the_backend_imports_cupy() -> None:
    root = Path(voxdask.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in ("cupy", "cupyx", "cupy_backends") for name in names):
                assert path.name == "backend.py"
