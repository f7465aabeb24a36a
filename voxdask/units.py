"""Bytes and seconds for people."""

from __future__ import annotations

import math


def format_bytes(count: int) -> str:
    """Bytes for people.

    Examples
    --------
    >>> format_bytes(3_200_000)
    '3.2 MB'
    """
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def format_seconds(seconds: float) -> str:
    """A duration for people.

    Examples
    --------
    >>> format_seconds(0.0123), format_seconds(75)
    ('12.3 ms', '75 s')
    """
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            break
    return f"{seconds / size:.3g} {unit}" if seconds < 100 * size else f"{seconds / size:.0f} {unit}"


def parse_bytes(text: str | int | float) -> int:
    """Bytes from a number or a text such as ``"200MB"`` or ``"1.5 GiB"``.

    Raises
    ------
    ValueError
        If it is neither, or not positive.

    Examples
    --------
    >>> parse_bytes("200MB"), parse_bytes("1 KiB")
    (200000000, 1024)
    """
    units = {"": 1, "B": 1} | {f"{p}B": 1000 ** (i + 1) for i, p in enumerate("kMGT")}
    units |= {f"{p}iB": 1024 ** (i + 1) for i, p in enumerate("KMGT")}
    lower = {unit.lower(): factor for unit, factor in units.items()}
    words = str(text).strip()
    digits = words.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    try:
        count = float(digits) * lower[words[len(digits) :].strip().lower()]
    except (ValueError, KeyError):
        raise ValueError(f'memory_limit is {text!r}; give bytes or a text such as "200MB" or "4GiB"') from None
    if not count > 0 or math.isinf(count):
        raise ValueError(f"memory_limit is {text!r}; it must be positive")
    return int(count)
