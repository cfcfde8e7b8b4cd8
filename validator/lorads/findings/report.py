"""What a run of ``check`` found: everything that a report format shows."""

from __future__ import annotations

from dataclasses import dataclass, field

from lorads.findings.finding import Finding
from lorads.findings.rule import Severity


@dataclass(slots=True)
class Input:
    """One file that was read."""

    path: str
    format: str
    evidence: str
    """What the format was told by."""
    rows: int = 0
    bad_lines: int = 0
    bytes: int = 0
    sha256: str = ""


@dataclass(slots=True)
class TokenizerInfo:
    name: str
    source: str
    sha256: str
    vocab_size: int
    chat_template_sha256: str | None
    engine: str = ""
    """What encoded: fastokens, kitoken or tokenizers. Told to people, not in the JSON, which must not depend on it."""


@dataclass(slots=True)
class TrainerInfo:
    name: str
    version: str
    max_length: int | None
    train_on: str


@dataclass(slots=True)
class Summary:
    """Exact counts, whatever ``max_findings`` lets through. Tokens are those that the trainer feeds."""

    rows: int = 0
    rows_kept: int = 0
    tokens: int = 0
    label_tokens: int = 0
    prompt_label_tokens: int = 0
    """Of these, tokens of questions, system and tool messages, tool definitions and prompts."""
    rows_dropped: int = 0
    """Rows that the trainer leaves out by itself."""
    rows_cut: int = 0
    """Rows that it shortens and keeps."""
    by_severity: dict[str, int] = field(default_factory=lambda: {severity.value: 0 for severity in Severity})
    by_rule: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    version: str
    inputs: list[Input]
    tokenizer: TokenizerInfo
    trainer: TrainerInfo
    summary: Summary
    findings: list[Finding]
    notes: list[str] = field(default_factory=list)
    """Things to know about the run that are no findings: an engine that was switched, disagreeing special tokens."""

    def fails(self, threshold: Severity | None) -> bool:
        """Whether anything at or over ``threshold`` was found; None for never."""
        if threshold is None:
            return False
        return any(count and Severity(name).rank >= threshold.rank for name, count in self.summary.by_severity.items())
