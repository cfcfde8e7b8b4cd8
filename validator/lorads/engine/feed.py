"""Labelled batches of files, in order: what ``tokenize`` writes and ``view`` shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lorads.engine.chain import Chain, first_row, format_of
from lorads.engine.settings import Settings
from lorads.facts.batch import Batch
from lorads.sources import Limits, open_sources, read_block
from lorads.templates import PlanMismatch
from lorads.tokenizers import EngineMismatch


@dataclass(slots=True)
class Fed:
    """One labelled batch, with the numbers of its first row and line and the chain that labelled it."""

    path: str
    batch: Batch
    first_row: int
    first_line: int
    chain: Chain

    def line(self, position: int) -> int | None:
        lines = self.batch.records.lines
        return None if lines is None else self.first_line + lines[position]


def label_files(paths: Sequence[str], settings: Settings) -> Iterator[Fed]:
    """Batch by batch what the trainer builds. Raises ``UsageError`` like ``check``."""
    sources = open_sources(paths, limits=Limits(block_bytes=settings.block_bytes))
    first = first_row(sources[0], settings)
    chain = Chain(settings, first=first)
    for source in sources:
        name, _ = format_of(source, settings)
        row = line = 0
        for block in source.blocks():
            records = read_block(block)
            try:
                batch = chain.label(records, name)
            except (EngineMismatch, PlanMismatch):
                chain = Chain(replace(settings, encoder="tokenizers", plans=False), first=first)
                batch = chain.label(records, name)
            yield Fed(source.path, batch, row, line + 1, chain)
            row += len(records.values)
            line += records.line_count
