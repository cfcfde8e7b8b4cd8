"""The two plain collators of transformers 5.23.0, over rows that are tokenized as people do it by hand.

``language-modeling`` is ``DataCollatorForLanguageModeling(tokenizer, mlm=False)`` (``data/data_collator.py`` L795 and
L889): labels are the ids, and every label that is the pad token's id is masked. Where pad is EOS, no EOS is
trained, and where pad is a token that stands in texts, that one is not. It overwrites labels that the rows bring (and
stops where rows of one batch bring labels of different lengths). ``seq2seq`` is ``DataCollatorForSeq2Seq(tokenizer)``
(L519-600): labels are padded with -100 and otherwise left as they are.

Rows become ids as in most scripts: a text by ``tokenizer(text)``, with what the tokenizer adds (BOS mostly, nothing
else: no EOS is appended), messages by ``apply_chat_template(messages, tokenize=True)``, a text prompt and what
completes it as one text. For ``seq2seq`` the labels of such rows are a copy of their ids. With a maximum length they
are cut by the tokenizer (``truncation=True``): what it adds at the ends stays, its ``truncation_side`` says which end
goes. Rows with ``input_ids`` are fed as they are, uncut. No row is dropped.

A tokenizer without a pad token gets EOS as pad, as most scripts set it (``pad_token`` says otherwise). Not reproduced:
a pad token that is added to the vocabulary first (refused), ``group_texts`` of the example scripts (``--packing`` is
refused), and labels that a script masks itself: bring such rows with ``input_ids`` and ``labels``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.templates.render import RenderFailure
from lorads.trainers import _whole
from lorads.trainers.base import LabelBatch, Place, Trainer, TrainOptions

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

NO_LABELS = RenderFailure(
    "stops", "the row has input_ids and no labels: DataCollatorForSeq2Seq gives the model none, and the run stops"
)


@dataclass(frozen=True)
class Options:
    """Which collator, and what the script sets before."""

    collator: Literal["language-modeling", "seq2seq"] = "language-modeling"
    """DataCollatorForLanguageModeling with mlm=False, or DataCollatorForSeq2Seq."""
    pad_token: str | None = None
    """The tokenizer's pad token as the script sets it; null: the one it has, else EOS."""


class Transformers:
    name = "transformers"
    version = "5.23"
    default_max_length: int | None = None
    Options = Options
    format_notes: Mapping[str, str] = {
        "prompt-completion": "the collators know no prompt: prompt and completion were taken as one text, all of it "
        "trained",
        "sharegpt": "ShareGPT's role names were mapped (human to user, gpt to assistant …) before the chat template",
        "alpaca": "the rows were made messages (user: instruction and input) before the chat template",
        "preference": "the chosen answers were taken with their prompts, all of it trained",
    }

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> TransformersLabeller:
        own: Options = options.own
        if options.train_on not in ("default", "all"):
            raise UsageError(
                "the collators of transformers mask no prompt",
                "bring rows with input_ids and labels (--trainer-option collator=seq2seq), or take another trainer",
            )
        if options.response_marker is not None or options.instruction_marker is not None:
            raise UsageError("the collators of transformers search for no markers", "leave the markers out")
        if options.packing:
            raise UsageError(
                "the collators of transformers do not pack",
                "leave out --packing, or bring the packed rows as input_ids",
            )
        if options.max_length is not None and tokenizer.added_around is None:
            raise UsageError(
                "what this tokenizer's post-processor adds is not known, so neither is what truncation keeps",
                "leave the maximum length out",
            )
        special = tokenizer.special
        pad = own.pad_token or special.pad or special.eos
        pad_id = None if pad is None else tokenizer.id_of(pad)
        if own.pad_token is not None and pad_id is None:
            raise UsageError(
                f'the pad_token "{pad}" is not in the vocabulary',
                "name a token that it has; one that a script adds is an id that no row holds",
            )
        notes = []
        if own.collator == "language-modeling" and pad is not None and pad == special.eos:
            without = "" if special.pad else "the tokenizer has no pad token, so EOS was taken as most scripts do; "
            notes.append(
                f"{without}pad and EOS are one token ({pad}): DataCollatorForLanguageModeling masks every EOS, and the "
                "model is not taught to stop"
            )
        if special.pad is None and special.eos is None and own.pad_token is None:
            notes.append("there is neither a pad token nor EOS: the collator stops at the first batch it has to pad")
        return TransformersLabeller(tokenizer, template, options, pad_id, tuple(notes))


class TransformersLabeller:
    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template | None,
        options: TrainOptions,
        pad_id: int | None,
        notes: tuple[str, ...],
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.options = options
        self.pad_id = pad_id
        self.notes: Sequence[str] = notes
        self.masks_pad = options.own.collator == "language-modeling" and pad_id is not None
        self.with_tools = _whole.tool_template(tokenizer, template)

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        key = _whole.kind_and_template(self.template, self.with_tools)
        batch = _whole.by_key(conversations, key, self._label)
        if self.masks_pad:
            batch.trained = batch.ids.flat != self.pad_id
        return batch

    def _label(self, key: tuple[Kind, Template | None], conversations: Sequence[Conversation]) -> LabelBatch:
        kind, template = key
        if kind is Kind.TOKENIZED:
            return self._tokenized(conversations)
        if kind is Kind.TEXT:
            batch = _whole.texts(conversations, self.tokenizer, None)
        elif kind is Kind.PROMPT_COMPLETION:
            batch = _whole.pairs(conversations, self.tokenizer, None, None)
        else:
            batch = _whole.conversations_of(conversations, self.tokenizer, template)
        self._cut(batch, special=kind in (Kind.TEXT, Kind.PROMPT_COMPLETION))
        return batch

    def _tokenized(self, conversations: Sequence[Conversation]) -> LabelBatch:
        if self.options.own.collator == "language-modeling":
            return _whole.tokenized(conversations, lambda conversation: conversation.input_ids or [])
        batch = _whole.tokenized(
            conversations,
            lambda row: row.labels if row.labels is not None else [-100] * len(row.input_ids or ()),
        )
        batch.failures = {i: NO_LABELS for i, row in enumerate(conversations) if row.labels is None}
        return batch

    def _cut(self, batch: LabelBatch, special: bool) -> None:
        around = (self.tokenizer.added_around or (0, 0)) if special else (0, 0)
        side: Literal["left", "right"] = "left" if self.tokenizer.truncation_side == "left" else "right"
        batch.kept = _whole.kept_by_tokenizer(batch.ids, self.options.max_length, around, side)

    def reason(self, place: Place, trained: bool) -> str:
        if self.options.own.collator == "seq2seq":
            return "DataCollatorForSeq2Seq takes the labels as they are; those of texts and messages are their ids"
        if trained:
            return "DataCollatorForLanguageModeling trains every token but those with the pad token's id"
        if place in (Place.EOS, Place.TURN_END):
            return "DataCollatorForLanguageModeling masks every token with the pad token's id: here pad is this token"
        return "DataCollatorForLanguageModeling masks every token with the pad token's id"


TRAINERS: tuple[Trainer, ...] = (Transformers(),)
