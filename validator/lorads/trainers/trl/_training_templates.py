"""The training templates that TRL 1.16.0 renders with instead of templates it knows, as edits of those templates."""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("training_templates.toml")


@cache
def _known() -> dict[str, Any]:
    return tomllib.loads(DATA.read_text(encoding="utf-8"))


def names() -> list[str]:
    """What TRL calls the templates that it has a training template for."""
    return sorted(entry["name"] for entry in _known().values())


def training_template(source: str) -> tuple[str, str] | None:
    """The training template for ``source``, and TRL's name for it; None where TRL has none.

    The template has to be the known one to the last character, as TRL compares the texts themselves.
    """
    entry = _known().get(hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest())
    if entry is None:
        return None
    pieces: list[str] = []
    position = 0
    for begin, end, *replacement in entry["edits"]:
        pieces.append(source[position:begin])
        pieces += [part if isinstance(part, str) else source[part[0] : part[1]] for part in replacement]
        position = end
    pieces.append(source[position:])
    return "".join(pieces), entry["name"]
