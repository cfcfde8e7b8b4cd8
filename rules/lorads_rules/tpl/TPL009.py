from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity
from lorads_rules.words import hit, said

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts

WHAT = {
    "raised": "the chat template refuses this row",
    "error": "the chat template breaks on this row",
    "limit": "the chat template does not come to an end on this row, or writes far too much",
    "no-template": "the rows are messages, but there is no chat template to make text of them",
    "stops": "the trainer stops at this row",
    "not-reproduced": "lorads can't say what the trainer makes of this row",
}
HINTS = {
    "raised": "bring the row into the form that the template asks for, or take it out",
    "error": "look at what this row has that others have not (null, lists, tool calls), mend it or take it out",
    "limit": "don't use this template: it is broken or hostile",
    "no-template": "name a chat template (--chat-template), or use a tokenizer that has one",
    "stops": "bring the row into the form that the trainer asks for, or take it out",
    "not-reproduced": "only its text was judged: look at the row yourself, or write it as the others are written",
}


class RenderFails(RowRule):
    """The chat template gives no text for this row, or the trainer stops at it.

    Why it matters: a chat template is a small program that turns messages into text. If it stops with an error, so does
    the preparation of the data, usually after minutes and at one row that the error does not name. Nothing is trained.

    Example: this template adds the content to a text, and the content is null.

        {"role": "assistant", "content": null}        unsupported operand type(s) for +

    How to fix: the template's own words are in the message. Give the row what the template asks for, or take it out. If
    every row fails, the template, or the trainer, does not belong to this model or this kind of data.

    Not reported: rows that the trainer drops and goes on (LAB011), rows whose roles are the cause (FMT003, TPL002) or
    whose answer is null (FMT004).

    Evidence: huggingface/alignment-handbook#93.
    """

    id = "TPL009"
    name = "render-fails"
    severity = Severity.ERROR
    fix = "safe"
    place = "render_problem"
    evidence = ("huggingface/alignment-handbook#93",)

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("render_problem").is_not_null()

    def message(self, row: Row) -> str:
        found = hit(row, "render_problem")
        return WHAT.get(found["code"], "the chat template gives no text for this row") + said(found)

    def hint(self, row: Row) -> str:
        return HINTS.get(hit(row, "render_problem")["code"], HINTS["raised"])
