"""A row after its format is understood."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

Message = dict[str, Any]


class Kind(StrEnum):
    """What a trainer is given: the dataset types of TRL's documentation, which the other trainers share."""

    TEXT = "text"
    """One string, all of it language."""
    MESSAGES = "messages"
    """A list of messages, rendered by the chat template."""
    PROMPT_COMPLETION = "prompt-completion"
    """Two strings."""
    PROMPT_COMPLETION_MESSAGES = "prompt-completion-messages"
    """Messages of which the first ``prompt_messages`` are the prompt."""
    TOKENIZED = "tokenized"
    """``input_ids`` made by somebody else."""


@dataclass(slots=True, frozen=True)
class RowProblem:
    """Something a format module finds wrong with one row. ``rule`` is the id of the rule it belongs to."""

    rule: str
    code: str
    message: str
    hint: str
    message_index: int | None = None
    field: str | None = None


class Alpaca(NamedTuple):
    """The columns of an ``alpaca`` row as they are read: None where the row has no such column."""

    instruction: Any
    input: Any
    output: Any
    system: Any
    history: Any


@dataclass(slots=True)
class Conversation:
    """One row: messages, tools, and what each message is for.

    ``messages`` are dictionaries as chat templates take them (``role``, ``content``, ``tool_calls``, ``tool_call_id``,
    ``name``, ``reasoning_content`` …) with the format's role names mapped to ``system``, ``developer``, ``user``,
    ``assistant`` and ``tool``, and without keys that are for the trainer alone (``weight``, ``train``).

    ``roles`` is set when every message holds a role and a text and nothing else, there are no tools and no template
    arguments: then the render depends on ``roles`` and ``contents`` alone, and can be put together from pieces.
    """

    kind: Kind
    messages: list[Message]
    roles: tuple[str, ...] | None = None
    contents: list[str] | None = None
    prompt_messages: int = 0
    tools: list[Any] | None = None
    template_kwargs: dict[str, Any] | None = None
    text: str | None = None
    """The text, or the prompt of ``PROMPT_COMPLETION``."""
    completion: str | None = None
    input_ids: list[int] | None = None
    labels: list[int] | None = None
    """Of ``TOKENIZED``, where the row brings them."""
    masks: dict[str, list[int]] | None = None
    """``completion_mask`` and ``assistant_masks`` of ``TOKENIZED``: which of them count is the trainer's affair."""
    train: list[bool] | None = None
    """Per message, where the file says so (``weight``, ``train``, ``loss``): False means not trained."""
    problems: tuple[RowProblem, ...] = ()
    alpaca: Alpaca | None = None
    """The columns themselves, for trainers that write the question in their own way."""
    record: Mapping[str, Any] | None = None
    """The row as it was read, for trainers that read columns of their own."""
