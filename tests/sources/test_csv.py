"""CSV: what Python's csv module gives, for every block size, with lines and bytes; and the faults of a record."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorads.sources import Limits
from sources.naive import read_bytes

cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8) | st.sampled_from(
    ['"', 'say "hi"', "a,b", "one\ntwo", "one\r\ntwo", "", "\u2028", '""', ";\t", "'"]
)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[str]], str, str]:
    width = draw(st.integers(1, 4))
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=6))
    return rows, draw(st.sampled_from([",", "\t"])), draw(st.sampled_from(["\n", "\r\n"]))


@settings(max_examples=200, deadline=None)
@given(tables(), st.integers(1, 80), st.booleans())
def test_equals_the_csv_module(
    tmp_path_factory: pytest.TempPathFactory,
    table: tuple[list[list[str]], str, str],
    block_bytes: int,
    quote_all: bool,
) -> None:
    rows, delimiter, line_end = table
    if not quote_all:  # older writers leave a carriage return without quotes
        rows = [[cell.replace("\r", "") for cell in row] for row in rows]
    width = len(rows[0]) if rows else 1
    names = [f"c{number}" for number in range(width)]
    out = io.StringIO(newline="")
    quoting: Literal[0, 1] = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end, quoting=quoting)
    spans = []
    for row in [names, *rows]:
        start = len(out.getvalue().encode())
        writer.writerow(row)
        spans.append((start, len(out.getvalue().encode()) - start - len(line_end)))
    data = out.getvalue().encode()
    name = "data.tsv" if delimiter == "\t" else "data.csv"
    found = read_bytes(tmp_path_factory.mktemp("x"), name, data, Limits(block_bytes=block_bytes))
    assert found.problems == []
    assert found.values == [dict(zip(names, row, strict=True)) for row in rows]
    assert [span[0] for span in spans[1:]] == found.offsets
    assert found.lines == [data.count(b"\n", 0, offset) + 1 for offset in found.offsets]
    if not any(cell.endswith(("\r", "\n")) for row in rows for cell in row[-1:]):
        assert [span[1] for span in spans[1:]] == found.lengths
    assert found.line_count == data.count(b"\n")


CASES: list[tuple[str, bytes, list[dict[str, Any]], list[tuple[int, str, str]]]] = [
    (
        "too few fields",
        b"a,b\n1\n3,4\n",
        [{"a": "1", "b": None}, {"a": "3", "b": "4"}],
        [(2, "not-a-table", "1 field")],
    ),
    ("too many fields", b"a,b\n1,2,3\n3,4\n", [{"a": "3", "b": "4"}], [(2, "not-a-table", "3 fields, the header 2")]),
    ("NUL in a cell", b"a,b\n1,x\x00y\n", [{"a": "1", "b": "x\x00y"}], []),
    ("blank lines", b"a,b\n\n1,2\n\r\n3,4\n\n", [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}], []),
    ("blank lines before the header", b"\n\r\n\n\na,b\n1,2\n", [{"a": "1", "b": "2"}], []),
    ("empty cells", b"a,b\n,\n", [{"a": "", "b": ""}], []),
    ("BOM", b"\xef\xbb\xbfa,b\n1,2\n", [{"a": "1", "b": "2"}], [(1, "bom", "byte order mark")]),
    ("a name twice", b"a,a\n1,2\n", [{"a": "2"}], [(1, "duplicate-key", '"a" twice')]),
    ("invalid UTF-8", b"a,b\n1,\xff\n3,4\n", [{"a": "3", "b": "4"}], [(2, "invalid-utf8", "0xFF at column 3")]),
    (
        "quote never closed",
        b'a,b\n1,"2\n3,4\n5,6\n',
        [{"a": "3", "b": "4"}, {"a": "5", "b": "6"}],
        [(2, "not-a-table", "never closed")],
    ),
    (
        "quote never closed in the last line",
        b'a,b\n1,2\n3,"4',
        [{"a": "1", "b": "2"}],
        [(3, "not-a-table", "never closed")],
    ),
    ("bare carriage return", b"a,b\n1,x\ry\n3,4\n", [{"a": "3", "b": "4"}], [(2, "not-a-table", "new-line")]),
    ("semicolons", b"a;b\n1;2,5\n", [{"a": "1", "b": "2,5"}], []),
    ("tabs", b"a\tb\n1\t2\n", [{"a": "1", "b": "2"}], []),
    ("one column", b"text\none, two\n", [], [(2, "not-a-table", "2 fields, the header 1")]),
    ("header only", b"a,b\n", [], []),
    ("no end of line", b"a,b\n1,2", [{"a": "1", "b": "2"}], []),
    (
        "messages as JSON",
        b'id,messages\n1,"[{""role"": ""user""}]"\n',
        [{"id": "1", "messages": [{"role": "user"}]}],
        [],
    ),
    ("messages as something else", b"id,messages\n1,[x]\n", [{"id": "1", "messages": "[x]"}], []),
    ("a prompt that looks like JSON", b'prompt,x\n"[1, 2]",3\n', [{"prompt": "[1, 2]", "x": "3"}], []),
    ("a prompt of messages", b'prompt\n"[{""role"": ""user""}]"\n', [{"prompt": [{"role": "user"}]}], []),
    ("other columns stay text", b'note\n"{""a"": 1}"\n', [{"note": '{"a": 1}'}], []),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
@pytest.mark.parametrize("block_bytes", [5, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_case(
    case: tuple[str, bytes, list[dict[str, Any]], list[tuple[int, str, str]]],
    block_bytes: int,
    packed: bool,
    tmp_path: Path,
) -> None:
    import bz2

    _, data, values, problems = case
    found = read_bytes(tmp_path, "data.csv", bz2.compress(data) if packed else data, Limits(block_bytes=block_bytes))
    assert found.values == values
    assert [(line, problem.kind) for line, _, problem in found.problems] == [(line, kind) for line, kind, _ in problems]
    for (_, _, problem), (_, _, word) in zip(found.problems, problems, strict=True):
        assert word in problem.message


@pytest.mark.parametrize("block_bytes", [10, 70, 10_000])
def test_records_over_the_limit(block_bytes: int, tmp_path: Path) -> None:
    limits = Limits(record_bytes=100, block_bytes=block_bytes)
    big = b"1," + b"x" * 500
    data = b"a,b\n1,2\n" + big + b'\n3,4\n5,"' + b"y\n" * 200 + b'"\n7,8\n' + big
    found = read_bytes(tmp_path, "data.csv", data, limits)
    rows = [value for value in found.values if value["a"] in ("1", "3", "7")]
    assert rows == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}, {"a": "7", "b": "8"}]
    assert found.problems[0][0] == 3
    assert found.kinds[0] == found.kinds[-1] == "too-long"
    assert found.line_count == data.count(b"\n") + 1


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([b'"', b",", b"\n", b"\r", b"a", b"\xff", b'""', b"\r\n", b'",', b',"']), max_size=40),
    st.integers(1, 30),
    st.integers(1, 60),
)
def test_no_bytes_end_the_file(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], block_bytes: int, record_bytes: int
) -> None:
    data = b"name,text,and,more\n" + b"".join(parts)
    found = read_bytes(tmp_path_factory.mktemp("x"), "data.csv", data, Limits(record_bytes, block_bytes))
    assert found.line_count == data.count(b"\n") + (not data.endswith(b"\n"))
    assert all(set(value) == {"name", "text", "and", "more"} for value in found.values)
