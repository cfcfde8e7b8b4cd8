from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity
from lorads_rules.words import count_of

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts

STRINGS = ("text", "prompt-completion")


class DuplicateBos(RowRule):
    """The row has more than one begin-of-sequence token (BOS).

    Why it matters: the model has met this token once, at the very start of a text. Written twice, it is an input that
    training never showed and that will not be there in use, so quality drops a little for no visible reason. It
    happens when a text already begins with the token and the tokenizer puts another one in front, typically because
    the chat template was applied first and its result was tokenized as if it were plain text.

    Example: the text was rendered before, and the tokenizer adds its own `<s>`.

        {"text": "<s>[INST] Hi [/INST] Hello!"}        ids 1, 1, 733, …

    How to fix: take the token out of the text, or store messages instead of a rendered text and let the trainer
    render them. If you tokenize yourself, call the tokenizer with `add_special_tokens=False` on rendered text.

    Not reported: a token that the chat template itself writes before each turn; ids that were made by somebody else
    and hold several packed documents.

    Evidence: OpenRLHF/OpenRLHF#393, huggingface/trl#1400, ml-explore/mlx-examples#1095, unslothai/unsloth#2648.
    """

    id = "TOK007"
    name = "duplicate-bos"
    severity = Severity.WARNING
    fix = "safe"
    evidence = (
        "OpenRLHF/OpenRLHF#393",
        "huggingface/trl#1400",
        "ml-explore/mlx-examples#1095",
        "unslothai/unsloth#2648",
    )

    def when(self, facts: Facts) -> pl.Expr:
        # In messages a BOS in the middle is either the template's (the model wants it) or typed in (TOK005).
        return (facts.bos_count > 1) | ((facts.bos_inside > 0) & facts.kind.is_in(STRINGS))

    def message(self, row: Row) -> str:
        start, inside = row.get("bos_count") or 0, row.get("bos_inside") or 0
        if start > 1:
            return f"the row starts with {count_of(start, 'begin-of-sequence token')} instead of one"
        return f"the row has {count_of(inside, 'begin-of-sequence token')} in its middle, where nothing begins"

    def hint(self, row: Row) -> str:
        if row.get("kind") == "tokenized":
            return "make the ids again without adding special tokens to a text that has them"
        if row.get("kind") in STRINGS:
            return "take the token out of the text: the tokenizer puts one in front by itself"
        return "take the token out of the first message, or out of the chat template if it writes two"
