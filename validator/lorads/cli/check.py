"""``lorads check``."""

from __future__ import annotations

import sys
from typing import Any

import click

from lorads.cli.options import config_of, settings_of, shared


@click.command(
    epilog="\b\nExample:\n  lorads check train.jsonl --tokenizer deepseek-coder --max-length 2048",
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@shared
@click.option(
    "--select", multiple=True, metavar="IDS", help="Only these rules (ids or families, comma separated, repeatable)."
)
@click.option("--ignore", multiple=True, metavar="IDS", help="Not these rules.")
@click.option(
    "--fail-on",
    type=click.Choice(["error", "warning", "info", "never"]),
    help="Exit 1 when anything at or over this was found.  [default: error]",
)
@click.option("--output-format", default="text", show_default=True, metavar="X", help="text or json.")
@click.option("--output", type=click.Path(dir_okay=False), help="Write the report there instead of to stdout.")
@click.option(
    "--max-findings",
    type=click.IntRange(1),
    metavar="N",
    help="Findings told per rule; counts stay whole.  [default: 200]",
)
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Processes.  [default: cores]")
@click.pass_context
def check(ctx: click.Context, /, paths: tuple[str, ...], **given: Any) -> None:
    """Judge the data: build, row by row, the ids and labels that the trainer would build, and say what is wrong.

    PATH is a file (.jsonl .json .csv .tsv .parquet .arrow, also .gz .zst .xz .bz2), a directory, a pattern, or - for
    standard input. Exit code: 0 clean, 1 findings, 2 lorads could not do its work.
    """
    from lorads import reports

    writer = reports.get(given["output_format"])
    config = config_of(given.pop("config_file"))
    given["format"] = given.pop("format_")
    settings = settings_of(config, given)
    fail_on = given["fail_on"] or (config.fail_on if config is not None and config.fail_on else "error")

    from lorads.engine import check as run
    from lorads.findings import Severity

    with Progress() as progress:
        report = run(paths, settings, progress.advance if progress.wanted else None)
    output = given["output"]
    if output is None:
        reports.to_stdout(writer, report)
    else:
        reports.to_file(writer, report, output)
    ctx.exit(1 if report.fails(None if fail_on == "never" else Severity(fail_on)) else 0)


class Progress:
    """How much has been read, on stderr, and only where somebody looks at it."""

    def __init__(self) -> None:
        self.wanted = sys.stderr.isatty()
        self.shown = False

    def __enter__(self) -> Progress:
        return self

    def advance(self, done: int) -> None:
        if done >= 32 << 20 or self.shown:
            self.shown = True
            click.echo(f"\r{done / 1e6:,.0f} MB read", err=True, nl=False)

    def __exit__(self, *_: object) -> None:
        if self.shown:
            click.echo("\r" + " " * 30 + "\r", err=True, nl=False)
