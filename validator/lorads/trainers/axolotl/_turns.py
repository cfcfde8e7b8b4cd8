"""From a row to the turns that axolotl renders: ``prompt_strategies/chat_template.py`` L958-1249."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.trainers.axolotl._options import Options

ROLES = {
    "human": "user",
    "user": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "system": "system",
    "tool": "tool",
}
_SAME = frozenset({"user", "assistant", "system", "tool"})
"""Roles that stay what they are."""
_THINKING = (
    ("<think>", "</think>"),
    ("<reasoning>", "</reasoning>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
_SOLUTION = ("<|begin_of_solution|>", "<|end_of_solution|>")

Turn = dict[str, Any]


class Stopped(Exception):
    """axolotl raises at this row, and its run stops."""


@dataclass(slots=True)
class Thread:
    """What is rendered of one row. ``rendered.messages`` are the turns."""

    rendered: Conversation
    offset: int = 0
    """How many turns stand before the first message of the row (-1: its first message was left out)."""
    marked: bool = False
    """Some turn has ``training`` flags or details."""
    reasoning_details: dict[int, Any] = field(default_factory=dict)


class Threads:
    """Rows to turns, as the options say."""

    def __init__(self, options: Options, keys: frozenset[Any]) -> None:
        self._options = options
        self._mapping = _json_object(options.message_property_mappings, "message_property_mappings")
        self._kwargs = _json_object(options.chat_template_kwargs, "chat_template_kwargs")
        self._keys = keys
        self._rereads = bool(self._kwargs or self._mapping or options.split_thinking or options.drop_system_message)
        self._rereads |= bool(options.message_field_training or options.message_field_training_detail)

    def as_they_are(self, conversations: Sequence[Conversation]) -> bool:
        """Whether all rows hold nothing but messages of roles and texts, and are rendered as they stand."""
        if self._rereads or self._options.field_messages not in (None, "messages"):
            return False
        for conversation in conversations:
            record = conversation.record
            if (
                conversation.roles is None
                or record is None
                or conversation.messages is not record.get("messages")
                or (len(record) > 1 and ("system" in record or record.get("tools") not in (None, [])))
            ):
                return False
        return all(map(_SAME.issuperset, {conversation.roles or () for conversation in conversations}))

    def of(self, conversation: Conversation) -> Thread:
        """Raises ``Stopped`` where axolotl raises."""
        record = conversation.record
        if record is None or conversation.alpaca is not None or conversation.kind is not Kind.MESSAGES:
            return self._read({"messages": conversation.messages}, "messages", conversation)
        column = self._options.field_messages
        if column is None:
            column = "messages" if "messages" in record else "conversations"
            if column not in record:  # the file's columns were renamed
                return self._read({"messages": conversation.messages}, "messages", conversation)
        elif column not in record:
            raise Stopped(f'there is no "{column}" (field_messages)')
        roles = conversation.roles
        if (
            roles is not None
            and not self._rereads
            and (len(record) == 1 or ("system" not in record and record.get("tools") in (None, [])))
            and conversation.train is None
            and len(roles) == len(record[column])
            and _SAME.issuperset(roles)
            and all(message.get("from", "user") in ROLES for message in record[column])
        ):
            return Thread(conversation)
        return self._read(record, column, conversation)

    def _read(self, record: Mapping[str, Any], column: str, conversation: Conversation) -> Thread:
        row = _without_none(record)
        messages = row.get(column)
        if isinstance(messages, str):
            messages = _parse(messages, "the messages")
        if not isinstance(messages, list):
            raise Stopped(f'"{column}" is no list of messages')
        if not messages or not all(isinstance(message, dict) for message in messages):
            raise Stopped(f'"{column}" holds no message' if not messages else f'"{column}" holds more than messages')
        mapping = self._mapping or self._usual_mapping(messages[0])
        # axolotl maps the first message twice, to see whether it is a system message
        first = self._turn(messages[0], mapping)
        if "role" not in first:
            raise Stopped("the first message has no role")
        turns: list[Turn] = []
        if first["role"] != "system" and "system" in record:
            turns.append({"role": "system", "content": record["system"]})
        details: dict[int, Any] = {}
        for message in messages:
            turn = self._turn(message, mapping)
            detail = self._marks(message, turn)
            if detail is not None:
                details[len(turns)] = detail
            turns.append(turn)
        offset = len(turns) - len(conversation.messages)
        if self._options.drop_system_message and turns[0].get("role") == "system":
            turns = turns[1:]
            details = {index - 1: detail for index, detail in details.items()}
            offset -= 1
        tools = self._tools(row.get("tools"))
        rendered = Conversation(Kind.MESSAGES, turns, tools=tools, template_kwargs=self._kwargs or None)
        if not tools and not self._kwargs and all(_is_plain(turn) for turn in turns):
            rendered.roles = tuple(turn["role"] for turn in turns)
            rendered.contents = [turn["content"] for turn in turns]
        marked = bool(details) or any("training" in turn or "training_detail" in turn for turn in turns)
        return Thread(rendered, offset, marked, details)

    def _usual_mapping(self, first: Mapping[str, Any]) -> dict[str, str]:
        if "from" in first and "role" not in first:
            return {"role": "from", "content": "value"}
        return {
            "role": "role",
            "content": "content",
            self._options.template_thinking_key: self._options.field_thinking,
        }

    def _turn(self, message: Turn, mapping: Mapping[str, str]) -> Turn:
        """L1017-1120."""
        turn = {key: message[name] for key, name in mapping.items() if message.get(name) is not None}
        if "role" in turn:
            role = turn["role"]
            turn["role"] = ROLES.get(role, role) if isinstance(role, str) else role
        if self._options.split_thinking:
            _split_thinking(turn, self._options.template_thinking_key)
        mapped = set(mapping.values())
        for key in self._keys:
            if key in message and key not in mapped and message[key] is not None:
                turn[key] = message[key]
        for call in turn.get("tool_calls") or ():
            if "function" in call and "arguments" in call["function"]:
                arguments = call["function"]["arguments"]
                if isinstance(arguments, str):
                    call["function"]["arguments"] = _parse(arguments, "the arguments of a tool call")
        return turn

    def _marks(self, message: Turn, turn: Turn) -> Any:
        """Set what says which part of the turn is trained; gives back the details of its reasoning."""
        options = self._options
        if options.message_field_training and message.get(options.message_field_training) is not None:
            turn["training"] = message[options.message_field_training]
        if options.message_field_training_detail:
            detail = message.get(options.message_field_training_detail)
            if detail is not None:
                turn["training_detail"] = detail
        joined = _join_parts(turn.get("content"))
        if joined is not None:
            turn["content"] = joined[0]
            if joined[1] is not None:
                turn["training_detail"] = joined[1]
        key = options.template_thinking_key
        joined = _join_parts(turn.get(key))
        if joined is None:
            return None
        turn[key] = joined[0]
        if joined[1] is not None:
            turn["reasoning_training_detail"] = joined[1]
        return joined[1]

    def _tools(self, tools: Any) -> list[Any] | None:
        """L1126-1166."""
        if isinstance(tools, str):
            tools = _parse(tools, "the tools")
        if tools is None:
            return None
        if not isinstance(tools, list):
            raise Stopped("the tools are no list")
        for tool in tools:
            if isinstance(tool, dict) and "function" in tool and isinstance(tool["function"].get("parameters"), str):
                tool["function"]["parameters"] = _parse(tool["function"]["parameters"], "the parameters of a tool")
        return tools or None


def _is_plain(turn: Turn) -> bool:
    return len(turn) == 2 and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def _json_object(text: str | None, name: str) -> dict[str, Any]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} is no JSON: {error}", f'write it as {name}={{"name": "value"}}') from None
    if not isinstance(found, dict):
        raise UsageError(f"{name} is no JSON object", f'write it as {name}={{"name": "value"}}')
    return found


def _parse(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Stopped(f"{what} are a text that is no JSON: {error}") from None


def _without_none(value: Any) -> Any:
    """``utils/dict.py::remove_none_values``: keys whose value is null go, at every depth."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def _split_thinking(turn: Turn, key: str) -> None:
    """L1036-1090: what stands between the first pair of tags found becomes the reasoning."""
    if "role" not in turn:
        raise Stopped("a message has no role")
    if turn["role"] != "assistant":
        return
    if not isinstance(turn.get("content"), str):
        raise Stopped("an assistant message has no text to split the reasoning from")
    content: str = turn["content"]
    for opening, closing in _THINKING:
        if opening in content and closing in content:
            begin, end = content.find(opening), content.find(closing)
            turn[key] = content[begin + len(opening) : end].strip()
            rest = content[end + len(closing) :].lstrip()
            if all(tag in rest for tag in _SOLUTION):
                rest = rest[rest.find(_SOLUTION[0]) + len(_SOLUTION[0]) : rest.find(_SOLUTION[1])].strip()
            turn["content"] = rest
            return


def _join_parts(content: Any) -> tuple[str, list[dict[str, Any]] | None] | None:
    """L958-1044: the texts of a list of parts, and which characters are trained where a part says so."""
    if not isinstance(content, list):
        return None
    texts: list[str] = []
    details: list[dict[str, Any]] = []
    said = False
    offset = 0
    for part in content:
        if not isinstance(part, dict):
            continue
        text = part.get("text") or part.get("content") or part.get("value") or ""
        if not isinstance(text, str):
            raise Stopped("a part of a content holds no text")
        texts.append(text)
        train: Any = True
        if part.get("train") is not None or part.get("weight") is not None:
            said = True
            train = part["train"] if part.get("train") is not None else part["weight"] not in (0, 0.0)
        if text:
            details.append({"begin_offset": offset, "end_offset": offset + len(text) - 1, "train": train})
            offset += len(text)
    return "".join(texts), details if said else None
