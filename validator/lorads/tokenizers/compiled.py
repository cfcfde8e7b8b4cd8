"""What is worked out once from a tokenizer's files, and its place in the cache.

A warm start needs neither the ``tokenizers`` library nor the parsed tokenizer.json: special tokens, byte lengths and
what the post-processor adds come from here.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from lorads import __version__, cache
from lorads.errors import UsageError
from lorads.tokenizers import pieces, transformers_classes
from lorads.tokenizers.engines import TokenizersEngine
from lorads.tokenizers.files import TokenizerFiles, fingerprint, parse
from lorads.tokenizers.special import SpecialTokens, understand

LoadAs = Literal["transformers", "file"]

MAX_VOCABULARY = 16_000_000
"""More ids than any tokenizer has; bounds the arrays that have a place for each."""

_FORMAT = 2
"""Counts up when what is stored, or what an engine is compared on, changes."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A tokenizer's files, understood."""

    sha256: str
    """Of tokenizer.json, unpacked."""
    edited: bool
    """Whether something else than tokenizer.json has to be loaded."""
    size: int
    kind: pieces.Kind
    prefix: pieces.Prefix
    nfc: bool
    post: tuple[list[int], list[int]] | None
    """Ids the post-processor puts in front and behind; None when it does something else."""
    special: SpecialTokens
    notes: list[str]
    absorbing: list[int]
    """Added tokens that swallow spaces beside them."""
    byte_lengths: npt.NDArray[np.int32] | None
    """How many bytes of text stand behind each id, shape (size,); None where that isn't known."""


def key(files: TokenizerFiles, load_as: LoadAs) -> str:
    """Name of the tokenizer's files in the cache."""
    return f"{fingerprint(files)[:32]}-{load_as}-{_FORMAT}-{__version__}"


def edit(files: TokenizerFiles, load_as: LoadAs) -> tuple[dict[str, Any], dict[str, str | None], list[str], bool]:
    """tokenizer.json as it is to be loaded, the named special tokens, notes, and whether it was changed.

    Offsets always keep the spaces at a token's edges. Raises ``UsageError`` when the file is no tokenizer.
    """
    what = _what(files)
    model = parse(files.model, what)
    if not isinstance(model.get("model"), dict) or not isinstance(model["model"].get("vocab"), (dict, list)):
        raise UsageError(f"{what} is no tokenizer: it has no vocabulary", "Is this the file you meant?")
    edited, named, notes = transformers_classes.apply(files, model)
    if load_as == "file":
        edited, notes = model, []
    result = pieces.untrimmed(edited)
    return result, named, notes, result != model


def make(files: TokenizerFiles, load_as: LoadAs) -> tuple[Compiled, bytes, TokenizersEngine]:
    """Understand the files: also the tokenizer.json to load, and the reference engine made from it.

    Raises ``UsageError`` when they hold no tokenizer.
    """
    what = _what(files)
    parse(files.model, what)
    # The library checks the file's structure; from here on it is known to be sound.
    reference = TokenizersEngine(files.model, what)
    model, named, notes, edited = edit(files, load_as)
    loaded = files.model
    if edited:
        loaded = orjson.dumps(model)
        reference = TokenizersEngine(loaded, what)
    size = pieces.size(model)
    if size > MAX_VOCABULARY:
        raise UsageError(f"{what} has ids up to {size - 1}: no tokenizer is that large", "Is the file damaged?")
    added = model.get("added_tokens") or []
    ids = pieces.vocabulary(model) | {entry["content"]: int(entry["id"]) for entry in added}
    post = pieces.post_processor(model)
    if post is not None and any(number >= size for number in (*post[0], *post[1])):
        post = None  # it adds ids that no token has: only the reference knows what comes of that
    compiled = Compiled(
        sha256=hashlib.sha256(files.model).hexdigest(),
        edited=edited,
        size=size,
        kind=pieces.kind(model),
        prefix=pieces.prefix(model),
        nfc=pieces.needs_nfc(model),
        post=post,
        special=understand(files, model, named, ids, post, size),
        notes=notes,
        absorbing=[int(entry["id"]) for entry in added if entry.get("lstrip") or entry.get("rstrip")],
        byte_lengths=pieces.byte_lengths(model, size),
    )
    return compiled, loaded, reference


def _what(files: TokenizerFiles) -> str:
    if files.source.endswith((".json", ".json.gz", ".gguf")):
        return files.source
    return f"tokenizer.json of {files.name}"


def write(name: str, compiled: Compiled) -> None:
    """Put it into the cache."""
    special = compiled.special
    facts = {
        "sha256": compiled.sha256,
        "edited": compiled.edited,
        "size": compiled.size,
        "kind": compiled.kind,
        "prefix": compiled.prefix,
        "nfc": compiled.nfc,
        "post": compiled.post,
        "notes": compiled.notes,
        "absorbing": compiled.absorbing,
        "special": {
            field: sorted(value) if isinstance(value, frozenset) else value
            for field in SpecialTokens.__slots__
            for value in [getattr(special, field)]
        },
    }
    parts = [
        orjson.dumps(facts),
        b"" if compiled.byte_lengths is None else compiled.byte_lengths.astype("<i4").tobytes(),
    ]
    content = len(parts[0]).to_bytes(8, "big") + b"".join(parts)
    cache.write(cache.sealed(content), "tokenizers", f"{name}.facts")


def read(name: str) -> Compiled | None:
    """What the cache holds; None when it holds nothing, or nothing sound."""
    content = cache.unsealed(cache.read("tokenizers", f"{name}.facts"))
    if content is None:
        return None
    try:
        end = 8 + int.from_bytes(content[:8], "big")
        facts = orjson.loads(content[8:end])
        lengths = np.frombuffer(content, dtype="<i4", offset=end).astype(np.int32) if end < len(content) else None
        special = facts.pop("special")
        for field in ("special", "control", "benign", "eos_ids"):
            special[field] = frozenset(special[field])
        special["disagreements"] = tuple(special["disagreements"])
        post = facts.pop("post")
        compiled = Compiled(
            **facts,
            post=None if post is None else (post[0], post[1]),
            special=SpecialTokens(**special),
            byte_lengths=lengths,
        )
    except (ValueError, KeyError, TypeError, IndexError):
        return None
    return compiled if lengths is None or len(lengths) == compiled.size else None
