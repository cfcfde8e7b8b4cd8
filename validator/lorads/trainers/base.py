"""What a trainer module gives: the ids and labels of a batch of conversations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from lorads.formats import Conversation, Kind
from lorads.templates.render import PART_REASONING, PART_TOOL_CALL, SCAFFOLD, TOOLS

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.templates.render import Lost, RenderBatch, RenderFailure
    from lorads.tokenizers import Ids, Places, SpecialTokens, Tokenizer

T = TypeVar("T", bound=np.generic)
V = TypeVar("V")

TrainOn = Literal["default", "all", "completion", "assistant", "last"]


class Place(StrEnum):
    """What a token is in its row, as ``place_of`` tells it."""

    BOS = "bos"
    EOS = "eos"
    SYSTEM = "system"
    USER = "user"
    TOOL = "tool"
    ASSISTANT = "assistant"
    REASONING = "reasoning"
    TOOL_CALL = "tool-call"
    HEADER = "header"
    """Scaffolding in front of an answer: its role's name and what stands around it."""
    TURN_END = "turn-end"
    """The control token that ends an answer."""
    TOOLS = "tools"
    SCAFFOLD = "scaffold"
    TEXT = "text"
    PROMPT = "prompt"
    COMPLETION = "completion"


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """What the user set in the trainer. ``None`` for ``max_length`` means no limit."""

    max_length: int | None
    train_on: TrainOn = "default"
    packing: bool = False
    """Several rows are put into one sequence of ``max_length``."""
    response_marker: str | None = None
    """The text behind which an answer begins, for trainers that search for it."""
    instruction_marker: str | None = None
    """The text behind which a question begins, for trainers that search for it."""
    first: Conversation | None = None
    """The first row of the data, by which some libraries decide for all of them; None where it isn't known."""
    own: Any = None
    """The trainer's own settings: an instance of its ``Options``."""


@dataclass(slots=True)
class Segments:
    """Which tokens came from which part of which message, flat over a batch.

    Segment s is tokens ``bounds[s]:bounds[s + 1]`` of the batch; those of row i are ``rows[i]:rows[i + 1]``.
    ``message`` is the message's index, ``SCAFFOLD`` or ``TOOLS`` (see ``lorads.templates.render``), ``part`` which part
    of it. A token that lies over a border belongs to the segment where it ends.
    """

    bounds: npt.NDArray[np.int64]
    message: npt.NDArray[np.int32]
    part: npt.NDArray[np.int8]
    rows: npt.NDArray[np.int64]


class LazySegments(Segments):
    """Segments that are worked out when they are asked for: facts need them, ids and labels often do not."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[[], Segments]) -> None:
        self._make = make

    def __getattr__(self, name: str) -> Any:  # of a field that is not set yet
        if name not in ("bounds", "message", "part", "rows"):
            raise AttributeError(name)
        made = self._make()
        self.bounds, self.message, self.part, self.rows = made.bounds, made.message, made.part, made.rows
        return getattr(self, name)


class LazyTexts(Sequence[str]):
    """Texts that are put together when they are asked for, since few ever are."""

    def __init__(self, count: int, text_of: Callable[[int], str]) -> None:
        self._count, self._text_of = count, text_of

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._text_of(i) for i in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._text_of(index)


@dataclass(slots=True)
class LabelBatch:
    """Ids and labels of a batch, before truncation and as they are fed.

    ``ids`` holds every row's input_ids before truncation; ``trained`` (bool, one a token) where the label is not -100;
    ``kept`` (bool, one a token) which tokens survive truncation. What the trainer feeds is the kept tokens of the rows
    that are not in ``dropped``. Rows in ``failures`` have no tokens.
    """

    ids: Ids
    trained: npt.NDArray[np.bool_]
    kept: npt.NDArray[np.bool_]
    segments: Segments
    labels: npt.NDArray[np.int64] | None = None
    """The labels themselves (shape (tokens,), -100 where masked), where the data bring labels that are not the ids."""
    texts: Sequence[str] | None = None
    """What was tokenized; None for rows that came as ids."""
    placed: Callable[[int], tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]] | None = None
    """First and one-past-last character of each token of a row."""
    dropped: dict[int, str] = field(default_factory=dict)
    failures: dict[int, RenderFailure] = field(default_factory=dict)
    lost: dict[int, tuple[Lost, ...]] = field(default_factory=dict)

    def fed(self, row: int) -> tuple[list[int], list[int]] | None:
        """``input_ids`` and ``labels`` that the trainer feeds for a row; None when it drops the row."""
        if row in self.dropped or row in self.failures:
            return None
        begin, end = int(self.ids.starts[row]), int(self.ids.starts[row + 1])
        keep = self.kept[begin:end]
        ids = self.ids.flat[begin:end][keep]
        values = ids if self.labels is None else self.labels[begin:end][keep]
        labels = np.where(self.trained[begin:end][keep], values, -100)
        return ids.tolist(), labels.tolist()


class Labeller(Protocol):
    """A trainer, bound to a tokenizer and to what the user set. Has no state that a batch changes."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the ids are of: the one it was given, or what the library makes of it."""

    @property
    def notes(self) -> Sequence[str]:
        """What a user should know about the run: what was guessed, what is not reproduced. One sentence each."""

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch: ...

    def reason(self, place: Place, trained: bool) -> str:
        """Why this library trains, or masks, tokens of this kind, in one sentence."""


class Trainer(Protocol):
    """A library's way of building ids and labels, at one version. A module of this room has them in ``TRAINERS``."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def default_max_length(self) -> int | None: ...

    @property
    def Options(self) -> type[Any]:
        """A frozen dataclass of the trainer's own settings, by its own names, with its own defaults."""

    @property
    def format_notes(self) -> Mapping[str, str]:
        """What to tell a user whose rows have a format that the library takes only after a change."""

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> Labeller:
        """Raises ``UsageError`` for what this trainer would refuse before it looks at a row."""


def place_of(batch: LabelBatch, conversation: Conversation, row: int, token: int, special: SpecialTokens) -> Place:
    """What the ``token``-th token of a row is, for people who ask why it is trained or masked."""
    segments, flat = batch.segments, batch.ids.flat
    begin = int(batch.ids.starts[row])
    at = begin + token
    first, stop = int(segments.rows[row]), int(segments.rows[row + 1])
    bounds = segments.bounds[first : stop + 1]
    segment = first + max(int(np.searchsorted(bounds, at, side="right")) - 1, 0)
    message = int(segments.message[segment]) if segment < stop else SCAFFOLD
    if message == TOOLS:
        return Place.TOOLS
    if message >= 0:
        return _place_of_content(conversation, message, int(segments.part[segment]))
    if token == 0 and flat[at] == special.bos_id:
        return Place.BOS
    inside = np.flatnonzero((segments.message[first:stop] >= 0) & (np.diff(bounds) > 0)) + first
    before, behind = inside[inside < segment], inside[inside > segment]
    if len(before) and _is_answer(conversation, int(segments.message[before[-1]])):
        ends = list(special.control | special.eos_ids)
        control = np.isin(flat[int(segments.bounds[before[-1] + 1]) : at + 1], ends)
        if len(control) and control[-1] and control.sum() == 1:
            return Place.TURN_END
    if flat[at] == special.eos_id and not len(behind):
        return Place.EOS
    if len(behind) and _is_answer(conversation, int(segments.message[behind[0]])):
        return Place.HEADER
    return Place.SCAFFOLD


def _is_answer(conversation: Conversation, message: int) -> bool:
    return bool(conversation.messages) and conversation.messages[message].get("role") == "assistant"


_ROLES = {"system": Place.SYSTEM, "developer": Place.SYSTEM, "tool": Place.TOOL, "assistant": Place.ASSISTANT}
_PARTS = {PART_REASONING: Place.REASONING, PART_TOOL_CALL: Place.TOOL_CALL}


def _place_of_content(conversation: Conversation, message: int, part: int) -> Place:
    if conversation.kind is Kind.PROMPT_COMPLETION:
        return Place.PROMPT if message == 0 else Place.COMPLETION
    if not conversation.messages:
        return Place.TEXT
    role = str(conversation.messages[message].get("role"))
    return _PARTS.get(part) or _ROLES.get(role, Place.USER)


def segments_of(
    places: Places,
    ids: Ids,
    segment_chars: npt.NDArray[np.int64],
    message: npt.NDArray[np.int32],
    part: npt.NDArray[np.int8],
    rows: npt.NDArray[np.int64],
) -> Segments:
    """Segments counted in characters (without gaps in each text) as segments counted in tokens."""
    bounds = np.zeros(len(segment_chars) + 1, np.int64)
    bounds[1:] = places.borders(segment_chars, rows)
    # a token without characters (BOS of the next row) must not slip into the row before, nor a last one out of its own
    counts = np.diff(rows)
    np.clip(bounds[1:], np.repeat(ids.starts[:-1], counts), np.repeat(ids.starts[1:], counts), out=bounds[1:])
    bounds[rows[1:][counts > 0]] = ids.starts[1:][counts > 0]
    return Segments(bounds, message, part, rows)


def render_segments(render: RenderBatch, places: Places, ids: Ids) -> Segments:
    return LazySegments(
        lambda: segments_of(
            places, ids, render.segment_chars, render.segment_message, render.segment_part, render.row_segments
        )
    )


def common_prefix(short: Ids, full: Ids) -> npt.NDArray[np.int64]:
    """For each row, how many leading ids the two have in common; shape (rows,)."""
    rows = len(full.starts) - 1
    limit = np.minimum(np.diff(short.starts), np.diff(full.starts))
    total = int(limit.sum())
    if total == 0:
        return np.zeros(rows, np.int64)
    first = np.cumsum(limit) - limit
    inner = np.arange(total) - np.repeat(first, limit)
    differs = (
        short.flat[inner + np.repeat(short.starts[:-1], limit)] != full.flat[inner + np.repeat(full.starts[:-1], limit)]
    )
    where = np.flatnonzero(differs)
    prefix = limit.astype(np.int64)
    owner = np.repeat(np.arange(rows), limit)[where]
    # walking backwards leaves the first difference of each row standing
    prefix[owner[::-1]] = inner[where[::-1]]
    return prefix


def kept_by_length(ids: Ids, max_length: int | None, mode: str) -> npt.NDArray[np.bool_]:
    """Which tokens plain truncation keeps: the first or the last ``max_length`` of each row; shape (tokens,)."""
    if max_length is None:
        return np.ones(len(ids.flat), np.bool_)
    kept = np.ones(len(ids.flat), np.bool_)
    for row in np.flatnonzero(np.diff(ids.starts) > max_length).tolist():
        begin, end = int(ids.starts[row]), int(ids.starts[row + 1])
        if mode == "keep_end":
            kept[begin : end - max_length] = False
        else:
            kept[begin + max_length : end] = False
    return kept


def sum_by_row(flags: npt.NDArray[np.bool_], starts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How many flags are set in each row of a flat batch; shape (rows,)."""
    sums = np.zeros(len(starts) - 1, np.int64)
    filled = np.diff(starts) > 0
    if filled.any():
        sums[filled] = np.add.reduceat(flags, starts[:-1][filled], dtype=np.int64)
    return sums


def labels_fed(batch: LabelBatch) -> npt.NDArray[np.int64]:
    """How many labels of each row survive truncation, its first one counted too; shape (rows,)."""
    fed = batch.trained if batch.kept.all() else batch.trained & batch.kept
    return np.diff(batch.ids.starts) if fed.all() else sum_by_row(fed, batch.ids.starts)


def concatenate(parts: Sequence[tuple[Sequence[int], LabelBatch]], rows: int) -> LabelBatch:
    """Batches over some of the rows each (``indices``, ``batch``) as one batch over all rows in their order."""
    from lorads.tokenizers import Ids

    if len(parts) == 1 and len(parts[0][0]) == rows:
        return parts[0][1]
    where: dict[int, tuple[LabelBatch, int]] = {}
    for indices, batch in parts:
        for i, index in enumerate(indices):
            where[index] = (batch, i)
    flat: list[npt.NDArray[np.int32]] = []
    trained: list[npt.NDArray[np.bool_]] = []
    kept: list[npt.NDArray[np.bool_]] = []
    lengths: list[npt.NDArray[np.int64]] = []
    message: list[npt.NDArray[np.int32]] = []
    part: list[npt.NDArray[np.int8]] = []
    starts = np.zeros(rows + 1, np.int64)
    segment_rows = np.zeros(rows + 1, np.int64)
    for row in range(rows):
        batch, i = where[row]
        begin, end = int(batch.ids.starts[i]), int(batch.ids.starts[i + 1])
        first, last = int(batch.segments.rows[i]), int(batch.segments.rows[i + 1])
        flat.append(batch.ids.flat[begin:end])
        trained.append(batch.trained[begin:end])
        kept.append(batch.kept[begin:end])
        lengths.append(np.diff(batch.segments.bounds[first : last + 1]))
        message.append(batch.segments.message[first:last])
        part.append(batch.segments.part[first:last])
        starts[row + 1] = starts[row] + end - begin
        segment_rows[row + 1] = segment_rows[row] + last - first
    bounds = np.zeros(int(segment_rows[-1]) + 1, np.int64)
    if lengths:
        np.cumsum(np.concatenate(lengths), out=bounds[1:])
    out = LabelBatch(
        Ids(_join(flat, np.int32), starts),
        _join(trained, np.bool_),
        _join(kept, np.bool_),
        Segments(bounds, _join(message, np.int32), _join(part, np.int8), segment_rows),
    )
    if any(batch.texts is not None for _, batch in parts):
        _join_texts(out, [where[row] for row in range(rows)])
    if any(batch.labels is not None for _, batch in parts):
        values = out.ids.flat.astype(np.int64)
        for row in range(rows):
            batch, i = where[row]
            if batch.labels is not None:
                values[starts[row] : starts[row + 1]] = batch.labels[batch.ids.starts[i] : batch.ids.starts[i + 1]]
        out.labels = values
    for indices, batch in parts:
        _carry(batch.dropped, out.dropped, indices)
        _carry(batch.failures, out.failures, indices)
        _carry(batch.lost, out.lost, indices)
    return out


def _join_texts(out: LabelBatch, where: Sequence[tuple[LabelBatch, int]]) -> None:
    def text_of(row: int) -> str:
        batch, i = where[row]
        return "" if batch.texts is None else batch.texts[i]

    out.texts = LazyTexts(len(where), text_of)

    def placed(row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        batch, i = where[row]
        assert batch.placed is not None, "a row that came as ids has no text"
        return batch.placed(i)

    out.placed = placed


def _join(arrays: Sequence[npt.NDArray[T]], dtype: type[T]) -> npt.NDArray[T]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)


def _carry(source: Mapping[int, V], target: dict[int, V], indices: Sequence[int]) -> None:
    for i, value in source.items():
        target[indices[i]] = value
