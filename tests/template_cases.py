"""What the tests of ``lorads.templates`` share: conversations, segments as text, a plain reference sandbox."""

from __future__ import annotations

import json
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lorads.formats.conversation import Conversation, Kind
from lorads.templates.render import PART_CONTENT, RenderBatch

CLOCK = datetime(2026, 3, 4, 5, 6, 7)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def conversation(
    messages: list[dict[str, Any]],
    tools: list[Any] | None = None,
    template_kwargs: dict[str, Any] | None = None,
    prompt_messages: int = 0,
) -> Conversation:
    plain = (
        tools is None
        and template_kwargs is None
        and all(
            isinstance(m, dict) and m.keys() == {"role", "content"} and isinstance(m["content"], str) for m in messages
        )
    )
    return Conversation(
        Kind.MESSAGES,
        messages,
        roles=tuple(m["role"] for m in messages) if plain else None,
        contents=[m["content"] for m in messages] if plain else None,
        prompt_messages=prompt_messages,
        tools=tools,
        template_kwargs=template_kwargs,
    )


def say(*turns: tuple[str, str]) -> Conversation:
    return conversation([{"role": role, "content": content} for role, content in turns])


@cache
def battery() -> list[dict[str, Any]]:
    return list(yaml.safe_load((Path(__file__).parent / "templates" / "battery.yaml").read_text("utf-8")))


def segments(batch: RenderBatch, row: int) -> list[tuple[int, int, str]]:
    """(message, part, text) of each segment of a render; checks that they cover it."""
    found, position = [], 0
    for index in range(batch.row_segments[row], batch.row_segments[row + 1]):
        end = position + int(batch.segment_chars[index])
        text = batch.texts[row][position:end]
        found.append((int(batch.segment_message[index]), int(batch.segment_part[index]), text))
        position = end
    assert position == len(batch.texts[row])
    return found


def content(batch: RenderBatch, row: int, message: int, part: int = PART_CONTENT) -> str:
    return "".join(text for number, kind, text in segments(batch, row) if (number, kind) == (message, part))


def reference(source: str) -> Any:
    """The template in jinja2's own sandbox, set up as transformers documents it, without bounds."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import Node, Scope
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 (jinja2's interface)

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            return Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    def tojson(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["dict"] = lambda *args, **kwargs: dict(*args, **kwargs)
    environment.globals["strftime_now"] = CLOCK.strftime
    return environment.from_string(source)


def reference_render(template: Any, case: dict[str, Any], *, add_generation_prompt: bool = False) -> str:
    messages = []
    for message in case["messages"]:
        kept = {key: value for key, value in message.items() if value is not None}
        names = ("reasoning_content", "thinking", "reasoning")
        reasoning = next((kept[name] for name in names if name in kept), None)
        if reasoning is not None:
            kept = {"thinking": reasoning, **kept, "reasoning_content": reasoning}
        messages.append(kept)
    return str(
        template.render(
            messages=messages,
            tools=case.get("tools"),
            documents=None,
            add_generation_prompt=add_generation_prompt,
            **{**TOKENS, **(case.get("template_kwargs") or {})},
        )
    )
