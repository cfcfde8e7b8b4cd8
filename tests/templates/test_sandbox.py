"""Templates are untrusted: whatever one does, a row gives a render or a failure, soon and within memory."""

from __future__ import annotations

import resource
import time
from datetime import datetime

import pytest

from lorads.errors import UsageError
from lorads.templates import Limits, Template
from lorads.templates.engines import MiniJinjaEngine
from lorads.templates.limits import BrokenError, LimitError, RaisedError
from lorads.templates.verdict import compile_reference
from template_cases import CLOCK, say

LOOP = "{% for i in range(100000) %}"
END = "{% endfor %}"

HUNGRY = {
    "loops": LOOP * 3 + END * 3,
    "loop over nothing": LOOP + "{% for j in range(100000) if false %}{% endfor %}" + END,
    "repetition": "{{ 'a' * 1000000000 }}",
    "repetition of a list": "{{ [1] * 1000000000 }}",
    "power": "{{ 9 ** (9 ** 9) }}",
    "number growing": "{% set ns = namespace(x=3) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}x",
    "doubling": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by +": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by block": "{% set ns = namespace(x='ab') %}{% for i in range(99) %}"
    "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
    "doubling a list": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "nested lists printed": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "nested lists as JSON": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}",
    "nested lists joined": "{% set ns = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x ~ '' }}",
    "deep lists": "{% set ns = namespace(x=[1]) %}" + LOOP + "{% set ns.x = [ns.x] %}" + END + "{{ ns.x }}",
    "macro without end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "macro tree": "{% macro f(n) %}{% for i in range(9) %}{% if n < 99 %}{{ f(n + 1) }}{% endif %}{% endfor %}"
    "{% endmacro %}{{ f(0) }}",
    "wide format": "{{ '%1000000000d' % 3 }}",
    "wide format by star": "{{ '%*d' % (1000000000, 3) }}",
    "wide str.format": "{{ '{:>1000000000}'.format('a') }}",
    "wide str.format by argument": "{{ '{:{}}'.format('a', 1000000000) }}",
    "wide format by filter": "{{ '%1000000000s'|format('a') }}",
    "wide format_map": "{{ '{a:>1000000000}'.format_map({'a': 'b'}) }}",
    "center": "{{ 'a'|center(1000000000) }}",
    "ljust": "{{ 'a'.ljust(1000000000) }}",
    "zfill": "{{ 'a'.zfill(1000000000) }}",
    "indent": "{{ 'a\nb'|indent(1000000000) }}",
    "indent by first": "{{ 'a\nb'|indent(width=1000000000, first=true) }}",
    "JSON indent": "{{ [1]|tojson(indent=1000000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "replace": "{% set a = 'a' * 9999 %}{{ a.replace('a', a).replace('a', a) }}",
    "replace by filter": "{% set a = 'a' * 9999 %}{{ a|replace('a', a)|replace('a', a) }}",
    "join": "{% set a = 'a' * 9999 %}{{ a.join(range(99999)|map('string')) }}",
    "join by filter": "{% set a = 'a' * 9999 %}{{ range(99999)|list|join(a) }}",
    "batch": "{{ [1]|batch(1000000000, 'x')|list }}",
    "slice": "{{ [1]|slice(1000000000)|list }}",
    "bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
    "translate": "{% set a = 'a' * 9999 %}{{ a.translate({97: a}) }}",
    "output": LOOP + "x" * 1000 + END,
    "output of contents": LOOP + "{{ messages }}" * 9 + END,
    "sum of lists": LOOP + "{% set x = ([[1]] * 1000)|sum(start=[]) %}" + END,
    "slices kept": "{% set a = 'ab' * 4000000 %}{{ [" + "a[1:]," * 5000 + "]|length }}",
    "lists kept": "{% set a = 'ab' * 4000000 %}{{ [" + "a|list," * 5000 + "]|length }}",
    "range": "{{ range(1000000000)|list }}",
}

REFUSED = {
    "class": "{{ ''.__class__.__mro__ }}",
    "class by filter": "{{ (''|attr('__class__')).__mro__ }}",
    "class by item": "{{ messages['__class__'].__mro__ }}",
    "format string": "{{ '{0.__class__.__mro__}'.format('') }}",
    "globals of a function": "{{ raise_exception.__globals__['os'] }}",
    "globals of a clock": "{{ strftime_now.__closure__[0] }}",
    "private name": "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
    "changing the data": "{{ messages.append(1) }}",
    "changing a message": "{{ messages[0].update({'role': 'x'}) }}",
    "changing by a built name": "{{ messages['app' ~ 'end'](1) }}",
    "another file": "{% include '/etc/passwd' %}",
    "another template": "{% import 'x' as y %}",
    "lipsum": "{{ lipsum(1000000000) }}",
}


@pytest.mark.parametrize("name", HUNGRY)
def test_hungry_templates_end_in_a_limit(name: str) -> None:
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch = Template(HUNGRY[name], limits=Limits(steps=1_000_000)).render([say(("user", "x" * 10_000))])
    assert batch.failures[0].kind == "limit"
    assert batch.texts == [""]
    assert time.monotonic() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_500_000  # kilobytes


@pytest.mark.parametrize("name", REFUSED)
def test_a_template_reaches_nothing_but_its_data(name: str) -> None:
    row = say(("user", "hello"))
    batch = Template(REFUSED[name]).render([row])
    assert batch.failures[0].kind == "error"
    assert row.messages == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{% for m in messages %}", "syntax error in line 1"),
        ("\n\n{{ messages | nonsense( }}", "syntax error in line 3"),
        ("{{ x|no_such_filter }}", "no_such_filter"),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", "nests too deeply"),
        ("{{ 1" + "+1" * 100_000 + " }}", "nests too deeply"),
        ("{% if x %}" * 5000 + "{% endif %}" * 5000, "nests too deeply"),
        ("{{ 1 }}" * 200_000, "the limit is 1,000,000"),
    ],
)
def test_what_is_no_template_is_one_message(source: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        Template(source)
    assert caught.value.hint


def test_conversations_that_nest_too_deeply_fail_alone() -> None:
    deep: object = "x"
    for _ in range(5000):
        deep = [deep]
    bad = say(("user", "hello"))
    bad.messages, bad.roles, bad.contents = [{"role": "user", "content": deep}], None, None
    batch = Template("{{ messages[0].content }}").render([say(("user", "a")), bad, say(("user", "b"))])
    assert batch.texts == ["a", "", "b"]
    assert batch.failures[1].kind == "limit"


def test_limits_can_be_lowered() -> None:
    template = Template("{% for m in messages %}{{ m.content }}{% endfor %}", limits=Limits(output_chars=10))
    batch = template.render([say(("user", "x" * 10)), say(("user", "x" * 11))])
    assert batch.texts == ["x" * 10, ""]
    assert batch.failures[1].kind == "limit"


def test_the_same_steps_every_time() -> None:
    engine = compile_reference("{% for m in messages %}{{ m }}{% endfor %}", Limits(steps=50), datetime.now)
    engine.render({"messages": ["x"] * 20})
    for _ in range(3):
        with pytest.raises(LimitError, match="50 steps"):
            engine.render({"messages": ["x"] * 60})


SAME = {
    "{{ [true, none, 1.5, 'a'] }} {{ true }} {{ none }} {{ missing }}": "[True, None, 1.5, 'a'] True None ",
    "{{ {'b': 'é<\"', 'a': [1]}|tojson }}": '{"b": "é<\\"", "a": [1]}',
    "{{ {'b': 1, 'a': 'é'}|tojson(indent=1, sort_keys=true, ensure_ascii=true) }}": '{\n "a": "\\u00e9",\n "b": 1\n}',
    "{{ [1, 2]|tojson(separators=(',', ':')) }}": "[1,2]",
    "{{ strftime_now('%d %b %Y') }}": "04 Mar 2026",
    "{{ dict(a=1).a }}{{ ('ab' ~ 1 ~ none) }}{{ 'abcd'[1:3] }}{{ [1, 2, 3][::-1] }}": "1ab1Nonebc[3, 2, 1]",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% elif i == 4 %}{% break %}{% endif %}{{ i }}"
    "{% endfor %}": "013",
}


@pytest.mark.parametrize("source", SAME)
def test_both_engines_mean_what_transformers_means(source: str) -> None:
    for engine in (
        compile_reference(source, Limits(), lambda: CLOCK),
        MiniJinjaEngine(source, Limits(), lambda: CLOCK),
    ):
        assert engine.render({}) == SAME[source]


@pytest.mark.parametrize("engine", [compile_reference, MiniJinjaEngine])
def test_how_engines_fail(engine: type[MiniJinjaEngine]) -> None:
    with pytest.raises(RaisedError, match=r"^only user roles$"):
        engine("{{ raise_exception('only user roles') }}", Limits(), datetime.now).render({})
    with pytest.raises(BrokenError):
        engine("{{ missing.attribute.of }}", Limits(), datetime.now).render({})
