from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity, show
from lorads_rules.words import hit, more, text_in

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class ControlTokenInContent(RowRule):
    """A message holds a string that the tokenizer turns into a real control token.

    Why it matters: control tokens say where a text or a turn begins and ends. Typed into a message, they do so in the
    wrong place: the model sees the answer end in its middle and learns to stop there, or sees a new turn begin inside
    a question. When such text comes from users it is also a way to slip instructions in. The loss stays unremarkable.

    Example: two pieces were joined with the end-of-turn token still between them.

        assistant: The first half of the answer.<|EOT|>The second half.

    How to fix: take the string out. Where the text is about the token, break it up so that it stays text, for instance
    with a space inside.

    This is an error where a beginning, an end or the opening of a turn lies inside trained text, else a warning.

    Not reported: tokens that the chat template writes; thinking, tool and image tags; fill-in-the-middle tokens; the
    marks of a text that was rendered for this model on purpose.

    Evidence: FranxYao/Long-Context-Data-Engineering#14, huggingface/transformers#47386,
    oobabooga/text-generation-webui#2878.
    """

    id = "TOK005"
    name = "control-token-in-content"
    severity = Severity.ERROR
    fix = "unsafe"
    place = "control_token"
    evidence = (
        "FranxYao/Long-Context-Data-Engineering#14",
        "huggingface/transformers#47386",
        "oobabooga/text-generation-webui#2878",
    )

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("control_token").is_not_null()

    def severity_of(self, row: Row) -> Severity:
        return self.severity if hit(row, "control_token")["code"] == "boundary" else Severity.WARNING

    def message(self, row: Row) -> str:
        found = hit(row, "control_token")
        token = "a control token" if found.get("token_id") is None else f"the control token with id {found['token_id']}"
        does = "; the model is trained to produce it there" if found["code"] == "boundary" else ""
        return f"{text_in(found)} is text in the file, but becomes {token}{does}{more(found)}"

    def hint(self, row: Row) -> str:
        text = hit(row, "control_token").get("text")
        broken = f", as in {show(text[:1] + ' ' + text[1:])}" if text else ""
        return f"take it out; where the text is about the token, put a space inside{broken}"
