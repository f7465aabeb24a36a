"""Run the peer, evoxels, on Cahn-Hilliard: reference fields for the tests, times for the benchmark.

Physics: dc/dt = div( D c (1 - c) grad mu ), mu = 18/eps c (1 - c) (1 - 2 c) - 2 eps lap c, on cell-centred
voxels, with evoxels' pseudo-spectral IMEX step on its torch backend, on the CPU. Needs the extra `bench`
(evoxels and torch); voxdask itself is not imported, so any Python that has the extra will do. Axes are in
evoxels' order, (x, y, z), throughout.

    python benchmarks/peer_evoxels.py reference --out tests/data/cahn_hilliard_evoxels.npz
    python benchmarks/peer_evoxels.py time --size 256 --steps 5 --mode compile --json

`reference` takes seconds and writes under 400 kB; tests/data/cahn_hilliard_evoxels.npz is its output. `time`
takes one mode per process, so that a mode's peak memory is its own: at 256^3 and `--steps 5` 15 to 30 s on
two cores and 1.4 GB in all; `compile` takes up to a minute more where torch's compiler cache is cold. Read
memory at 256^3 or above: below about 200^3 an array is under 32 MiB, glibc keeps freed ones, and the resident
peak says twice what is in use. With `--json` the last line of stdout is one JSON object.
"""

import argparse
import contextlib
import ctypes
import json
import os
import resource
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

DIMS = ("x", "y", "z")
PERIODIC = ("periodic", "periodic", "periodic")
NEUMANN_X = ("neumann", "periodic", "periodic")
EPS, DIFFUSIVITY, DT = 3.0, 1.0, 1.0

REFERENCE_SHAPE = (32, 24, 16)
REFERENCE_STEPS = 50
UNIT_SPACING = (1.0, 1.0, 1.0)
ANISOTROPIC_SPACING = (1.0, 0.8, 1.25)


def random_start(shape: tuple[int, int, int]) -> np.ndarray:
    """A mixture near 1/2 that decomposes: 0.5 + 0.05 N(0, 1), clipped to [0, 1], float32."""
    noise = np.random.default_rng(0).standard_normal(shape)
    return np.clip(0.5 + 0.05 * noise, 0.0, 1.0).astype(np.float32)


def voxel_fields(start: np.ndarray, spacing: tuple[float, float, float], precision: str) -> Any:
    """evoxels' container of `start` as field "c"; it takes the domain's size, not the spacing."""
    import evoxels

    fields = evoxels.VoxelFields(start.shape, tuple(n * h for n, h in zip(start.shape, spacing, strict=True)))
    fields.precision = precision
    fields.add_field("c", start)
    return fields


def final_field(
    start: np.ndarray,
    spacing: tuple[float, float, float] = UNIT_SPACING,
    bc: tuple[str, str, str] = PERIODIC,
    precision: str = "float32",
) -> np.ndarray:
    """The field after REFERENCE_STEPS steps, by evoxels' own solver.

    evoxels takes its wavenumbers in torch's default dtype whatever `precision` says, so that default is set
    too: a float64 run is float64 throughout.
    """
    import evoxels
    import torch

    torch.set_default_dtype(getattr(torch, precision))
    fields = voxel_fields(start, spacing, precision)
    evoxels.run_cahn_hilliard_solver(
        fields, "c", "torch", jit=False, device="cpu", time_increment=DT, frames=1, max_iters=REFERENCE_STEPS,
        eps=EPS, diffusivity=DIFFUSIVITY, bc=bc, verbose=False,
    )  # fmt: skip
    return np.asarray(fields.fields["c"])


def problem_and_state(start: np.ndarray, precision: str, device: str = "cpu") -> tuple[Any, Any]:
    """evoxels' periodic problem on unit voxels, and its state tensor of shape (1, x, y, z)."""
    import torch
    from evoxels.pdes import CahnHilliard
    from evoxels.voxelgrid import VoxelGridTorch

    torch.set_default_dtype(getattr(torch, precision))
    grid = voxel_fields(start, UNIT_SPACING, precision).grid_info()
    voxels = VoxelGridTorch(grid, precision=precision, device=device)
    return CahnHilliard(voxels, eps=EPS, D=DIFFUSIVITY, bc=PERIODIC), voxels.init_scalar_field(start)


def write_reference(out: Path) -> None:
    start = random_start(REFERENCE_SHAPE)
    problem, state = problem_and_state(start, "float64")
    arrays = {
        "start": start,
        "rhs": problem.rhs(0.0, state)[0].numpy().astype(np.float32),
        "final": final_field(start),
        "final64": final_field(start, precision="float64"),
        "final_neumann_x": final_field(start, bc=NEUMANN_X),
        "final_aniso": final_field(start, spacing=ANISOTROPIC_SPACING),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out,
        **arrays,
        dims=np.array(DIMS),
        spacing=np.array(UNIT_SPACING),
        spacing_aniso=np.array(ANISOTROPIC_SPACING),
        eps=EPS,
        D=DIFFUSIVITY,
        dt=DT,
        steps=REFERENCE_STEPS,
        evoxels_version=version("evoxels"),
        torch_version=version("torch"),
    )
    drift = float(np.abs(arrays["final"] - arrays["final64"]).max())
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB; float32 is within {drift:.1e} of float64")
    for name, array in arrays.items():
        print(f"  {name:16s} {array.dtype} {array.min():+.5f} to {array.max():+.5f} mean {array.mean():+.6f}")


def _status_bytes(key: str) -> int:
    """A memory entry of this process as Linux keeps it, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def resident_bytes() -> int:
    """Resident memory now, after handing freed heap back to the system."""
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    return _status_bytes("VmRSS")


def reset_peak() -> bool:
    """Forget the resident peak so far; False where the system doesn't allow that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes(was_reset: bool) -> int:
    return _status_bytes("VmHWM") if was_reset else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def time_peer(size: int, steps: int, mode: str, device: str = "cpu") -> dict[str, Any]:
    """Time `mode` on size^3, float32: "eager" or "compile", one IMEX step; "rhs", the right-hand side, eager.

    Memory is what evoxels holds beside the caller's NumPy array (state, symbol, prefactor) plus the peak of
    the warm calls above that; what the compiler itself takes is left out. Where the system can't reset the
    peak ("peak_is_of_warm_calls" false) it is the process's, imports and compiler included.
    """
    import torch
    from evoxels.timesteppers import PseudoSpectralIMEX

    torch.set_num_threads(os.cpu_count() or 1)
    if device != "cpu":
        return _time_on_gpu(size, steps, mode, device)
    tiny, u = problem_and_state(random_start((8, 8, 8)), "float32")
    PseudoSpectralIMEX(tiny, DT).step(0.0, u)  # loads libraries and starts threads before memory is read
    start = random_start((size, size, size))
    voxels = start.size

    before = resident_bytes()
    problem, u = problem_and_state(start, "float32")
    call = problem.rhs if mode == "rhs" else PseudoSpectralIMEX(problem, DT).step
    held = resident_bytes() - before
    if mode == "compile":
        call = torch.compile(call)  # as evoxels' solver does with jit=True

    tick = time.perf_counter()
    out = call(0.0, u)
    first = time.perf_counter() - tick
    if mode != "rhs":
        u = out
    del out

    base = resident_bytes()
    was_reset = reset_peak()
    seconds = []
    for i in range(steps):
        tick = time.perf_counter()
        out = call((i + 1) * DT, u)
        seconds.append(time.perf_counter() - tick)
        if mode != "rhs":
            u = out
        del out
    peak = held + max(peak_bytes(was_reset) - base, 0)
    if not bool(torch.isfinite(u).all()):
        raise RuntimeError("evoxels' field is not finite after the timed steps")

    return {
        "peer": "evoxels",
        "mode": mode,
        "size": size,
        "steps": steps,
        "dtype": "float32",
        "threads": torch.get_num_threads(),
        "ns_per_voxel": statistics.median(seconds) / voxels * 1e9,
        "ns_per_voxel_min": min(seconds) / voxels * 1e9,
        "first_call_s": first,
        "held_bytes_per_voxel": held / voxels,
        "peak_bytes_per_voxel": peak / voxels,
        "peak_is_of_warm_calls": was_reset,
        "evoxels_version": version("evoxels"),
        "torch_version": version("torch"),
    }


def _time_on_gpu(size: int, steps: int, mode: str, device: str) -> dict[str, Any]:
    """The same on a GPU, where memory is the peak of torch's allocator."""
    import torch
    from evoxels.timesteppers import PseudoSpectralIMEX

    problem, u = problem_and_state(random_start((size, size, size)), "float32", device)
    call = problem.rhs if mode == "rhs" else PseudoSpectralIMEX(problem, DT).step
    if mode == "compile":
        call = torch.compile(call)
    seconds = []
    for i in range(steps + 2):  # two to compile and to plan transforms
        if i == 2:
            torch.cuda.reset_peak_memory_stats()
        torch.cuda.synchronize()
        tick = time.perf_counter()
        out = call(i * DT, u)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - tick)
        if mode != "rhs":
            u = out
        del out
    if not bool(torch.isfinite(u).all()):
        raise RuntimeError("evoxels' field is not finite after the timed steps")
    return {
        "peer": "evoxels",
        "mode": mode,
        "size": size,
        "steps": steps,
        "dtype": "float32",
        "device": torch.cuda.get_device_name(),
        "ns_per_voxel": statistics.median(seconds[2:]) / size**3 * 1e9,
        "first_call_s": seconds[0],
        "peak_bytes_per_voxel": torch.cuda.max_memory_allocated() / size**3,
        "evoxels_version": version("evoxels"),
        "torch_version": version("torch"),
    }


def main(argv: list[str] | None = None) -> int:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", required=True)
    reference = commands.add_parser("reference", help="write evoxels' fields for the tests")
    reference.add_argument("--out", type=Path, required=True, help="the .npz to write")
    timing = commands.add_parser("time", help="time evoxels")
    timing.add_argument("--size", type=int, default=256, help="voxels per axis")
    timing.add_argument("--steps", type=int, default=5, help="warm calls; their median is reported")
    timing.add_argument("--mode", choices=("eager", "compile", "rhs"), default="eager")
    timing.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    timing.add_argument("--json", action="store_true", help="print one JSON object, on the last line")
    args = parser.parse_args(argv)

    if args.command == "reference":
        write_reference(args.out)
        return 0
    if args.size < 4 or args.steps < 1:
        parser.error(f"--size must be at least 4 and --steps at least 1, got {args.size} and {args.steps}")
    result = time_peer(args.size, args.steps, args.mode, args.device)
    if args.json:
        print(json.dumps(result))
    else:
        for key, value in result.items():
            print(f"{key:24s} {value:.4g}" if isinstance(value, float) else f"{key:24s} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
