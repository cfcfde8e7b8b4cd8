"""JSON documents: an array of rows, an object around one array of rows, or a single row; streamed.

Where elements begin and end is found without parsing them: quotes, brackets and commas are classified with numpy,
64 KiB at a time, and the state of one window (inside a string? how deep?) is carried to the next. Elements are parsed
by whoever reads the block, so one broken element spoils nothing else. If quotes or brackets go wrong inside one, the
scan finds its feet again at the next place that looks like the beginning of an element: ``, {"first key":``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import numpy.typing as npt

from lorads.sources.excerpts import excerpt, shown
from lorads.sources.json_faults import BOM, Fault, bom_fault
from lorads.sources.json_records import BATCH_BYTES, Parsed, problem, too_long
from lorads.sources.json_shape import shape, table_start
from lorads.sources.records import Block, Limits, Problem, ProblemKind, Records
from lorads.sources.streams import Stream
from lorads.sources.table import Head, Piece, Reader, Skipped, damaged_end

WINDOW = 64 << 10
_CAREFUL_WINDOW = 2 << 10  # after a broken element, since the next one may be broken too
_HEAD = 256 << 10
_TAIL = 64 << 10
_OVERLAP = 1024  # of a pattern with the bytes before it
_SPACE = b" \t\r\n"

_QUOTE, _OPEN, _CLOSE, _COMMA = 1, 2, 3, 4
_CLASS = np.zeros(256, np.uint8)
_CLASS[ord('"')] = _QUOTE
_CLASS[[ord("{"), ord("[")]] = _OPEN
_CLASS[[ord("}"), ord("]")]] = _CLOSE
_CLASS[ord(",")] = _COMMA
_AFTER_STRING = np.zeros(256, np.bool_)
_AFTER_STRING[list(b",:]} \t\r\n")] = True

Root = Literal["array", "member", "values"]
"""The elements are those of the root array, of an array in the root object, or (the root is a row) whole values."""

_FIRST_KEY = re.compile(rb'\{[ \t\r\n]*("[^"\\]{1,200}")[ \t\r\n]*:')
_CLOSERS = re.compile(rb"\][ \t\r\n]*(?:\}[ \t\r\n]*)?\Z")
_NEVER_CLOSED = "the array is never closed: the file ends without ]"
_CUT_OFF_HINT = "was a copy, a download or the writing program cut off? make the file again"
_SECOND_TABLE = re.compile(rb'"([^"\\]{1,200})"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*\{')


@dataclass(frozen=True, slots=True)
class Elements:
    """Context of a block: where its elements stand, in bytes from the block's start (white space around included).

    ``open_end``: the last one ends where the input ends, and nothing closed the array. ``second``: number of the
    element that is the second value of a file that should hold one, or None.
    """

    root: Root
    starts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    open_end: bool = False
    second: int | None = None


def claim(head: Head, suffix: str) -> float:
    found = shape(head.data, whole=head.whole)
    if found is None:
        return 0.2 if suffix == ".json" else 0.0
    return {"document": 0.9, "one": 0.5, "lines": 0.0}[found]


def parse(block: Block, data: bytes, limits: Limits) -> Records:
    """The values of the elements; offsets and lengths without the white space around them."""
    context = block.context
    assert isinstance(context, Elements)
    around = _SPACE + b"," if context.root == "values" else _SPACE
    parsed = Parsed(limits.record_bytes)
    offsets: list[int] = []
    lengths: list[int] = []
    blank: list[int] = []
    starts, ends = context.starts.tolist(), context.ends.tolist()
    batch: list[bytes] = []
    batch_start = 0
    for number, (start, end) in enumerate(zip(starts, ends, strict=True)):
        raw = data[start:end].lstrip(around)
        offsets.append(block.start + end - len(raw))
        raw = raw.rstrip(around)
        lengths.append(len(raw))
        batch.append(raw)
        if not raw:
            blank.append(number)
        last = number + 1 == len(starts)
        if last or end - batch_start >= BATCH_BYTES:
            parsed.add(batch, data[batch_start:end], cut_off=last and context.open_end)
            batch, batch_start = [], end
    breaks = np.flatnonzero(np.frombuffer(data, np.uint8) == 0x0A)
    lines = np.searchsorted(breaks, np.array(offsets, np.int64) - block.start).tolist()
    dropped = set(parsed.dropped)
    kept = [number for number in range(len(starts)) if number not in dropped]
    faults = parsed.faults + [(number, b"", None, _nothing()) for number in blank]
    if context.second in kept:
        raw = data[offsets[context.second] - block.start :][: lengths[context.second]]
        faults.append((context.second, raw, kept.index(context.second), _second_value(raw)))
    if context.open_end and context.root != "values" and kept and kept[-1] == len(starts) - 1:
        fault = Fault("truncated", lengths[-1], 0, _NEVER_CLOSED, _CUT_OFF_HINT)
        faults.append((kept[-1], b"", len(kept) - 1, fault))
    records = Records(
        values=parsed.values,
        lines=[lines[number] for number in kept],
        offsets=[offsets[number] for number in kept],
        lengths=[lengths[number] for number in kept],
        line_count=len(breaks),
    )
    if block.start == 0 and data.startswith(BOM):
        first = 0 if kept[:1] == [0] else None
        records.problems.append(problem(bom_fault(), BOM, line=0, offset=0, index=first))
    records.problems += [
        problem(fault, raw, line=lines[number], offset=offsets[number], index=index)
        for number, raw, index, fault in sorted(faults, key=lambda item: item[0])
    ]
    return records


def _nothing() -> Fault:
    message = "a comma with no value before or after it: JSON readers refuse the whole file"
    return Fault("invalid-json", 0, 0, message, "take the comma out")


def _second_value(raw: bytes) -> Fault:
    message = f"a second JSON value begins here: {excerpt(raw, 0)}; JSON readers refuse the file or stop before it"
    return Fault("invalid-json", 0, len(raw), message, "write one array, or one value a line and name the file .jsonl")


def _never_closed(offset: int, line: int) -> Problem:
    return Problem("truncated", line, offset, 0, _NEVER_CLOSED, _CUT_OFF_HINT)


def _tail_problem(tail: bytes, start: int, size: int, root: Root) -> Problem | None:
    """What is wrong with the ``size`` bytes from ``start`` that follow the array and begin with ``tail``."""
    if root == "member":
        table = _SECOND_TABLE.search(tail)
        if table is None:
            return None
        name = shown(table.group(1).decode("utf-8", "replace"))
        at, kind = table.start(), "not-a-table"
        message = f'the object holds a second array of objects, "{name}": only the first one was read'
        hint = "one file, one table: write the others to files of their own"
    else:
        at = len(tail) - len(tail.lstrip(_SPACE))
        if at == len(tail):
            return None
        kind = "invalid-json"
        message = f"more text follows the end of the array, and was not read: {excerpt(tail, at)}"
        hint = "were files joined together? write one array, or one value a line"
    return Problem(
        kind=cast("ProblemKind", kind),
        line=tail.count(b"\n", 0, at),
        offset=start + at,
        length=size - at,
        message=message,
        hint=hint,
        excerpt=excerpt(tail, at),
    )


def cut(stream: Stream, limits: Limits) -> Iterator[Piece]:
    """Pieces of whole elements; the parent holds one block and the element at its end."""
    return _Cutter(stream, limits).cut()


def _root(head: bytes) -> tuple[Root, int]:
    """What the elements are, and where the first one begins."""
    start = len(BOM) if head.startswith(BOM) else 0
    text = head[start:].lstrip(_SPACE)
    at = len(head) - len(text)
    if text.startswith(b"["):
        return "array", at + 1
    found = table_start(text.decode("latin-1")) if text.startswith(b"{") else None
    return ("values", start) if found is None else ("member", at + found[1])


def _element_pattern(head: bytes, begin: int, root: Root) -> re.Pattern[bytes] | None:
    """What stands between two elements, judging by the first key of the first one; None if they have no keys."""
    first = _FIRST_KEY.search(head, begin)
    if first is None:
        return None
    # possessive, and from the start of a run of white space only: linear on any input
    before = rb"(?<![ \t\r\n,])[ \t\r\n,]++" if root == "values" else rb",[ \t\r\n]*+"
    return re.compile(before + rb"(?=\{[ \t\r\n]*+" + re.escape(first.group(1)) + rb"[ \t\r\n]*+:)")


@dataclass(slots=True)
class _State:
    """What the scan knows at a position of the file."""

    depth: int
    in_string: bool = False
    escaped: bool = False
    """The next byte follows an odd run of backslashes."""
    after_string: bool = False
    """A string was closed at the very end of the last window."""


@dataclass(slots=True)
class _Window:
    """Tokens outside strings, up to ``end``; ``lost`` when the quotes go wrong there."""

    at: npt.NDArray[np.intp]
    kind: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.int64]
    """After the token."""
    end: int
    lost: bool


def _scan(window: bytes, state: _State) -> _Window:
    """Classifies one window, and moves ``state`` behind it (or to where it is lost)."""
    data = np.frombuffer(window, np.uint8)
    kinds = _CLASS[data]
    escaped_after = _drop_escaped(data, kinds, state)
    at = np.flatnonzero(kinds)
    kind = kinds[at]
    quote = kind == _QUOTE
    inside = ((np.cumsum(quote) + state.in_string) & 1).astype(np.bool_)  # after the token
    end, lost = len(window), False
    closing = at[quote & ~inside] + 1
    after_string = bool(closing.size) and int(closing[-1]) == end
    followers = closing[:-1] if after_string else closing
    wrong = followers[~_AFTER_STRING[data[followers]]]
    if state.after_string and not _AFTER_STRING[data[0]]:
        end, lost = 0, True
    elif wrong.size:
        end, lost = int(wrong[0]), True
    outside = ~quote & ~inside & (at < end)
    at, kind = at[outside], kind[outside]
    step = (kind == _OPEN).astype(np.int64) - (kind == _CLOSE)
    depth = np.cumsum(step) + state.depth
    if not lost:
        state.in_string = bool(inside[-1]) if inside.size else state.in_string
        state.escaped, state.after_string = escaped_after, after_string
    state.depth = int(depth[-1]) if depth.size else state.depth
    return _Window(at, kind, depth, end, lost)


def _drop_escaped(data: npt.NDArray[np.uint8], kinds: npt.NDArray[np.uint8], state: _State) -> bool:
    """Takes escaped quotes out of ``kinds``; returns whether the byte after the window is escaped."""
    backslash = np.flatnonzero(data == 0x5C)
    if state.escaped:
        kinds[0] = 0
        backslash = backslash[1:] if backslash.size and backslash[0] == 0 else backslash
    if not backslash.size:
        return False
    first = np.flatnonzero(np.diff(backslash, prepend=-2) != 1)  # where runs of backslashes begin
    length = np.diff(first, append=backslash.size)
    after = (backslash[first] + length)[length % 2 == 1]
    escaped_after = bool(after.size) and int(after[-1]) == len(data)
    kinds[after[:-1] if escaped_after else after] = 0
    return escaped_after


class _Cutter:
    """Cuts one document into pieces of whole elements.

    Positions count from the start of ``buffer``, which stands at byte ``origin + dropped`` of the file.
    """

    def __init__(self, stream: Stream, limits: Limits) -> None:
        self.stream, self.limits = stream, limits
        head = stream.peek(_HEAD)
        self.root, self.begin = _root(head)
        self.base = {"array": 1, "member": 2, "values": 0}[self.root]
        self.gap = 0 if self.root == "values" else 1  # the comma between two elements
        self.pattern = _element_pattern(head, self.begin, self.root)
        self.buffer = bytearray()
        self.origin = 0
        self.scanned = self.begin
        self.window = WINDOW
        self.state = _State(self.base)
        self.ends: list[int] = []  # of the elements found since ``origin``
        self.lost: int | None = None  # where to look for the next element, once quotes or brackets went wrong
        self.closed: int | None = None  # behind the end of the array
        self.emitted = 0  # elements in earlier pieces
        self.dropped = self.dropped_lines = 0  # bytes of an overlong element that were let go

    def cut(self) -> Iterator[Piece]:
        chunks = self.stream.chunks()
        for chunk in chunks:
            self.buffer += chunk
            yield from self._advance()
            if self.closed is not None:
                yield from self._tail(chunks)
                return
        yield from self._end()

    @property
    def _element(self) -> int:
        """Where the unfinished element begins."""
        return self.ends[-1] + self.gap if self.ends else self.begin

    def _advance(self) -> Iterator[Piece]:
        """Scans what is in the buffer."""
        while self.scanned < len(self.buffer) and self.closed is None:
            if self.lost is None:
                self._scan_window()
            else:
                self._find_element()
            if self.dropped and self.ends:
                yield self._overlong(self.ends.pop(0) + self.gap)
            if self.ends and self.ends[-1] >= self.limits.block_bytes:
                yield self._piece(self._element)
            if self.scanned - self._element + self.dropped > self.limits.record_bytes and not self._recut():
                if self.ends:
                    yield self._piece(self._element)
                self._drop(self.scanned if self.lost is None else self.lost)

    def _scan_window(self) -> None:
        start = self.scanned
        window = _scan(bytes(memoryview(self.buffer)[start : start + self.window]), self.state)
        self.window = min(2 * self.window, WINDOW)
        closing = window.kind == _CLOSE
        if self.root == "values":
            boundary = closing & (window.depth == 0)
        else:
            boundary = (window.kind == _COMMA) & (window.depth == self.base)
        below = np.flatnonzero(closing & (window.depth < self.base))
        if below.size:  # the end of the array, or a bracket too many
            boundary[below[0] :] = False
        self.ends += (window.at[boundary] + (start + 1 - self.gap)).tolist()
        self.scanned = start + window.end
        if below.size:
            end = start + int(window.at[below[0]])
            if self.gap and self.buffer[end] == ord("]"):
                self._close(end)
            else:
                self._lose(end)
        elif window.lost:
            self._lose(self.scanned)

    def _close(self, end: int) -> None:
        self.closed = self.scanned = end + 1
        empty = not self.emitted and not self.ends and not self.buffer[self.begin : end].strip(_SPACE)
        if not empty or self.dropped:
            self.ends.append(end)

    def _lose(self, at: int) -> None:
        """Quotes or brackets are wrong at ``at``: what caused it may be anywhere in the element."""
        self.lost = self._element + 1
        self.scanned = min(self.scanned, at)

    def _find_element(self) -> None:
        """Takes the scan up again at the next element, if the buffer holds its beginning."""
        assert self.lost is not None
        match = self.pattern.search(self.buffer, self.lost) if self.pattern else None
        if match:
            self._resume([match.start()])
        else:
            self.scanned = len(self.buffer)
            self.lost = max(self.lost, self.scanned - _OVERLAP)

    def _recut(self) -> bool:
        """Cuts an element that does not end where the next ones seem to begin: a closing bracket is missing."""
        if self.lost is not None or self.dropped or not self.pattern:
            return False
        found = [m.start() for m in self.pattern.finditer(self.buffer, self._element + 1, self.scanned)]
        if found:
            self._resume(found)
        return bool(found)

    def _resume(self, boundaries: list[int]) -> None:
        self.ends += boundaries
        self.scanned = self._element
        self.state = _State(self.base)
        self.window = min(_CAREFUL_WINDOW, WINDOW)
        self.lost = None

    def _piece(self, size: int, *, open_end: bool = False, problems: tuple[Problem, ...] = ()) -> Piece:
        """The elements found so far, in the first ``size`` bytes of the buffer."""
        ends = np.array(self.ends, np.int64)
        starts = np.concatenate(([self.begin], ends[:-1] + self.gap)).astype(np.int64)[: len(ends)]
        second = 1 - self.emitted if self.root == "values" and self.emitted <= 1 < self.emitted + len(ends) else None
        payload = bytes(memoryview(self.buffer)[:size]) if self.stream.keeps else None
        context = Elements(self.root, starts, ends, open_end, second)
        piece = Piece(self.origin, self.origin + size, payload, context, problems)
        self.emitted += len(ends)
        self.ends = []
        self._forget(size)
        self.origin += size
        return piece

    def _overlong(self, size: int) -> Piece:
        """The piece of an element over the limit, whose last ``size`` bytes are in the buffer."""
        end = self.origin + self.dropped + size
        fault = too_long(end - self.gap - self.origin, self.limits.record_bytes)
        lines = self.dropped_lines + self.buffer.count(b"\n", 0, size)
        piece = Piece(
            self.origin,
            end,
            context=Skipped(lines),
            problems=(problem(fault, b"", line=0, offset=self.origin, index=None),),
        )
        self._forget(size)
        self.origin, self.dropped, self.dropped_lines = end, 0, 0
        self.emitted += 1
        return piece

    def _drop(self, size: int) -> None:
        self.dropped += size
        self.dropped_lines += self.buffer.count(b"\n", 0, size)
        self._forget(size)

    def _forget(self, size: int) -> None:
        del self.buffer[:size]
        self.begin = 0
        self.scanned -= size
        self.ends = [end - size for end in self.ends]
        self.lost = None if self.lost is None else self.lost - size
        self.closed = None if self.closed is None else self.closed - size

    def _end(self) -> Iterator[Piece]:
        """The input ended, and the array did not (or the root is a row, and this is its end)."""
        if self.stream.fault:
            if self.ends:
                yield self._piece(self._element)
            end = self.origin + self.dropped + len(self.buffer)
            yield damaged_end(self.stream, self.origin, end, held=bool(self.buffer.strip(_SPACE)))
            return
        if self.dropped:
            yield self._overlong(len(self.buffer))
            return
        if self.gap or self.state.depth > self.base:
            self._recut()
        rest = bytes(memoryview(self.buffer)[self._element :])
        size = len(self.buffer)
        closers = _CLOSERS.search(rest) if self.gap and rest.lstrip(_SPACE)[:1] == b"{" else None
        if closers:  # an object doesn't end so: the array is closed, the object is not
            self.ends.append(self._element + closers.start())
            yield self._piece(size)
        elif rest.strip(_SPACE):
            self.ends.append(size)
            yield self._piece(size, open_end=True)
        elif self.gap:
            yield self._piece(size, problems=(_never_closed(self.origin + size, self.buffer.count(b"\n")),))
        elif size:
            yield self._piece(size)

    def _tail(self, chunks: Iterator[bytes]) -> Iterator[Piece]:
        """What follows the end of the array."""
        if self.dropped and self.ends:
            yield self._overlong(self.ends.pop(0) + self.gap)
        if self.closed:
            yield self._piece(self.closed)
        start, size, lines = self.origin, len(self.buffer), self.buffer.count(b"\n")
        tail = bytes(self.buffer[:_TAIL])
        for chunk in chunks:
            tail += chunk[: _TAIL - len(tail)]
            size += len(chunk)
            lines += chunk.count(b"\n")
        if self.stream.fault:
            yield damaged_end(self.stream, start, start + size, held=True)
        elif size:
            found = _tail_problem(tail, start, size, self.root)
            yield Piece(start, start + size, context=Skipped(lines), problems=(found,) if found else ())


READER = Reader("json_array", (".json", ".jsonl", ".ndjson"), claim, cut, parse)
