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

    _below: int = field(init=False)
    _from: int = field(init=False)
    _constants: dict[str, pl.Series] = field(default_factory=dict)

    def constant(self, name: str, rows: int) -> pl.Series:
        """A column that is the same in every row: the model's and the trainer's limits, null for all others."""
        import polars as pl

        column = self._constants.get(name)
        if column is None or len(column) < rows:
            known = {"embedding_rows": self.tokenizer.embedding_rows, "max_length": self.max_length}
            one = pl.Series(name, [known.get(name)], dtype=polars_schema()[name])
            column = self._constants[name] = one.new_from_index(0, max(rows, 1 << 12))
        return column.head(rows)

    def places_of_ends(self, flat: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Where in a batch's ids such stand that ``ends`` flags."""
        possible = flat >= self._from
        if self._below >= 0:
            possible |= flat <= self._below
        at = np.flatnonzero(possible)
        return at[self.ends.take(flat[at], mode="clip")]

    def __post_init__(self) -> None:
        tokenizer = self.tokenizer
        special = tokenizer.special
        size = tokenizer.vocab_size
        # one flag more than there are ids: an id beyond the vocabulary is clipped to it, and is nothing
        self.control = np.zeros(size + 1, np.bool_)
        self.control[[i for i in special.control - special.benign if i < size]] = True
        self.ends = self.control.copy()
        self.ends[[i for i in special.eos_ids if i < size]] = True
        # Such ids stand at one end of the vocabulary, or at both: two comparisons tell nearly all others apart.
        ids = np.concatenate(([-1], np.flatnonzero(self.ends[:size]), [size]))
        gap = int(np.argmax(np.diff(ids)))
        self._below, self._from = int(ids[gap]), int(ids[gap + 1])
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
