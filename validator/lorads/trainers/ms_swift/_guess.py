"""Which template swift would take: it knows models by their names (``swift/model/model_meta.py`` L170)."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lorads.errors import UsageError
from lorads.trainers.ms_swift._template import names

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer


@cache
def _table() -> dict[str, Any]:
    text = files("lorads.trainers.ms_swift").joinpath("models.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def by_name(name: str) -> str | None:
    """The template of a model called so; None where lorads does not know it, or does not have its template."""
    name = name.rstrip("/")
    stored = re.search(r"models--(?:.+?--)?(.+?)/snapshots/", name)
    last = stored.group(1) if stored else name.rsplit("/", 1)[-1]
    last = last.replace("___", ".").lower()
    if re.search(_table()["other"], last):
        return None
    for pattern, template in _table()["names"].items():
        if re.fullmatch(pattern, last):
            found: str = template
            return found
    return None


def guess(tokenizer: Tokenizer) -> tuple[str, str]:
    """A template and a sentence that says why. Raises ``UsageError`` where there is nothing to tell it by."""
    found = by_name(tokenizer.name)
    if found is not None:
        return found, f"ms-swift's template {found}, by the model's name (template=NAME chooses another)"
    for family in _table()["family"]:
        if all(token in tokenizer.special.added for token in family["tokens"]):
            found = family["template"]
            return found, (
                f"ms-swift's template {found} was guessed from the vocabulary; swift goes by the model's name, so say "
                "--trainer-option template=NAME if you use another"
            )
    raise UsageError(
        f'which template ms-swift takes can\'t be told from the tokenizer "{tokenizer.name}"',
        f"say --trainer-option template=NAME, one of: {', '.join(names())}",
    )
