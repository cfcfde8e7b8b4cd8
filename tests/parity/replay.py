"""Replays recordings through lorads and shows the parity table: ``python tests/parity/replay.py [PATH…]``.

PATH is a recording or a directory of them (default: all of ``fixtures/trainers``). Each cell's training rows are
built again from their sources and go through ``lorads tokenize``; ids, labels and dropped rows are compared with what
the real trainer built. Exit 1 unless everything agrees. Cells whose sources can't be had here are listed as skipped,
and cells that the trainer itself refuses as refused: they are part of the recording, but there is nothing to compare.
Cells set ``aside`` are compared and shown, but decide nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pytest

import realdata
from parity import recording, rows

RECORDINGS = Path(__file__).resolve().parent.parent.parent / "fixtures" / "trainers"
SHIPPED = {"deepseek-coder"}
"""Tokenizers that come with lorads; the others are assets."""
SHOWN = 5


@dataclass
class Outcome:
    """What a replay of one cell found. ``rows`` counts the rows compared, the others those that agree."""

    cell: str
    rows: int = 0
    ids: int = 0
    labels: int = 0
    drops: int = 0
    kept: int = 0
    """Rows the trainer kept: ``ids`` and ``labels`` are out of these, ``drops`` out of ``rows``."""
    skipped: str = ""
    refused: str = ""
    failed: str = ""
    aside: str = ""
    """Why the cell decides nothing."""
    differences: list[str] = field(default_factory=list)

    @property
    def counts(self) -> bool:
        return not (self.skipped or self.refused or self.aside)

    @property
    def agrees(self) -> bool:
        return not self.failed and self.ids == self.labels == self.kept and self.drops == self.rows


def recordings(path: Path) -> list[Path]:
    return sorted(path.rglob(f"*{recording.SUFFIX}")) if path.is_dir() else [path]


def cells(path: Path) -> Iterator[recording.Cell]:
    for file in recordings(path):
        yield from recording.read(file)


def training_rows(cell: recording.Cell) -> list[rows.Row | None]:
    """The rows the trainer was given. Raises ``ValueError`` when a source is another file than the recorded one."""
    for source in cell.header["sources"]:
        if recording.source_sha256(source["name"]) != source["sha256"]:
            raise ValueError(f"{source['name']} is another file than the recording was made from")
    change = rows.transformation(cell.header["transformation"])
    names = [source["name"] for source in cell.header["sources"]]
    return [change(recording.source_rows(names[row["source"]])[row["row"]]) for row in cell.rows]


def tokenizer_argument(cell: recording.Cell) -> str:
    tokenizer = cell.header["tokenizer"]
    if "file" in tokenizer:
        return str(recording.source_path(tokenizer["file"]))
    name = tokenizer["name"]
    return name if name in SHIPPED else str(realdata.asset_dir(f"tokenizers/{name}"))


def command(cell: recording.Cell, data: Path, out: Path) -> list[str]:
    """``lorads tokenize`` with the options that mean the recorded settings."""
    arguments = [
        "tokenize",
        str(data),
        "--tokenizer",
        tokenizer_argument(cell),
        "-o",
        str(out),
        *cell.header["arguments"],
    ]
    if cell.header["template"]:
        arguments += ["--chat-template", str(recording.source_path(cell.header["template"]["name"]))]
    return arguments


def built_by_lorads(cell: recording.Cell, folder: Path) -> dict[int, dict[str, Any]]:
    """What lorads makes of a cell's rows, by row. Raises ``RuntimeError`` when the command fails."""
    from click.testing import CliRunner

    from lorads.cli import cli

    data, out = folder / "data.jsonl", folder / "out.jsonl"
    rows.write(data, training_rows(cell))
    with _today(cell.header.get("date")):
        result = CliRunner().invoke(cli, command(cell, data, out))
    if result.exit_code != 0 or not out.exists():
        said = result.output.strip() or repr(result.exception)
        raise RuntimeError(f"exit {result.exit_code}: {said[:600]}")
    with out.open(encoding="utf-8") as lines:
        return {record["row"]: record for record in map(json.loads, lines)}


@contextmanager
def _today(recorded: str | None) -> Iterator[None]:
    """What ``strftime_now`` tells templates: the day of the recording, for templates that write the date."""
    if recorded is None:
        yield
        return

    then = datetime.fromisoformat(recorded)

    class Then(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.combine(then.date(), then.time(), tz)

    with patch("lorads.templates.template.datetime", Then):
        yield


def compare(cell: recording.Cell, built: dict[int, dict[str, Any]]) -> Outcome:
    """Row by row: was it kept or dropped, are the ids the same, are the labels."""
    outcome = Outcome(cell.name, rows=len(cell.rows), aside=cell.header.get("aside", ""))
    for position, recorded in enumerate(cell.rows):
        mine = built.get(position)
        kept = "ids" in recorded
        outcome.kept += kept
        outcome.drops += kept == (mine is not None)
        if kept and mine is not None:
            outcome.ids += mine["input_ids"] == recorded["ids"]
            outcome.labels += mine["labels"] == recording.labels(recorded)
        difference = _difference(recorded, mine)
        if difference and len(outcome.differences) < SHOWN:
            source = cell.header["sources"][recorded["source"]]["name"]
            outcome.differences.append(f"row {position} ({source} row {recorded['row']}): {difference}")
    return outcome


def _difference(recorded: dict[str, Any], mine: dict[str, Any] | None) -> str:
    if (mine is None) != ("ids" not in recorded):
        return "kept by the trainer, dropped by lorads" if mine is None else "dropped by the trainer, kept by lorads"
    if mine is None:
        return ""
    for what, theirs, ours in (
        ("ids", recorded["ids"], mine["input_ids"]),
        ("labels", recording.labels(recorded), mine["labels"]),
    ):
        if theirs != ours:
            at = next((i for i, pair in enumerate(zip(theirs, ours, strict=False)) if pair[0] != pair[1]), -1)
            at = at if at >= 0 else min(len(theirs), len(ours))
            around = slice(max(0, at - 2), at + 4)
            sides = f"trainer {theirs[around]} of {len(theirs)}, lorads {ours[around]} of {len(ours)}"
            return f"{what} differ at {at}: {sides}"
    return ""


def replay(cell: recording.Cell) -> Outcome:
    """One cell through lorads. Never raises for what lorads or the data do: the outcome says it."""
    aside = cell.header.get("aside", "")
    if "raises" in cell.header:
        return Outcome(cell.name, refused=cell.header["raises"], aside=aside)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return compare(cell, built_by_lorads(cell, Path(folder)))
    except (realdata.Unavailable, pytest.skip.Exception) as why:
        return Outcome(cell.name, skipped=str(why), aside=aside)
    except (RuntimeError, ValueError) as why:
        return Outcome(cell.name, rows=len(cell.rows), failed=str(why), aside=aside)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "-"


def table(outcomes: list[Outcome]) -> str:
    width = max((len(outcome.cell) for outcome in outcomes), default=4)
    lines = [f"{'trainer:case.tokenizer':{width}}  {'rows':>5}  {'ids %':>6}  {'labels %':>8}  {'drops %':>7}"]
    for outcome in outcomes:
        said = outcome.skipped and f"skipped: {outcome.skipped}"
        said = said or (outcome.refused and f"refused by the trainer: {outcome.refused}")
        said = said or (outcome.failed and f"failed: {outcome.failed}")
        why = outcome.aside and f"  ({outcome.aside})"
        if said:
            lines.append(f"{outcome.cell:{width}}  {outcome.rows:5}  {said}{why}")
            continue
        ids, labels = _percent(outcome.ids, outcome.kept), _percent(outcome.labels, outcome.kept)
        drops = _percent(outcome.drops, outcome.rows)
        lines.append(f"{outcome.cell:{width}}  {outcome.rows:5}  {ids:>6}  {labels:>8}  {drops:>7}{why}")
        lines += [] if why else [f"    {difference}" for difference in outcome.differences]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, default=[RECORDINGS], metavar="PATH")
    parser.add_argument("--only", default="", help="replay only the cells whose name holds this")
    options = parser.parse_args()
    outcomes = []
    for path in options.paths:
        if not recordings(path):
            parser.error(f"no recordings in {path}")
        for cell in cells(path):
            if options.only in cell.name:
                outcomes.append(replay(cell))
                print(".", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(table(outcomes))
    compared = [outcome for outcome in outcomes if outcome.counts]
    agreeing = sum(outcome.agrees for outcome in compared)
    print(f"{agreeing} of {len(compared)} cells agree in every row, {sum(outcome.rows for outcome in compared)} rows")
    return 0 if compared and agreeing == len(compared) else 1


if __name__ == "__main__":
    sys.exit(main())
