"""What a format module gives, and the columns it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from lorads.formats.conversation import Conversation, RowProblem

DEFAULT_COLUMNS: dict[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations", "conversation"),
    "instruction": ("instruction",),
    "input": ("input", "context"),
    "output": ("output", "response"),
    "history": ("history",),
    "system": ("system", "system_prompt"),
    "prompt": ("prompt", "question", "query"),
    "completion": ("completion", "response", "answer", "sql"),
    "text": ("text",),
    "chosen": ("chosen",),
    "rejected": ("rejected",),
    "tools": ("tools", "functions"),
    "input_ids": ("input_ids",),
    "labels": ("labels",),
}
"""For each part of a row, the column names that are tried in this order."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what. ``chosen`` overrides ``DEFAULT_COLUMNS`` part by part (``[tool.lorads.columns]``)."""

    chosen: Mapping[str, str] = field(default_factory=dict)
    _seen: dict[tuple[str, ...], dict[str, str]] = field(default_factory=dict, compare=False, repr=False)

    def names(self, part: str) -> tuple[str, ...]:
        if part in self.chosen:
            return (self.chosen[part],)
        return DEFAULT_COLUMNS[part]

    def of(self, record: Mapping[str, Any]) -> dict[str, str]:
        """The column that holds each part in this record, for the parts it has. Remembered by the record's keys, since
        a file repeats few sets of them."""
        keys = tuple(record)
        found = self._seen.get(keys)
        if found is None:
            found = {}
            for part in DEFAULT_COLUMNS:
                column = next((name for name in self.names(part) if name in record), None)
                if column is not None:
                    found[part] = column
            if len(self._seen) < 10_000:
                self._seen[keys] = found
        return found

    def find(self, record: Mapping[str, Any], part: str) -> str | None:
        """The name of the column that holds ``part`` in this record; None when it has none."""
        return self.of(record).get(part)

    def get(self, record: Mapping[str, Any], part: str) -> Any:
        name = self.of(record).get(part)
        return None if name is None else record[name]


class Format(Protocol):
    """One way of writing a training example. A module of this room has one instance called ``FORMAT``."""

    @property
    def name(self) -> str: ...

    @property
    def rank(self) -> int:
        """Formats are tried in ascending order: a row with ``chosen`` and ``messages`` is preference data, one with
        ``instruction``, ``output`` and a rendered ``text`` beside them is alpaca."""

    def evidence(self, record: Mapping[str, Any], columns: Columns) -> str | None:
        """In a few words why this record is of this format; None when it is not."""

    def normalise(self, record: Mapping[str, Any], columns: Columns) -> Conversation:
        """The conversation of a record. What is wrong with the row comes in ``Conversation.problems``; a record that
        does not fit the format raises ``Misfit``."""


@runtime_checkable
class BatchFormat(Format, Protocol):
    """A format that also takes its common case many rows at once."""

    def normalise_batch(self, records: Sequence[Any], columns: Columns) -> Sequence[Conversation | None]:
        """As ``normalise`` for each record; None in place of one that has to be looked at by itself."""


class Misfit(Exception):
    """The record does not fit the format. Becomes an FMT002 finding."""

    def __init__(self, code: str, message: str, hint: str, message_index: int | None = None, field: str | None = None):
        super().__init__(message)
        self.problem = RowProblem("FMT002", code, message, hint, message_index, field)


def type_name(value: Any) -> str:
    """A JSON value's type as a person calls it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true/false"
    names = {dict: "an object", list: "a list", str: "a text", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__)
