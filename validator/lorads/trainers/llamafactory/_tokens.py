"""What LLaMA-Factory changes in a tokenizer before it uses it (``template.py``, ``fix_special_tokens``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from lorads.errors import UsageError
from lorads.trainers.llamafactory._templates import Style

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer

_FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
"""How ``add_special_tokens`` of transformers adds a token given as a text. A token that is there already takes these
flags too: Phi-3's ``<|end|>`` no longer swallows the line break behind it."""
_SHOWN = 6


def fixed(tokenizer: Tokenizer, style: Style) -> tuple[Tokenizer, str, list[str]]:
    """The tokenizer as the run has it, its end-of-sequence token, and what a user should know about the changes."""
    eos = tokenizer.special.eos
    stop_words = list(style.stop_words)
    wanted: list[str] = []
    if style.replace_eos:
        first = stop_words.pop(0)
        if first != eos:
            wanted.append(first)
        eos = first
    if eos is None or (not style.replace_eos and tokenizer.special.eos_id is None):
        eos = "<|endoftext|>"
        wanted.append(eos)
    wanted += stop_words
    known = {entry["content"]: entry for entry in _added(tokenizer)} if wanted else {}
    change = [token for token in wanted if not _as_wanted(known.get(token))]
    notes = []
    if eos != tokenizer.special.eos:
        notes.append(
            f"LLaMA-Factory's template {style.name} makes {eos} the end-of-sequence token, in place of "
            f"{tokenizer.special.eos or 'none'}"
        )
    if not change:
        return tokenizer, eos, notes
    made = _with(tokenizer, change, eos)
    new = [token for token in change if tokenizer.id_of(token) is None]
    if new:
        shown = ", ".join(f"{token} ({made.id_of(token)})" for token in new[:_SHOWN])
        notes.append(
            f"LLaMA-Factory adds tokens that the tokenizer does not have: {shown}; set resize_vocab: true, and "
            "train the embeddings, or choose the template of this model"
        )
    return made, eos, notes


def _as_wanted(entry: dict[str, Any] | None) -> bool:
    return entry is not None and all(entry.get(flag) == value for flag, value in _FLAGS.items())


def _added(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    return list(tokenizer.model().get("added_tokens") or [])


def _with(tokenizer: Tokenizer, tokens: Sequence[str], eos: str) -> Tokenizer:
    """A tokenizer with these tokens added or changed: the library itself gives them their ids."""
    import tokenizers

    model = tokenizer.model()
    library = tokenizers.Tokenizer.from_str(orjson.dumps(model).decode())
    library.add_special_tokens([tokenizers.AddedToken(token, **_FLAGS) for token in tokens])
    model["added_tokens"] = orjson.loads(library.to_str())["added_tokens"]
    files = tokenizer.files
    return tokenizer.with_files(
        replace(
            files,
            model=orjson.dumps(model),
            config={**files.config, "eos_token": eos},
            special_tokens_map={**files.special_tokens_map, "eos_token": eos} if files.special_tokens_map else {},
        )
    )


def id_of(tokenizer: Tokenizer, token: str, style: Style) -> int:
    """``convert_tokens_to_ids``: the unknown token stands for what the vocabulary does not have."""
    number = tokenizer.id_of(token)
    if number is None:
        number = tokenizer.special.unk_id
    if number is None:
        raise UsageError(
            f"LLaMA-Factory's template {style.name} needs the token {token}, which the tokenizer {tokenizer.name} does "
            "not have",
            "choose the template of this model: --trainer-option template=NAME",
        )
    return number
