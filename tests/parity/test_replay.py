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
    ("trainer", "versions", "cells"),
    [
        ("trl", {"trl": "1.16.0", "transformers": "5.23.0"}, 150),
        ("trl@0.24.0", {"trl": "0.24.0"}, 20),
        ("trl@0.17.0", {"trl": "0.17.0"}, 20),
        ("trl-dpo", {"trl": "1.16.0"}, 15),
        ("transformers", {"transformers": "5.23.0"}, 20),
        ("unsloth", {"unsloth": "2026.10.9"}, 60),
        ("unsloth@2025.3", {"unsloth_zoo": "2025.3.16"}, 10),
        ("axolotl", {"axolotl": "0.19.0"}, 60),
        ("llamafactory", {"llamafactory": "0.9.5"}, 60),
        ("torchtune", {"torchtune": "0.6.1"}, 60),
        ("ms-swift", {"ms-swift": "4.6.0"}, 60),
        ("mistral-finetune", {"mistral-common": "1.5.4"}, 40),
    ],
)
def test_recordings_cover_what_they_should(trainer: str, versions: dict[str, str], cells: int) -> None:
    found = [cell for cell in _of(trainer) if "raises" not in cell.header and "aside" not in cell.header]
    assert len(found) >= cells
    for package, version in versions.items():
        assert {cell.header["versions"].get(package) for cell in found} == {version}
    # A replay that compares nothing but wholly trained rows would prove little.
    rows = [row for cell in found for row in cell.rows]
    partly = sum(row.get("on") not in (None, [], [[0, len(row.get("ids", []))]]) for row in rows)
    assert partly > 1000 or trainer == "trl-dpo"


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
