"""``lorads view --against`` and ``--why``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from lorads.cli import cli

ROW = {
    "messages": [
        {"role": "user", "content": "What is 2 + 2?"},
        {"role": "assistant", "content": "It is 4."},
    ]
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    return path


def view(data: Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, ["view", f"{data}:1", "--tokenizer", "deepseek-coder", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_trainer_against_itself_differs_in_nothing(data: Path) -> None:
    assert "Both build the same ids and the same labels." in view(data, "--against", "trl")


def test_what_two_trainers_do_otherwise_is_marked_and_explained(data: Path) -> None:
    told = view(data, "--against", "axolotl")
    assert "trl 1.16 trains these 7 tokens, axolotl 0.19 does not (user): What is 2 + 2?" in " ".join(told.split())
    assert "▸" in told
    assert "TRL trains every token of a conversation" in told


def test_an_unknown_trainer_is_named(data: Path) -> None:
    result = CliRunner().invoke(cli, ["view", f"{data}:1", "--tokenizer", "deepseek-coder", "--against", "trk"])
    assert result.exit_code == 2
    assert 'a trainer called "trk"' in result.output


@pytest.mark.parametrize(
    ("asked", "said"),
    [("0", "as part of: bos"), ("<|EOT|>", "as part of: turn-end"), ("What", "as part of: user")],
)
def test_why_explains_a_token_by_number_or_text(data: Path, asked: str, said: str) -> None:
    told = view(data, "--why", asked)
    assert said in told
    assert "because TRL" in told


def test_why_says_which_tokens_there_are(data: Path) -> None:
    result = CliRunner().invoke(
        cli, ["view", f"{data}:1", "--tokenizer", "deepseek-coder", "--why", "no such thing here"]
    )
    assert result.exit_code == 2
    assert "numbered from 0" in result.output
