"""Training rows for the recordings of torchtune: see ``rows``."""

from __future__ import annotations

from collections.abc import Callable

from parity.rows import ENDINGS, ODD_ANSWERS, SYSTEMS, Row, _answer, _message, _pick, _question, multi_turn, sharegpt

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


def alpaca(row: Row) -> Row:
    return {"instruction": row["instruction"], "input": row.get("input") or "", "output": row["output"]}


def alpaca_edges(row: Row) -> Row:
    """Null and blank inputs, odd endings and answers, control tokens, columns that torchtune does not read."""
    question, answer = _question(row), _answer(row)
    kind = _pick(question + "i", 6)
    extra = row.get("input") or None
    made = {
        "instruction": BLANKS[_pick(answer + "b", len(BLANKS))]
        + row["instruction"]
        + ENDINGS[_pick(answer, len(ENDINGS))],
        "input": (extra, extra, None, " ", f"{extra} {{x}}", CONTROL[_pick(question + "c", len(CONTROL))])[kind],
        "output": ODD_ANSWERS[_pick(question, len(ODD_ANSWERS))](answer) + CONTROL[_pick(answer + "d", len(CONTROL))],
    }
    if _pick(answer + "h", 5) == 0:
        made["system"] = SYSTEMS[0]
    return made


def chat(row: Row) -> Row:
    """One question or two, three rows of four with a system message."""
    question, answer = _question(row), _answer(row)
    choice = _pick(question, 4)
    turns = [_message("system", SYSTEMS[choice])] if choice < len(SYSTEMS) else []
    turns += [_message("user", question), _message("assistant", answer)]
    if _pick(answer, 2):
        turns += [_message("user", answer.split(".")[0] + "?"), _message("assistant", question)]
    return {"messages": turns}


def chat_no_system(row: Row) -> Row:
    return {"messages": [turn for turn in chat(row)["messages"] if turn["role"] != "system"]}


def chat_edges(row: Row) -> Row:
    """Edge white space, empty contents, control tokens, orders that torchtune refuses, roles that it does not know."""
    question, answer = _question(row), _answer(row)
    odd = ODD_ANSWERS[_pick(question, len(ODD_ANSWERS))](answer) + CONTROL[_pick(answer + "d", len(CONTROL))]
    asked = BLANKS[_pick(answer + "b", len(BLANKS))] + question + ENDINGS[_pick(answer, len(ENDINGS))]
    asked += CONTROL[_pick(question + "c", len(CONTROL))]
    user, said = _message("user", asked), _message("assistant", odd)
    system = _message("system", SYSTEMS[_pick(answer + "s", len(SYSTEMS))] + BLANKS[_pick(question + "b", len(BLANKS))])
    orders = (
        [user, said],
        [user, said],
        [system, user, said],
        [system, user, said, _message("user", answer + " "), _message("assistant", "")],
        [user, said, _message("user", BLANKS[_pick(asked, len(BLANKS))]), _message("assistant", question + " ")],
        [user, said, _message("user", question)],
        [system, user],
        [system, user, said, system, user, said],
        [user, user, said],
        [user, said, said],
        [said, user, said],
        [user, _message("tool", "42"), said],
        [user, said, _message("tool", "42 "), user, said],
        [user, _message("ipython", " 42"), user, said],
        [user, said, _message("ipython", "42"), _message("ipython", "43 "), user, said],
        [_message("tool", "1"), user, said],
        [_message("developer", "Be brief."), user, said],
        [user],
        [system, user, said],
        [user, said, user, said, user, _message("assistant", " ")],
    )
    return {"messages": orders[_pick(question + answer, len(orders))]}


def chat_null(row: Row) -> Row:
    """Contents that are null or not there, calls of tools, thinking, weights."""
    question, answer = _question(row), _answer(row)
    call = [{"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}]
    user, said = _message("user", question), _message("assistant", answer)
    null = {"role": "assistant", "content": None, "tool_calls": call}
    orders = (
        [user, null],
        [user, null, user, said],
        [{"role": "user", "content": None}, said],
        [user, said, {"role": "user", "content": None}, said],
        [user, {"role": "assistant", "tool_calls": call}],
        [_message("system", "Be brief."), user, {**said, "reasoning_content": "Hm."}],
        [user, {**said, "weight": 0}, user, {**said, "weight": 1}],
        [user, said],
    )
    return {"messages": orders[_pick(question, len(orders))]}


def chat_parts(row: Row) -> Row:
    """Contents as lists of parts: several texts, none, and a part of another type."""
    turns = []
    for turn in chat(row)["messages"]:
        pieces = turn["content"].split(" ", 2)
        kind = _pick(turn["content"], 6)
        parts = [{"type": "text", "text": piece + " " * (_pick(piece, 3) == 0)} for piece in pieces]
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
    kind = _pick(turns[0]["value"], 8)
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
    return {"prompt": _question(row), "completion": _answer(row)}


def instruct_edges(row: Row) -> Row:
    found = alpaca_edges(row)
    return {"prompt": found["instruction"], "completion": found["output"]}


def text_edges(row: Row) -> Row:
    """Texts with edge white space and control tokens; some are empty, blank or null."""
    found = alpaca_edges(row)
    kind = _pick(found["instruction"], 12)
    whole = f"{found['instruction']}\n\n{found['output']}"
    return {"text": {0: "", 1: " ", 2: None, 3: "\n"}.get(kind, whole)}


def repeat(row: Row) -> Row:
    """A hand-written chat in which ``{}`` stands for a piece, said many times."""
    long = row["piece"] * row["times"]
    return {"messages": [{**turn, "content": turn["content"].replace("{}", long)} for turn in row["messages"]]}


def multi_turn_system(row: Row) -> Row | None:
    found = multi_turn(row)
    if found is not None and _pick(found["messages"][0]["content"], 2) and found["messages"][0]["role"] != "system":
        found["messages"].insert(0, _message("system", SYSTEMS[1]))
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
