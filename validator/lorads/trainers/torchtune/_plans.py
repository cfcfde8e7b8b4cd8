"""Layouts as arrays, so that the rows of a batch are put together all at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lorads.trainers._pieces import Flags, Integers
from lorads.trainers.torchtune._layout import Layout, Piece

Key = tuple[tuple[str, ...], tuple[tuple[int, ...], ...], tuple[bool, ...], tuple[int, ...], tuple[bool, ...], bool]
"""The fields of a ``Shape``."""
EMPTY = 0
"""The plan of a row without tokens."""
MANY = 50_000
CLEANED, TRIMMED, AS_IT_IS = 0, 1, 2
"""What happens to a text before it is encoded: the style's cleaning, that and a line break in front, nothing."""


@dataclass(slots=True)
class Table:
    """All plans, flat: the pieces of plan p are ``starts[p]:starts[p] + counts[p]``."""

    starts: Integers
    counts: Integers
    extra: Integers
    """Tokens that a row has more than torchtune's, shape (plans,)."""
    is_text: Flags
    source: Integers
    """Which fixed text, or which of the texts that the row wants encoded; shape (pieces,)."""
    is_content: Flags
    trained: Flags
    trimmed: Flags
    message: npt.NDArray[np.int32]
    part: npt.NDArray[np.int8]
    flat: npt.NDArray[np.int32]
    """Ids of the fixed texts, whose i-th is ``begins[i]``, ``lengths[i]`` long."""
    begins: Integers
    lengths: Integers


class Plans:
    """The layouts met so far, each with its number; below 0 for shapes at which torchtune stops (``reasons``)."""

    def __init__(
        self, encode: Callable[[str, bool], npt.NDArray[np.int32]], show: Callable[[int], str], trims: bool
    ) -> None:
        self._encode, self._show, self._trims = encode, show, trims
        self._clear()

    def _clear(self) -> None:
        self.known: dict[Key, int] = {}
        self.reasons: dict[int, str] = {}
        self.pieces: list[list[Piece]] = [[]]
        self.wanted: list[list[tuple[int, bool]]] = [[]]
        """For each plan the contents to encode, and whether behind a line break."""
        self.shown: list[list[str | int]] = [[]]
        """For each piece its text, or which of the wanted texts it is."""
        self.in_order: list[bool] = [True]
        """Whether the plan wants every content once, in their order."""
        self.flags: list[tuple[int, ...]] = [()]
        """For each wanted text ``CLEANED``, ``TRIMMED`` or ``AS_IT_IS``."""
        self.errors: dict[int, tuple[int, str]] = {}
        self._extra, self._is_text = [0], [False]
        self._fixed: dict[tuple[str, bool] | int, int] = {}
        self._fixed_ids: list[npt.NDArray[np.int32]] = []
        self._table: Table | None = None

    def forget_if_many(self) -> bool:
        many = len(self.known) > MANY
        if many:
            self._clear()
        return many

    def refuse(self, key: Key, why: str) -> int:
        plan = self.known[key] = -1 - len(self.reasons)
        self.reasons[plan] = why
        return plan

    def add(self, key: Key, layout: Layout, contents: int, *, extra: int = 0, text: bool = False) -> int:
        plan = self.known[key] = len(self.pieces)
        wanted: dict[tuple[int, bool], int] = {}
        shown: list[str | int] = []
        for piece in layout.pieces:
            trimmed = piece.trimmed and self._trims
            if piece.number is not None:
                shown.append(self._show(piece.number))
            elif piece.text is not None:
                shown.append(piece.text)
            else:
                shown.append(wanted.setdefault((piece.content, trimmed), len(wanted)))
        self.pieces.append(layout.pieces)
        self.wanted.append(list(wanted))
        self.shown.append(shown)
        self.in_order.append([content for content, _ in wanted] == list(range(contents)))
        self.flags.append(tuple(AS_IT_IS if text else TRIMMED if trimmed else CLEANED for _, trimmed in wanted))
        self._extra.append(extra)
        self._is_text.append(text)
        if layout.error is not None:
            self.errors[plan] = layout.error
        self._table = None
        return plan

    def table(self) -> Table:
        if self._table is None:
            self._table = self._flatten()
        return self._table

    def _flatten(self) -> Table:
        pieces = [piece for plan in self.pieces for piece in plan]
        content = [isinstance(part, int) for plan in self.shown for part in plan]
        source = [
            part if isinstance(part, int) else self._number(piece)
            for parts, plan in zip(self.shown, self.pieces, strict=True)
            for part, piece in zip(parts, plan, strict=True)
        ]
        counts = np.array([len(plan) for plan in self.pieces], np.int64)
        lengths = np.array([len(ids) for ids in self._fixed_ids], np.int64)
        is_content = np.array(content, np.bool_)
        trimmed = np.array([piece.trimmed and self._trims for piece in pieces], np.bool_)
        return Table(
            starts=np.cumsum(counts) - counts,
            counts=counts,
            extra=np.array(self._extra, np.int64),
            is_text=np.array(self._is_text, np.bool_),
            source=np.array(source, np.int64),
            is_content=is_content,
            trained=np.array([piece.trained for piece in pieces], np.bool_),
            trimmed=trimmed & is_content,
            message=np.array([piece.message for piece in pieces], np.int32),
            part=np.array([piece.part for piece in pieces], np.int8),
            flat=np.concatenate([np.empty(0, np.int32), *self._fixed_ids]),
            begins=np.cumsum(lengths) - lengths,
            lengths=lengths,
        )

    def _number(self, piece: Piece) -> int:
        """The number of a fixed text or token, encoded when it is met first."""
        key: tuple[str, bool] | int
        text = (piece.text or "", piece.trimmed and self._trims)
        key = text if piece.number is None else piece.number
        known = self._fixed.get(key)
        if known is None:
            known = self._fixed[key] = len(self._fixed_ids)
            ids = np.array([key], np.int32) if isinstance(key, int) else self._encode(*key)
            self._fixed_ids.append(ids)
        return known
