"""JSON values for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

text = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ['": "', '":', "\u2028", 'a"b', "\\", "\\\\u003a", '},\n {"id": 1', "], [", "\U0001f600", "x" * 40, " : ", "{}"]
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    scalars | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
rows: st.SearchStrategy[dict[str, Any]] = st.dictionaries(text, values, max_size=4)
