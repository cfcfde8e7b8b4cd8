"""What the recordings of the real library do not cover: refusals, and the consequences of packing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorads.engine.chain import Chain
from lorads.engine.settings import Settings
from lorads.errors import UsageError
from lorads.sources import Records
from lorads.trainers import Place

LONG = {"prompt": "word " * 100, "completion": " yes"}
SHORT = {"prompt": "one and one?", "completion": " two"}


def labelled(*rows: dict[str, Any], **options: Any) -> Any:
    chain = Chain(Settings("deepseek-coder", format="prompt-completion", **options))
    count = len(rows)
    return chain.label(
        Records(list(rows), list(range(count)), [0] * count, [0] * count, count), "prompt-completion"
    ).labels


def test_a_row_whose_answer_is_cut_away_is_dropped() -> None:
    labels = labelled(LONG, SHORT, max_length=16)
    assert list(labels.dropped) == [0]
    assert labels.fed(0) is None


def test_packing_drops_nothing_and_masks_the_first_label() -> None:
    labels = labelled(LONG, SHORT, max_length=16, packing=True)
    assert not labels.dropped
    ids, trained = labels.fed(0)
    assert len(ids) == 16
    assert set(trained) == {-100}
    everything = labelled(SHORT, max_length=16, packing=True, train_on="all")
    ids, trained = everything.fed(0)
    assert trained == [-100, *ids[1:]]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_on": "last"}, "last answer"),
        ({"train_on": "assistant"}, "generation"),
        ({"packing": True, "max_length": None}, "maximum length"),
        ({"trainer_options": {"padding_free": True}}, "padding_free"),
        ({"trainer_options": {"eos_token": "<no such token>"}}, "vocabulary"),
        ({"trainer_options": {"packing_strategy": "best"}}, "packing_strategy"),
        ({"response_marker": "x"}, "marker"),
        ({"trainer": "trl@0.17", "train_on": "assistant"}, "assistant_only_loss"),
        ({"trainer": "trl@0.17", "instruction_marker": "x"}, "response"),
        ({"trainer": "trl@0.17", "response_marker": ""}, "no token"),
        ({"trainer": "trl@0.17", "response_marker": "x", "packing": True}, "row by row"),
        ({"trainer": "trl@0.17", "response_marker": "x", "train_on": "all"}, "markers"),
        ({"trainer": "trl@0.17", "response_marker": "x", "trainer_options": {"pad_token": "<no>"}}, "vocabulary"),
        ({"trainer": "trl@0.24", "train_on": "assistant"}, "generation"),
        ({"trainer": "trl@0.24", "packing": True, "max_length": None}, "maximum length"),
        ({"trainer": "trl@0.24", "response_marker": "x"}, "marker"),
        ({"trainer": "trl-dpo", "packing": True}, "pack"),
        ({"trainer": "trl-dpo", "train_on": "all"}, "answers"),
        ({"trainer": "transformers", "train_on": "assistant"}, "mask no prompt"),
        ({"trainer": "transformers", "packing": True}, "pack"),
        ({"trainer": "transformers", "response_marker": "x"}, "marker"),
        ({"trainer": "transformers", "trainer_options": {"pad_token": "<no>"}}, "vocabulary"),
    ],
)
def test_refused_before_a_row_is_read(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        labelled(SHORT, **options)


def test_assistant_only_stops_at_a_row_without_an_answer(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|EOT|>{% endgeneration %}"
        "{% else %}{{ m.content }}\n{% endif %}{% endfor %}",
        encoding="utf-8",
    )
    chain = Chain(Settings("deepseek-coder", format="messages", train_on="assistant", chat_template=str(template)))
    user, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    rows = [{"messages": [user, answer]}, {"messages": [user]}]
    labels: Any = chain.label(Records(rows, [0, 1], [0, 0], [0, 0], 2), "messages").labels
    assert list(labels.failures) == [1]
    assert labels.fed(0)[1].count(-100) == len(labels.fed(0)[0]) - 2


def test_a_row_with_a_template_of_its_own_is_no_row_for_lorads() -> None:
    chain = Chain(Settings("deepseek-coder", format="messages"))
    row = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "chat_template_kwargs": {"chat_template": "x"},
    }
    labels = chain.label(Records([row], [0], [0], [0], 1), "messages").labels
    assert "its own chat_template" in labels.failures[0].message


def chain_rows(format_name: str, *rows: dict[str, Any], tokenizer: str = "deepseek-coder", **options: Any) -> Any:
    chain = Chain(Settings(tokenizer, format=format_name, **options))
    count = len(rows)
    return chain, chain.label(
        Records(list(rows), list(range(count)), [0] * count, [0] * count, count), format_name
    ).labels


def marks(chain: Chain, batch: Any, row: int) -> str:
    """The trained text of a row."""
    fed = batch.fed(row)
    assert fed is not None
    return chain.tokenizer.decode([token for token, label in zip(*fed, strict=True) if label != -100])


@pytest.mark.parametrize(("strategy", "length"), [("bfd", 8), ("bfd_split", None), ("wrapped", None)])
def test_what_packing_does_to_a_long_row(strategy: str, length: int | None) -> None:
    text = {"text": "one two three four five six seven eight nine ten eleven twelve"}
    _, batch = chain_rows("text", text, max_length=8, packing=True, trainer_options={"packing_strategy": strategy})
    ids, labels = batch.fed(0)
    assert len(ids) == (length or len(batch.ids.flat))
    masked = [i for i, label in enumerate(labels) if label == -100]
    assert masked == {"bfd": [0], "bfd_split": list(range(0, len(ids), 8)), "wrapped": []}[strategy]


def test_packing_leaves_empty_rows_out() -> None:
    _, batch = chain_rows("tokenized", {"input_ids": []}, {"input_ids": [1, 2]}, packing=True)
    assert list(batch.dropped) == [0]


def test_padding_free_masks_the_first_label() -> None:
    _, batch = chain_rows("text", {"text": "a b c"}, max_length=None, trainer_options={"padding_free": True})
    assert batch.fed(0)[1][0] == -100
    assert -100 not in batch.fed(0)[1][1:]


def test_another_eos_token() -> None:
    chain, batch = chain_rows("text", {"text": "a"}, {"text": "a\n"}, trainer_options={"eos_token": "Ċ"})
    eos = chain.tokenizer.id_of("Ċ")
    assert eos is not None
    # the token is appended as it is spelt in the vocabulary, which is another text than it stands for
    assert chain.tokenizer.decode(batch.fed(0)[0]) == "aĊ"


def test_assistant_only_loss_refuses_what_is_no_conversation(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}", encoding="utf-8"
    )
    for trainer in ("trl", "trl@0.24"):
        _, batch = chain_rows("text", {"text": "a"}, train_on="assistant", chat_template=str(template), trainer=trainer)
        assert "no conversation" in batch.failures[0].message


def write_tokenizer(folder: Path, default: str, tool_use: str) -> str:
    from lorads.tokenizers.files import find

    folder.mkdir()
    folder.joinpath("tokenizer.json").write_bytes(find("deepseek-coder").model)
    folder.joinpath("chat_template.jinja").write_text(default, encoding="utf-8")
    extra = folder / "additional_chat_templates"
    extra.mkdir()
    extra.joinpath("tool_use.jinja").write_text(tool_use, encoding="utf-8")
    return str(folder)


def test_rows_with_tools_are_rendered_with_the_template_for_tools(tmp_path: Path) -> None:
    name = write_tokenizer(tmp_path / "tokenizer", "plain {{ messages[0].content }}", "tools {{ messages[0].content }}")
    said: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}]}
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    rows = [said, {**said, "tools": [tool]}, {**said, "tools": []}, {**said, "tools": None}]
    for trainer in ("trl", "trl@0.24", "transformers"):
        _, batch = chain_rows("messages", *rows, tokenizer=name, trainer=trainer)
        assert list(batch.texts) == ["plain hi", "tools hi", "tools hi", "plain hi"]
    _, batch = chain_rows("messages", *rows, tokenizer=name, trainer="trl@0.17")
    assert list(batch.texts) == ["plain hi"] * 4


HI = {"role": "user", "content": "hi"}
YO = {"role": "assistant", "content": "yo"}


def test_0_24_trains_conversational_prompts_under_transformers_5() -> None:
    row = {"prompt": [HI], "completion": [YO]}
    chain, batch = chain_rows("prompt-completion", row, trainer="trl@0.24")
    assert batch.fed(0)[1][:3] == [-100, -100, batch.fed(0)[0][2]]
    assert "hi" in marks(chain, batch, 0)
    chain, batch = chain_rows("prompt-completion", row, trainer="trl@0.24", trainer_options={"transformers": "4"})
    assert marks(chain, batch, 0).strip() == "yo\n<|EOT|>"


def test_0_24_and_0_17_drop_nothing() -> None:
    for trainer in ("trl@0.24", "trl@0.17"):
        labels = labelled(LONG, SHORT, max_length=16, trainer=trainer)
        assert not labels.dropped
        assert set(labels.fed(0)[1]) == {-100}


def test_0_17_counts_the_prompts_tokens() -> None:
    row = {"prompt": "a lo", "completion": "ng word"}
    chain, batch = chain_rows("prompt-completion", row, trainer="trl@0.17")
    assert len(batch.fed(0)[0]) > 3
    new, newer = chain_rows("prompt-completion", row)
    assert len(marks(chain, batch, 0)) < len(marks(new, newer, 0))


def test_0_17_trains_prompts_when_packing() -> None:
    _, batch = chain_rows("prompt-completion", SHORT, trainer="trl@0.17", packing=True)
    assert -100 not in batch.fed(0)[1]


@pytest.mark.parametrize(
    ("text", "options", "trained"),
    [
        ("Q: a\nA: b", {"response_marker": "A:"}, " b"),
        ("Q: a\nA: b\nQ: c\nA: d", {"response_marker": "A:"}, " d"),
        ("Q: a\nA: b\nQ: c\nA: d", {"response_marker": "A:", "instruction_marker": "Q:"}, " b\n d"),
        ("A: b\nQ: c\nA: d", {"response_marker": "A:", "instruction_marker": "Q:"}, " b\n d"),
        ("Q: a\nA: b\nQ: c", {"response_marker": "A:", "instruction_marker": "Q:"}, " b\n"),
        ("A: b", {"response_marker": "A:", "instruction_marker": "Q:"}, ""),
        ("Q: a", {"response_marker": "A:", "instruction_marker": "Q:"}, ""),
        ("Q: a", {"response_marker": "A:"}, ""),
        ("Q: a\nA:", {"response_marker": "A:"}, ""),
        ("", {"response_marker": "A:"}, ""),
    ],
)
def test_markers_of_0_17(text: str, options: dict[str, Any], trained: str) -> None:
    settings = {"trainer_options": {"pad_token": "<|EOT|>"}, **options}
    chain, batch = chain_rows("text", {"text": text}, trainer="trl@0.17", **settings)
    assert marks(chain, batch, 0) == trained


def test_the_pad_token_hides_a_marker_of_0_17() -> None:
    settings: dict[str, Any] = {"trainer_options": {"pad_token": "<|EOT|>"}, "response_marker": "<|EOT|>A:"}
    _, batch = chain_rows("text", {"text": "a<|EOT|>A: b"}, trainer="trl@0.17", **settings)
    assert set(batch.fed(0)[1]) == {-100}


def test_0_17_says_when_no_eos_is_trained() -> None:
    options: dict[str, Any] = {"trainer_options": {"pad_token": "<|EOT|>"}, "response_marker": "A:"}
    chain, _ = chain_rows("text", {"text": "a"}, trainer="trl@0.17", **options)
    assert "EOS" in chain.labeller.notes[0]


def test_a_prompt_must_end_with_a_question_for_0_17() -> None:
    row = {"prompt": [{"role": "system", "content": "a"}], "completion": [YO]}
    _, batch = chain_rows("prompt-completion", row, trainer="trl@0.17")
    assert "ends with the role" in batch.failures[0].message


@pytest.mark.parametrize(
    ("template", "fails"),
    [
        ("{{ m.content }}", False),
        ("{{ m.content }}{{ m.name }}", True),
        ("{% if m.name is none %}no {% endif %}{{ m.content }}", True),
        ("{% if m['name'] != none %}no {% endif %}{{ m.content }}", True),
        ("{% if m.content is not none %}{{ m.content }}{% endif %}", False),
    ],
)
def test_0_17_gives_templates_null(tmp_path: Path, template: str, fails: bool) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("{% for m in messages %}" + template + "{% endfor %}", encoding="utf-8")
    for row in ({"messages": [{**HI, "name": "ann"}, YO]}, {"messages": [{**HI, "name": None}, YO]}):
        _, batch = chain_rows("messages", row, trainer="trl@0.17", chat_template=str(file))
        assert bool(batch.failures) == fails


def test_0_17_continues_a_prompt_that_ends_with_an_answer() -> None:
    row = {"prompt": [HI, {**YO, "content": "yo "}], "completion": [{**YO, "content": "again"}]}
    chain, batch = chain_rows("prompt-completion", row, trainer="trl@0.17")
    assert marks(chain, batch, 0).endswith("again\n<|EOT|>\n") or marks(chain, batch, 0).endswith("again\n<|EOT|>")


def test_markers_of_0_17_take_no_prompts() -> None:
    _, batch = chain_rows("prompt-completion", SHORT, trainer="trl@0.17", response_marker="A:")
    assert batch.failures


TRAINERS = [
    *[("trl", {}), ("trl", {"packing": True}), ("trl@0.24", {}), ("trl@0.17", {}), ("trl@0.17", {"packing": True})],
    *[("trl@0.17", {"response_marker": "A:"}), ("trl@0.24", {"trainer_options": {"transformers": "4"}})],
    *[("transformers", {}), ("transformers", {"trainer_options": {"collator": "seq2seq"}}), ("trl-dpo", {})],
]


@pytest.mark.parametrize(("trainer", "options"), TRAINERS)
def test_every_place_has_a_reason(trainer: str, options: dict[str, Any]) -> None:
    labeller = Chain(Settings("deepseek-coder", trainer=trainer, **options)).labeller
    for place in Place:
        for trained in (False, True):
            assert len(labeller.reason(place, trained)) > 20
