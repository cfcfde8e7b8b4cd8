"""Rows as mistral-finetune's documentation asks for them, sound ones and ones at which it stops."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from typing import Any

from parity import rows
from parity.rows import Row, choose

SYSTEM = "You are a careful assistant."
WEIGHTS: tuple[Row, ...] = (
    *({}, {}, {"weight": 0}, {"weight": 1}, {"weight": 0}, {"weight": None}, {"weight": 1.0}, {"weight": False}),
    *({"weight": "1"}, {"weight": 0.0, "prefix": True}, {}, {"train": False}, {}, {}, {}),
)
ENDINGS = ("", "", " ", "   ", "\n", " \n ", "</s>", "[/INST]", "<s>", "[TOOL_CALLS]", " \u00a0", "[REFERENCE_DOC_1]")
BEGINNINGS = (
    "",
    "",
    " ",
    "    ",
    "\n",
    "[INST] ",
    "<unk>",
    "<0x0A>",
    "▁",
    "\u3000",
    "[REFERENCE_DOC_0]",
    "e\u0301👩\u200d💻",
)


def _edges(text: str, salt: str) -> str:
    return BEGINNINGS[choose(text + salt, len(BEGINNINGS))] + text + ENDINGS[choose(salt + text, len(ENDINGS))]


def text(row: Row) -> Row:
    return {"text": _edges((rows.text(row) if "instruction" in row else rows.text_long(row))["text"], "t")}


def edges(row: Row) -> Row:
    """Edge white space, control tokens and pieces of the vocabulary as content."""
    turns = rows.messages_system(row)["messages"]
    return {"messages": [{**turn, "content": _edges(turn["content"], turn["role"])} for turn in turns]}


def systems(row: Row) -> Row | None:
    """Short turns with a system prompt at the front, in the middle, behind; in a column; two of them; none."""
    found = rows.multi_turn(row)
    if found is None:
        return None
    turns = [turn | {"content": turn["content"][:80]} for turn in found["messages"] if turn["role"] != "system"]
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
    choice = choose(json.dumps(turns), 8)
    message = {"role": "system", "content": SYSTEM if choice else ""}
    if choice in (0, 1, 2):
        turns.insert(0, message)
    elif choice == 3:
        turns.insert(len(turns) // 2, message)
    elif choice == 4:
        turns.append(message)
    elif choice == 5:
        turns = [message, message, *turns]
    return {"messages": turns} | ({"system_prompt": "Be brief."} if choice == 6 else {})


def weights(row: Row) -> Row | None:
    """``weight`` on some answers, all of them in some rows."""
    found = rows.multi_turn(row)
    if found is None:
        return None
    turns = list(found["messages"])
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
    asleep = choose(json.dumps(turns), 6) == 0
    for i, turn in enumerate(turns):
        if turn["role"] == "assistant":
            turns[i] = turn | ({"weight": 0} if asleep else WEIGHTS[choose(turn["content"] + "w", len(WEIGHTS))])
    return {"messages": turns}


def only_last(row: Row) -> Row | None:
    found = weights(row)
    values: tuple[Any, ...] = (True, True, True, 1, "yes", False, "no", None, 0, 1.0, 2, "perhaps", [])
    return found and {**found, "only_last": values[choose(json.dumps(found), len(values))]}


def parts(row: Row) -> Row:
    """User messages as lists of text parts, some with nothing in them."""
    turns = rows.messages_system(row)["messages"]
    for turn in turns:
        if turn["role"] == "user":
            pieces = turn["content"].split("\n\n", 2)
            kept = pieces if choose(turn["content"], 9) else []
            turn["content"] = [{"type": "text", "text": piece} for piece in kept]
    return {"messages": turns}


def _call_id(text: str) -> str:
    return f"{zlib.crc32(text.encode()):09d}"[-9:]


def _tool_turns(row: Row) -> list[Row]:
    turns: list[Row] = []
    waiting: list[str] = []
    for i, turn in enumerate(row["conversations"]):
        if turn["from"] == "function_call":
            call = json.loads(turn["value"])
            waiting.append(_call_id(turn["value"] + str(i)))
            function = {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
            turns.append(
                {"role": "assistant", "tool_calls": [{"id": waiting[-1], "type": "function", "function": function}]}
            )
        elif turn["from"] == "observation":
            turns.append(
                {"role": "tool", "content": turn["value"], "tool_call_id": waiting.pop() if waiting else "none"}
            )
        else:
            role = "user" if turn["from"] == "human" else "assistant"
            turns.append({"role": role, "content": turn["value"]})
    return turns


def _definitions(row: Row) -> list[Row]:
    return [{"type": "function", "function": tool} for tool in json.loads(row["tools"])]


def tools(row: Row) -> Row:
    """Calls with ids and results that name them; one row in four ends with its last call."""
    turns = _tool_turns(row)
    calls = [i for i, turn in enumerate(turns) if "tool_calls" in turn]
    if calls and choose(row["tools"], 4) == 0:
        turns = turns[: calls[-1] + 1]
    key = "available_tools" if choose(json.dumps(turns), 2) else "tools"
    return {"messages": turns, key: _definitions(row)}


def tools_odd(row: Row) -> Row:
    """What tool rows are like in practice: ids of other makers, no ids, results that are no JSON, two calls at once, no
    definitions, definitions that are no JSON schema, weights, a system prompt."""
    found = tools(row)
    turns, choice = found["messages"], choose(json.dumps(found), 16)
    calls = [i for i, turn in enumerate(turns) if "tool_calls" in turn]
    definitions = found.get("tools", found.get("available_tools"))
    for i, turn in enumerate(turns):
        if choice == 0 and "tool_calls" in turn:
            turn["tool_calls"][0]["id"] = "call_" + turn["tool_calls"][0]["id"]
        elif choice == 1 and "tool_calls" in turn and i == len(turns) - 1:
            turn["tool_calls"][0]["id"] = "null"
        elif choice == 2 and turn["role"] == "tool":
            turn |= {"content": turn["content"][:-1], "name": "lookup"}
        elif choice == 3 and "tool_calls" in turn:
            turn["tool_calls"].append({**turn["tool_calls"][0], "id": "abcdefgh" + str(i % 10)})
        elif choice == 4 and "tool_calls" in turn:
            turn["content"] = ""
        elif choice == 5 and turn["role"] == "assistant":
            turn["weight"] = i % 2
        elif choice == 6 and "tool_calls" in turn:
            turn["tool_calls"][0]["function"]["arguments"] = (
                '{"x": 1e5, "y": 1.50, "z": "\\u00e9", "big": 1e400, "x": 2}'
            )
        elif choice == 7 and "tool_calls" in turn:
            turn["tool_calls"][0]["function"]["arguments"] = "{broken"
    if choice == 8:
        turns.insert(0, {"role": "system", "content": SYSTEM})
    elif choice == 9 and definitions:
        definitions[0]["function"]["parameters"] = {
            "type": "object",
            "properties": {"a": {"type": "string", "required": True}},
        }
    elif choice == 10 and definitions:
        del definitions[0]["function"]["description"]
    elif choice in (11, 12):
        found = {"messages": turns} | ({"available_tools": []} if choice == 12 else {"tools": []})
    elif choice == 13:
        turns = found["messages"] = turns[calls[0] :] if calls else turns
    elif choice == 14:
        found["only_last"] = "no"
    elif choice == 15 and turns[-1]["role"] == "assistant":
        found["messages"] = [*turns, turns[-1]]
    return found


BREAKS: tuple[Callable[[list[Row]], Any], ...] = (
    lambda turns: turns,
    lambda turns: turns,
    lambda turns: turns[1:],
    lambda turns: turns[:-1],
    lambda turns: [turns[-1]],
    lambda turns: [turns[0], *turns],
    lambda turns: [*turns, turns[-1]],
    lambda turns: [{**turns[0], "role": "human"}, *turns[1:]],
    lambda turns: [{**turns[0], "role": "developer"}, *turns],
    lambda turns: [{**turns[0], "text": "twice"}, *turns[1:]],
    lambda turns: [*turns[:-1], {**turns[-1], "content": ""}],
    lambda turns: [*turns[:-1], {**turns[-1], "content": "   "}],
    lambda turns: [*turns[:-1], {**turns[-1], "content": None}],
    lambda turns: [*turns[:-1], {**turns[-1], "weight": 0.5}],
    lambda turns: [*turns[:-1], {**turns[-1], "tool_calls": []}],
    lambda turns: [*turns[:-1], {**turns[-1], "content": [{"type": "text", "text": turns[-1]["content"]}]}],
    lambda turns: [turns[-1], turns[0], turns[-1]],
    lambda turns: [{**turns[0], "content": ""}, turns[-1]],
    lambda turns: [*turns, {"role": "tool", "content": "5", "tool_call_id": "abcdefghi"}, turns[-1]],
    lambda turns: [{"role": "tool", "content": "5", "tool_call_id": "abcdefghi"}, turns[-1]],
)


def broken(row: Row) -> Row:
    """Rows with one thing out of order."""
    turns = rows.messages(row)["messages"]
    return {"messages": BREAKS[choose(json.dumps(turns), len(BREAKS))](turns)}


def openai(row: Row) -> Row:
    """A row of an OpenAI fine-tuning file with the ids that mistral-finetune asks for, and in most rows with the
    descriptions."""
    turns = []
    for message in row["messages"]:
        calls = [{**call, "id": _call_id(str(call["id"]))} for call in message.get("tool_calls") or []]
        turns.append({**message, "tool_calls": calls} if calls else message)
    functions = [tool["function"] for tool in row["tools"]]
    if choose(json.dumps(turns), 4):
        functions = [{"description": "", **function} for function in functions]
    return {**row, "messages": turns, "tools": [{"type": "function", "function": function} for function in functions]}


TRANSFORMATIONS: dict[str, Callable[[Row], Row | None]] = {
    "mistral-finetune/" + function.__name__.replace("_", "-"): function
    for function in (text, edges, systems, weights, only_last, parts, tools, tools_odd, broken, openai)
}
