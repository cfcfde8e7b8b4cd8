"""Every case of every rule, as ``fixtures/rules/README.md`` describes them, through ``lorads.engine.check``."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest
import yaml

import realdata
from lorads.engine import Settings, check
from lorads.findings import Finding

FOLDER = Path(__file__).resolve().parents[2] / "fixtures" / "rules"
KEYS = {
    "pass": {"why", "rows", "raw", "file", "missing", "options", "also"},
    "fail": {"why", "rows", "raw", "file", "missing", "options", "also", "findings"},
}
PLAIN_OPTIONS = {
    "trainer": "trainer",
    "format": "format",
    "train-on": "train_on",
    "trainer-options": "trainer_options",
}
EXPECTED = {"row", "line", "severity", "says", "hints", "message_index", "field"}
Case = dict[str, Any]


def cases() -> Iterator[Any]:
    for path in sorted(FOLDER.glob("*.yaml")):
        for outcome, named in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            for name, case in named.items():
                yield pytest.param(path.stem, outcome, case, id=f"{path.stem}-{outcome}-{name}")


@pytest.mark.parametrize(("rule", "outcome", "case"), list(cases()))
def test_case(rule: str, outcome: str, case: Case, tmp_path: Path) -> None:
    assert set(case) <= KEYS[outcome], f"unknown keys: {set(case) - KEYS[outcome]}"
    data = write(case, tmp_path)
    report = check([str(data)], settings(case.get("options", {}), tmp_path))

    own = [finding for finding in report.findings if finding.rule == rule]
    expected = case["findings"] if outcome == "fail" else []
    told = "\n".join(
        f"{f.rule} {f.severity} row {f.row} line {f.line}: {f.message} [{f.hint}]" for f in report.findings
    )
    assert len(own) == len(expected), f"expected {len(expected)} of {rule}, found:\n{told or 'nothing'}"
    for finding, wanted in zip(own, expected, strict=True):
        compare(finding, wanted)

    others = [(f.rule, f.row) for f in report.findings if f.rule != rule and f.severity != "info"]
    assert others == [(other["rule"], other["row"]) for other in case.get("also", [])], told


def compare(finding: Finding, wanted: Mapping[str, Any]) -> None:
    assert set(wanted) <= EXPECTED, f"unknown keys: {set(wanted) - EXPECTED}"
    for key in ("row", "line", "severity", "message_index", "field"):
        if key in wanted:
            assert getattr(finding, key) == wanted[key], f"{key} of: {finding.message}"
    for words in wanted["says"]:
        assert words in finding.message
    for words in wanted.get("hints", []):
        assert words in finding.hint


def write(case: Case, folder: Path) -> Path:
    """The dataset of a case as a file."""
    if "raw" in case:
        content = re.sub(rb"\\x([0-9a-f]{2})", lambda byte: bytes.fromhex(byte[1].decode()), case["raw"].encode())
    else:
        content = b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in case["rows"])
    path = folder / str(case.get("file", "data.jsonl"))
    if path.suffix == ".gz":
        content = gzip.compress(content)
    path.write_bytes(content[: len(content) - case.get("missing", 0)])
    return path


def settings(options: Mapping[str, Any], folder: Path) -> Settings:
    left = dict(options)
    tokenizer = left.pop("tokenizer", "deepseek-coder")
    chosen: dict[str, Any] = {PLAIN_OPTIONS[key]: left.pop(key) for key in list(left) if key in PLAIN_OPTIONS}
    if tokenizer.startswith("asset:"):
        tokenizer = str(realdata.asset_dir(f"tokenizers/{tokenizer.removeprefix('asset:')}"))
    if "embedding-rows" in left:
        tokenizer = str(resized(tokenizer, left.pop("embedding-rows"), folder / "tokenizer"))
    if "chat-template" in left:
        template = left.pop("chat-template")
        if template != "none":
            path = folder / "template.jinja"
            path.write_text(template, encoding="utf-8")
            template = str(path)
        chosen["chat_template"] = template
    if "max-length" in left:
        length = left.pop("max-length")
        chosen["max_length"] = None if length == "none" else length
    assert not left, f"unknown options: {set(left)}"
    return Settings(tokenizer, workers=1, **chosen)


def resized(tokenizer: str, rows: int, folder: Path) -> Path:
    """A copy of a tokenizer's folder beside a model with that many embedding rows."""
    with as_file(files("lorads.tokenizers") / "shipped" / tokenizer) as shipped:
        shutil.copytree(shipped if shipped.is_dir() else tokenizer, folder)
    config = folder / "config.json"
    known = json.loads(config.read_text(encoding="utf-8")) if config.exists() else {}
    config.write_text(json.dumps(known | {"vocab_size": rows}), encoding="utf-8")
    return folder
