"""lorads builds what the trainers built: the recordings of ``fixtures/trainers``, replayed."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from parity import recording, replay


@cache
def _cells() -> dict[str, recording.Cell]:
    return {cell.name: cell for cell in replay.cells(replay.RECORDINGS)}


def _comparable() -> list[str]:
    return [name for name, cell in _cells().items() if "raises" not in cell.header and "aside" not in cell.header]


@pytest.mark.parametrize("name", _comparable())
def test_same_ids_labels_and_dropped_rows(name: str) -> None:
    outcome = replay.replay(_cells()[name])
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.agrees, replay.table([outcome])


def _of(trainer: str) -> list[recording.Cell]:
    return [cell for cell in _cells().values() if cell.header["trainer"] == trainer]


@pytest.mark.parametrize(
    ("trainer", "versions", "tokenizers"),
    [("trl", {"trl": "1.16.0", "transformers": "5.23.0"}, {"deepseek-coder", "qwen3", "tinyllama"})],
)
def test_recordings_cover_what_they_should(trainer: str, versions: dict[str, str], tokenizers: set[str]) -> None:
    cells = [cell for cell in _of(trainer) if not cell.header["case"].startswith("edge-")]
    assert {cell.header["tokenizer"]["name"] for cell in cells} >= tokenizers
    for package, version in versions.items():
        assert {cell.header["versions"][package] for cell in cells} == {version}
    # A replay that compares nothing but untruncated, wholly trained rows would prove little.
    rows = [row for cell in cells for row in cell.rows]
    assert sum("dropped" in row for row in rows) > 100
    assert sum(row.get("on") not in (None, [[0, len(row.get("ids", []))]]) for row in rows) > 1000


@pytest.mark.parametrize(
    ("ids", "labels", "spans"),
    [
        ([], [], []),
        ([4, 5, 6], [4, 5, 6], [[0, 3]]),
        ([4, 5, 6, 7], [-100, 5, -100, 7], [[1, 2], [3, 4]]),
        ([4, 5], [-100, -100], []),
        ([4, 5], [-100, 6], None),
        ([4, 5], [4], None),
    ],
)
def test_spans_hold_the_labels(ids: list[int], labels: list[int], spans: list[list[int]] | None) -> None:
    assert recording.spans(ids, labels) == spans
    row = {"ids": ids, "labels": labels} if spans is None else {"ids": ids, "on": spans}
    assert recording.labels(row) == labels


def test_a_difference_is_seen() -> None:
    header = {"case": "c", "trainer": "x", "tokenizer": {"name": "t"}, "sources": [{"name": "s"}]}
    recorded: list[dict[str, Any]] = [{"source": 0, "row": 0, "ids": [1, 2], "on": [[1, 2]]}]
    recorded.append({"source": 0, "row": 1, "dropped": True})
    cell = recording.Cell(header, recorded)
    same = {0: {"input_ids": [1, 2], "labels": [-100, 2]}}
    assert replay.compare(cell, same).agrees
    for other in (
        {0: {"input_ids": [1, 3], "labels": [-100, 2]}},
        {0: {"input_ids": [1, 2], "labels": [1, 2]}},
        {**same, 1: {"input_ids": [1], "labels": [1]}},
        {},
    ):
        outcome = replay.compare(cell, other)
        assert not outcome.agrees
        assert outcome.differences
