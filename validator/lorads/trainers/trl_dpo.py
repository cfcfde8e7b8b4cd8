"""TRL ``DPOTrainer`` 1.16.0 with transformers 5.23.0: preference rows, one of the two sequences of each.

Reproduces ``trl/trainer/dpo_trainer.py::DPOTrainer._prepare_dataset`` (L1036-1142) and ``DataCollatorForPreference``
(L86). A row gives two sequences: the prompt with the chosen and the prompt with the rejected answer; the setting
``answer`` says which of them is shown. There are no labels: what counts in the loss is the completion mask, given here
as labels. Without a ``prompt`` column the prompt is what both answers begin with (``data_utils.py::extract_prompt``,
L548), which for texts gives the space in front of the first difference to the answers. EOS is appended to answers that
are texts. The prompt ends where its ids alone part from those of either sequence (``common_prefix_length``, the shorter
of the two); rows whose prompt fills the maximum length are dropped (L1137), and the collator cuts each sequence to it.

``assistant_only_loss`` and packing are not DPO's and refused. Rows that are no preference rows, and ShareGPT's
``conversations`` with ``chosen`` and ``rejected`` turns, which TRL does not read, are failures; so are rows whose
columns are called otherwise than ``prompt``, ``chosen`` and ``rejected``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind, Misfit
from lorads.formats.messages import read_tools
from lorads.formats.prompt_completion import pair
from lorads.templates.render import RenderFailure
from lorads.trainers import _whole
from lorads.trainers.base import LabelBatch, Place, Trainer, TrainOptions, common_prefix, kept_by_length

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Ids, Tokenizer

_Pair = tuple[Conversation, Conversation]

PROMPT_FILLS = "the prompt alone fills the maximum length (TRL drops such rows without a word)"
NO_PAIR = RenderFailure("stops", 'the row has no "chosen" and "rejected" of one kind, at which DPOTrainer stops')
NOTHING_SHARED = RenderFailure("stops", "an answer is empty and there is no prompt column, at which DPOTrainer stops")


@dataclass(frozen=True)
class Options:
    """Settings of ``DPOConfig``, and which sequence of a row is looked at."""

    answer: Literal["chosen", "rejected"] = "chosen"
    """Which of a row's two sequences: the one with the chosen or with the rejected answer."""
    truncation_mode: Literal["keep_start", "keep_end"] = "keep_start"
    """Which end of an over-long sequence is kept."""


class TrlDpo:
    name = "trl-dpo"
    version = "1.16"
    default_max_length: int | None = 1024
    Options = Options
    format_notes: Mapping[str, str] = {
        "preference": "each row gives two sequences; the one with the chosen answer was judged unless "
        "--trainer-option answer=rejected asks for the other"
    }

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> TrlDpoLabeller:
        if options.train_on not in ("default", "completion"):
            raise UsageError("DPO counts the answers, and nothing else", "leave out --train-on")
        if options.packing:
            raise UsageError("DPOTrainer does not pack", "leave out --packing")
        if options.response_marker is not None or options.instruction_marker is not None:
            raise UsageError("DPOTrainer searches for no markers", "leave the markers out")
        return TrlDpoLabeller(tokenizer, template, options)


class TrlDpoLabeller:
    notes: Sequence[str] = ()

    def __init__(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.with_tools = _whole.tool_template(tokenizer, template)
        self.options = options

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        """Each row is made two: a prompt with each of its answers."""
        failures: dict[int, RenderFailure] = {}
        pairs: list[_Pair] = []
        for row, conversation in enumerate(conversations):
            found = _answers(conversation.record or {})
            if isinstance(found, RenderFailure):
                failures[row] = found
                found = (Conversation(Kind.TEXT, [], text=""),) * 2
            pairs.append(found if self.options.own.answer == "chosen" else found[::-1])
        key = _whole.kind_and_template(self.template, self.with_tools)
        batch = _whole.by_key(pairs, lambda pair: key(pair[0]), self._label)
        batch.failures |= failures
        return batch

    def _label(self, key: tuple[Kind, Template | None], pairs: Sequence[_Pair]) -> LabelBatch:
        """The first of each two."""
        kind, template = key
        lengths: list[npt.NDArray[np.int64]] = []

        def boundary(prompt: Ids, whole: Ids) -> npt.NDArray[np.int64]:
            lengths.append(common_prefix(prompt, whole))
            return lengths[-1]

        def build(rows: Sequence[Conversation]) -> LabelBatch:
            if kind is Kind.PROMPT_COMPLETION:
                return _whole.pairs(rows, self.tokenizer, self.tokenizer.special.eos, boundary)
            return _whole.conversations_of(rows, self.tokenizer, template, boundary)

        shown, other = ([pair[n] for pair in pairs] for n in (0, 1))
        if kind is Kind.TEXT:  # failures
            return _whole.texts(shown, self.tokenizer, None)
        batch = build(shown)
        if not lengths:
            return batch
        batch.failures = {**build(other).failures, **batch.failures}
        length = np.minimum(*lengths)
        batch.trained = _whole.after(batch.ids, length)
        limit, mode = self.options.max_length, self.options.own.truncation_mode
        batch.kept = kept_by_length(batch.ids, limit, mode)
        if limit is not None and mode == "keep_start":
            for row in np.flatnonzero(length >= limit).tolist():
                if row not in batch.failures:
                    batch.dropped[row] = PROMPT_FILLS
        return batch

    def reason(self, place: Place, trained: bool) -> str:
        if trained:
            return "DPO counts the answer's tokens, from where prompt and answer part"
        return "DPO does not count the prompt's tokens"


def _answers(record: Mapping[str, Any]) -> _Pair | RenderFailure:
    """The prompt with the chosen, and with the rejected answer."""
    chosen: Any = record.get("chosen")
    rejected: Any = record.get("rejected")
    if type(chosen) is not type(rejected) or not isinstance(chosen, (str, list)):
        return NO_PAIR
    if "prompt" in record:
        prompt = record["prompt"]
        if type(prompt) is not type(chosen):
            return NO_PAIR
    else:
        at = _shared(chosen, rejected)
        if at is None:
            return NOTHING_SHARED
        prompt, chosen, rejected = chosen[:at], chosen[at:], rejected[at:]
    try:
        tools = read_tools(record.get("tools"))
        given = record.get("chat_template_kwargs") or None
        both = [pair(prompt, answer, "prompt", "chosen", False, tools, given) for answer in (chosen, rejected)]
    except Misfit as misfit:
        return RenderFailure("not-reproduced", str(misfit))
    return both[0], both[1]


def _shared(chosen: str | list[Any], rejected: str | list[Any]) -> int | None:
    """``extract_prompt``: where the answers part; where neither goes on differently, one before the shorter's end."""
    count = min(len(chosen), len(rejected))
    for at in range(count):
        if chosen[at] != rejected[at]:
            return at - 1 if chosen[at - 1] == " " else at
    return count - 1 if count else None


TRAINERS: tuple[Trainer, ...] = (TrlDpo(),)
