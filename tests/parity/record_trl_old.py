"""Records what older versions of TRL fed: ``python tests/parity/record_trl_old.py [--held-out DIR]``.

The environment decides the version: trl 0.17.0 or 0.24.0 with transformers 4.57.6, or 0.24.0 with transformers 5.0.0::

    python3.11 -m venv DIR && DIR/bin/pip install torch==2.13.0
    DIR/bin/pip install --no-deps trl==0.17.0
    DIR/bin/pip install transformers==4.57.6 'accelerate<1.13' 'datasets<4.5' rich jinja2 pytest

(0.24.0 with 5.0.0 wants ``huggingface_hub<2``.) ``$LORADS_ASSETS`` for the tokenizers. Each cell constructs an
``SFTTrainer`` around a tiny random model, takes the columns that its data loader would take from ``train_dataset``, and
puts each row through the trainer's collator by itself. A row at which the collator stops is recorded as dropped.
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

from parity import record_trl, recording, rows

FIXTURES = Path(__file__).resolve().parent.parent.parent / "fixtures" / "trainers"
ALPACA, CHATS, OURS = record_trl.ALPACA, record_trl.CHATS, record_trl.OURS
TOKENIZERS = ("qwen3", "gpt-oss", "tinyllama", "deepseek-coder")
CHATTY = ("qwen3", "deepseek-coder")
QUESTION, ANSWER = "### Question:\n", "### Response:\n"
SHORT = {"max_length": 256}
PACKED = {"packing": True, "max_length": 64}


@dataclass(frozen=True)
class Case:
    """``settings`` are SFTConfig's; ``markers`` the templates of DataCollatorForCompletionOnlyLM (and a pad token)."""

    name: str
    transformation: str
    sources: tuple[str, ...] = ALPACA
    tokenizers: tuple[str, ...] = TOKENIZERS
    settings: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    markers: dict[str, str] = field(default_factory=dict)
    rows: int = record_trl.ROWS


# transformers 4.57 loads TinyLlama's tokenizer in its legacy way, which shows behind control tokens alone
BOTH = (
    Case("text", "text-edges", ALPACA, ("qwen3", "gpt-oss")),
    Case("text", "text", ALPACA, ("tinyllama",)),
    Case("messages", "messages-edges", ALPACA, CHATTY),
    Case("multi-turn", "multi-turn", CHATS, ("qwen3",), SHORT),
    Case("prompt-completion", "prompt-completion-space", ALPACA, ("qwen3", "gpt-oss", "tinyllama")),
    Case("prompt-completion-edges", "prompt-completion-edges", ALPACA, ("qwen3",)),
    Case("prompt-completion-24", "prompt-completion", ALPACA, ("qwen3",), {"max_length": 24}),
    Case("prompt-completion-all", "prompt-completion", ALPACA, ("tinyllama",), {"completion_only_loss": False}),
    Case("prompt-completion-messages", "prompt-completion-messages", ALPACA, CHATTY),
    Case("prompt-completion-messages-64", "prompt-completion-messages", ALPACA, ("qwen3",), {"max_length": 64}),
    Case("prompt-completion-history", "trl/continued", CHATS, ("deepseek-coder",), SHORT),
    Case("tokenized-labels", "tokenized-labels", ALPACA, ("qwen3",), {"max_length": 256}),
    Case("tokenized-masks", "tokenized-masks", ALPACA, ("qwen3",), {"completion_only_loss": True, "max_length": 256}),
    Case("eos-token", "text-edges", ALPACA, ("qwen3",), {"eos_token": "<|endoftext|>"}),
    Case("packing", "prompt-completion", ALPACA, ("qwen3", "tinyllama"), PACKED),
)
ONLY = {
    "0.17.0": (
        Case("markers", "trl/marked", ALPACA, ("qwen3", "tinyllama"), {}, None, {"response": ANSWER}),
        Case("markers-40", "trl/marked", ALPACA, ("qwen3",), {"max_length": 40}, None, {"response": ANSWER}),
        Case("markers-both", "trl/marked", ALPACA, ("qwen3",), {}, None, {"response": ANSWER, "instruction": QUESTION}),
        Case(
            *("markers-chat", "multi-turn", CHATS, ("qwen3",), SHORT, OURS),
            {"response": "<|im_start|>assistant\n", "instruction": "<|im_start|>user\n"},
        ),
        Case(
            *("markers-chat-last", "multi-turn", CHATS, ("tinyllama",), SHORT, OURS),
            {"response": "<|im_start|>assistant\n", "pad_token": "<unk>"},
        ),
        Case(
            *("markers-pad-eos", "messages-edges", ALPACA, ("qwen3",), {}, OURS),
            {"response": "<|im_start|>assistant\n", "pad_token": "<|im_end|>"},
        ),
        Case("padding-free", "prompt-completion", ALPACA, ("qwen3",), {"padding_free": True}),
    ),
    "0.24.0": (
        Case("packing-wrapped", "prompt-completion", ALPACA, ("qwen3",), {**PACKED, "packing_strategy": "wrapped"}),
        Case("packing-labels", "tokenized-labels", ALPACA, ("tinyllama",), PACKED),
        Case("template-kwargs", "template-kwargs", ALPACA, ("qwen3",), SHORT),
        Case("assistant-only", "multi-turn", CHATS, ("qwen3",), {"assistant_only_loss": True, **SHORT}, OURS),
        Case(
            *("assistant-only-completion", "prompt-completion-history", CHATS, ("qwen3",)),
            {"assistant_only_loss": True, **SHORT},
            OURS,
        ),
        Case(
            *("padding-free", "prompt-completion", ALPACA, ("qwen3",)),
            {"padding_free": True, "max_length": None},
        ),
    ),
}


def arguments_of(case: Case) -> list[str]:
    settings = case.settings
    arguments = ["--trainer", f"trl@{'.'.join(version('trl').split('.')[:2])}"]
    if "max_length" in settings:
        arguments += ["--max-length", str(settings["max_length"] or "none")]
    if settings.get("assistant_only_loss"):
        arguments += ["--train-on", "assistant"]
    elif "completion_only_loss" in settings:
        arguments += ["--train-on", "completion" if settings["completion_only_loss"] else "all"]
    if settings.get("packing"):
        arguments += ["--packing"]
    for name in ("response", "instruction"):
        if name in case.markers:
            arguments += [f"--{name}-marker", case.markers[name]]
    own = {name: settings[name] for name in ("packing_strategy", "padding_free", "eos_token") if name in settings}
    if "pad_token" in case.markers:
        own["pad_token"] = case.markers["pad_token"]
    if version("trl").startswith("0.24"):
        own["transformers"] = version("transformers").partition(".")[0]
    for name, value in own.items():
        arguments += ["--trainer-option", f"{name}={json.dumps(value) if isinstance(value, bool) else value}"]
    return arguments


def record(case: Case, name: str, held_out: bool) -> recording.Cell:
    from transformers import AutoTokenizer

    picked = record_trl.pick(case, held_out)  # type: ignore[arg-type]
    if "eos_token" in case.settings:
        tokenizer = AutoTokenizer.from_pretrained(record_trl.tokenizer_directory(name))
    else:
        tokenizer = record_trl.load_tokenizer(name)
    suffix = ".transformers-5" if version("transformers").startswith("5") else ""
    header = {
        "case": case.name + suffix,
        "tokenizer": record_trl.describe_tokenizer(name, tokenizer),
        "trainer": f"trl@{version('trl')}",
        "versions": {package: version(package) for package in record_trl.PACKAGES},
        "settings": {**case.settings, **case.markers},
        "template": case.template and {"name": case.template, "sha256": recording.source_sha256(case.template)},
        "transformation": case.transformation,
        "sources": [{"name": name, "sha256": recording.source_sha256(name)} for name in case.sources],
        "arguments": arguments_of(case),
    }
    cell = recording.Cell(header)
    training_rows = [row for _, _, row in picked]
    try:
        if case.settings.get("packing"):
            alone = {key: value for key, value in case.settings.items() if "packing" not in key}
            whole = _fed(_trainer(case, tokenizer, training_rows, {**alone, "max_length": None}))
            strategy = case.settings.get("packing_strategy", "bfd" if version("trl") == "0.24.0" else "wrapped")
            packed = _trainer(case, tokenizer, training_rows, case.settings)
            built = record_trl.unpacked(whole, packed, {**case.settings, "packing_strategy": strategy})
        else:
            built = _fed(_trainer(case, tokenizer, training_rows, case.settings))
    except Exception as refusal:  # noqa: BLE001 - whatever stops a user is a fact to record
        header["raises"] = f"{type(refusal).__name__}: {refusal}".partition("\n")[0][:300]
        return cell
    for position, (source, index, _) in enumerate(picked):
        row = built.get(position)
        figures: dict[str, Any] = {"dropped": True}
        if row is not None and "why" in row:
            figures["why"] = row["why"]
        elif row is not None:
            spans = recording.spans(row["input_ids"], row["labels"])
            figures = {"ids": row["input_ids"], **({"labels": row["labels"]} if spans is None else {"on": spans})}
        cell.rows.append({"source": source, "row": index, **figures})
    return cell


def _fed(trainer: Any) -> dict[int, dict[str, Any]]:
    """What the collator makes of each row alone."""
    trainer._set_signature_columns_if_needed()
    dataset = trainer.train_dataset
    columns = [column for column in trainer._signature_columns if column in dataset.column_names]
    built: dict[int, dict[str, Any]] = {}
    for row in dataset:
        features = {column: row[column] for column in columns}
        try:
            batch = trainer.data_collator([features])
        except Exception as stop:  # noqa: BLE001 - a row at which the run stops
            built[int(row["parity_row"])] = {"why": f"{type(stop).__name__}: {stop}"[:120]}
            continue
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        assert ids == row["input_ids"]
        built[int(row["parity_row"])] = {"input_ids": ids, "labels": labels}
    return built


def _trainer(case: Case, tokenizer: Any, training_rows: list[rows.Row], settings: dict[str, Any]) -> Any:
    import datasets
    import trl
    from transformers import LlamaConfig, LlamaForCausalLM

    size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=1, **size))
    if case.template:
        tokenizer.chat_template = recording.source_path(case.template).read_text(encoding="utf-8")
    collator = None
    if "response" in case.markers:
        if "pad_token" in case.markers:
            tokenizer.pad_token = case.markers["pad_token"]
        collator = trl.DataCollatorForCompletionOnlyLM(
            case.markers["response"], case.markers.get("instruction"), tokenizer=tokenizer
        )
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "train.jsonl")
        with data.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in training_rows)
        arguments = trl.SFTConfig(
            output_dir=folder, report_to=[], use_cpu=True, bf16=False, **{"max_length": 1024, **settings}
        )
        dataset = datasets.load_dataset(
            "json", data_files=str(data), split="train", cache_dir=f"{folder}/cache", keep_in_memory=True
        )
        dataset = dataset.add_column("parity_row", list(range(len(dataset))))
        return trl.SFTTrainer(
            model=model, args=arguments, train_dataset=dataset, processing_class=tokenizer, data_collator=collator
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--held-out", type=Path, metavar="DIR", help="record other rows, into DIR")
    parser.add_argument("--only", default="", help="record only the cases whose name starts with this, keep the others")
    options = parser.parse_args()
    record_trl.quiet()
    installed = version("trl")
    folder = f"trl-{'.'.join(installed.split('.')[:2])}"
    five = version("transformers").startswith("5")
    target = (options.held_out or FIXTURES) / folder
    target.mkdir(parents=True, exist_ok=True)
    cases = [*BOTH, *ONLY[installed]]
    if five:
        # of transformers 5.0 only what differs
        cases = [case for case in cases if "completion" in case.transformation or case.name in ("text", "messages")]
    for name in TOKENIZERS:
        file = target / f"{name}{recording.SUFFIX}"
        # one file for both transformers: their rows are the same
        known = {cell.header["case"]: cell for cell in recording.read(file)} if file.exists() else {}
        made: dict[str, recording.Cell] = {}
        for case in cases:
            if (
                name in case.tokenizers
                and case.name.startswith(options.only)
                and not (five and name == "deepseek-coder")
            ):
                cell = record(case, name, bool(options.held_out))
                kept = sum("ids" in row for row in cell.rows)
                print(f"{cell.name}: {cell.header.get('raises') or f'{len(cell.rows)} rows, {kept} kept'}", flush=True)
                made[cell.header["case"]] = cell
        if made:
            recording.write(file, [*{**known, **made}.values()])


if __name__ == "__main__":
    main()
