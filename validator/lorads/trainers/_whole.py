"""Rows that are tokenized whole: texts, prompts with completions, rendered conversations, and ids somebody else made.

Libraries and their versions differ in where a completion begins (``Boundary``), in what happens to a row's masks, and
in what is done afterwards: those are arguments here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, TypeVar

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
R = TypeVar("R")
Flags = npt.NDArray[np.bool_]
Boundary = Callable[["Ids", "Ids"], npt.NDArray[np.int64]]
"""From the ids of the prompts alone and of the whole rows: how many ids of each row are prompt."""

OWN_TEMPLATE = RenderFailure("not-reproduced", "the row brings its own chat_template, which lorads does not run")
NOTHING_GENERATED = RenderFailure(
    "stops", "no token of the row is inside a {% generation %} block, at which TRL's assistant_only_loss stops the run"
)
NO_TEMPLATE = RenderFailure(
    "no-template", "the tokenizer has no chat template, and none was given with --chat-template"
)


def has_tools(conversation: Conversation) -> bool:
    """Whether transformers is given a list of tools, be it an empty one."""
    record = conversation.record
    return conversation.tools is not None or (record is not None and record.get("tools") in ([], "[]"))


def prompt_length(prompt: Ids, whole: Ids) -> npt.NDArray[np.int64]:
    """As many ids as the prompt has alone, whether they are the row's first ones or not."""
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


def kind_and_template(
    template: Template | None, with_tools: Template | None
) -> Callable[[Conversation], tuple[Kind, Template | None]]:
    """The key of rows that are labelled together: their kind, and the template that renders them (``tool_template``
    gives ``with_tools``)."""
    if with_tools is template:
        return lambda conversation: (conversation.kind, template)
    return lambda conversation: (conversation.kind, with_tools if has_tools(conversation) else template)


def by_key(rows: Sequence[R], key: Callable[[R], K], label: Callable[[K, Sequence[R]], LabelBatch]) -> LabelBatch:
    """Label the rows of each key together."""
    keys = list(map(key, rows))
    if keys and keys.count(keys[0]) == len(keys):
        return label(keys[0], rows)
    groups: dict[K, list[int]] = defaultdict(list)
    for i, found in enumerate(keys):
        groups[found].append(i)
    parts = [(indices, label(found, [rows[i] for i in indices])) for found, indices in groups.items()]
    return concatenate(parts, len(rows))


def texts(
    conversations: Sequence[Conversation], tokenizer: Tokenizer, eos: str | None, special: bool = True
) -> LabelBatch:
    """``special``: with the tokens that the tokenizer adds."""
    bare = [conversation.text or "" for conversation in conversations]
    whole = [with_eos(text, eos) for text in bare]
    ids = tokenizer.encode(whole, add_special_tokens=special)
    places = tokenizer.place(whole, ids, add_special_tokens=special)
    segments = string_segments([bare], whole, ids, places)
    return batch_of(ids, np.ones(len(ids.flat), np.bool_), segments, whole, places)


def pairs(
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    eos: str | None,
    boundary: Boundary | None,
    special: bool = True,
) -> LabelBatch:
    """Prompts with completions as texts; without a ``boundary`` everything is trained."""
    prompts = [conversation.text or "" for conversation in conversations]
    completions = [conversation.completion or "" for conversation in conversations]
    whole = [prompt + with_eos(completion, eos) for prompt, completion in zip(prompts, completions, strict=True)]
    ids = tokenizer.encode(whole, add_special_tokens=special)
    places = tokenizer.place(whole, ids, add_special_tokens=special)
    trained = np.ones(len(ids.flat), np.bool_)
    if boundary is not None:
        trained = after(ids, boundary(tokenizer.encode(prompts, add_special_tokens=special), ids))
    segments = string_segments([prompts, completions], whole, ids, places)
    return batch_of(ids, trained, segments, whole, places)


def conversations_of(
    conversations: Sequence[Conversation],
    tokenizer: Tokenizer,
    template: Template | None,
    boundary: Boundary | None = None,
    assistant_only: bool = False,
) -> LabelBatch:
    """Conversations as the template renders them; ``boundary`` is for those that have a prompt and a completion."""
    if template is None:
        return refused(len(conversations), NO_TEMPLATE)
    render = template.render(list(conversations))
    ids = tokenizer.encode(render.texts)
    places = tokenizer.place(render.texts, ids)
    trained = np.ones(len(ids.flat), np.bool_)
    failures = dict(render.failures)
    if boundary is not None:
        prompt = template.render(list(conversations), add_generation_prompt=True, prompt_only=True)
        failures = {**prompt.failures, **failures}
        trained = after(ids, boundary(tokenizer.encode(prompt.texts), ids))
    failures |= own_templates(conversations)
    if assistant_only:
        generated = generated_tokens(ids, places, render.generation or {})
        for i in np.flatnonzero(sum_by_row(generated, ids.starts) == 0).tolist():
            failures.setdefault(i, NOTHING_GENERATED)
        trained &= generated
    return rendered_batch(render, ids, places, trained, failures)


def own_templates(conversations: Sequence[Conversation]) -> dict[int, RenderFailure]:
    return {
        i: OWN_TEMPLATE
        for i, conversation in enumerate(conversations)
        if conversation.template_kwargs and "chat_template" in conversation.template_kwargs
    }


def rendered_batch(
    render: RenderBatch, ids: Ids, places: Places, trained: Flags, failures: dict[int, RenderFailure]
) -> LabelBatch:
    batch = batch_of(ids, trained, render_segments(render, places, ids), render.texts, places)
    batch.failures = failures
    batch.lost = render.lost
    return batch


def refused(count: int, why: RenderFailure) -> LabelBatch:
    """Rows without tokens, all of them failures."""
    return refuse_all(tokenized([Conversation(Kind.TOKENIZED, [], input_ids=[])] * count, lambda _: []), why)


def tokenized(conversations: Sequence[Conversation], labels_of: Callable[[Conversation], Sequence[int]]) -> LabelBatch:
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


def masked(ids: Sequence[int], masks: Sequence[Sequence[int]]) -> Sequence[int]:
    """A label is the id where every mask is set."""
    if not masks:
        return ids
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


def matches(ids: Ids, wanted: Sequence[int], first: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Where the wanted ids stand whole within one row; ``first``: where the first of them stands, if it is known."""
    flat, size = ids.flat, len(wanted)
    found = np.flatnonzero(flat == wanted[0]) if first is None else first
    for step, number in enumerate(wanted[1:], 1):
        found = found[found < len(flat) - step]
        found = found[flat[found + step] == number]
    if size > 1 and len(found):
        found = found[found + size <= ids.starts[np.searchsorted(ids.starts, found, side="right")]]
    return found


def kept_by_tokenizer(
    ids: Ids, limit: int | None, around: tuple[int, int], side: Literal["left", "right"]
) -> npt.NDArray[np.bool_]:
    """Which tokens the tokenizer's truncation keeps: it cuts the text, not what it puts ``around`` it."""
    kept = np.ones(len(ids.flat), np.bool_)
    if limit is None:
        return kept
    front, behind = around
    for row in np.flatnonzero(np.diff(ids.starts) > limit).tolist():
        begin, end = int(ids.starts[row]), int(ids.starts[row + 1])
        excess = end - begin - limit
        if side == "left":
            kept[begin + front : min(begin + front + excess, end)] = False
        else:
            kept[max(end - behind - excess, begin) : end - behind] = False
    return kept


def generated_tokens(ids: Ids, places: Places, generation: dict[int, list[tuple[int, int]]]) -> Flags:
    """transformers' ``assistant_masks`` (``tokenization_utils_base.py`` L3189-3210), its treatment of a missing last
    token included: the mask then runs to the end of the row, as it does where that is the row's first token."""
    blocks = [(row, begin, end) for row, spans in generation.items() for begin, end in spans]
    if not blocks:
        return np.zeros(len(ids.flat), np.bool_)
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
    return inside(first, stop, len(ids.flat))


def inside(begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64], total: int) -> Flags:
    """Which of ``total`` tokens are inside spans; those may overlap, and one that ends before it begins is none."""
    some = begin < end
    begin, end = begin[some], end[some]
    order = np.argsort(begin, kind="stable")
    bounds = np.zeros(2 * len(order) + 2, np.int64)
    bounds[2:-1:2] = np.maximum.accumulate(end[order])
    bounds[1:-1:2] = np.maximum(begin[order], bounds[:-2:2])
    bounds[-1] = total
    return np.repeat(np.arange(len(bounds) - 1) % 2 == 1, np.diff(bounds))


def string_segments(pieces: Sequence[list[str]], whole: list[str], ids: Ids, places: Places) -> Segments:
    """Segments of rows that are strings in a row: an empty one (for BOS), each piece, and what was appended."""
    rows = len(whole)
    width = len(pieces) + 2

    def make() -> Segments:
        lengths = np.zeros((rows, width), np.int64)
        for k, piece in enumerate(pieces):
            lengths[:, k + 1] = np.fromiter(map(len, piece), np.int64, rows)
        lengths[:, -1] = np.fromiter(map(len, whole), np.int64, rows) - lengths.sum(axis=1)
        message = np.tile(np.array([SCAFFOLD, *range(len(pieces)), SCAFFOLD], np.int32), rows)
        part = np.tile(np.array([PART_NONE, *[PART_CONTENT] * len(pieces), PART_NONE], np.int8), rows)
        return segments_of(places, ids, lengths.ravel(), message, part, np.arange(rows + 1) * width)

    return LazySegments(make)


def refuse_all(batch: LabelBatch, why: RenderFailure) -> LabelBatch:
    """The batch, with every row of it a failure."""
    batch.failures = dict.fromkeys(range(len(batch.ids.starts) - 1), why)
    return batch


def mask_first(batch: LabelBatch, every: int | None = None) -> None:
    """Mask the first label of each row, or of each stretch of ``every`` tokens of it."""
    starts = batch.ids.starts
    batch.trained = batch.trained.copy()
    if every is None:
        batch.trained[starts[:-1][np.diff(starts) > 0]] = False
    else:
        batch.trained[positions(starts) % every == 0] = False


def drop_empty(batch: LabelBatch, why: str) -> None:
    for row in np.flatnonzero(np.diff(batch.ids.starts) == 0).tolist():
        if row not in batch.failures:
            batch.dropped[row] = why
