"""Where answers stand in a flat batch, told by the ids of the markers around them.

Unsloth walks each row token by token. Here all rows advance together, one answer a round, over the sorted places at
which anything can happen; what a round decides about a row is what the walk would have decided there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorads.tokenizers.ids import Ids

Positions = npt.NDArray[np.int64]

# What ends an answer. Where several stand at one token, the walk looks for them in this order.
_EOS, _CUT, _LAST, _QUESTION = 0, 1, 2, 3


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


def matches(ids: Ids, wanted: Sequence[int]) -> Positions:
    """Where the ids stand whole within one row."""
    flat, size = ids.flat, len(wanted)
    found = np.flatnonzero(flat == wanted[0])
    for step, number in enumerate(wanted[1:], 1):
        found = found[found < len(flat) - step]
        found = found[flat[found + step] == number]
    if size > 1 and len(found):
        found = found[found + size <= ids.starts[np.searchsorted(ids.starts, found, side="right")]]
    return found


def answers(ids: Ids, search: Search, last_only: bool) -> npt.NDArray[np.bool_]:
    """Which tokens belong to answers; with ``last_only``, to the last answer of each row. Shape (tokens,)."""
    flat, starts = ids.flat, ids.starts
    edges = np.zeros(len(flat) + 1, np.int32)
    begins = matches(ids, search.answer.core)
    row = np.unique(np.searchsorted(starts, begins, side="right") - 1)
    if not len(row):
        return np.zeros(len(flat), np.bool_)
    stops, kinds = _stops(ids, search, begins)
    first, end = starts[row], starts[row + 1]
    at = first.copy()
    kept_begin, kept_end = np.zeros(len(starts) - 1, np.int64), np.zeros(len(starts) - 1, np.int64)
    while len(row):
        place = np.searchsorted(begins, at)
        begin = np.append(begins, len(flat))[place]
        here = begin < end
        row, first, end, begin = row[here], first[here], end[here], begin[here]
        begin = _extend(flat, begin + len(search.answer.core), search.answer.right, end, search.older)
        # A marker that ends the row opens no answer.
        here = begin < end
        row, first, end, begin = row[here], first[here], end[here], begin[here]
        if not len(row):
            break
        place = np.searchsorted(stops, begin)
        stop, kind = stops[place], kinds[place]
        close, at = _close(flat, search, stop, kind, begin, first, end)
        if last_only:
            kept_begin[row], kept_end[row] = begin, close
        else:
            _add(edges, begin, close)
    if last_only:
        _add(edges, kept_begin, kept_end)
    return np.asarray(np.cumsum(edges[:-1]) > 0)


def _add(edges: npt.NDArray[np.int32], begin: Positions, close: Positions) -> None:
    some = close > begin
    np.add.at(edges, begin[some], 1)
    np.add.at(edges, close[some], -1)


def _stops(ids: Ids, search: Search, begins: Positions) -> tuple[Positions, npt.NDArray[np.int8]]:
    """Every place at which an answer may end, and what is there."""
    last = ids.starts[1:][np.diff(ids.starts) > 0] - 1
    found = [(last, _LAST), (matches(ids, search.question.core), _QUESTION)]
    if not search.older:
        found.append((begins, _CUT))
        if search.eos is not None:
            found.append((np.flatnonzero(ids.flat == search.eos), _EOS))
        if search.bos is not None:
            found.append((np.flatnonzero(ids.flat == search.bos), _CUT))
        if search.opener:
            found.append((matches(ids, search.opener), _CUT))
    places = np.concatenate([place for place, _ in found])
    kinds = np.concatenate([np.full(len(place), kind, np.int8) for place, kind in found])
    order = np.lexsort((kinds, places))
    places, kinds = places[order], kinds[order]
    once = np.append(True, places[1:] != places[:-1])
    return places[once], kinds[once]


def _close(
    flat: npt.NDArray[np.int32],
    search: Search,
    stop: Positions,
    kind: npt.NDArray[np.int8],
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
