"""Which chat template a tokenizer comes with, and which one the user wants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lorads.errors import UsageError
from lorads.tokenizers.files import TokenizerFiles, read_template


def named(files: TokenizerFiles) -> dict[str, str]:
    """The tokenizer's templates by name. Where there are template files, tokenizer_config.json's don't count.

    As in transformers.
    """
    if files.templates:
        return dict(files.templates)
    given: Any = files.config.get("chat_template")
    if isinstance(given, str):
        return {"default": given}
    if isinstance(given, list):  # the older form: [{"name": …, "template": …}, …]
        given = {entry.get("name"): entry.get("template") for entry in given if isinstance(entry, dict)}
    if isinstance(given, dict):
        return {name: text for name, text in given.items() if isinstance(name, str) and isinstance(text, str)}
    return {}


def select(templates: dict[str, str], wanted: str | None) -> str | None:
    """The template to render with: the tokenizer's ``default``, one of its names, a file, or none at all.

    Raises ``UsageError`` when ``wanted`` is neither a name nor a file.
    """
    if wanted is None:
        return templates.get("default")
    if wanted == "none":
        return None
    if wanted in templates:
        return templates[wanted]
    path = Path(wanted).expanduser()
    if path.is_file():
        return read_template(path)
    own = f"The tokenizer's own templates: {', '.join(templates)}. " if templates else "The tokenizer has no template. "
    raise UsageError(
        f"no chat template is called {wanted!r}",
        own + "Give one of their names, a file that holds a template, or none.",
    )
