"""Where answers stand in a flat batch, told by the ids of the markers around them.

Unsloth walks each row token by token. Here all rows advance together, one answer a round, over the sorted places at
which anything can happen; what a round decides about a row is what the walk would have decided there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from lorads.tokenizers.ids import Ids
from lorads.trainers._whole import inside, matches

Positions = npt.NDArray[np.int64]

# What ends an answer. Where several stand at one token, the walk looks for them in this order.
_EOS, _CUT, _LAST, _QUESTION = 0, 1, 2, 3
_BITS = 2


@dataclass(frozen=True, slots=True)
class Marker:
    """The ids of a marker: what must be there, and what may stand to the left and right of it."""

    core: tuple[int, ...]
    left: tuple[int, ...] = ()
    right: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Search:
    """``older`` walks as unsloth_zoo 2025.3.16: nothing but a question or the row's end ends an answer, optional tokens
    behind a marker are looked for one token too far, and the search goes on one token too late."""

    answer: Marker
    question: Marker
    opener: tuple[int, ...] = ()
    bos: int | None = None
    eos: int | None = None
    older: bool = False


def answers(ids: Ids, search: Search, last_only: bool) -> npt.NDArray[np.bool_]:
    """Which tokens belong to answers; with ``last_only``, to the last answer of each row. Shape (tokens,)."""
    flat, starts = ids.flat, ids.starts
    where = cache(lambda number: np.flatnonzero(flat == number))
    begins = matches(ids, search.answer.core, where(search.answer.core[0]))
    if not len(begins):
        return np.zeros(len(flat), np.bool_)
    stops, kinds = _stops(ids, search, begins, where)
    begin_or_end = np.append(begins, len(flat))
    row, first, end = np.arange(len(starts) - 1), starts[:-1], starts[1:]
    at = first
    last_begin, last_close = np.zeros(len(row), np.int64), np.zeros(len(row), np.int64)
    found = [(last_begin, last_close)]
    while True:
        begin = begin_or_end[np.searchsorted(begins, at)]
        here = begin < end
        row, first, end, begin = row[here], first[here], end[here], begin[here]
        begin = _extend(flat, begin + len(search.answer.core), search.answer.right, end, search.older)
        # A marker that ends the row opens no answer.
        here = begin < end
        row, first, end, begin = row[here], first[here], end[here], begin[here]
        if not len(row):
            break
        place = np.searchsorted(stops, begin)
        close, at = _close(flat, search, stops[place], kinds[place], begin, first, end)
        if last_only:
            last_begin[row], last_close[row] = begin, close
        else:
            found.append((begin, close))
    begin, close = map(np.concatenate, zip(*found, strict=True))
    return inside(begin, close, len(flat))


def _stops(
    ids: Ids, search: Search, begins: Positions, where: Callable[[int], Positions]
) -> tuple[Positions, Positions]:
    """Every place at which an answer may end, and what is there; ``where`` tells where an id stands."""
    found = [(ids.starts[1:][np.diff(ids.starts) > 0] - 1, _LAST)]
    question, opener = search.question.core, () if search.older else search.opener
    if not search.older:
        if search.eos is not None:
            found.append((where(search.eos), _EOS))
        if search.bos is not None:
            found.append((where(search.bos), _CUT))
        if opener:
            found.append((matches(ids, opener, where(opener[0])), _CUT))
        found.append((begins, _CUT))
    if not opener or question[: len(opener)] != opener:  # else an opener stands there, and is looked for first
        found.append((matches(ids, question, where(question[0])), _QUESTION))
    both = np.concatenate([place << _BITS | kind for place, kind in found])  # sorted as one number: places, then kinds
    both.sort(kind="stable")  # a merge: each of them is in order already
    places = both >> _BITS
    once = np.append(True, places[1:] != places[:-1])
    return places[once], both[once] & (1 << _BITS) - 1


def _close(
    flat: npt.NDArray[np.int32],
    search: Search,
    stop: Positions,
    kind: Positions,
    begin: Positions,
    first: Positions,
    end: Positions,
) -> tuple[Positions, Positions]:
    """Where the answers end, and from where on the next ones are looked for."""
    question = search.question
    close = np.where(kind == _EOS, stop + 1, stop)
    following = close.copy()
    turns = kind >= _LAST
    if not turns.any():
        return close, following
    # Before a question, and before the last token of a row too, the question's optional tokens are taken back.
    taken = stop.copy()
    going = turns.copy()
    for number in reversed(question.left):
        going &= taken > first
        going[going] = flat[taken[going] - 1] == number
        taken -= going
    at_end = turns & (taken == end - 1)
    close = np.where(turns, np.where(at_end, end, taken), close)
    behind = stop + len(question.core)
    if search.older and (kind == _LAST).any():
        behind = np.where(kind == _LAST, _left_behind(flat, search, begin, end), behind)
    resume = _extend(flat, behind, question.right, end, search.older) + search.older
    following = np.where(turns, np.where(at_end, end, resume), following)
    if not search.older:
        # The last token is the end of the row, whatever was taken back before it.
        following = np.where(kind == _LAST, end, following)
    return close, following


def _left_behind(flat: npt.NDArray[np.int32], search: Search, begin: Positions, end: Positions) -> Positions:
    """The older walk goes on behind the last token that looked like a question's first, else where the answer began."""
    looks = np.flatnonzero(flat == search.question.core[0])
    place = np.searchsorted(looks, end - 1)
    last = np.append(looks, -1)[place - 1]
    return np.where((place > 0) & (last >= begin), last + len(search.question.core), begin)


def _extend(
    flat: npt.NDArray[np.int32], place: Positions, optional: Sequence[int], end: Positions, older: bool
) -> Positions:
    """``place`` behind the optional tokens that follow it."""
    if not optional:
        return place
    place = place.copy()
    going = np.ones(len(place), np.bool_)
    for number in optional:
        going &= place + older < end
        going[going] = flat[place[going] + older] == number
        place += going
    return place
