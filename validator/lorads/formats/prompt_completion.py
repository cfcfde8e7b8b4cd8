"""``prompt-completion``: ``{"prompt", "completion"}``, both texts or both lists of messages (TRL's names for it)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorads.formats.base import Columns, Misfit, type_name
from lorads.formats.conversation import Conversation, Kind, RowProblem
from lorads.formats.messages import no_column, read_tools
from lorads.formats.turns import conversation, empty_answer, is_blank, not_text


class PromptCompletionFormat:
    name = "prompt-completion"
    rank = 50

    def evidence(self, record: Mapping[str, Any], columns: Columns) -> str | None:
        prompt, completion = columns.find(record, "prompt"), columns.find(record, "completion")
        if prompt is None or completion is None:
            return None
        return f'columns "{prompt}" and "{completion}"'

    def normalise(self, record: Mapping[str, Any], columns: Columns) -> Conversation:
        prompt = columns.find(record, "prompt")
        completion = columns.find(record, "completion")
        if prompt is None:
            raise no_column(record, columns.names("prompt")[0])
        asked = record[prompt]
        answered = record[completion] if completion is not None else None
        field = completion or columns.names("completion")[0]
        tools = read_tools(columns.get(record, "tools"))
        return pair(
            asked, answered, prompt, field, completion is None, tools, record.get("chat_template_kwargs") or None
        )


def pair(
    asked: Any,
    answered: Any,
    prompt: str,
    field: str,
    missing: bool = False,
    tools: list[Any] | None = None,
    template_kwargs: dict[str, Any] | None = None,
) -> Conversation:
    """A prompt and what follows it, as texts or as messages."""
    if isinstance(asked, list):
        if answered is None or answered == []:
            answered, empty = [{"role": "assistant", "content": ""}], True
        else:
            empty = False
        if not isinstance(answered, list):
            raise Misfit(
                "mixed",
                f'"{prompt}" is a list and "{field}" is {type_name(answered)}',
                "make both lists of messages",
                None,
                field,
            )
        made = conversation(
            [*asked, *answered],
            kind=Kind.PROMPT_COMPLETION_MESSAGES,
            tools=tools,
            template_kwargs=template_kwargs,
            prompt_messages=len(asked),
            where=prompt,
        )
        if empty:
            made.problems = (empty_answer(None if missing else [], missing, len(asked), field),)
        return made
    if not isinstance(asked, str):
        raise Misfit("not-text", f'"{prompt}" is {type_name(asked)}, not a text', "write it as a text", None, prompt)
    if answered is not None and not isinstance(answered, str):
        problems: tuple[RowProblem, ...] = (not_text(answered, None, field),)
        return Conversation(Kind.PROMPT_COMPLETION, [], text=asked, completion="", problems=problems)
    problems = (empty_answer(answered, missing, None, field),) if is_blank(answered) else ()
    return Conversation(Kind.PROMPT_COMPLETION, [], text=asked, completion=answered or "", problems=problems)


FORMAT = PromptCompletionFormat()
