from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity, escape
from lorads_rules.words import hit, place

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts

WHAT = {
    "missing": "the answer is missing",
    "null": "the answer is null",
    "empty": "the answer is empty",
    "blank": "the answer is nothing but white space",
    "not-text": "the answer is not a text",
}


class EmptyAnswer(RowRule):
    """The answer that the row should teach is missing, empty, blank or not a text.

    Why it matters: there is nothing to learn, or something wrong. Where the end-of-turn token is trained, the model
    learns to say nothing and stop. Where only the answer counts, the row adds nothing to the loss, and some trainers
    drop it or stop with an error. If a whole optimizer step is made of such rows, its loss is 0 divided by 0: the log
    shows a single 0.0 with grad_norm 0.0, and the next step is normal again.

    Example: the answer was lost on the way into the file.

        {"messages": [{"role": "user", "content": "Name a prime."}, {"role": "assistant", "content": ""}]}

    How to fix: write the answer, or take the row out. An answer that is an object or a list has to be written as the
    text that the model should produce.

    Not reported: a message with a tool call and no content; an answer that is only thinking; a message that the file
    itself switches off (weight 0).

    Evidence: tatsu-lab/stanford_alpaca#265 (28 empty answers in the Alpaca data), axolotl-ai-cloud/axolotl#290,
    mosaicml/llm-foundry#445, hiyouga/LlamaFactory#4249.
    """

    id = "FMT004"
    name = "empty-answer"
    severity = Severity.ERROR
    fix = "safe"
    place = "answer_problem"
    evidence = (
        "tatsu-lab/stanford_alpaca#265",
        "axolotl-ai-cloud/axolotl#290",
        "mosaicml/llm-foundry#445",
        "hiyouga/LlamaFactory#4249",
    )

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("answer_problem").is_not_null()

    def message(self, row: Row) -> str:
        found = hit(row, "answer_problem")
        what = escape(found.get("detail") or WHAT.get(found["code"], "there is no answer to learn"))
        return f"{what} ({place(found)})" if found.get("field") else what

    def hint(self, row: Row) -> str:
        return escape(hit(row, "answer_problem").get("expected") or "write the answer, or take the row out")
