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

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import record_trl, recorder, recording, rows
from parity.recorder import ALPACA, CHATS, ROWS
from parity.recorder import CHATML as OURS

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
    sources: Sequence[str] = ALPACA
    tokenizers: Sequence[str] = TOKENIZERS
    settings: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    markers: dict[str, str] = field(default_factory=dict)
    rows: int = ROWS


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
        Case("markers", "trl/marked", ALPACA, ("qwen3", "tinyllama"), {}, markers={"response": ANSWER}),
        Case("markers-40", "trl/marked", ALPACA, ("qwen3",), {"max_length": 40}, markers={"response": ANSWER}),
        Case(
            "markers-both", "trl/marked", ALPACA, ("qwen3",), {}, markers={"response": ANSWER, "instruction": QUESTION}
        ),
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
    arguments = record_trl.arguments_of(case.settings, f"trl@{release()}")
    for name in ("response", "instruction"):
        if name in case.markers:
            arguments += [f"--{name}-marker", case.markers[name]]
    if "pad_token" in case.markers:
        arguments += recorder.trainer_option("pad_token", case.markers["pad_token"])
    if release() == "0.24":
        arguments += recorder.trainer_option("transformers", version("transformers").partition(".")[0])
    return arguments


def release() -> str:
    return version("trl").rpartition(".")[0]


def record(case: Case, name: str, held_out: bool) -> recording.Cell:
    picked = recorder.pick(case, held_out)
    tokenizer = recorder.load_tokenizer(name, fresh="eos_token" in case.settings)
    header = recorder.header(
        case,
        trainer=f"trl@{version('trl')}",
        versions=recorder.versions(record_trl.PACKAGES),
        tokenizer=recorder.describe_tokenizer(name, tokenizer),
        arguments=arguments_of(case),
        settings={**case.settings, **case.markers},
        template=case.template,
    )
    training_rows = [row for _, _, row in picked]
    try:
        if case.settings.get("packing"):
            alone = {key: value for key, value in case.settings.items() if "packing" not in key}
            whole = _fed(_trainer(case, tokenizer, training_rows, {**alone, "max_length": None}))
            strategy = case.settings.get("packing_strategy", "bfd" if release() == "0.24" else "wrapped")
            packed = _trainer(case, tokenizer, training_rows, case.settings)
            built = record_trl.unpacked(whole, packed, {**case.settings, "packing_strategy": strategy})
        else:
            built = _fed(_trainer(case, tokenizer, training_rows, case.settings))
    except Exception as refusal:  # noqa: BLE001 - whatever stops a user is a fact to record
        return recording.Cell({**header, "raises": recorder.said(refusal).partition("\n")[0]})
    return recorder.cell(header, picked, (_figures(built.get(position)) for position in range(len(picked))))


def _figures(row: dict[str, Any] | None) -> dict[str, Any]:
    if row is None or "why" in row:
        return {"dropped": True, **(row or {})}
    return recorder.figures(row["input_ids"], row["labels"])


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
            built[int(row["parity_row"])] = {"why": recorder.said(stop, 120)}
            continue
        ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        assert ids == row["input_ids"]
        built[int(row["parity_row"])] = {"input_ids": ids, "labels": labels}
    return built


def _trainer(case: Case, tokenizer: Any, training_rows: list[rows.Row], settings: dict[str, Any]) -> Any:
    import trl

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
        settings = {"max_length": 1024, **settings}
        return trl.SFTTrainer(
            model=recorder.tiny_llama(tokenizer),
            args=trl.SFTConfig(output_dir=folder, report_to=[], use_cpu=True, bf16=False, **settings),
            train_dataset=recorder.load_rows(training_rows, folder, numbered=True),
            processing_class=tokenizer,
            data_collator=collator,
        )


def cases_here() -> list[Case]:
    """The cases of the versions at hand: of transformers 5.0 only what differs, under names of its own."""
    cases = [*BOTH, *ONLY[version("trl")]]
    if not version("transformers").startswith("5"):
        return cases
    return [
        replace(
            case,
            name=f"{case.name}.transformers-5",
            tokenizers=[name for name in case.tokenizers if name != "deepseek-coder"],
        )
        for case in cases
        if "completion" in case.transformation or case.name in ("text", "messages")
    ]


def main() -> None:
    options = recorder.parser(__doc__).parse_args()
    recorder.quiet()
    folder = f"trl-{release()}"
    if options.held_out:
        options.held_out /= folder
    # one file for both transformers: their rows are the same
    recorder.run(options, recorder.TRAINERS / folder, cases_here(), record, keep=True)


if __name__ == "__main__":
    main()
