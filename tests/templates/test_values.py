"""What a template gets to see."""

from __future__ import annotations

import datetime
import enum
from typing import Any

import numpy as np
import pytest

from lorads.templates import Template
from lorads.templates.values import FrozenDict, FrozenList, plain, with_reasoning_aliases
from template_cases import conversation, say


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        ({"a": (1, [2.5, None])}, {"a": [1, [2.5, None]]}),
        (Colour.RED, "red"),
        (np.int64(3), 3),
        (np.bool_(False), False),
        (np.zeros(2), "<ndarray>"),
        (datetime.date(2026, 1, 1), "<date>"),
        (b"bytes", "<bytes>"),
    ],
)
def test_everything_becomes_plain_data(value: Any, seen: Any) -> None:
    assert plain(value) == seen
    assert type(plain(value)) in (str, int, float, bool, FrozenDict, FrozenList)


def test_reasoning_under_all_its_names() -> None:
    assert with_reasoning_aliases({"reasoning": "r"}) == {"reasoning": "r", "thinking": "r", "reasoning_content": "r"}
    assert with_reasoning_aliases({"thinking": "t"}) == {"thinking": "t", "reasoning_content": "t"}
    both = {"reasoning_content": "c", "thinking": "t"}
    assert with_reasoning_aliases(both) == both
    assert with_reasoning_aliases({"role": "user"}) == {"role": "user"}


def test_none_is_missing_tokens_that_are_empty_too_and_arguments_go_on_top() -> None:
    source = (
        "{{ messages[0].content is defined }}{{ bos_token is defined }}{{ eos_token }}{{ pad_token }}"
        "{{ tools is none }}{{ documents is none }}{{ add_generation_prompt }}{{ thinking_budget }}"
    )
    template = Template(source, eos_token="</s>", special={"pad_token": "<pad>", "unk_token": ""})
    row = conversation([{"role": "user", "content": None}], None, {"pad_token": "<other>", "thinking_budget": 3})
    assert template.render([row], add_generation_prompt=True).texts == ["FalseFalse</s><other>TrueTrueTrue3"]


def test_one_time_for_all_rows() -> None:
    template = Template("{{ strftime_now('%Y-%m-%d %H:%M:%S.%f') }}", plans=False)
    assert len(set(template.render([say(("user", "x"))] * 3).texts)) == 1
    fixed = Template("{{ strftime_now('%H:%M') }}", clock=lambda: datetime.datetime(2020, 1, 2, 3, 4))
    assert fixed.render([say(("user", "x"))]).texts == ["03:04"]
