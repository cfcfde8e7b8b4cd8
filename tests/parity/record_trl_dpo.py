"""Records what TRL's DPOTrainer builds: ``python tests/parity/record_trl_dpo.py [--held-out DIR]``.

Needs the environment of ``record_trl`` (trl 1.16.0, transformers 5.23.0). Each cell constructs a ``DPOTrainer`` around
a tiny random model and puts every row of ``trainer.train_dataset`` through its collator: the first sequence is the one
with the chosen answer, the second the one with the rejected. Labels are the ids where ``completion_mask`` is set.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import recorder, recording
from parity.recorder import ALPACA, ROWS

TARGET = recorder.TRAINERS / "trl-dpo-1.16"
PACKAGES = ("trl", "transformers", "tokenizers", "datasets", "torch", "jinja2")
PAIRS = ("realdata:llamafactory/dpo_zh_demo.json", "realdata:llamafactory/dpo_en_demo.json")
EVERY = ("deepseek-coder", "qwen3", "tinyllama")
KEEP_END = {"max_length": 96, "truncation_mode": "keep_end"}


@dataclass(frozen=True)
class Case:
    name: str
    transformation: str
    sources: Sequence[str] = ALPACA
    tokenizers: Sequence[str] = EVERY
    settings: dict[str, Any] = field(default_factory=dict)
    answer: str = "chosen"
    rows: int = ROWS


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
    arguments = ["--trainer", "trl-dpo", *recorder.trainer_option("answer", case.answer)]
    if "max_length" in case.settings:
        arguments += ["--max-length", str(case.settings["max_length"])]
    if "truncation_mode" in case.settings:
        arguments += recorder.trainer_option("truncation_mode", case.settings["truncation_mode"])
    return arguments


def record(case: Case, name: str, held_out: bool) -> recording.Cell:
    from trl import DPOConfig, DPOTrainer

    picked = recorder.pick(case, held_out)
    tokenizer = recorder.load_tokenizer(name)
    header = recorder.header(
        case,
        trainer="trl-dpo",
        versions=recorder.versions(PACKAGES),
        tokenizer=recorder.describe_tokenizer(name, tokenizer),
        arguments=arguments_of(case),
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = DPOTrainer(
            model=recorder.tiny_llama(tokenizer),
            ref_model=recorder.tiny_llama(tokenizer),
            args=DPOConfig(output_dir=folder, report_to=[], use_cpu=True, bf16=False, **case.settings),
            train_dataset=recorder.load_rows((row for _, _, row in picked), folder, numbered=True),
            processing_class=tokenizer,
        )
        built = {int(row["parity_row"]): trainer.data_collator([row]) for row in trainer.train_dataset}
    which = 1 if case.answer == "rejected" else 0
    return recorder.cell(header, picked, (_figures(built.get(position), which) for position in range(len(picked))))


def _figures(batch: Any, which: int) -> dict[str, Any]:
    if batch is None:
        return {"dropped": True}
    real = batch["attention_mask"][which].bool()
    ids = batch["input_ids"][which][real].tolist()
    mask = batch["completion_mask"][which][real].tolist()
    labels = [token if bit else recording.MASKED for token, bit in zip(ids, mask, strict=True)]
    return recorder.figures(ids, labels)


def main() -> None:
    options = recorder.parser(__doc__).parse_args()
    recorder.quiet()
    recorder.run(options, TARGET, CASES, record)


if __name__ == "__main__":
    main()
