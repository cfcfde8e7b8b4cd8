"""swift's agent templates (``swift/agent_template``): how tools, calls and results are written.

``react_en``, ``qwen_en``, ``hermes`` and ``llama3`` are reproduced, the words they use are in ``agents.toml``.
"""

from __future__ import annotations

import ast
import json
import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from lorads.trainers.ms_swift._read import NotReproduced, RowError
from lorads.trainers.ms_swift._template import QUERY, SwiftTemplate, Word

AGENTS = ("hermes", "llama3", "qwen_en", "react_en")
Context = tuple[Word, int]
"""A text or ids, and the message it comes from (-1: scaffolding)."""


@cache
def _words(name: str) -> dict[str, str]:
    text = files("lorads.trainers.ms_swift").joinpath("agents.toml").read_text(encoding="utf-8")
    found: dict[str, str] = tomllib.loads(text)[name]
    return found


def parse_json(value: Any) -> Any:
    """``BaseAgentTemplate._parse_json``."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None


def _dumps(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


class Agent:
    """One agent template, bound to a chat template. Raises ``RowError`` for what swift raises at."""

    def __init__(self, name: str, template: SwiftTemplate) -> None:
        self.name = name
        self._template = template
        marks = _words("qwen_en" if name == "qwen_en" else "react_en")
        self._action, self._input, self._observation = marks["action"], marks["input"], marks["observation"]

    def wrapped(self, tools: list[Any]) -> list[dict[str, Any]]:
        """``_preprocess_tools`` (``template/base.py`` L307)."""
        out = []
        for tool in map(parse_json, tools):
            if not isinstance(tool, dict):
                raise RowError("a tool is no object")
            out.append(tool if "type" in tool or "function" in tool else {"type": "function", "function": tool})
        return out

    # Tools

    def system(self, tools: list[dict[str, Any]], system: str | None) -> str:
        """The system text with the tools in it."""
        if self.name == "llama3":
            return system or ""
        words = _words(self.name)
        if self.name == "hermes":
            listed = "\n".join(map(_dumps, tools))
            return f"{system or ''}{words['before']}{listed}{words['after']}"
        described = [_described(tool) for tool in tools]
        joined = "\n\n".join(words["tool"].format(*parts) for parts in described)
        names = ",".join(str(parts[0]) for parts in described)
        before = words["before"] if self.name == "react_en" else f"{system or ''}{words['before']}"
        return before + joined + words["after"].replace("{names}", names)

    def before_first(self, tools: list[dict[str, Any]]) -> str:
        """What stands in front of the first message."""
        if self.name != "llama3":
            return ""
        words = _words("llama3")
        return words["before"] + "\n\n".join(_dumps(tool, 4) for tool in tools) + words["after"]

    # Calls

    def calls(self, contents: list[str]) -> str:
        """Calls in a row, as one answer."""
        parsed = [_call(content) for content in contents]
        if self.name == "hermes":
            return "\n".join(f"<tool_call>\n{_dumps(call)}\n</tool_call>" for call in parsed)
        if self.name == "llama3":
            return "\n".join(_dumps({"name": call["name"], "parameters": call["arguments"]}) for call in parsed)
        written = "".join(f"{self._action} {call['name']}\n{self._input} {call['arguments']}\n" for call in parsed)
        return written + self._observation

    # Results

    def results(self, answer: str, results: list[tuple[str, int]]) -> tuple[str, list[Context]]:
        """What is put behind the answer that called (the answer itself comes back longer or as it was), and what
        stands in place of a question."""
        acting = self._action in answer and self._input in answer
        if acting or self.name in ("react_en", "qwen_en"):
            return self._observed(answer, results, acting)
        if self.name == "llama3":
            out: list[Context] = [("<|eot_id|>", -1)]
            for text, index in results:
                out += [("<|start_header_id|>tool<|end_header_id|>\n\n", -1), (text, index), ("<|eot_id|>", -1)]
            return answer, [*out, ("<|start_header_id|>assistant<|end_header_id|>\n\n", -1)]
        if self._template.chat_sep is None:
            raise RowError("the template takes one round only, and tools need more")
        return answer, self._hermes_results(results)

    def _observed(self, answer: str, results: list[tuple[str, int]], acting: bool) -> tuple[str, list[Context]]:
        """``ReactCompatMixin._format_tool_responses``."""
        if not acting:
            return answer, list(results)
        if not answer.endswith(self._observation):
            answer += ("" if answer.endswith("\n") else "\n") + self._observation
        out: list[Context] = []
        for i, (text, index) in enumerate(results):
            if i > 0:
                out.append((self._observation, -1))
            out.append((text, index))
            if not text.endswith("\n"):
                out.append(("\n", -1))
        return answer, out

    def _hermes_results(self, results: list[tuple[str, int]]) -> list[Context]:
        out: list[Context] = [(word, -1) for word in self._template.chat_sep or ()]
        for word in self._template.prompt:
            if not isinstance(word, str) or QUERY not in word:
                out.append((word, -1))
                continue
            pieces = word.split(QUERY)
            for i, piece in enumerate(pieces):
                if i > 0:
                    for k, (text, index) in enumerate(results):
                        out.append((("\n" if k else "") + "<tool_response>\n", -1))
                        out += [(text, index), ("\n</tool_response>", -1)]
                out.append((piece, -1))
        return out

    def alone(self, results: list[tuple[str, int]]) -> list[Context]:
        """Results behind a question: ``_format_standalone_tool_responses``."""
        if self.name == "react_en":
            return [part for text, index in results for part in (("\n" + self._observation + "\n", -1), (text, index))]
        if self.name != "hermes":
            raise RowError(f"ms-swift's agent template {self.name} takes no result without a call")
        whole = self._hermes_results(results)
        if any(not isinstance(word, str) for word, _ in whole):
            raise NotReproduced("a result without a call under this template")
        closing = max(i for i, (word, _) in enumerate(whole) if isinstance(word, str) and "</tool_response>" in word)
        return whole[: closing + 1]


def _call(content: str) -> dict[str, Any]:
    """``_parse_tool_call``."""
    call = parse_json(content)
    if not isinstance(call, dict) or "name" not in call:
        raise RowError("a tool call is no object with a name")
    arguments = call.get("arguments")
    if arguments is None:
        arguments = call.get("parameters")
    arguments = parse_json(arguments)
    if arguments is None:
        raise RowError("a tool call has no arguments that can be read")
    return {"name": call["name"], "arguments": arguments}


def _described(tool: dict[str, Any]) -> tuple[Any, Any, Any, str]:
    """``_parse_tool``: name, its name for people, description, parameters."""
    inner = tool["function"] if "type" in tool and "function" in tool else tool
    if not isinstance(inner, dict):
        raise RowError("a tool is no object")
    name = inner.get("name_for_model") or inner.get("name")
    description = inner.get("description")
    if description is None:
        description = inner.get("description_for_model")
    if name is None or description is None:
        raise RowError("a tool has no name or no description")
    parameters = inner.get("parameters") or {}
    written = parameters if isinstance(parameters, str) else _dumps(parameters)
    return name, inner.get("name_for_human") or name, description, written
