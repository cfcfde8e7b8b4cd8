"""Which engine renders a template, and that the answer is remembered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lorads import cache
from lorads.errors import UsageError
from lorads.templates import Template
from template_cases import conversation, say

FOR = "{% for m in messages %}"
BOTH = {
    "plain": FOR + "{{ m.role }}: {{ m.content }}{% endfor %}",
    "accumulating a text": "{% set ns = namespace(s='') %}"
    + FOR
    + "{% set ns.s = ns.s + m.content %}{% endfor %}{{ ns.s }}",
    "slicing the messages": "{% set rest = messages[1:] %}{% for m in rest %}{{ m.content }}{% endfor %}",
    "collecting messages": "{% set ns = namespace(l=[]) %}" + FOR + "{% set ns.l = ns.l + [m] %}{% endfor %}"
    "{{ ns.l | length }}",
}
SANDBOX = {
    "a filter that minijinja lacks": (FOR + "{{ m.content | center(9) }}{% endfor %}", "center"),
    "safe, which escapes what is added": (FOR + "{{ (m.content | safe) + '<x>' }}{% endfor %}", "in place of"),
    "lists of lists": ("{% set ns = namespace(x=[]) %}{% set ns.x = [ns.x, ns.x] %}" + FOR + "{% endfor %}", "lists"),
    "lists of lists by another name": ("{% set a = [1] + [2] %}{% set b = a %}{% set c = a + b %}{{ c }}", "lists"),
    "lists in a macro": ("{% macro f(x) %}{% set y = [x, x] %}{% endmacro %}{{ f(messages) }}", "lists"),
    "a namespace passed on": ("{% set ns = namespace(x=1) %}{% set y = ns %}{{ y.x }}", "lists"),
    "formatting": ("{{ '{:>3}'.format(1) }}", "widths"),
}


@pytest.mark.parametrize("name", BOTH)
def test_minijinja_where_it_agrees(name: str) -> None:
    template = Template(BOTH[name])
    assert (template.engine, template.notes) == ("minijinja", [])


@pytest.mark.parametrize("name", SANDBOX)
def test_the_sandbox_where_it_does_not(name: str) -> None:
    source, why = SANDBOX[name]
    template = Template(source)
    assert template.engine == "jinja2"
    assert why in template.notes[0]


def test_one_engine_for_texts_and_another_for_the_rest() -> None:
    source = (
        FOR + "{% if m.tool_calls %}{{ (m.content | string | safe) + '<b>' }}{% else %}{{ m.content }}{% endif %}"
        "{% endfor %}"
    )
    template = Template(source)
    assert template.engine == "minijinja"
    assert template.notes[0].startswith("rows with more than roles and texts are rendered by jinja2")
    call = {"role": "assistant", "content": "x", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    assert template.render([say(("user", "<b>")), conversation([call])]).texts == ["<b>", "x&lt;b&gt;"]


@pytest.mark.parametrize("text", ["\x1cx\x1c", "\u2028x\u2028", "x\x85", "\ud800"])
def test_texts_that_the_engines_see_differently(text: str) -> None:
    batch = Template(FOR + "{{ m.content.strip() }}|{{ m.content }}{% endfor %}", plans=False).render(
        [say(("user", text))]
    )
    assert batch.texts == [f"{text.strip()}|{text}"]


@pytest.mark.parametrize("number", [1.0, 1e22, 2**70, float("nan"), -0.0, 0.1, True, None])
def test_numbers_print_as_in_python(number: object) -> None:
    row = conversation([{"role": "tool", "content": {"value": number}}])
    batch = Template(FOR + "{{ m.content.value }}|{{ m.content | tojson }}{% endfor %}").render([row])
    import json

    assert batch.texts == [f"{number}|{json.dumps({'value': number})}"]


def test_a_verdict_is_remembered_and_jinja2_not_needed_again(tmp_path: Path) -> None:
    script = (
        "import sys; from lorads.templates import Template; from lorads.formats.conversation import Conversation, Kind;"
        "row = Conversation(Kind.MESSAGES, [{'role': 'user', 'content': 'x'}], ('user',), ['x']);"
        f"batch = Template({BOTH['plain']!r}).render([row] * 50);"
        "assert batch.texts[0] == 'user: x', batch;"
        "print('jinja2' in sys.modules, 'polars' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[2] / "validator"
    environment = {"LORADS_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(root), "PATH": ""}
    said = [
        subprocess.run(
            [sys.executable, "-c", script], env=environment, check=True, capture_output=True, text=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert said == [["True", "False"], ["False", "False"]]


@pytest.mark.parametrize("damage", [b"", b"{}", b"[1]", b'{"engine": 1}', b"\xff"])
def test_a_damaged_verdict_is_found_again(damage: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORADS_CACHE_DIR", str(tmp_path))
    Template(BOTH["plain"])
    (kept,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    good = kept.read_bytes()
    cache.write(damage, *kept.relative_to(tmp_path).parts)
    assert Template(BOTH["plain"]).engine == "minijinja"
    assert kept.read_bytes() == good


def test_a_template_that_is_none_is_refused_every_time() -> None:
    for _ in range(2):
        with pytest.raises(UsageError):
            Template("{% if %}")
