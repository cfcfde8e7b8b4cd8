"""Parquet and Arrow: the same rows as pyarrow, in blocks; broken files and broken text."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorads.errors import UsageError
from lorads.sources import Limits, open_sources
from sources.naive import read

ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": f"question {n}", "name": None},
            {"role": "assistant", "content": "x" * n, "name": "m"},
        ],
        "ids": [n, n + 1],
        "score": n / 3,
        "note": None if n % 2 else "é",
    }
    for n in range(200)
]


def write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, row_group_size=64)


def write_stream(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)


def write_file(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)


WRITERS = {"parquet": write_parquet, "stream": write_stream, "file": write_file}


@pytest.fixture(params=WRITERS)
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"data.{'parquet' if request.param == 'parquet' else 'arrow'}"
    WRITERS[request.param](path, pa.Table.from_pylist(ROWS))
    return path


@pytest.mark.parametrize("block_bytes", [500, 5_000, 1 << 20])
def test_equals_pyarrow(written: Path, block_bytes: int) -> None:
    found = read(written, Limits(block_bytes=block_bytes))
    assert found.values == ROWS
    assert found.offsets == list(range(len(ROWS)))
    assert (found.lines, found.problems, found.line_count) == ([], [], 0)
    assert (found.blocks > 20) == (block_bytes == 500)


def test_hash_and_sample(written: Path) -> None:
    import hashlib

    (source,) = open_sources([str(written)])
    assert source.sample(3) == ROWS[:3]
    assert len(list(source.blocks())) >= 1
    assert source.sha256 == hashlib.sha256(written.read_bytes()).hexdigest()
    assert source.bytes_read == written.stat().st_size == source.size


def test_text_that_is_not_utf8_costs_one_row(tmp_path: Path) -> None:
    column = pa.array([b"one", b"tw\xffo", b"three"], pa.binary()).view(pa.string())
    for name, write in WRITERS.items():
        path = tmp_path / f"{name}.{'parquet' if name == 'parquet' else 'arrow'}"
        write(path, pa.table({"text": column}))
        found = read(path)
        assert found.values == [{"text": "one"}, {"text": "three"}]
        assert found.offsets == [0, 2]
        assert [(problem.kind, problem.offset, index) for _, index, problem in found.problems] == [
            ("invalid-utf8", 1, None)
        ]


def test_a_row_over_the_limit(tmp_path: Path) -> None:
    rows = [{"text": "short"}, {"text": "x" * 5_000}, {"text": "short too"}]
    for name, write in WRITERS.items():
        path = tmp_path / f"{name}.{'parquet' if name == 'parquet' else 'arrow'}"
        write(path, pa.Table.from_pylist(rows))
        found = read(path, Limits(record_bytes=1_000))
        assert found.values == [rows[0], rows[2]]
        assert [(problem.kind, problem.offset) for _, _, problem in found.problems] == [("too-long", 1)]


def test_maps_become_dictionaries(tmp_path: Path) -> None:
    column = pa.array([[("city", "Bonn"), ("n", "2")], None], pa.map_(pa.string(), pa.string()))
    path = tmp_path / "data.parquet"
    write_parquet(path, pa.table({"arguments": column}))
    assert read(path).values == [{"arguments": {"city": "Bonn", "n": "2"}}, {"arguments": None}]


def test_values_that_python_has_none_for_cost_one_row(tmp_path: Path) -> None:
    column = pa.array([0, 2**60, 1], pa.int64()).cast(pa.timestamp("s"))
    path = tmp_path / "data.parquet"
    write_parquet(path, pa.table({"when": column.cast(pa.timestamp("ms"), safe=False), "id": [1, 2, 3]}))
    found = read(path)
    assert [value["id"] for value in found.values] == [1, 3]
    assert found.kinds == ["not-a-table"]


def test_a_file_cut_off(written: Path) -> None:
    whole = written.read_bytes()
    is_stream = whole.startswith(b"\xff\xff\xff\xff")
    written.write_bytes(whole[: len(whole) // 2])
    if is_stream:
        found = read(written)
        assert found.kinds == ["truncated"]
        assert found.values == ROWS[: len(found.values)]
        assert found.values
    else:
        with pytest.raises(UsageError, match="no readable"):
            read(written)


def test_damage_never_crashes(written: Path) -> None:
    whole = written.read_bytes()
    chance = random.Random(3)
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 5, 40])):
            damaged[chance.randrange(8, len(damaged))] = chance.randrange(256)
        written.write_bytes(damaged)
        with contextlib.suppress(UsageError):  # the whole file is beyond reading
            found = read(written)
            assert len(found.values) <= len(ROWS) or found.problems


def test_damage_in_one_row_group(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    write_parquet(path, pa.Table.from_pylist(ROWS))
    data = bytearray(path.read_bytes())
    group = pq.ParquetFile(path).metadata.row_group(1)
    for number in range(group.num_columns):
        column = group.column(number)
        start = column.dictionary_page_offset or column.data_page_offset
        data[start : start + column.total_compressed_size] = b"\xee" * column.total_compressed_size
    path.write_bytes(data)
    found = read(path)
    assert found.kinds == ["truncated"]
    assert "row group 1" in found.problems[0][2].message
    assert found.values == ROWS[:64] + ROWS[128:]


@pytest.mark.parametrize("name", ["data.parquet", "data.arrow"])
def test_named_so_but_text(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b"hello\n")
    with pytest.raises(UsageError, match="does not hold such data"):
        open_sources([str(path)])
