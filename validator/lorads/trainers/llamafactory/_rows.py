"""From rows as they were read to what LLaMA-Factory's converters make of them (``converter.py``)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from lorads.formats import Conversation, Kind
from lorads.templates.render import SCAFFOLD, RenderFailure

Formatting = Literal["sharegpt", "openai"]
USER, ASSISTANT, OBSERVATION, FUNCTION, SYSTEM = "user", "assistant", "observation", "function", "system"
_ASKING, _ANSWERING = (USER, OBSERVATION), (ASSISTANT, FUNCTION)

NO_ANSWER = "the answer is no text, so the row has no response (LLaMA-Factory drops it with a warning)"
EMPTY = "the conversation is empty (LLaMA-Factory drops it with a warning)"
ODD_COUNT = (
    "questions and answers don't pair up: the number of messages without the system message is odd (LLaMA-Factory "
    "drops the row with a warning)"
)
_SHORT_SYSTEM = "detailed thinking off"
_JOINT = "\n</tool_response>\n<tool_response>\n"


class Tags(NamedTuple):
    """``tags`` of dataset_info.json: the keys of a message, and the names of its roles; None for a role without one."""

    role: str
    content: str
    user: str | None
    assistant: str | None
    observation: str | None
    function: str | None
    system: str | None


SHAREGPT = Tags("from", "value", "human", "gpt", "observation", "function_call", "system")
OPENAI = Tags("role", "content", "user", "assistant", None, None, "system")
"""As LLaMA-Factory's data/README.md gives them: roles without a tag (tool) are unknown."""


@dataclass(slots=True)
class Dialogue:
    """A row as the template takes it: ``roles[i]`` says ``contents[i]``, asking and answering in turn.

    ``messages[i]`` is the index of that message in the conversation; ``SCAFFOLD`` for what it does not hold.
    """

    roles: tuple[str, ...]
    contents: list[Any]
    messages: tuple[int, ...]
    system: Any = ""
    system_message: int = SCAFFOLD
    tools: Any = ""


class Dropped(Exception):
    """The library leaves the row out; the message says why."""


class Stops(Exception):
    """The library stops at the row, or lorads can't reproduce what it does; see ``failure``."""

    def __init__(self, failure: RenderFailure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def stops(why: str) -> Stops:
    return Stops(RenderFailure("stops", f"LLaMA-Factory stops at this row: {why}"))


def unknown(why: str) -> Stops:
    return Stops(RenderFailure("not-reproduced", why))


_PAIR = (USER, ASSISTANT)
_FIRST_TWO = (0, 1)
_NO_TEXT = {"null", "missing", "not-text"}


def read(conversation: Conversation, formatting: Formatting | None, tags: Mapping[str, Tags]) -> Dialogue:
    """Raises ``Dropped`` or ``Stops``. ``tags`` are those of each format, by the key of a message's role."""
    if conversation.alpaca is not None:
        return _alpaca(conversation)
    record = conversation.record or {}
    if "chosen" in record and "rejected" in record:
        raise unknown(
            "LLaMA-Factory takes preference rows (chosen and rejected) for the stages rm and dpo alone, not for sft"
        )
    if conversation.kind is Kind.PROMPT_COMPLETION:
        if not conversation.completion and any(problem.code in _NO_TEXT for problem in conversation.problems):
            raise Dropped(NO_ANSWER)
        return Dialogue(_PAIR, [conversation.text or "", conversation.completion or ""], _FIRST_TWO)
    if conversation.kind is not Kind.MESSAGES:
        raise unknown(
            "LLaMA-Factory's supervised fine-tuning takes no such rows (it takes alpaca columns, or a list of messages)"
        )
    if conversation.roles is not None and conversation.messages is record.get("messages"):
        # plain messages: the format has their roles and texts side by side
        own = tags[OPENAI.role]
        if formatting != "openai" and own[:2] == OPENAI[:2]:
            return _ordered(record, conversation.roles, list(conversation.contents or ()), own, 0)
    turns, key = _turns(record)
    return (_openai if formatting == "openai" else _sharegpt)(record, turns, tags[key])


def _alpaca(conversation: Conversation) -> Dialogue:
    """``AlpacaDatasetConverter``: history, then instruction and input with a newline between where both are there."""
    assert conversation.alpaca is not None
    instruction, extra, output, system, history = conversation.alpaca
    if not isinstance(output, str):
        raise Dropped(NO_ANSWER)
    question = f"{instruction}\n{extra}" if instruction and extra else instruction or extra or ""
    tools = _column(conversation, "tools")
    if not system and not history:
        return Dialogue(_PAIR, [question, output], _FIRST_TWO, tools=tools)
    contents = [text for pair in history or () for text in pair]
    first = 1 if system and isinstance(system, str) else 0
    count = len(contents) + 2
    return Dialogue(
        _PAIR * (count // 2),
        [*contents, question, output],
        tuple(range(first, first + count)),
        system,
        0 if first else SCAFFOLD,
        tools,
    )


def _column(conversation: Conversation, name: str) -> Any:
    """A column as it is written; where it goes by another name, what the format read from it."""
    record = conversation.record or {}
    if name in record:
        return record[name]
    return json.dumps(conversation.tools, ensure_ascii=False) if conversation.tools else ""


def _turns(record: Mapping[str, Any]) -> tuple[list[Any], str]:
    """The list of messages, and the key of their roles."""
    first = [record[name] for name in ("messages", "conversations") if name in record]
    for found in (*first, *record.values()):
        if isinstance(found, list) and all(isinstance(turn, dict) for turn in found):
            if not found:
                raise Dropped(EMPTY)
            for key in (SHAREGPT.role, OPENAI.role):
                if key in found[0]:
                    return found, key
    raise unknown("the row has no list of messages")


def _system_first(turns: Sequence[Any], tags: Tags) -> bool:
    return bool(tags.system) and turns[0].get(tags.role) == tags.system


def _offset(record: Mapping[str, Any], turns: Sequence[Any], tags: Tags) -> int:
    """1 where the format put the system column in front of the messages."""
    system = record.get("system")
    return int(
        tags.role == "from" and isinstance(system, str) and bool(system.strip()) and turns[0].get("from") != "system"
    )


def _sharegpt(record: Mapping[str, Any], turns: list[Any], tags: Tags) -> Dialogue:
    """``SharegptDatasetConverter``: the first system message, or else the column; then roles must alternate."""
    said = tuple([turn.get(tags.role) for turn in turns])
    contents = [turn.get(tags.content) for turn in turns]
    return _ordered(record, said, contents, tags, _offset(record, turns, tags))


def _ordered(
    record: Mapping[str, Any], said: tuple[Any, ...], contents: list[Any], tags: Tags, offset: int
) -> Dialogue:
    try:
        begin, roles = _order(said, tags)
    except TypeError:  # a role that is a list or an object
        begin, roles = _order.__wrapped__(said, tags)
    if isinstance(roles, str):
        raise Dropped(roles)
    system = contents.pop(0) if begin else record.get("system", "")
    messages = tuple(range(begin + offset, len(said) + offset))
    return Dialogue(roles, contents, messages, system, offset - 1 + begin, record.get("tools", ""))


@lru_cache(maxsize=4096)
def _order(said: tuple[Any, ...], tags: Tags) -> tuple[int, tuple[str, ...] | str]:
    """Whether the first message is the system's, and the roles of the others, or why the row is dropped."""
    begin = 1 if tags.system and said[0] == tags.system else 0
    names = _names(tags)
    accepted = ((tags.user, tags.observation), (tags.assistant, tags.function))
    roles: list[str] = []
    for i, tag in enumerate(said[begin:]):
        if tag not in accepted[i % 2]:
            return begin, _wrong_role(tag, i, begin + i, accepted[i % 2])
        roles.append(names[tag])
    why = _unpaired(roles)
    return begin, why or tuple(roles)


def _names(tags: Tags) -> dict[str | None, str]:
    """Later roles win where two have the same tag, or none."""
    return {
        tags.user: USER,
        tags.assistant: ASSISTANT,
        tags.observation: OBSERVATION,
        tags.function: FUNCTION,
        tags.system: SYSTEM,
    }


def _wrong_role(tag: Any, place: int, message: int, accepted: Sequence[str | None]) -> str:
    expected = " or ".join(f'"{name}"' for name in accepted if name)
    side = "an answer" if place % 2 else "a question"
    return (
        f'message {message} is from "{str(tag)[:40]}" where LLaMA-Factory wants {side} ({expected}): it drops the '
        "row with a warning"
    )


def _unpaired(roles: Sequence[str]) -> str | None:
    if not roles:
        return EMPTY
    return ODD_COUNT if len(roles) % 2 else None


def _openai(record: Mapping[str, Any], turns: list[Any], tags: Tags) -> Dialogue:
    """``OpenAIDatasetConverter``: results of tools that follow each other are joined, calls become JSON texts, and the
    system message gets "detailed thinking off" where the row has no tools."""
    begin = 1 if _system_first(turns, tags) else 0
    system = turns[0].get(tags.content) if begin else record.get("system", "")
    offset = _offset(record, turns, tags)
    names = _names(tags)
    roles: list[str] = []
    contents: list[Any] = []
    messages: list[int] = []
    results: list[tuple[int, Any]] = []
    for number, turn in enumerate(turns[begin:], begin + offset):
        tag, content = turn.get(tags.role), turn.get(tags.content)
        if tag in (tags.assistant, tags.function) and turn.get("tool_calls"):
            content = _calls(turn["tool_calls"])
            tag = tags.function
        if tag == tags.observation:
            results.append((number, content))
            continue
        if results:
            roles.append(OBSERVATION)
            contents.append(_joined(results))
            messages.append(results[0][0])
            results = []
        if tag not in names:
            raise stops(f'the role "{tag}" of message {number} has no tag in dataset_info.json')
        roles.append(names[tag])
        contents.append(content)
        messages.append(number)
    for i, role in enumerate(roles):
        if role not in (_ASKING, _ANSWERING)[i % 2]:
            raise Dropped(_wrong_role(role, i, messages[i], (_ASKING, _ANSWERING)[i % 2]))
    why = _unpaired(roles)
    if why:
        raise Dropped(why)
    tools = record.get("tools", "")
    if isinstance(tools, (dict, list)):
        raise unknown(
            'the "tools" are a list: the loader of datasets gives every tool the keys of all others before '
            "LLaMA-Factory writes them out, which depends on the whole file; write them as a JSON text"
        )
    number = offset - 1 + begin if system else SCAFFOLD
    return Dialogue(tuple(roles), contents, tuple(messages), _with_thinking_off(system, tools), number, tools)


def _with_thinking_off(system: Any, tools: Any) -> Any:
    if not system:
        return system if tools else _SHORT_SYSTEM
    if not isinstance(system, str):
        raise stops("the system message is no text")
    if tools:
        return system + "\n"
    return system if "detailed thinking on" in system or _SHORT_SYSTEM in system else f"{system}\n{_SHORT_SYSTEM}"


def _joined(results: Sequence[tuple[int, Any]]) -> str:
    for number, content in results:
        if not isinstance(content, str):
            raise stops(f"the content of message {number} is no text")
    return _JOINT.join(content for _, content in results)


def _calls(calls: Any) -> str:
    try:
        functions = [call["function"] for call in calls]
        if any(isinstance(function["arguments"], (dict, list)) for function in functions):
            raise unknown(
                "the arguments of a tool call are an object: the loader of datasets gives each the keys of all others "
                "before LLaMA-Factory writes them out, which depends on the whole file; write them as a JSON text"
            )
    except (TypeError, KeyError):
        raise stops("a tool call has no function with a name and arguments") from None
    return json.dumps(functions, ensure_ascii=False)
