"""``tokenized``: ``{"input_ids", "labels"? | "completion_mask"? | "assistant_masks"?, "attention_mask"?}``.

Which mask counts is the trainer's affair; where there are labels they are used as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lorads.formats.base import Columns, Misfit, type_name
from lorads.formats.conversation import Conversation, Kind
from lorads.formats.messages import no_column

MASKS = ("completion_mask", "assistant_masks")


class TokenizedFormat:
    name = "tokenized"
    rank = 10

    def evidence(self, record: Mapping[str, Any], columns: Columns) -> str | None:
        column = columns.find(record, "input_ids")
        return None if column is None else f'a column "{column}"'

    def normalise(self, record: Mapping[str, Any], columns: Columns) -> Conversation:
        column = columns.find(record, "input_ids")
        if column is None:
            raise no_column(record, columns.names("input_ids")[0])
        ids = _numbers(record[column], column)
        labels_column = columns.find(record, "labels")
        labels = None
        if labels_column is not None and record[labels_column] is not None:
            labels = _numbers(record[labels_column], labels_column, negative=True)
        masks = {name: _numbers(record[name], name) for name in MASKS if record.get(name) is not None}
        for name, values in (("labels", labels), *masks.items()):
            if values is not None and len(values) != len(ids):
                raise Misfit(
                    "lengths-differ",
                    f'there are {len(ids)} input_ids and {len(values)} numbers in "{name}"',
                    "a label or mask belongs to every token (labels: -100 where it is not trained)",
                    None,
                    name,
                )
        return Conversation(Kind.TOKENIZED, [], input_ids=ids, labels=labels, masks=masks or None)


def _numbers(value: Any, column: str, *, negative: bool = False) -> list[int]:
    if not isinstance(value, list):
        raise Misfit(
            "not-a-list", f'"{column}" is {type_name(value)}, not a list of numbers', "write it as a list", None, column
        )
    for i, number in enumerate(value):
        if not isinstance(number, int) or (number < 0 and not (negative and number == -100)) or number >= 2**31:
            raise Misfit(
                "not-an-id",
                f'"{column}" holds {number!r} at position {i}, which is no token id',
                "use ids from 0 up",
                None,
                column,
            )
    return [int(number) for number in value]


FORMAT = TokenizedFormat()
