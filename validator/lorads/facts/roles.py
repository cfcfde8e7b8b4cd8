"""What a chat template does with each role, found by trying it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lorads.formats import Conversation, Kind

if TYPE_CHECKING:
    from lorads.templates import Template

_QUESTION: dict[str, Any] = {"role": "user", "content": "What is two and two?"}
_ANSWER: dict[str, Any] = {"role": "assistant", "content": "Four."}
_TRIALS: dict[str, list[dict[str, Any]]] = {
    "system": [{"role": "system", "content": "Answer in one word."}, _QUESTION, _ANSWER],
    "developer": [{"role": "developer", "content": "Answer in one word."}, _QUESTION, _ANSWER],
    "tool": [
        _QUESTION,
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
            ],
        },
        {"role": "tool", "name": "add", "tool_call_id": "call_1", "content": "4"},
        _ANSWER,
    ],
}


@dataclass(frozen=True, slots=True)
class RoleSupport:
    """``refused``: roles at which the template raises though it takes the conversation without them, with its words."""

    refused: dict[str, str] = field(default_factory=dict)


def role_support(template: Template | None) -> RoleSupport:
    if template is None:
        return RoleSupport()
    trials = [[_QUESTION, _ANSWER], *_TRIALS.values()]
    render = template.render([Conversation(Kind.MESSAGES, messages) for messages in trials])
    if 0 in render.failures:
        return RoleSupport()
    return RoleSupport(
        {role: render.failures[i].message for i, role in enumerate(_TRIALS, start=1) if i in render.failures}
    )
