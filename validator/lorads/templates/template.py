"""A chat template: conversations in, renders with spans out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from lorads.errors import UsageError
from lorads.formats.conversation import Conversation
from lorads.templates import generation
from lorads.templates.engines import Engine, MiniJinjaEngine
from lorads.templates.limits import MAX_SOURCE_BYTES, BrokenError, LimitError, Limits, RaisedError
from lorads.templates.marks import EXCERPT_CHARS, Segment, fill, locate
from lorads.templates.plans import GENERATION_MARKS, MAX_MESSAGES, Plan, PlanMismatch, make_plan, unfit_rows
from lorads.templates.render import PART_CONTENT, Lost, RenderBatch, RenderFailure
from lorads.templates.values import FrozenDict, FrozenList, plain, same_in_both, with_reasoning_aliases
from lorads.templates.verdict import compile_reference, judge

MAX_PLANS = 4096
_WORTH_A_PLAN = {"minijinja": 256, "jinja2": 256}
"""Rows of one shape from which on a plan (some dozens of renders) costs less than rendering them in full."""
_SAMPLE = 256
_NOTHING: Mapping[str, str] = MappingProxyType({})

_Row = tuple[str, list[Segment], tuple[Lost, ...], list[tuple[int, int]] | None]
_Shape = tuple[tuple[str, ...], tuple[bool, ...], bool]


class Template:
    """A chat template that means what transformers' ``apply_chat_template`` (5.23) makes of it.

    ``special`` are further names for the template (``pad_token``, ``unk_token`` …); an empty token is not passed, as
    a tokenizer without it doesn't pass it. ``clock`` is what ``strftime_now`` tells: by default the time at which this
    object was made, so that all rows of a run are rendered at one time. ``plans=False`` renders every row in full.

    Raises ``UsageError`` for a template that is over 1 MB, has a syntax error or nests too deeply.
    """

    def __init__(
        self,
        source: str,
        *,
        bos_token: str = "",
        eos_token: str = "",
        special: Mapping[str, str] = _NOTHING,
        limits: Limits = Limits(),  # noqa: B008 (immutable)
        clock: Callable[[], datetime] | None = None,
        plans: bool = True,
    ) -> None:
        encoded = source.encode("utf-8", "surrogatepass")
        if len(encoded) > MAX_SOURCE_BYTES:
            raise UsageError(
                f"the chat template is {len(encoded):,} bytes long; the limit is {MAX_SOURCE_BYTES:,}",
                "Is it a template at all? The largest published ones are below 60 kB.",
            )
        self.sha256: str = hashlib.sha256(encoded).hexdigest()
        tokens = {"bos_token": bos_token, "eos_token": eos_token, **special}
        self._special = {name: token for name, token in tokens.items() if token}
        self._limits = limits
        self._by_plans = plans
        now = datetime.now()
        self._clock = clock or (lambda: now)
        self._source, self.has_generation_markers = generation.rewrite(source)
        self.verdict, self._reference = judge(self._source, self._special, limits, self._clock)
        self.engine: Literal["minijinja", "jinja2"] = self.verdict.engine
        self.notes: list[str] = list(self.verdict.notes)
        self._fast: Engine | None = None
        if self.engine == "minijinja":
            self._fast = MiniJinjaEngine(self._source, limits, self._clock)
        stripped = {char for chars in self.verdict.strips for char in chars if not char.isspace()}
        searched = [*self.verdict.contains, *sorted(stripped)]
        self._splitter = re.compile("|".join(map(re.escape, searched))) if searched else None
        self._plans: dict[_Shape, Plan | None] | None = {} if plans and self.verdict.opaque else None
        self._seen: dict[_Shape, int] = {}
        self._checked: set[_Shape] = set()

    def with_source(self, source: str, **special: str) -> Template:
        """Another template text with this one's names for special tokens (but for ``special``), limits and clock."""
        names = {**self._special, **special}
        return Template(source, special=names, limits=self._limits, clock=self._clock, plans=self._by_plans)

    def render(
        self, conversations: list[Conversation], *, add_generation_prompt: bool = False, prompt_only: bool = False
    ) -> RenderBatch:
        """The renders of a batch; ``prompt_only`` takes the first ``prompt_messages`` messages of each.

        Raises ``PlanMismatch`` when a check finds that rendering from pieces doesn't do for this template.
        """
        batch = _Batch(len(conversations), self.has_generation_markers)
        groups, in_full = self._grouped(conversations, prompt_only)
        for numbers, rows in groups:
            shape = (
                self._roles(conversations[numbers[0]], prompt_only),
                tuple(not content for content in rows[0]),
                add_generation_prompt,
            )
            in_full += self._render_group(batch, shape, numbers, rows)
        for number in in_full:
            conversation = conversations[number]
            messages = conversation.messages
            if prompt_only:
                messages = messages[: conversation.prompt_messages]
            batch.put(number, self._render_row(conversation, messages, add_generation_prompt))
        return batch.finish()

    def _grouped(
        self, conversations: Sequence[Conversation], prompt_only: bool
    ) -> tuple[Collection[tuple[list[int], list[Sequence[str]]]], list[int]]:
        """The rows of each shape, as positions and contents, and the positions of those that have none."""
        if self._plans is None:
            return [], list(range(len(conversations)))
        if not prompt_only and conversations and conversations[0].roles is not None:
            # most files hold one shape: then no row has to be looked at by itself
            first, same = conversations[0].roles, [conversation.roles for conversation in conversations]
            plain: list[Sequence[str]] = [row for row in (c.contents for c in conversations) if row is not None]
            if same.count(first) == len(same) == len(plain) and all(map(all, plain)):
                return [(list(range(len(same))), plain)], []
        groups: dict[Any, tuple[list[int], list[Sequence[str]]]] = {}
        in_full: list[int] = []
        for number, conversation in enumerate(conversations):
            roles, row = conversation.roles, conversation.contents
            if roles is None or row is None:
                in_full.append(number)
                continue
            if prompt_only:
                roles = roles[: conversation.prompt_messages]
                row = row[: conversation.prompt_messages]
            key: Any = roles if all(row) else (roles, tuple(map(bool, row)))
            group = groups.get(key)
            if group is None:
                groups[key] = ([number], [row])
            else:
                group[0].append(number)
                group[1].append(row)
        return groups.values(), in_full

    @staticmethod
    def _roles(conversation: Conversation, prompt_only: bool) -> tuple[str, ...]:
        roles = conversation.roles or ()
        return roles[: conversation.prompt_messages] if prompt_only else roles

    # Rows from pieces.

    def _render_group(self, batch: _Batch, shape: _Shape, numbers: list[int], rows: list[Sequence[str]]) -> list[int]:
        """Render the rows of one shape from pieces; gives back those that must be rendered in full."""
        plan = self._plan(shape, len(numbers))
        if plan is None:
            return numbers
        columns = list(zip(*rows, strict=True))
        unfit = unfit_rows(plan, columns)
        left = [numbers[i] for i in sorted(unfit)]
        if unfit:
            fit = [i for i in range(len(numbers)) if i not in unfit]
            numbers, rows = [numbers[i] for i in fit], [rows[i] for i in fit]
            columns = list(zip(*rows, strict=True))
        if not numbers:
            return left
        if plan.failure is not None:
            batch.failures.update(dict.fromkeys(numbers, plan.failure))
            return left
        printed = [plan.trimmed(slot, columns[message]) for slot, message in enumerate(plan.slots)]
        texts = plan.texts(printed) if printed else [plan.pieces[0]] * len(numbers)
        chars = np.tile(plan.segment_chars, (len(numbers), 1))
        for column, contents in zip(plan.columns, printed, strict=True):
            chars[:, column] = np.fromiter(map(len, contents), np.int64, len(contents))
        self._check_sample(shape, rows, texts, chars)
        batch.put_group(numbers, texts, chars, plan)
        for message in plan.lost:
            for number, content in zip(numbers, columns[message], strict=True):
                gone = Lost(message, PART_CONTENT, content.strip()[:EXCERPT_CHARS], whole_message=True)
                batch.lost[number] = (*batch.lost.get(number, ()), gone)
        return left

    def _plan(self, shape: _Shape, rows: int) -> Plan | None:
        plans = self._plans
        if plans is None or len(shape[0]) > MAX_MESSAGES:
            return None
        if shape in plans:
            return plans[shape]
        if len(plans) >= MAX_PLANS:
            return None
        if len(self._seen) > 16 * MAX_PLANS:
            self._seen.clear()
        self._seen[shape] = seen = self._seen.get(shape, 0) + rows
        if seen < _WORTH_A_PLAN[self.engine]:
            return None
        roles, empty, prompt = shape
        verdict = self.verdict
        marks = dict(zip((generation.BEGIN, generation.END), GENERATION_MARKS, strict=True))

        def render(contents: Sequence[str]) -> str:
            return self._run({**self._plain_context(roles, contents, prompt), **marks}, fast=True)

        plans[shape] = plan = make_plan(render, empty, verdict.contains, verdict.equals, verdict.strips)
        return plan

    def _check_sample(
        self, shape: _Shape, rows: list[Sequence[str]], texts: list[str], chars: npt.NDArray[np.int64]
    ) -> None:
        """Render some rows in full, chosen by the lengths of their contents, and the first of every shape."""
        weights = np.arange(1, 2 * chars.shape[1], 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        hashes = (chars.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95)
        chosen = np.flatnonzero(hashes >> np.uint64(56) == 0)[: 1 + 2 * len(rows) // _SAMPLE].tolist()
        if shape not in self._checked:
            self._checked.add(shape)
            chosen.append(0)
        for i in chosen:
            context = self._plain_context(shape[0], rows[i], shape[2])
            try:
                full = self._run(context, fast=same_in_both(list(rows[i])))
            except (RaisedError, BrokenError, LimitError) as error:
                full = f"(no render: {error})"
            if full != texts[i]:
                raise PlanMismatch(
                    f"a render from pieces differs from the full one for the roles {', '.join(shape[0])}"
                )

    # Rows in full.

    def _plain_context(self, roles: Sequence[str], contents: Sequence[str], prompt: bool) -> dict[str, Any]:
        messages = [
            FrozenDict({"role": role, "content": content}) for role, content in zip(roles, contents, strict=True)
        ]
        return self._context(FrozenList(messages), None, prompt, {})

    def _context(self, messages: Any, tools: Any, prompt: bool, extra: dict[str, Any]) -> dict[str, Any]:
        return {
            **self._special,
            generation.BEGIN: "",
            generation.END: "",
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": prompt,
            **extra,
        }

    def _run(self, context: dict[str, Any], *, fast: bool) -> str:
        """One render. What minijinja can't render is put before the sandbox, which has the last word."""
        if fast and self._fast is not None:
            try:
                return self._fast.render(context)
            except (BrokenError, LimitError):
                pass  # the sandbox says whether, and why, there is no render
        if self._reference is None:
            self._reference = compile_reference(self._source, self._limits, self._clock)
        return self._reference.render(context)

    def _render_row(
        self, conversation: Conversation, messages: list[dict[str, Any]], prompt: bool
    ) -> _Row | RenderFailure:
        try:
            return self._located(conversation, messages, prompt)
        except RaisedError as error:
            return RenderFailure("raised", str(error))
        except BrokenError as error:
            return RenderFailure("error", str(error))
        except LimitError as error:
            return RenderFailure("limit", str(error))
        except RecursionError:
            return RenderFailure("limit", "the conversation nests too deeply")

    def _located(self, conversation: Conversation, messages: list[dict[str, Any]], prompt: bool) -> _Row:
        for message in messages:
            if not isinstance(message, dict):
                raise BrokenError(f"a message is no object but {type(message).__name__}")
        for tool in conversation.tools or ():
            if not isinstance(tool, dict):
                raise BrokenError(f"a tool is no object but {type(tool).__name__}")
        extra = {str(name): plain(value) for name, value in (conversation.template_kwargs or {}).items()}
        shown = FrozenList(
            with_reasoning_aliases({key: plain(value) for key, value in message.items() if value is not None})
            for message in messages
        )
        tools = plain(conversation.tools)
        rich = conversation.roles is None
        fast = (not rich or self.verdict.rich_engine == "minijinja") and all(map(same_in_both, (shown, tools, extra)))
        text = self._run(self._context(shown, tools, prompt, extra), fast=fast)

        def render_marked(marked_messages: Any, marked_tools: Any) -> str | None:
            try:
                return self._run(self._context(marked_messages, marked_tools, prompt, extra), fast=fast)
            except (RaisedError, BrokenError, LimitError):
                return None

        segments, lost = locate(text, messages, conversation.tools, render_marked, self._splitter)
        spans = None
        if self.has_generation_markers:
            spans = self._generation_spans(self._context(shown, tools, prompt, extra), fast, text)
        return text, fill(segments, len(text)), lost, spans

    def _generation_spans(self, context: dict[str, Any], fast: bool, text: str) -> list[tuple[int, int]]:
        pairs = [GENERATION_MARKS, ("\U0010fff0", "\U0010fff1"), ("\ufdd0", "\ufdd1"), ("\ufdd2", "\ufdd3")]
        begin, end = next((pair for pair in pairs if pair[0] not in text and pair[1] not in text), pairs[0])
        marked = self._run({**context, generation.BEGIN: begin, generation.END: end}, fast=fast)
        parts = re.split(f"([{begin}{end}])", marked)
        if "".join(parts[0::2]) != text:
            raise BrokenError("the places of the generation blocks can't be told")
        spans: list[tuple[int, int]] = []
        opened: list[int] = []
        position = len(parts[0])
        for mark, following in zip(parts[1::2], parts[2::2], strict=True):
            if mark == begin:
                opened.append(position)
            elif opened:
                spans.append((opened.pop(), position))
            position += len(following)
        return spans


class _Batch:
    """Collects the rows of a batch, in any order."""

    def __init__(self, rows: int, generation_blocks: bool) -> None:
        self.texts = [""] * rows
        self.failures: dict[int, RenderFailure] = {}
        self.lost: dict[int, tuple[Lost, ...]] = {}
        self.generation: dict[int, list[tuple[int, int]]] | None = {} if generation_blocks else None
        self._counts = np.zeros(rows, np.int64)
        self._groups: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Plan]] = []
        self._rows: dict[int, list[Segment]] = {}
        self._from_pieces = np.zeros(rows, np.bool_)

    def put_group(self, numbers: list[int], texts: list[str], chars: npt.NDArray[np.int64], plan: Plan) -> None:
        where = np.array(numbers, np.int64)
        if len(numbers) == len(self.texts):
            self.texts = texts
        else:
            for number, text in zip(numbers, texts, strict=True):
                self.texts[number] = text
        self._counts[where] = chars.shape[1]
        self._groups.append((where, chars, plan))
        self._from_pieces[where] = True
        if self.generation is not None:
            borders = np.zeros((len(numbers), chars.shape[1] + 1), np.int64)
            np.cumsum(chars, axis=1, out=borders[:, 1:])
            for number, ends in zip(numbers, borders.tolist(), strict=True):
                self.generation[number] = [(ends[first], ends[last]) for first, last in plan.generation]

    def put(self, number: int, row: _Row | RenderFailure) -> None:
        if isinstance(row, RenderFailure):
            self.failures[number] = row
            return
        text, segments, lost, spans = row
        self.texts[number] = text
        self._counts[number] = len(segments)
        self._rows[number] = segments
        if lost:
            self.lost[number] = lost
        if self.generation is not None:
            self.generation[number] = spans or []

    def finish(self) -> RenderBatch:
        starts = np.zeros(len(self.texts) + 1, np.int64)
        np.cumsum(self._counts, out=starts[1:])
        chars = np.zeros(int(starts[-1]), np.int64)
        message = np.zeros(len(chars), np.int32)
        part = np.zeros(len(chars), np.int8)
        for where, lengths, plan in self._groups:
            if lengths.shape[1] == 0:
                continue
            places = (starts[where][:, None] + np.arange(lengths.shape[1])).ravel()
            chars[places] = lengths.ravel()
            message[places] = np.tile(plan.segment_message, len(where))
            part[places] = np.tile(plan.segment_part, len(where))
        if self._rows:
            flat = [segment for segments in self._rows.values() for segment in segments]
            table = np.array(flat, np.int64).reshape(-1, 4)
            places = np.concatenate(
                [np.arange(starts[number], starts[number] + len(rows)) for number, rows in self._rows.items()]
            )
            chars[places] = table[:, 1] - table[:, 0]
            message[places] = table[:, 2]
            part[places] = table[:, 3]
        return RenderBatch(
            texts=self.texts,
            segment_chars=chars,
            segment_message=message,
            segment_part=part,
            row_segments=starts,
            failures=self.failures,
            lost=self.lost,
            generation=self.generation,
            from_pieces=self._from_pieces,
        )
