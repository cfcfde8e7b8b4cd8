"""``alpaca``: ``{"instruction", "input"?, "output", "system"?, "history"?}``.

The user message is ``instruction`` and, where it is not empty, ``input`` after a newline; ``history`` pairs become
turns: as LLaMA-Factory 0.9.5 (``converter.py``) and ms-swift 4.6 do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorads.formats.base import Columns, Misfit, type_name
from lorads.formats.conversation import Alpaca, Conversation, Kind
from lorads.formats.messages import no_column, read_tools
from lorads.formats.turns import conversation, empty_answer, is_blank


class AlpacaFormat:
    name = "alpaca"
    rank = 60

    def evidence(self, record: Mapping[str, Any], columns: Columns) -> str | None:
        instruction, output = columns.find(record, "instruction"), columns.find(record, "output")
        if instruction is None or output is None:
            return None
        return f'columns "{instruction}" and "{output}"'

    def normalise(self, record: Mapping[str, Any], columns: Columns) -> Conversation:
        names = columns.of(record)
        if "instruction" not in names:
            raise no_column(record, columns.names("instruction")[0])
        question = record[names["instruction"]]
        extra = record[names["input"]] if "input" in names else None
        if type(question) is not str or type(extra) is not str:
            for value, part in ((question, "instruction"), (extra, "input")):
                if value is not None and not isinstance(value, str):
                    raise Misfit(
                        "not-text",
                        f'"{names[part]}" is {type_name(value)}, not a text',
                        "write it as a text",
                        None,
                        names[part],
                    )
        user = f"{question}\n{extra}" if question and extra else question or extra or ""
        messages: list[dict[str, Any]] = []
        if "system" in names or "history" in names:
            system = columns.get(record, "system")
            if isinstance(system, str) and system:
                messages.append({"role": "system", "content": system})
            messages += _history(columns.get(record, "history"))
        messages.append({"role": "user", "content": user})
        field = names.get("output", columns.names("output")[0])
        answer = record.get(field)
        raw = Alpaca(question, extra, answer, columns.get(record, "system"), columns.get(record, "history"))
        if is_blank(answer):
            problem = empty_answer(answer, field not in record, len(messages), field)
            messages.append({"role": "assistant", "content": answer or ""})
            return Conversation(Kind.MESSAGES, messages, problems=(problem,), alpaca=raw)
        messages.append({"role": "assistant", "content": answer})
        tools = read_tools(record[names["tools"]]) if "tools" in names else None
        found = conversation(messages, tools=tools, answer_field=field, where="alpaca")
        found.alpaca = raw
        return found


def _history(value: Any) -> list[dict[str, Any]]:
    if not value:
        return []
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in value
    ):
        raise Misfit(
            "history",
            '"history" is no list of [question, answer] pairs of texts',
            "write it as [[question, answer], …]",
            None,
            "history",
        )
    return [
        {"role": role, "content": text}
        for pair in value
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


FORMAT = AlpacaFormat()
