"""``preference``: ``{"chosen", "rejected", "prompt"?}`` as texts or messages (TRL), or ShareGPT's ``conversations``
with one ``chosen`` and one ``rejected`` turn (LLaMA-Factory).

Ids and labels are those of the prompt with the chosen answer; the rejected one is looked at for being there at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorads.formats.base import Columns, Misfit, type_name
from lorads.formats.conversation import Conversation, Kind, RowProblem
from lorads.formats.messages import read_tools
from lorads.formats.prompt_completion import pair
from lorads.formats.sharegpt import read_turns
from lorads.formats.turns import conversation, empty_answer, is_blank


class PreferenceFormat:
    name = "preference"
    rank = 20

    def evidence(self, record: Mapping[str, Any], columns: Columns) -> str | None:
        if columns.find(record, "chosen") is None or columns.find(record, "rejected") is None:
            return None
        return 'columns "chosen" and "rejected"'

    def normalise(self, record: Mapping[str, Any], columns: Columns) -> Conversation:
        chosen_column, rejected_column = columns.find(record, "chosen"), columns.find(record, "rejected")
        for found, name in ((chosen_column, "chosen"), (rejected_column, "rejected")):
            if found is None:
                raise Misfit(
                    "no-column", f'there is no column "{name}"', "preference data needs both answers", None, name
                )
        chosen, rejected = record[str(chosen_column)], record[str(rejected_column)]
        tools = read_tools(columns.get(record, "tools"))
        turns = columns.get(record, "conversations")
        prompt = columns.find(record, "prompt")
        if isinstance(turns, list) and isinstance(chosen, dict):
            asked = read_turns(turns, "conversations")
            made = conversation(
                [*asked, *read_turns([chosen], "chosen")],
                kind=Kind.PROMPT_COMPLETION_MESSAGES,
                tools=tools,
                prompt_messages=len(asked),
                answer_field="chosen",
                where="conversations",
            )
        elif prompt is not None:
            made = pair(record[prompt], chosen, prompt, "chosen", tools=tools)
        elif isinstance(chosen, list):
            made = conversation(chosen, tools=tools, where="chosen")
        elif isinstance(chosen, str) or chosen is None:
            empty = (empty_answer(chosen, False, None, "chosen"),) if is_blank(chosen) else ()
            made = Conversation(Kind.TEXT, [], text=chosen or "", problems=empty)
        else:
            raise Misfit(
                "not-text",
                f'"chosen" is {type_name(chosen)}',
                "write it as a text or as a list of messages",
                None,
                "chosen",
            )
        if not made.problems:
            made.problems = _rejected(rejected)
        return made


def _rejected(value: Any) -> tuple[RowProblem, ...]:
    last = value[-1] if isinstance(value, list) and value else value
    content = last.get("content", last.get("value")) if isinstance(last, dict) else last
    if isinstance(last, dict) and last.get("tool_calls"):
        return ()
    return (empty_answer(content, False, None, "rejected"),) if is_blank(content) else ()


FORMAT = PreferenceFormat()
