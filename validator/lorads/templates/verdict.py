"""Which engine renders a template, and what the template looks for in texts. Found once, then remembered on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

from lorads import __version__
from lorads import cache as disk
from lorads.errors import UsageError
from lorads.templates.engines import Engine, MiniJinjaEngine
from lorads.templates.limits import BrokenError, LimitError, Limits, RaisedError
from lorads.templates.marks import common_prefix
from lorads.templates.probes import Probe, is_plain, probes
from lorads.templates.values import plain, with_reasoning_aliases

_FORMAT = 2
"""Raise it when probes, analysis or engines change, so that old verdicts are forgotten."""


@dataclass(frozen=True, slots=True)
class Verdict:
    engine: Literal["minijinja", "jinja2"]
    """For conversations of roles and texts alone."""
    rich_engine: Literal["minijinja", "jinja2"]
    """For conversations with anything else: tools, parts, numbers, missing contents."""
    contains: tuple[str, ...]
    equals: tuple[str, ...]
    strips: tuple[str, ...]
    opaque: bool
    notes: tuple[str, ...] = field(default=())


def judge(
    source: str, special: Mapping[str, str], limits: Limits, clock: Callable[[], datetime]
) -> tuple[Verdict, Engine | None]:
    """The verdict on a template (generation tags already rewritten), and the sandbox, if it had to be made for that.

    Raises ``UsageError`` when the template is none: a syntax error, or nested too deeply to be compiled.
    """
    key = _key(source, special)
    known = disk.read("template", key)
    if known is not None and (verdict := _parse(known)) is not None:
        return verdict, None
    verdict, reference = _find(source, special, limits, clock)
    disk.write(json.dumps(asdict(verdict)).encode(), "template", key)
    return verdict, reference


def compile_reference(source: str, limits: Limits, clock: Callable[[], datetime]) -> Engine:
    """The template in jinja2's sandbox. Raises ``UsageError`` as ``judge`` does."""
    from lorads.templates.sandbox import JinjaEngine, parse

    with _usage_errors():
        return JinjaEngine(parse(source, limits, clock))


@contextmanager
def _usage_errors() -> Iterator[None]:
    """Say in one message what is wrong with a template that can't be compiled."""
    from jinja2 import TemplateSyntaxError

    try:
        yield
    except TemplateSyntaxError as error:
        raise UsageError(
            f"the chat template has a syntax error in line {error.lineno}: {error.message}",
            "Take the template from the model's repository again, or pass another one with --chat-template.",
        ) from error
    except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
        raise UsageError(
            f"the chat template can't be compiled: it nests too deeply ({type(error).__name__})",
            "No published template comes near this; look at the file before you use it.",
        ) from error


def _find(
    source: str, special: Mapping[str, str], limits: Limits, clock: Callable[[], datetime]
) -> tuple[Verdict, Engine]:
    from lorads.templates.analysis import find_triggers, needs_sandbox
    from lorads.templates.sandbox import JinjaEngine, parse

    with _usage_errors():
        tree = parse(source, limits, clock)
        triggers, unbounded = find_triggers(tree, dict(special)), needs_sandbox(tree)
        reference = JinjaEngine(tree)
    why, why_rich = unbounded, unbounded
    if unbounded is None:
        try:
            fast = MiniJinjaEngine(source, limits, clock)
        except BrokenError as error:
            why = why_rich = str(error).splitlines()[0]
        else:
            tried = probes()
            why = _disagreement(fast, reference, special, [probe for probe in tried if is_plain(probe)])
            why_rich = why or _disagreement(fast, reference, special, [probe for probe in tried if not is_plain(probe)])
    notes: tuple[str, ...] = ()
    if why_rich is not None:
        rows = "rows" if why else "rows with more than roles and texts"
        notes = (f"{rows} are rendered by jinja2, which is slower than minijinja: {why_rich}",)
    verdict = Verdict(
        engine="jinja2" if why else "minijinja",
        rich_engine="jinja2" if why_rich else "minijinja",
        contains=triggers.contains,
        equals=triggers.equals,
        strips=triggers.strips,
        opaque=triggers.opaque,
        notes=notes,
    )
    return verdict, reference


def _disagreement(fast: Engine, reference: Engine, special: Mapping[str, str], tried: list[Probe]) -> str | None:
    """How minijinja differs from the sandbox on the probes, None when it doesn't.

    Both must render the same or raise the same; where the sandbox breaks minijinja must break as well.
    """
    for messages, tools in tried:
        for prompt in (False, True):
            context = {
                **special,
                "messages": plain([with_reasoning_aliases(message) for message in messages]),
                "tools": plain(tools),
                "documents": None,
                "add_generation_prompt": prompt,
            }
            expected, got = _outcome(reference, context), _outcome(fast, context)
            if expected[0] == "limit":
                return "it goes over its limits"
            if got[0] != expected[0] or (got != expected and expected[0] != "error"):
                return f"minijinja gives {_difference(got, expected)}"
    return None


def _outcome(engine: Engine, context: dict[str, Any]) -> tuple[str, str]:
    try:
        return "text", engine.render(context)
    except RaisedError as error:
        return "raised", str(error)
    except BrokenError as error:
        return "error", str(error)
    except LimitError as error:
        return "limit", str(error)


def _difference(got: tuple[str, str], expected: tuple[str, str]) -> str:
    """Both outcomes, shortened to where they part."""
    same = common_prefix(got[1], expected[1]) if got[0] == expected[0] else 0
    start = max(0, same - 20)
    words = [f"{kind} {text[start : start + 60]!r}" for kind, text in (got, expected)]
    return f"{words[0]} in place of {words[1]}"


@cache
def _versions() -> str:
    return " ".join([__version__, *(f"{name} {version(name)}" for name in ("minijinja", "jinja2"))])


def _key(source: str, special: Mapping[str, str]) -> str:
    parts = json.dumps([_FORMAT, _versions(), sorted(special.items()), source])
    return hashlib.sha256(parts.encode("utf-8", "surrogatepass")).hexdigest()


def _parse(data: bytes) -> Verdict | None:
    """A verdict read from disk, None when it isn't one."""
    try:
        found = json.loads(data)
        return Verdict(
            engine="minijinja" if found["engine"] == "minijinja" else "jinja2",
            rich_engine="minijinja" if found["rich_engine"] == "minijinja" else "jinja2",
            contains=tuple(map(str, found["contains"])),
            equals=tuple(map(str, found["equals"])),
            strips=tuple(map(str, found["strips"])),
            opaque=found["opaque"] is True,
            notes=tuple(map(str, found["notes"])),
        )
    except (ValueError, KeyError, TypeError):
        return None
