"""``sharegpt``: ``{"conversations": [{"from", "value"}], "system"?, "tools"?}``.

Role names as LLaMA-Factory 0.9.5 (``data_args.py``: human, gpt, observation, function_call, system) and axolotl (also
user, assistant, bot, model, chatgpt, tool) read them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorads.formats.base import Columns, Misfit, type_name
from lorads.formats.conversation import Conversation
from lorads.formats.messages import no_column, not_a_list, read_tools
from lorads.formats.turns import conversation, parse_calls

ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "assistant": "assistant",
    "system": "system",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
}


class ShareGPTFormat:
    name = "sharegpt"
    rank = 40

    def evidence(self, record: Mapping[str, Any], columns: Columns) -> str | None:
        column = columns.find(record, "conversations") or columns.find(record, "messages")
        if column is None:
            return None
        turns = record[column]
        if isinstance(turns, list) and turns and isinstance(turns[0], dict) and "from" in turns[0]:
            return f'a list "{column}" of turns with from and value'
        return None

    def normalise(self, record: Mapping[str, Any], columns: Columns) -> Conversation:
        column = columns.find(record, "conversations") or columns.find(record, "messages")
        if column is None:
            raise no_column(record, columns.names("conversations")[0])
        turns = record[column]
        if not isinstance(turns, list):
            raise not_a_list(column, turns)
        messages = read_turns(turns, column)
        system = columns.get(record, "system")
        if isinstance(system, str) and system.strip() and (not messages or messages[0]["role"] != "system"):
            messages.insert(0, {"role": "system", "content": system})
        tools = read_tools(columns.get(record, "tools"))
        return conversation(
            messages, tools=None if tools is None else list(map(as_function, tools)), answer_field="value", where=column
        )


def as_function(tool: Any) -> Any:
    """A bare function definition, as LLaMA-Factory's files hold them, in the wrapping that chat templates take."""
    if isinstance(tool, dict) and "name" in tool and "function" not in tool and tool.get("type") != "function":
        return {"type": "function", "function": tool}
    return tool


def read_turns(turns: list[Any], where: str) -> list[dict[str, Any]]:
    """``from``/``value`` turns as messages; a ``function_call`` turn is an assistant message with tool calls."""
    messages: list[dict[str, Any]] = []
    for i, turn in enumerate(turns):
        if not isinstance(turn, dict) or "from" not in turn:
            what = (
                f'has no "from" (its keys: {", ".join(map(str, turn))})'
                if isinstance(turn, dict)
                else f"is {type_name(turn)}"
            )
            raise Misfit(
                "not-a-turn", f'turn {i} of "{where}" {what}', 'write it as {"from": …, "value": …}', i, "from"
            )
        name = turn["from"]
        value = turn.get("value")
        if name == "function_call":
            calls = parse_calls(value) if isinstance(value, str) and value.strip() else []
            messages.append(
                {"role": "assistant", "content": "", "tool_calls": calls}
                if calls
                else {"role": "assistant", "content": value}
            )
            continue
        message: dict[str, Any] = {"role": ROLES.get(name, name)}
        if "value" in turn:
            message["content"] = value
        extra = {key: turn[key] for key in ("weight", "train", "loss") if key in turn}
        messages.append({**message, **extra} if extra else message)
    return messages


FORMAT = ShareGPTFormat()
