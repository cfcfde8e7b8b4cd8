"""The arithmetic that trainers share whose pieces are tokenized one by one."""

from __future__ import annotations

import numpy as np

from lorads.trainers._pieces import placed_as_one, placed_in_line, ranges, running


def test_ranges_lie_one_behind_the_other() -> None:
    first, counts = np.array([7, 0, 3]), np.array([2, 0, 3])
    assert ranges(first, counts).tolist() == [7, 8, 3, 4, 5]
    assert running(counts).tolist() == [0, 2, 2, 5]


def test_nothing_has_no_ranges() -> None:
    none = np.empty(0, np.int64)
    assert ranges(none, none).tolist() == []
    assert running(none).tolist() == [0]


def test_places_are_counted_from_the_beginning_of_the_row() -> None:
    silent = np.empty(0, np.int64)
    begin, end = placed_in_line([(2, placed_as_one("ab")), (3, (silent, silent)), (1, placed_as_one("c"))])
    assert (begin.tolist(), end.tolist()) == ([0, 5], [2, 6])
    assert [part.tolist() for part in placed_in_line([])] == [[], []]
