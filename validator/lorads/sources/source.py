"""Inputs as a person names them: files, directories, globs, standard input."""

from __future__ import annotations

import gc
import glob
import os
import stat
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from lorads.errors import UsageError
from lorads.sources.detect import HEAD_BYTES, base_suffix, detect, is_data_name
from lorads.sources.records import Block, Limits, Records
from lorads.sources.streams import Stream
from lorads.sources.table import Head, Piece, Reader, Skipped, readers

STDIN = "<stdin>"

_SAMPLE_BLOCK_BYTES = 128 << 10
_NOT_DATA = frozenset(("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"))
"""What Hugging Face datasets writes beside the data."""


class SourceChanged(UsageError):
    """A file was written to while it was read: nothing said about it would hold."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} changed while it was read", "wait until whatever writes it is done, and run again")
        self.path = path

    def __reduce__(self) -> tuple[type[SourceChanged], tuple[str]]:
        return type(self), (self.path,)


class Source:
    """One input. ``path`` is as the user gave it (joined, below a directory), ``<stdin>`` for standard input.

    ``reader`` and ``compression`` name its format, ``size`` its bytes on disk (None for streams). ``sha256`` and
    ``bytes_read`` are of the stored bytes, and complete once ``blocks`` is exhausted.
    """

    def __init__(self, path: str, limits: Limits) -> None:
        """Opens ``path`` and recognises its format. Raises UsageError if it can't be read or isn't data."""
        self.path = path
        self.sha256 = ""
        self.bytes_read = 0
        self._limits = limits
        self._started: list[Block] = []  # blocks of a stream that ``sample`` has taken out
        self._stamp: tuple[int, ...] | None = None
        self._rest: Iterator[Block] | None = None  # of a stream that can be read only once
        stream = self._open(limits)
        try:
            self._reader = self._recognise(stream)
        except BaseException:
            _close(stream)
            raise
        self.reader, self.compression = self._reader.name, stream.compression
        self.size = self._stamp[0] if self._stamp else None
        if self._stamp is None:
            self._rest = self._blocks(stream, limits)
        else:
            _close(stream)

    def blocks(self) -> Iterator[Block]:
        """The blocks, in order; reads the input once, holding about one block. Raises SourceChanged at the end of a
        file that was written to meanwhile. A stream (standard input, a pipe) can be read only once.
        """
        if self._rest is None:
            yield from self._blocks(self._open(self._limits), self._limits)
            return
        while self._started:
            yield self._started.pop(0)
        yield from self._rest

    def sample(self, count: int) -> list[Any]:
        """The first ``count`` readable records. Consumes nothing: ``blocks`` still begins at the beginning."""
        values: list[Any] = []
        if self._rest is None:
            limits = replace(self._limits, block_bytes=min(_SAMPLE_BLOCK_BYTES, self._limits.block_bytes))
            stream = self._open(limits)
            try:
                for block in self._cut(stream, limits):
                    values += read_block(block, limits).values
                    if len(values) >= count:
                        break
            finally:
                _close(stream)
            return values[:count]
        for block in self._started:
            values += read_block(block, self._limits).values
        while len(values) < count and (taken := next(self._rest, None)) is not None:
            self._started.append(taken)
            values += read_block(taken, self._limits).values
        return values[:count]

    def _open(self, limits: Limits) -> Stream:
        raw = _open_raw(self.path)
        seekable = False
        if self.path != STDIN:
            about = os.fstat(raw.fileno())
            seekable = stat.S_ISREG(about.st_mode)
            stamp = _stamp(about)
            if seekable and self._stamp not in (None, stamp):
                raw.close()
                raise SourceChanged(self.path)
            self._stamp = stamp if seekable else None
        suffix = base_suffix(self.path)
        try:
            return Stream(raw, path=self.path, chunk_bytes=limits.block_bytes, suffix=suffix, seekable=seekable)
        except OSError as error:
            raise _cannot_read(self.path, error) from error

    def _recognise(self, stream: Stream) -> Reader:
        try:
            data = stream.peek(HEAD_BYTES + 1)
        except OSError as error:
            raise _cannot_read(self.path, error) from error
        if stream.fault and not data:
            message = f"{self.path} is damaged: {stream.fault}, and nothing can be read"
            raise UsageError(message, "make or fetch the file again")
        reader = detect(self.path, stream.suffix, Head(data[:HEAD_BYTES], len(data) <= HEAD_BYTES))
        if reader.needs_file and stream.keeps:
            what = "compressed" if stream.compression else "from a pipe"
            raise UsageError(
                f"{self.path} holds {reader.name} data {what}, which cannot be read",
                "decompress the file first" if stream.compression else "give the file's path",
            )
        return reader

    def _blocks(self, stream: Stream, limits: Limits) -> Iterator[Block]:
        try:
            yield from self._cut(stream, limits)
            for _ in stream.chunks():  # what a reader did not need still belongs to the hash
                continue
        except OSError as error:
            raise _cannot_read(self.path, error) from error
        finally:
            _close(stream)
        self.sha256, self.bytes_read = stream.sha256, stream.bytes_read
        if self._stamp is not None and _stamp(Path(self.path).stat()) != self._stamp:
            raise SourceChanged(self.path)

    def _cut(self, stream: Stream, limits: Limits) -> Iterator[Block]:
        """The reader's pieces, numbered, the last one marked. There is always one at least."""
        last = Piece(0, 0, b"" if stream.keeps or self._reader.needs_file else None, Skipped(0))
        index = -1
        for piece in self._reader.cut(stream, limits):
            if index >= 0:
                yield self._block(last, index, final=False)
            last, index = piece, index + 1
        yield self._block(last, max(index, 0), final=True)

    def _block(self, piece: Piece, index: int, *, final: bool) -> Block:
        return Block(
            path=self.path,
            reader=self.reader,
            index=index,
            start=piece.start,
            end=piece.end,
            payload=piece.payload,
            context=piece.context,
            problems=piece.problems,
            final=final,
        )


def open_sources(paths: Sequence[str], *, limits: Limits | None = None) -> list[Source]:
    """The inputs behind ``paths``: files, directories (all data files below, sorted, hidden ones left out), globs, and
    ``-`` for standard input. A file that is named twice is read once.

    Raises UsageError, with one message that names the path, for what is missing, unreadable, empty or no data.
    """
    limits = limits or Limits()
    sources: list[Source] = []
    seen: set[str] = set()
    for given in paths:
        for path in _expand(given):
            real = path if path == STDIN else os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                sources.append(Source(path, limits))
    return sources


def read_block(block: Block, limits: Limits | None = None) -> Records:
    """The records of one block. Pure but for reading the block's range of the file; runs in any process.

    Raises SourceChanged when the file has become shorter, and UsageError when it can't be read any more.
    """
    limits = limits or Limits()
    if isinstance(block.context, Skipped):
        return Records(line_count=block.context.lines, problems=list(block.problems))
    data = _range(block) if block.payload is None else block.payload
    collecting = gc.isenabled()
    gc.disable()  # parsed data has no cycles, and looking for some takes a fifth of the time
    try:
        records = readers()[block.reader].parse(block, data, limits)
    finally:
        if collecting:
            gc.enable()
    if block.problems:
        records.problems = sorted([*records.problems, *block.problems], key=lambda problem: problem.offset)
    return records


def _range(block: Block) -> bytes:
    with _open_raw(block.path) as file:
        file.seek(block.start)
        data = file.read(block.end - block.start)
    if len(data) < block.end - block.start:
        raise SourceChanged(block.path)
    return data


def _close(stream: Stream) -> None:
    if stream.path != STDIN:
        stream.close()


def _open_raw(path: str) -> IO[bytes]:
    if path == STDIN:
        return sys.stdin.buffer
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise _cannot_read(path, error) from error


def _cannot_read(path: str, error: OSError) -> UsageError:
    if isinstance(error, FileNotFoundError):
        return UsageError(f"{path} does not exist", "check the spelling, and where you are")
    if isinstance(error, PermissionError):
        return UsageError(f"{path} may not be read: permission denied", f"chmod +r {path}, or run as its owner")
    return UsageError(f"{path} cannot be read: {error.strerror or error}")


def _stamp(about: os.stat_result) -> tuple[int, ...]:
    """What changes when somebody writes to a file."""
    return about.st_size, about.st_mtime_ns, about.st_ino


def _expand(given: str) -> list[str]:
    if given == "-":
        return [STDIN]
    if os.path.lexists(given) or not glob.has_magic(given):
        matches = [given]
    else:
        matches = sorted(glob.glob(given, recursive=True))  # noqa: PTH207 (also takes absolute patterns)
        if not matches:
            raise UsageError(f"no file matches {given}", "check the pattern; ** goes through directories")
    return [file for match in matches for file in (_below(match) if Path(match).is_dir() else [match])]


def _below(directory: str) -> list[str]:
    """All data files in and below ``directory``. Links are followed only to what lies in it."""
    root = Path(directory).resolve()
    found: list[str] = []

    def failed(error: OSError) -> None:
        raise _cannot_read(str(error.filename or directory), error)

    for parent, directories, names in os.walk(directory, onerror=failed):
        directories[:] = sorted(name for name in directories if not name.startswith("."))
        for name in sorted(names):
            path = Path(parent) / name
            if name.startswith(".") or name in _NOT_DATA or not is_data_name(name):
                continue
            if path.is_file() and path.resolve().is_relative_to(root):
                found.append(str(path))
    if not found:
        raise UsageError(
            f"{directory} holds no data files",
            "lorads takes .jsonl, .json, .csv, .tsv, .parquet and .arrow files there",
        )
    return found
