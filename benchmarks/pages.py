"""Tables in a page of the documentation, each between ``<!-- name -->`` and ``<!-- end of name -->``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def replace_tables(page: Path, tables: Mapping[str, Sequence[str]]) -> None:
    """Put lines into a page between their marks."""
    text = page.read_text(encoding="utf-8")
    for name, lines in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        if begin not in text or end not in text:
            raise ValueError(f"{page} has no {begin} ... {end}")
        head, rest = text.split(begin)
        text = head + "\n".join([begin, *lines, end]) + rest.split(end)[1]
    page.write_text(text, encoding="utf-8")
