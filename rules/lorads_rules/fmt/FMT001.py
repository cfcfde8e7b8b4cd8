from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity, escape
from lorads_rules.words import hit

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts

WHAT = {
    "invalid-json": "this is not one JSON value",
    "invalid-utf8": "there are bytes here that are no UTF-8",
    "nan-literal": "there is a NaN or Infinity here, which JSON does not have",
    "lone-surrogate": "there is half of a surrogate pair here, which no text may hold",
    "duplicate-key": "one object has the same key twice",
    "bom": "the file begins with a byte order mark",
    "too-deep": "the value is nested too deeply to be read",
    "too-long": "the record is too long to be read",
    "truncated": "the file ends in the middle of a record or of its compressed stream",
    "not-a-table": "the record does not fit the columns of the table",
}


class UnreadableRecord(RowRule):
    """A record of the file can't be read, or not in one way only.

    Why it matters: libraries disagree about such a line. Some give up the whole file, some skip the line without a
    word, some take the last of two equal keys or let a NaN through. What you train on then depends on which library
    (and which version) reads the file, and every row that was skipped shifts the numbers of the rows behind it. The
    training log shows nothing of this: the run has fewer rows or other ones, or does not start.

    Looked for: broken JSON, bytes that are no UTF-8, NaN and Infinity, half of a surrogate pair, a key given twice, a
    byte order mark, nesting and lines beyond every sensible limit, an archive that breaks off.

    Example: a line that has lost its end.

        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "con

    How to fix: write the line again from its source, or take it out. A byte order mark (three bytes that some editors
    put in front of a file) is only a warning, since most readers skip it; save the file as "UTF-8 without BOM".

    Not reported: blank lines, Windows line ends, and U+2028 inside a text, which is no line end.

    Evidence: polars, pyarrow and datasets give up a whole file at one bad line, and pyarrow and datasets let invalid
    UTF-8 through (measured).
    """

    id = "FMT001"
    name = "unreadable-record"
    severity = Severity.ERROR
    fix = "safe"
    place = "record_problem"
    evidence = ("polars, pyarrow and datasets give up a whole file at one bad line",)

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("record_problem").is_not_null()

    def severity_of(self, row: Row) -> Severity:
        return Severity.WARNING if hit(row, "record_problem").get("code") == "bom" else self.severity

    def message(self, row: Row) -> str:
        found = hit(row, "record_problem")
        return escape(found.get("detail") or WHAT.get(found["code"], "this record can't be read"))

    def hint(self, row: Row) -> str:
        found = hit(row, "record_problem")
        return escape(found.get("expected") or "write the line again from its source, or take it out")
