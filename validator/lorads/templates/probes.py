"""Conversations that a template is tried on, to decide which engine may render it.

Each is ``(messages, tools)``. They cover what data sets hold: roles in every order, tools, tool calls with arguments
as objects and as strings, thinking, parts, odd white space, characters that escaping or casing would change.
"""

from __future__ import annotations

from typing import Any

Probe = tuple[list[dict[str, Any]], list[dict[str, Any]] | None]

_ODD = '  <b>"It\'s" & ÄÖß 日本 \\n {{ x }} %s\n\n  two  \n'
_ARGUMENTS: dict[str, Any] = {
    "city": "Zürich <\"'&>",
    "days": 3,
    "metric": True,
    "off": False,
    "limit": None,
    "ratio": 0.5,
    "tags": ["a", "b's"],
    "nested": {"x": {"y": [1, None]}, "empty": {}, "none": []},
}
_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Look the weather up.\nTwo lines.",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": 'Where, in <any> "language"'},
                    "days": {"type": "integer", "enum": [1, 2, 3], "default": 1},
                    "unit": {"type": ["string", "null"], "enum": ["C", "F"]},
                    "tags": {"type": "array", "items": {"type": "string"}},
                    "place": {"type": "object", "properties": {"lat": {"type": "number"}}, "required": ["lat"]},
                    "any": {"anyOf": [{"type": "string"}, {"type": "number"}], "nullable": True},
                },
                "required": ["city"],
            },
            "return": {"type": "string"},
        },
    },
    {
        "type": "function",
        "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}},
    },
]


def _say(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def _call(arguments: Any, content: Any = "", **more: Any) -> dict[str, Any]:
    call = {"id": "call12345", "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    return {"role": "assistant", "content": content, "tool_calls": [call], **more}


def _calls(arguments: Any) -> list[dict[str, Any]]:
    second = {"id": "call67890", "type": "function", "function": {"name": "now", "arguments": {}}}
    both = _call(arguments, "I look.")
    both["tool_calls"] = [both["tool_calls"][0], second]
    return [
        {"role": "user", "content": "Weather?"},
        both,
        {"role": "tool", "tool_call_id": "call12345", "name": "get_weather", "content": '{"t": 21.5}'},
        {"role": "tool", "tool_call_id": "call67890", "name": "now", "content": "12:00"},
        {"role": "assistant", "content": "21 degrees."},
    ]


def is_plain(probe: Probe) -> bool:
    """True when the probe holds roles and texts alone, as most data does."""
    messages, tools = probe
    return tools is None and all(
        message.keys() == {"role", "content"} and isinstance(message["content"], str) for message in messages
    )


def probes() -> list[Probe]:
    """All of them, freshly made."""
    turns: list[list[dict[str, Any]]] = [
        _say(("user", "Hi")),
        _say(("user", "Hi"), ("assistant", "Hello")),
        _say(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello")),
        _say(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")),
        _say(("system", _ODD), ("user", _ODD), ("assistant", _ODD), ("user", _ODD), ("assistant", _ODD)),
        _say(("developer", "Dev"), ("user", "Hi"), ("assistant", "Hello")),
        _say(("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d")),
        _say(("assistant", "first"), ("user", "second")),
        _say(("user", "a"), ("system", "late"), ("assistant", "b")),
        _say(("stranger", "a"), ("user", "b"), ("assistant", "c")),
        _say(
            ("user", "a"),
            ("assistant", "<think>\nmull\n</think>\n\nb"),
            ("user", "c"),
            ("assistant", "<think>\nmore\n</think>\n\nd"),
        ),
        _say(("user", ""), ("assistant", "")),
        _say(("system", ""), ("user", " \n"), ("assistant", "\n")),
        _say(
            ("user", [{"type": "text", "text": "part one"}, {"type": "text", "text": "part two"}]),
            ("assistant", [{"type": "text", "text": "answer"}]),
        ),
        [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "reasoning_content": " why\n"},
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "d", "reasoning_content": "because"},
        ],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "thinking": "hm"}],
        [{"role": "user", "content": "a"}, {"role": "assistant"}],
        [{"role": "user", "content": "a", "name": "Bob"}, {"role": "assistant", "content": "b"}],
        [],
    ]
    found: list[Probe] = [(messages, None) for messages in turns]
    found += [(turns[1], _TOOLS), (turns[2], _TOOLS), (turns[1], [])]
    for arguments in (_ARGUMENTS, {}, '{"city": "Z\\u00fcrich"}', {"city": "x"}):
        found += [(_calls(arguments), None), (_calls(arguments), _TOOLS)]
    found += [
        ([{"role": "user", "content": "q"}, _call({"city": "x"}), *_say(("tool", "r"))], _TOOLS),
        (
            [{"role": "user", "content": "q"}, _call({"city": "x"}, reasoning_content="think"), *_say(("tool", "r"))],
            _TOOLS,
        ),
        (
            [{"role": "user", "content": "q"}, {"role": "assistant", "tool_calls": [{"name": "now", "arguments": {}}]}],
            _TOOLS,
        ),
        (
            [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "q"},
                _call(_ARGUMENTS),
                {"role": "tool", "content": {"t": 1.5, "ok": True, "why": None}},
                *_say(("assistant", "done")),
            ],
            _TOOLS,
        ),
        (
            [
                {"role": "user", "content": "q"},
                _call({"city": "x"}),
                *_say(("tool", "r"), ("user", "and?")),
                _call({"city": "y"}),
                *_say(("tool", "r2"), ("assistant", "ok")),
            ],
            _TOOLS,
        ),
    ]
    return found
