"""What is said of a trainer that masks otherwise; the answers are lorads' own labels, changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lorads.doctor.compare import Comparison, Reference
from lorads.doctor.rows import training_rows
from lorads.doctor.trained import _expected, compare_trl
from lorads.templates import Template
from lorads.tokenizers import load

Row = dict[str, Any]


@pytest.fixture(scope="module")
def reference() -> Reference:
    tokenizer = load("deepseek-coder")
    assert tokenizer.chat_template is not None
    template = Template(tokenizer.chat_template, bos_token="<s>", eos_token="<|EOT|>")
    return Reference(tokenizer, load("deepseek-coder", load_as="file"), template, "transformers", True)


def compared(reference: Reference, change: Callable[[str, list[Row]], Any]) -> Comparison:
    kinds = training_rows("User: hello\n")
    answer: Row = {"version": "1.16.0", "kinds": {}}
    for kind, rows in kinds.items():
        own = _expected(reference, kind, rows)
        assert own is not None
        made = [{"ids": ids, "labels": labels} for ids, labels in own]
        answer["kinds"][kind] = change(kind, made) or {"rows": made}
    out = Comparison("TRL", [])
    compare_trl(out, answer, reference, kinds)
    return out


def test_a_trainer_that_does_as_lorads_says(reference: Reference) -> None:
    out = compared(reference, lambda kind, rows: None)
    assert out.troubles == []
    assert out.measured["trained_rows"] == 12
    assert "text, prompt-completion, messages, prompt-completion-messages" in out.same[0]


def test_the_prompt_is_trained(reference: Reference) -> None:
    def all_but_two(kind: str, rows: list[Row]) -> None:
        if kind == "prompt-completion-messages":
            for row in rows:
                row["labels"] = [-100, -100, *row["ids"][2:]]

    (trouble,) = compared(reference, all_but_two).troubles
    assert (trouble.code, trouble.severity.value) == ("prompt-trained", "error")
    assert "Which planet" in dict(trouble.example)["prompt, trained"]
    assert "Which planet" not in dict(trouble.example)["to be trained"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda row: row["labels"].__setitem__(-1, -100), "labels-differ"),
        (lambda row: (row["ids"].append(5), row["labels"].append(5)), "row-ids-differ"),
    ],
)
def test_smaller_differences(reference: Reference, change: Callable[[Row], Any], code: str) -> None:
    out = compared(reference, lambda kind, rows: change(rows[0]) and None if kind == "text" else None)
    assert [trouble.code for trouble in out.troubles] == [code]
    assert out.troubles[0].severity.value == "warning"


def test_rows_that_are_gone_and_a_trainer_that_stops(reference: Reference) -> None:
    error = {"error": {"type": "TypeError", "message": "cannot\ndo", "place": "a.py:1"}}
    out = compared(
        reference, lambda kind, rows: {"rows": rows[1:]} if kind == "text" else error if kind == "messages" else None
    )
    assert {trouble.code for trouble in out.troubles} == {"rows-dropped", "trainer-fails"}
