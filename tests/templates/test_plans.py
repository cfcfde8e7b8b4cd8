"""A render put together from pieces is the full render, for any contents, or the row is rendered in full."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import realdata
from lorads.formats.conversation import Conversation
from lorads.templates import PlanMismatch, Template
from lorads.templates.plans import GENERATION_MARKS
from lorads.templates.render import RenderBatch
from template_cases import CLOCK, TOKENS, say

FOR = "{% for m in messages %}[{{ m.role }}]"
SOURCES = {
    "as it is": FOR + "{{ m.content }}{% endfor %}",
    "trim": FOR + "{{ m.content | trim }}\n{% endfor %}",
    "rstrip": FOR + " {{ m.content.rstrip() }}\n{% endfor %}",
    "lstrip newlines": FOR + "\n{{ m.content.lstrip('\\n') }}\n{% endfor %}",
    "strip of some": FOR + "{{ m.content.strip('\\n\"') }}{% endfor %}",
    "split": FOR + "{{ m.content.split('</think>')[-1] }}{% endfor %}",
    "contains": FOR + "{% if '<b>' in m.content %}bold{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "contains both": FOR + "{% if 'one' in m.content and 'two' in m.content %}!{% endif %}{{ m.content }}{% endfor %}",
    "contains a variable": "{% set mark = '/no' ~ '_think' %}" + FOR + "{% if '/no_think' in m.content %}!{% endif %}"
    "{{ m.content.replace(mark, '') }}{% endfor %}",
    "contains the end token": FOR + "{{ m.content.replace(eos_token, '') }}{% endfor %}",
    "equals": FOR + "{% if m.content == 'ping' %}pong{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "equals one of": FOR + "{% if m.content in ['ping', ''] %}pong{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "starts with": FOR + "{% if m.content.startswith('/') %}!{% endif %}{{ m.content }}{% endfor %}",
    "starts with and ends with": FOR + "{% if m.content.startswith('<r>') and m.content.endswith('</r>') %}!{% endif %}"
    "{% if '/q' in m.content %}?{% endif %}{{ m.content }}{% endfor %}",
    "first letter": FOR + "{% if m.content[0] == '/' %}!{% endif %}{{ m.content }}{% endfor %}",
    "last letters": FOR + "{% if m.content[-2:] == '??' %}!{% endif %}{{ m.content }}{% endfor %}",
    "truth": FOR + "{% if m.content %}{{ m.content }}{% else %}(none){% endif %}{% endfor %}",
    "truth when trimmed": FOR + "{% if m.content | trim %}{{ m.content }}{% else %}(none){% endif %}{% endfor %}",
    "slice": FOR + "{{ m.content[:5] }}{% endfor %}",
    "upper": FOR + "{{ m.content | upper }}{% endfor %}",
    "tojson": FOR + "{{ m.content | tojson }}{% endfor %}",
    "short": FOR + "{% if m.content | length < 3 %}short{% else %}{{ m.content }}{% endif %}{% endfor %}",
    "longer than a thousand": FOR + "{% if m.content | length > 1000 %}{{ m.content }}{% endif %}{% endfor %}",
    "longer than many": FOR + "{% if m.content | length > 20000 %}{{ m.content }}{% endif %}{% endfor %}",
    "twice": FOR + "{{ m.content }}|{{ m.content | trim }}{% endfor %}",
    "not at all": FOR + "{% endfor %}",
    "last only": "{{ messages[-1].content }}{% if add_generation_prompt %}[assistant]{% endif %}",
    "refusal": "{% if messages[0].role == 'system' %}{{ raise_exception('No system.') }}{% endif %}"
    + FOR
    + "{% endfor %}",
    "refusal of a content": FOR + "{% if 'bad' in m.content %}{{ raise_exception('Bad.') }}{% endif %}{% endfor %}",
    "generation": FOR + "{% generation %}{{ m.content | trim }}{% endgeneration %}\n{% endfor %}",
}
PIECES = [
    "</think>",
    "<b>",
    "one",
    "two",
    "/no_think",
    "</s>",
    "ping",
    "/",
    "??",
    "bad",
    '"',
    "\n",
    " ",
    "\u3000",
    "x",
    "ÄÖ日",
]

words = st.lists(st.sampled_from(PIECES), max_size=4).map("".join) | st.text(max_size=12)
roles = st.sampled_from([("user",), ("user", "assistant"), ("system", "user", "assistant"), ("odd", "user")])


def rows_of(shape: tuple[str, ...], contents: list[str]) -> list[Conversation]:
    size = len(shape)
    cut = range(0, len(contents) - size + 1, size)
    rows = [say(*zip(shape, contents[i : i + size], strict=True)) for i in cut]
    return [*rows, *[say(*((role, f"Plain words {i}.") for role in shape)) for i in range(60)]]


def assert_equal(left: RenderBatch, right: RenderBatch, *, loosely: bool = False) -> None:
    assert left.texts == right.texts
    assert left.failures == right.failures
    assert left.generation == right.generation
    if not loosely:
        assert left.lost == right.lost


def owners(batch: RenderBatch, row: int) -> list[tuple[int, int]]:
    """Which message each character belongs to, as runs; the same however the segments are cut."""
    first, last = batch.row_segments[row], batch.row_segments[row + 1]
    chars = np.repeat(batch.segment_message[first:last], batch.segment_chars[first:last])
    edges = np.flatnonzero(np.diff(chars, prepend=-9))
    return [(int(edge), int(chars[edge])) for edge in edges]


@pytest.mark.parametrize("name", SOURCES)
@given(roles, st.lists(words, min_size=1, max_size=24), st.booleans())
@settings(max_examples=25, deadline=None)
def test_pieces_and_full_renders_agree(name: str, shape: tuple[str, ...], contents: list[str], prompt: bool) -> None:
    rows = rows_of(shape, contents)
    pieced = Template(SOURCES[name], eos_token="</s>").render(rows, add_generation_prompt=prompt)
    full = Template(SOURCES[name], eos_token="</s>", plans=False).render(rows, add_generation_prompt=prompt)
    assert_equal(pieced, full)
    if name != "lstrip newlines":  # what is stripped by name and written by the template itself looks the same
        for row in range(len(rows)):
            assert owners(pieced, row) == owners(full, row)


@pytest.mark.parametrize("name", ["as it is", "trim", "rstrip", "lstrip newlines", "split", "contains", "generation"])
def test_most_rows_are_put_together_from_pieces(name: str) -> None:
    template = Template(SOURCES[name])
    rows = [say(("user", f"question {i}\n"), ("assistant", f" answer {i}")) for i in range(100)]
    renders = []
    run = template._run
    template._run = lambda context, *, fast: renders.append(1) or run(context, fast=fast)  # type: ignore[method-assign]
    template.render(rows)
    planned = len(renders)
    template.render(rows)
    assert len(renders) - planned <= 2


@pytest.mark.parametrize("name", ["upper", "slice", "tojson", "short", "longer than a thousand", "longer than many"])
def test_templates_that_change_contents_have_no_plan(name: str) -> None:
    template = Template(SOURCES[name])
    template.render([say(("user", "a question"))] * 50)
    assert not any((template._plans or {}).values())


def test_triggers_that_matter_only_together() -> None:
    """A content that starts with one thing and ends with another is rendered in full, plan or not."""
    source = SOURCES["starts with and ends with"]
    rows = [say(("user", f"plain {i}"), ("assistant", "ok")) for i in range(300)]
    rows[7] = say(("user", "<r>\na\n</r>"), ("assistant", "ok"))
    made = Template(source, special=TOKENS).render(rows).texts
    assert made[7] == Template(source, special=TOKENS, plans=False).render(rows).texts[7]
    assert made[7].startswith("[user]!<r>")


def test_a_plan_that_is_wrong_is_noticed() -> None:
    """No constant tells that the template looks for a capital at one place, so only the check of a sample can."""
    source = FOR + "{{ m.content }}{% if m.content[200:201] != m.content[200:201] | lower %}!{% endif %}{% endfor %}"
    template = Template(source)
    template.render([say(("user", f"Some words {i}")) for i in range(60)])
    assert any((template._plans or {}).values())
    with pytest.raises(PlanMismatch, match="user"):
        template.render([say(("user", "X" * (201 + i))) for i in range(2000)])


def test_a_broken_plan_is_noticed_at_its_first_row() -> None:
    template = Template(SOURCES["as it is"])
    template.render([say(("user", f"words {i}")) for i in range(60)])
    (plan,) = (template._plans or {}).values()
    assert plan is not None
    plan.pieces = ("[User]", "")
    template._checked.clear()
    with pytest.raises(PlanMismatch, match="user"):
        template.render([say(("user", "words"))])


def test_shapes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lorads.templates.template.MAX_PLANS", 3)
    template = Template(SOURCES["as it is"])
    rows = [say(*((f"role{k}", "text") for k in range(n + 1))) for n in range(10) for _ in range(50)]
    batch = template.render(rows)
    assert len(template._plans or {}) == 3
    assert batch.texts == Template(SOURCES["as it is"], plans=False).render(rows).texts


def test_an_empty_batch() -> None:
    batch = Template(SOURCES["as it is"]).render([])
    assert batch.texts == []
    assert batch.row_segments.tolist() == [0]


def test_contents_with_generation_marks() -> None:
    text = f"a{GENERATION_MARKS[0]}b{GENERATION_MARKS[1]}"
    rows = [say(("user", text)), *[say(("user", f"words {i}")) for i in range(60)]]
    batch = Template(SOURCES["generation"]).render(rows)
    assert batch.generation is not None
    assert batch.generation[0] == [(6, 6 + len(text))]


REAL = [
    "Qwen-Qwen3-0.6B", "Qwen-Qwen2.5-7B-Instruct", "deepseek-ai-DeepSeek-V3.1", "meta-llama-Llama-3.1-8B-Instruct",
    "google-gemma-2-2b-it", "mistralai-Mistral-Nemo-Instruct-2407", "microsoft-Phi-3.5-mini-instruct",
    "openai-gpt-oss-120b", "HuggingFaceTB-SmolLM3-3B", "GLM-4.6",
]  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_pieces_of_real_templates(name: str) -> None:
    source = (realdata.require("llama.cpp/templates") / f"{name}.jinja").read_text("utf-8")
    special = {**TOKENS}
    bos, eos = special.pop("bos_token"), special.pop("eos_token")

    def template(plans: bool) -> Template:
        return Template(source, bos_token=bos, eos_token=eos, special=special, clock=lambda: CLOCK, plans=plans)

    pieced, full = template(True), template(False)
    literals = st.sampled_from([*pieced.verdict.contains, *pieced.verdict.equals, "\n", " ", "\u3000", ""])
    some = st.lists(literals | st.text(max_size=6), max_size=4).map("".join)

    @given(roles, st.lists(some, min_size=1, max_size=24), st.booleans())
    @settings(max_examples=15, deadline=None, database=None)
    def check(shape: tuple[str, ...], contents: list[str], prompt: bool) -> None:
        rows = rows_of(shape, contents)
        left = pieced.render(rows, add_generation_prompt=prompt)
        assert_equal(left, full.render(rows, add_generation_prompt=prompt), loosely=True)

    check()
