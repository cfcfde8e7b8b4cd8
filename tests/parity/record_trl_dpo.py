"""Records what TRL's DPOTrainer builds: ``python tests/parity/record_trl_dpo.py [--held-out DIR]``.

Needs the environment of ``record_trl`` (trl 1.16.0, transformers 5.23.0). Each cell constructs a ``DPOTrainer`` around
a tiny random model and puts every row of ``trainer.train_dataset`` through its collator: the first sequence is the one
with the chosen answer, the second the one with the rejected. Labels are the ids where ``completion_mask`` is set.
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

TARGET = Path(__file__).resolve().parent.parent.parent / "fixtures" / "trainers" / "trl-dpo-1.16"
ALPACA = record_trl.ALPACA
PAIRS = ("realdata:llamafactory/dpo_zh_demo.json", "realdata:llamafactory/dpo_en_demo.json")
EVERY = ("deepseek-coder", "qwen3", "tinyllama")
KEEP_END = {"max_length": 96, "truncation_mode": "keep_end"}


@dataclass(frozen=True)
class Case:
    name: str
    transformation: str
    sources: tuple[str, ...] = ALPACA
    tokenizers: tuple[str, ...] = EVERY
    settings: dict[str, Any] = field(default_factory=dict)
    answer: str = "chosen"
    template: str | None = None
    rows: int = record_trl.ROWS


CASES = (
    Case("messages", "trl/preference", PAIRS, EVERY, {"max_length": 512}),
    Case("messages-rejected", "trl/preference", PAIRS, ("qwen3", "tinyllama"), {"max_length": 512}, "rejected"),
    Case("messages-implicit", "trl/preference-implicit", PAIRS, ("deepseek-coder", "qwen3"), {"max_length": 512}),
    Case("messages-edges", "trl/preference-edges", ALPACA, ("qwen3", "tinyllama")),
    Case("messages-edges-rejected", "trl/preference-edges", ALPACA, ("qwen3",), {}, "rejected"),
    Case("text", "trl/preference-text"),
    Case("text-rejected", "trl/preference-text", ALPACA, ("deepseek-coder", "tinyllama"), {}, "rejected"),
    Case("text-edges", "trl/preference-text-edges", ALPACA, ("deepseek-coder", "tinyllama")),
    Case("text-implicit", "trl/preference-text-implicit", ALPACA, ("deepseek-coder", "tinyllama")),
    Case("text-48", "trl/preference-text", ALPACA, ("deepseek-coder",), {"max_length": 48}),
    Case("text-keep-end", "trl/preference-text", ALPACA, ("tinyllama",), KEEP_END, "rejected"),
)


def arguments_of(case: Case) -> list[str]:
    arguments = ["--trainer", "trl-dpo", "--trainer-option", f"answer={case.answer}"]
    if "max_length" in case.settings:
        arguments += ["--max-length", str(case.settings["max_length"])]
    if "truncation_mode" in case.settings:
        arguments += ["--trainer-option", f"truncation_mode={case.settings['truncation_mode']}"]
    return arguments


def record(case: Case, name: str, held_out: bool) -> recording.Cell:
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import DPOConfig, DPOTrainer

    picked = record_trl.pick(case, held_out)  # type: ignore[arg-type]
    tokenizer = record_trl.load_tokenizer(name)
    header = {
        "case": case.name,
        "tokenizer": record_trl.describe_tokenizer(name, tokenizer),
        "trainer": "trl-dpo",
        "versions": {package: version(package) for package in record_trl.PACKAGES},
        "settings": case.settings,
        "template": None,
        "transformation": case.transformation,
        "sources": [{"name": name, "sha256": recording.source_sha256(name)} for name in case.sources],
        "arguments": arguments_of(case),
    }
    cell = recording.Cell(header)
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **size)
    model, reference = LlamaForCausalLM(config), LlamaForCausalLM(config)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "train.jsonl")
        with data.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for _, _, row in picked)
        arguments = DPOConfig(output_dir=folder, report_to=[], use_cpu=True, bf16=False, **case.settings)
        dataset = datasets.load_dataset("json", data_files=str(data), split="train", cache_dir=f"{folder}/cache")
        dataset = dataset.add_column("parity_row", list(range(len(dataset))))
        trainer = DPOTrainer(
            model=model, ref_model=reference, args=arguments, train_dataset=dataset, processing_class=tokenizer
        )
        built = {int(row["parity_row"]): trainer.data_collator([row]) for row in trainer.train_dataset}
    which = 1 if case.answer == "rejected" else 0
    for position, (source, index, _) in enumerate(picked):
        batch = built.get(position)
        figures: dict[str, Any] = {"dropped": True}
        if batch is not None:
            real = batch["attention_mask"][which].bool()
            ids = batch["input_ids"][which][real].tolist()
            mask = batch["completion_mask"][which][real].tolist()
            labels = [token if bit else -100 for token, bit in zip(ids, mask, strict=True)]
            figures = {"ids": ids, "on": recording.spans(ids, labels)}
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
                kept = sum("ids" in row for row in cells[-1].rows)
                print(f"{cells[-1].name}: {len(cells[-1].rows)} rows, {kept} kept", flush=True)
        recording.write(target / f"{name}{recording.SUFFIX}", cells)


if __name__ == "__main__":
    main()
