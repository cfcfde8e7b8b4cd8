"""From records, conversations and labels to facts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorads.facts.hashes import sequence_hash
from lorads.facts.roles import RoleSupport
from lorads.facts.schema import FACTS, HIT, Hit, polars_schema
from lorads.facts.text import Scanner, Texts
from lorads.formats import Conversation, Kind, Misfit, RowProblem
from lorads.templates.render import PART_CONTENT, PART_REASONING, PART_TOOL_CALL, TOOLS, Lost

if TYPE_CHECKING:
    import polars as pl

    from lorads.sources import Problem, Records
    from lorads.tokenizers import Tokenizer
    from lorads.trainers import LabelBatch

CONVERSATIONAL = (Kind.MESSAGES, Kind.PROMPT_COMPLETION_MESSAGES)
PARTS = {PART_CONTENT: "content", PART_REASONING: "reasoning", PART_TOOL_CALL: "tool_call"}
RULE_FACT = {"FMT002": "format_problem", "FMT003": "role_problem", "FMT004": "answer_problem"}


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


def facts_of(batch: Batch, context: FactContext) -> pl.DataFrame:
    """The facts of a batch: one row per record, readable or not, in the order of the file.

    ``row`` and ``line`` count from the start of the batch (row 0-based, line 1-based); whoever puts batches in order
    adds the rows and lines of earlier ones.
    """
    import polars as pl

    records = batch.records
    rows = len(records.values)
    columns: dict[str, Any] = {}
    hits: dict[str, dict[int, Hit]] = {name: {} for name, fact in FACTS.items() if fact.dtype == HIT}

    columns["row"] = np.arange(rows, dtype=np.int64)
    if records.lines is not None:
        columns["line"] = np.asarray(records.lines, np.int64) + 1
    columns["byte_offset"] = np.asarray(records.offsets, np.int64)
    columns["byte_length"] = np.asarray(records.lengths, np.int64)
    for position, misfit in batch.misfits.items():
        hits["format_problem"][position] = _problem_hit(misfit.problem)

    positions = np.asarray(batch.positions, np.int64)
    for name, values in _label_facts(batch, context, hits).items():
        columns[name] = _spread(values, positions, rows)
    kinds = [conversation.kind for conversation in batch.conversations]
    if kinds.count(kinds[0]) == rows if kinds else False:
        columns["kind"] = pl.Series([kinds[0].value]).new_from_index(0, rows)
    else:
        columns["kind"] = _spread_texts([kind.value for kind in kinds], batch.positions, rows)
    if batch.labels.dropped:
        reasons = [batch.labels.dropped.get(i) for i in range(len(kinds))]
        columns["dropped"] = _spread_texts(reasons, batch.positions, rows)
    _problem_hits(batch, hits)
    _text_hits(batch, context, hits)
    _render_hits(batch, context, hits)

    unreadable = [problem for problem in records.problems if problem.index is None]
    for problem in records.problems:
        if problem.index is not None and problem.index not in hits["record_problem"]:
            hits["record_problem"][problem.index] = _record_hit(problem)

    schema = polars_schema()
    series: list[pl.Series] = []
    missing: list[str] = []
    for name, fact in FACTS.items():
        if fact.dtype == HIT and hits[name]:
            series.append(_hit_series(name, hits[name], rows, schema[name]))
        elif name in columns:
            series.append(_series(name, columns[name], schema[name]))
        else:
            missing.append(name)
    frame = pl.DataFrame(series).with_columns(context.constants(tuple(missing)))
    lost_early = _lost_early(batch)
    if lost_early:
        flags = np.zeros(rows, np.bool_)
        flags[lost_early] = True
        frame = frame.with_columns(pl.Series("reasoning_lost_early", flags))
    if not unreadable:
        return frame
    extra = pl.DataFrame(
        [
            {
                "line": None if problem.line is None else problem.line + 1,
                "byte_offset": problem.offset,
                "byte_length": problem.length,
                "record_problem": _record_hit(problem),
            }
            for problem in unreadable
        ],
        schema={name: schema[name] for name in ("line", "byte_offset", "byte_length", "record_problem")},
    )
    return pl.concat([frame, extra], how="diagonal").sort("byte_offset", maintain_order=True)


def _label_facts(
    batch: Batch, context: FactContext, hits: dict[str, dict[int, Hit]]
) -> dict[str, npt.NDArray[Any] | pl.Series]:
    """The facts that come out of ids, labels and segments, one value a conversation."""
    import polars as pl

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
    out["messages"] = np.fromiter([len(c.messages) for c in conversations], np.int32, rows)
    out["answers"] = message_answers

    largest = np.zeros(rows, np.int64)
    if filled.any():
        largest[filled] = np.maximum.reduceat(flat, starts[:-1][filled])
    out["max_token_id"] = largest

    marks = np.flatnonzero(context.ends.take(flat, mode="clip"))
    out |= _bos_facts(batch, context)
    out |= _terminator_facts(batch, marks, answer)
    out["sequence_hash"] = sequence_hash(labels.ids, labels.trained, trained.all)
    _control_hits(batch, context, marks, answer, hits)

    if labels.failures:
        rendered = np.ones(rows, np.bool_)
        rendered[list(labels.failures)] = False
        for name in out.keys() - {"messages", "answers"}:
            out[name] = _only_where(rendered, pl.Series(name, out[name]))
    return out


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


def _only_where(mask: npt.NDArray[np.bool_], series: pl.Series) -> pl.Series:
    """The values where the mask is set, null elsewhere."""
    import polars as pl

    return series if mask.all() else series.zip_with(pl.Series(mask), series.clear(len(series)))


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
    known = _flags_of_roles
    flags = [
        known[c.roles] if c.roles in known and not c.prompt_messages and c.train is None else _answers_of(c)
        for c in batch.conversations
    ]
    if not flags:
        return np.zeros(0, np.bool_), np.zeros(0, np.int32)
    lengths = np.fromiter(map(len, flags), np.int64, len(flags))
    first = np.cumsum(lengths) - lengths
    every = np.concatenate(flags)
    count = np.add.reduceat(every, np.minimum(first, len(every) - 1), dtype=np.int32)
    owner = np.repeat(np.arange(len(flags)), np.diff(segments.rows))
    inside = segments.message >= 0
    index = first[owner] + np.where(inside, segments.message, 0)
    return inside & every[np.minimum(index, len(every) - 1)], count


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
    last_token: list[int | None] = [None] * rows
    for row in np.flatnonzero(judged & ~ended).tolist():
        start = int(segments.bounds[last[row]])
        inside = np.flatnonzero(labels.trained[start : stop[row]])
        if len(inside):
            last_token[row] = int(flat[start + inside[-1]])
    return {
        "terminated": _only_where(judged, pl.Series(ended)),
        "terminator_fed": _only_where(judged, pl.Series(np.searchsorted(fed, stop) > np.searchsorted(fed, begin))),
        "last_answer_token": pl.Series(last_token, dtype=pl.Int64),
    }


def _control_hits(
    batch: Batch,
    context: FactContext,
    marks: npt.NDArray[np.int64],
    answer: npt.NDArray[np.bool_],
    hits: dict[str, dict[int, Hit]],
) -> None:
    """Control tokens whose characters come from message content."""
    labels = batch.labels
    flat, segments = labels.ids.flat, labels.segments
    # a segment of no tokens shares its bound with the next: the last one that starts at or before the token holds it
    segment = np.searchsorted(segments.bounds, marks, side="right") - 1
    inside = segments.message[segment] >= 0
    at, segment = marks[inside], segment[inside]
    control = context.control.take(flat[at], mode="clip")
    at, segment = at[control], segment[control]
    tokenizer = context.tokenizer
    owner = np.searchsorted(labels.ids.starts, at, side="right") - 1
    found = hits["control_token"]
    for token, seg, row in zip(at.tolist(), segment.tolist(), owner.tolist(), strict=True):
        conversation = batch.conversations[row]
        if conversation.kind not in CONVERSATIONAL:
            continue
        token_id = int(flat[token])
        severe = bool(context.openers[token_id] and answer[seg] and labels.trained[token])
        code = "boundary" if severe else "inside"
        position = batch.positions[row]
        earlier = found.get(position)
        if earlier is not None:
            earlier["count"] += 1
            if earlier["code"] == "boundary" or code == "inside":
                continue
        begin = token - int(labels.ids.starts[row])
        index = int(segments.message[seg])
        text = tokenizer.token(token_id)
        hit: Hit = {
            "code": code,
            "message_index": index,
            "field": PARTS.get(int(segments.part[seg]), "content"),
            "token_begin": begin,
            "token_end": begin + 1,
            "token_id": token_id,
            "text": text,
            "detail": str(conversation.messages[index].get("role", "")),
            "count": earlier["count"] if earlier is not None else 1,
        }
        content = conversation.messages[index].get("content")
        if isinstance(content, str) and (char := content.find(text)) >= 0:
            hit["begin"], hit["end"] = char, char + len(text)
        found[position] = hit


def _problem_hit(problem: RowProblem) -> Hit:
    hit: Hit = {"code": problem.code, "detail": problem.message, "expected": problem.hint, "count": 1}
    if problem.message_index is not None:
        hit["message_index"] = problem.message_index
    if problem.field is not None:
        hit["field"] = problem.field
    return hit


def _record_hit(problem: Problem) -> Hit:
    return {
        "code": problem.kind,
        "detail": problem.message,
        "expected": problem.hint,
        "text": problem.excerpt,
        "count": 1,
    }


def _problem_hits(batch: Batch, hits: dict[str, dict[int, Hit]]) -> None:
    for i, problems in enumerate([conversation.problems for conversation in batch.conversations]):
        for problem in problems:
            hits[RULE_FACT[problem.rule]].setdefault(batch.positions[i], _problem_hit(problem))


def _text_hits(batch: Batch, context: FactContext, hits: dict[str, dict[int, Hit]]) -> None:
    found = context.scanner.scan(texts_of(batch.conversations))
    for name, by_row in found.items():
        for row, hit in by_row.items():
            _place_in_tokens(batch.labels, row, hit)
            hits[name][batch.positions[row]] = hit


FIELD_PARTS = {"content": PART_CONTENT, "reasoning_content": PART_REASONING, "thinking": PART_REASONING}


def _place_in_tokens(labels: LabelBatch, row: int, hit: Hit) -> None:
    """Which tokens hold what was found in a message: the text is looked for in the part of the render that is the
    message's. Left out where it is not there as it stands (dropped or escaped by the template)."""
    text = hit.get("text")
    if labels.texts is None or labels.placed is None or not text or row in labels.failures:
        return
    segments = labels.segments
    first, last = int(segments.rows[row]), int(segments.rows[row + 1])
    message = max(hit.get("message_index", 0), 0)
    if hit.get("field") == "completion":
        message = 1
    part = FIELD_PARTS.get(hit.get("field", ""), PART_CONTENT)
    mine = [s for s in range(first, last) if segments.message[s] == message and segments.part[s] == part]
    if not mine:
        return
    start = int(labels.ids.starts[row])
    begin, end = labels.placed(row)
    from_token = int(segments.bounds[mine[0]]) - start
    to_token = int(segments.bounds[mine[-1] + 1]) - start
    if from_token >= to_token:
        return
    at = labels.texts[row].find(text, int(begin[from_token]), int(end[to_token - 1]))
    if at < 0:
        return
    hit["token_begin"] = int(np.searchsorted(end, at, side="right"))
    hit["token_end"] = int(np.searchsorted(begin, at + len(text), side="left"))


def texts_of(conversations: Sequence[Conversation]) -> Texts:
    """Every text of a batch; whose it is, is worked out for the few that are asked about."""
    contents: list[str] = []
    starts = [0]
    for conversation in conversations:
        plain = conversation.contents
        contents += plain if plain is not None else [text for *_, text in _texts_of(conversation)]
        starts.append(len(contents))

    def about(i: int) -> tuple[int, int, str, str]:
        row = bisect_right(starts, i) - 1
        conversation, place = conversations[row], i - starts[row]
        if conversation.contents is not None and conversation.roles is not None:
            return row, place, "content", conversation.roles[place]
        return row, *_texts_of(conversation)[place][:3]

    return Texts(contents, about)


def _texts_of(conversation: Conversation) -> list[tuple[int, str, str, str]]:
    if conversation.kind is Kind.TEXT:
        return [(-1, "text", "assistant", conversation.text or "")]
    if conversation.kind is Kind.PROMPT_COMPLETION:
        return [
            (-1, "prompt", "user", conversation.text or ""),
            (-1, "completion", "assistant", conversation.completion or ""),
        ]
    out = []
    for i, message in enumerate(conversation.messages):
        role = str(message.get("role"))
        for name in ("content", "reasoning_content", "thinking"):
            value = message.get(name)
            if isinstance(value, str):
                out.append((i, name, role, value))
            elif isinstance(value, list):
                out += [
                    (i, name, role, part["text"])
                    for part in value
                    if isinstance(part, dict) and isinstance(part.get("text"), str)
                ]
    return out


def _render_hits(batch: Batch, context: FactContext, hits: dict[str, dict[int, Hit]]) -> None:
    for row, failure in batch.labels.failures.items():
        position = batch.positions[row]
        hits["render_problem"][position] = {"code": failure.kind, "detail": failure.message, "count": 1}
        for i, message in enumerate(batch.conversations[row].messages):
            refusal = context.roles.refused.get(str(message.get("role")))
            if refusal is not None:
                hits["role_refused"][position] = {
                    "code": "refused",
                    "message_index": i,
                    "field": "role",
                    "text": str(message.get("role")),
                    "detail": refusal,
                    "count": 1,
                }
                break
    for row, lost in batch.labels.lost.items():
        position = batch.positions[row]
        ignored = next((item for item in lost if _is_ignored(item)), None)
        if ignored is not None:
            role = str(batch.conversations[row].messages[ignored.message].get("role"))
            hits["role_refused"][position] = {
                "code": "ignored",
                "message_index": ignored.message,
                "field": "role",
                "text": role,
                "detail": ignored.excerpt,
                "count": sum(map(_is_ignored, lost)),
            }
            continue
        worst = min(lost, key=lambda item: (item.part == PART_REASONING, item.message == TOOLS))
        hit: Hit = {
            "code": "tools" if worst.message == TOOLS else PARTS.get(worst.part, "content"),
            "text": worst.excerpt,
            "count": len(lost),
        }
        if worst.message >= 0:
            hit["message_index"] = worst.message
            hit["detail"] = str(batch.conversations[row].messages[worst.message].get("role"))
        hits["content_lost"][position] = hit


def _is_ignored(item: Lost) -> bool:
    """The template left a whole message with a text out, and not just the tool calls that were all of it."""
    return item.whole_message and item.message >= 0 and item.part == PART_CONTENT


def _lost_early(batch: Batch) -> list[int]:
    """Positions of rows that lose nothing but thinking in turns before the last answer."""
    out = []
    for row, lost in batch.labels.lost.items():
        messages = batch.conversations[row].messages
        answers = [i for i, message in enumerate(messages) if message.get("role") == "assistant"]
        if answers and all(0 <= item.message < answers[-1] and _is_thinking(item, messages) for item in lost):
            out.append(batch.positions[row])
    return out


def _is_thinking(item: Lost, messages: Sequence[Mapping[str, Any]]) -> bool:
    if item.part == PART_REASONING:
        return True
    content = messages[item.message].get("content")
    if not isinstance(content, str) or "</think>" not in content:
        return False
    return item.excerpt.strip() in content[: content.rindex("</think>") + len("</think>")]


def _series(name: str, values: npt.NDArray[Any] | pl.Series, dtype: Any) -> pl.Series:
    import polars as pl

    series = values.alias(name) if isinstance(values, pl.Series) else pl.Series(name, values)
    return series if series.dtype == dtype else series.cast(dtype)


def _hit_series(name: str, hits: Mapping[int, Hit], rows: int, dtype: Any) -> pl.Series:
    import polars as pl

    if not hits:
        return pl.Series(name, [], dtype=dtype).clear(rows)
    places = sorted(hits)
    index: list[int | None] = [None] * rows
    for i, place in enumerate(places):
        index[place] = i
    found = pl.Series(name, [hits[place] for place in places], dtype=dtype)
    return found.gather(pl.Series(index, dtype=pl.UInt32)) if len(places) < rows else found


def _spread(values: npt.NDArray[Any] | pl.Series, positions: npt.NDArray[np.int64], rows: int) -> Any:
    """Values of the understood rows put at their positions among all rows; null elsewhere."""
    import polars as pl

    if len(positions) == rows:
        return values
    index: list[int | None] = [None] * rows
    for i, position in enumerate(positions.tolist()):
        index[position] = i
    series = values if isinstance(values, pl.Series) else pl.Series(values)
    return series.gather(pl.Series(index, dtype=pl.UInt32)) if len(series) else series.clear(rows)


def _spread_texts(values: Sequence[str | None], positions: Sequence[int], rows: int) -> Any:
    import polars as pl

    if len(positions) == rows:
        return pl.Series(values, dtype=pl.String)
    out: list[str | None] = [None] * rows
    for position, value in zip(positions, values, strict=True):
        out[position] = value
    return pl.Series(out, dtype=pl.String)
