"""Training rows for the recordings of torchtune: see ``rows``."""

from __future__ import annotations

from collections.abc import Callable

from parity.rows import (
    ENDINGS,
    ODD_ANSWERS,
    SYSTEMS,
    Row,
    alpaca,
    answer_of,
    choose,
    message,
    multi_turn,
    question_of,
    sharegpt,
)

CONTROL = (
    "",
    "",
    "",
    "<s>[INST] x [/INST]",
    "<|im_start|>user\nx<|im_end|>\n",
    "<|start_header_id|>user<|end_header_id|>\n\n",
    "<|eot_id|><|end_of_text|>",
    "<<SYS>>\nx\n<</SYS>>",
    "<|user|>\nx<|end|>\n",
    "<unk></s><0x0A>",
    "<tool_call>{}</tool_call><think>",
    "<|endoftext|>",
    "<|EOT|><｜begin▁of▁sentence｜>",
    "▁ ▁▁x",
)
BLANKS = ("", " ", "\n", "  ", "\t", "\u00a0", " \n ", "\u3000")


def alpaca_edges(row: Row) -> Row:
    """Null and blank inputs, odd endings and answers, control tokens, columns that torchtune does not read."""
    question, answer = question_of(row), answer_of(row)
    kind = choose(question + "i", 6)
    extra = row.get("input") or None
    made = {
        "instruction": BLANKS[choose(answer + "b", len(BLANKS))]
        + row["instruction"]
        + ENDINGS[choose(answer, len(ENDINGS))],
        "input": (extra, extra, None, " ", f"{extra} {{x}}", CONTROL[choose(question + "c", len(CONTROL))])[kind],
        "output": ODD_ANSWERS[choose(question, len(ODD_ANSWERS))](answer) + CONTROL[choose(answer + "d", len(CONTROL))],
    }
    if choose(answer + "h", 5) == 0:
        made["system"] = SYSTEMS[0]
    return made


def chat(row: Row) -> Row:
    """One question or two, three rows of four with a system message."""
    question, answer = question_of(row), answer_of(row)
    choice = choose(question, 4)
    turns = [message("system", SYSTEMS[choice])] if choice < len(SYSTEMS) else []
    turns += [message("user", question), message("assistant", answer)]
    if choose(answer, 2):
        turns += [message("user", answer.split(".")[0] + "?"), message("assistant", question)]
    return {"messages": turns}


def chat_no_system(row: Row) -> Row:
    return {"messages": [turn for turn in chat(row)["messages"] if turn["role"] != "system"]}


def chat_edges(row: Row) -> Row:
    """Edge white space, empty contents, control tokens, orders that torchtune refuses, roles that it does not know."""
    question, answer = question_of(row), answer_of(row)
    odd = ODD_ANSWERS[choose(question, len(ODD_ANSWERS))](answer) + CONTROL[choose(answer + "d", len(CONTROL))]
    asked = BLANKS[choose(answer + "b", len(BLANKS))] + question + ENDINGS[choose(answer, len(ENDINGS))]
    asked += CONTROL[choose(question + "c", len(CONTROL))]
    user, said = message("user", asked), message("assistant", odd)
    system = message(
        "system", SYSTEMS[choose(answer + "s", len(SYSTEMS))] + BLANKS[choose(question + "b", len(BLANKS))]
    )
    orders = (
        [user, said],
        [user, said],
        [system, user, said],
        [system, user, said, message("user", answer + " "), message("assistant", "")],
        [user, said, message("user", BLANKS[choose(asked, len(BLANKS))]), message("assistant", question + " ")],
        [user, said, message("user", question)],
        [system, user],
        [system, user, said, system, user, said],
        [user, user, said],
        [user, said, said],
        [said, user, said],
        [user, message("tool", "42"), said],
        [user, said, message("tool", "42 "), user, said],
        [user, message("ipython", " 42"), user, said],
        [user, said, message("ipython", "42"), message("ipython", "43 "), user, said],
        [message("tool", "1"), user, said],
        [message("developer", "Be brief."), user, said],
        [user],
        [system, user, said],
        [user, said, user, said, user, message("assistant", " ")],
    )
    return {"messages": orders[choose(question + answer, len(orders))]}


def chat_null(row: Row) -> Row:
    """Contents that are null or not there, calls of tools, thinking, weights."""
    question, answer = question_of(row), answer_of(row)
    call = [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}]
    user, said = message("user", question), message("assistant", answer)
    null = {"role": "assistant", "content": None, "tool_calls": call}
    orders = (
        [user, null],
        [user, null, user, said],
        [{"role": "user", "content": None}, said],
        [user, said, {"role": "user", "content": None}, said],
        [user, {"role": "assistant", "tool_calls": call}],
        [message("system", "Be brief."), user, {**said, "reasoning_content": "Hm."}],
        [user, {**said, "weight": 0}, user, {**said, "weight": 1}],
        [user, said],
    )
    return {"messages": orders[choose(question, len(orders))]}


def chat_parts(row: Row) -> Row:
    """Contents as lists of parts: several texts, none, and a part of another type."""
    turns = []
    for turn in chat(row)["messages"]:
        pieces = turn["content"].split(" ", 2)
        kind = choose(turn["content"], 6)
        parts = [{"type": "text", "text": piece + " " * (choose(piece, 3) == 0)} for piece in pieces]
        if kind == 0:
            parts = parts[:1]
        if kind == 1:
            parts = [{"type": "text", "text": ""}, *parts, {"type": "text", "text": " "}]
        if kind == 2 and turn["role"] != "assistant":
            parts.append({"type": "input_audio", "text": "x"})
        if kind == 3 and turn["role"] == "user":
            parts = []
        turns.append({"role": turn["role"], "content": parts})
    return {"messages": turns}


def sharegpt_edges(row: Row) -> Row | None:
    """Role names that torchtune does not know, null values, a system column beside the turns."""
    found = sharegpt(row)
    if found is None:
        return None
    turns = found["conversations"]
    kind = choose(turns[0]["value"], 8)
    if kind == 0:
        turns[0] = {"from": "user", "value": turns[0]["value"]}
    if kind == 1:
        turns[-1] = {"from": "assistant", "value": turns[-1]["value"]}
    if kind == 2:
        turns[-1] = {"from": "gpt", "value": None}
    if kind == 3:
        turns.append({"from": "observation", "value": "42"})
    if kind == 4:
        found["system"] = "A column."
    if kind == 5:
        turns.insert(0, {"from": "system", "value": "Be brief. "})
    return found


def instruct(row: Row) -> Row:
    return {"prompt": question_of(row), "completion": answer_of(row)}


def instruct_edges(row: Row) -> Row:
    found = alpaca_edges(row)
    return {"prompt": found["instruction"], "completion": found["output"]}


def text_edges(row: Row) -> Row:
    """Texts with edge white space and control tokens; some are empty, blank or null."""
    found = alpaca_edges(row)
    kind = choose(found["instruction"], 12)
    whole = f"{found['instruction']}\n\n{found['output']}"
    return {"text": {0: "", 1: " ", 2: None, 3: "\n"}.get(kind, whole)}


def repeat(row: Row) -> Row:
    """A hand-written chat in which ``{}`` stands for a piece, said many times."""
    long = row["piece"] * row["times"]
    return {"messages": [{**turn, "content": turn["content"].replace("{}", long)} for turn in row["messages"]]}


def multi_turn_system(row: Row) -> Row | None:
    found = multi_turn(row)
    if found is not None and choose(found["messages"][0]["content"], 2) and found["messages"][0]["role"] != "system":
        found["messages"].insert(0, message("system", SYSTEMS[1]))
    return found


TRANSFORMATIONS: dict[str, Callable[[Row], Row | None]] = {
    f"torchtune/{function.__name__.replace('_', '-')}": function
    for function in (
        alpaca,
        alpaca_edges,
        chat,
        chat_no_system,
        chat_edges,
        chat_null,
        chat_parts,
        sharegpt_edges,
        instruct,
        instruct_edges,
        text_edges,
        repeat,
        multi_turn_system,
    )
}
