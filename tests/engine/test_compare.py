from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lorads.engine.compare import compare
from lorads.findings import RowView, Token

rows = st.lists(st.integers(0, 4), max_size=12)


def view(ids: list[int]) -> RowView:
    return RowView("d.jsonl", 0, 1, [Token(str(i), i, "trained", True) for i in ids], None, None, "t", "x 1")


@given(rows, rows)
def test_stretches_hold_every_token_of_both_rows_once(a: list[int], b: list[int]) -> None:
    found = compare(view(a), view(b))
    left = [i for stretch in found.stretches for i in range(*stretch.left)]
    right = [i for stretch in found.stretches for i in range(*stretch.right)]
    assert left == list(range(len(a)))
    assert right == list(range(len(b)))
    for stretch in found.stretches:
        assert stretch.same == (a[slice(*stretch.left)] == b[slice(*stretch.right)])
