"""What the rules say about real data sets: nothing that is not there.

``realdata_reviewed.yaml`` holds, for each data set and tokenizer, the findings of every rule by number, as they were
reviewed. A new rule, or a change to one, shows here what it would say to people with clean data.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import realdata
from lorads.engine import Settings, check

REVIEWED = yaml.safe_load(Path(__file__).with_name("realdata_reviewed.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", REVIEWED, ids=lambda case: f"{case['tokenizer']}-{Path(case['data']).name}")
def test_nothing_but_what_was_reviewed(case: dict[str, Any]) -> None:
    tokenizer = case["tokenizer"]
    if tokenizer.startswith("asset:"):
        tokenizer = str(realdata.asset_dir(f"tokenizers/{tokenizer.removeprefix('asset:')}"))
    kind, name = case["data"].split(":")
    path = realdata.require(name) if kind == "realdata" else realdata.asset(f"datasets/{name}")
    report = check([str(path)], Settings(tokenizer, workers=1))
    assert report.summary.by_rule == case["found"]
