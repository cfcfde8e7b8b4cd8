from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity, escape
from lorads_rules.words import hit

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class UnrecognisedRow(RowRule):
    """A row is written in no known form, or in another one than the rest of its file.

    Why it matters: a trainer looks at the first row and takes every other row to be built the same way. A row that is
    not has no text where the trainer looks for it. Depending on the library the run stops with an error such as
    `KeyError: 'instruction'`, or the row is dropped without a word, or it is trained as an empty text.

    Example: a file of conversations in which one row has the columns of an instruction file.

        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}
        {"instruction": "Say hello.", "output": "Hello!"}

    How to fix: bring the row into the form of the others, or take it out. If the whole file is reported, its form was
    not recognised: say which one it is with `--format`, or which columns to read in `lorads.toml`.

    Not reported: columns that the form does not need, such as an id or a source.

    Evidence: axolotl-ai-cloud/axolotl#879, hiyouga/LlamaFactory#9618.
    """

    id = "FMT002"
    name = "unrecognised-row"
    severity = Severity.ERROR
    fix = "safe"
    place = "format_problem"
    evidence = ("axolotl-ai-cloud/axolotl#879", "hiyouga/LlamaFactory#9618")

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("format_problem").is_not_null()

    def message(self, row: Row) -> str:
        return escape(hit(row, "format_problem").get("detail") or "the row does not have the form of its file")

    def hint(self, row: Row) -> str:
        found = hit(row, "format_problem")
        return escape(found.get("expected") or "bring the row into the form of the others, or take it out")
