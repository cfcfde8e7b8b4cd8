"""The facts that say where in a row something was found."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorads.facts.batch import CONVERSATIONAL, Batch, FactContext
from lorads.facts.schema import FACTS, HIT, Hit
from lorads.facts.text import Texts
from lorads.formats import Conversation, Kind, RowProblem
from lorads.templates.render import PART_CONTENT, PART_REASONING, PART_TOOL_CALL, TOOLS, Lost

if TYPE_CHECKING:
    from lorads.sources import Problem
    from lorads.trainers import LabelBatch

PARTS = {PART_CONTENT: "content", PART_REASONING: "reasoning", PART_TOOL_CALL: "tool_call"}
FIELD_PARTS = {"content": PART_CONTENT, "reasoning_content": PART_REASONING, "thinking": PART_REASONING}
RULE_FACT = {"FMT002": "format_problem", "FMT003": "role_problem", "FMT004": "answer_problem"}


Hits = dict[str, dict[int, Hit]]
"""For each fact of kind HIT: position of the record in the batch → what was found in it."""


def find_hits(batch: Batch, context: FactContext, marks: npt.NDArray[np.int64], answer: npt.NDArray[np.bool_]) -> Hits:
    """Everything that was found at one place of a row. ``marks`` and ``answer``: see ``LabelFacts``."""
    hits: Hits = {name: {} for name, fact in FACTS.items() if fact.dtype == HIT}
    for position, misfit in batch.misfits.items():
        hits["format_problem"][position] = _problem_hit(misfit.problem)
    for problem in batch.records.problems:
        if problem.index is not None:
            hits["record_problem"].setdefault(problem.index, record_hit(problem))
    _control_hits(batch, context, marks, answer, hits)
    _problem_hits(batch, hits)
    _text_hits(batch, context, hits)
    _render_hits(batch, context, hits)
    return hits


def _control_hits(
    batch: Batch, context: FactContext, marks: npt.NDArray[np.int64], answer: npt.NDArray[np.bool_], hits: Hits
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
        index = int(segments.message[seg])
        text = tokenizer.token(token_id)
        if not _holds(conversation.messages[index], text):
            continue  # what the template wrote between the name and the arguments of a call
        severe = bool(context.openers[token_id] and answer[seg] and labels.trained[token])
        code = "boundary" if severe else "inside"
        position = batch.positions[row]
        earlier = found.get(position)
        if earlier is not None:
            earlier["count"] += 1
            if earlier["code"] == "boundary" or code == "inside":
                continue
        begin = token - int(labels.ids.starts[row])
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


def _holds(value: Any, text: str) -> bool:
    """Whether a text stands in a string anywhere inside."""
    if isinstance(value, str):
        return text in value
    if isinstance(value, dict):
        return any(_holds(item, text) for item in value.values())
    return isinstance(value, list) and any(_holds(item, text) for item in value)


def _problem_hit(problem: RowProblem) -> Hit:
    hit: Hit = {"code": problem.code, "detail": problem.message, "expected": problem.hint, "count": 1}
    if problem.message_index is not None:
        hit["message_index"] = problem.message_index
    if problem.field is not None:
        hit["field"] = problem.field
    return hit


def record_hit(problem: Problem) -> Hit:
    return {
        "code": problem.kind,
        "detail": problem.message,
        "expected": problem.hint,
        "text": problem.excerpt,
        "count": 1,
    }


def _problem_hits(batch: Batch, hits: Hits) -> None:
    for i, problems in enumerate([conversation.problems for conversation in batch.conversations]):
        for problem in problems:
            hits[RULE_FACT[problem.rule]].setdefault(batch.positions[i], _problem_hit(problem))


def _text_hits(batch: Batch, context: FactContext, hits: Hits) -> None:
    found = context.scanner.scan(texts_of(batch.conversations))
    for name, by_row in found.items():
        for row, hit in by_row.items():
            _place_in_tokens(batch.labels, row, hit)
            hits[name][batch.positions[row]] = hit


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
    rows = [c.contents if c.contents is not None else [text for *_, text in _texts_of(c)] for c in conversations]
    contents = list(chain.from_iterable(rows))
    starts = [0, *accumulate(map(len, rows))]

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


def _render_hits(batch: Batch, context: FactContext, hits: Hits) -> None:
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
            role = ignored.role or str(batch.conversations[row].messages[ignored.message].get("role"))
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


def lost_early(batch: Batch) -> list[int]:
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
