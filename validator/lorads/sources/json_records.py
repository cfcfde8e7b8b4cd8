"""JSON records of one block, parsed by orjson; shared by JSON lines and JSON arrays.

Integers beyond 64 bits become floats, as orjson (and pyarrow, and pandas) reads them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson

from lorads.sources.excerpts import excerpt
from lorads.sources.json_faults import Fault, diagnose, duplicate_key_fault
from lorads.sources.records import Problem

BATCH_BYTES = 64 << 10


@dataclass(slots=True)
class Parsed:
    """What came of the raw records given to ``add``, numbered from 0 in the order they came.

    ``values`` are those of all but the ``dropped`` ones (blank, unreadable, or over ``limit`` bytes). ``faults``:
    number and bytes of the raw record, index of its value (None when it has none), and the fault.
    """

    limit: int
    values: list[Any] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    faults: list[tuple[int, bytes, int | None, Fault]] = field(default_factory=list)
    count: int = 0

    def add(self, raws: list[bytes], text: bytes, *, cut_off: bool = False) -> None:
        """Parses ``raws``, which come from ``text``: about 64 KiB, so that the cache still holds them when they are
        looked at again. ``cut_off``: the last one ends where the input ends, and may be half a record.
        """
        first, first_value = self.count, len(self.values)
        first_dropped, first_fault = len(self.dropped), len(self.faults)
        append = self.values.append
        source = iter(raws if len(text) <= self.limit else self._without_overlong(raws))
        rest = map(orjson.loads, source)
        position = 0
        while True:
            before = len(self.values)
            try:
                for value in rest:
                    append(value)
                break
            except orjson.JSONDecodeError:
                position += len(self.values) - before  # the refused record; ``rest`` goes on after it
                self._refused(raws[position], first + position, cut_off=cut_off and position == len(raws) - 1)
                position += 1
                while position < len(raws) and len(raws[position]) <= self.limit and _is_blank(raws[position]):
                    self.dropped.append(first + position)  # without the price of an exception for each
                    position += 1
                    next(source)
        self.count += len(raws)
        unread = self.dropped[first_dropped:]
        if _may_repeat_keys(text, self.values[first_value:], [raws[number - first] for number in unread]):
            absent = set(unread)
            kept = (number for number in range(first, self.count) if number not in absent)
            for index, number in enumerate(kept, first_value):
                self._check_keys(raws[number - first], number, index)
        if len(self.faults) > first_fault + 1:
            self.faults[first_fault:] = sorted(self.faults[first_fault:], key=lambda fault: fault[0])

    def _without_overlong(self, raws: list[bytes]) -> list[bytes]:
        """``raws``, with nothing in the place of records over the limit."""
        return [raw if len(raw) <= self.limit else b"" for raw in raws]

    def _refused(self, raw: bytes, number: int, *, cut_off: bool) -> None:
        if len(raw) > self.limit:
            fault = too_long(len(raw), self.limit)
        elif _is_blank(raw):
            self.dropped.append(number)
            return
        else:
            fault = diagnose(raw, last=cut_off)
        if fault.readable:
            self.faults.append((number, raw, len(self.values), fault))
            self.values.append(fault.value)
        else:
            self.faults.append((number, raw, None, fault))
            self.dropped.append(number)

    def _check_keys(self, raw: bytes, number: int, index: int) -> None:
        value = self.values[index]
        if _may_repeat_keys(raw, [value], []):
            fault = duplicate_key_fault(raw, value)
            if fault is not None:
                self.faults.append((number, raw, index, fault))


def too_long(size: int, limit: int) -> Fault:
    """The fault of a record over the limit, which is never parsed."""
    return Fault(
        "too-long",
        0,
        size,
        f"the record is {size:,} bytes long, over the limit of {limit:,}: it was not read",
        "are line breaks missing, or is the record broken? no trainer can use a row of this size",
    )


def problem(fault: Fault, raw: bytes, *, line: int | None, offset: int, index: int | None) -> Problem:
    """``fault`` as the problem of a record that begins at ``offset`` of the file, on ``line`` of the block."""
    return Problem(
        kind=fault.kind,
        line=line,
        offset=offset + fault.at,
        length=fault.length,
        message=fault.message,
        hint=fault.hint,
        index=index,
        excerpt=excerpt(raw, fault.at),
    )


def _is_blank(raw: bytes) -> bool:
    return not raw.strip(b" \t\r\n")


def _may_repeat_keys(text: bytes, values: list[Any], unread: list[bytes]) -> bool:
    """False only if no object in ``text`` (less its ``unread`` parts) has a key twice.

    Each key of the text brings a colon, and so does each colon in a string, written as such or as ``\\u003a``. What
    orjson writes from the parsed values has the colons of the keys and strings that survived. Only a key that was
    dropped, with its value, makes the first number greater.
    """
    try:
        survived = orjson.dumps(values)
    except orjson.JSONEncodeError:  # nested deeper than orjson writes
        return True
    written = _colons(text) - sum(map(_colons, unread))
    if _has_escapes(text):
        written += text.count(b"\\u003a") + text.count(b"\\u003A")
    return written != _colons(survived)


def _has_escapes(text: bytes) -> bool:
    """Whether ``\\u`` stands in a text: several times as fast as ``in``, which every other backslash slows down."""
    chars = np.frombuffer(text, np.uint8)
    return bool(((chars[:-1] == 0x5C) & (chars[1:] == 0x75)).any())


def _colons(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == 0x3A))  # three times as fast as bytes.count
