"""What a template gets to see: a conversation as transformers' ``apply_chat_template`` (5.23) hands it over.

Message keys whose value is None are dropped (``tokenization_utils_base.py``), reasoning is found under each of its
names (``chat_template_utils._alias_reasoning_fields``), and whatever isn't plain JSON data becomes a placeholder
(``_plain_template_data``). Containers are copies that refuse to be changed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from lorads.templates.limits import BrokenError

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""Names of a message's reasoning, in the order in which transformers looks for it."""

_DIFFERS = re.compile("[\x0b\x0c\x1c-\x1f\x85\u2028\u2029\ud800-\udfff]")
"""Characters that Python and minijinja see differently: white space, line ends, halves of surrogate pairs."""
_SAFE_INT = 2**53

Text = Callable[[str], str]


class FrozenList(list[Any]):
    """A list that a template can't change."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise BrokenError("a template may not change the data")

    append = extend = insert = pop = remove = reverse = sort = clear = copy = _refuse


class FrozenDict(dict[Any, Any]):
    """A dictionary that a template can't change."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise BrokenError("a template may not change the data")

    update = pop = popitem = setdefault = clear = copy = fromkeys = _refuse


def plain(value: Any, text: Text | None = None) -> Any:
    """A frozen copy made of JSON types, with ``text`` applied to every string that is a value (not to keys)."""
    if isinstance(value, str):
        value = value if type(value) is str else str.__str__(value)
        return value if text is None else text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, Mapping):
        return FrozenDict({plain(key): plain(item, text) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return FrozenList([plain(item, text) for item in value])
    if hasattr(value, "item") and hasattr(value, "dtype"):  # a numpy scalar, without importing numpy to say so
        return plain(value.item(), text) if getattr(value, "ndim", 1) == 0 else f"<{type(value).__name__}>"
    return f"<{type(value).__name__}>"


def with_reasoning_aliases(message: dict[str, Any]) -> FrozenDict:
    """The message with its reasoning under the names that templates read."""
    for name in REASONING_FIELDS:
        reasoning = message.get(name)
        if reasoning is not None:
            return FrozenDict({"thinking": reasoning, **message, "reasoning_content": reasoning})
    return FrozenDict(message)


def same_in_both(value: Any) -> bool:
    """True when no engine can print or split ``value`` in its own way (exotic white space, numbers at the edges)."""
    if isinstance(value, str):
        return _DIFFERS.search(value) is None
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -_SAFE_INT < value < _SAFE_INT
    if isinstance(value, float):
        return abs(value) < 1e15 and "e" not in repr(value) and not value.is_integer()
    if isinstance(value, dict):
        return all(isinstance(key, str) and same_in_both(key) and same_in_both(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(same_in_both, value))
    return False
