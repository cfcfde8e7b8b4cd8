from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lorads.cli import COMMANDS, cli

GOOD = {"messages": [{"role": "user", "content": "one and one?"}, {"role": "assistant", "content": "two"}]}
EMPTY = {"messages": [{"role": "user", "content": "one and one?"}, {"role": "assistant", "content": ""}]}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data.jsonl"
    path.write_text(f"{json.dumps(GOOD)}\n{json.dumps(EMPTY)}\n", encoding="utf-8")
    return path


def test_every_command_has_an_example() -> None:
    for name in COMMANDS:
        result = run(name, "--help")
        assert result.exit_code == 0
        assert f"lorads {name}" in re.split("Examples?:", result.output)[1]


def test_findings_exit_1(data: Path) -> None:
    result = run("check", data, "--tokenizer", "deepseek-coder")
    assert result.exit_code == 1
    assert "FMT004" in result.output
    assert "data.jsonl:2 (row 1)" in result.output


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--fail-on", "never"], 0),
        (["--ignore", "FMT004"], 0),
        (["--select", "LAB,DUP001"], 0),
        (["--select", "FMT"], 1),
        (["--output-format", "xml"], 2),
        (["--select", "NOPE"], 2),
        (["--trainer", "nobody"], 2),
        (["--max-length", "many"], 2),
        (["--train-on", "last"], 2),
        (["--train-on", "assistant"], 2),
        (["--config", "missing.toml"], 2),
        (["--chat-template", "missing.jinja"], 2),
    ],
)
def test_exit_codes(data: Path, options: list[str], code: int) -> None:
    result = run("check", data, "--tokenizer", "deepseek-coder", *options)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output


def test_no_tokenizer(data: Path) -> None:
    result = run("check", data)
    assert result.exit_code == 2
    assert "--tokenizer deepseek-coder" in result.output


def test_misspelt_tokenizer_and_command(data: Path) -> None:
    result = run("check", data, "--tokenizer", "deepseek-codr")
    assert (result.exit_code, "deepseek-coder" in result.output) == (2, True)
    result = run("chek")
    assert (result.exit_code, "Did you mean 'check'" in result.output) == (2, True)


def test_configuration_file_is_used_and_the_command_line_wins(data: Path) -> None:
    (data.parent / "lorads.toml").write_text('tokenizer = "deepseek-coder"\nfail-on = "never"\n', encoding="utf-8")
    assert run("check", data).exit_code == 0
    assert run("check", data, "--fail-on", "error").exit_code == 1
    (data.parent / "lorads.toml").write_text('tokenizr = "deepseek-coder"\n', encoding="utf-8")
    result = run("check", data)
    assert result.exit_code == 2
    assert 'did you mean "tokenizer"' in result.output


def test_json_is_the_contract(data: Path) -> None:
    result = run("check", data, "--tokenizer", "deepseek-coder", "--output-format", "json", "--workers", 1)
    report = json.loads(result.output)
    assert report["schema"] == 1
    assert report["inputs"][0] | {"sha256": ""} == {
        "path": str(data),
        "format": "messages",
        "rows": 2,
        "bad_lines": 0,
        "bytes": data.stat().st_size,
        "sha256": "",
    }
    assert report["tokenizer"]["vocab_size"] == 32022
    assert report["trainer"]["name"] == "trl"
    assert report["summary"]["by_severity"] == {"error": 1, "warning": 0, "info": 0}
    finding = report["findings"][0]
    assert set(finding) == {
        *("rule", "name", "severity", "path", "row", "line", "message_index", "field", "chars", "tokens"),
        *("message", "hint", "fix", "fingerprint"),
    }
    assert (finding["rule"], finding["row"], finding["line"], finding["fix"]) == ("FMT004", 1, 2, "safe")


def test_report_to_a_file(data: Path) -> None:
    out = data.parent / "report.json"
    arguments = ("check", data, "--tokenizer", "deepseek-coder", "--output-format", "json", "--output", out)
    assert run(*arguments).exit_code == 1
    assert json.loads(out.read_text(encoding="utf-8"))["schema"] == 1
    assert [path.name for path in data.parent.iterdir() if path.name.startswith(".")] == []
    assert run(*arguments[:-1], data.parent / "no" / "report.json").exit_code == 2


def test_tokenize_jsonl_and_parquet_agree(data: Path) -> None:
    import pyarrow.parquet as pq

    for suffix in ("jsonl", "parquet"):
        result = run("tokenize", data, "--tokenizer", "deepseek-coder", "-o", data.parent / f"out.{suffix}")
        assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (data.parent / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == pq.read_table(data.parent / "out.parquet").to_pylist()
    assert [(line["row"], line["line"]) for line in lines] == [(0, 1), (1, 2)]
    assert all(len(line["input_ids"]) == len(line["labels"]) for line in lines)


@pytest.mark.parametrize("out", ["out.csv", "data.jsonl", "no/out.jsonl"])
def test_tokenize_refuses(data: Path, out: str) -> None:
    before = data.read_bytes()
    result = run("tokenize", data, "--tokenizer", "deepseek-coder", "-o", out)
    assert result.exit_code == 2, result.output
    assert data.read_bytes() == before


def test_view_by_line_and_row(data: Path) -> None:
    for arguments in ((f"{data}:1",), (data, "--row", 0), (data,)):
        result = run("view", *arguments, "--tokenizer", "deepseek-coder")
        assert result.exit_code == 0, result.output
        assert "one and one?" in result.output
        assert "(row 0)" in result.output


@pytest.mark.parametrize("place", ["data.jsonl:9", "data.jsonl:0"])
def test_view_of_nothing(data: Path, place: str) -> None:
    result = run("view", data.parent / place, "--tokenizer", "deepseek-coder")
    assert result.exit_code == 2
    assert "holds no row" in result.output


def test_rules_and_explain() -> None:
    listed = json.loads(run("rules", "--output-format", "json").output)
    assert {"id", "name", "severity", "fix", "evidence", "summary"} == set(listed[0])
    for rule in listed:
        page = run("explain", rule["id"])
        assert page.exit_code == 0
        assert rule["name"] in page.output
    assert run("explain", "empty-answer").output == run("explain", "fmt004").output
    result = run("explain", "LAB01")
    assert (result.exit_code, "did you mean" in result.output) == (2, True)


def test_a_fault_of_lorads_itself_is_exit_2(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorads.engine import run as engine

    def broken(*_: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(engine, "_check", broken)
    result = run("check", data, "--tokenizer", "deepseek-coder")
    assert (result.exit_code, "internal error: ZeroDivisionError: oh" in result.output) == (2, True)


HOSTILE = "\x1b[31mred\x07 \u202eevil"


def test_nothing_from_the_data_reaches_the_terminal_raw(tmp_path: Path) -> None:
    rows: list[Any] = [
        {"messages": [{"role": HOSTILE, "content": HOSTILE}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE + "<|EOT|>"}]},
        {HOSTILE: 1},
    ]
    path = tmp_path / "data\x1b[2J.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + HOSTILE + "\n", encoding="utf-8")
    for arguments in (("check", path), ("view", f"{path}:2")):
        result = run(*arguments, "--tokenizer", "deepseek-coder")
        assert result.exit_code in (0, 1), result.output
        for char in "\x1b\x07\u202e":
            assert char not in result.output
