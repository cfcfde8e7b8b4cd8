"""One row's pieces: ``Template._encode`` (``swift/template/base.py`` L1614) up to where pieces are tokenized."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lorads.templates.render import PART_CONTENT, PART_NONE, PART_TOOL_CALL, SCAFFOLD, TOOLS
from lorads.trainers.ms_swift._agents import AGENTS, Agent
from lorads.trainers.ms_swift._loss import LossScale
from lorads.trainers.ms_swift._read import NotReproduced, Plain, Rich, RowError
from lorads.trainers.ms_swift._template import QUERY, RESPONSE, SYSTEM, SwiftTemplate, Word

THINK, THINK_END = "<think>", "</think>"


class Part(NamedTuple):
    """A text and which part of which message it is."""

    text: str
    message: int
    part: int


Parts = list[Part]


@dataclass(slots=True)
class Piece:
    """What is tokenized by itself: parts of one text, or ids. Trained where the weight is above 0."""

    parts: Parts
    ids: tuple[int, ...] | None
    weight: float


@dataclass(slots=True)
class Turn:
    """A message of swift's. An answer holds as many contents as messages were merged into it, each with its flags."""

    role: str
    contents: list[Parts]
    losses: list[Any] = field(default_factory=list)
    scales: list[Any] = field(default_factory=list)
    prompt: list[tuple[Word | Parts, int]] | None = None
    """Of results of tools: what stands in place of a question."""


@dataclass(slots=True)
class _Context:
    parts: Parts
    ids: tuple[int, ...] | None
    kind: str
    answer: Turn | None = None


@dataclass(frozen=True, slots=True)
class Encoder:
    """The settings that decide how a row is put together."""

    template: SwiftTemplate
    loss: LossScale
    agent: str | None
    chat: bool
    add_non_thinking_prefix: bool
    enable_thinking: bool | None
    preserve_thinking: bool | None

    def pieces(self, row: Plain | Rich) -> list[Piece]:
        """Raises ``RowError``."""
        turns, system, tools, arguments = self.turns(row)
        return self._simplified(self._scaled(*self._contexts(turns, system, tools, arguments)))

    # Messages

    def turns(self, row: Plain | Rich) -> tuple[list[Turn], Part | None, list[dict[str, Any]], dict[str, Any]]:
        """Messages as swift has them after ``from_dict`` and ``_swift_prepare_inputs``; system, tools, arguments."""
        messages = _texts(row)
        system = None
        if messages[0]["role"] == "system":
            first = messages.pop(0)
            system = Part(first["content"], first["index"], PART_CONTENT)
        arguments = row.arguments if isinstance(row, Rich) else {}
        tools: list[dict[str, Any]] = []
        agent = None
        if isinstance(row, Rich):
            if row.tools:
                agent = self._agent()
                tools = agent.wrapped(row.tools)
            if any(message["role"] in ("tool_call", "tool") for message in messages):
                agent = agent or self._agent()
        if agent is not None:
            messages = _with_calls(messages, agent)
            messages = self._with_results_of_nothing(messages, agent)
        turns = [_turn(message) for message in messages]
        return _merged(turns, agent), system, tools, arguments

    def _agent(self) -> Agent:
        if self.agent is None:
            raise RowError(f'the ms-swift template "{self.template.name}" has no agent template, so tools stop the row')
        if self.agent not in AGENTS:
            raise NotReproduced(f"tools with the agent template {self.agent}")
        return Agent(self.agent, self.template)

    def _with_results_of_nothing(self, messages: list[dict[str, Any]], agent: Agent) -> list[dict[str, Any]]:
        """``_preprocess_standalone_tools``: results that no call stands before are put behind the question."""
        out: list[dict[str, Any]] = []
        i = 0
        while i < len(messages):
            message = messages[i]
            if message["role"] != "tool" or (out and out[-1]["role"] in ("assistant", "tool")):
                out.append(message)
                i += 1
                continue
            end = i
            while end < len(messages) and messages[end]["role"] == "tool":
                end += 1
            if not out or out[-1]["role"] != "user":
                raise RowError("a result of a tool follows neither a question nor a call")
            before = out[-1]
            behind = agent.alone([(m["content"], m["index"]) for m in messages[i:end]])
            parts = before.get("parts") or [Part(before["content"], before["index"], PART_CONTENT)]
            parts = [
                *parts,
                *(Part(str(word), index, PART_CONTENT if index >= 0 else PART_NONE) for word, index in behind),
            ]
            out[-1] = {**before, "parts": parts, "content": _joined(parts)}
            i = end
        return out

    # swift's _swift_encode

    def _contexts(
        self, turns: list[Turn], system: Part | None, tools: list[dict[str, Any]], arguments: dict[str, Any]
    ) -> tuple[list[_Context], list[Turn]]:
        template = self.template
        whole = None if system is None else [system]
        if template.kind == "gpt_oss" and self.chat:
            whole = self._gpt_oss(turns, system)
        if template.kind == "gemma3":
            self._gemma3(turns, system)
            whole = None
        if self.chat:
            if self.add_non_thinking_prefix:
                self._open_thinking(turns)
            if not self.preserves_thinking(arguments):
                self._forget_thinking(turns)
            whole = self._system(turns, whole, tools)
        else:
            whole = None
        if turns and turns[0].role == "assistant":
            turns.insert(0, Turn("user", [[]]))
        if len(turns) % 2:
            turns.append(Turn("assistant", []))
        if len(turns) > 2 and template.chat_sep is None:
            turns = turns[-2:]
        if not turns:
            raise RowError("there is nothing but a system message")
        out: list[_Context] = []
        if template.begin:
            out.append(_Context([], template.begin, "other"))
        prefix = template.prefix
        if template.system_prompt is None and whole and _joined(whole):
            prefix = template.system_prefix or ()
        for word in prefix:
            self._put(out, word, whole, None, None, None)
        rounds = len(turns) // 2
        for i in range(rounds):
            self._round(out, turns[2 * i], turns[2 * i + 1], i, rounds, turns, whole, arguments)
        if template.end:
            out.append(_Context([], template.end, "suffix"))
        return out, turns

    def _round(
        self,
        out: list[_Context],
        question: Turn,
        answer: Turn,
        i: int,
        rounds: int,
        turns: list[Turn],
        system: Parts | None,
        arguments: dict[str, Any],
    ) -> None:
        template = self.template
        if question.role not in ("user", "tool") or answer.role != "assistant":
            raise RowError(
                f"ms-swift wants a question and its answer by turns, and finds {question.role}, {answer.role}"
            )
        prompt: list[tuple[Word | Parts, int]]
        if question.role == "tool":
            prompt, query = question.prompt or [], []
        else:
            words = template.system_prompt if template.system_prompt and i == rounds - 1 else template.prompt
            prompt, query = [(word, SCAFFOLD) for word in words], question.contents[0]
        for word, message in prompt:
            if isinstance(word, str) and message >= 0:
                word = [Part(word, message, PART_CONTENT)]
            self._put(out, word, system, query, i, answer)
        if i < rounds - 1:
            out.append(_Context([], None, "response", answer))
            if turns[2 * i + 2].role != "tool":
                out += [_scaffold(word, "other") for word in template.chat_sep or ()]
        elif answer.contents:
            out.append(_Context([], None, "response", answer))
            if not template.end and not _joined(answer.contents[-1]).endswith(template.stop_words):
                out += [_scaffold(word, "suffix") for word in template.suffix]
        else:
            prefix = self._response_prefix(arguments)
            if prefix:
                self._put(out, prefix, system, query, i, answer)

    def _put(
        self,
        out: list[_Context],
        word: Word | Parts,
        system: Parts | None,
        query: Parts | None,
        i: int | None,
        answer: Turn | None,
    ) -> None:
        """``_concat_context_list`` (L924) of one context."""
        if isinstance(word, tuple):
            if word:
                out.append(_Context([], word, "other"))
            return
        parts = [Part(word, SCAFFOLD, PART_NONE)] if isinstance(word, str) else word
        if answer is not None and answer.contents and _joined(parts) == RESPONSE:
            raise NotReproduced("a result of a tool that reads {{RESPONSE}}")
        parts = _replaced(parts, SYSTEM, system)
        parts = _replaced(parts, QUERY, query)
        if i is not None:
            parts = _replaced(parts, "{{ROUND0}}", [Part(str(i), SCAFFOLD, PART_NONE)])
            parts = _replaced(parts, "{{ROUND1}}", [Part(str(i + 1), SCAFFOLD, PART_NONE)])
        if _joined(parts):
            out.append(_Context(parts, None, "other"))

    def _system(self, turns: list[Turn], system: Parts | None, tools: list[dict[str, Any]]) -> Parts | None:
        """``_get_system`` (L1264)."""
        template = self.template
        if system is not None and not template.support_system:
            raise RowError(f'the ms-swift template "{template.name}" takes no system message')
        if system is None and template.default_system is not None:
            system = [Part(template.default_system, SCAFFOLD, PART_NONE)]
        if not tools:
            return system
        agent = self._agent()
        before = agent.before_first(tools)
        if before and turns:
            turns[0].contents[0] = [Part(before, TOOLS, PART_NONE), *turns[0].contents[0]]
        given = None if system is None else _joined(system)
        text = agent.system(tools, given)
        if system and given and text.startswith(given):
            return [*system, Part(text[len(given) :], TOOLS, PART_NONE)]
        return [Part(text, TOOLS, PART_NONE)]

    # Thinking

    def _open_thinking(self, turns: list[Turn]) -> None:
        """``_add_non_thinking_prefix`` (L1287)."""
        template = self.template
        prefix = template.non_thinking_prefix
        if not prefix:
            return
        start = -1
        if self.loss.strategy == "last_round" and not template.preserve_thinking:
            start = _last_question(turns)
        for i, turn in enumerate(turns):
            if turn.role != "assistant" or i < start or not turn.contents:
                continue
            if template.kind == "deepseek_v3_1" and not (i > 0 and turns[i - 1].role == "user"):
                continue
            if not _joined(turn.contents[0]).startswith((THINK, prefix)):
                turn.contents[0] = [Part(prefix, SCAFFOLD, PART_NONE), *turn.contents[0]]

    def _forget_thinking(self, turns: list[Turn]) -> None:
        """``_remove_history_thinking`` (L1323)."""
        last = _last_question(turns)
        for turn in turns[: max(last, 0)]:
            if turn.role == "assistant" and turn.contents:
                text = _joined(turn.contents[0])
                kept = text.split(THINK_END)[-1]
                begin = len(text) - len(kept.lstrip())
                parts = _cut(turn.contents[0], begin, begin + len(kept.strip()))
                turn.contents[0] = [Part(self.template.history_thinking_prefix, SCAFFOLD, PART_NONE), *parts]

    def enables_thinking(self, arguments: dict[str, Any]) -> Any:
        found = arguments.get("enable_thinking")
        if found is None:
            found = self.enable_thinking
        if found is None:
            found = self.template.is_thinking and not self.template.non_thinking_prefix
        return found

    def preserves_thinking(self, arguments: dict[str, Any]) -> bool:
        """``_get_preserve_thinking`` (L153)."""
        for found in (arguments.get("preserve_thinking"), self.preserve_thinking, self.template.preserve_thinking):
            if found is not None:
                return bool(found)
        if self.template.is_thinking or self.enables_thinking(arguments):
            return self.loss.strategy != "last_round"
        return True

    def _response_prefix(self, arguments: dict[str, Any]) -> str:
        found = arguments.get("response_prefix")
        if found is not None:
            return str(found)
        if not self.chat:
            return ""
        template = self.template
        return template.thinking_prefix if self.enables_thinking(arguments) else template.non_thinking_prefix

    # Templates with code of their own

    def _gemma3(self, turns: list[Turn], system: Part | None) -> None:
        """``Gemma3Template._swift_encode`` (``templates/gemma.py`` L82): the system text goes in front of the first
        message, and answers lose line breaks at their edges."""
        if system is not None:
            if not turns or len(turns[0].contents) > 1 or turns[0].role == "tool":
                raise RowError("the system text can't be put in front of the first message")
            turns[0].contents[0] = [system, Part("\n\n", SCAFFOLD, PART_NONE), *turns[0].contents[0]]
        for turn in turns:
            if turn.role == "assistant" and len(turn.contents) == 1:
                text = _joined(turn.contents[0])
                begin = len(text) - len(text.lstrip("\n"))
                turn.contents[0] = _cut(turn.contents[0], begin, begin + len(text.strip("\n")))

    def _gpt_oss(self, turns: list[Turn], system: Part | None) -> Parts:
        """``GptTemplate._swift_prepare_inputs`` (``templates/llm.py`` L448)."""
        opening = self.template.opening
        for turn in turns:
            alone = turn.role == "assistant" and len(turn.contents) == 1
            if alone and not _joined(turn.contents[0]).startswith("<|channel|>"):
                marked = Part("<|channel|>final<|message|>", SCAFFOLD, PART_NONE)
                turn.contents[0] = [marked, *turn.contents[0]]
        if system is None:
            return [Part(opening, SCAFFOLD, PART_NONE)]
        if system.text.startswith("<|start|>"):
            return [system]
        before = f"{opening}<|start|>developer<|message|># Instructions\n\n"
        return [Part(before, SCAFFOLD, PART_NONE), system, Part("<|end|>", SCAFFOLD, PART_NONE)]

    # Loss

    def _scaled(self, contexts: list[_Context], turns: list[Turn]) -> list[Piece]:
        """``LossScale.__call__`` (``loss_scale/base.py`` L64)."""
        out: list[Piece] = []
        i = 0
        last = _last_question(turns)
        strategy = self.loss.strategy
        for context in contexts:
            in_last = 2 * i >= last
            if context.kind == "response":
                answer = context.answer
                assert answer is not None
                i += 1
                trained = strategy != "last_round" or in_last
                for k, parts in enumerate(answer.contents):
                    self._weigh(out, parts, None, answer.losses[k], answer.scales[k], trained)
                continue
            trained = strategy == "all" or (context.kind == "suffix" and (strategy == "default" or in_last))
            self._weigh(out, context.parts, context.ids, None, None, trained)
        return out

    def _weigh(
        self, out: list[Piece], parts: Parts, ids: tuple[int, ...] | None, loss: Any, scale: Any, trained: bool
    ) -> None:
        if not (loss or (loss is None and trained)):
            out.append(Piece(parts, ids, 0.0))
        elif scale is not None:
            out.append(Piece(parts, ids, scale))
        elif ids is not None or not self.loss.scales:
            out.append(Piece(parts, ids, 1.0))
        else:
            for begin, end, weight in self.loss.cut(_joined(parts)):
                out.append(Piece(_cut(parts, begin, end), None, weight))

    @staticmethod
    def _simplified(pieces: list[Piece]) -> list[Piece]:
        """``_simplify_context_list`` (L954): neighbours of one weight are one text."""
        out: list[Piece] = []
        for piece in pieces:
            if piece.ids is None:
                if not _joined(piece.parts):
                    continue
                if out and out[-1].ids is None and out[-1].weight == piece.weight:
                    out[-1].parts += piece.parts
                    continue
                out.append(Piece([*piece.parts], None, piece.weight))
            else:
                out.append(piece)
        return out


def _scaffold(word: Word, kind: str) -> _Context:
    if isinstance(word, tuple):
        return _Context([], word, kind)
    return _Context([Part(word, SCAFFOLD, PART_NONE)], None, kind)


def _joined(parts: Parts) -> str:
    return parts[0].text if len(parts) == 1 else "".join([part.text for part in parts])


def _cut(parts: Parts, begin: int, end: int) -> Parts:
    """Characters ``begin`` to ``end`` of the parts' text."""
    out: Parts = []
    at = 0
    for part in parts:
        first, last = max(begin - at, 0), min(end - at, len(part.text))
        if first < last:
            out.append(part if last - first == len(part.text) else part._replace(text=part.text[first:last]))
        at += len(part.text)
    return out


def _replaced(parts: Parts, mark: str, new: Parts | None) -> Parts:
    if new is None or not any(mark in part.text for part in parts):
        return parts
    out: Parts = []
    for part in parts:
        for k, piece in enumerate(part.text.split(mark)):
            if k:
                out += new
            if piece:
                out.append(part._replace(text=piece))
    return out


def _last_question(turns: list[Turn]) -> int:
    """``get_last_user_round`` (``utils.py``), results of tools included."""
    return max((i for i, turn in enumerate(turns) if turn.role in ("user", "tool")), default=-1)


def _texts(row: Plain | Rich) -> list[dict[str, Any]]:
    """``StdTemplateInputs.from_dict`` (``template_inputs.py`` L104): every content is a text afterwards."""
    if isinstance(row, Plain):
        return [
            {"role": role, "content": content, "index": index}
            for role, content, index in zip(row.roles, row.contents, row.indexes, strict=True)
        ]
    messages = []
    for i, message in enumerate(row.messages):
        role = "tool" if message["role"] == "tool_response" else message["role"]
        content = message["content"]
        if not isinstance(content, str):
            if role in ("tool", "tool_call"):
                content = json.dumps(content, ensure_ascii=False)
            elif role == "system" and i == 0:
                raise RowError("the system message is no text")
            else:
                content = _text_of_parts(content, i)
        messages.append({**message, "role": role, "content": content})
    return messages


def _text_of_parts(content: Any, i: int) -> str:
    """``remove_messages_media`` (L158)."""
    if isinstance(content, dict) and "token_ids" in content:
        raise NotReproduced("answers given as ids")
    if isinstance(content, list) and content and isinstance(content[0], int):
        raise NotReproduced("answers given as ids")
    if not isinstance(content, list):
        raise RowError(f"the content of message {i} is no text")
    text = ""
    for part in content:
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise RowError(f"a part of message {i} has no type")
        if part["type"] != "text":
            raise NotReproduced("images, audio and video")
        if not isinstance(part.get("text"), str):
            raise RowError(f"a text part of message {i} has no text")
        text += part["text"]
    return text


def _with_calls(messages: list[dict[str, Any]], agent: Agent) -> list[dict[str, Any]]:
    """``_preprocess_tool_call`` (``base.py`` L325): calls in a row are one answer."""
    out: list[dict[str, Any]] = []
    i = 0
    while i < len(messages):
        if messages[i]["role"] != "tool_call":
            out.append(messages[i])
            i += 1
            continue
        end = i
        while end < len(messages) and messages[end]["role"] == "tool_call":
            end += 1
        calls = messages[i:end]
        text = agent.calls([call["content"] for call in calls])
        flags: dict[str, Any] = {}
        for call in calls:
            for key in ("loss", "loss_scale"):
                if key in call:
                    flags.setdefault(key, call[key])
        index = calls[0]["index"]
        parts = [Part(text, index, PART_TOOL_CALL)]
        out.append({"role": "assistant", "content": text, "index": index, "parts": parts, **flags})
        i = end
    return out


def _turn(message: dict[str, Any]) -> Turn:
    text = message["content"]
    parts = message.get("parts") or [Part(text, message["index"], PART_CONTENT)]
    return Turn(message["role"], [parts], [message.get("loss")], [message.get("loss_scale")])


def _merged(turns: list[Turn], agent: Agent | None) -> list[Turn]:
    """``_swift_prepare_inputs`` (L1338): answers in a row are one answer of several contents, questions in a row one
    text, and results of tools what stands in place of a question."""
    if len(turns) < 2:
        return turns
    out = [turns[0]]
    i = 1
    while i < len(turns):
        before, turn = out[-1], turns[i]
        if before.role == "assistant" and turn.role == "tool":
            assert agent is not None
            end = i
            while end < len(turns) and turns[end].role == "tool":
                end += 1
            results = [(_joined(each.contents[0]), each.contents[0][0].message) for each in turns[i:end]]
            text = _joined(before.contents[-1])
            longer, prompt = agent.results(text, results)
            if len(longer) > len(text):
                before.contents[-1] = [*before.contents[-1], Part(longer[len(text) :], SCAFFOLD, PART_NONE)]
            out.append(Turn("tool", [[]], prompt=[(word, index) for word, index in prompt]))
            i = end
            continue
        if before.role == turn.role == "assistant":
            before.contents += turn.contents
            before.losses += turn.losses
            before.scales += turn.scales
        elif before.role == turn.role == "user":
            before.contents[0] = [*before.contents[0], *turn.contents[0]]
        else:
            out.append(turn)
        i += 1
    return out
