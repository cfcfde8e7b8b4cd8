"""The two template engines behind one function: context in, text out."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

from lorads.templates.limits import BrokenError, LimitError, Limits, RaisedError

_FUEL = 250_000
"""Instructions of minijinja for one render, some fifty times what a usual row takes. A render that needs more is left
to the sandbox. Few, because some instructions (a sum over a range, say) take long."""


class Engine(Protocol):
    def render(self, context: dict[str, Any]) -> str:
        """Raises RaisedError, LimitError or BrokenError."""
        ...


class MiniJinjaEngine:
    """minijinja, set up to mean what the sandbox means.

    It is bounded by itself: its fuel pays for instructions and for the size of what they build.
    """

    def __init__(self, source: str, limits: Limits, clock: Callable[[], datetime]) -> None:
        """Raises BrokenError when minijinja has no such syntax."""
        import minijinja

        self._error = minijinja.TemplateError
        self._output_chars = limits.output_chars
        try:
            self._environment = minijinja.Environment(
                templates={"chat": source},
                filters={"tojson": _tojson},
                globals={
                    "raise_exception": _raise_exception,
                    "strftime_now": lambda format: clock().strftime(format),
                },
                debug=False,
                fuel=min(_FUEL, limits.steps),
                auto_escape_callback=lambda name: False,
                trim_blocks=True,
                lstrip_blocks=True,
                pycompat=True,
            )
        except minijinja.TemplateError as error:
            raise BrokenError(error.message) from error

    def render(self, context: dict[str, Any]) -> str:
        try:
            text = self._environment.render_template("chat", **context)
        except self._error as error:
            if error.kind == "OutOfFuel":
                raise LimitError("the template takes too many steps") from error
            raise BrokenError(error.message) from error
        except (RaisedError, LimitError):
            raise
        except Exception as error:  # what a filter or a conversion raised
            raise BrokenError(f"{type(error).__name__}: {error}") from error
        if len(text) > self._output_chars:
            raise LimitError(f"the render is longer than {self._output_chars:,} characters")
        return text


def _raise_exception(message: Any) -> None:
    raise RaisedError(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int) and indent > 1000:
        raise LimitError("tojson is asked for a huge indent")
    pair = tuple(separators) if separators is not None else None
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=pair, sort_keys=sort_keys)
