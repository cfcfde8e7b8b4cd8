"""Asks an interpreter what it builds: the probe runs there, in a process of its own, and answers in JSON."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorads.errors import UsageError
from lorads.tokenizers.files import TokenizerFiles, aliases

TIMEOUT = 600
"""Seconds; a cold ``import torch`` from a network file system takes its time."""

_HUB_IDS = {"deepseek-coder": "deepseek-ai/deepseek-coder-6.7b-instruct"}
"""What the aliases that ship inside are called on the hub."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where the probe finds the tokenizer."""

    name: str
    """As ``from_pretrained`` is given it."""
    folder: str
    """The working directory that makes the name right."""
    copy: str | None = None
    """The same files under a name that says nothing: some versions go by the name of the hub's repository."""


def interpreter(path: str | None) -> str:
    """The Python to ask: this one, or the one that ``path`` (an interpreter or its environment's folder) names."""
    if path is None:
        return sys.executable
    given = Path(path).expanduser()
    choices = [given, given / "bin" / "python", given / "Scripts" / "python.exe", given / "python.exe"]
    for choice in choices:
        if choice.is_file() and os.access(choice, os.X_OK):
            return str(choice.absolute())  # not resolved: a virtual environment is known by its link
    found = shutil.which(path) if os.sep not in path else None
    if found is None:
        raise UsageError(
            f"{path} is no Python interpreter and no environment with one",
            "give the path of the environment you train in, such as .venv or .venv/bin/python",
        )
    return found


@contextmanager
def laid_out(files: TokenizerFiles) -> Iterator[Place]:
    """The tokenizer's files where transformers can load them.

    A directory that it can read is taken as it is, under the name it was given; else the files are written out, under
    the name of their repository on the hub, where they have one.
    """
    given = Path(files.source)
    if files.source.endswith("tokenizer.json") and given.is_file():
        given = given.parent
    if given.is_dir() and (given / "tokenizer.json").is_file():
        name = files.name if Path(files.name).is_dir() else str(given)
        yield Place(name, str(Path.cwd()))
        return
    with tempfile.TemporaryDirectory(prefix="lorads-doctor-") as folder:
        hub_id = _HUB_IDS.get(files.name.lower(), "") if files.source == "shipped" else files.hub_id
        _write(files, Path(folder, "tokenizer-files"))
        if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", hub_id):
            _write(files, Path(folder, hub_id))
            yield Place(hub_id, folder, "tokenizer-files")
        else:
            yield Place("tokenizer-files", folder)


def _write(files: TokenizerFiles, folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes(files.model)
    for name, content in (
        ("tokenizer_config.json", files.config),
        ("special_tokens_map.json", files.special_tokens_map),
        ("added_tokens.json", files.added_tokens),
        ("config.json", files.model_config),
        ("generation_config.json", files.generation_config),
    ):
        if content:
            (folder / name).write_text(json.dumps(_whole(content)), encoding="utf-8")
    for name, text in files.templates.items():
        target = folder / "chat_template.jinja"
        if name != "default":
            target = folder / "additional_chat_templates" / f"{Path(name).name}.jinja"
            target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="")


def _whole(value: Any) -> Any:
    """1e30 as the integer that was in the file: the JSON parser made it a float."""
    if isinstance(value, float) and value >= 2**53 and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value


def ask(python: str, request: dict[str, Any], place: Place | None = None) -> dict[str, Any]:
    """The probe's answer. Raises ``UsageError`` where the interpreter gives none."""
    with tempfile.TemporaryDirectory(prefix="lorads-doctor-") as folder:
        probe = Path(shutil.copy(Path(__file__).with_name("probe.py"), Path(folder, "lorads_probe.py")))
        question, answer = Path(folder, "request.json"), Path(folder, "answer.json")
        question.write_text(json.dumps(request), encoding="utf-8")
        # caches go to where they are thrown away, and nothing asks the network
        home = str(Path(folder, "hf"))
        environment = {**os.environ, "HF_HOME": home, "HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        for name in ("TRANSFORMERS_CACHE", "HF_DATASETS_CACHE", "HF_MODULES_CACHE", "PYTHONHOME"):
            environment.pop(name, None)
        try:
            done = subprocess.run(
                [python, str(probe), str(question), str(answer)],
                cwd=folder if place is None else place.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIMEOUT,
                check=False,
            )
        except OSError as error:
            raise UsageError(f"{python} can't be run: {error.strerror or error}") from None
        except subprocess.TimeoutExpired:
            raise UsageError(f"{python} gave no answer within {TIMEOUT} seconds") from None
        try:
            parsed = json.loads(answer.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
            last = lines[-1][:300] if lines else f"it ended with status {done.returncode}"
            raise UsageError(
                f"{python} could not answer: {last}", "Is it a Python of version 3.8 or later? Give another by --python"
            ) from None
        assert isinstance(parsed, dict)
        return parsed


def hub_name(name: str) -> str:
    """The hub id that an alias stands for, or the name itself."""
    target = aliases().get(name.lower())
    return _HUB_IDS.get(name.lower(), name) if target in (None, "shipped") else str(target)
