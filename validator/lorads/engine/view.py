"""One row as the trainer sees it."""

from __future__ import annotations

from dataclasses import replace

from lorads.engine.excerpts import tokens
from lorads.engine.feed import Fed, label_files
from lorads.engine.settings import Settings
from lorads.errors import UsageError
from lorads.findings import RowView, Token
from lorads.trainers.base import place_of


def find_row(
    path: str, settings: Settings, *, line: int | None = None, row: int | None = None, explain: bool = False
) -> RowView:
    """The row at a 1-based line or with a 0-based number; the first one when neither is given. ``explain`` gives each
    token its place and the reason for its fate. Raises ``UsageError`` when there is no such row, or nothing could be
    made of it."""
    seen = 0
    for fed in label_files([path], settings):
        batch = fed.batch
        for problem in batch.records.problems:
            if problem.index is None and problem.line is not None and fed.first_line + problem.line == line:
                raise UsageError(f"{fed.path}:{line}: {problem.message}", problem.hint)
        for position in range(len(batch.records.values)):
            number, at = fed.first_row + position, fed.line(position)
            seen = number + 1
            wanted = at == line if line is not None else number == (row or 0)
            if not wanted:
                continue
            where = f"{fed.path}:{at}" if at is not None else f"{fed.path} row {number}"
            if position in batch.misfits:
                problem_ = batch.misfits[position].problem
                raise UsageError(f"{where}: {problem_.message}", problem_.hint)
            index = batch.index_of(position)
            assert index is not None
            failure = batch.labels.failures.get(index)
            if failure is not None:
                raise UsageError(f"{where}: the trainer gets nothing from this row: {failure.message}", "mend the row")
            count = int(batch.labels.ids.starts[index + 1] - batch.labels.ids.starts[index])
            shown = tokens(batch, fed.chain.labeller.tokenizer, index, 0, count)
            return RowView(
                fed.path,
                number,
                at,
                explained(fed, index, shown) if explain else shown,
                batch.labels.dropped.get(index),
                fed.chain.options.max_length,
                fed.chain.tokenizer.name,
                f"{fed.chain.trainer.name} {fed.chain.trainer.version}",
                list(fed.chain.labeller.notes),
            )
    wanted_place = f"line {line} holds no row" if line is not None else f"there is no row {row or 0}"
    raise UsageError(f"{path}: {wanted_place} (it has {seen:,} rows, numbered from 0)", "give another LINE or --row")


def explained(fed: Fed, index: int, tokens: list[Token]) -> list[Token]:
    """The tokens of the ``index``-th conversation of a batch, each with its place and the reason for its fate."""
    batch, chain = fed.batch, fed.chain
    limit = chain.options.max_length
    out = []
    for t, token in enumerate(tokens):
        place = place_of(batch.labels, batch.conversations[index], index, t, chain.labeller.tokenizer.special)
        if token.role == "cut":
            reason = "it is cut off" + (f" by the maximum length of {limit:,}" if limit is not None else "")
        else:
            reason = chain.labeller.reason(place, token.trained)
        out.append(replace(token, place=place.value, reason=reason))
    return out
