"""What a source gives: blocks of bytes, and the records read out of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

ProblemKind = Literal[
    "invalid-json",
    "invalid-utf8",
    "nan-literal",
    "lone-surrogate",
    "duplicate-key",
    "bom",
    "too-deep",
    "too-long",
    "truncated",
    "not-a-table",
]


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading may use. ``record_bytes`` bounds one record, ``block_bytes`` is the size a block is cut at.

    Small blocks keep the parsed rows in the processor's cache: orjson reads 256 KiB blocks at twice the rate of
    4 MiB ones.
    """

    record_bytes: int = 64 << 20
    block_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of the file itself, at one record.

    ``index`` is the position in ``Records.values`` when the record could be read in spite of the fault, and None when
    it could not: such a record is no row, since no trainer could index it. ``line`` counts from the first line of the
    block (0-based); ``offset`` and ``length`` are bytes in the (decompressed) file.
    """

    kind: ProblemKind
    line: int | None
    offset: int
    length: int
    message: str
    """What is wrong and where, in words: no position in the file, which the finding carries."""
    hint: str
    """What to do about it."""
    index: int | None = None
    excerpt: str = ""
    """A few characters around the fault, as text that may be shown (undecodable bytes as ``\\xNN``)."""


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of one input: a unit of work, small enough for memory, cheap to hand to another process.

    Plain files give byte (or row group) ranges and each worker reads its own; streams that can't be entered in the
    middle (compressed, standard input) give the bytes themselves in ``payload``. Blocks depend on the input alone,
    never on the number of workers.
    """

    path: str
    reader: str
    """Name of the module of this room that reads it: ``jsonl``, ``json_array``, ``csv``, ``parquet``, ``arrow``."""
    index: int
    start: int
    end: int
    payload: bytes | None = None
    context: Any = None
    """What the reader needs besides the bytes: the header of a CSV file, for instance. Small and picklable."""
    problems: tuple[Problem, ...] = ()
    """Faults found while cutting the blocks (a line over the limit, the end of a broken archive)."""
    final: bool = False


@dataclass(slots=True)
class Records:
    """The records of one block, column by column.

    ``values[i]`` is the parsed record of the block's i-th row; ``lines[i]`` its line, 0-based from the block's first
    line (None where a format has no lines, such as Parquet); ``offsets[i]``/``lengths[i]`` its bytes in the
    (decompressed) file. ``line_count`` is how many physical lines the block spans, so that whoever puts blocks in order
    can number lines: line = 1 + lines of all earlier blocks + ``lines[i]``. Rows are numbered the same way. Blocks of
    JSON documents may be cut inside a line: their ``line_count`` counts line feeds, so that the sum still holds.

    Parquet and Arrow have neither lines nor bytes of a record: ``lines`` is None, ``offsets`` are row numbers in the
    file, ``lengths`` are 0, and the lines of problems None.
    """

    values: list[Any] = field(default_factory=list)
    lines: list[int] | None = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    line_count: int = 0
    problems: list[Problem] = field(default_factory=list)
