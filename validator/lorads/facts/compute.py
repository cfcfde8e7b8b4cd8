"""From records, conversations and labels to facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorads.facts.batch import Batch, FactContext
from lorads.facts.hits import find_hits, lost_early, record_hit
from lorads.facts.labels import label_facts
from lorads.facts.schema import FACTS, HIT, Hit, polars_schema

if TYPE_CHECKING:
    import polars as pl


def facts_of(batch: Batch, context: FactContext) -> pl.DataFrame:
    """The facts of a batch: one row per record, readable or not, in the order of the file.

    ``row`` and ``line`` count from the start of the batch (row 0-based, line 1-based); whoever puts batches in order
    adds the rows and lines of earlier ones.
    """
    import polars as pl

    records = batch.records
    rows = len(records.values)
    labels = label_facts(batch, context)
    hits = find_hits(batch, context, labels.marks, labels.answer)
    positions = np.asarray(batch.positions, np.int64)
    columns = {name: _spread(values, positions, rows) for name, values in labels.columns.items()}
    columns["row"] = np.arange(rows, dtype=np.int64)
    if records.lines is not None:
        columns["line"] = np.asarray(records.lines, np.int64) + 1
    columns["byte_offset"] = np.asarray(records.offsets, np.int64)
    columns["byte_length"] = np.asarray(records.lengths, np.int64)
    columns["kind"] = _spread_texts([c.kind for c in batch.conversations], batch.positions, rows)
    if batch.labels.dropped:
        reasons = [batch.labels.dropped.get(i) for i in range(len(batch.conversations))]
        columns["dropped"] = _spread_texts(reasons, batch.positions, rows)
    early = lost_early(batch)
    if early:
        columns["reasoning_lost_early"] = np.isin(np.arange(rows), early)

    schema = polars_schema()
    series: list[pl.Series] = []
    for name, fact in FACTS.items():
        if fact.dtype == HIT and hits[name]:
            series.append(_hit_series(name, hits[name], rows, schema[name]))
        elif name in columns:
            series.append(_series(name, columns[name], schema[name]))
        else:
            series.append(context.constant(name, rows))
    frame = pl.DataFrame(series)
    unreadable = [problem for problem in records.problems if problem.index is None]
    if not unreadable:
        return frame
    extra = pl.DataFrame(
        [
            {
                "line": None if problem.line is None else problem.line + 1,
                "byte_offset": problem.offset,
                "byte_length": problem.length,
                "record_problem": record_hit(problem),
            }
            for problem in unreadable
        ],
        schema={name: schema[name] for name in ("line", "byte_offset", "byte_length", "record_problem")},
    )
    return pl.concat([frame, extra], how="diagonal").sort("byte_offset", maintain_order=True)


def _series(name: str, values: npt.NDArray[Any] | pl.Series, dtype: Any) -> pl.Series:
    import polars as pl

    series = values.alias(name) if isinstance(values, pl.Series) else pl.Series(name, values)
    return series if series.dtype == dtype else series.cast(dtype)


def _hit_series(name: str, hits: Mapping[int, Hit], rows: int, dtype: Any) -> pl.Series:
    import polars as pl

    if not hits:
        return pl.Series(name, [], dtype=dtype).clear(rows)
    places = sorted(hits)
    index: list[int | None] = [None] * rows
    for i, place in enumerate(places):
        index[place] = i
    found = pl.Series(name, [hits[place] for place in places], dtype=dtype)
    return found.gather(pl.Series(index, dtype=pl.UInt32)) if len(places) < rows else found


def _spread(values: npt.NDArray[Any] | pl.Series, positions: npt.NDArray[np.int64], rows: int) -> Any:
    """Values of the understood rows put at their positions among all rows; null elsewhere."""
    import polars as pl

    if len(positions) == rows:
        return values
    index: list[int | None] = [None] * rows
    for i, position in enumerate(positions.tolist()):
        index[position] = i
    series = values if isinstance(values, pl.Series) else pl.Series(values)
    return series.gather(pl.Series(index, dtype=pl.UInt32)) if len(series) else series.clear(rows)


def _spread_texts(values: Sequence[str | None], positions: Sequence[int], rows: int) -> Any:
    import polars as pl

    if len(positions) == rows:
        if rows and values.count(values[0]) == rows:
            return pl.Series([_plain(values[0])], dtype=pl.String).new_from_index(0, rows)
        return pl.Series(list(map(_plain, values)), dtype=pl.String)
    out: list[str | None] = [None] * rows
    for position, value in zip(positions, values, strict=True):
        out[position] = _plain(value)
    return pl.Series(out, dtype=pl.String)


def _plain(value: str | None) -> str | None:
    """The text of a ``StrEnum``'s member, which polars takes for something else."""
    return None if value is None else str(value)
