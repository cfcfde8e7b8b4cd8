"""JSON lines: one JSON value a line. Lines end at a line feed (before it a carriage return is white space)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lorads.sources.json_faults import BOM, bom_fault
from lorads.sources.json_records import BATCH_BYTES, Parsed, problem, too_long
from lorads.sources.json_shape import shape
from lorads.sources.records import Block, Limits, Records
from lorads.sources.streams import Stream
from lorads.sources.table import Head, Piece, Reader, Skipped, damaged_end


def claim(head: Head, suffix: str) -> float:
    found = shape(head.data, whole=head.whole)
    named = suffix in (".jsonl", ".ndjson")
    if found is None:
        return 0.2 if named else 0.1 * head.data.lstrip().startswith(b"{")
    return 0.9 if found == "lines" or (found == "one" and named) else 0.0


def cut(stream: Stream, limits: Limits) -> Iterator[Piece]:
    """Pieces that end at a line feed. A line over the limit is passed over without being held."""
    start = position = 0
    held: list[bytes] = []  # the bytes since ``start``, where the blocks must carry them
    for piece in stream.chunks():
        chunk = piece
        while chunk:
            overlong = position - start > limits.record_bytes  # and no line feed since ``start``
            end = (chunk.find(b"\n") if overlong else chunk.rfind(b"\n")) + 1
            position += end or len(chunk)
            if not end:
                if position - start > limits.record_bytes:
                    held = []
                elif stream.keeps:
                    held.append(chunk)
                break
            if overlong:
                yield _overlong(start, position, position - start - 1, limits)
            else:
                held.append(chunk[:end])
                yield Piece(start, position, b"".join(held) if stream.keeps else None)
            start, held, chunk = position, [], chunk[end:]
    if stream.fault:
        yield damaged_end(stream, start, position, held=position > start)
    elif position - start > limits.record_bytes:
        yield _overlong(start, position, position - start, limits)
    elif position > start:
        yield Piece(start, position, b"".join(held) if stream.keeps else None)


def parse(block: Block, data: bytes, limits: Limits) -> Records:
    """The values of the lines of ``data``. Offsets and lengths are those of the lines without their ends."""
    parsed = Parsed(limits.record_bytes)
    sizes: list[npt.NDArray[np.int64]] = []  # with the line feed
    ends: list[npt.NDArray[np.int64]] = []  # bytes before it that belong to the line's end
    bom = block.start == 0 and data.startswith(BOM)
    at = 0
    while at < len(data):
        end = data.rfind(b"\n", at, at + BATCH_BYTES) + 1 or data.find(b"\n", at) + 1 or len(data)
        text = data[at:end]
        lines = text.split(b"\n")
        if not lines[-1]:
            lines.pop()
        sizes.append(np.fromiter(map(len, lines), np.int64, len(lines)) + 1)
        ends.append(_carriage_returns(lines) if b"\r" in text else np.zeros(len(lines), np.int64))
        if bom and not at:
            lines[0] = lines[0][len(BOM) :]
        parsed.add(lines, text, cut_off=block.final and end == len(data) and not text.endswith(b"\n"))
        at = end
    return _records(parsed, _joined(sizes), _joined(ends), block.start, bom=bom)


def _records(
    parsed: Parsed, sizes: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], start: int, *, bom: bool
) -> Records:
    offsets = np.cumsum(sizes) - sizes + start
    lengths = sizes - 1 - ends
    if bom:
        offsets[0] += len(BOM)
        lengths[0] -= len(BOM)
    problems = [
        problem(fault, raw, line=number, offset=int(offsets[number]), index=index)
        for number, raw, index, fault in parsed.faults
    ]
    if bom:
        first_is_kept = not parsed.dropped or parsed.dropped[0] != 0
        problems.insert(0, problem(bom_fault(), BOM, line=0, offset=0, index=0 if first_is_kept else None))
    lines: list[int] = np.delete(np.arange(len(sizes)), parsed.dropped).tolist()
    if parsed.dropped:
        offsets, lengths = offsets[lines], lengths[lines]
    return Records(parsed.values, lines, offsets.tolist(), lengths.tolist(), len(sizes), problems)


def _carriage_returns(lines: list[bytes]) -> npt.NDArray[np.int64]:
    return np.fromiter((line.endswith(b"\r") for line in lines), np.int64, len(lines))


def _joined(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def _overlong(start: int, end: int, size: int, limits: Limits) -> Piece:
    fault = too_long(size, limits.record_bytes)
    return Piece(start, end, context=Skipped(1), problems=(problem(fault, b"", line=0, offset=start, index=None),))


READER = Reader("jsonl", (".jsonl", ".ndjson", ".json"), claim, cut, parse)
