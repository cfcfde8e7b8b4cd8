"""Instruction rows and plain texts: ``prompt_tokenizers.py`` L80-200, ``prompters.py``, ``completion.py`` and
``alpaca_*.py`` of ``prompt_strategies``. Prompt and answer are tokenized apart, each cut to ``sequence_len``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lorads.formats import Conversation
from lorads.templates.render import PART_CONTENT, PART_NONE, SCAFFOLD, RenderFailure
from lorads.tokenizers import Ids
from lorads.trainers.base import LabelBatch, Segments, segments_of

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

COMPLETION_SEQUENCES = 64
"""A text is cut at this many times ``sequence_len`` (``completion.py`` L84)."""


@dataclass(frozen=True, slots=True)
class Style:
    """``with_input``, ``alone``: the prompt's form with and without an input; ``system``: the form of a system text."""

    with_input: str
    alone: str
    system: str


STYLES = {
    "instruct": Style(
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
        "### Instruction:\n{instruction}\n\n### Response:\n",
        "{system}\n\n",
    ),
    "chat": Style("USER: {instruction}\n{input}\nASSISTANT:", "USER: {instruction}\nASSISTANT:", "SYSTEM: {system}\n"),
    "chatml": Style(
        "<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\n{system}<|im_end|>\n",
    ),
    "phi": Style(
        "<|user|>\n{instruction}<|end|>{input}<|assistant|>",
        "<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
        "<|system|>\n{system}<|end|>\n",
    ),
}
_TASK = "Below is an instruction that describes a task"
_CHAT_TASK = "Below is an instruction from a USER that describes a task"
_ANSWERS, _COMPLETES = "The ASSISTANT writes a response that", "completes the request.\n\n"
_CONTEXT = ", paired with an input that provides further context. "
_ALPACA = (
    f"{_TASK}{_CONTEXT}Write a response that appropriately completes the request.",
    f"{_TASK}. Write a response that appropriately completes the request.",
)
_CONCISE = (
    f"{_CHAT_TASK}{_CONTEXT}{_ANSWERS} concisely and appropriately {_COMPLETES}",
    f"{_CHAT_TASK}. {_ANSWERS} appropriately and concisely {_COMPLETES}",
)
_NONE = ("", "")


@dataclass(frozen=True, slots=True)
class Prompter:
    """``system``: what stands in front with an input and without; None: the row's own ``system``."""

    style: Style
    system: tuple[str, str] | None


_BASES: dict[str, tuple[str, tuple[str, str] | None]] = {
    "alpaca": ("instruct", _ALPACA),
    "alpaca:instruct": ("instruct", _ALPACA),
    "alpaca:chat": ("chat", _ALPACA),
    "alpaca:chatml": ("chatml", _ALPACA),
    "alpaca:phi": ("phi", _ALPACA),
    "alpaca_instruct": ("instruct", _ALPACA),
    "alpaca_instruct.load": ("instruct", _ALPACA),
    "alpaca_instruct.load_no_prompt": ("instruct", _NONE),
    "alpaca_chat": ("chat", _ALPACA),
    "alpaca_chat.load": ("chat", _ALPACA),
    "alpaca_chat.load_concise": ("chat", _CONCISE),
    "alpaca_chat.load_no_prompt": ("chat", _NONE),
    "alpaca_w_system": ("chat", None),
    "alpaca_w_system.load": ("chat", None),
    "alpaca_w_system.load_chat": ("chat", None),
    "alpaca_w_system.load_instruct": ("instruct", None),
}
PROMPTERS = {name: Prompter(STYLES[style], system) for name, (style, system) in _BASES.items()}
"""The dataset types of the alpaca family by the names that axolotl has for them."""

_FIELD = re.compile(r"\{(instruction|input|system)\}")


@dataclass(slots=True)
class _Tokenized:
    """Texts as ``_tokenize`` makes them, and where the tokens came from."""

    ids: Ids
    kept: Flags
    """Over the tokens of ``whole``: those that are left in ``ids`` (EOS appended not counted)."""
    whole: Ids
    appended: Flags
    """Rows behind which EOS was put."""
    texts: list[str]
    tokenizer: Tokenizer

    def segments(
        self, chars: Integers, message: npt.NDArray[np.int32], part: npt.NDArray[np.int8], rows: Integers
    ) -> Segments:
        """Segments of the texts, counted in the tokens that are left, without EOS appended."""
        places = self.tokenizer.place(self.texts, self.whole, add_special_tokens=True)
        found = segments_of(places, self.whole, chars, message, part, rows)
        left = np.zeros(len(self.kept) + 1, np.int64)
        np.cumsum(self.kept, out=left[1:])
        return Segments(left[found.bounds], message, part, rows)

    def placed(self, row: int) -> tuple[Integers, Integers]:
        mine = slice(int(self.whole.starts[row]), int(self.whole.starts[row + 1]))
        ids = self.whole.flat[mine]
        alone = Ids(ids, np.array([0, len(ids)], np.int64))
        if not len(ids):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        begin, end = self.tokenizer.place([self.texts[row]], alone, add_special_tokens=True).of(0)
        return begin[self.kept[mine]], end[self.kept[mine]]


def tokenize(tokenizer: Tokenizer, texts: list[str], limit: int, *, eos: bool, strip_bos: bool) -> _Tokenized:
    """``PromptTokenizingStrategy._tokenize`` (L80-116): nothing for an empty text; else cut to ``limit``, EOS behind
    where there is room for it, and BOS in front taken off again for answers."""
    whole = tokenizer.encode(texts, add_special_tokens=True)
    lengths = np.diff(whole.starts)
    filled = np.fromiter(map(bool, texts), np.bool_, len(texts))
    kept = np.repeat(filled, lengths)
    front, behind = tokenizer.added_around or (0, 0)
    for row in np.flatnonzero(filled & (lengths > limit)).tolist():
        begin, end = int(whole.starts[row]), int(whole.starts[row + 1])
        inner = max(limit - front - behind, 0)
        if tokenizer.truncation_side == "left":
            kept[begin + front : end - behind - inner] = False
        else:
            kept[begin + front + inner : end - behind] = False
    counts = _sums(kept, whole.starts)
    flat = whole.flat[kept]
    starts = np.zeros(len(counts) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    some = counts > 0
    appended = np.zeros(len(texts), np.bool_)
    eos_id, bos_id = tokenizer.special.eos_id, tokenizer.special.bos_id
    if eos and eos_id is not None:
        last = flat[np.maximum(starts[1:] - 1, 0)] if len(flat) else np.full(len(texts), -1)
        appended = some & (last != eos_id) & (counts < limit)
    if strip_bos and bos_id is not None and len(flat):
        first = flat[np.minimum(starts[:-1], len(flat) - 1)]
        stripped = some & (first == bos_id)
        # a row's first kept token: its first one, unless it was cut on the left
        positions = np.flatnonzero(kept)[starts[:-1][stripped]]
        kept[positions] = False
        counts = counts - stripped
        flat = whole.flat[kept]
        np.cumsum(counts, out=starts[1:])
    return _Tokenized(_with_appended(Ids(flat, starts), appended, eos_id), kept, whole, appended, texts, tokenizer)


def _with_appended(ids: Ids, appended: Flags, token: int | None) -> Ids:
    if token is None or not appended.any():
        return ids
    starts = ids.starts.copy()
    starts[1:] += np.cumsum(appended)
    flat = np.full(int(starts[-1]), token, np.int32)
    own = np.ones(len(flat), np.bool_)
    own[starts[1:][appended] - 1] = False
    flat[own] = ids.flat
    return Ids(flat, starts)


def _sums(flags: Flags, starts: Integers) -> Integers:
    total = np.zeros(len(flags) + 1, np.int64)
    np.cumsum(flags, out=total[1:])
    return np.asarray(total[starts[1:]] - total[starts[:-1]])


class Instruction:
    """One dataset type of the alpaca family."""

    def __init__(self, tokenizer: Tokenizer, prompter: Prompter, limit: int, train_on_inputs: bool) -> None:
        self._tokenizer = tokenizer
        self._limit, self._train_on_inputs = limit, train_on_inputs
        style, system = prompter.style, prompter.system
        self._system = tuple(_FIELD.split(style.system)[0::2]) if system is None else None
        """What stands around a row's own system text."""
        self._with_input = _literals(style, style.with_input, system and system[0])
        self._alone = _literals(style, style.alone, system and system[1])

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        prompts: list[str] = []
        answers: list[str] = []
        chars: list[int] = []
        message: list[int] = []
        rows = [0]
        failures: dict[int, RenderFailure] = {}
        with_input, alone = tuple(map(len, self._with_input)), tuple(map(len, self._alone))
        for row, conversation in enumerate(conversations):
            fields = conversation.alpaca
            why = self._stops(conversation) if fields is None or self._system is not None else None
            if fields is None or why is not None or (fields.output and not isinstance(fields.output, str)):
                failures[row] = why or RenderFailure("stops", "axolotl stops: the answer is no text")
                prompts.append("")
                answers.append("")
                rows.append(len(chars))
                continue
            question = max(len(conversation.messages) - 2, 0)
            asked, given = fields.instruction, fields.input
            if not isinstance(asked, str):
                asked = format(asked)  # null reads None
            front = ""
            if self._system is not None and fields.system:
                before, behind = self._system
                system = format(fields.system)
                front = f"{before}{system}{behind}"
                chars += (len(before), len(system), len(behind))
                message += (SCAFFOLD, 0, SCAFFOLD)
            if given:
                if not isinstance(given, str):
                    given = format(given)
                first, second, third = self._with_input
                prompts.append(f"{front}{first}{asked}{second}{given}{third}")
                chars += (with_input[0], len(asked), with_input[1], len(given), with_input[2])
                message += (SCAFFOLD, question, SCAFFOLD, question, SCAFFOLD)
            else:
                first, second = self._alone
                prompts.append(f"{front}{first}{asked}{second}")
                chars += (alone[0], len(asked), alone[1])
                message += (SCAFFOLD, question, SCAFFOLD)
            answers.append(fields.output or "")
            rows.append(len(chars))
        asked_for = tokenize(self._tokenizer, prompts, self._limit, eos=False, strip_bos=False)
        answered = tokenize(self._tokenizer, answers, self._limit, eos=True, strip_bos=True)
        bounds = np.array(rows, np.int64)
        numbers = np.array(message, np.int32)
        parts = np.where(numbers == SCAFFOLD, PART_NONE, PART_CONTENT).astype(np.int8)
        segments = asked_for.segments(np.array(chars, np.int64), numbers, parts, bounds)
        last = np.fromiter((max(len(c.messages) - 1, 0) for c in conversations), np.int32, len(conversations))
        return self._join(asked_for, answered, segments, last, failures)

    def _stops(self, conversation: Conversation) -> RenderFailure | None:
        """Why axolotl stops at a row that lacks a column."""
        record = conversation.record
        missing = "instruction" if conversation.alpaca is None else "system"
        if conversation.alpaca is not None and (record is None or "system" in record):
            return None
        return RenderFailure("stops", f'axolotl stops: there is no "{missing}" in the row')

    def _join(
        self,
        asked: _Tokenized,
        answered: _Tokenized,
        segments: Segments,
        last: npt.NDArray[np.int32],
        failures: dict[int, RenderFailure],
    ) -> LabelBatch:
        prompt_counts, answer_counts = np.diff(asked.ids.starts), np.diff(answered.ids.starts)
        starts = np.zeros(len(prompt_counts) + 1, np.int64)
        np.cumsum(prompt_counts + answer_counts, out=starts[1:])
        flat = np.empty(int(starts[-1]), np.int32)
        of_prompt = np.repeat(np.tile([True, False], len(prompt_counts)), _interleaved(prompt_counts, answer_counts))
        flat[of_prompt], flat[~of_prompt] = asked.ids.flat, answered.ids.flat
        trained = np.ones(len(flat), np.bool_) if self._train_on_inputs else ~of_prompt
        batch = LabelBatch(
            Ids(flat, starts),
            trained,
            np.ones(len(flat), np.bool_),
            _joined(segments, prompt_counts, answer_counts, answered.appended, last),
            failures=failures,
        )
        eos = self._tokenizer.special.eos or ""
        batch.texts = [
            prompt + answer + (eos if appended else "")
            for prompt, answer, appended in zip(asked.texts, answered.texts, answered.appended.tolist(), strict=True)
        ]

        def placed(row: int) -> tuple[Integers, Integers]:
            (b1, e1), (b2, e2) = asked.placed(row), answered.placed(row)
            before = len(asked.texts[row])
            begins, ends = [b1, b2 + before], [e1, e2 + before]
            if answered.appended[row]:
                before += len(answered.texts[row])
                begins.append(np.array([before]))
                ends.append(np.array([before + len(eos)]))
            return np.concatenate(begins), np.concatenate(ends)

        batch.placed = placed
        return batch


def _literals(style: Style, form: str, system: str | None) -> tuple[str, ...]:
    """What a form writes around its fields, with a system text in front."""
    front = style.system.format(system=system) if system else ""
    literals = _FIELD.split(form)[0::2]
    return (front + literals[0], *literals[1:])


def _interleaved(left: Integers, right: Integers) -> Integers:
    out = np.empty(2 * len(left), np.int64)
    out[0::2], out[1::2] = left, right
    return out


def _joined(
    prompt: Segments, prompt_counts: Integers, answer_counts: Integers, appended: Flags, last: npt.NDArray[np.int32]
) -> Segments:
    """The prompts' segments, and behind each row's two more: its answer, and EOS."""
    rows = len(prompt_counts)
    counts = np.diff(prompt.rows)
    lengths = np.diff(prompt.bounds)
    bounds_rows = np.zeros(rows + 1, np.int64)
    np.cumsum(counts + 2, out=bounds_rows[1:])
    total = int(bounds_rows[-1])
    out_lengths = np.zeros(total, np.int64)
    message = np.full(total, SCAFFOLD, np.int32)
    part = np.full(total, PART_NONE, np.int8)
    of_prompt = np.ones(total, np.bool_)
    answer, end = bounds_rows[1:] - 2, bounds_rows[1:] - 1
    of_prompt[answer] = of_prompt[end] = False
    out_lengths[of_prompt], message[of_prompt], part[of_prompt] = lengths, prompt.message, prompt.part
    out_lengths[answer], message[answer], part[answer] = answer_counts - appended, last, PART_CONTENT
    out_lengths[end] = appended
    bounds = np.zeros(total + 1, np.int64)
    np.cumsum(out_lengths, out=bounds[1:])
    return Segments(bounds, message, part, bounds_rows)


class Completion:
    """Texts: everything is trained, and a long one is cut into pieces of ``sequence_len``.

    The pieces are rows of their own to axolotl. They are kept one behind the other here; a last piece that is shorter
    than ``min_sample_len`` is dropped.
    """

    def __init__(self, tokenizer: Tokenizer, limit: int, shortest: int) -> None:
        self._tokenizer, self._limit, self._shortest = tokenizer, limit, shortest

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        texts = [conversation.text or "" for conversation in conversations]
        done = tokenize(self._tokenizer, texts, self._limit * COMPLETION_SEQUENCES, eos=True, strip_bos=False)
        counts = np.diff(done.ids.starts)
        rows = np.arange(len(texts) + 1)
        found = done.segments(
            np.fromiter(map(len, texts), np.int64, len(texts)),
            np.zeros(len(texts), np.int32),
            np.full(len(texts), PART_CONTENT, np.int8),
            rows,
        )
        # BOS, the text, EOS
        front = np.zeros(len(texts), np.int64)
        added = self._tokenizer.added_around
        if added is not None:
            front = np.minimum(counts, added[0])
        lengths = np.zeros((len(texts), 3), np.int64)
        lengths[:, 0], lengths[:, 2] = front, done.appended
        lengths[:, 1] = np.diff(found.bounds) - front
        bounds = np.zeros(3 * len(texts) + 1, np.int64)
        np.cumsum(lengths.ravel(), out=bounds[1:])
        segments = Segments(
            bounds,
            np.tile(np.array([SCAFFOLD, 0, SCAFFOLD], np.int32), len(texts)),
            np.tile(np.array([PART_NONE, PART_CONTENT, PART_NONE], np.int8), len(texts)),
            3 * rows,
        )
        kept = np.ones(len(done.ids.flat), np.bool_)
        rest = counts % self._limit
        for row in np.flatnonzero((rest > 0) & (rest < self._shortest)).tolist():
            kept[done.ids.starts[row + 1] - rest[row] : done.ids.starts[row + 1]] = False
        eos = self._tokenizer.special.eos or ""
        batch = LabelBatch(done.ids, np.ones(len(kept), np.bool_), kept, segments)
        batch.texts = [text + (eos if end else "") for text, end in zip(texts, done.appended.tolist(), strict=True)]

        def placed(row: int) -> tuple[Integers, Integers]:
            begin, end = done.placed(row)
            if done.appended[row]:
                at = len(texts[row])
                begin, end = np.append(begin, at), np.append(end, at + len(eos))
            return begin, end

        batch.placed = placed
        return batch
