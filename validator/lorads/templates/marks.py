"""Where the texts of one conversation stand in its render.

The conversation is rendered a second time with every text wrapped in private characters. If the render without them
equals the plain one, their positions are exact. A template that looks at the texts in another way (their length, their
first character) may give another render; then each text is searched for in the plain one, in order. White space that
a template strips by name (``strip('\\n')``) and then writes itself in the same place counts as the text's.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from lorads.templates.render import PART_CONTENT, PART_NONE, PART_REASONING, PART_TOOL_CALL, SCAFFOLD, TOOLS, Lost
from lorads.templates.values import REASONING_FIELDS, FrozenDict, FrozenList, plain, with_reasoning_aliases

EXCERPT_CHARS = 80
_PLANES = tuple(plane + part for plane in (0x100000, 0xF0000) for part in (0, 0x4000, 0x8000, 0xC000))
"""Where private characters are taken from: the two private planes in quarters, of which a text must leave one free."""
_PLANE_SIZE = 0x3FF0
_SPACES = "\u205f\u3000\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f"
"""White space that is trimmed like any other, but hardly ever occurs. One is put between edge white space and the rest
of a text: where it is gone from the render, so is the edge."""

Segment = tuple[int, int, int, int]
"""(begin, end, message, part): characters of the render."""


@dataclass(slots=True)
class _Leaf:
    """One text of the conversation. ``pieces`` are its spans (in the text) that are marked, the rest between them are
    triggers and white space."""

    message: int
    part: int
    text: str
    call: int = -1
    pieces: list[tuple[int, int]] = field(default_factory=list)
    seen: list[tuple[int, int]] = field(default_factory=list)
    """What of ``text`` was found in the render."""


class Marker:
    """Wraps the texts of one conversation. Use a new one per conversation and attempt."""

    def __init__(self, plane: int, space: str, splitter: re.Pattern[str] | None) -> None:
        self.leaves: list[_Leaf] = []
        self._plane = plane
        self._space = space
        self._splitter = splitter
        self._marks = 0

    def wrap(self, text: str, message: int, part: int, call: int = -1) -> str:
        if not text.strip():
            return text
        leaf = _Leaf(message, part, text, call)
        self.leaves.append(leaf)
        first, last = len(text) - len(text.lstrip()), len(text.rstrip())
        pieces: list[str] = []
        kept = 0
        for begin, end in self._between_triggers(text):
            stripped = text[begin:end].strip()
            if not stripped or self._marks + 2 > _PLANE_SIZE:
                continue
            begin = text.index(stripped, begin, end)
            end = begin + len(stripped)
            opening = chr(self._plane + self._marks)
            closing = chr(self._plane + self._marks + 1)
            if 0 < begin == first:
                opening = self._space + opening
            if end == last < len(text):
                closing += self._space
            self._marks += 2
            leaf.pieces.append((begin, end))
            pieces += [text[kept:begin], opening, stripped, closing]
            kept = end
        pieces.append(text[kept:])
        return "".join(pieces)

    def _between_triggers(self, text: str) -> Iterable[tuple[int, int]]:
        if self._splitter is None:
            return [(0, len(text))]
        spans, position = [], 0
        for trigger in self._splitter.finditer(text):
            spans.append((position, trigger.start()))
            position = trigger.end()
        spans.append((position, len(text)))
        return spans

    def pattern(self) -> re.Pattern[str]:
        last = chr(self._plane + max(self._marks - 1, 0))
        return re.compile(f"([{chr(self._plane)}-{last}{self._space}])")

    def read(self, marked: str, expected: str) -> list[tuple[int, int, int, tuple[int, int]]] | None:
        """The spans of a marked render as (begin, end, leaf, span in the leaf's text), None when it isn't
        ``expected`` with marks in it."""
        parts = self.pattern().split(marked)
        if "".join(parts[0::2]) != expected:
            return None
        owner = [(number, piece) for number, leaf in enumerate(self.leaves) for piece in leaf.pieces]
        spaces: set[int] = set()
        opened: dict[int, int] = {}
        spans = []
        position = len(parts[0])
        for mark, text in zip(parts[1::2], parts[2::2], strict=True):
            if mark == self._space:
                spaces.add(position)
            else:
                index, closing = divmod(ord(mark) - self._plane, 2)
                if not closing:
                    opened[index] = position
                elif index in opened:
                    spans.append((opened.pop(index), position, *owner[index]))
            position += len(text)
        return self._widen(sorted(spans), spaces, expected)

    def _widen(
        self, spans: list[tuple[int, int, int, tuple[int, int]]], spaces: set[int], render: str
    ) -> list[tuple[int, int, int, tuple[int, int]]]:
        """Take in what stands between and around the marked pieces: triggers and white space of the same text."""
        found: list[tuple[int, int, int, tuple[int, int]]] = []
        for number, (begin, end, index, (first, last)) in enumerate(spans):
            leaf = self.leaves[index]
            floor = found[-1][1] if found else 0
            before = bisect_left(leaf.pieces, (first, last))
            gap_start = leaf.pieces[before - 1][1] if before else 0
            gap = leaf.text[gap_start:first]
            if gap.isspace() and not before:
                kept = _common_suffix(render[floor:begin], gap) if self._kept(begin, spaces) else 0
                begin, first = begin - kept, first - kept
            elif gap and begin - len(gap) >= floor and render.startswith(gap, begin - len(gap)):
                begin, first = begin - len(gap), gap_start
            elif literal := gap.strip():
                head = render.rfind(literal, floor, begin)
                if head >= 0 and not render[head + len(literal) : begin].strip():
                    at = leaf.text.index(literal, gap_start)
                    found.append((head, head + len(literal), index, (at, at + len(literal))))
            if before == len(leaf.pieces) - 1:
                ceiling = spans[number + 1][0] if number + 1 < len(spans) else len(render)
                tail = leaf.text[last:]
                if tail.isspace():
                    kept = common_prefix(render[end:ceiling], tail) if self._kept(end, spaces) else 0
                    end, last = end + kept, last + kept
                elif tail and end + len(tail) <= ceiling and render.startswith(tail, end):
                    end, last = end + len(tail), len(leaf.text)
                elif literal := tail.strip():
                    head = render.find(literal, end, ceiling)
                    if head >= 0 and not render[end:head].strip():
                        found.append((begin, end, index, (first, last)))
                        at = leaf.text.index(literal, last)
                        begin, end, first, last = head, head + len(literal), at, at + len(literal)
            found.append((begin, end, index, (first, last)))
        return found

    def _kept(self, position: int, spaces: set[int]) -> bool:
        return not self._space or position in spaces


def common_prefix(left: str, right: str) -> int:
    """How many characters the two strings share at their beginnings."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _common_suffix(left: str, right: str) -> int:
    """How many characters the two strings share at their ends."""
    return common_prefix(left[: -len(right) - 1 : -1], right[::-1])


def marked_messages(messages: Sequence[dict[str, Any]], marker: Marker) -> FrozenList:
    """The messages as a template sees them, with every text marked."""
    return FrozenList([_marked_message(message, number, marker) for number, message in enumerate(messages)])


def _marked_message(message: dict[str, Any], number: int, marker: Marker) -> FrozenDict:
    marked: dict[str, Any] = {}
    reasoning: dict[str, str] = {}
    for key, value in message.items():
        if value is None:
            continue
        if key == "content":
            marked[key] = _marked_content(value, number, marker)
        elif key in REASONING_FIELDS and isinstance(value, str):
            if value not in reasoning:
                reasoning[value] = marker.wrap(value, number, PART_REASONING)
            marked[key] = reasoning[value]
        elif key == "tool_calls" and isinstance(value, list | tuple):
            marked[key] = FrozenList([_marked_call(call, number, index, marker) for index, call in enumerate(value)])
        else:
            marked[key] = plain(value)
    return with_reasoning_aliases(marked)


def _marked_content(value: Any, number: int, marker: Marker) -> Any:
    def wrap(text: str) -> str:
        return marker.wrap(text, number, PART_CONTENT)

    if isinstance(value, list | tuple):
        return FrozenList([_marked_part(part, wrap) for part in value])
    return plain(value, wrap)


def _marked_part(part: Any, wrap: Callable[[str], str]) -> Any:
    """A part of a content: its type stays readable for the template."""
    if isinstance(part, dict) and isinstance(part.get("type"), str):
        return FrozenDict({key: plain(item, wrap if key == "text" else None) for key, item in part.items()})
    return plain(part, wrap)


def _marked_call(call: Any, number: int, index: int, marker: Marker) -> Any:
    def wrap(text: str) -> str:
        return marker.wrap(text, number, PART_TOOL_CALL, index)

    if not isinstance(call, dict):
        return plain(call, wrap)
    marked: dict[str, Any] = {}
    for key, value in call.items():
        if key == "function" and isinstance(value, dict):
            marked[key] = FrozenDict(
                {name: plain(item, wrap if name in ("name", "arguments") else None) for name, item in value.items()}
            )
        else:
            marked[key] = plain(value, wrap if key in ("name", "arguments") else None)
    return FrozenDict(marked)


def marked_tools(tools: Any, marker: Marker) -> Any:
    """The tool definitions with names and descriptions marked."""

    def wrap(text: str) -> str:
        return marker.wrap(text, TOOLS, PART_NONE)

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return FrozenDict(
                {
                    key: wrap(item) if key in ("name", "description") and isinstance(item, str) else walk(item)
                    for key, item in value.items()
                }
            )
        if isinstance(value, list | tuple):
            return FrozenList([walk(item) for item in value])
        return plain(value)

    return walk(tools)


def locate(
    render: str,
    messages: Sequence[dict[str, Any]],
    tools: Any,
    render_marked: Callable[[FrozenList, Any], str | None],
    splitter: re.Pattern[str] | None,
) -> tuple[list[Segment], tuple[Lost, ...]]:
    """The segments that come from messages and tools (sorted, not overlapping, without the scaffold between), and
    what is not in the render. ``render_marked`` renders other messages and tools, None when it fails."""
    texts = json.dumps([messages, tools], ensure_ascii=False, default=str) + render
    plane = next((plane for plane in _PLANES if _free(texts, plane)), None)
    spaces = [space for space in _SPACES if space not in texts][:1]
    marker = Marker(_PLANES[0], "", splitter)
    for space in [*spaces, ""] if plane is not None else []:
        marker = Marker(plane or 0, space, splitter)
        marked = render_marked(marked_messages(messages, marker), marked_tools(tools, marker))
        spans = None if marked is None else marker.read(marked, render)
        if spans is not None:
            for _, _, index, seen in spans:
                marker.leaves[index].seen.append(seen)
            return _segments(render, messages, marker.leaves, spans), _lost(messages, marker.leaves)
    if plane is None:
        marked_messages(messages, marker)
        marked_tools(tools, marker)
    return _segments(render, messages, marker.leaves, _search(render, marker.leaves)), _lost(messages, marker.leaves)


def _free(texts: str, plane: int) -> bool:
    return re.search(f"[{chr(plane)}-{chr(plane + _PLANE_SIZE)}]", texts) is None


def _search(render: str, leaves: list[_Leaf]) -> list[tuple[int, int, int, tuple[int, int]]]:
    """Find each text in the render, behind the one before it, else anywhere that is still free."""
    spans: list[tuple[int, int, int, tuple[int, int]]] = []
    cursor = 0
    for index, leaf in enumerate(leaves):
        targets = [(0, len(leaf.text))]
        if _find(render, leaf.text, cursor, spans) is None and len(leaf.pieces) > 1:
            targets = leaf.pieces
        for begin, end in targets:
            place = _find(render, leaf.text[begin:end], cursor, spans)
            if place is not None:
                leaf.seen.append((begin, end))
                spans.append((*place, index, (begin, end)))
                cursor = place[1] if leaf.message != TOOLS else cursor
    return sorted(spans)


def _find(
    render: str, text: str, cursor: int, taken: list[tuple[int, int, int, tuple[int, int]]]
) -> tuple[int, int] | None:
    quoted = json.dumps(text, ensure_ascii=False)[1:-1]
    for form in dict.fromkeys((text, text.strip(), quoted, quoted.strip(), json.dumps(text)[1:-1])):
        for start in (cursor, 0):
            place = render.find(form, start)
            if form and place >= 0 and not any(b < place + len(form) and place < e for b, e, *_ in taken):
                return place, place + len(form)
    return None


def _segments(
    render: str,
    messages: Sequence[dict[str, Any]],
    leaves: list[_Leaf],
    spans: list[tuple[int, int, int, tuple[int, int]]],
) -> list[Segment]:
    segments: list[Segment] = []
    calls: dict[tuple[int, int], tuple[int, int]] = {}
    tools: tuple[int, int] | None = None
    for begin, end, index, _ in spans:
        leaf = leaves[index]
        if leaf.message == TOOLS:
            tools = (begin, end) if tools is None else (tools[0], end)
        elif leaf.part == PART_TOOL_CALL:
            key = leaf.message, leaf.call
            calls[key] = (calls[key][0] if key in calls else begin, end)
        else:
            segments.append((begin, end, leaf.message, leaf.part))
    for (message, call), (begin, end) in calls.items():
        end = max(end, _arguments_end(render, messages[message]["tool_calls"][call], begin))
        segments.append((begin, end, message, PART_TOOL_CALL))
    if tools is not None:
        segments.append((*tools, TOOLS, PART_NONE))
    return _without_overlaps(segments, render, spans, leaves)


def _without_overlaps(
    segments: list[Segment], render: str, spans: list[tuple[int, int, int, tuple[int, int]]], leaves: list[_Leaf]
) -> list[Segment]:
    """Join what belongs together; where regions of tools or calls were stretched over others, keep their own spans."""
    segments.sort()
    if any(left[1] > right[0] for left, right in pairwise(segments)):
        segments = sorted((begin, end, leaves[index].message, leaves[index].part) for begin, end, index, _ in spans)
    joined: list[Segment] = []
    for begin, end, message, part in segments:
        if joined and joined[-1][1:] == (begin, message, part):
            joined[-1] = (joined[-1][0], end, message, part)
        elif end > begin and not (joined and begin < joined[-1][1]):
            joined.append((begin, end, message, part))
    return joined


def _arguments_end(render: str, call: Any, begin: int) -> int:
    """Where the arguments of a call end, when they are printed as JSON right behind its name; else 0."""
    function = call.get("function", call) if isinstance(call, dict) else None
    arguments = function.get("arguments") if isinstance(function, dict) else None
    if not isinstance(arguments, dict | list):
        return 0
    for separators in ((", ", ": "), (",", ":")):
        text = json.dumps(arguments, ensure_ascii=False, separators=separators, default=str)
        place = render.find(text, begin)
        if 0 <= place <= begin + len(text) + 256:
            return place + len(text)
    return 0


def _lost(messages: Sequence[dict[str, Any]], leaves: list[_Leaf]) -> tuple[Lost, ...]:
    lost: list[Lost] = []
    of_message: dict[int, list[_Leaf]] = {}
    for leaf in leaves:
        of_message.setdefault(leaf.message, []).append(leaf)
    for message, mine in sorted(of_message.items()):
        if message == TOOLS:
            names = [leaf for leaf in mine if not leaf.seen]
            if len(names) == len(mine):
                lost.append(Lost(TOOLS, PART_NONE, _excerpt(mine[0].text), whole_message=True))
        elif not any(leaf.seen for leaf in mine):
            lost.append(Lost(message, mine[0].part, _excerpt(mine[0].text), whole_message=True))
        else:
            # A reasoning given under two names is there when one of them is.
            reasoned = any(leaf.seen for leaf in mine if leaf.part == PART_REASONING)
            for leaf in mine:
                missing = _missing(leaf)
                if missing and not (leaf.part == PART_REASONING and reasoned and not leaf.seen):
                    lost.append(Lost(message, leaf.part, _excerpt(missing)))
    return tuple(lost)


def _missing(leaf: _Leaf) -> str:
    """The first stretch of the text that isn't in the render, "" when all but white space is."""
    position = 0
    for begin, end in [*sorted(leaf.seen), (len(leaf.text), len(leaf.text))]:
        if begin > position and (gap := leaf.text[position:begin].strip()):
            return gap
        position = max(position, end)
    return ""


def _excerpt(text: str) -> str:
    return text.strip()[:EXCERPT_CHARS]


def fill(segments: list[Segment], length: int) -> list[Segment]:
    """The same segments with scaffold between them, so that they cover ``length`` characters without gaps."""
    filled: list[Segment] = []
    position = 0
    for begin, end, message, part in segments:
        if begin > position:
            filled.append((position, begin, SCAFFOLD, PART_NONE))
        filled.append((begin, end, message, part))
        position = end
    if position < length or not filled:
        filled.append((position, length, SCAFFOLD, PART_NONE))
    return filled
