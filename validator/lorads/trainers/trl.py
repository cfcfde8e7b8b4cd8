"""TRL ``SFTTrainer`` 1.16.0 with transformers 5.23.0.

Reproduces ``trl/trainer/sft_trainer.py::SFTTrainer._prepare_dataset`` (L1228-1485): EOS is appended to texts and text
completions that do not end with it; texts are tokenized with the tokenizer's special tokens, conversations are rendered
and tokenized whole, without; a prompt and its completion are told apart by the common prefix of the prompt's ids and
the whole row's (``data_utils.py`` L406); truncation keeps the first (or last) ``max_length`` tokens; rows without any
label left are dropped in silence. Defaults are those of ``sft_config.py``: ``max_length`` 1024, everything trained in
texts and conversations, the completion alone where there is one.

``assistant_only_loss`` (``--train-on assistant``) needs a template with ``{% generation %}`` blocks; TRL swaps in a
training template of its own for some known templates, which this module does not do yet and refuses to guess.
Of packing (``packing_strategy`` ``bfd``) the consequences for each row are reproduced: rows over the maximum length are
cut, rows without a label stay, the first label of a row is masked. Which rows share a sequence is not.

Meant otherwise than TRL does, and said in the report (``notes``): ShareGPT role names are mapped to the usual ones and
Alpaca columns are made messages, as people do before they call TRL, which would render ``human`` by whatever the
template does with an unknown role, and knows no Alpaca columns. Where a file mixes dataset types, TRL reads every row
as the first one's; here each row is read as its own, and FMT002 says that they differ. Labels or masks of another
length than the ids are FMT002, not cut to the shorter. What ``datasets`` changes when it loads a JSON file (dates,
numbers, null keys) is not reproduced: the file is taken as it is written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.templates.render import PART_CONTENT, PART_NONE, SCAFFOLD, RenderFailure
from lorads.trainers.base import (
    LabelBatch,
    Place,
    Segments,
    TrainOptions,
    common_prefix,
    concatenate,
    kept_by_length,
    render_segments,
    segments_of,
    sum_by_row,
)

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Ids, Places, Tokenizer

DROPPED = "no label is left (TRL filters such rows without a word)"
OWN_TEMPLATE = RenderFailure("error", "the row brings its own chat_template, which lorads does not run")
NOTHING_GENERATED = RenderFailure(
    "error", "no token of the row is inside a {% generation %} block, at which TRL's assistant_only_loss stops the run"
)
NO_TEMPLATE = RenderFailure(
    "no-template", "the tokenizer has no chat template, and none was given with --chat-template"
)


@dataclass(frozen=True)
class Options:
    """Settings of ``SFTConfig`` that are TRL's own."""

    truncation_mode: Literal["keep_start", "keep_end"] = "keep_start"
    """Which end of an over-long row is kept."""


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
        "preference": "the chosen answers were judged as TRL's SFTTrainer would train on them",
    }

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> TrlLabeller:
        if options.packing and options.max_length is None:
            raise UsageError("TRL packs to a maximum length, and there is none", "give --max-length N")
        if options.train_on == "last":
            raise UsageError(
                "TRL cannot train on the last answer alone",
                "make the rows prompt-completion: everything before the last answer is the prompt",
            )
        if options.train_on == "assistant" and (template is None or not template.has_generation_markers):
            raise UsageError(
                "TRL's assistant_only_loss needs {% generation %} blocks in the chat template, and this one has none",
                "give a template with them by --chat-template FILE, or make the rows prompt-completion",
            )
        return TrlLabeller(tokenizer, template, options)


class TrlLabeller:
    notes: Sequence[str] = ()

    def __init__(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.options = options

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        tokenizer, options = self.tokenizer, self.options
        by_kind: dict[Kind, list[int]] = defaultdict(list)
        for i, conversation in enumerate(conversations):
            by_kind[conversation.kind].append(i)
        parts: list[tuple[list[int], LabelBatch]] = []
        for kind, indices in by_kind.items():
            chosen = [conversations[i] for i in indices] if len(by_kind) > 1 else conversations
            if kind is Kind.TEXT:
                batch = _texts(chosen, tokenizer)
            elif kind is Kind.PROMPT_COMPLETION:
                batch = _pairs(chosen, tokenizer, options)
            elif kind is Kind.TOKENIZED:
                batch = _tokenized(chosen, options)
            else:
                batch = _rendered(chosen, tokenizer, self.template, options, kind is Kind.PROMPT_COMPLETION_MESSAGES)
            parts.append((indices, batch))
        whole = concatenate(parts, len(conversations))
        _truncate(whole, options)
        return whole

    def reason(self, place: Place, trained: bool) -> str:
        if self.options.train_on == "assistant":
            if trained:
                return "TRL's assistant_only_loss trains what the template puts inside {% generation %} blocks"
            return "TRL's assistant_only_loss masks what is outside the template's {% generation %} blocks"
        if not trained:
            return "TRL masks the prompt of a row that has a prompt and a completion"
        if place is Place.EOS:
            return "TRL ends a text with EOS and trains it"
        if place in (Place.COMPLETION, Place.TEXT):
            return "TRL trains texts and completions whole"
        return "TRL trains every token of a conversation unless assistant_only_loss is set or the row has a prompt"


def _with_eos(text: str, eos: str | None) -> str:
    return text if eos is None or text.endswith(eos) else text + eos


def _texts(conversations: Sequence[Conversation], tokenizer: Tokenizer) -> LabelBatch:
    eos = tokenizer.special.eos
    bare = [conversation.text or "" for conversation in conversations]
    texts = [_with_eos(text, eos) for text in bare]
    ids = tokenizer.encode(texts, add_special_tokens=True)
    places = tokenizer.place(texts, ids, add_special_tokens=True)
    segments = _string_segments([bare], [0], texts, ids, places)
    return _batch(ids, np.ones(len(ids.flat), np.bool_), segments, texts, places)


def _pairs(conversations: Sequence[Conversation], tokenizer: Tokenizer, options: TrainOptions) -> LabelBatch:
    eos = tokenizer.special.eos
    prompts = [conversation.text or "" for conversation in conversations]
    completions = [conversation.completion or "" for conversation in conversations]
    texts = [prompt + _with_eos(completion, eos) for prompt, completion in zip(prompts, completions, strict=True)]
    ids = tokenizer.encode(texts, add_special_tokens=True)
    places = tokenizer.place(texts, ids, add_special_tokens=True)
    if options.train_on == "all":
        trained = np.ones(len(ids.flat), np.bool_)
    else:
        trained = _after(ids, common_prefix(tokenizer.encode(prompts, add_special_tokens=True), ids))
    segments = _string_segments([prompts, completions], [0, 1], texts, ids, places)
    return _batch(ids, trained, segments, texts, places)


def _rendered(
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    template: Template | None,
    options: TrainOptions,
    completion: bool,
) -> LabelBatch:
    if template is None:
        empty = _tokenized([Conversation(Kind.TOKENIZED, [], input_ids=[], labels=[]) for _ in conversations], options)
        empty.failures = dict.fromkeys(range(len(conversations)), NO_TEMPLATE)
        return empty
    render = template.render(list(conversations))
    ids = tokenizer.encode(render.texts)
    places = tokenizer.place(render.texts, ids)
    trained = np.ones(len(ids.flat), np.bool_)
    failures = dict(render.failures)
    if completion and options.train_on != "all":
        prompt = template.render(list(conversations), add_generation_prompt=True, prompt_only=True)
        failures |= {i: failure for i, failure in prompt.failures.items() if i not in failures}
        trained &= _after(ids, common_prefix(tokenizer.encode(prompt.texts), ids))
    for i, conversation in enumerate(conversations):
        if conversation.template_kwargs and "chat_template" in conversation.template_kwargs:
            failures[i] = OWN_TEMPLATE
    if options.train_on == "assistant":
        generated = _generated(ids, places, render.generation or {})
        for i in np.flatnonzero(sum_by_row(generated, ids.starts) == 0).tolist():
            failures.setdefault(i, NOTHING_GENERATED)
        trained &= generated
    batch = _batch(ids, trained, render_segments(render, places, ids), render.texts, places)
    batch.failures = failures
    batch.lost = render.lost
    return batch


def _labels(conversation: Conversation, options: TrainOptions) -> list[int]:
    """``sft_trainer.py`` L1404-1430: a ``labels`` column is used as it is; else a token is trained where every mask
    that counts is set: ``assistant_masks`` always, ``completion_mask`` with ``completion_only_loss`` alone."""
    if conversation.labels is not None:
        return conversation.labels
    masks = conversation.masks or {}
    counting = [mask for name, mask in masks.items() if name == "assistant_masks" or options.train_on == "completion"]
    return [token if all(bits) else -100 for token, *bits in zip(conversation.input_ids or (), *counting, strict=True)]


def _tokenized(conversations: Sequence[Conversation], options: TrainOptions) -> LabelBatch:
    from lorads.tokenizers import Ids

    counts = [len(conversation.input_ids or ()) for conversation in conversations]
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    total = int(starts[-1])
    flat = np.fromiter((token for c in conversations for token in c.input_ids or ()), np.int32, total)
    labels = np.fromiter((label for c in conversations for label in _labels(c, options)), np.int64, total)
    rows = np.arange(len(counts) + 1)
    segments = Segments(
        starts.copy(), np.zeros(len(counts), np.int32), np.full(len(counts), PART_CONTENT, np.int8), rows
    )
    batch = _batch(Ids(flat, starts), labels != -100, segments)
    batch.labels = labels
    return batch


def _batch(
    ids: Ids,
    trained: npt.NDArray[np.bool_],
    segments: Segments,
    texts: list[str] | None = None,
    places: Places | None = None,
) -> LabelBatch:
    every = np.ones(len(ids.flat), np.bool_)
    return LabelBatch(ids, trained, every, segments, texts=texts, placed=None if places is None else places.of)


def _after(ids: Ids, prefix: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    counts = np.diff(ids.starts)
    position = np.arange(len(ids.flat)) - np.repeat(ids.starts[:-1], counts)
    return np.asarray(position >= np.repeat(prefix, counts))


def _generated(ids: Ids, places: Places, generation: dict[int, list[tuple[int, int]]]) -> npt.NDArray[np.bool_]:
    """transformers' ``assistant_masks`` (``tokenization_utils_base.py`` L3189-3210), its treatment of a missing last
    token included: the mask then runs to the end of the row."""
    mask = np.zeros(len(ids.flat), np.bool_)
    for row, blocks in generation.items():
        first, stop = int(ids.starts[row]), int(ids.starts[row + 1])
        begin, end = places.of(row)
        for block_begin, block_end in blocks:
            start_token = _char_to_token(begin, end, block_begin)
            if start_token is None:
                break
            end_token = _char_to_token(begin, end, block_end - 1)
            mask[first + start_token : first + end_token + 1 if end_token else stop] = True
    return mask


def _char_to_token(begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64], char: int) -> int | None:
    index = int(np.searchsorted(end, char, side="right"))
    return index if index < len(end) and begin[index] <= char else None


def _string_segments(
    pieces: Sequence[list[str]], messages: Sequence[int], texts: list[str], ids: Ids, places: Places
) -> Segments:
    """Segments of rows that are strings in a row: an empty one (for BOS), each piece, and what was appended."""
    rows = len(texts)
    width = len(pieces) + 2
    lengths = np.zeros((rows, width), np.int64)
    for k, piece in enumerate(pieces):
        lengths[:, k + 1] = np.fromiter(map(len, piece), np.int64, rows)
    lengths[:, -1] = np.fromiter(map(len, texts), np.int64, rows) - lengths.sum(axis=1)
    message = np.tile(np.array([SCAFFOLD, *messages, SCAFFOLD], np.int32), rows)
    part = np.tile(np.array([PART_NONE, *[PART_CONTENT] * len(pieces), PART_NONE], np.int8), rows)
    return segments_of(places, ids, lengths.ravel(), message, part, np.arange(rows + 1) * width)


def _truncate(batch: LabelBatch, options: TrainOptions) -> None:
    """``sft_trainer.py`` L1433-1474: cut to the maximum length, then drop rows without a label (label[0] counts).

    Packing (``bfd``) cuts at the end, drops nothing, and the collator masks the first label of every row (L214).
    """
    if options.max_length is None:
        return
    if options.packing:
        batch.kept = kept_by_length(batch.ids, options.max_length, "keep_start")
        batch.trained = batch.trained.copy()
        batch.trained[batch.ids.starts[:-1][np.diff(batch.ids.starts) > 0]] = False
        return
    batch.kept = kept_by_length(batch.ids, options.max_length, options.own.truncation_mode)
    left = sum_by_row(batch.trained & batch.kept, batch.ids.starts)
    for row in np.flatnonzero(left == 0).tolist():
        if row not in batch.failures:
            batch.dropped[row] = DROPPED


TRAINERS = (Trl(),)
