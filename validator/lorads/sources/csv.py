"""CSV and TSV with a header row, as Python's csv module reads them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import orjson

from lorads.sources.excerpts import excerpt, shown
from lorads.sources.json_faults import BOM, Fault, bom_fault, invalid_utf8
from lorads.sources.json_records import problem, too_long
from lorads.sources.records import Block, Limits, Problem, Records
from lorads.sources.streams import Stream
from lorads.sources.table import Head, Piece, Reader, Skipped, damaged_end

JSON_COLUMNS = frozenset(
    (
        "messages",
        "conversations",
        "conversation",
        "dialog",
        "dialogue",
        "turns",
        "tools",
        "functions",
        "history",
        "tool_calls",
        "input_ids",
        "labels",
        "attention_mask",
        "assistant_masks",
        "completion_mask",
    )
)
"""Columns whose cells are parsed when they hold a JSON array or object."""
MESSAGE_COLUMNS = frozenset(("prompt", "completion", "chosen", "rejected"))
"""Columns that may hold text or messages: a cell is parsed when it is a JSON array of objects."""


_QUOTES = "close the quote, and write double quotes inside a quoted field twice"
_HEAD = 64 << 10


@dataclass(frozen=True, slots=True)
class Header:
    """Context of a block: the columns' names and what separates them."""

    columns: tuple[str, ...]
    delimiter: str


def claim(head: Head, suffix: str) -> float:
    if suffix in READER.suffixes:
        return 0.3
    lines = head.data.removeprefix(BOM).splitlines()
    if len(lines) < 2 or lines[0].lstrip()[:1] in (b"{", b"["):
        return 0.0
    delimiter = _delimiter(lines[0], "")
    counts = [line.count(delimiter.encode()) for line in lines[:2]]
    return 0.3 if counts[0] and counts[0] <= counts[1] else 0.0


class _TooLong(Exception):
    """A line or a quoted field passes the limit."""


class _Lines:
    """The lines of a stream, each with its end, decoded as latin-1 so that characters are bytes.

    ``taken`` are the raw lines given out since ``release``: those of the record that is being read.
    """

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self._stream = stream
        self._chunks = stream.chunks()
        self._limit = limits.record_bytes
        self._waiting: list[bytes] = []  # whole lines, the next one last
        self._partial = b""  # the line after them, as far as it is read
        self.taken: list[bytes] = []
        self.size = 0  # of the taken lines
        self.ended = False

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        if self.size > self._limit:
            raise _TooLong
        while not self._waiting:
            self._read()
        line = self._waiting.pop()
        self.taken.append(line)
        self.size += len(line)
        return line.decode("latin-1")

    def release(self) -> list[bytes]:
        """The lines taken, which the caller is done with."""
        lines, self.taken, self.size = self.taken, [], 0
        return lines

    def unfinished(self) -> int:
        """Bytes of the line that a damaged archive cut off."""
        return len(self._partial)

    def put_back(self, lines: list[bytes]) -> None:
        self._waiting += reversed(lines)
        self.ended = False

    def skip_line(self) -> int:
        """Passes over the rest of the unfinished line, without holding it; its size in bytes."""
        size = len(self._partial)
        self._partial = b""
        for chunk in self._chunks:
            end = chunk.find(b"\n") + 1
            size += end or len(chunk)
            if end:
                self._split(chunk[end:])
                break
        return size

    def _read(self) -> None:
        if len(self._partial) > self._limit:
            raise _TooLong
        chunk = next(self._chunks, b"")
        if chunk:
            self._split(self._partial + chunk)
        elif self._partial and not self._stream.fault:
            self._waiting, self._partial = [self._partial], b""
        else:
            self.ended = True
            raise StopIteration

    def _split(self, data: bytes) -> None:
        lines = data.split(b"\n")
        self._partial = lines.pop()
        self._waiting = [line + b"\n" for line in reversed(lines)]


def cut(stream: Stream, limits: Limits) -> Iterator[Piece]:
    """Pieces of whole records, by the csv module itself, so that quoted line breaks end no record."""
    _allow_fields(limits)
    lines = _Lines(stream, limits)
    header, start, size = _header(stream), 0, 0
    held: list[bytes] = []

    def piece() -> Piece:
        return Piece(start, start + size, b"".join(held) if stream.keeps else None, header)

    rows = csv.reader(lines, delimiter=header.delimiter)
    named = False  # the first block holds the header, also below blank lines
    while True:
        try:
            named = bool(next(rows)) or named
            whole = not lines.ended  # else the input ended inside a quoted field
        except StopIteration:
            break
        except csv.Error:
            whole = True  # a record, if a broken one: whoever parses it says why
        except _TooLong:
            whole = False
        if whole:
            for line in lines.release():
                size += len(line)
                if stream.keeps:
                    held.append(line)
        if size and (not whole or (named and size >= limits.block_bytes)):
            yield piece()
            start, held, size = start + size, [], 0
        if whole:
            continue
        taken = lines.release()
        if stream.fault and lines.ended:
            size = sum(map(len, taken))
            break
        if taken:
            lines.put_back(taken[1:])
            length, problem_of = len(taken[0]), _never_closed
        else:
            length, problem_of = lines.skip_line(), _too_long
        yield Piece(start, start + length, context=Skipped(1), problems=(problem_of(start, length, limits),))
        start += length
        rows = csv.reader(lines, delimiter=header.delimiter)
    if stream.fault:
        if held:
            yield piece()
            start, size = start + size, 0
        size += lines.unfinished()
        yield damaged_end(stream, start, start + size, held=size > 0)
    elif size:
        yield piece()


def parse(block: Block, data: bytes, limits: Limits) -> Records:
    """One dictionary a record: strings, but parsed JSON in columns that hold it. A missing last field is None."""
    _allow_fields(limits)
    header: Header = block.context
    raw_lines = [line + b"\n" for line in data.split(b"\n")]
    raw_lines[-1] = raw_lines[-1][:-1]
    if not raw_lines[-1]:
        raw_lines.pop()
    lines: list[int] = []
    records = Records(lines=lines, line_count=len(raw_lines))
    ends = list(accumulate(map(len, raw_lines), initial=block.start))
    names_next = block.start == 0
    if names_next and data.startswith(BOM):
        raw_lines[0] = raw_lines[0][len(BOM) :]
        records.problems.append(problem(bom_fault(), BOM, line=0, offset=0, index=None))
    rows = csv.reader((line.decode("utf-8", "surrogateescape") for line in raw_lines), delimiter=header.delimiter)
    utf8 = _is_utf8(data)
    json_columns = [n for n, name in enumerate(header.columns) if name in JSON_COLUMNS or name in MESSAGE_COLUMNS]
    while True:
        line, error, row = rows.line_num, "", []
        try:
            row = next(rows)
        except StopIteration:
            return records
        except csv.Error as caught:
            error = str(caught)
        if not row and not error:
            continue
        raw = b"".join(raw_lines[line : rows.line_num])
        fault = _unreadable(raw, error, limits, utf8=utf8) or (_names if names_next else _misfit)(row, header)
        index = None
        if not names_next and (fault is None or fault.readable):
            index = len(records.values)
            records.values.append(_record(row, header, json_columns))
            lines.append(line)
            records.offsets.append(ends[line])
            records.lengths.append(len(raw.rstrip(b"\r\n")))
        if fault is not None:
            records.problems.append(problem(fault, raw, line=line, offset=ends[line], index=index))
        names_next = False


def _record(row: list[str], header: Header, json_columns: list[int]) -> dict[str, Any]:
    values: list[Any] = list(row)
    for column in json_columns:
        if column < len(row) and row[column][:1] in ("[", "{"):
            values[column] = _json_cell(row[column], messages=header.columns[column] in MESSAGE_COLUMNS)
    values += [None] * (len(header.columns) - len(row))
    return dict(zip(header.columns, values, strict=True))


def _json_cell(cell: str, *, messages: bool) -> Any:
    """What ``cell`` holds as JSON; ``cell`` itself if that is nothing of the kind."""
    try:
        value = orjson.loads(cell)
    except orjson.JSONDecodeError:
        return cell
    if messages and not (isinstance(value, list) and value and all(isinstance(item, dict) for item in value)):
        return cell
    return value


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _unreadable(raw: bytes, error: str, limits: Limits, *, utf8: bool) -> Fault | None:
    if len(raw) > limits.record_bytes:
        return too_long(len(raw), limits.record_bytes)
    if error:
        hint = "quote fields that hold line breaks"
        if b"\r" in raw.rstrip(b"\r\n"):
            hint += "; if the file uses the old Mac line ends (bare carriage returns), convert them"
        return Fault("not-a-table", 0, len(raw), f"not readable as a CSV record: {error}: {excerpt(raw, 0)}", hint)
    if not utf8:
        try:
            raw.decode()
        except UnicodeDecodeError as caught:
            return invalid_utf8(raw, caught)
    return None


def _misfit(row: list[str], header: Header) -> Fault | None:
    found, wanted = len(row), len(header.columns)
    if found == wanted:
        return None
    at_end = f"the record has {found} {'field' if found == 1 else 'fields'}, the header {wanted}"
    hint = "quote fields that hold the delimiter, a double quote (doubled) or a line break"
    if found < wanted:
        return Fault("not-a-table", 0, 0, f"{at_end}: the last ones are taken as missing", hint, None)
    return Fault("not-a-table", 0, 0, f"{at_end}: readers refuse such a record", hint)


def _names(row: list[str], header: Header) -> Fault | None:
    twice = next((name for number, name in enumerate(row) if name in row[:number]), None)
    if twice is None:
        return None
    message = f'the header names the column "{shown(twice[:40])}" twice: the last one was read'
    return Fault("duplicate-key", 0, 0, message, "rename or remove one of the columns")


def _never_closed(start: int, size: int, limits: Limits) -> Problem:
    fault = Fault("not-a-table", 0, size, "a quoted field begins in this line and is never closed", _QUOTES)
    return problem(fault, b"", line=0, offset=start, index=None)


def _too_long(start: int, size: int, limits: Limits) -> Problem:
    return problem(too_long(size, limits.record_bytes), b"", line=0, offset=start, index=None)


def _header(stream: Stream) -> Header:
    text = stream.peek(_HEAD).removeprefix(BOM)
    first = text.lstrip(b"\r\n").split(b"\n", 1)[0]
    delimiter = _delimiter(first, stream.suffix)
    rows = csv.reader(text.decode("utf-8", "replace").splitlines(keepends=True), delimiter=delimiter)
    try:
        columns = next((row for row in rows if row), [])
    except csv.Error:
        columns = []
    return Header(tuple(columns), delimiter)


def _delimiter(first_line: bytes, suffix: str) -> str:
    if suffix == ".tsv":
        return "\t"
    if b"," not in first_line:
        for other in ("\t", ";"):
            if other.encode() in first_line:
                return other
    return ","


def _allow_fields(limits: Limits) -> None:
    """Lets fields be as long as records may be; the module's own limit of 128 KiB is for the whole process."""
    csv.field_size_limit(max(csv.field_size_limit(), 2 * limits.record_bytes + limits.block_bytes))


READER = Reader("csv", (".csv", ".tsv"), claim, cut, parse)
