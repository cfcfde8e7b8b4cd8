"""Lines at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text


def hanging(console: Console, text: Text, *, begin: int = 0, indent: int = 2) -> None:
    """Print with a hanging indent, so that what belongs together is seen to."""
    lines = text.wrap(console, max(console.width - indent, 20), no_wrap=False)
    for i, line in enumerate(lines):
        line.rstrip()
        console.print(Text(" " * (begin if i == 0 else indent)) + line, soft_wrap=True)
