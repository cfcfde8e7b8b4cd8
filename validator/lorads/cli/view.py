"""``lorads view``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from lorads.cli.options import assignments, config_of, settings_of, shared


@click.command(
    epilog="\b\nExamples:\n  lorads view lorads-demo/data.jsonl:1809 --tokenizer deepseek-coder\n"
    "  lorads view train.jsonl:12 --tokenizer deepseek-coder --against llamafactory "
    "--against-option template=deepseekcoder"
)
@click.argument("place", metavar="PATH[:LINE]")
@shared
@click.option("--row", type=click.IntRange(0), metavar="N", help="The row by its 0-based number instead of its line.")
@click.option("--why", metavar="TOKEN", help="Explain one token's fate: its number (from 0), or its text.")
@click.option("--against", metavar="Y", help="Put trainer Y beside it and show what differs.")
@click.option(
    "--against-option",
    "against_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of trainer Y's own.  [repeatable]",
)
def view(
    place: str, row: int | None, why: str | None, against: str | None, against_options: tuple[str, ...], **given: Any
) -> None:
    """Show one row as the trainer sees it: every token, coloured as trained, masked or special, the cut marked."""
    from dataclasses import replace

    from lorads.engine.view import find_row
    from lorads.reports._row import write_row, write_why

    path, line = _split(place)
    config = config_of(given.pop("config_file"))
    given["format"] = given.pop("format_")
    settings = settings_of(config, given)
    explain = why is not None or against is not None
    found = find_row(path, settings, line=line, row=row, explain=explain)
    if against is not None:
        from lorads.engine.compare import compare
        from lorads.reports._compare import write_comparison

        own = assignments(against_options, "--against-option")
        other = replace(settings, trainer=against, trainer_options=own)
        write_comparison(compare(found, find_row(path, other, line=line, row=row, explain=True)), sys.stdout)
    if why is not None:
        write_why(found, why, sys.stdout)
    if not explain:
        write_row(found, sys.stdout)


def _split(place: str) -> tuple[str, int | None]:
    """``file.jsonl:12`` → the file and 12; a name that exists as it stands is taken whole."""
    match = re.fullmatch(r"(.+):(\d+)", place)
    if match is None or Path(place).exists():
        return place, None
    return match[1], int(match[2])
