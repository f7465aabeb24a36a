"""Imports point one way: a module imports only from modules that stand before it in this list."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import voxdask

ROWS = """
    backend units clients windows grid sources tiff images boundary costs strips problem spilling plans
    planning device_planning members disk chunkfiles frames store
    nodes vector symbols phi program families continuum lowering printing loops loopsource compiling kernels filters
    familykernel attributes equation
    control
    steppers.base steppers.explicit steppers.chebyshev steppers.semi_implicit steppers.exponential
    steppers.adaptive steppers.tableau steppers.tsit5 steppers
    recycler ffts halo transforms pencil system tiles passes block deferred rehearsal storage at_hand resident pipeline
    streamed slabs graph chunked
    inputs prepare evaluate analysis model variation models.factors models.potentials models.legendre
    models.cahn_hilliard models.allen_cahn models.reaction_diffusion models.free_energy
    models.gray_scott models.smoothed_boundary models.multiphase models
    schedule stability identity places trial forecast report runner local_runner chunked_runner march loop
    simulate
    plot studies manufactured verify indicator labels
    segmented configurations surface runs clusters triple bounds
    transport.arrays transport.parallel transport.conductance transport.medium transport.sweeps transport.graph
    transport.pieces transport.components transport.team transport.hierarchy transport.layers transport.windings
    transport.domain
    transport.walls transport.multigrid transport.solver transport.scan transport.phases transport.job
    transport.options transport.device transport.actor transport.cluster transport.workplace transport.passage
    transport.result
    transport.tortuosity transport.effective transport.electrode transport.extrapolation transport.representative
    transport accessor
"""
LAYERS = ROWS.split()

ROOT = Path(voxdask.__file__).parent
TREES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix("__init__").removesuffix("."): ast.parse(
        path.read_text(encoding="utf-8")
    )
    for path in sorted(ROOT.rglob("*.py"))
}
MODULES = sorted(name for name in TREES if name)  # the package itself is the last row of all


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported anywhere in a tree: `a.b`, and `a.b.name` for what may be a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def within(name: str) -> str:
    """The module of this package from which `name` comes, "" for the package itself."""
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in TREES:
        parts.pop()
    return ".".join(parts)


def test_the_list_is_complete() -> None:
    assert len(LAYERS) == len(set(LAYERS))
    assert sorted(LAYERS) == MODULES, "put a new module into LAYERS, after all that it imports"


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_from_above(module: str) -> None:
    above = LAYERS[: LAYERS.index(module)] if module in LAYERS else MODULES
    for name in imports(TREES[module]):
        assert not name.startswith("."), f"{module} has a relative import; write it out"
        if name.split(".")[0] == "voxdask":
            assert within(name) in above, f"{module} imports {name}, which is not above it"


@pytest.mark.parametrize("module", TREES)
def test_no_import_hides_in_a_function(module: str) -> None:
    functions = [node for node in ast.walk(TREES[module]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    hidden = {name for function in functions for name in imports(function) if name.split(".")[0] == "voxdask"}
    assert not hidden, f"{module or 'voxdask'} imports {', '.join(sorted(hidden))} in a function"


@pytest.mark.parametrize("module", [name for name in TREES if name != "backend"])
def test_only_the_backend_imports_cupy(module: str) -> None:
    assert not [name for name in imports(TREES[module]) if name.split(".")[0] in ("cupy", "cupyx")]


def test_planning_knows_no_array_and_no_dask() -> None:
    assert not {name.split(".")[0] for name in imports(TREES["planning"])} & {"numpy", "dask", "xarray", "zarr"}


def test_the_page_on_the_design_names_every_module() -> None:
    table = (
        (ROOT.parent / "docs" / "design.md").read_text(encoding="utf-8").partition("| layer |")[2].partition("\n\n")[0]
    )
    named = set(re.findall(r"`(\w+)`", table))
    unnamed = [name for name in MODULES if not {*name.split(".")[:1], name.split(".")[-1]} & named]
    assert not unnamed
    assert not named - {part for name in MODULES for part in name.split(".")}
