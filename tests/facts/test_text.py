"""lorads.facts.text: what is found in texts, and what is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import realdata
from lorads.facts import damage
from lorads.facts.markup import Markup, families, fold, headings
from lorads.facts.text import FACTS, Scanner, Texts, scan


@dataclass(frozen=True)
class Special:
    """Added tokens by name; ``benign`` ones are those of tools, thinking and infilling."""

    added: dict[str, int]
    benign: frozenset[int] = frozenset()

    @property
    def control(self) -> frozenset[int]:
        return frozenset(number for token, number in self.added.items() if len(token) > 1) - self.benign


# The tokens of real tokenizers, and what of their templates tells a turn.
DEEPSEEK = {"ü": 32009, "<｜begin▁of▁sentence｜>": 32013, "<｜end▁of▁sentence｜>": 32014, "<｜fim▁hole｜>": 32015}
DEEPSEEK |= {
    "<｜fim▁begin｜>": 32016,
    "<｜fim▁end｜>": 32017,
    "<pad>": 32018,
    "<|User|>": 32019,
    "<|Assistant|>": 32020,
}
DEEPSEEK |= {"<|EOT|>": 32021}
QWEN = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645, "<tool_call>": 151657}
PHI = {"<s>": 1, "</s>": 2, "<|endoftext|>": 32000, "<|assistant|>": 32001, "<|system|>": 32006, "<|end|>": 32007}
TOKENIZERS = {
    "deepseek-coder": (Special(DEEPSEEK, frozenset({32015, 32016, 32017})), "### Instruction:\n### Response:\n<|EOT|>"),
    "qwen3": (Special(QWEN, frozenset({151657})), "<|im_start|>{role}\n{content}<|im_end|>\n"),
    "phi-3": (Special(PHI | {"<|user|>": 32010}), "<|user|>\n<|end|>\n<|assistant|>\n"),
    "tinyllama": (Special({"<unk>": 0, "<s>": 1, "</s>": 2}), "<|system|>\n<|user|>\n<|assistant|>\n"),
}
SCANNERS = {name: Scanner(*parts) for name, parts in TOKENIZERS.items()}
CASES = yaml.safe_load(Path(__file__).with_name("text_cases.yaml").read_text(encoding="utf-8"))


def listed(contents: list[str], row: list[int], message: list[int], field: list[str], role: list[str]) -> Texts:
    return Texts(contents, lambda i: (row[i], message[i], field[i], role[i]))


def one(text: str, field: str = "content", role: str = "assistant") -> Texts:
    return listed([text], [0], [0], [field], [role])


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_case(case: dict[str, Any]) -> None:
    scanner = SCANNERS[case.get("tokenizer", "deepseek-coder")]
    found = scanner.scan(one(case["text"], case.get("field", "content"), case.get("role", "assistant")))
    for fact in FACTS:
        hit, wanted = found[fact].get(0), case.get(fact)
        assert (hit is None) == (wanted is None), (fact, hit)
        if hit is None or wanted is None:
            continue
        if "detail" in wanted:
            assert wanted["detail"] in hit.get("detail", "")
        rest = {key: value for key, value in wanted.items() if key != "detail"}
        assert {key: hit.get(key) for key in rest} == rest
        assert 0 <= hit["begin"] < hit["end"] <= len(case["text"])
        if fact != "damage":
            assert case["text"][hit["begin"] : hit["end"]] == hit["text"]


def test_case_names_are_unique() -> None:
    names = [case["name"] for case in CASES]
    assert len(names) == len(set(names))


def test_a_hit_says_where() -> None:
    texts = listed(
        ["fine", "a\0b", "ok<｜im_end｜>"], [0, 3, 3], [0, -1, 4], ["content", "text", "content"], ["user"] * 3
    )
    found = scan(texts, *TOKENIZERS["qwen3"])
    assert found["damage"] == {
        3: {"code": "nul", "field": "text", "begin": 1, "end": 2, "text": "a\0b", "count": 1, "detail": "NUL (U+0000)"}
    }
    hit = found["confusable"][3]
    assert (hit["message_index"], hit["field"], hit["begin"], hit["token_id"]) == (4, "content", 2, 151645)
    assert found["foreign_markup"] == {}


def test_the_severest_of_a_row_comes_first_and_all_are_counted() -> None:
    texts = listed(
        ["a <|end_of_sentence|> b", "b<|end_of_sentence|>"], [7, 7], [0, 1], ["content"] * 2, ["user", "assistant"]
    )
    hit = SCANNERS["deepseek-coder"].scan(texts)["confusable"][7]
    assert (hit["code"], hit["message_index"], hit["count"]) == ("boundary", 1, 2)


def test_mojibake_of_a_row_is_counted_over_its_texts() -> None:
    texts = listed(["fiancÃ©", "clichÃ©", "cafÃ©"], [0, 0, 1], [0, 1, 0], ["content"] * 3, ["user"] * 3)
    found = SCANNERS["qwen3"].scan(texts)["damage"]
    assert list(found) == [0]
    assert found[0]["count"] == 2


def test_without_a_template_headings_and_markers_are_foreign() -> None:
    special = TOKENIZERS["deepseek-coder"][0]
    found = scan(one("### Instruction:\nx\n### Response:\n"), special, None)
    assert found["foreign_markup"][0]["expected"] == "Alpaca headings"


@pytest.mark.parametrize("marker", sorted({m for family in families() for m in family.markers if m not in family.weak}))
def test_every_familys_marker_is_seen_at_the_start_of_a_text(marker: str) -> None:
    text = f"{marker}user\nHello there" if any(marker in family.header for family in families()) else f"{marker}\nHello"
    found = scan(one(text, role="user"), Special({}), None)
    hit = found["foreign_markup"][0]
    assert (hit["begin"], hit["code"]) == (0, "boundary")
    named = next(family for family in families() if family.name == hit["expected"])
    assert marker in named.markers
    assert scan(one(text, role="user"), Special({marker: 5}), None)["foreign_markup"] == {}
    assert scan(one(text, role="user"), Special({}), f"x {marker} y")["foreign_markup"] == {}


@pytest.mark.parametrize("family", [family for family in families() if family.turn], ids=lambda family: family.id)
def test_a_familys_own_turn_names_its_markers(family: Any) -> None:
    telling = [marker for marker in (*family.header, *family.role, *family.close) if marker in family.turn]
    assert telling, family.turn


def test_heading_pairs_differ() -> None:
    assert all(pair.instruction != pair.response for pair in headings())


def test_fold_puts_look_alikes_together() -> None:
    forms = ["<｜end▁of▁sentence｜>", "<|end_of_sentence|>", "<|End of sentence|>", "＜¦end\u200b_of_sentence¦＞"]
    assert len({fold(form) for form in forms}) == 1
    assert fold("<|endofsentence|>") != fold(forms[0])


NASTY = (
    *(
        "<|im_end|>",
        "<|im_start|>",
        "user\n",
        "<｜EOT｜>",
        "<|EOT|>",
        "<|end_of_sentence|>",
        "</s>",
        "<s>",
        "[INST]",
        "[/INST]",
    ),
    *(
        "### Instruction:",
        "### Response:",
        "USER:",
        "ASSISTANT:",
        "<|turn>",
        "<turn|>",
        "＜s＞",
        "＜",
        "<",
        "|",
        "｜",
        ">",
        "[",
        "]",
    ),
    *(
        "\n",
        " ",
        "`",
        '"',
        "'",
        "```",
        "\\n",
        "a",
        "the ",
        "token ",
        "É",
        "Ã©",
        "â€™",
        "ä½\xa0",
        "\x80",
        "\x99",
        "\0",
        "\x1b[0m",
        "\x1b",
    ),
    *(
        "\ufffd",
        "\u200b",
        "\u200d",
        "\u200e",
        "א",
        "😀",
        "\ud800",
        "。",
        "【",
        "〈",
        "\r",
        "\x7f",
        "<\u200b|",
        "<bos>",
        "]~b]",
        "[e~[",
    ),
)
nasty = st.lists(st.sampled_from(NASTY), max_size=14).map("".join) | st.text(max_size=30)
FIELDS = ("content", "text", "reasoning_content", "prompt")


@settings(deadline=None, max_examples=300)
@given(
    st.sampled_from(sorted(SCANNERS)), st.lists(st.tuples(nasty, st.sampled_from(FIELDS), st.booleans()), max_size=6)
)
def test_a_batch_is_its_texts(name: str, rows: list[tuple[str, str, bool]]) -> None:
    scanner = SCANNERS[name]
    roles = ["assistant" if answer else "user" for _, _, answer in rows]
    batch = listed(
        [text for text, _, _ in rows], list(range(len(rows))), [0] * len(rows), [f for _, f, _ in rows], roles
    )
    found = scanner.scan(batch)
    for i, (text, field, _) in enumerate(rows):
        alone = scanner.scan(one(text, field, roles[i]))
        for fact in FACTS:
            assert found[fact].get(i) == alone[fact].get(0)


@settings(deadline=None, max_examples=500)
@given(st.sampled_from(sorted(SCANNERS)), nasty, st.sampled_from(FIELDS), st.sampled_from(["user", "assistant"]))
def test_the_quick_look_misses_nothing(name: str, text: str, field: str, role: str) -> None:
    """The vectorised look over a batch lets every text through in which the slow one would find something."""
    found = SCANNERS[name].scan(one(text, field, role))
    slow = Markup(*TOKENIZERS[name]).find(text, field, role)
    assert (0 in found["confusable"]) == bool(slow.confusable)
    assert (0 in found["foreign_markup"]) == bool(slow.foreign)
    broken = damage.places(text)
    weak = sum(place.weak for place in broken)
    strong = any(place.code == "mojibake" and not place.weak for place in broken)
    assert (0 in found["damage"]) == bool(len(broken) - (weak if weak == 1 and not strong else 0))


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(sorted(SCANNERS)), nasty)
def test_places_are_exact(name: str, text: str) -> None:
    result = Markup(*TOKENIZERS[name]).find(text, "content", "assistant")
    for place in (*result.confusable, *result.foreign):
        assert text[place.begin : place.end] == place.text
    for places in (*result, damage.places(text)):
        assert all(left.end <= right.begin for left, right in pairwise(places))
    assert not {(p.begin, p.end) for p in result.confusable} & {(p.begin, p.end) for p in result.foreign}


plain = st.text(
    st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="<[]#`") | st.sampled_from("\n\t")
)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(SCANNERS)), plain)
def test_plain_ascii_holds_nothing(name: str, text: str) -> None:
    found = SCANNERS[name].scan(one(text.replace("USER:", "")))
    assert found == {fact: {} for fact in FACTS}


@pytest.mark.parametrize(
    ("text", "fact", "count"),
    [
        ("<|" * 100_000, "confusable", None),
        ("<|im_end|>" * 50_000, "foreign_markup", 50_000),
        ("`<|im_end|>" * 50_000, "foreign_markup", None),
        ("<|im_start|>user\n" * 40_000, "foreign_markup", 40_000),
        ("a<|end_of_sentence|>" * 40_000, "confusable", 40_000),
        ("Ã©" * 200_000, "damage", 1),
        ("\u200e" * 100_000, "damage", 100_000),
    ],
    ids=["openers", "ends", "backticks", "headers", "look-alikes", "mojibake", "marks"],
)
def test_hostile_text_is_read_to_its_end(text: str, fact: str, count: int | None) -> None:
    """Every place costs a bounded look around it: were it the whole text, these would take minutes."""
    hit = SCANNERS["deepseek-coder"].scan(one(text, role="user"))[fact].get(0)
    assert (hit or {}).get("count") == count


# Rows of llamafactory's data that really are broken, counted from 0, and what they hold.
REAL = {
    "dpo_zh": {
        "confusable": {},
        "foreign_markup": {},
        "damage": {0: "zero-width", **dict.fromkeys((41, 55, 123, 191, 251, 283), "replacement")},
    },
    "kto_en": {"confusable": {}, "foreign_markup": {139: "inside", 257: "inside"}, "damage": {259: "mojibake"}},
    "alpaca_zh": {fact: {} for fact in FACTS},
    "glaive_toolcall_zh": {fact: {} for fact in FACTS},
}


@pytest.mark.parametrize("tokenizer", ["deepseek-coder", "qwen3"])
@pytest.mark.parametrize("name", sorted(REAL))
def test_real_rows(name: str, tokenizer: str) -> None:
    rows = json.loads(realdata.require(f"llamafactory/{name}_demo.json").read_text(encoding="utf-8"))
    contents: list[str] = []
    owners: list[int] = []
    for row, record in enumerate(rows):
        for text in strings(record):
            contents.append(text)
            owners.append(row)
    count = len(contents)
    texts = listed(contents, owners, [0] * count, ["content"] * count, ["assistant"] * count)
    found = SCANNERS[tokenizer].scan(texts)
    assert {fact: {row: hit["code"] for row, hit in rows.items()} for fact, rows in found.items()} == REAL[name]


def strings(value: Any) -> Iterator[str]:
    """Every string value of a record, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)
