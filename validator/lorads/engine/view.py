"""One row as the trainer sees it."""

from __future__ import annotations

from lorads.engine.excerpts import tokens
from lorads.engine.feed import label_files
from lorads.engine.settings import Settings
from lorads.errors import UsageError
from lorads.findings import RowView


def find_row(path: str, settings: Settings, *, line: int | None = None, row: int | None = None) -> RowView:
    """The row at a 1-based line or with a 0-based number; the first one when neither is given. Raises ``UsageError``
    when there is none, or nothing could be made of it."""
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
                raise UsageError(
                    f"{where}: the chat template gave no text: {failure.message}", "mend the row or the template"
                )
            count = int(batch.labels.ids.starts[index + 1] - batch.labels.ids.starts[index])
            return RowView(
                fed.path,
                number,
                at,
                tokens(batch, fed.chain.tokenizer, index, 0, count),
                batch.labels.dropped.get(index),
                fed.chain.options.max_length,
                fed.chain.tokenizer.name,
                f"{fed.chain.trainer.name} {fed.chain.trainer.version}",
            )
    wanted_place = f"line {line} holds no row" if line is not None else f"there is no row {row or 0}"
    raise UsageError(f"{path}: {wanted_place} (it has {seen:,} rows, numbered from 0)", "give another LINE or --row")
