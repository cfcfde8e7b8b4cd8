"""Formats: a record understood as a conversation. One module a format."""

from __future__ import annotations

from lorads.formats.base import Columns, Format, Misfit
from lorads.formats.conversation import Alpaca, Conversation, Kind, Message, RowProblem
from lorads.formats.recognise import Recognition, formats, normalise, recognise

__all__ = [
    "Alpaca",
    "Columns",
    "Conversation",
    "Format",
    "Kind",
    "Message",
    "Misfit",
    "Recognition",
    "RowProblem",
    "formats",
    "normalise",
    "recognise",
]
