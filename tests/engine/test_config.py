from __future__ import annotations

from pathlib import Path

import pytest

from lorads.engine.config import Config, read_config
from lorads.errors import UsageError
from lorads.findings import Severity


def written(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_none_is_empty(tmp_path: Path) -> None:
    assert read_config(None, tmp_path) == Config()


def test_lorads_toml_wins_over_pyproject(tmp_path: Path) -> None:
    written(tmp_path, "pyproject.toml", '[tool.lorads]\ntokenizer = "a"\n')
    assert read_config(None, tmp_path).tokenizer == "a"
    written(tmp_path, "lorads.toml", 'tokenizer = "b"\nmax-length = "none"\n[severity]\nTXT = "info"\n')
    config = read_config(None, tmp_path)
    assert (config.tokenizer, config.max_length) == ("b", "none")
    assert config.severity == {"TXT": Severity.INFO}


def test_pyproject_without_a_table_is_no_configuration(tmp_path: Path) -> None:
    path = written(tmp_path, "pyproject.toml", "[project]\nname = 'x'\n")
    assert read_config(None, tmp_path) == Config()
    with pytest.raises(UsageError, match=r"no \[tool\.lorads\]"):
        read_config(path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("tokeniser = 'a'", 'did you mean "tokenizer"'),
        ("max_lenght = 3", 'did you mean "max-length"'),
        ("nothing-like-it = 3", "known: tokenizer"),
        ("[columns]\nprompts = 'q'", 'did you mean "prompt"'),
        ("max-length = 'many'", "max-length"),
        ("fail-on = 'sometimes'", "fail-on"),
        ("[severity]\nTXT001 = 'bad'", "severity.TXT001"),
        ("tokenizer = ", "no TOML"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, "lorads.toml", text)
    with pytest.raises(UsageError) as caught:
        read_config(path)
    assert words in caught.value.message
    assert path in caught.value.message


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_config(str(tmp_path / "no.toml"))
