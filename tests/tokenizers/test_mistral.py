"""The vocabularies of mistral-common: ids recorded from it, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import realdata
from lorads.errors import UsageError
from lorads.tokenizers import load, mistral

TEXTS = (
    "",
    " ",
    "hi",
    "<s>[INST] a[/INST]</s>",
    " " * 15,
    " " * 33 + "x",
    "a▁b",
    "\n\r\n\t",
    "\u00e9 e\u0301 \U0001f469\u200d\U0001f4bb \u0f00",
    "[REFERENCE_DOC_7]a",
    "12345 XyZ'll",
    "<0x0A>\x00",
)
RECORDED: dict[str, list[list[int]]] = {
    "tokenizer.model.v1": [
        [],
        [259],
        [12014],
        [523, 28713, 28767, 28792, 16289, 28793, 264, 28792, 28748, 16289, 28793, 700, 28713, 28767],
        [359],
        [359, 359, 28705, 1318],
        [264, 287],
        [28705, 13, 28801, 13, 12],
        [1233, 317, 28949, 28705, 243, 162, 148, 172, 29274, 243, 162, 149, 190, 28705, 227, 191, 131],
        [733, 14329, 725, 15683, 28730, 5170, 28743, 28730, 28787, 28793, 28708],
        [28705, 28740, 28750, 28770, 28781, 28782, 1500, 28724, 28828, 28742, 584],
        [523, 28734, 28744, 28734, 28741, 28767, 3],
    ],
    "mistral_instruct_tokenizer_240323.model.v3": [
        [],
        [1027],
        [12782],
        [1291, 29481, 29535, 29560, 17057, 29561, 1032, 29560, 29516, 17057, 29561, 1468, 29481, 29535],
        [1127],
        [1127, 1127, 29473, 2086],
        [1032, 1055],
        [29473, 781, 29569, 781, 780],
        [2001, 1085, 29717, 29473, 1011, 930, 916, 940, 30042, 1011, 930, 917, 958, 29473, 995, 959, 899],
        [29473, 763, 29476],
        [29473, 29508, 29518, 29538, 29549, 29550, 2268, 29492, 29596, 29510, 1352],
        [1291, 29502, 29512, 29502, 29509, 29535, 771],
    ],
    "tekken_240718.json": [
        [],
        [1032],
        [8101],
        [1060, 1115, 110391, 3174, 3074, 1093, 1261, 1091, 1047, 3174, 3074, 103324, 1115, 1062],
        [1694],
        [3279, 2460],
        [1097, 42851, 1129, 1098],
        [1010, 1013, 1010, 1009],
        [1337, 1324, 1204, 1129, 119685, 1145, 1169, 29568, 1240, 1159, 1146, 1187, 1032, 1224, 1188, 1128],
        [1091, 34220, 2794, 72538, 7475, 11815, 1095, 1055, 1093, 1097],
        [1049, 1050, 1051, 1052, 1053, 2628, 1121, 1090, 7534],
        [1060, 1048, 1120, 1048, 1065, 1062, 1000],
    ],
}
"""What mistral-common 1.5.4 encodes ``TEXTS`` to, without BOS and EOS."""


@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("engine", ["tokenizers", "fastokens"])
def test_ids(name: str, engine: str) -> None:
    tokenizer = load(str(realdata.require(f"mistral-common/{name}")))
    tokenizer.use_engine(engine)  # type: ignore[arg-type]
    ids = tokenizer.encode(list(TEXTS))
    assert [ids.row(i).tolist() for i in range(len(TEXTS))] == RECORDED[name]


@pytest.mark.parametrize("name", RECORDED)
def test_control_tokens(name: str) -> None:
    tokenizer = load(str(realdata.require(f"mistral-common/{name}")))
    special = tokenizer.special
    assert (special.bos_id, special.eos_id, special.unk_id) == (1, 2, 0)
    assert not special.added
    assert not special.disagreements
    assert not tokenizer.notes
    assert tokenizer.encode(["a"], add_special_tokens=True).flat[0] == 1
    assert tokenizer.decode([1, *tokenizer.encode(["hi"]).flat.tolist()]).endswith("hi")
    if name != "tokenizer.model.v1":
        assert tokenizer.id_of("[INST]") == 3


@pytest.mark.parametrize("name", RECORDED)
def test_places(name: str) -> None:
    """Tokens stand for the text without gaps."""
    tokenizer = load(str(realdata.require(f"mistral-common/{name}")))
    for text in ("Hello, world! <s> [INST]\n\n  done", "né [REFERENCE_DOC_0] x"):
        ids, spans = tokenizer.encode_with_spans([text])
        assert spans.begin[0] == 0
        assert spans.end[-1] == len(text)
        assert len(ids.flat) == len(spans.begin)


def test_second_load_takes_what_the_first_made(monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(realdata.require("mistral-common/tokenizer.model.v1"))
    first = load(path)
    monkeypatch.setattr(mistral, "_sentencepiece", None)
    assert load(path).sha256 == first.sha256


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.model", b""),
        ("tokenizer.model.v3", b"\xff\xff\xff"),
        ("tokenizer.model", b"\x0a\x05\x0a\x03<s>"),
        ("tokenizer.model.v1", b"\x0a\xff\x01"),
        ("tekken_240718.json", b"[]"),
        ("tekken.json", b"{}"),
        ("tekken.json", json.dumps({"config": {"default_num_special_tokens": 2}, "vocab": []}).encode()),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match="no tokenizer of mistral-common"):
        load(str(tmp_path / name))
