"""What the recordings of the real library do not cover: refusals, reasons, and small rows with exact expectations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lorads.engine.chain import Chain
from lorads.engine.settings import Settings
from lorads.errors import UsageError
from lorads.formats import Columns, Conversation, normalise
from lorads.sources import Records
from lorads.templates import Template
from lorads.tokenizers import Tokenizer, load
from lorads.trainers import LabelBatch, Place, TrainOptions, get
from lorads.trainers.axolotl._chat import ChatTemplate
from lorads.trainers.axolotl._keys import message_keys
from lorads.trainers.axolotl._options import Options
from lorads.trainers.axolotl._spans import PLACEHOLDERS, differing

LINES = "{% for message in messages %}{{ message.role }}:\n{{ message.content }}{{ eos_token }}\n{% endfor %}"
BARE = "{% for message in messages %}[{{ message.content | trim }}[/]{% endfor %}"
TALK = {"messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": "Yes, I do."}]}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load("deepseek-coder")


def conversations(*rows: Any, format_name: str = "messages") -> list[Conversation]:
    made = normalise(list(rows), format_name, Columns())
    assert all(isinstance(conversation, Conversation) for conversation in made)
    return made  # type: ignore[return-value]


def labelled(tokenizer: Tokenizer, *rows: Any, template: str = LINES, packing: bool = False, **own: Any) -> LabelBatch:
    limit = own.pop("max_length", 512)
    format_name = own.pop("format_name", "messages")
    made = Template(template, eos_token=tokenizer.special.eos or "")
    tokenizer.chat_template = template
    labeller = get("axolotl").prepare(tokenizer, made, TrainOptions(limit, packing=packing, own=Options(**own)))
    return labeller.label(conversations(*rows, format_name=format_name))


def trained_text(tokenizer: Tokenizer, batch: LabelBatch, row: int = 0) -> str:
    fed = batch.fed(row)
    assert fed is not None
    return tokenizer.decode([label for label in fed[1] if label != -100])


def with_answer(text: str, **more: Any) -> dict[str, Any]:
    return {"messages": [TALK["messages"][0], {"role": "assistant", "content": text, **more}]}


def test_the_answer_and_its_end_are_trained(tokenizer: Tokenizer) -> None:
    assert trained_text(tokenizer, labelled(tokenizer, TALK)) == "Yes, I do.<|EOT|>"


@pytest.mark.parametrize(
    ("own", "text"),
    [
        ({"train_on_eos": "none"}, "Yes, I do."),
        ({"train_on_eos": "last"}, "Yes, I do.<|EOT|>"),
        ({"train_on_eos": "all"}, "<|EOT|>Yes, I do.<|EOT|>"),
        ({"roles_to_train": ("human",)}, "Say it.<|EOT|>"),
        ({"roles_to_train": ()}, ""),
        ({"train_on_inputs": True}, "Say it.<|EOT|>Yes, I do.<|EOT|>"),
        ({"eot_tokens": ("<|im_end|>",)}, "Yes, I do.<|EOT|>"),
    ],
)
def test_options_of_conversations(tokenizer: Tokenizer, own: dict[str, Any], text: str) -> None:
    assert trained_text(tokenizer, labelled(tokenizer, TALK, **own)) == text


def test_an_empty_answer_trains_nothing_and_stays_unless_packed(tokenizer: Tokenizer) -> None:
    batch = labelled(tokenizer, with_answer(""), TALK)
    assert trained_text(tokenizer, batch) == ""
    assert not batch.dropped
    assert list(labelled(tokenizer, with_answer(""), TALK, packing=True).dropped) == [0]


def test_marks_of_messages_count_only_when_named(tokenizer: Tokenizer) -> None:
    row = with_answer("Yes, I do.", train=False)
    assert trained_text(tokenizer, labelled(tokenizer, row)) == "Yes, I do.<|EOT|>"
    assert trained_text(tokenizer, labelled(tokenizer, row, message_field_training="train")) == ""


def test_details_train_some_characters(tokenizer: Tokenizer) -> None:
    row = with_answer("Yes, I do.", spans=[{"begin_offset": 4, "end_offset": 8, "train": True}])
    batch = labelled(tokenizer, row, message_field_training_detail="spans")
    assert trained_text(tokenizer, batch) == " I do<|EOT|>"


def test_a_part_that_is_not_trained(tokenizer: Tokenizer) -> None:
    parts = [{"type": "text", "text": "Yes,", "train": False}, {"type": "text", "text": " I do.", "train": True}]
    assert trained_text(tokenizer, labelled(tokenizer, with_answer(parts))) == " I do.<|EOT|>"  # type: ignore[arg-type]


@pytest.mark.parametrize("strategy", ["drop", "truncate", "raise"])
def test_rows_over_the_limit(tokenizer: Tokenizer, strategy: str) -> None:
    length = len(labelled(tokenizer, TALK).ids.flat)
    exact = labelled(tokenizer, TALK, max_length=length, excess_length_strategy=strategy)
    assert not exact.dropped
    assert not exact.failures
    over = labelled(tokenizer, TALK, max_length=length - 1, excess_length_strategy=strategy)
    assert list(over.dropped) == ([0] if strategy == "drop" else [])
    assert list(over.failures) == ([0] if strategy == "raise" else [])
    if strategy == "truncate":
        fed = over.fed(0)
        assert fed is not None
        assert len(fed[0]) == length - 1


def test_rows_that_are_too_short(tokenizer: Tokenizer) -> None:
    assert list(labelled(tokenizer, TALK, min_sample_len=50).dropped) == [0]


def test_prompt_and_answer_are_tokenized_apart(tokenizer: Tokenizer) -> None:
    row = {"instruction": "Say it.", "input": "", "output": "Yes."}
    batch = labelled(tokenizer, row, format_name="alpaca")
    assert trained_text(tokenizer, batch) == "Yes.<|EOT|>"
    assert batch.texts is not None
    assert batch.texts[0].endswith("### Instruction:\nSay it.\n\n### Response:\nYes.<|EOT|>")
    begin, end = batch.placed(0) if batch.placed else (np.zeros(0), np.zeros(0))
    assert len(begin) == len(batch.ids.flat)
    assert end[-1] == len(batch.texts[0])


def test_no_room_for_eos(tokenizer: Tokenizer) -> None:
    row = {"instruction": "a", "input": "", "output": "one two three"}
    given: dict[str, Any] = {
        "format_name": "alpaca",
        "type": "alpaca_instruct.load_no_prompt",
        "excess_length_strategy": "truncate",
    }
    tight = labelled(tokenizer, row, max_length=3, **given)
    assert len(tight.ids.flat) == 6  # each part is cut by itself, and EOS found no room
    assert tight.ids.flat[-1] != tokenizer.special.eos_id


def test_long_texts_become_pieces(tokenizer: Tokenizer) -> None:
    batch = labelled(tokenizer, {"text": "one two three four"}, format_name="text", max_length=4)
    ids, labels = batch.fed(0) or ([], [])
    assert len(batch.ids.flat) == 5  # four words and EOS, which alone is too short to be a row
    assert len(ids) == 4
    assert ids == labels


@pytest.mark.parametrize(
    ("row", "format_name", "own", "words"),
    [
        ({"prompt": "a", "completion": "b"}, "prompt-completion", {}, "no dataset type"),
        ({"text": "a"}, "text", {"type": "alpaca"}, "no row of type"),
        (TALK, "messages", {"type": "alpaca"}, "instruction"),
        (TALK, "messages", {"type": "completion"}, "no text"),
        (TALK, "messages", {"field_messages": "talk"}, "talk"),
        ({"input_ids": [1, 2]}, "tokenized", {}, "attention_mask"),
        ({"instruction": "a", "output": "b"}, "alpaca", {"type": "alpaca_w_system"}, "system"),
        (
            with_answer("", tool_calls=[{"function": {"name": "f", "arguments": "{x"}}]),
            "messages",
            {"template": LINES + "{% if message.tool_calls %}{% endif %}"},
            "JSON",
        ),
    ],
)
def test_rows_at_which_axolotl_stops(
    tokenizer: Tokenizer, row: Any, format_name: str, own: dict[str, Any], words: str
) -> None:
    batch = labelled(tokenizer, row, format_name=format_name, **own)
    assert words in batch.failures[0].message


def test_reasoning_under_another_name_is_refused(tokenizer: Tokenizer) -> None:
    template = "{% for message in messages %}{{ message.thinking }}{{ message.content }}{% endfor %}"
    row = with_answer("Yes.", reasoning_content="So.")
    assert "thinking" in labelled(tokenizer, row, template=template).failures[0].message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_length": None}, "sequence_len"),
        ({"train_on": "last"}, "last answer"),
        ({"response_marker": "x"}, "marker"),
        ({"trainer_options": {"type": "sharegpt"}}, "sharegpt"),
        ({"trainer_options": {"train_on_eos": "some"}}, "train_on_eos"),
        ({"trainer_options": {"chat_template_kwargs": "[1]"}}, "chat_template_kwargs"),
        ({"trainer_options": {"eot_tokens": ["You are"]}}, "tokens"),
        ({"trainer_options": {"eot_tokens": ["<|EOT|>", "\n"], "train_on_eot": "all"}}, "train_on_eot"),
        ({"train_on": "assistant", "trainer_options": {"train_on_inputs": True}}, "train_on_inputs"),
    ],
)
def test_refused_before_a_row_is_read(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Chain(Settings("deepseek-coder", format="messages", trainer="axolotl", **options)).label(
            Records([TALK], [0], [0], [0], 1), "messages"
        )


def test_a_template_that_does_not_write_eos_is_noted(tokenizer: Tokenizer) -> None:
    made = Template(BARE)
    strategy = ChatTemplate(tokenizer, made, BARE, Options())
    assert any("EOS" in note for note in strategy.notes)


def test_every_place_has_a_reason(tokenizer: Tokenizer) -> None:
    labeller = get("axolotl").prepare(tokenizer, None, TrainOptions(512, own=Options()))
    for place in Place:
        for trained in (True, False):
            assert labeller.reason(place, trained)


def test_the_template_is_given_what_it_reads_of_message() -> None:
    reads = "{{ message.a }}{{ message['b'].c }}{{ other.d }}{{ message.get('e') }}"
    source = "{% for message in messages %}" + reads + "{% endfor %}"
    assert message_keys(source) == {"a", "b", "c", "get"}
    with pytest.raises(UsageError, match="cannot read"):
        message_keys("{% do x %}")


def test_tool_calls_are_lost_under_another_loop_variable(tokenizer: Tokenizer) -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    row = with_answer("Wait.", tool_calls=[call])
    for name, printed in (("message", True), ("m", False)):
        template = LINES.replace("message.", f"{name}.").replace("for message", f"for {name}")
        printing = f"{{% if {name}.tool_calls %}}f{{% endif %}}{{{{ eos_token }}}}"
        template = template.replace("{{ eos_token }}", printing)
        texts = labelled(tokenizer, row, template=template).texts
        assert texts is not None
        assert ("Wait.f<" in texts[0]) is printed


@pytest.mark.parametrize("text", ["", " ", "[", "[a", "z", "zzz", *PLACEHOLDERS, PLACEHOLDERS[0] + "[/]", " a ", "é\n"])
@pytest.mark.parametrize("template", [LINES, BARE, LINES.replace("message.content", "message.content | upper")])
def test_places_are_those_that_placeholders_tell(tokenizer: Tokenizer, template: str, text: str) -> None:
    """The short way (the content's own place) and axolotl's way (two renders with placeholders) agree."""
    rows = [with_answer(text), TALK, *[with_answer(f"Some words {i}.") for i in range(300)]]
    made = Template(template, eos_token=tokenizer.special.eos or "")
    short = ChatTemplate(tokenizer, made, template, Options()).label(conversations(*rows))
    long_way = ChatTemplate(tokenizer, Template(template, eos_token=made._special["eos_token"]), template, Options())
    long_way._opaque.known = long_way._opaque.fits_placeholders = False
    found = long_way.label(conversations(*rows))
    assert short.trained.tolist() == found.trained.tolist()


def test_differing_characters() -> None:
    assert differing("ab[c", ["ab[[dummy_message]]c", "abzzdummymessagezzc"]) == (2, 3)
    assert differing("same", ["same", "same"]) == (4, 4)


def test_a_command_line_run(tmp_path: Path) -> None:
    from click.testing import CliRunner

    from lorads.cli import cli

    data, out = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n')
    arguments = ["tokenize", str(data), "--tokenizer", "deepseek-coder", "--trainer", "axolotl", "-o", str(out)]
    result = CliRunner().invoke(cli, [*arguments, "--trainer-option", "train_on_eos=none"])
    assert result.exit_code == 0, result.output
    assert out.read_text().count("\n") == 1
