"""``{% generation %}`` blocks become two outputs and a scope; everything else of a template stays as it is."""

from __future__ import annotations

import pytest

from lorads.templates import Template
from lorads.templates.generation import rewrite
from template_cases import reference, say

UNTOUCHED = [
    "{{ add_generation_prompt }}",
    "{# {% generation %} #}x",
    "{% raw %}{% generation %}{% endraw %}",
    "{{ '{% generation %}' }}",
    "{% set x = '{% endgeneration %}' %}{{ x }}",
    "{{ {'a': {'b': '}}'}} }}",
    "{{ open",
]


@pytest.mark.parametrize("source", UNTOUCHED)
def test_what_is_no_tag_is_left_alone(source: str) -> None:
    assert rewrite(source) == (source, False)


BODIES = [
    "{% generation %}{{ m.content }}{% endgeneration %}",
    "{%- generation -%}  {{ m.content }}  {%- endgeneration -%}",
    "a\n  {% generation %}\n  {{ m.content }}\n  {% endgeneration %}\n  b\n",
    "a  {%- generation %}\n\n  {{ m.content }}\n\n  {%- endgeneration %}\n\n  b",
    "a\n  {%+ generation %}\n  {{ m.content }}\n{%+ endgeneration %}\n b",
    "a\n{% generation -%}\n  {{ m.content }}\n{% endgeneration -%}\n b",
    "{% set x = 1 %}{% generation %}{% set x = 2 %}{{ m.content ~ x }}{% endgeneration %}{{ x }}",
    "{% generation %}{% if loop.last %}{{ m.content }}{% endif %}{% endgeneration %}{{ '{% generation %}' }}",
]


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("plans", [False, True])
def test_the_render_is_that_of_a_block_and_the_spans_hold_its_output(body: str, plans: bool) -> None:
    source = "{% for m in messages %}{% if m.role == 'assistant' %}" + body + "{% endif %}{% endfor %}."
    row = say(("user", "question"), ("assistant", "answer"))
    template = Template(source, plans=plans)
    batch = template.render([row] * 20)
    assert batch.texts[-1] == reference(source).render(messages=row.messages)
    assert template.has_generation_markers
    assert batch.generation is not None
    (span,) = batch.generation[19]
    inside = batch.texts[19][span[0] : span[1]]
    assert "answer" in inside
    assert "." not in inside


def test_templates_without_blocks_have_no_spans() -> None:
    template = Template("{% for m in messages %}{{ m.content }}{% endfor %}{{ add_generation_prompt }}")
    assert not template.has_generation_markers
    assert template.render([say(("user", "x"))]).generation is None


def test_a_block_without_output_and_rows_with_the_markers_own_characters() -> None:
    template = Template("{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}|{% endfor %}")
    batch = template.render([say(("user", ""), ("assistant", "\U000ffff0b\U000ffff1"))])
    assert batch.texts == ["|\U000ffff0b\U000ffff1|"]
    assert batch.generation == {0: [(0, 0), (1, 4)]}
