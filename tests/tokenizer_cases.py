"""The cases of ``fixtures/tokenizers/transformers_cases.json`` as directories: for the recorder and for the test."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "tokenizers"
CASES = FIXTURES / "transformers_cases.json"
RECORDING = FIXTURES / "transformers_recorded.json"


def write_case(case: dict[str, Any], asset: Path, folder: Path) -> None:
    """Write the files of a case into ``folder``; ``asset`` is the folder of the tokenizer it starts from."""
    folder.mkdir(parents=True, exist_ok=True)
    model = asset / "tokenizer.json"
    content = model.read_bytes() if model.exists() else gzip.decompress((asset / "tokenizer.json.gz").read_bytes())
    (folder / "tokenizer.json").write_bytes(content)
    config = json.loads((asset / "tokenizer_config.json").read_text(encoding="utf-8"))
    for key in ("chat_template", *case.get("drop", [])):
        config.pop(key, None)
    config |= case.get("config", {})
    files = {"tokenizer_config.json": config, "config.json": case.get("model_config")}
    files |= {f"{name}.json": case.get(name) for name in ("special_tokens_map", "added_tokens")}
    for name, value in files.items():
        if value is not None:
            (folder / name).write_text(json.dumps(value), encoding="utf-8")
