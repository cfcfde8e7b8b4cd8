"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from lorads import __version__
from lorads.findings import Severity

SCHEMA = 1

Verdict = Literal["same", "differs", "nothing-installed"]


@dataclass(frozen=True, slots=True)
class Trouble:
    """One thing that is not as the tokenizer's files say."""

    code: str
    """What kind of thing: ``text-lost``, ``bos-missing``, ``prompt-trained`` …"""
    rule: str
    """META001 for a pair of versions known to be broken, META002 for what was measured to differ."""
    severity: Severity
    title: str
    effect: str
    """What it does to a training."""
    advice: str
    """What to install or to do instead."""
    measured: bool = True
    """Whether it was seen in this environment, or follows from the versions alone."""
    example: tuple[tuple[str, str], ...] = ()
    """What it looks like: a name and a text each."""
    threads: tuple[str, ...] = ()
    """Public reports of it, as ``owner/repository#number``."""


@dataclass(slots=True)
class Diagnosis:
    """The whole answer of ``lorads doctor``."""

    tokenizer: dict[str, Any]
    files: list[str]
    """What the files say, one sentence each."""
    interpreter: str
    python: str | None = None
    packages: dict[str, str] = field(default_factory=dict)
    compared: list[str] = field(default_factory=list)
    """What was asked of the installed libraries."""
    same: list[str] = field(default_factory=list)
    """What is as it should be, one sentence each."""
    troubles: list[Trouble] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Worth knowing, and no fault of what is installed."""
    measured: dict[str, Any] = field(default_factory=dict)
    """Figures for scripts."""

    @property
    def wrong(self) -> list[Trouble]:
        """The troubles for which the exit code is 1: all but those that are merely worth knowing."""
        return [trouble for trouble in self.troubles if trouble.severity is not Severity.INFO]

    @property
    def verdict(self) -> Verdict:
        if self.wrong:
            return "differs"
        return "same" if self.compared else "nothing-installed"

    def as_dict(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "lorads": __version__,
            "verdict": self.verdict,
            "tokenizer": self.tokenizer,
            "files": self.files,
            "environment": {"interpreter": self.interpreter, "python": self.python, "packages": self.packages},
            "compared": self.compared,
            "same": self.same,
            "measured": self.measured,
            "findings": [
                {
                    "rule": trouble.rule,
                    "code": trouble.code,
                    "severity": trouble.severity.value,
                    "measured": trouble.measured,
                    "title": trouble.title,
                    "effect": trouble.effect,
                    "advice": trouble.advice,
                    "example": dict(trouble.example),
                    "threads": list(trouble.threads),
                }
                for trouble in self.troubles
            ],
            "notes": self.notes,
        }
