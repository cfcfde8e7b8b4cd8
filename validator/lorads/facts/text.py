"""What the text of messages holds: look-alikes of special tokens, other families' turn markers, damaged encoding.

A batch is looked at as a whole first, at the speed of memory: one joined string, a few vectorised comparisons. Only
texts that hold something suspicious are read with regular expressions (``markup``, ``damage``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_
from typing import Final

import numpy as np
import numpy.typing as npt

from lorads.facts import damage
from lorads.facts.markup import BARS, WIDE_OPENERS, Markup, SpecialTokens
from lorads.facts.places import Place
from lorads.facts.schema import Hit

_Places = npt.NDArray[np.int64]
_Chars = npt.NDArray[np.uint8] | npt.NDArray[np.uint32]

FACTS: Final = ("confusable", "foreign_markup", "damage")
_EXCERPT: Final = 60

# Bits of ``_FLAGS``: what a character may be the start or part of.
_BAR, _WIDE, _ENTERS, _SUSPECT, _LEAD, _CONTINUATION = 1, 2, 4, 8, 16, 32


@dataclass(slots=True)
class Texts:
    """Every text of a batch of conversations, in order."""

    contents: list[str]
    """Message contents, reasoning, text rows, prompts, completions."""
    about: Callable[[int], tuple[int, int, str, str]]
    """Of the i-th text: index of the conversation in the batch; index of the message (-1 for a text, prompt or
    completion); field (``content``, ``reasoning_content``, ``text``, ``prompt``, ``completion`` …); role of the message
    (``assistant`` for a text and a completion)."""


class Scanner:
    """Looks for the three facts; made once for a tokenizer and a chat template."""

    def __init__(self, special: SpecialTokens, own_template: str | None) -> None:
        self._markup: Final = Markup(special, own_template)
        literals = self._markup.literals
        self._literals: Final = literals
        self._firsts: Final = sorted({ord(literal[0]) for literal in literals} | {ord("<")})
        # Which second and third characters a literal has, by their low bytes: rules out nearly all other places.
        self._seconds: Final = _bytes_at(literals, 1)
        self._thirds: Final = _bytes_at(literals, 2)

    def scan(self, texts: Texts) -> dict[str, dict[int, Hit]]:
        """For each fact of ``FACTS``: index of the conversation → what it holds, the severest first.

        Conversations without a hit are not in the dictionaries.
        """
        marked, broken = self._suspects(texts)
        found: dict[str, dict[int, list[tuple[int, Place]]]] = {fact: {} for fact in FACTS}
        for i in marked:
            _, _, field, role = texts.about(i)
            result = self._markup.find(texts.contents[i], field, role)
            _keep(found["confusable"], texts, i, result.confusable)
            _keep(found["foreign_markup"], texts, i, result.foreign)
        for i in broken:
            _keep(found["damage"], texts, i, damage.places(texts.contents[i]))
        orders = {"damage": damage.SEVEREST_FIRST}
        return {
            fact: dict(_hits(texts, rows, orders.get(fact, ("boundary", "inside")))) for fact, rows in found.items()
        }

    def _suspects(self, texts: Texts) -> tuple[list[int], list[int]]:
        """Indices of the texts that may hold markers, and of those that may be damaged, ascending."""
        marked: set[int] = set()
        broken: set[int] = set()
        plain = list(map(str.isascii, texts.contents))
        for chosen, look in ((plain, self._look_ascii), (list(map(not_, plain)), self._look_unicode)):
            contents = list(compress(texts.contents, chosen))
            # Three line ends more, so that three characters follow every one.
            found = look("\n".join(contents) + "\n\n\n")
            if not any(map(len, found)):
                continue
            group = list(compress(range(len(chosen)), chosen))
            lengths = np.fromiter(map(len, contents), np.int64, len(contents))
            starts = np.cumsum(lengths + 1) - (lengths + 1)
            for places, into in zip(found, (marked, broken), strict=True):
                into.update(group[k] for k in np.unique(np.searchsorted(starts, places, "right") - 1).tolist())
        return sorted(marked), sorted(broken)

    def _look_ascii(self, joined: str) -> tuple[_Places, _Places]:
        """Places in the joined texts at which there may be a marker, and such that may be damaged."""
        chars = np.frombuffer(joined.encode("ascii"), np.uint8)
        marked = self._markers(joined, chars, chars)
        # Below a space or DEL: with unsigned arithmetic one comparison; line ends and tabs are sorted out afterwards.
        low = np.flatnonzero((chars - 32) > 94)
        return marked, low[(_FLAGS[chars[low]] & _SUSPECT) != 0]

    def _look_unicode(self, joined: str) -> tuple[_Places, _Places]:
        chars = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        marked = self._markers(joined, chars, chars.astype(np.uint8))
        odd = np.flatnonzero((chars - 32) > 94)
        flags = _FLAGS.take(chars[odd], mode="clip")
        wide = odd[(flags & _WIDE) != 0]
        wide = wide[(_FLAGS.take(chars[wide + 1], mode="clip") & _ENTERS) != 0]
        invisible = odd[(flags & (_SUSPECT | _ENTERS)) == _SUSPECT | _ENTERS]
        lead = odd[:-1][((flags[:-1] & _LEAD) != 0) & ((flags[1:] & _CONTINUATION) != 0) & (np.diff(odd) == 1)]
        return np.concatenate((marked, wide, invisible)), np.concatenate((odd[(flags & _SUSPECT) != 0], lead))

    def _markers(self, joined: str, chars: _Chars, low: npt.NDArray[np.uint8]) -> _Places:
        """Where ``<`` and a bar stand, or one of the markers that are spelt out. ``low``: the low byte of ``chars``."""
        first = low == self._firsts[0]
        for char in self._firsts[1:]:
            first |= low == char
        at = np.flatnonzero(first)
        barred = (chars[at] == ord("<")) & ((_FLAGS.take(chars[at + 1], mode="clip") & _BAR) != 0)
        spelt = at[self._seconds[low[at + 1]]]
        spelt = spelt[self._thirds[low[spelt + 2]]]
        exact = [place for place in spelt.tolist() if joined.startswith(self._literals, place)]
        return np.concatenate((at[barred], np.array(exact, np.int64)))


def scan(texts: Texts, special: SpecialTokens, own_template: str | None) -> dict[str, dict[int, Hit]]:
    """``Scanner(special, own_template).scan(texts)``, for a single batch."""
    return Scanner(special, own_template).scan(texts)


def _bytes_at(literals: Sequence[str], place: int) -> npt.NDArray[np.bool_]:
    """One flag a byte: whether a literal has a character with this low byte at ``place``; shape (256,)."""
    flags = np.zeros(256, np.bool_)
    flags[[ord(literal[place]) & 0xFF for literal in literals]] = True
    return flags


def _flags() -> npt.NDArray[np.uint8]:
    """Flags of every code point up to U+FFFF; the last entry stands for all that are higher."""
    table = np.zeros(0x10001, np.uint8)
    directions = [0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
    controls = [*range(9), 11, *range(14, 32), *range(0x7F, 0xA0)]
    for chars, flag in (
        (BARS, _BAR),
        (WIDE_OPENERS, _WIDE),
        # What may follow a wide bracket in the look-alike of a token.
        (BARS + damage.ZERO_WIDTH + "／▁" + "".join(map(chr, [*range(0x21, 0x7F), *range(0xFF01, 0xFF5F)])), _ENTERS),
        (damage.ZERO_WIDTH + "\ufffd" + "".join(map(chr, directions + controls)), _SUSPECT),
        (damage.LEADS, _LEAD),
        (damage.CONTINUATION, _CONTINUATION),
    ):
        table[[ord(char) for char in chars]] |= flag
    return table


_FLAGS: Final = _flags()


def _keep(rows: dict[int, list[tuple[int, Place]]], texts: Texts, i: int, places: list[Place]) -> None:
    if places:
        rows.setdefault(texts.about(i)[0], []).extend((i, place) for place in places)


def _hits(
    texts: Texts, rows: dict[int, list[tuple[int, Place]]], severest_first: Sequence[str]
) -> Iterable[tuple[int, Hit]]:
    for row, found in rows.items():
        weak = sum(place.weak for _, place in found)
        alone = weak == 1 and not any(place.code == "mojibake" and not place.weak for _, place in found)
        places = [(i, place) for i, place in found if not (alone and place.weak)]
        if not places:
            continue
        i, first = min(places, key=lambda at: (severest_first.index(at[1].code), at[0], at[1].begin))
        _, message, field, _ = texts.about(i)
        hit = Hit(
            code=first.code,
            field=field,
            begin=first.begin,
            end=first.end,
            text=first.text[:_EXCERPT],
            count=len(places),
        )
        if message >= 0:
            hit["message_index"] = message
        if first.expected is not None:
            hit["expected"] = first.expected
        if first.token_id is not None:
            hit["token_id"] = first.token_id
        if first.detail is not None:
            hit["detail"] = first.detail
        yield row, hit
