"""The facts that come out of ids, labels and segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorads.facts.batch import CONVERSATIONAL, Batch, FactContext
from lorads.facts.hashes import sequence_hash
from lorads.formats import Conversation, Kind
from lorads.templates.render import TOOLS

if TYPE_CHECKING:
    import polars as pl


@dataclass(slots=True)
class LabelFacts:
    """``columns``: one value a conversation. ``marks``: where in the batch tokens stand that end or steer a turn.
    ``answer``: which segments belong to an answer that is to be learnt, one flag a segment."""

    columns: dict[str, npt.NDArray[Any] | pl.Series]
    marks: npt.NDArray[np.int64]
    answer: npt.NDArray[np.bool_]


def label_facts(batch: Batch, context: FactContext) -> LabelFacts:
    """What ids, labels and segments tell."""

    labels, conversations = batch.labels, batch.conversations
    flat, starts, segments = labels.ids.flat, labels.ids.starts, labels.segments
    rows = len(conversations)
    counts = np.diff(starts)
    filled = counts > 0
    kept = Count(labels.kept)
    trained = Count(labels.trained)
    fed = trained if kept.all else Count(labels.trained & labels.kept)
    out: dict[str, npt.NDArray[Any] | pl.Series] = {}

    ends = starts[1:]
    begins = np.minimum(starts[:-1] + 1, ends)  # labels[0] never counts: nothing predicts it
    alive = np.ones(rows, np.bool_)
    alive[list(labels.dropped)] = False
    survivors = kept.between(starts[:-1], ends)
    out["tokens"] = counts
    out["tokens_fed"] = survivors * alive
    out["cut"] = survivors < counts
    out["label_tokens"] = trained.between(begins, ends)
    out["label_tokens_fed"] = fed.between(begins, ends) * alive

    answer, message_answers = _answer_segments(batch)
    first, last = segments.bounds[:-1], segments.bounds[1:]
    out["answer_tokens"] = _sum_segments(trained.between(first, last) * answer, segments.rows)
    out["answer_tokens_fed"] = _sum_segments(fed.between(first, last) * answer, segments.rows) * alive
    asked = ~answer & ((segments.message >= 0) | (segments.message == TOOLS))
    out["prompt_tokens_fed"] = _sum_segments(fed.between(first, last) * asked, segments.rows) * alive
    out["messages"] = np.fromiter([len(c.messages) for c in conversations], np.int32, rows)
    out["answers"] = message_answers

    largest = np.zeros(rows, np.int64)
    if filled.any():
        largest[filled] = np.maximum.reduceat(flat, starts[:-1][filled])
    out["max_token_id"] = largest

    marks = context.places_of_ends(flat)
    out |= _bos_facts(batch, context)
    out |= _terminator_facts(batch, marks, answer)
    out["sequence_hash"] = sequence_hash(labels.ids, labels.trained, trained.all)

    if labels.failures:
        rendered = np.ones(rows, np.bool_)
        rendered[list(labels.failures)] = False
        for name in out.keys() - {"messages", "answers"}:
            out[name] = _only_where(rendered, out[name])
    return LabelFacts(out, marks, answer)


class Count:
    """How many flags are set between two positions, told by the ones that are not: mostly few, or none."""

    __slots__ = ("_unset", "all")

    def __init__(self, flags: npt.NDArray[np.bool_]) -> None:
        self._unset = np.flatnonzero(~flags)
        self.all = not len(self._unset)

    def between(self, begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if self.all:
            return end - begin
        return end - begin - (np.searchsorted(self._unset, end) - np.searchsorted(self._unset, begin))


def _only_where(mask: npt.NDArray[np.bool_], values: npt.NDArray[Any] | pl.Series) -> npt.NDArray[Any] | pl.Series:
    """The values where the mask is set, null elsewhere."""
    import polars as pl

    if mask.all():
        return values
    series = pl.Series(values)
    return series.zip_with(pl.Series(mask), series.clear(len(series)))


def _sum_segments(values: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    total = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=total[1:])
    return np.asarray(total[rows[1:]] - total[rows[:-1]])


_flags_of_roles: dict[tuple[str, ...] | None, npt.NDArray[np.bool_]] = {}


def _answers_of(conversation: Conversation) -> npt.NDArray[np.bool_]:
    """Which messages of a row are answers to be learnt; shape (messages,)."""
    if conversation.kind is Kind.PROMPT_COMPLETION:
        return np.array([False, True])
    if conversation.kind not in CONVERSATIONAL:
        return np.array([True])
    roles = conversation.roles
    if roles is not None and not conversation.prompt_messages and conversation.train is None:
        flags = _flags_of_roles.get(roles)
        if flags is None:
            if len(_flags_of_roles) > 50_000:
                _flags_of_roles.clear()
            flags = _flags_of_roles[roles] = np.array([role == "assistant" for role in roles])
        return flags
    train = conversation.train or [True] * len(conversation.messages)
    return np.array(
        [
            message.get("role") == "assistant" and i >= conversation.prompt_messages and train[i]
            for i, message in enumerate(conversation.messages)
        ]
    )


def _answer_segments(batch: Batch) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
    """Which segments belong to an answer (shape (segments,)), and how many answers each row has (shape (rows,))."""
    segments = batch.labels.segments
    conversations = batch.conversations
    if not conversations:
        return np.zeros(0, np.bool_), np.zeros(0, np.int32)
    inside = segments.message >= 0
    number = np.where(inside, segments.message, 0)
    alike = _answers_of(conversations[0])
    if _all_like_the_first(conversations):
        count = np.full(len(conversations), np.count_nonzero(alike), np.int32)
        return inside & alike[np.minimum(number, len(alike) - 1)], count
    flags = list(map(_answers_of, conversations))
    lengths = np.fromiter(map(len, flags), np.int64, len(flags))
    first = np.cumsum(lengths) - lengths
    every = np.concatenate(flags)
    count = np.add.reduceat(every, np.minimum(first, len(every) - 1), dtype=np.int32)
    index = np.repeat(first, np.diff(segments.rows)) + number
    return inside & every[np.minimum(index, len(every) - 1)], count


def _all_like_the_first(conversations: Sequence[Conversation]) -> bool:
    """Whether the rows have one sequence of plain roles, all of it to be learnt: most batches do."""
    first = conversations[0]
    if first.roles is None or first.kind is not Kind.MESSAGES:
        return False
    rows = len(conversations)
    return (
        [c.roles for c in conversations].count(first.roles) == rows
        and [c.train for c in conversations].count(None) == rows
        and [c.kind for c in conversations].count(first.kind) == rows
    )


def _bos_facts(batch: Batch, context: FactContext) -> dict[str, npt.NDArray[Any]]:
    labels = batch.labels
    rows = len(batch.conversations)
    bos = context.tokenizer.special.bos_id
    leading = np.zeros(rows, np.int32)
    inside = np.zeros(rows, np.int32)
    flat, starts = labels.ids.flat, labels.ids.starts
    if bos is not None and len(flat):
        counts = np.diff(starts)
        one = (flat.take(starts[:-1], mode="clip") == bos) & (counts > 0)
        two = one & (flat.take(starts[:-1] + 1, mode="clip") == bos) & (counts > 1)
        leading = one.astype(np.int32) + two
        strings = np.fromiter((c.kind not in CONVERSATIONAL for c in batch.conversations), np.bool_, rows)
        if strings.any() and not context.bos_is_marker:
            at = np.flatnonzero(flat == bos)
            found = np.searchsorted(at, starts[1:]) - np.searchsorted(at, starts[:-1]) - leading
            inside = np.where(strings, found, 0).astype(np.int32)
    return {"bos_count": leading, "bos_inside": inside}


def _terminator_facts(
    batch: Batch, marks: npt.NDArray[np.int64], answer: npt.NDArray[np.bool_]
) -> dict[str, npt.NDArray[Any] | pl.Series]:
    """Whether the last answer ends in a trained control token (``marks``: where such tokens stand): in its last token,
    or in the scaffold behind it."""
    import polars as pl

    labels = batch.labels
    segments, flat, starts = labels.segments, labels.ids.flat, labels.ids.starts
    rows = len(batch.conversations)
    where = np.flatnonzero(answer)
    last = np.full(rows, -1, np.int64)
    last[np.searchsorted(segments.rows, where, side="right") - 1] = where
    # the first segment of content behind each answer, or the end of its row
    content = np.flatnonzero((segments.message >= 0) & (np.diff(segments.bounds) > 0))
    following = np.searchsorted(content, last, side="right")
    next_content = np.append(content, len(segments.message))[following]
    has = last >= 0
    begin = np.maximum(segments.bounds[np.maximum(last, 0) + 1] - 1, starts[:-1]) if len(answer) else starts[:-1]
    stop = np.maximum(segments.bounds[np.minimum(next_content, segments.rows[1:])], begin)
    good = marks[labels.trained[marks]]
    fed = good[labels.kept[good]]
    ended = np.searchsorted(good, stop) > np.searchsorted(good, begin)
    judged = has & (stop > begin)
    out: dict[str, npt.NDArray[Any] | pl.Series] = {
        "terminated": _only_where(judged, ended),
        "terminator_fed": _only_where(judged, np.searchsorted(fed, stop) > np.searchsorted(fed, begin)),
    }
    open_ended = np.flatnonzero(judged & ~ended).tolist()
    if open_ended:
        last_token: list[int | None] = [None] * rows
        for row in open_ended:
            start = int(segments.bounds[last[row]])
            inside = np.flatnonzero(labels.trained[start : stop[row]])
            if len(inside):
                last_token[row] = int(flat[start + inside[-1]])
        out["last_answer_token"] = pl.Series(last_token, dtype=pl.Int64)
    return out
