"""Recordings: which rows a trainer was given, by reference, and the ids and labels it built from them.

A recording file is xz-compressed JSON lines. A line with the key ``case`` is the header of a cell (one case under one
tokenizer); the lines up to the next header are its rows, in the order in which the trainer saw them::

    {"case": …, "tokenizer": …, "trainer": …, "versions": …, "settings": …, "template": …, "transformation": …,
     "sources": [{"name": …, "sha256": …}], "arguments": […], "aside": …, "raises": …}
    {"source": 0, "row": 17, "ids": [5, 9, 2], "on": [[1, 3]]}
    {"source": 0, "row": 18, "dropped": true, "why": …}

``source`` indexes ``sources``, ``row`` counts the records of that file from 0. Labels equal the ids inside the
half-open spans ``on`` and are -100 elsewhere; where they don't (rows that bring their own), ``labels`` has them in
full. A row that stops the trainer counts as dropped. ``arguments`` are the options of ``lorads tokenize`` that mean the
recorded ``settings`` (tokenizer and template are references of their own). A case the trainer refuses as a whole has
``raises`` (the exception's name and message) and no rows. A case with ``aside`` (the reason) is shown but decides
nothing. No text of any row is recorded.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import realdata

HERE = Path(__file__).resolve().parent
SUFFIX = ".jsonl.xz"
MASKED = -100


@dataclass
class Cell:
    """One case under one tokenizer: what was asked (``header``) and what was built (``rows``)."""

    header: dict[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.header['trainer']}:{self.header['case']}.{self.header['tokenizer']['name']}"


def spans(ids: list[int], labels: list[int]) -> list[list[int]] | None:
    """The half-open spans in which labels equal ids, when they are -100 everywhere else; None when they are not."""
    found: list[list[int]] = []
    if len(ids) != len(labels):
        return None
    for position, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if label == MASKED:
            continue
        if label != token:
            return None
        if found and found[-1][1] == position:
            found[-1][1] += 1
        else:
            found.append([position, position + 1])
    return found


def labels(row: dict[str, Any]) -> list[int]:
    """The labels of a recorded row."""
    if "labels" in row:
        return list(row["labels"])
    ids = row["ids"]
    found = [MASKED] * len(ids)
    for begin, end in row["on"]:
        found[begin:end] = ids[begin:end]
    return found


def write(path: Path, cells: Iterable[Cell]) -> None:
    lines = (json.dumps(line, separators=(",", ":")) for cell in cells for line in (cell.header, *cell.rows))
    content = "".join(line + "\n" for line in lines).encode()
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    path.write_bytes(lzma.compress(content, filters=filters))


def read(path: Path) -> Iterator[Cell]:
    cell: Cell | None = None
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            if "case" in record:
                if cell is not None:
                    yield cell
                cell = Cell(record)
            elif cell is not None:
                cell.rows.append(record)
    if cell is not None:
        yield cell


def source_path(name: str) -> Path:
    """A source's file: ``realdata:<id>``, ``asset:<path>`` or ``parity:<path>`` (beside this module).

    Raises ``realdata.Unavailable`` (or skips the test) when it can't be had.
    """
    kind, _, place = name.partition(":")
    if kind == "realdata":
        return realdata.path(place)
    return realdata.asset(place) if kind == "asset" else HERE / place


@cache
def source_rows(name: str) -> list[Any]:
    """The records of a source: a JSON array or JSON lines, gzipped or not. ``#key`` picks an array of an object."""
    name, _, key = name.partition("#")
    path = source_path(name)
    content = path.read_bytes()
    decoded = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    if ".jsonl" in path.name:
        return [json.loads(line) for line in decoded.split("\n") if line.strip()]
    found = json.loads(decoded)
    rows: list[Any] = found[key]["rows"] if key else found
    return rows


@cache
def source_sha256(name: str) -> str:
    """The sha256 of a source's file, or of the rows of one array of it, written as compact JSON."""
    if "#" in name:
        content = json.dumps(source_rows(name), separators=(",", ":")).encode()
    else:
        content = source_path(name).read_bytes()
    return hashlib.sha256(content).hexdigest()
