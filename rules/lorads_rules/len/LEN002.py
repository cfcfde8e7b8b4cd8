from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity
from lorads_rules.words import number, shorten, too_long

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class AnswerCut(RowRule):
    """Truncation takes away a part of the answer, or the token that ends it.

    Why it matters: the model is shown an answer that breaks off. From one such row it learns little harm; from many it
    learns to write long and never to stop, because the end is what is cut off every time. In a conversation of several
    turns the later answers may be gone altogether. The loss looks healthy.

    Example: the maximum length is 1,024.

        question: 900 tokens        answer: 200 tokens and an end-of-turn token        kept: 124 of the answer, no end

    How to fix: shorten what stands before the answer, split long conversations into rows, or train with a larger
    maximum length. A few such rows among many can stay.

    Not reported: plain text for language modelling, which may be cut anywhere; rows of which nothing of the answer is
    left (LEN001).

    Evidence: unslothai/unsloth#3019.
    """

    id = "LEN002"
    name = "answer-cut"
    severity = Severity.WARNING
    fix = "unsafe"
    evidence = ("unslothai/unsloth#3019",)

    def when(self, facts: Facts) -> pl.Expr:
        lost = facts.answer_tokens_fed < facts.answer_tokens
        end_lost = (facts.terminated & ~facts.terminator_fed).fill_null(value=False)
        # Ids of which every one is trained are plain text, made into ids by somebody else.
        plain = (facts.kind == "text") | ((facts.kind == "tokenized") & (facts.label_tokens >= facts.tokens - 1))
        return facts.cut & (lost | end_lost) & ~plain

    def message(self, row: Row) -> str:
        answer, left = row.get("answer_tokens") or 0, row.get("answer_tokens_fed") or 0
        if left >= answer:
            return f"{too_long(row)}: the answer is whole, but the token that ends it is cut off"
        whose = "answers'" if (row.get("answers") or 1) > 1 else "answer's"
        share = left * 100 // answer
        return f"{too_long(row)}: {number(left)} of the {whose} {number(answer)} tokens are left ({share} %)"

    def hint(self, row: Row) -> str:
        if (row.get("answers") or 1) > 1:
            return f"make several rows of the conversation, or {shorten(row)}"
        return shorten(row)
