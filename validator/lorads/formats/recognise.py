"""Which format a file has, told by a sample of its rows."""

from __future__ import annotations

import pkgutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import repeat
from typing import Any

import lorads.formats
from lorads.errors import UsageError
from lorads.formats.base import BatchFormat, Columns, Format, Misfit, type_name
from lorads.formats.conversation import Conversation


@cache
def formats() -> dict[str, Format]:
    """The format modules of this room, the most telling first."""
    found = []
    for module in pkgutil.iter_modules(lorads.formats.__path__):
        format_: Format | None = getattr(import_module(f"lorads.formats.{module.name}"), "FORMAT", None)
        if format_ is not None:
            found.append(format_)
    return {format_.name: format_ for format_ in sorted(found, key=lambda format_: format_.rank)}


@dataclass(frozen=True, slots=True)
class Recognition:
    """``format`` and, in words, what it was told by; ``others`` counts rows of the sample that look like another."""

    format: str
    evidence: str
    others: Mapping[str, int]


def recognise(sample: Sequence[Any], path: str, columns: Columns) -> Recognition:
    """The format most rows of the sample have. Raises ``UsageError`` when no row has a known one."""
    votes: Counter[str] = Counter()
    words: dict[str, str] = {}
    known = formats()
    for record in sample:
        if not isinstance(record, dict):
            continue
        for name, format_ in known.items():
            evidence = format_.evidence(record, columns)
            if evidence is not None:
                votes[name] += 1
                words.setdefault(name, evidence)
                break
    if not votes:
        raise UsageError(f"{path}: its rows are in no format that lorads knows: {_seen(sample)}", _advice(known))
    name, count = votes.most_common(1)[0]
    others = {other: n for other, n in votes.items() if other != name}
    return Recognition(name, f"{count} of {len(sample)} sampled rows have {words[name]}", others)


def _seen(sample: Sequence[Any]) -> str:
    first = next((record for record in sample if isinstance(record, dict)), None)
    if first is not None:
        return "the first has the columns " + (", ".join(list(map(str, first))[:8]) or "(none)")
    return f"the first is {type_name(sample[0])}" if sample else "it has no readable row"


def _advice(known: Mapping[str, Format]) -> str:
    return (
        f"known formats: {', '.join(known)}. If the columns have other names, say so in lorads.toml, for instance "
        '[columns] with prompt = "puzzle" and completion = "solution"'
    )


def normalise(records: Sequence[Any], format_name: str, columns: Columns) -> list[Conversation | Misfit]:
    """The conversations of a batch, in order; in place of a record that does not fit, the ``Misfit`` that says why."""
    format_ = formats()[format_name]
    quick: Iterable[Conversation | None] = repeat(None)
    if isinstance(format_, BatchFormat):
        quick = format_.normalise_batch(records, columns)
    out: list[Conversation | Misfit] = []
    for record, made in zip(records, quick, strict=False):
        if made is not None:
            made.record = record
            out.append(made)
            continue
        if type(record) is not dict:
            out.append(
                Misfit(
                    "not-an-object",
                    f"the row is {type_name(record)}, not an object with named columns",
                    "write every row as a JSON object",
                )
            )
            continue
        try:
            made = format_.normalise(record, columns)
            made.record = record
            out.append(made)
        except Misfit as misfit:
            out.append(_name_other(misfit, record, format_name, columns))
    return out


def _name_other(misfit: Misfit, record: Mapping[str, Any], format_name: str, columns: Columns) -> Misfit:
    for name, format_ in formats().items():
        if name != format_name and format_.evidence(record, columns) is not None:
            problem = misfit.problem
            return Misfit(
                "other-format",
                f"this row is {name}, the file is {format_name}: {problem.message}",
                f"bring all rows of the file into one format ({format_name}); trainers decide by the first row",
                problem.message_index,
                problem.field,
            )
    return misfit
