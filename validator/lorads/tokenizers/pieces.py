"""What a parsed ``tokenizer.json`` says about its tokens: bytes behind each, prefixes, what the post-processor adds."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Parts = dict[str, Any]

Kind = Literal["byte-level", "sentencepiece", "other"]

Prefix = Literal["none", "start", "sections"]
"""Where a space may be put that the text doesn't hold: nowhere, in front of the text, also behind each added token."""

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@cache
def byte_of_char() -> dict[str, int]:
    """The alphabet of byte-level BPE (GPT-2's): printable bytes stand for themselves, others for U+0100 and on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


@cache
def _byte_level_table() -> dict[int, int]:
    """``str.translate`` table from the byte-level alphabet to Latin-1."""
    return {ord(char): byte for char, byte in byte_of_char().items()}


def byte_level_bytes(token: str) -> bytes:
    """What a token of a byte-level vocabulary decodes to: a token outside the alphabet stands for its own UTF-8.

    As ``tokenizers``' ByteLevel decoder does it, also for added tokens: ``ö`` is in the alphabet and decodes to the
    byte F6.
    """
    try:
        return token.translate(_byte_level_table()).encode("latin-1") if _in_alphabet(token) else token.encode()
    except UnicodeEncodeError:
        return token.encode("utf-8", "replace")


def _in_alphabet(token: str) -> bool:
    return all(char in byte_of_char() for char in token)


def sentencepiece_bytes(token: str) -> bytes:
    """What a token of a SentencePiece vocabulary decodes to inside a text."""
    byte = _BYTE_TOKEN.fullmatch(token)
    return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode("utf-8", "replace")


def steps(part: Parts | None, key: str) -> list[Parts]:
    """A normalizer, pre-tokenizer or post-processor as a flat list of its steps."""
    if not part:
        return []
    if part.get("type") == "Sequence":
        return [step for inner in part.get(key) or [] for step in steps(inner, key)]
    return [part]


def vocabulary(model: Parts) -> dict[str, int]:
    """Token to id of the model, without added tokens."""
    vocab = model["model"].get("vocab")
    if isinstance(vocab, list):  # Unigram: [[token, score], …]
        return {entry[0]: index for index, entry in enumerate(vocab)}
    return vocab or {}


def kind(model: Parts) -> Kind:
    """``byte-level`` and ``sentencepiece`` (byte fallback, space as ▁) have tokens of known byte lengths."""
    normalizers = [step["type"] for step in steps(model.get("normalizer"), "normalizers")]
    cutters = steps(model.get("pre_tokenizer"), "pretokenizers")
    names = [step["type"] for step in cutters]
    if model["model"].get("type") == "BPE" and "ByteLevel" in names:
        # Behind another cut, add_prefix_space would put a space in front of every word.
        everywhere = len(names) > 1 and any(step.get("add_prefix_space") for step in cutters)
        return "byte-level" if set(normalizers) <= {"NFC"} and not everywhere else "other"
    bpe = model["model"].get("type") in ("BPE", "Unigram") and model["model"].get("byte_fallback")
    if bpe and set(normalizers) <= {"Prepend", "Replace"} and set(names) <= {"Metaspace", "Split"}:
        plain = [step for step in steps(model.get("normalizer"), "normalizers") if step["type"] == "Replace"]
        marks = all(step.get("pattern") == {"String": " "} and step.get("content") == "▁" for step in plain)
        marks = marks and all(step.get("replacement", "▁") == "▁" for step in cutters)
        return "sentencepiece" if marks and (plain or "Metaspace" in names) else "other"
    return "other"


def prefix(model: Parts) -> Prefix:
    """See ``Prefix``."""
    if any(step["type"] == "Prepend" for step in steps(model.get("normalizer"), "normalizers")):
        return "sections"
    for step in steps(model.get("pre_tokenizer"), "pretokenizers"):
        scheme = step.get("prepend_scheme", "always")
        if step["type"] == "Metaspace" and scheme != "never":
            return "start" if scheme == "first" else "sections"
        if step["type"] == "ByteLevel" and step.get("add_prefix_space"):
            return "sections"
    return "none"


def needs_nfc(model: Parts) -> bool:
    """Whether the text is brought into Unicode form C first: the bytes are its own only where it is in that form."""
    return any(step["type"] == "NFC" for step in steps(model.get("normalizer"), "normalizers"))


def byte_lengths(model: Parts, size: int) -> npt.NDArray[np.int32] | None:
    """How many bytes of the text stand behind each token, shape (vocab_size,); None where that isn't known.

    0 for ids that no token has.
    """
    which = kind(model)
    if which == "other":
        return None
    lengths = np.zeros(size, dtype=np.int32)
    vocab = vocabulary(model)
    tokens = list(vocab)
    if which == "byte-level":
        counts = [len(token) for token in tokens]
    else:
        counts = [
            1 if _BYTE_TOKEN.fullmatch(token) else len(token.encode("utf-8", "replace")) - 2 * token.count("▁")
            for token in tokens
        ]
    lengths[list(vocab.values())] = counts
    for token in model.get("added_tokens") or []:
        lengths[token["id"]] = len(token["content"].encode("utf-8", "replace"))
    return lengths


def size(model: Parts) -> int:
    """The highest id and one."""
    ids = [*vocabulary(model).values(), *(token["id"] for token in model.get("added_tokens") or [])]
    return max(ids, default=-1) + 1


def post_processor(model: Parts) -> tuple[list[int], list[int]] | None:
    """Ids that the post-processor puts in front of and behind one text; None when it does anything else."""
    front: list[int] = []
    behind: list[int] = []
    for step in steps(model.get("post_processor"), "processors"):
        if step["type"] == "ByteLevel":
            continue
        if step["type"] != "TemplateProcessing":
            return None
        front_here: list[int] = []
        behind_here: list[int] = []
        here = front_here
        for item in step["single"]:
            if "Sequence" in item:
                here = behind_here
            else:
                here += step["special_tokens"][item["SpecialToken"]["id"]]["ids"]
        front, behind = front_here + front, behind + behind_here
    return front, behind


def untrimmed(model: Parts) -> Parts:
    """The same tokenizer, with offsets that keep the spaces at a token's edges."""

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            changed = {key: walk(value) for key, value in part.items()}
            return changed | {"trim_offsets": False} if "trim_offsets" in changed else changed
        return [walk(value) for value in part] if isinstance(part, list) else part

    return model | {"post_processor": walk(model.get("post_processor"))}
