"""Sources: every input format, read in blocks, with the line and bytes of each record. One module a format."""

from __future__ import annotations

from lorads.sources.records import Block, Limits, Problem, ProblemKind, Records
from lorads.sources.source import STDIN, Source, SourceChanged, open_sources, read_block

__all__ = [
    "STDIN",
    "Block",
    "Limits",
    "Problem",
    "ProblemKind",
    "Records",
    "Source",
    "SourceChanged",
    "open_sources",
    "read_block",
]
