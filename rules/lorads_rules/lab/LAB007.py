from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class TerminatorNotTrained(RowRule):
    """The answer ends, but the model is not taught to stop there.

    Why it matters: a model stops because it has learnt to produce a special token, the end of a turn or of a text. If
    the last trained token of an answer is an ordinary one, the model learns the answer and never the stop. The loss
    looks perfectly healthy. In use the answers run on: they repeat themselves or play the user's part.

    Example: the answer's last trained token is the full stop; the token behind it is not trained.

        "It"   " is"   " done"   "."   "<|EOT|>"
        yes    yes     yes       yes   no

    How to fix: use a chat template that writes the model's end-of-turn token after each answer and a trainer
    configuration that trains it. In ids that you made yourself, add the token and give it a label.

    This is a warning for single rows, and an error if no row at all teaches the stop.

    Not reported: answers whose end was there and is cut off by the maximum length (LEN002); any of several
    terminators will do (end of sequence, end of turn, what the template writes).

    Evidence: huggingface/trl#1623, huggingface/trl#734, axolotl-ai-cloud/axolotl#3754, hiyouga/LlamaFactory#5072,
    meta-pytorch/torchtune#949 (why any of several terminators will do).
    """

    id = "LAB007"
    name = "terminator-not-trained"
    severity = Severity.WARNING
    every_row = Severity.ERROR
    evidence = (
        "huggingface/trl#1623",
        "huggingface/trl#734",
        "axolotl-ai-cloud/axolotl#3754",
        "hiyouga/LlamaFactory#5072",
        "meta-pytorch/torchtune#949",
    )

    def when(self, facts: Facts) -> pl.Expr:
        return ~facts.terminated & self.applies(facts)

    def applies(self, facts: Facts) -> pl.Expr:
        return facts.terminated.is_not_null() & (facts.label_tokens > 0) & facts.dropped.is_null()

    def message(self, row: Row) -> str:
        last = row.get("last_answer_token")
        token = "an ordinary token" if last is None else f"the ordinary token with id {last}"
        return f"the last answer ends with {token}: no end-of-turn or end-of-sequence token is trained after it"

    def hint(self, row: Row) -> str:
        if row.get("kind") == "tokenized":
            return "put the end-of-sequence token behind the answer and give it a label"
        return "use a chat template that ends each answer with the model's end-of-turn token, and train that token"
