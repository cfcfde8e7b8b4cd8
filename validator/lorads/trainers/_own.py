"""A trainer's own settings, from what the user wrote."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any, get_type_hints

from lorads.errors import UsageError
from lorads.trainers.base import Trainer


def own_options(trainer: Trainer, given: Mapping[str, Any]) -> Any:
    """An instance of ``trainer.Options``. Values that are texts are read as the field's type: ``true``, ``5``,
    ``["a", "b"]``. Raises ``UsageError`` for a name or a value that the trainer does not have."""
    if not given:
        return trainer.Options()
    from pydantic import TypeAdapter, ValidationError

    known = [field.name for field in dataclasses.fields(trainer.Options)]
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f'did you mean "{near[0]}"?' if near else f"it has: {', '.join(known) or 'none of its own'}"
            raise UsageError(f'{trainer.name} {trainer.version} has no setting "{name}" that lorads knows', hint)
    hints = get_type_hints(trainer.Options)
    values = {name: _read(value, "tuple" in str(hints[name])) for name, value in given.items()}
    try:
        return TypeAdapter(trainer.Options).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:1])
        raise UsageError(
            f"{trainer.name} {trainer.version}: {where} = {first.get('input')!r}: {first['msg']}",
            f"give --trainer-option {where}=VALUE as {trainer.name} takes it",
        ) from None


def _read(value: Any, listed: bool) -> Any:
    """``null``, and lists as JSON or with commas between; every other text is left to pydantic."""
    if not isinstance(value, str):
        return value
    if value == "null":
        return None
    if not listed:
        return value
    if value[:1] == "[":
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value.split(",") if value else []
