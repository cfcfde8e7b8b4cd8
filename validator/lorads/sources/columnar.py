"""Parquet and Arrow: batches travel to the workers as Arrow's own bytes, and become Python values there.

The parent reads one batch at a time, so memory doesn't depend on the size of row groups, and no worker decodes a row
group again to reach its middle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from lorads.sources.records import Block, Limits, Problem, Records
from lorads.sources.table import Piece, Skipped

if TYPE_CHECKING:
    import pyarrow as pa


def failures() -> tuple[type[Exception], ...]:
    """What pyarrow raises for damaged files."""
    import pyarrow as pa

    return pa.ArrowException, OSError, ValueError, OverflowError


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def pieces(batches: Iterable[pa.RecordBatch], limits: Limits, start: int = 0) -> Iterator[Piece]:
    """One piece or more a batch, each about ``block_bytes``; ``start`` and ``end`` are rows of the file.

    Every batch is checked in full first, since pyarrow doesn't survive offsets that point outside: a row that isn't
    valid (text that isn't UTF-8, most often) becomes a problem, and the others are read.
    """
    for batch in batches:
        position = start
        for first, end, error in _runs(batch):
            if error is None:
                yield from _cut(batch.slice(first, end - first), start + first, limits)
            else:
                problem = _invalid(error, start + first)
                yield Piece(start + first, start + end, context=Skipped(0), problems=(problem,))
            position = start + end
        start = position


def parse(block: Block, data: bytes, limits: Limits) -> Records:
    """The rows as dictionaries. Structs have all keys of their type, None where the row has none."""
    import pyarrow as pa

    with pa.ipc.open_stream(data) as stream:
        table = stream.read_all()
    records = Records(lines=None)
    try:
        records.values = _rows(table)
        records.offsets = list(range(block.start, block.end))
    except (ValueError, OverflowError):  # a date after the year 9999, for instance
        _one_by_one(table, block, records)
    if len(data) > limits.record_bytes:
        _drop_overlong(table, records, block, limits)
    records.lengths = [0] * len(records.values)
    return records


def _runs(batch: pa.RecordBatch) -> Iterator[tuple[int, int, str | None]]:
    """The batch as runs of valid rows, and single rows that aren't valid, with the reason."""
    if _error(batch) is None:
        if batch.num_rows:
            yield 0, batch.num_rows, None
        return
    first = 0
    for row in range(batch.num_rows):
        error = _error(batch.slice(row, 1))
        if error is not None:
            if row > first:
                yield first, row, None
            yield row, row + 1, error
            first = row + 1
    if batch.num_rows > first:
        yield first, batch.num_rows, None


def _error(batch: pa.RecordBatch) -> str | None:
    import pyarrow as pa

    try:
        batch.validate(full=True)
    except pa.ArrowException as error:
        return first_line(error)
    return None


def _invalid(error: str, row: int) -> Problem:
    if "UTF8" in error:
        message = f"the row holds text that is not valid UTF-8 ({error})"
        return Problem("invalid-utf8", None, row, 0, message, "write the column again from properly decoded text")
    message = f"the row is damaged: {error}"
    return Problem("truncated", None, row, 0, message, "make or fetch the file again")


def _cut(rows: pa.RecordBatch, start: int, limits: Limits) -> Iterator[Piece]:
    step = max(rows.num_rows * limits.block_bytes // max(rows.nbytes, 1), 1)
    for first in range(0, rows.num_rows, step):
        part = rows.slice(first, step)
        yield Piece(start + first, start + first + part.num_rows, _packed(part))


def _packed(batch: pa.RecordBatch) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _rows(table: pa.Table) -> list[Any]:
    if "map<" in str(table.schema):  # asking for dictionaries makes pyarrow eight times slower
        return list(table.to_pylist(maps_as_pydicts="lossy"))
    return list(table.to_pylist())


def _one_by_one(table: pa.Table, block: Block, records: Records) -> None:
    """Reads the rows that Python has values for."""
    for number in range(table.num_rows):
        offset = block.start + number
        try:
            records.values += _rows(table.slice(number, 1))
            records.offsets.append(offset)
        except (ValueError, OverflowError) as error:
            message = f"the row holds a value that cannot be read: {error}"
            records.problems.append(Problem("not-a-table", None, offset, 0, message, "store dates and numbers as text"))


def _drop_overlong(table: pa.Table, records: Records, block: Block, limits: Limits) -> None:
    from lorads.sources.json_records import problem, too_long

    for index in range(len(records.values) - 1, -1, -1):
        offset = records.offsets[index]
        size = table.slice(offset - block.start, 1).nbytes
        if size > limits.record_bytes:
            del records.values[index], records.offsets[index]
            records.problems.append(
                problem(too_long(size, limits.record_bytes), b"", line=None, offset=offset, index=None)
            )
