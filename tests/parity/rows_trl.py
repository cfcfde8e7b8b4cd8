"""Training rows that only the TRL recordings need (see ``rows``)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from parity.rows import (
    Row,
    choose,
    messages_edges,
    multi_turn,
    own,
    prompt_completion_edges,
    prompt_completion_history,
    prompt_completion_space,
    tools,
)

THOUGHTS = ("<think>\nLet me see.\n</think>\n\n", "<think></think>", "<think>\nopen", "so</think>\n", "", "", "", "")


def turns(row: Row) -> Row | None:
    """The turns of a conversation, some answers with thinking in front, in one row of eight the last one empty."""
    found = multi_turn(row)
    if found is None:
        return None
    answers = [turn for turn in found["messages"] if turn["role"] == "assistant"]
    for turn in answers:
        turn["content"] = THOUGHTS[choose(turn["content"], len(THOUGHTS))] + turn["content"]
    if choose(answers[-1]["content"] + "e", 8) == 0:
        answers[-1]["content"] = ""
    return found


def alternating(row: Row) -> Row | None:
    """The same, question and answer in turn from the first on, without a system message."""
    found = turns(row)
    if found is None:
        return None
    kept: list[Row] = []
    for turn in found["messages"]:
        if turn["role"] == ("user", "assistant")[len(kept) % 2]:
            kept.append(turn)
    return {"messages": kept} if len(kept) > 1 else None


def calls(row: Row) -> Row | None:
    """Conversations with tools in which every message has the same keys; thoughts beside some answers."""
    found = tools(row)
    for turn in found["messages"]:
        if turn["role"] == "assistant" and choose(json.dumps(turn), 3) == 0:
            turn["reasoning_content"] = "It asks for a tool."
    return found


def harmony_tools(row: Row) -> Row:
    """Conversations with tools as gpt-oss' template takes them: a call without content, its results behind it."""
    found = tools(row)
    kept: list[Row] = []
    for turn in found["messages"]:
        called = bool(kept) and ("tool_calls" in kept[-1] or kept[-1]["role"] == "tool")
        if turn["role"] == "tool" and not called:
            continue
        if "tool_calls" in turn:
            turn.pop("content")
            if choose(json.dumps(turn), 2):
                turn["thinking"] = "A tool helps."
        kept.append(turn)
    return {**found, "messages": kept}


def preference(row: Row) -> Row | None:
    """``prompt``, ``chosen`` and ``rejected`` as messages, from a ShareGPT row with two answers."""
    if "chosen" not in row or "rejected" not in row:
        return None
    names = {"human": "user", "gpt": "assistant", "system": "system"}
    prompt = [{"role": names[turn["from"]], "content": turn["value"]} for turn in row["conversations"]]
    answers = {
        name: [{"role": names[row[name]["from"]], "content": row[name]["value"]}] for name in ("chosen", "rejected")
    }
    return {"prompt": prompt, **answers}


def preference_implicit(row: Row) -> Row | None:
    """The same without a prompt: both conversations whole."""
    found = preference(row)
    return found and {name: found["prompt"] + found[name] for name in ("chosen", "rejected")}


def preference_text(row: Row) -> Row:
    """Texts: another answer is the first one backwards, or cut, or empty, or with something behind it."""
    found = prompt_completion_space(row)
    return {"prompt": found["prompt"], "chosen": found["completion"], "rejected": _worse(found["completion"])}


def preference_text_edges(row: Row) -> Row:
    found = prompt_completion_edges(row)
    return {"prompt": found["prompt"], "chosen": found["completion"], "rejected": _worse(found["completion"])}


def preference_text_implicit(row: Row) -> Row:
    found = preference_text(row)
    return {name: found["prompt"] + found[name] for name in ("chosen", "rejected")}


def _worse(answer: str) -> str:
    return (answer[::-1], answer[: len(answer) // 2], "", answer + " really", " " + answer, answer[:1] + "!")[
        choose(answer, 6)
    ]


def preference_edges(row: Row) -> Row:
    """Messages with odd answers."""
    found = messages_edges(row)["messages"]
    answer = {key: value for key, value in found[1].items() if key in ("role", "content")}
    return {
        "prompt": found[:1],
        "chosen": [answer],
        "rejected": [{"role": "assistant", "content": _worse(answer["content"])}],
    }


def continued(row: Row) -> Row | None:
    """A prompt that ends with a question in most rows, and with the answer before in the others."""
    found = prompt_completion_history(row)
    if found is None or found["prompt"][-1]["role"] not in ("user", "assistant"):
        return None
    if len(found["prompt"]) > 2 and choose(found["prompt"][-1]["content"], 3) == 0:
        cut = found["prompt"].pop()
        found["completion"] = [cut, *found["completion"]]
    if found["prompt"][-1]["role"] not in ("user", "assistant"):
        return None
    return found


def marked(row: Row) -> Row:
    """Alpaca as the old scripts wrote it; in some rows the marker stands twice, or never, or last of all."""
    question, answer = row["instruction"], str(row["output"])
    behind = ("", "", "\n### Response:\nand so on", "\n\n### Question:\nmore?\n\n### Response:\nyes", " ### Response:")
    head = ("### Response:\n", "### Response:\n", "### Response:\n", "### Answer:\n", "### Response:")[
        choose(question, 5)
    ]
    return {"text": f"### Question:\n{question}\n\n{head}{answer}{behind[choose(answer, len(behind))]}"}


def tokenized_plain(row: Row) -> Row:
    """``input_ids`` with some ids that are pad or EOS to somebody, and labels of their own."""
    made: Any = own(row)
    ids = [5 + byte for byte in str(made["output"]).encode()][:200] or [5]
    ids = [2 if i % 11 == 3 else token for i, token in enumerate(ids)]
    labels = [-100 if i < len(ids) // 3 else token for i, token in enumerate(ids)]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


TRANSFORMATIONS: dict[str, Callable[[Row], Row | None]] = {
    f"trl/{function.__name__.replace('_', '-')}": function
    for function in (
        turns,
        alternating,
        calls,
        harmony_tools,
        preference,
        preference_implicit,
        preference_text,
        preference_text_edges,
        preference_text_implicit,
        preference_edges,
        continued,
        marked,
        tokenized_plain,
    )
}
