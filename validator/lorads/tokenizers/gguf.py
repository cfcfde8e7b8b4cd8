"""Reads the vocabulary of a GGUF file and writes it as a ``tokenizer.json``.

Only the metadata in front of the tensors is read. The layout is that of the GGUF specification (version 2 and 3,
little-endian).
"""

from __future__ import annotations

import mmap
import struct
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from lorads.errors import UsageError

MAX_ITEMS = 4_000_000
"""More entries than any vocabulary has; a file that announces more is refused."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_CONTROL, _USER_DEFINED = 3, 4  # token types


def read_metadata(path: Path) -> dict[str, Any]:
    """The key-value pairs of a GGUF file. Raises ``UsageError`` when it isn't one or is cut short."""
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise UsageError(f"{path} is no GGUF file", "It should start with the four letters GGUF.")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _pairs(data)
            except (struct.error, IndexError, KeyError, ValueError) as why:
                raise UsageError(f"{path} is a broken GGUF file: {why}", "Fetch it again.") from None


def _pairs(data: mmap.mmap) -> dict[str, Any]:
    version, _, count = struct.unpack_from("<IQQ", data, 4)
    if version not in (2, 3):
        raise ValueError(f"version {version} is not known")
    if count > MAX_ITEMS:
        raise ValueError("too many keys")
    pairs: dict[str, Any] = {}
    position = 24
    for _ in range(count):
        key, position = _value(data, position, _STRING)
        (kind,) = struct.unpack_from("<I", data, position)
        pairs[key], position = _value(data, position + 4, kind)
    return pairs


def _value(data: mmap.mmap, position: int, kind: int) -> tuple[Any, int]:
    """The value of type ``kind`` at ``position``, and the position behind it."""
    if kind == _STRING:
        (length,) = struct.unpack_from("<Q", data, position)
        end = position + 8 + length
        if end > len(data):
            raise ValueError("it ends in the middle of a text")
        return data[position + 8 : end].decode("utf-8", "replace"), end
    if kind == _ARRAY:
        item, count = struct.unpack_from("<IQ", data, position)
        position += 12
        if count > MAX_ITEMS or item == _ARRAY:
            raise ValueError("a list is too long or nested")
        if item in _SCALARS:
            layout = struct.Struct(f"<{count}{_SCALARS[item]}")
            return list(layout.unpack_from(data, position)), position + layout.size
        values = []
        for _ in range(count):
            value, position = _value(data, position, item)
            values.append(value)
        return values, position
    layout = struct.Struct("<" + _SCALARS[kind])
    return layout.unpack_from(data, position)[0], position + layout.size


@cache
def _pre_tokenizers() -> dict[str, Any]:
    """``pre_tokenizers.toml``: what the names in ``tokenizer.ggml.pre`` stand for."""
    with Path(__file__).with_name("pre_tokenizers.toml").open("rb") as file:
        return tomllib.load(file)


def byte_level_pre_tokenizer(name: str) -> tuple[dict[str, Any], dict[str, Any] | None, bool] | None:
    """``pre_tokenizer``, ``normalizer`` and ``ignore_merges`` that a name in ``tokenizer.ggml.pre`` stands for.

    None when the name isn't known.
    """
    facts = _pre_tokenizers().get(name)
    if facts is None:
        return None
    steps: list[dict[str, Any]] = []
    for step in facts.get("split", []):
        if step in ("digits", "digit-groups"):
            steps.append({"type": "Digits", "individual_digits": step == "digits"})
        else:
            steps.append({"type": "Split", "pattern": {"Regex": step}, "behavior": "Isolated", "invert": False})
    own_regex = facts.get("gpt2-regex", False)
    steps.append({"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": own_regex})
    normalizer = {"type": facts["normalizer"]} if "normalizer" in facts else None
    pre_tokenizer = steps[0] if len(steps) == 1 else {"type": "Sequence", "pretokenizers": steps}
    return pre_tokenizer, normalizer, facts.get("ignore-merges", False)


def to_tokenizer(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The vocabulary of a GGUF file as the contents of ``tokenizer.json`` and ``tokenizer_config.json``.

    Byte-level BPE (``tokenizer.ggml.model`` = gpt2) with a pre-tokenizer of ``pre_tokenizers.toml``, and SentencePiece
    BPE (llama), whose merges follow from the order of the scores. Raises ``UsageError`` for anything else.
    """
    pairs = read_metadata(path)
    kind = pairs.get("tokenizer.ggml.model")
    tokens, types = pairs.get("tokenizer.ggml.tokens"), pairs.get("tokenizer.ggml.token_type")
    if not isinstance(tokens, list) or not isinstance(types, list) or len(tokens) != len(types):
        raise UsageError(f"{path} holds no vocabulary", "Name the tokenizer's directory or hub id instead.")
    if kind == "gpt2":
        model = _byte_level(path, pairs, tokens, types)
    elif kind == "llama":
        model = _sentencepiece(pairs, tokens, types)
    else:
        raise UsageError(
            f"{path} has a vocabulary of the kind {kind!r}, which lorads can't read from GGUF",
            "Name the tokenizer's directory or hub id instead.",
        )
    return model, _config(pairs, tokens)


def added_tokens(tokens: list[str], types: list[int], *, normalized: bool) -> list[dict[str, Any]]:
    """The control and user-defined tokens, as ``added_tokens`` of ``tokenizer.json``.

    ``[PAD<id>]`` fills the embedding rows that no token uses and is left out.
    """
    return [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": normalized,
            "special": types[index] == _CONTROL,
        }
        for index, token in enumerate(tokens)
        if types[index] in (_CONTROL, _USER_DEFINED) and token != f"[PAD{index}]"
    ]


_EMPTY: dict[str, Any] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": None,
    "post_processor": None,
    "decoder": None,
    "model": None,
}
"""The parts of a tokenizer.json, in the order in which they are written."""


def bpe_model(vocab: dict[str, int], merges: Any, **more: Any) -> dict[str, Any]:
    """The ``model`` of a BPE's tokenizer.json."""
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        **more,
        "vocab": vocab,
        "merges": merges,
    }


def byte_level_file(model: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The tokenizer.json of a byte-level BPE; ``parts`` are its added tokens, normalizer and so on."""
    decoder = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    return _EMPTY | parts | {"decoder": decoder, "model": model}


def sentencepiece_file(model: dict[str, Any], *, prefix: bool = True, **parts: Any) -> dict[str, Any]:
    """The tokenizer.json of a SentencePiece BPE: spaces are marks, and with ``prefix`` one is put in front."""
    normalizers = [
        *([{"type": "Prepend", "prepend": "▁"}] if prefix else []),
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    decoders = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0},
    ]
    both = {
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "decoder": {"type": "Sequence", "decoders": decoders},
    }
    return _EMPTY | parts | both | {"model": model}


def _byte_level(path: Path, pairs: dict[str, Any], tokens: list[str], types: list[int]) -> dict[str, Any]:
    name = pairs.get("tokenizer.ggml.pre", "default")
    known = byte_level_pre_tokenizer(name)
    if known is None:
        raise UsageError(
            f"{path} names the pre-tokenizer {name!r}, which lorads doesn't know",
            f"Known are {', '.join(_pre_tokenizers())}. Name the tokenizer's directory or hub id instead.",
        )
    pre_tokenizer, normalizer, ignore_merges = known
    added = added_tokens(tokens, types, normalized=False)
    outside = {entry["id"] for entry in added}
    vocab = {token: index for index, token in enumerate(tokens) if index not in outside and token != f"[PAD{index}]"}
    return byte_level_file(
        bpe_model(vocab, pairs.get("tokenizer.ggml.merges", []), ignore_merges=ignore_merges),
        added_tokens=added,
        normalizer=normalizer,
        pre_tokenizer=pre_tokenizer,
        post_processor=_post_processor(pairs, tokens),
    )


def _sentencepiece(pairs: dict[str, Any], tokens: list[str], types: list[int]) -> dict[str, Any]:
    scores = pairs.get("tokenizer.ggml.scores", [])
    vocab = {token: index for index, token in enumerate(tokens)}
    ranked: list[tuple[float, int, int, list[str]]] = []
    for index, token in enumerate(tokens):
        for cut in range(1, len(token)):
            left, right = vocab.get(token[:cut]), vocab.get(token[cut:])
            if left is not None and right is not None:
                ranked.append((-scores[index], left, right, [token[:cut], token[cut:]]))
    ranked.sort(key=lambda merge: merge[:3])
    unknown = pairs.get("tokenizer.ggml.unknown_token_id")
    added = added_tokens(tokens, types, normalized=False)
    if unknown is not None and all(entry["id"] != unknown for entry in added):
        added = [*added_tokens([tokens[unknown]], [_CONTROL], normalized=False), *added]
        added[0]["id"] = unknown
    return sentencepiece_file(
        bpe_model(
            vocab,
            [merge[3] for merge in ranked],
            unk_token=tokens[unknown] if unknown is not None else None,
            fuse_unk=True,
            byte_fallback=True,
            ignore_merges=False,
        ),
        prefix=pairs.get("tokenizer.ggml.add_space_prefix", True),
        added_tokens=sorted(added, key=lambda entry: int(entry["id"])),
        post_processor=_post_processor(pairs, tokens),
    )


def _special(pairs: dict[str, Any], tokens: list[str], name: str) -> str | None:
    index = pairs.get(f"tokenizer.ggml.{name}_token_id")
    return tokens[index] if isinstance(index, int) and 0 <= index < len(tokens) else None


def _post_processor(pairs: dict[str, Any], tokens: list[str]) -> dict[str, Any] | None:
    bos = _special(pairs, tokens, "bos") if pairs.get("tokenizer.ggml.add_bos_token", False) else None
    eos = _special(pairs, tokens, "eos") if pairs.get("tokenizer.ggml.add_eos_token", False) else None
    if bos is None and eos is None:
        return None
    single: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}]
    pair: list[dict[str, Any]] = [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    if bos is not None:
        single.insert(0, {"SpecialToken": {"id": bos, "type_id": 0}})
        pair.insert(0, {"SpecialToken": {"id": bos, "type_id": 0}})
    if eos is not None:
        single.append({"SpecialToken": {"id": eos, "type_id": 0}})
        pair.append({"SpecialToken": {"id": eos, "type_id": 1}})
    used = {token: {"id": token, "ids": [tokens.index(token)], "tokens": [token]} for token in (bos, eos) if token}
    return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": used}


def _config(pairs: dict[str, Any], tokens: list[str]) -> dict[str, Any]:
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        config[f"{name}_token"] = _special(pairs, tokens, key)
    template = pairs.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    return config
