"""Finds a tokenizer by name and reads its files: alias, directory, file, GGUF or hub id."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import tomllib
import zlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from lorads.errors import UsageError
from lorads.tokenizers import mistral

MAX_BYTES = 256 * 1024 * 1024
"""The largest tokenizer.json that is read, unpacked; the largest real ones have some 40 MB."""

HUB_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "config.json",
    "generation_config.json",
)

FORMS = "an alias, a directory, a tokenizer.json, a .gguf file or a hub id such as Qwen/Qwen3-0.6B"


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """What lies beside each other in a tokenizer's directory, read but not yet understood."""

    name: str
    source: str
    """Where it was found: ``shipped``, a path, or ``hub id@commit``."""
    model: bytes
    """``tokenizer.json``."""
    config: dict[str, Any] = field(default_factory=dict)
    special_tokens_map: dict[str, Any] = field(default_factory=dict)
    added_tokens: dict[str, Any] = field(default_factory=dict)
    model_config: dict[str, Any] = field(default_factory=dict)
    generation_config: dict[str, Any] = field(default_factory=dict)
    templates: dict[str, str] = field(default_factory=dict)
    """Chat templates that are files of their own: ``default`` for chat_template.jinja."""
    hub_id: str = ""
    revision: str | None = None
    """The commit, for a hub id."""


@cache
def aliases() -> dict[str, str]:
    """``aliases.toml``: short name to hub id, ``shipped`` for what lies inside the package."""
    with Path(__file__).with_name("aliases.toml").open("rb") as file:
        return dict(tomllib.load(file)["aliases"])


def find(name: str, revision: str | None = None) -> TokenizerFiles:
    """Read the files of the tokenizer that ``name`` means.

    An alias is looked up first, then the file system, then the hub. Raises ``UsageError`` when there is nothing of that
    name, or no tokenizer in it.
    """
    target = aliases().get(name.lower())
    if target == "shipped":
        return _read_directory(name, Path(__file__).parent / "shipped" / name.lower(), "shipped", hub_id="")
    if target is not None:
        return _from_hub(name, target, revision)
    if not name:
        raise _unknown(name)
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            return _read_directory(name, path, str(path), hub_id=name)
        if path.is_file():
            return _read_file(name, path)
    except (ValueError, RuntimeError, OSError):  # a NUL in it, nobody's home directory, too long for the system
        raise _unknown(name) from None
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", name) and path.suffix != ".json":
        return _from_hub(name, name, revision)
    raise _unknown(name)


def _unknown(name: str) -> UsageError:
    near = difflib.get_close_matches(name.lower().rsplit("/", 1)[-1], aliases(), n=3, cutoff=0.5)
    suggestion = f"Did you mean {' or '.join(near)}? " if near else ""
    return UsageError(
        f"no tokenizer is called {name[:100]!r}",
        f"{suggestion}Give {FORMS}. Aliases: {', '.join(aliases())}.",
    )


def _read_file(name: str, path: Path) -> TokenizerFiles:
    """A single file: its neighbours (tokenizer_config.json …) count, as they do for a directory."""
    with _open_errors(path), path.open("rb") as file:
        start = file.read(4)
    if start == b"GGUF":
        from lorads.tokenizers.gguf import to_tokenizer

        model, config = to_tokenizer(path)
        return TokenizerFiles(name=name, source=str(path), model=orjson.dumps(model), config=config)
    if path.suffix == ".gguf":
        raise UsageError(f"{path} is no GGUF file", "It should start with the four letters GGUF.")
    if mistral.recognises(path):
        facts, config, made = mistral.to_tokenizer(path, _read(path))
        return TokenizerFiles(name=name, source=str(path), model=made, config=config, model_config=facts)
    return _read_directory(name, path.parent, str(path), hub_id="", model_file=path)


def _read_directory(
    name: str, folder: Path, source: str, *, hub_id: str, model_file: Path | None = None, revision: str | None = None
) -> TokenizerFiles:
    model = _read(model_file) if model_file else _read_optional(folder, "tokenizer.json")
    if model is None:
        gguf = sorted(folder.glob("*.gguf"))
        raise UsageError(
            f"{folder} holds no tokenizer.json",
            f"Name the file {gguf[0]} to take its vocabulary."
            if gguf
            else "Save the tokenizer with save_pretrained() of transformers, which writes it.",
        )
    templates: dict[str, str] = {}
    for file in (folder / "chat_template.jinja", *sorted((folder / "additional_chat_templates").glob("*.jinja"))):
        if file.is_file():
            text = _decode(_read(file), file)
            templates["default" if file.parent == folder else file.stem] = text
    return TokenizerFiles(
        name=name,
        source=source,
        model=model,
        config=_read_json(folder, "tokenizer_config.json"),
        special_tokens_map=_read_json(folder, "special_tokens_map.json"),
        added_tokens=_read_json(folder, "added_tokens.json"),
        model_config=_read_json(folder, "config.json"),
        generation_config=_read_json(folder, "generation_config.json"),
        templates=templates,
        hub_id=hub_id,
        revision=revision,
    )


class _open_errors:
    """Turns the operating system's complaint about a file into a ``UsageError``."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise UsageError(f"{self.path} can't be read: {error.strerror or error}") from None


def _read(path: Path) -> bytes:
    """The bytes of a file, unpacked when gzipped, never more than ``MAX_BYTES``."""
    with _open_errors(path), path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if content[:2] == b"\x1f\x8b":
        unpacker = zlib.decompressobj(wbits=31)
        try:
            content = unpacker.decompress(content, MAX_BYTES + 1)
        except zlib.error as why:
            raise UsageError(f"{path} is no whole gzip file: {why}") from None
        if not unpacker.eof and len(content) <= MAX_BYTES:
            raise UsageError(f"{path} is cut short: the gzip stream doesn't end")
    if len(content) > MAX_BYTES:
        raise UsageError(f"{path} is larger than {MAX_BYTES // 1024**2} MB", "No tokenizer is that large.")
    return content


def _read_optional(folder: Path, name: str) -> bytes | None:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return _read(path)
    return None


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    content = _read_optional(folder, name)
    return {} if content is None else parse(content, str(folder / name))


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as why:
        raise UsageError(f"{path} is not UTF-8: {why.reason} at byte {why.start}") from None


def parse(content: bytes, what: str) -> dict[str, Any]:
    """A JSON object. Raises ``UsageError`` for anything else; the parser refuses nesting deeper than 1024 levels."""
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError as why:
        raise UsageError(f"{what} is no JSON: {why}", "Is this the file you meant?") from None
    if not isinstance(parsed, dict):
        raise UsageError(f"{what} holds no JSON object", "Is this the file you meant?")
    return parsed


def read_template(path: Path) -> str:
    """The text of a chat template's file."""
    return _decode(_read(path), path)


def fingerprint(files: TokenizerFiles) -> str:
    """sha256 over everything that was read: two equal fingerprints make equal tokenizers."""
    digest = hashlib.sha256(hashlib.sha256(files.model).digest())
    small = [files.config, files.special_tokens_map, files.added_tokens, files.model_config, files.generation_config]
    digest.update(orjson.dumps([files.hub_id, *small], option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SORT_KEYS))
    return digest.hexdigest()


def _from_hub(name: str, repository: str, revision: str | None) -> TokenizerFiles:
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise UsageError(
            f"{name!r} means {repository} on the Hugging Face hub, and the package huggingface_hub is not installed",
            'Install it with: pip install "lorads[hub]". Or give a directory or a tokenizer.json.',
        ) from None
    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # noqa: BLE001 - the client raises its own errors, its HTTP library's, OSError and ValueError
        raise _hub_error(name, repository, revision, error) from None
    if not (folder / "tokenizer.json").is_file():
        raise UsageError(
            f"{repository} has no tokenizer.json",
            "Only tokenizers in that format can be read. Convert it with transformers' save_pretrained().",
        )
    commit = folder.name
    return _read_directory(name, folder, f"{repository}@{commit}", hub_id=repository, revision=commit)


def _hub_error(name: str, repository: str, revision: str | None, error: Exception) -> UsageError:
    """The client's error in one sentence. The classes are told by name: they moved between its versions."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    shown = f"{repository} (alias {name})" if name != repository else repository
    if "GatedRepoError" in kinds:
        return UsageError(
            f"{shown} is gated: its owner wants you to accept the terms first",
            "Accept them on the hub's page, then set HF_TOKEN or run: hf auth login.",
        )
    if "RevisionNotFoundError" in kinds:
        return UsageError(f"{shown} has no revision {revision!r}")
    if "RepositoryNotFoundError" in kinds:
        near = difflib.get_close_matches(repository.lower().rsplit("/", 1)[-1], aliases(), n=3, cutoff=0.5)
        suggestion = f" Did you mean {' or '.join(near)}?" if near else ""
        return UsageError(f"the hub knows no {shown}, or it is private", f"For a private one set HF_TOKEN.{suggestion}")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    if offline or kinds & {"LocalEntryNotFoundError", "OfflineModeIsEnabled"}:
        why = "is switched off by HF_HUB_OFFLINE" if offline else "can't be reached"
        return UsageError(
            f"{shown} is not in the local cache, and the hub {why}",
            "Fetch it once while online, or give a directory or a tokenizer.json.",
        )
    first_line = (str(error).strip().splitlines() or [""])[0][:200]
    return UsageError(f"{shown} could not be fetched from the hub: {type(error).__name__}: {first_line}")
