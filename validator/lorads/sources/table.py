"""The table of file formats, and what a format module hands in.

A format is one module of this package with a ``READER``: adding a file adds a format.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from lorads.sources.records import Block, Limits, Problem, Records
from lorads.sources.streams import Stream


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of a (decompressed) file, to recognise its format. ``whole`` when there is nothing more."""

    data: bytes
    whole: bool


@dataclass(frozen=True, slots=True)
class Skipped:
    """Context of a block that is not parsed: its bytes are accounted for by the block's problems."""

    lines: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A block as a reader's ``cut`` gives it: byte range ``[start, end)``, or row range in columnar formats.

    The pieces of one file follow each other without a gap. ``payload`` is None where the worker can read the range
    from the file.
    """

    start: int
    end: int
    payload: bytes | None = None
    context: Any = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Reader:
    """One file format.

    ``claim`` says how sure the module is (0 to 1) that the head is its format. ``cut`` runs once, in order, in the
    parent; ``parse`` runs anywhere. ``magic`` are the first bytes of binary formats, which are read by path
    (``needs_file``), not as a stream.
    """

    name: str
    suffixes: tuple[str, ...]
    claim: Callable[[Head, str], float]
    cut: Callable[[Stream, Limits], Iterator[Piece]]
    parse: Callable[[Block, bytes, Limits], Records]
    magic: tuple[bytes, ...] = ()
    needs_file: bool = False


@cache
def readers() -> dict[str, Reader]:
    """All formats, by name."""
    package = importlib.import_module(__package__ or "lorads.sources")
    found: dict[str, Reader] = {}
    for module in pkgutil.iter_modules(package.__path__):
        reader = getattr(importlib.import_module(f"{package.__name__}.{module.name}"), "READER", None)
        if isinstance(reader, Reader):
            found[reader.name] = reader
    return found


def damaged_end(stream: Stream, start: int, end: int, *, held: bool) -> Piece:
    """The last piece of a damaged archive: the half record ``[start, end)`` before the damage, and the problem.

    ``held``: whether there is such a half record; it counts as one line.
    """
    problem = Problem(
        kind="truncated",
        line=0,
        offset=start,
        length=end - start,
        message=f"the {stream.compression} file is damaged: {stream.fault}; what comes after this point is lost",
        hint="was a copy or a download cut off? make or fetch the file again",
    )
    return Piece(start, end, context=Skipped(int(held)), problems=(problem,))
