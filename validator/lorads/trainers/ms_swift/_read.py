"""From a row of the file to swift's messages: ``AutoPreprocessor`` (``swift/dataset/preprocessor/core.py``).

swift looks at the columns that the whole file has; here each row is read by its own. A row is read from its record as
it stands in the file, not from what lorads made of it: role names, column names and flags are swift's affair here.
"""

from __future__ import annotations

import ast
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from lorads.formats import Conversation, Kind

MESSAGE_COLUMNS = ("messages", "conversation", "conversations")
SYSTEM_COLUMNS = ("system", "system_prompt")
QUERY_COLUMNS = ("query", "prompt", "input", "instruction", "question", "problem")
RESPONSE_COLUMNS = (
    *("response", "answer", "output", "targets", "target", "answer_key", "answers", "solution"),
    *("text", "completion", "content"),
)
MEDIA_COLUMNS = frozenset({"images", "image", "audios", "audio", "videos", "video", "objects"})
ROLES = frozenset({"system", "user", "tool_call", "tool_response", "tool", "assistant"})
_SPEAKERS = frozenset({"system", "user", "assistant"})
_STD_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt", "bot"), "assistant"),
}
_CALL, _RESULTS = "function_call", ("function_response", "observation", "observations")
_KEPT = frozenset({"role", "content", "loss", "loss_scale"})


class RowError(Exception):
    """A row that swift raises at (and then leaves out), or that lorads does not reproduce (``kind``)."""

    def __init__(self, message: str, kind: str = "stops") -> None:
        super().__init__(message)
        self.kind = kind


class NotReproduced(RowError):
    def __init__(self, what: str) -> None:
        super().__init__(f"lorads does not reproduce what ms-swift makes of {what}", "not-reproduced")


@dataclass(slots=True)
class Plain:
    """A row of texts alone: one role and one text a message, in the order in which they stand."""

    roles: tuple[str, ...]
    contents: list[str]
    indexes: tuple[int, ...]
    """Which message of the conversation each is, as lorads counts them."""


@dataclass(slots=True)
class Rich:
    """Any other row. ``messages`` have role, content, index, and loss and loss_scale where the row says so."""

    messages: list[dict[str, Any]]
    tools: list[Any] | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    """``chat_template_kwargs`` of the row."""


def read(conversation: Conversation) -> Plain | Rich:
    """Raises ``RowError``."""
    record = conversation.record or {}
    if conversation.roles is not None and len(record) == 1 and record.get("messages") is conversation.messages:
        contents = conversation.contents or []
        if _SPEAKERS.issuperset(conversation.roles):
            return Plain(conversation.roles, contents, _counted(len(contents)))
    if conversation.kind is Kind.TOKENIZED:
        raise RowError("ms-swift takes no rows of ids")
    record = _own_record(conversation)
    columns = _columns(tuple(record))
    if not MEDIA_COLUMNS.isdisjoint(columns.values()) and any(
        record[column] not in (None, []) for column, name in columns.items() if name in MEDIA_COLUMNS
    ):
        raise NotReproduced("images, audio and video")
    row = {name: record[column] for column, name in columns.items()}
    if row.get("rejected_messages") is not None:
        raise NotReproduced("rejected_messages")
    if "messages" in row:
        messages = _messages(row, len(conversation.messages))
    else:
        known = len(conversation.messages) or (2 if conversation.kind is Kind.PROMPT_COMPLETION else 1)
        messages = _pairs(row, known)
    _check(row, messages)
    tools = _tools(row.get("tools"))
    arguments = row.get("chat_template_kwargs") or {}
    roles = tuple(message["role"] for message in messages)
    if (
        tools
        or arguments
        or not _SPEAKERS.issuperset(roles)
        or not all(type(message["content"]) is str and len(message) == 3 for message in messages)
    ):
        return Rich(messages, tools, arguments)
    return Plain(
        roles,
        [message["content"] for message in messages],
        tuple(message["index"] for message in messages),
    )


@lru_cache(maxsize=64)
def _counted(count: int) -> tuple[int, ...]:
    return tuple(range(count))


def _own_record(conversation: Conversation) -> Mapping[str, Any]:
    """The row, or where swift would find nothing in it (the user named the columns), what lorads read in it."""
    record = conversation.record or {}
    lowered = {column.lower() for column in record}
    if not lowered.isdisjoint((*MESSAGE_COLUMNS, *QUERY_COLUMNS, *RESPONSE_COLUMNS)):
        return record
    if conversation.kind is Kind.TEXT:
        return {"response": conversation.text}
    if conversation.kind is Kind.PROMPT_COMPLETION:
        return {"query": conversation.text, "response": conversation.completion}
    made: dict[str, Any] = {"messages": [dict(message) for message in conversation.messages]}
    if conversation.tools:
        made["tools"] = conversation.tools
    return made


@lru_cache(maxsize=1024)
def _columns(columns: tuple[str, ...]) -> dict[str, str]:
    """What each column is called after ``safe_rename_columns`` (L249): by lower case, and not at all where two of them
    would get one name."""
    names = dict.fromkeys(("images", "image"), "images")
    names |= dict.fromkeys(("audios", "audio"), "audios") | dict.fromkeys(("videos", "video"), "videos")
    names |= dict.fromkeys(SYSTEM_COLUMNS, "system")
    if any(column in columns for column in MESSAGE_COLUMNS):
        names |= dict.fromkeys(MESSAGE_COLUMNS, "messages")
    else:
        names |= dict.fromkeys(QUERY_COLUMNS, "query") | dict.fromkeys(RESPONSE_COLUMNS, "response")
    # of columns that differ in case alone, swift sees the last
    by_lower = {column.lower(): column for column in columns}
    meant = {by_lower[key]: name for key, name in names.items() if key in by_lower}
    often = Counter(meant.values())
    renamed = {column: name for column, name in meant.items() if often[name] == 1}
    return {column: renamed.get(column, column) for column in columns}


# Messages


def _messages(row: Mapping[str, Any], known: int) -> list[dict[str, Any]]:
    """``MessagesPreprocessor.preprocess`` (L738)."""
    found = row["messages"]
    if isinstance(found, str):
        try:
            found = json.loads(found)
        except ValueError:
            raise NotReproduced("messages written as Python") from None
    if not isinstance(found, list) or not found:
        raise RowError("there are no messages, and ms-swift leaves the row out")
    offset = max(0, known - len(found))
    messages = []
    for i, message in enumerate(found):
        if not isinstance(message, dict):
            raise RowError(f"message {i} is no object")
        messages.append({**message, "index": min(offset + i, max(known - 1, 0))})
    if any(message.get("tool_calls") for message in messages):
        messages = openai_calls(messages)
    elif any(_is_anthropic(message.get("content")) for message in messages):
        raise NotReproduced("Anthropic's content blocks")
    for message in messages:
        for name, keys in (("role", ("role", "from")), ("content", ("content", "value"))):
            for key in keys:
                if key in message:
                    message[name] = message.pop(key)
    if "role" not in messages[0] and "content" not in messages[0]:
        raise NotReproduced("messages that hold a question and its answer together")
    system = row.get("system")
    for i, message in enumerate(messages):
        role = message.get("role")
        if not isinstance(role, str):
            raise RowError(f"message {i} has no role")
        if role in _STD_ROLES:
            message["role"] = _STD_ROLES[role]
        elif role.replace("-", "_") == _CALL:
            message["role"] = "tool_call"
        elif role.replace("-", "_") in _RESULTS:
            message["role"] = "tool_response"
    if messages[0]["role"] != "system" and system is not None:
        messages.insert(0, {"role": "system", "content": system, "index": 0})
    return messages


def _is_anthropic(content: Any) -> bool:
    return isinstance(content, list) and any(
        isinstance(block, dict)
        and (block.get("type") in {"tool_use", "tool_result"} or (block.get("type") == "image" and "source" in block))
        for block in content
    )


def openai_calls(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """``normalize_openai_tool_calls`` (``template_inputs.py`` L13): each call is a message of its own, and results
    stand in the order of the calls."""
    out: list[dict[str, Any]] = []
    messages = list(messages)
    for index, message in enumerate(messages):
        calls = message.get("tool_calls") if message.get("role") == "assistant" else None
        if not calls:
            out.append(message)
            continue
        if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
            raise RowError("tool_calls is no list of objects")
        order = {call.get("id"): i for i, call in enumerate(calls)}
        end = index + 1
        while end < len(messages) and messages[end].get("role") in {"tool", "tool_response"}:
            end += 1
        results = messages[index + 1 : end]
        given = {result.get("tool_call_id") for result in results}
        if None not in order and len(order) == len(calls) == len(results) and set(order) == given:
            messages[index + 1 : end] = sorted(results, key=lambda result: order[result["tool_call_id"]])
        kept = {key: value for key, value in message.items() if key in ("loss", "loss_scale")}
        if message.get("content"):
            out.append({"role": "assistant", "content": message["content"], **kept, "index": message["index"]})
        for call in calls:
            function = call.get("function", call)
            if not isinstance(function, dict) or "name" not in function:
                raise RowError("a tool call has no name")
            arguments = function.get("arguments", {})
            if isinstance(arguments, str):
                with suppress(ValueError):
                    arguments = json.loads(arguments)
            content = {"name": function["name"], "arguments": arguments}
            out.append({"role": "tool_call", "content": content, **kept, "index": message["index"]})
    return out


# Columns of a question and its answer


def _pairs(row: Mapping[str, Any], known: int) -> list[dict[str, Any]]:
    """``ResponsePreprocessor`` and ``AlpacaPreprocessor`` (L428, L450)."""
    query, response = row.get("query"), row.get("response")
    if "instruction" in row and "input" in row:
        if row.get("output") is not None:
            response = row["output"]
        query = _instruction(row["instruction"], row["input"])
    if isinstance(response, list):
        if not response:
            raise RowError("the list of answers is empty")
        response = response[0]
    history = row.get("history") or []
    if isinstance(history, str):
        try:
            history = ast.literal_eval(history)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise RowError("history is no list of pairs") from None
    system = row.get("system")
    messages = [] if system is None else [{"role": "system", "content": system}]
    if not isinstance(history, list):
        raise RowError("history is no list of pairs")
    for pair in [*history, [query, response]]:
        if not isinstance(pair, (list, tuple)) or len(pair) < 2:
            raise RowError("history is no list of pairs")
        for role, content in zip(("user", "assistant"), pair, strict=False):
            if content is not None:
                messages.append({"role": role, "content": content})
    # lorads has the same messages, but for empty texts of system or question, and an answer that is not there
    offset = known - len(messages) - (response is None)
    for i, message in enumerate(messages):
        message["index"] = max(0, offset + i)
    return messages


def _instruction(instruction: Any, extra: Any) -> str:
    query = f"{instruction}\n{extra}" if instruction and extra else instruction or extra
    if not isinstance(query, str):
        raise RowError("there is neither an instruction nor an input")
    return query


def _check(row: Mapping[str, Any], messages: list[dict[str, Any]]) -> None:
    """``_check_rejected_response`` and ``_check_messages`` (L146, L84), which strips what else a message holds."""
    if not messages:
        raise RowError("there are no messages, and ms-swift leaves the row out")
    if "rejected_response" in row:
        rejected = row["rejected_response"]
        if rejected is None:
            raise RowError("the row has no rejected_response")
        if not isinstance(rejected, str):
            raise NotReproduced("rejected_response that is no text")
        if rejected == messages[-1].get("content"):
            raise RowError("the rejected answer is the chosen one")
    for i, message in enumerate(messages):
        if not _KEPT.issuperset(message.keys() - {"index"}):
            for key in [key for key in message if key not in _KEPT and key != "index"]:
                if key != "name" or message["role"] not in ("tool", "tool_response"):
                    del message[key]
        for key in ("loss", "loss_scale"):
            if key in message and message[key] is None:
                del message[key]
        if message["role"] not in ROLES:
            raise RowError(f'message {i} has the role "{str(message["role"])[:40]}", which ms-swift does not know')
        if message.get("content") is None:
            raise RowError(f"message {i} has no content")


def _tools(value: Any) -> list[Any] | None:
    """``_normalize_tools`` (L121) and what ``from_dict`` and ``_preprocess_tools`` make of it later."""
    if value is None:
        return None
    if isinstance(value, str):
        with suppress(ValueError):
            value = json.loads(value)
    if not isinstance(value, list):
        value = [value]
    return [without_padding(tool) for tool in value] or None


_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")


def without_padding(schema: Any) -> Any:
    """``remove_arrow_padding`` (``swift/utils/schema_utils.py`` L18): null fields of a tool go."""
    if isinstance(schema, list):
        return [without_padding(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    clean: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("default", "const") or key.startswith("x-"):
            clean[key] = value
        elif value is None:
            continue
        elif key in ("enum", "examples"):
            clean[key] = value
        elif key in _MAPS and isinstance(value, dict):
            clean[key] = {name: without_padding(item) for name, item in value.items() if item is not None}
        else:
            clean[key] = without_padding(value)
    return clean
