"""axolotl as a trainer: which strategy a row takes, and what becomes of its length."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.templates.render import PART_CONTENT, RenderFailure
from lorads.tokenizers import Ids
from lorads.trainers.axolotl._chat import ChatTemplate
from lorads.trainers.axolotl._instruction import PROMPTERS, Completion, Instruction
from lorads.trainers.axolotl._options import Options
from lorads.trainers.base import LabelBatch, Place, Segments, TrainOptions, concatenate, kept_by_length, sum_by_row

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

SHORTEST = 2
"""``min_sample_len`` where none is set (``utils/data/utils.py`` L161, ``utils/trainer.py`` L152)."""
NO_LABEL = "no label is left (axolotl drops such rows when it packs samples)"


class _Strategy(Protocol):
    def label(self, conversations: Sequence[Conversation]) -> LabelBatch: ...


class Axolotl:
    name = "axolotl"
    version = "0.19"
    default_max_length: int | None = 512
    Options = Options
    format_notes: Mapping[str, str] = {
        "sharegpt": "axolotl reads such rows with field_messages: conversations and message_property_mappings (role: "
        "from, content: value), which were taken for set",
        "prompt-completion": "axolotl has no dataset type for prompt and completion: make the rows messages, or alpaca "
        "columns",
        "preference": "the chosen answers were judged as conversations; axolotl itself trains pairs with rl: dpo",
    }

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> AxolotlLabeller:
        own: Options = options.own if options.own is not None else Options()
        if options.max_length is None:
            raise UsageError("axolotl always has a sequence_len", "give --max-length N")
        if own.type not in ("", "chat_template", "completion", *PROMPTERS):
            raise UsageError(
                f'lorads does not reproduce axolotl\'s dataset type "{own.type}"',
                f"known: chat_template, completion, {', '.join(PROMPTERS)}",
            )
        if options.response_marker is not None or options.instruction_marker is not None:
            raise UsageError("axolotl searches for no markers", "it finds turns by its chat template: leave them out")
        if options.train_on == "last":
            raise UsageError(
                "axolotl cannot train on the last answer alone",
                "mark the turns to train, and name the mark with --trainer-option message_field_training=NAME",
            )
        if options.train_on == "all":
            own = replace(own, train_on_inputs=True)
        elif options.train_on in ("assistant", "completion") and own.train_on_inputs:
            raise UsageError(f"train_on_inputs is not --train-on {options.train_on}", "leave one of them out")
        elif options.train_on == "assistant":
            own = replace(own, roles_to_train=("assistant",))
        if own.type == "chat_template" and template is None:
            raise UsageError(
                "axolotl's chat_template type needs a chat template, and the tokenizer has none",
                "give one with --chat-template FILE",
            )
        return AxolotlLabeller(tokenizer, template, options.max_length, options.packing, own)


class AxolotlLabeller:
    def __init__(
        self, tokenizer: Tokenizer, template: Template | None, limit: int, packing: bool, options: Options
    ) -> None:
        self.tokenizer = tokenizer
        self._limit, self._packing, self._options = limit, packing, options
        self._shortest = options.min_sample_len or SHORTEST
        self._chat: ChatTemplate | None = None
        if template is not None and options.type in ("", "chat_template"):
            self._chat = ChatTemplate(tokenizer, template, tokenizer.chat_template or "", options)
        prompter = PROMPTERS.get(options.type, PROMPTERS["alpaca"])
        self._instruction = Instruction(tokenizer, prompter, limit, options.train_on_inputs)
        self._completion = Completion(tokenizer, limit, self._shortest)
        self.notes: tuple[str, ...] = tuple(self._chat.notes) if self._chat else ()

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        groups: dict[str, list[int]] = defaultdict(list)
        kinds = {(conversation.kind, conversation.alpaca is None) for conversation in conversations}
        if len(kinds) == 1:
            groups[self._type_of(conversations[0])] = list(range(len(conversations)))
        else:
            for row, conversation in enumerate(conversations):
                groups[self._type_of(conversation)].append(row)
        parts: list[tuple[list[int], LabelBatch]] = []
        for kind, rows in groups.items():
            chosen = [conversations[row] for row in rows] if len(groups) > 1 else conversations
            parts.append((rows, self._label_as(kind, chosen)))
        whole = concatenate(parts, len(conversations))
        self._limit_lengths(whole, groups.get("completion", []))
        return whole

    def _type_of(self, conversation: Conversation) -> str:
        """The strategy that takes the row; what else it is, is why it has none."""
        asked = self._options.type
        if conversation.kind is Kind.TOKENIZED:
            return "tokenized"
        if conversation.kind is Kind.PROMPT_COMPLETION:
            return "axolotl has no dataset type for prompt and completion"
        if conversation.kind is Kind.TEXT:
            return "completion" if asked in ("", "completion") else f"a text is no row of type {asked}"
        if asked == "completion":
            return "axolotl stops: there is no text in the row"
        if asked in PROMPTERS or (not asked and conversation.alpaca is not None):
            return "instruction"
        return "chat_template"

    def _label_as(self, kind: str, conversations: Sequence[Conversation]) -> LabelBatch:
        if kind == "tokenized":
            return _tokenized(conversations)
        strategies: dict[str, _Strategy | None] = {
            "chat_template": self._chat,
            "completion": self._completion,
            "instruction": self._instruction,
        }
        strategy = strategies.get(kind)
        if strategy is not None:
            return strategy.label(conversations)
        if kind == "chat_template":
            why = RenderFailure(
                "no-template", "the tokenizer has no chat template, and none was given with --chat-template"
            )
        else:
            why = RenderFailure("stops", kind)
        batch = _tokenized([Conversation(Kind.TOKENIZED, [], input_ids=[], labels=[]) for _ in conversations])
        batch.labels = None
        batch.failures = dict.fromkeys(range(len(conversations)), why)
        return batch

    def _limit_lengths(self, batch: LabelBatch, pieces: Sequence[int]) -> None:
        """``utils/data/utils.py::handle_long_seq_in_dataset``; ``pieces`` are rows that were cut already."""
        lengths = np.diff(batch.ids.starts)
        cut = np.zeros(len(lengths), np.bool_)
        left = lengths
        if pieces:
            cut[list(pieces)] = True
            left = np.where(cut, sum_by_row(batch.kept, batch.ids.starts), lengths)
        for row in np.flatnonzero(left < self._shortest).tolist():
            batch.dropped[row] = f"{_tokens(int(lengths[row]))}, fewer than {self._shortest}: axolotl drops such rows"
        strategy = self._options.excess_length_strategy
        for row in np.flatnonzero(~cut & (lengths > self._limit)).tolist():
            if strategy == "drop":
                batch.dropped[row] = (
                    f"{lengths[row]:,} tokens, more than sequence_len {self._limit:,}: axolotl drops such rows "
                    "(excess_length_strategy: drop)"
                )
            elif strategy == "raise":
                batch.failures.setdefault(
                    row,
                    RenderFailure(
                        "stops",
                        f"axolotl stops: {lengths[row]:,} tokens, more than sequence_len {self._limit:,} "
                        "(excess_length_strategy: raise)",
                    ),
                )
            else:
                keep = kept_by_length(Ids(batch.ids.flat, batch.ids.starts), self._limit, "keep_start")
                batch.kept &= keep
                break
        if self._packing:
            trained = sum_by_row(batch.trained & batch.kept, batch.ids.starts)
            for row in np.flatnonzero(trained == 0).tolist():
                batch.dropped.setdefault(row, NO_LABEL)
        for row in batch.failures:
            batch.dropped.pop(row, None)

    def reason(self, place: Place, trained: bool) -> str:
        return _reason(self._options, place, trained)


def _tokens(count: int) -> str:
    return "one token" if count == 1 else f"{count:,} tokens"


def _tokenized(conversations: Sequence[Conversation]) -> LabelBatch:
    """Rows with ids made by somebody else: as they are, if they bring a mask and labels."""
    counts = [len(conversation.input_ids or ()) for conversation in conversations]
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    total = int(starts[-1])
    flat = np.fromiter((token for c in conversations for token in c.input_ids or ()), np.int32, total)
    failures: dict[int, RenderFailure] = {}
    labels = np.full(total, -100, np.int64)
    for row, conversation in enumerate(conversations):
        record = conversation.record
        if conversation.labels is None or (record is not None and "attention_mask" not in record):
            failures[row] = RenderFailure(
                "stops", "axolotl takes ids only with an attention_mask and labels beside them"
            )
        else:
            labels[starts[row] : starts[row + 1]] = conversation.labels
    segments = Segments(
        starts.copy(),
        np.zeros(len(counts), np.int32),
        np.full(len(counts), PART_CONTENT, np.int8),
        np.arange(len(counts) + 1),
    )
    batch = LabelBatch(Ids(flat, starts), labels != -100, np.ones(total, np.bool_), segments, labels=labels)
    batch.failures = failures
    return batch


_ENDS = {
    "turn": "train_on_eos: turn trains the EOS or end-of-turn token within three tokens behind a trained turn",
    "all": "train_on_eos: all trains the EOS or end-of-turn token within three tokens behind every turn",
    "last": "train_on_eos: last trains only the last EOS or end-of-turn token behind a trained turn",
    "none": "train_on_eos: none trains no EOS or end-of-turn token",
}


def _reason(options: Options, place: Place, trained: bool) -> str:
    roles = ", ".join(options.roles_to_train) or "none"
    content = f"axolotl trains the content of turns whose role is in roles_to_train ({roles})"
    if options.train_on_inputs and place in (Place.SYSTEM, Place.USER, Place.TOOL, Place.ASSISTANT):
        return "train_on_inputs makes axolotl train every turn's content and an instruction row's prompt"
    match place:
        case Place.BOS:
            return "axolotl trains what the template or the tokenizer puts in front only in texts"
        case Place.EOS:
            return f"{_ENDS[options.train_on_eos]}; in instruction rows and texts it is trained"
        case Place.TURN_END:
            return _ENDS[options.train_on_eos]
        case Place.SYSTEM | Place.USER | Place.TOOL:
            return f"{content}; the prompt of an instruction row is trained only with train_on_inputs"
        case Place.ASSISTANT if trained:
            return content
        case Place.ASSISTANT:
            return f"{content}, but not turns that a training mark leaves out, nor a content that it finds empty"
        case Place.REASONING | Place.TOOL_CALL if trained:
            return (
                "axolotl finds a turn by a placeholder that has neither reasoning nor tool calls, so these belong to it"
            )
        case Place.REASONING | Place.TOOL_CALL:
            return f"{content}; this stands outside of what it takes for the turn, or the turn is not trained"
        case Place.HEADER:
            return "axolotl trains no header: its span is what differs when the turn's content is another"
        case Place.TOOLS:
            return "axolotl trains turns, and tool definitions are none"
        case Place.SCAFFOLD if trained:
            return "it lies inside a trained turn, between parts of it that a placeholder turn does not have"
        case Place.SCAFFOLD:
            return "axolotl trains nothing that the template writes around turns, but their ends"
        case Place.TEXT:
            return "axolotl's completion type trains the whole text"
        case Place.PROMPT | Place.COMPLETION:
            return "axolotl has no dataset type for prompt and completion"
