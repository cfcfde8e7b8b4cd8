"""Whatever way a file is cut into blocks, the report is the same."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lorads.engine.chain import BlockResult
from lorads.engine.merge import Merge
from lorads.engine.settings import Settings
from lorads.findings import DatasetRule, Finding, Input, Row, RowRule, Severity
from lorads.findings.catalogue import Selection


class Repeats(DatasetRule):
    """Rows that come again."""

    id, name, severity = "XXX001", "repeats", Severity.WARNING

    def message(self, row: Row) -> str:
        return f"as row {row['first_row']} (line {row['first_line']}) of {row['first_path']}"

    def hint(self, row: Row) -> str:
        return "take it out"


class Always(RowRule):
    """Rises when every row fails."""

    id, name, severity, every_row = "XXX002", "always", Severity.WARNING, Severity.ERROR


def settings(limit: int = 1000) -> Settings:
    return Settings("none", max_findings=limit)


def merged(files: list[list[int]], cuts: list[int], failing: set[int], limit: int = 1000) -> Any:
    """Files of rows (a row is its key), each cut into blocks; rows of keys in ``failing`` fail XXX002. Every third line
    is blank."""
    merge = Merge(settings(limit), Selection((Repeats(), Always()), frozenset({"XXX001", "XXX002"}), {}))
    for number, keys in enumerate(files):
        merge.begin(Input(f"{number}.jsonl", "text", ""))
        borders = [0, *sorted(cut for cut in cuts if cut < len(keys)), len(keys)]
        for index, (begin, end) in enumerate(itertools.pairwise(borders)):
            lines = [i + i // 2 for i in range(begin, end)]
            first = begin + begin // 2
            result = BlockResult(index, rows=end - begin, lines=end + end // 2 - first)
            result.keys["XXX001"] = np.array(keys[begin:end], np.uint64)
            result.absent["XXX001"] = np.array([key == 0 for key in keys[begin:end]], np.bool_)
            result.row_lines = np.array([line - first + 1 for line in lines], np.int64)
            result.applicable["XXX002"] = end - begin
            for i in range(begin, end):
                if keys[i] in failing:
                    key = ("XXX002", Severity.WARNING)
                    result.counts[key] = result.counts.get(key, 0) + 1
                    at = lines[i - begin] - first + 1
                    result.findings.append(
                        Finding(*("XXX002", "always", Severity.WARNING, "", i - begin, at, "m", "h"))
                    )
            merge.add(result)
    summary, findings = merge.finish()
    return summary, [(f.rule, f.severity, f.path, f.row, f.line, f.message) for f in findings]


keys = st.lists(st.integers(0, 5), max_size=20)


@given(st.lists(keys, min_size=1, max_size=3), st.lists(st.integers(0, 20), max_size=4), st.sets(st.integers(0, 5)))
def test_cutting_changes_nothing(files: list[list[int]], cuts: list[int], failing: set[int]) -> None:
    whole = merged(files, [], failing)
    assert merged(files, cuts, failing) == whole
    summary, findings = whole
    assert summary.rows == sum(map(len, files))
    seen: dict[int, tuple[int, int]] = {}
    expected = []
    for number, keys in enumerate(files):
        for row, key in enumerate(keys):
            if key and key in seen:
                expected.append((f"{number}.jsonl", row, row + row // 2 + 1, seen[key]))
            seen.setdefault(key, (number, row))
    found = [(path, row, line) for rule, _, path, row, line, _ in findings if rule == "XXX001"]
    assert found == [(path, row, line) for path, row, line, _ in expected]
    assert summary.by_rule.get("XXX001", 0) == len(expected)


def test_every_row_failing_is_worse() -> None:
    summary, findings = merged([[1, 2, 3]], [], {1, 2, 3})
    assert {severity for _, severity, *_ in findings} == {Severity.ERROR}
    assert summary.by_severity == {"error": 3, "warning": 0, "info": 0}
    summary, findings = merged([[1, 2, 3]], [], {1, 2})
    assert {severity for _, severity, *_ in findings} == {Severity.WARNING}


def test_findings_are_capped_and_counts_are_not() -> None:
    summary, findings = merged([[1, 1, 1, 1, 1]], [2], set(), limit=2)
    assert summary.by_rule == {"XXX001": 4}
    assert [row for _, _, _, row, _, _ in findings] == [1, 2]


def test_first_of_another_file_is_named() -> None:
    _, findings = merged([[7], [7]], [], set())
    assert findings == [("XXX001", Severity.WARNING, "1.jsonl", 0, 1, "as row 0 (line 1) of 0.jsonl")]
