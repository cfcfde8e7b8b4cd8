"""lorads builds what the trainers built: the recordings of ``fixtures/trainers``, replayed."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from parity import recorder, recording, replay


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


def test_a_cell_set_aside_decides_nothing_even_when_its_replay_fails() -> None:
    source = {"name": "parity:edges.json#nowhere", "sha256": "of another file"}
    header = {"case": "c", "trainer": "x", "tokenizer": {"name": "t"}, "sources": [source], "transformation": "own"}
    cell = recording.Cell(header, [{"source": 0, "row": 0, "dropped": True}])
    with patch.object(recording, "source_sha256", lambda name: "of this one"):
        failed, aside = replay.replay(cell), replay.replay(recording.Cell({**header, "aside": "because"}, cell.rows))
    assert failed.failed
    assert failed.counts
    assert aside.failed == failed.failed
    assert not aside.counts
    assert "(because)" in replay.table([aside])


@dataclass(frozen=True)
class _Case:
    name: str
    transformation: str = "own"
    sources: tuple[str, ...] = ("realdata:x",)
    tokenizers: tuple[str, ...] = ("t",)
    settings: dict[str, Any] = field(default_factory=dict)
    rows: int = 1


@pytest.mark.parametrize(
    ("arguments", "keep", "left"),
    [
        ([], False, {"a": 2, "b": 2}),
        (["--only", "b,c"], False, {"a": 1, "b": 2}),
        (["--missing"], False, {"a": 1, "b": 2}),
        (["--only", "b"], True, {"old": 1, "a": 1, "b": 2}),
        (["--only", "c"], False, {"old": 1, "a": 1}),
    ],
)
def test_a_recorder_keeps_the_cells_that_it_is_not_asked_for(
    tmp_path: Path, arguments: list[str], keep: bool, left: dict[str, int]
) -> None:
    def cell(name: str, time: int) -> recording.Cell:
        return recording.Cell({"case": name, "trainer": "x", "tokenizer": {"name": "t"}, "time": time})

    file = tmp_path / f"t{recording.SUFFIX}"
    recording.write(file, [cell("old", 1), cell("a", 1)])
    options = recorder.parser(None).parse_args(arguments)
    recorder.run(options, tmp_path, [_Case("a"), _Case("b")], lambda case, *_: cell(case.name, 2), keep=keep)
    assert {cell.header["case"]: cell.header["time"] for cell in recording.read(file)} == left


def test_what_a_recorder_made_is_written_when_it_stops(tmp_path: Path) -> None:
    def record(case: _Case, tokenizer: str, held_out: bool) -> recording.Cell:
        if case.name == "b":
            raise AssertionError
        return recording.Cell({"case": case.name, "trainer": "x", "tokenizer": {"name": tokenizer}})

    options = recorder.parser(None).parse_args(["--held-out", str(tmp_path / "other")])
    cases = [_Case("hand", sources=("parity:edges.json#x",)), _Case("a"), _Case("b")]
    with pytest.raises(AssertionError):
        recorder.run(options, tmp_path, cases, record)
    found = recording.read(tmp_path / "other" / f"t{recording.SUFFIX}")
    assert [cell.header["case"] for cell in found] == ["a"]
