"""Texts and small tokenizers for the tests of this room."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import orjson
from hypothesis import strategies as st

import realdata
from lorads.tokenizers.engines import PROBE_FRAGMENTS
from lorads.tokenizers.gguf import bpe_model
from lorads.tokenizers.pieces import byte_of_char

LONG = bool(os.environ.get("LORADS_LONG"))
"""Set by hand for the long comparison of the engines."""

ASSETS = ("qwen3", "qwen2.5", "gpt-oss", "deepseek-v3", "gpt2", "smollm2", "tinyllama", "phi-3", "mistral-v0.1")
"""Tokenizers of LORADS_ASSETS."""
LARGE = ("qwen2.5", "gpt-oss", "deepseek-v3")
"""Those that take long to load and are tried by the long run alone."""


def texts(added: list[str]) -> st.SearchStrategy[str]:
    """Anything, and mixtures of what tokenizers stumble over: spaces, scripts, joined emoji, added tokens."""
    pieces: list[st.SearchStrategy[str]] = [st.sampled_from(PROBE_FRAGMENTS), st.text(max_size=8)]
    if added:
        pieces.append(st.sampled_from(added))
    return st.one_of(st.text(max_size=40), st.lists(st.one_of(pieces), max_size=12).map("".join))


def real_texts(limit: int) -> list[str]:
    """Rows of real data sets, each as one string, and where they don't suffice their fields as strings of their own.

    By reference from a package, more where LORADS_ASSETS has them; spread evenly over the sets.
    """
    rows: list[Any] = []
    for name in ("alpaca_en_demo", "alpaca_zh_demo", "dpo_en_demo", "kto_en_demo", "glaive_toolcall_en_demo"):
        rows += orjson.loads(realdata.require(f"llamafactory/{name}.json").read_bytes())
    if len(rows) < limit and os.environ.get("LORADS_ASSETS"):
        for file in sorted(Path(os.environ["LORADS_ASSETS"], "datasets").glob("*.jsonl*")):
            content = realdata.asset(f"datasets/{file.name.removesuffix('.gz')}").read_bytes()
            rows += [orjson.loads(line) for line in content.splitlines() if line.strip()]
    whole = [_flat(row) for row in rows]
    if len(whole) < limit:
        whole += [_flat(value) for row in rows if isinstance(row, dict) for value in row.values() if value]
    step = max(1, len(whole) // limit)
    return whole[::step][:limit]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(_flat(part) for part in value.values())
    return "\n".join(map(_flat, value)) if isinstance(value, list) else str(value)


def byte_level(**parts: Any) -> dict[str, Any]:
    """A tokenizer.json with one token a byte, a few merges and two added tokens."""
    alphabet = list(byte_of_char())
    merges = ["h e", "l l", "he ll", "hell o", "Ġ hello"]
    tokens = alphabet + [merge.replace(" ", "") for merge in merges]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [added(len(vocab), "<s>"), added(len(vocab) + 1, "<|end|>")],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": bpe_model(vocab, merges),
    } | parts


def added(index: int, token: str, **flags: bool) -> dict[str, Any]:
    """An entry of ``added_tokens``."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": token} | plain | flags


def bos_processor(token: str, index: int) -> dict[str, Any]:
    """A post-processor that puts a token in front."""
    return {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {token: {"id": token, "ids": [index], "tokens": [token]}},
    }


def write(folder: Path, **files: Any) -> Path:
    """Write JSON files into a folder: ``tokenizer=…`` becomes tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
