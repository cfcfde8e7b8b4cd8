"""The doctor's verdicts, by a stand-in for transformers that does as real versions do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tokenizer_examples
from doctor.conftest import Install
from lorads.doctor import Diagnosis, examine
from lorads.errors import UsageError

SHIPPED = "deepseek-coder"


def codes(diagnosis: Diagnosis) -> dict[str, str]:
    return {trouble.code: trouble.severity.value for trouble in diagnosis.troubles}


@pytest.mark.parametrize(
    ("version", "behaviour", "expected"),
    [
        # this tokenizer's configuration asks for BOS, which transformers 5 doesn't put in front
        ("5.23.0", "sound", {"bos-missing": "warning"}),
        ("5.3.0", "spaceless", {"text-lost": "error", "bos-missing": "warning"}),
        ("4.57.6", "bos", {"double-bos": "warning"}),
        ("4.57.6", "other-eos", {"eos-differs": "error", "bos-missing": "warning"}),
        ("5.23.0", "one-id-more", {"ids-differ": "warning", "bos-missing": "warning"}),
        ("5.23.0", "decodes-otherwise", {"decode-differs": "warning", "bos-missing": "warning"}),
        ("5.23.0", "other-template", {"template-differs": "error", "bos-missing": "warning"}),
        ("4.40.0", "no-template", {"template-missing": "error", "bos-missing": "warning"}),
        ("5.23.0", "raises", {"load-fails": "error", "bos-missing": "warning"}),
    ],
)
def test_verdicts(install: Install, version: str, behaviour: str, expected: dict[str, str]) -> None:
    install(version, behaviour)
    diagnosis = examine(SHIPPED)
    assert codes(diagnosis) == expected
    assert diagnosis.verdict == "differs"
    assert diagnosis.packages["transformers"] == version


def test_what_was_measured_comes_with_what_is_known_of_it(install: Install) -> None:
    install("5.3.0", "spaceless")
    lost = examine(SHIPPED).troubles[0]
    assert lost.measured
    assert "transformers>=5.22" in lost.advice
    assert "huggingface/transformers#46489" in lost.threads
    assert "if not prices:" in dict(lost.example)["text"]
    assert "ifnotprices:" in dict(lost.example)["becomes"]


def test_measuring_wins_over_the_table(install: Install) -> None:
    install("5.3.0", "sound")
    assert "text-lost" not in codes(examine(SHIPPED))


def test_the_table_speaks_where_nothing_could_be_measured(install: Install) -> None:
    install("5.3.0", "raises")
    lost = next(trouble for trouble in examine(SHIPPED).troubles if trouble.code == "text-lost")
    assert (lost.measured, lost.rule) == (False, "META001")
    assert "installed: transformers 5.3.0" in lost.title


def test_a_sound_environment_is_called_sound(install: Install, tmp_path: Path) -> None:
    install("5.3.0", "sound")
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_examples.byte_level()), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "<|end|>"}
    config["chat_template"] = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    diagnosis = examine(str(folder))
    assert codes(diagnosis) == {}
    assert diagnosis.verdict == "same"
    assert diagnosis.measured["transformers"]["conversations"] == {"same": 5, "failing": 0, "other_text": 0}
    assert codes(examine(str(folder), chat_template="none")) == {}


def test_nothing_is_installed(bare: str) -> None:
    diagnosis = examine(SHIPPED, python=bare)
    assert diagnosis.verdict == "nothing-installed"
    assert diagnosis.troubles == []
    assert "EOS is <|EOT|> (32021)" in diagnosis.files


def test_an_interpreter_that_gives_no_answer(install: Install, tmp_path: Path) -> None:
    install("5.23.0", "crashes")
    with pytest.raises(UsageError, match="ended with status 3"):
        examine(SHIPPED)
    with pytest.raises(UsageError, match="no Python interpreter"):
        examine(SHIPPED, python=str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="no Python interpreter"):
        examine(SHIPPED, python=str(tmp_path))


def test_nothing_is_fetched(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("huggingface_hub")
    install("5.23.0", "sound")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UsageError, match="the doctor fetches nothing") as error:
        examine("qwen3")
    assert "hf download Qwen/Qwen3-8B" in error.value.hint
