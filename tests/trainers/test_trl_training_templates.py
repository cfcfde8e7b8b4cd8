"""The templates that TRL renders with instead of known ones, against the real ones of its wheel."""

from __future__ import annotations

from typing import Any

import pytest

import realdata
from lorads.formats import Conversation
from lorads.formats.turns import conversation
from lorads.templates import Template
from lorads.trainers.trl._training_templates import names, training_template

LISTS = {"idefics3", "llava_next", "smolvlm"}
"""Templates that take content as lists of parts alone."""
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"a": 1, "b": "x"}}}
TEXTS = (
    "hi",
    " padded \n",
    "",
    "<think>\nhm\n</think>\n\nyes",
    "so</think> no",
    "<think>open",
    "é 👩\u200d💻 <|im_end|>",
)


def talks() -> list[Conversation]:
    """Conversations of many kinds: with thinking, tools, without an answer, in any order."""
    found: list[list[dict[str, Any]]] = []
    for text in TEXTS:
        user: dict[str, Any] = {"role": "user", "content": "q " + text}
        answer: dict[str, Any] = {"role": "assistant", "content": text}
        system = {"role": "system", "content": "be " + text}
        tool = {"role": "tool", "content": text, "name": "f"}
        call = {"role": "assistant", "content": text, "tool_calls": [CALL]}
        thinking = {**answer, "reasoning_content": "why"}
        found += [
            *([user, answer], [system, user, answer], [user, answer, user, thinking], [user, thinking, user, answer]),
            *([user, call, tool, answer], [user, call, tool, tool, answer, user], [user], [system], [answer, answer]),
            *([user, answer, system, user, answer], [user, {**call, "content": ""}, tool], [user, tool, answer]),
            [user, {"role": "assistant", "tool_calls": [CALL, CALL]}, tool, answer, user, answer],
        ]
    return [conversation(messages, tools=tools) for messages in found for tools in (None, TOOLS)]


def as_parts(talk: Conversation) -> Conversation:
    messages = [
        {**message, "content": [{"type": "text", "text": message.get("content", "")}]} for message in talk.messages
    ]
    return conversation(messages)


def test_every_training_template_of_trl_is_known() -> None:
    folder = realdata.require("trl/chat_templates")
    assert names() == sorted(file.name.removesuffix("_training.jinja") for file in folder.glob("*_training.jinja"))


@pytest.mark.parametrize("name", names())
def test_renders_as_the_real_training_template(name: str) -> None:
    folder = realdata.require("trl/chat_templates")
    original = (folder / f"{name}.jinja").read_text(encoding="utf-8")
    found = training_template(original)
    assert found is not None
    edited, called = found
    assert called == name
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    ours = Template(edited, special=special)
    theirs = Template((folder / f"{name}_training.jinja").read_text(encoding="utf-8"), special=special)
    assert theirs.has_generation_markers
    rows = [as_parts(talk) for talk in talks()] if name in LISTS else talks()
    for prompt in (False, True):
        mine = ours.render(rows, add_generation_prompt=prompt)
        real = theirs.render(rows, add_generation_prompt=prompt)
        assert mine.texts == real.texts
        assert mine.generation == real.generation
        assert mine.failures.keys() == real.failures.keys()
        assert len(real.failures) < len(rows)
    assert sum(map(bool, (real.generation or {}).values())) > 3


def test_a_template_that_differs_by_a_character_is_none_of_them() -> None:
    assert training_template("{{ messages[0].content }}") is None
