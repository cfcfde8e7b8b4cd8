"""Rows that are tokenized whole: texts, prompts with completions, rendered conversations, and ids somebody else made.

Libraries and their versions differ in where a completion begins (``Boundary``), in what happens to a row's masks, and
in what is done afterwards: those are arguments here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import numpy.typing as npt

from lorads.formats import Conversation, Kind
from lorads.templates.render import PART_CONTENT, PART_NONE, SCAFFOLD, RenderBatch, RenderFailure
from lorads.trainers.base import (
    LabelBatch,
    LazySegments,
    Segments,
    concatenate,
    render_segments,
    segments_of,
    sum_by_row,
)

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Ids, Places, Tokenizer

K = TypeVar("K")
Flags = npt.NDArray[np.bool_]
Boundary = Callable[["Ids", "Ids"], npt.NDArray[np.int64]]
"""From the ids of the prompts alone and of the whole rows: how many ids of each row are prompt."""

OWN_TEMPLATE = RenderFailure("not-reproduced", "the row brings its own chat_template, which lorads does not run")
NOTHING_GENERATED = RenderFailure(
    "stops", "no token of the row is inside a {% generation %} block, at which TRL's assistant_only_loss stops the run"
)
NOT_CONVERSATIONAL = RenderFailure(
    "stops", "the row is no conversation, and TRL's assistant_only_loss refuses a data set of such rows"
)
NO_TEMPLATE = RenderFailure(
    "no-template", "the tokenizer has no chat template, and none was given with --chat-template"
)


def has_tools(conversation: Conversation) -> bool:
    """Whether transformers is given a list of tools, be it an empty one."""
    record = conversation.record
    return conversation.tools is not None or (record is not None and record.get("tools") in ([], "[]"))


def prompt_length(prompt: Ids, whole: Ids) -> npt.NDArray[np.int64]:
    """Up to TRL 0.27: as many ids as the prompt has alone, whether they are the row's first ones or not."""
    return np.minimum(np.diff(prompt.starts), np.diff(whole.starts))


def tool_template(tokenizer: Tokenizer, template: Template | None) -> Template | None:
    """The template for rows with tools: where the tokenizer's templates have names and none was chosen, transformers
    takes the one called ``tool_use`` for them (``tokenization_utils_base.py::get_chat_template``)."""
    named = tokenizer.chat_templates
    if template is None or "tool_use" not in named or named.get("default") != tokenizer.chat_template:
        return template
    return template.with_source(named["tool_use"])


def with_eos(text: str, eos: str | None) -> str:
    return text if eos is None or text.endswith(eos) else text + eos


def by_key(
    conversations: Sequence[Conversation],
    key: Callable[[Conversation], K],
    label: Callable[[K, Sequence[Conversation]], LabelBatch],
) -> LabelBatch:
    """Label the rows of each key together."""
    groups: dict[K, list[int]] = defaultdict(list)
    for i, conversation in enumerate(conversations):
        groups[key(conversation)].append(i)
    parts: list[tuple[list[int], LabelBatch]] = []
    for found, indices in groups.items():
        chosen = [conversations[i] for i in indices] if len(groups) > 1 else conversations
        parts.append((indices, label(found, chosen)))
    return concatenate(parts, len(conversations))


def texts(conversations: Sequence[Conversation], tokenizer: Tokenizer, eos: str | None) -> LabelBatch:
    bare = [conversation.text or "" for conversation in conversations]
    whole = [with_eos(text, eos) for text in bare]
    ids = tokenizer.encode(whole, add_special_tokens=True)
    places = tokenizer.place(whole, ids, add_special_tokens=True)
    segments = string_segments([bare], [0], whole, ids, places)
    return batch_of(ids, np.ones(len(ids.flat), np.bool_), segments, whole, places)


def pairs(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, eos: str | None, boundary: Boundary | None
) -> LabelBatch:
    """Prompts with completions as texts; without a ``boundary`` everything is trained."""
    prompts = [conversation.text or "" for conversation in conversations]
    completions = [conversation.completion or "" for conversation in conversations]
    whole = [prompt + with_eos(completion, eos) for prompt, completion in zip(prompts, completions, strict=True)]
    ids = tokenizer.encode(whole, add_special_tokens=True)
    places = tokenizer.place(whole, ids, add_special_tokens=True)
    trained = np.ones(len(ids.flat), np.bool_)
    if boundary is not None:
        trained = after(ids, boundary(tokenizer.encode(prompts, add_special_tokens=True), ids))
    segments = string_segments([prompts, completions], [0, 1], whole, ids, places)
    return batch_of(ids, trained, segments, whole, places)


def conversations_of(
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    template: Template | None,
    boundary: Boundary | None,
    assistant_only: bool,
) -> LabelBatch:
    """Conversations as the template renders them; ``boundary`` is for those that have a prompt and a completion."""
    if template is None:
        return unrendered(len(conversations))
    render = template.render(list(conversations))
    ids = tokenizer.encode(render.texts)
    places = tokenizer.place(render.texts, ids)
    trained = np.ones(len(ids.flat), np.bool_)
    failures = dict(render.failures)
    if boundary is not None:
        prompt = template.render(list(conversations), add_generation_prompt=True, prompt_only=True)
        failures |= {i: failure for i, failure in prompt.failures.items() if i not in failures}
        trained &= after(ids, boundary(tokenizer.encode(prompt.texts), ids))
    for i, conversation in enumerate(conversations):
        if conversation.template_kwargs and "chat_template" in conversation.template_kwargs:
            failures[i] = OWN_TEMPLATE
    if assistant_only:
        generated = generated_tokens(ids, places, render.generation or {})
        for i in np.flatnonzero(sum_by_row(generated, ids.starts) == 0).tolist():
            failures.setdefault(i, NOTHING_GENERATED)
        trained &= generated
    return rendered_batch(render, ids, places, trained, failures)


def rendered_batch(
    render: RenderBatch, ids: Ids, places: Places, trained: Flags, failures: dict[int, RenderFailure]
) -> LabelBatch:
    batch = batch_of(ids, trained, render_segments(render, places, ids), render.texts, places)
    batch.failures = failures
    batch.lost = render.lost
    return batch


def unrendered(count: int) -> LabelBatch:
    """Rows that would have to be rendered, where there is no template."""
    empty = tokenized([Conversation(Kind.TOKENIZED, [], input_ids=[]) for _ in range(count)], lambda _: [])
    empty.failures = dict.fromkeys(range(count), NO_TEMPLATE)
    return empty


def tokenized(conversations: Sequence[Conversation], labels_of: Callable[[Conversation], list[int]]) -> LabelBatch:
    """Rows that came as ids. ``labels_of`` gives as many labels as the row has ids."""
    from lorads.tokenizers import Ids

    counts = [len(conversation.input_ids or ()) for conversation in conversations]
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    total = int(starts[-1])
    flat = np.fromiter((token for c in conversations for token in c.input_ids or ()), np.int32, total)
    labels = np.fromiter((label for c in conversations for label in labels_of(c)), np.int64, total)
    rows = np.arange(len(counts) + 1)
    segments = Segments(
        starts.copy(), np.zeros(len(counts), np.int32), np.full(len(counts), PART_CONTENT, np.int8), rows
    )
    batch = batch_of(Ids(flat, starts), labels != -100, segments)
    batch.labels = labels
    return batch


def masked(ids: Sequence[int], masks: Sequence[Sequence[int]]) -> list[int]:
    """A label is the id where every mask is set."""
    return [token if all(bits) else -100 for token, *bits in zip(ids, *masks, strict=True)]


def batch_of(
    ids: Ids, trained: Flags, segments: Segments, whole: list[str] | None = None, places: Places | None = None
) -> LabelBatch:
    every = np.ones(len(ids.flat), np.bool_)
    return LabelBatch(ids, trained, every, segments, texts=whole, placed=None if places is None else places.of)


def positions(starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The place of each token in its row, shape (tokens,)."""
    return np.asarray(np.arange(int(starts[-1])) - np.repeat(starts[:-1], np.diff(starts)))


def after(ids: Ids, prefix: npt.NDArray[np.int64]) -> Flags:
    """The tokens behind the first ``prefix`` of each row."""
    return np.asarray(positions(ids.starts) >= np.repeat(prefix, np.diff(ids.starts)))


def generated_tokens(ids: Ids, places: Places, generation: dict[int, list[tuple[int, int]]]) -> Flags:
    """transformers' ``assistant_masks`` (``tokenization_utils_base.py`` L3189-3210), its treatment of a missing last
    token included: the mask then runs to the end of the row, as it does where that is the row's first token."""
    mask = np.zeros(len(ids.flat), np.bool_)
    blocks = [(row, begin, end) for row, spans in generation.items() for begin, end in spans]
    if not blocks:
        return mask
    row, begin, end = np.array(blocks, np.int64).T
    found = places.tokens_at(np.concatenate([row, row]), np.concatenate([begin, end - 1]))
    first, last = found[: len(row)], found[len(row) :]
    missing = np.flatnonzero(first < 0)
    if len(missing):  # at a block without a first token the rest of its row is left
        gone = np.full(len(ids.starts), len(row))
        np.minimum.at(gone, row[missing], missing)
        left = np.arange(len(row)) < gone[row]
        row, first, last = row[left], first[left], last[left]
    stop = np.where(last > ids.starts[row], last + 1, ids.starts[row + 1])
    some = stop > first
    change = np.zeros(len(mask) + 1, np.int64)
    np.add.at(change, first[some], 1)
    np.add.at(change, stop[some], -1)
    return np.asarray(np.cumsum(change[:-1]) > 0)


def string_segments(
    pieces: Sequence[list[str]], messages: Sequence[int], whole: list[str], ids: Ids, places: Places
) -> Segments:
    """Segments of rows that are strings in a row: an empty one (for BOS), each piece, and what was appended."""
    rows = len(whole)
    width = len(pieces) + 2

    def make() -> Segments:
        lengths = np.zeros((rows, width), np.int64)
        for k, piece in enumerate(pieces):
            lengths[:, k + 1] = np.fromiter(map(len, piece), np.int64, rows)
        lengths[:, -1] = np.fromiter(map(len, whole), np.int64, rows) - lengths.sum(axis=1)
        message = np.tile(np.array([SCAFFOLD, *messages, SCAFFOLD], np.int32), rows)
        part = np.tile(np.array([PART_NONE, *[PART_CONTENT] * len(pieces), PART_NONE], np.int8), rows)
        return segments_of(places, ids, lengths.ravel(), message, part, np.arange(rows + 1) * width)

    return LazySegments(make)


def refuse_all(batch: LabelBatch, why: RenderFailure) -> LabelBatch:
    """The batch, with every row of it a failure."""
    batch.failures = dict.fromkeys(range(len(batch.ids.starts) - 1), why)
    return batch


def mask_first(batch: LabelBatch, every: int | None = None) -> None:
    """Mask the first label of each row, or of each stretch of ``every`` tokens of it."""
    place = positions(batch.ids.starts)
    batch.trained = batch.trained & ((place if every is None else place % every) != 0)


def drop_empty(batch: LabelBatch, why: str) -> None:
    for row in np.flatnonzero(np.diff(batch.ids.starts) == 0).tolist():
        if row not in batch.failures:
            batch.dropped[row] = why
