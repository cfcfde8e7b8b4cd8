"""Rebuilds the DeepSeek-Coder tokenizer that ships inside lorads from its published vocabulary.

    python scripts/build_deepseek_coder.py VOCABULARY.gguf [--compare tokenizer.json] [--check]

The vocabulary is ``vendor/llama.cpp/models/ggml-vocab-deepseek-coder.gguf`` in the source distribution of
llama-cpp-python 0.3.36: tokens, their types and the merges. What a GGUF file doesn't hold (how text is cut into words,
flags of the added tokens) stands here as facts about the model. ``--compare`` names the model's own ``tokenizer.json``
and ends with 1 where the two differ; ``--check`` writes nothing and ends with 1 when what lies in the package differs
from what would be written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from lorads.tokenizers.gguf import added_tokens, bpe_model, byte_level_pre_tokenizer, read_metadata

TARGET = Path(__file__).resolve().parent.parent / "validator/lorads/tokenizers/shipped/deepseek-coder/tokenizer.json"
VOCABULARY_SHA256 = "91cb1379f2e33af1c4866b194622b7a0e12e8f0c9dba7ba2f10d55978730bec1"
FIRST_ADDED = 32000


def build(vocabulary: Path) -> dict[str, Any]:
    """The contents of ``tokenizer.json``."""
    if hashlib.sha256(vocabulary.read_bytes()).hexdigest() != VOCABULARY_SHA256:
        raise SystemExit(f"{vocabulary} is not the vocabulary of llama-cpp-python 0.3.36")
    pairs = read_metadata(vocabulary)
    tokens: list[str] = pairs["tokenizer.ggml.tokens"]
    known = byte_level_pre_tokenizer("deepseek-coder")
    assert known is not None
    vocab = {token: index for index, token in enumerate(tokens[:FIRST_ADDED])}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        # The model's own file matches added tokens after normalization, which does nothing here.
        "added_tokens": added_tokens(tokens, pairs["tokenizer.ggml.token_type"], normalized=True),
        "normalizer": {"type": "Sequence", "normalizers": []},
        "pre_tokenizer": known[0],
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": bpe_model(vocab, pairs["tokenizer.ggml.merges"]),
    }


def differences(built: dict[str, Any], genuine: dict[str, Any]) -> list[str]:
    """The parts (``model.vocab``, ``decoder``, …) in which two ``tokenizer.json`` differ."""
    parts = {f"model.{key}" for key in built["model"].keys() | genuine["model"].keys()}
    parts |= (built.keys() | genuine.keys()) - {"model"}

    def part(source: dict[str, Any], name: str) -> Any:
        head, _, rest = name.partition(".")
        return source.get(head, {}).get(rest, KeyError) if rest else source.get(head, KeyError)

    return sorted(name for name in parts if part(built, name) != part(genuine, name))


def text(built: dict[str, Any]) -> str:
    """As it lies in the package: compact, UTF-8."""
    return json.dumps(built, ensure_ascii=False, separators=(",", ":")) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vocabulary", type=Path)
    parser.add_argument("--compare", type=Path)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args(arguments)
    built = build(options.vocabulary)
    if options.compare:
        different = differences(built, json.loads(options.compare.read_text(encoding="utf-8")))
        print(f"differs in {', '.join(different)}" if different else "equal to the model's own file")
        if different:
            return 1
    if options.check:
        same = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text(built)
        print("up to date" if same else f"{TARGET} is not what this script writes")
        return 0 if same else 1
    TARGET.write_text(text(built), encoding="utf-8")
    print(f"wrote {TARGET}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
