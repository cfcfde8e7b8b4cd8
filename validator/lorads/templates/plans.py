"""Renders put together from pieces, for conversations of roles and texts alone.

Most templates print a content as it is. For such a template and a *shape* (the roles, which contents are empty, whether
the generation prompt is wanted) the render is always the same scaffold with the contents between. A plan is that
scaffold. It is only made when renders of very different contents agree on it, and it knows which contents it isn't
good for: those that hold something the template looks for. Those are rendered in full, and so is a sample of the
others, to be compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations, repeat
from operator import contains

import numpy as np
import numpy.typing as npt

from lorads.errors import LoradsError
from lorads.templates.limits import BrokenError, LimitError, RaisedError
from lorads.templates.render import PART_CONTENT, PART_NONE, SCAFFOLD, RenderFailure

GENERATION_MARKS = ("\U000ffff0", "\U000ffff1")
"""Private characters that stand for the borders of a generation block. Not among those of ``marks``."""

MAX_MESSAGES = 512
"""Longer conversations have a shape that hardly any other has."""

RenderContents = Callable[[Sequence[str]], str]
"""Contents in, full render out, with ``GENERATION_MARKS`` in it. Raises RaisedError, BrokenError or LimitError."""


class PlanMismatch(LoradsError):
    """A render put together from pieces differs from the full render: start again with ``Template(plans=False)``."""


_EDGES = (
    ("\n", " "),
    (" ", "\n"),
    ("\t ", "\r\n"),
    ("\n ", " \n"),
    (" \n", "\n "),
    ("\n\n", "\t"),
    ("\u3000", "\xa0"),
    ("\xa0", "\v"),
)
"""White space for the left and the right edge of contents, to find out which the template strips."""

_DIGITS = 4
"""Which of the sentinels is made of digits: triggers hardly ever are."""
_ENOUGH = 3
"""How many sentinels must be free of triggers, where those with triggers get another scaffold."""

_MANY_TRIGGERS = 20
"""Up to how many triggers every pair is tried."""

Trim = str | None
"""Which characters are stripped from one side of a content: those of the string, None for white space."""
KEEP = ""


def _cut_left(trim: Trim, text: str) -> str:
    return text.lstrip(trim) if trim != KEEP else text


def _cut_right(trim: Trim, text: str) -> str:
    return text.rstrip(trim) if trim != KEEP else text


@dataclass(slots=True)
class Plan:
    """How to put a render of one shape together: ``pieces[0] content pieces[1] content … pieces[-1]``."""

    pieces: tuple[str, ...] = ()
    slots: tuple[int, ...] = ()
    """Which message's content stands behind piece k."""
    trims: tuple[tuple[Trim, Trim], ...] | None = None
    """What the template strips left and right of the content in slot k; None when it can't be told."""
    contains: tuple[str, ...] = ()
    """Texts that the template looks for in contents of this shape."""
    equals: frozenset[str] = frozenset()
    lost: tuple[int, ...] = ()
    """Messages of which the template prints nothing."""
    failure: RenderFailure | None = None
    """Set when every conversation of this shape is refused, in these words."""

    segment_chars: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Length of each segment, 0 for those of contents."""
    segment_message: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    segment_part: npt.NDArray[np.int8] = field(default_factory=lambda: np.zeros(0, np.int8))
    columns: tuple[int, ...] = ()
    """Which segment is the content of slot k."""
    generation: tuple[tuple[int, int], ...] = ()
    """Generation blocks, as (first segment, segment behind the last)."""

    def trimmed(self, slot: int, contents: Iterable[str]) -> list[str]:
        """What the template prints of the contents in a slot."""
        left, right = self.trims[slot] if self.trims is not None else (KEEP, KEEP)
        if left == right:
            return list(contents) if left == KEEP else [text.strip(left) for text in contents]
        return [_cut_right(right, _cut_left(left, text)) for text in contents]

    def texts(self, columns: Sequence[Iterable[str]]) -> list[str]:
        """The renders, from the (trimmed) contents of slot 0, of slot 1, …"""
        parts: list[Iterable[str]] = [repeat(self.pieces[0])]
        for column, piece in zip(columns, self.pieces[1:], strict=True):
            parts += [column, repeat(piece)]
        return list(map("".join, zip(*parts, strict=False))) if columns else []

    def text(self, contents: Sequence[str]) -> str:
        """The render of one conversation."""
        columns = [self.trimmed(slot, [contents[message]]) for slot, message in enumerate(self.slots)]
        return self.texts(columns)[0] if columns else self.pieces[0]


def make_plan(
    render: RenderContents, empty: Sequence[bool], contains: Sequence[str], equals: Sequence[str], strips: Sequence[str]
) -> Plan | None:
    """The plan of a shape, None when the template doesn't treat its contents as opaque.

    ``empty`` says for each message whether its content is ""; the others are the template's triggers.
    """
    triggers = {*contains, *(char for chars in strips for char in chars)}
    sentinels = _sentinels(empty)
    plain = [contents for contents in sentinels if not any(t in content for t in triggers for content in contents)]
    plan = _agreed(render, sentinels, empty) or (_agreed(render, plain, empty) if len(plain) >= _ENOUGH else None)
    if plan is None:
        return None
    if plan.failure is None:
        plan.trims = _find_trims(render, plan, empty, [chars for chars in strips if chars.isspace()])
    single = [*contains, *sorted({char for chars in strips for char in chars if not char.isspace()})]
    # Without texts of its own a shape can't hold a trigger.
    if not all(empty):
        mattering = {trigger for trigger in single if _matters(render, plan, empty, _holding(trigger))}
        others = [trigger for trigger in single if trigger not in mattering]
        # Some only matter together: a content that starts with the one and ends with the other.
        if len(others) > _MANY_TRIGGERS:
            mattering.update(others)
        for first, last in permutations(others, 2):
            if not mattering.issuperset((first, last)) and _matters(render, plan, empty, [f"{first}x{last}"]):
                mattering.update((first, last))
        plan.contains = tuple(trigger for trigger in single if trigger in mattering)
        plan.equals = frozenset(trigger for trigger in equals if _matters(render, plan, empty, [trigger]))
        together = [" ".join(single), "x".join(reversed(single))]
        if not plan.contains and single and _matters(render, plan, empty, together):
            plan.contains = tuple(single)
    _lay_out(plan)
    return plan


def _agreed(render: RenderContents, sentinels: list[list[str]], empty: Sequence[bool]) -> Plan | None:
    """The scaffold that all the contents get, or the refusal."""
    scaffolds: list[tuple[tuple[str, ...], tuple[int, ...]]] = []
    failures: list[RenderFailure] = []
    for contents in sentinels:
        try:
            scaffolds.append(_cut(render(contents), contents))
        except RaisedError as error:
            failures.append(RenderFailure("raised", str(error)))
        except (BrokenError, LimitError):
            return None
    if failures:
        refused = not scaffolds and all(failure == failures[0] for failure in failures)
        return Plan(failure=failures[0]) if refused else None
    pieces, slots = scaffolds[0]
    if any(scaffold != scaffolds[0] for scaffold in scaffolds):
        return None
    lost = tuple(message for message, without in enumerate(empty) if not without and message not in slots)
    return Plan(pieces=pieces, slots=slots, lost=lost)


def _sentinels(empty: Sequence[bool]) -> list[list[str]]:
    """Contents as different as they come, each telling its message."""
    forms: list[Callable[[int], str]] = [
        lambda i: chr(0xE000 + i),
        lambda i: f'Q{i}z It\'s "a\\b" <b>&amp;</b> %s {{{{ x }}}} [INST]\nsecond line {i}z',
        lambda i: f"long{i} Wort\n" * 500 + f"end{i}.",
        lambda i: f"日本{i}語 ÄÖß İΣ é😀 {i}、",
        lambda i: f"7{i:05d}7",
        lambda i: f'{{"key{i}": [1, true, null]}}',
    ]
    return [["" if without else form(i) for i, without in enumerate(empty)] for form in forms]


def _cut(text: str, contents: Sequence[str]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """The render without the contents, and whose contents stood in the gaps."""
    number = {content: message for message, content in enumerate(contents) if content}
    if not number:
        return (text,), ()
    parts = re.split(f"({'|'.join(map(re.escape, sorted(number, key=len, reverse=True)))})", text)
    return tuple(parts[0::2]), tuple(number[content] for content in parts[1::2])


def _find_trims(
    render: RenderContents, plan: Plan, empty: Sequence[bool], strips: Sequence[str]
) -> tuple[tuple[Trim, Trim], ...] | None:
    """Which white space around contents the template keeps, found by giving it several kinds.

    ``strips`` are the arguments that the template gives to ``strip`` and its kin.
    """
    trims: list[Trim] = [KEEP, None, *strips]
    left_trims = [set(trims) for _ in plan.slots]
    right_trims = [set(trims) for _ in plan.slots]
    if not plan.slots:
        return ()
    cores = _sentinels(empty)[_DIGITS]
    for left, right in _EDGES:
        try:
            text = render([left + core + right if core else core for core in cores])
        except (RaisedError, BrokenError, LimitError):
            return None
        pieces, slots = _cut(text, cores)
        if slots != plan.slots:
            return None
        for number, (piece, bare) in enumerate(zip(pieces, plan.pieces, strict=True)):
            # The white space kept behind the content before, the bare piece, the white space kept before this one.
            before = right_trims[number - 1] if number else {KEEP}
            here = left_trims[number] if number < len(slots) else {KEEP}
            edge_before, edge_here = (right if number else ""), (left if number < len(slots) else "")
            fitting = [
                (a, b)
                for a in before
                for b in here
                if _cut_right(a, edge_before) + bare + _cut_left(b, edge_here) == piece
            ]
            before.intersection_update({a for a, _ in fitting})
            here.intersection_update({b for _, b in fitting})
    if any(len(found) != 1 for found in [*left_trims, *right_trims]):
        return None
    return tuple((left.pop(), right.pop()) for left, right in zip(left_trims, right_trims, strict=True))


def _holding(trigger: str) -> list[str]:
    """Texts with a trigger at the start, at the end, within, more than once and alone."""
    texts = [f"Ab {trigger} cd", f"{trigger}Ab", f"Ab{trigger}", f"x{trigger}y\n{trigger}\nz", trigger]
    return [text for text in texts if text.strip()]


def _matters(render: RenderContents, plan: Plan, empty: Sequence[bool], texts: Sequence[str]) -> bool:
    """True when the template renders one of the texts in another way than the plan does."""
    for text in texts:
        if plan.trims is None and text != text.strip():
            continue  # contents with white space at the edges are rendered in full anyway
        contents = ["" if without else text for without in empty]
        try:
            full = render(contents)
        except RaisedError as error:
            if plan.failure != RenderFailure("raised", str(error)):
                return True
            continue
        except (BrokenError, LimitError):
            return True
        if plan.failure is not None or full != plan.text(contents):
            return True
    return False


def _lay_out(plan: Plan) -> None:
    """Cut the pieces at generation marks, take the marks out and note the segments."""
    chars: list[int] = []
    message: list[int] = []
    columns: list[int] = []
    generation: list[tuple[int, int]] = []
    opened: list[int] = []
    begin, end = GENERATION_MARKS
    for number, piece in enumerate(plan.pieces):
        for text in re.split(f"([{begin}{end}])", piece):
            if text == begin:
                opened.append(len(chars))
            elif text == end:
                if opened:
                    generation.append((opened.pop(), len(chars)))
            elif text:
                chars.append(len(text))
                message.append(SCAFFOLD)
        if number < len(plan.slots):
            columns.append(len(chars))
            chars.append(0)
            message.append(plan.slots[number])
    plan.pieces = tuple(piece.replace(begin, "").replace(end, "") for piece in plan.pieces)
    plan.segment_chars = np.array(chars, np.int64)
    plan.segment_message = np.array(message, np.int32)
    plan.segment_part = np.where(plan.segment_message == SCAFFOLD, PART_NONE, PART_CONTENT).astype(np.int8)
    plan.columns = tuple(columns)
    plan.generation = tuple(generation)


def unfit_rows(plan: Plan, columns: Sequence[Sequence[str]]) -> set[int]:
    """Positions of the rows that the plan isn't good for. ``columns`` are the contents by message."""
    unfit: set[int] = set()
    for column in columns:
        stripped = list(map(str.strip, column))
        if not all(stripped):
            unfit.update(i for i, text in enumerate(stripped) if not text and column[i])
        # str.strip gives back the same object when there is nothing to strip, and lists compare identity first.
        if plan.trims is None and plan.failure is None and stripped != list(column):
            unfit.update(i for i, text in enumerate(stripped) if text is not column[i])
    for trigger in plan.contains:
        for column in columns:
            if any(map(contains, column, repeat(trigger))):
                unfit.update(i for i, text in enumerate(column) if trigger in text)
    if plan.equals:
        longest = max(map(len, plan.equals)) + 16
        for column in columns:
            unfit.update(i for i, text in enumerate(column) if len(text) <= longest and text.strip() in plan.equals)
    return unfit
