from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity
from lorads_rules.words import number

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class TokenIdOutOfRange(RowRule):
    """The row holds a token id for which the model has no row in its embedding.

    Why it matters: the embedding is a table with one row of numbers per token id. Looking up a row that is not there
    ends the run on a GPU with "device-side assert triggered" (or "illegal memory access"), usually far from the line
    that caused it; on other hardware it reads whatever lies there. It happens when tokens were added to the tokenizer
    and the model was not resized, or when tokenizer and model belong to different releases.

    Example: a tokenizer with one added token, a model without.

        tokenizer: ids 0 to 32000        model: 32,000 rows, ids 0 to 31999

    How to fix: use the tokenizer that came with the model, or resize the model's embedding after adding tokens
    (`model.resize_token_embeddings(len(tokenizer))`) and train the new rows.

    Not reported: a tokenizer that could produce larger ids when no row of the data holds one.

    Evidence: huggingface/transformers#1848, huggingface/transformers#11008, InternRobotics/PointLLM#46,
    shibing624/MedicalGPT#275, meta-llama/llama-cookbook#189.
    """

    id = "TOK002"
    name = "token-id-out-of-range"
    severity = Severity.ERROR
    evidence = (
        "huggingface/transformers#1848",
        "huggingface/transformers#11008",
        "InternRobotics/PointLLM#46",
        "shibing624/MedicalGPT#275",
        "meta-llama/llama-cookbook#189",
    )

    def when(self, facts: Facts) -> pl.Expr:
        return facts.max_token_id >= facts.embedding_rows

    def message(self, row: Row) -> str:
        rows = row["embedding_rows"]
        has = f"{number(rows)} rows, ids 0 to {rows - 1}"
        return f"token id {row['max_token_id']} is outside the model's embedding ({has})"

    def hint(self, row: Row) -> str:
        if row.get("kind") == "tokenized":
            return "make the ids again with the tokenizer that belongs to this model"
        return "use the tokenizer that came with the model, or resize the model's embedding and train the new rows"
