"""The DeepSeek-Coder tokenizer that ships: equal to the genuine one, and its template renders the same."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment

import lorads.tokenizers
import realdata
from lorads.tokenizers import Tokenizer, load

SHIPPED = Path(lorads.tokenizers.__file__).parent / "shipped" / "deepseek-coder"
LICENCE_SHA256 = "a3a0e9449cb691a12f4de1d03725fd41326614fdeaf5d80b28c51187da0bed0e"


@pytest.fixture(scope="module")
def shipped() -> Tokenizer:
    return load("deepseek-coder")


@pytest.fixture(scope="module")
def script() -> ModuleType:
    file = Path(__file__).resolve().parent.parent.parent / "scripts" / "build_deepseek_coder.py"
    spec = importlib.util.spec_from_file_location("build_deepseek_coder", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_facts(shipped: Tokenizer) -> None:
    special = shipped.special
    assert (shipped.source, shipped.vocab_size, shipped.embedding_rows) == ("shipped", 32022, 32256)
    assert shipped.model_max_length == 16384
    assert shipped.model_config["torch_dtype"] == "bfloat16"
    assert (special.bos, special.bos_id) == ("<｜begin▁of▁sentence｜>", 32013)
    assert (special.eos, special.eos_id) == ("<|EOT|>", 32021)
    assert (special.pad, special.pad_id) == ("<｜end▁of▁sentence｜>", 32014)
    assert special.unk is None
    assert not special.adds_bos
    assert special.eos_ids == {32021}
    assert special.control == {32013, 32014, 32018, 32019, 32020, 32021}
    assert special.benign == {32015, 32016, 32017}
    assert [shipped.token(number) for number in range(32000, 32013)] == list("õ÷ÁýÀÿøúþüùöû")
    assert shipped.notes == []


def test_adding_bos_is_a_disagreement(shipped: Tokenizer) -> None:
    assert ["add_bos_token" in sentence for sentence in shipped.special.disagreements] == [True]


def test_accented_letters_do_not_survive(shipped: Tokenizer) -> None:
    ids = shipped.encode(["Öl für Bär"]).flat.tolist()
    assert 32009 in ids
    assert shipped.decode(ids) == "Öl f\ufffdr Bär"
    assert shipped.token_text(32009) == "ü"


def test_is_built_by_the_script(script: ModuleType) -> None:
    vocabulary = realdata.require("llama.cpp/deepseek-coder.gguf")
    assert (SHIPPED / "tokenizer.json").read_text(encoding="utf-8") == script.text(script.build(vocabulary))


def test_equals_the_genuine_file(script: ModuleType) -> None:
    genuine = json.loads(realdata.asset("tokenizers/deepseek-coder/tokenizer.json").read_bytes())
    built = json.loads((SHIPPED / "tokenizer.json").read_bytes())
    assert script.differences(built, genuine) == []
    assert list(built["model"]["vocab"].items()) == list(genuine["model"]["vocab"].items())


def test_differences_are_found(script: ModuleType) -> None:
    built = json.loads((SHIPPED / "tokenizer.json").read_bytes())
    changed = built | {"decoder": None, "model": built["model"] | {"merges": []}}
    assert script.differences(built, changed) == ["decoder", "model.merges"]


def test_configuration_states_the_genuine_facts() -> None:
    for file in ("tokenizer_config.json", "config.json"):
        genuine = json.loads(realdata.asset(f"tokenizers/deepseek-coder/{file}").read_bytes())
        for key, value in json.loads((SHIPPED / file).read_bytes()).items():
            expected = genuine[key]["content"] if isinstance(genuine[key], dict) else genuine[key]
            assert value == expected, key


def test_licence_lies_beside_it() -> None:
    assert hashlib.sha256((SHIPPED / "LICENSE-MODEL").read_bytes()).hexdigest() == LICENCE_SHA256
    assert "LICENSE-MODEL" in (SHIPPED / "NOTICE").read_text(encoding="utf-8")


@cache
def _compiled(template: str) -> jinja2.Template:
    return ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)


def _render(template: str, messages: list[dict[str, Any]], **more: Any) -> str:
    """As transformers renders; what goes wrong becomes part of the answer."""
    try:
        return _compiled(template).render(messages=messages, bos_token="<BOS>", **more)
    except (jinja2.TemplateError, TypeError) as error:
        return f"{type(error).__name__}: {error}"


@cache
def _templates() -> tuple[str, str]:
    """The one that ships and the genuine one."""
    config = json.loads(realdata.asset("tokenizers/deepseek-coder/tokenizer_config.json").read_bytes())
    return (SHIPPED / "chat_template.jinja").read_text(encoding="utf-8"), config["chat_template"]


CONTENTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", " x ", "\n\nx\n", "  \n", "{{ bos_token }}", "{% if %}", "<|EOT|>\n", "### Response:\n"]),
    st.none(),
    st.just(["part"]),
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {}, optional={"role": st.sampled_from(["system", "user", "assistant", "tool", ""]), "content": CONTENTS}
    ),
    max_size=6,
)


@settings(max_examples=200, deadline=None)
@given(
    messages=MESSAGES,
    more=st.fixed_dictionaries({}, optional={"add_generation_prompt": st.sampled_from([True, False, None])}),
)
def test_template_renders_what_the_genuine_one_renders(messages: list[dict[str, Any]], more: dict[str, Any]) -> None:
    own, genuine = _templates()
    assert _render(own, messages, **more) == _render(genuine, messages, **more)


def test_template_renders_a_conversation(shipped: Tokenizer) -> None:
    assert shipped.chat_template is not None
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " 1+1? "},
        {"role": "assistant", "content": "2"},
    ]
    assert _render(shipped.chat_template, messages, add_generation_prompt=True) == (
        "<BOS>Be brief.### Instruction:\n 1+1? \n### Response:\n2\n<|EOT|>\n### Response:\n"
    )
