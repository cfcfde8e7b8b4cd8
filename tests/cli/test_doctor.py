from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from doctor import standin
from lorads.cli import cli


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["doctor", *(str(argument) for argument in arguments)])


@pytest.fixture
def spaceless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    standin.write(tmp_path / "installed", "5.3.0", "spaceless")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))


@pytest.mark.usefixtures("spaceless")
def test_a_newcomer_is_told_what_is_wrong_and_what_to_install() -> None:
    result = run("--tokenizer", "deepseek-coder")
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "transformers 5.3.0 loses text" in said
    assert "spaces" in said
    assert 'pip install "transformers>=5.22"' in said
    assert "Something is wrong: 1 error, 1 warning" in said


@pytest.mark.usefixtures("spaceless")
def test_json(tmp_path: Path) -> None:
    target = tmp_path / "out.json"
    result = run("--tokenizer", "deepseek-coder", "--output-format", "json", "--output", target)
    assert (result.exit_code, result.output) == (1, "")
    answer = json.loads(target.read_text(encoding="utf-8"))
    assert answer["schema"] == 1
    assert answer["verdict"] == "differs"
    assert answer["environment"]["packages"]["transformers"] == "5.3.0"
    assert answer["tokenizer"]["vocab_size"] == 32022
    first = answer["findings"][0]
    assert (first["rule"], first["code"], first["severity"], first["measured"]) == (
        *("META002", "text-lost", "error"),
        True,
    )
    assert set(first) == {
        *("rule", "code", "severity", "measured", "title", "effect", "advice", "example", "threads"),
    }


def test_what_a_library_says_reaches_no_terminal_raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    standin.write(tmp_path / "installed", "5.23.0", "raises")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    result = run("--tokenizer", "deepseek-coder")
    assert result.exit_code == 1
    assert "\x1b[31m" not in result.output
    assert "no such \\x1b[31mtokenizer" in result.output


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the interpreter")
def test_nothing_installed_is_no_fault(tmp_path: Path) -> None:
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    result = run("--tokenizer", "deepseek-coder", "--python", wrapper)
    assert result.exit_code == 0
    assert "EOS is <|EOT|> (32021)" in result.output
    assert "transformers is not installed there" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--tokenizer", "deepseek-codr"],
        ["--tokenizer", "deepseek-coder", "--python", "/nowhere/python"],
        ["--tokenizer", "deepseek-coder", "--chat-template", "missing.jinja"],
        ["--tokenizer", "deepseek-coder", "--output-format", "xml"],
    ],
)
def test_what_could_not_be_done_is_exit_2(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
