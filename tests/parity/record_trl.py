"""Records what TRL's SFTTrainer really builds: ``python tests/parity/record_trl.py [--held-out DIR] [--only CASES]``.

Needs an environment with trl 1.16.0, transformers 5.23.0, torch (CPU is enough) and pytest, and ``$LORADS_ASSETS`` for
the tokenizers. Each cell loads its rows with ``datasets.load_dataset("json")`` from a JSON lines file, as a user would,
constructs an ``SFTTrainer`` around a tiny random model and reads ``trainer.train_dataset``. Nothing is trained.
Packed sequences go through the trainer's collator and are taken apart again: which row a document is of is told from
the same rows, unpacked.

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
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from importlib.metadata import version
from itertools import chain
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
TOKENIZERS = (*EVERY, "gpt-oss")

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

KEEP_END = {"max_length": 96, "truncation_mode": "keep_end"}
TRAINED = {
    "qwen2.5": "asset:templates/Qwen-Qwen2.5-7B-Instruct.jinja",
    "qwen3.5": "asset:templates/Qwen3.5-4B.jinja",
    "nemotron": "asset:templates/NVIDIA-Nemotron-3-Nano-30B-A3B-BF16.jinja",
    "phi-3.5": "asset:templates/microsoft-Phi-3.5-mini-instruct.jinja",
    "muse": "asset:templates/muse-glimmer.jinja",
    "qwen3": "realdata:trl/chat_templates/qwen3.jinja",
    "qwen3-2507": "realdata:trl/chat_templates/qwen3_instruct_2507.jinja",
    "llama3": "realdata:trl/chat_templates/llama3.jinja",
    "deepseek-v3": "realdata:trl/chat_templates/deepseekv3.jinja",
    "deepseek-r1": "realdata:trl/chat_templates/deepseek_r1_distill.jinja",
    "lfm2": "realdata:trl/chat_templates/lfm2_v2.jinja",
    "glm4": "realdata:trl/chat_templates/glm4moe.jinja",
}
"""Templates for which TRL has a training template, which takes any order of roles."""
ALTERNATING = {
    "gemma": "asset:templates/google-gemma-2-2b-it.jinja",
    "gemma3": "realdata:trl/chat_templates/gemma3.jinja",
    "cohere": "realdata:trl/chat_templates/cohere.jinja",
    "cohere2": "realdata:trl/chat_templates/cohere2.jinja",
}
"""The same, but they stop at two turns of one role."""
WITH_TOOLS = ("qwen2.5", "qwen3.5", "nemotron", "qwen3", "qwen3-2507", "deepseek-v3", "lfm2", "glm4")
DATED = ("gpt-oss", TRAINED["muse"])
"""Tokenizers and templates that write today's date."""
UNKNOWN = {
    "lfm2.5": "asset:templates/LFM2.5-8B-A1B.jinja",
    "llama3.1": "asset:templates/meta-llama-Llama-3.1-8B-Instruct.jinja",
}
"""Templates that TRL knows and has no training template for."""


def trained_templates() -> Iterator[Case]:
    """``assistant_only_loss`` with templates that have no generation blocks."""
    short = {**ASSISTANT, "max_length": 512}
    for name, template in TRAINED.items():
        yield Case(f"trained-{name}", "trl/turns", CHATS, ("qwen3",), short, template)
        yield Case(f"trained-{name}-edges", "messages-edges", ALPACA, ("qwen3",), ASSISTANT, template)
    for name in WITH_TOOLS:
        yield Case(f"trained-{name}-tools", "trl/calls", TOOLS, ("qwen3",), short, TRAINED[name])
    for name, template in ALTERNATING.items():
        yield Case(f"trained-{name}", "trl/alternating", CHATS, ("qwen3",), short, template)
        yield Case(f"trained-{name}-edges", "messages-edges", ALPACA, ("qwen3",), ASSISTANT, template)
    for name, template in UNKNOWN.items():
        yield Case(f"trained-{name}", "multi-turn", CHATS, ("qwen3",), ASSISTANT, template)
    yield Case("trained-qwen3-completion", "prompt-completion-history", CHATS, ("qwen3",), short, TRAINED["qwen3"])
    yield Case("trained-qwen2.5", "trl/turns", CHATS, ("tinyllama",), short, TRAINED["qwen2.5"])
    yield Case("trained-gpt-oss", "messages-edges", ALPACA, ("gpt-oss",), ASSISTANT)
    yield Case("trained-gpt-oss-turns", "trl/turns", CHATS, ("gpt-oss",), short)
    yield Case("trained-gpt-oss-tools", "trl/harmony-tools", TOOLS, ("gpt-oss",), short)


def packings() -> Iterator[Case]:
    for strategy in ("bfd", "bfd_split", "wrapped"):
        packed = {"packing": True, "packing_strategy": strategy, "max_length": 64}
        yield Case(f"packing-{strategy}", "prompt-completion", ALPACA, ("deepseek-coder", "tinyllama"), packed)
        yield Case(f"packing-{strategy}-messages", "messages-system", ALPACA, ("qwen3",), packed)
        yield Case(f"packing-{strategy}-assistant", "multi-turn", CHATS, ("qwen3",), {**packed, **ASSISTANT}, OURS)
        yield Case(f"packing-{strategy}-labels", "tokenized-labels", ALPACA, ("deepseek-coder",), packed)
        yield Case(f"packing-{strategy}-text", "text-edges", ALPACA, ("tinyllama",), {**packed, "max_length": 33})


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
    *trained_templates(),
    Case("harmony", "messages-edges", ALPACA, ("gpt-oss",)),
    Case("harmony-completion", "prompt-completion-history", CHATS, ("gpt-oss",)),
    Case("harmony-text", "text-edges", ALPACA, ("gpt-oss",)),
    Case("harmony-prompt-completion", "prompt-completion-space", ALPACA, ("gpt-oss",)),
    Case("harmony-tools", "trl/harmony-tools", TOOLS, ("gpt-oss",)),
    *packings(),
    Case("padding-free", "prompt-completion", ALPACA, ("deepseek-coder",), {"padding_free": True, "max_length": None}),
    Case("eos-token", "text-edges", ALPACA, ("qwen3",), {"eos_token": "<|endoftext|>"}),
    Case("eos-token-completion", "prompt-completion-edges", ALPACA, ("tinyllama",), {"eos_token": "<0x0A>"}),
    Case("eos-token-messages", "messages-system", ALPACA, ("tinyllama",), {"eos_token": "<unk>"}),
    Case("assistant-only-keep-end", "multi-turn", CHATS, ("qwen3",), {**ASSISTANT, **KEEP_END}, OURS),
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
    change = rows.transformation(case.transformation)
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


@cache
def _loaded(name: str) -> tuple[Any, dict[str, Any]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory(name))
    return tokenizer, {part: getattr(tokenizer, part) for part in ("chat_template", "pad_token")}


def load_tokenizer(name: str) -> Any:
    """The tokenizer as it is loaded; what a cell changes in it is put back."""
    tokenizer, parts = _loaded(name)
    for part, value in parts.items():
        setattr(tokenizer, part, value)
    return tokenizer


@cache
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
    if settings.get("packing"):
        arguments += ["--packing"]
    for name in ("truncation_mode", "packing_strategy", "padding_free", "eos_token"):
        if name in settings:
            arguments += ["--trainer-option", f"{name}={_written(settings[name])}"]
    return arguments


def _written(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)


def record(case: Case, tokenizer_name: str, held_out: bool) -> recording.Cell:
    """One cell, through the real trainer."""
    from transformers import AutoTokenizer

    picked = pick(case, held_out)
    if "eos_token" in case.settings:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_directory(tokenizer_name))
    else:
        tokenizer = load_tokenizer(tokenizer_name)
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
    if (case.template is None and tokenizer_name in DATED) or case.template in DATED:
        header["date"] = date.today().isoformat()
    cell = recording.Cell(header)
    try:
        built = _build(case, tokenizer, [row for _, _, row in picked])
    except Exception as refusal:  # noqa: BLE001 - whatever stops a user is a fact to record
        header["raises"] = f"{type(refusal).__name__}: {refusal}"[:300]
        return cell
    for position, (source, index, _) in enumerate(picked):
        cell.rows.append({"source": source, "row": index, **_figures(built.get(position))})
    return cell


def _build(case: Case, tokenizer: Any, training_rows: list[rows.Row]) -> dict[int, dict[str, Any]]:
    """What the trainer makes of each row, by its place among them."""
    settings = case.settings
    if settings.get("packing"):
        alone = {name: value for name, value in settings.items() if "packing" not in name}
        whole = {
            int(row["parity_row"]): row
            for row in _trainer(case, tokenizer, training_rows, {**alone, "max_length": None}).train_dataset
        }
        return unpacked(whole, _trainer(case, tokenizer, training_rows, settings), settings)
    trainer = _trainer(case, tokenizer, training_rows, settings)
    built = {int(row["parity_row"]): row for row in trainer.train_dataset}
    if settings.get("padding_free"):
        for row in built.values():
            row["labels"] = trainer.data_collator([row])["labels"][0].tolist()
    return built


def _trainer(case: Case, tokenizer: Any, training_rows: list[rows.Row], settings: dict[str, Any]) -> Any:
    import datasets
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl import SFTConfig, SFTTrainer

    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **size))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "train.jsonl")
        with data.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in training_rows)
        settings = {"max_length": 1024, **settings}
        if case.template:
            settings["chat_template_path"] = str(recording.source_path(case.template))
        arguments = SFTConfig(output_dir=folder, report_to=[], use_cpu=True, bf16=False, **settings)
        # held in memory: the folder goes
        dataset = datasets.load_dataset(
            "json", data_files=str(data), split="train", cache_dir=f"{folder}/cache", keep_in_memory=True
        )
        dataset = dataset.add_column("parity_row", list(range(len(dataset))))
        return SFTTrainer(model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer)


def unpacked(whole: dict[int, dict[str, Any]], trainer: Any, settings: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """The rows out of packed sequences, with the labels that the collator leaves them."""
    length, strategy = settings["max_length"], settings["packing_strategy"]
    ids: list[int] = []
    labels: list[int] = []
    documents: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)
    for packed in trainer.train_dataset:
        batch = trainer.data_collator([packed])
        found = batch["labels"][0].tolist()
        assert batch["input_ids"][0].tolist() == packed["input_ids"], "the collator changes no id of one sequence"
        ids += packed["input_ids"]
        labels += found
        begin = 0
        for size in packed.get("seq_lengths", ()):
            documents[tuple(packed["input_ids"][begin : begin + size])].append(found[begin : begin + size])
            begin += size
    built: dict[int, dict[str, Any]] = {}
    begin = 0
    for position, row in whole.items():
        own = list(row["input_ids"])
        if not own:
            continue
        if strategy == "wrapped":
            assert ids[begin : begin + len(own)] == own, "wrapped packing keeps the order of the rows"
            built[position] = {"input_ids": own, "labels": labels[begin : begin + len(own)]}
            begin += len(own)
            continue
        pieces = [own[:length]] if strategy == "bfd" else [own[i : i + length] for i in range(0, len(own), length)]
        taken = [
            _take(documents[tuple(piece)], row["labels"][i * length : i * length + len(piece)])
            for i, piece in enumerate(pieces)
        ]
        built[position] = {"input_ids": own[: sum(map(len, taken))], "labels": [*chain(*taken)]}
    assert strategy == "wrapped" or not any(documents.values()), "a document of no row"
    return built


def _take(documents: list[list[int]], alone: list[int]) -> list[int]:
    """One of the documents with the same ids: the one with the row's labels, if any has them behind the first."""
    for i, labels in enumerate(documents):
        if labels[1:] == alone[1:]:
            return documents.pop(i)
    return documents.pop(0)


def _figures(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None:
        return {"dropped": True}
    ids, labels = list(row["input_ids"]), list(row["labels"])
    trained = recording.spans(ids, labels)
    return {"ids": ids, "labels": labels} if trained is None else {"ids": ids, "on": trained}


def quiet() -> None:
    """One thread, no progress bars, no warnings."""
    import datasets
    import torch
    import transformers

    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=Path, metavar="DIR", help="record other rows, into DIR")
    parser.add_argument("--only", default="", help="record only the cases whose name starts so, keep the others: A,B…")
    options = parser.parse_args()

    quiet()
    cases = [*CASES, *([] if options.held_out else edge_cases())]
    target = options.held_out or TARGET
    target.mkdir(parents=True, exist_ok=True)
    for tokenizer_name in TOKENIZERS:
        file = target / f"{tokenizer_name}{recording.SUFFIX}"
        cells = {cell.header["case"]: cell for cell in recording.read(file)} if options.only and file.exists() else {}
        asked = [case for case in cases if tokenizer_name in case.tokenizers]
        made = False
        for case in asked:
            if case.name.startswith(tuple(options.only.split(","))):
                cell = cells[case.name] = record(case, tokenizer_name, bool(options.held_out))
                kept = [row for row in cell.rows if "ids" in row]
                tokens = sum(len(row["ids"]) for row in kept)
                outcome = cell.header.get("raises") or f"{len(cell.rows)} rows, {len(kept)} kept, {tokens} tokens"
                print(f"{cell.name}: {outcome}", flush=True)
                made = True
        if made:
            recording.write(file, [cells[case.name] for case in asked if case.name in cells])


if __name__ == "__main__":
    main()
