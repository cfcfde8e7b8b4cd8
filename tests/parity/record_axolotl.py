"""Records what axolotl really builds: ``python tests/parity/record_axolotl.py [--held-out DIR] [--only CASES]``.

Needs an environment with axolotl 0.19.0 and what it pins; on a CPU::

    pip install torch==2.13.0
    pip install --no-deps axolotl==0.19.0 transformers==5.16.1 tokenizers==0.23.1 datasets==4.8.4 \
        huggingface_hub==1.17.0 accelerate==1.13.0 peft==0.20.0 trl==1.9.0 pydantic==2.12.5
    pip install 'pydantic-core==2.41.5' annotated-types typing-inspection addict fire PyYAML colorama numba pillow \
        pyarrow pandas dill 'multiprocess' xxhash requests httpx regex safetensors psutil tqdm posthog==6.7.11 distro \
        backoff schedulefree einops termcolor python-dotenv sentencepiece protobuf mistral-common==1.11.5 typer pytest

and ``$LORADS_ASSETS`` for the tokenizers. Each cell writes its rows as a JSON lines file, validates a config
(``validate_config``), loads the tokenizer as axolotl does and calls ``prepare_datasets``, which loads, tokenizes,
filters and cuts. So that a row can be told after the filters, a column with its number is added to what
``get_dataset_wrapper`` returns; the prepared dataset is not saved. Nothing else of axolotl is touched. A row that stops
the run is found by giving rows one by one, and left out.

``--held-out DIR`` records rows that the committed recordings don't hold, with the same cases, into another directory.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.update(AXOLOTL_DO_NOT_TRACK="1", AXOLOTL_LOG_LEVEL="ERROR", LOG_LEVEL="ERROR")
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import recorder, recording, rows
from parity.recorder import ALPACA, BRACKETS, CHATML, CHATS, ROWS, TOOLS

TARGET = recorder.TRAINERS / "axolotl-0.19"
PACKAGES = ("axolotl", "transformers", "tokenizers", "datasets", "jinja2")
FEW = ("deepseek-coder", "qwen3", "tinyllama")
ALL = (*FEW, "deepseek-v3", "mistral-v0.1", "phi-3", "smollm2")
TWO = ("deepseek-coder", "tinyllama")


@dataclass(frozen=True)
class Case:
    """``settings`` are the config's, ``dataset`` those of its dataset; ``template`` is a chat template by reference."""

    name: str
    transformation: str
    sources: Sequence[str]
    tokenizers: Sequence[str] = FEW
    dataset: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    template: str | None = None
    rows: int = ROWS
    aside: str = ""


def chat(
    name: str,
    transformation: str,
    sources: Sequence[str] = ALPACA,
    tokenizers: Sequence[str] = FEW,
    *,
    template: str | None = None,
    settings: dict[str, Any] | None = None,
    rows: int = ROWS,
    **dataset: Any,
) -> Case:
    settings = {"sequence_len": 2048, **(settings or {})}
    return Case(
        name, transformation, sources, tokenizers, {"type": "chat_template", **dataset}, settings, template, rows
    )


def instruction(
    name: str,
    transformation: str,
    type_: str = "alpaca",
    tokenizers: Sequence[str] = ("deepseek-coder", "tinyllama"),
    sources: Sequence[str] = ALPACA,
    **settings: Any,
) -> Case:
    return Case(name, transformation, sources, tokenizers, {"type": type_}, {"sequence_len": 512, **settings})


SHAREGPT: dict[str, Any] = {
    "field_messages": "conversations",
    "message_property_mappings": {"role": "from", "content": "value"},
}
MARKED: dict[str, Any] = {"message_field_training": "train"}

CASES = (
    chat("chat", "messages", tokenizers=ALL, settings={"sequence_len": 512}),
    chat("chat-system", "messages-system", tokenizers=(*FEW, "phi-3")),
    chat("chat-edges", "messages-edges", tokenizers=(*ALL,)),
    chat("chat-edges-chatml", "messages-edges", template=CHATML, tokenizers=("deepseek-coder",)),
    chat("chat-64", "messages", settings={"sequence_len": 64}),
    chat("chat-64-truncate", "messages", settings={"sequence_len": 64, "excess_length_strategy": "truncate"}),
    chat(
        *("chat-64-packing", "messages-system"),
        settings={
            "sequence_len": 64,
            "excess_length_strategy": "truncate",
            "sample_packing": True,
            "pad_to_sequence_len": True,
        },
    ),
    chat("chat-packing-edges", "messages-edges", settings={"sample_packing": True, "pad_to_sequence_len": True}),
    chat("chat-min", "messages", tokenizers=("qwen3",), settings={"min_sample_len": 60}),
    chat("multi-turn", "multi-turn", CHATS),
    chat("multi-turn-512", "multi-turn", CHATS, ("qwen3",), settings={"sequence_len": 512}),
    chat("multi-turn-chatml", "multi-turn", CHATS, ("tinyllama",), template=CHATML),
    chat("multi-turn-brackets", "multi-turn", CHATS, ("deepseek-coder",), template=BRACKETS),
    chat("eos-all", "multi-turn", CHATS, TWO, train_on_eos="all"),
    chat("eos-last", "multi-turn", CHATS, ("deepseek-coder", "qwen3"), train_on_eos="last"),
    chat("eos-none", "multi-turn", CHATS, TWO, train_on_eos="none"),
    chat("eos-all-edges", "messages-edges", tokenizers=("deepseek-coder", "qwen3"), train_on_eos="all"),
    chat("eos-last-edges", "messages-edges", tokenizers=TWO, train_on_eos="last"),
    chat(
        *("eot", "multi-turn", CHATS, ("deepseek-coder",)),
        template=CHATML,
        settings={"eot_tokens": ["<|im_end|>"]},
        rows=1,
    ),
    chat(
        *("eot-end", "multi-turn", CHATS, ("qwen3",)),
        settings={"eot_tokens": ["<|im_end|>", "<|im_start|>", "<|nowhere|>"]},
    ),
    chat(
        *("eot-all", "multi-turn", CHATS, ("qwen3",)),
        settings={"eot_tokens": ["<|im_start|>"]},
        train_on_eot="all",
        train_on_eos="last",
    ),
    chat(
        "roles-all",
        "messages-system",
        tokenizers=("deepseek-coder", "qwen3"),
        roles_to_train=["human", "assistant", "system"],
    ),
    chat("roles-none", "multi-turn", CHATS, ("qwen3",), roles_to_train=[], train_on_eos="all"),
    chat("train-on-inputs", "multi-turn", CHATS, TWO, settings={"train_on_inputs": True}),
    chat("sharegpt", "sharegpt", CHATS, ("deepseek-coder", "qwen3"), **SHAREGPT),
    chat("system-column", "axolotl/system-column", CHATS, TWO),
    chat("system-dropped", "axolotl/system-column", CHATS, ("deepseek-coder",), drop_system_message=True),
    chat("flags", "axolotl/flags", CHATS, FEW, **MARKED),
    chat("flags-eos-all", "axolotl/flags", CHATS, ("tinyllama",), **MARKED, train_on_eos="all"),
    chat("details", "axolotl/details", ALPACA, FEW, message_field_training_detail="train_detail"),
    chat("parts", "axolotl/parts"),
    chat("reasoning", "axolotl/reasoning", CHATS, ("qwen3",)),
    chat("split-thinking", "axolotl/thinking-tags", ALPACA, ("qwen3",), split_thinking=True),
    chat("thinking-tags", "axolotl/thinking-tags", ALPACA, ("qwen3",)),
    chat("gemma-2", "multi-turn", CHATS, ("deepseek-coder",), template="asset:templates/google-gemma-2-2b-it.jinja"),
    chat(
        "nemo", "multi-turn", CHATS, ("qwen3",), template="asset:templates/mistralai-Mistral-Nemo-Instruct-2407.jinja"
    ),
    chat(
        "phi-3.5",
        "messages-edges",
        tokenizers=("phi-3",),
        template="asset:templates/microsoft-Phi-3.5-mini-instruct.jinja",
    ),
    chat("lfm-2", "axolotl/reasoning", ALPACA, ("qwen3",), template="asset:templates/LFM2-8B-A1B.jinja"),
    chat(
        "template-kwargs", "messages", ALPACA, ("qwen3",), settings={"chat_template_kwargs": {"enable_thinking": False}}
    ),
    chat("tools", "axolotl/tools-text", TOOLS, ("qwen3",)),
    instruction("alpaca", "axolotl/alpaca", tokenizers=("deepseek-coder", "qwen3", "gpt-oss", "tinyllama")),
    instruction(
        "alpaca-edges", "axolotl/alpaca-edges", tokenizers=("deepseek-coder", "qwen3", "tinyllama", "mistral-v0.1")
    ),
    instruction("alpaca-96", "axolotl/alpaca", sequence_len=96),
    instruction("alpaca-96-truncate", "axolotl/alpaca", sequence_len=96, excess_length_strategy="truncate"),
    instruction("alpaca-inputs", "axolotl/alpaca", train_on_inputs=True),
    instruction("alpaca-packing", "axolotl/alpaca-edges", sample_packing=True, pad_to_sequence_len=True),
    instruction("alpaca-chat", "axolotl/alpaca", "alpaca:chat"),
    instruction("alpaca-chatml", "axolotl/alpaca-edges", "alpaca:chatml", ("qwen3",)),
    instruction("alpaca-phi", "axolotl/alpaca", "alpaca:phi", ("tinyllama",)),
    instruction("alpaca-concise", "axolotl/alpaca", "alpaca_chat.load_concise", ("tinyllama",)),
    instruction("alpaca-no-prompt", "axolotl/alpaca-edges", "alpaca_instruct.load_no_prompt"),
    instruction("alpaca-system", "axolotl/alpaca-system", "alpaca_w_system.load_instruct"),
    instruction("alpaca-system-chat", "axolotl/alpaca-system", "alpaca_w_system", ("tinyllama",)),
    instruction("completion", "text", "completion", ("deepseek-coder", "gpt-oss")),
    instruction("completion-edges", "text-edges", "completion", ("deepseek-coder", "tinyllama")),
    instruction("completion-64", "text", "completion", ("deepseek-coder", "tinyllama"), sequence_len=64),
    instruction("completion-16", "text", "completion", ("tinyllama",), sequence_len=16),
    instruction("tokenized", "axolotl/ids", "completion", ("deepseek-coder",), sequence_len=256),
)


def edge_cases() -> list[Case]:
    """The small cases of ``edges_axolotl.json``, written by hand; ``like`` names another with the same rows."""
    return [
        Case(
            f"edge-{name}",
            "own",
            (f"parity:edges_axolotl.json#{edge.get('like', name)}",),
            edge["tokenizers"],
            edge.get("dataset", {"type": "chat_template"}),
            {"sequence_len": 512, **edge.get("settings", {})},
            edge.get("template"),
            aside=edge.get("aside", ""),
        )
        for name, edge in recorder.edges("edges_axolotl.json").items()
    ]


HUB = {
    "deepseek-coder": ("deepseek-ai/deepseek-coder-6.7b-instruct", "llama"),
    "deepseek-v3": ("deepseek-ai/DeepSeek-V3", "deepseek_v3"),
}
"""Tokenizers that transformers 5.16.1 builds rightly by their hub id or model type alone: from a directory of another
name they lose every space. They are given a directory called like the hub id."""


def tokenizer_argument(name: str, folder: str) -> str:
    """``tokenizer_config``; the working directory is ``folder``."""
    if name not in HUB:
        return str(recorder.tokenizer_directory(name))
    hub_id, model_type = HUB[name]
    directory = Path(folder, hub_id)
    directory.mkdir(parents=True)
    for file in recorder.tokenizer_directory(name).iterdir():
        (directory / file.name).symlink_to(file)
    if not (directory / "config.json").exists():
        (directory / "config.json").write_text(json.dumps({"model_type": model_type}), encoding="utf-8")
    return hub_id


def arguments_of(case: Case) -> list[str]:
    """The options of ``lorads tokenize`` that mean the config."""
    arguments = ["--trainer", "axolotl", "--max-length", str(case.settings["sequence_len"])]
    own = {**case.settings, **case.dataset}
    if own.pop("sample_packing", False):
        arguments.append("--packing")
    for name in ("sequence_len", "pad_to_sequence_len"):
        own.pop(name, None)
    for name, value in own.items():
        arguments += recorder.trainer_option(name, value)
    return arguments


class Prepared:
    """The datasets of one run, by row number: every row as it was tokenized, and those left at the end."""

    def __init__(self, case: Case, tokenizer_name: str, picked: Sequence[rows.Row]) -> None:
        from axolotl.loaders.tokenizer import load_tokenizer
        from axolotl.utils.config import normalize_config, validate_config
        from axolotl.utils.data import sft
        from axolotl.utils.dict import DictDefault
        from transformers import LlamaConfig

        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            LlamaConfig(vocab_size=32000, **recorder.TINY).save_pretrained(f"{folder}/model")
            rows.write(Path(folder, "train.jsonl"), picked)
            dataset = {"path": f"{folder}/train.jsonl", **case.dataset}
            if case.template:
                dataset |= {"chat_template": "jinja", "chat_template_jinja": str(recording.source_path(case.template))}
            written = {
                "base_model": f"{folder}/model",
                "tokenizer_config": tokenizer_argument(tokenizer_name, folder),
                "datasets": [dataset],
                "val_set_size": 0,
                "micro_batch_size": 1,
                "gradient_accumulation_steps": 1,
                "num_epochs": 1,
                "learning_rate": 1e-4,
                "optimizer": "adamw_torch",
                "bf16": False,
                "output_dir": f"{folder}/out",
                "dataset_prepared_path": f"{folder}/prepared",
                "dataset_num_proc": 1,
                **case.settings,
            }
            gpu = {"bf16": False, "fp8": False, "tf32": False, "n_gpu": 1, "n_node": 1, "compute_capability": "sm_80"}
            config = validate_config(DictDefault(written), gpu, {"torch_version": "2.13.0"})
            normalize_config(config)
            config.dataset_num_proc = None  # in this process, which is quicker for a few hundred rows
            self.tokenizer = load_tokenizer(config)
            self.tokenized: dict[int, int] = {}
            self.stopped: dict[int, str] = {}
            whole, save = sft.get_dataset_wrapper, sft.save_preprocessed_dataset

            def numbered(**arguments: Any) -> Any:
                try:
                    built, prompter = whole(**arguments)
                except Exception as refusal:
                    self._find_stopping(whole, arguments)
                    if not 0 < len(self.stopped) < len(picked):
                        raise refusal from None
                    going = [number for number in range(len(picked)) if number not in self.stopped]
                    arguments["dataset"] = arguments["dataset"].select(going)
                    built, prompter = whole(**arguments)
                going = [number for number in range(len(picked)) if number not in self.stopped]
                numbers = _numbers(arguments, going, built)
                self.tokenized = {number: len(ids) for number, ids in zip(numbers, built["input_ids"], strict=True)}
                return built.add_column("parity_row", numbers), prompter

            sft.get_dataset_wrapper = numbered
            sft.save_preprocessed_dataset = lambda *_: None
            try:
                left, *_ = sft.prepare_datasets(config, self.tokenizer)
            finally:
                sft.get_dataset_wrapper, sft.save_preprocessed_dataset = whole, save
            self.left: dict[int, tuple[list[int], list[int]]] = {}
            # pieces of one text are rows of their own, shuffled: put them together in their order
            for row in sorted(left, key=lambda row: row["parity_row"]):
                ids, labels = self.left.setdefault(int(row["parity_row"]) % 10**6, ([], []))
                ids += row["input_ids"]
                labels += row["labels"]

    def _find_stopping(self, whole: Any, arguments: dict[str, Any]) -> None:
        """The rows at which the tokenization raises when each is the only one, and what is said."""
        dataset = arguments["dataset"]
        for number in range(len(dataset)):
            try:
                whole(**{**arguments, "dataset": dataset.select([number])})
            except Exception as refusal:  # noqa: BLE001
                self.stopped[number] = recorder.said(refusal, 120)
            if number == 9 and len(self.stopped) == 10:
                return self.stopped.clear()  # it is not the rows
        return None


def _numbers(arguments: dict[str, Any], going: list[int], built: Any) -> list[int]:
    """The row that each tokenized row came from; a text may have become several, in the order of their millions."""
    from axolotl.prompt_strategies import load
    from axolotl.utils.data.wrappers import _is_dataset_already_tokenized

    dataset = arguments["dataset"]
    if arguments["dataset_base_type"] != "completion" or _is_dataset_already_tokenized(dataset):
        assert len(built) == len(going), "rows were lost"
        return going
    config = arguments["dataset_config"]
    strategy = load(config.type, arguments["tokenizer"], arguments["cfg"], config)
    numbers: list[int] = []
    for number, row in zip(going, dataset, strict=True):
        pieces = strategy.tokenize_prompt({name: [value] for name, value in row.items()}).get("input_ids", [])
        numbers += [number + 10**6 * piece for piece in range(len(pieces))]
    return numbers


def record(case: Case, tokenizer_name: str, held_out: bool) -> recording.Cell:
    """One cell, through the real library."""
    picked = recorder.pick(case, held_out)
    header = recorder.header(
        case,
        trainer="axolotl",
        versions=recorder.versions(PACKAGES),
        tokenizer=recorder.describe_file(tokenizer_name),
        arguments=arguments_of(case),
        settings={**case.settings, "datasets": [case.dataset]},
        template=case.template,
        aside=case.aside,
    )
    stopped: dict[int, str] = {}
    given = [row for _, _, row in picked]
    try:
        prepared = Prepared(case, tokenizer_name, given)
    except Exception as refusal:  # noqa: BLE001 - whatever stops a user is a fact to record
        if case.settings.get("excess_length_strategy") == "raise":
            stopped = _too_long(case, tokenizer_name, given)
        if not 0 < len(stopped) < len(picked):
            return recording.Cell({**header, "raises": recorder.said(refusal)})
        prepared = Prepared(case, tokenizer_name, [row for n, row in enumerate(given) if n not in stopped])
    positions = {number: i for i, number in enumerate(n for n in range(len(picked)) if n not in stopped)}
    stopped |= {number: why for number, i in positions.items() if (why := prepared.stopped.get(i))}
    limit = case.settings["sequence_len"]

    def figures(number: int) -> dict[str, Any]:
        position = positions.get(number)
        found = prepared.left.get(position) if position is not None else None
        if found is not None:
            return recorder.figures(*found)
        length = prepared.tokenized.get(position, 0) if position is not None else 0
        why = "too long" if length > limit else ("too short" if length < 2 else "dropped")
        return {"dropped": True, "why": stopped.get(number) or why}

    return recorder.cell(header, picked, map(figures, range(len(picked))))


def _too_long(case: Case, tokenizer_name: str, picked: Sequence[rows.Row]) -> dict[int, str]:
    """The rows at which ``excess_length_strategy: raise`` stops the run when each is the only one."""
    found: dict[int, str] = {}
    for number, row in enumerate(picked):
        try:
            Prepared(case, tokenizer_name, [row])
        except Exception as refusal:  # noqa: BLE001
            found[number] = recorder.said(refusal, 120)
    return found


def main() -> None:
    options = recorder.parser(__doc__).parse_args()
    recorder.quiet()
    recorder.run(options, TARGET, [*CASES, *edge_cases()], record)


if __name__ == "__main__":
    main()
