"""Words that several rules use in their messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorads.findings import Row, escape, show

MESSAGE_FIELDS = frozenset({"role", "content", "reasoning_content", "thinking", "reasoning", "tool_calls", "tool_call"})
"""Fields of a message. Any other one is a column of the row, such as ``output``."""


def hit(row: Row, fact: str) -> Mapping[str, Any]:
    """The HIT of this name, empty where there is none."""
    found: Mapping[str, Any] | None = row.get(fact)
    return found or {}


def number(value: int) -> str:
    """1390 → ``1,390``."""
    return f"{value:,}"


def count_of(value: int, one: str) -> str:
    """1, ``token`` → ``1 token``; 1390, ``token`` → ``1,390 tokens``."""
    return f"{value:,} {one}" if value == 1 else f"{value:,} {one}s"


def place(found: Mapping[str, Any]) -> str:
    """Where a HIT is, as a path from the row with messages counted from 0: ``messages[1].content``, ```text```."""
    index, field = found.get("message_index"), found.get("field")
    if field == "value" and index is not None:  # ShareGPT, where a system column may shift the numbers
        return f"`value` of message {index}"
    if index is None or index < 0 or (field and field not in MESSAGE_FIELDS):
        return f"`{escape(field)}`" if field else "the row"
    return f"messages[{index}].{field}" if field else f"messages[{index}]"


def text_in(found: Mapping[str, Any]) -> str:
    """What a HIT found, and where: ``"<|EOT|>" in messages[1].content``."""
    return f"{show(found['text']) if found.get('text') else 'a string'} in {place(found)}"


def more(found: Mapping[str, Any]) -> str:
    """`` (and 3 more in this row)`` where a HIT stands for several places."""
    count = found.get("count") or 1
    return f" (and {count - 1:,} more in this row)" if count > 1 else ""


def ordinary_tokens(found: Mapping[str, Any]) -> str:
    """``5 ordinary tokens``, or ``ordinary text`` where it isn't known how many."""
    begin, end = found.get("token_begin"), found.get("token_end")
    if begin is None or end is None or end <= begin:
        return "ordinary text"
    return "1 ordinary token" if end - begin == 1 else f"{end - begin:,} ordinary tokens"


def the_token(found: Mapping[str, Any]) -> str:
    """The token that should stand there, with its id: ``"<|EOT|>" (id 32021)``."""
    token_id = found.get("token_id")
    return show(found["expected"]) + ("" if token_id is None else f" (id {token_id})")


def said(found: Mapping[str, Any], limit: int = 200) -> str:
    """The words of a library or template, quoted, behind a colon; nothing where it said none."""
    return f": {show(found['detail'], limit)}" if found.get("detail") else ""


def too_long(row: Row) -> str:
    """``the row is 1,390 tokens long and the trainer keeps 1,024``, from the facts that there are."""
    if row.get("max_length") is None or row.get("tokens") is None:
        return "the row is longer than what the trainer keeps"
    return f"the row is {count_of(row['tokens'], 'token')} long and the trainer keeps {number(row['max_length'])}"


def shorten(row: Row) -> str:
    """What to do about a row that is too long, with how much it is."""
    if row.get("max_length") is None or row.get("tokens") is None:
        return "shorten what stands before the answer, or take the row out"
    over = count_of(row["tokens"] - row["max_length"], "token")
    enough = number(row["tokens"])
    return f"shorten what stands before the answer by {over}, or train with a maximum length of at least {enough}"
