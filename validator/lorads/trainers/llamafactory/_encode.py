"""Slot by slot: the ids and labels of a batch (``_encode`` of ``template.py``, ``supervised.py``).

Every slot is tokenized by itself, so the texts of a batch are its slots. Rows of one shape (the same roles) have the
same slots: they are made column by column, tokenized all at once, and put in order row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lorads.templates.render import PART_CONTENT, PART_NONE, PART_TOOL_CALL, SCAFFOLD, TOOLS, RenderFailure
from lorads.tokenizers import Ids
from lorads.trainers.base import LabelBatch, LazySegments, LazyTexts, Segments, segments_of
from lorads.trainers.llamafactory._rows import ASSISTANT, FUNCTION, OBSERVATION, USER
from lorads.trainers.llamafactory._templates import CONTENT, Slots, Style, Token
from lorads.trainers.llamafactory._tokens import id_of

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer

Integers = npt.NDArray[np.int64]
END = -1
"""``position`` of the end-of-sequence token behind the last message."""

LABELS_TOO_LONG = RenderFailure(
    "not-reproduced",
    "a later question without tokens, in a template with efficient_eos: LLaMA-Factory builds more labels than ids for "
    "the row, and which token each of them meets depends on the padding",
)


@dataclass(frozen=True, slots=True)
class Settings:
    cutoff: int | None
    train_on_prompt: bool
    mask_history: bool
    thought_in_prompt: bool
    """Empty thoughts stand in the prompt, not in the answer."""


@dataclass(slots=True)
class Written:
    """A row with its contents as they go into the slots. ``system`` and ``tools`` are None where there is no system
    slot."""

    row: int
    roles: tuple[str, ...]
    contents: list[str]
    messages: tuple[int, ...]
    system: str | None
    system_message: int
    tools: str | None
    lacks_thought: tuple[bool, ...] = ()
    """Of each answer, in a template that reasons: whether an empty thought is put before it."""

    def shape(self) -> tuple[object, ...]:
        default = self.system if self.system_message == SCAFFOLD and not self.tools else None
        return self.roles, self.messages, self.system is None, default, bool(self.tools), self.system_message


_Parts = list[tuple[list[str] | str, int, int]]
"""What a column of texts is joined from: a text of each row, or one for all; the message and the part they are of."""


@dataclass(slots=True)
class _Sources:
    """What rows are put together from: texts to tokenize, and ids that are known. Source s below ``len(texts)`` is a
    text, the others are constants."""

    texts: list[str] = field(default_factory=list)
    columns: list[tuple[int, _Parts]] = field(default_factory=list)
    """How many texts were made from which parts, in the order of the texts."""


@dataclass(slots=True)
class _Messages:
    """The messages of a batch, flat: those of row i are ``first[i]:first[i + 1]``."""

    first: Integers
    row: Integers
    position: Integers
    """Place in its row: even ones ask, odd ones answer."""
    begin: Integers
    """First token in the batch."""
    lengths: Integers


@dataclass(frozen=True, slots=True)
class _Constant:
    number: int
    position: int
    present: npt.NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    first: int
    """Source of the first row's text; those of the others follow."""
    position: int


class Encoder:
    """One template over one tokenizer."""

    def __init__(self, style: Style, tokenizer: Tokenizer, eos_id: int, settings: Settings) -> None:
        self._style, self._tokenizer, self._eos_id, self._settings = style, tokenizer, eos_id, settings
        self._numbers: dict[str | Token, int] = {}
        self._ids: list[npt.NDArray[np.int32]] = []
        self._texts: list[str] = []
        self._slots = {
            USER: style.user,
            ASSISTANT: style.assistant,
            OBSERVATION: style.observation,
            FUNCTION: style.function,
        }
        for slots in (*self._slots.values(), style.prefix, style.system):
            for slot in slots:
                if isinstance(slot, Token):
                    self._constant(slot)
        self._end = self._constant(Token("eos", special=True))
        self._thought = self._constant(style.empty_thought)

    def _constant(self, what: str | Token) -> int:
        number = self._numbers.get(what)
        if number is None:
            ids, text = self._of(what)
            number = self._numbers[what] = len(self._ids)
            self._ids.append(ids)
            self._texts.append(text)
        return number

    def _of(self, what: str | Token) -> tuple[npt.NDArray[np.int32], str]:
        if isinstance(what, str):
            return self._tokenizer.encode([what]).flat.copy() if what else np.empty(0, np.int32), what
        special = self._tokenizer.special
        if not what.special:
            number: int | None = id_of(self._tokenizer, what.name, self._style)
            text: str | None = what.name
        elif what.name == "eos":
            number, text = self._eos_id, self._tokenizer.token(self._eos_id)
        else:
            number, text = special.bos_id, special.bos
        if number is None or text is None:
            return np.empty(0, np.int32), ""
        return np.array([number], np.int32), text

    def encode(self, written: Sequence[Written], rows: int) -> LabelBatch:
        """``rows`` is the size of the batch; those that are not in ``written`` have no tokens."""
        groups: dict[tuple[object, ...], list[Written]] = {}
        for one in written:
            groups.setdefault(one.shape(), []).append(one)
        sources = _Sources()
        laid = [(group, self._lay(group, sources)) for group in groups.values()]
        return self._put_together(laid, sources, rows)

    # One shape of rows, column by column

    def _lay(self, group: list[Written], sources: _Sources) -> list[_Constant | _Column]:
        first, style = group[0], self._style
        laid: list[_Constant | _Column] = []
        for position, (role, message) in enumerate(zip(first.roles, first.messages, strict=True)):
            contents = [one.contents[position] for one in group]
            asks = position % 2 == 0
            if position == 0:
                laid += [_Constant(self._constant(slot), 0) for slot in style.prefix]
                if first.system is not None and style.kind != "llama2":
                    laid += self._system(group, sources)
            if not asks and not self._settings.thought_in_prompt:
                laid += self._empty_thought(group, position, position)
            before: _Parts = []
            if position == 0 and role == USER and first.system is not None and style.kind == "llama2":
                before = self._fused_system(group)
            part = PART_TOOL_CALL if role == FUNCTION else PART_CONTENT
            laid += self._slotted(self._slots[role], [*before, (contents, message, part)], position, sources)
            if asks and self._settings.thought_in_prompt:
                laid += self._empty_thought(group, position, position + 1)
        if style.efficient_eos:
            laid.append(_Constant(self._end, END))
        return laid

    def _empty_thought(self, group: list[Written], position: int, answer: int) -> list[_Constant | _Column]:
        lacks = np.fromiter((one.lacks_thought[answer // 2] if one.lacks_thought else False for one in group), np.bool_)
        return [_Constant(self._thought, position, lacks)] if lacks.any() else []

    def _system(self, group: list[Written], sources: _Sources) -> list[_Constant | _Column]:
        first = group[0]
        if first.system_message == SCAFFOLD and not first.tools:
            laid: list[_Constant | _Column] = []
            for slot in self._style.system:
                what = slot if isinstance(slot, Token) else slot.replace(CONTENT, first.system or "", 1)
                laid.append(_Constant(self._constant(what), 0))
            return laid
        return self._slotted(self._style.system, self._system_parts(group), 0, sources)

    def _system_parts(self, group: list[Written]) -> _Parts:
        parts: _Parts = [([one.system or "" for one in group], group[0].system_message, PART_CONTENT)]
        if group[0].tools:
            parts.append(([one.tools or "" for one in group], TOOLS, PART_CONTENT))
        return parts

    def _fused_system(self, group: list[Written]) -> _Parts:
        """The system slot as ``Llama2Template`` puts it in front of the first user message's content."""
        slot = self._style.system[0]
        assert isinstance(slot, str)
        before, _, behind = slot.partition(CONTENT)
        return [(before, SCAFFOLD, PART_NONE), *self._system_parts(group), (behind, SCAFFOLD, PART_NONE)]

    def _slotted(
        self,
        slots: Slots,
        inner: _Parts,
        position: int,
        sources: _Sources,
    ) -> list[_Constant | _Column]:
        laid: list[_Constant | _Column] = []
        for slot in slots:
            if isinstance(slot, Token) or CONTENT not in slot:
                laid.append(_Constant(self._constant(slot), position))
                continue
            before, _, behind = slot.partition(CONTENT)
            parts = [(before, SCAFFOLD, PART_NONE), *inner, (behind, SCAFFOLD, PART_NONE)]
            laid.append(_Column(_add(sources, parts), position))
        return laid

    # All rows

    def _put_together(
        self, laid: list[tuple[list[Written], list[_Constant | _Column]]], sources: _Sources, rows: int
    ) -> LabelBatch:
        encoded = self._tokenizer.encode(sources.texts) if sources.texts else Ids(_none32(), np.zeros(1, np.int64))
        texts = len(sources.texts)
        constants = Ids(
            np.concatenate([_none32(), *self._ids]),
            _running(np.fromiter(map(len, self._ids), np.int64, len(self._ids))),
        )
        source_starts = np.concatenate([encoded.starts[:-1], constants.starts[:-1] + len(encoded.flat)])
        source_counts = np.concatenate([np.diff(encoded.starts), np.diff(constants.starts)])
        source, position, starts = _in_order(laid, texts, rows)
        counts = source_counts[source]
        flat = np.concatenate([encoded.flat, constants.flat])[_ranges(source_starts[source], counts)]
        piece_bounds = _running(counts)
        ids = Ids(flat, piece_bounds[starts])
        all_kept = np.ones(len(flat), np.bool_)
        segments = LazySegments(lambda: self._segments(sources, encoded, source, starts))
        batch = LabelBatch(ids, np.zeros(len(flat), np.bool_), all_kept, segments)
        self._label(batch, position, counts, starts)

        def text_of(piece: int) -> str:
            number = int(source[piece])
            return sources.texts[number] if number < texts else self._texts[number - texts]

        def pieces_of(row: int) -> range:
            return range(int(starts[row]), int(starts[row + 1]))

        batch.texts = LazyTexts(rows, lambda row: "".join(map(text_of, pieces_of(row))))

        def placed(row: int) -> tuple[Integers, Integers]:
            begins, ends, offset = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
            for piece in pieces_of(row):
                text = text_of(piece)
                mine = flat[piece_bounds[piece] : piece_bounds[piece + 1]]
                if len(mine) == 1:
                    begin, end = np.zeros(1, np.int64), np.full(1, len(text), np.int64)
                else:
                    begin, end = self._tokenizer.place([text], Ids(mine, np.array([0, len(mine)], np.int64))).of(0)
                begins.append(begin + offset)
                ends.append(end + offset)
                offset += len(text)
            return np.concatenate(begins), np.concatenate(ends)

        batch.placed = placed
        return batch

    def _segments(self, sources: _Sources, encoded: Ids, source: Integers, starts: Integers) -> Segments:
        """Those of the texts as they were counted in characters, one for each constant."""
        constants = len(self._ids)
        per_text = [np.full(rows, len(parts), np.int64) for rows, parts in sources.columns]
        text_rows = _running(np.concatenate([_none64(), *per_text]))
        chars = np.concatenate([_none64(), *(_chars(rows, parts).ravel() for rows, parts in sources.columns)])
        message = np.concatenate(
            [
                *(np.tile(np.array([m for _, m, _ in parts], np.int32), rows) for rows, parts in sources.columns),
                np.full(constants, SCAFFOLD, np.int32),
            ]
        )
        part = np.concatenate(
            [
                *(np.tile(np.array([p for _, _, p in parts], np.int8), rows) for rows, parts in sources.columns),
                np.full(constants, PART_NONE, np.int8),
            ]
        )
        bounds = np.zeros(1, np.int64)
        if sources.texts:
            places = self._tokenizer.place(sources.texts, encoded)
            bounds = segments_of(places, encoded, chars, message, part, text_rows).bounds
        tokens = np.concatenate([np.diff(bounds), np.fromiter(map(len, self._ids), np.int64, constants)])
        first = np.concatenate([text_rows[:-1], text_rows[-1] + np.arange(constants)])
        counts = np.concatenate([np.diff(text_rows), np.ones(constants, np.int64)])
        chosen = _ranges(first[source], counts[source])
        return Segments(_running(tokens[chosen]), message[chosen], part[chosen], _running(counts[source])[starts])

    def _label(self, batch: LabelBatch, position: Integers, counts: Integers, starts: Integers) -> None:
        """Which tokens survive the budget of each turn, and which are trained."""
        settings, style = self._settings, self._style
        messages = _messages(batch.ids, position, counts, starts)
        row = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        inner = position != END
        trained = inner & (position % 2 == 1)
        if settings.mask_history:
            trained &= position == np.diff(messages.first)[row] - 1
        if settings.train_on_prompt:
            trained |= inner
        if style.efficient_eos:
            trained |= ~inner
        batch.trained = np.repeat(trained, counts)
        left, used = self._budget(messages)
        for cut in np.flatnonzero(left < messages.lengths).tolist():
            begin = messages.begin[cut]
            batch.kept[begin + left[cut] : begin + messages.lengths[cut]] = False
        if style.efficient_eos and not settings.train_on_prompt:
            self._label_borders(batch, messages, left, used)

    def _budget(self, messages: _Messages) -> tuple[Integers, npt.NDArray[np.bool_]]:
        """Tokens left of each message, and whether its turn is handled at all (``processor_utils.py``,
        ``infer_seqlen``): where the cutoff is reached, the turns that are left are not."""
        lengths, first, cutoff = messages.lengths, messages.first, self._settings.cutoff
        used = np.ones(len(lengths), np.bool_)
        if cutoff is None:
            return lengths, used
        extra = 1 if self._style.efficient_eos else 0
        sums = _running(lengths)
        over = np.flatnonzero((sums[first[1:]] - sums[first[:-1]] + extra >= cutoff) & (np.diff(first) > 0))
        if not len(over):
            return lengths, used
        left = lengths.copy()
        turns = np.diff(first)[over] // 2
        total = np.full(len(over), extra, np.int64)
        for step in range(int(turns.max())):
            going = np.flatnonzero(turns > step)
            turn = turns[going] - 1 - step if self._settings.mask_history else np.full(len(going), step)
            asks = first[over[going]] + 2 * turn
            budget = cutoff - total[going]
            source, target = lengths[asks], lengths[asks + 1]
            both = (budget * (target / np.maximum(source + target, 1))).astype(np.int64)
            most = np.where(target * 2 < budget, budget, np.where(source * 2 < budget, budget - source, both))
            handled = budget > 0
            left[asks + 1] = np.where(handled, np.minimum(most, target), 0)
            left[asks] = np.where(handled, np.minimum(np.maximum(budget - left[asks + 1], 0), source), 0)
            used[asks] = used[asks + 1] = handled
            total[going] += left[asks] + left[asks + 1]
        return left, used

    def _label_borders(
        self, batch: LabelBatch, messages: _Messages, left: Integers, used: npt.NDArray[np.bool_]
    ) -> None:
        """``efficient_eos``: the first token of every question but of the turn that is handled first is labelled with
        the end of sequence, which stands nowhere in the ids."""
        handled_first = np.zeros(len(left), np.int64)
        if self._settings.mask_history:
            handled_first = np.diff(messages.first)[messages.row] - 2
        borders = np.flatnonzero((messages.position % 2 == 0) & (messages.position != handled_first) & used)
        for row in messages.row[borders[left[borders] == 0]].tolist():
            batch.failures[row] = LABELS_TOO_LONG
        tokens = messages.begin[borders[left[borders] > 0]]
        if len(tokens):
            batch.trained[tokens] = True
            batch.labels = batch.ids.flat.astype(np.int64)
            batch.labels[tokens] = self._eos_id


def _add(sources: _Sources, parts: _Parts) -> int:
    """Put a column of texts among the sources; gives back the number of the first."""
    rows = next(len(text) for text, _, _ in parts if not isinstance(text, str))
    columns = [[text] * rows if isinstance(text, str) else text for text, _, _ in parts]
    first = len(sources.texts)
    if len(columns) == 3:
        before, behind = columns[0][0], columns[2][0]
        sources.texts += [before + content + behind for content in columns[1]]
    else:
        sources.texts += map("".join, zip(*columns, strict=True))
    sources.columns.append((rows, parts))
    return first


def _chars(rows: int, parts: _Parts) -> Integers:
    """Characters of each segment of a column's texts, shape (rows, parts)."""
    chars = np.empty((rows, len(parts)), np.int64)
    for i, (text, _, _) in enumerate(parts):
        chars[:, i] = len(text) if isinstance(text, str) else np.fromiter(map(len, text), np.int64, rows)
    return chars


def _in_order(
    laid: list[tuple[list[Written], list[_Constant | _Column]]], texts: int, rows: int
) -> tuple[Integers, Integers, Integers]:
    """The pieces of all rows, row by row: their sources, their positions, and where each row's begin."""
    counts = np.zeros(rows, np.int64)
    numbers = [np.fromiter((one.row for one in group), np.int64, len(group)) for group, _ in laid]
    for mine, (_, pieces) in zip(numbers, laid, strict=True):
        counts[mine] = len(pieces)
    starts = _running(counts)
    source = np.empty(int(starts[-1]), np.int64)
    position = np.empty(int(starts[-1]), np.int64)
    present = np.ones(int(starts[-1]), np.bool_)
    for mine, (_, pieces) in zip(numbers, laid, strict=True):
        for i, piece in enumerate(pieces):
            at = starts[mine] + i
            position[at] = piece.position
            if isinstance(piece, _Column):
                source[at] = piece.first + np.arange(len(mine))
                continue
            source[at] = texts + piece.number
            if piece.present is not None:
                present[at] = piece.present
    if present.all():
        return source, position, starts
    return source[present], position[present], _running(present)[starts]


def _messages(ids: Ids, position: Integers, counts: Integers, starts: Integers) -> _Messages:
    rows = len(starts) - 1
    row = np.repeat(np.arange(rows), np.diff(starts))
    inner = position != END
    many = np.zeros(rows, np.int64)
    np.maximum.at(many, row[inner], position[inner] + 1)
    first = _running(many)
    lengths = np.zeros(int(first[-1]), np.int64)
    np.add.at(lengths, (first[row] + position)[inner], counts[inner])
    owner = np.repeat(np.arange(rows), many)
    before = _running(lengths)[:-1]
    begin = before - _running(lengths)[first[:-1]][owner] + ids.starts[:-1][owner]
    return _Messages(first, owner, np.arange(len(lengths)) - first[:-1][owner], begin, lengths)


def _running(values: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> Integers:
    """0 and the running sum, shape (values + 1,)."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def _ranges(first: Integers, counts: Integers) -> Integers:
    """``first, first + 1 … first + count - 1`` of each, one after the other."""
    return np.asarray(np.arange(int(counts.sum())) + np.repeat(first - (np.cumsum(counts) - counts), counts))


def _none32() -> npt.NDArray[np.int32]:
    return np.empty(0, np.int32)


def _none64() -> Integers:
    return np.empty(0, np.int64)
