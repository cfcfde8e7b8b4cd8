from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity
from lorads_rules.words import number

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class NoTrainedToken(RowRule):
    """No token of the row is trained: the trainer reads the row and learns nothing from it.

    Why it matters: for each token a trainer keeps a label, the token that the model should have predicted there, or
    -100 for "don't count this one". Prompts are often masked so. If every label is -100 the row adds nothing to the
    loss. One such row among others goes unseen. If all rows of an optimizer step are like it, the loss of that step is
    0 divided by 0: the log shows 0.0 with grad_norm 0.0, and the next step is normal again. Some loss kernels turn it
    into NaN gradients instead, and those destroy the weights for good.

    Example: the mask covers everything.

        {"input_ids": [100, 101, 102], "labels": [-100, -100, -100]}

    How to fix: find out why nothing is trained. Usual causes: the weight of every answer is 0, the mask was made for
    another template, or the only label is the first one, which never counts since no token stands before it. If the row
    can't be mended, take it out.

    Not reported: rows that the trainer drops (LAB011), whose answer is empty (FMT004) or is cut away (LEN001).

    Evidence: huggingface/trl#6668, pytorch/pytorch#70348, lm-sys/FastChat#3266, NVIDIA-NeMo/Automodel#3797,
    nvidia-cosmos/cosmos-rl#155.
    """

    id = "LAB001"
    name = "no-trained-token"
    severity = Severity.ERROR
    fix = "safe"
    evidence = (
        "huggingface/trl#6668",
        "pytorch/pytorch#70348",
        "lm-sys/FastChat#3266",
        "NVIDIA-NeMo/Automodel#3797",
        "nvidia-cosmos/cosmos-rl#155",
    )

    def when(self, facts: Facts) -> pl.Expr:
        return (facts.label_tokens == 0) & facts.dropped.is_null()

    def message(self, row: Row) -> str:
        tokens = row.get("tokens") or 0
        which = f"none of the row's {number(tokens)} tokens" if tokens > 1 else "no token of the row"
        return f"{which} is trained: {self._why(row)}"

    def hint(self, row: Row) -> str:
        if row.get("kind") == "tokenized":
            return "make the labels again (the first one never counts: no token stands before it), or take the row out"
        return "give at least one answer a weight other than 0, or take the row out"

    @staticmethod
    def _why(row: Row) -> str:
        if row.get("kind") == "tokenized":
            return "the labels in the file are -100 wherever they would count"
        if row.get("answers") == 0:
            return "it has no answer"
        return "what the trainer counts as an answer is empty, switched off or masked"
