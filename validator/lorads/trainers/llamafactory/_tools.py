"""How LLaMA-Factory writes tool definitions and tool calls (``tool_utils.py``, ``formatter.py``), by tool format.

Whatever the library raises on is raised here too, as the same kind of error: the caller makes a failed row of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Literal

Call = tuple[str, str]
"""A function's name and its arguments as a JSON text."""
ToolFormat = Literal[
    "default",
    "glm4",
    "glm4_moe",
    "lfm2",
    "ling",
    "llama3",
    "minimax1",
    "minimax2",
    "mistral",
    "qwen",
    "qwen3_5",
    "seed_oss",
]

_IN_TOOLS_TAGS = "You are provided with function signatures within <tools></tools> XML tags:\n<tools>"
_MAY_CALL = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n" + _IN_TOOLS_TAGS
_AS_JSON_CALL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>"
)
_GLM4_HEAD = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，"
    "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
)
_GLM4_TOOL = "\n\n## {name}\n\n{body}\n在调用上述函数时，请使用 Json 格式表示调用的参数。"
_GLM4_MOE_TAIL = (
    "\n</tools>\n\nFor each function call, output the function name and arguments within the following XML format:\n"
    "<tool_call>{function-name}\n<arg_key>{arg-key-1}</arg_key>\n<arg_value>{arg-value-1}</arg_value>\n"
    "<arg_key>{arg-key-2}</arg_key>\n<arg_value>{arg-value-2}</arg_value>\n...\n</tool_call>\n"
)
_QWEN35_HEAD = "\n\n# Tools\n\nYou have access to the following functions:\n\n<tools>"
_QWEN35_TAIL = (
    "\n</tools>\n\nIf you choose to call a function ONLY reply in the following format with NO suffix:\n\n<tool_call>\n"
    "<function=example_function_name>\n<parameter=example_parameter_1>\nvalue_1\n</parameter>\n"
    "<parameter=example_parameter_2>\nThis is the value for the second parameter\nthat can span\nmultiple lines\n"
    "</parameter>\n</function>\n</tool_call>\n\n<IMPORTANT>\nReminder:\n"
    "- Function calls MUST follow the specified format: an inner <function=...></function> block must be nested within "
    "<tool_call></tool_call> XML tags\n- Required parameters MUST be specified\n"
    "- You may provide optional reasoning for your function call in natural language BEFORE the function call, but NOT "
    "after\n- If there is no function call available, answer the question like normal with your current knowledge and "
    "do not tell the user about function calls\n</IMPORTANT>"
)
_SEED_HEAD = (
    "system\nYou are Doubao, a helpful AI assistant. You may call one or more functions to assist with the user query."
    "Tool List:\nYou are authorized to use the following tools (described in JSON Schema format). Before performing "
    "any task, you must decide how to call them based on the descriptions and parameters of these tools."
)
_SEED_TAIL = (
    "\n工具调用请遵循如下格式:\n<seed:tool_call>\n<function=example_function_name>\n"
    "<parameter=example_parameter_1>value_1</parameter>\n<parameter=example_parameter_2>This is the value for the "
    "second parameter\nthat can span\nmultiple lines</parameter>\n</function>\n</seed:tool_call>\n"
)


def write_tools(tool_format: str, definitions: Any) -> str:
    """The text that joins the system message; ``definitions`` is the JSON text of the row's tools."""
    tools = json.loads(definitions)
    return _TOOLS[tool_format](tools) if len(tools) != 0 else ""


def write_calls(
    tool_format: str,
    content: str,
    thought_words: tuple[str, str] | None = None,
    tool_call_words: tuple[str, str] | None = None,
) -> str:
    """The text of a call: ``content`` is JSON (one call or a list), with a thought in front of it, or with the JSON
    between ``tool_call_words`` and anything around (``FunctionFormatter.apply``)."""
    marked = _between(tool_call_words, content)
    if marked is not None:
        around = content.replace(marked.group(0), "")
        return around + _CALLS[tool_format](_read_calls(marked.group(1)))
    thought = _between(thought_words, content)
    if thought is None:
        return _CALLS[tool_format](_read_calls(content))
    return thought.group(0) + _CALLS[tool_format](_read_calls(content.replace(thought.group(0), "")))


def _between(words: tuple[str, str] | None, content: str) -> re.Match[str] | None:
    if words is None:
        return None
    return re.search(f"{re.escape(words[0])}(.*?){re.escape(words[1])}", content, re.DOTALL)


def _read_calls(text: str) -> list[Call]:
    found = json.loads(text)
    return [(call["name"], _json(call["arguments"])) for call in (found if isinstance(found, list) else [found])]


def _json(value: Any, **how: Any) -> str:
    return json.dumps(value, ensure_ascii=False, **how)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _json(value)


def _bare(tool: Any) -> Any:
    return tool.get("function", "") if tool.get("type") == "function" else tool


def _wrapped(tool: Any) -> Any:
    return tool if tool.get("type") == "function" else {"type": "function", "function": tool}


def _lines_of_wrapped(tools: Any) -> str:
    return "".join("\n" + _json(_wrapped(tool)) for tool in tools)


def _default_tools(tools: Any) -> str:
    texts, known = [], []
    for tool in map(_bare, tools):
        parameters = tool["parameters"]
        described = ""
        for name, parameter in parameters["properties"].items():
            required = ", required" if name in parameters.get("required", []) else ""
            enum, items = parameter.get("enum", None), parameter.get("items", None)
            choices = f", should be one of [{', '.join(enum)}]" if enum else ""
            each = f", where each item should be {items.get('type', '')}" if items else ""
            kind, meaning = parameter.get("type", ""), parameter.get("description", "")
            described += f"  - {name} ({kind}{required}): {meaning}{choices}{each}\n"
        meaning = tool.get("description", "")
        texts.append(f"> Tool Name: {tool['name']}\nTool Description: {meaning}\nTool Args:\n{described}\n")
        known.append(tool["name"])
    return (
        f"You have access to the following tools:\n{''.join(texts)}Use the following format if using a tool:\n```\n"
        f"Action: tool name (one of [{', '.join(known)}])\n"
        "Action Input: the input to the tool, in a JSON format representing the kwargs "
        '(e.g. ```{"input": "hello world", "num_beams": 5}```)\n```\n'
    )


def _glm4_tools(tools: Any) -> str:
    return _GLM4_HEAD + "".join(
        _GLM4_TOOL.format(name=tool["name"], body=_json(tool, indent=4)) for tool in map(_bare, tools)
    )


def _llama3_tools(tools: Any) -> str:
    date = datetime.now().strftime("%d %b %Y")
    return (
        f"Cutting Knowledge Date: December 2023\nToday Date: {date}\n\n"
        "You have access to the following functions. To call a function, please respond with JSON for a function call. "
        'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}. '
        "Do not use variables.\n\n" + "".join(_json(_wrapped(tool), indent=4) + "\n\n" for tool in tools)
    )


def _minimax1_tools(tools: Any) -> str:
    return (
        "You are provided with these tools:\n<tools>\n"
        + "".join(_json(tool) + "\n" for tool in map(_bare, tools))
        + "</tools>\n\n"
        "If you need to call tools, please respond with <tool_calls></tool_calls> XML tags, and provide tool-name and "
        'json-object of arguments, following the format below:\n<tool_calls>\n{"name": <tool-name-1>, "arguments": '
        "<args-json-object-1>}\n...\n</tool_calls>"
    )


def _minimax2_tools(tools: Any) -> str:
    return (
        "\n\n# Tools\n\nYou may call one or more tools to assist with the user query.\nHere are the tools available in "
        "JSONSchema format:\n\n<tools>\n"
        + "".join(f"<tool>{_json(tool)}</tool>\n" for tool in map(_bare, tools))
        + "</tools>\n\nWhen making tool calls, use XML format to invoke tools and pass parameters:\n\n"
        '<minimax:tool_call>\n<invoke name="tool-name-1">\n<parameter name="param-key-1">param-value-1</parameter>\n'
        '<parameter name="param-key-2">param-value-2</parameter>\n...\n</invoke>\n</minimax:tool_call>'
    )


def _unwrapped(tool: Any) -> Any:
    return tool.get("function", tool) if tool.get("type") == "function" else tool


_TOOLS: dict[str, Callable[[Any], str]] = {
    "default": _default_tools,
    "glm4": _glm4_tools,
    "glm4_moe": lambda tools: "\n\n" + _MAY_CALL + _lines_of_wrapped(tools) + _GLM4_MOE_TAIL,
    "lfm2": lambda tools: f"List of tools: <|tool_list_start|>{_json(list(map(_unwrapped, tools)))}<|tool_list_end|>",
    "ling": lambda tools: _MAY_CALL + _lines_of_wrapped(tools) + _AS_JSON_CALL + "\ndetailed thinking off",
    "llama3": _llama3_tools,
    "minimax1": _minimax1_tools,
    "minimax2": _minimax2_tools,
    "mistral": lambda tools: f"[AVAILABLE_TOOLS] {_json(list(map(_wrapped, tools)))}[/AVAILABLE_TOOLS]",
    "qwen": lambda tools: "\n\n" + _MAY_CALL + _lines_of_wrapped(tools) + _AS_JSON_CALL,
    "qwen3_5": lambda tools: _QWEN35_HEAD + "".join("\n" + _json(_unwrapped(tool)) for tool in tools) + _QWEN35_TAIL,
    "seed_oss": lambda tools: _SEED_HEAD + "\n" + _json(tools) + _SEED_TAIL,
}


def _objects(calls: Sequence[Call], arguments: str) -> list[dict[str, Any]]:
    return [{"name": name, arguments: json.loads(text)} for name, text in calls]


def _tagged(calls: Sequence[Call], head: str, before: str, after_key: str, after: str, tail: str) -> str:
    """Calls as tags: ``head`` name, then ``before`` key ``after_key`` value ``after`` for each argument, ``tail``."""
    texts = []
    for name, text in calls:
        arguments = "".join(before + key + after_key + _text(value) + after for key, value in json.loads(text).items())
        texts.append(head.replace("NAME", name) + arguments + tail)
    return "\n".join(texts)


def _glm4_calls(calls: Sequence[Call]) -> str:
    if len(calls) > 1:
        raise ValueError("GLM-4 takes one call at a time")
    return f"{calls[0][0]}\n{calls[0][1]}"


def _llama3_calls(calls: Sequence[Call]) -> str:
    found = _objects(calls, "parameters")
    return _json(found[0] if len(found) == 1 else found)


def _lfm2_calls(calls: Sequence[Call]) -> str:
    texts = []
    for name, text in calls:
        arguments = (
            f'{key}="{value}"' if isinstance(value, str) else f"{key}={_json(value)}"
            for key, value in json.loads(text).items()
        )
        texts.append(f"{name}({', '.join(arguments)})")
    return f"<|tool_call_start|>[{', '.join(texts)}]<|tool_call_end|>"


def _json_calls(calls: Sequence[Call]) -> str:
    return "\n".join(f"<tool_call>\n{_json(call)}\n</tool_call>" for call in _objects(calls, "arguments"))


_CALLS: dict[str, Callable[[Sequence[Call]], str]] = {
    "default": lambda calls: "\n".join(f"Action: {name}\nAction Input: {arguments}" for name, arguments in calls),
    "glm4": _glm4_calls,
    "glm4_moe": lambda calls: _tagged(
        calls, "\n<tool_call>NAME", "\n<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>", ""
    ),
    "lfm2": _lfm2_calls,
    "ling": _json_calls,
    "llama3": _llama3_calls,
    "minimax1": lambda calls: "<tool_calls>\n{}\n</tool_calls>".format(
        "\n".join(map(_json, _objects(calls, "arguments")))
    ),
    "minimax2": lambda calls: _tagged(
        calls, '<invoke name="NAME">', '\n<parameter name="', '">', "</parameter>", "\n</invoke>"
    ),
    "mistral": lambda calls: _json(_objects(calls, "arguments")),
    "qwen": _json_calls,
    "qwen3_5": lambda calls: _tagged(
        calls, "<tool_call>\n<function=NAME>", "\n<parameter=", ">\n", "\n</parameter>", "\n</function>\n</tool_call>"
    ),
    "seed_oss": lambda calls: _tagged(
        *(calls, "\n<seed:tool_call>\n<function=NAME", "\n<parameter=", ">", "</parameter>"),
        "\n</function>\n</seed:tool_call>",
    ),
}
