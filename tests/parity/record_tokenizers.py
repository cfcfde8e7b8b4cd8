"""Records what transformers makes of the cases in ``fixtures/tokenizers/transformers_cases.json``.

    LORADS_ASSETS=… python tests/parity/record_tokenizers.py

Run it where transformers is installed; tests/tokenizers/test_transformers_classes.py compares lorads with the
recording. It holds ids and names of special tokens, no vocabulary.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tokenizer_cases import CASES, RECORDING, write_case

NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


def record(case: dict[str, Any], texts: list[str], folder: Path) -> dict[str, Any]:
    """Ids of every text without and with special tokens, and the named tokens with their ids."""
    from transformers import AutoTokenizer

    asset = Path(os.environ["LORADS_ASSETS"]) / "tokenizers" / case["asset"]
    write_case(case, asset, folder)
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return {
        "class": type(tokenizer).__name__,
        "tokens": len(tokenizer),
        "named": {name: [getattr(tokenizer, name), getattr(tokenizer, f"{name}_id")] for name in NAMED},
        "plain": [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts],
        "special": [tokenizer(text)["input_ids"] for text in texts],
    }


def main() -> None:
    import transformers

    known = json.loads(CASES.read_text(encoding="utf-8"))
    recorded: dict[str, Any] = {"transformers": transformers.__version__, "cases": {}}
    for case in known["cases"]:
        folder = Path(tempfile.mkdtemp())
        try:
            recorded["cases"][case["name"]] = record(case, known["texts"], folder)
        finally:
            shutil.rmtree(folder)
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in recorded["cases"].items()
    ]
    body = ",\n".join(lines)
    RECORDING.write_text(
        f'{{"transformers": "{recorded["transformers"]}", "cases": {{\n{body}\n}}}}\n', encoding="utf-8"
    )


if __name__ == "__main__":
    main()
