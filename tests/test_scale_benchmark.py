"""The benchmark of large runs: all that it does, at sizes that say nothing of speed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SIZE = 32
TINY = ["--size", str(SIZE), "--rounds", "1", "--rounds-large", "1", "--steps", "3", "--long-steps", "20"]
#: Parts, and how many figures each has, of them with a target.
PARTS = {"block": (9, 3), "spilled": (14, 8), "explicit": (14, 8), "growth": (15, 3), "long": (16, 5), "plan": (24, 12)}
PARTS |= {"scaling": (12, 0)}


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it looks at memory as Linux shows it")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    module = importlib.import_module("scale")

    def here(function: Callable[..., Any], *arguments: Any, cores: int | None = None, **options: Any) -> Any:
        return function(*arguments, **options)

    monkeypatch.setattr(module, "apart", here)  # a process of its own takes seconds to begin
    monkeypatch.setattr(module.probes, "WARM", ((32, 16, 16),))
    monkeypatch.setattr(module.probes, "BLOCKS", {"block": "scipy"})
    for each in (module, module.probes):
        monkeypatch.setattr(each, "threads", lambda: 2)
    return module


@pytest.mark.study
@pytest.mark.parametrize("part", PARTS)
def test_every_part_runs(part: str, benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "scale.json"
    found = benchmark.main([*TINY, "--only", part, "--folder", str(tmp_path), "--output", str(output)])
    assert (len(found), sum(figure.target is not None for figure in found)) == PARTS[part]
    assert all(figure.part == part and np.isfinite(figure.value) for figure in found)
    printed, written = capsys.readouterr().out.splitlines(), json.loads(output.read_text(encoding="utf-8"))
    assert written["size"] == SIZE and written["rows"] == [figure.as_json() for figure in found]
    assert [line.split()[0] for line in printed[: len(found)]] == [part] * len(found)
    assert printed[-1].endswith(" missed")
    assert list(tmp_path.iterdir()) == [output]  # nothing is left on the disk
