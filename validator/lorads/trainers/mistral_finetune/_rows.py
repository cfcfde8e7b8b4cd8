"""From a row as it was read to the conversation that mistral-finetune builds of it, or to where it stops.

``finetune/data/tokenize.py`` (``build_instruct_sample``, ``get_pretrain_sample``), the checks of
``MistralRequestValidatorV3`` in mode ``finetuning`` (mistral-common 1.5.4, ``protocol/instruct/validator.py``), and
what its pydantic models refuse (``messages.py``, ``tool_calls.py``). Messages are told apart by their place in the
list of the file, which the library counts without system messages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from lorads.templates.render import SCAFFOLD
from lorads.trainers.mistral_finetune._schema import fault

_NAME = re.compile(r"^[a-zA-Z0-9_-]{1,64}$")
_CALL_ID = re.compile(r"^[a-zA-Z0-9]{9}$")
_TRUE = frozenset({"1", "on", "t", "true", "y", "yes"})
_FALSE = frozenset({"0", "off", "f", "false", "n", "no"})
ROLES = ("system", "user", "assistant", "tool")
_FOLLOWS = {"user": {"assistant", "user"}, "assistant": {"assistant", "user", "tool"}, "tool": {"assistant", "tool"}}
"""Which role may stand behind which, once system messages are taken out."""


class Stop(Exception):
    """Where mistral-finetune stops at the row, in one sentence."""


class Call(NamedTuple):
    id: str
    name: str
    arguments: str


class Turn(NamedTuple):
    at: int
    """Which message of the file it is."""
    role: Literal["user", "assistant", "tool"]
    content: str | list[str] | None
    """A list for a user message that is written in parts."""
    calls: tuple[Call, ...] | None = None
    weighted: bool = True
    call_id: str = ""
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    turns: Sequence[Turn]
    system: str | None
    system_index: int
    """Of the system message; ``SCAFFOLD`` for the column ``system_prompt``."""
    tools: str | None
    """The tool definitions as JSON, as they are written into the row."""
    only_last: bool


def pretrain_text(record: Mapping[str, Any]) -> str:
    """The text of a row for ``data.data``."""
    if "text" in record and "content" in record:
        raise Stop('the row has both "text" and "content"')
    text = record.get("text", record.get("content"))
    if not isinstance(text, str):
        raise Stop('the row has no text in "text" or "content"')
    return text


def instruct_sample(record: Mapping[str, Any], chunked: bool) -> Sample:
    """The conversation of a row for ``data.instruct_data``. ``chunked`` for ``dynamic_chunk_fn_call``.

    Raises ``Stop``.
    """
    messages = _messages(record)
    if "available_tools" in record and "tools" in record:
        raise Stop('the row has both "available_tools" and "tools"')
    tools, has_tools = _tools(record)
    system = record.get("system_prompt")
    system_index = SCAFFOLD
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        turn, content = _turn(message, index)
        if turn is not None:
            turns.append(turn)
        elif system is not None:
            raise Stop("there is more than one system prompt")
        else:
            system, system_index = content, index
    if system is not None and not isinstance(system, str):
        raise Stop("the system prompt is no text")
    order = order_problem(tuple(turn.role for turn in turns))
    if order is not None:
        raise Stop(order)
    _check_turns(turns)
    only_last = _only_last(record["only_last"]) if record.get("only_last") else has_tools
    if only_last and chunked and turns[0].role == "assistant":
        raise Stop("dynamic_chunk_fn_call makes a row of its first message alone, which is an answer to nothing")
    return Sample(turns, system, system_index, tools, only_last)


def order_problem(roles: tuple[str, ...]) -> str | None:
    """What is wrong with the order of the messages (without system messages), or None."""
    if not roles:
        return "there is no message"
    if roles == ("assistant",):
        return "the conversation is an answer alone: it must start with a user message"
    if roles[-1] != "assistant":
        return f"the last message is from {roles[-1]}, not from the assistant"
    for before, role in pairwise(roles):
        if role not in _FOLLOWS[before]:
            return f"a {role} message follows a {before} message"
    return None


def _messages(record: Mapping[str, Any]) -> list[Any]:
    if "messages" in record and "interactions" in record:
        raise Stop('the row has both "messages" and "interactions"')
    if "messages" not in record and "interactions" not in record:
        raise Stop('the row has no column "messages" or "interactions"')
    messages = record["messages"] if "messages" in record else record["interactions"]
    if not isinstance(messages, list):
        raise Stop("the messages are no list")
    return messages


def _turn(message: Any, index: int) -> tuple[Turn | None, Any]:
    """The message as a turn, or None and its content for a system message."""
    if not isinstance(message, dict) or "role" not in message:
        raise Stop(f"message {index} has no role")
    role = message["role"]
    if "content" in message and "text" in message:
        raise Stop(f'message {index} has both "content" and "text"')
    content = message["content"] if "content" in message else message.get("text")
    calls = message.get("tool_calls")
    if calls is None and content is None:
        raise Stop(f"message {index} has no content")
    if not isinstance(role, str) or role not in ROLES:
        raise Stop(f"message {index} has the role {role!r:.40}, and mistral-finetune knows {', '.join(ROLES)}")
    if role == "system":
        return None, content
    if role == "assistant":
        return _assistant(message, index, content, calls), None
    if role == "user":
        return Turn(index, "user", _user_content(content, index)), None
    return _tool_result(message, index, content), None


def _user_content(content: Any, index: int) -> str | list[str]:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise Stop(f"message {index} is no text")
    for chunk in content:
        if not isinstance(chunk, dict) or chunk.get("type") != "text":
            raise Stop(f"message {index} holds a part that is no text, for which mistral-finetune has no encoder")
        if not isinstance(chunk.get("text"), str) or len(chunk) != 2:
            raise Stop(f"message {index} holds a text part with other keys than type and text")
    return [chunk["text"] for chunk in content]


def _assistant(message: Mapping[str, Any], index: int, content: Any, given: Any) -> Turn:
    calls = None if given is None else _calls(given, index)
    if content is not None and not isinstance(content, str):
        raise Stop(f"message {index}: the answer is no text")
    weight = _weight(message.get("weight"), index)
    return Turn(index, "assistant", content, calls, weight is None or weight == 1)


def _weight(given: Any, index: int) -> float | None:
    if given is None:
        return None
    try:
        weight = float(given) if isinstance(given, (str, int, float)) else float("nan")
    except (ValueError, OverflowError):
        weight = float("nan")
    if weight not in (0, 1):
        raise Stop(f"message {index}: the weight is {given!r:.40}, not 0 or 1")
    return weight


def _calls(given: Any, index: int) -> tuple[Call, ...]:
    if not isinstance(given, list):
        if isinstance(given, (dict, str)) and not given:
            return ()
        raise Stop(f"message {index}: the tool calls are no list")
    found: list[Call] = []
    for call in given:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or "id" not in call:
            raise Stop(f"message {index}: a tool call has no id or no function")
        if "name" not in function or "arguments" not in function:
            raise Stop(f"message {index}: a tool call has no name or no arguments")
        if not isinstance(function["arguments"], str):
            raise Stop(f"message {index}: the arguments of a tool call are no JSON text")
        if not isinstance(call["id"], str) or not isinstance(function["name"], str):
            raise Stop(f"message {index}: the id or the name of a tool call is no text")
        found.append(Call(call["id"], function["name"], function["arguments"]))
    return tuple(found)


def _tool_result(message: Mapping[str, Any], index: int, content: Any) -> Turn:
    if "tool_call_id" not in message:
        raise Stop(f"message {index}: the tool's result has no tool_call_id")
    call_id, name = message["tool_call_id"], message.get("name")
    if not isinstance(content, str):
        raise Stop(f"message {index}: the tool's result is no text")
    if not isinstance(call_id, str) or not _CALL_ID.match(call_id):
        raise Stop(f"message {index}: the tool_call_id {call_id!r:.40} is not nine letters and digits")
    if name is not None and not (isinstance(name, str) and _NAME.match(name)):
        raise Stop(f"message {index}: the tool's name {name!r:.40} is not made of letters, digits, _ and -")
    return Turn(index, "tool", content, call_id=call_id, name=name)


def _check_turns(turns: Sequence[Turn]) -> None:
    """Answers hold a text or tool calls, calls are sound, and each has its result before the next answer."""
    expected = 0
    for position, turn in enumerate(turns):
        calls = turn.calls or ()
        if turn.role == "assistant":
            if bool(turn.content) == bool(calls):
                what = "both a text and tool calls" if calls else "neither a text nor tool calls"
                raise Stop(f"message {turn.at}: the answer has {what}")
            for call in calls:
                _check_call(call, turn.at, position == len(turns) - 1)
        if position == 0:  # the library does not count what the first message calls for
            continue
        if turn.role == "tool":
            expected -= 1
        elif turn.role == "assistant":
            if expected != 0:
                raise Stop(f"before message {turn.at} there are more or fewer tool results than tool calls")
            if turn.calls is not None:
                expected = len(calls)


def _check_call(call: Call, index: int, last: bool) -> None:
    if call.id == "null":
        if not last:
            raise Stop(f"message {index}: a tool call has no id (only the last message's may be null)")
    elif not _CALL_ID.match(call.id):
        raise Stop(f"message {index}: the id {call.id!r:.40} of a tool call is not nine letters and digits")
    if not _NAME.match(call.name):
        raise Stop(f"message {index}: the called name {call.name!r:.40} is not made of letters, digits, _ and -")


def _only_last(given: Any) -> bool:
    if given is True or (isinstance(given, (int, float)) and given == 1):
        return True
    said = given.lower() if isinstance(given, str) else ""
    if said not in _TRUE | _FALSE:
        raise Stop(f'"only_last" is {given!r:.40}, neither true nor false')
    return said in _TRUE


def _tools(record: Mapping[str, Any]) -> tuple[str | None, bool]:
    """The tools as JSON, and whether the row counts as one with tools: an empty ``available_tools`` does."""
    given = record.get("tools")
    if given is None or (isinstance(given, (list, dict, str)) and not given):
        given = record.get("available_tools")
    if given is None:
        return None, False
    if not isinstance(given, list):
        raise Stop("the tools are no list")
    found = [_tool(tool) for tool in given]
    return (json.dumps(found, ensure_ascii=False) if found else None), True


def _tool(tool: Any) -> dict[str, Any]:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict):
        raise Stop("a tool has no function")
    for key in ("name", "description", "parameters"):
        if key not in function:
            raise Stop(f"a tool's function has no {key}")
    name, description, parameters = function["name"], function["description"], function["parameters"]
    if not isinstance(name, str) or not _NAME.match(name):
        raise Stop(f"the tool's name {name!r:.40} is not made of letters, digits, _ and -")
    if not isinstance(description, str):
        raise Stop(f"the description of the tool {name} is no text")
    if not isinstance(parameters, dict):
        raise Stop(f"the parameters of the tool {name} are no object")
    wrong = fault(parameters)
    if wrong is not None:
        raise Stop(f"the parameters of the tool {name} are no JSON schema: {wrong}")
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }
