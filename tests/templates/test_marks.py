"""Where contents stand in a render, and what is not in it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lorads.formats.conversation import Conversation
from lorads.templates import Template
from lorads.templates.render import (
    PART_CONTENT,
    PART_NONE,
    PART_REASONING,
    PART_TOOL_CALL,
    SCAFFOLD,
    TOOLS,
    Lost,
)
from template_cases import content, conversation, say, segments

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
TRIMMED = "{% for m in messages %}[{{ m.role }}]\n{{ m.content | trim }}\n{% endfor %}"
LEFT = "{% for m in messages %}[{{ m.role }}]\n{{ m.content.lstrip('\\n') }}\n{% endfor %}"
THINKING = """{% for m in messages %}[{{ m.role }}]
{% if m.role == 'assistant' and '</think>' in m.content %}
{% if loop.last %}<think>
{{ m.content.split('</think>')[0].split('<think>')[-1].strip('\\n') }}
</think>

{% endif %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}
{% else %}{{ m.content }}
{% endif %}{% endfor %}"""
QUOTED = "{% for m in messages %}{{ m | tojson }}{% endfor %}"
LENGTH = "{% for m in messages %}{{ m.content | length }}:{{ m.content }}.{% endfor %}"
FIRST_LETTER = "{% for m in messages %}{{ m.content[0] | upper }}{{ m.content[1:] }} {% endfor %}"
TWICE = "{% for m in messages %}{{ m.content }}/{{ m.content }};{% endfor %}"
SWAPPED = "{% for m in messages | reverse %}{{ m.content }};{% endfor %}"
ONLY_KNOWN = "{% for m in messages if m.role in ['user', 'assistant'] %}{{ m.content }};{% endfor %}"
STRIPPED_TAGS = "{% for m in messages %}{{ m.content.replace('<b>', '') }};{% endfor %}"

texts = st.text(st.sampled_from('ab \n\t"\\<>&é日\u3000\x85') | st.characters(exclude_categories=["Cs"]), max_size=20)
contents = st.lists(
    texts | st.sampled_from(["<think>\nx\n</think>\n\ny", "</think>", "<b>", ""]), min_size=1, max_size=5
)


def rendered(source: str, row: Conversation) -> list[tuple[int, int, str]]:
    return segments(Template(source).render([row]), 0)


@pytest.mark.parametrize("source", [CHATML, TRIMMED, LEFT, TWICE, SWAPPED])
@given(contents)
@settings(max_examples=60, deadline=None)
def test_cutting_a_render_gives_back_the_contents(source: str, given_contents: list[str]) -> None:
    """Exactly where nothing is trimmed, but for edge white space elsewhere; and the rest is scaffold."""
    row = say(*(("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(given_contents)))
    batch = Template(source, plans=False).render([row])
    assert not batch.lost
    for number, text in enumerate(given_contents):
        got = content(batch, 0, number)
        if source == CHATML:
            assert got == (text if text.strip() else "")
        elif source == TWICE:
            assert got == (text * 2 if text.strip() else "")
        elif source == SWAPPED:
            assert got == (text if text.strip() else "")
        else:
            assert got.strip() == text.strip()


@given(st.lists(texts, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_positions_of_trimmed_contents_are_exact(given_contents: list[str]) -> None:
    row = say(*(("user", text) for text in given_contents))
    batch = Template(TRIMMED, plans=False).render([row])
    expected = [(i, PART_CONTENT, text.strip()) for i, text in enumerate(given_contents) if text.strip()]
    assert [segment for segment in segments(batch, 0) if segment[0] != SCAFFOLD] == expected


def test_scaffold_and_contents() -> None:
    assert rendered(CHATML, say(("user", "hi\n"), ("assistant", "hello"))) == [
        (SCAFFOLD, PART_NONE, "<|im_start|>user\n"),
        (0, PART_CONTENT, "hi\n"),
        (SCAFFOLD, PART_NONE, "<|im_end|>\n<|im_start|>assistant\n"),
        (1, PART_CONTENT, "hello"),
        (SCAFFOLD, PART_NONE, "<|im_end|>\n"),
    ]


def test_thinking_that_is_kept_and_thinking_that_is_dropped() -> None:
    answer = "<think>\nbecause\n</think>\n\nfour"
    row = say(("user", "2+2"), ("assistant", answer), ("user", "again"), ("assistant", answer))
    batch = Template(THINKING).render([row])
    assert content(batch, 0, 1) == "four"
    assert content(batch, 0, 3) == answer
    assert batch.lost == {0: (Lost(1, PART_CONTENT, "<think>\nbecause\n</think>"),)}


def test_texts_in_json() -> None:
    row = say(("user", 'a "quoted"\nline'), ("assistant", "é"))
    batch = Template(QUOTED).render([row])
    assert content(batch, 0, 0) == 'a \\"quoted\\"\\nline'
    assert content(batch, 0, 1) == "é"
    assert not batch.lost


@pytest.mark.parametrize("source", [LENGTH, FIRST_LETTER])
def test_templates_that_look_into_texts_are_searched(source: str) -> None:
    batch = Template(source).render([say(("user", "Some question"), ("assistant", "An answer"))] * 20)
    assert [content(batch, 19, i) for i in (0, 1)] == ["Some question", "An answer"]
    assert not batch.lost


def test_what_a_template_ignores_is_lost_as_a_whole() -> None:
    row = say(("system", " be kind "), ("user", "hi"), ("assistant", "hello"))
    for rows in (1, 40):
        batch = Template(ONLY_KNOWN).render([row] * rows)
        assert batch.lost[rows - 1] == (Lost(0, PART_CONTENT, "be kind", whole_message=True),)


def test_what_a_template_takes_out_is_lost() -> None:
    batch = Template(STRIPPED_TAGS).render([say(("user", "one <b> two"))])
    assert batch.texts == ["one  two;"]
    assert batch.lost == {0: (Lost(0, PART_CONTENT, "<b>"),)}


CALL: dict[str, Any] = {
    "role": "assistant",
    "content": "I look.",
    "reasoning_content": "It needs a look.",
    "tool_calls": [{"type": "function", "function": {"name": "find", "arguments": {"what": 'the "x"', "n": 3}}}],
}
TOOL = {"type": "function", "function": {"name": "find", "description": "Finds it.", "parameters": {}}}
WITH_TOOLS = """{% for t in tools or [] %}{{ t | tojson }}
{% endfor %}{% for m in messages %}[{{ m.role }}]{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}
{{ m.content }}{% for c in m.tool_calls or [] %}<{{ c.function.name }} {{ c.function.arguments | tojson }}>{% endfor %}
{% endfor %}"""


def test_tools_calls_and_reasoning() -> None:
    row = conversation([{"role": "user", "content": "find"}, CALL, {"role": "tool", "content": "42"}], tools=[TOOL])
    batch = Template(WITH_TOOLS).render([row])
    assert not batch.lost
    assert content(batch, 0, TOOLS, PART_NONE) == 'find", "description": "Finds it.'
    assert content(batch, 0, 0) == "find"
    assert content(batch, 0, 1) == "I look."
    assert content(batch, 0, 1, PART_REASONING) == "It needs a look."
    assert content(batch, 0, 1, PART_TOOL_CALL) == 'find {"what": "the \\"x\\"", "n": 3}'
    assert content(batch, 0, 2) == "42"


def test_what_of_a_call_is_lost() -> None:
    row = conversation([{"role": "user", "content": "q"}, CALL], tools=[TOOL])
    lost = Template(CHATML).render([row]).lost[0]
    assert [(one.message, one.part, one.excerpt, one.whole_message) for one in lost] == [
        (TOOLS, PART_NONE, "find", True),
        (1, PART_REASONING, "It needs a look.", False),
        (1, PART_TOOL_CALL, "find", False),
        (1, PART_TOOL_CALL, 'the "x"', False),
    ]


def test_arguments_given_as_text_and_quoted_once_more() -> None:
    call = {"function": {"name": "find", "arguments": '{"what": "x"}'}}
    row = conversation([{"role": "assistant", "content": "", "tool_calls": [call]}])
    batch = Template(WITH_TOOLS).render([row])
    assert content(batch, 0, 0, PART_TOOL_CALL) == 'find "{\\"what\\": \\"x\\"}'
    assert not batch.lost


def test_parts() -> None:
    source = "{% for m in messages %}{% for p in m.content %}{{ p.type }}={{ p.text }};{% endfor %}{% endfor %}"
    parts = [{"type": "text", "text": " one"}, {"type": "text", "text": "two"}]
    batch = Template(source).render([conversation([{"role": "user", "content": parts}])])
    assert batch.texts == ["text= one;text=two;"]
    assert content(batch, 0, 0) == " onetwo"


def test_rows_that_hold_the_private_characters() -> None:
    row = say(("user", "a\U00100000b\U000f0001"), ("assistant", " \u205f x"))
    batch = Template(CHATML).render([row])
    assert [content(batch, 0, i) for i in (0, 1)] == row.contents


def test_prompt_only_takes_the_first_messages() -> None:
    row = say(("user", "q"), ("assistant", "a"))
    row.prompt_messages = 1
    batch = Template(CHATML).render([row] * 20, prompt_only=True)
    assert set(batch.texts) == {"<|im_start|>user\nq<|im_end|>\n"}


def test_failures_keep_their_rows_empty() -> None:
    source = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('No system.') }}{% endif %}{% endfor %}x"
    )
    rows = [say(("user", "a")), say(("system", "b")), conversation([{"role": "system", "content": 1}])]
    for repeat in (1, 20):
        batch = Template(source).render(rows * repeat)
        assert batch.texts[:3] == ["x", "", ""]
        assert {(failure.kind, failure.message) for failure in batch.failures.values()} == {("raised", "No system.")}
        assert len(batch.row_segments) == 3 * repeat + 1
        assert batch.row_segments[2] == batch.row_segments[1]


@pytest.mark.parametrize("bad", [{"messages": ["text"]}, {"tools": ["text"]}])
def test_messages_and_tools_that_are_no_objects(bad: dict[str, Any]) -> None:
    row = conversation(bad.get("messages", [{"role": "user", "content": "x"}]), bad.get("tools", []))
    assert Template(CHATML).render([row]).failures[0].kind == "error"


def test_a_text_of_private_characters_leaves_others_to_mark_with() -> None:
    text = "\U000f0000\U00100000\U00104000"
    batch = Template(TWICE, plans=False).render([say(("user", text))])
    assert content(batch, 0, 0) == text * 2
