"""LLaMA-Factory's templates: those of ``templates.toml``, or one made from a tokenizer's chat template as it does."""

from __future__ import annotations

import difflib
import re
import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

CONTENT = "{{content}}"
KindOfTemplate = Literal["plain", "llama2", "reasoning", "reasoning-closed"]
_PLACEHOLDER = re.compile(r"\{\{[a-zA-Z_][a-zA-Z0-9_]*\}\}")


@dataclass(frozen=True, slots=True)
class Token:
    """One token by its id: ``bos`` and ``eos`` mean the tokenizer's, whichever they are."""

    name: str
    special: bool = False


Slots = tuple[str | Token, ...]
EOS = Token("eos", special=True)


@dataclass(frozen=True, slots=True)
class Style:
    """One template: how it writes each kind of message (``template.py``, class ``Template``)."""

    name: str
    user: Slots
    assistant: Slots
    system: Slots
    function: Slots
    observation: Slots
    prefix: Slots = ()
    tool_format: str = "default"
    function_format: str = "default"
    tools_slot: str | None = None
    """A slot that takes the tool definitions as they are written, in place of a tool format."""
    default_system: str = ""
    stop_words: tuple[str, ...] = ()
    thought_words: tuple[str, str] = ("<think>\n", "\n</think>\n\n")
    tool_call_words: tuple[str, str] = ("<tool_call>", "</tool_call>")
    efficient_eos: bool = False
    replace_eos: bool = False
    kind: KindOfTemplate = "plain"

    @property
    def reasons(self) -> bool:
        return self.kind.startswith("reasoning")

    @property
    def empty_thought(self) -> str:
        """What stands before an answer that has no thought (``add_thought``)."""
        return self.thought_words[1] if self.kind == "reasoning-closed" else "".join(self.thought_words)

    def with_tool_format(self, tool_format: str) -> Style:
        """``get_template_and_fix_tokenizer`` (L637): the slots of calls become the plain ones, whatever they were."""
        slots: Slots = (CONTENT,) if self.efficient_eos else (CONTENT, EOS)
        return replace(self, function=slots, function_format=tool_format, tool_format=tool_format, tools_slot=None)


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name("templates.toml").read_text(encoding="utf-8"))


def names() -> list[str]:
    return [name for name, found in _file().items() if isinstance(found, dict)]


def named(name: str) -> Style:
    """The template of that name. Raises ``UsageError`` where there is none that lorads reproduces."""
    found = _file().get(name)
    if isinstance(found, dict):
        return _style(name, found)
    if name in _file()["multimodal"]:
        raise UsageError(
            f'the template "{name}" is for models that also take images, video or sound; lorads does not reproduce it',
            "give the template of the text model: --trainer-option template=NAME",
        )
    near = difflib.get_close_matches(name, names(), 1)
    hint = f'did you mean "{near[0]}"?' if near else f"it has: {', '.join(names())}"
    raise UsageError(f'LLaMA-Factory has no template "{name}"', hint)


def _style(name: str, found: dict[str, Any]) -> Style:
    def slots(key: str, default: Slots) -> Slots:
        given = found.get(key)
        return default if given is None else tuple(map(_slot, given))

    efficient = bool(found.get("efficient_eos"))
    user = slots("user", (CONTENT,))
    assistant = slots("assistant", (CONTENT,) if efficient else (CONTENT, EOS))
    more: dict[str, Any] = {key: found[key] for key in ("default_system", "replace_eos", "kind") if key in found}
    more |= {key: tuple(found[key]) for key in ("stop_words", "thought_words", "tool_call_words") if key in found}
    tool_format = found.get("tool_format", "default")
    return Style(
        name=name,
        user=user,
        assistant=assistant,
        system=slots("system", (CONTENT,)),
        function=slots("function", assistant),
        observation=slots("observation", user),
        prefix=slots("prefix", ()),
        tool_format=tool_format,
        function_format=tool_format,
        tools_slot=found["tools"][0] if "tools" in found else None,
        efficient_eos=efficient,
        **more,
    )


def _slot(value: Any) -> str | Token:
    if isinstance(value, str):
        return value
    return Token(value["special"], special=True) if "special" in value else Token(value["token"])


def parsed(tokenizer: Tokenizer, template: Template) -> Style:
    """What LLaMA-Factory makes of a tokenizer's chat template when it is given no name (``parse_template``, L566): it
    renders four small conversations and cuts the renders apart. Raises ``UsageError`` where that stops the run."""
    prefix = tokenizer.decode(tokenizer.encode([""], add_special_tokens=True).flat.tolist())
    begin = len(prefix)
    system = _rendered(template, [("system", CONTENT)], False)[begin:]
    without_system = _rendered(template, [("system", ""), ("user", CONTENT)], True)[begin:]
    user = _rendered(template, [("user", CONTENT)], True)[begin:]
    both = _rendered(template, [("user", CONTENT), ("assistant", CONTENT)], False)
    assistant = both[begin + len(user) :]
    thinks = "<think>" in assistant
    assistant = assistant.replace("<think>", "").replace("</think>", "").lstrip("\n")
    default_system = ""
    if len(user) > len(without_system):
        default_system = _inserted(without_system, user)
        user = user[len(system.replace(CONTENT, default_system, 1)) :]
    for what, slot in (("user", user), ("assistant", assistant), ("system", system)):
        if not _PLACEHOLDER.search(slot):
            raise _unparsable(f"what it cuts out for the {what} message holds no place for its content")
    return Style(
        name="parsed from the chat template",
        user=(user,),
        assistant=(assistant,),
        system=(system,),
        function=(assistant,),
        observation=(user,),
        prefix=(prefix,) if prefix else (),
        default_system=default_system,
        kind="reasoning" if thinks else "plain",
    )


def _rendered(template: Template, messages: list[tuple[str, str]], prompt: bool) -> str:
    turns = [{"role": role, "content": content} for role, content in messages]
    batch = template.render(
        [Conversation(Kind.MESSAGES, turns, tuple(r for r, _ in messages), [c for _, c in messages])],
        add_generation_prompt=prompt,
    )
    if batch.failures:
        roles = " and ".join(role for role, _ in messages)
        raise _unparsable(f"it can't render {roles} alone ({batch.failures[0].message})")
    return batch.texts[0]


def _unparsable(why: str) -> UsageError:
    return UsageError(
        f"LLaMA-Factory can't take the tokenizer's chat template apart: {why}",
        "give the name of one of its templates: --trainer-option template=NAME",
    )


def _inserted(short: str, long: str) -> str:
    """The characters of ``long`` that a walk through ``short`` does not meet (``find_diff``)."""
    found: list[str] = []
    at = 0
    for char in long:
        if at == len(short):
            break
        if char == short[at]:
            at += 1
        else:
            found.append(char)
    return "".join(found)
