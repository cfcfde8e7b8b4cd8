from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity
from lorads_rules.words import number, shorten, too_long

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class AnswerCutAway(RowRule):
    """The row is so long that truncation takes the whole answer away.

    Why it matters: a trainer keeps a fixed number of tokens of each row and cuts off the rest. If the question alone
    fills that length, nothing of the answer is left. Where only answers count, the row then teaches nothing: some
    trainers drop it without a word, others keep it, and a step made of such rows alone logs a loss of 0.0 once. Where
    everything counts, the model learns the question and never sees it answered.

    Example: the maximum length is 1,024.

        question: 1,300 tokens        answer: 90 tokens        kept: the first 1,024, all of the question

    How to fix: shorten what stands before the answer, or train with a larger maximum length if model and memory allow
    it. A row that can't be shortened is better taken out.

    Not reported: rows of plain text, where there is no answer; answers of which a part is left (LEN002).

    Evidence: huggingface/trl#6668, huggingface/trl#3927, unslothai/unsloth#3019, NVIDIA-NeMo/Speech#8025.
    """

    id = "LEN001"
    name = "answer-cut-away"
    severity = Severity.ERROR
    fix = "safe"
    evidence = (
        "huggingface/trl#6668",
        "huggingface/trl#3927",
        "unslothai/unsloth#3019",
        "NVIDIA-NeMo/Speech#8025",
    )

    def when(self, facts: Facts) -> pl.Expr:
        return facts.cut & (facts.answer_tokens > 0) & (facts.answer_tokens_fed == 0)

    def message(self, row: Row) -> str:
        answer = row["answer_tokens"]
        left = "the answer's only token is lost"
        if answer != 1:
            left = f"none of the answer's {number(answer)} tokens is left"
        dropped = "; the trainer then drops the row" if row.get("dropped") else ""
        return f"{too_long(row)}: {left}{dropped}"

    def hint(self, row: Row) -> str:
        return shorten(row)
