"""A fast way that turns out wrong is given up: everything is done again the certain way, and the report says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lorads.engine import Settings, check
from lorads.errors import UsageError
from lorads.templates import plans
from lorads.templates import template as templates
from lorads.tokenizers import EngineMismatch, Ids, engines, tokenizer


def rows(path: Path, count: int) -> str:
    with path.open("w", encoding="utf-8") as stream:
        for i in range(count):
            answer = "" if i == count // 2 else f"the number {i}"
            messages = [{"role": "user", "content": f"which one? {i}"}, {"role": "assistant", "content": answer}]
            stream.write(json.dumps({"messages": messages}) + "\n")
    return str(path)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a wrong engine leaves in the cache must not be found by others."""
    monkeypatch.setenv("LORADS_CACHE_DIR", str(tmp_path / "cache"))


def test_an_engine_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = engines.KitokenEngine.encode_flat

    def wrong(self: engines.KitokenEngine, texts: list[str]) -> Ids:
        ids = right(self, texts)
        if any("which one? 77" in text for text in texts):
            ids.flat = ids.flat.copy()
            ids.flat[:] = 1
        return ids

    monkeypatch.setattr(engines.KitokenEngine, "encode_flat", wrong)
    monkeypatch.setattr(tokenizer, "CHECK_ONE_IN", 1)
    monkeypatch.setattr(tokenizer, "CHECK_FROM_BYTES", 0)
    path = rows(tmp_path / "data.jsonl", 2000)
    found = check([path], Settings("deepseek-coder", workers=1, block_bytes=20_000))
    assert [(f.rule, f.row) for f in found.findings] == [("FMT004", 1000)]
    assert found.tokenizer.engine == "tokenizers"
    assert "done again" in found.notes[0]


def test_a_plan_that_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = plans.Plan.texts

    def wrong(self: plans.Plan, printed: list[list[str]]) -> list[str]:
        return [text + "?" for text in right(self, printed)]  # type: ignore[arg-type]

    monkeypatch.setattr(plans.Plan, "texts", wrong)
    monkeypatch.setattr(templates, "_WORTH_A_PLAN", {"minijinja": 1, "jinja2": 1})
    found = check([rows(tmp_path / "data.jsonl", 300)], Settings("deepseek-coder", workers=1))
    assert [(f.rule, f.row) for f in found.findings] == [("FMT004", 150)]
    assert "render from pieces" in found.notes[0]


def test_errors_cross_processes_whole() -> None:
    import pickle

    for error in (UsageError("what", "do this"), EngineMismatch("fastokens", "text"), plans.PlanMismatch("why")):
        back = pickle.loads(pickle.dumps(error))  # noqa: S301 (our own bytes)
        assert (type(back), str(back), vars(back)) == (type(error), str(error), vars(error))
