"""axolotl's settings, by its own names and with its own defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Ends = Literal["all", "turn", "last", "none"]


@dataclass(frozen=True, slots=True)
class Options:
    type: str = ""
    """Dataset type: ``chat_template``, ``completion`` or one of the alpaca family; empty: what fits the row."""
    train_on_inputs: bool = False
    """Train the prompt of instruction rows, and the content of every turn of conversations."""
    roles_to_train: tuple[str, ...] = ("assistant",)
    """Roles whose turns are trained."""
    train_on_eos: Ends = "turn"
    """Which EOS tokens behind turns are trained."""
    train_on_eot: Ends | None = None
    """Which end-of-turn tokens are trained; None: as ``train_on_eos`` says."""
    eot_tokens: tuple[str, ...] | None = None
    """The tokens that end a turn; None: EOS alone."""
    field_messages: str | None = None
    """Column of the messages; None: ``messages`` or ``conversations``, whichever a row has."""
    message_property_mappings: str | None = None
    """JSON object, from the template's names to the row's; None: ``from`` and ``value`` where a row has them."""
    message_field_training: str | None = None
    """Key of a message that says whether it is trained; None: such keys are ignored."""
    message_field_training_detail: str | None = None
    """Key of a message that lists which characters of it are trained."""
    field_thinking: str = "reasoning_content"
    """Key of a message that holds its reasoning."""
    template_thinking_key: str = "reasoning_content"
    """What the chat template calls the reasoning."""
    split_thinking: bool = False
    """Move reasoning in ``<think>`` tags out of the content."""
    drop_system_message: bool = False
    """Leave out the system turn."""
    chat_template_kwargs: str | None = None
    """JSON object of arguments for the chat template."""
    excess_length_strategy: Literal["drop", "truncate", "raise"] = "drop"
    """What becomes of rows over ``sequence_len`` (``--max-length``)."""
    min_sample_len: int | None = None
    """Rows with fewer tokens are dropped; None: 2."""
