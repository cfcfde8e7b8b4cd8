"""Transformations for LLaMA-Factory: the columns and lists of messages that its converters take."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from parity.rows import BEGINNINGS, ENDINGS, ODD_ANSWERS, SYSTEMS, Row, alpaca, alpaca_full, choose, turns_of

THOUGHTS = (
    lambda text: f"<think>\n{text[:40]}\n</think>\n\n",
    lambda text: f"<think>{text[:20]}</think>",
    lambda text: "<think>\n\n</think>\n\n",
    lambda text: "<think>\nnever closed\n",
    lambda text: "",
    lambda text: "",
    lambda text: "\n\n",
    lambda text: "<think>\na\n</think>\n\nb <think>\nc\n</think>\n\n",
)
ODD_QUESTIONS: tuple[Callable[[str], str], ...] = (
    lambda text: "{{idx}} and {{idx}} " + text,
    lambda text: text + " {{content}}",
    lambda text: "",
    lambda text: " ",
    lambda text: text + "\n",
    lambda text: text + "<|im_end|>\n<|im_start|>assistant\n",
    lambda text: "é①\u00a0" + text + "👩\u200d💻",
    lambda text: text,
)


LONGEST = 1300
"""Bytes of a conversation: longer ones would fill the recordings with text that shows nothing more."""


def _short_turns(row: Row) -> list[Row]:
    """The turns, none where there is more text than is wanted."""
    turns = turns_of(row)
    return turns if sum(len(turn["content"].encode()) for turn in turns) <= LONGEST else []


def alpaca_edges(row: Row) -> Row:
    """Empty, blank and missing answers, odd questions, edge white space, control tokens."""
    question, answer = row["instruction"], row["output"]
    output: str | None = ODD_ANSWERS[choose(question, len(ODD_ANSWERS))](answer)
    if choose(answer + "n", 12) == 0:
        output = None
    asked = ODD_QUESTIONS[choose(answer, len(ODD_QUESTIONS))](question)
    extra = BEGINNINGS[choose(question + "i", len(BEGINNINGS))] + row["input"] + ENDINGS[choose(answer, len(ENDINGS))]
    return {"instruction": asked, "input": extra, "output": output}


def alpaca_thoughts(row: Row) -> Row:
    """Answers, also earlier ones, with thoughts, empty thoughts, unclosed ones, several, and none."""
    made = alpaca_full(row)
    answer = row["output"]
    if made["history"]:
        made["history"] = [[ask, _thought(said) + said] for ask, said in made["history"]]
    return {**made, "output": _thought(answer) + answer}


def _thought(text: str) -> str:
    return THOUGHTS[choose(text + "t", len(THOUGHTS))](text)


def prompt_completion(row: Row) -> Row:
    return {"prompt": f"{row['instruction']}\n{row['input']}", "completion": row["output"]}


def sharegpt_tools(row: Row) -> Row:
    """As the row is: roles human, gpt, function_call and observation, tools as a JSON text."""
    return {"conversations": row["conversations"], "tools": row["tools"]}


def sharegpt_calls(row: Row) -> Row:
    """Without the definitions; calls also as lists, between tags, and behind a thought."""
    turns = []
    for turn in row["conversations"]:
        value = turn["value"]
        if turn["from"] == "function_call":
            choice = choose(value, 5)
            value = (
                value,
                f"[{value}, {value}]",
                f"<think>\nlet me see\n</think>\n\n{value}",
                f"I shall look. <tool_call>\n{value}\n</tool_call> Done.",
                json.dumps(json.loads(value), indent=2, ensure_ascii=True),
            )[choice]
        turns.append({"from": turn["from"], "value": value})
    return {"conversations": turns}


def sharegpt(row: Row) -> Row | None:
    """Plain turns with ShareGPT's names; some rows with a system message, a system column, or turns out of order."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    turns = [{"from": names[turn["role"]], "value": turn["content"]} for turn in _short_turns(row)]
    if not turns:
        return None
    text = "".join(turn["value"] for turn in turns)
    choice = choose(text, 16)
    if choice == 0:
        turns.pop()
    elif choice == 1:
        turns = turns[1:]
    elif choice == 2:
        turns[-1] = {**turns[-1], "from": "assistant"}
    elif choice == 3:
        turns = [*turns, turns[-1]]
    elif choice < 8 and turns[0]["from"] != "system":
        turns.insert(0, {"from": "system", "value": SYSTEMS[choice % 3]})
    system = (None, "", SYSTEMS[choice % 3])[choose(text + "s", 3)]
    return {"conversations": turns, "system": system}


def messages(row: Row) -> Row | None:
    turns = _short_turns(row)
    if not turns:
        return None
    text = "".join(turn["content"] for turn in turns)
    choice = choose(text, 12)
    if choice < 3 and turns[0]["role"] != "system":
        turns.insert(0, {"role": "system", "content": SYSTEMS[choice]})
    elif choice == 3:
        turns.insert(0, {"role": "system", "content": "detailed thinking on"})
    elif choice == 4:
        turns.pop()
    return {"messages": turns}


def messages_tools(row: Row) -> Row:
    """OpenAI's calls with arguments as texts, results of tools one or two at a time, tools as one JSON text."""
    turns: list[dict[str, Any]] = []
    if choose(row["tools"] + row["conversations"][0]["value"], 2):
        turns.append({"role": "system", "content": SYSTEMS[0], "tool_calls": None})
    for turn in row["conversations"]:
        if turn["from"] == "function_call":
            found = json.loads(turn["value"])
            function = {"name": found["name"], "arguments": json.dumps(found["arguments"], ensure_ascii=False)}
            calls = [{"id": "c", "type": "function", "function": function}]
            turns.append({"role": "assistant", "content": "", "tool_calls": calls})
        elif turn["from"] == "observation":
            values = [turn["value"]] * (1 + choose(turn["value"], 2))
            turns += [{"role": "tool", "content": value, "tool_calls": None} for value in values]
        else:
            role = "user" if turn["from"] == "human" else "assistant"
            turns.append({"role": role, "content": turn["value"], "tool_calls": None})
    return {"messages": turns, "tools": row["tools"]}


def other_tags(row: Row) -> Row | None:
    """Turns with keys and names of their own."""
    turns = _short_turns(row)
    names = {"user": "client", "assistant": "expert", "system": "frame"}
    return {"messages": [{"role": names[t["role"]], "content": t["content"]} for t in turns]} if turns else None


TRANSFORMATIONS: dict[str, Callable[[Row], Row | None]] = {
    f"llamafactory/{function.__name__.replace('_', '-')}": function
    for function in (
        alpaca,
        alpaca_full,
        alpaca_edges,
        alpaca_thoughts,
        prompt_completion,
        sharegpt_tools,
        sharegpt_calls,
        sharegpt,
        messages,
        messages_tools,
        other_tags,
    )
}
