"""The facts: one flat, typed record per record of the input.

``FACTS`` is the whole list, in column order, each with what it means. A fact is a count, a position, a flag, a hash or
a short excerpt; the text of a row never stands here. The columns of kind ``HIT`` say that something was found at one
place of the row (the first, with ``count`` telling how many more there are), and are null where it was not.

A record that could not be read (``row`` null) has null everywhere but in the columns of where it stands and in
``record_problem``.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple, TypedDict

if TYPE_CHECKING:
    import polars as pl


class Hit(TypedDict, total=False):
    """One place of a row at which something was found. Every field may be missing (null)."""

    code: str
    """Which of the things that this fact looks for."""
    message_index: int
    """0-based index of the message."""
    field: str
    """Which part of the row or message: ``content``, ``reasoning_content``, ``tool_calls``, ``text``, ``output`` …"""
    begin: int
    """First character (code point) in that field, 0-based."""
    end: int
    """One past the last character."""
    token_begin: int
    """First token in the row's ``input_ids`` before truncation."""
    token_end: int
    token_id: int
    text: str
    """What stands there, at most some 60 characters, as it is (whoever shows it escapes it)."""
    expected: str
    """What should stand there."""
    detail: str
    """More, in words or as the library's own message."""
    count: int
    """How many such places the row has."""


class Fact(NamedTuple):
    dtype: str
    doc: str


HIT: Final = "hit"

FACTS: Final[dict[str, Fact]] = {
    # where the record stands
    "row": Fact("i64", "0-based index of the row in its file, as a sampler counts; null for a record that is no row"),
    "line": Fact("i64", "1-based physical line; null in formats without lines (Parquet, Arrow)"),
    "byte_offset": Fact("i64", "first byte of the record in the (decompressed) file"),
    "byte_length": Fact("i64", "bytes of the record"),
    "record_problem": Fact(
        HIT, "the record is no clean JSON value; code is the kind, detail the message, expected the hint"
    ),
    # what the row is
    "kind": Fact("str", "text, messages, prompt-completion, prompt-completion-messages or tokenized"),
    "format_problem": Fact(HIT, "the row does not fit its file's format"),
    "role_problem": Fact(HIT, "roles in an order or by a name that templates and trainers choke on"),
    "answer_problem": Fact(HIT, "the message that should be trained is missing, empty, white space or no text"),
    "messages": Fact("i32", "number of messages"),
    "answers": Fact("i32", "number of assistant messages (1 for a text or a completion)"),
    # how it renders
    "render_problem": Fact(
        HIT,
        "there are no ids: code raised, error, limit, no-template (the template), stops (the trainer), not-reproduced",
    ),
    "role_refused": Fact(
        HIT,
        "a role that this template refuses or leaves out wherever it stands; code refused or ignored, text the role",
    ),
    "content_lost": Fact(
        HIT, "something of a message is not in the render; code content, reasoning, tool_call, tools; message_index"
    ),
    "reasoning_lost_early": Fact("bool", "all that is lost is thinking in turns before the last answer"),
    # ids
    "tokens": Fact("i64", "input_ids before truncation"),
    "tokens_fed": Fact("i64", "input_ids that the trainer feeds"),
    "max_token_id": Fact("i64", "largest id of the row"),
    "embedding_rows": Fact("i64", "rows of the model's embedding, where the config says (same for every row)"),
    "bos_count": Fact("i32", "BOS ids at the very start of the row"),
    "bos_inside": Fact("i32", "BOS ids anywhere later"),
    # labels
    "label_tokens": Fact("i64", "labels[1:] that are not -100, before truncation"),
    "label_tokens_fed": Fact("i64", "the same in what the trainer feeds"),
    "answer_tokens": Fact(
        "i64",
        "trained tokens of answers (content, thinking, tool calls of the assistant; a whole text), untruncated",
    ),
    "answer_tokens_fed": Fact("i64", "the same in what the trainer feeds"),
    "prompt_tokens_fed": Fact(
        "i64", "tokens of system, user and tool messages, of tool definitions and of prompts, fed with a label"
    ),
    "terminated": Fact(
        "bool",
        "the last answer is followed by a trained end-of-sequence or end-of-turn token; null when there is no answer",
    ),
    "terminator_fed": Fact("bool", "that token is still there after truncation"),
    "last_answer_token": Fact("i64", "id of the last trained token of the last answer"),
    "cut": Fact("bool", "truncation took tokens away"),
    "max_length": Fact("i64", "the trainer's maximum length; null for none (same for every row)"),
    "dropped": Fact("str", "why the trainer drops the row; null when it keeps it"),
    "sequence_hash": Fact("u64", "hash of ids and labels before truncation: equal rows are trained on twice"),
    # what the text holds
    "confusable": Fact(
        HIT,
        "a look-alike of a special token: code boundary or inside; expected the real token, token_id its id",
    ),
    "control_token": Fact(
        HIT,
        "control tokens that come from content: code boundary (BOS, EOS, role opener in a trained answer) or inside",
    ),
    "foreign_markup": Fact(
        HIT, "turn markers of another model family: code boundary or inside, expected the family's name"
    ),
    "damage": Fact(HIT, "damaged encoding: code replacement, nul, control, c1, mojibake, zero-width, ansi"),
}


@cache
def polars_schema() -> dict[str, pl.DataType | type[pl.DataType]]:
    """The Arrow types of ``FACTS`` as polars names them."""
    import polars as pl

    simple = {
        "i32": pl.Int32,
        "i64": pl.Int64,
        "u64": pl.UInt64,
        "bool": pl.Boolean,
        "str": pl.String,
    }
    hit = pl.Struct(
        {
            "code": pl.String,
            "message_index": pl.Int32,
            "field": pl.String,
            "begin": pl.Int32,
            "end": pl.Int32,
            "token_begin": pl.Int32,
            "token_end": pl.Int32,
            "token_id": pl.Int32,
            "text": pl.String,
            "expected": pl.String,
            "detail": pl.String,
            "count": pl.Int32,
        }
    )
    return {name: hit if fact.dtype == HIT else simple[fact.dtype] for name, fact in FACTS.items()}
