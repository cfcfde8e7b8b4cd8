"""What a run is asked to do."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lorads.findings import Severity
from lorads.trainers.base import TrainOn

UNSET: Literal["unset"] = "unset"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of ``check``, ``view`` and ``tokenize``; small and picklable, since every worker gets them."""

    tokenizer: str
    chat_template: str | None = None
    """A name, a file, ``none``, or None for the tokenizer's own."""
    revision: str | None = None
    load_as: Literal["transformers", "file"] = "transformers"
    trainer: str = "trl"
    """``NAME`` or ``NAME@VERSION``."""
    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    max_length: int | Literal["unset"] | None = UNSET
    """None for no limit; ``unset`` for the trainer's default."""
    train_on: TrainOn = "default"
    packing: bool = False
    response_marker: str | None = None
    instruction_marker: str | None = None
    trainer_options: Mapping[str, Any] = field(default_factory=dict)
    """The trainer's own settings by its own names; texts are read as what the setting is."""
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    severities: Mapping[str, Severity] = field(default_factory=dict)
    max_findings: int = 200
    workers: int | None = None
    """Processes; None for one a core. Small inputs are done in this process whatever it says."""
    block_bytes: int = 1 << 20
    encoder: Literal["auto", "tokenizers"] = "auto"
    plans: bool = True
    """Put renders together from pieces where the template allows it."""

    @property
    def processes(self) -> int:
        return self.workers or available_cores()


def available_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
