"""The three engines: published vectors, agreement with the reference, what happens when they differ."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import realdata
from lorads.errors import UsageError
from lorads.tokenizers import EngineMismatch, Tokenizer, engines, load, tokenizer
from lorads.tokenizers.engines import EngineName, KitokenEngine, TokenizersEngine
from lorads.tokenizers.ids import Ids
from tokenizer_examples import ASSETS, LARGE, LONG, bos_processor, byte_level, real_texts, texts, write

ENGINES: tuple[EngineName, ...] = ("tokenizers", "fastokens", "kitoken")


def with_engine(name: str, engine: EngineName) -> Tokenizer:
    """A tokenizer on a given engine; the test is skipped where that engine isn't installed."""
    if engines.version(engine) is None:
        pytest.skip(f"{engine} is not installed")
    loaded = load(name)
    loaded.use_engine(engine)
    return loaded


def vectors(inputs: Path, outputs: Path) -> list[tuple[str, list[int]]]:
    """The published pairs of text and ids; the last one is empty."""
    cases = inputs.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    ids = [[int(number) for number in line.split()] for line in outputs.read_text(encoding="utf-8").split("\n")]
    return list(zip(cases, ids, strict=True))


@pytest.mark.parametrize("engine", ENGINES)
def test_published_vectors_of_deepseek_coder(engine: EngineName) -> None:
    cases = vectors(
        realdata.require("llama.cpp/deepseek-coder.gguf.inp"), realdata.require("llama.cpp/deepseek-coder.gguf.out")
    )
    assert len(cases) == 47
    ids = with_engine("deepseek-coder", engine).encode([text for text, _ in cases])
    for row, (text, expected) in enumerate(cases):
        assert ids.row(row).tolist() == expected, text


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["qwen3", "qwen2.5"] if LONG else ["qwen3"])
def test_published_vectors_of_qwen(name: str, engine: EngineName) -> None:
    folder = realdata.asset_dir(f"tokenizers/{name}")
    cases = vectors(folder / "vectors.inp", folder / "vectors.out")
    assert len(cases) == 47
    ids = with_engine(str(folder), engine).encode([text for text, _ in cases])
    for row, (text, expected) in enumerate(cases):
        assert ids.row(row).tolist() == expected, text


def disagreement(loaded: Tokenizer, engine: EngineName, rows: list[str]) -> list[str]:
    """The rows that an engine encodes otherwise than the reference."""
    reference = loaded._load_reference()
    fast = loaded._load(engine)
    assert fast is not None
    got, expected = fast.encode_flat(rows), reference.encode_flat(rows)
    return [row for index, row in enumerate(rows) if not np.array_equal(got.row(index), expected.row(index))]


@pytest.mark.parametrize("engine", ["fastokens", "kitoken"])
@pytest.mark.parametrize("name", ["deepseek-coder", "qwen3"])
def test_engines_agree_on_real_rows(name: str, engine: EngineName) -> None:
    rows = real_texts(50_000 if LONG else 300)
    source = name if name == "deepseek-coder" else str(realdata.asset_dir(f"tokenizers/{name}"))
    loaded = with_engine(source, engine)
    assert disagreement(loaded, engine, rows) == []


@pytest.mark.parametrize("engine", ["fastokens", "kitoken"])
@pytest.mark.parametrize("name", ["deepseek-coder", "qwen3"])
def test_engines_agree_on_any_text(name: str, engine: EngineName) -> None:
    source = name if name == "deepseek-coder" else str(realdata.asset_dir(f"tokenizers/{name}"))
    loaded = with_engine(source, engine)

    @settings(max_examples=20_000 if LONG else 300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(texts(list(loaded.special.added)))
    def agree(text: str) -> None:
        assert disagreement(loaded, engine, [text]) == []

    agree()


@pytest.mark.parametrize("name", ASSETS if LONG else [name for name in ASSETS if name not in LARGE])
def test_whatever_engine_is_chosen_is_exact(name: str) -> None:
    loaded = load(str(realdata.asset_dir(f"tokenizers/{name}")))
    loaded.choose_engine(1000)
    rows = real_texts(100)
    reference = loaded._load_reference()
    for special in (False, True):
        got, expected = loaded.encode(rows, special), reference.encode_flat(rows, special)
        assert np.array_equal(got.flat, expected.flat)
        assert np.array_equal(got.starts, expected.starts)


def test_probes_find_kitokens_gpt2_difference() -> None:
    loaded = load(str(realdata.asset_dir("tokenizers/gpt2")))
    engine = KitokenEngine(KitokenEngine.compile(loaded._model_bytes()))
    assert engine.encode_one("\t's") != loaded._load_reference().encode_one("\t's")
    assert not engines.agrees(engine, loaded._load_reference(), engines.probes(list(loaded.special.added)))
    assert loaded.choose_engine(1000) == "tokenizers"


@pytest.mark.parametrize(
    ("total", "expected"),
    [(0, "kitoken"), (12_000_000, "kitoken"), (13_000_000, "fastokens"), (10**10, "fastokens"), (None, "kitoken")],
)
def test_choice_by_size(total: int | None, expected: str) -> None:
    for engine in ("fastokens", "kitoken"):
        if engines.version(engine) is None:
            pytest.skip(f"{engine} is not installed")
    assert load("deepseek-coder").choose_engine(total) == expected


def test_an_unknown_size_changes_the_engine_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "FAST_FROM_BYTES", 1000)
    loaded = with_engine("deepseek-coder", "fastokens")
    loaded.choose_engine(None)
    first = loaded.encode(["x = 1\n" * 500])
    names = [loaded._engine.name if loaded._engine else None]
    second = loaded.encode(["x = 1\n" * 500])
    names.append(loaded._engine.name if loaded._engine else None)
    assert names == ["kitoken", "fastokens"]
    assert np.array_equal(first.flat, second.flat)


class Wrong:
    """An engine that gets one text wrong."""

    name: EngineName = "kitoken"

    def __init__(self, right: Any, text: str) -> None:
        self.right, self.text = right, text

    def encode_flat(self, rows: list[str]) -> Ids:
        ids: Ids = self.right.encode_flat(rows)
        for index, row in enumerate(rows):
            if row == self.text:
                ids.flat[ids.starts[index]] += 1
        return ids

    def encode_one(self, text: str) -> list[int]:
        return [int(number) for number in self.encode_flat([text]).flat]


def test_a_difference_on_the_way_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORADS_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tokenizer, "CHECK_ONE_IN", 1)
    loaded = with_engine("deepseek-coder", "kitoken")
    loaded._engine = Wrong(loaded._engine, "def g(): pass")
    loaded.encode(["def g(): pass"])  # too little to be worth a check
    monkeypatch.setattr(tokenizer, "CHECK_FROM_BYTES", 100)
    monkeypatch.setattr(tokenizer, "CHECK_TOGETHER", 1)
    with pytest.raises(EngineMismatch) as caught:
        loaded.encode(["y" * 200])
    assert (caught.value.engine, caught.value.excerpt) == ("kitoken", "def g(): pass")
    # From now on nobody uses it for this tokenizer, in this process or another.
    again = load("deepseek-coder")
    assert again.choose_engine(1000) == "tokenizers"
    with pytest.raises(EngineMismatch):
        again.use_engine("kitoken")


def test_the_rows_to_check_do_not_depend_on_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "CHECK_ONE_IN", 8)
    rows = [f"print({index}) # {'x' * (index % 7)}" for index in range(400)]
    chosen = []
    for size in (1, 7, 400):
        loaded = with_engine("deepseek-coder", "kitoken")
        for start in range(0, len(rows), size):
            loaded.encode(rows[start : start + size])
        chosen.append([text for text, _ in loaded._unchecked])
    assert chosen[0] == chosen[1] == chosen[2]
    assert 20 < len(chosen[0]) < 120


def test_flat_and_framed() -> None:
    ids = engines.flat([[1, 2], [], [3]])
    assert (ids.flat.tolist(), ids.starts.tolist()) == ([1, 2, 3], [0, 2, 2, 3])
    framed = engines.framed(ids, [7], [8, 9])
    assert [framed.row(row).tolist() for row in range(3)] == [[7, 1, 2, 8, 9], [7, 8, 9], [7, 3, 8, 9]]
    assert engines.flat([]).starts.tolist() == [0]
    assert engines.framed(engines.flat([]), [7], []).flat.tolist() == []


@given(
    st.lists(st.lists(st.integers(0, 99), max_size=4), max_size=5),
    st.lists(st.integers(100, 109), max_size=2),
    st.lists(st.integers(110, 119), max_size=2),
)
def test_framed_is_concatenation(rows: list[list[int]], front: list[int], behind: list[int]) -> None:
    framed = engines.framed(engines.flat(rows), front, behind)
    assert [framed.row(index).tolist() for index in range(len(rows))] == [front + row + behind for row in rows]


def test_a_post_processor_that_is_not_plain_is_left_to_the_reference(tmp_path: Path) -> None:
    model = byte_level()
    index = len(model["model"]["vocab"])
    model["post_processor"] = {"type": "RobertaProcessing", "sep": ["<|end|>", index + 1], "cls": ["<s>", index]}
    model["post_processor"] |= {"trim_offsets": False, "add_prefix_space": False}
    loaded = load(str(write(tmp_path, tokenizer=model)))
    assert loaded.encode(["hello"], add_special_tokens=True).flat.tolist()[0::2] == [index, index + 1]
    assert len(loaded.encode(["hello"]).flat) == 1


def test_bos_is_added(tmp_path: Path) -> None:
    model = byte_level()
    index = len(model["model"]["vocab"])
    folder = write(tmp_path, tokenizer=model | {"post_processor": bos_processor("<s>", index)})
    loaded = load(str(folder))
    ids = loaded.encode(["hello", ""], add_special_tokens=True)
    assert [ids.row(0)[0], ids.row(1).tolist()] == [index, [index]]
    assert index not in loaded.encode(["hello"]).flat


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_fork_after_the_thread_pool_was_used() -> None:
    loaded = with_engine("deepseek-coder", "fastokens")
    rows = ["def f(x): return x"] * 100
    expected = loaded.encode(rows).flat
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: a fork beside threads is what is tried here
        child = os.fork()
    if child == 0:
        same = np.array_equal(loaded.encode(rows).flat, expected)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(UsageError, match="is no tokenizer"):
        TokenizersEngine(b'{"model": 5}', "x.json")


@pytest.mark.parametrize("name", ["deepseek-coder", "qwen3"])
def test_decoding_is_the_references(name: str) -> None:
    loaded = load(name if name == "deepseek-coder" else str(realdata.asset_dir(f"tokenizers/{name}")))
    reference = loaded._load_reference()
    last = loaded.vocab_size - 1

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.one_of(st.integers(0, last), st.integers(max(0, last - 30), last)), max_size=20))
    def agree(numbers: list[int]) -> None:
        assert loaded.decode(numbers) == reference.decode(numbers)

    agree()
