"""What a rule is. Built-in rules and anybody's rule pack are written against this module and ``lorads.facts`` alone."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts

Row = Mapping[str, Any]
"""The facts of one row, by name; a HIT is a mapping of its own or None."""


class Severity(StrEnum):
    """How bad: ``error`` the training breaks, is silently void or learns something certainly wrong; ``warning`` likely
    harm; ``info`` worth knowing."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"

    @property
    def rank(self) -> int:
        return ("info", "warning", "error").index(self.value)


FixKind = Literal["safe", "unsafe", "none"]


class Rule:
    """A named predicate over facts. One file, one rule; the docstring is the page that ``lorads explain`` shows.

    Subclass ``RowRule`` or ``DatasetRule``. The class attributes are data; ``message`` and ``hint`` are written for
    somebody who has never heard of label masks.
    """

    id: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity]
    fix: ClassVar[FixKind] = "none"
    evidence: ClassVar[tuple[str, ...]] = ()
    """Public threads or measurements, as ``owner/repository#number`` or a few words."""
    place: ClassVar[str | None] = None
    """The HIT column that says where in the row it is; None when it is the whole row."""

    @classmethod
    def page(cls) -> str:
        return inspect.getdoc(cls) or ""

    def when(self, facts: Facts) -> pl.Expr:
        """A boolean expression over the facts: true where the rule fails. Null counts as false."""
        raise TypeError(f"{type(self).__name__} has no when()")

    def severity_of(self, row: Row) -> Severity:
        """The severity for this row: may be lower than ``severity`` by a circumstance that the page states."""
        return self.severity

    def fix_of(self, row: Row) -> FixKind:
        """The kind of fix for this row, where it depends on the row."""
        return self.fix

    def message(self, row: Row) -> str:
        """What is wrong, naming the thing itself. Text from the data comes out through ``show``."""
        raise TypeError(f"{type(self).__name__} has no message()")

    def hint(self, row: Row) -> str:
        """What to do."""
        raise TypeError(f"{type(self).__name__} has no hint()")


class RowRule(Rule):
    """A rule that looks at one row.

    ``every_row``: the severity when the rule fails in every row it could fail in (``applies``), as for a template that
    never ends a turn.
    """

    every_row: ClassVar[Severity | None] = None

    def applies(self, facts: Facts) -> pl.Expr | None:
        """True for rows that could fail; None means all. Only used to know whether *every* row fails."""
        return None


class DatasetRule(Rule):
    """A rule that needs the whole file: rows that share ``key`` are compared by the engine.

    ``when`` says which rows take part, ``key`` is an unsigned 64-bit expression. The first row with a key (in file
    order) stays; each later one fails, with ``first_row`` and ``first_line`` added to what ``message`` is given.
    """

    def key(self, facts: Facts) -> pl.Expr:
        raise TypeError(f"{type(self).__name__} has no key()")


def show(text: str | None, limit: int = 60) -> str:
    """Text from the data made fit to stand in a message: one line, quoted, control and invisible characters visible.

    A message never carries raw control characters, so no terminal, page or annotation can be driven by a dataset.
    """
    if text is None:
        return "nothing"
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return '"' + escape(cut) + '"'


def escape(text: str) -> str:
    """Control, format and other unprintable characters as ``\\n``, ``\\x1b`` or ``\\u200b``; the rest as it is."""
    if text.isprintable():
        return text
    out = []
    for char in text:
        if char.isprintable():
            out.append(char)
        elif char in "\n\r\t":
            out.append({"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char])
        else:
            code = ord(char)
            out.append(f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}")
    return "".join(out)
