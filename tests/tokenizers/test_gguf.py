"""GGUF vocabularies: the published vectors of each, and files that are none."""

from __future__ import annotations

import struct
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import realdata
from lorads.errors import UsageError
from lorads.tokenizers import load
from lorads.tokenizers.gguf import read_metadata
from tokenizer_examples import LONG

VOCABULARIES = (
    *(("command-r",) if LONG else ()),
    *("deepseek-coder", "gpt-2", "llama-bpe", "llama-spm", "phi-3", "qwen2", "qwen35"),
    "starcoder",
)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_published_vectors(name: str) -> None:
    file = realdata.require(f"llama.cpp/{name}.gguf")
    texts = realdata.require(f"llama.cpp/{name}.gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = realdata.require(f"llama.cpp/{name}.gguf.out").read_text(encoding="utf-8").split("\n")
    loaded = load(str(file), load_as="file")
    loaded.use_engine("tokenizers")
    ids = loaded.encode(texts)
    for row, (text, line) in enumerate(zip(texts, lines, strict=True)):
        # The models' own tokenizers bring text into form C first; the program that made the vectors doesn't.
        if unicodedata.is_normalized("NFC", text):
            assert ids.row(row).tolist() == [int(number) for number in line.split()], text


def test_special_tokens_and_template() -> None:
    loaded = load(str(realdata.require("llama.cpp/phi-3.gguf")))
    assert (loaded.special.bos, loaded.special.eos_id) == ("<s>", 32000)
    assert loaded.special.adds_bos
    assert loaded.chat_template is not None


def test_kinds_that_can_not_be_read() -> None:
    for name in ("falcon", "deepseek-llm"):
        with pytest.raises(UsageError, match=f"'{name}'"):
            load(str(realdata.require(f"llama.cpp/{name}.gguf")))
    with pytest.raises(UsageError, match="'gemma4'"):
        load(str(realdata.require("llama.cpp/gemma-4.gguf")))


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


SMALL = (
    b"GGUF"
    + struct.pack("<IQQ", 3, 0, 3)
    + (text("tokenizer.ggml.model") + struct.pack("<I", 8) + text("gpt2"))
    + (text("tokenizer.ggml.token_type") + struct.pack("<IIQ", 9, 5, 2) + struct.pack("<2i", 1, 3))
    + (text("tokenizer.ggml.tokens") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("<s>"))
)


def test_reads_pairs(tmp_path: Path) -> None:
    (tmp_path / "small.gguf").write_bytes(SMALL)
    assert read_metadata(tmp_path / "small.gguf") == {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.token_type": [1, 3],
        "tokenizer.ggml.tokens": ["a", "<s>"],
    }
    assert load(str(tmp_path / "small.gguf")).special.added == {"<s>": 1}


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, len(SMALL) - 1), byte=st.integers(0, 255), end=st.integers(4, len(SMALL)))
def test_damage_is_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int, end: int
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.gguf"
    file.write_bytes((SMALL[:position] + bytes([byte]) + SMALL[position + 1 :])[:end])
    try:
        load(str(file))
    except UsageError as error:
        assert "damaged.gguf" in error.message  # noqa: PT017 - it may also be read


@pytest.mark.parametrize("content", [b"", b"GG", b"GGUF", b"GGUF" + struct.pack("<IQQ", 9, 0, 0), b"not a gguf at all"])
def test_no_gguf(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="GGUF"):
        load(str(file))


def test_a_list_that_is_longer_than_the_file(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    for count in (10**15, 3_000_000):
        file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", 9, 5, count))
        with pytest.raises(UsageError, match="broken"):
            read_metadata(file)
