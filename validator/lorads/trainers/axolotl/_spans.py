"""Where a turn stands in its row: ``prompt_strategies/chat_template.py`` L696-942.

axolotl renders the conversation again with a placeholder for the turn's content, twice, and takes the characters that
differ. That is slow, so it is done here only where the outcome may be another than the content's own place: the
placeholder turn has neither reasoning nor tool calls, so these belong to the turn's span; an empty content may be found
in what stands around it; and a template may look at contents. Where the template is known to print contents as they are
(``Opaque``), the place of the content is the outcome.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lorads.formats import Conversation, Kind

if TYPE_CHECKING:
    from lorads.templates import Template

PLACEHOLDERS = ("[[dummy_message]]", "zzdummymessagezz")
_LONGER = 64
"""Longer contents are no beginning of a placeholder."""
_LENGTHS = (1, 2, 17, 60, 400, 6000)
_SHAPES = (("user", "assistant"), ("system", "user", "assistant"), ("user", "assistant", "user", "assistant"))


class Opaque:
    """What is known about how a template treats contents.

    ``looks_for`` are the texts that it searches in contents; None when a placeholder holds one of them.
    """

    def __init__(self, template: Template) -> None:
        self.looks_for, self.equals, self.edges = _triggers(template)
        self.known = self.looks_for is not None and template.verdict.opaque and _same_for_all_lengths(template)
        self.fits_placeholders = self.looks_for is not None
        """Whether the template looks for nothing that stands in a placeholder."""

    def of(self, contents: Sequence[Sequence[str]]) -> list[bool]:
        """For each row, whether its contents are printed as they are."""
        if not self.known or self.looks_for is None:
            return [False] * len(contents)
        joined = "\0".join(["\0".join(row) for row in contents])
        present = [text for text in self.looks_for if text in joined]
        return [not any(self._matters(text, present) for text in row) for row in contents]

    def _matters(self, text: str, present: Sequence[str]) -> bool:
        return (
            any(trigger in text for trigger in present)
            or (bool(self.edges) and (text[:1] in self.edges or text[-1:] in self.edges))
            or (bool(self.equals) and text.strip() in self.equals)
            or near_placeholder(text)
        )


def _begins_placeholder(text: str) -> bool:
    bare = text.strip()
    return any(placeholder.startswith(bare) for placeholder in PLACEHOLDERS)


_BEGINNING = re.compile(r"\s*(?:\[\[dummy_message\]\]|zzdummymessagezz)")


def near_placeholder(text: str) -> bool:
    """Whether the content begins as a placeholder does, or a placeholder as the content does: then what stands behind
    it may go on alike, and the difference is found too late."""
    return _BEGINNING.match(text) is not None or (len(text) < _LONGER and _begins_placeholder(text))


def _triggers(template: Template) -> tuple[tuple[str, ...] | None, frozenset[str], frozenset[str]]:
    verdict = template.verdict
    edges = frozenset(char for chars in verdict.strips for char in chars if not char.isspace())
    triggers = {*verdict.contains, *edges}
    inside = any(trigger in text for trigger in triggers for text in PLACEHOLDERS)
    return (None if inside else verdict.contains), frozenset(verdict.equals), edges


def _same_for_all_lengths(template: Template) -> bool:
    """Whether contents of any length are printed in the same scaffold."""
    for roles in _SHAPES:
        scaffolds: set[str] = set()
        for length in _LENGTHS:
            contents = [chr(0xE000 + i) * length for i in range(len(roles))]
            render = template.render([plain_conversation(roles, contents)])
            if render.failures:
                continue
            text = render.texts[0]
            for content in contents:
                text = text.replace(content, content[0])
            scaffolds.add(text)
        if len(scaffolds) > 1:
            return False
    return True


def plain_conversation(roles: Sequence[str], contents: Sequence[str]) -> Conversation:
    messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
    return Conversation(Kind.MESSAGES, messages, tuple(roles), list(contents))


@dataclass(frozen=True, slots=True)
class Search:
    """A turn to look for. ``keep_reasoning``: the content alone; ``reasoning``: the reasoning alone."""

    row: int
    turn: int
    keep_reasoning: bool = False
    reasoning: bool = False


def placeholder_turn(turn: dict[str, Any], search: Search, key: str, placeholder: str) -> dict[str, Any]:
    """L876-892."""
    if search.reasoning:
        made = {"role": turn.get("role"), "content": turn.get("content", "")}
        if key in turn:
            made[key] = placeholder
        return made
    made = {"role": turn.get("role"), "content": placeholder}
    if search.keep_reasoning and key in turn:
        made[key] = turn[key]
    return made


def with_turn(conversation: Conversation, index: int, turn: dict[str, Any]) -> Conversation:
    """The conversation with another turn in the place of one of its own."""
    messages = [*conversation.messages[:index], turn, *conversation.messages[index + 1 :]]
    if conversation.roles is not None and conversation.contents is not None and len(turn) == 2:
        contents = [*conversation.contents[:index], turn["content"], *conversation.contents[index + 1 :]]
        return Conversation(Kind.MESSAGES, messages, conversation.roles, contents)
    return Conversation(Kind.MESSAGES, messages, tools=conversation.tools, template_kwargs=conversation.template_kwargs)


def differing(text: str, others: Sequence[str]) -> tuple[int, int]:
    """The characters of ``text`` that differ from one of the others, taken as widely as any of them says."""
    spans = []
    for other in others:
        limit = min(len(text), len(other))
        begin = _shared(text, other, limit)
        spans.append((begin, len(text) - _shared(text[::-1], other[::-1], limit - begin)))
    return min(begin for begin, _ in spans), max(end for _, end in spans)


def _shared(left: str, right: str, limit: int) -> int:
    """How many of the first ``limit`` characters are the same at the beginning."""
    if left[:limit] == right[:limit]:
        return limit
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle
    return low
