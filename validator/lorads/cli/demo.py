"""``lorads demo``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="\b\nExample:\n  lorads demo\n  lorads check lorads-demo/data.jsonl --tokenizer deepseek-coder",
    short_help="Build a dataset with known faults to try lorads on.",
)
@click.argument("directory", metavar="[DIR]", default="lorads-demo", type=click.Path(path_type=Path))
def demo(directory: Path) -> None:
    """Build a dataset with known faults in DIR (default: lorads-demo).

    The rows are made of this Python's own standard library: data.jsonl with sixteen spoilt rows where a real training
    run broke off, clean.jsonl without them, and truth.json, which says what is wrong where.
    """
    from lorads.demo.build import build

    result = build(directory)
    first, last = result.faults[0], result.faults[-1]
    click.echo(f"{result.data}: {result.rows} rows made of the standard library of Python {result.python}")
    click.echo(f"{result.clean}: the same rows without faults")
    click.echo(f"{result.truth}: what is wrong where")
    click.echo(
        f"\n{len(result.faults)} rows are spoilt, rows {first.row} to {last.row} (lines {first.line} to {last.line}):"
    )
    for rule in sorted({fault.rule for fault in result.faults}):
        rows = [str(fault.row) for fault in result.faults if fault.rule == rule]
        click.echo(f"  {rule}  rows {', '.join(rows)}")
    click.echo(f"\nNow find them:\n  {result.command}")
