"""A batch on its way to facts, and what facts need to know besides."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lorads.facts.roles import RoleSupport
from lorads.facts.schema import polars_schema
from lorads.facts.text import Scanner
from lorads.formats import Conversation, Kind, Misfit

if TYPE_CHECKING:
    import polars as pl

    from lorads.sources import Records
    from lorads.tokenizers import Tokenizer
    from lorads.trainers import LabelBatch

CONVERSATIONAL = (Kind.MESSAGES, Kind.PROMPT_COMPLETION_MESSAGES)
"""Kinds that the chat template renders."""


@dataclass(slots=True)
class FactContext:
    """What facts need to know besides the batch: the same for every batch of a run."""

    tokenizer: Tokenizer
    scanner: Scanner
    roles: RoleSupport
    max_length: int | None
    control: npt.NDArray[np.bool_] = field(init=False)
    """One flag an id: control tokens that are not benign (thinking, tools, images, fill-in-the-middle)."""
    ends: npt.NDArray[np.bool_] = field(init=False)
    """One flag an id: control tokens, and EOS whatever it is."""
    openers: npt.NDArray[np.bool_] = field(init=False)
    """One flag an id: BOS, EOS, padding (often the base model's EOS), and control tokens of the chat template."""
    bos_is_marker: bool = field(init=False)
    """BOS also ends or opens turns (GPT-2, SmolLM2), so that it may stand anywhere."""

    _constants: dict[tuple[str, ...], list[pl.Expr]] = field(default_factory=dict)

    def constants(self, names: tuple[str, ...]) -> list[pl.Expr]:
        """Columns that are the same in every row: the model's and the trainer's limits, null for all others."""
        import polars as pl

        if names not in self._constants:
            known = {"embedding_rows": self.tokenizer.embedding_rows, "max_length": self.max_length}
            schema = polars_schema()
            self._constants[names] = [pl.lit(known.get(name), dtype=schema[name]).alias(name) for name in names]
        return self._constants[names]

    def __post_init__(self) -> None:
        tokenizer = self.tokenizer
        special = tokenizer.special
        size = tokenizer.vocab_size
        # one flag more than there are ids: an id beyond the vocabulary is clipped to it, and is nothing
        self.control = np.zeros(size + 1, np.bool_)
        self.control[[i for i in special.control - special.benign if i < size]] = True
        self.ends = self.control.copy()
        self.ends[[i for i in special.eos_ids if i < size]] = True
        self.openers = np.zeros(size + 1, np.bool_)
        template = tokenizer.chat_template or ""
        for token, i in special.added.items():
            if (
                i < size
                and self.control[i]
                and (i in special.eos_ids or i in (special.bos_id, special.eos_id, special.pad_id) or token in template)
            ):
                self.openers[i] = True
        bos = special.bos
        self.bos_is_marker = (
            special.bos_id in special.eos_ids
            or special.bos_id == special.eos_id
            or bool(bos and template.count(bos) > 1)
        )


@dataclass(slots=True)
class Batch:
    """One batch on its way: what was read, understood and labelled.

    ``conversations[i]`` belongs to the record at ``positions[i]`` of ``records.values``; ``misfits`` are the records
    that no format understood, by position.
    """

    records: Records
    conversations: list[Conversation]
    positions: list[int]
    misfits: dict[int, Misfit]
    labels: LabelBatch

    def index_of(self, position: int) -> int | None:
        """Which conversation the record at ``position`` became; None when none."""
        if len(self.positions) == len(self.records.values):
            return position
        i = bisect_left(self.positions, position)
        return i if i < len(self.positions) and self.positions[i] == position else None
