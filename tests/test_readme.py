"""The README's Python is run, block after block, and what it points at exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")
BLOCKS = [(match.start(), match[1]) for match in re.finditer(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)]


@pytest.mark.study
def test_readme_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "readme"}
    assert len(BLOCKS) >= 4
    for start, code in BLOCKS:
        first_line = TEXT[:start].count("\n") + 1
        exec(compile("\n" * first_line + code, README, "exec"), namespace)  # tracebacks name README's own lines
    assert (tmp_path / "slices.png").exists()


def test_readme_has_the_two_commands() -> None:
    assert "\npython -m pip install -e . && python examples/spinodal_decomposition.py\n" in TEXT
    assert '\npython -m pip install -e ".[test]" && python -m pytest\n' in TEXT


def test_readme_shows_a_modest_picture() -> None:
    for picture in (ROOT / "docs").glob("*.png"):
        assert 10_000 < picture.stat().st_size < 300_000


PAGES = [
    "README.md",
    "CHANGELOG.md",
    "docs/design.md",
    "docs/scaling.md",
    "docs/verification.md",
    "benchmarks/README.md",
]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}, which is not there"
