"""The few tokens around a place, for reports that show what the trainer sees."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lorads.findings import Token

if TYPE_CHECKING:
    from lorads.facts.batch import Batch
    from lorads.tokenizers import Tokenizer

AROUND = 7


def excerpt(batch: Batch, tokenizer: Tokenizer, row: Mapping[str, Any], place: tuple[int, int] | None) -> list[Token]:
    """Tokens around ``place``; without one around the cut, or the last ones of the row. Empty for a row without ids."""
    if row["row"] is None or row["tokens"] is None:
        return []
    index = batch.index_of(row["row"])
    if index is None:
        return []
    labels = batch.labels
    count = int(labels.ids.starts[index + 1] - labels.ids.starts[index])
    if place is not None:
        begin, end = place[0] - AROUND, place[1] + AROUND
    elif row["cut"] and row["max_length"] is not None:
        begin, end = row["max_length"] - AROUND, row["max_length"] + AROUND
    else:
        begin, end = count - 2 * AROUND, count
    return tokens(batch, tokenizer, index, max(begin, 0), min(end, count), place)


def tokens(
    batch: Batch, tokenizer: Tokenizer, index: int, begin: int, end: int, highlight: tuple[int, int] | None = None
) -> list[Token]:
    """Tokens ``begin`` to ``end`` of the ``index``-th conversation of a batch, each with its fate."""
    labels = batch.labels
    first = int(labels.ids.starts[index])
    special = tokenizer.special.control
    out = []
    for t in range(begin, end):
        token_id = int(labels.ids.flat[first + t])
        trained = bool(labels.trained[first + t])
        role = "special" if token_id in special else "trained" if trained else "masked"
        if not labels.kept[first + t]:
            role = "cut"
        marked = highlight is not None and highlight[0] <= t < highlight[1]
        text = tokenizer.token_text(token_id) if token_id < tokenizer.vocab_size else f"‹no token {token_id}›"
        out.append(Token(text, token_id, role, trained, marked))
    return out
