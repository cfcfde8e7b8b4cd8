"""Records what the collators of transformers make: ``python tests/parity/record_transformers.py [--held-out DIR]``.

Needs an environment with transformers 5.23.0, datasets, torch (CPU is enough) and pytest::

    python3.11 -m venv DIR && DIR/bin/pip install torch==2.13.0 transformers==5.23.0 datasets==5.2.0 jinja2 pytest

and ``$LORADS_ASSETS`` for the tokenizers. Rows are loaded with ``datasets.load_dataset("json")``, tokenized with
``map`` as scripts do it, and put through the collator in batches of four, so that it pads; what it padded is taken off.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import recorder, recording
from parity.recorder import ALPACA, CHATS, ROWS, TOOLS

TARGET = recorder.TRAINERS / "transformers-5.23"
PACKAGES = ("transformers", "tokenizers", "datasets", "torch", "jinja2")
EVERY = ("deepseek-coder", "qwen3", "tinyllama", "gpt-oss")
BATCH = 4
SEQ2SEQ = {"collator": "seq2seq"}


@dataclass(frozen=True)
class Case:
    """``settings``: ``collator``, ``pad_token`` and ``max_length``."""

    name: str
    transformation: str
    sources: Sequence[str] = ALPACA
    tokenizers: Sequence[str] = EVERY
    settings: dict[str, Any] = field(default_factory=dict)
    rows: int = ROWS


CASES = (
    Case("text", "text-edges"),
    Case("text-64", "text-edges", ALPACA, ("tinyllama", "qwen3"), {"max_length": 64}),
    Case("text-pad-eos", "text-edges", ALPACA, ("tinyllama",), {"pad_token": "</s>"}),
    Case("text-pad-unk", "text-edges", ALPACA, ("tinyllama",), {"pad_token": "<unk>"}),
    Case("messages", "messages-edges"),
    Case("messages-64", "messages-edges", ALPACA, ("deepseek-coder",), {"max_length": 64}),
    Case("messages-pad-eos", "messages-edges", ALPACA, ("qwen3",), {"pad_token": "<|im_end|>"}),
    Case("multi-turn", "multi-turn", CHATS, ("qwen3",), {"pad_token": "<|im_end|>", "max_length": 512}),
    Case("tools", "tools", TOOLS, ("qwen3",), {"max_length": 512}),
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
            arguments += recorder.trainer_option(name, settings[name])
    return arguments


def record(case: Case, name: str, held_out: bool) -> recording.Cell:
    picked = recorder.pick(case, held_out)
    tokenizer = recorder.load_tokenizer(name)
    header = recorder.header(
        case,
        trainer="transformers",
        versions=recorder.versions(PACKAGES),
        tokenizer=recorder.describe_tokenizer(name, tokenizer),
        arguments=arguments_of(case.settings),
        dated=name == "gpt-oss" and "messages" in case.transformation,
    )
    if "pad_token" in case.settings:
        tokenizer.pad_token = case.settings["pad_token"]
    elif tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return recorder.cell(header, picked, _collated(case, tokenizer, [row for _, _, row in picked]))


def _collated(case: Case, tokenizer: Any, training_rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    from transformers import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq

    settings = case.settings
    seq2seq = settings.get("collator") == "seq2seq"
    collator = DataCollatorForSeq2Seq(tokenizer) if seq2seq else DataCollatorForLanguageModeling(tokenizer, mlm=False)
    cut = {"truncation": True, "max_length": settings["max_length"]} if "max_length" in settings else {}

    def tokenize(row: dict[str, Any]) -> dict[str, Any]:
        if "input_ids" in row:
            found: dict[str, Any] = {key: row[key] for key in ("input_ids", "labels") if key in row}
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
        dataset = recorder.load_rows(training_rows, folder)
        rows = [dict(row) for row in dataset.map(tokenize, remove_columns=dataset.column_names)]
    for begin in range(0, len(rows), BATCH):
        features = rows[begin : begin + BATCH]
        batch = collator([dict(feature) for feature in features])
        for i, feature in enumerate(features):
            size = len(feature["input_ids"])
            left = tokenizer.padding_side == "left"
            real = slice(batch["input_ids"].shape[1] - size, None) if left else slice(0, size)
            yield recorder.figures(batch["input_ids"][i][real].tolist(), batch["labels"][i][real].tolist())


def main() -> None:
    options = recorder.parser(__doc__).parse_args()
    recorder.quiet()
    recorder.run(options, TARGET, CASES, record)


if __name__ == "__main__":
    main()
