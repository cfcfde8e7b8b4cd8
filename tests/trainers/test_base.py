from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from lorads.tokenizers import Ids, Places
from lorads.trainers.base import (
    LabelBatch,
    Segments,
    common_prefix,
    concatenate,
    kept_by_length,
    segments_of,
    sum_by_row,
)

id_rows = st.lists(st.lists(st.integers(0, 3), max_size=6), max_size=6)


def flat(rows: list[list[int]]) -> Ids:
    starts = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return Ids(np.array([i for row in rows for i in row], np.int32), starts)


@given(
    st.lists(st.tuples(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), max_size=6)), max_size=6)
)
def test_common_prefix_is_that_of_each_pair(pairs: list[tuple[list[int], list[int]]]) -> None:
    def naive(a: list[int], b: list[int]) -> int:
        n = 0
        while n < min(len(a), len(b)) and a[n] == b[n]:
            n += 1
        return n

    found = common_prefix(flat([a for a, _ in pairs]), flat([b for _, b in pairs]))
    assert found.tolist() == [naive(a, b) for a, b in pairs]


@given(id_rows, st.none() | st.integers(1, 7), st.sampled_from(["keep_start", "keep_end"]))
def test_truncation_keeps_one_end(rows: list[list[int]], limit: int | None, mode: str) -> None:
    ids = flat(rows)
    kept = kept_by_length(ids, limit, mode)
    for i, row in enumerate(rows):
        mine = ids.row(i)[kept[ids.starts[i] : ids.starts[i + 1]]].tolist()
        expected = row if limit is None else row[:limit] if mode == "keep_start" else row[-limit:]
        assert mine == expected


@given(id_rows)
def test_sum_by_row(rows: list[list[int]]) -> None:
    ids = flat(rows)
    assert sum_by_row(ids.flat > 1, ids.starts).tolist() == [sum(i > 1 for i in row) for row in rows]


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[list[str], list[list[int]], list[list[int]]]:
    """Texts with random token borders (an empty token in front now and then, as BOS is) and random segments."""
    texts, tokens, segments = [], [], []
    for _ in range(draw(st.integers(0, 5))):
        text = "x" * draw(st.integers(0, 12))
        ends = sorted(draw(st.lists(st.integers(1, max(len(text), 1)), max_size=5))) if text else []
        ends = [*ends, len(text)] if text else ends
        bos = [0] if draw(st.booleans()) else []
        cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=4)))
        texts.append(text)
        tokens.append(bos + ends)
        segments.append([b - a for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)])
    return texts, tokens, segments


@given(cut_texts())
def test_tokens_belong_to_the_segment_where_they_end(case: tuple[list[str], list[list[int]], list[list[int]]]) -> None:
    texts, tokens, segments = case
    ids = flat([[0] * len(ends) for ends in tokens])
    rows = np.cumsum([0, *map(len, segments)]).astype(np.int64)
    count = int(rows[-1])

    def told(row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        ends = np.array(tokens[row], np.int64)
        return np.concatenate([[0], ends[:-1]])[: len(ends)], ends

    made = segments_of(
        Places(texts, ids, 0, 0, None, told),
        ids,
        np.array([n for row in segments for n in row], np.int64),
        np.zeros(count, np.int32),
        np.zeros(count, np.int8),
        rows,
    )
    assert made.bounds[0] == 0
    assert (np.diff(made.bounds) >= 0).all()
    for i, lengths in enumerate(segments):
        first, last = int(rows[i]), int(rows[i + 1])
        assert made.bounds[first] == ids.starts[i]
        assert made.bounds[last] == ids.starts[i + 1]
        borders = np.cumsum(lengths)
        for k in range(len(lengths) - 1):
            inside = sum(end <= borders[k] for end in tokens[i])
            assert made.bounds[first + k + 1] - ids.starts[i] == inside


def batch_of(rows: list[list[int]]) -> LabelBatch:
    ids = flat(rows)
    trained: npt.NDArray[np.bool_] = ids.flat > 0
    numbers = np.arange(len(rows) + 1)
    segments = Segments(ids.starts.copy(), np.arange(len(rows), dtype=np.int32), np.zeros(len(rows), np.int8), numbers)
    return LabelBatch(ids, trained, np.ones(len(ids.flat), np.bool_), segments, dropped={0: "first"} if rows else {})


@given(id_rows, st.randoms())
def test_parts_come_back_in_order(rows: list[list[int]], random: object) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    cut = len(rows) // 2
    parts = [(part, batch_of([rows[i] for i in part])) for part in (order[:cut], order[cut:]) if part]
    whole = concatenate(parts, len(rows))
    assert [whole.ids.row(i).tolist() for i in range(len(rows))] == rows
    assert whole.trained.tolist() == [i > 0 for row in rows for i in row]
    assert sorted(whole.dropped) == sorted(part[0] for part, _ in parts)
    for i, row in enumerate(rows):
        s = whole.segments
        assert int(s.bounds[s.rows[i + 1]] - s.bounds[s.rows[i]]) == len(row)


def test_labels_are_minus_100_where_not_trained() -> None:
    batch = batch_of([[0, 2], [3, 0, 1]])
    assert batch.fed(0) is None
    assert batch.fed(1) == ([3, 0, 1], [3, -100, 1])
