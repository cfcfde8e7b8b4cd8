"""The plain collators of transformers: pad, truncation, and the labels that rows bring."""

from __future__ import annotations

from typing import Any

import pytest

from lorads.engine.chain import Chain
from lorads.engine.settings import Settings
from lorads.sources import Records

IM = {"role": "user", "content": "hi"}
YO = {"role": "assistant", "content": "yo"}


def label(format_name: str, *rows: dict[str, Any], **options: Any) -> tuple[Chain, Any]:
    chain = Chain(Settings("deepseek-coder", format=format_name, trainer="transformers", **options))
    count = len(rows)
    batch = chain.label(Records(list(rows), list(range(count)), [0] * count, [0] * count, count), format_name)
    return chain, batch.labels


def test_what_is_the_pad_token_is_masked() -> None:
    pad = "<｜end▁of▁sentence｜>"
    chain, batch = label("text", {"text": f"a{pad}b<|EOT|>"})
    ids, labels = batch.fed(0)
    assert labels == [-100 if token == chain.tokenizer.id_of(pad) else token for token in ids]
    assert labels[-1] == chain.tokenizer.id_of("<|EOT|>")
    assert not chain.labeller.notes


def test_pad_is_eos() -> None:
    chain, batch = label("messages", {"messages": [IM, YO]}, trainer_options={"pad_token": "<|EOT|>"})
    ids, labels = batch.fed(0)
    assert labels == [-100 if token == chain.tokenizer.id_of("<|EOT|>") else token for token in ids]
    assert "masks every EOS" in chain.labeller.notes[0]


def test_seq2seq_masks_nothing() -> None:
    options = {"trainer_options": {"collator": "seq2seq", "pad_token": "<|EOT|>"}}
    _, batch = label("text", {"text": "a<|EOT|>"}, **options)
    assert -100 not in batch.fed(0)[1]


@pytest.mark.parametrize(("collator", "labels"), [("language-modeling", [5, 6, 7]), ("seq2seq", [-100, 9, 7])])
def test_labels_that_the_rows_bring(collator: str, labels: list[int]) -> None:
    row = {"input_ids": [5, 6, 7], "labels": [-100, 9, 7]}
    _, batch = label("tokenized", row, trainer_options={"collator": collator})
    assert batch.fed(0) == ([5, 6, 7], labels)


def test_seq2seq_needs_labels() -> None:
    _, batch = label("tokenized", {"input_ids": [5]}, trainer_options={"collator": "seq2seq"})
    assert "no labels" in batch.failures[0].message
    _, batch = label("tokenized", {"input_ids": [5]})
    assert batch.fed(0) == ([5], [5])


@pytest.mark.parametrize(("side", "around", "kept"), [
    ("right", (0, 0), "aabbbbb"), ("left", (0, 0), "bbbbbcc"), ("right", (1, 0), "aabbbbb"),
    ("left", (1, 0), "abbbbcc"), ("right", (1, 1), "aabbbbc"), ("left", (1, 1), "abbbbcc"),
])  # fmt: skip
def test_truncation_leaves_what_the_tokenizer_adds(side: str, around: tuple[int, int], kept: str) -> None:
    chain, batch = label("text", {"text": " x" * 9}, max_length=7)
    chain.tokenizer.truncation_side, chain.tokenizer.added_around = side, around
    batch.kept[:] = True
    chain.labeller._cut(batch, special=True)  # type: ignore[attr-defined]
    letters = "aabbbbbcc"
    assert "".join(letter for letter, keep in zip(letters, batch.kept, strict=True) if keep) == kept


def test_nothing_is_dropped() -> None:
    _, batch = label("text", {"text": ""}, {"text": "a b c"}, max_length=2)
    assert not batch.dropped
    assert [len(batch.fed(row)[0]) for row in (0, 1)] == [0, 2]
