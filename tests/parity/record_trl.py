"""Records what TRL's SFTTrainer really builds: ``python tests/parity/record_trl.py [--held-out DIR] [--only CASES]``.

Needs an environment with trl 1.16.0, transformers 5.23.0, torch (CPU is enough) and pytest, and ``$LORADS_ASSETS`` for
the tokenizers. Each cell loads its rows with ``datasets.load_dataset("json")`` from a JSON lines file, as a user would,
constructs an ``SFTTrainer`` around a tiny random model and reads ``trainer.train_dataset``. Nothing is trained.

``--held-out DIR`` records rows that the committed recordings don't hold, with the same cases, into another directory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import realdata
from parity import recording, rows

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "fixtures" / "trainers" / "trl-1.16"
PACKAGES = ("trl", "transformers", "tokenizers", "datasets", "torch", "jinja2")
ROWS = 300
EVERY = ("deepseek-coder", "qwen3", "tinyllama")

ALPACA = ("realdata:llamafactory/alpaca_en_demo.json", "realdata:llamafactory/alpaca_zh_demo.json")
CHATS = tuple(
    f"realdata:llamafactory/{name}_demo.json"
    for name in ("glaive_toolcall_en", "glaive_toolcall_zh", "dpo_zh", "dpo_en", "kto_en")
)
LONG = ("realdata:llamafactory/c4_demo.jsonl", *CHATS)
TOOLS = CHATS[:2]


@dataclass(frozen=True)
class Case:
    """``settings`` are SFTConfig's, ``template`` is a chat template by reference (see ``recording.source_path``)."""

    name: str
    transformation: str
    sources: Sequence[str]
    tokenizers: Sequence[str] = EVERY
    settings: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    rows: int = ROWS
    aside: str = ""
    """Why the cell decides nothing."""


OURS = "parity:chatml_generation.jinja"
BRACKETS = "parity:bracket_generation.jinja"
LAGUNA = "asset:templates/poolside-Laguna-XS.2.jinja"
ASSISTANT = {"assistant_only_loss": True}

CASES = (
    Case("text", "text", ALPACA),
    Case("text-edges", "text-edges", ALPACA),
    Case("text-long", "text-long", LONG, ("deepseek-coder",), {"max_length": 4096}),
    Case("text-64", "text", ALPACA, ("tinyllama",), {"max_length": 64}),
    Case("messages", "messages", ALPACA),
    Case("messages-system", "messages-system", ALPACA),
    Case("messages-edges", "messages-edges", ALPACA),
    Case("messages-64", "messages", ALPACA, EVERY, {"max_length": 64}),
    Case("messages-parts", "messages-parts", ALPACA, ("deepseek-coder", "qwen3"), {}, OURS),
    Case("multi-turn", "multi-turn", CHATS),
    Case("from-value", "from-value", CHATS, ("deepseek-coder", "qwen3")),
    Case(
        *("sharegpt-roles", "sharegpt", CHATS, ("deepseek-coder", "tinyllama")),
        aside="TRL leaves the role names human and gpt as they are; lorads maps them and says so",
    ),
    Case("prompt-completion", "prompt-completion", ALPACA),
    Case("prompt-completion-space", "prompt-completion-space", ALPACA),
    Case("prompt-completion-edges", "prompt-completion-edges", ALPACA),
    Case("prompt-completion-all", "prompt-completion", ALPACA, EVERY, {"completion_only_loss": False}),
    Case("prompt-completion-64", "prompt-completion", ALPACA, EVERY, {"max_length": 64}),
    Case("prompt-completion-24", "prompt-completion", ALPACA, EVERY, {"max_length": 24}),
    Case(
        *("prompt-completion-keep-end", "prompt-completion", ALPACA, ("deepseek-coder", "tinyllama")),
        {"max_length": 64, "truncation_mode": "keep_end"},
    ),
    Case("prompt-completion-messages", "prompt-completion-messages", ALPACA),
    Case("prompt-completion-messages-64", "prompt-completion-messages", ALPACA, EVERY, {"max_length": 64}),
    Case("prompt-completion-history", "prompt-completion-history", CHATS),
    Case("template-kwargs", "template-kwargs", ALPACA, ("qwen3",)),
    Case("tools", "tools", TOOLS, ("qwen3",)),
    Case("tools-strings", "tools-strings", TOOLS, ("qwen3",)),
    Case("tools-prompt-completion", "tools-prompt-completion", TOOLS, ("qwen3",)),
    Case("tools-bfcl", "bfcl", ("asset:datasets/bfcl_v4_multiple.jsonl",), ("qwen3",)),
    Case("tools-openai", "openai-tools", ("asset:datasets/openai_drone_training_2024-06-17_fixed.jsonl",), ("qwen3",)),
    Case("assistant-only", "messages-system", ALPACA, EVERY, ASSISTANT, OURS),
    Case("assistant-only-multi-turn", "multi-turn", CHATS, EVERY, ASSISTANT, OURS),
    Case("assistant-only-brackets", "multi-turn", CHATS, EVERY, ASSISTANT, BRACKETS),
    Case("assistant-only-edges", "messages-edges", ALPACA, EVERY, ASSISTANT, OURS),
    Case("assistant-only-64", "multi-turn", CHATS, ("deepseek-coder",), {**ASSISTANT, "max_length": 64}, OURS),
    Case("assistant-only-completion", "prompt-completion-history", CHATS, ("deepseek-coder",), ASSISTANT, OURS),
    Case("assistant-only-laguna", "multi-turn", CHATS, ("qwen3",), ASSISTANT, LAGUNA),
    Case("tokenized", "tokenized", ALPACA, ("deepseek-coder",)),
    Case("tokenized-labels", "tokenized-labels", ALPACA, ("deepseek-coder",), {"max_length": 256}),
    Case("tokenized-masks", "tokenized-masks", ALPACA, ("deepseek-coder",)),
    Case("tokenized-masks-completion", "tokenized-masks", ALPACA, ("deepseek-coder",), {"completion_only_loss": True}),
)


def edge_cases() -> list[Case]:
    """The small cases of ``edges.json``, written by hand."""
    found = json.loads((HERE / "edges.json").read_text(encoding="utf-8"))
    return [
        Case(
            f"edge-{name}",
            "own",
            (f"parity:edges.json#{name}",),
            edge["tokenizers"],
            edge.get("settings", {}),
            edge.get("template"),
            aside=edge.get("aside", ""),
        )
        for name, edge in found.items()
    ]


def pick(case: Case, held_out: bool) -> list[tuple[int, int, rows.Row]]:
    """Source, row and training row of a case's rows. Cases over the same sources get the same rows."""
    change = rows.TRANSFORMATIONS[case.transformation]
    pool = [(s, r) for s, name in enumerate(case.sources) for r in range(len(recording.source_rows(name)))]
    if case.transformation != "own":
        random.Random("+".join(case.sources)).shuffle(pool)
        # Half of a small pool each, so that held-out rows are always other rows.
        size = min(case.rows, len(pool) // 2)
        pool = pool[size : 2 * size + 40] if held_out else pool[:size]
    made = [(s, r, change(recording.source_rows(case.sources[s])[r])) for s, r in pool]
    fit = [(s, r, row) for s, r, row in made if row is not None]
    return fit[: case.rows]


def tokenizer_directory(name: str) -> Path:
    return realdata.asset_dir(f"tokenizers/{name}")


def describe_tokenizer(name: str, tokenizer: Any) -> dict[str, Any]:
    """Name, sha256 of the file, the class that transformers chose, and whether it left the file's pipeline as it is."""
    content = (tokenizer_directory(name) / "tokenizer.json").read_bytes()
    ours, theirs = json.loads(content), json.loads(tokenizer.backend_tokenizer.to_str())
    parts = ("normalizer", "pre_tokenizer")
    return {
        "name": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "class": type(tokenizer).__name__,
        "changed": {part: theirs.get(part) for part in parts if theirs.get(part) != ours.get(part)},
    }


def arguments_of(settings: dict[str, Any]) -> list[str]:
    """The options of ``lorads tokenize`` that mean the settings of SFTConfig."""
    arguments = ["--trainer", "trl"]
    if "max_length" in settings:
        arguments += ["--max-length", str(settings["max_length"] or "none")]
    if settings.get("assistant_only_loss"):
        arguments += ["--train-on", "assistant"]
    elif "completion_only_loss" in settings:
        arguments += ["--train-on", "completion" if settings["completion_only_loss"] else "all"]
    if "truncation_mode" in settings:
        arguments += ["--trainer-option", f"truncation_mode={settings['truncation_mode']}"]
    return arguments


def record(case: Case, tokenizer_name: str, held_out: bool) -> recording.Cell:
    """One cell, through the real trainer."""
    import datasets
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    picked = pick(case, held_out)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory(tokenizer_name))
    header = {
        "case": case.name,
        "tokenizer": describe_tokenizer(tokenizer_name, tokenizer),
        "trainer": "trl",
        "versions": {package: version(package) for package in PACKAGES},
        "settings": case.settings,
        "template": case.template and {"name": case.template, "sha256": recording.source_sha256(case.template)},
        "transformation": case.transformation,
        "sources": [{"name": name, "sha256": recording.source_sha256(name)} for name in case.sources],
        "arguments": arguments_of(case.settings),
    }
    if case.aside:
        header["aside"] = case.aside
    cell = recording.Cell(header)
    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **size))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "train.jsonl")
        with data.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for _, _, row in picked)
        settings = {"max_length": 1024, **case.settings}
        if case.template:
            settings["chat_template_path"] = str(recording.source_path(case.template))
        arguments = SFTConfig(output_dir=folder, report_to=[], use_cpu=True, bf16=False, **settings)
        try:
            dataset = datasets.load_dataset("json", data_files=str(data), split="train", cache_dir=f"{folder}/cache")
            dataset = dataset.add_column("parity_row", list(range(len(dataset))))
            trainer = SFTTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)
        except Exception as refusal:  # noqa: BLE001 - whatever stops a user is a fact to record
            header["raises"] = f"{type(refusal).__name__}: {refusal}"[:300]
            return cell
        built = {int(row["parity_row"]): row for row in trainer.train_dataset}
    for position, (source, index, _) in enumerate(picked):
        cell.rows.append({"source": source, "row": index, **_figures(built.get(position))})
    return cell


def _figures(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"dropped": True}
    ids, labels = list(row["input_ids"]), list(row["labels"])
    trained = recording.spans(ids, labels)
    return {"ids": ids, "labels": labels} if trained is None else {"ids": ids, "on": trained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=Path, metavar="DIR", help="record other rows, into DIR")
    parser.add_argument("--only", default="", help="record only the cases whose name starts with this, keep the others")
    options = parser.parse_args()

    import datasets
    import torch
    import transformers

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    cases = [*CASES, *([] if options.held_out else edge_cases())]
    target = options.held_out or TARGET
    target.mkdir(parents=True, exist_ok=True)
    for tokenizer_name in EVERY:
        file = target / f"{tokenizer_name}{recording.SUFFIX}"
        cells = {cell.header["case"]: cell for cell in recording.read(file)} if options.only and file.exists() else {}
        asked = [case for case in cases if tokenizer_name in case.tokenizers]
        for case in asked:
            if case.name.startswith(options.only):
                cell = cells[case.name] = record(case, tokenizer_name, bool(options.held_out))
                kept = [row for row in cell.rows if "ids" in row]
                tokens = sum(len(row["ids"]) for row in kept)
                outcome = cell.header.get("raises") or f"{len(cell.rows)} rows, {len(kept)} kept, {tokens} tokens"
                print(f"{cell.name}: {outcome}", flush=True)
        recording.write(file, [cells[case.name] for case in asked if case.name in cells])


if __name__ == "__main__":
    main()
