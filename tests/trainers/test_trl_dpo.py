"""DPOTrainer: where the prompt ends, and what is dropped."""

from __future__ import annotations

from typing import Any

import pytest

from lorads.engine.chain import Chain
from lorads.engine.settings import Settings
from lorads.sources import Records


def label(*rows: dict[str, Any], answer: str = "chosen", **options: Any) -> tuple[Chain, Any]:
    own = {"answer": answer, **options.pop("own", {})}
    chain = Chain(Settings("deepseek-coder", format="preference", trainer="trl-dpo", trainer_options=own, **options))
    count = len(rows)
    batch = chain.label(Records(list(rows), list(range(count)), [0] * count, [0] * count, count), "preference")
    return chain, batch.labels


def counted(chain: Chain, batch: Any) -> str:
    return chain.tokenizer.decode([token for token, label in zip(*batch.fed(0), strict=True) if label != -100])


@pytest.mark.parametrize(
    ("row", "chosen", "rejected"),
    [
        ({"prompt": "Q: a\n", "chosen": "yes", "rejected": "no"}, "yes<|EOT|>", "no<|EOT|>"),
        ({"chosen": "Q: a b", "rejected": "Q: a c"}, " b<|EOT|>", " c<|EOT|>"),
        ({"chosen": "same", "rejected": "same"}, "same<|EOT|>", "same<|EOT|>"),
        ({"chosen": "b", "rejected": "c"}, "b<|EOT|>", "c<|EOT|>"),
    ],
)
def test_texts(row: dict[str, str], chosen: str, rejected: str) -> None:
    assert counted(*label(row)).endswith(chosen)
    assert counted(*label(row, answer="rejected")).endswith(rejected)


def test_the_shorter_prefix_of_both_sequences_counts() -> None:
    merging = {"prompt": "a lo", "chosen": " x", "rejected": "ng"}
    chain, batch = label(merging)
    alone, other = label({**merging, "rejected": " y"})
    assert len(counted(chain, batch)) > len(counted(alone, other))


def test_a_prompt_that_fills_the_length_is_dropped() -> None:
    row = {"prompt": "word " * 20, "chosen": " a", "rejected": " b"}
    _, batch = label(row, max_length=8)
    assert list(batch.dropped) == [0]
    _, batch = label(row, max_length=8, own={"truncation_mode": "keep_end"})
    assert not batch.dropped
    assert len(batch.fed(0)[0]) == 8


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "a", "chosen": "b", "rejected": [{"role": "user", "content": "c"}]},
        {
            "prompt": "a",
            "chosen": [{"role": "assistant", "content": "b"}],
            "rejected": [{"role": "user", "content": "c"}],
        },
        {"chosen": "", "rejected": "b"},
    ],
)
def test_rows_at_which_it_stops(row: dict[str, Any]) -> None:
    _, batch = label(row)
    assert 0 in batch.failures
