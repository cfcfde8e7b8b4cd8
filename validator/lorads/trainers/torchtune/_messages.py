"""From a row to torchtune's messages: its message transforms and what stops them.

``data/_messages.py`` of torchtune 0.6.1: ``InputOutputToMessages`` L145-263, ``ShareGPTToMessages`` L362-494,
``OpenAIToMessages`` L497-631, ``validate_messages`` L634-673, ``AlpacaToMessages`` L676-740.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from lorads.formats import Conversation, Kind
from lorads.templates.render import PART_CONTENT, PART_REASONING, PART_TOOL_CALL, SCAFFOLD, TOOLS, Lost

ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Input:\n{}\n\n### Response:\n"
)
ALPACA = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{}\n\n### Response:\n"
)
SHAREGPT_ROLES = {"system": "system", "human": "user", "gpt": "assistant"}
MISSING = object()
TURN_COLUMNS = ("messages", "conversations", "conversation")


class Stops(Exception):
    """torchtune raises an exception at the row."""


class Unknown(Exception):
    """The row asks for something that lorads does not reproduce."""


@dataclass(slots=True)
class Messages:
    """The messages of a row. ``items[i]`` are the texts of message i, as indices of ``contents``; ``origin[i]`` is its
    index among the conversation's messages, ``SCAFFOLD`` for one that the row does not hold."""

    roles: tuple[str, ...]
    items: tuple[tuple[int, ...], ...]
    masked: tuple[bool, ...]
    origin: tuple[int, ...]
    contents: list[str]


@cache
def single(count: int) -> tuple[tuple[int, ...], ...]:
    """``items`` of messages that are one text each."""
    return tuple((i,) for i in range(count))


@cache
def problem(roles: tuple[str, ...]) -> str | None:
    """``validate_messages``: why torchtune refuses messages in this order."""
    if len(roles) < 2:
        return f"it wants at least two messages, and here is {len(roles)}"
    before = "assistant"
    for i, role in enumerate(roles):
        if role == "assistant" and before != "user":
            return f"message {i} is the assistant's, and no user message stands in front of it"
        if role == "user" and before == "user":
            return f"messages {i - 1} and {i} are both the user's"
        if role == "system" and i > 0:
            return f"message {i} is a system message, which may only be the first"
        before = role
    return None


def alpaca(conversation: Conversation, train_on_input: bool) -> Messages:
    columns = conversation.alpaca
    assert columns is not None, "asked of alpaca rows alone"
    if columns.input:
        question = ALPACA_INPUT.format(columns.instruction, columns.input)
    else:
        question = ALPACA.format(columns.instruction)
    return _pair(question, columns.output, train_on_input, len(conversation.messages) - 2)


def input_output(asked: Any, answered: Any, train_on_input: bool, system: str | None, first: int = 0) -> Messages:
    found = _pair(asked, answered, train_on_input, first)
    return found if system is None else _led_by(system, found)


def _pair(asked: Any, answered: Any, train_on_input: bool, first: int) -> Messages:
    if type(answered) is not str or type(asked) is not str:
        raise Stops("the answer or the question is no text")
    return Messages(
        ("user", "assistant"), single(2), (not train_on_input, False), (first, first + 1), [asked, answered]
    )


def _led_by(system: str, found: Messages) -> Messages:
    """``new_system_prompt``: a masked system message in front."""
    return Messages(
        ("system", *found.roles),
        tuple((0,) if k < 0 else tuple(i + 1 for i in found.items[k]) for k in range(-1, len(found.items))),
        (True, *found.masked),
        (SCAFFOLD, *found.origin),
        [system, *found.contents],
    )


def turns_of(conversation: Conversation) -> list[Any]:
    """The turns of a row as the file has them; the conversation's messages where the file has them otherwise."""
    record = conversation.record
    if record is not None and conversation.kind is Kind.MESSAGES:
        for name in (*(name for name in TURN_COLUMNS if name in record), *record):
            turns = record[name]
            if type(turns) is list and turns and type(turns[0]) is dict and ("role" in turns[0] or "from" in turns[0]):
                return turns
    return conversation.messages


def sharegpt(turns: Sequence[Any], record: Mapping[str, Any], offset: int, masks: bool, system: str | None) -> Messages:
    try:
        names = [turn["from"] for turn in turns]
        contents = [turn["value"] for turn in turns]
    except KeyError as missing:
        raise Stops(f'a turn has no "{missing.args[0]}" (KeyError)') from None
    try:
        roles = [SHAREGPT_ROLES[name] for name in names]
    except (KeyError, TypeError):
        unknown = next(name for name in names if name not in list(SHAREGPT_ROLES))
        raise Stops(f'it knows the roles human, gpt and system, and here is "{unknown}" (KeyError)') from None
    origin: Sequence[int] = range(offset, offset + len(roles))
    if system is not None:
        roles, contents, origin = _without_system(roles, contents, origin)
    if "image" in record and "user" in roles:
        raise Stops("the row has an image, which chat_dataset does not look for where it must (KeyError)")
    if any(type(content) is not str for content in contents):
        raise Stops('"value" of a turn is no text (AssertionError)')
    return _chat(roles, contents, single(len(roles)), origin, masks, system)


def openai(turns: Sequence[Any], offset: int, masks: bool, system: str | None) -> Messages:
    roles = [turn["role"] for turn in turns]
    contents: list[Any] = [turn.get("content", MISSING) for turn in turns]
    origin: Sequence[int] = range(offset, offset + len(roles))
    if system is not None:
        roles, contents, origin = _without_system(roles, contents, origin)
    if all(type(content) is str for content in contents):
        return _chat(roles, contents, single(len(roles)), origin, masks, system)
    texts: list[str] = []
    items: list[tuple[int, ...]] = []
    for content in contents:
        if type(content) is str:
            items.append((len(texts),))
            texts.append(content)
        elif type(content) is list:
            parts = [part for part in map(_part, content) if part is not None]
            items.append(tuple(range(len(texts), len(texts) + len(parts))))
            texts += parts
        elif content is MISSING:
            raise Stops('a message has no "content" (KeyError)')
        elif not items:
            raise Stops("the first message has no content (UnboundLocalError)")
        else:
            # OpenAIToMessages L619-622 sets `content` for texts and lists alone: the message before is said again.
            items.append(items[-1])
    return _chat(roles, texts, tuple(items), origin, masks, system)


def _part(part: Any) -> str | None:
    """The text of a content part; None for one that torchtune passes over."""
    if not isinstance(part, dict) or "type" not in part:
        raise Stops('a part of a content has no "type" (KeyError or TypeError)')
    if part["type"] == "image_url":
        raise Unknown("the row holds an image, which lorads does not load")
    if part["type"] != "text":
        return None
    text = part.get("text")
    if not isinstance(text, str):
        raise Stops('a text part of a content has no text in "text"')
    return text


def _without_system(
    roles: Sequence[str], contents: Sequence[Any], origin: Sequence[int]
) -> tuple[list[str], list[Any], list[int]]:
    left = [i for i, role in enumerate(roles) if role != "system"]
    return [roles[i] for i in left], [contents[i] for i in left], [origin[i] for i in left]


def _chat(
    roles: Sequence[str],
    contents: list[str],
    items: tuple[tuple[int, ...], ...],
    origin: Sequence[int],
    masks: bool,
    system: str | None,
) -> Messages:
    names = tuple(roles)
    masked = tuple([masks and role != "assistant" for role in names])
    found = Messages(names, items, masked, tuple(origin), contents)
    return found if system is None else _led_by(system, found)


def lost(conversation: Conversation, found: Messages) -> tuple[Lost, ...]:
    """What the row holds and torchtune does not look at: other columns, tool calls, thinking."""
    if conversation.roles is not None and len(found.roles) == len(conversation.roles) and SCAFFOLD not in found.origin:
        return ()
    missing: list[Lost] = []
    if conversation.tools:
        missing.append(Lost(TOOLS, PART_CONTENT, str(conversation.tools)[:60]))
    seen = set(found.origin)
    for i, message in enumerate(conversation.messages):
        content = message.get("content")
        if i not in seen and content:
            missing.append(Lost(i, PART_CONTENT, str(content)[:60], whole_message=True))
            continue
        for key, part in (("tool_calls", PART_TOOL_CALL), ("reasoning_content", PART_REASONING)):
            if message.get(key):
                missing.append(Lost(i, part, str(message[key])[:60]))
    return tuple(missing)
