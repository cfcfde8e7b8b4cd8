"""What rendering gives: texts, and which characters of them came from which message."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

SCAFFOLD = -1
"""``message`` of a segment whose characters the template wrote: headers, turn ends, injected defaults."""
TOOLS = -2
"""``message`` of a segment that holds the tool definitions."""

# ``part`` of a segment: what in the message its characters are.
PART_NONE, PART_CONTENT, PART_REASONING, PART_TOOL_CALL = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class Lost:
    """Something of a message that the render does not hold."""

    message: int
    """Index of the message; ``TOOLS`` for the tool definitions."""
    part: int
    excerpt: str
    """The first characters of what is missing."""
    whole_message: bool = False
    """True when nothing of the message is in the render: the template ignored its role."""
    role: str | None = None
    """Under which role the template was given it, where that is not the message's own."""


@dataclass(frozen=True, slots=True)
class RenderFailure:
    """Why a row has no ids. ``kind`` is ``raised`` (``raise_exception`` in the template, its own words in
    ``message``), ``error`` (the template broke), ``limit`` (time or size), ``no-template``, ``stops`` (the trainer
    does, at the row), ``not-reproduced`` (by lorads)."""

    kind: str
    message: str


@dataclass(slots=True)
class RenderBatch:
    """The renders of a batch of conversations, as columns.

    ``texts[i]`` is the render of conversation i (``""`` when ``failures`` holds i). Each render is cut without gaps
    into segments; ``segment_chars``, ``segment_message`` and ``segment_part`` are flat over the batch, and the segments
    of render i are ``row_segments[i]:row_segments[i + 1]``. A segment's length is in characters (code points) and may
    be 0. Joining the CONTENT segments of one message gives back its content, except for what ``lost`` names and for
    edge whitespace that the template trims.
    """

    texts: list[str]
    segment_chars: npt.NDArray[np.int64]
    segment_message: npt.NDArray[np.int32]
    segment_part: npt.NDArray[np.int8]
    row_segments: npt.NDArray[np.int64]
    failures: dict[int, RenderFailure] = field(default_factory=dict)
    lost: dict[int, tuple[Lost, ...]] = field(default_factory=dict)
    generation: dict[int, list[tuple[int, int]]] | None = None
    """Character spans inside ``{% generation %}`` blocks; None when the template has no such block."""
    from_pieces: npt.NDArray[np.bool_] | None = None
    """Rows whose template prints contents as they are, but for white space at their edges: with another content they
    would have the same scaffold. None where that isn't known of any."""
