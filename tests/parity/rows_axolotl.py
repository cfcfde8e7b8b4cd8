"""Training rows as axolotl takes them. See ``rows``."""

from __future__ import annotations

import json
from collections.abc import Callable

from parity import rows
from parity.rows import Row, alpaca, answer_of, choose, question_of, turns_of

_ODD_INPUTS = ("", "", " ", "\n", "extra {x} words", "</s>")


def alpaca_edges(row: Row) -> Row:
    """Blank and absent inputs, odd answers, control tokens at every edge, null columns."""
    question, answer = str(row["instruction"]), answer_of(row)
    odd: str | None = rows.ODD_ANSWERS[choose(question, len(rows.ODD_ANSWERS))](answer)
    if choose(answer + "null", 12) == 0:
        odd = None
    given: str | None = _ODD_INPUTS[choose(answer, len(_ODD_INPUTS))] or row.get("input")
    begin = rows.BEGINNINGS[choose(question + "b", len(rows.BEGINNINGS))]
    if odd and choose(question + answer, 3) == 0:
        odd = begin + odd + rows.ENDINGS[choose(question + "e", len(rows.ENDINGS))]
    return {"instruction": begin + question, "input": given, "output": odd}


def alpaca_system(row: Row) -> Row:
    """A column with a system text: empty or null in some rows."""
    choices = (*rows.SYSTEMS, "", None)
    return {**alpaca(row), "system": choices[choose(question_of(row), len(choices))]}


def system_column(row: Row) -> Row | None:
    """A system text beside the messages; in some rows the messages begin with one of their own."""
    turns = [turn for turn in turns_of(row) if turn["role"] != "system"]
    if not any(turn["role"] == "assistant" for turn in turns):
        return None
    if choose(turns[0]["content"], 3) == 0:
        turns = [{"role": "system", "content": rows.SYSTEMS[0]}, *turns]
    return {"messages": turns, "system": (*rows.SYSTEMS, "")[choose(turns[-1]["content"], 4)]}


def flags(row: Row) -> Row | None:
    """Every turn of a conversation says whether it is trained; some say nothing."""
    turns = turns_of(row)
    for i, turn in enumerate(turns):
        turn["train"] = (True, False, None)[choose(turn["content"] + str(i), 3)]
    return {"messages": turns} if turns else None


def details(row: Row) -> Row:
    """Some characters of the answer are trained: borders fall inside tokens, behind the end, before the beginning."""
    answer = answer_of(row)
    size = len(answer)
    cut = choose(answer, max(size, 1))
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
    turns[1]["train_detail"] = choices[choose(question_of(row), len(choices))]
    if choose(question_of(row), 7) == 0:
        turns[1]["content"] = " " + answer + "\n"
    return {"messages": turns}


def parts(row: Row) -> Row:
    """Contents in parts, some of them not to be trained."""
    question, answer = question_of(row), answer_of(row)
    cut = choose(question, len(answer) + 1)
    pieces = [piece for piece in (answer[:cut], answer[cut:], "") if piece or choose(answer, 2)]
    made: list[Row] = [{"type": "text", "text": piece, "train": bool(choose(piece, 3))} for piece in pieces]
    if choose(answer, 4) == 0:
        for part in made:
            part["train"] = None
    content = [{"type": "text", "text": question, "train": None}]
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": made}]}


def reasoning(row: Row) -> Row | None:
    """Answers with reasoning, in every assistant turn or in some."""
    turns = turns_of(row) if "instruction" not in row else rows.messages_system(row)["messages"]
    for turn in turns:
        if turn["role"] == "assistant":
            choice = choose(turn["content"], 4)
            thought = turn["content"].split(". ")[0]
            turn["reasoning_content"] = (thought, f"\n{thought}\n\n", "", None)[choice]
    return {"messages": turns} if any(turn["role"] == "assistant" for turn in turns) else None


def thinking_tags(row: Row) -> Row:
    """Reasoning inside the content, in one pair of tags or another, closed or not."""
    question, answer = question_of(row), answer_of(row)
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
    return {"messages": [rows.message("user", question), rows.message("assistant", forms[choose(question, 7)])]}


def tools_text(row: Row) -> Row:
    """Tools and arguments as JSON strings, which survive the loader; a content beside some calls."""
    turns = list(rows.tool_turns(row, lambda found: json.dumps(found, ensure_ascii=False)))
    for turn in turns:
        if turn.get("tool_calls") and choose(str(turn), 3) == 0:
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
