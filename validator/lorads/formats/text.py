"""``text``: ``{"text": …}``, language modelling on the whole of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorads.formats.base import Columns, Misfit, type_name
from lorads.formats.conversation import Conversation, Kind
from lorads.formats.messages import no_column
from lorads.formats.turns import empty_answer, is_blank


class TextFormat:
    name = "text"
    rank = 70

    def evidence(self, record: Mapping[str, Any], columns: Columns) -> str | None:
        column = columns.find(record, "text")
        return None if column is None else f'a column "{column}"'

    def normalise(self, record: Mapping[str, Any], columns: Columns) -> Conversation:
        column = columns.find(record, "text")
        if column is None:
            raise no_column(record, columns.names("text")[0])
        text = record[column]
        if text is not None and not isinstance(text, str):
            raise Misfit("not-text", f'"{column}" is {type_name(text)}, not a text', "write it as a text", None, column)
        problems = (empty_answer(text, False, None, column),) if is_blank(text) else ()
        return Conversation(Kind.TEXT, [], text=text or "", problems=problems)


FORMAT = TextFormat()
