"""A finding: one rule failing at one place."""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass

from lorads.findings.rule import FixKind, Severity


@dataclass(slots=True, frozen=True)
class Token:
    """A token as a report shows it: its text (escaped), its id and what the trainer does with it."""

    text: str
    id: int
    role: str
    """``trained``, ``masked``, ``special`` (a control token; trained or not as ``trained`` says) or ``cut``."""
    trained: bool
    highlight: bool = False
    place: str = ""
    """What it is in the row (``lorads.trainers.Place``), where somebody asked."""
    reason: str = ""
    """Why the trainer does with it what it does, where somebody asked."""


@dataclass(slots=True)
class Finding:
    """One rule failing at one place. ``row`` and ``line`` are None for the whole file, the tokenizer or the config."""

    rule: str
    name: str
    severity: Severity
    path: str
    row: int | None
    line: int | None
    message: str
    hint: str
    fix: FixKind = "none"
    message_index: int | None = None
    field: str | None = None
    chars: tuple[int, int] | None = None
    """First and one-past-last character in the message's field."""
    tokens: tuple[int, int] | None = None
    """First and one-past-last token in the row's input_ids before truncation."""
    excerpt: list[Token] = dataclasses.field(default_factory=list)
    """The tokens around the place, for reports that show them; only with the first findings of each rule."""
    digest: str = ""
    """Hash of the row's content: what keeps a fingerprint the same when rows move."""

    @property
    def fingerprint(self) -> str:
        """Stable under reordering and appending: rule, content and place in the row, not its number."""
        place = f"{self.rule}|{self.digest or self.message}|{self.message_index}|{self.field}|{self.chars}"
        return hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:32]


@dataclass(slots=True)
class RowView:
    """One row, token by token, as ``lorads view`` shows it."""

    path: str
    row: int
    line: int | None
    tokens: list[Token]
    dropped: str | None
    max_length: int | None
    tokenizer: str
    trainer: str
    notes: list[str] = dataclasses.field(default_factory=list)
    """What was guessed to label it."""


@dataclass(slots=True, frozen=True)
class Stretch:
    """Tokens ``left[0]:left[1]`` of one view and ``right[0]:right[1]`` of the other: the same ids, or, where one of the
    two is empty or the ids differ, what stands in their place."""

    left: tuple[int, int]
    right: tuple[int, int]
    same: bool


@dataclass(slots=True)
class Comparison:
    """One row as two trainers see it."""

    left: RowView
    right: RowView
    stretches: list[Stretch]
