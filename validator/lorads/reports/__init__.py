"""Reports: one module an output format, each with ``render(report, console) -> str`` or writing to a rich console."""

from __future__ import annotations

import pkgutil
import sys
from importlib import import_module
from typing import IO, Protocol

from lorads.atomic import replacing
from lorads.errors import UsageError
from lorads.findings import Report

__all__ = ["Writer", "get", "names", "to_file", "to_stdout"]


class Writer(Protocol):
    """An output format: ``write`` puts the whole report into a text stream."""

    def write(self, report: Report, stream: IO[str]) -> None: ...


def names() -> list[str]:
    return [name.removesuffix("_") for name in _modules()]


def _modules() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]


def get(name: str) -> Writer:
    """The writer of that name (module ``json_`` for ``json``). Raises ``UsageError`` for an unknown one."""
    for module in _modules():
        if module.removesuffix("_") == name:
            writer: Writer = import_module(f"lorads.reports.{module}").WRITER
            return writer
    raise UsageError(f'there is no output format "{name}"', f"known: {', '.join(names())}")


def to_stdout(writer: Writer, report: Report) -> None:
    writer.write(report, sys.stdout)
    sys.stdout.flush()


def to_file(writer: Writer, report: Report, path: str) -> None:
    """Write the report to a file, whole or not at all. Raises ``UsageError`` when it cannot be written."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        writer.write(report, stream)
