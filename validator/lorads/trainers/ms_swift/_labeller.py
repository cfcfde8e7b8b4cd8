"""Ids and labels of batches, as swift builds them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.templates.render import PART_CONTENT, SCAFFOLD, RenderBatch, RenderFailure
from lorads.trainers._pieces import running
from lorads.trainers._whole import batch_of
from lorads.trainers.base import LabelBatch, Place, TrainOptions, kept_by_length, render_segments
from lorads.trainers.ms_swift._batch import Batch, PlanPiece
from lorads.trainers.ms_swift._encode import THINK, THINK_END, Encoder, Part, Turn
from lorads.trainers.ms_swift._loss import parse
from lorads.trainers.ms_swift._read import NotReproduced, Plain, Rich, RowError, read
from lorads.trainers.ms_swift._template import SwiftTemplate

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer
    from lorads.trainers.ms_swift import Options

MAX_PLANS = 4096
_LIMITS = (
    *("seq_length", "max_position_embeddings", "n_positions", "model_max_length", "seq_len", "max_seq_len"),
    *("max_sequence_length", "max_seq_length"),
)
_PLACEHOLDER = 0xF0000
"""Private characters that stand for contents while a plan is made."""
_BEGINNINGS = frozenset({"<", *filter(str.isspace, map(chr, range(0x3001)))})
LEFT_OUT = "ms-swift leaves the row out: "

_Shape = tuple[tuple[str, ...], tuple[int, ...]]
_Made = list[PlanPiece] | RowError


class SwiftLabeller:
    """ms-swift, bound to a tokenizer, a template and its settings."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        chat_template: Template | None,
        options: TrainOptions,
        own: Options,
        template: SwiftTemplate,
        loss_scale: str,
        notes: list[str],
    ) -> None:
        self.tokenizer, self._chat_template, self._own, self._template = tokenizer, chat_template, own, template
        self._scale_name, self._loss = loss_scale, parse(loss_scale)
        self._encoder = Encoder(
            template=template,
            loss=self._loss,
            agent=own.agent_template or template.agent,
            chat=own.use_chat_template,
            add_non_thinking_prefix=own.add_non_thinking_prefix,
            enable_thinking=own.enable_thinking,
            preserve_thinking=own.preserve_thinking,
        )
        self._limit, told = options.max_length, None
        if self._limit is None:
            self._limit = model_limit(tokenizer)
            told = self._limit and f"max_length is the model's own limit, {self._limit}, as in ms-swift"
        if options.packing and self._limit is None:
            raise UsageError("ms-swift packs to a maximum length, and there is none", "give --max-length N")
        self._suffix: list[int] = []
        for word in template.suffix:
            self._suffix += tokenizer.encode([word]).flat.tolist() if isinstance(word, str) else list(word)
        self._notes = [*notes, *([told] if told else []), *self._said()]
        self._plans: dict[tuple[_Shape, tuple[int, ...]], _Made] = {}
        self._known: dict[str, tuple[int, ...]] = {}
        self._columnwise = self._loss.anchored
        # what in the contents matters: how they begin, and white space at their edges
        self._marked = template.kind == "gpt_oss"
        self._thinks = bool(self._marked or self._loss.scales or template.non_thinking_prefix)
        self._openings = (THINK, template.non_thinking_prefix) if template.non_thinking_prefix else (THINK,)
        self._trims = template.kind == "gemma3" or not self._encoder.preserves_thinking({})

    @property
    def notes(self) -> Sequence[str]:
        return self._notes

    def _said(self) -> list[str]:
        template, own = self._template, self._own
        out = []
        if template.dated:
            day = own.today or "today's date"
            out.append(f"the template {template.name} writes the day of the run into every row; here it is {day}")
        if own.template_backend == "jinja":
            out.append("the jinja backend trains whole rows, prompts included")
        if template.system_prompt is not None and template.default_system is None:
            out.append(
                f"in a row without a system text, ms-swift's template {template.name} leaves the word {{{{SYSTEM}}}}"
            )
        if own.truncation_strategy == "split":
            out.append("rows over max_length become several; they are shown as one, each piece's first label masked")
        return out

    # Labels

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        failures: dict[int, RenderFailure] = {}
        rows: dict[int, Plain | Rich] = {}
        for i, conversation in enumerate(conversations):
            try:
                rows[i] = read(conversation)
            except RowError as error:
                failures[i] = _failure(error)
        if self._own.template_backend == "jinja":
            batch = self._rendered(conversations, rows, failures)
        else:
            batch = self._put_together(len(conversations), rows, failures)
        batch.failures |= failures
        self._finish(batch)
        return batch

    def _put_together(
        self, count: int, rows: dict[int, Plain | Rich], failures: dict[int, RenderFailure]
    ) -> LabelBatch:
        batch = Batch(self.tokenizer, self._known, count)
        groups: dict[_Shape, list[int]] = defaultdict(list)
        for i, row in rows.items():
            if type(row) is Plain and self._columnwise:
                groups[row.roles, row.indexes].append(i)
            else:
                self._put_one(batch, i, row, failures)
        for shape, numbers in groups.items():
            self._put_group(batch, shape, numbers, rows, failures)
        return batch.build()

    def _put_group(
        self,
        batch: Batch,
        shape: _Shape,
        numbers: list[int],
        rows: dict[int, Plain | Rich],
        failures: dict[int, RenderFailure],
    ) -> None:
        columns = list(zip(*(rows[i].contents for i in numbers), strict=True))  # type: ignore[union-attr]
        odd, thinking = self._unusual(shape[0], columns)
        for k in odd:
            self._put_one(batch, numbers[k], rows[numbers[k]], failures)
        if not odd and not thinking:
            self._put_usual(batch, shape, (), numbers, columns, failures)
            return
        kinds: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for k in range(len(numbers)):
            if k not in odd:
                kinds[tuple(thinking.get(k, ()))].append(k)
        for opening, mine in kinds.items():
            chosen = [tuple(column[k] for k in mine) for column in columns]
            self._put_usual(batch, shape, opening, [numbers[k] for k in mine], chosen, failures)

    def _put_usual(
        self,
        batch: Batch,
        shape: _Shape,
        opening: tuple[int, ...],
        numbers: list[int],
        columns: Sequence[Sequence[str]],
        failures: dict[int, RenderFailure],
    ) -> None:
        plan = self._plan(shape, opening)
        if isinstance(plan, RowError):
            failures.update(dict.fromkeys(numbers, _failure(plan)))
        else:
            batch.put_group(numbers, columns, plan)

    def _put_one(self, batch: Batch, i: int, row: Plain | Rich, failures: dict[int, RenderFailure]) -> None:
        try:
            batch.put(i, self._encoder.pieces(row))
        except RowError as error:
            failures[i] = _failure(error)

    def _unusual(
        self, roles: tuple[str, ...], columns: Sequence[Sequence[str]]
    ) -> tuple[set[int], dict[int, list[int]]]:
        """Rows in whose contents something changes how they are put together; and of others, which contents begin with
        a thought, which makes a shape of its own."""
        odd = {k for k, content in enumerate(columns[-1]) if content.endswith(self._template.stop_words)}
        thinking: dict[int, list[int]] = defaultdict(list)
        for number, (role, column) in enumerate(zip(roles, columns, strict=True)):
            if "" in column:
                odd |= {k for k, content in enumerate(column) if not content}
            if role != "assistant":
                if "{{" in "".join(column):
                    odd |= {k for k, content in enumerate(column) if "{{" in content}
                if self._marked:
                    odd |= {k for k, content in enumerate(column) if content[:1] == "<"}
                continue
            if self._thinks or self._trims:
                for k in [k for k, content in enumerate(column) if content[:1] in _BEGINNINGS]:
                    content = column[k]
                    if content[0] != "<" or self._marked or self._loss.touches(content):
                        odd.add(k)
                    elif content.startswith(self._openings):
                        thinking[k].append(number)
            if self._trims:
                odd |= {k for k, content in enumerate(column) if content[-1:].isspace() or THINK_END in content}
        return odd, thinking

    def _plan(self, shape: _Shape, opening: tuple[int, ...]) -> _Made:
        """How every row of this shape is put together: the row of placeholders, with the places of the contents.
        Those of ``opening`` begin with a thought."""
        made = self._plans.get((shape, opening))
        if made is None:
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            roles, indexes = shape
            marks = [(THINK if k in opening else "") + chr(_PLACEHOLDER + k) for k in range(len(roles))]
            slots = {mark: k for k, mark in enumerate(marks)}
            try:
                pieces = self._encoder.pieces(Plain(roles, marks, indexes))
                texts = [part.text for piece in pieces for part in piece.parts if part.text not in slots]
                assert not any(mark[-1] in text for text in texts for mark in marks), "a content is a part of its own"
                made = [
                    PlanPiece(
                        [(slots.get(part.text, part.text), part.message, part.part) for part in piece.parts],
                        piece.ids,
                        piece.weight > 0,
                    )
                    for piece in pieces
                ]
            except RowError as error:
                made = error
            self._plans[shape, opening] = made
        return made

    def _rendered(
        self, conversations: Sequence[Conversation], rows: dict[int, Plain | Rich], failures: dict[int, RenderFailure]
    ) -> LabelBatch:
        """``_jinja_encode`` (``base.py`` L1242): one text, all of it trained."""
        assert self._chat_template is not None
        made: list[Conversation] = [Conversation(Kind.MESSAGES, []) for _ in conversations]
        indexes: list[tuple[int, ...]] = [()] * len(conversations)
        asked: dict[bool, list[int]] = {True: [], False: []}
        for i, row in rows.items():
            try:
                made[i], indexes[i] = self._for_jinja(row)
            except RowError as error:
                failures[i] = _failure(error)
                continue
            asked[made[i].messages[-1]["role"] != "assistant"].append(i)
        texts = [""] * len(conversations)
        batch_failures: dict[int, RenderFailure] = {}
        segments: dict[int, tuple[Any, Any, Any]] = {}
        for prompt, numbers in asked.items():
            if not numbers:
                continue
            render = self._chat_template.render([made[i] for i in numbers], add_generation_prompt=prompt)
            for k, i in enumerate(numbers):
                texts[i] = render.texts[k]
                mine = slice(int(render.row_segments[k]), int(render.row_segments[k + 1]))
                message = [indexes[i][m] if m >= 0 else m for m in render.segment_message[mine].tolist()]
                segments[i] = render.segment_chars[mine], message, render.segment_part[mine]
                if k in render.failures:
                    batch_failures[i] = render.failures[k]
        ids = self.tokenizer.encode(texts)
        places = self.tokenizer.place(texts, ids)
        joined = _segments(segments, len(conversations))
        batch = batch_of(ids, np.ones(len(ids.flat), np.bool_), render_segments(joined, places, ids), texts, places)
        batch.failures = batch_failures
        return batch

    def _for_jinja(self, row: Plain | Rich) -> tuple[Conversation, tuple[int, ...]]:
        if isinstance(row, Rich) and (row.tools or any("tool" in m["role"] for m in row.messages)):
            raise NotReproduced("tools under the jinja backend")
        turns, system, _, arguments = self._encoder.turns(row)
        if system is None and self._template.default_system is not None:
            system = Part(self._template.default_system, SCAFFOLD, PART_CONTENT)
        if system is not None:
            turns.insert(0, Turn("system", [[system]]))
        if not turns:
            raise RowError("there are no messages")
        contents = ["".join(part.text for parts in turn.contents for part in parts) for turn in turns]
        roles = tuple(turn.role for turn in turns)
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        extra: dict[str, Any] = {}
        thinks = self._encoder.enables_thinking(arguments)
        if self._template.is_thinking or thinks:
            key = "thinking" if self._template.kind == "deepseek_v3_1" else "enable_thinking"
            extra = {key: thinks, "preserve_thinking": self._encoder.preserves_thinking(arguments)}
        extra |= arguments
        made = Conversation(
            Kind.MESSAGES,
            messages,
            None if extra else roles,
            None if extra else contents,
            template_kwargs=extra or None,
        )
        return made, tuple(turn.contents[0][0].message for turn in turns)

    def _finish(self, batch: LabelBatch) -> None:
        starts, trained = batch.ids.starts, batch.trained
        if self._own.template_backend == "swift":
            self._train_suffixes(batch)
        lengths = np.diff(starts)
        filled = lengths > 0
        trained[starts[:-1][filled]] = False
        for row in np.flatnonzero(~filled).tolist():
            batch.failures.setdefault(row, _failure(RowError("it has no token")))
        limit = self._limit
        if limit is None:
            return
        strategy = self._own.truncation_strategy
        long = np.flatnonzero(lengths > limit)
        if strategy == "delete":
            for row in long.tolist():
                if row not in batch.failures:
                    batch.dropped[row] = (
                        f"it has {lengths[row]} tokens, more than max_length ({limit}): truncation_strategy delete"
                    )
        elif strategy == "split":
            for row in long.tolist():
                trained[starts[row] : starts[row + 1] : limit] = False
        else:
            batch.kept = kept_by_length(batch.ids, limit, "keep_end" if strategy == "left" else "keep_start")
            if strategy == "left":
                trained[starts[1:][long] - limit] = False

    def _train_suffixes(self, batch: LabelBatch) -> None:
        """``_add_dynamic_eos`` (L1231): a suffix that begins a masked stretch behind a trained one is trained."""
        trained, flat, starts = batch.trained, batch.ids.flat, batch.ids.starts
        if not self._suffix or not len(flat):
            return
        begins = ~trained
        begins[1:] &= trained[:-1]
        begins[starts[:-1][np.diff(starts) > 0]] = False
        begins[0] = False
        at = np.flatnonzero(begins)
        ends = starts[np.searchsorted(starts, at, side="right")]
        fits = at + len(self._suffix) <= ends
        at = at[fits]
        for k, number in enumerate(self._suffix):
            at = at[(flat[at + k] == number) & ~trained[at + k]]
        for k in range(len(self._suffix)):
            trained[at + k] = True

    # Reasons

    def reason(self, place: Place, trained: bool) -> str:
        return reason(place, trained, self._own.template_backend, self._loss.strategy, self._template)


def _failure(error: RowError) -> RenderFailure:
    message = str(error)
    return RenderFailure(error.kind, LEFT_OUT + message if error.kind == "stops" else message)


def model_limit(tokenizer: Tokenizer) -> int | None:
    """``get_max_model_len`` (``utils/hf_config.py`` L127): the smallest limit that config.json names."""
    found = [tokenizer.model_config.get(key) for key in _LIMITS]
    limits = [value for value in found if isinstance(value, int) and not isinstance(value, bool)]
    return min(limits, default=None)


def _segments(found: dict[int, tuple[Any, Any, Any]], rows: int) -> RenderBatch:
    counts = np.zeros(rows, np.int64)
    for row, (chars, _, _) in found.items():
        counts[row] = len(chars)
    ordered = [found[row] for row in sorted(found)]

    def column(k: int, dtype: Any) -> npt.NDArray[Any]:
        return np.concatenate([np.asarray(each[k], dtype) for each in ordered]) if ordered else np.empty(0, dtype)

    return RenderBatch([], column(0, np.int64), column(1, np.int32), column(2, np.int8), running(counts))


_ANSWERS = frozenset({Place.ASSISTANT, Place.REASONING, Place.TOOL_CALL, Place.TEXT, Place.COMPLETION})


def reason(place: Place, trained: bool, backend: str, strategy: str, template: SwiftTemplate) -> str:
    """Why a token of this kind is trained or masked."""
    if backend == "jinja":
        if trained:
            return "ms-swift's jinja backend trains the whole rendered text"
        return "ms-swift masks the first label of every sequence"
    scale = f"loss_scale {strategy}"
    if trained:
        if strategy == "all":
            return "ms-swift's loss_scale all trains every token but the first"
        if place in (Place.TURN_END, Place.EOS):
            return f"ms-swift trains the suffix of the template {template.name} behind a trained answer"
        if place in _ANSWERS:
            return f"ms-swift trains answers ({scale})"
        return f"the token belongs to an answer or to the suffix behind it, which ms-swift trains ({scale})"
    if place is Place.BOS:
        return "ms-swift masks the first label of every sequence"
    if place in _ANSWERS:
        if strategy == "last_round":
            return "ms-swift's loss_scale last_round trains the last round alone, and loss: false masks an answer"
        return 'ms-swift masks an answer whose message says "loss": false, and what a loss scale gives weight 0'
    if place in (Place.TURN_END, Place.EOS):
        return (
            f"ms-swift trains what follows an answer only where it is the suffix of the template {template.name}, "
            "token for token, and the answer is trained"
        )
    if place is Place.HEADER:
        return "ms-swift masks what its template writes in front of an answer (an empty thought too)"
    if strategy == "all":
        return "ms-swift masks the first label of every sequence"
    return f"ms-swift masks all but answers ({scale})"
