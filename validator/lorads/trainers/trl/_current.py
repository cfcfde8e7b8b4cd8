"""TRL 1.16.0: see the package's docstring."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.templates.render import RenderFailure
from lorads.trainers import _whole
from lorads.trainers.base import LabelBatch, Place, TrainOptions, common_prefix, kept_by_length, labels_fed
from lorads.trainers.trl._training_templates import names, training_template

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

DROPPED = "no label is left (TRL filters such rows without a word)"
EMPTY = "the row has no token (packing leaves it out)"
LAST_ONLY = UsageError(
    "TRL cannot train on the last answer alone",
    "make the rows prompt-completion: everything before the last answer is the prompt",
)
NOT_CONVERSATIONAL = RenderFailure(
    "stops", "the row is no conversation, and TRL's assistant_only_loss refuses a data set of such rows"
)


@dataclass(frozen=True)
class Options:
    """Settings of ``SFTConfig`` that are TRL's own."""

    truncation_mode: Literal["keep_start", "keep_end"] = "keep_start"
    """Which end of an over-long row is kept."""
    packing_strategy: Literal["bfd", "bfd_split", "wrapped"] = "bfd"
    """What packing does with rows: cut them to the maximum length, split them, or cut wherever a sequence is full."""
    padding_free: bool = False
    """The rows of a batch are one sequence: the first label of each row is masked."""
    completion_only_loss: bool | None = None
    """Train the completion alone; null: in rows that have a prompt and a completion."""
    eos_token: str | None = None
    """The token that ends texts, and the template's eos_token, instead of the tokenizer's."""


class Trl:
    name = "trl"
    version = "1.16"
    default_max_length: int | None = 1024
    Options = Options
    format_notes: Mapping[str, str] = {
        "sharegpt": "ShareGPT's role names were mapped (human to user, gpt to assistant …); TRL itself does not, so "
        "map them before you train",
        "alpaca": "TRL knows no Alpaca columns; the rows were made messages (user: instruction and input), so make "
        "them that before you train",
        "preference": "SFTTrainer takes no preference rows; the chosen answers were judged as it would train on them "
        "as completions (--trainer trl-dpo judges them as DPOTrainer does)",
    }

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> TrlLabeller:
        own: Options = options.own
        refuse_markers(options, "TRL")
        if own.padding_free and not options.packing and options.max_length is not None:
            raise UsageError(
                "TRL does not cut rows with padding_free, and refuses it together with a maximum length",
                "give --max-length none, or --packing",
            )
        refuse(options)
        template, eos = with_eos_token(tokenizer, template, own.eos_token)
        notes: tuple[str, ...] = ()
        with_tools = _whole.tool_template(tokenizer, template)
        if options.train_on == "assistant":
            template, swapped = generating_template(tokenizer, template)
            if swapped:
                with_tools = template
                notes = (
                    f"TRL knows this chat template ({swapped}) and renders with a training template of its own, "
                    "which has {% generation %} blocks",
                )
        return TrlLabeller(tokenizer, template, with_tools, options, eos, notes)


@dataclass(eq=False)
class Labeller:
    """What all versions have in common."""

    tokenizer: Tokenizer
    template: Template | None
    with_tools: Template | None
    options: TrainOptions
    eos: str | None
    notes: Sequence[str] = ()

    def _by_kind(
        self,
        conversations: Sequence[Conversation],
        label: Callable[[tuple[Kind, Template | None], Sequence[Conversation]], LabelBatch],
    ) -> LabelBatch:
        return _whole.by_key(conversations, _whole.kind_and_template(self.template, self.with_tools), label)

    def _completion_only(self, has_prompt: bool) -> bool:
        asked: bool | None = self.options.own.completion_only_loss
        if asked is not None:
            return asked
        return self.options.train_on == "completion" or (has_prompt and self.options.train_on != "all")

    def _counting(self, conversation: Conversation) -> list[list[int]]:
        """The masks of a row of ids that count: ``assistant_masks`` always, others with ``completion_only_loss``."""
        record = conversation.record or {}
        only = self._completion_only("prompt" in record and "completion" in record)
        return [mask for name, mask in (conversation.masks or {}).items() if name == "assistant_masks" or only]

    def _built(
        self,
        kind: Kind,
        template: Template | None,
        conversations: Sequence[Conversation],
        boundary: _whole.Boundary,
        labels: Callable[[Conversation], Sequence[int]],
    ) -> LabelBatch:
        """Rows of one kind, from 0.24 on: ``boundary`` where a completion counts alone, ``labels`` of rows of ids."""
        assistant = self.options.train_on == "assistant"
        # sft_trainer.py L955-958: without a completion there is no mask, whatever is set
        completed = kind in (Kind.PROMPT_COMPLETION, Kind.PROMPT_COMPLETION_MESSAGES)
        only = boundary if completed and self._completion_only(True) else None
        if kind in (Kind.MESSAGES, Kind.PROMPT_COMPLETION_MESSAGES):
            return _whole.conversations_of(conversations, self.tokenizer, template, only, assistant)
        if kind is Kind.TEXT:
            batch = _whole.texts(conversations, self.tokenizer, self.eos)
        elif kind is Kind.PROMPT_COMPLETION:
            batch = _whole.pairs(conversations, self.tokenizer, self.eos, only)
        else:
            batch = _whole.tokenized(conversations, labels)
        return _whole.refuse_all(batch, NOT_CONVERSATIONAL) if assistant else batch


class TrlLabeller(Labeller):
    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        batch = self._by_kind(conversations, self._label)
        self._finish(batch)
        return batch

    def _label(self, key: tuple[Kind, Template | None], conversations: Sequence[Conversation]) -> LabelBatch:
        return self._built(*key, conversations, common_prefix, self._labels)

    def _labels(self, conversation: Conversation) -> Sequence[int]:
        """``sft_trainer.py`` L1404-1430: a ``labels`` column is used as it is; else a token is trained where every mask
        that counts is set."""
        if conversation.labels is not None:
            return conversation.labels
        return _whole.masked(conversation.input_ids or (), self._counting(conversation))

    def _finish(self, batch: LabelBatch) -> None:
        """``sft_trainer.py`` L1433-1480: cut to the maximum length, then drop rows without a label (label[0] counts).

        Packing drops nothing but empty rows. Where positions start again with each row or piece of one (``bfd``,
        ``bfd_split``, ``padding_free``), the collator masks the first label of each (L214).
        """
        options = self.options
        own: Options = options.own
        if options.max_length is None:
            if own.padding_free:
                _whole.mask_first(batch)
            return
        if not options.packing:
            batch.kept = kept_by_length(batch.ids, options.max_length, own.truncation_mode)
            left = labels_fed(batch)
            for row in np.flatnonzero(left == 0).tolist():
                if row not in batch.failures:
                    batch.dropped[row] = DROPPED
            return
        _whole.drop_empty(batch, EMPTY)
        if own.packing_strategy == "bfd":
            batch.kept = kept_by_length(batch.ids, options.max_length, "keep_start")
            _whole.mask_first(batch)
        elif own.packing_strategy == "bfd_split":
            _whole.mask_first(batch, every=options.max_length)

    def reason(self, place: Place, trained: bool) -> str:
        options = self.options
        own: Options = options.own
        if options.train_on == "assistant":
            if trained:
                return "TRL's assistant_only_loss trains what the template puts inside {% generation %} blocks"
            return "TRL's assistant_only_loss masks what is outside the template's {% generation %} blocks"
        if not trained:
            if (options.packing and own.packing_strategy != "wrapped") or own.padding_free:
                return "TRL masks the prompt of a row that has a completion, and the first label of every packed row"
            return "TRL masks the prompt of a row that has a prompt and a completion"
        if place is Place.EOS:
            return "TRL ends a text with EOS and trains it"
        if place in (Place.COMPLETION, Place.TEXT):
            return "TRL trains texts and completions whole"
        return "TRL trains every token of a conversation unless assistant_only_loss is set or the row has a prompt"


def refuse_markers(options: TrainOptions, who: str) -> None:
    if options.response_marker is not None or options.instruction_marker is not None:
        raise UsageError(
            f"{who} searches for no markers",
            "its DataCollatorForCompletionOnlyLM did, up to 0.19: --trainer trl@0.17",
        )


def refuse(options: TrainOptions) -> None:
    if options.packing and options.max_length is None:
        raise UsageError("TRL packs to a maximum length, and there is none", "give --max-length N")
    if options.train_on == "last":
        raise LAST_ONLY


def with_eos_token(
    tokenizer: Tokenizer, template: Template | None, asked: str | None
) -> tuple[Template | None, str | None]:
    """The template, and EOS, with the ``eos_token`` asked for, which must be in the vocabulary."""
    if asked is None:
        return template, tokenizer.special.eos
    if tokenizer.id_of(asked) is None:
        raise UsageError(
            f'the eos_token "{asked}" is not in the vocabulary, at which TRL stops', "name a token that the model has"
        )
    if template is not None:
        template = template.with_source(tokenizer.chat_template or "", eos_token=asked)
    return template, asked


def generating_template(tokenizer: Tokenizer, template: Template | None) -> tuple[Template | None, str]:
    """The template that ``assistant_only_loss`` renders with, and TRL's name for it where TRL puts in its own."""
    if template is None or template.has_generation_markers:
        return template, ""
    found = training_template(tokenizer.chat_template or "")
    if found is None:
        raise UsageError(
            "TRL's assistant_only_loss needs {% generation %} blocks in the chat template; this one has none, and is "
            "none of those that TRL has a training template for",
            "give a template with them by --chat-template FILE, or make the rows prompt-completion; TRL knows: "
            + ", ".join(names()),
        )
    source, name = found
    return template.with_source(source), name
