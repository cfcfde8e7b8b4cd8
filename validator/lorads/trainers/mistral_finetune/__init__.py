"""mistral-finetune at commit 1943535 (June 2026), with mistral-common 1.5.4.

1.5.4 is the last mistral-common that mistral-finetune can be imported with (its requirements name no upper limit):
1.5.5 moved ``InstructTokenizerBase``. Since 1.5.0 spaces at the end of an answer are cut off before it is encoded.

``finetune/data/tokenize.py``: every message is encoded by itself and ids are joined (``tokenize_instruct`` L289-345);
answers are trained with their ``</s>`` (and ``[TOOL_CALLS]``), unless their ``weight`` is 0; with ``only_last`` or
tools in the row the last message alone (L334-340). System prompt and tools stand in the last user message (v1: the
system prompt in the first). The ids of the last message's tool calls are left out (L348). Texts are ``<s>``, text,
``</s>``, all trained (L283). ``_rows.py`` has what is refused.
mistral-common 1.5.4, ``tokens/tokenizers/sentencepiece.py``: ``InstructTokenizerV1`` L260, ``V2`` L320, ``V3`` L460.
``train.py`` L139 always takes v3 (SentencePiece up to 32768 embedding rows, tekken above); v1 and v2 are here for who
builds the loader with them. Later versions are refused.

``finetune/data/dataset.py``, ``sequence_iterator`` L181: the input is the row without its last token, the target the
row without its first, so the first token is never trained. Rows are laid one behind the other in sequences of
``seq_len`` and cut where one is full; a stretch without a trained token is left out. lorads shows a row as it is fed
when a new sequence begins with it: in stretches of ``seq_len``, of which the ones without a trained token are left out,
and no row at all where no token is trained. Which rows share a sequence is not reproduced, and so neither is where a
row is cut that begins in the middle of one; what goes missing then is said in the notes.

``dynamic_chunk_fn_call`` (``maybe_chunk_data`` L434) trains, besides a row with ``only_last`` or tools, copies of it
that end with each earlier answer. Where such a copy stops the run, the row is a failure here; the copies themselves are
not shown. Not reproduced either: images, and numbers in tool definitions that JSON readers read differently (whole
numbers of more than 64 bits).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.templates.render import PART_CONTENT, PART_NONE, PART_TOOL_CALL, SCAFFOLD, TOOLS, RenderFailure
from lorads.tokenizers.mistral import VERSION_KEY
from lorads.trainers.base import LabelBatch, Place, TrainOptions, sum_by_row
from lorads.trainers.mistral_finetune._encode import NOTHING, Piece, Rows, Shape, control, written
from lorads.trainers.mistral_finetune._rows import (
    ROLES,
    Call,
    Sample,
    Stop,
    Turn,
    instruct_sample,
    order_problem,
    pretrain_text,
)

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

UNTRAINED = "no token of the row is trained (mistral-finetune leaves such rows out without a word)"
NO_ROW = "mistral-finetune takes conversations and texts, not {}"
_CONTROLS = (
    *("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"),
    *("[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
)
_MANY = 20_000
_FILES = "python -c \"import mistral_common; print(mistral_common.__path__[0] + '/data')\""


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of ``data.instruct`` in mistral-finetune's YAML."""

    dynamic_chunk_fn_call: bool = True
    """Rows with tools or ``only_last`` are trained once more for each earlier answer, shortened to end with it."""


class MistralFinetune:
    name = "mistral-finetune"
    version = "2026.6"
    default_max_length: int | None = 2048
    Options = Options
    format_notes: Mapping[str, str] = {
        "sharegpt": "mistral-finetune knows no from and value; the rows were made messages, so make them that before "
        "you train",
        "alpaca": "mistral-finetune knows no Alpaca columns; the rows were made messages (user: instruction and "
        "input), so make them that before you train",
        "preference": "the chosen answers were judged as mistral-finetune would train on them, once they are messages",
        "prompt-completion": "mistral-finetune knows no prompt and completion; their messages were joined, so do that "
        "before you train (and give answers in the prompt the weight 0, if they should not be trained)",
    }

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> Labels:
        version = str(tokenizer.model_config.get(VERSION_KEY, ""))
        if version not in ("v1", "v2", "v3"):
            what = f"has the version {version}" if version else "is not a file of mistral-common"
            raise UsageError(
                f"mistral-finetune encodes with mistral-common's own vocabularies, and {tokenizer.name} {what}",
                "give one of its files with --tokenizer: mistral_instruct_tokenizer_240323.model.v3, or "
                f"tekken_240718.json for Nemo models. To find them: {_FILES}",
            )
        if options.max_length is None:
            raise UsageError("mistral-finetune always cuts to seq_len", "give --max-length N")
        if options.max_length < 1:
            raise UsageError(f"a seq_len of {options.max_length} holds no token", "give --max-length N")
        if options.train_on == "last":
            raise UsageError(
                "mistral-finetune has no setting for training on the last answer alone",
                'write "only_last": true into each row',
            )
        if options.train_on in ("all", "completion"):
            raise UsageError(
                "mistral-finetune trains the answers, and nothing else can be chosen",
                "leave --train-on away; to train on everything make the rows texts",
            )
        if options.response_marker is not None or options.instruction_marker is not None:
            raise UsageError("mistral-finetune searches for no markers", "leave the markers away")
        own: Options = options.own if options.own is not None else Options()
        return Labels(tokenizer, version, options.max_length, own.dynamic_chunk_fn_call, _notes(version, template))


def _notes(version: str, template: Template | None) -> tuple[str, ...]:
    notes = [
        "mistral-finetune packs: a row is cut where a sequence is full, and a stretch without a trained token is left "
        "out, so that an answer behind such a cut is trained without its question",
    ]
    if version != "v3":
        notes.append(
            f"train.py of mistral-finetune always takes the v3 vocabulary, for every model; this one is {version}"
        )
    if template is not None:
        notes.append("mistral-finetune does not use the chat template")
    return tuple(notes)


@dataclass(frozen=True, slots=True)
class _Plain:
    """What rows of nothing but texts have in common, by the roles of their messages."""

    problem: str | None
    shapes: tuple[Shape, Shape]
    """Without and with a system prompt."""
    steps: tuple[tuple[int, str], ...]
    """Which messages become texts, in order: ``user``, ``system`` (a user message with it), ``assistant``."""
    system: int
    """Index of the system message, -1 where there is none."""
    quick: Shape | None = None
    """Where every message is a text by itself: the shape that strips the answers."""


class Labels:
    """``Labeller`` of mistral-finetune."""

    def __init__(self, tokenizer: Tokenizer, version: str, seq_len: int, chunked: bool, notes: tuple[str, ...]) -> None:
        self.notes = notes
        self.tokenizer, self._version, self._seq_len, self._chunked = tokenizer, version, seq_len, chunked
        self._bos, self._eos = self._control("<s>"), self._control("</s>", trained=True)
        self._untrained_eos = self._control("</s>")
        self._controls = {} if version == "v1" else {token: self._control(token) for token in _CONTROLS}
        self._calls = None if version == "v1" else self._control("[TOOL_CALLS]", trained=True)
        text = written((0, PART_CONTENT), trained=True)
        self._text = Shape((self._bos, text, self._eos))
        self._shapes: dict[tuple[Piece, ...], Shape] = {}
        self._plain: dict[tuple[str, ...], _Plain] = {}

    def _control(self, token: str, trained: bool = False) -> Piece:
        number = self.tokenizer.id_of(token)
        if number is None:
            raise UsageError(f"{self.tokenizer.name} has no token {token}", "is it the file you meant?")
        return control(token, number, trained)

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        rows = Rows()
        failures: dict[int, RenderFailure] = {}
        for i, conversation in enumerate(conversations):
            if conversation.roles is not None:  # the common case: texts as they are
                shape = self._quick(conversation)
                if shape is not None:
                    rows.texts += conversation.contents or ()
                    rows.shapes.append(shape)
                    continue
            texts, stretches = len(rows.texts), len(rows.stretches)
            try:
                shape = self._row(conversation, rows)
            except Stop as why:
                failures[i] = RenderFailure("stops", str(why))
                shape = NOTHING
                del rows.texts[texts:], rows.stretches[stretches:]
            rows.shapes.append(shape)
        batch = rows.build(self.tokenizer)
        batch.failures = failures
        self._sequences(batch)
        return batch

    # One row: its shape, its texts added to the batch's

    def _quick(self, conversation: Conversation) -> Shape | None:
        """The shape of a row whose texts are its messages' contents; None for any other."""
        assert conversation.roles is not None
        plain = self._plain.get(conversation.roles)
        if plain is None or plain.quick is None or conversation.train is not None:
            return None
        record = conversation.record
        if (record and not _bare(record)) or "" in (conversation.contents or ()):
            return None
        return plain.quick

    def _row(self, conversation: Conversation, rows: Rows) -> Shape:
        record = conversation.record
        if conversation.roles is not None and conversation.train is None and (not record or _bare(record)):
            assert conversation.contents is not None
            return self._plain_row(conversation.roles, conversation.contents, rows)
        if conversation.kind is Kind.TEXT:
            rows.texts.append(pretrain_text(record or {"text": conversation.text}))
            return self._text
        if conversation.kind in (Kind.PROMPT_COMPLETION, Kind.TOKENIZED):
            raise Stop(NO_ROW.format("ids" if conversation.kind is Kind.TOKENIZED else "two texts"))
        return self._sample_row(instruct_sample(_record(conversation), self._chunked), rows)

    def _plain_row(self, roles: tuple[str, ...], contents: Sequence[str], rows: Rows) -> Shape:
        plain = self._plain.get(roles)
        if plain is None:
            if len(self._plain) >= _MANY:
                self._plain.clear()
            plain = self._plain[roles] = self._plan(roles)
        if plain.problem is not None:
            raise Stop(plain.problem)
        system = contents[plain.system] if plain.system >= 0 else ""
        first = self._version == "v1"
        for index, what in plain.steps:
            content = contents[index]
            if what == "assistant":
                if not content:
                    raise Stop(f"message {index}: the answer has neither a text nor tool calls")
                rows.texts.append(content if first else content.rstrip(" "))
            elif first or (system and what == "system"):
                self._add_user(content, system if what == "system" else "", rows)
            else:
                rows.texts.append(content)
        return plain.shapes[bool(system)]

    def _plan(self, roles: tuple[str, ...]) -> _Plain:
        """Made once for each order of roles, by way of a sample with those roles."""
        unknown = next((role for role in roles if role not in ROLES), None)
        turns = [
            Turn(i, "user" if role == "user" else "assistant", "x") for i, role in enumerate(roles) if role != "system"
        ]
        systems = [i for i, role in enumerate(roles) if role == "system"]
        if unknown is not None:
            problem: str | None = f'a message has the role "{unknown:.40}"; mistral-finetune knows {", ".join(ROLES)}'
        elif "tool" in roles:
            problem = "a tool's result has no tool_call_id"
        elif len(systems) > 1:
            problem = "there is more than one system prompt"
        else:
            problem = order_problem(tuple(role for role in roles if role != "system"))
        if problem is not None:
            return _Plain(problem, (NOTHING, NOTHING), (), -1)
        system = systems[0] if systems else -1
        shapes = [self._sample_row(Sample(turns, text, system, None, False), Rows()) for text in ("", "x")]
        users = [turn.at for turn in turns if turn.role == "user"]
        with_system = (users[0] if self._version == "v1" else users[-1]) if users else -1
        steps = tuple((turn.at, "system" if turn.at == with_system else turn.role) for turn in turns)
        quick = None
        if system < 0 and self._version != "v1":
            quick = Shape(shapes[0].pieces, tuple(i for i, role in enumerate(roles) if role == "assistant"))
        return _Plain(None, (shapes[0], shapes[1]), steps, system, quick)

    def _sample_row(self, sample: Sample, rows: Rows) -> Shape:
        """Any row; ``tokenize_instruct``."""
        pieces: list[Piece] = [self._bos]
        users = [turn.at for turn in sample.turns if turn.role == "user"]
        first_user, last_user = (users[0], users[-1]) if users else (-1, -1)
        last = sample.turns[-1].at
        for turn in sample.turns:
            if turn.role == "user":
                tools = sample.tools if turn.at == last_user else None
                has_system = turn.at == (first_user if self._version == "v1" else last_user)
                self._user(turn, sample, tools, has_system, pieces, rows)
            elif turn.role == "tool":
                self._result(turn, turn.at < last_user, pieces, rows)
            else:
                trained = turn.weighted and (not sample.only_last or turn.at == last)
                self._answer(turn, trained, turn.at == last, pieces, rows)
        key = tuple(pieces)
        known = self._shapes.get(key)
        if known is None:
            if len(self._shapes) >= _MANY:
                self._shapes.clear()
            known = self._shapes[key] = Shape(key)
        return known

    def _user(
        self, turn: Turn, sample: Sample, tools: str | None, has_system: bool, pieces: list[Piece], rows: Rows
    ) -> None:
        system = sample.system if has_system and sample.system else ""
        me = (turn.at, PART_CONTENT)
        before = ((sample.system_index, PART_CONTENT), (SCAFFOLD, PART_NONE)) if system else ()
        if self._version != "v3" and isinstance(turn.content, list):
            raise Stop(f"message {turn.at} is written in parts, which version {self._version} does not take")
        if self._version == "v1":
            pieces.append(written((SCAFFOLD, PART_NONE), *before, me, (SCAFFOLD, PART_NONE)))
            self._add_user(str(turn.content), system, rows)
            return
        if tools is not None:
            pieces += [self._controls["[AVAILABLE_TOOLS]"], written((TOOLS, PART_NONE))]
            pieces.append(self._controls["[/AVAILABLE_TOOLS]"])
            rows.texts.append(self._sound(tools, turn.at))
        pieces.append(self._controls["[INST]"])
        for content in turn.content if isinstance(turn.content, list) else [turn.content or ""]:
            pieces.append(written(*before, me))
            if before:
                self._add_user(content, system, rows)
            else:
                rows.texts.append(content)
            before = ()
        pieces.append(self._controls["[/INST]"])

    def _add_user(self, content: str, system: str, rows: Rows) -> None:
        """A user message with what is written around it, and how many characters each part has."""
        text, sizes = content, [len(content)]
        if system:
            text, sizes = f"{system}\n\n{content}", [len(system), 2, *sizes]
        if self._version == "v1":
            text, sizes = f"[INST] {text} [/INST]", [7, *sizes, 8]
        rows.texts.append(text)
        rows.stretches.append(tuple(sizes))

    def _answer(self, turn: Turn, trained: bool, is_last: bool, pieces: list[Piece], rows: Rows) -> None:
        if turn.calls:
            if self._calls is None:
                raise Stop("version v1 has no tool calls")
            pieces.append(self._calls if trained else self._controls["[TOOL_CALLS]"])
            pieces.append(written((turn.at, PART_TOOL_CALL), trained=trained))
            calls = [self._call(call, is_last) for call in turn.calls]
            rows.texts.append(self._sound(json.dumps(calls, ensure_ascii=False), turn.at))
        else:
            pieces.append(written((turn.at, PART_CONTENT), trained=trained))
            content = str(turn.content)
            rows.texts.append(content if self._version == "v1" else content.rstrip(" "))
        pieces.append(self._eos if trained else self._untrained_eos)

    def _call(self, call: Call, is_last: bool) -> dict[str, Any]:
        written_call = {"name": call.name, "arguments": _parsed(call.arguments)}
        if self._version == "v3" and not is_last and call.id and call.id != "null":
            written_call["id"] = call.id
        return written_call

    def _result(self, turn: Turn, before_last_user: bool, pieces: list[Piece], rows: Rows) -> None:
        if self._version == "v1":
            raise Stop("version v1 has no tool results")
        content = _parsed(str(turn.content))
        if self._version == "v3":
            text = json.dumps({"content": content, "call_id": turn.call_id}, ensure_ascii=False)
        elif before_last_user:
            return
        else:
            text = json.dumps([{"name": turn.name, "content": content}], ensure_ascii=False)
        pieces.append(self._controls["[TOOL_RESULTS]"])
        pieces.append(written((turn.at, PART_CONTENT)))
        pieces.append(self._controls["[/TOOL_RESULTS]"])
        rows.texts.append(self._sound(text, turn.at))

    def _sound(self, text: str, index: int) -> str:
        r"""A JSON text in a row can hold ``\ud800``, half a character."""
        try:
            text.encode()
        except UnicodeEncodeError:
            if self.tokenizer.special.pad_id is None:  # SentencePiece refuses it, tiktoken replaces it
                raise Stop(f"message {index} holds half a character (a lone surrogate)") from None
            return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return text

    # The batch

    def _sequences(self, batch: LabelBatch) -> None:
        """``sequence_iterator``, for rows that each begin a sequence of their own."""
        starts = batch.ids.starts
        trained_here = sum_by_row(batch.trained, starts)
        for row in np.flatnonzero(trained_here == 0).tolist():
            if row not in batch.failures:
                batch.dropped[row] = UNTRAINED
        for row in np.flatnonzero((np.diff(starts) - 1 > self._seq_len) & (trained_here > 0)).tolist():
            begin, end = int(starts[row]), int(starts[row + 1])
            kept = np.zeros(end - begin, np.bool_)
            for cut in range(0, end - begin - 1, self._seq_len):
                stop = min(cut + self._seq_len, end - begin - 1)
                if batch.trained[begin + cut + 1 : begin + stop + 1].any():
                    kept[cut : stop + 1] = True
            batch.kept[begin:end] = kept

    def reason(self, place: Place, trained: bool) -> str:
        if trained:
            return _TRAINED.get(place, "mistral-finetune trains all of an answer's tokens")
        return _MASKED.get(place, "mistral-finetune trains answers only, and this is none")


def _bare(record: Mapping[str, Any]) -> bool:
    return len(record) == 1 and ("messages" in record or "interactions" in record)


def _record(conversation: Conversation) -> Mapping[str, Any]:
    """The row as mistral-finetune reads it; for formats that it does not know, made of the messages."""
    record = conversation.record or {}
    if "messages" in record or "interactions" in record or _has_roles(record.get("conversations")):
        return record
    train = conversation.train or [True] * len(conversation.messages)
    messages = [
        message if flag else {**message, "weight": 0}
        for message, flag in zip(conversation.messages, train, strict=True)
    ]
    return {"messages": messages, "tools": conversation.tools}


def _has_roles(turns: Any) -> bool:
    return isinstance(turns, list) and bool(turns) and isinstance(turns[0], dict) and "role" in turns[0]


def _parsed(text: str) -> Any:
    """What mistral-common makes of a JSON text before it writes it anew; other texts stay what they are."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
    except (ValueError, RecursionError) as why:  # a number of thousands of digits, or too deep
        raise Stop(f"a JSON text can't be read: {why}") from None


_TRAINED: Mapping[Place, str] = {
    Place.TEXT: "mistral-finetune trains all of a text (data.data) but its first token",
    Place.ASSISTANT: "mistral-finetune trains every answer, unless its weight is 0",
    Place.TOOL_CALL: "mistral-finetune trains tool calls as it trains answers: in rows with tools, the last message's",
    Place.HEADER: "mistral-finetune trains [TOOL_CALLS] with the calls behind it",
    Place.TURN_END: "mistral-finetune ends every answer with </s> and trains it",
    Place.EOS: "mistral-finetune ends every answer and every text with </s> and trains it",
}
_MASKED: Mapping[Place, str] = {
    Place.BOS: "the first token is input only: the targets of mistral-finetune begin with the second",
    Place.SYSTEM: "mistral-finetune puts the system prompt into a user message, and trains no user message",
    Place.USER: "mistral-finetune never trains user messages",
    Place.TOOL: "mistral-finetune never trains the results of tools",
    Place.TOOLS: "mistral-finetune puts the tools in front of the last user message, and never trains them",
    Place.ASSISTANT: "mistral-finetune does not train this answer: its weight is 0, or the row has tools or only_last "
    "and this is not the last message",
    Place.TOOL_CALL: "mistral-finetune does not train these calls: the weight is 0, or the row has tools or only_last "
    "and this is not the last message",
    Place.TURN_END: "mistral-finetune does not train this answer, so neither the </s> behind it",
    Place.EOS: "mistral-finetune does not train this answer, so neither the </s> behind it",
    Place.SCAFFOLD: "mistral-finetune trains no control token outside of answers",
    Place.HEADER: "mistral-finetune trains no control token in front of an answer's own",
}

TRAINERS: tuple[MistralFinetune, ...] = (MistralFinetune(),)
