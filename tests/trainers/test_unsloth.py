"""Unsloth's search for markers against a plain walk, its refusals, and small cases with exact expectations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from lorads.engine.chain import Chain
from lorads.engine.feed import label_files
from lorads.engine.settings import Settings
from lorads.errors import UsageError
from lorads.sources import Records
from lorads.tokenizers import load
from lorads.tokenizers.ids import Ids
from lorads.trainers import get, versions
from lorads.trainers.base import Place
from lorads.trainers.unsloth._markers import find_marker
from lorads.trainers.unsloth._spans import Marker, Search, answers

MARKERS = {"response_marker": "### Response:\n", "instruction_marker": "### Instruction:\n"}


def flat(rows: list[list[int]]) -> Ids:
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(row) for row in rows], out=starts[1:])
    return Ids(np.array([number for row in rows for number in row], np.int32), starts)


def walked(row: list[int], search: Search, last_only: bool) -> list[bool]:
    """One row, token by token, as the module says that Unsloth does it."""
    answer, question, older = search.answer, search.question, search.older
    end, spans, at = len(row), [], 0

    def stands(what: tuple[int, ...], place: int) -> bool:
        return tuple(row[place : place + len(what)]) == what

    def behind(place: int, optional: tuple[int, ...]) -> int:
        for number in optional:
            if place + older >= end or row[place + older] != number:
                break
            place += 1
        return place

    while at < end:
        if not stands(answer.core, at):
            at += 1
            continue
        begin = behind(at + len(answer.core), answer.right)
        looked = place = begin
        while place < end:
            if not older:
                if row[place] == search.eos:
                    spans.append((begin, place + 1))
                    place += 1
                    break
                opens = bool(search.opener) and stands(search.opener, place)
                if row[place] == search.bos or opens or stands(answer.core, place):
                    spans.append((begin, place))
                    break
            if place == end - 1 or stands(question.core, place):
                if place < end - 1:
                    looked = place + len(question.core)
                stop = place
                for number in reversed(question.left):
                    if stop < 1 or row[stop - 1] != number:
                        break
                    stop -= 1
                spans.append((begin, end if stop == end - 1 else stop))
                place = end if stop == end - 1 else behind(looked, question.right) + older
                break
            if row[place] == question.core[0]:
                looked = place + len(question.core)
            place += 1
        at = place
    trained = [False] * end
    for first, stop in spans[-1:] if last_only else spans:
        for place in range(first, stop):
            trained[place] = True
    return trained


NUMBER = st.integers(0, 4)
SOME = st.lists(NUMBER, max_size=2).map(tuple)
CORE = st.lists(NUMBER, min_size=1, max_size=3).map(tuple)
MARKER = st.builds(Marker, CORE, SOME, SOME)
OPTIONAL = st.none() | NUMBER


@given(
    st.lists(st.lists(NUMBER, max_size=20), max_size=6),
    st.builds(Search, MARKER, MARKER, SOME, OPTIONAL, OPTIONAL, st.booleans()),
    st.booleans(),
)
@example([[0] * 7], Search(Marker((0, 0), (), (0, 0)), Marker((0, 0, 0)), older=True), False)  # goes on behind the end
def test_all_rows_at_once_find_what_a_walk_finds(rows: list[list[int]], search: Search, last_only: bool) -> None:
    expected = [flag for row in rows for flag in walked(row, search, last_only)]
    assert answers(flat(rows), search, last_only).tolist() == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([8, 5, 5, 2, 5], ".xxx."),  # EOS ends it and is trained
        ([8, 5, 5], ".xx"),  # so does the row's end
        ([8], "."),  # a marker at the end opens nothing
        ([8, 2], ".x"),  # an empty answer is its EOS
        ([8, 5, 7, 5], ".x.."),  # the question's marker
        ([8, 5, 7], ".xx"),  # which is not looked for in the last token
        ([8, 5, 1, 5], ".x.."),  # BOS of the next document
        ([8, 5, 8, 5], ".x.x"),  # another answer
        ([8, 8, 5], "..x"),
        ([7, 5, 5], "..."),
        ([], ""),
    ],
)
def test_what_ends_an_answer(row: list[int], expected: str) -> None:
    search = Search(Marker((8,)), Marker((7,)), bos=1, eos=2)
    assert "".join(".x"[int(flag)] for flag in answers(flat([row]), search, False)) == expected


def test_the_older_search_runs_over_eos() -> None:
    search = Search(Marker((8,)), Marker((7,)), bos=1, eos=2, older=True)
    assert answers(flat([[8, 5, 2, 6, 5, 7, 5]]), search, False).tolist() == [False, *[True] * 4, False, False]


def test_the_edges_of_a_marker_are_optional_where_a_token_anchors_it() -> None:
    tokenizer = load("deepseek-coder")
    alone = find_marker("Q:", tokenizer, True)
    assert alone is not None
    assert not alone.left + alone.right
    anchored = find_marker("<|EOT|>=", tokenizer, True)
    assert anchored is not None
    assert anchored.core == (tokenizer.special.added["<|EOT|>"],)
    assert len(anchored.right) == 1
    assert find_marker("", tokenizer, True) is None


def labelled(format_: str, *rows: dict[str, Any], trainer: str = "unsloth", **options: Any) -> Any:
    chain = Chain(Settings("deepseek-coder", format=format_, trainer=trainer, **options))
    count = len(rows)
    return chain.label(Records(list(rows), list(range(count)), [0] * count, [0] * count, count), format_).labels


def text(labels: Any, row: int) -> tuple[str, str]:
    """What is fed of a row, and what of it is trained."""
    ids, wanted = labels.fed(row)
    tokenizer = load("deepseek-coder")
    return tokenizer.decode(ids), tokenizer.decode([label for label in wanted if label != -100])


ASKED = "### Instruction:\nAdd.\n### Response:\n"


def test_a_text_gets_no_eos_and_is_trained_whole() -> None:
    assert text(labelled("text", {"text": "one two"}), 0) == ("one two", "one two")


def test_answers_alone() -> None:
    rows = [
        {"text": ASKED + "7<|EOT|>\nbye"},
        {"text": "no marker"},
        {"text": ASKED + "7"},
        {"text": ASKED + "a " * 99},
    ]
    labels = labelled("text", *rows, train_on="assistant", max_length=24, **MARKERS)
    assert text(labels, 0)[1] == "7<|EOT|>"
    assert text(labels, 2)[1] == "7"
    assert text(labels, 3)[1].startswith("a a")
    assert list(labels.dropped) == [1]
    assert "marker was not found" in labels.dropped[1]
    cut = labelled("text", rows[0], train_on="assistant", max_length=6, **MARKERS)
    assert "cut them all off" in cut.dropped[0]
    older = labelled("text", *rows, train_on="assistant", trainer="unsloth@2025.3", **MARKERS)
    assert text(older, 0)[1] == "7<|EOT|>\nbye"
    assert text(older, 1)[1] == ""


def test_the_last_answer_is_the_last_that_truncation_leaves() -> None:
    row = {"text": f"{ASKED}one<|EOT|>\n{ASKED}two<|EOT|>"}
    last = {"train_on": "last", **MARKERS}
    assert text(labelled("text", row, **last), 0)[1] == "two<|EOT|>"
    whole = len(labelled("text", row).fed(0)[0])
    assert text(labelled("text", row, max_length=whole - 2, **last), 0)[1] == "one<|EOT|>"


def test_masked_tokens_inside_answers() -> None:
    options = {"train_on": "assistant", "trainer_options": {"mask_out_tokens": ["7"]}, **MARKERS}
    assert text(labelled("text", {"text": ASKED + "7 and 7<|EOT|>"}, **options), 0)[1] == " and <|EOT|>"


def test_a_prompt_is_counted_and_a_row_without_label_stays() -> None:
    rows = [{"prompt": "x =", "completion": "= y"}, {"prompt": "word " * 30, "completion": " yes"}]
    labels = labelled("prompt-completion", *rows, max_length=16)
    assert text(labels, 0) == ("x == y<|EOT|>", " y<|EOT|>")
    assert text(labels, 1)[1] == ""
    assert not labels.dropped


def test_rows_that_need_a_formatting_function() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    found, written = labelled("messages", {"messages": turns}), labelled("messages", {"conversations": turns})
    assert text(found, 0) == text(written, 0)
    masked = labelled("messages", {"conversations": turns}, train_on="completion")
    assert "completion_only_loss" in masked.failures[0].message
    beside = labelled("messages", {"messages": turns, "text": "c"})
    assert "--format text" in beside.failures[0].message


def test_what_2025_3_stops_at() -> None:
    older = {"trainer": "unsloth@2025.3"}
    pair = labelled("prompt-completion", {"prompt": "a", "completion": "b"}, **older)
    assert "formatting_func" in pair.failures[0].message
    row = {"input_ids": [5, 6], "labels": [5, 6]}
    assert not labelled("tokenized", row, **older).failures
    assert labelled("tokenized", row, train_on="assistant", **MARKERS, **older).failures


def test_ids_are_cut_by_padding_free_batches_alone() -> None:
    rows = [{"input_ids": [5, 6, 7], "labels": [-100, -100, 7]}, {"input_ids": [5, 6], "labels": [5, 6]}]
    labels = labelled("tokenized", *rows, max_length=2)
    assert list(labels.dropped) == [0]
    assert labels.fed(1) == ([5, 6], [5, 6])
    padded = labelled("tokenized", *rows, max_length=2, trainer_options={"padding_free": "false"})
    assert padded.fed(0) == ([5, 6, 7], [-100, -100, 7])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_on": "assistant", "response_marker": "A:"}, "both markers or none"),
        ({"train_on": "assistant", "response_marker": "", "instruction_marker": "Q:"}, "no ids"),
        ({"train_on": "assistant", "chat_template": "none"}, "no chat template"),
        ({"train_on": "assistant", "packing": True}, "packs"),
        ({"packing": True, "max_length": None}, "maximum length"),
        ({**MARKERS}, "train_on_responses_only"),
        ({"trainer": "unsloth@2025.3", "train_on": "assistant"}, "both markers"),
        ({"trainer": "unsloth@2025.3", "train_on": "last"}, "last answer"),
        ({"trainer_options": {"force_mtach": "true"}}, "force_match"),
    ],
)
def test_refused_before_a_row_is_read(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        labelled("text", {"text": "a"}, **options)
    assert words in f"{refusal.value} {refusal.value.hint}"


def test_markers_told_from_the_template() -> None:
    chain = Chain(Settings("deepseek-coder", format="messages", trainer="unsloth", train_on="assistant"))
    assert "'### Response:" in chain.labeller.notes[0]


@pytest.mark.parametrize("train_on", ["default", "assistant"])
@pytest.mark.parametrize("trainer", [f"unsloth@{trainer.version}" for trainer in versions("unsloth")])
def test_every_place_has_a_reason(trainer: str, train_on: str) -> None:
    assert get(trainer).version in trainer
    markers = MARKERS if train_on == "assistant" else {}
    chain = Chain(Settings("deepseek-coder", format="text", trainer=trainer, train_on=train_on, **markers))
    for place in Place:
        for trained in (True, False):
            assert "nsloth" in chain.labeller.reason(place, trained)


def test_the_first_row_of_the_data_decides_for_all(tmp_path: Path) -> None:
    """Whether the tokenizer adds BOS is asked once, of the first row, however far away it is."""
    tokenizer = tmp_path / "t.json"
    model = load("deepseek-coder").model()
    bos = "<｜begin▁of▁sentence｜>"
    number = next(entry["id"] for entry in model["added_tokens"] if entry["content"] == bos)
    model["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [number], "tokens": [bos]}},
    }
    tokenizer.write_text(json.dumps(model), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": bos}), encoding="utf-8")
    paths = []
    for name, first in (("a", f"{bos}one"), ("b", "one")):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"text": t}) + "\n" for t in (first, "two")), encoding="utf-8")
        paths.append(path)
    settings = Settings(
        str(tokenizer), trainer="unsloth", format="text", load_as="file", chat_template="none", block_bytes=30
    )

    def begins(*order: Path) -> list[bool]:
        batches = label_files([str(path) for path in order], settings)
        labels = [fed.batch.labels for fed in batches]
        return [int(batch.ids.row(i)[0]) == number for batch in labels for i in range(len(batch.ids.starts) - 1)]

    assert begins(paths[0], paths[1]) == [True, False, False, False]
    assert begins(paths[1], paths[0]) == [True, True, True, True]
