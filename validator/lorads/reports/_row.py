"""One row, token by token, at a terminal."""

from __future__ import annotations

import shutil
from typing import IO

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from lorads.errors import UsageError
from lorads.findings import RowView, escape
from lorads.reports.text import MAX_WIDTH, MIN_WIDTH, TOKEN_STYLES

FATES = {
    "trained": "the loss learns to predict it",
    "masked": "read, but not learnt (label -100)",
    "special": "control token",
    "cut": "cut off by the maximum length",
}


def write_row(view: RowView, stream: IO[str]) -> None:
    """Colour shows each token's fate at a terminal; elsewhere every change of fate is written out."""
    width = min(max(shutil.get_terminal_size((100, 24)).columns, MIN_WIDTH), MAX_WIDTH)
    console = Console(file=stream, width=width, highlight=False, emoji=False, markup=False)
    fed = [token for token in view.tokens if token.role != "cut"]
    trained = sum(token.trained for token in fed[1:])  # nothing predicts the first token
    place = f"{escape(view.path)}:{view.line}" if view.line is not None else escape(view.path)
    console.print(Text(f"{place} (row {view.row:,}), {escape(view.tokenizer)}, as {view.trainer} sees it", "bold"))
    cut = len(view.tokens) - len(fed)
    limit = f", {cut:,} cut off at {view.max_length:,}" if cut and view.max_length is not None else ""
    console.print(Text(f"{len(view.tokens):,} tokens{limit}; {trained:,} are trained"))
    if view.dropped is not None:
        console.print(Text(f"the trainer drops this row: {view.dropped}", "bold red"))
    console.print()
    plain = not console.is_terminal or console.no_color
    body = Text()
    state = ""
    for token in view.tokens:
        fate = "cut" if token.role == "cut" else "trained" if token.trained else "masked"
        if fate != state and (plain or fate == "cut"):
            body.append(f"⟨{fate}⟩", "bold red" if fate == "cut" else "dim")
        state = fate
        style = TOKEN_STYLES[token.role] + (" underline" if token.role == "special" and token.trained else "")
        body.append(escape(token.text), style)
        # a line break of the data is shown and also taken, so that code can be read as code
        body.append("\n" if token.text.endswith("\n") else "")
    console.print(body)
    console.print()
    legend = Text()
    for role, words in FATES.items():
        legend.append(role, TOKEN_STYLES[role])
        legend.append(f": {words}   ", "dim")
    console.print(legend)


SHOWN = 5
"""Tokens of one text that are explained."""


def write_why(view: RowView, asked: str, stream: IO[str]) -> None:
    """Why the trainer does with a token what it does. ``asked`` is the token's number, or text that it holds. Raises
    ``UsageError`` when the row has no such token."""
    count = len(view.tokens)
    if asked.isdecimal() and int(asked) < count:
        chosen = [int(asked)]
    else:
        exact = [i for i, token in enumerate(view.tokens) if token.text.strip() == asked.strip()]
        chosen = exact or [i for i, token in enumerate(view.tokens) if asked in token.text]
    if not chosen:
        raise UsageError(
            f"no token of this row is or holds {asked!r}", f"it has {count:,} tokens, numbered from 0; give one of them"
        )
    width = min(max(shutil.get_terminal_size((100, 24)).columns, MIN_WIDTH), MAX_WIDTH)
    console = Console(file=stream, width=width, highlight=False, emoji=False, markup=False)
    for i in chosen[:SHOWN]:
        token = view.tokens[i]
        fate = "cut off" if token.role == "cut" else "trained" if token.trained else "not trained"
        head = Text(f"token {i:,} of {count:,}: ", "bold")
        around = view.tokens[max(i - 4, 0) : i]
        head.append("".join(escape(other.text) for other in around), "dim")
        head.append(escape(token.text), f"{TOKEN_STYLES[token.role]} reverse").append(f" (id {token.id:,})")
        console.print(head)
        console.print(Text(f"  {fate} by {view.trainer}, as part of: {token.place}"))
        console.print(Padding(Text(f"because {token.reason}"), (0, 0, 0, 2)))
    if len(chosen) > SHOWN:
        console.print(Text(f"and {len(chosen) - SHOWN:,} more like it; give a number to see one", "dim"))
    if view.dropped is not None:
        console.print(Text(f"the trainer drops the whole row: {view.dropped}", "bold red"))
