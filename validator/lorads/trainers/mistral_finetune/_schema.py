"""Whether a tool's ``parameters`` are a JSON schema of draft 7, as ``jsonschema.Draft7Validator.check_schema`` says.

Checked against the draft's metaschema, of whose formats jsonschema knows ``regex`` without further packages.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})


def fault(schema: Any) -> str | None:
    """What is wrong with the schema, in a few words; None when nothing is."""
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, dict):
        return f"{schema!r:.40} is no schema"
    for keyword, value in schema.items():
        check = _KEYWORDS.get(keyword)
        found = check(value) if check is not None else None
        if found is not None:
            return f"in {keyword!r}: {found}"
    return None


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"{value!r:.40} is no text"


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else f"{value!r:.40} is neither true nor false"


def _number(value: Any) -> str | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return None if is_number else f"{value!r:.40} is no number"


def _positive(value: Any) -> str | None:
    return _number(value) or (None if value > 0 else f"{value!r} is not above 0")


def _count(value: Any) -> str | None:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return None if whole and not isinstance(value, bool) and value >= 0 else f"{value!r:.40} is no count"


def _list(value: Any) -> str | None:
    return None if isinstance(value, list) else f"{value!r:.40} is no list"


def _regex(value: Any) -> str | None:
    if not isinstance(value, str):
        return _text(value)
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError):
        return f"{value!r:.40} is no regular expression"
    return None


def _texts(value: Any) -> str | None:
    """A list of different texts."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return f"{value!r:.40} is no list of texts"
    return None if len(set(value)) == len(value) else f"{value!r:.40} says something twice"


def _type(value: Any) -> str | None:
    if isinstance(value, str):
        return None if value in _TYPES else f"{value!r:.40} is no type"
    if not isinstance(value, list) or not value:
        return f"{value!r:.40} is no type"
    if not all(isinstance(item, str) and item in _TYPES for item in value):
        return f"{value!r:.40} holds what is no type"
    return _texts(value)


def _schemas(value: Any) -> str | None:
    """A list of at least one schema."""
    if not isinstance(value, list) or not value:
        return f"{value!r:.40} is no list of schemas"
    return next(filter(None, map(fault, value)), None)


def _named(check: Callable[[Any], str | None], key: Callable[[Any], str | None] = _text) -> Callable[[Any], str | None]:
    """An object whose values pass ``check`` and whose names pass ``key``."""

    def run(value: Any) -> str | None:
        if not isinstance(value, dict):
            return f"{value!r:.40} is no object"
        for name, inner in value.items():
            found = key(name) or check(inner)
            if found is not None:
                return found
        return None

    return run


def _either(*checks: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    def run(value: Any) -> str | None:
        found = [check(value) for check in checks]
        return found[0] if all(found) else None

    return run


_KEYWORDS: dict[str, Callable[[Any], str | None]] = (
    dict.fromkeys(
        ("$id", "$schema", "$ref", "$comment", "title", "description", "format", "contentMediaType", "contentEncoding"),
        _text,
    )
    | dict.fromkeys(("readOnly", "uniqueItems"), _flag)
    | dict.fromkeys(("maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"), _number)
    | dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"), _count)
    | dict.fromkeys(
        ("additionalItems", "contains", "additionalProperties", "propertyNames", "if", "then", "else", "not"), fault
    )
    | dict.fromkeys(("definitions", "properties"), _named(fault))
    | dict.fromkeys(("allOf", "anyOf", "oneOf"), _schemas)
    | dict.fromkeys(("examples", "enum"), _list)
    | {
        "multipleOf": _positive,
        "pattern": _regex,
        "items": _either(fault, _schemas),
        "required": _texts,
        "patternProperties": _named(fault, _regex),
        "dependencies": _named(_either(fault, _texts)),
        "type": _type,
    }
)
