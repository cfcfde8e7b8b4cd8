"""Records what Unsloth really builds.

    python tests/parity/record_unsloth.py [--older] [--held-out DIR] [--only CASES] [--tokenizers NAMES]

Needs ``$LORADS_ASSETS`` for the tokenizers and an environment of its own (Python 3.11, CPU)::

    pip install torch==2.13.0
    pip install transformers==5.17.0 trl==1.15.0 "datasets<5" accelerate sentencepiece protobuf psutil pytest
    pip install --no-deps unsloth==2026.10.9 unsloth_zoo==2026.10.9 peft torchao cut_cross_entropy einops msgspec \\
        hf_transfer pillow tyro triton bitsandbytes diffusers nest-asyncio json5 structlog

``UNSLOTH_ALLOW_CPU`` is Unsloth's own switch for machines without a GPU. It leaves TRL's trainer as it is, so what
``import unsloth`` does to it on a GPU is done here: ``SFTTrainer`` is written anew, padding-free by default. Tokenizers
come from Unsloth's loader, which repairs some. Each cell loads its rows with ``datasets.load_dataset("json")``,
constructs that trainer around a tiny random model, calls ``train_on_responses_only`` where the case asks for it, and
reads ``trainer.train_dataset``; where that has no labels, they are the ids, as the collator is seen to make them (but
for the first label, which the padding-free one masks).

``--older`` records unsloth_zoo 2025.3.16, in another environment::

    pip install torch==2.13.0
    pip install transformers==4.49.0 trl==0.15.2 "datasets<4" accelerate==1.4.0 sentencepiece protobuf pytest
    pip download --no-deps unsloth_zoo==2025.3.16    # unpacked below $UNSLOTH_ZOO

Its package wants a GPU to be imported, so an empty package that leads to its modules stands in for
``unsloth_zoo/__init__.py``; its ``sft_prepare_dataset`` takes the place of the trainer's method, as Unsloth put it
there.

Cases with packing are run twice: the plain run tells which row a piece of a pack is.
``--held-out DIR`` records rows that the committed recordings don't hold, with the same cases, into another directory.
"""

from __future__ import annotations

import os
import sys
import tempfile
import types
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.update(TQDM_DISABLE="1", UNSLOTH_ALLOW_CPU="1", UNSLOTH_IS_PRESENT="1", UNSLOTH_DATASET_NUM_PROC="0")
os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", tempfile.mkdtemp(prefix="unsloth_compiled_"))
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import recorder, recording, rows
from parity.recorder import ALPACA, CHATS, LONG, ROWS, TOOLS

PACKAGES = ("unsloth", "unsloth_zoo", "trl", "transformers", "tokenizers", "datasets", "torch", "jinja2")
MAX_LENGTH = 2048
EVERY = ("deepseek-coder", "qwen3", "tinyllama")
BYTE_LEVEL = ("deepseek-coder", "qwen3")
ALL = (*EVERY, "deepseek-v3", "gpt-oss", "smollm2", "phi-3", "mistral-v0.1")
ALTERNATING = ("mistral-v0.1",)

ALPACA_MARKERS = {"instruction_part": "### Instruction:\n", "response_part": "### Response:\n"}
CHATML_MARKERS = {"instruction_part": "<|im_start|>user\n", "response_part": "<|im_start|>assistant\n"}
ZEPHYR_MARKERS = {"instruction_part": "<|user|>\n", "response_part": "<|assistant|>\n", "force_match": False}
INFERRED: dict[str, Any] = {}


@dataclass(frozen=True)
class Case:
    """``settings`` are SFTConfig's, ``responses`` the arguments of ``train_on_responses_only`` where it is called."""

    name: str
    transformation: str
    sources: Sequence[str]
    tokenizers: Sequence[str] = EVERY
    max_length: int = MAX_LENGTH
    responses: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    formatting: bool = False
    """A ``formatting_func`` renders the conversations to texts."""
    template: str | None = None
    rows: int = ROWS
    aside: str = ""


SHORT = 64
LAST = {"last_response_only": True}
THOUGHTS = {"mask_out_tokens": ["</think>", "the"]}
CASES = (
    Case("text-edges", "text-edges", ALPACA, ("tinyllama",), 512),
    Case("text-long", "text-long", LONG, ("tinyllama",), 96),
    Case("text-64", "text-edges", ALPACA, ("tinyllama", "qwen3"), SHORT),
    Case("text-markers", "unsloth/alpaca-text", ALPACA, ("deepseek-coder", "tinyllama"), 256, ALPACA_MARKERS),
    Case("text-markers-64", "unsloth/alpaca-text", ALPACA, EVERY, SHORT, ALPACA_MARKERS),
    Case(
        *("text-markers-loose", "unsloth/alpaca-text", ALPACA, EVERY, 128),
        responses={
            "instruction_part": "\n### Instruction:\n",
            "response_part": "\n### Response:\n",
            "force_match": False,
        },
    ),
    Case(
        *("text-markers-bare", "unsloth/alpaca-text", ALPACA, ("deepseek-coder", "tinyllama"), 128),
        responses={"instruction_part": "### Instruction:", "response_part": "### Response:", "force_match": False},
    ),
    Case("dialogue", "unsloth/dialogue-text", CHATS, EVERY, 256, ALPACA_MARKERS),
    Case("dialogue-last", "unsloth/dialogue-text", CHATS, EVERY, 128, {**ALPACA_MARKERS, **LAST}),
    Case("chatml", "unsloth/typed-chatml", ALPACA, ("qwen3", "smollm2", "tinyllama"), 256, CHATML_MARKERS),
    Case(
        *("chatml-loose", "unsloth/typed-chatml", ALPACA, ("qwen3",), 128),
        responses={**CHATML_MARKERS, "force_match": False},
    ),
    Case("chatml-last", "unsloth/typed-chatml", ALPACA, ("qwen3",), 48, {**CHATML_MARKERS, **LAST}),
    Case("messages", "messages-system", ALPACA, ("tinyllama",), 256),
    Case("messages-64", "messages", ALPACA, ("qwen3",), SHORT, settings={"truncation_mode": "keep_end"}),
    Case("answers", "multi-turn", CHATS, BYTE_LEVEL, 256, INFERRED),
    Case("answers-edges", "messages-edges", ALPACA, ALL, 256, INFERRED),
    Case("answers-system", "messages-system", ALPACA, BYTE_LEVEL, 160, INFERRED),
    Case("answers-alternating", "unsloth/alternating", CHATS, ALTERNATING, 128, INFERRED),
    Case("answers-96", "multi-turn", CHATS, (*BYTE_LEVEL, "deepseek-v3"), 96, INFERRED),
    Case("answers-last", "multi-turn", CHATS, (*BYTE_LEVEL, "gpt-oss"), 192, LAST),
    Case("zephyr", "multi-turn", CHATS, ("tinyllama",), 256, ZEPHYR_MARKERS),
    Case("zephyr-edges", "messages-edges", ALPACA, ("tinyllama",), 256, ZEPHYR_MARKERS),
    Case("zephyr-last", "multi-turn", CHATS, ("tinyllama",), 128, {**ZEPHYR_MARKERS, **LAST}),
    Case("zephyr-formatted", "unsloth/conversations", CHATS, ("tinyllama",), 192, ZEPHYR_MARKERS, formatting=True),
    Case("zephyr-completion", "prompt-completion-history", CHATS, ("tinyllama",), 256, ZEPHYR_MARKERS),
    Case("answers-mask-out", "messages-edges", ALPACA, ("qwen3", "deepseek-coder"), 160, THOUGHTS),
    Case(
        *("answers-keep-end", "multi-turn", CHATS, ("qwen3",), 96, INFERRED),
        settings={"truncation_mode": "keep_end"},
    ),
    Case("formatted", "unsloth/conversations", ALPACA, ("deepseek-coder", "tinyllama"), 160, formatting=True),
    Case("formatted-answers", "unsloth/conversations", CHATS, ("deepseek-coder",), 192, INFERRED, formatting=True),
    Case("formatted-messages", "messages-edges", ALPACA, ("tinyllama", "deepseek-v3"), 160, formatting=True),
    Case("prompt-completion-space", "prompt-completion-space", ALPACA, ("qwen3", "tinyllama"), 192),
    Case("prompt-completion-edges", "prompt-completion-edges", ALPACA, EVERY),
    Case("prompt-completion-24", "prompt-completion", ALPACA, ("qwen3", "tinyllama"), 24),
    Case(
        "prompt-completion-all", "prompt-completion", ALPACA, ("qwen3",), 96, settings={"completion_only_loss": False}
    ),
    Case("prompt-completion-answers", "prompt-completion-history", CHATS, BYTE_LEVEL, 256, INFERRED),
    Case("template-kwargs", "template-kwargs", ALPACA, ("qwen3",), 128),
    Case("tools-strings", "tools-strings", TOOLS, ("qwen3",), 256),
    Case("tools-prompt-completion", "tools-prompt-completion", TOOLS, ("qwen3",), 352, INFERRED),
    Case("tokenized", "tokenized", ALPACA, ("qwen3",), 96),
    Case("tokenized-labels", "tokenized-labels", ALPACA, ("qwen3",), 96),
    Case("tokenized-masks", "tokenized-masks", ALPACA, ("qwen3",), 96),
    Case("tokenized-answers", "unsloth/tokenized-answers", ALPACA, ("qwen3",), 128, CHATML_MARKERS),
    Case("tokenized-ids-answers", "unsloth/tokenized-ids-answers", ALPACA, ("qwen3",), 128, INFERRED),
    Case("packing", "text-edges", ALPACA, ("tinyllama",), SHORT, settings={"packing": True}),
    Case("packing-completion", "prompt-completion", ALPACA, ("qwen3",), SHORT, settings={"packing": True}),
    Case("packing-messages", "multi-turn", CHATS, ("qwen3",), SHORT, settings={"packing": True}),
)
OLDER_CASES = (
    Case("text-edges", "text-edges", ALPACA, ("tinyllama",), 128),
    Case("text-64", "text-edges", ALPACA, ("tinyllama",), SHORT),
    Case("text-markers", "unsloth/alpaca-text", ALPACA, ("tinyllama", "qwen3"), 128, ALPACA_MARKERS),
    Case(
        *("text-markers-loose", "unsloth/alpaca-text", ALPACA, ("tinyllama", "qwen3"), 128),
        responses={
            "instruction_part": "\n### Instruction:\n",
            "response_part": "\n### Response:\n",
            "force_match": False,
        },
    ),
    Case("dialogue", "unsloth/dialogue-text", CHATS, ("tinyllama", "qwen3"), 128, ALPACA_MARKERS),
    Case("chatml", "unsloth/typed-chatml", ALPACA, ("qwen3", "smollm2"), 96, CHATML_MARKERS),
    Case("formatted", "unsloth/conversations", ALPACA, ("tinyllama",), 96, formatting=True),
    Case("formatted-answers", "unsloth/conversations", CHATS, ("qwen3",), 160, CHATML_MARKERS, formatting=True),
    Case("zephyr", "unsloth/conversations", CHATS, ("tinyllama",), 128, ZEPHYR_MARKERS, formatting=True),
    Case("tokenized-labels", "unsloth/tokenized-short", ALPACA, ("qwen3",), 32),
)
FILE_AS_IT_IS = ["--config", "tests/parity/load_as_file.toml"]
"""transformers 4.49 leaves these tokenizers as their files have them; Qwen's is the same in both."""


def edge_cases() -> Iterator[Case]:
    """The small cases of ``edges_unsloth.json``, written by hand."""
    for name, edge in recorder.edges("edges_unsloth.json").items():
        yield Case(
            f"edge-{name}",
            "own",
            (f"parity:edges_unsloth.json#{name}",),
            edge["tokenizers"],
            edge.get("max_length", MAX_LENGTH),
            edge.get("responses"),
            edge.get("settings", {}),
            edge.get("formatting", False),
            edge.get("template"),
            aside=edge.get("aside", ""),
        )


def arguments_of(case: Case, tokenizer: str, older: bool) -> list[str]:
    """The options of ``lorads tokenize`` that mean the case's settings."""
    out = ["--trainer", "unsloth@2025.3" if older else "unsloth", "--max-length", str(case.max_length)]
    if case.responses is not None:
        out += ["--train-on", "last" if case.responses.get("last_response_only") else "assistant"]
        for name, option in (("instruction_part", "instruction"), ("response_part", "response")):
            if name in case.responses:
                out += [f"--{option}-marker", case.responses[name]]
        for name in ("force_match", "mask_out_tokens"):
            if name in case.responses:
                out += recorder.trainer_option(name, case.responses[name])
    if "completion_only_loss" in case.settings:
        out += ["--train-on", "completion" if case.settings["completion_only_loss"] else "all"]
    if case.settings.get("packing"):
        out.append("--packing")
    for name in ("truncation_mode", "padding_free"):
        if name in case.settings:
            out += recorder.trainer_option(name, case.settings[name])
    if case.template == "none":
        out += ["--chat-template", "none"]
    if older and tokenizer != "qwen3":
        out += FILE_AS_IT_IS
    if case.formatting and case.transformation.startswith("messages") and not older:
        out += recorder.trainer_option("formatting_func", True)
    return out


@cache
def unsloth() -> tuple[Any, Callable[..., Any]]:
    """Unsloth's trainer, as it is after ``import unsloth`` on a GPU, and ``train_on_responses_only``."""
    import unsloth  # noqa: F401 - before trl, as Unsloth asks for
    from unsloth.chat_templates import train_on_responses_only
    from unsloth.models.rl import _patch_trl_rl_trainers
    from unsloth.trainer import _patch_sft_trainer_auto_packing

    _patch_trl_rl_trainers("sft_trainer")
    import trl

    _patch_sft_trainer_auto_packing(trl)
    return trl, train_on_responses_only


@cache
def older_unsloth() -> tuple[Any, Callable[..., Any]]:
    package = types.ModuleType("unsloth_zoo")
    package.__path__ = [str(Path(os.environ["UNSLOTH_ZOO"], "unsloth_zoo"))]
    sys.modules["unsloth_zoo"] = package
    import trl
    from unsloth_zoo.dataset_utils import sft_prepare_dataset, train_on_responses_only

    trl.SFTTrainer._prepare_dataset = sft_prepare_dataset
    return trl, train_on_responses_only


@cache
def load_tokenizer(name: str, older: bool) -> tuple[Any, str]:
    """The tokenizer and its own chat template."""
    directory = str(recorder.tokenizer_directory(name))
    if older:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(directory)
    else:
        from unsloth.tokenizer_utils import load_correct_tokenizer

        tokenizer = load_correct_tokenizer(directory, model_max_length=MAX_LENGTH)
    return tokenizer, tokenizer.chat_template


class Survivors:
    """Follows which rows the filters of ``datasets`` leave, while the library runs."""

    def __init__(self, rows: int) -> None:
        self.rows = list(range(rows))

    def __enter__(self) -> Survivors:
        from datasets import Dataset

        self._filter = Dataset.filter

        def filter_(dataset: Any, *args: Any, **kwargs: Any) -> Any:
            numbered = dataset.add_column("parity_position", list(range(len(dataset))))
            left = self._filter(numbered, *args, **kwargs)
            self.rows = [self.rows[i] for i in left["parity_position"]]
            return left.remove_columns("parity_position")

        Dataset.filter = filter_
        return self

    def __exit__(self, *error: object) -> None:
        from datasets import Dataset

        Dataset.filter = self._filter


def run(case: Case, tokenizer: Any, training_rows: list[rows.Row], folder: str, older: bool) -> tuple[list[int], Any]:
    """The rows that are left, and the trainer."""
    trl, train_on_responses_only = older_unsloth() if older else unsloth()
    model = recorder.tiny_llama(tokenizer)
    length = {"max_seq_length": case.max_length} if older else {}
    if not older:
        model.max_seq_length = case.max_length
    precision = {} if older else {"fp16": False}
    arguments = trl.SFTConfig(
        output_dir=folder, report_to=[], use_cpu=True, bf16=False, **precision, **length, **case.settings
    )
    if older:
        arguments.dataset_num_proc = None
    rendered: Callable[[Any], list[str]] | None = None
    if case.formatting:

        def rendered(examples: Any) -> list[str]:
            found = examples["conversations"] if "conversations" in examples else examples["messages"]
            many = found if found and isinstance(found[0], list) else [found]
            return [tokenizer.apply_chat_template(messages, tokenize=False) for messages in many]

    dataset = recorder.load_rows(training_rows, folder)
    with Survivors(len(dataset)) as survivors:
        trainer = trl.SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=dataset,
            processing_class=tokenizer,
            formatting_func=rendered,
        )
        if case.responses is not None:
            trainer = train_on_responses_only(trainer, **case.responses)
    return survivors.rows, trainer


def built(
    case: Case, tokenizer: Any, training_rows: list[rows.Row], folder: str, older: bool
) -> dict[int, tuple[list[int], list[int]]]:
    """Ids and labels of the rows that are left."""
    packing = case.settings.get("packing")
    plain = replace(case, settings={**case.settings, "packing": False}) if packing else case
    left, trainer = run(plain, tokenizer, training_rows, folder, older)
    out = {}
    for row, example in zip(left, trainer.train_dataset, strict=True):
        ids = list(example["input_ids"])
        labels = list(example.get("labels", ids))
        if ids and not older:
            example = {name: value for name, value in example.items() if name in ("input_ids", "labels")}
            seen = trainer.data_collator([example])["labels"][0].tolist()
            assert seen[1:] == labels[1:], (seen, labels)
            assert seen[0] in (-100, labels[0]), (seen, labels)
        out[row] = ids, labels
    return packed(case, tokenizer, training_rows, folder, out) if packing else out


def packed(
    case: Case,
    tokenizer: Any,
    training_rows: list[rows.Row],
    folder: str,
    plain: dict[int, tuple[list[int], list[int]]],
) -> dict[int, tuple[list[int], list[int]]]:
    """What becomes of each row inside its pack. Rows of the same ids have the same labels there."""
    _, trainer = run(case, tokenizer, training_rows, folder, older=False)
    assert trainer.args.packing
    pieces: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)
    for example in trainer.train_dataset:
        labels = trainer.data_collator([example])["labels"][0].tolist()
        at = 0
        for length in example["seq_lengths"]:
            pieces[tuple(example["input_ids"][at : at + length])].append(labels[at : at + length])
            at += length
    found = {}
    for row, (ids, _) in plain.items():
        found[row] = ids, pieces[tuple(ids)].pop(0)
    assert not any(pieces.values())
    return found


def record(case: Case, name: str, held_out: bool, *, older: bool) -> recording.Cell:
    """One cell, through the real trainer."""
    picked = recorder.pick(case, held_out)
    (older_unsloth if older else unsloth)()
    tokenizer, chat_template = load_tokenizer(name, older)
    template = None if case.template == "none" else case.template
    if template:
        chat_template = recording.source_path(template).read_text(encoding="utf-8")
    tokenizer.chat_template = None if case.template == "none" else chat_template
    versions = recorder.versions(PACKAGES[2:] if older else PACKAGES)
    header = recorder.header(
        case,
        trainer="unsloth@2025.3" if older else "unsloth",
        versions={**versions, "unsloth_zoo": "2025.3.16"} if older else versions,
        tokenizer=recorder.describe_tokenizer(name, tokenizer),
        arguments=arguments_of(case, name, older),
        settings={
            "max_length": case.max_length,
            **case.settings,
            **({} if case.responses is None else {"train_on_responses_only": case.responses}),
            **({"formatting_func": "apply_chat_template"} if case.formatting else {}),
        },
        template=template,
        aside=case.aside,
        dated=name == "gpt-oss" and case.template is None,
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            found = built(case, tokenizer, [row for _, _, row in picked], folder, older)
        except AssertionError:
            raise
        except Exception as refusal:  # noqa: BLE001 - whatever stops a user is a fact to record
            return recording.Cell({**header, "raises": recorder.said(refusal)})
    kept = {position: recorder.figures(*row) for position, row in found.items()}
    return recorder.cell(header, picked, (kept.get(position, {"dropped": True}) for position in range(len(picked))))


def main() -> None:
    parser = recorder.parser(__doc__)
    parser.add_argument("--older", action="store_true", help="record unsloth_zoo 2025.3.16")
    options = parser.parse_args()
    recorder.quiet()
    cases = OLDER_CASES if options.older else (*CASES, *edge_cases())
    target = recorder.TRAINERS / ("unsloth-2025.3" if options.older else "unsloth-2026.10")
    recorder.run(options, target, cases, partial(record, older=options.older))


if __name__ == "__main__":
    main()
