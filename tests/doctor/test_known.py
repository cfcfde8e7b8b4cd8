from __future__ import annotations

import re

import pytest

from lorads.doctor.known import TOKENIZERS, concerning, matches, pairs
from lorads.findings import Severity
from lorads.tokenizers.files import find


@pytest.mark.parametrize(
    ("version", "spec", "holds"),
    [
        ("5.3.0", ">=5.3.0,<5.22", True),
        ("5.21.1", ">=5.3.0,<5.22", True),
        ("5.22", ">=5.3.0,<5.22", False),
        ("5.22.0", ">=5.3.0,<5.22", False),
        ("5.22.0rc1", "<5.22", False),
        ("5.10.2", ">=5.3.0", True),
        ("4.57.6", "<5", True),
        ("5.0.0", "<5", False),
        ("5.0.0rc1", "<5", False),
        ("5.0.0rc1", ">=5.0.0", True),
        ("5.0.0.dev0", ">=5", True),
        ("4.46", "<=4.46.0", True),
        ("4.46.0.post1", ">4.46", True),
        ("2025.3.16", "<=2025.3.18", True),
        ("0.27.0", ">=0.20,<0.27.1", True),
        ("0.27.1", ">=0.20,<0.27.1", False),
        ("1.0.0+cpu", "==1.0", True),
        ("unknown", ">=0", False),
    ],
)
def test_versions(version: str, spec: str, holds: bool) -> None:
    assert matches(version, spec) is holds


def test_the_table_is_sound() -> None:
    for pair in pairs():
        assert Severity(pair.severity)
        assert pair.tokenizer is None or pair.tokenizer in TOKENIZERS
        assert pair.packages
        assert pair.probed is None or pair.probed in pair.packages
        for spec in pair.packages.values():
            assert matches("1", spec) in (True, False)
        for thread in pair.threads:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", thread)


@pytest.mark.parametrize(
    ("packages", "codes"),
    [
        ({"transformers": "4.57.6"}, {"double-bos"}),
        ({"transformers": "5.10.2"}, {"text-lost", "bos-missing"}),
        ({"transformers": "5.23.0"}, {"bos-missing"}),
        ({"transformers": "5.23.0", "trl": "0.24.0"}, {"bos-missing", "prompt-trained"}),
        ({"transformers": "4.57.6", "trl": "0.24.0"}, {"double-bos"}),
        ({"trl": "0.24.0"}, set()),
        ({}, set()),
    ],
)
def test_pairs_of_deepseek_coder(packages: dict[str, str], codes: set[str]) -> None:
    assert {pair.code for pair in concerning(packages, find("deepseek-coder"))} == codes
