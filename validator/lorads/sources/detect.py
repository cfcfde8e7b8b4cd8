"""Which format a file has: by its first bytes where these are plain, by its name, and by what the text looks like."""

from __future__ import annotations

import codecs
from pathlib import PurePath

from lorads.errors import UsageError
from lorads.sources.compressed import SUFFIXES as COMPRESSED
from lorads.sources.json_faults import BOM
from lorads.sources.table import Head, Reader, readers

HEAD_BYTES = 256 << 10

_KNOWN_BINARY = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"\x7fELF": "a program (ELF)",
    b"MZ": "a program (Windows)",
    b"PK\x03\x04": "a ZIP archive (or an Office document)",
    b"%PDF": "a PDF document",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"SQLite format 3\x00": "an SQLite database",
    b"\x80\x02": "a Python pickle",
    b"\x80\x04": "a Python pickle",
    b"\x80\x05": "a Python pickle",
}
_CONTROL = bytes(c for c in range(32) if c not in b"\t\n\r\b\f\v\x1b") + b"\x7f"
_CONTROL_SHARE = 0.03
_WANTED = "lorads reads .jsonl, .json, .csv, .tsv, .parquet and .arrow (text also as .gz, .zst, .xz or .bz2)"


def base_suffix(path: str) -> str:
    """The suffix that names the format, in lower case: ``.jsonl`` of ``data.jsonl.gz``, empty if there is none."""
    suffixes = [suffix.lower() for suffix in PurePath(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def is_data_name(path: str) -> bool:
    """Whether a file of this name, found in a directory, is taken as data."""
    suffix = base_suffix(path)
    return any(
        suffix in reader.suffixes and not (reader.needs_file and PurePath(path).suffix.lower() != suffix)
        for reader in readers().values()
    )


def detect(path: str, suffix: str, head: Head) -> Reader:
    """The reader for a file. Raises UsageError for empty, binary and unknown files, naming ``path``."""
    if head.whole and not head.data.removeprefix(BOM).strip():
        raise UsageError(f"{path} is empty: there is nothing to check", "was it written or downloaded completely?")
    for reader in readers().values():
        if head.data.startswith(reader.magic):
            return reader
    _refuse_binary(path, head.data)
    text_readers = [reader for reader in readers().values() if not reader.needs_file]
    named = [reader for reader in text_readers if suffix in reader.suffixes]
    best = max(named or text_readers, key=lambda reader: reader.claim(head, suffix))
    if not named and not best.claim(head, suffix):
        if suffix in (".parquet", ".arrow"):
            raise UsageError(f"{path} is named {suffix} but does not hold such data", _WANTED)
        raise UsageError(f"{path} has no format that lorads knows: neither its name nor its content tells", _WANTED)
    return best


def _refuse_binary(path: str, data: bytes) -> None:
    for magic, what in _KNOWN_BINARY.items():
        if data.startswith(magic):
            raise UsageError(f"{path} is {what}, not a dataset", _WANTED)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or _looks_utf16(data):
        raise UsageError(f"{path} is UTF-16 text", "convert it to UTF-8: iconv -f UTF-16 -t UTF-8")
    if data.removeprefix(BOM).lstrip()[:1] in (b"{", b"["):
        return  # a stray NUL in JSON is the fault of one record
    controls = len(data) - len(data.translate(None, _CONTROL))
    if controls > 0.3 * len(data) or (controls > 16 and controls > _CONTROL_SHARE * len(data)):
        raise UsageError(f"{path} is binary data, not text", _WANTED)


def _looks_utf16(data: bytes) -> bool:
    """ASCII text in UTF-16 has a NUL at every second byte."""
    even, odd = data[0:4096:2], data[1:4096:2]
    nuls = sorted((even.count(0), odd.count(0)))
    return len(odd) > 1 and nuls[0] == 0 and nuls[1] > 0.8 * len(odd)
