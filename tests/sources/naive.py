"""Reading for tests: everything a source gives, in file order, with lines of the whole file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorads.sources import Limits, Problem, Source, open_sources, read_block


@dataclass
class All:
    """``lines`` count from 1; ``problems`` are (line or None, index in ``values`` or None, problem)."""

    values: list[Any] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    problems: list[tuple[int | None, int | None, Problem]] = field(default_factory=list)
    line_count: int = 0
    blocks: int = 0
    reader: str = ""

    @property
    def kinds(self) -> list[str]:
        return [problem.kind for _, _, problem in self.problems]


def read_source(source: Source, limits: Limits) -> All:
    found = All(reader=source.reader)
    end = 0
    for number, block in enumerate(source.blocks()):
        assert (block.index, block.start) == (number, end)
        end = block.end
        records = read_block(block, limits)
        rows = len(found.values)
        assert len(records.values) == len(records.offsets) == len(records.lengths)
        for problem in records.problems:
            line = None if problem.line is None else found.line_count + problem.line + 1
            index = None if problem.index is None else rows + problem.index
            assert problem.index is None or 0 <= problem.index < len(records.values)
            found.problems.append((line, index, problem))
        found.values += records.values
        if records.lines is not None:
            assert len(records.lines) == len(records.values)
            found.lines += [found.line_count + line + 1 for line in records.lines]
        found.offsets += records.offsets
        found.lengths += records.lengths
        found.line_count += records.line_count
        found.blocks += 1
        final = block.final
    assert final
    return found


def read(path: Path, limits: Limits | None = None) -> All:
    limits = limits or Limits()
    (source,) = open_sources([str(path)], limits=limits)
    return read_source(source, limits)


def read_bytes(directory: Path, name: str, data: bytes, limits: Limits | None = None) -> All:
    path = directory / name
    path.write_bytes(data)
    return read(path, limits)
