"""Training rows as axolotl takes them. See ``rows``."""

from __future__ import annotations

import json
from collections.abc import Callable

from parity import rows
from parity.rows import Row, _answer, _pick, _question, _turns

_ODD_INPUTS = ("", "", " ", "\n", "extra {x} words", "</s>")


def alpaca(row: Row) -> Row:
    return {"instruction": row["instruction"], "input": row.get("input") or "", "output": row["output"]}


def alpaca_edges(row: Row) -> Row:
    """Blank and absent inputs, odd answers, control tokens at every edge, null columns."""
    question, answer = str(row["instruction"]), _answer(row)
    odd: str | None = rows.ODD_ANSWERS[_pick(question, len(rows.ODD_ANSWERS))](answer)
    if _pick(answer + "null", 12) == 0:
        odd = None
    given: str | None = _ODD_INPUTS[_pick(answer, len(_ODD_INPUTS))] or row.get("input")
    begin = rows.BEGINNINGS[_pick(question + "b", len(rows.BEGINNINGS))]
    if odd and _pick(question + answer, 3) == 0:
        odd = begin + odd + rows.ENDINGS[_pick(question + "e", len(rows.ENDINGS))]
    return {"instruction": begin + question, "input": given, "output": odd}


def alpaca_system(row: Row) -> Row:
    """A column with a system text: empty or null in some rows."""
    choices = (*rows.SYSTEMS, "", None)
    return {**alpaca(row), "system": choices[_pick(_question(row), len(choices))]}


def system_column(row: Row) -> Row | None:
    """A system text beside the messages; in some rows the messages begin with one of their own."""
    turns = [turn for turn in _turns(row) if turn["role"] != "system"]
    if not any(turn["role"] == "assistant" for turn in turns):
        return None
    if _pick(turns[0]["content"], 3) == 0:
        turns = [{"role": "system", "content": rows.SYSTEMS[0]}, *turns]
    return {"messages": turns, "system": (*rows.SYSTEMS, "")[_pick(turns[-1]["content"], 4)]}


def flags(row: Row) -> Row | None:
    """Every turn of a conversation says whether it is trained; some say nothing."""
    turns = _turns(row)
    for i, turn in enumerate(turns):
        turn["train"] = (True, False, None)[_pick(turn["content"] + str(i), 3)]
    return {"messages": turns} if turns else None


def details(row: Row) -> Row:
    """Some characters of the answer are trained: borders fall inside tokens, behind the end, before the beginning."""
    answer = _answer(row)
    size = len(answer)
    cut = _pick(answer, max(size, 1))
    choices: tuple[list[Row], ...] = (
        [{"begin_offset": 0, "end_offset": cut, "train": True}],
        [{"begin_offset": cut, "end_offset": size - 1, "train": True}],
        [
            {"begin_offset": 0, "end_offset": cut, "train": False},
            {"begin_offset": cut + 1, "end_offset": size - 1, "train": True},
        ],
        [
            {"begin_offset": 3, "end_offset": 9, "train": True},
            {"begin_offset": 20, "end_offset": size + 5, "train": True},
        ],
        [{"begin_offset": 0, "end_offset": size - 1, "train": False}],
    )
    turns = rows.messages(row)["messages"]
    turns[1]["train_detail"] = choices[_pick(_question(row), len(choices))]
    if _pick(_question(row), 7) == 0:
        turns[1]["content"] = " " + answer + "\n"
    return {"messages": turns}


def parts(row: Row) -> Row:
    """Contents in parts, some of them not to be trained."""
    question, answer = _question(row), _answer(row)
    cut = _pick(question, len(answer) + 1)
    pieces = [piece for piece in (answer[:cut], answer[cut:], "") if piece or _pick(answer, 2)]
    made: list[Row] = [{"type": "text", "text": piece, "train": bool(_pick(piece, 3))} for piece in pieces]
    if _pick(answer, 4) == 0:
        for part in made:
            part["train"] = None
    content = [{"type": "text", "text": question, "train": None}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": made}]}


def reasoning(row: Row) -> Row | None:
    """Answers with reasoning, in every assistant turn or in some."""
    turns = _turns(row) if "instruction" not in row else rows.messages_system(row)["messages"]
    for turn in turns:
        if turn["role"] == "assistant":
            choice = _pick(turn["content"], 4)
            thought = turn["content"].split(". ")[0]
            turn["reasoning_content"] = (thought, f"\n{thought}\n\n", "", None)[choice]
    return {"messages": turns} if any(turn["role"] == "assistant" for turn in turns) else None


def thinking_tags(row: Row) -> Row:
    """Reasoning inside the content, in one pair of tags or another, closed or not."""
    question, answer = _question(row), _answer(row)
    thought = answer.split(". ")[0]
    forms = (
        f"<think>\n{thought}\n</think>\n\n{answer}",
        f"<think>{thought}</think>{answer}",
        f"<reasoning> {thought} </reasoning>\n{answer}\n",
        f"<|begin_of_thought|>{thought}<|end_of_thought|>\n<|begin_of_solution|>\n{answer}\n<|end_of_solution|>",
        f"<think>\n{thought}",
        f"{thought} <think></think>",
        answer,
    )
    return {"messages": [rows._message("user", question), rows._message("assistant", forms[_pick(question, 7)])]}


def tools_text(row: Row) -> Row:
    """Tools and arguments as JSON strings, which survive the loader; a content beside some calls."""
    turns = list(rows._tool_turns(row, lambda found: json.dumps(found, ensure_ascii=False)))
    for turn in turns:
        if turn.get("tool_calls") and _pick(str(turn), 3) == 0:
            turn["content"] = "One moment."
    return {"messages": turns, "tools": row["tools"]}


def ids(row: Row) -> Row:
    return rows.tokenized_labels(row)


TRANSFORMATIONS: dict[str, Callable[[Row], Row | None]] = {
    f"axolotl/{function.__name__.replace('_', '-')}": function
    for function in (
        alpaca,
        alpaca_edges,
        alpaca_system,
        system_column,
        flags,
        details,
        parts,
        reasoning,
        thinking_tags,
        tools_text,
        ids,
    )
}
