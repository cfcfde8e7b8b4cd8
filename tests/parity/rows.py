"""From the rows of a source file to training rows: what the recorder feeds the real trainer and the replayer lorads.

A transformation takes one row of a source (Alpaca, ShareGPT, text …) and gives one training row, or None where it does
not apply. It depends on that row alone. Variety (endings, empty answers, with or without a system message) is picked by
a checksum of the row's text, so both sides see the same.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

Row = dict[str, Any]

SYSTEMS = (
    "You are a careful assistant.",
    "Answer in one paragraph.\nSay so when you don't know.",
    "Du bist hilfsbereit. 你很有耐心。",
)
ENDINGS = ("", "", " ", "  \n", "\n\n", "</s>", "<|EOT|>", "<|im_end|>", "</s>\n", "\t")
BEGINNINGS = ("", "", "", " ", "\n", "<s>", "<s> ", "<｜begin▁of▁sentence｜>", "<|endoftext|>", "\u3000")
ODD_ANSWERS: tuple[Callable[[str], str], ...] = (
    lambda answer: "",
    lambda answer: " ",
    lambda answer: "\n",
    lambda answer: answer + " ",
    lambda answer: answer + "\n\n",
    lambda answer: " " + answer,
    lambda answer: "\n" + answer,
    lambda answer: answer.replace(". ", ".\r\n"),
    lambda answer: answer + "<|im_end|>",
    lambda answer: answer + "</s> and <s> more <|EOT|>",
    lambda answer: "e\u0301 é ﬁ Å ① " + answer,
    lambda answer: answer + " 👩\u200d💻 \u00a0\u200b\ufeff",
    lambda answer: "<think>\nshort\n</think>\n\n" + answer,
    lambda answer: "{{ answer }} {% if x %} " + answer,
    lambda answer: answer,
    lambda answer: answer,
)
ODD_KEYS: tuple[Row, ...] = ({}, {}, {"weight": 0}, {"name": "ann"}, {"weight": 1.0, "note": None}, {"train": True})


def write(path: Path, training_rows: Iterable[Row | None]) -> None:
    """The file that the trainer, and lorads, read: JSON lines."""
    with path.open("w", encoding="utf-8") as out:
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in training_rows)


def choose(text: str, choices: int) -> int:
    """One of so many choices, by a checksum of the text."""
    return zlib.crc32(text.encode("utf-8", "surrogatepass")) % choices


def question_of(row: Row) -> str:
    return f"{row['instruction']}\n\n{row['input']}" if row.get("input") else str(row["instruction"])


def answer_of(row: Row) -> str:
    return str(row["output"])


def message(role: str, content: str) -> Row:
    return {"role": role, "content": content}


def alpaca(row: Row) -> Row:
    """Alpaca's own columns."""
    return {"instruction": row["instruction"], "input": row.get("input") or "", "output": row["output"]}


def alpaca_full(row: Row) -> Row:
    """With a system column in three rows of four and one or two earlier turns in half of them."""
    question, answer = row["instruction"], row["output"]
    half, words = len(answer) // 2, question.split(" ")
    turns = [[" ".join(words[:3]), answer[:half]], [" ".join(words[3:6]), answer[half : half + 90]]]
    choice = choose(question, 4)
    return {
        **alpaca(row),
        "system": SYSTEMS[choice] if choice < len(SYSTEMS) else ("", None)[choose(answer, 2)],
        "history": turns[: choose(answer + question, 4) % 3] if choose(answer, 5) else None,
    }


def turns_of(row: Row) -> list[Row]:
    """The messages of a ShareGPT or KTO row without its tool calls; the preferred answer of a pair belongs to them."""
    if "messages" in row:
        return [message(m["role"], m["content"]) for m in row["messages"]]
    turns = [*row["conversations"], *([row["chosen"]] if "chosen" in row else [])]
    roles = {"human": "user", "gpt": "assistant", "system": "system"}
    return [message(roles[turn["from"]], turn["value"]) for turn in turns if turn["from"] in roles]


def text(row: Row) -> Row:
    return {"text": f"### Question\n{question_of(row)}\n\n### Answer\n{answer_of(row)}"}


def text_edges(row: Row) -> Row:
    """Texts that begin or end with white space or with control tokens of this or another family."""
    whole = text(row)["text"]
    return {"text": BEGINNINGS[choose(whole + "b", len(BEGINNINGS))] + whole + ENDINGS[choose(whole, len(ENDINGS))]}


def text_long(row: Row) -> Row:
    """A web page, or all turns of a conversation, as one text."""
    return {"text": row["text"] if "text" in row else "\n\n".join(turn["content"] for turn in turns_of(row))}


def messages(row: Row) -> Row:
    return {"messages": [message("user", question_of(row)), message("assistant", answer_of(row))]}


def messages_system(row: Row) -> Row:
    """Three rows of four have a system message."""
    choice = choose(question_of(row), 4)
    system = [message("system", SYSTEMS[choice])] if choice < len(SYSTEMS) else []
    return {"messages": system + messages(row)["messages"]}


def messages_edges(row: Row) -> Row:
    """Empty and blank answers, edge white space, control tokens as content, unusual Unicode, keys for the trainer."""
    question, answer = question_of(row), answer_of(row)
    odd = ODD_ANSWERS[choose(question, len(ODD_ANSWERS))](answer)
    asked = question + ENDINGS[choose(answer, len(ENDINGS))]
    keys = ODD_KEYS[choose(question + answer, len(ODD_KEYS))]
    return {"messages": [message("user", asked), {**message("assistant", odd), **keys}]}


def messages_parts(row: Row) -> Row:
    """Content as lists of text parts, one or two to a message."""
    turns = [
        {"role": m["role"], "content": [{"type": "text", "text": piece} for piece in m["content"].split("\n\n", 1)]}
        for m in messages(row)["messages"]
    ]
    return {"messages": turns}


def multi_turn(row: Row) -> Row | None:
    turns = turns_of(row)
    return {"messages": turns} if any(turn["role"] == "assistant" for turn in turns) else None


def from_value(row: Row) -> Row | None:
    """``from``/``value`` with the role names that templates know."""
    found = multi_turn(row)
    return found and {"conversations": [{"from": m["role"], "value": m["content"]} for m in found["messages"]]}


def sharegpt(row: Row) -> Row | None:
    """``from``/``value`` with ShareGPT's role names, which no trainer but the template judges."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    found = multi_turn(row)
    return found and {"conversations": [{"from": names[m["role"]], "value": m["content"]} for m in found["messages"]]}


def prompt_completion(row: Row) -> Row:
    """The space stands before the answer."""
    return {"prompt": f"Question: {question_of(row)}\nAnswer:", "completion": " " + answer_of(row)}


def prompt_completion_space(row: Row) -> Row:
    """The boundary falls where tokens merge: after a space, inside a line break, or nowhere."""
    question, answer = question_of(row), answer_of(row)
    end, begin = (("Answer: ", ""), ("Answer:", ""), ("Answer:\n", "\n"), ("", ""), ("Answer:\n\n", " "))[
        choose(question, 5)
    ]
    return {"prompt": f"Question: {question}\n{end}", "completion": begin + answer}


def prompt_completion_edges(row: Row) -> Row:
    """Empty prompts and completions, completions that end with a control token, prompts that start with one."""
    question, answer = question_of(row), answer_of(row)
    prompt = ("", question, question + "\n", BEGINNINGS[choose(answer, len(BEGINNINGS))] + question)[
        choose(question, 4)
    ]
    completion = ("", answer, answer + ENDINGS[choose(question, len(ENDINGS))], answer[:1])[choose(answer, 4)]
    return {"prompt": prompt, "completion": completion}


def prompt_completion_messages(row: Row) -> Row:
    turns = messages_system(row)["messages"]
    return {"prompt": turns[:-1], "completion": turns[-1:]}


def prompt_completion_history(row: Row) -> Row | None:
    """The last assistant turn is the completion; in one row of four, the last two turns are."""
    turns = turns_of(row)
    while turns and turns[-1]["role"] != "assistant":
        turns.pop()
    cut = len(turns) - (3 if len(turns) > 3 and choose(turns[-1]["content"], 4) == 0 else 1)
    return {"prompt": turns[:cut], "completion": turns[cut:]} if cut > 0 else None


def template_kwargs(row: Row) -> Row:
    """Arguments of the template a row; Qwen's thinking switch changes how the prompt ends."""
    choices: tuple[Row, ...] = ({"enable_thinking": False}, {"enable_thinking": True}, {})
    return {**prompt_completion_messages(row), "chat_template_kwargs": choices[choose(question_of(row), 3)]}


def tool_turns(row: Row, arguments: Callable[[Any], Any]) -> Iterator[Row]:
    """The messages of a ShareGPT row with OpenAI's calls, their arguments as ``arguments`` writes them."""
    for turn in row["conversations"]:
        if turn["from"] == "function_call":
            call = json.loads(turn["value"])
            function = {"name": call["name"], "arguments": arguments(call["arguments"])}
            yield {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
        elif turn["from"] == "observation":
            yield message("tool", turn["value"])
        else:
            yield message("user" if turn["from"] == "human" else "assistant", turn["value"])


def tools(row: Row) -> Row:
    """Calls with arguments as objects; tools as objects, wrapped as OpenAI does."""
    offered = [{"type": "function", "function": tool} for tool in json.loads(row["tools"])]
    return {"messages": list(tool_turns(row, lambda found: found)), "tools": offered or None}


def tools_strings(row: Row) -> Row:
    """Tools as one JSON string, arguments as JSON strings."""
    turns = list(tool_turns(row, lambda found: json.dumps(found, ensure_ascii=False)))
    return {"messages": turns, "tools": row["tools"]}


def tools_prompt_completion(row: Row) -> Row | None:
    found = tools(row)
    turns = found["messages"]
    last = max((i for i, turn in enumerate(turns) if turn["role"] == "assistant"), default=0)
    return {"prompt": turns[:last], "completion": turns[last:], "tools": found["tools"]} if last else None


def bfcl(row: Row) -> Row:
    """A question, the functions on offer and a call of the first one with the least it asks for."""
    first = row["function"][0]
    arguments = dict.fromkeys(first["parameters"].get("required", []), 1)
    call = {"type": "function", "function": {"name": first["name"], "arguments": arguments}}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    return {"messages": [*row["question"][0], answer], "tools": row["function"]}


def openai_tools(row: Row) -> Row:
    """A row of an OpenAI fine-tuning file, with the content that Qwen's template wants in each message."""
    return {**row, "messages": [{"content": "", **message} for message in row["messages"]]}


def _bytes(row: Row) -> list[int]:
    return [5 + byte for byte in text(row)["text"].encode()]


def tokenized(row: Row) -> Row:
    return {"input_ids": _bytes(row)}


def tokenized_labels(row: Row) -> Row:
    """The question is masked; some rows are masked whole, some labels differ from their ids."""
    ids, cut = _bytes(row), len(question_of(row).encode())
    labels = [-100] * cut + ids[cut:]
    if choose(answer_of(row), 8) == 0:
        labels = [-100] * len(ids)
    elif choose(answer_of(row), 8) == 1:
        labels = [-100 if label == -100 else label + 1 for label in labels]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def tokenized_masks(row: Row) -> Row:
    ids, cut = _bytes(row), len(question_of(row).encode())
    assistant = [int(i >= cut and i % 7 != 0) for i in range(len(ids))]
    return {"input_ids": ids, "completion_mask": [int(i >= cut) for i in range(len(ids))], "assistant_masks": assistant}


def own(row: Row) -> Row:
    """The row as it stands: for the cases written by hand."""
    return row


TRANSFORMATIONS: dict[str, Callable[[Row], Row | None]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        text,
        text_edges,
        text_long,
        messages,
        messages_system,
        messages_edges,
        messages_parts,
        multi_turn,
        from_value,
        sharegpt,
        prompt_completion,
        prompt_completion_space,
        prompt_completion_edges,
        prompt_completion_messages,
        prompt_completion_history,
        template_kwargs,
        tools,
        tools_strings,
        tools_prompt_completion,
        bfcl,
        openai_tools,
        tokenized,
        tokenized_labels,
        tokenized_masks,
        own,
    )
}


def transformation(name: str) -> Callable[[Row], Row | None]:
    """The transformation of that name; ``<trainer>/<name>`` is one of ``rows_<trainer>``."""
    trainer, slash, _ = name.partition("/")
    if not slash:
        return TRANSFORMATIONS[name]
    own_: dict[str, Callable[[Row], Row | None]] = import_module(
        f"parity.rows_{trainer.replace('-', '_')}"
    ).TRANSFORMATIONS
    return own_[name]
