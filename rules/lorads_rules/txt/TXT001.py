from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity, escape
from lorads_rules.words import hit, more, text_in

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts

WHAT = {
    "replacement": "the replacement character U+FFFD, which stands for a character that was lost",
    "nul": "a NUL character (U+0000)",
    "control": "a control character",
    "c1": "a control character of the range U+0080 to U+009F, mostly a sign of a wrong encoding",
    "mojibake": "text that was decoded with the wrong encoding",
    "zero-width": "an invisible character",
    "ansi": "terminal colour codes (ANSI escape sequences)",
}
HINTS = {
    "replacement": "take the text again from its source and read it with the right encoding",
    "c1": "take the text again from its source and read it with the right encoding",
    "mojibake": "take the text again from its source and read it with the right encoding (usually UTF-8)",
    "ansi": "leave it if the model should write terminal output, else take the codes out",
}


class EncodingDamage(RowRule):
    """The text holds characters that come from a conversion gone wrong.

    Why it matters: the model learns to write what it is shown. Lost characters, stray control characters and letters
    that were decoded wrongly are also rare, so they cost many tokens each. This makes answers worse, not the loss: no
    report is known in which such a row drove a loss to zero, and the log will show nothing.

    Looked for: U+FFFD, NUL, control characters other than tab and line ends, UTF-8 that was read as Latin-1 or
    Windows-1252, and invisible characters in places where no script needs them.

    Example: "The café on the corner’s terrace", stored as UTF-8 and read as Windows-1252.

        "The cafÃ© on the cornerâ€™s terrace"

    How to fix: take the text again from its source and read it with the right encoding. Control and invisible
    characters can simply be taken out; a lost character can't be brought back.

    This is a warning, and only a note for terminal colour codes (ANSI sequences), which transcripts hold on purpose.

    Not reported: joiners in emoji and in scripts that need them, direction marks beside right-to-left text, soft
    hyphens, tabs, and the letters of any language.

    Evidence: FranxYao/Long-Context-Data-Engineering#14 (what raw web text carries along).
    """

    id = "TXT001"
    name = "encoding-damage"
    severity = Severity.WARNING
    fix = "unsafe"
    place = "damage"
    evidence = ("FranxYao/Long-Context-Data-Engineering#14",)

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("damage").is_not_null()

    def severity_of(self, row: Row) -> Severity:
        return Severity.INFO if hit(row, "damage")["code"] == "ansi" else self.severity

    def message(self, row: Row) -> str:
        found = hit(row, "damage")
        what = escape(found.get("detail") or WHAT.get(found["code"], "a damaged character"))
        return f"{text_in(found)}: {what}{more(found)}"

    def hint(self, row: Row) -> str:
        return HINTS.get(hit(row, "damage")["code"], "take the character out")
