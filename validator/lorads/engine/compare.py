"""One row as two trainers see it, token against token."""

from __future__ import annotations

from difflib import SequenceMatcher

from lorads.findings import Comparison, RowView, Stretch


def compare(left: RowView, right: RowView) -> Comparison:
    """The two views, their ids aligned."""
    ours, theirs = [token.id for token in left.tokens], [token.id for token in right.tokens]
    begin = _common(ours, theirs)
    end = _common(ours[begin:][::-1], theirs[begin:][::-1])
    middle = (ours[begin : len(ours) - end], theirs[begin : len(theirs) - end])
    stretches = [Stretch((0, begin), (0, begin), True)] if begin else []
    for kind, a, b, c, d in SequenceMatcher(None, *middle, autojunk=False).get_opcodes():
        stretches.append(Stretch((begin + a, begin + b), (begin + c, begin + d), kind == "equal"))
    if end:
        stretches.append(Stretch((len(ours) - end, len(ours)), (len(theirs) - end, len(theirs)), True))
    return Comparison(left, right, stretches)


def _common(a: list[int], b: list[int]) -> int:
    """How many leading ids two lists share."""
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count
