from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity, escape

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class DroppedByTrainer(RowRule):
    """The trainer leaves this row out without saying so.

    Why it matters: you believe that the row is trained, and it is not. Rows behind it move up, so that "the 1,808th
    row" of a training log is another row than the 1,808th of the file. If nearly all rows go this way, the run trains
    on a handful, or ends with an error that doesn't name the cause (`num_samples should be a positive integer value,
    but got num_samples=0`).

    Example: TRL drops a row when none of its tokens is trained.

        {"input_ids": [100, 101, 102], "labels": [-100, -100, -100]}

    How to fix: mend what the reason names. If the row is of no use, take it out of the file yourself, so that file and
    training count the same rows.

    Not reported: rows whose own fault is reported already, such as an empty answer (FMT004), an answer that is cut
    away (LEN001) or roles that the trainer refuses (FMT003).

    Evidence: read in the trainers' source (TRL 1.16 filters such rows after truncation) and tried: of 12 rows, 2 with
    a cut answer are gone and the numbers of the others shift.
    """

    id = "LAB011"
    name = "dropped-by-trainer"
    severity = Severity.WARNING
    evidence = ("TRL 1.16 filters such rows after truncation",)

    def when(self, facts: Facts) -> pl.Expr:
        return facts.dropped.is_not_null()

    def message(self, row: Row) -> str:
        return f"the trainer leaves this row out: {escape(row.get('dropped') or 'it gives no reason')}"

    def hint(self, row: Row) -> str:
        return "mend what the reason names, or take the row out yourself, so that file and training count the same rows"
