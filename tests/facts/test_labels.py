"""Facts about labels, counted again token by token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorads.engine.chain import Chain
from lorads.engine.settings import Settings
from lorads.facts.compute import facts_of
from lorads.facts.hashes import sequence_hash
from lorads.facts.labels import Count
from lorads.sources import Records
from lorads.tokenizers import Ids

text = st.text(st.sampled_from("ab é世\n<|"), max_size=12) | st.just("<|EOT|>") | st.just("word " * 20)
message = st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": text})
chats = st.fixed_dictionaries({"messages": st.lists(message, min_size=1, max_size=4)})
pairs = st.fixed_dictionaries({"prompt": text, "completion": text})
texts = st.fixed_dictionaries({"text": text})


@pytest.fixture(scope="module")
def chains() -> dict[tuple[str, int | None], Chain]:
    return {
        (name, limit): Chain(Settings("deepseek-coder", format=name, max_length=limit))
        for name in ("messages", "prompt-completion", "text")
        for limit in (None, 20)
    }


def records(rows: list[Any]) -> Records:
    return Records(rows, list(range(len(rows))), list(range(len(rows))), [1] * len(rows), len(rows))


@pytest.mark.parametrize("limit", [None, 20])
@pytest.mark.parametrize(("name", "rows"), [("messages", chats), ("prompt-completion", pairs), ("text", texts)])
def test_counts(chains: Any, name: str, rows: st.SearchStrategy[Any], limit: int | None) -> None:
    chain = chains[name, limit]
    special = chain.tokenizer.special

    @settings(max_examples=60, deadline=None)
    @given(st.lists(rows, min_size=1, max_size=5))
    def check(given_rows: list[Any]) -> None:
        batch = chain.label(records(given_rows), name)
        facts = facts_of(batch, chain.context)
        assert facts["row"].to_list() == list(range(len(given_rows)))
        for i, fact in enumerate(facts.to_dicts()):
            ids = batch.labels.ids.row(i).tolist()
            whole = slice(int(batch.labels.ids.starts[i]), int(batch.labels.ids.starts[i + 1]))
            trained = batch.labels.trained[whole].tolist()
            fed = batch.labels.fed(i)
            assert fact["tokens"] == len(ids)
            assert fact["label_tokens"] == sum(trained[1:])
            assert fact["max_token_id"] == max(ids, default=0)
            assert (fact["dropped"] is None) == (fed is not None)
            kept = [] if fed is None else fed[0]
            assert fact["tokens_fed"] == len(kept)
            assert fact["label_tokens_fed"] == (0 if fed is None else sum(label != -100 for label in fed[1][1:]))
            assert fact["cut"] == (limit is not None and len(ids) > limit)
            leading = 0
            while leading < min(len(ids), 2) and ids[leading] == special.bos_id:
                leading += 1
            assert fact["bos_count"] == leading
            assert 0 <= fact["answer_tokens_fed"] <= fact["answer_tokens"] <= len(ids)

    check()


def test_answers_and_their_ends() -> None:
    chain = Chain(Settings("deepseek-coder", format="messages", max_length=None))
    user, answer = {"role": "user", "content": "one and one?"}, {"role": "assistant", "content": "that is two"}
    facts = facts_of(
        chain.label(records([{"messages": [user, answer]}, {"messages": [user]}]), "messages"), chain.context
    )
    count = len(chain.tokenizer.encode(["that is two"]).flat)
    assert facts["answers"].to_list() == [1, 0]
    assert facts["answer_tokens"].to_list() == [count, 0]
    assert facts["terminated"].to_list() == [True, None]


def test_a_template_that_ends_no_turn(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{% for m in messages %}{{ m.content }}\n{% endfor %}", encoding="utf-8")
    chain = Chain(Settings("deepseek-coder", chat_template=str(template), format="messages"))
    row = {"messages": [{"role": "user", "content": "one?"}, {"role": "assistant", "content": "two"}]}
    facts = facts_of(chain.label(records([row]), "messages"), chain.context)
    assert facts["terminated"].to_list() == [False]
    assert chain.tokenizer.token_text(facts["last_answer_token"].item()) == "\n"


@given(st.lists(st.booleans(), max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=5))
def test_count(flags: list[bool], asked: list[tuple[int, int]]) -> None:
    spans = [(min(a, b, len(flags)), min(max(a, b), len(flags))) for a, b in asked]
    count = Count(np.array(flags, np.bool_))
    begin, end = np.array([a for a, _ in spans], np.int64), np.array([b for _, b in spans], np.int64)
    assert count.between(begin, end).tolist() == [sum(flags[a:b]) for a, b in spans]


rows_of_ids = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=8)


@given(rows_of_ids, st.integers(1, 8))
def test_hashes_do_not_depend_on_the_batch(rows: list[list[int]], at_once: int) -> None:
    def hashes(part: list[list[int]], trained: list[list[bool]]) -> list[int]:
        starts = np.cumsum([0, *map(len, part)]).astype(np.int64)
        flags = np.array([flag for row in trained for flag in row], np.bool_)
        ids = Ids(np.array([i for row in part for i in row], np.int32), starts)
        found: list[int] = sequence_hash(ids, flags, bool(flags.all())).tolist()
        return found

    every = [[True] * len(row) for row in rows]
    some = [[i % 2 == 0 for i in row] for row in rows]
    for trained in (every, some):
        alone = [hashes([row], [flags])[0] for row, flags in zip(rows, trained, strict=True)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("lorads.facts.hashes._TOKENS_AT_ONCE", at_once)
            assert hashes(rows, trained) == alone
    different = {(tuple(row), tuple(flags)) for row, flags in zip(rows + rows, every + some, strict=True)}
    assert len(set(hashes(rows, every) + hashes(rows, some))) == len(different)
