"""The diagnosis as text, for somebody who has never heard of any of this."""

from __future__ import annotations

import shutil
from typing import IO

from rich.console import Console
from rich.text import Text

from lorads.doctor.diagnosis import Diagnosis, Trouble
from lorads.findings import Severity, escape
from lorads.reports._lines import hanging
from lorads.reports.text import COLOURS, MAX_WIDTH, MIN_WIDTH

VERDICTS = {
    "same": ("Nothing is wrong: ", "bold green"),
    "differs": ("Something differs: ", "bold yellow"),
    "nothing-installed": ("Nothing to compare with: ", "bold"),
}


def write_page(diagnosis: Diagnosis, stream: IO[str]) -> None:
    width = min(max(shutil.get_terminal_size((100, 24)).columns, MIN_WIDTH), MAX_WIDTH)
    _Page(Console(file=stream, width=width, highlight=False, emoji=False, markup=False)).show(diagnosis)


class _Page:
    def __init__(self, console: Console) -> None:
        self.console = console

    def show(self, diagnosis: Diagnosis) -> None:
        tokenizer = diagnosis.tokenizer
        self.line(Text(f"tokenizer {escape(tokenizer['name'])} ({escape(tokenizer['source'])})", "bold"))
        self.line(Text(f"environment {escape(diagnosis.interpreter)}: {_installed(diagnosis)}"))
        self.heading("What the files say")
        for sentence in diagnosis.files:
            self.line(Text(escape(sentence)), begin=2, indent=4)
        if diagnosis.same:
            self.heading("The same in this environment")
            for sentence in diagnosis.same:
                self.line(Text("✓ ", "green").append(escape(sentence), ""), begin=2, indent=4)
        for trouble in diagnosis.troubles:
            self.trouble(trouble)
        self.console.print()
        self.line(_verdict(diagnosis))
        for note in diagnosis.notes:
            self.line(Text(f"note: {escape(note)}", "dim"), indent=6)

    def heading(self, text: str) -> None:
        self.console.print()
        self.line(Text(text, "bold"))

    def trouble(self, trouble: Trouble) -> None:
        self.console.print()
        head = Text(f"{trouble.severity.value} ", COLOURS[trouble.severity])
        head.append(f"{trouble.rule} {trouble.code}", "bold")
        head.append("  measured here" if trouble.measured else "  known of these versions, not measured", "dim")
        self.line(head)
        self.line(Text(escape(trouble.title)), begin=2, indent=4)
        width = max((len(name) for name, _ in trouble.example), default=0)
        for name, text in trouble.example:
            self.line(Text(f"{name:<{width}}  ", "dim").append(escape(text), "cyan"), begin=4, indent=6 + width)
        self.line(Text("What it does: ", "bold").append(escape(trouble.effect), ""), begin=2, indent=4)
        self.line(Text("→ " + escape(trouble.advice), "italic"), begin=2, indent=4)
        if trouble.threads:
            self.line(Text("see " + ", ".join(trouble.threads), "dim"), begin=2, indent=4)

    def line(self, text: Text, *, begin: int = 0, indent: int = 2) -> None:
        hanging(self.console, text, begin=begin, indent=indent)


def _installed(diagnosis: Diagnosis) -> str:
    packages = [f"{name} {version}" for name, version in diagnosis.packages.items()]
    return ", ".join([f"Python {diagnosis.python}", *packages])


def _verdict(diagnosis: Diagnosis) -> Text:
    text = Text(*VERDICTS[diagnosis.verdict])
    if any(trouble.severity is Severity.ERROR for trouble in diagnosis.troubles):
        text = Text("Something is wrong: ", "bold red")
    asked = " and ".join(f"{name} {diagnosis.packages[name]}" for name in diagnosis.compared)
    if diagnosis.verdict == "nothing-installed":
        return text.append("transformers is not installed there. Ask another environment: --python PATH", "")
    if diagnosis.verdict == "same":
        return text.append(f"{asked} build{'' if ' and ' in asked else 's'} what the files say.", "")
    counts = []
    for severity in (Severity.ERROR, Severity.WARNING):
        number = sum(trouble.severity is severity for trouble in diagnosis.troubles)
        if number:
            counts.append(f"{number} {severity.value}{'' if number == 1 else 's'}")
    return text.append(f"{', '.join(counts)}, see above.", "")
