"""Whether JSON text is lines of values or one document, by its beginning; whatever the file's name says."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

import orjson

from lorads.sources.json_faults import BOM

ROW_COLUMNS = frozenset(
    (
        "messages",
        "conversations",
        "conversation",
        "dialog",
        "dialogue",
        "turns",
        "history",
        "tools",
        "functions",
        "documents",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "instruction",
        "input",
        "output",
        "response",
        "query",
        "text",
        "input_ids",
        "labels",
        "tool_calls",
    )
)
"""Keys of a row. An array of objects under one of them is part of a row, under another key it is the table."""

_SPACE = b" \t\r\n"
_KEY = re.compile(r'[ \t\r\n]*("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_OBJECTS = re.compile(r"\[[ \t\r\n]*\{")
_NEXT = re.compile(r"[ \t\r\n]*,")


def shape(data: bytes, *, whole: bool) -> Literal["lines", "document", "one"] | None:
    """``lines`` (one value a line), ``document`` (an array, or an object over several lines), ``one`` (a single line
    with an object around a table, which may be either), or None where the beginning doesn't tell. ``whole``: there is
    nothing after ``data``.
    """
    text = data.removeprefix(BOM).lstrip(_SPACE)
    if text[:1] not in (b"{", b"["):
        return None
    first, *more = (line for line in text.split(b"\n", 8)[:8] if line.strip(_SPACE))
    value = _parsed(first) if b"\n" in text or whole else None
    if text[:1] == b"[":
        return "lines" if value is not None and more and _parsed(more[0]) is not None else "document"
    if value is not None:
        return "one" if not more and table_start(text.decode("latin-1")) is not None else "lines"
    if b"\n" not in text:  # one long line
        return "one" if table_start(text.decode("latin-1")) is not None else None
    if more and isinstance(_parsed(more[0]), dict):
        return "lines"  # the first line is broken, the second is a row
    return "document" if _opens_document(first, more) else None


def table_start(text: str) -> tuple[str, int] | None:
    """Key and position of the table in an object: just behind the ``[`` of its first array of objects that is no
    part of a row. None when the object is a row, or holds none within ``text`` (latin-1, so positions are bytes).
    """
    at = len(text) - len(text.lstrip(" \t\r\n")) + 1
    try:
        while found := _KEY.match(text, at):
            key = json.loads(found.group(1).encode("latin-1"))
            if key in ROW_COLUMNS:
                return None
            if _OBJECTS.match(text, found.end()):
                return key, found.end() + 1
            _, end = json.JSONDecoder().raw_decode(text, found.end())
            following = _NEXT.match(text, end)
            if not following:
                return None
            at = following.end()
    except (ValueError, RecursionError):  # broken, or cut off by the end of the head
        return None
    return None


def _opens_document(first: bytes, more: list[bytes]) -> bool:
    """A line that breaks off after a bracket, a comma or a colon, with a next line that isn't a row of its own."""
    return first.rstrip(_SPACE)[-1:] in (b"{", b"[", b",", b":") and bool(more)


def _parsed(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
