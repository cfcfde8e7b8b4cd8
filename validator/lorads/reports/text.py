"""``--output-format text``: for a person at a terminal."""

from __future__ import annotations

import shutil
from collections import defaultdict
from typing import IO

from rich.console import Console
from rich.text import Text

from lorads.findings import Finding, Report, Severity, Token, escape
from lorads.reports._lines import hanging

EXAMPLES = 3
"""Findings of a rule that are shown with their tokens; the rest take a line each."""
COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.INFO: "bold blue"}
TOKEN_STYLES = {"trained": "green", "masked": "dim", "special": "cyan", "cut": "dim red"}
CHANGES = {
    ("", "trained"): ("", ""),
    ("", "masked"): ("(not trained:) ", "dim"),
    ("", "cut"): ("✂ cut off: ", "bold red"),
    ("trained", "masked"): (" (not trained:) ", "dim"),
    ("masked", "trained"): (" (trained:) ", "dim"),
    ("trained", "cut"): (" ✂ cut off from here: ", "bold red"),
    ("masked", "cut"): (" ✂ cut off from here: ", "bold red"),
    ("cut", "trained"): (" ✂ kept from here: ", "bold red"),
    ("cut", "masked"): (" ✂ kept from here: (not trained:) ", "bold red"),
}
TOKEN_INDENT = 12
MIN_WIDTH, MAX_WIDTH = 60, 120


class TextWriter:
    def write(self, report: Report, stream: IO[str]) -> None:
        width = min(max(shutil.get_terminal_size((100, 24)).columns, MIN_WIDTH), MAX_WIDTH)
        console = Console(file=stream, width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)
        Page(console, report).show()


class Page:
    def __init__(self, console: Console, report: Report) -> None:
        self.console = console
        self.report = report

    def show(self) -> None:
        self._head()
        by_rule: dict[str, list[Finding]] = defaultdict(list)
        for finding in self.report.findings:
            by_rule[finding.rule].append(finding)
        order = sorted(by_rule, key=lambda id_: (-max(f.severity.rank for f in by_rule[id_]), id_))
        for id_ in order:
            self._rule(by_rule[id_])
        self._foot()

    def _head(self) -> None:
        report = self.report
        for file in report.inputs:
            bad = f", {file.bad_lines:,} unreadable" if file.bad_lines else ""
            self._line(Text(f"{escape(file.path)}: {file.rows:,} rows{bad}, format {file.format} ({file.evidence})"))
        trainer = report.trainer
        limit = "no maximum length" if trainer.max_length is None else f"at most {trainer.max_length:,} tokens a row"
        self._line(
            Text(
                f"tokenizer {escape(report.tokenizer.name)} ({escape(report.tokenizer.source)}), "
                f"trainer {trainer.name} {trainer.version}, {limit}"
            )
        )

    def _rule(self, findings: list[Finding]) -> None:
        first = findings[0]
        severity = max((finding.severity for finding in findings), key=lambda severity: severity.rank)
        total = self.report.summary.by_rule[first.rule]
        self.console.print()
        head = Text()
        head.append(f"{severity.value} ", COLOURS[severity])
        head.append(f"{first.rule} {first.name}", "bold")
        head.append(f"  {_rows(total)}", "dim")
        self._line(head)
        told_hint = ""
        for i, finding in enumerate(findings):
            self._finding(finding, severity)
            if i < EXAMPLES:
                if finding.excerpt:
                    self._tokens(finding.excerpt)
                if finding.hint and finding.hint != told_hint:
                    self._line(Text("→ " + finding.hint, "italic"), begin=4, indent=6)
                    told_hint = finding.hint
        if total > len(findings):
            self._line(Text(f"… and {total - len(findings):,} more (--max-findings N shows more)", "dim"), begin=2)

    def _finding(self, finding: Finding, severity: Severity) -> None:
        text = Text()
        text.append(_place(finding), "bold")
        if finding.severity is not severity:
            text.append(f" {finding.severity.value}", COLOURS[finding.severity])
        text.append("  " + finding.message)
        self._line(text, begin=2, indent=6)

    def _tokens(self, tokens: list[Token]) -> None:
        """Tokens as the trainer sees them, told apart by a thin bar; where the fate changes it is written out."""
        pieces: list[Text] = []
        fate = ""
        for i, token in enumerate(tokens):
            piece = Text()
            now = "cut" if token.role == "cut" else "trained" if token.trained else "masked"
            if now != fate:
                piece.append(*CHANGES[fate, now])
            fate = now
            before = i > 0 and tokens[i - 1].highlight
            after = i + 1 < len(tokens) and tokens[i + 1].highlight
            piece.append("»" if token.highlight and not before else "", "bold")
            piece.append(escape(token.text), TOKEN_STYLES[token.role] + (" reverse" if token.highlight else ""))
            piece.append("«" if token.highlight and not after else "", "bold")
            pieces.append(piece.append("│", "dim"))
        line = Text("    tokens  ", "dim")
        for piece in pieces:
            if line.cell_len + piece.cell_len > self.console.width and line.cell_len > TOKEN_INDENT:
                self.console.print(line, soft_wrap=True)
                line = Text(" " * TOKEN_INDENT)
            line.append(piece)
        self.console.print(line, soft_wrap=True)

    def _foot(self) -> None:
        report = self.report
        summary = report.summary
        self.console.print()
        counts = summary.by_severity
        verdict = Text()
        if not any(counts.values()):
            verdict.append("Nothing found. ", "bold green")
        else:
            told = [_count(counts[severity.value], severity.value) for severity in Severity if counts[severity.value]]
            verdict.append(
                ", ".join(told) + ". ", COLOURS[max((s for s in Severity if counts[s.value]), key=lambda s: s.rank)]
            )
        kept = "all of them" if summary.rows_kept == summary.rows else f"{summary.rows_kept:,} of them"
        verdict.append(
            f"{_rows(summary.rows)} read; the trainer keeps {kept} and trains on {summary.label_tokens:,} of "
            f"{summary.tokens:,} tokens."
        )
        self._line(verdict)
        for note in report.notes:
            self._line(Text(f"note: {escape(note)}", style="dim"), indent=6)
        if summary.by_rule:
            worst = min(summary.by_rule, key=lambda id_: (-self._rank(id_), id_))
            self._line(
                Text(
                    f"`lorads explain {worst}` tells what a rule is about; `--output-format json` is for scripts.",
                    "dim",
                )
            )

    def _rank(self, id_: str) -> int:
        return max((finding.severity.rank for finding in self.report.findings if finding.rule == id_), default=0)

    def _line(self, text: Text, *, begin: int = 0, indent: int = 2) -> None:
        hanging(self.console, text, begin=begin, indent=indent)


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def _count(count: int, word: str) -> str:
    return f"{count:,} {word}" if word == "info" or count == 1 else f"{count:,} {word}s"


def _place(finding: Finding) -> str:
    path = escape(finding.path)
    if finding.line is not None:
        place = f"{path}:{finding.line}"
        return place + (f" (row {finding.row:,})" if finding.row is not None else "")
    return f"{path} row {finding.row:,}" if finding.row is not None else path


WRITER = TextWriter()
