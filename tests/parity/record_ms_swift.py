"""Records what ms-swift really builds: ``python tests/parity/record_ms_swift.py [--held-out DIR] [--only CASES]``.

Needs Python 3.11, ``$LORADS_ASSETS`` for the tokenizers, and an environment with::

    pip install torch==2.13.0
    pip install 'transformers<5.20' 'datasets<4.8.5' 'peft<0.21' modelscope accelerate 'trl<1.0' addict einops \\
        json-repair dacite attrdict binpacking pandas scipy sentencepiece tiktoken simplejson sortedcontainers nltk \\
        rouge jieba matplotlib fastapi uvicorn aiohttp zstandard importlib-metadata openai pytest
    pip install --no-deps ms-swift==4.6.0

transformers 5.3 to 5.19, the newest that ms-swift 4.6.0 allows, lose every space under the tokenizers of DeepSeek
(huggingface/transformers#46489). Those are recorded with ``transformers==4.57.6``, ``huggingface_hub<1`` and
``tokenizers==0.22.2``, which ms-swift allows too: run once in each environment, with ``--tokenizers``.

Each cell goes the way of ``swift sft``: ``SwiftSft(SftArguments(…))`` with a tiny random Llama beside the tokenizer's
files, then ``_prepare_dataset`` (loading, preprocessing, the length filter) and every row of the dataset that it gives.
A row is known again by its ``channel`` column, which swift carries through. Nothing is trained, and no code of the
library is replaced; but ``datasets`` draws the names of its cache files instead of working them out of what it caches,
which takes longer than all the rest.

``--held-out DIR`` records rows that the committed recordings don't hold, with the same cases, into another directory.
"""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

os.environ.update(CUDA_VISIBLE_DEVICES="", LOG_LEVEL="ERROR")
os.environ.setdefault("MODELSCOPE_CACHE", tempfile.mkdtemp(prefix="ms-swift-"))
if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import recorder, recording, rows
from parity.recorder import ALPACA, CHATS, ROWS, TOOLS

TARGET = recorder.TRAINERS / "ms-swift-4.6"
PACKAGES = ("ms-swift", "transformers", "tokenizers", "datasets", "torch", "jinja2")
SETTINGS_OF_PT = {"use_chat_template": False, "loss_scale": "all"}


@dataclass(frozen=True)
class Case:
    """``settings`` are those of swift's SftArguments."""

    name: str
    tokenizer: str
    template: str
    transformation: str
    sources: Sequence[str] = ALPACA
    settings: dict[str, Any] = field(default_factory=dict)
    aside: str = ""
    rows: int = ROWS

    @property
    def tokenizers(self) -> tuple[str]:
        return (self.tokenizer,)


def _cases() -> list[Case]:
    def own(name: str) -> str:
        return f"ms-swift/{name}"

    deepseek, qwen, llama = "deepseek-coder", "qwen3", "tinyllama"
    found = [
        Case("messages", deepseek, "deepseek_coder", own("multi-turn")),
        Case("messages-edges", deepseek, "deepseek_coder", "messages-edges"),
        Case("edges", deepseek, "deepseek_coder", own("edges")),
        Case("flags", deepseek, "deepseek_coder", own("flags")),
        Case("deepseek", deepseek, "deepseek", own("multi-turn")),
        Case("deepseek-edges", deepseek, "deepseek", own("edges")),
        Case("delete", deepseek, "deepseek_coder", "messages", settings={"max_length": 128}),
        Case(
            "left", deepseek, "deepseek_coder", "messages", settings={"max_length": 96, "truncation_strategy": "left"}
        ),
        Case(
            "right",
            deepseek,
            "deepseek",
            own("multi-turn"),
            settings={"max_length": 48, "truncation_strategy": "right"},
        ),
        Case("v2_5", "deepseek-v3", "deepseek_v2_5", own("multi-turn")),
        Case("r1", "deepseek-v3", "deepseek_r1", own("thinking")),
        Case("r1-last", "deepseek-v3", "deepseek_r1", own("thinking"), settings={"loss_scale": "last_round"}),
        Case("v3_1", "deepseek-v3", "deepseek_v3_1", own("thinking")),
        Case("v3_1-last", "deepseek-v3", "deepseek_v3_1", own("arguments"), settings={"loss_scale": "last_round"}),
        Case("qwen3", qwen, "qwen3", own("multi-turn")),
        Case("qwen3-edges", qwen, "qwen3", own("edges")),
        Case("qwen3-thinking", qwen, "qwen3", own("thinking")),
        Case("qwen3-thinking-last", qwen, "qwen3", own("thinking"), settings={"loss_scale": "last_round"}),
        Case("qwen3-arguments", qwen, "qwen3", own("arguments")),
        Case("qwen3-forget", qwen, "qwen3", own("thinking"), settings={"preserve_thinking": False}),
        Case(
            *("qwen3-bare", qwen, "qwen3", own("thinking")),
            settings={"add_non_thinking_prefix": False, "disable_ignore_empty_think": True, "enable_thinking": True},
        ),
        Case("qwen3-think-prefix", qwen, "qwen3", own("thinking"), settings={"loss_scale": "ignore_think_prefix"}),
        Case("qwen3_thinking", qwen, "qwen3_thinking", own("thinking")),
        Case("qwen3_nothinking", qwen, "qwen3_nothinking", own("flags")),
        Case("alpaca", qwen, "qwen2_5", own("alpaca")),
        Case("alpaca-full", qwen, "qwen2_5", own("alpaca-full")),
        Case("alpaca-edges", qwen, "qwen2_5", own("alpaca-edges")),
        Case("query-response", qwen, "qwen", own("query-response")),
        Case("question-answer", qwen, "qwen2_5", own("question-answer")),
        Case("two-questions", qwen, "qwen2_5", own("two-questions")),
        Case("prompt-completion", qwen, "qwen2_5", own("prompt-completion")),
        Case("text", qwen, "qwen2_5", "text-edges"),
        Case("chosen-rejected", qwen, "qwen2_5", own("chosen-rejected")),
        Case("parts", qwen, "qwen2_5", "messages-parts"),
        Case("repeated", qwen, "qwen2_5", own("repeated")),
        Case("repeated-last", qwen, "qwen3", own("repeated"), settings={"loss_scale": "last_round"}),
        Case("sharegpt", qwen, "qwen2_5", own("sharegpt"), CHATS),
        Case("last_round", qwen, "qwen2_5", own("flags"), settings={"loss_scale": "last_round"}),
        Case("all", qwen, "qwen2_5", own("flags"), settings={"loss_scale": "all"}),
        Case("scale-hermes", qwen, "qwen2_5", own("edges"), settings={"loss_scale": "hermes"}),
        Case("scale-react", qwen, "qwen2_5", own("edges"), settings={"loss_scale": "last_round+react"}),
        Case("scale-chain", qwen, "qwen3", own("edges"), settings={"loss_scale": "all+hermes+ignore_think_prefix"}),
        Case("system", qwen, "qwen2_5", own("multi-turn"), settings={"system": "Mind\\nthe gap. {{QUERY}}"}),
        Case("jinja", qwen, "qwen2_5", own("multi-turn"), settings={"template_backend": "jinja"}),
        Case("jinja-qwen3", qwen, "qwen3", own("arguments"), settings={"template_backend": "jinja"}),
        Case("jinja-repeated", qwen, "qwen2_5", own("repeated"), settings={"template_backend": "jinja"}),
        Case("tools-openai", qwen, "qwen3", own("tools-openai"), TOOLS),
        Case("tools-own", qwen, "qwen2_5", own("tools-own"), TOOLS),
        Case("tools-sharegpt", qwen, "qwen2_5", own("tools-sharegpt"), TOOLS),
        Case("tools-react", qwen, "qwen2_5", own("tools-own"), TOOLS, {"agent_template": "react_en"}),
        Case(
            *("tools-react-scale", qwen, "qwen2_5", own("tools-openai"), TOOLS),
            {"agent_template": "react_en", "loss_scale": "react"},
        ),
        Case(
            "tools-qwen",
            qwen,
            "qwen2_5",
            own("tools-openai"),
            TOOLS,
            {"agent_template": "qwen_en", "loss_scale": "qwen"},
        ),
        Case("tools-llama3", qwen, "qwen2_5", own("tools-own"), TOOLS, {"agent_template": "llama3"}),
        Case("tools-none", qwen, "chatml", own("tools-own"), TOOLS),
        Case("chatml", qwen, "chatml", own("multi-turn"), rows=120),
        Case("pt", qwen, "qwen2_5", "text-edges", settings=SETTINGS_OF_PT),
        Case("pt-chat", qwen, "qwen3", own("repeated"), settings=SETTINGS_OF_PT),
        Case(
            *("pt-split", qwen, "qwen2_5", "text"),
            settings={**SETTINGS_OF_PT, "max_length": 50, "truncation_strategy": "split"},
        ),
        Case("packing", qwen, "qwen2_5", own("multi-turn"), settings={"max_length": 160, "packing": True}),
        Case("gpt_oss", "gpt-oss", "gpt_oss", own("multi-turn")),
        Case("gpt_oss-edges", "gpt-oss", "gpt_oss", own("edges")),
        Case("gpt_oss-repeated", "gpt-oss", "gpt_oss", own("repeated"), settings={"system": "unheard"}),
        Case("default", llama, "default", own("multi-turn")),
        Case("default-edges", llama, "default", own("edges")),
        Case("zephyr", llama, "zephyr", own("multi-turn")),
        Case("zephyr-edges", llama, "zephyr", own("edges")),
        Case("llama", llama, "llama", own("multi-turn")),
        Case("llama-flags", llama, "llama", own("flags"), settings={"loss_scale": "last_round"}),
        Case("dummy", llama, "dummy", own("multi-turn")),
        Case("pt-tinyllama", llama, "llama", "text-edges", settings=SETTINGS_OF_PT),
        Case("mistral_nemo", "mistral-v0.1", "mistral_nemo", own("edges")),
        Case("mistral_2501", "mistral-v0.1", "mistral_2501", own("multi-turn"), rows=120),
        Case("phi3", "phi-3", "phi3", own("edges")),
        Case("smollm2", "smollm2", "chatml", own("edges")),
        Case("qwen2_5", "qwen2.5", "qwen2_5", own("edges")),
    ]
    # a short run of the templates whose tokens these tokenizers don't have: their texts are tokenized all the same
    others = (
        *("llama3", "llama3_2", "gemma", "gemma3_text", "phi4", "yi_coder", "internlm2", "minicpm", "minicpm5", "qwq"),
        *("numina", "ziya", "xverse", "orion", "sus", "moonlight", "kimi_k2", "ling", "ling2", "ring2"),
        *("ring2_5", "wizardlm2", "baichuan", "chatglm2", "olmoe_0924", "mimo_rl", "minimind", "nemotron_h"),
        *("minicpm5_2b", "qwen2_5_math", "qwen3_coder", "qwq_preview"),
    )
    found += [Case(f"other-{name}", llama, name, own("thinking"), rows=12) for name in others]
    for name, edge in recorder.edges("edges_ms_swift.json").items():
        source = f"parity:edges_ms_swift.json#{name}"
        found += [
            Case(f"edge-{name}", tokenizer, template, "own", (source,), edge.get("settings", {}), edge.get("aside", ""))
            for tokenizer, template in edge["tokenizers"].items()
        ]
    return found


CASES = _cases()


def arguments(case: Case) -> list[str]:
    """What the settings are called on lorads' command line."""
    found = ["--trainer", "ms-swift@4.6", *recorder.trainer_option("template", case.template)]
    for name, value in case.settings.items():
        if name == "max_length":
            found += ["--max-length", str(value)]
        elif name == "packing":
            found.append("--packing")
        else:
            found += recorder.trainer_option(name, value)
    if case.template in ("gpt_oss", "llama3_2", "mistral_2501"):
        found += recorder.trainer_option("today", date.today().isoformat())
    return found


@cache
def model_directory(tokenizer: str) -> tuple[tempfile.TemporaryDirectory[str], Path, Any]:
    """The tokenizer's files and a tiny model, as a user has them on disk, and the tokenizer."""
    from transformers import AutoTokenizer

    folder = tempfile.TemporaryDirectory()
    directory = Path(folder.name, "model")
    directory.mkdir()
    for file in recorder.tokenizer_directory(tokenizer).iterdir():
        if file.name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
            (directory / file.name).write_bytes(file.read_bytes())
    loaded = AutoTokenizer.from_pretrained(directory)
    recorder.tiny_llama(loaded, max_position_embeddings=131072).save_pretrained(directory)
    return folder, directory, loaded


def record(case: Case, name: str, held_out: bool) -> recording.Cell:
    """One cell, through the real trainer."""
    picked = recorder.pick(case, held_out)
    _, directory, tokenizer = model_directory(name)
    header = recorder.header(
        case,
        trainer="ms-swift",
        versions=recorder.versions(PACKAGES),
        tokenizer=recorder.describe_tokenizer(name, tokenizer),
        arguments=arguments(case),
        settings={"template": case.template, **case.settings},
        aside=case.aside,
    )
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "train.jsonl")
        rows.write(data, ({**row, "channel": str(number)} for number, (_, _, row) in enumerate(picked)))
        try:
            built = _built(case, directory, data, Path(folder))
        except Exception as refusal:  # noqa: BLE001 - whatever stops a user is a fact to record
            return recording.Cell({**header, "raises": recorder.said(refusal)})
    kept = {position: recorder.figures(*row) for position, row in built.items()}
    return recorder.cell(header, picked, (kept.get(position, {"dropped": True}) for position in range(len(picked))))


def _built(case: Case, directory: Path, data: Path, folder: Path) -> dict[int, tuple[list[int], list[int]]]:
    from swift.arguments import SftArguments
    from swift.pipelines.train.sft import SwiftSft

    given = SftArguments(
        model=str(directory),
        model_type="llama",
        template=case.template,
        dataset=[str(data)],
        output_dir=str(folder / "out"),
        tuner_type="full",
        load_from_cache_file=False,
        split_dataset_ratio=0.0,
        dataset_num_proc=None,
        report_to=[],
        bf16=False,
        torch_dtype="float32",
        use_hf=True,
        **({"attn_impl": "flash_attn"} if case.settings.get("packing") else {}),
        **case.settings,
    )
    # packing is allowed with flash attention alone, which no CPU has; the model that stands beside the data has no part
    given.attn_impl = None
    sft = SwiftSft(given)
    train, _ = sft._prepare_dataset()
    found: dict[int, tuple[list[int], list[int]]] = {}
    for i in range(len(train) if train is not None else 0):
        for row in _packed(sft, train[i]) if isinstance(train[i], list) else [train[i]]:
            ids, labels = found.setdefault(int(row["channel"]), ([], []))
            # of truncation_strategy split: the pieces of a row stand one behind the other
            ids += list(row["input_ids"])
            labels += list(row["labels"])
    return found


def _packed(sft: Any, rows_: list[Any]) -> list[dict[str, Any]]:
    """The rows of one sequence, as the collator feeds it."""
    fed = sft.template.data_collator([rows_])
    starts = [i for i, position in enumerate(fed["position_ids"][0].tolist()) if position == 0]
    ends = [*starts[1:], fed["input_ids"].shape[1]]
    return [
        {"channel": channel, **{key: fed[key][0].tolist()[begin:end] for key in ("input_ids", "labels")}}
        for channel, begin, end in zip(fed["channel"], starts, ends, strict=True)
    ]


def main() -> None:
    options = recorder.parser(__doc__).parse_args()
    recorder.quiet()
    import datasets

    datasets.fingerprint.Hasher.hash = staticmethod(lambda value: uuid.uuid4().hex[:16])
    recorder.run(options, TARGET, CASES, record)


if __name__ == "__main__":
    main()
