"""What every format asks of a list of messages: roles in a usable order, and an answer to learn."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from lorads.formats.base import Misfit, type_name
from lorads.formats.conversation import Conversation, Kind, Message, RowProblem

ROLE = itemgetter("role")
CONTENT = itemgetter("content")
TWO = {2}
TEXT = {str}
KNOWN_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function", "ipython"})
OPENERS = frozenset({"system", "developer"})
TRAINER_KEYS = frozenset({"weight", "train", "loss", "loss_weight", "trainable", "training"})
"""Keys of a message that speak to the trainer, not to the template."""

_verdicts: dict[tuple[tuple[str, ...], bool], tuple[tuple[RowProblem, ...], tuple[int, ...]]] = {}


def verdict(roles: tuple[str, ...], needs_answer: bool = True) -> tuple[tuple[RowProblem, ...], tuple[int, ...]]:
    """What is wrong with the order of roles (nothing or one thing), and where the assistant speaks. Remembered, since
    files repeat few shapes."""
    key = (roles, needs_answer)
    known = _verdicts.get(key)
    if known is None:
        if len(_verdicts) > 50_000:
            _verdicts.clear()
        problem = _role_problem(roles, needs_answer)
        answers = tuple(i for i, role in enumerate(roles) if role == "assistant")
        known = _verdicts[key] = ((() if problem is None else (problem,)), answers)
    return known


def _role_problem(roles: tuple[str, ...], needs_answer: bool) -> RowProblem | None:
    def problem(code: str, index: int | None, message: str, hint: str) -> RowProblem:
        return RowProblem("FMT003", code, message, hint, index, "role")

    for i, role in enumerate(roles):
        if role not in KNOWN_ROLES:
            near = difflib.get_close_matches(role[:40], ("system", "user", "assistant", "tool"), 1)
            return problem(
                "unknown-role",
                i,
                f'message {i} has the role "{role[:40]}", which no chat template knows',
                f'did you mean "{near[0]}"?' if near else "use system, user, assistant or tool",
            )
    for i, role in enumerate(roles):
        if role in OPENERS and i > 0 and roles[i - 1] not in OPENERS:
            return problem(
                "system-not-first",
                i,
                f"message {i} is a {role} message in the middle of the conversation (after {roles[i - 1]})",
                "put the system message first, or make it part of the user message that it belongs to",
            )
    for i in range(1, len(roles)):
        if roles[i] == roles[i - 1] and roles[i] in ("user", "assistant"):
            return problem(
                "repeated-role",
                i,
                f"messages {i - 1} and {i} are both {roles[i]}",
                "join them into one message, or put back the turn that is missing between them",
            )
    if "assistant" not in roles:
        if not needs_answer:
            return None
        return problem(
            "no-assistant",
            None,
            "there is no assistant message, so there is no answer to learn",
            "add the assistant's answer, or take the row out",
        )
    first = next(role for role in roles if role not in OPENERS)
    if first == "assistant" and needs_answer:
        return problem(
            "assistant-first",
            roles.index("assistant"),
            "the conversation begins with the assistant: nobody has asked anything",
            "put the user message in front of it that it answers",
        )
    if needs_answer and roles[-1] != "assistant":
        return problem(
            "last-not-assistant",
            len(roles) - 1,
            f"the last message is from {roles[-1]}, and nothing answers it",
            "add the answer, or cut the conversation after the last assistant message",
        )
    return None


def is_blank(value: Any) -> bool:
    """Nothing to learn from: null, an empty or all-blank text, a list of such parts."""
    if value is None:
        return True
    if isinstance(value, str):
        return not value or value.isspace()
    if isinstance(value, list):
        return all(
            is_blank(part.get("text", part.get("value", "x"))) if isinstance(part, dict) else is_blank(part)
            for part in value
        )
    return False


def answer_problem(message: Message, index: int, field: str) -> RowProblem | None:
    """Whether an assistant message holds something to learn. Tool calls and thinking count."""
    content = message.get("content")
    if content is not None and not isinstance(content, (str, list)):
        return not_text(content, index, field)
    if not is_blank(content):
        return None
    if message.get("tool_calls") or message.get("function_call"):
        return None
    if not is_blank(message.get("reasoning_content")) or not is_blank(message.get("thinking")):
        return None
    return empty_answer(content, "content" not in message, index, field)


def not_text(answer: Any, index: int | None, field: str) -> RowProblem:
    return RowProblem(
        "FMT004",
        "not-text",
        f"the answer is {type_name(answer)}, not a text",
        "write the answer as a text (a structured answer as the JSON text that the model should produce)",
        index,
        field,
    )


def empty_answer(content: Any, missing: bool, index: int | None, field: str) -> RowProblem:
    if missing:
        code, what = "missing", "the answer is missing"
    elif content is None:
        code, what = "null", "the answer is null"
    elif content == "" or content == []:
        code, what = "empty", "the answer is empty"
    else:
        code, what = "blank", "the answer is nothing but white space"
    return RowProblem(
        "FMT004",
        code,
        what,
        "write the answer, or take the row out",
        index,
        field,
    )


def conversation(
    messages: Sequence[Any],
    *,
    kind: Kind = Kind.MESSAGES,
    tools: list[Any] | None = None,
    template_kwargs: dict[str, Any] | None = None,
    prompt_messages: int = 0,
    needs_answer: bool = True,
    answer_field: str = "content",
    where: str = "messages",
) -> Conversation:
    """A conversation out of messages with ``role`` and ``content``; raises ``Misfit`` where they are no messages."""
    if tools is None and template_kwargs is None and type(messages) is list:
        made = _plain(messages, kind, prompt_messages, needs_answer)
        if made is not None:
            return made
    roles: list[str] = []
    contents: list[Any] = []
    clean: list[Message] = []
    plain = tools is None and template_kwargs is None
    train: list[bool] | None = None
    for i, message in enumerate(messages):
        try:
            role = message["role"]
        except (TypeError, KeyError):
            raise misfit_message(message, i, where) from None
        if len(message) != 2 or "content" not in message:
            if TRAINER_KEYS.isdisjoint(message):
                plain = False
            else:
                if train is None:
                    train = [True] * len(messages)
                train[i] = trained_flag(message)
                message = {key: value for key, value in message.items() if key not in TRAINER_KEYS}
                plain = plain and len(message) == 2 and "content" in message
        content = message.get("content")
        if type(content) is list:
            message = join_value_parts(message, content)
            content = message["content"]
            plain = plain and len(message) == 2
        if type(content) is not str:
            plain = False
        if type(role) is not str:
            raise Misfit(
                "role-not-text",
                f"the role of message {i} is {type_name(role)}, not a text",
                "write the role as a text",
                i,
                "role",
            )
        roles.append(role)
        contents.append(content)
        clean.append(message)
    if not roles:
        raise Misfit(
            "no-messages", f'"{where}" is an empty list', "put the conversation in it, or take the row out", None, where
        )
    shape = tuple(roles)
    found, answers = verdict(shape, needs_answer)
    for i in answers:
        if i >= prompt_messages and (train is None or train[i]):
            empty = answer_problem(clean[i], i, answer_field)
            if empty is not None:
                found = (*found, empty)
                break
    return Conversation(
        kind,
        clean,
        shape if plain else None,
        contents if plain else None,
        prompt_messages,
        tools,
        template_kwargs,
        train=train,
        problems=found,
    )


def plain_batch(lists: list[list[Any]]) -> list[Conversation | None]:
    """The common case, many rows at once: every message is a role and a text, every answer is there. None in place of
    each row that is anything else, which ``conversation`` then looks at."""
    flat = list(chain.from_iterable(lists))
    try:
        roles = list(map(ROLE, flat))
        contents = list(map(CONTENT, flat))
    except (TypeError, KeyError):
        return [_plain(messages, Kind.MESSAGES, 0, True) for messages in lists]
    if set(map(len, flat)) != TWO or set(map(type, contents)) != TEXT or set(map(type, roles)) != TEXT:
        return [_plain(messages, Kind.MESSAGES, 0, True) for messages in lists]
    blank: set[int] = set()
    if not all(contents) or any(map(str.isspace, contents)):
        blank = {i for i, content in enumerate(contents) if not content or content.isspace()}
    out: list[Conversation | None] = []
    shapes: dict[tuple[str, ...], tuple[tuple[str, ...], tuple[RowProblem, ...], tuple[int, ...]]] = {}
    begin = 0
    for messages in lists:
        end = begin + len(messages)
        shape = tuple(roles[begin:end])
        known = shapes.get(shape)
        if known is None:
            known = shapes[shape] = shape, *verdict(shape)
        shape, problems, answers = known  # one tuple for all rows of a shape
        if not shape or (blank and any(begin + i in blank for i in answers)):
            out.append(None)
        else:
            out.append(Conversation(Kind.MESSAGES, messages, shape, contents[begin:end], problems=problems))
        begin = end
    return out


def _plain(messages: list[Any], kind: Kind, prompt_messages: int, needs_answer: bool) -> Conversation | None:
    """One row of the common case; None for all else."""
    try:
        roles = tuple(map(ROLE, messages))
        contents = list(map(CONTENT, messages))
        if set(map(len, messages)) != TWO or set(map(type, contents)) != TEXT or set(map(type, roles)) != TEXT:
            return None
    except (TypeError, KeyError):
        return None
    problems, answers = verdict(roles, needs_answer)
    for i in answers:
        content = contents[i]
        if i >= prompt_messages and (not content or content.isspace()):
            return None
    return Conversation(kind, messages, roles, contents, prompt_messages, problems=problems)


def join_value_parts(message: Message, parts: list[Any]) -> Message:
    """LLaMA-Factory v1: a content of ``{"type": "text", "value": …}`` parts is their texts joined; ``reasoning`` and
    ``tool_call`` parts become the message's ``reasoning_content`` and ``tool_calls``. Other parts stay as they are."""
    if not parts or not all(isinstance(part, dict) and isinstance(part.get("value"), str) for part in parts):
        return message
    texts = [part["value"] for part in parts if part.get("type", "text") in ("text", "tool_result")]
    joined = {**message, "content": "".join(texts)}
    reasoning = "".join(part["value"] for part in parts if part.get("type") == "reasoning")
    if reasoning:
        joined["reasoning_content"] = reasoning
    calls = [call for part in parts if part.get("type") == "tool_call" for call in parse_calls(part["value"])]
    if calls:
        joined["tool_calls"] = calls
    return joined


def parse_calls(text: str) -> list[dict[str, Any]]:
    """Tool calls written as a JSON text, one call or a list of them; an unparsable text is kept as a call's name."""
    try:
        value = json.loads(text)
    except ValueError:
        return [{"type": "function", "function": {"name": text, "arguments": {}}}]
    calls = value if isinstance(value, list) else [value]
    return [{"type": "function", "function": call} for call in calls if isinstance(call, dict)]


def trained_flag(message: Message) -> bool:
    """What ``weight`` (OpenAI), ``train``, ``loss`` and the like say: False only where one of them is 0 or false."""
    return not any(key in message and message[key] is not None and not message[key] for key in TRAINER_KEYS)


def misfit_message(message: Any, index: int, where: str) -> Misfit:
    if isinstance(message, dict):
        keys = ", ".join(sorted(map(str, message))[:6]) or "none"
        return Misfit(
            "no-role",
            f'message {index} of "{where}" has no role (its keys: {keys})',
            'give every message a "role" and a "content"',
            index,
            "role",
        )
    return Misfit(
        "not-a-message",
        f'message {index} of "{where}" is {type_name(message)}, not an object with role and content',
        'write it as {"role": …, "content": …}',
        index,
        where,
    )
