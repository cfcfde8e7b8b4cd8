"""What a person may name, and what is said about what can't be checked."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import sys
import threading
from pathlib import Path

import pytest

from lorads.errors import UsageError
from lorads.sources import STDIN, Limits, SourceChanged, open_sources, read_block
from lorads.sources.table import readers
from sources.naive import read_source

ROW = b'{"a": 1}\n'


def names(paths: list[str]) -> list[str]:
    return [source.path for source in open_sources(paths)]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [
        "b.jsonl", "a.json", "sub/c.csv", "sub/deeper/d.jsonl.gz", "sub/README.md", ".hidden.jsonl", ".git/e.jsonl",
        "dataset_info.json", "f.parquet.gz", "model.safetensors", "G.JSONL",
    ]:  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a,b\n1,2\n" if name.endswith("csv") else ROW)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_directory_gives_its_data_files(tree: Path) -> None:
    found = ["G.JSONL", "a.json", "b.jsonl", "sub/c.csv", "sub/deeper/d.jsonl.gz"]
    assert names([str(tree)]) == [str(tree / name) for name in found]
    assert names(["sub"]) == found[3:]


def test_globs_and_repetitions(tree: Path) -> None:
    assert names(["*.json*"]) == ["a.json", "b.jsonl", "dataset_info.json"]
    assert names(["**/*.jsonl.gz", "sub"]) == ["sub/deeper/d.jsonl.gz", "sub/c.csv"]
    assert names(["b.jsonl", "./b.jsonl"]) == ["b.jsonl"]


def test_a_name_with_glob_characters_is_a_name(tree: Path) -> None:
    (tree / "[x].jsonl").write_bytes(ROW)
    assert names(["[x].jsonl"]) == ["[x].jsonl"]


def test_links_lead_out_of_no_directory(tree: Path) -> None:
    inside = tree / "inside"
    inside.mkdir()
    (inside / "own.jsonl").write_bytes(ROW)
    (inside / "link.jsonl").symlink_to(tree / "b.jsonl")
    (inside / "up").symlink_to(tree)
    assert names([str(inside)]) == [str(inside / "own.jsonl")]
    assert names([str(inside / "link.jsonl")]) == [str(inside / "link.jsonl")]


MESSAGES: dict[str, tuple[str, bytes | None, str]] = {
    "empty": ("a.jsonl", b"", "is empty"),
    "white space alone": ("a.json", b"\n \n", "is empty"),
    "a BOM alone": ("a.csv", b"\xef\xbb\xbf", "is empty"),
    "missing": ("a.jsonl", None, "does not exist"),
    "PNG": ("a.jsonl", b"\x89PNG\r\n\x1a\n" + bytes(100), "is a PNG image"),
    "ELF": ("a.jsonl", b"\x7fELF" + bytes(100), "is a program"),
    "ZIP": ("a.csv", b"PK\x03\x04" + bytes(100), "is a ZIP archive"),
    "pickle": ("a", pickle.dumps(["x"] * 9), "is a Python pickle"),
    "NUL bytes": ("a.jsonl", bytes(100_000), "is binary data"),
    "noise": ("a.jsonl", hashlib.shake_256(b"noise").digest(5_000), "is binary data"),
    "UTF-16": ("a.jsonl", '{"a": 1}\n'.encode("utf-16"), "is UTF-16 text"),
    "UTF-16 without a mark": ("a.jsonl", ('{"a": 1}\n' * 9).encode("utf-16-le"), "is UTF-16 text"),
    "no format": ("a.txt", b"Once upon a time\n", "has no format"),
    "compressed parquet": ("a.parquet.gz", gzip.compress(b"PAR1" + bytes(100)), "holds parquet data compressed"),
}


@pytest.mark.parametrize("case", MESSAGES.values(), ids=MESSAGES)
def test_one_clear_message(case: tuple[str, bytes | None, str], tmp_path: Path) -> None:
    name, data, words = case
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        open_sources([str(path)])
    assert caught.value.message.startswith(str(path))
    assert words in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(
    ("given", "words"), [("nothing", "holds no data files"), ("nothing/*.jsonl", "no file matches")]
)
def test_nothing_there(given: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match=words):
        open_sources([str(tmp_path / given)])


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(ROW)
    path.chmod(0)
    if os.access(path, os.R_OK):  # root reads everything

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UsageError, match="permission denied"):
        open_sources([str(path)])


@pytest.mark.parametrize("name", ["a.txt", "a", "a.data"])
@pytest.mark.parametrize(
    ("data", "reader"),
    [
        (ROW, "jsonl"),
        (b'[\n{"a": 1}\n]', "json_array"),
        (b"a,b\n1,2\n", "csv"),
        (b"a\tb\n1\t2\n", "csv"),
        (b'{"text": "' + b"x" * 300_000 + b'"}\n' + ROW, "jsonl"),
    ],
)
def test_content_tells_where_the_name_does_not(name: str, data: bytes, reader: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    assert [source.reader for source in open_sources([str(path)])] == [reader]


def change_size(path: Path) -> None:
    with path.open("ab") as file:
        file.write(ROW)


def change_time(path: Path) -> None:
    about = path.stat()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns + 1_000_000_000))


def replace_file(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [change_size, change_time, replace_file])
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_file_that_changes(change: object, when: str, tmp_path: Path) -> None:
    assert callable(change)
    path = tmp_path / "a.jsonl"
    path.write_bytes(ROW * 1000)
    (source,) = open_sources([str(path)], limits=Limits(block_bytes=1000))
    blocks = source.blocks()
    if when == "during":
        next(blocks)
    change(path)
    with pytest.raises(SourceChanged) as caught:
        list(blocks)
    assert str(path) in caught.value.message
    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 (it crosses process borders so)
    assert (copy.message, copy.hint, copy.path, str(copy)) == (
        caught.value.message, caught.value.hint, str(path), caught.value.message,
    )  # fmt: skip


def test_a_worker_sees_that_the_file_became_shorter(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(ROW * 1000)
    (source,) = open_sources([str(path)])
    (block,) = source.blocks()
    path.write_bytes(ROW)
    with pytest.raises(SourceChanged):
        read_block(block)


class FakeStdin:
    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


FIVE_HUNDRED = [b'{"id": %d}' % number for number in range(500)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize(
    ("data", "reader"),
    [
        (b"\n".join(FIVE_HUNDRED), "jsonl"),
        (b"[" + b",".join(FIVE_HUNDRED) + b"]", "json_array"),
        (b"id,x\n" + b"".join(b"%d,y\n" % number for number in range(500)), "csv"),
    ],
)
def test_stdin(pack: object, data: bytes, reader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert callable(pack)
    packed = pack(data)
    monkeypatch.setattr(sys, "stdin", FakeStdin(packed))
    limits = Limits(block_bytes=500)
    (source,) = open_sources(["-"], limits=limits)
    assert (source.path, source.reader, source.size) == (STDIN, reader, None)
    assert [int(row["id"]) for row in source.sample(100)] == list(range(100))
    assert len(source.sample(3)) == 3
    found = read_source(source, limits)
    assert [int(row["id"]) for row in found.values] == list(range(500))
    assert (source.sha256, source.bytes_read) == (hashlib.sha256(packed).hexdigest(), len(packed))


def test_blocks_travel_to_other_processes(tmp_path: Path) -> None:
    for name, data in {"a.jsonl": b"\n".join(FIVE_HUNDRED), "a.json": b"[" + b",".join(FIVE_HUNDRED) + b"]"}.items():
        path = tmp_path / name
        path.write_bytes(data)
        (source,) = open_sources([str(path)], limits=Limits(block_bytes=1000))
        blocks = [pickle.loads(pickle.dumps(block)) for block in source.blocks()]  # noqa: S301
        assert [row["id"] for block in blocks for row in read_block(block).values] == list(range(500))
        assert all(block.payload is None for block in blocks)


def test_empty_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", FakeStdin(b""))
    with pytest.raises(UsageError, match="<stdin> is empty"):
        open_sources(["-"])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe.jsonl"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(ROW * 5000,))
    writer.start()
    (source,) = open_sources([str(path)])
    assert source.sample(2) == [{"a": 1}, {"a": 1}]
    found = read_source(source, Limits())
    writer.join()
    assert len(found.values) == 5000
    assert source.sha256 == hashlib.sha256(ROW * 5000).hexdigest()


def test_sample_passes_over_bad_lines_and_consumes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"broken\n" + ROW * 3)
    (source,) = open_sources([str(path)])
    assert source.sample(2) == [{"a": 1}] * 2
    assert source.sample(10) == [{"a": 1}] * 3
    for _ in range(2):  # a file can be read again
        assert len(read_source(source, Limits()).values) == 3
    assert source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_table_of_formats_fills_itself() -> None:
    assert set(readers()) == {"jsonl", "json_array", "csv", "parquet", "arrow"}
