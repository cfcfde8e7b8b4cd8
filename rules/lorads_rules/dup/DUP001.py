from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import DatasetRule, Row, Severity, escape

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class DuplicateRow(DatasetRule):
    """The row trains exactly the same tokens as an earlier row.

    Why it matters: the same example counts twice. A few copies do no harm that could be measured; many give their
    examples a weight that nobody chose, teach them by heart, and make a validation loss look better than it is if a
    copy of a training row is in the validation data. In the log the loss of later copies is lower.

    Example: rows 12 and 480 differ in an id column that is not trained.

        {"id": "a", "prompt": "2 + 2 = ", "completion": "4"}
        {"id": "b", "prompt": "2 + 2 = ", "completion": "4"}

    How to fix: keep the first and take the others out.

    Compared are token ids and labels before truncation, so that a row counts as a copy only if the trainer would learn
    the same from it.

    Not reported: the first of several equal rows; rows that the trainer drops.

    Evidence: instructlab/instructlab#1003 (14,557 rows made of 100 instructions); not an error, since
    marin-community/marin#5310 found no measurable effect of half the data being copies.
    """

    id = "DUP001"
    name = "duplicate-row"
    severity = Severity.WARNING
    fix = "safe"
    evidence = ("instructlab/instructlab#1003", "marin-community/marin#5310")

    def when(self, facts: Facts) -> pl.Expr:
        return facts.sequence_hash.is_not_null() & facts.dropped.is_null()

    def key(self, facts: Facts) -> pl.Expr:
        return facts.sequence_hash

    def message(self, row: Row) -> str:
        first, line, path = row.get("first_row"), row.get("first_line"), row.get("first_path")
        which = "an earlier row" if first is None else f"row {first}"
        at = "" if line is None else f" (line {line})"
        of = "" if path is None else f" of {escape(path)}"
        return f"the row trains exactly the same tokens as {which}{at}{of}"

    def hint(self, row: Row) -> str:
        return "take it out, unless the copies are there to give the example more weight"
