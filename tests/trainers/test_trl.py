"""What the recordings of the real library do not cover: refusals, and the consequences of packing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorads.engine.chain import Chain
from lorads.engine.settings import Settings
from lorads.errors import UsageError
from lorads.sources import Records

LONG = {"prompt": "word " * 100, "completion": " yes"}
SHORT = {"prompt": "one and one?", "completion": " two"}


def labelled(*rows: dict[str, Any], **options: Any) -> Any:
    chain = Chain(Settings("deepseek-coder", format="prompt-completion", **options))
    count = len(rows)
    return chain.label(
        Records(list(rows), list(range(count)), [0] * count, [0] * count, count), "prompt-completion"
    ).labels


def test_a_row_whose_answer_is_cut_away_is_dropped() -> None:
    labels = labelled(LONG, SHORT, max_length=16)
    assert list(labels.dropped) == [0]
    assert labels.fed(0) is None


def test_packing_drops_nothing_and_masks_the_first_label() -> None:
    labels = labelled(LONG, SHORT, max_length=16, packing=True)
    assert not labels.dropped
    ids, trained = labels.fed(0)
    assert len(ids) == 16
    assert set(trained) == {-100}
    everything = labelled(SHORT, max_length=16, packing=True, train_on="all")
    ids, trained = everything.fed(0)
    assert trained == [-100, *ids[1:]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_on": "last"}, "last answer"),
        ({"train_on": "assistant"}, "generation"),
        ({"packing": True, "max_length": None}, "maximum length"),
    ],
)
def test_refused_before_a_row_is_read(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        labelled(SHORT, **options)


def test_assistant_only_stops_at_a_row_without_an_answer(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|EOT|>{% endgeneration %}"
        "{% else %}{{ m.content }}\n{% endif %}{% endfor %}",
        encoding="utf-8",
    )
    chain = Chain(Settings("deepseek-coder", format="messages", train_on="assistant", chat_template=str(template)))
    user, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    rows = [{"messages": [user, answer]}, {"messages": [user]}]
    labels = chain.label(Records(rows, [0, 1], [0, 0], [0, 0], 2), "messages").labels
    assert list(labels.failures) == [1]
    assert labels.fed(0)[1].count(-100) == len(labels.fed(0)[0]) - 2


def test_a_row_with_a_template_of_its_own_is_no_row_for_lorads() -> None:
    chain = Chain(Settings("deepseek-coder", format="messages"))
    row = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "chat_template_kwargs": {"chat_template": "x"},
    }
    labels = chain.label(Records([row], [0], [0], [0], 1), "messages").labels
    assert "its own chat_template" in labels.failures[0].message
