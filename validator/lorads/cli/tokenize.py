"""``lorads tokenize``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from lorads.atomic import replacing
from lorads.cli.options import config_of, settings_of, shared


@click.command(epilog="\b\nExample:\n  lorads tokenize train.jsonl --tokenizer deepseek-coder -o train.tokens.parquet")
@click.argument("path", metavar="PATH")
@shared
@click.option("-o", "--output", required=True, metavar="OUT", help="A .jsonl or .parquet file.")
def tokenize(path: str, **given: Any) -> None:
    """Write what the trainer would feed: one record a kept row, with row, line, input_ids and labels.

    With --packing the labels are those that the row has inside its packed sequence; which rows share one is not said.
    """
    from lorads.errors import UsageError

    output = Path(given.pop("output"))
    if output.suffix not in (".jsonl", ".parquet"):
        raise UsageError(f"{output}: tokenize writes .jsonl or .parquet", "end the name of -o OUT in one of them")
    if path != "-" and output.exists() and Path(path).exists() and output.samefile(path):
        raise UsageError(f"{output}: this is the input itself", "write to another file")
    config = config_of(given.pop("config_file"))
    given["format"] = given.pop("format_")
    settings = settings_of(config, given)

    skipped = 0
    written = 0

    def rows() -> Iterator[list[dict[str, Any]]]:
        nonlocal skipped, written
        from lorads.engine.feed import label_files

        for fed in label_files([path], settings):
            batch = fed.batch
            skipped += len(batch.records.values) - len(batch.positions) + len(batch.labels.failures)
            skipped += sum(1 for problem in batch.records.problems if problem.index is None)
            records = []
            for i, position in enumerate(batch.positions):
                pair = batch.labels.fed(i)
                if pair is not None:
                    records.append(
                        {
                            "row": fed.first_row + position,
                            "line": fed.line(position),
                            "input_ids": pair[0],
                            "labels": pair[1],
                        }
                    )
            written += len(records)
            yield records

    with replacing(output) as temporary:
        (_write_jsonl if output.suffix == ".jsonl" else _write_parquet)(temporary, rows())
    note = f"; {skipped:,} could not be tokenized (`lorads check` says why)" if skipped else ""
    click.echo(f"{output}: {written:,} rows{note}", err=True)


def _write_jsonl(target: Path, batches: Iterator[list[dict[str, Any]]]) -> None:
    import orjson

    with target.open("wb") as stream:
        for records in batches:
            stream.writelines(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records)


def _write_parquet(target: Path, batches: Iterator[list[dict[str, Any]]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("row", pa.int64()),
            ("line", pa.int64()),
            ("input_ids", pa.list_(pa.int32())),
            ("labels", pa.list_(pa.int64())),
        ]
    )
    with pq.ParquetWriter(target, schema) as writer:
        for records in batches:
            writer.write_table(pa.Table.from_pylist(records, schema))
