"""``messages``: OpenAI's chat format, which TRL, Unsloth, axolotl and ms-swift share.

A row is ``{"messages": [message, …], "tools"?, "chat_template_kwargs"?}``, a message
``{"role", "content", "tool_calls"?, "tool_call_id"?, "name"?, "reasoning_content"?, "weight"?}``. A content is a text,
null, or a list of ``{"type": "text", "text"}`` parts, which templates get as it is; LLaMA-Factory's v1 parts (``value``
instead of ``text``) are joined, as that trainer does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lorads.formats.base import Columns, Misfit, type_name
from lorads.formats.conversation import Conversation
from lorads.formats.turns import conversation, plain_batch


class MessagesFormat:
    name = "messages"
    rank = 30

    def evidence(self, record: Mapping[str, Any], columns: Columns) -> str | None:
        for part in ("messages", "conversations"):
            column = columns.find(record, part)
            if column is not None and _are_messages(record[column]):
                return f'a list "{column}" of messages with role and content'
        return None

    def normalise(self, record: Mapping[str, Any], columns: Columns) -> Conversation:
        column = columns.find(record, "messages") or columns.find(record, "conversations")
        if column is None:
            raise no_column(record, columns.names("messages")[0])
        messages = record[column]
        if type(messages) is not list:
            raise not_a_list(column, messages)
        if len(record) == 1:
            return conversation(messages, where=column)
        return conversation(
            messages,
            tools=read_tools(columns.get(record, "tools")),
            template_kwargs=record.get("chat_template_kwargs") or None,
            where=column,
        )

    def normalise_batch(self, records: Sequence[Any], columns: Columns) -> Sequence[Conversation | None]:
        """Rows that hold nothing but plain messages, all at once; None in place of every other row."""
        column = columns.names("messages")[0]
        try:
            lists = [record[column] for record in records]
        except (TypeError, KeyError):
            return [None] * len(records)
        if set(map(type, records)) != {dict} or set(map(len, records)) != {1} or set(map(type, lists)) != {list}:
            return [None] * len(records)
        return plain_batch(lists)


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def read_tools(value: Any) -> list[Any] | None:
    """Tool definitions as a list; a JSON text of one is read, as TRL 1.16 does (``sft_trainer.py`` L1316)."""
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except ValueError as error:
            raise Misfit(
                "tools-not-json",
                f'"tools" is a text that is no JSON: {error}',
                "write the tools as a JSON list",
                None,
                "tools",
            ) from None
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise Misfit(
            "tools-not-a-list", f'"tools" is {type_name(value)}, not a list', "write the tools as a list", None, "tools"
        )
    return value


def no_column(record: Mapping[str, Any], wanted: str) -> Misfit:
    columns = ", ".join(list(map(str, record))[:8]) or "none"
    return Misfit(
        "no-column",
        f'there is no column "{wanted}" (the columns here: {columns})',
        f'rename the column to "{wanted}", or say which one it is under [columns] in lorads.toml',
        None,
        wanted,
    )


def not_a_list(column: str, value: Any) -> Misfit:
    return Misfit(
        "not-a-list",
        f'"{column}" is {type_name(value)}, not a list of messages',
        "write the conversation as a list",
        None,
        column,
    )


FORMAT = MessagesFormat()
