"""Records what TRL's SFTTrainer really builds: ``python tests/parity/record_trl.py [--held-out DIR] [--only CASES]``.

Needs an environment with trl 1.16.0, transformers 5.23.0, torch (CPU is enough) and pytest, and ``$LORADS_ASSETS`` for
the tokenizers. Each cell loads its rows with ``datasets.load_dataset("json")`` from a JSON lines file, as a user would,
constructs an ``SFTTrainer`` around a tiny random model and reads ``trainer.train_dataset``. Nothing is trained.
Packed sequences go through the trainer's collator and are taken apart again: which row a document is of is told from
the same rows, unpacked.

``--held-out DIR`` records rows that the committed recordings don't hold, with the same cases, into another directory.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import recorder, recording, rows
from parity.recorder import ALPACA, BRACKETS, CHATS, DRONE, LONG, ROWS, TOOLS
from parity.recorder import CHATML as OURS

TARGET = recorder.TRAINERS / "trl-1.16"
PACKAGES = ("trl", "transformers", "tokenizers", "datasets", "torch", "jinja2")
EVERY = ("deepseek-coder", "qwen3", "tinyllama")


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
    Case("tools-openai", "openai-tools", DRONE, ("qwen3",)),
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
        for name, edge in recorder.edges("edges.json").items()
    ]


def arguments_of(settings: dict[str, Any], trainer: str = "trl") -> list[str]:
    """The options of ``lorads tokenize`` that mean the settings of SFTConfig."""
    arguments = ["--trainer", trainer]
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
            arguments += recorder.trainer_option(name, settings[name])
    return arguments


def record(case: Case, name: str, held_out: bool) -> recording.Cell:
    """One cell, through the real trainer."""
    picked = recorder.pick(case, held_out)
    tokenizer = recorder.load_tokenizer(name, fresh="eos_token" in case.settings)
    header = recorder.header(
        case,
        trainer="trl",
        versions=recorder.versions(PACKAGES),
        tokenizer=recorder.describe_tokenizer(name, tokenizer),
        arguments=arguments_of(case.settings),
        template=case.template,
        aside=case.aside,
        dated=(case.template or name) in DATED,
    )
    try:
        built = _build(case, tokenizer, [row for _, _, row in picked])
    except Exception as refusal:  # noqa: BLE001 - whatever stops a user is a fact to record
        return recording.Cell({**header, "raises": recorder.said(refusal)})
    return recorder.cell(header, picked, (_figures(built.get(position)) for position in range(len(picked))))


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
    from trl import SFTConfig, SFTTrainer

    with tempfile.TemporaryDirectory() as folder:
        settings = {"max_length": 1024, **settings}
        if case.template:
            settings["chat_template_path"] = str(recording.source_path(case.template))
        return SFTTrainer(
            model=recorder.tiny_llama(tokenizer),
            args=SFTConfig(output_dir=folder, report_to=[], use_cpu=True, bf16=False, **settings),
            train_dataset=recorder.load_rows(training_rows, folder, numbered=True),
            processing_class=tokenizer,
        )


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
    return {"dropped": True} if row is None else recorder.figures(list(row["input_ids"]), list(row["labels"]))


def main() -> None:
    options = recorder.parser(__doc__).parse_args()
    recorder.quiet()
    recorder.run(options, TARGET, [*CASES, *edge_cases()], record)


if __name__ == "__main__":
    main()
