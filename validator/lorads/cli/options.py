"""Options that several commands share, and the settings made of them and the configuration file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

FORMATS = ("auto", "messages", "sharegpt", "alpaca", "prompt-completion", "text", "preference", "tokenized")
SHARED = (
    click.option(
        "--tokenizer",
        metavar="T",
        help="Alias (deepseek-coder ships inside), directory, tokenizer.json, GGUF or hub id.",
    ),
    click.option("--revision", metavar="R", help="Hub revision of the tokenizer."),
    click.option(
        "--chat-template", metavar="X", help="Template name, file, or 'none'.  [default: the tokenizer's own]"
    ),
    click.option(
        "--trainer",
        metavar="X",
        help="Whose ids and labels: NAME or NAME@VERSION (unsloth, axolotl …); a wrong one lists all.  [default: trl]",
    ),
    click.option("--format", "format_", type=click.Choice(FORMATS), help="Format of the rows.  [default: auto]"),
    click.option("--max-length", metavar="N", help="Tokens a row may have, or 'none'.  [default: the trainer's]"),
    click.option(
        "--train-on",
        type=click.Choice(["default", "all", "completion", "assistant", "last"]),
        help="What is trained.  [default: what the trainer does]",
    ),
    click.option(
        "--response-marker", metavar="TEXT", help="What stands before an answer, for trainers that look for it."
    ),
    click.option("--instruction-marker", metavar="TEXT", help="What stands before a question, for the same."),
    click.option(
        "--trainer-option",
        "trainer_options",
        multiple=True,
        metavar="NAME=VALUE",
        help="A setting of the trainer's own, by its own name.  [repeatable]",
    ),
    click.option("--packing", is_flag=True, default=None, help="The trainer packs several rows into one sequence."),
    click.option(
        "--config", "config_file", metavar="FILE", help="Configuration.  [default: lorads.toml, else pyproject.toml]"
    ),
)


def shared(command: Command) -> Command:
    for option in reversed(SHARED):
        command = option(command)
    return command


def settings_of(config: Any, given: dict[str, Any]) -> Any:
    """``Settings`` from the configuration file and what was given on the command line, which wins."""
    from lorads.engine.settings import Settings

    def pick(name: str, default: Any) -> Any:
        value = given.get(name)
        if value is not None and value != ():
            return value
        value = getattr(config, name, None)
        return default if value is None else value

    tokenizer = pick("tokenizer", None)
    if tokenizer is None:
        raise click.UsageError(
            "Which tokenizer? Give --tokenizer deepseek-coder (ships inside), a directory, tokenizer.json or hub id."
        )
    return Settings(
        tokenizer=tokenizer,
        chat_template=pick("chat_template", None),
        revision=pick("revision", None),
        load_as=pick("load_as", "transformers"),
        trainer=pick("trainer", "trl"),
        format=pick("format", "auto"),
        columns=config.columns if config is not None else {},
        max_length=_length(pick("max_length", "unset")),
        train_on=pick("train_on", "default"),
        packing=pick("packing", False),
        response_marker=pick("response_marker", None),
        instruction_marker=pick("instruction_marker", None),
        trainer_options={
            **(config.trainer_options if config is not None else {}),
            **assignments(given.get("trainer_options") or (), "--trainer-option"),
        },
        select=_ids(pick("select", ())),
        ignore=_ids(pick("ignore", ())),
        severities=config.severity if config is not None else {},
        max_findings=pick("max_findings", 200),
        workers=pick("workers", None),
    )


def _length(value: Any) -> Any:
    if value == "none":
        return None
    if value == "unset" or isinstance(value, int):
        return value
    try:
        number = int(value)
    except ValueError:
        number = 0
    if number < 1:
        raise click.BadParameter(f"{value!r} is no positive number and not 'none'", param_hint="'--max-length'")
    return number


def assignments(values: Any, option: str) -> dict[str, str]:
    """``NAME=VALUE`` texts, as they were given with ``option``."""
    out = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE", param_hint=f"'{option}'")
        out[name.strip()] = text
    return out


def _ids(values: Any) -> tuple[str, ...]:
    return tuple(part for value in values for part in str(value).split(",") if part.strip())


def config_of(path: str | None) -> Any:
    """The configuration, or None where there is none (then pydantic is not even imported)."""
    from pathlib import Path

    if path is None and not Path("lorads.toml").is_file() and not Path("pyproject.toml").is_file():
        return None
    from lorads.engine.config import read_config

    return read_config(path)
