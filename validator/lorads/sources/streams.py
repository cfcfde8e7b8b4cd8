"""One input as a stream of equal chunks: hashed as stored, decompressed, able to show its beginning first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import IO

from lorads.sources.compressed import Damaged, compression_of, unpack


class Stream:
    """Reads ``raw`` once, from the start.

    ``keeps`` says whether the bytes must travel in the blocks, since nobody can read them again by offset.
    ``fault`` is set when the end was reached too early (a broken archive), and says why.
    """

    def __init__(self, raw: IO[bytes], *, path: str, chunk_bytes: int, suffix: str = "", seekable: bool = True) -> None:
        self.path = path
        self.suffix = suffix
        self.bytes_read = 0
        self.fault: str | None = None
        self._raw = raw
        self._chunk_bytes = chunk_bytes
        self._hash = hashlib.sha256()
        self._first = self._take(16)
        self.compression = compression_of(self._first)
        self.keeps = self.compression is not None or not seekable
        self._pieces = self._decompressed()
        self._ahead = b""

    @property
    def sha256(self) -> str:
        """Of the stored bytes read so far."""
        return self._hash.hexdigest()

    def peek(self, size: int) -> bytes:
        """The first ``size`` decompressed bytes (fewer at the end of the input), which ``chunks`` gives again."""
        self._fill(size)
        return self._ahead[:size]

    def chunks(self) -> Iterator[bytes]:
        """All decompressed bytes, in chunks of ``chunk_bytes`` (the last may be shorter)."""
        while True:
            self._fill(self._chunk_bytes)
            if not self._ahead:
                return
            chunk, self._ahead = self._ahead[: self._chunk_bytes], self._ahead[self._chunk_bytes :]
            yield chunk

    def close(self) -> None:
        self._raw.close()

    def _fill(self, size: int) -> None:
        """Reads on until ``size`` bytes wait. A broken archive ends the stream and leaves its reason in ``fault``."""
        waiting = [self._ahead]
        have = len(self._ahead)
        try:
            while have < size and (piece := next(self._pieces, b"")):
                waiting.append(piece)
                have += len(piece)
        except Damaged as damage:
            self.fault = str(damage)
        self._ahead = waiting[0] if len(waiting) == 1 else b"".join(waiting)

    def _decompressed(self) -> Iterator[bytes]:
        if self.compression:
            yield from unpack(self.compression, self._read, self._chunk_bytes)
            return
        while data := self._read(self._chunk_bytes):
            yield data

    def _read(self, size: int) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first + self._take(max(size - len(first), 0))
        return self._take(size)

    def _take(self, size: int) -> bytes:
        data = self._raw.read(size)
        self._hash.update(data)
        self.bytes_read += len(data)
        return data
