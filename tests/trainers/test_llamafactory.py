"""What the recordings of the real library do not show: refusals, notes, reasons, and small rows token by token."""

from __future__ import annotations

import json
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lorads.engine.chain import Chain
from lorads.engine.settings import Settings
from lorads.errors import UsageError
from lorads.sources import Records
from lorads.trainers import Place
from lorads.trainers.base import place_of
from lorads.trainers.llamafactory import _templates, _tools

ALPACA = {"instruction": "Hi", "input": "", "output": "Hello"}
CALL = '{"name": "find", "arguments": {"place": "Köln", "n": 2}}'


def chain(template: str | None = "default", *, kind: str = "alpaca", **options: Any) -> Chain:
    own = {
        name: options.pop(name)
        for name in list(options)
        if name not in ("max_length", "train_on", "packing", "chat_template")
    }
    given = own if template is None else {"template": template, **own}
    return Chain(Settings("deepseek-coder", format=kind, trainer="llamafactory", trainer_options=given, **options))


def labelled(made: Chain, *rows: dict[str, Any], kind: str = "alpaca") -> Any:
    count = len(rows)
    return made.label(Records(list(rows), list(range(count)), [0] * count, [0] * count, count), kind).labels


def shown(made: Chain, labels: Any, row: int = 0) -> str:
    """The row's text with the trained tokens in [[ ]]."""
    ids, targets = labels.fed(row)
    tokenizer = made.labeller.tokenizer
    parts, trained = [], False
    for token, label in zip(ids, targets, strict=True):
        if (label != -100) != trained:
            parts.append("]]" if trained else "[[")
            trained = not trained
        parts.append(tokenizer.token_text(token))
    return "".join(parts) + ("]]" if trained else "")


def built(template: str, row: dict[str, Any], **options: Any) -> str:
    made = chain(template, **options)
    return shown(made, labelled(made, row))


def turns(*values: str) -> dict[str, Any]:
    names = ("human", "gpt")
    return {"conversations": [{"from": names[i % 2], "value": value} for i, value in enumerate(values)]}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("default", "Human: Hi<|EOT|>\nAssistant:[[Hello<|EOT|>\n]]"),
        ("empty", "Hi[[Hello]]"),
        ("vicuna", None),
        ("yi", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[[Hello<|im_end|>\n]]"),
        ("falcon", "User: Hi\nFalcon:[[Hello\n<|EOT|>]]"),
        ("mimo_v2", None),
    ],
)
def test_an_answers_slot_is_trained_whole(template: str, text: str | None) -> None:
    seen = built(template, ALPACA)
    if text is None:
        assert "Hello" in seen.partition("[[")[2]
    else:
        assert seen == text


def test_a_thought_is_trained_or_not() -> None:
    assert "[[<think>\n\n</think>\n\nHello" in built("qwen3", ALPACA)
    assert "<think>\n\n</think>\n\n[[Hello" in built("qwen3", ALPACA, enable_thinking=False)
    thinking = {**ALPACA, "output": "<think>\nhm\n</think>\n\nHello"}
    assert "[[<think>\nhm\n</think>\n\nHello" in built("qwen3", thinking)
    assert "hm" not in built("qwen3", thinking, enable_thinking=False)


def test_the_budget_cuts_the_question_before_a_short_answer() -> None:
    made = chain("empty", max_length=10)
    labels = labelled(made, {**ALPACA, "instruction": " stone" * 30, "output": " leaf"})
    ids, targets = labels.fed(0)
    assert len(ids) == 10
    assert [label for label in targets if label != -100] == ids[-1:]
    labels = labelled(made, {**ALPACA, "instruction": " stone", "output": " leaf" * 30})
    ids, targets = labels.fed(0)
    assert len(ids) == 10
    assert targets == [-100, *ids[1:]]


def test_only_the_last_answer_with_mask_history() -> None:
    made = chain("default", kind="sharegpt", train_on="last")
    seen = shown(made, labelled(made, turns("a", "b", "c", "d"), kind="sharegpt"))
    assert seen.count("[[") == 1
    assert seen.endswith("[[d<|EOT|>\n]]")
    assert built("default", ALPACA, train_on="all").startswith("[[Human")


def test_efficient_eos_labels_the_first_token_of_later_questions() -> None:
    made = chain("solar", kind="sharegpt")
    labels = labelled(made, turns("a", "b", "c", "d"), kind="sharegpt")
    ids, targets = labels.fed(0)
    eos = made.tokenizer.special.eos_id
    assert ids[-1] == targets[-1] == eos
    other = [(token, label) for token, label in zip(ids, targets, strict=True) if label not in (-100, token)]
    assert [label for _, label in other] == [eos]
    assert made.tokenizer.token_text(other[0][0]).startswith("#")


def test_a_question_without_tokens_can_not_be_labelled() -> None:
    made = chain("fewshot", kind="sharegpt")
    labels = labelled(made, turns("a", "b", "", "d"), turns("", "b", "c", "d"), kind="sharegpt")
    assert list(labels.failures) == [0]
    assert labels.fed(1) is not None


def test_dropped_rows_say_why() -> None:
    made = chain("default", kind="sharegpt")
    odd, wrong = (
        turns("a", "b", "c"),
        {"conversations": [{"from": "gpt", "value": "b"}, {"from": "human", "value": "a"}]},
    )
    other = {"conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]}
    labels = labelled(made, odd, wrong, other, turns("a", "b"), kind="sharegpt")
    assert "odd" in labels.dropped[0]
    assert 'is from "gpt" where LLaMA-Factory wants a question ("human" or "observation")' in labels.dropped[1]
    assert "user" in labels.dropped[2]
    assert labels.fed(3) is not None
    made = chain("default")
    assert labelled(made, {**ALPACA, "output": None}).dropped.keys() == {0}


def test_rows_that_stop_the_library_say_why() -> None:
    made = chain("default", kind="sharegpt")
    call = {"conversations": [{"from": "human", "value": "a"}, {"from": "function_call", "value": "no JSON"}]}
    labels = labelled(made, call, {**turns("a", "b"), "tools": '[{"name": "x"}]'}, kind="sharegpt")
    assert labels.failures[0].kind == labels.failures[1].kind == "stops"
    assert "tool call" in labels.failures[0].message
    assert "parameters" in labels.failures[1].message


def test_messages_as_openai_get_thinking_off() -> None:
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    made = chain("default", kind="messages", formatting="openai")
    assert shown(made, labelled(made, row, kind="messages")).startswith("System: detailed thinking off<|EOT|>")
    tools = {"messages": [*row["messages"], {"role": "tool", "content": "x"}, {"role": "assistant", "content": "c"}]}
    made = chain("default", kind="messages")
    assert "tool" in labelled(made, tools, kind="messages").dropped[0]
    made = chain("default", kind="messages", observation_tag="tool")
    assert labelled(made, tools, kind="messages").fed(0) is not None
    made = chain("default", kind="messages", formatting="openai")
    assert "JSON text" in labelled(made, {**row, "tools": [{"type": "function"}]}, kind="messages").failures[0].message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"template": "chatlm"}, 'no template "chatlm"'),
        ({"template": "qwen2_vl"}, "images"),
        ({"template": "gemma2", "train_on": "all"}, "train_on_prompt"),
        ({"train_on": "all", "mask_history": True}, "incompatible"),
        ({"packing": True, "max_length": None}, "cutoff_len"),
        ({"template": "chatglm3"}, "needs the token"),
        ({"tool_format": "gemma4"}, "tool_format"),
        ({"templat": "qwen"}, "did you mean|no setting"),
    ],
)
def test_refused_before_a_row_is_read(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        chain(**{"template": "default", **options})


def test_packing_takes_one_from_the_cutoff() -> None:
    row = {**ALPACA, "output": " leaf" * 40}
    for options in ({"packing": True}, {"neat_packing": True}):
        made = chain("empty", max_length=20, **options)
        assert len(labelled(made, row).fed(0)[0]) == 19


def test_tokens_that_are_added() -> None:
    made = chain("chatml")
    labels = labelled(made, ALPACA)
    ids, _ = labels.fed(0)
    assert max(ids) == 32023 >= made.tokenizer.vocab_size
    assert made.labeller.tokenizer.special.eos == "<|im_end|>"
    assert any("resize_vocab" in note for note in made.labeller.notes)
    assert not chain("deepseekcoder").labeller.notes


def test_a_chat_template_is_taken_apart(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(
        "{% if messages[0].role != 'system' %}[Be kind.]{% endif %}{% for m in messages %}{% if m.role == 'system' %}"
        "[{{ m.content }}]{% elif m.role == 'user' %}Q: {{ m.content }}\n{% else %}A: {{ m.content }}<|EOT|>{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}A: {% endif %}",
        encoding="utf-8",
    )
    made = chain(None, chat_template=str(file))
    assert shown(made, labelled(made, ALPACA)) == "[Be kind.]Q: Hi\nA: [[Hello<|EOT|>]]"
    assert any("Q: {{content}}" in note for note in made.labeller.notes)
    file.write_text("{% for m in messages %}{{ raise_exception('no') }}{% endfor %}", encoding="utf-8")
    with pytest.raises(UsageError, match="take the tokenizer's chat template apart"):
        chain(None, chat_template=str(file))
    assert chain(None, chat_template="none").labeller.notes[0].count("empty") == 1


def test_every_template_of_the_file_is_sound() -> None:
    found = tomllib.loads(Path(_templates.__file__).with_name("templates.toml").read_text(encoding="utf-8"))
    assert len(_templates.names()) == len(found) - 1 > 70
    for name in _templates.names():
        style = _templates.named(name)
        assert any(isinstance(slot, str) and _templates.CONTENT in slot for slot in style.user), name
        assert style.replace_eos <= bool(style.stop_words), name
        assert style.tool_format in _tools._TOOLS, name


@pytest.mark.parametrize("tool_format", sorted(_tools._TOOLS))
def test_every_tool_format_writes_tools_and_calls(tool_format: str) -> None:
    tool = {"name": "find", "parameters": {"properties": {"place": {"type": "string"}}}}
    text = _tools.write_tools(tool_format, json.dumps([tool]))
    assert "find" in text
    assert ("Today Date: " + datetime.now().strftime("%d %b %Y") in text) == (tool_format == "llama3")
    assert "Köln" in _tools.write_calls(tool_format, CALL)
    assert _tools.write_tools(tool_format, "[]") == ""


def test_places_segments_and_reasons() -> None:
    made = chain("deepseekcoder", kind="sharegpt")
    rows = [
        {"conversations": [{"from": "system", "value": "Sei nett. 你好"}, *turns("ä b", "c d")["conversations"]]},
        turns("a", "b", "c", "d"),
    ]
    count = len(rows)
    batch = made.label(Records(rows, [0, 1], [0, 0], [0, 0], count), "sharegpt")
    labels = batch.labels
    assert labels.texts[0].startswith("<｜begin▁of▁sentence｜>Sei nett. 你好### Instruction:\nä b\n### Response:\nc d")
    for row in range(count):
        begin, end = labels.placed(row)
        text = labels.texts[row]
        assert end[-1] == len(text)
        first = int(labels.ids.starts[row])
        for token, (a, b) in enumerate(zip(begin, end, strict=True)):
            said = made.tokenizer.token_text(int(labels.ids.flat[first + token]))
            if "\\x" not in said:
                assert text[a:b] == said
        places = {
            place_of(labels, batch.conversations[row], row, token, made.tokenizer.special)
            for token in range(len(begin))
        }
        assert {Place.BOS, Place.USER, Place.ASSISTANT, Place.HEADER} <= places
        assert (Place.SYSTEM in places) == (row == 0)
    for made in (
        chain("default"),
        chain("gemma2"),
        chain("default", train_on="all"),
        chain("default", train_on="last"),
    ):
        said = [made.labeller.reason(place, trained) for place in Place for trained in (True, False)]
        assert all("LLaMA-Factory" in sentence or "template" in sentence for sentence in said)


def test_rows_of_other_kinds_are_told() -> None:
    made = chain("default", kind="prompt-completion")
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": None}, {"prompt": "a", "completion": ""}]
    labels = labelled(made, *rows, kind="prompt-completion")
    assert shown(made, labels) == "Human: a<|EOT|>\nAssistant:[[b<|EOT|>\n]]"
    assert list(labels.dropped) == [1]
    assert labels.fed(2) is not None
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    assert "rm and dpo" in labelled(chain(kind="preference"), pair, kind="preference").failures[0].message
    assert "no such rows" in labelled(chain(kind="text"), {"text": "a"}, kind="text").failures[0].message
