"""Rows as sequences of control tokens and texts, encoded and put together a batch at a time.

A row's ``Shape`` says which pieces it has: control tokens by their ids, and texts, each encoded by itself. Rows of one
shape differ in their texts alone, and files hold few shapes, so all of a batch's arrays come from those of its shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from lorads.templates.render import PART_NONE, SCAFFOLD
from lorads.tokenizers import Ids
from lorads.trainers.base import LabelBatch, LazyTexts, Segments

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer

T = TypeVar("T", bound=np.generic)
Sub = tuple[int, int]
"""Message and part of a stretch of a piece (see ``Segments``)."""


class Piece(NamedTuple):
    token: str | None
    """A control token; None for a text."""
    number: int
    trained: bool
    subs: tuple[Sub, ...]
    """What a text is made of; the characters of each are told with the text where there are several."""


def control(token: str, number: int, trained: bool = False) -> Piece:
    return Piece(token, number, trained, ((SCAFFOLD, PART_NONE),))


def written(*subs: Sub, trained: bool = False) -> Piece:
    return Piece(None, -1, trained, subs)


@dataclass(frozen=True, eq=False)
class Shape:
    """The pieces of a row."""

    pieces: tuple[Piece, ...]
    answers: tuple[int, ...] = ()
    """Which of its texts lose the spaces at their end."""

    @cached_property
    def numbers(self) -> npt.NDArray[np.int32]:
        return np.array([piece.number for piece in self.pieces], np.int32)

    @cached_property
    def trained(self) -> npt.NDArray[np.bool_]:
        return np.array([piece.trained for piece in self.pieces], np.bool_)

    @cached_property
    def sub_counts(self) -> npt.NDArray[np.int64]:
        return np.array([len(piece.subs) for piece in self.pieces], np.int64)

    @cached_property
    def subs(self) -> npt.NDArray[np.int32]:
        """Message and part of every stretch, shape (stretches, 2)."""
        return np.array([sub for piece in self.pieces for sub in piece.subs], np.int32).reshape(-1, 2)

    @cached_property
    def texts(self) -> int:
        return sum(piece.token is None for piece in self.pieces)

    @cached_property
    def pattern(self) -> str:
        """The row's text, with ``%s`` for each text."""
        return "".join("%s" if piece.token is None else piece.token.replace("%", "%%") for piece in self.pieces)


NOTHING = Shape(())
"""Of a row that can't be built."""


class Rows:
    """The rows of a batch: each has a shape, and its texts stand in ``texts`` after those of the rows before."""

    def __init__(self) -> None:
        self.shapes: list[Shape] = []
        self.texts: list[str] = []
        self.stretches: list[tuple[int, ...]] = []
        """Characters of each stretch, for the texts that have several, in their order."""

    def build(self, tokenizer: Tokenizer) -> LabelBatch:
        """Ids and which of them are trained; everything kept, nothing dropped."""
        shapes = list(dict.fromkeys(self.shapes))
        kinds = {shape: kind for kind, shape in enumerate(shapes)}
        which_list = list(map(kinds.__getitem__, self.shapes))
        which = np.array(which_list, np.int64)
        first = _running(np.array([shape.texts for shape in shapes], np.int64)[which])
        self._strip(shapes, which, first)
        sizes = np.array([len(shape.pieces) for shape in shapes], np.int64)
        mine = _gather(sizes, which)
        numbers = _joined([shape.numbers for shape in shapes], np.int32)[mine]
        trained = _joined([shape.trained for shape in shapes], np.bool_)[mine]
        sub_counts = _joined([shape.sub_counts for shape in shapes], np.int64)[mine]
        sub_sizes = np.array([len(shape.subs) for shape in shapes], np.int64)
        subs = np.concatenate([np.empty((0, 2), np.int32), *(shape.subs for shape in shapes)])
        subs = subs[_gather(sub_sizes, which)]

        encoded = tokenizer.encode(self.texts)
        is_text = numbers < 0
        lengths = np.ones(len(numbers), np.int64)
        lengths[is_text] = np.diff(encoded.starts)
        ends = np.cumsum(lengths)
        of_text = np.repeat(is_text, lengths)
        flat = np.empty(len(of_text), np.int32)
        flat[of_text] = encoded.flat
        flat[~of_text] = numbers[~is_text]

        bounds = np.zeros(len(subs) + 1, np.int64)
        bounds[1:] = np.repeat(ends, sub_counts)
        if self.stretches:
            self._cut(tokenizer, encoded, is_text, sub_counts, ends - lengths, bounds)
        piece_rows = _running(sizes[which])
        starts = np.append(0, ends)[piece_rows]
        segments = Segments(bounds, subs[:, 0], subs[:, 1].astype(np.int8), _running(sub_sizes[which]))
        every = np.ones(len(flat), np.bool_)
        batch = LabelBatch(Ids(flat, starts), np.repeat(trained, lengths), every, segments)
        texts, patterns, begins = self.texts, [shape.pattern for shape in shapes], first.tolist()
        batch.texts = LazyTexts(
            len(which_list), lambda row: patterns[which_list[row]] % tuple(texts[begins[row] : begins[row + 1]])
        )

        def placed(row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            text = int(first[row])
            starts, stops = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
            offset = 0
            for piece in self.shapes[row].pieces:
                if piece.token is not None:
                    begin, end = np.zeros(1, np.int64), np.full(1, len(piece.token), np.int64)
                    length = len(piece.token)
                else:
                    ids = encoded.row(text)
                    alone = Ids(ids, np.array([0, len(ids)], np.int64))
                    begin, end = tokenizer.place([self.texts[text]], alone).of(0)
                    length = len(self.texts[text])
                    text += 1
                starts.append(begin + offset)
                stops.append(end + offset)
                offset += length
            return np.concatenate(starts), np.concatenate(stops)

        batch.placed = placed
        return batch

    def _strip(self, shapes: list[Shape], which: npt.NDArray[np.int64], first: npt.NDArray[np.int64]) -> None:
        counts = np.array([len(shape.answers) for shape in shapes], np.int64)
        inside = _joined([np.array(shape.answers, np.int64) for shape in shapes], np.int64)[_gather(counts, which)]
        texts = self.texts
        for at in (inside + np.repeat(first[:-1], counts[which])).tolist():
            if texts[at].endswith(" "):
                texts[at] = texts[at].rstrip(" ")

    def _cut(
        self,
        tokenizer: Tokenizer,
        encoded: Ids,
        is_text: npt.NDArray[np.bool_],
        sub_counts: npt.NDArray[np.int64],
        begins: npt.NDArray[np.int64],
        bounds: npt.NDArray[np.int64],
    ) -> None:
        """Put the ends of the stretches inside texts that have several into ``bounds``."""
        several = sub_counts > 1
        chosen = np.flatnonzero(several[is_text])
        counts = np.diff(encoded.starts)[chosen]
        tokens = np.repeat(encoded.starts[chosen] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        ids = Ids(encoded.flat[tokens], _running(counts))
        places = tokenizer.place([self.texts[text] for text in chosen.tolist()], ids)
        rows = _running(sub_counts[several])
        chars = np.array([size for stretch in self.stretches for size in stretch], np.int64)
        inner = places.borders(chars, rows)
        owner = np.repeat(np.arange(len(chosen)), sub_counts[several])
        np.clip(inner, ids.starts[owner], ids.starts[owner + 1], out=inner)
        inner[rows[1:] - 1] = ids.starts[1:]
        where = np.flatnonzero(np.repeat(several, sub_counts)) + 1
        bounds[where] = inner + (begins[several] - ids.starts[:-1])[owner]


def _running(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.append(0, np.cumsum(values)).astype(np.int64)


def _gather(sizes: npt.NDArray[np.int64], which: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Positions, in lists of ``sizes`` that lie one behind the other, of all items of the lists ``which``."""
    counts = sizes[which]
    first = (np.cumsum(sizes) - sizes)[which]
    before = np.cumsum(counts) - counts
    return np.asarray(np.repeat(first - before, counts) + np.arange(int(counts.sum())))


def _joined(arrays: Sequence[npt.NDArray[T]], dtype: type[T]) -> npt.NDArray[T]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)
