"""What does a step cost on this GPU, beside what it can't cost less than, and are its results right?

Physics: every model of voxdask, periodic, one explicit Euler step and, where it has one, one IMEX step; effective
properties of a porous medium (`gpu_transport.py`).
Cost: by estimate ten minutes at the default size on a card with 16 GB; 5 GB of host memory, and for tortuosity, which
it solves on the CPU as well, some 25 bytes per voxel and a minute.
Command: ``python benchmarks/gpu.py [--size 512] [--output gpu.json]``; with ``--peer-python PATH`` evoxels runs on the
same card, from an environment of its own that has torch for CUDA.

Fields are checked against the CPU on a small grid first. A *floor* is the time of a copy on the device of the bytes
that must be read and written: every field and coefficient once. Steps are medians without the first; bytes per voxel
are the peak of CuPy's pool beside the caller's fields, with the frame that is returned. A part that fails is reported,
and the rest goes on. Prints tables, the targets and whether they are met, and JSON as the last line. Without a GPU the
script says so and exits with 2.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import models as library
import numpy as np
import xarray as xr
from figures import Figure, summary
from gpu_transport import transport

import voxdask as vd
from voxdask import backend
from voxdask.kernels import Kernel, Update
from voxdask.loops import loops_of
from voxdask.loopsource import cuda_source
from voxdask.prepare import Prepared, prepare
from voxdask.printing import Scalars

#: Every model: those whose stages are timed on the CPU, and what else there is.
MODELS: dict[str, vd.Model] = {name: model for name, (model, _, _) in library.MODELS.items()} | {
    "diffusion down a potential": vd.models.ChemicalDiffusion(lambda c: 0.1 * c, vd.log),
    "Allen-Cahn, curvature": vd.models.AllenCahn(form="curvature", mobility=0.1),
    "gradient flow": vd.models.from_free_energy(
        lambda c, grad_c: 3 * c**2 * (1 - c) ** 2 + 3 * vd.dot(grad_c, grad_c), mobility=lambda c: 0.01 * c * (1 - c),
        bounds=(0, 1),
    ),
    "smoothed-boundary Cahn-Hilliard": vd.models.SmoothedBoundaryCahnHilliard(diffusivity=0.01),
}  # fmt: skip
STEPPERS = ("euler", "imex")
DTYPES = ("float32", "float64")
#: How far fields on the GPU may be from those on the CPU after a few steps, whose kernels round otherwise.
TOLERANCES = {"float32": 2e-5, "float64": 1e-11}
#: Models that are timed: one of one stage, one of two, one of two fields, one that reads many neighbours.
TIMED = ("diffusion, D(c)", "Cahn-Hilliard", "Gray-Scott", "Allen-Cahn, normal part")
PEER = Path(__file__).with_name("peer_evoxels.py")

Row = tuple[str, ...]
Part = tuple[dict[str, Any], list[Row]]


def start(model: vd.Model, size: int, dtype: str) -> xr.Dataset:
    """Random fields that a model accepts, on the host."""
    return library.start(model, size).astype(dtype)


def on_gpu(ds: xr.Dataset) -> xr.Dataset:
    return ds.map(lambda field: field.copy(data=backend.to_device(field.values)), keep_attrs=True)


def _free() -> None:
    """Give up what CuPy keeps: plans of transforms, each with its workspace, and memory that was freed."""
    backend.forget_transforms()
    backend.cupy.get_default_memory_pool().free_all_blocks()


def seconds(function: Callable[[], Any], rounds: int) -> float:
    """Median of what a call takes on the device, without the first."""
    taken = []
    for _ in range(rounds + 1):
        backend.finish_transfers()
        began = time.perf_counter()
        function()
        backend.finish_transfers()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def ns(run: xr.Dataset) -> float:
    """Nanoseconds per voxel and step of a run."""
    report = vd.Report.of(run.attrs)
    assert report is not None
    return report.ns_per_voxel_step


def card(options: argparse.Namespace) -> Part:
    """The card, and what it copies in a second: within itself, and to and from the host."""
    cupy, count = backend.cupy, options.copy_bytes
    name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.Device().id)["name"].decode()
    free, total = cupy.cuda.runtime.memGetInfo()
    here, there, other = backend.pinned((count,), np.uint8), cupy.empty(count, np.uint8), cupy.empty(count, np.uint8)
    here[...] = 1

    def copy() -> None:
        other[...] = there

    found = {
        "name": name, "memory": total, "free": free, "voxdask": version("voxdask"),
        "copy": 2 * count / seconds(copy, options.rounds),
        "to_device": count / seconds(lambda: backend.transfer(here, there), options.rounds),
        "to_host": count / seconds(lambda: backend.transfer(there, here), options.rounds),
    }  # fmt: skip
    if find_spec("cupy"):
        found["cupy"] = __import__("cupy").__version__
    rows = [("card", name), ("memory", f"{total / 1e9:.1f} GB, {free / 1e9:.1f} free")]
    rows += [("copy, read and written", f"{found['copy'] / 1e9:.0f} GB/s")]
    rows += [("from the host, to the host", f"{found['to_device'] / 1e9:.1f}, {found['to_host'] / 1e9:.1f} GB/s")]
    return found, rows


def right(options: argparse.Namespace) -> Part:
    """Every model on the GPU beside the CPU, on a small grid, in both precisions."""
    found: dict[str, Any] = {}
    rows: list[Row] = [("model, largest error", *(f"{s} {d}" for d in DTYPES for s in STEPPERS))]
    for name, model in MODELS.items():
        cells = []
        for dtype in DTYPES:
            ds = start(model, options.check_size, dtype)
            for stepper in STEPPERS:
                cells.append(_error(model, ds, stepper, TOLERANCES[dtype]))
        found[name] = cells
        rows.append((name, *cells))
    wrong = sum(cell.startswith(("WRONG", "failed")) for cells in found.values() for cell in cells)
    rows.append(("wrong or failed", str(wrong)))
    return found | {"wrong": wrong}, rows


def _error(model: vd.Model, ds: xr.Dataset, stepper: str, tolerance: float) -> str:
    """How far the fields are from the CPU's, in units of the largest value."""
    asked: dict[str, Any] = {"dt": 1e-3, "steps": 3, "stepper": stepper, "progress": False}
    try:
        expected = vd.simulate(model, ds, device="cpu", **asked)
    except (TypeError, ValueError):
        return "-"  # no such step of this model
    try:
        run = vd.simulate(model, ds, device="gpu", **asked)
    except Exception as error:
        return f"failed: {type(error).__name__}: {str(error)[:60]}"
    largest = max(
        float(np.abs(run[name].values - expected[name].values).max() / np.abs(expected[name].values).max())
        for name in expected.data_vars
    )
    return f"{largest:.1e}" if largest <= tolerance else f"WRONG {largest:.1e}"


def steps(options: argparse.Namespace) -> Part:
    """Time, memory and share of the copy bandwidth of whole steps, as one block."""
    found: dict[str, Any] = {}
    columns = ("size", "dtype", "ns/voxel/step", "of a copy", "bytes/voxel", "of foreseen", "tier")
    rows: list[Row] = [("model, step", *columns)]
    for name in TIMED:
        for stepper in STEPPERS:
            for dtype in DTYPES:
                for size in sorted({min(options.size, 256), options.size}):
                    case = f"{name}, {stepper}"
                    figures = _if_there_is_room(_step, MODELS[name], size, dtype, stepper, options)
                    found[f"{case}, {size}, {dtype}"] = figures
                    rows.append((case, f"{size}^3", dtype, *_cells(figures)))
    return found, rows


def _step(model: vd.Model, size: int, dtype: str, stepper: str, options: argparse.Namespace) -> dict[str, Any]:
    pool, ds = backend.cupy.get_default_memory_pool(), on_gpu(start(model, size, dtype))
    _free()
    before, voxels = pool.total_bytes(), size**3
    end = float(options.steps) * 1e-3
    foreseen = vd.plan(model, ds, stepper=stepper, measure=False).device_bytes
    run = vd.simulate(model, ds, dt=1e-3, steps=options.steps, stepper=stepper, save_at=[end], progress=False)
    taken = pool.total_bytes() - before
    foreseen += sum(field.nbytes for field in run.values())  # a plan leaves frames out
    tier = vd.Report.of(run.attrs).tier  # type: ignore[union-attr]
    once = sum(field.nbytes for field in ds.values()) + sum(ds[name].nbytes for name in model.fields)
    return {
        "ns": ns(run), "tier": tier, "of_copy": once / voxels / options.copy * 1e9 / ns(run),
        "bytes_per_voxel": taken / voxels, "of_foreseen": taken / foreseen,
    }  # fmt: skip


def _if_there_is_room(measure: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    try:
        return measure(*arguments)
    except MemoryError as error:
        return {"failed": str(error)}


def _cells(figures: dict[str, Any]) -> Row:
    if "failed" in figures:
        return ("-", "-", "-", "-", "no room")
    shown = (f"{figures['ns']:.3f}", f"{figures['of_copy']:.2f}", f"{figures['bytes_per_voxel']:.1f}")
    return (*shown, f"{figures['of_foreseen']:.2f}", figures["tier"])


def kernels(options: argparse.Namespace) -> Part:
    """The right-hand side alone with the update: in one stage where that is what runs, and stage by stage."""
    found: dict[str, Any] = {}
    rows: list[Row] = [("right-hand side and update", "dtype", "stages", "ns/voxel", "of a copy", "staged ns/voxel")]
    for name, model in MODELS.items():
        if getattr(model, "family", None):
            continue
        for dtype in DTYPES:
            figures = found[f"{name}, {dtype}"] = _if_there_is_room(_rate, model, dtype, options)
            if "failed" in figures:
                rows.append((name, dtype, "no room", "-", "-", "-"))
                continue
            shown = (f"{figures['ns']:.3f}", f"{figures['of_copy']:.2f}", f"{figures['staged_ns']:.3f}")
            rows.append((name, dtype, str(figures["stages"]), *shown))
    return found, rows


def _rate(model: vd.Model, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """An evaluation of the right-hand side with an update: as it runs, and stage by stage."""
    size = options.size
    prepared = prepare(model.equation, start(model, size, dtype), "periodic")
    kernel = prepared.operators.rate((Update(margin=prepared.operators.program.halo),))
    stages = len(kernel.device_calls)
    fused = _kernel_time(prepared, kernel, options.rounds) / size**3 * 1e9
    staged = fused
    if stages < len(kernel.calls):
        staged = _kernel_time(prepared, _staged(prepared, kernel), options.rounds) / size**3 * 1e9
    moved = (2 * len(prepared.system.fields) + len(prepared.system.constants)) * np.dtype(dtype).itemsize
    return {"stages": stages, "ns": fused, "of_copy": moved / options.copy * 1e9 / fused, "staged_ns": staged}


def _staged(prepared: Prepared, kernel: Kernel) -> Kernel:
    """The same kernel stage by stage, as on the CPU."""
    program = prepared.operators.program
    scalars = Scalars(program.parameters)
    source = cuda_source(loops_of(program, kernel.updates), scalars)
    return replace(kernel, device=source, device_calls=kernel.calls, numbers=scalars.values())


def _kernel_time(prepared: Prepared, kernel: Kernel, rounds: int) -> float:
    system, cupy, rng = prepared.system, backend.cupy, np.random.default_rng(0)
    padded = tuple(n + 2 * kernel.halo for n in system.grid.shape)
    whole = (system.grid.shape[0], *padded[1:])
    blocks = {name: 0.2 + 0.6 * backend.to_device(rng.random(padded, system.dtype)) for name in kernel.inputs}
    rates = prepared.operators.equation.rates
    blocks |= {f"base0_0_{rate}": cupy.zeros(whole, system.dtype) for rate in rates}
    out = {f"target0_{rate}": cupy.zeros(whole, system.dtype) for rate in rates}
    positions = {axis: cupy.zeros(n, system.dtype) for axis, n in zip(system.grid.dims, padded, strict=True)}
    return seconds(lambda: kernel(blocks, positions, system.values(0.0), out, (1.0, 1e-3)), rounds)


def streamed(options: argparse.Namespace) -> Part:
    """A field in host memory, larger than the pool that it goes through, beside the bandwidth of the bus."""
    found: dict[str, Any] = {}
    rows: list[Row] = [("streamed", "size", "slabs", "ns/voxel/step", "GB/s", "of the bus")]
    model, size = MODELS["Cahn-Hilliard"], f"{options.size}^3"
    ds = start(model, options.size, "float32")
    for stepper in (*STEPPERS, "rk4"):
        figures = found[stepper] = _if_there_is_room(_through_pool, model, ds, stepper, options)
        if "failed" in figures:
            rows.append((stepper, size, "no room", "-", "-", "-"))
            continue
        slabs = f"{figures['slab_rows']} rows, {figures['depth']} deep"
        shown = (f"{figures['ns']:.2f}", f"{figures['bytes_per_second'] / 1e9:.1f}", f"{figures['of_bus']:.2f}")
        rows.append((stepper, size, slabs, *shown))
    return found, rows


def _through_pool(model: vd.Model, ds: xr.Dataset, stepper: str, options: argparse.Namespace) -> dict[str, Any]:
    pool, room = backend.cupy.get_default_memory_pool(), int(ds.c.nbytes / options.over_pool)
    asked: dict[str, Any] = {"stepper": stepper, "device": "gpu"}
    _free()
    limit = pool.get_limit()
    pool.set_limit(size=pool.used_bytes() + room)
    try:
        plan = vd.plan(model, ds, measure=False, **asked)
        run = vd.simulate(model, ds, dt=1e-3, steps=options.steps, progress=False, **asked)
    finally:
        pool.set_limit(size=limit)
        _free()
    rate = (plan.traffic_bytes or 0) / (ns(run) * options.size**3) * 1e9
    return {
        "size": options.size, "pool": room, "ns": ns(run), "tier": plan.tier, "slab_rows": plan.slab_rows,
        "depth": plan.depth, "bytes_per_second": rate,
        "of_bus": rate / (options.to_device + options.to_host),  # both ways at once
    }  # fmt: skip


def peer(options: argparse.Namespace) -> Part:
    """evoxels on the same card, in a process of its own, with what is free there."""
    python, found = options.peer_python or sys.executable, dict[str, Any]()
    rows: list[Row] = [("evoxels, Cahn-Hilliard float32", "size", "ns/voxel/step", "bytes/voxel")]
    if not options.peer_python and not (find_spec("torch") and find_spec("evoxels")):
        return {"absent": "torch and evoxels are not installed"}, [("evoxels", "not installed")]
    _free()
    for size in sorted({min(options.size, 256), options.size}):
        for mode in ("rhs", "eager", "compile"):
            command = [python, str(PEER), "time", "--size", str(size), "--steps", str(options.steps), "--mode", mode]
            command += ["--device", "cuda", "--json"]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                found[f"{mode}, {size}"] = {"failed": result.stderr[-300:]}
                rows.append((mode, f"{size}^3", "failed", (result.stderr.splitlines() or ["?"])[-1][:60]))
                continue
            figures = found[f"{mode}, {size}"] = json.loads(result.stdout.splitlines()[-1])
            rows.append((mode, f"{size}^3", f"{figures['ns_per_voxel']:.3f}", f"{figures['peak_bytes_per_voxel']:.1f}"))
    return found, rows


PARTS: dict[str, Callable[[argparse.Namespace], Part]] = {
    "card": card, "right": right, "kernels": kernels, "steps": steps, "streamed": streamed, "transport": transport,
    "peer": peer,
}  # fmt: skip


def targets(options: argparse.Namespace, results: dict[str, Any]) -> list[Figure]:
    """What voxdask should reach on a GPU, and what it does; not a number for what was not measured."""

    def of(part: str, case: str, what: str) -> float:
        return float(results.get(part, {}).get(case, {}).get(what, math.nan))

    size, cube = options.size, f"{options.size}^3"
    kernel, step = "Cahn-Hilliard, float32", f"Cahn-Hilliard, imex, {size}, float32"
    faster = of("peer", f"compile, {size}", "ns_per_voxel") / of("steps", step, "ns")
    bytes_taken = of("steps", step, "bytes_per_voxel")
    bytes_of_peer = of("peer", f"compile, {size}", "peak_bytes_per_voxel")
    found = [
        Figure("peer", f"evoxels compiled / voxdask, {cube}", faster, "x", 3, True),
        Figure("steps", f"memory beside the caller's field, {cube}", bytes_taken, "B", 20),
        Figure("peer", f"memory / that of evoxels compiled, {cube}", bytes_taken / bytes_of_peer, "x", 0.5),
        Figure("kernels", f"right-hand side, of a copy, {cube}", of("kernels", kernel, "of_copy"), "x", 0.7, True),
    ]
    every = [figures["of_foreseen"] for figures in results.get("steps", {}).values() if "of_foreseen" in figures]
    worst = max(every, default=math.nan)
    found.append(Figure("steps", "memory, measured / foreseen, of all models and types", worst, "x", 1))
    for stepper in (*STEPPERS, "rk4"):
        share = of("streamed", stepper, "of_bus")
        case = f"{stepper}, {options.over_pool:g} x the pool, of the bus, {cube}"
        found.append(Figure("streamed", case, share, "x", 0.8, True))
    return found


def table(rows: Sequence[Row]) -> str:
    """Rows as aligned text."""
    widths = [max(len(row[k]) for row in rows if len(row) > k) for k in range(max(map(len, rows)))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=False)).rstrip() for row in rows)


def main(argv: list[str] | None = None) -> int:
    """Run what is asked for, print tables and JSON; 0 if every part ran and all is right, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="voxels along an axis; 256 comes beside it")
    parser.add_argument("--check-size", type=int, default=24, help="of the grid on which every model is checked")
    parser.add_argument("--steps", type=int, default=10, help="of each run")
    parser.add_argument("--rounds", type=int, default=10, help="of each kernel and copy")
    parser.add_argument("--copy-bytes", type=int, default=1 << 29, help="of each copy")
    parser.add_argument("--over-pool", type=float, default=4.0, help="a field that is streamed / the pool's limit")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts beside the card")
    parser.add_argument("--output", type=Path, help="a file for the JSON")
    parser.add_argument("--peer-python", help="a Python that has evoxels and torch")
    options = parser.parse_args(argv)
    try:
        backend.require_device()
    except RuntimeError as error:
        print(f"no GPU: {error}")
        return 2
    options.copy = options.to_device = options.to_host = float("nan")
    results: dict[str, Any] = {"size": options.size, "failed": {}}
    for name, part in PARTS.items():
        if options.only and name not in ("card", *options.only):
            continue
        try:
            found, rows = part(options)
        except Exception as error:  # the rest is worth having
            results["failed"][name] = f"{type(error).__name__}: {error}"
            print(f"\n{name} failed: {results['failed'][name]}", flush=True)
            continue
        finally:
            _free()
        results[name] = found
        if name == "card":
            options.copy, options.to_device, options.to_host = (found[key] for key in ("copy", "to_device", "to_host"))
        print(f"\n{table(rows)}", flush=True)
    figures = targets(options, results)
    print("\nTargets, of Cahn-Hilliard in float32:", *figures, summary(figures), sep="\n")
    results["targets"] = [figure.as_json() for figure in figures]
    text = json.dumps(results)
    if options.output:
        options.output.write_text(text + "\n", encoding="utf-8")
    print(text)
    wrong = any(results.get(part, {}).get("wrong") for part in ("right", "transport"))
    return 1 if results["failed"] or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
