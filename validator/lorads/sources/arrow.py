"""Arrow IPC files and streams (the ``.arrow`` files that Hugging Face datasets writes are streams)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lorads.errors import UsageError
from lorads.sources import columnar
from lorads.sources.records import Limits, Problem
from lorads.sources.streams import Stream
from lorads.sources.table import Head, Piece, Reader, Skipped

if TYPE_CHECKING:
    import pyarrow as pa

_FILE = b"ARROW1"
_STREAM = b"\xff\xff\xff\xff"


def claim(head: Head, suffix: str) -> float:
    return 1.0 if head.data.startswith((_FILE, _STREAM)) else 0.0


def cut(stream: Stream, limits: Limits) -> Iterator[Piece]:
    """Batches, cut to about ``block_bytes``. Raises UsageError when not even the schema can be read."""
    import pyarrow as pa

    with pa.OSFile(stream.path) as source:  # no memory map: a file cut short meanwhile would kill the process
        try:
            batches = _file(source) if stream.peek(len(_FILE)) == _FILE else iter(pa.ipc.open_stream(source))
        except columnar.failures() as error:
            raise UsageError(
                f"{stream.path} is no readable Arrow file: {columnar.first_line(error)}",
                "was a copy or a download cut off?",
            ) from error
        position = 0
        try:
            for piece in columnar.pieces(batches, limits):
                position = piece.end
                yield piece
        except columnar.failures() as error:
            problem = Problem(
                kind="truncated",
                line=None,
                offset=position,
                length=0,
                message=f"the Arrow data breaks off after {position:,} rows: {columnar.first_line(error)}",
                hint="the file is damaged: make or fetch it again",
            )
            yield Piece(position, position, context=Skipped(0), problems=(problem,))


def _file(source: pa.NativeFile) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    reader = pa.ipc.open_file(source)
    return map(reader.get_batch, range(reader.num_record_batches))


READER = Reader("arrow", (".arrow",), claim, cut, columnar.parse, magic=(_FILE, _STREAM), needs_file=True)
