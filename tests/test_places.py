"""Where a run lies: the disk that is asked for room, and measured, is the one that it will be on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import voxdask as vd
from voxdask.places import folder_of


def test_a_folder_that_is_there_and_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "disk").mkdir()
    vd.simulate(
        vd.models.CahnHilliard(), vd.dataset({"c": np.full((4, 4, 4), 0.5)}), dt=0.1, steps=1, store="disk/run.zarr",
        progress=False,
    )  # fmt: skip
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "later.zarr")  # nothing is there yet
    found = {name: folder_of(name) for name in ("disk", "disk/run.zarr", "disk/a/b.zarr", "link", "file", "file/b")}
    disk = (tmp_path / "disk").resolve()
    assert found == {
        "disk": disk, "disk/run.zarr": disk, "disk/a/b.zarr": disk, "link": disk,
        "file": disk.parent, "file/b": disk.parent,
    }  # fmt: skip
    assert folder_of(None) == Path.cwd()
    monkeypatch.setenv("HOME", str(tmp_path / "disk"))
    assert folder_of("~/c.zarr") == disk
