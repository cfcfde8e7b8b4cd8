"""``lorads.toml``, or ``[tool.lorads]`` of ``pyproject.toml``."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from lorads.errors import UsageError
from lorads.findings import Severity

FailOn = Literal["error", "warning", "info", "never"]


def _dashed(name: str) -> str:
    return name.replace("_", "-")


class Config(BaseModel):
    """The settings that a repository keeps. Every key is a long option of ``lorads check`` without the dashes in front;
    what stands on the command line wins."""

    model_config = ConfigDict(extra="forbid", alias_generator=_dashed, populate_by_name=True, frozen=True)

    tokenizer: str | None = Field(default=None, description="alias, directory, tokenizer.json, GGUF file or hub id")
    revision: str | None = Field(default=None, description="hub revision of the tokenizer")
    load_as: Literal["transformers", "file"] | None = Field(
        default=None, description="ids as transformers' AutoTokenizer builds them, or exactly as tokenizer.json says"
    )
    chat_template: str | None = Field(default=None, description="name, file or none")
    trainer: str | None = Field(default=None, description="NAME or NAME@VERSION")
    format: str | None = None
    max_length: int | Literal["none"] | None = None
    train_on: Literal["default", "all", "completion", "assistant", "last"] | None = None
    packing: bool | None = None
    response_marker: str | None = Field(default=None, description="what stands before an answer")
    instruction_marker: str | None = Field(default=None, description="what stands before a question")
    select: list[str] | None = None
    ignore: list[str] | None = None
    fail_on: FailOn | None = None
    max_findings: int | None = Field(default=None, ge=1)
    workers: int | None = Field(default=None, ge=1)
    trainer_options: dict[str, Any] = Field(
        default_factory=dict, description="the trainer's own settings by its own names"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="which column holds messages, prompt, completion …"
    )
    severity: dict[str, Severity] = Field(
        default_factory=dict, description='severity by rule or family, e.g. TXT001 = "info"'
    )

    @field_validator("columns")
    @classmethod
    def _known_columns(cls, columns: dict[str, str]) -> dict[str, str]:
        from lorads.formats.base import DEFAULT_COLUMNS

        for part in columns:
            if part not in DEFAULT_COLUMNS:
                raise ValueError(f'"{part}" is no part of a row{_suggest(part, DEFAULT_COLUMNS)}')
        return columns


def read_config(path: str | None, directory: Path | None = None) -> Config:
    """The configuration from ``path``, else the nearest one in ``directory`` (default: the current one); an empty one
    when there is none. Raises ``UsageError`` for a file that is not right, with the key and what it could have been."""
    if path is not None:
        return _parse(Path(path), must_exist=True)
    here = directory or Path.cwd()
    if (here / "lorads.toml").is_file():
        return _parse(here / "lorads.toml")
    if (here / "pyproject.toml").is_file():
        return _parse(here / "pyproject.toml")
    return Config()


def _parse(path: Path, *, must_exist: bool = False) -> Config:
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}", "give an existing file with --config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: is no TOML: {error}", "mend the file; lorads changes nothing in it") from None
    table = data.get("tool", {}).get("lorads") if path.name == "pyproject.toml" else data
    if table is None:
        if must_exist:
            raise UsageError(f"{path}: there is no [tool.lorads] table in it", "add one, or give a lorads.toml")
        return Config()
    try:
        return Config.model_validate(table)
    except ValidationError as error:
        raise UsageError(
            f"{path}: {_explain(error)}", "`lorads check --help` lists the keys: they are its long options"
        ) from None


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = [_dashed(name) for name in Config.model_fields]
        return f'unknown key "{where}"{_suggest(where, known)}'
    value: Any = first.get("input")
    return f'"{where}" = {value!r}: {first["msg"]}'


def _suggest(name: str, known: Any) -> str:
    near = difflib.get_close_matches(_dashed(name), list(known), 1)
    return f'; did you mean "{near[0]}"?' if near else f" (known: {', '.join(known)})"
