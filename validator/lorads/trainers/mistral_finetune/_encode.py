"""Rows as sequences of control tokens and texts, encoded and put together a batch at a time.

A row's ``Shape`` says which pieces it has: control tokens by their ids, and texts, each encoded by itself. Rows of one
shape differ in their texts alone, and files hold few shapes, so all of a batch's arrays come from those of its shapes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from lorads.templates.render import PART_NONE, SCAFFOLD
from lorads.tokenizers import Ids
from lorads.trainers._pieces import (
    Flags,
    Integers,
    Placed,
    placed_alone,
    placed_as_one,
    placed_in_line,
    ranges,
    running,
)
from lorads.trainers.base import LabelBatch, LazySegments, LazyTexts, Segments

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer

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
    def trained(self) -> Flags:
        return np.array([piece.trained for piece in self.pieces], np.bool_)

    @cached_property
    def sub_counts(self) -> Integers:
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
        shapes = list(dict.fromkeys([NOTHING, *self.shapes]))  # at least one
        kinds = {shape: kind for kind, shape in enumerate(shapes)}
        kind_of = list(map(kinds.__getitem__, self.shapes))
        which = np.array(kind_of, np.int64)
        first = running(np.array([shape.texts for shape in shapes], np.int64)[which])
        self._strip(shapes, which, first)
        sizes = np.array([len(shape.pieces) for shape in shapes], np.int64)
        mine = _gather(sizes, which)
        numbers = np.concatenate([shape.numbers for shape in shapes])[mine]
        trained = np.concatenate([shape.trained for shape in shapes])[mine]
        piece_rows = running(sizes[which])

        encoded = tokenizer.encode(self.texts)
        is_text = numbers < 0
        lengths = np.ones(len(numbers), np.int64)
        lengths[is_text] = np.diff(encoded.starts)
        bounds = running(lengths)
        of_text = np.repeat(is_text, lengths)
        flat = np.empty(len(of_text), np.int32)
        flat[of_text] = encoded.flat
        flat[~of_text] = numbers[~is_text]

        def segments() -> Segments:
            sub_counts = np.concatenate([shape.sub_counts for shape in shapes])[mine]
            sub_sizes = np.array([len(shape.subs) for shape in shapes], np.int64)
            subs = np.concatenate([shape.subs for shape in shapes])[_gather(sub_sizes, which)]
            ends = np.zeros(len(subs) + 1, np.int64)
            ends[1:] = np.repeat(bounds[1:], sub_counts)
            if self.stretches:
                self._cut(tokenizer, encoded, is_text, sub_counts, bounds[:-1], ends)
            return Segments(ends, subs[:, 0], subs[:, 1].astype(np.int8), running(sub_sizes[which]))

        texts, begins, patterns = self.texts, first.tolist(), [shape.pattern for shape in shapes]

        def placed_pieces(row: int) -> Iterator[tuple[int, Placed]]:
            text = begins[row]
            for piece in self.shapes[row].pieces:
                if piece.token is not None:
                    yield len(piece.token), placed_as_one(piece.token)
                else:
                    yield len(texts[text]), placed_alone(tokenizer, texts[text], encoded.row(text))
                    text += 1

        return LabelBatch(
            Ids(flat, bounds[piece_rows]),
            np.repeat(trained, lengths),
            np.ones(len(flat), np.bool_),
            LazySegments(segments),
            texts=LazyTexts(
                len(kind_of), lambda row: patterns[kind_of[row]] % tuple(texts[begins[row] : begins[row + 1]])
            ),
            placed=lambda row: placed_in_line(placed_pieces(row)),
        )

    def _strip(self, shapes: list[Shape], which: Integers, first: Integers) -> None:
        counts = np.array([len(shape.answers) for shape in shapes], np.int64)
        inside = np.concatenate([np.array(shape.answers, np.int64) for shape in shapes])[_gather(counts, which)]
        texts = self.texts
        for at in (inside + np.repeat(first[:-1], counts[which])).tolist():
            if texts[at].endswith(" "):
                texts[at] = texts[at].rstrip(" ")

    def _cut(
        self,
        tokenizer: Tokenizer,
        encoded: Ids,
        is_text: Flags,
        sub_counts: Integers,
        begins: Integers,
        bounds: Integers,
    ) -> None:
        """Put the ends of the stretches inside texts that have several into ``bounds``."""
        several = sub_counts > 1
        chosen = np.flatnonzero(several[is_text])
        counts = np.diff(encoded.starts)[chosen]
        ids = Ids(encoded.flat[ranges(encoded.starts[chosen], counts)], running(counts))
        places = tokenizer.place([self.texts[text] for text in chosen.tolist()], ids)
        rows = running(sub_counts[several])
        chars = np.array([size for stretch in self.stretches for size in stretch], np.int64)
        inner = places.borders(chars, rows)
        owner = np.repeat(np.arange(len(chosen)), sub_counts[several])
        np.clip(inner, ids.starts[owner], ids.starts[owner + 1], out=inner)
        inner[rows[1:] - 1] = ids.starts[1:]
        where = np.flatnonzero(np.repeat(several, sub_counts)) + 1
        bounds[where] = inner + (begins[several] - ids.starts[:-1])[owner]


def _gather(sizes: Integers, which: Integers) -> Integers:
    """Positions, in lists of ``sizes`` that lie one behind the other, of all items of the lists ``which``."""
    return ranges(running(sizes)[which], sizes[which])
