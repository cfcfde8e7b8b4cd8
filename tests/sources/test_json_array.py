"""JSON documents, streamed: the same values as json.load, wherever blocks and windows are cut, and broken elements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorads.sources import Limits, json_array
from sources.naive import read_bytes
from sources.strategies import rows, values

spaces = st.sampled_from(["", " ", "\n", "\r\n\t", "\n\n"])


@st.composite
def arrays(draw: st.DrawFn) -> tuple[list[Any], list[str], str]:
    """The elements, their texts, and the text of the array."""
    elements = draw(st.lists(values if draw(st.booleans()) else rows, min_size=1, max_size=6))
    indent = draw(st.sampled_from([None, 1]))
    texts = [json.dumps(element, ensure_ascii=draw(st.booleans()), indent=indent) for element in elements]
    inner = ",".join(draw(spaces) + text + draw(spaces) for text in texts)
    return elements, texts, draw(spaces) + "[" + inner + draw(spaces) + "]" + draw(spaces)


@settings(max_examples=250, deadline=None)
@given(arrays(), st.integers(1, 100), st.integers(1, 40), st.booleans())
def test_equals_json(
    tmp_path_factory: pytest.TempPathFactory,
    array: tuple[list[Any], list[str], str],
    block_bytes: int,
    window: int,
    member: bool,
) -> None:
    elements, texts, text = array
    if member and isinstance(elements[0], dict):
        text = '{"name": "x, [{", "n": [1, {"a": [{"b": 2}]}],\n"data":' + text + ', "more": {"x": [1, 2]}}'
    data = text.encode()
    with patch.object(json_array, "WINDOW", window):
        found = read_bytes(tmp_path_factory.mktemp("x"), "data.json", data, Limits(block_bytes=block_bytes))
    assert found.problems == []
    assert found.reader == "json_array"
    assert found.values == elements
    at = data.index(b'"data":') if member and isinstance(elements[0], dict) else 0
    for number, element in enumerate(texts):
        at = data.index(element.encode(), at)
        assert (found.offsets[number], found.lengths[number]) == (at, len(element.encode()))
        assert found.lines[number] == data.count(b"\n", 0, at) + 1
        at += found.lengths[number]
    assert found.line_count == data.count(b"\n")


GOOD = [b'{"id": 1, "m": [{"r": "a"}, {"r": "b"}]}', b'{"id": 2, "m": "x, y"}', b'{"id": 4, "m": []}', b'{"id": 5}']
BROKEN = {
    "missing end quote": b'{"id": 3, "m": "x}',
    "missing start quote": b'{"id": 3, "m": x"}',
    "quote too many": b'{"id": 3, "m": "x""}',
    "unescaped quotes": b'{"id": 3, "m": "say "hi, you" now"}',
    "raw line break": b'{"id": 3, "m": "one\ntwo"}',
    "missing closing brace": b'{"id": 3, "m": "x"',
    "missing closing bracket": b'{"id": 3, "m": ["x"}',
    "brace too many": b'{"id": 3, "m": "x"}}',
    "bracket of the other kind": b'{"id": 3, "m": ["x"}}',
    "trailing comma": b'{"id": 3, "m": "x",}',
    "single quotes": b"{'id': 3}",
    "no value at all": b"",
    "plain text": b"and so on",
    "invalid UTF-8": b'{"id": 3, "m": "\xff"}',
    "backslash before the end quote": b'{"id": 3, "m": "C:\\"}',
    "lone surrogate": b'{"id": 3, "m": "\\ud83d"}',
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("separator", [b", ", b",", b",\n  "])
@pytest.mark.parametrize("sizes", [(1 << 20, 1 << 16), (30, 7)])
def test_a_broken_element_spoils_no_other(
    broken: bytes, separator: bytes, sizes: tuple[int, int], tmp_path: Path
) -> None:
    parts = [*GOOD[:2], broken, *GOOD[2:]]
    data = b"[\n  " + separator.join(parts) + b"\n]\n"
    with patch.object(json_array, "WINDOW", sizes[1]):
        found = read_bytes(tmp_path, "data.json", data, Limits(block_bytes=sizes[0]))
    assert found.values == [json.loads(element) for element in GOOD]
    assert len(found.problems) == 1
    line, index, problem = found.problems[0]
    assert line in (None, data.count(b"\n", 0, data.index(broken)) + 1) or not broken
    assert index is None
    assert problem.kind in ("invalid-json", "invalid-utf8", "lone-surrogate")


@pytest.mark.parametrize(
    ("data", "kept", "kind", "word"),
    [
        (b'[{"a": 1}, {"a": 2}', 2, "truncated", "never closed"),
        (b'[{"a": 1}, {"a": 2},\n', 2, "truncated", "never closed"),
        (b'[{"a": 1}, {"a": "x', 1, "truncated", "inside a string"),
        (b'[{"a": 1}, {"a": [1, {"b"', 1, "truncated", "before the value is complete"),
        (b'{"data": [{"a": 1}, {"a": 2}', 2, "truncated", "never closed"),
        (b'[{"a": 1}, {"a": 2},]', 2, "invalid-json", "comma"),
        (b'[{"a": 1},, {"a": 2}]', 2, "invalid-json", "comma"),
        (b'[{"a": 1}, {"a": 2]', 1, "invalid-json", "before the value is complete"),
        (b'[\n{"a": 1}]\n[{"a": 2}]', 1, "invalid-json", "more text follows"),
        (b'{"train": [{"a": 1}],\n"test": [{"a": 2}]}', 1, "not-a-table", '"test"'),
        (b'{\n"a": 1\n}\n{\n"a": 2\n}\n{\n"a": 3\n}\n', 3, "invalid-json", "second JSON value"),
        (b'[{"a": 1}, {"a": NaN}]', 2, "nan-literal", "NaN"),
        (b'[{"a": 1}, {"a": 2, "a": 3}]', 2, "duplicate-key", "twice"),
        (b'\xef\xbb\xbf[{"a": 1}]', 1, "bom", "byte order mark"),
        (b'[{"a": 1}\n{"a": 2}]', 0, "invalid-json", "second value"),
        (b'{\n"a": [1,\n2', 0, "truncated", "before the value is complete"),
    ],
)
@pytest.mark.parametrize("window", [5, 1 << 16])
def test_faults_of_the_document(data: bytes, kept: int, kind: str, word: str, window: int, tmp_path: Path) -> None:
    with patch.object(json_array, "WINDOW", window):
        found = read_bytes(tmp_path, "data.json", data)
    assert found.kinds == [kind]
    assert word in found.problems[0][2].message
    assert len(found.values) == kept


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{\n  "messages": [{"role": "user"}],\n  "id": 1\n}', [{"messages": [{"role": "user"}], "id": 1}]),
        (b'{"messages": [{"role": "user"}]}', [{"messages": [{"role": "user"}]}]),
        (b'{"rows": [\n{"messages": []}], "n": 1}', [{"messages": []}]),
        (b"[]", []),
        (b"[ \n ]\n", []),
        (b'["one", 2, null, [3]]', ["one", 2, None, [3]]),
        (b'{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (b'{"a": [{"b": 1}]}\n{"a": [{"b": 2}]}\n', [{"a": [{"b": 1}]}, {"a": [{"b": 2}]}]),
    ],
)
@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_the_name_does_not_decide(name: str, data: bytes, expected: list[Any], tmp_path: Path) -> None:
    found = read_bytes(tmp_path, name, data)
    assert (found.values, found.problems) == (expected, [])


@pytest.mark.parametrize(("name", "expected"), [("a.json", [{"b": 1}]), ("a.jsonl", [{"a": [{"b": 1}]}])])
def test_an_object_around_a_table_on_one_line_may_be_either(name: str, expected: list[Any], tmp_path: Path) -> None:
    assert read_bytes(tmp_path, name, b'{"a": [{"b": 1}]}\n').values == expected


@pytest.mark.parametrize("block_bytes", [16, 1000])
@pytest.mark.parametrize("window", [16, 1 << 16])
def test_an_element_over_the_limit_is_passed_over(block_bytes: int, window: int, tmp_path: Path) -> None:
    big = b'{"id": 2, "m": "' + b"x, {}\\n" * 500 + b'"}'
    data = b'[{"id": 1},\n' + big + b',\n{"id": 3},\n' + big + b"]\n"
    with patch.object(json_array, "WINDOW", window):
        found = read_bytes(tmp_path, "data.json", data, Limits(record_bytes=200, block_bytes=block_bytes))
    assert found.kinds == ["too-long", "too-long"]
    assert (found.values, found.lines) == ([{"id": 1}, {"id": 3}], [1, 3])
    assert [line for line, _, _ in found.problems] in ([2, 4], [1, 3])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([b'{"id": 1}', b'"', b"[", b"]", b"{", b"}", b",", b"\\", b"\n", b"\xff", b"x", b":"]),
        max_size=25,
    ),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 60),
)
def test_no_bytes_are_too_much(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], block_bytes: int, window: int, record_bytes: int
) -> None:
    data = b'[{"id": 0},\n' + b"".join(parts)
    with patch.object(json_array, "WINDOW", window):
        found = read_bytes(tmp_path_factory.mktemp("x"), "data.json", data, Limits(record_bytes, block_bytes))
    if record_bytes >= 10 and block_bytes >= 10:
        assert found.values[:1] == [{"id": 0}] or found.problems
    assert all(0 <= offset <= len(data) for offset in found.offsets)
    for value, offset, length in zip(found.values, found.offsets, found.lengths, strict=True):
        assert json.loads(data[offset : offset + length].decode("utf-8", "replace")) == value
