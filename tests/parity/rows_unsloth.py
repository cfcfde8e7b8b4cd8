"""Rows for the recordings of Unsloth: what its users make of theirs before they train."""

from __future__ import annotations

from collections.abc import Callable

from parity import rows
from parity.rows import BEGINNINGS, ENDINGS, ODD_ANSWERS, Row, choose, question_of, turns_of

PREAMBLE = "Below is a task. Write an answer.\n\n"
QUESTION, ANSWER = "### Instruction:\n", "### Response:\n"
ODD_BREAKS = ("\n\n", "\n", "", " ", "\n\n\n", "</s>\n\n", "<|im_end|>\n", "<｜end▁of▁sentence｜>")
LEADS = ("", "", "", "\n", " ", "\\", "{", "(", "<", "1", "\u3000", "é")


def _odd(choices: tuple[str, ...], *about: str) -> str:
    return choices[choose("|".join(about), len(choices))]


def alpaca_text(row: Row) -> Row:
    """An Alpaca prompt as Unsloth's notebooks write it, with our own preamble and odd characters beside the markers."""
    question, answer = question_of(row), str(row["output"])
    odd = ODD_ANSWERS[choose(question, len(ODD_ANSWERS))](answer)
    shown = f"{PREAMBLE}{QUESTION}{question}{_odd(ODD_BREAKS, answer)}{ANSWER}{_odd(LEADS, question)}{odd}"
    return {"text": _odd(BEGINNINGS, answer, "b") + shown + _odd(ENDINGS, question, "e")}


def dialogue_text(row: Row) -> Row | None:
    """Many turns as plain text: an answer ends where the next question, or another answer, begins."""
    turns = turns_of(row)
    names = {"user": QUESTION, "assistant": ANSWER, "system": "### System:\n"}
    parts = [names[turn["role"]] + turn["content"] + _odd(ODD_BREAKS, turn["content"]) for turn in turns]
    return {"text": "".join(parts)} if parts else None


def typed_chatml(row: Row) -> Row:
    """ChatML that somebody typed into a text column, with turns in unusual orders."""
    question, answer = question_of(row), str(row["output"])

    def turn(role: str, text: str, end: str = "<|im_end|>\n") -> str:
        return f"<|im_start|>{role}\n{text}{end}"

    orders = (
        turn("user", question) + turn("assistant", answer),
        turn("user", question) + turn("assistant", answer, ""),
        turn("system", "Be brief.") + turn("user", question) + turn("assistant", ""),
        turn("user", question) + turn("assistant", answer) + turn("assistant", "And more."),
        turn("user", question) + turn("assistant", answer, "\n") + turn("tool", "42") + turn("user", "Go on."),
        turn("assistant", answer) + turn("user", question, ""),
        turn("user", question) + "<|im_start|>assistant\n",
        turn("user", question) + "<|im_start|>assistant",
        turn("user", question)
        + turn("assistant", answer, "<|endoftext|>")
        + turn("user", "?")
        + turn("assistant", "!"),
        turn("user", question + "<|im_start|>assistant\n") + turn("assistant", answer + "<|im_start|>user\n"),
    )
    return {"text": orders[choose(question + answer, len(orders))]}


def conversations(row: Row) -> Row | None:
    """Messages in a column that Unsloth does not look for."""
    found = rows.multi_turn(row) if "instruction" not in row else rows.messages_edges(row)
    if found is None:
        return None
    return {"conversations": [{"role": m["role"], "content": m["content"]} for m in found["messages"]]}


def alternating(row: Row) -> Row | None:
    """A question and an answer by turns, for templates that take nothing else."""
    turns: list[Row] = []
    for turn in turns_of(row):
        if turn["role"] == ("assistant" if len(turns) % 2 else "user"):
            turns.append(turn)
    turns = turns[: len(turns) // 2 * 2]
    return {"messages": turns} if turns else None


ASKED, ANSWERED, ENDED = [151644, 872, 198], [151644, 77091, 198], [151645, 198]
"""Openers of a user's and an assistant's turn, and the end of one, in Qwen's vocabulary."""


def tokenized_ids_answers(row: Row) -> Row:
    """Bytes as ids, between Qwen's markers."""
    question, answer = ([5 + byte for byte in text.encode()] for text in (question_of(row), str(row["output"])))
    return {"input_ids": [*ASKED, *question, *ENDED, *ANSWERED, *answer, *ENDED]}


def tokenized_answers(row: Row) -> Row:
    """The same with labels of their own: some masked, some rows masked whole."""
    ids = tokenized_ids_answers(row)["input_ids"]
    labels = [-100 if i % 5 == 0 else token for i, token in enumerate(ids)]
    whole = choose(str(row["output"]), 7) == 0
    return {"input_ids": ids, "labels": [-100] * len(ids) if whole else labels}


def tokenized_short(row: Row) -> Row:
    """A few ids with labels of their own."""
    return {name: values[:40] for name, values in rows.tokenized_labels(row).items()}


TRANSFORMATIONS: dict[str, Callable[[Row], Row | None]] = {
    "unsloth/" + function.__name__.replace("_", "-"): function
    for function in (
        alpaca_text,
        dialogue_text,
        typed_chatml,
        conversations,
        alternating,
        tokenized_ids_answers,
        tokenized_answers,
        tokenized_short,
    )
}
