"""Run printed CUDA C on the host: the system's C compiler, a few definitions, and a loop over the launch."""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

#: Options by which products and sums are fused, as NVRTC does; empty to keep them apart.
contraction: list[str] = []

COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

_PROLOGUE = """\
#include <stddef.h>
#include <tgmath.h>
#define __global__
#define __device__
typedef struct { unsigned x, y, z; } dim3;
static dim3 blockIdx, threadIdx, blockDim, gridDim;
"""

_LAUNCH = """\
void launch_{name}({parameters}, const unsigned* grid, const unsigned* block) {{
    gridDim = (dim3){{grid[0], grid[1], grid[2]}};
    blockDim = (dim3){{block[0], block[1], block[2]}};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
    for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
    for (threadIdx.z = 0; threadIdx.z < block[2]; ++threadIdx.z)
    for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
    for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x)
        {name}({arguments});
}}
"""

#: What voxdask.backend.namespace gives for an array on a device; here its arrays are NumPy's.
namespace = SimpleNamespace(asarray=np.asarray, empty=np.empty, ascontiguousarray=np.ascontiguousarray)


class HostModule:
    """CUDA C source compiled for the host, with the interface of ``cupy.RawModule``."""

    def __init__(self, source: str, folder: Path) -> None:
        launches = []
        for name, written in re.findall(r"__global__ void (\w+)\((.*?)\) \{", source, re.DOTALL):
            parameters = " ".join(written.split())
            names = ", ".join(parameter.split()[-1] for parameter in parameters.split(", "))
            launches.append(_LAUNCH.format(name=name, parameters=parameters, arguments=names))
        text = _PROLOGUE + source.replace('extern "C" ', "") + "\n".join(launches)
        path = folder / f"kernel_{hashlib.sha256((text + ' '.join(contraction)).encode()).hexdigest()[:16]}.c"
        path.write_text(text)
        library = path.with_suffix(".so")
        options = [
            "-std=c11",
            "-O1",
            "-Wall",
            "-Wno-unused-function",
            "-Werror",
            *(contraction or ["-ffp-contract=off"]),
            "-shared",
            "-fPIC",
        ]
        command = [str(COMPILER), *options, "-o", str(library), str(path), "-lm"]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{result.stderr}\n{text}")
        self._library = ctypes.CDLL(str(library))

    def get_function(self, name: str) -> Any:
        """A function of (grid, block, arguments)."""
        launch = getattr(self._library, f"launch_{name}")

        def run(grid: Sequence[int], block: Sequence[int], values: Sequence[Any]) -> None:
            assert 0 < np.prod(block) <= 1024
            assert all(0 < n <= 65535 for n in grid[1:])
            sizes = [(ctypes.c_uint * 3)(*dim, *(1,) * (3 - len(dim))) for dim in (grid, block)]
            launch(*map(_argument, values), *sizes)

        return run


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        assert value.flags.c_contiguous
        return value.ctypes.data_as(ctypes.c_void_p)
    return {"f": ctypes.c_float, "d": ctypes.c_double, "i": ctypes.c_int}[value.dtype.char](value)
