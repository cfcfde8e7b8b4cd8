"""JSON lines: what a reader of one line after the other would give, for every block size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorads.sources import Limits
from sources.naive import read, read_bytes
from sources.strategies import rows

blank = st.sampled_from([b"", b" ", b"\t \t", b"\r"])
line_end = st.sampled_from([b"\n", b"\r\n"])
padding = st.sampled_from([b"", b" ", b"\t"])


@st.composite
def files(draw: st.DrawFn) -> bytes:
    lines = []
    for row in draw(st.lists(rows, min_size=1, max_size=8)):
        if draw(st.booleans()):
            lines.append(draw(blank))
        ascii_only, separators = draw(st.booleans()), draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : ")]))
        text = json.dumps(row, ensure_ascii=ascii_only, separators=separators)
        lines.append(draw(padding) + text.encode() + draw(padding))
    data = b"".join(line + draw(line_end) for line in lines)
    return data if draw(st.booleans()) else data.rstrip(b"\r\n")


def naive(data: bytes) -> tuple[list[Any], list[int], list[int], list[int]]:
    values, lines, offsets, lengths = [], [], [], []
    at = 0
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            values.append(json.loads(line))
            lines.append(number)
            offsets.append(at)
            lengths.append(len(line.removesuffix(b"\r")))
        at += len(line) + 1
    return values, lines, offsets, lengths


@settings(max_examples=150, deadline=None)
@given(files(), st.integers(1, 200))
def test_equals_a_naive_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes, block_bytes: int) -> None:
    found = read_bytes(tmp_path_factory.mktemp("x"), "data.jsonl", data, Limits(block_bytes=block_bytes))
    assert found.problems == []
    assert (found.values, found.lines, found.offsets, found.lengths) == naive(data)
    assert found.line_count == data.count(b"\n") + (not data.endswith(b"\n"))


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.sampled_from([b'{"a": "b"}', b"\n", b"\r\n", b"{", b'"', b"\xff", b"\x00", b"[1]", b"NaN", b"\\", b" "])
    ),
    st.integers(1, 40),
    st.integers(1, 60),
)
def test_no_bytes_end_the_file(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], block_bytes: int, record_bytes: int
) -> None:
    data = b'{"first": 1}\n' + b"".join(parts) + b'\n{"last": 1}\n'
    found = read_bytes(tmp_path_factory.mktemp("x"), "data.jsonl", data, Limits(record_bytes, block_bytes))
    if record_bytes >= 12:
        assert (found.values[0], found.values[-1]) == ({"first": 1}, {"last": 1})
    assert found.line_count == data.count(b"\n")
    filled = sum(bool(line.strip()) or len(line) > record_bytes for line in data.split(b"\n"))
    unread = {line for line, index, _ in found.problems if index is None}
    assert len(found.values) + len(unread) == filled


def test_line_separators_of_unicode_end_no_line(tmp_path: Path) -> None:
    row = {"a": "one\u2028two\u2029three\x85four"}
    data = json.dumps(row, ensure_ascii=False).encode() + b'\n{"b": 1}\n'
    found = read_bytes(tmp_path, "data.jsonl", data)
    assert (found.values, found.lines, found.problems) == ([row, {"b": 1}], [1, 2], [])


def test_many_blank_lines_take_no_time(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, "data.jsonl", b"\n" * 300_000 + b'{"a": 1}')
    assert (found.values, found.lines, found.problems) == ([{"a": 1}], [300_001], [])


def test_blocks_depend_on_the_input_alone(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'{"a": "some text"}\n' * 1000)
    assert read(path, Limits(block_bytes=1000)).blocks == read(path, Limits(block_bytes=1000)).blocks > 10
