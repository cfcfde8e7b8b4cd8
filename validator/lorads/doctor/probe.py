"""Asked of another interpreter: what do the libraries that are installed there build?

This file is run by itself, ``python probe.py REQUEST ANSWER`` (two JSON files), in an environment that need not have
lorads: it uses nothing but the standard library and what it is asked about, and it must run on every Python that
somebody trains with, hence its plain style. It never asks the network for anything.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import logging
import os
import platform
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

PACKAGES = (
    "transformers",
    "tokenizers",
    "trl",
    "torch",
    "datasets",
    "accelerate",
    "peft",
    "unsloth",
    "unsloth_zoo",
    "axolotl",
    "llamafactory",
    "ms_swift",
    "torchtune",
    "mistral_common",
    "sentencepiece",
    "jinja2",
)
MAX_LENGTH = 1024


def versions() -> dict[str, str]:
    """What is installed, by the names of the packages."""
    found = {}
    for name in PACKAGES:
        for spelling in (name, name.replace("_", "-")):
            try:
                found[name.replace("_", "-")] = importlib.metadata.version(spelling)
                break
            except importlib.metadata.PackageNotFoundError:
                continue
    # a checkout on PYTHONPATH has no metadata, yet it is what gets imported
    for name in ("transformers", "trl"):
        if name not in found and importlib.util.find_spec(name) is not None:
            found[name] = "unknown"
    return found


def failure(error: BaseException) -> dict[str, str]:
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = f"{Path(last[0].filename).name}:{last[0].lineno}" if last else ""
    return {"type": type(error).__name__, "message": str(error)[:2000], "place": place}


def load(name: str) -> tuple[Any, Any]:
    """The transformers module, and the tokenizer. Code that a tokenizer brings is not run."""
    transformers = importlib.import_module("transformers")
    return transformers, transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)


def ids_of(result: Any) -> list[int]:
    """The ids out of whatever a version answers: a list, a list of one list, or a dictionary of them."""
    if hasattr(result, "keys"):
        result = result["input_ids"]
    if hasattr(result, "ids"):
        result = result.ids
    result = list(result)
    if result and isinstance(result[0], (list, tuple)):
        result = list(result[0])
    return [int(number) for number in result]


def probe_tokenizer(request: dict[str, Any]) -> dict[str, Any]:
    transformers, tokenizer = load(request["tokenizer"])
    answer: dict[str, Any] = {"version": transformers.__version__, "class": type(tokenizer).__name__}
    answer["fast"] = bool(getattr(tokenizer, "is_fast", False))
    answer["length"] = len(tokenizer)
    answer["special"] = {
        name: [getattr(tokenizer, name + "_token"), getattr(tokenizer, name + "_token_id")]
        for name in ("bos", "eos", "pad", "unk")
    }
    if request.get("copy"):
        copied = load(request["copy"])[1]
        answer["copy"] = [ids_of(copied(text, add_special_tokens=False)) for text in request["texts"]]
    answer["texts"] = []
    for text in request["texts"]:
        plain = ids_of(tokenizer(text, add_special_tokens=False))
        decoded = tokenizer.decode(plain, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        answer["texts"].append({"plain": plain, "default": ids_of(tokenizer(text)), "decoded": decoded})
    template = {} if request["chat_template"] is None else {"chat_template": request["chat_template"]}
    answer["conversations"] = []
    for messages in request["conversations"]:
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, **template)
            ids = ids_of(tokenizer.apply_chat_template(messages, tokenize=True, **template))
            again = ids_of(tokenizer(text))
        except Exception as error:  # noqa: BLE001 - whatever the library or the template raises is the answer
            answer["conversations"].append({"error": failure(error)})
        else:
            answer["conversations"].append({"text": text, "ids": ids, "again": again})
    return answer


def tiny_model(transformers: Any, tokenizer: Any) -> Any:
    """A model that is as small as one can be: nothing is trained, but a trainer wants one."""
    size = max(len(tokenizer), max([*tokenizer.get_vocab().values(), 0]) + 1)
    config = transformers.LlamaConfig(
        vocab_size=size,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        max_position_embeddings=2 * MAX_LENGTH,
    )
    return transformers.LlamaForCausalLM(config)


def known_arguments(function: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that this version takes."""
    taken = inspect.signature(function).parameters
    return {name: value for name, value in wanted.items() if name in taken}


def probe_trl(request: dict[str, Any], folder: str) -> dict[str, Any]:
    transformers, tokenizer = load(request["tokenizer"])
    datasets = importlib.import_module("datasets")
    trl = importlib.import_module("trl")
    if request["chat_template"] is not None:
        tokenizer.chat_template = request["chat_template"]
    answer: dict[str, Any] = {"version": trl.__version__, "kinds": {}}
    model = tiny_model(transformers, tokenizer)
    for kind, rows in request["kinds"].items():
        try:
            answer["kinds"][kind] = {"rows": trl_rows(trl, datasets, model, tokenizer, rows, folder)}
        except Exception as error:  # noqa: BLE001 - whatever the library raises is the answer
            answer["kinds"][kind] = {"error": failure(error)}
    return answer


def trl_rows(
    trl: Any, datasets: Any, model: Any, tokenizer: Any, rows: list[dict[str, Any]], folder: str
) -> list[dict[str, Any]]:
    """What the trainer's collator makes of each row that the trainer has prepared."""
    wanted: dict[str, Any] = {
        "output_dir": folder,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "fp16": False,
        "max_length": MAX_LENGTH,
        "max_seq_length": MAX_LENGTH,
        "per_device_train_batch_size": 1,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    wanted = known_arguments(trl.SFTConfig, wanted)
    if "max_length" in wanted:
        wanted.pop("max_seq_length", None)
    trainer = trl.SFTTrainer(
        model=model,
        args=trl.SFTConfig(**wanted),
        train_dataset=datasets.Dataset.from_list(rows),
        **known_arguments(trl.SFTTrainer, {"processing_class": tokenizer}),
        **({} if "processing_class" in inspect.signature(trl.SFTTrainer).parameters else {"tokenizer": tokenizer}),
    )
    made = []
    for row in trainer.train_dataset:
        fed = ("input_ids", "labels", "attention_mask", "completion_mask", "assistant_masks")
        batch = trainer.data_collator([{name: row[name] for name in fed if name in row}])
        made.append({"ids": batch["input_ids"][0].tolist(), "labels": batch["labels"][0].tolist()})
    return made


def main(request_file: str, answer_file: str) -> None:
    os.environ.update(
        HF_HUB_OFFLINE="1",
        TRANSFORMERS_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        TOKENIZERS_PARALLELISM="false",
        CUDA_VISIBLE_DEVICES="",
        WANDB_MODE="disabled",
    )
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    answer: dict[str, Any] = {"python": platform.python_version(), "executable": sys.executable, "packages": versions()}
    try:
        if request["what"] == "tokenizer" and "transformers" in answer["packages"]:
            answer["tokenizer"] = probe_tokenizer(request)
        elif request["what"] == "trl" and "trl" in answer["packages"]:
            with tempfile.TemporaryDirectory() as folder:
                answer["trl"] = probe_trl(request, folder)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of a library is no Exception, and an answer as well
        answer["error"] = failure(error)
    Path(answer_file).write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
