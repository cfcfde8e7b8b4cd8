"""Words about a place in raw bytes, safe to show."""

from __future__ import annotations

_WIDTH = 40


def shown(text: str) -> str:
    """``text`` with everything that isn't printable escaped: control and format characters, lone surrogates."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def excerpt(raw: bytes, at: int) -> str:
    """About 40 characters of ``raw`` around byte ``at``, printable; undecodable bytes as ``\\xNN``."""
    start = max(at - _WIDTH // 2, 0)
    while start > 0 and raw[start] & 0xC0 == 0x80 and at - start < _WIDTH // 2 + 3:  # not inside a character
        start -= 1
    piece = raw[start : start + 4 * _WIDTH].decode("utf-8", "backslashreplace")[:_WIDTH]
    return shown(piece)


def where(raw: bytes, at: int) -> str:
    """``column 7`` of the record (characters, from 1), or ``line 3 of the record, column 7`` if it has several."""
    line = raw.count(b"\n", 0, at)
    line_start = raw.rfind(b"\n", 0, at) + 1
    column = len(raw[line_start:at].decode("utf-8", "replace")) + 1
    return f"line {line + 1} of the record, column {column}" if line else f"column {column}"
