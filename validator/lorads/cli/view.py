"""``lorads view``."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import click

from lorads.cli.options import config_of, settings_of, shared


@click.command(epilog="\b\nExample:\n  lorads view lorads-demo/data.jsonl:1809 --tokenizer deepseek-coder")
@click.argument("place", metavar="PATH[:LINE]")
@shared
@click.option("--row", type=click.IntRange(0), metavar="N", help="The row by its 0-based number instead of its line.")
def view(place: str, row: int | None, **given: Any) -> None:
    """Show one row as the trainer sees it: every token, coloured as trained, masked or special, the cut marked."""
    from lorads.engine.view import find_row
    from lorads.reports._row import write_row

    path, line = _split(place)
    config = config_of(given.pop("config_file"))
    given["format"] = given.pop("format_")
    view_ = find_row(path, settings_of(config, given), line=line, row=row)
    write_row(view_, sys.stdout)


def _split(place: str) -> tuple[str, int | None]:
    """``file.jsonl:12`` → the file and 12; a name that exists as it stands is taken whole."""
    match = re.fullmatch(r"(.+):(\d+)", place)
    if match is None or Path(place).exists():
        return place, None
    return match[1], int(match[2])
