"""Real files: the values are those of json.loads, and the lines and bytes lead back to them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

import realdata
from lorads.sources import Limits
from sources.naive import read

FILES = [
    "alpaca_5000_rows1501-2500.jsonl",
    "gsm8k_train7473.jsonl.gz",
    "lf_alpaca_zh_demo.json",
    "lf_dpo_zh_demo.json",
    "lf_glaive_toolcall_en_demo.json",
    "lf_kto_en_demo.json",
    "lf_reason_tool_use_demo_50.jsonl",
    "openai_drone_training_2024-06-13_defective.jsonl",
    "fastchat_dummy_conversation.json",
    "axolotl_fixtures/conversation.json",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("block_bytes", [10_000, 1 << 20])
def test_equals_json(name: str, block_bytes: int) -> None:
    path: Path = realdata.asset(f"datasets/{name}")
    data = path.read_bytes()
    if name.endswith(".gz"):
        data = gzip.decompress(data)
    try:
        whole = json.loads(data)
        expected = whole if isinstance(whole, list) else [whole]
    except json.JSONDecodeError:
        expected = [json.loads(line) for line in data.split(b"\n") if line.strip()]
    found = read(path, Limits(block_bytes=block_bytes))
    assert found.values == expected
    assert found.problems == []
    lines = data.split(b"\n")
    for value, line, offset, length in zip(found.values, found.lines, found.offsets, found.lengths, strict=True):
        raw = data[offset : offset + length]
        assert json.loads(raw) == value
        assert lines[line - 1].lstrip().startswith(raw.split(b"\n")[0].rstrip(b"\r"))
