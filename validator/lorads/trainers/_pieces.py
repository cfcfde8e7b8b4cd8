"""Rows whose parts are tokenized one by one and then joined, as several trainers do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from lorads.templates.render import PART_CONTENT, PART_NONE, SCAFFOLD
from lorads.tokenizers import Ids
from lorads.trainers.base import LabelBatch, LazyTexts, Segments

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer

_scaffolds: WeakKeyDictionary[Tokenizer, dict[str, npt.NDArray[np.int32]]] = WeakKeyDictionary()
_MANY = 4096


class Pieces:
    """Collects the pieces of a batch row by row; ``build`` encodes them all at once. Each piece is one segment.

    A piece is a text that is tokenized by itself, without special tokens, or ids that are given. ``message`` and
    ``part`` say where it comes from (see ``Segments``).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._known = _scaffolds.setdefault(tokenizer, {})
        self._texts: list[str] = []
        self._fixed: list[npt.NDArray[np.int32] | None] = []
        self._trained: list[bool] = []
        self._message: list[int] = []
        self._part: list[int] = []
        self._rows: list[int] = []

    def row(self) -> None:
        """The pieces that follow belong to the next row."""
        self._rows.append(len(self._texts))

    def text(self, text: str, *, trained: bool, message: int, part: int = PART_CONTENT) -> None:
        self._add(text, None, trained, message, part)

    def scaffold(self, text: str, *, trained: bool = False, message: int = SCAFFOLD, part: int = PART_NONE) -> None:
        """A text that many rows share; its ids are remembered."""
        known = self._known.get(text)
        if known is None:
            if len(self._known) >= _MANY:
                self._known.clear()
            known = self._known[text] = self._tokenizer.encode([text]).flat.copy()
        self._add(text, known, trained, message, part)

    def token(self, number: int, text: str = "", *, trained: bool, message: int = SCAFFOLD) -> None:
        """One token by its id, with the text that stands for it in the row's text."""
        self._add(text, np.array([number], np.int32), trained, message, PART_NONE)

    def _add(self, text: str, fixed: npt.NDArray[np.int32] | None, trained: bool, message: int, part: int) -> None:
        self._texts.append(text)
        self._fixed.append(fixed)
        self._trained.append(trained)
        self._message.append(message)
        self._part.append(part)

    def build(self) -> LabelBatch:
        """The rows: everything kept, nothing dropped."""
        count = len(self._texts)
        given = np.fromiter((fixed is not None for fixed in self._fixed), np.bool_, count)
        encoded = self._tokenizer.encode(
            [text for text, fixed in zip(self._texts, self._fixed, strict=True) if fixed is None]
        )
        fixed = [ids for ids in self._fixed if ids is not None]
        lengths = np.zeros(count, np.int64)
        lengths[~given] = np.diff(encoded.starts)
        lengths[given] = np.fromiter(map(len, fixed), np.int64, len(fixed))
        bounds = np.zeros(count + 1, np.int64)
        np.cumsum(lengths, out=bounds[1:])
        flat = np.empty(int(bounds[-1]), np.int32)
        flat[_positions(bounds[:-1][~given], lengths[~given])] = encoded.flat
        if fixed:
            flat[_positions(bounds[:-1][given], lengths[given])] = np.concatenate(fixed)
        rows = np.array([*self._rows, count], np.int64)
        trained = np.repeat(np.array(self._trained, np.bool_), lengths)
        segments = Segments(bounds, np.array(self._message, np.int32), np.array(self._part, np.int8), rows)
        texts = LazyTexts(len(rows) - 1, lambda row: "".join(self._texts[rows[row] : rows[row + 1]]))
        kept = np.ones(len(flat), np.bool_)
        return LabelBatch(
            Ids(flat, bounds[rows]), trained, kept, segments, texts=texts, placed=self._placer(flat, bounds, rows)
        )

    def _placer(
        self, flat: npt.NDArray[np.int32], bounds: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> Callable[[int], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
        def placed(row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            begins, ends = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
            offset = 0
            for piece in range(int(rows[row]), int(rows[row + 1])):
                text, ids = self._texts[piece], flat[bounds[piece] : bounds[piece + 1]]
                if len(ids) == 1:
                    begin, end = np.zeros(1, np.int64), np.full(1, len(text), np.int64)
                else:
                    begin, end = self._tokenizer.place([text], Ids(ids, np.array([0, len(ids)], np.int64))).of(0)
                begins.append(begin + offset)
                ends.append(end + offset)
                offset += len(text)
            return np.concatenate(begins), np.concatenate(ends)

        return placed


def _positions(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """``start, start + 1 … start + length - 1`` of each, one after the other."""
    first = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(int(lengths.sum())) + np.repeat(starts - first, lengths))
