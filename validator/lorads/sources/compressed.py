"""Compressed files: recognised by their first bytes, unpacked as a stream within fixed memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from lorads.errors import UsageError

SUFFIXES = {".gz": "gz", ".zst": "zst", ".xz": "xz", ".bz2": "bz2"}

XZ_MEMORY = 256 << 20  # xz -9 needs 65 MiB; a file may ask for up to 4 GiB
_READ = 256 << 10


class Damaged(Exception):
    """The archive ends early or is corrupt: what came before is good."""


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's decompressor with the interface that bz2, lzma and zstd share."""

    def __init__(self) -> None:
        import zlib

        self._zlib = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._zlib.decompress(self._zlib.unconsumed_tail + data, max(max_length, 0))


def compression_of(first: bytes) -> str | None:
    """``gz``, ``zst``, ``xz`` or ``bz2`` by the first bytes of a file (10 are enough), None for plain files."""
    if first.startswith(b"\x1f\x8b\x08"):
        return "gz"
    if first.startswith(b"\x28\xb5\x2f\xfd") or (first[1:4] == b"\x2a\x4d\x18" and first[0] & 0xF0 == 0x50):
        return "zst"
    if first.startswith(b"\xfd7zXZ\x00"):
        return "xz"
    if first[:3] == b"BZh" and first[4:10] == b"1AY&SY":
        return "bz2"
    return None


def unpack(kind: str, read: Callable[[int], bytes], piece_bytes: int) -> Iterator[bytes]:
    """Decompressed bytes in pieces of at most ``piece_bytes``, over all members of the archive.

    Raises `Damaged` after the last good piece when the archive is cut off or corrupt, and UsageError when zstd is
    not available.
    """
    new, errors = _unpacker(kind)
    data = read(_READ)
    while data:
        unpacker = new()
        try:
            while not unpacker.eof:
                piece = unpacker.decompress(data, piece_bytes)
                data = b""
                if piece:
                    yield piece
                if unpacker.needs_input and not unpacker.eof:
                    data = read(_READ)
                    if not data:
                        raise Damaged("the compressed stream ends before its end mark")
        except errors as error:
            raise Damaged(f"the compressed stream is corrupt ({error})") from error
        data = _next_member(unpacker.unused_data, read)


def _next_member(data: bytes, read: Callable[[int], bytes]) -> bytes:
    """The bytes of the next member; zero padding after one is allowed, as gzip and xz allow it."""
    while not (data := data.lstrip(b"\x00")):
        data = read(_READ)
        if not data:
            return b""
    return data


def _unpacker(kind: str) -> tuple[Callable[[], _Unpacker], tuple[type[Exception], ...]]:
    if kind == "gz":
        import zlib

        return _Gzip, (zlib.error,)
    if kind == "bz2":
        import bz2

        return bz2.BZ2Decompressor, (OSError,)
    if kind == "xz":
        import lzma

        return (lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY)), (lzma.LZMAError,)
    return _zstd()


def _zstd() -> tuple[Callable[[], _Unpacker], tuple[type[Exception], ...]]:
    """Python 3.14 has zstd; before, the backport of the same module."""
    try:
        from compression import zstd
    except ImportError:
        try:
            from backports import zstd
        except ImportError as error:
            raise UsageError(
                "reading .zst files needs zstandard support, which this Python lacks", "pip install backports.zstd"
            ) from error
    return zstd.ZstdDecompressor, (zstd.ZstdError,)
