"""One row as two trainers see it, side by side, and what differs in words."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lorads.findings import Comparison, RowView, Token, escape
from lorads.reports.text import MIN_WIDTH, TOKEN_STYLES

MAX_WIDTH = 200
GROUPS = 12
EXAMPLE = 48

Pair = tuple[Token | None, Token | None]


def write_comparison(comparison: Comparison, stream: IO[str]) -> None:
    """At a terminal colour shows each token's fate and differing tokens stand in reverse; elsewhere fates are written
    out and differing tokens stand between ▸ and ◂."""
    width = min(max(shutil.get_terminal_size((100, 24)).columns, MIN_WIDTH), MAX_WIDTH)
    console = Console(file=stream, width=width, highlight=False, emoji=False, markup=False)
    left, right = comparison.left, comparison.right
    place = f"{escape(left.path)}:{left.line}" if left.line is not None else escape(left.path)
    console.print(Text(f"{place} (row {left.row:,}), {escape(left.tokenizer)}", "bold"))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, expand=True, padding=(0, 1))
    for view in (left, right):
        table.add_column(Text(f"{view.trainer}\n{_sum(view)}"), ratio=1, overflow="fold")
    plain = not console.is_terminal or console.no_color
    columns = (_Column(plain), _Column(plain))
    for line in _lines(comparison):
        table.add_row(*(column.text(line, side) for side, column in enumerate(columns)))
    console.print(table)
    _legend(console, plain)
    _differences(console, comparison)
    for view in (left, right):
        for note in view.notes:
            console.print(Text(f"{view.trainer}: {note}", "dim"))


def _sum(view: RowView) -> str:
    fed = [token for token in view.tokens if token.role != "cut"]
    cut = len(view.tokens) - len(fed)
    said = f"{len(view.tokens):,} tokens, {sum(token.trained for token in fed[1:]):,} trained"
    said += f", {cut:,} cut off" if cut else ""
    return said + (f"\ndropped: {view.dropped}" if view.dropped is not None else "")


def _pairs(comparison: Comparison) -> Iterator[Pair]:
    """Token by token; None where one side has nothing."""
    for stretch in comparison.stretches:
        ours = comparison.left.tokens[slice(*stretch.left)]
        theirs = comparison.right.tokens[slice(*stretch.right)]
        if stretch.same:
            yield from zip(ours, theirs, strict=True)
        else:
            yield from ((token, None) for token in ours)
            yield from ((None, token) for token in theirs)


def _lines(comparison: Comparison) -> Iterator[list[Pair]]:
    """The pairs, cut after line breaks of the data, so that both sides stay level."""
    line: list[Pair] = []
    for pair in _pairs(comparison):
        line.append(pair)
        if any(token is not None and token.text.endswith("\n") for token in pair):
            yield line
            line = []
    if line:
        yield line


def _fate(token: Token) -> str:
    return "cut" if token.role == "cut" else "trained" if token.trained else "masked"


def _differs(pair: Pair) -> bool:
    ours, theirs = pair
    return ours is None or theirs is None or _fate(ours) != _fate(theirs)


class _Column:
    """Writes one side, line by line."""

    def __init__(self, plain: bool) -> None:
        self.plain = plain
        self.fate = ""

    def text(self, line: list[Pair], side: int) -> Text:
        out = Text()
        marked = False
        for pair in line:
            token = pair[side]
            if token is None:
                continue
            differs = _differs(pair)
            if self.plain:
                out.append("◂" if marked and not differs else "")
                if _fate(token) != self.fate:
                    out.append(f"⟨{_fate(token)}⟩")
                out.append("▸" if differs and not marked else "")
            self.fate, marked = _fate(token), differs
            style = TOKEN_STYLES[token.role] + (" underline" if token.role == "special" and token.trained else "")
            out.append(escape(token.text), style + (" reverse" if differs else ""))
        out.append("◂" if self.plain and marked else "")
        return out


def _legend(console: Console, plain: bool) -> None:
    if plain:
        console.print(Text("▸ ◂ stand around what differs; ⟨…⟩ says what happens to the tokens that follow", "dim"))
        return
    legend = Text()
    for words, style in (("trained", "green"), ("masked", "dim"), ("control token", "cyan"), ("cut off", "dim red")):
        legend.append(words, style).append("   ")
    legend.append("control token, trained", "cyan underline").append("   ").append("differs", "reverse")
    console.print(legend)


@dataclass(slots=True)
class _Group:
    """Tokens that differ in the same way, for the same reasons."""

    tokens: int = 0
    runs: int = 0
    example: str = ""
    reasons: tuple[str, str] = ("", "")
    last: int = field(default=-2)


def _differences(console: Console, comparison: Comparison) -> None:
    names = (comparison.left.trainer, comparison.right.trainer)
    groups: dict[tuple[str, str, str], _Group] = {}
    for number, pair in enumerate(_pairs(comparison)):
        if not _differs(pair):
            continue
        ours, theirs = pair
        token = ours or theirs
        assert token is not None
        left, right = ("" if side is None else _fate(side) for side in pair)
        group = groups.setdefault((token.place, left, right), _Group())
        group.runs += group.last != number - 1
        if len(group.example) < EXAMPLE and group.runs == 1:
            group.example += token.text
        group.tokens += 1
        group.last = number
        group.reasons = ("" if ours is None else ours.reason, "" if theirs is None else theirs.reason)
    console.print()
    if not groups:
        console.print(Text("Both build the same ids and the same labels.", "bold"))
        return
    console.print(Text("What differs", "bold"))
    for (place, left, right), group in list(groups.items())[:GROUPS]:
        console.print(Padding(_headline(names, (left, right), place, group), (0, 0, 0, 2)))
        for name, reason in zip(names, group.reasons, strict=True):
            if reason:
                console.print(Padding(Text(f"{name}: {reason}", "dim"), (0, 0, 0, 4)))
    if len(groups) > GROUPS:
        console.print(Text(f"  and {len(groups) - GROUPS} more kinds of difference", "dim"))


def _headline(names: tuple[str, str], fates: tuple[str, str], place: str, group: _Group) -> Text:
    these = "this token" if group.tokens == 1 else f"these {group.tokens:,} tokens"
    where = f" in {group.runs:,} places" if group.runs > 1 else ""
    if "" in fates:
        has, lacks = (names[0], names[1]) if fates[0] else (names[1], names[0])
        fate = fates[0] or fates[1]
        says = f"{has} has {these}{where} ({fate}), {lacks} has not"
    elif "cut" in fates:
        cuts, keeps = (names[0], names[1]) if fates[0] == "cut" else (names[1], names[0])
        says = f"{cuts} cuts {these}{where} off, {keeps} keeps them"
    else:
        trains, masks = (names[0], names[1]) if fates[0] == "trained" else (names[1], names[0])
        says = f"{trains} trains {these}{where}, {masks} does not"
    example = escape(group.example)
    example = example if len(example) <= EXAMPLE else example[: EXAMPLE - 1] + "…"
    out = Text()
    out.append(says).append(f" ({place}): ").append(example, "reverse" if place else "")
    return out
