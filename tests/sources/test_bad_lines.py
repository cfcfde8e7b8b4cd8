"""Every fault a JSON line can have: named, placed, explained, and never the end of the file."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lorads.sources import Limits
from lorads.sources.json_faults import diagnose
from sources.naive import read_bytes

CASES = yaml.safe_load((Path(__file__).parent / "bad_lines.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_bad_line(case: dict[str, Any], tmp_path: Path) -> None:
    raw = case["raw"].encode("latin-1")
    found = read_bytes(tmp_path, "data.jsonl", b'{"a": "before"}\n' + raw + b'\n{"a": "after"}\n')
    kinds = case["kind"] if isinstance(case["kind"], list) else [case["kind"]]
    assert found.kinds == kinds
    line, index, problem = found.problems[0]
    assert line == 2
    assert index == (1 if case["readable"] else None)
    assert found.lines == ([1, 2, 3] if case["readable"] else [1, 3])
    assert (found.values[0], found.values[-1]) == ({"a": "before"}, {"a": "after"})
    for word in case["words"]:
        assert word in problem.message
    for word in case.get("hint", []):
        assert word in problem.hint
    assert problem.hint
    assert problem.message.isprintable()
    assert problem.excerpt.isprintable()
    assert len(problem.excerpt) <= 4 * 40
    assert 16 <= problem.offset <= 16 + len(raw)


def test_a_nan_row_keeps_its_value(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, "data.jsonl", b'{"a": NaN, "b": -Infinity, "c": 99999999999999999999999}\n')
    (value,) = found.values
    assert math.isnan(value["a"])
    assert value["b"] == -math.inf
    assert value["c"] == 1e23


@pytest.mark.parametrize("depth", [1_025, 10_000])
@pytest.mark.parametrize("brackets", [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
def test_too_deep(depth: int, brackets: tuple[bytes, bytes], name: str, tmp_path: Path) -> None:
    deep = brackets[0] * depth + b"1" + brackets[1] * depth
    lines = [b'{"a": 1}', b'{"a": ' + deep + b"}", b'{"a": 2}']
    data = b"\n".join(lines) if name.endswith("l") else b"[" + b",\n".join(lines) + b"]"
    found = read_bytes(tmp_path, name, data)
    assert found.kinds == ["too-deep"]
    assert f"{depth + 1:,} levels" in found.problems[0][2].message
    assert found.problems[0][:2] == (2, None)
    assert found.values == [{"a": 1}, {"a": 2}]


def test_deep_but_allowed(tmp_path: Path) -> None:
    deep = b"[" * 1_000 + b"]" * 1_000
    found = read_bytes(tmp_path, "data.jsonl", b'{"a": ' + deep + b'}\n{"b": ' + deep + b', "b": 1}\n')
    assert found.kinds == ["duplicate-key"]
    assert len(found.values) == 2


def test_bom_at_the_start(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, "data.jsonl", b'\xef\xbb\xbf{"a": 1}\n{"a": 2}\n')
    assert found.kinds == ["bom"]
    assert found.problems[0][:2] == (1, 0)
    assert (found.values, found.offsets, found.lengths) == ([{"a": 1}, {"a": 2}], [3, 12], [8, 8])


@pytest.mark.parametrize(("end", "kind"), [(b"", "truncated"), (b"\n", "invalid-json")])
def test_the_last_line_may_be_cut_off(end: bytes, kind: str, tmp_path: Path) -> None:
    found = read_bytes(tmp_path, "data.jsonl", b'{"a": 1}\n{"a": "long te' + end)
    assert found.kinds == [kind]
    assert found.problems[0][0] == 2
    assert found.values == [{"a": 1}]


@pytest.mark.parametrize("block_bytes", [10, 100, 1000, 100_000])
@pytest.mark.parametrize("end", [b"\n", b""])
@pytest.mark.parametrize("stdin_like", [False, True])
def test_a_line_over_the_limit(block_bytes: int, end: bytes, stdin_like: bool, tmp_path: Path) -> None:
    import gzip

    limits = Limits(record_bytes=100, block_bytes=block_bytes)
    long = b'{"a": "' + b"x" * 1000 + b'"}'
    data = b'{"a": 1}\n' + long + b'\n{"a": 2}\n' + long + end
    found = read_bytes(tmp_path, "data.jsonl", gzip.compress(data) if stdin_like else data, limits)
    assert found.kinds == ["too-long", "too-long"]
    assert [(line, problem.offset, problem.length) for line, _, problem in found.problems] == [
        (2, 9, len(long)),
        (4, 19 + len(long), len(long)),
    ]
    assert "1,009 bytes" in found.problems[0][2].message
    assert (found.values, found.lines) == ([{"a": 1}, {"a": 2}], [1, 3])
    assert found.line_count == 4


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60) | st.lists(st.sampled_from(b'{}[],:"\\u0d8NaN\n\x00 1eE+-\xef\xbb\xbf\xf0tf')).map(bytes))
def test_any_bytes_have_a_diagnosis(raw: bytes) -> None:
    fault = diagnose(raw)
    assert fault.message.isprintable()
    assert 0 <= fault.at <= len(raw)
    assert diagnose(raw, last=True).hint


HOSTILE = {
    "quotes without an end, deep": b"[" * 2_000 + b'"' + b'\\"' * 500_000,
    "white space": b'{"a":' + b" \n" * 500_000 + b"x",
    "opening braces": b"{" * 500_000,
    "backslashes": b'{"a": "' + b"\\" * 500_001,
    "digits": b'{"a": ' + b"9" * 500_000 + b"}",
    "surrogates": b'{"a": "' + b"\\ud83d" * 200_000 + b'"}',
    "elements without an end": b'[{"a": 1}, ' + b'{"a": 1, ' * 30_000,
    "elements with bad quotes": b'[{"a": 1}, ' + b'{"a": "x}, ' * 10_000,
    "spaces between values": b'{"a": 1}\n{"a": ' + b" " * 500_000 + b"]" + b" " * 500_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
def test_no_input_takes_more_than_linear_time(name: str, data: bytes, tmp_path: Path) -> None:
    start = time.process_time()
    found = read_bytes(tmp_path, name, data)
    assert time.process_time() - start < 10  # a quadratic search takes minutes
    assert found.problems
