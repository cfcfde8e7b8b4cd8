"""Compressed inputs: same records, whatever the packing; half an archive gives what it holds."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorads.errors import UsageError
from lorads.sources import Limits, compressed, open_sources
from lorads.sources.compressed import Damaged, unpack
from sources.naive import read_bytes

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    zstd = pytest.importorskip("backports.zstd", reason="needs zstandard support: pip install backports.zstd")

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),
}
LINES = [
    b'{"id": %d, "text": "%s"}\n' % (number, hashlib.sha256(b"%d" % number).hexdigest().encode())
    for number in range(3000)
]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("name", ["data.jsonl.gz", "data.jsonl", "data.csv", "data.json"])
def test_content_decides_not_the_name(kind: str, name: str, tmp_path: Path) -> None:
    data = {
        "data.csv": b"a,b\n1,2\n",
        "data.json": b'[\n{"a": "1", "b": "2"}\n]',
    }.get(name, b'{"a": "1", "b": "2"}\n')
    found = read_bytes(tmp_path, name, PACK[kind](data))
    assert (found.values, found.problems) == ([{"a": "1", "b": "2"}], [])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(PACK)), st.lists(st.binary(max_size=200), min_size=1, max_size=4), st.integers(1, 300))
def test_members_follow_each_other(kind: str, members: list[bytes], piece_bytes: int) -> None:
    packed = b"".join(map(PACK[kind], members))
    pieces = list(unpack(kind, io.BytesIO(packed).read, piece_bytes))
    assert b"".join(pieces) == b"".join(members)
    assert all(0 < len(piece) <= piece_bytes for piece in pieces)


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("how", ["cut off", "corrupt", "followed by junk"])
def test_a_damaged_archive_gives_what_it_holds(kind: str, how: str, tmp_path: Path) -> None:
    packed = PACK[kind](b"".join(LINES))
    half = len(packed) * 2 // 3
    damaged = {
        "cut off": packed[:half],
        "corrupt": packed[:half] + b"\x55" * 200 + packed[half + 200 :],
        "followed by junk": packed + b"junk after the end of the archive",
    }[how]
    if kind == "bz2" and how != "followed by junk":  # one block of it holds all the lines
        with pytest.raises(UsageError, match="damaged"):
            read_bytes(tmp_path, "data.jsonl", damaged)
        return
    found = read_bytes(tmp_path, "data.jsonl", damaged, Limits(block_bytes=1 << 14))
    assert [kind for kind in found.kinds if kind == "truncated"] == ["truncated"]
    assert "damaged" in found.problems[-1][2].message
    if how == "corrupt":
        return
    assert found.kinds == ["truncated"]
    assert found.values == [{"id": n, "text": LINES[n].split(b'"')[5].decode()} for n in range(len(found.values))]
    assert len(found.values) > 500
    assert found.problems[0][0] in (len(found.values), len(found.values) + 1)


@pytest.mark.parametrize(
    ("name", "data"), [("data.csv", b"a,b\n" + b"1,2\n" * 9_000), ("data.json", b"[" + b",".join(LINES) + b"]")]
)
def test_other_formats_in_half_an_archive(name: str, data: bytes, tmp_path: Path) -> None:
    packed = gzip.compress(data, 1)
    found = read_bytes(tmp_path, name, packed[: len(packed) * 3 // 4], Limits(block_bytes=1 << 13))
    assert found.kinds == ["truncated"]
    assert len(found.values) > 500
    assert found.values[-1] in (
        {"a": "1", "b": "2"},
        {"id": len(found.values) - 1, "text": found.values[-1].get("text")},
    )


def test_nothing_readable_in_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n')[:11])
    with pytest.raises(UsageError, match="damaged"):
        open_sources([str(path)])


def test_an_archive_of_nothing_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(b""))
    with pytest.raises(UsageError, match="empty"):
        open_sources([str(path)])


def test_the_hash_is_of_the_stored_bytes(tmp_path: Path) -> None:
    packed = gzip.compress(b"".join(LINES))
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(packed)
    (source,) = open_sources([str(path)])
    assert all(block.payload is not None for block in source.blocks())
    assert source.sha256 == hashlib.sha256(packed).hexdigest()
    assert source.bytes_read == source.size == len(packed)
    assert source.compression == "gz"


def test_a_bomb_stays_small(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "data.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(b'{"a": "')
        for _ in range(64):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n{"b": 1}\n')
    limits = Limits(record_bytes=1 << 20, block_bytes=1 << 18)
    tracemalloc.start()
    (source,) = open_sources([str(path)], limits=limits)
    sizes = [len(block.payload or b"") for block in source.blocks()]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert max(sizes) < 1 << 20
    assert peak < 8 << 20


def test_zero_padding_after_a_member_is_allowed() -> None:
    packed = gzip.compress(b"one") + b"\x00" * 1000 + gzip.compress(b"two") + b"\x00" * 7
    assert b"".join(unpack("gz", io.BytesIO(packed).read, 100)) == b"onetwo"


def test_xz_that_wants_too_much_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = lzma.compress(b"x", preset=6)  # asks for 9 MiB
    assert list(unpack("xz", io.BytesIO(packed).read, 100)) == [b"x"]
    monkeypatch.setattr(compressed, "XZ_MEMORY", 1 << 20)
    with pytest.raises(Damaged, match="corrupt"):
        list(unpack("xz", io.BytesIO(packed).read, 100))
