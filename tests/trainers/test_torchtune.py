"""What the recordings of the real library do not show by themselves: refusals, guesses, reasons, edges in small."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lorads.engine.chain import Chain
from lorads.engine.settings import Settings
from lorads.errors import UsageError
from lorads.sources import Records
from lorads.trainers import LabelBatch, Place, get
from lorads.trainers.torchtune import _vocabulary

LLAMA3 = {
    "tokenizer_style": "llama3",
    "special_tokens": "<|begin_of_text|>=32013,<|end_of_text|>=32014,<|start_header_id|>=32015,<|end_header_id|>=32016,"
    "<|eom_id|>=32017,<|eot_id|>=32021,<|python_tag|>=32018",
}
QWEN = {
    "tokenizer_style": "qwen2",
    "special_tokens": "<|endoftext|>=32014,<|im_start|>=32015,<|im_end|>=32021",
}
BOS, EOS, START, END, EOT = 32013, 32014, 32015, 32016, 32021
HELLO = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def labelled(rows: list[Any], tokenizer: str = "deepseek-coder", form: str = "messages", **options: Any) -> LabelBatch:
    chain = Chain(Settings(tokenizer, trainer="torchtune", format=form, **options))
    count = len(rows)
    records = Records(rows, list(range(count)), [0] * count, [0] * count, count)
    return chain.label(records, form).labels


def chat(*turns: dict[str, Any], **options: Any) -> LabelBatch:
    return labelled([{"messages": list(turns)}], **options)


@pytest.fixture(scope="module")
def sentencepiece(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tokenizer.json like Llama 2's: three control tokens, the bytes, a few pieces."""
    pieces = ["▁", "a", "b", "s", "<", "/", ">", "▁a", "▁b", "I", "N", "S", "T", "[", "]"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    model = {
        "type": "BPE",
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": [["▁", "a"], ["▁", "b"]],
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
    }
    added = [
        {"id": i, "content": token, "special": True, "normalized": False}
        | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
        for i, token in enumerate(tokens[:3])
    ]
    normalizers = [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ]
    folder = tmp_path_factory.mktemp("spm")
    whole = {"version": "1.0", "added_tokens": added, "model": model, "pre_tokenizer": None, "post_processor": None}
    whole |= {"normalizer": {"type": "Sequence", "normalizers": normalizers}, "decoder": None}
    (folder / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def test_llama3_trains_the_header_and_masks_both_ends() -> None:
    ids, labels = chat(*HELLO, trainer_options=LLAMA3).fed(0) or ([], [])
    assert [ids[0], ids[1], ids[-2], ids[-1]] == [BOS, START, EOT, EOS]
    answer = [i for i, token in enumerate(ids) if token == START][1]
    assert labels[:answer] == [-100] * answer
    assert labels[answer:-1] == ids[answer:-1]
    assert labels[-1] == -100


def test_control_tokens_in_a_text_are_text_to_llama3() -> None:
    said = [HELLO[0], {"role": "assistant", "content": "<|EOT|>"}]
    ids, _ = chat(*said, trainer_options=LLAMA3).fed(0) or ([], [])
    assert ids.count(EOT) == 2


def test_a_row_with_an_empty_text_has_places() -> None:
    batch = chat(HELLO[0], {"role": "assistant", "content": ""}, trainer_options=LLAMA3)
    assert batch.texts is not None
    assert batch.placed is not None
    begin, end = batch.placed(0)
    assert len(begin) == len(batch.ids.flat)
    assert end[-1] == len(batch.texts[0])


@pytest.mark.parametrize("limit", [1, 5, 9])
def test_a_row_that_is_cut_ends_with_eos(limit: int) -> None:
    whole, _ = chat(*HELLO, trainer_options=LLAMA3).fed(0) or ([], [])
    ids, labels = chat(*HELLO, trainer_options=LLAMA3, max_length=limit).fed(0) or ([], [])
    assert ids == [*whole[: limit - 1], EOS]
    assert labels[-1] == -100


def test_qwen_masks_its_last_token_once_there_is_a_maximum_length() -> None:
    _, free = chat(*HELLO, trainer_options=QWEN).fed(0) or ([], [])
    ids, limited = chat(*HELLO, trainer_options=QWEN, max_length=4096).fed(0) or ([], [])
    assert free[-1] == ids[-1] == EOT
    assert limited == [*free[:-1], -100]


def test_llama2_puts_bos_and_eos_around_turns(sentencepiece: str) -> None:
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "user", "assistant")]
    options = {"prompt_template": "null"}
    ids, labels = chat(*turns, tokenizer=sentencepiece, trainer_options=options).fed(0) or ([], [])
    # ▁a, and behind it a without the space that SentencePiece puts in front of a text
    turn = [1, 266, 260, 2]
    assert ids == turn + turn
    assert labels == [-100, -100, 260, 2] * 2


def test_the_last_token_becomes_eos_even_where_nothing_is_cut(sentencepiece: str) -> None:
    turns = [
        {"role": "user", "content": "a b"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "b"},
    ]
    options = {"prompt_template": "null"}
    free, _ = chat(*turns, tokenizer=sentencepiece, trainer_options=options).fed(0) or ([], [])
    ids, labels = chat(*turns, tokenizer=sentencepiece, trainer_options=options, max_length=50).fed(0) or ([], [])
    assert ids == [*free[:-1], 2]
    assert labels[-1] == -100


def test_control_tokens_in_a_text_are_text_to_sentencepiece(sentencepiece: str) -> None:
    ids, _ = labelled([{"text": "</s>"}], sentencepiece, "text").fed(0) or ([], [])
    assert ids == [1, 259, 263, 264, 262, 265, 2]


def test_alpaca_trains_on_the_prompt_unless_told_otherwise() -> None:
    row = {"instruction": "Say a", "input": "", "output": "a", "system": "Be brief"}
    batch = labelled([row], form="alpaca", trainer_options=LLAMA3)
    ids, labels = batch.fed(0) or ([], [])
    assert labels[1:-1] == ids[1:-1]
    assert [lost.whole_message for lost in batch.lost[0]] == [True]
    _, answers = labelled([row], form="alpaca", trainer_options=LLAMA3, train_on="completion").fed(0) or ([], [])
    assert -100 in answers[1:-1]


def test_a_null_content_says_again_what_was_said_before() -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    null, _ = chat(HELLO[0], call, trainer_options=LLAMA3).fed(0) or ([], [])
    again, _ = chat(HELLO[0], {"role": "assistant", "content": "Hi"}, trainer_options=LLAMA3).fed(0) or ([], [])
    assert null == again


@pytest.mark.parametrize(
    ("turns", "words"),
    [
        ([HELLO[0]], "at least two"),
        ([HELLO[0], *HELLO], "both the user's"),
        ([*HELLO, {"role": "system", "content": "x"}], "may only be the first"),
        ([{"role": "user", "content": None}, HELLO[1]], "UnboundLocalError"),
        ([HELLO[0], {"role": "assistant"}], "KeyError"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, HELLO[1]], "image"),
    ],
)
def test_a_row_at_which_it_stops_is_a_failure(turns: list[Any], words: str) -> None:
    batch = chat(*turns, trainer_options=LLAMA3)
    assert words in batch.failures[0].message
    assert len(batch.ids.flat) == 0
    assert batch.fed(0) is None


def test_sharegpt_knows_three_roles() -> None:
    rows = [
        {"conversations": [{"from": name, "value": "a"}, {"from": "gpt", "value": "b"}]} for name in ("human", "user")
    ]
    batch = labelled(rows, form="sharegpt", trainer_options=LLAMA3)
    assert list(batch.failures) == [1]


def test_text_is_cut_to_one_less() -> None:
    ids, labels = labelled([{"text": "one two three four"}], form="text", max_length=3).fed(0) or ([], [])
    assert len(ids) == 2
    assert labels == ids


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train_on": "last"}, "last answer"),
        ({"packing": True}, "max_seq_len"),
        ({"response_marker": "x"}, "markers"),
        ({"trainer_options": {"tokenizer_style": "llama3"}}, "<|begin_of_text|>"),
        ({"trainer_options": {"tokenizer_style": "llama3", "special_tokens_path": "true"}}, "needs the control token"),
        ({"trainer_options": {"tokenizer_style": "llama2"}}, "does not fit"),
        ({"trainer_options": {"tokenizer_style": "gemma"}}, "gemma_tokenizer"),
        ({"trainer_options": {"base_tokenizer": "own"}}, "has no tokenizer"),
        ({"trainer_options": {**LLAMA3, "prompt_template": "NoSuchTemplate"}}, "NoSuchTemplate"),
        ({"trainer_options": {**LLAMA3, "prompt_template": "{"}}, "JSON"),
        ({"trainer_options": {**QWEN, "prompt_template": "torchtune.data.ChatMLTemplate"}}, "ChatMLTemplate"),
        ({"trainer_options": {"special_tokens": "x", "tokenizer_style": "llama3"}}, "NAME=ID"),
    ],
)
def test_refused_before_a_row_is_looked_at(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refusal:
        chat(*HELLO, **options)
    assert words in refusal.value.message


def test_a_guess_is_told(sentencepiece: str) -> None:
    known = Chain(Settings(sentencepiece, trainer="torchtune"))
    assert "llama2_tokenizer" in known.labeller.notes[0]
    unknown = Chain(Settings("deepseek-coder", trainer="torchtune"))
    assert "HuggingFaceBaseTokenizer" in unknown.labeller.notes[0]


def test_texts_and_places_stand_for_the_tokens(sentencepiece: str) -> None:
    batch = chat(*HELLO, {"role": "user", "content": " é a "}, HELLO[1], tokenizer=sentencepiece)
    assert batch.texts is not None
    assert batch.placed is not None
    begin, end = batch.placed(0)
    assert len(begin) == len(end) == len(batch.ids.flat)
    assert batch.texts[0].startswith("<s>[INST]Hi")
    assert end[-1] == len(batch.texts[0])
    assert (begin <= end).all()
    assert (begin[1:] >= begin[:-1]).all()


def test_long_runs_are_cut_as_tiktoken_gets_them() -> None:
    assert list(_vocabulary.cut("a" * 25_000)) == ["a" * 25_000]
    assert list(map(len, _vocabulary.cut("a" * 25_001 + " b"))) == [25_000, 3]
    assert list(map(len, _vocabulary.cut(" " * 60_000))) == [25_000, 25_000, 10_000]
    assert list(map(len, _vocabulary.cut("ab " * 200_000))) == [400_000, 200_000]


def test_every_place_has_its_reason() -> None:
    for options in (LLAMA3, QWEN):
        labeller = Chain(
            Settings("deepseek-coder", trainer="torchtune", max_length=9, trainer_options=options)
        ).labeller
        for place in Place:
            for trained in (True, False):
                assert labeller.reason(place, trained)


def test_its_version_can_be_named() -> None:
    assert get("torchtune@0.6.1").version == "0.6.1"
