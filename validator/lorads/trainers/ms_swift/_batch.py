"""A batch of rows out of pieces: which texts are tokenized, and where their tokens go.

Rows of one shape (the same roles, nothing unusual in their contents) are put together column by column from one plan;
every other row brings its own pieces.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
from lorads.trainers.base import LabelBatch, LazySegments, LazyTexts, Segments, segments_of
from lorads.trainers.ms_swift._encode import Part, Piece

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer

MAX_KNOWN = 4096


@dataclass(slots=True)
class PlanPiece:
    """A piece of many rows: its parts are texts, or numbers of a row's contents."""

    parts: list[tuple[str | int, int, int]]
    """Text or number of a content; message; part."""
    ids: tuple[int, ...] | None
    trained: bool


@dataclass(slots=True)
class Sources:
    """Texts to tokenize, and ids that are known; both are sources of pieces."""

    tokenizer: Tokenizer
    known: dict[str, tuple[int, ...]]
    """Ids of texts that many rows share, from batch to batch."""
    texts: list[str] = field(default_factory=list)
    fixed: list[tuple[int, ...]] = field(default_factory=list)
    fixed_texts: list[str] = field(default_factory=list)
    _numbers: dict[tuple[int, ...] | str, int] = field(default_factory=dict)

    def ids(self, ids: tuple[int, ...]) -> int:
        """The number (below 0) of known ids."""
        found = self._numbers.get(ids)
        return self._fix(ids, "".join(map(self.tokenizer.token_text, ids)), ids) if found is None else found

    def scaffold(self, text: str) -> int:
        """The number (below 0) of a text that many rows share."""
        found = self._numbers.get(text)
        if found is not None:
            return found
        ids = self.known.get(text)
        if ids is None:
            if len(self.known) >= MAX_KNOWN:
                self.known.clear()
            ids = self.known[text] = tuple(self.tokenizer.encode([text]).flat.tolist())
        return self._fix(text, text, ids)

    def _fix(self, key: tuple[int, ...] | str, text: str, ids: tuple[int, ...]) -> int:
        self.fixed.append(ids)
        self.fixed_texts.append(text)
        number = self._numbers[key] = -len(self.fixed)
        return number

    def text(self, number: int) -> str:
        """The text of a source, those of known ids counted behind the others."""
        return self.texts[number] if number < len(self.texts) else self.fixed_texts[number - len(self.texts)]


class Batch:
    """Collects rows in any order; ``build`` makes a ``LabelBatch`` of them."""

    def __init__(self, tokenizer: Tokenizer, known: dict[str, tuple[int, ...]], rows: int) -> None:
        self._tokenizer, self._sources = tokenizer, Sources(tokenizer, known)
        self._counts = np.zeros(rows, np.int64)
        self._groups: list[tuple[Integers, Integers, Flags]] = []
        # the pieces of groups that are texts, in the order of the texts
        self._columns: list[tuple[PlanPiece, Sequence[Sequence[str]], int]] = []
        # rows that come alone: their texts stand behind those of the groups
        self._rows: list[int] = []
        self._numbers: list[int] = []
        self._trained: list[bool] = []
        self._own_texts: list[str] = []
        self._own_parts: list[Part] = []
        self._own_counts: list[int] = []

    def put_group(self, rows: list[int], contents: Sequence[Sequence[str]], plan: list[PlanPiece]) -> None:
        """Rows of one plan; ``contents`` are columns: the k-th content of every row."""
        sources, count = self._sources, len(rows)
        where = np.array(rows, np.int64)
        numbers = np.empty((count, len(plan)), np.int64)
        for p, piece in enumerate(plan):
            if piece.ids is not None or all(isinstance(part[0], str) for part in piece.parts):
                text = "".join(str(part[0]) for part in piece.parts)
                numbers[:, p] = sources.scaffold(text) if piece.ids is None else sources.ids(piece.ids)
                continue
            first = len(sources.texts)
            sources.texts += _column(piece, contents, count)
            self._columns.append((piece, contents, count))
            numbers[:, p] = np.arange(first, first + count)
        self._counts[where] = len(plan)
        trained = np.tile(np.array([piece.trained for piece in plan], np.bool_), count)
        self._groups.append((where, numbers.ravel(), trained))

    def put(self, row: int, pieces: list[Piece]) -> None:
        sources = self._sources
        numbers: list[int] = []
        for piece in pieces:
            if piece.ids is not None:
                numbers.append(sources.ids(piece.ids))
                continue
            parts = piece.parts
            text = parts[0].text if len(parts) == 1 else "".join([part.text for part in parts])
            if len(parts) == 1 and parts[0].message == SCAFFOLD:
                numbers.append(sources.scaffold(text))
                continue
            numbers.append(len(self._own_texts))
            self._own_texts.append(text)
            self._own_parts += parts
            self._own_counts.append(len(parts))
        self._counts[row] = len(numbers)
        self._rows.append(row)
        self._numbers += numbers
        self._trained += [piece.weight > 0 for piece in pieces]

    def build(self) -> LabelBatch:
        sources = self._sources
        grouped = len(sources.texts)
        sources.texts += self._own_texts
        encoded = self._tokenizer.encode(sources.texts)
        # the sources behind the texts: ids that are known
        lengths = np.array([len(ids) for ids in sources.fixed], np.int64)
        flat = np.concatenate([encoded.flat, *(np.array(ids, np.int32) for ids in sources.fixed)])
        starts = np.concatenate([encoded.starts, encoded.starts[-1] + np.cumsum(lengths)])
        number, trained, rows = self._in_order(grouped)
        counts = starts[number + 1] - starts[number]
        bounds = running(counts)
        ids = Ids(flat[ranges(starts[number], counts)], bounds[rows])

        def pieces_of(row: int) -> list[int]:
            found: list[int] = number[rows[row] : rows[row + 1]].tolist()
            return found

        def placed_pieces(row: int) -> Iterator[tuple[int, Placed]]:
            for source in pieces_of(row):
                text = sources.text(source)
                yield len(text), self._placed(source, text, flat[starts[source] : starts[source + 1]])

        return LabelBatch(
            ids,
            np.repeat(trained, counts),
            np.ones(len(ids.flat), np.bool_),
            LazySegments(lambda: self._segments(encoded, lengths, number, rows)),
            texts=LazyTexts(len(self._counts), lambda row: "".join(map(sources.text, pieces_of(row)))),
            placed=lambda row: placed_in_line(placed_pieces(row)),
        )

    def _in_order(self, grouped: int) -> tuple[Integers, Flags, Integers]:
        """The source of each piece of the rows, whether it is trained, and where the pieces of each row begin.
        ``grouped`` texts stand in front of those of rows that came alone."""
        rows = running(self._counts)
        number = np.empty(int(rows[-1]), np.int64)
        trained = np.empty(len(number), np.bool_)
        for where, numbers, flags in self._groups:
            width = len(numbers) // len(where)
            at = (rows[where][:, None] + np.arange(width)).ravel()
            number[at], trained[at] = numbers, flags
        if self._rows:
            own = np.array(self._rows, np.int64)
            at = ranges(rows[own], self._counts[own])
            numbers = np.array(self._numbers, np.int64)
            number[at], trained[at] = np.where(numbers < 0, numbers, numbers + grouped), self._trained
        return np.where(number < 0, len(self._sources.texts) - 1 - number, number), trained, rows

    def _segments(self, encoded: Ids, fixed: Integers, number: Integers, rows: Integers) -> Segments:
        """Those of the texts as they were counted in characters, one for each of the known ids (``fixed`` long)."""
        own = self._own_parts
        chars, message, part, widths = (
            np.concatenate(chunks)
            for chunks in zip(
                *(_column_segments(*column) for column in self._columns),
                (
                    np.array([len(part.text) for part in own], np.int64),
                    np.array([part.message for part in own], np.int32),
                    np.array([part.part for part in own], np.int8),
                    np.array(self._own_counts, np.int64),
                ),
                strict=True,
            )
        )
        of_texts = running(widths)
        places = self._tokenizer.place(self._sources.texts, encoded)
        inner = segments_of(places, encoded, chars, message, part, of_texts)
        lengths = np.concatenate([np.diff(inner.bounds), fixed])
        message = np.concatenate([message, np.full(len(fixed), SCAFFOLD, np.int32)])
        part = np.concatenate([part, np.full(len(fixed), PART_NONE, np.int8)])
        starts = np.concatenate([of_texts, of_texts[-1] + 1 + np.arange(len(fixed))])
        counts = starts[number + 1] - starts[number]
        picked = ranges(starts[number], counts)
        return Segments(running(lengths[picked]), message[picked], part[picked], running(counts)[rows])

    def _placed(self, source: int, text: str, ids: npt.NDArray[np.int32]) -> Placed:
        if source >= len(self._sources.texts):
            if len(ids) == 1:
                return placed_as_one(text)
            if self._tokenizer.encode([text]).flat.tolist() != ids.tolist():
                end = np.cumsum([len(self._tokenizer.token_text(int(token))) for token in ids])
                return end - np.diff(end, prepend=0), end
        return placed_alone(self._tokenizer, text, ids)


def _column(piece: PlanPiece, contents: Sequence[Sequence[str]], count: int) -> list[str]:
    """The piece's text in every row."""
    parts = [part[0] for part in piece.parts]
    if len(parts) == 1 and isinstance(parts[0], int):
        return list(contents[parts[0]])
    slots = [part for part in parts if isinstance(part, int)]
    if len(slots) == 1:
        at = parts.index(slots[0])
        before, behind = "".join(map(str, parts[:at])), "".join(map(str, parts[at + 1 :]))
        return [before + content + behind for content in contents[slots[0]]]
    columns = [[part] * count if isinstance(part, str) else contents[part] for part in parts]
    return list(map("".join, zip(*columns, strict=True)))


def _column_segments(
    piece: PlanPiece, contents: Sequence[Sequence[str]], count: int
) -> tuple[Integers, npt.NDArray[np.int32], npt.NDArray[np.int8], Integers]:
    """Of the piece's segments in every row: characters, message, part; and how many each text has."""
    chars = np.empty((count, len(piece.parts)), np.int64)
    for k, (part, _, _) in enumerate(piece.parts):
        chars[:, k] = len(part) if isinstance(part, str) else np.fromiter(map(len, contents[part]), np.int64, count)
    return (
        chars.ravel(),
        np.tile(np.array([part[1] for part in piece.parts], np.int32), count),
        np.tile(np.array([part[2] for part in piece.parts], np.int8), count),
        np.full(count, len(piece.parts), np.int64),
    )
