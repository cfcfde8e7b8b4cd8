"""A place in a text at which something was found."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Characters ``begin`` to ``end`` of one text, and what is to be said of them (the fields of a ``Hit``)."""

    begin: int
    end: int
    code: str
    text: str
    expected: str | None = None
    token_id: int | None = None
    detail: str | None = None
    weak: bool = False
    """Counts only when the row has another place of the same code."""
