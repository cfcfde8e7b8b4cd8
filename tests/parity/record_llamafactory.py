"""Records what LLaMA-Factory really builds: ``python tests/parity/record_llamafactory.py [--held-out DIR]``.

Needs an environment of its own with Python 3.11 and ``$LORADS_ASSETS`` for the tokenizers::

    pip install torch==2.13.0
    pip install --no-deps llamafactory==0.9.5
    pip install transformers==5.2.0 "tokenizers>=0.22,<=0.23" accelerate==1.11.0 datasets==4.0.0 peft==0.18.1 omegaconf
    pip install sentencepiece protobuf pillow einops pytest
    pip install --no-deps trl==0.24.0

``torchaudio``, which the import alone needs, is an empty stand-in. transformers 5.2.0 is the newest that LLaMA-Factory
allows and that keeps the spaces of the DeepSeek-Coder tokenizer (5.3.0 to 5.6.0 lose them).
DeepSeek-V3's tokenizer gets a config.json with its model type, as it has on the hub: without it transformers 5.0 to 5.2
lose its line breaks.

Each cell writes its rows to a JSON lines file with a dataset_info.json, loads the tokenizer with ``load_tokenizer``,
and goes through ``get_template_and_fix_tokenizer``, the loader of datasets, the library's converter and its dataset
processor row by row, so that each row keeps its number; then ``get_dataset`` runs over the whole file (without the rows
at which it stops), and must give the same ids and labels in the same order (in packs: the same rows).

``--held-out DIR`` records rows that the committed recordings don't hold, with the same cases, into another directory;
``--everything`` adds a case for each template and tool format that has none. The registry is compared with lorads'
templates.toml.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.machinery
import io
import json
import os
import shutil
import sys
import tempfile
import tomllib
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

os.environ["DISABLE_VERSION_CHECK"] = "1"
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import recorder, recording, rows
from parity.recorder import ALPACA, CHATS, ROWS, TOOLS

TARGET = recorder.TRAINERS / "llamafactory-0.9.5"
TEMPLATES = recorder.HERE.parent.parent / "validator" / "lorads" / "trainers" / "llamafactory" / "templates.toml"
PACKAGES = ("llamafactory", "transformers", "tokenizers", "datasets", "torch")

OPENAI_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "system_tag": "system",
}
"""As data/README.md declares messages."""
INFO: dict[str, dict[str, Any]] = {
    "alpaca": {},
    "alpaca-full": {
        "columns": {
            "prompt": "instruction",
            "query": "input",
            "response": "output",
            "system": "system",
            "history": "history",
        }
    },
    "prompt-completion": {"columns": {"prompt": "prompt", "response": "completion"}},
    "sharegpt": {"formatting": "sharegpt", "columns": {"messages": "conversations", "system": "system"}},
    "sharegpt-plain": {"formatting": "sharegpt", "columns": {"messages": "conversations"}},
    "sharegpt-tools": {"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}},
    "messages": {"formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": OPENAI_TAGS},
    "messages-tools": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "tools": "tools"},
        "tags": OPENAI_TAGS,
    },
    "openai": {"formatting": "openai", "columns": {"messages": "messages"}, "tags": OPENAI_TAGS},
    "openai-tools": {
        "formatting": "openai",
        "columns": {"messages": "messages", "tools": "tools"},
        "tags": {**OPENAI_TAGS, "observation_tag": "tool", "function_tag": "call"},
    },
    "other-tags": {
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {**OPENAI_TAGS, "user_tag": "client", "assistant_tag": "expert", "system_tag": "frame"},
    },
}
TOLD = {
    "openai": ["formatting=openai"],
    "openai-tools": ["formatting=openai", "observation_tag=tool", "function_tag=call"],
    "other-tags": ["user_tag=client", "assistant_tag=expert", "system_tag=frame"],
}
"""What lorads has to be told of a declaration that it does not take for granted."""


@dataclass(frozen=True)
class Case:
    """``settings`` are DataArguments', ``info`` names a declaration of the dataset."""

    name: str
    transformation: str
    info: str
    sources: Sequence[str]
    tokenizers: Sequence[str]
    settings: dict[str, Any] = field(default_factory=dict)
    rows: int = ROWS


def _case(
    name: str, kind: str, tokenizers: str, rows_: int = ROWS, sources: Sequence[str] | None = None, **settings: Any
) -> Case:
    """``kind`` is a transformation, with the declaration behind a colon where it has another name."""
    change, _, info = kind.partition(":")
    found = sources or (
        ALPACA
        if change.startswith(("alpaca", "prompt"))
        else TOOLS
        if "tools" in change or "calls" in change
        else CHATS
    )
    declared = {"alpaca-edges": "alpaca", "alpaca-thoughts": "alpaca-full", "sharegpt-calls": "sharegpt-plain"}
    info = info or declared.get(change, change)
    return Case(name, f"llamafactory/{change}", info, found, tokenizers.split(), settings, rows_)


DS, V3, Q3, Q25, GPT, TINY, PHI, SMOL, MIST = (
    *("deepseek-coder", "deepseek-v3", "qwen3", "qwen2.5", "gpt-oss", "tinyllama", "phi-3", "smollm2", "mistral-v0.1"),
)
MODEL_TYPES = {V3: "deepseek_v3"}
EVERY = (DS, Q3, TINY, V3, GPT, Q25, PHI, SMOL, MIST)

TOOL_FORMATS = ("glm4", "glm4_moe", "lfm2", "ling", "minimax1", "minimax2", "mistral", "qwen", "qwen3_5", "seed_oss")

CASES = (
    _case("alpaca", "alpaca", f"{DS} {Q3} {TINY}", template="alpaca"),
    _case("alpaca-full", "alpaca-full", f"{DS} {TINY}", template="alpaca"),
    _case("alpaca-edges", "alpaca-edges", f"{DS} {Q3} {TINY}", template="alpaca"),
    _case("alpaca-64", "alpaca", f"{DS} {TINY}", template="alpaca", cutoff_len=64),
    _case("deepseekcoder", "alpaca-full", DS, template="deepseekcoder"),
    _case("deepseekcoder-edges", "alpaca-edges", DS, template="deepseekcoder"),
    _case("deepseekcoder-128", "sharegpt", DS, template="deepseekcoder", cutoff_len=128),
    _case("deepseekcoder-last", "sharegpt", DS, template="deepseekcoder", mask_history=True, cutoff_len=256),
    _case("deepseekcoder-prompt", "sharegpt", DS, template="deepseekcoder", train_on_prompt=True),
    _case("deepseekcoder-tools", "sharegpt-tools", DS, template="deepseekcoder"),
    _case("deepseekcoder-packing", "alpaca", DS, template="deepseekcoder", packing=True, cutoff_len=200),
    _case("deepseekcoder-system", "alpaca-full", DS, template="deepseekcoder", default_system="Nur auf Deutsch.\n"),
    _case("default", "sharegpt", TINY, template="default"),
    _case("chatml", "sharegpt", f"{DS} {TINY}", template="chatml"),
    _case("chatml-edges", "alpaca-edges", f"{DS} {TINY}", template="chatml"),
    _case("chatml-tools", "sharegpt-tools", Q3, template="chatml"),
    _case("empty", "alpaca-edges", f"{DS} {TINY}", template="empty"),
    _case("vicuna", "sharegpt", TINY, template="vicuna"),
    _case("zephyr", "sharegpt", TINY, template="zephyr"),
    _case("zephyr-edges", "alpaca-edges", TINY, template="zephyr"),
    _case("llama2", "alpaca-full", TINY, template="llama2"),
    _case("llama2-96-last", "sharegpt", TINY, template="llama2", cutoff_len=96, mask_history=True),
    _case("llama3", "sharegpt", TINY, template="llama3"),
    _case("llama3-calls", "sharegpt-calls", DS, template="llama3"),
    _case("mistral", "alpaca-full", f"{TINY} {MIST}", template="mistral"),
    _case("mistral-tools", "sharegpt-tools", TINY, template="mistral"),
    _case("gemma", "alpaca-full", TINY, template="gemma"),
    _case("gemma2", "sharegpt", TINY, template="gemma2"),
    _case("gemma2-64", "sharegpt", TINY, template="gemma2", cutoff_len=64),
    _case("gemma2-last", "sharegpt", TINY, template="gemma2", mask_history=True, cutoff_len=128),
    _case("gemma2-packing", "alpaca", TINY, template="gemma2", neat_packing=True, cutoff_len=160),
    _case("phi", "alpaca-full", f"{PHI} {TINY}", template="phi"),
    _case("phi4", "sharegpt", f"{DS} {Q3}", template="phi4"),
    _case("yi", "sharegpt", DS, template="yi"),
    _case("qwen", "alpaca-full", f"{Q25} {Q3}", template="qwen"),
    _case("qwen3", "alpaca-thoughts", Q3, template="qwen3"),
    _case("qwen3-messages", "messages", Q3, template="qwen3"),
    _case("qwen3-edges", "alpaca-edges", Q3, template="qwen3"),
    _case("qwen3-off", "alpaca-thoughts", Q3, template="qwen3", enable_thinking=False),
    _case("qwen3-last", "alpaca-thoughts", Q3, template="qwen3", mask_history=True),
    _case(
        "qwen3-last-off",
        "alpaca-thoughts",
        Q3,
        template="qwen3",
        mask_history=True,
        enable_thinking=False,
        cutoff_len=96,
    ),
    _case(
        "qwen3-last-preserved",
        "alpaca-thoughts",
        Q3,
        template="qwen3",
        mask_history=True,
        preserve_thinking=True,
    ),
    _case("qwen3-prompt-64", "messages", Q3, template="qwen3", train_on_prompt=True, cutoff_len=64),
    _case("qwen3-calls", "sharegpt-calls", Q3, template="qwen3"),
    _case("qwen3-tools", "sharegpt-tools", Q3, template="qwen3"),
    _case("qwen3-packing", "messages", Q3, template="qwen3", packing=True, cutoff_len=512),
    _case("qwen3-nothink", "alpaca-thoughts", Q3, template="qwen3_nothink"),
    _case("messages", "messages", f"{DS} {TINY}", template="default"),
    _case("messages-other-tags", "other-tags", DS, template="deepseekcoder"),
    _case("messages-tools", "messages-tools", Q3, template="qwen3"),
    _case("openai", "messages:openai", f"{Q3} {DS}", template="qwen"),
    _case("openai-tools", "messages-tools:openai-tools", Q3, template="qwen3_nothink"),
    _case("prompt-completion", "prompt-completion", f"{DS} {TINY}", template="default"),
    _case("deepseek", "sharegpt", DS, template="deepseek"),
    _case("deepseek3", "alpaca-full", V3, template="deepseek3"),
    _case("deepseekr1", "alpaca-thoughts", V3, template="deepseekr1"),
    _case("deepseekr1-48", "alpaca-thoughts", V3, template="deepseekr1", cutoff_len=48),
    _case("gpt-oss", "alpaca-full", GPT, template="gpt_oss"),
    _case("gpt-oss-128", "alpaca-thoughts", GPT, template="gpt_oss", cutoff_len=128),
    _case("smollm2", "alpaca-full", SMOL, template="smollm2"),
    _case("chatglm3", "alpaca-full", TINY, template="chatglm3"),
    _case("tool-format", "sharegpt-tools", Q3, template="qwen3", tool_format="default"),
    _case("parsed", "sharegpt", f"{DS} {Q3} {TINY}"),
    _case("parsed-full", "alpaca-full", f"{DS} {Q3} {TINY} {Q25} {PHI} {SMOL} {MIST} {GPT}"),
    _case("parsed-tools", "sharegpt-tools", Q3),
)


def everything() -> list[Case]:
    """A case for each template of the registry that has none above, over the tokenizer of the others, and for each way
    to write tools."""
    covered = {case.settings.get("template") for case in CASES}
    found = [name for name, entry in lorads_templates().items() if isinstance(entry, dict) and name not in covered]
    return [
        *(_case(f"template-{name}", "alpaca-thoughts", TINY, template=name) for name in found),
        *(
            _case(f"tool-format-{name}", "sharegpt-tools", DS, template="default", tool_format=name)
            for name in TOOL_FORMATS
        ),
    ]


def edge_cases() -> list[Case]:
    """The small cases of ``edges_llamafactory.json``, written by hand: several over the same rows."""
    return [
        Case(
            f"edge-{edge['name']}",
            "own",
            edge["info"],
            (f"parity:edges_llamafactory.json#{rows_}",),
            edge["tokenizers"],
            edge["settings"],
        )
        for rows_, entry in recorder.edges("edges_llamafactory.json").items()
        for edge in entry["cases"]
    ]


def lorads_templates() -> dict[str, Any]:
    return tomllib.loads(TEMPLATES.read_text(encoding="utf-8"))


def pick(case: Case, held_out: bool) -> list[recorder.Picked]:
    """As ``recorder.pick``, but the halves are of what the transformation takes: of long conversations it is little."""
    fit = recorder.transformed(case, recorder.places(case))
    if not recorder.by_hand(case):
        size = min(ROWS, len(fit) // 2)
        fit = fit[size:] if held_out else fit[:size]
    return fit[: case.rows]


def arguments(case: Case) -> list[str]:
    """The options of ``lorads tokenize`` that mean the case's settings."""
    found = ["--trainer", "llamafactory"]
    for name, value in case.settings.items():
        if name == "cutoff_len":
            found += ["--max-length", str(value)]
        elif name == "packing":
            found += ["--packing"]
        else:
            found += recorder.trainer_option(name, value)
    for told in TOLD.get(case.info, []):
        found += ["--trainer-option", told]
    return found


@dataclass
class Library:
    """LLaMA-Factory, imported once; its registry is put back before each case, since options change it."""

    registry: dict[str, Any]
    pristine: dict[str, Any]

    def reset(self) -> None:
        self.registry.clear()
        self.registry.update(copy.deepcopy(self.pristine))


def load_library() -> Library:
    torchaudio = types.ModuleType("torchaudio")
    torchaudio.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules.setdefault("torchaudio", torchaudio)
    from llamafactory.data.template import TEMPLATES as registry

    return Library(registry, copy.deepcopy(registry))


def record(case: Case, tokenizer_name: str, held_out: bool, *, library: Library) -> recording.Cell:
    """One cell, through the real library."""
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from llamafactory.model import load_tokenizer
    from transformers import Seq2SeqTrainingArguments

    picked = pick(case, held_out)
    directory = recorder.tokenizer_directory(tokenizer_name)
    header = recorder.header(
        case,
        trainer="llamafactory",
        versions=recorder.versions(PACKAGES),
        tokenizer=recorder.describe_file(tokenizer_name),
        arguments=arguments(case),
    )
    header["dataset_info"] = INFO[case.info]
    library.reset()
    with tempfile.TemporaryDirectory() as folder:
        place = directory
        if tokenizer_name in MODEL_TYPES:
            place = Path(shutil.copytree(directory, Path(folder, tokenizer_name)))
            (place / "config.json").write_text(
                json.dumps({"model_type": MODEL_TYPES[tokenizer_name]}), encoding="utf-8"
            )
        model = ModelArguments(model_name_or_path=str(place), cache_dir=f"{folder}/cache")
        training = Seq2SeqTrainingArguments(output_dir=folder, report_to=[], use_cpu=True)
        data = DataArguments(dataset="rows", dataset_dir=folder, **case.settings)
        try:
            module = load_tokenizer(model)
            template = get_template_and_fix_tokenizer(module["tokenizer"], data)
        except Exception as refusal:  # noqa: BLE001 - whatever stops a user is a fact to record
            return recording.Cell({**header, "raises": recorder.said(refusal)})
        header["tokenizer"] |= {"class": type(module["tokenizer"]).__name__, "size": len(module["tokenizer"])}
        _write(folder, [row for _, _, row in picked], case)
        built = _row_by_row(model, data, template, module)
        sound = [i for i, figures in enumerate(built) if not figures.get("why", "").startswith("raises")]
        _write(folder, [picked[i][2] for i in sound], case)
        _check_whole([built[i] for i in sound], model, data, training, template, module)
    return recorder.cell(header, picked, map(_compact, built))


def _write(folder: str, training_rows: list[rows.Row], case: Case) -> None:
    rows.write(Path(folder, "rows.jsonl"), training_rows)
    info = {"rows": {"file_name": "rows.jsonl", **INFO[case.info]}}
    Path(folder, "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def _row_by_row(model: Any, data: Any, template: Any, module: dict[str, Any]) -> list[dict[str, Any]]:
    import datasets
    from llamafactory.data.converter import get_dataset_converter
    from llamafactory.data.loader import _get_dataset_processor
    from llamafactory.data.parser import get_dataset_list

    attributes = get_dataset_list(data.dataset, data.dataset_dir)[0]
    file = str(Path(data.dataset_dir, attributes.dataset_name))
    loaded = datasets.load_dataset("json", data_files=[file], split="train", cache_dir=f"{model.cache_dir}/first")
    convert = get_dataset_converter(attributes.formatting, attributes, data)
    processor = _get_dataset_processor(data, "sft", template, **module)
    found: list[dict[str, Any]] = []
    for row in loaded:
        try:
            aligned = convert(row)
            made = processor.preprocess_dataset({name: [value] for name, value in aligned.items()})
        except Exception as error:  # noqa: BLE001 - whatever stops a user is a fact to record
            found.append({"why": f"raises {type(error).__name__}"})
            continue
        if not made.get("input_ids"):
            found.append({"why": "invalid example"})
            continue
        ids, labels = list(made["input_ids"][0]), list(made["labels"][0])
        if data.packing:
            ids, labels = _unpacked(made)[0]
        found.append({"ids": ids, "labels": labels})
    return found


def _unpacked(made: Any) -> list[tuple[list[int], list[int]]]:
    """The rows of packed sequences: positions begin again at each, and are 0 in the padding."""
    rows_ = []
    for ids, labels, positions in zip(made["input_ids"], made["labels"], made["position_ids"], strict=True):
        begins = [i for i, position in enumerate(positions) if position == 0]
        for begin, end in zip(begins, [*begins[1:], len(ids)], strict=True):
            rows_.append((list(ids[begin:end]), list(labels[begin:end])))
        while len(rows_) > 1 and len(rows_[-1][0]) == 1:
            rows_.pop()  # padding; no row of these cases is one token long
    return rows_


def _check_whole(
    built: list[dict[str, Any]], model: Any, data: Any, training: Any, template: Any, module: dict[str, Any]
) -> None:
    from llamafactory.data import get_dataset

    model.cache_dir = f"{model.cache_dir}/second"
    with contextlib.redirect_stdout(io.StringIO()):
        whole = get_dataset(template, model, data, training, "sft", **module)["train_dataset"]
    expected = [(row["ids"], row["labels"]) for row in built if "ids" in row]
    if data.packing:
        assert sorted(_unpacked(whole[:])) == sorted(expected), "get_dataset packs other rows"
        return
    found = list(zip(whole["input_ids"], whole["labels"], strict=True))
    assert [(list(ids), list(labels)) for ids, labels in found] == expected, "get_dataset builds other rows"


def _compact(figures: dict[str, Any]) -> dict[str, Any]:
    if "why" in figures:
        return {"dropped": True, "why": figures["why"]}
    return recorder.figures(figures["ids"], figures["labels"])


def check_templates(registry: dict[str, Any]) -> None:
    """Say where templates.toml differs from the registry."""
    from llamafactory.data.formatter import ToolFormatter
    from llamafactory.data.mm_plugin import BasePlugin

    ours = lorads_templates()
    kinds = {
        "Template": "plain",
        "Llama2Template": "llama2",
        "ReasoningTemplate": "reasoning",
        "Glm47ReasoningTemplate": "reasoning-closed",
    }

    def plain(slots: list[Any]) -> list[Any]:
        found: list[Any] = []
        for slot in slots:
            if isinstance(slot, set):
                found += [{"special": name[:3]} for name in slot & {"bos_token", "eos_token"}]
            else:
                found.append(slot)
        return found

    for name, theirs in registry.items():
        if type(theirs.mm_plugin) is not BasePlugin:
            assert name in ours["multimodal"], f"{name} is missing among the multimodal ones"
            continue
        mine = ours[name]
        efficient = mine.get("efficient_eos", False)
        user = mine.get("user", ["{{content}}"])
        assistant = mine.get("assistant", ["{{content}}"] if efficient else ["{{content}}", {"special": "eos"}])
        tools = "default" if "tools" in mine else mine.get("tool_format", "default")
        is_format = isinstance(theirs.format_tools, ToolFormatter)
        pairs: dict[str, tuple[Any, Any]] = {
            "user": (plain(theirs.format_user.slots), user),
            "assistant": (plain(theirs.format_assistant.slots), assistant),
            "system": (plain(theirs.format_system.slots), mine.get("system", ["{{content}}"])),
            "observation": (plain(theirs.format_observation.slots), mine.get("observation", user)),
            "function": (plain(theirs.format_function.slots), mine.get("function", assistant)),
            "prefix": (plain(theirs.format_prefix.slots), mine.get("prefix", [])),
            "calls": (theirs.format_function.tool_format, tools),
            "tools": (
                theirs.format_tools.tool_format if is_format else theirs.format_tools.slots,
                mine.get("tools", tools),
            ),
            "default_system": (theirs.default_system, mine.get("default_system", "")),
            "stop_words": (theirs.stop_words, mine.get("stop_words", [])),
            "thought_words": (list(theirs.thought_words), mine.get("thought_words", ["<think>\n", "\n</think>\n\n"])),
            "call_words": (list(theirs.tool_call_words), mine.get("tool_call_words", ["<tool_call>", "</tool_call>"])),
            "efficient_eos": (theirs.efficient_eos, efficient),
            "replace_eos": (theirs.replace_eos, mine.get("replace_eos", False)),
            "kind": (kinds[type(theirs).__name__], mine.get("kind", "plain")),
            "thinking": ((theirs.enable_thinking, theirs.preserve_thinking), (True, False)),
        }
        for what, (real, told) in pairs.items():
            assert real == told, f"{name}: {what} is {real!r}, and templates.toml says {told!r}"
    print(f"templates.toml agrees with the {len(registry)} templates of the registry", flush=True)


def main() -> None:
    parser = recorder.parser(__doc__)
    parser.add_argument(
        "--everything", action="store_true", help="add the templates and tool formats that have no case"
    )
    options = parser.parse_args()
    recorder.quiet()
    library = load_library()
    check_templates(library.registry)
    cases = [*CASES, *edge_cases(), *(everything() if options.everything else [])]
    recorder.run(options, TARGET, cases, partial(record, library=library))


if __name__ == "__main__":
    main()
