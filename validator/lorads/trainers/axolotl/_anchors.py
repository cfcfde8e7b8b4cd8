"""Where turns stand, told by the added tokens around them.

Counting characters for every token is dear. In most templates an added token stands in front of a turn and one behind
it: for conversations of one shape (their roles) they have the same numbers among the row's added tokens, as long as no
content holds one, and between them and the content always the same few ids. Where they are not the same, because the
content grew together with what stands beside it, the characters decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lorads.templates.render import PART_CONTENT
from lorads.trainers.axolotl._spans import plain_conversation

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
PLAIN = "x"
_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class _Anchor:
    """``before``: number of the added token in front among those of the row (-1: the row's beginning), ``head``: the
    ids between it and the content; ``behind`` (-1: the row's end) and ``tail`` likewise."""

    before: int
    head: tuple[int, ...]
    behind: int
    tail: tuple[int, ...]


@dataclass(slots=True)
class _Shape:
    added: int = 0
    """How many added tokens the scaffold has."""
    turns: dict[int, _Anchor] = field(default_factory=dict)


class Anchors:
    def __init__(self, template: Template, tokenizer: Tokenizer, steady: Flags, absorbing: frozenset[int]) -> None:
        """``steady`` (vocabulary,): added tokens that take no white space beside them; ``absorbing``: the others."""
        self._template, self._tokenizer = template, tokenizer
        self._steady, self._absorbing = steady, absorbing
        self._shapes: dict[tuple[str, ...], _Shape] = {}
        numbers = np.flatnonzero(steady)
        low, high = numbers[numbers < len(steady) // 2], numbers[numbers >= len(steady) // 2]
        # added tokens stand at the ends of a vocabulary: two comparisons leave few others
        self._up_to = int(low[-1]) if len(low) else -1
        self._from = int(high[0]) if len(high) else len(steady)

    def positions(self, flat: npt.NDArray[np.int32]) -> Integers:
        """Where the added tokens stand."""
        among = flat >= self._from
        if self._up_to >= 0:
            among |= flat <= self._up_to
        found = np.flatnonzero(among)
        return found[self._steady[flat[found]]]

    def find(
        self,
        roles: tuple[str, ...],
        rows: Integers,
        wanted: Sequence[int],
        flat: npt.NDArray[np.int32],
        starts: Integers,
        positions: Integers,
    ) -> list[tuple[int, Integers, Integers, Integers]]:
        """(turn, rows, first tokens, tokens behind the last) for the wanted turns of rows of one shape, as far as they
        can be told."""
        shape = self._shapes.get(roles)
        if shape is None:
            if len(self._shapes) >= _REMEMBERED:
                self._shapes.clear()
            shape = self._shapes[roles] = self._shape(roles)
        first = np.searchsorted(positions, starts[rows])
        rows_fit = np.searchsorted(positions, starts[rows + 1]) - first == shape.added
        rows, first = rows[rows_fit], first[rows_fit]
        out: list[tuple[int, Integers, Integers, Integers]] = []
        for turn in wanted:
            anchor = shape.turns.get(turn)
            if anchor is None or not len(rows):
                continue
            begin = starts[rows] if anchor.before < 0 else positions[first + anchor.before] + 1
            end = starts[rows + 1] if anchor.behind < 0 else positions[first + anchor.behind]
            begin, end = begin + len(anchor.head), end - len(anchor.tail)
            fits = begin < end
            for i, token in enumerate(reversed(anchor.head)):
                fits &= flat[np.maximum(begin - 1 - i, 0)] == token
            last = len(flat) - 1
            for i, token in enumerate(anchor.tail):
                fits &= flat[np.minimum(end + i, last)] == token
            out.append((turn, rows[fits], begin[fits], end[fits]))
        return out

    def _shape(self, roles: tuple[str, ...]) -> _Shape:
        """Found out by a conversation whose contents are nothing but a letter."""
        render = self._template.render([plain_conversation(roles, [PLAIN] * len(roles))])
        if render.failures:
            return _Shape()
        encoded = self._tokenizer.encode(render.texts)
        begins, ends = self._tokenizer.place(render.texts, encoded).of(0)
        ids = encoded.flat.tolist()
        positions = self.positions(encoded.flat).tolist()
        shape = _Shape(len(positions))
        borders = np.concatenate(([0], np.cumsum(render.segment_chars))).tolist()
        contents: list[tuple[int, int, int]] = []
        for i, message in enumerate(render.segment_message.tolist()):
            if message >= 0 and borders[i + 1] > borders[i]:
                if render.segment_part[i] != PART_CONTENT:
                    return _Shape()
                contents.append((message, borders[i], borders[i + 1]))
        messages = [message for message, _, _ in contents]
        for i, (message, begin, end) in enumerate(contents):
            at = [t for t in range(len(ids)) if begins[t] == begin and ends[t] == end]
            if messages.count(message) != 1 or len(at) != 1:
                continue
            floor = contents[i - 1][2] if i else 0
            ceiling = contents[i + 1][1] if i + 1 < len(contents) else borders[-1]
            before = [n for n, t in enumerate(positions) if begins[t] >= floor and t < at[0]]
            behind = [n for n, t in enumerate(positions) if ends[t] <= ceiling and t > at[0]]
            if (not before and i) or (not behind and i + 1 < len(contents)):
                continue
            head = ids[positions[before[-1]] + 1 if before else 0 : at[0]]
            tail = ids[at[0] + 1 : positions[behind[0]] if behind else len(ids)]
            if self._absorbing.isdisjoint(head) and self._absorbing.isdisjoint(tail):
                shape.turns[message] = _Anchor(
                    before[-1] if before else -1, tuple(head), behind[0] if behind else -1, tuple(tail)
                )
        return shape
