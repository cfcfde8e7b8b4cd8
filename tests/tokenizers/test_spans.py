"""Spans from byte lengths are the offsets of ``tokenizers``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import realdata
from lorads.tokenizers import Tokenizer, load
from lorads.tokenizers.compiled import LoadAs
from lorads.tokenizers.spans import by_lengths
from tokenizer_examples import LONG, added, bos_processor, byte_level, real_texts, texts, write


def check(loaded: Tokenizer, rows: list[str], special: bool) -> None:
    """Every row's ids and spans are those of the reference."""
    ids, places = loaded.encode_with_spans(rows, special)
    reference = loaded._load_reference()
    behind = len(loaded._compiled.post[1]) if special and loaded._compiled.post else 0
    for row, text in enumerate(rows):
        numbers, offsets = reference.offsets(text, special)
        if behind:
            offsets = offsets[:-behind] + [(len(text), len(text))] * behind
        own = slice(int(ids.starts[row]), int(ids.starts[row + 1]))
        assert ids.flat[own].tolist() == numbers, text
        got = list(zip(places.begin[own].tolist(), places.end[own].tolist(), strict=True))
        assert got == [tuple(pair) for pair in offsets], text


def left_to_the_reference(loaded: Tokenizer, rows: list[str]) -> int:
    """How many of the rows need the slow way."""
    assert loaded._lengths is not None
    return len(by_lengths(rows, loaded.encode(rows), 0, 0, loaded._lengths)[1])


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("load_as", ["transformers", "file"])
@pytest.mark.parametrize("name", ["deepseek-coder", "qwen3", "gpt2", "tinyllama", "mistral-v0.1", "phi-3"])
def test_spans_are_the_reference_offsets(name: str, load_as: LoadAs, special: bool) -> None:
    source = name if name == "deepseek-coder" else str(realdata.asset_dir(f"tokenizers/{name}"))
    loaded = load(source, load_as=load_as)
    check(loaded, real_texts(60), special)

    @settings(max_examples=2000 if LONG else 25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(texts(list(loaded.special.added)), max_size=4))
    def agree(rows: list[str]) -> None:
        check(loaded, rows, special)

    agree()


@pytest.mark.parametrize(("name", "allowed"), [("qwen3", 0.02), ("tinyllama", 0.0), ("mistral-v0.1", 0.0)])
def test_real_rows_take_the_fast_way(name: str, allowed: float) -> None:
    rows = real_texts(261)
    loaded = load(str(realdata.asset_dir(f"tokenizers/{name}")))
    assert left_to_the_reference(loaded, rows) <= allowed * len(rows)


SMALL: dict[str, dict[str, Any]] = {
    "plain": {},
    "nfc": {"normalizer": {"type": "NFC"}},
    "prefix": {
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    },
    "prefix behind digits": {
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Digits", "individual_digits": True},
                {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            ],
        }
    },
    "trimmed": {
        "post_processor": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    },
    "lowercase": {"normalizer": {"type": "Lowercase"}},
    "bos": {"post_processor": bos_processor("<s>", 261)},
    "stripping": {"added_tokens": [added(261, "<s>", lstrip=True, rstrip=True), added(262, "<|end|>", rstrip=True)]},
    "normalized": {
        "added_tokens": [added(261, "<s>", normalized=True), added(262, "é", normalized=True, special=False)]
    },
    "single word": {"added_tokens": [added(261, "<s>", single_word=True), added(262, "ll", single_word=True)]},
}


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("variant", SMALL)
def test_spans_whatever_the_pipeline(variant: str, special: bool, tmp_path: Path) -> None:
    loaded = load(str(write(tmp_path, tokenizer=byte_level(**SMALL[variant]))), load_as="file")

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(texts(["<s>", "<|end|>", " <s> ", "hello", "ll"]), max_size=4))
    def agree(rows: list[str]) -> None:
        check(loaded, rows, special)

    agree()


BORDERS = ["deepseek-coder", "qwen3", "tinyllama", "mistral-v0.1"]


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("name", BORDERS)
def test_borders_count_the_spans(name: str, special: bool) -> None:
    source = name if name == "deepseek-coder" else str(realdata.asset_dir(f"tokenizers/{name}"))
    loaded = load(source)

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(texts(list(loaded.special.added)), min_size=1, max_size=4), max_size=4))
    def agree(pieces: list[list[str]]) -> None:
        rows = ["".join(parts) for parts in pieces]
        ids, places = loaded.encode_with_spans(rows, special)
        chars = np.array([len(part) for parts in pieces for part in parts], dtype=np.int64)
        bounds = np.cumsum([0, *map(len, pieces)])
        got = loaded.place(rows, ids, special).borders(chars, bounds)
        expected = [
            int(ids.starts[row] + np.sum(places.end[ids.starts[row] : ids.starts[row + 1]] <= end))
            for row in range(len(rows))
            for end in np.cumsum(chars[bounds[row] : bounds[row + 1]]).tolist()
        ]
        assert got.tolist() == expected

    agree()


def test_spaces_belong_to_their_token(tmp_path: Path) -> None:
    loaded = load(str(write(tmp_path, tokenizer=byte_level(**SMALL["trimmed"]))), load_as="file")
    ids, places = loaded.encode_with_spans(["hello hello"])
    assert [loaded.token_text(number) for number in ids.flat.tolist()] == ["hello", " hello"]
    assert places.begin.tolist() == [0, 5]
    assert places.end.tolist() == [5, 11]


def test_part_of_a_character_spans_it_whole() -> None:
    ids, places = load("deepseek-coder").encode_with_spans(["a🎉b"])
    assert places.begin.tolist() == [0, 1, 1, 1, 2]
    assert places.end.tolist() == [1, 2, 2, 2, 3]
    assert len(ids.flat) == 5


@pytest.mark.parametrize("rows", [[], [""], ["", ""], ["", "x", ""]])
def test_empty_texts(rows: list[str]) -> None:
    ids, places = load("deepseek-coder").encode_with_spans(rows)
    assert len(ids.starts) == len(rows) + 1
    assert len(places.begin) == len(places.end) == len(ids.flat) == "".join(rows).count("x")


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20), max_size=5))
@settings(max_examples=100, deadline=None)
def test_tokens_cover_the_text_without_gaps(rows: list[str]) -> None:
    loaded = load("deepseek-coder")
    ids, places = loaded.encode_with_spans(rows)
    for row, text in enumerate(rows):
        own = slice(int(ids.starts[row]), int(ids.starts[row + 1]))
        begin, end = places.begin[own], places.end[own]
        assert np.all(end > begin)
        if text:
            assert (begin[0], end[-1]) == (0, len(text))
            assert np.all(begin[1:] <= end[:-1])
