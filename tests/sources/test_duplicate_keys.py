"""Duplicate keys are found exactly: no false alarm, none missed."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lorads.sources.json_faults import duplicate_key
from lorads.sources.json_records import Parsed
from sources.strategies import scalars, text

names = st.sampled_from(["a", "b", ":", '"', "é", "a:", "\\u003a", ""])


class Pairs(list[tuple[str, Any]]):
    """An object with its keys in order, repeated ones as well."""


objects = st.recursive(
    scalars | text,
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(names, inner), max_size=3).map(Pairs),
    max_leaves=10,
)


@st.composite
def written(draw: st.DrawFn, value: Any) -> str:
    """JSON text of ``value``, as some writer might put it: escapes and white space are free."""
    space = draw(st.sampled_from(["", " ", "\t"]))
    if isinstance(value, Pairs):
        pairs = [draw(string(key)) + space + ":" + space + draw(written(item)) for key, item in value]
        return "{" + ("," + space).join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ("," + space).join(draw(written(item)) for item in value) + "]"
    return draw(string(value)) if isinstance(value, str) else json.dumps(value)


@st.composite
def string(draw: st.DrawFn, value: str) -> str:
    plain = json.dumps(value, ensure_ascii=draw(st.booleans()))
    style = draw(st.integers(0, 3))
    if style == 0:
        return plain.replace(":", "\\u003a")
    if style == 1:
        return plain.replace(":", "\\u003A").replace("a", "\\u0061") if "\\" not in plain else plain
    return plain


def repeats(raw: str) -> bool:
    found = False

    def hook(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal found
        found |= len({key for key, _ in pairs}) < len(pairs)
        return dict(pairs)

    json.loads(raw, object_pairs_hook=hook)
    return found


records = st.lists(st.lists(st.tuples(names, objects), max_size=3).map(Pairs).flatmap(written), min_size=1, max_size=5)


@settings(max_examples=400, deadline=None)
@given(records)
@example(['{"a": ":", "a": 1}', '{"b": "\\u003a"}'])
@example(['{"a": "\\u003a", "a": "x"}'])
@example(['{"a": "\\\\u003a"}'])
@example(['{"a": {"b": 1, "c": "::::"}, "a": ""}', '{"b": "\\u003A\\u003a"}'])
def test_exact(raws: list[str]) -> None:
    parsed = Parsed(limit=1 << 20)
    encoded = [raw.encode() for raw in raws]
    parsed.add(encoded, b"\n".join(encoded))
    assert parsed.dropped == []
    assert parsed.values == [json.loads(raw) for raw in raws]
    assert [number for number, *_ in parsed.faults] == [number for number, raw in enumerate(raws) if repeats(raw)]
    for number, _, index, fault in parsed.faults:
        assert (fault.kind, index) == ("duplicate-key", number)
        assert raws[number].encode()[fault.at : fault.at + 1] == b'"'


def test_the_place_is_that_of_the_second_key() -> None:
    raw = '{"é": {"x": 1}, "x": [{"k": 1, "\\u006b": 2}]}'.encode()
    assert duplicate_key(raw) == ("k", raw.index(b'"\\u006b"'))
