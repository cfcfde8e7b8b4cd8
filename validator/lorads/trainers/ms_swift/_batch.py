"""A batch of rows out of pieces: which texts are tokenized, and where their tokens go.

Rows of one shape (the same roles, nothing unusual in their contents) are put together column by column from one plan;
every other row brings its own pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from lorads.templates.render import PART_NONE, SCAFFOLD
from lorads.tokenizers import Ids
from lorads.trainers.base import LabelBatch, Segments, segments_of
from lorads.trainers.ms_swift._encode import Part, Piece

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer

_known: WeakKeyDictionary[Tokenizer, dict[str, tuple[int, ...]]] = WeakKeyDictionary()
_MANY = 4096


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
    texts: list[str] = field(default_factory=list)
    chars: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """Length in characters of each segment of the texts, in chunks."""
    message: list[npt.NDArray[np.int32]] = field(default_factory=list)
    part: list[npt.NDArray[np.int8]] = field(default_factory=list)
    counts: list[npt.NDArray[np.int64]] = field(default_factory=list)
    """How many segments each text has, in chunks."""
    fixed: list[tuple[int, ...]] = field(default_factory=list)
    fixed_texts: list[str] = field(default_factory=list)
    _numbers: dict[tuple[int, ...] | str, int] = field(default_factory=dict)

    def ids(self, ids: tuple[int, ...]) -> int:
        """The number (below 0) of known ids."""
        found = self._numbers.get(ids)
        if found is None:
            self.fixed.append(ids)
            self.fixed_texts.append("".join(map(self.tokenizer.token_text, ids)))
            found = self._numbers[ids] = -len(self.fixed)
        return found

    def scaffold(self, text: str) -> int:
        """The number (below 0) of a text that many rows share."""
        found = self._numbers.get(text)
        if found is None:
            known = _known.setdefault(self.tokenizer, {})
            if text not in known:
                if len(known) >= _MANY:
                    known.clear()
                known[text] = tuple(self.tokenizer.encode([text]).flat.tolist())
            self.fixed.append(known[text])
            self.fixed_texts.append(text)
            found = self._numbers[text] = -len(self.fixed)
        return found


class Batch:
    """Collects rows in any order; ``build`` makes a ``LabelBatch`` of them."""

    def __init__(self, tokenizer: Tokenizer, rows: int) -> None:
        self.sources = Sources(tokenizer)
        self._tokenizer = tokenizer
        self._counts = np.zeros(rows, np.int64)
        self._texts = [""] * rows
        self._groups: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]] = []
        # rows that come alone: their texts stand behind those of the groups
        self._rows: list[int] = []
        self._numbers: list[int] = []
        self._trained: list[bool] = []
        self._own_texts: list[str] = []
        self._own_parts: list[Part] = []
        self._own_counts: list[int] = []

    def put_group(self, rows: list[int], contents: Sequence[Sequence[str]], plan: list[PlanPiece]) -> None:
        """Rows of one plan; ``contents`` are columns: the k-th content of every row."""
        sources, count = self.sources, len(rows)
        where = np.array(rows, np.int64)
        numbers = np.empty((count, len(plan)), np.int64)
        columns: list[Sequence[str]] = []
        for p, piece in enumerate(plan):
            if piece.ids is not None or all(isinstance(part[0], str) for part in piece.parts):
                text = "".join(str(part[0]) for part in piece.parts)
                fixed = sources.scaffold(text) if piece.ids is None else sources.ids(piece.ids)
                numbers[:, p] = fixed
                columns.append([sources.fixed_texts[-fixed - 1]] * count)
                continue
            texts = _column(piece, contents, count)
            first = len(sources.texts)
            sources.texts += texts
            columns.append(texts)
            numbers[:, p] = np.arange(first, first + count)
            chars = np.empty((count, len(piece.parts)), np.int64)
            for k, (part, _, _) in enumerate(piece.parts):
                chars[:, k] = (
                    len(part) if isinstance(part, str) else np.fromiter(map(len, contents[part]), np.int64, count)
                )
            sources.chars.append(chars.ravel())
            sources.message.append(np.tile(np.array([part[1] for part in piece.parts], np.int32), count))
            sources.part.append(np.tile(np.array([part[2] for part in piece.parts], np.int8), count))
            sources.counts.append(np.full(count, len(piece.parts), np.int64))
        self._counts[where] = len(plan)
        trained = np.tile(np.array([piece.trained for piece in plan], np.bool_), count)
        self._groups.append((where, numbers.ravel(), trained))
        for row, pieces in zip(rows, zip(*columns, strict=True), strict=True):
            self._texts[row] = "".join(pieces)

    def put(self, row: int, pieces: list[Piece]) -> None:
        sources = self.sources
        numbers: list[int] = []
        texts: list[str] = []
        for piece in pieces:
            if piece.ids is not None:
                numbers.append(sources.ids(piece.ids))
                texts.append(sources.fixed_texts[-numbers[-1] - 1])
                continue
            parts = piece.parts
            text = parts[0].text if len(parts) == 1 else "".join([part.text for part in parts])
            texts.append(text)
            if len(parts) == 1 and parts[0].message == SCAFFOLD:
                numbers.append(sources.scaffold(text))
                continue
            numbers.append(len(self._own_texts))
            self._own_texts.append(text)
            self._own_parts += parts
            self._own_counts.append(len(parts))
        self._counts[row] = len(numbers)
        self._texts[row] = "".join(texts)
        self._rows.append(row)
        self._numbers += numbers
        self._trained += [piece.weight > 0 for piece in pieces]

    def build(self) -> LabelBatch:
        sources = self.sources
        grouped = len(sources.texts)
        self._take_in_own()
        encoded = self._tokenizer.encode(sources.texts)
        texts = len(sources.texts)
        counts = np.concatenate(sources.counts)
        segment_rows = _running(counts)
        chars = np.concatenate(sources.chars)
        places = self._tokenizer.place(sources.texts, encoded)
        message, part = np.concatenate(sources.message), np.concatenate(sources.part)
        inner = segments_of(places, encoded, chars, message, part, segment_rows)
        # the sources behind the texts: ids that are known, one segment each
        lengths = np.array([len(ids) for ids in sources.fixed], np.int64)
        flat = np.concatenate([encoded.flat, *(np.array(ids, np.int32) for ids in sources.fixed)])
        starts = np.concatenate([encoded.starts, encoded.starts[-1] + np.cumsum(lengths)])
        seg_lengths = np.concatenate([np.diff(inner.bounds), lengths])
        seg_message = np.concatenate([message, np.full(len(lengths), SCAFFOLD, np.int32)])
        seg_part = np.concatenate([part, np.full(len(lengths), PART_NONE, np.int8)])
        seg_starts = np.concatenate([segment_rows, segment_rows[-1] + 1 + np.arange(len(lengths))])
        # pieces in the order of rows
        piece_rows = _running(self._counts)
        number = np.empty(int(piece_rows[-1]), np.int64)
        trained = np.empty(len(number), np.bool_)
        for where, numbers, flags in self._groups:
            width = len(numbers) // len(where)
            at = (piece_rows[where][:, None] + np.arange(width)).ravel()
            number[at], trained[at] = numbers, flags
        if self._rows:
            own = np.array(self._rows, np.int64)
            at = _positions(piece_rows[own], self._counts[own])
            numbers = np.array(self._numbers, np.int64)
            number[at], trained[at] = np.where(numbers < 0, numbers, numbers + grouped), self._trained
        number = np.where(number < 0, texts - 1 - number, number)
        piece_lengths = starts[number + 1] - starts[number]
        bounds = _running(piece_lengths)
        ids = Ids(flat[_positions(starts[number], piece_lengths)], bounds[piece_rows])
        seg_counts = seg_starts[number + 1] - seg_starts[number]
        picked = _positions(seg_starts[number], seg_counts)
        segments = Segments(
            _running(seg_lengths[picked]), seg_message[picked], seg_part[picked], _running(seg_counts)[piece_rows]
        )
        return LabelBatch(
            ids,
            np.repeat(trained, piece_lengths),
            np.ones(len(ids.flat), np.bool_),
            segments,
            texts=self._texts,
            placed=self._placer(number, bounds, piece_rows, ids),
        )

    def _take_in_own(self) -> None:
        sources, parts = self.sources, self._own_parts
        sources.texts += self._own_texts
        sources.chars.append(np.array([len(part.text) for part in parts], np.int64))
        sources.message.append(np.array([part.message for part in parts], np.int32))
        sources.part.append(np.array([part.part for part in parts], np.int8))
        sources.counts.append(np.array(self._own_counts, np.int64))

    def _placer(
        self, number: npt.NDArray[np.int64], bounds: npt.NDArray[np.int64], piece_rows: npt.NDArray[np.int64], ids: Ids
    ) -> Callable[[int], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        sources, tokenizer = self.sources, self._tokenizer
        texts = len(sources.texts)

        def placed(row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            begins, ends = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
            offset = 0
            for piece in range(int(piece_rows[row]), int(piece_rows[row + 1])):
                mine = ids.flat[bounds[piece] : bounds[piece + 1]]
                source = int(number[piece])
                known = source >= texts
                text = sources.fixed_texts[source - texts] if known else sources.texts[source]
                if known and len(mine) == 1:
                    begin, end = np.zeros(1, np.int64), np.full(1, len(text), np.int64)
                elif known and tokenizer.encode([text]).flat.tolist() != mine.tolist():
                    end = np.cumsum([len(tokenizer.token_text(int(token))) for token in mine])
                    begin = end - np.diff(end, prepend=0)
                else:
                    begin, end = tokenizer.place([text], Ids(mine, np.array([0, len(mine)], np.int64))).of(0)
                begins.append(begin + offset)
                ends.append(end + offset)
                offset += len(text)
            return np.concatenate(begins), np.concatenate(ends)

        return placed


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


def _running(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    out = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=out[1:])
    return out


def _positions(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``start … start + length - 1`` of each, one after the other."""
    first = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(starts - first, lengths))
