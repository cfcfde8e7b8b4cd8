"""The main job, end to end: the demo's truth is found, and nothing else; how the work is cut changes nothing."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path
from typing import Any

import pytest

from lorads import reports
from lorads.demo.build import build
from lorads.engine import Settings, check
from lorads.errors import UsageError
from lorads.findings import Report, Severity

DEEPSEEK = Settings("deepseek-coder", workers=1)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("demo") / "lorads-demo"
    build(directory)
    return directory


def as_json(report: Report) -> dict[str, Any]:
    stream = io.StringIO()
    reports.get("json").write(report, stream)
    made: dict[str, Any] = json.loads(stream.getvalue())
    return made


def test_the_demo_is_found_and_nothing_else(demo: Path) -> None:
    truth = json.loads((demo / "truth.json").read_text(encoding="utf-8"))["faults"]
    found = check([str(demo / "data.jsonl")], DEEPSEEK)
    assert [(f.row, f.line, f.rule) for f in found.findings] == [(t["row"], t["line"], t["rule"]) for t in truth]
    assert found.summary.rows == found.summary.rows_kept == 4096
    assert found.fails(Severity.ERROR)


def test_the_clean_twin_is_clean(demo: Path) -> None:
    found = check([str(demo / "clean.jsonl")], DEEPSEEK)
    assert found.findings == []
    assert not found.fails(Severity.INFO)


@pytest.mark.parametrize(("workers", "block_bytes"), [(1, 50_000), (1, 1 << 20), (2, 200_000), (3, 77_777)])
def test_same_bytes_however_it_is_cut(demo: Path, workers: int, block_bytes: int) -> None:
    path = str(demo / "data.jsonl")
    whole = as_json(check([path], DEEPSEEK))
    cut = check([path], Settings("deepseek-coder", workers=workers, block_bytes=block_bytes))
    assert as_json(cut) == whole


def test_shuffled_rows_give_the_same_findings(demo: Path, tmp_path: Path) -> None:
    lines = (demo / "data.jsonl").read_bytes().splitlines(keepends=True)
    order = list(range(len(lines)))
    random.Random(3407).shuffle(order)
    shuffled = tmp_path / "data.jsonl"
    shuffled.write_bytes(b"".join(lines[i] for i in order))
    before = check([str(demo / "data.jsonl")], DEEPSEEK).findings
    after = check([str(shuffled)], DEEPSEEK).findings
    back = sorted((order[f.row or 0], f.rule, f.message, f.fingerprint) for f in after)
    assert back == [(f.row, f.rule, f.message, f.fingerprint) for f in before]


def test_compressed_and_piped_are_the_same(demo: Path, tmp_path: Path) -> None:
    packed = tmp_path / "data.jsonl.gz"
    packed.write_bytes(gzip.compress((demo / "data.jsonl").read_bytes()))
    plain = check([str(demo / "data.jsonl")], DEEPSEEK)
    found = check([str(packed)], DEEPSEEK)
    assert [(f.row, f.line, f.rule) for f in found.findings] == [(f.row, f.line, f.rule) for f in plain.findings]


def write(path: Path, *rows: Any) -> str:
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return str(path)


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_bad_lines_are_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", chat("one?", "1"), "{broken", "", chat("two?", ""), '{"text": 1}')
    found = check([path], DEEPSEEK)
    assert [(f.rule, f.row, f.line) for f in found.findings] == [
        ("FMT001", None, 2),
        ("FMT004", 1, 4),
        ("FMT002", 2, 5),
    ]
    assert (found.inputs[0].rows, found.inputs[0].bad_lines) == (3, 1)
    assert found.summary.rows_kept == 2


def test_select_and_ignore(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", chat("one?", ""), chat("one?", ""))

    def rules(**options: Any) -> set[str]:
        return {f.rule for f in check([path], Settings("deepseek-coder", workers=1, **options)).findings}

    assert rules() == {"FMT004"}
    assert rules(ignore=("FMT004",)) == set()
    assert rules(select=("DUP",)) == {"DUP001"}
    with pytest.raises(UsageError, match="no rule is called"):
        rules(select=("XYZ001",))


def test_severity_can_be_set(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", chat("one?", ""))
    found = check([path], Settings("deepseek-coder", workers=1, severities={"FMT004": Severity.INFO}))
    assert found.summary.by_severity == {"error": 0, "warning": 0, "info": 1}


def test_prompt_completion_whose_answer_is_cut_away_is_dropped_and_told_once(tmp_path: Path) -> None:
    rows = [{"prompt": "word " * 200, "completion": " yes"}, {"prompt": "short", "completion": " yes"}]
    found = check([write(tmp_path / "a.jsonl", *rows)], Settings("deepseek-coder", workers=1, max_length=64))
    assert [(f.rule, f.row) for f in found.findings] == [("LEN001", 0)]
    assert found.summary.rows_kept == 1


def test_several_files_number_their_own_rows(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", chat("one?", "1"), chat("two?", "2"))
    second = write(tmp_path / "b.jsonl", chat("three?", "3"), chat("two?", "2"))
    found = check([first, second], DEEPSEEK)
    assert [(f.rule, f.path, f.row, f.line) for f in found.findings] == [("DUP001", second, 1, 2)]
    assert "a.jsonl" in found.findings[0].message


def test_a_template_is_needed_for_messages(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no chat template"):
        check(
            [write(tmp_path / "a.jsonl", chat("one?", "1"))],
            Settings("deepseek-coder", chat_template="none", workers=1),
        )


def test_a_worker_that_dies_is_no_clean_result(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    from lorads.engine import run
    from lorads.errors import LoradsError

    monkeypatch.setattr(run, "_work", _die)
    with pytest.raises(LoradsError, match="worker process died"):
        check([str(demo / "data.jsonl")], Settings("deepseek-coder", workers=2, block_bytes=100_000))
    assert os.getpid()


def _die(*_: object) -> None:
    import os

    os._exit(9)
