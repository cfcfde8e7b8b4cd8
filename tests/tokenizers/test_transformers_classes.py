"""``load_as="transformers"`` gives the ids that ``AutoTokenizer`` gave when it was recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import realdata
from lorads.tokenizers import load
from lorads.tokenizers.transformers_classes import VERSION
from tokenizer_cases import CASES, RECORDING, write_case
from tokenizer_examples import byte_level, write

KNOWN = json.loads(CASES.read_text(encoding="utf-8"))
RECORDED = json.loads(RECORDING.read_text(encoding="utf-8"))


def test_recording_is_of_the_stated_version() -> None:
    assert RECORDED["transformers"].startswith(f"{VERSION}.")
    assert list(RECORDED["cases"]) == [case["name"] for case in KNOWN["cases"]]


@pytest.mark.parametrize("case", KNOWN["cases"], ids=[case["name"] for case in KNOWN["cases"]])
def test_as_transformers(case: dict[str, Any], tmp_path: Path) -> None:
    write_case(case, realdata.asset_dir(f"tokenizers/{case['asset']}"), tmp_path)
    loaded = load(str(tmp_path))
    loaded.use_engine("tokenizers")
    expected = RECORDED["cases"][case["name"]]
    for special, key in ((False, "plain"), (True, "special")):
        ids = loaded.encode(KNOWN["texts"], add_special_tokens=special)
        for row, text in enumerate(KNOWN["texts"]):
            assert ids.row(row).tolist() == expected[key][row], text
    named = {
        f"{name}_token": [getattr(loaded.special, name), getattr(loaded.special, f"{name}_id")]
        for name in ("bos", "eos", "pad", "unk")
    }
    assert named == expected["named"]
    assert loaded.vocab_size == expected["tokens"]


def test_a_difference_is_said() -> None:
    folder = str(realdata.asset_dir("tokenizers/smollm2"))
    changed, plain = load(folder), load(folder, load_as="file")
    assert ["GPT2Tokenizer with its own pre_tokenizer" in note for note in changed.notes] == [True]
    assert plain.notes == []
    assert changed.encode(["a 12"]).flat.tolist() == plain.encode(["a 12"]).flat.tolist()
    assert len(changed.encode(["a\n\n12"]).flat) == len(plain.encode(["a\n\n12"]).flat) + 1


def test_where_nothing_changes_nothing_is_said(tmp_path: Path) -> None:
    loaded = load(
        str(write(tmp_path, tokenizer=byte_level(), tokenizer_config={"tokenizer_class": "GPT2TokenizerFast"}))
    )
    assert loaded.notes == ["transformers 5.23 adds tokens that tokenizer.json doesn't have: <|endoftext|>"]
    loaded = load(str(write(tmp_path, tokenizer=byte_level(), tokenizer_config={"tokenizer_class": "LlamaTokenizer"})))
    assert loaded.notes == []


def test_a_class_that_is_not_followed_is_said(tmp_path: Path) -> None:
    config = {"tokenizer_class": "RobertaTokenizer"}
    loaded = load(str(write(tmp_path, tokenizer=byte_level(), tokenizer_config=config)))
    assert ["doesn't follow" in note for note in loaded.notes] == [True]
