"""Parquet, by pyarrow: one row group after the other, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lorads.errors import UsageError
from lorads.sources import columnar
from lorads.sources.records import Limits, Problem
from lorads.sources.streams import Stream
from lorads.sources.table import Head, Piece, Reader, Skipped

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_MAX_BATCH_ROWS = 4096


def claim(head: Head, suffix: str) -> float:
    return 1.0 if head.data.startswith(b"PAR1") else 0.0


def cut(stream: Stream, limits: Limits) -> Iterator[Piece]:
    """Batches of about ``block_bytes``. Raises UsageError when the file has no readable footer; a row group that can't
    be decoded is one problem, and the next one is read.
    """
    import pyarrow.parquet as pq

    try:
        # a buffer size makes pyarrow read pages as they are needed, instead of whole column chunks
        file = pq.ParquetFile(stream.path, buffer_size=1 << 20, pre_buffer=False)
    except columnar.failures() as error:
        raise UsageError(
            f"{stream.path} is no readable Parquet file: {columnar.first_line(error)}",
            "the end of a Parquet file holds its table of contents: was a copy or a download cut off?",
        ) from error
    with file:
        start = 0
        for group in range(file.num_row_groups):
            for piece in _row_group(file, group, start, limits):
                start = piece.end
                yield piece


def _row_group(file: pq.ParquetFile, group: int, start: int, limits: Limits) -> Iterator[Piece]:
    about = file.metadata.row_group(group)
    row_bytes = max(about.total_byte_size // max(about.num_rows, 1), 1)
    batch_rows = min(max(limits.block_bytes // row_bytes, 1), _MAX_BATCH_ROWS)
    position = start
    try:
        batches = file.iter_batches(batch_size=batch_rows, row_groups=[group], use_threads=False)
        for piece in columnar.pieces(batches, limits, start):
            position = piece.end
            yield piece
    except columnar.failures() as error:
        message = f"row group {group} cannot be decoded after its row {position - start}: {columnar.first_line(error)}"
        hint = "the file is damaged: make or fetch it again"
        problem = Problem("truncated", None, position, 0, message, hint)
        end = max(start + about.num_rows, position)
        yield Piece(position, end, context=Skipped(0), problems=(problem,))


READER = Reader("parquet", (".parquet",), claim, cut, columnar.parse, magic=(b"PAR1",), needs_file=True)
