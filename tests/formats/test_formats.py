from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lorads.errors import UsageError
from lorads.formats import Columns, Conversation, Misfit, formats, normalise, recognise
from lorads.formats.base import DEFAULT_COLUMNS

CASES = yaml.safe_load(Path(__file__).with_name("cases.yaml").read_text(encoding="utf-8"))


def one(row: Any, format_name: str) -> Conversation | Misfit:
    return normalise([row], format_name, Columns())[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_case(case: dict[str, Any]) -> None:
    made = one(case["row"], case["format"])
    want = dict(case["want"])
    if "misfit" in want:
        assert isinstance(made, Misfit)
        assert made.problem.code == want["misfit"]
        assert made.problem.message
        assert made.problem.hint
        return
    assert isinstance(made, Conversation), made
    problems = [
        f"{p.rule}/{p.code}" + ("" if p.message_index is None else f"@{p.message_index}") for p in made.problems
    ]
    found = {
        "roles": list(made.roles or ()),
        "roles_all": [message.get("role") for message in made.messages],
        "plain": made.roles is not None,
        "contents": [message.get("content") for message in made.messages],
        "problems": problems,
        "train": made.train,
        "tools": len(made.tools or ()),
        "calls": {i: len(m["tool_calls"]) for i, m in enumerate(made.messages) if m.get("tool_calls")},
        "tool_names": [tool["function"]["name"] for tool in made.tools or () if "function" in tool],
        "text": made.text,
        "completion": made.completion,
        "prompt_messages": made.prompt_messages,
        "ids": made.input_ids,
        "labels": made.labels,
        "masks": made.masks,
    }
    assert {key: found[key] for key in want} == want


@pytest.mark.parametrize(
    "case", [c for c in CASES if c.get("recognised", "misfit" not in c["want"])], ids=lambda case: case["name"]
)
def test_recognised(case: dict[str, Any]) -> None:
    assert recognise([case["row"]], "data.jsonl", Columns()).format == case["format"]


def test_majority_decides_and_others_are_counted() -> None:
    rows = [{"messages": [{"role": "user", "content": "a"}]}] * 3 + [{"text": "x"}]
    found = recognise(rows, "data.jsonl", Columns())
    assert found.format == "messages"
    assert found.others == {"text": 1}
    assert "3 of 4" in found.evidence


def test_unknown_columns_are_told_with_a_way_out() -> None:
    with pytest.raises(UsageError) as caught:
        recognise([{"puzzle": "a", "solution": "b"}], "data.jsonl", Columns())
    assert "puzzle, solution" in caught.value.message
    assert "[columns]" in caught.value.hint


def test_columns_can_be_named() -> None:
    columns = Columns({"prompt": "puzzle", "completion": "solution"})
    row = {"puzzle": "how many?", "solution": "select count(*)"}
    assert recognise([row], "data.jsonl", columns).format == "prompt-completion"
    made = normalise([row], "prompt-completion", columns)[0]
    assert isinstance(made, Conversation)
    assert (made.text, made.completion) == ("how many?", "select count(*)")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
columns = st.sampled_from([*DEFAULT_COLUMNS, "completion_mask", "response"])
messages = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "role": st.sampled_from(["user", "assistant", "tool"]) | json_values,
            "content": json_values,
            "weight": json_values,
        },
    )
)
rows = st.dictionaries(columns, messages | json_values, max_size=5)


@given(row=rows | json_values, name=st.sampled_from(sorted(formats())))
def test_nothing_that_is_json_breaks_a_format(row: Any, name: str) -> None:
    made = one(row, name)
    if isinstance(made, Conversation) and made.roles is not None:
        assert made.contents is not None
        assert all(isinstance(content, str) for content in made.contents)
        assert len(made.roles) == len(made.contents) == len(made.messages)
