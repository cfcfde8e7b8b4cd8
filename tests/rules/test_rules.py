"""What every built-in rule must have, and that its expression and its words stand up to rows without facts."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lorads.facts import FACTS, HIT, Facts
from lorads.facts.schema import polars_schema
from lorads.findings import DatasetRule, RowRule, Rule, Severity
from lorads.sources import ProblemKind
from lorads_rules import precedence, rules

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = ("Why it matters: ", "Example", "How to fix: ", "Not reported: ", "Evidence: ")
E, W = Severity.ERROR, Severity.WARNING

# id: name, severity, fix, and for each circumstance that changes it: the facts of a row and the severity there
CATALOGUE: dict[str, tuple[str, Severity, str, list[tuple[dict[str, Any], Severity]]]] = {
    "FMT001": ("unreadable-record", E, "safe", [({"record_problem": {"code": "bom"}}, W)]),
    "FMT002": ("unrecognised-row", E, "safe", []),
    "FMT003": (
        "role-sequence",
        E,
        "unsafe",
        [
            ({}, W),
            ({"render_problem": {"code": "raised"}}, E),
            ({"role_refused": {"code": "ignored"}}, E),
            ({"dropped": "no label is left"}, E),
            ({"dropped": "no label is left", "cut": True}, W),
        ],
    ),
    "FMT004": ("empty-answer", E, "safe", []),
    "TOK001": ("confusable-special-token", E, "safe", [({"confusable": {"code": "inside"}}, W)]),
    "TOK002": ("token-id-out-of-range", E, "none", []),
    "TOK005": ("control-token-in-content", E, "unsafe", [({"control_token": {"code": "inside"}}, W)]),
    "TOK007": ("duplicate-bos", W, "safe", []),
    "LAB001": ("no-trained-token", E, "safe", []),
    "LAB007": ("terminator-not-trained", W, "none", []),
    "LAB011": ("dropped-by-trainer", W, "none", []),
    "TPL001": ("content-lost", E, "none", [({"reasoning_lost_early": True}, W)]),
    "TPL002": ("role-unsupported", E, "unsafe", []),
    "TPL008": ("foreign-template", E, "none", [({"foreign_markup": {"code": "inside"}}, W)]),
    "TPL009": ("render-fails", E, "safe", []),
    "LEN001": ("answer-cut-away", E, "safe", []),
    "LEN002": ("answer-cut", W, "unsafe", []),
    "DUP001": ("duplicate-row", W, "safe", []),
    "TXT001": ("encoding-damage", W, "unsafe", [({"damage": {"code": "ansi"}}, Severity.INFO)]),
}

# The codes that the facts give, for which a rule must find words.
CODES = {
    "record_problem": list(get_args(ProblemKind)),
    "format_problem": ["no-column", "not-an-object"],
    "role_problem": ["unknown-role", "system-not-first", "repeated-role", "no-assistant", "last-not-assistant"],
    "answer_problem": ["missing", "null", "empty", "blank", "not-text"],
    "render_problem": ["raised", "error", "limit", "no-template", "stops", "not-reproduced"],
    "role_refused": ["refused", "ignored"],
    "content_lost": ["content", "reasoning", "tool_call", "tools"],
    "confusable": ["boundary", "inside"],
    "control_token": ["boundary", "inside"],
    "foreign_markup": ["boundary", "inside"],
    "damage": ["replacement", "nul", "control", "c1", "mojibake", "zero-width", "ansi"],
}
# A row as it is when a rule fires and the facts say no more than they must.
BARE: dict[str, Any] = {
    "row": 3,
    "line": 4,
    "max_token_id": 32256,
    "embedding_rows": 32256,
    "bos_count": 2,
    "bos_inside": 0,
    "label_tokens": 0,
    "answer_tokens": 1,
    "answer_tokens_fed": 0,
    "cut": True,
    "terminated": False,
}
every_rule = pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.id)


def row(**known: Any) -> dict[str, Any]:
    """The facts of a row by name, null where not given; a HIT given as its code alone has all other fields null."""
    fields = dict.fromkeys(field.name for field in polars_schema()["confusable"].fields)  # type: ignore[union-attr]
    out: dict[str, Any] = dict.fromkeys(FACTS)
    for name, value in known.items():
        out[name] = fields | value if FACTS[name].dtype == HIT else value
    return out


def frame(*rows: dict[str, Any]) -> pl.DataFrame:
    return pl.DataFrame(list(rows), schema=polars_schema())


def test_rules_are_those_of_the_catalogue() -> None:
    assert [rule.id for rule in rules()] == sorted(CATALOGUE)


@every_rule
def test_catalogue_facts(rule: Rule) -> None:
    name, severity, fix, circumstances = CATALOGUE[rule.id]
    assert (rule.name, rule.severity, rule.fix) == (name, severity, fix)
    assert re.sub(r"(?<!^)(?=[A-Z])", "-", type(rule).__name__).lower() == name
    for known, expected in circumstances:
        assert rule.severity_of(row(**known)) is expected


@every_rule
def test_file_is_named_after_the_rule(rule: Rule) -> None:
    path = Path(inspect.getfile(type(rule)))
    assert path.stem == rule.id
    assert path.parent.name == rule.id[:3].lower()
    assert (ROOT / "fixtures" / "rules" / f"{rule.id}.yaml").is_file()


@every_rule
def test_page_can_be_read(rule: Rule) -> None:
    page = rule.page()
    first, blank, *_ = page.splitlines()
    assert first.endswith(".")
    assert not blank
    places = [page.find(f"\n\n{section}") for section in SECTIONS]
    assert -1 not in places
    assert places == sorted(places)
    assert 12 <= len(page.splitlines()) <= 40


@every_rule
def test_evidence_is_on_the_page(rule: Rule) -> None:
    assert rule.evidence
    page = " ".join(rule.page().split())
    for thread in rule.evidence:
        assert thread in page
    threads = re.findall(r"[\w.-]+/[\w.-]+#\d+", page.rpartition("Evidence: ")[2])
    assert [thread for thread in rule.evidence if "#" in thread] == threads


def test_text_rules_do_not_claim_a_loss_of_zero() -> None:
    for rule in rules():
        if rule.id.startswith("TXT"):
            page = " ".join(rule.page().split())
            assert "makes answers worse, not the loss" in page


@every_rule
def test_expression_on_rows_without_facts(rule: Rule) -> None:
    for table, height in ((frame(), 0), (frame(row()), 1)):
        columns = [rule.when(Facts()).alias("when")]
        applies = rule.applies(Facts()) if isinstance(rule, RowRule) else None
        if applies is not None:
            columns.append(applies.alias("applies"))
        result = table.select(columns)
        assert result.height == height
        assert all(dtype == pl.Boolean for dtype in result.dtypes)
        assert not any(result.fill_null(value=False).row(0)) if height else True
    if isinstance(rule, DatasetRule):
        assert frame(row()).select(rule.key(Facts()).alias("key")).schema["key"] == pl.UInt64


@every_rule
def test_every_row_rule_says_where_it_applies(rule: Rule) -> None:
    if isinstance(rule, RowRule) and rule.every_row is not None:
        assert rule.every_row.rank > rule.severity.rank
        assert rule.applies(Facts()) is not None


def bare_rows(rule: Rule) -> list[dict[str, Any]]:
    if rule.place is None:
        return [row(**BARE)]
    return [row(**BARE, **{rule.place: {"code": code}}) for code in CODES[rule.place]]


@every_rule
def test_words_with_nothing_but_a_code(rule: Rule) -> None:
    for known in bare_rows(rule):
        assert rule.severity_of(known) in Severity
        for words in (rule.message(known), rule.hint(known)):
            assert words
            assert "None" not in words
            assert "  " not in words
            assert not words.endswith((".", ": "))
            assert words.isprintable()


@every_rule
def test_an_unknown_code_has_words_too(rule: Rule) -> None:
    if rule.place is not None:
        known = row(**BARE, **{rule.place: {"code": "something-new"}})
        assert rule.message(known)
        assert rule.hint(known)


@every_rule
@given(st.text(), st.integers(1, 2_000_000))
def test_text_of_the_data_is_shown_and_not_sent(rule: Rule, text: str, count: int) -> None:
    """Whatever stands in the data, a message is one line that no terminal obeys."""
    said = {"text": text, "expected": text, "detail": text, "field": text, "count": count, "message_index": 2}
    hits = {name: {"code": codes[0], **said} for name, codes in CODES.items()}
    known = row(**BARE, **hits, dropped=text, tokens=count, max_length=1, kind="text") | {"first_path": text}
    for words in (rule.message(known), rule.hint(known)):
        assert words.isprintable()


FIRES: list[tuple[str, dict[str, Any], bool]] = [
    ("TOK002", {"max_token_id": 32255, "embedding_rows": 32256}, False),
    ("TOK002", {"max_token_id": 32256, "embedding_rows": 32256}, True),
    ("TOK002", {"max_token_id": 32256}, False),
    ("TOK007", {"bos_count": 1, "bos_inside": 0, "kind": "text"}, False),
    ("TOK007", {"bos_count": 2, "bos_inside": 0, "kind": "messages"}, True),
    ("TOK007", {"bos_count": 1, "bos_inside": 1, "kind": "text"}, True),
    ("TOK007", {"bos_count": 1, "bos_inside": 1, "kind": "messages"}, False),
    ("TOK007", {"bos_count": 1, "bos_inside": 9, "kind": "tokenized"}, False),
    ("LAB001", {"label_tokens": 0}, True),
    ("LAB001", {"label_tokens": 1}, False),
    ("LAB001", {"label_tokens": 0, "dropped": "no label is left"}, False),
    ("LAB007", {"terminated": False, "label_tokens": 4}, True),
    ("LAB007", {"terminated": True, "label_tokens": 4}, False),
    ("LAB007", {"terminated": False, "label_tokens": 0}, False),
    ("LAB007", {"terminated": False, "label_tokens": 4, "dropped": "no label is left"}, False),
    ("LAB011", {"dropped": "no label is left"}, True),
    ("LEN001", {"cut": True, "answer_tokens": 5, "answer_tokens_fed": 0}, True),
    ("LEN001", {"cut": True, "answer_tokens": 5, "answer_tokens_fed": 0, "dropped": "no label is left"}, True),
    ("LEN001", {"cut": True, "answer_tokens": 0, "answer_tokens_fed": 0}, False),
    ("LEN001", {"cut": False, "answer_tokens": 5, "answer_tokens_fed": 0}, False),
    ("LEN002", {"cut": True, "answer_tokens": 5, "answer_tokens_fed": 4, "kind": "messages"}, True),
    ("LEN002", {"cut": True, "answer_tokens": 5, "answer_tokens_fed": 4, "kind": "text"}, False),
    ("LEN002", {"cut": True, "answer_tokens": 5, "answer_tokens_fed": 5, "kind": "messages"}, False),
    ("DUP001", {"sequence_hash": 1}, True),
    ("DUP001", {"sequence_hash": 1, "dropped": "no label is left"}, False),
]
ENDS = {"cut": True, "answer_tokens": 5, "answer_tokens_fed": 5, "terminated": True}
IDS = {"cut": True, "answer_tokens": 5, "answer_tokens_fed": 4, "kind": "tokenized", "tokens": 6}
FIRES += [
    ("LEN002", {**ENDS, "terminator_fed": False, "kind": "prompt-completion"}, True),
    ("LEN002", {**ENDS, "terminator_fed": True, "kind": "prompt-completion"}, False),
    ("LEN002", {**IDS, "label_tokens": 5}, False),
    ("LEN002", {**IDS, "label_tokens": 4}, True),
    *[
        (rule.id, {rule.place: {"code": code}}, True)
        for rule in rules()
        if rule.place is not None
        for code in CODES[rule.place]
    ],
]


@pytest.mark.parametrize(("rule_id", "known", "expected"), FIRES)
def test_expression(rule_id: str, known: dict[str, Any], expected: bool) -> None:
    rule = next(rule for rule in rules() if rule.id == rule_id)
    result = frame(row(**known)).select(rule.when(Facts()).fill_null(value=False).alias("when"))
    assert result.item() is expected


def test_precedence_names_rules_and_has_no_circle() -> None:
    table = precedence()
    ids = {rule.id for rule in rules()}
    assert set(table) <= ids
    for rule, explained in table.items():
        assert explained, f"{rule} explains nothing"
        assert explained <= ids - {rule}

    def below(rule: str, path: tuple[str, ...]) -> None:
        assert rule not in path, f"a circle: {' > '.join((*path, rule))}"
        for other in table.get(rule, ()):
            below(other, (*path, rule))

    for rule in table:
        below(rule, ())


def test_precedence_of_rows_that_were_not_read_or_understood() -> None:
    table = precedence()
    ids = {rule.id for rule in rules()}
    assert table["FMT001"] == ids - {"FMT001"}
    assert table["FMT002"] == ids - {"FMT001", "FMT002"}
    assert {"LAB001", "LAB007", "LAB011", "LEN001", "LEN002", "TPL001", "DUP001"} <= table["FMT004"]
    assert {"LEN002", "LAB001", "LAB007", "LAB011"} <= table["LEN001"]
    assert {"TPL009", "TPL001"} <= table["TPL002"]
