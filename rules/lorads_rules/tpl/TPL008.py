from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity, escape
from lorads_rules.words import hit, more, ordinary_tokens, text_in

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class ForeignTemplate(RowRule):
    """The text holds the turn markers of another model family.

    Why it matters: each family marks turns in its own way. Markers of another one are no special tokens here but
    ordinary text, a handful of pieces each. The model sees turns inside a turn, is trained to write foreign markers,
    and may print them in use. Mostly the data was rendered for one model and is now trained with another, so that two
    templates stand around the same text. The loss falls as usual: such markers are easy to learn.

    Example: ChatML, as used by Qwen, in a message for DeepSeek-Coder.

        {"role": "user", "content": "<|im_start|>user\\nName a prime.<|im_end|>"}

    How to fix: go back to the data before it was rendered, or take the markers out and make proper messages of the
    turns, and let the trainer apply this model's own template.

    This is an error where a turn begins or ends or whole turns are in the text, and a warning elsewhere.

    Not reported: texts and code about templates, which mention a marker in a sentence or as a string; markers that are
    this tokenizer's own tokens (TOK005) or stand in its own template.

    Evidence: deepseek-ai/DeepSeek-Coder#147, unslothai/unsloth#3198.
    """

    id = "TPL008"
    name = "foreign-template"
    severity = Severity.ERROR
    place = "foreign_markup"
    evidence = ("deepseek-ai/DeepSeek-Coder#147", "unslothai/unsloth#3198")

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("foreign_markup").is_not_null()

    def severity_of(self, row: Row) -> Severity:
        return self.severity if hit(row, "foreign_markup")["code"] == "boundary" else Severity.WARNING

    def message(self, row: Row) -> str:
        found = hit(row, "foreign_markup")
        known = found.get("expected")
        family = "another model family" + (f" ({escape(known)})" if known else "")
        here = f"for this tokenizer it is {ordinary_tokens(found)}"
        return f"{text_in(found)} is a turn marker of {family}; {here}{more(found)}"

    def hint(self, row: Row) -> str:
        own = hit(row, "foreign_markup").get("detail")
        tail = f" ({escape(own)})" if own else ""
        return f"store the conversation as messages, without markers, and let the model's template write them{tail}"
