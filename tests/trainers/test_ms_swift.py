"""ms-swift: settings, refusals, and edges small enough to be read. Parity is in ``tests/parity``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lorads.errors import UsageError
from lorads.formats import Columns, normalise
from lorads.tokenizers import Tokenizer, load
from lorads.trainers import LabelBatch, Place, TrainOptions, get, own_options
from lorads.trainers.ms_swift._guess import by_name
from lorads.trainers.ms_swift._loss import parse
from lorads.trainers.ms_swift._template import load_template, names


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load("deepseek-coder")


def label(tokenizer: Tokenizer, rows: list[dict[str, Any]], form: str = "messages", **settings: Any) -> LabelBatch:
    common = {key: settings.pop(key) for key in ("max_length", "train_on", "packing") if key in settings}
    trainer = get("ms-swift")
    own = own_options(trainer, {"template": "deepseek_coder", **settings})
    options = TrainOptions(**{"max_length": None, **common}, own=own)
    conversations: Any = normalise(rows, form, Columns())
    return trainer.prepare(tokenizer, None, options).label(conversations)


def trained(batch: LabelBatch, tokenizer: Tokenizer, row: int = 0) -> str:
    """The trained text, with a bar between stretches."""
    fed = batch.fed(row)
    assert fed is not None
    out, before = "", False
    for token, target in zip(*fed, strict=True):
        if target != -100:
            out += ("" if before or not out else "|") + tokenizer.token_text(token)
        before = target != -100
    return out


def chat(*contents: str, **extra: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)], **extra}


def test_every_round_and_its_suffix_is_trained(tokenizer: Tokenizer) -> None:
    batch = label(tokenizer, [chat("q", "one", "r", "two")])
    assert trained(batch, tokenizer) == "one\n<|EOT|>|two\n<|EOT|>"
    assert batch.texts is not None
    assert batch.texts[0].endswith("### Response:\ntwo\n<|EOT|>")


def test_no_suffix_behind_a_stop_word(tokenizer: Tokenizer) -> None:
    batch = label(tokenizer, [chat("q", "one<|EOT|>"), chat("q", "one\n<|EOT|>\n")])
    assert trained(batch, tokenizer) == "one<|EOT|>"
    assert trained(batch, tokenizer, 1) == "one\n<|EOT|>\n\n<|EOT|>"


def test_an_empty_answer_in_the_middle_trains_nothing(tokenizer: Tokenizer) -> None:
    assert trained(label(tokenizer, [chat("q", "", "r", "two")]), tokenizer) == "two\n<|EOT|>"
    assert trained(label(tokenizer, [chat("q", "")]), tokenizer) == "\n<|EOT|>"


def test_a_masked_last_answer_leaves_its_suffix_trained(tokenizer: Tokenizer) -> None:
    rows = [chat("q", "one", "r", "two")]
    rows[0]["messages"][3]["loss"] = False
    assert trained(label(tokenizer, rows), tokenizer) == "one\n<|EOT|>|\n<|EOT|>"


def test_weight_and_train_mean_nothing_to_swift(tokenizer: Tokenizer) -> None:
    rows = [chat("q", "one")]
    rows[0]["messages"][1] |= {"weight": 0, "train": False}
    assert trained(label(tokenizer, rows), tokenizer) == "one\n<|EOT|>"


@pytest.mark.parametrize(("setting", "train_on"), [("default", "last"), ("last_round", "default")])
def test_last_round(tokenizer: Tokenizer, setting: str, train_on: str) -> None:
    batch = label(tokenizer, [chat("q", "one", "r", "two")], loss_scale=setting, train_on=train_on)
    assert trained(batch, tokenizer) == "two\n<|EOT|>"


def test_all_but_the_first_label(tokenizer: Tokenizer) -> None:
    batch = label(tokenizer, [chat("q", "one")], train_on="all", system="S")
    assert trained(batch, tokenizer) == "### Instruction:\nq\n### Response:\none\n<|EOT|>"


def test_the_system_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("From a\\n file. ", encoding="utf-8")
    rows = [chat("q", "a"), {"messages": [{"role": "system", "content": ""}, *chat("q", "a")["messages"]]}]
    for system, text in (("Mind\\nthe gap.", "Mind\nthe gap."), (str(tmp_path / "system.txt"), "From a\\n file. ")):
        texts = label(tokenizer, rows, system=system).texts or []
        assert texts[0].startswith(f"{text}### Instruction:")
        assert texts[1].startswith("### Instruction:"), "an empty system message is no system text, and no default"
    with pytest.raises(UsageError, match=r"nowhere\.txt"):
        label(tokenizer, rows, system="nowhere.txt")


def test_messages_of_one_role_are_merged(tokenizer: Tokenizer) -> None:
    messages = [("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d")]
    rows = [{"messages": [{"role": role, "content": text} for role, text in messages]}]
    batch = label(tokenizer, rows, system="")
    assert list(batch.texts or ()) == ["### Instruction:\nab\n### Response:\ncd\n<|EOT|>"]
    assert trained(batch, tokenizer) == "cd\n<|EOT|>"


def test_an_assistant_who_begins_answers_nothing(tokenizer: Tokenizer) -> None:
    batch = label(tokenizer, [{"text": "all of it"}], "text", system="")
    assert list(batch.texts or ()) == ["### Instruction:\n\n### Response:\nall of it\n<|EOT|>"]


def test_columns_go_by_swifts_names(tokenizer: Tokenizer) -> None:
    rows = [
        {"prompt": "q", "completion": "a"},
        {"question": "q", "problem": "p", "completion": "a"},
        {"prompt": "q", "completion": "a", "system": "S."},
    ]
    batch = label(tokenizer, rows, "prompt-completion", system="")
    assert batch.texts is not None
    assert batch.texts[0] == "### Instruction:\nq\n### Response:\na\n<|EOT|>"
    assert batch.texts[1] == "### Instruction:\n\n### Response:\na\n<|EOT|>", "two questions are none"
    assert batch.texts[2].startswith("S.### Instruction:")


def test_preference_rows_have_no_answer(tokenizer: Tokenizer) -> None:
    batch = label(tokenizer, [{"prompt": "q", "chosen": "a", "rejected": "b"}], "preference", system="")
    assert list(batch.texts or ()) == ["### Instruction:\nq\n### Response:\n"]
    assert not batch.trained.any()


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([{"role": "user", "content": "q"}, {"role": "assistant", "content": None}], "no content"),
        ([{"role": "developer", "content": "d"}, {"role": "assistant", "content": "a"}], "does not know"),
        (
            [
                {"role": "user", "content": "q"},
                {"role": "system", "content": "s"},
                {"role": "assistant", "content": "a"},
            ],
            "by turns",
        ),
        ([{"role": "user", "content": "q"}, {"role": "tool", "content": "r"}], "agent template"),
        ([{"role": "user", "content": [{"type": "image"}]}, {"role": "assistant", "content": "a"}], "images"),
    ],
)
def test_rows_that_raise(tokenizer: Tokenizer, messages: list[dict[str, Any]], said: str) -> None:
    batch = label(tokenizer, [{"messages": messages}, chat("q", "a")])
    assert said in batch.failures[0].message
    assert batch.fed(0) is None
    assert trained(batch, tokenizer, 1) == "a\n<|EOT|>"


def test_exactly_at_the_limit(tokenizer: Tokenizer) -> None:
    rows = [chat("q", "one two three")]
    whole = label(tokenizer, rows).fed(0)
    assert whole is not None
    size = len(whole[0])
    assert not label(tokenizer, rows, max_length=size).dropped
    assert "delete" in label(tokenizer, rows, max_length=size - 1).dropped[0]
    left = label(tokenizer, rows, max_length=4, truncation_strategy="left").fed(0)
    assert left is not None
    assert left[0] == whole[0][-4:]
    assert left[1] == [-100, *whole[1][-3:]]
    right = label(tokenizer, rows, max_length=4, truncation_strategy="right").fed(0)
    assert right is not None
    assert right[0] == whole[0][:4]


def test_split_masks_the_first_label_of_each_piece(tokenizer: Tokenizer) -> None:
    rows = [{"text": "a b c d e f g h"}]
    settings = {"use_chat_template": False, "loss_scale": "all", "truncation_strategy": "split", "max_length": 3}
    fed = label(tokenizer, rows, "text", **settings).fed(0)
    assert fed is not None
    assert [i for i, target in enumerate(fed[1]) if target == -100] == [i for i in range(len(fed[0])) if i % 3 == 0]


def test_marks_of_templates_in_contents(tokenizer: Tokenizer) -> None:
    batch = label(tokenizer, [chat("{{ROUND1}} {{SYSTEM}} {{QUERY}}", "{{QUERY}}")], system="")
    assert list(batch.texts or ()) == ["### Instruction:\n1 {{SYSTEM}} {{QUERY}}\n### Response:\n{{QUERY}}\n<|EOT|>"]


def test_segments_say_what_stands_where(tokenizer: Tokenizer) -> None:
    batch = label(tokenizer, [chat("quite plain", "so so"), chat("{{ odd }}", "so")], system="S")
    for row, (asked, said) in enumerate((("quite plain", "so so"), ("{{ odd }}", "so"))):
        found = {0: "", 1: ""}
        segments = batch.segments
        for k in range(int(segments.rows[row]), int(segments.rows[row + 1])):
            ids = batch.ids.flat[segments.bounds[k] : segments.bounds[k + 1]].tolist()
            if segments.message[k] >= 0:
                found[int(segments.message[k])] += tokenizer.decode(ids)
        assert found[1] == said
        assert found[0].strip() == asked
        begin, end = batch.placed(row) if batch.placed else ([], [])
        assert len(begin) == len(batch.ids.row(row))
        assert batch.texts
        assert end[-1] == len(batch.texts[row])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"template": "nonsense"}, "does not have the ms-swift template"),
        ({"template": "gemma3_text", "system": "S"}, "takes no system text"),
        ({"template": "qwen3", "system": "S", "use_chat_template": False}, "takes no system text"),
        ({"loss_scale": "default+nonsense"}, "no loss scale"),
        ({"loss_scale": "agentflan"}, "agentflan"),
        ({"truncation_strategy": "split"}, "pre-training"),
        ({"template_backend": "jinja"}, "chat template"),
        ({"today": "tomorrow"}, "no day"),
        ({"train_on": "completion"}, "completions"),
        ({"train_on": "last", "loss_scale": "all"}, "loss_scale says all"),
        ({"template": "gpt_oss", "packing": True, "max_length": 9}, "packs no rows"),
    ],
)
def test_refusals(tokenizer: Tokenizer, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        label(tokenizer, [chat("q", "a")], **options)


def test_markers_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="markers"):
        get("ms-swift").prepare(tokenizer, None, TrainOptions(None, response_marker="x"))


def test_the_template_is_guessed_and_said(tokenizer: Tokenizer) -> None:
    notes = get("ms-swift").prepare(tokenizer, None, TrainOptions(None)).notes
    assert any("template deepseek" in note for note in notes)
    assert any("16384" in note for note in notes), "the model's own limit"


@pytest.mark.parametrize(
    ("model", "template"),
    [
        ("deepseek-ai/deepseek-coder-6.7b-instruct", "deepseek"),
        ("Qwen/Qwen3-4B-Instruct-2507", "qwen3_nothinking"),
        ("Qwen/Qwen3-8B", "qwen3"),
        ("Qwen/Qwen3-VL-2B-Instruct", None),
        ("/x/models--Qwen--Qwen2.5-7B-Instruct/snapshots/0", "qwen2_5"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3_2"),
        ("mine", None),
    ],
)
def test_templates_by_name(model: str, template: str | None) -> None:
    assert by_name(model) == template


def test_every_template_is_whole() -> None:
    tokenizer = load("deepseek-coder")
    for name in names():
        bound = load_template(name, tokenizer, system=None, chat=True, today="2026-01-31")
        assert bound.prompt
        assert not any("{{TODAY}}" in word for word in bound.prefix if isinstance(word, str))
    assert "31 Jan 2026" in str(load_template("llama3_2", tokenizer, system=None, chat=True, today="2026-01-31").prefix)


def test_scales_cut_texts() -> None:
    empty = parse("default+ignore_empty_think")
    assert empty.cut("<think>\n\n</think>\n\n  so") == [(0, 21, 0.0), (21, 23, 1.0)]
    assert parse("react").cut("Action: x") == [(0, 7, 2.0), (7, 9, 2.0)]
    assert parse("hermes").cut("") == []
    twice = empty.cut("<think></think></think> so")
    assert [weight for _, _, weight in twice] == [0.0, 0.0], "a part behind a match may match again, whole"


@pytest.mark.parametrize("backend", ["swift", "jinja"])
@pytest.mark.parametrize("scale", ["default", "last_round", "all"])
def test_a_reason_for_every_place(tokenizer: Tokenizer, backend: str, scale: str) -> None:
    from lorads.templates import Template

    own = own_options(get("ms-swift"), {"template": "deepseek_coder", "template_backend": backend, "loss_scale": scale})
    labeller = get("ms-swift").prepare(tokenizer, Template("{{ messages }}"), TrainOptions(None, own=own))
    for place in Place:
        for flag in (True, False):
            said = labeller.reason(place, flag)
            assert "ms-swift" in said
            assert "\n" not in said
