"""Records what the collators of transformers make: ``python tests/parity/record_transformers.py [--held-out DIR]``.

Needs an environment with transformers 5.23.0, datasets, torch (CPU is enough) and pytest::

    python3.11 -m venv DIR && DIR/bin/pip install torch==2.13.0 transformers==5.23.0 datasets==5.2.0 jinja2 pytest

and ``$LORADS_ASSETS`` for the tokenizers. Rows are loaded with ``datasets.load_dataset("json")``, tokenized with
``map`` as scripts do it, and put through the collator in batches of four, so that it pads; what it padded is taken off.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import record_trl, recording

TARGET = Path(__file__).resolve().parent.parent.parent / "fixtures" / "trainers" / "transformers-5.23"
PACKAGES = ("transformers", "tokenizers", "datasets", "torch", "jinja2")
EVERY = ("deepseek-coder", "qwen3", "tinyllama", "gpt-oss")
ALPACA, CHATS = record_trl.ALPACA, record_trl.CHATS
BATCH = 4
SEQ2SEQ = {"collator": "seq2seq"}


@dataclass(frozen=True)
class Case:
    """``settings``: ``collator``, ``pad_token`` and ``max_length``."""

    name: str
    transformation: str
    sources: tuple[str, ...] = ALPACA
    tokenizers: tuple[str, ...] = EVERY
    settings: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    rows: int = record_trl.ROWS


CASES = (
    Case("text", "text-edges"),
    Case("text-64", "text-edges", ALPACA, ("tinyllama", "qwen3"), {"max_length": 64}),
    Case("text-pad-eos", "text-edges", ALPACA, ("tinyllama",), {"pad_token": "</s>"}),
    Case("text-pad-unk", "text-edges", ALPACA, ("tinyllama",), {"pad_token": "<unk>"}),
    Case("messages", "messages-edges"),
    Case("messages-64", "messages-edges", ALPACA, ("deepseek-coder",), {"max_length": 64}),
    Case("messages-pad-eos", "messages-edges", ALPACA, ("qwen3",), {"pad_token": "<|im_end|>"}),
    Case("multi-turn", "multi-turn", CHATS, ("qwen3",), {"pad_token": "<|im_end|>", "max_length": 512}),
    Case("tools", "tools", record_trl.TOOLS, ("qwen3",), {"max_length": 512}),
    Case("prompt-completion", "prompt-completion-space", ALPACA, ("tinyllama", "deepseek-coder")),
    Case("tokenized", "tokenized", ALPACA, ("tinyllama",), {"pad_token": "<0x20>"}),
    Case("seq2seq-text", "text-edges", ALPACA, EVERY, SEQ2SEQ),
    Case("seq2seq-messages", "messages-edges", ALPACA, ("qwen3", "tinyllama"), {**SEQ2SEQ, "max_length": 128}),
    Case("seq2seq-tokenized", "trl/tokenized-plain", ALPACA, ("tinyllama",), {**SEQ2SEQ, "pad_token": "</s>"}),
    Case("seq2seq-tokenized-labels", "tokenized-labels", ALPACA, ("qwen3",), SEQ2SEQ),
)


def arguments_of(settings: dict[str, Any]) -> list[str]:
    arguments = ["--trainer", "transformers"]
    if "max_length" in settings:
        arguments += ["--max-length", str(settings["max_length"])]
    for name in ("collator", "pad_token"):
        if name in settings:
            arguments += ["--trainer-option", f"{name}={settings[name]}"]
    return arguments


def record(case: Case, name: str, held_out: bool) -> recording.Cell:
    import datasets
    from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq

    picked = record_trl.pick(case, held_out)  # type: ignore[arg-type]
    tokenizer = record_trl.load_tokenizer(name)
    settings = case.settings
    header = {
        "case": case.name,
        "tokenizer": record_trl.describe_tokenizer(name, tokenizer),
        "trainer": "transformers",
        "versions": {package: version(package) for package in PACKAGES},
        "settings": settings,
        "template": case.template and {"name": case.template, "sha256": recording.source_sha256(case.template)},
        "transformation": case.transformation,
        "sources": [{"name": name, "sha256": recording.source_sha256(name)} for name in case.sources],
        "arguments": arguments_of(settings),
    }
    if name in record_trl.DATED and "messages" in case.transformation:
        from datetime import date

        header["date"] = date.today().isoformat()
    cell = recording.Cell(header)
    if "pad_token" in settings:
        tokenizer.pad_token = settings["pad_token"]
    elif tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    seq2seq = settings.get("collator") == "seq2seq"
    collator = DataCollatorForSeq2Seq(tokenizer) if seq2seq else DataCollatorForLanguageModeling(tokenizer, mlm=False)
    cut = {"truncation": True, "max_length": settings["max_length"]} if "max_length" in settings else {}

    def tokenize(row: dict[str, Any]) -> dict[str, Any]:
        if "input_ids" in row:
            found = {key: row[key] for key in ("input_ids", "labels") if key in row}
            return {**found, "attention_mask": [1] * len(row["input_ids"])}
        if "messages" in row:
            made = tokenizer.apply_chat_template(
                row["messages"], tools=row.get("tools"), tokenize=True, return_dict=True, **cut
            )
        else:
            made = tokenizer(row["text"] if "text" in row else row["prompt"] + row["completion"], **cut)
        labels = {"labels": list(made["input_ids"])} if seq2seq else {}
        return {"input_ids": made["input_ids"], "attention_mask": made["attention_mask"], **labels}

    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "train.jsonl")
        with data.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for _, _, row in picked)
        dataset = datasets.load_dataset("json", data_files=str(data), split="train", cache_dir=f"{folder}/cache")
        dataset = dataset.map(tokenize, remove_columns=dataset.column_names)
        rows = [dict(row) for row in dataset]
    for begin in range(0, len(rows), BATCH):
        features = rows[begin : begin + BATCH]
        batch = collator([dict(feature) for feature in features])
        for i, feature in enumerate(features):
            size = len(feature["input_ids"])
            left = tokenizer.padding_side == "left"
            real = slice(batch["input_ids"].shape[1] - size, None) if left else slice(0, size)
            ids, labels = batch["input_ids"][i][real].tolist(), batch["labels"][i][real].tolist()
            source, index, _ = picked[begin + i]
            spans = recording.spans(ids, labels)
            figures = {"ids": ids, "labels": labels} if spans is None else {"ids": ids, "on": spans}
            cell.rows.append({"source": source, "row": index, **figures})
    return cell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=Path, metavar="DIR", help="record other rows, into DIR")
    options = parser.parse_args()
    record_trl.quiet()
    target = options.held_out or TARGET
    target.mkdir(parents=True, exist_ok=True)
    for name in EVERY:
        cells = []
        for case in CASES:
            if name in case.tokenizers:
                cells.append(record(case, name, bool(options.held_out)))
                print(f"{cells[-1].name}: {len(cells[-1].rows)} rows", flush=True)
        recording.write(target / f"{name}{recording.SUFFIX}", cells)


if __name__ == "__main__":
    main()
