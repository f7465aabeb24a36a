"""What does a Cahn-Hilliard step cost, on every tier, beside its transforms and beside the peer?

Physics: spinodal decomposition, periodic, float32, one IMEX step of ``vd.models.CahnHilliard``.
Cost: about four minutes on two cores at the default sizes, six with the peer; 6 GB of disk, 2 GB of memory.
Command: ``python benchmarks/cahn_hilliard.py``, with the peer (extra ``bench``, it may live in an environment of
its own) ``python benchmarks/cahn_hilliard.py --peer-python PATH``.

Every figure is a median over rounds in which the competitors take turns; each comes with the ratio that the
target names, from the same rounds. Memory and compile times are taken in processes of their own. Prints a table,
and JSON as the last line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.fft
import xarray as xr

import voxdask as vd

MODEL = vd.models.CahnHilliard(eps=3.0)
PEER = Path(__file__).with_name("peer_evoxels.py")
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(size: int) -> xr.Dataset:
    """A noisy mixture on size^3 voxels."""
    noise = np.random.default_rng(0).standard_normal((size,) * 3, dtype=np.float32)
    return vd.dataset({"c": np.float32(0.5) + np.float32(0.05) * noise}, spacing=1.0)


def per_voxel(function: Callable[[], Any], size: int) -> float:
    """Nanoseconds per voxel of one call."""
    began = time.perf_counter()
    function()
    return (time.perf_counter() - began) / size**3 * 1e9


def step_time(ds: xr.Dataset, steps: int, **options: Any) -> float:
    """Median nanoseconds per voxel and step of a short run."""
    run = vd.simulate(MODEL, ds, dt=1.0, steps=steps, progress=False, **options)
    return vd.Report.of(run.attrs).ns_per_voxel_step


def in_memory(size: int, rounds: int, steps: int) -> dict[str, float]:
    """The tiers that hold the field, the right-hand side, and the bare transform pair, in turn."""
    ds = start(size)
    u = ds.c.values
    found: dict[str, list[float]] = {name: [] for name in ("copy", "pair", "rhs", "block", "chunked")}
    target = np.empty_like(u)
    MODEL.right_hand_side(ds)
    for _ in range(rounds):
        found["copy"].append(per_voxel(lambda: np.copyto(target, u), size))
        found["pair"].append(per_voxel(lambda: _pair(u), size))
        found["rhs"].append(per_voxel(lambda: MODEL.right_hand_side(ds), size))
        found["block"].append(step_time(ds, steps))
        found["chunked"].append(step_time(ds, steps, chunks=-(-size // (2 * THREADS))))
    result = {name: statistics.median(values) for name, values in found.items()}
    for name, under in (("block", "pair"), ("chunked", "block")):
        ratios = [a / b for a, b in zip(found[name], found[under], strict=True)]
        result[f"{name}/{under}"] = statistics.median(ratios)
    return result


def _pair(u: np.ndarray) -> None:
    modes = scipy.fft.rfftn(u, workers=THREADS)
    scipy.fft.irfftn(modes, s=u.shape, workers=THREADS, overwrite_x=True)


def spilled(size: int, rounds: int, steps: int, limit: str) -> dict[str, float]:
    """A spilled run beside a block of the same size, in turn."""
    ds = start(size)
    found: dict[str, list[float]] = {"block": [], "spilled": []}
    for _ in range(rounds):
        found["block"].append(step_time(ds, steps))
        with tempfile.TemporaryDirectory() as folder:
            found["spilled"].append(step_time(ds, steps, store=f"{folder}/run.zarr", memory_limit=limit))
    ratios = [a / b for a, b in zip(found["spilled"], found["block"], strict=True)]
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {**medians, "spilled/block": statistics.median(ratios)}


MEMORY = """
import sys
sys.path.insert(0, sys.argv[2])
import cahn_hilliard as bench
size = int(sys.argv[1])
bench.step_time(bench.start(16), 1)
ds = bench.start(size)
run = bench.vd.simulate(bench.MODEL, ds, dt=1.0, steps=3, save_at=[3.0], progress=False)
frames = run.c.nbytes
print((bench.vd.Report.of(run.attrs).peak_memory - frames) / size**3)
"""

COMPILE = """
import sys, time
sys.path.insert(0, sys.argv[1])
import cahn_hilliard as bench
ds = bench.start(16)
began = time.perf_counter()
bench.step_time(ds, 1)
print(time.perf_counter() - began)
"""


def fresh(script: str, *arguments: str, **environment: str) -> float:
    """What a script prints that runs in a process of its own."""
    command = [sys.executable, "-c", script, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return float(result.stdout.splitlines()[-1])


def compile_time() -> dict[str, float]:
    """Seconds of a first step on 16^3 voxels, without and with kernels in the cache."""
    here = str(Path(__file__).parent)
    with tempfile.TemporaryDirectory() as cache:
        return {name: fresh(COMPILE, here, XDG_CACHE_HOME=cache) for name in ("first_call_s", "cached_call_s")}


def peer(python: str, size: int, steps: int) -> dict[str, Any]:
    """The peer's figures, each mode in a process of its own, beside ours from right before and after."""
    ds, figures = start(size), {}

    def mine(mode: str) -> float:
        if mode == "rhs":
            return statistics.median(per_voxel(lambda: MODEL.right_hand_side(ds), size) for _ in range(steps))
        return step_time(ds, steps)

    for mode in ("rhs", "eager", "compile"):
        before = mine(mode)
        command = [python, str(PEER), "time", "--size", str(size), "--steps", str(steps), "--mode", mode, "--json"]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(result.stdout.splitlines()[-1])
        found["beside"] = (before + mine(mode)) / 2
        found["ratio"] = found["ns_per_voxel"] / found["beside"]
        figures[mode] = found
    return figures


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run what is asked for, print a table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=256, help="voxels along an axis in memory")
    parser.add_argument("--spilled-size", type=int, default=512, help="voxels along an axis, spilled; 0 for none")
    parser.add_argument("--memory-limit", default="256MB", help="of the spilled run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="of each run")
    parser.add_argument("--peer-python", help="a Python that has evoxels and torch")
    options = parser.parse_args(argv)
    size, results = options.size, {"size": options.size, "threads": THREADS, "machine": platform.machine()}
    rows: list[tuple[str, str, str]] = []

    figures = in_memory(size, options.rounds, options.steps)
    results["in_memory"] = figures
    rows += [
        (f"copy, {size}^3", f"{figures['copy']:.2f} ns", ""),
        ("bare transform pair", f"{figures['pair']:.1f} ns", ""),
        ("right-hand side", f"{figures['rhs']:.2f} ns", "at most 3 ns"),
        ("block step", f"{figures['block']:.1f} ns", ""),
        ("block / transform pair", f"{figures['block/pair']:.2f}", "at most 1.2"),
        ("chunked step", f"{figures['chunked']:.1f} ns", ""),
        ("chunked / block", f"{figures['chunked/block']:.2f}", "at most 1.4"),
    ]
    results["bytes_per_voxel"] = fresh(MEMORY, str(size), str(Path(__file__).parent))
    rows.append(("block, bytes per voxel beside the start", f"{results['bytes_per_voxel']:.1f}", "at most 20"))
    results["compile"] = compile_time()
    rows.append(("first call, compiling", f"{results['compile']['first_call_s']:.1f} s", "under 10 s"))
    rows.append(("first call, from the cache", f"{results['compile']['cached_call_s']:.1f} s", ""))
    if options.spilled_size:
        figures = spilled(options.spilled_size, max(options.rounds // 2, 1), 3, options.memory_limit)
        results["spilled"] = {"size": options.spilled_size, "memory_limit": options.memory_limit, **figures}
        rows += [
            (f"block step, {options.spilled_size}^3", f"{figures['block']:.1f} ns", ""),
            (f"spilled step, {options.spilled_size}^3, {options.memory_limit}", f"{figures['spilled']:.1f} ns", ""),
            ("spilled / block", f"{figures['spilled/block']:.2f}", "at most 4"),
        ]
    if options.peer_python:
        found = peer(options.peer_python, size, options.steps)
        results["peer"] = found
        rows += [
            ("evoxels right-hand side, eager", f"{found['rhs']['ns_per_voxel']:.1f} ns", ""),
            ("evoxels step, eager", f"{found['eager']['ns_per_voxel']:.1f} ns", ""),
            ("evoxels step, torch.compile", f"{found['compile']['ns_per_voxel']:.1f} ns", ""),
            ("right-hand side, times faster", f"{found['rhs']['ratio']:.1f}", "at least 10"),
            ("step, times faster than eager", f"{found['eager']['ratio']:.1f}", ""),
            ("step, times faster than torch.compile", f"{found['compile']['ratio']:.1f}", "at least 3"),
        ]
    width = max(len(row[0]) for row in rows)
    for name, value, target in rows:
        print(f"{name:<{width}}  {value:>10}  {target}")
    print(json.dumps(results))
    return results


if __name__ == "__main__":
    main()
