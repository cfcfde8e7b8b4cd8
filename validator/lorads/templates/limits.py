"""How much a chat template may do: templates come from strangers."""

from __future__ import annotations

from dataclasses import dataclass

MAX_SOURCE_BYTES = 1_000_000
"""A chat template larger than this (UTF-8) is refused: the largest published ones are below 60 kB."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one render of one conversation.

    ``steps`` counts loop rounds, calls of functions, methods and macros, and allocations by their size: the same
    conversation takes the same number on every machine. ``seconds`` is a second line, for steps that are slow.
    """

    output_chars: int = 16 * 1024 * 1024
    """Characters of the render, and of any string or list the template builds on the way."""
    steps: int = 2_000_000
    seconds: float = 20.0


class LimitError(Exception):
    """A template went over one of its limits; the message says which."""


class RaisedError(Exception):
    """The template called ``raise_exception``; the message is its own."""


class BrokenError(Exception):
    """The template can't render this conversation: an undefined name, a wrong type, a refused attribute."""

    def __init__(self, message: str) -> None:
        # the frozen containers that templates are given go by the names of what they stand for
        for name, shown in (("lorads.templates.values.", ""), ("FrozenDict", "dict"), ("FrozenList", "list")):
            message = message.replace(name, shown)
        super().__init__(message)
