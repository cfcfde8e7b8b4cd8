"""What labels cost on top of tokenization, for every trainer: ``python tests/benchmarks/label_cost.py``.

For each trainer the rows go through its labeller, and through tokenization alone: the same rows rendered by the chat
template and encoded whole by the same engine. The two take turns on each block, in one thread, and CPU time is counted.
Reading and understanding the rows comes before both and is not counted.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.update(RAYON_NUM_THREADS="1", FASTOKENS_BPE_THREADS="1", TOKENIZERS_PARALLELISM="false")
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

import data
import realdata
from lorads.engine.chain import Chain
from lorads.engine.settings import Settings
from lorads.formats import normalise
from lorads.sources import Limits, open_sources, read_block

MISTRAL = "mistral-common/mistral_instruct_tokenizer_240323.model.v3"
TRAINERS: dict[str, dict[str, object]] = {
    "trl": {},
    "trl@0.24": {},
    "transformers": {},
    "unsloth": {},
    "unsloth --train-on assistant": {"trainer": "unsloth", "train_on": "assistant"},
    "axolotl": {},
    "llamafactory": {"trainer_options": {"template": "qwen"}},
    "torchtune": {},
    "ms-swift": {"trainer_options": {"template": "qwen"}},
    "mistral-finetune": {"tokenizer": MISTRAL},
}
FAMILY_TEMPLATES = {"deepseek-coder": {"llamafactory": "deepseekcoder", "ms-swift": "deepseek_coder"}}
"""Templates of the families, where they are not Qwen's."""


def measure(name: str, file: Path, tokenizer: str) -> tuple[float, float, int]:
    """CPU seconds of the labeller and of tokenization alone, and how many rows."""
    given = dict(TRAINERS[name])
    own = dict(given.pop("trainer_options", {}))  # type: ignore[call-overload]
    family = Path(tokenizer).name
    if "template" in own and family in FAMILY_TEMPLATES:
        own["template"] = FAMILY_TEMPLATES[family][name]
    wanted = given.pop("tokenizer", None)
    where = str(realdata.path(str(wanted))) if wanted else tokenizer
    settings = Settings(where, trainer=str(given.pop("trainer", name)), trainer_options=own, max_length=None, **given)  # type: ignore[arg-type]
    try:
        chain = Chain(settings, total_bytes=1 << 30)
    except Exception:
        settings = Settings(where, trainer=settings.trainer, trainer_options=own, max_length=4096, **given)  # type: ignore[arg-type]
        chain = Chain(settings, total_bytes=1 << 30)
    alone = chain if chain.template is not None else None
    labels = tokens = 0.0
    rows = 0
    for number, block in enumerate(open_sources([str(file)], limits=Limits())[0].blocks()):
        values = read_block(block).values

        def label() -> float:
            conversations = normalise(values, "messages", chain.columns)
            begin = time.process_time()
            chain.labeller.label(conversations)  # type: ignore[arg-type]
            return time.process_time() - begin

        def tokenize() -> float:
            conversations = normalise(values, "messages", chain.columns)
            begin = time.process_time()
            if alone is not None:
                chain.tokenizer.encode(chain.template.render(conversations).texts)  # type: ignore[arg-type, union-attr]
            else:
                chain.tokenizer.encode(["\n".join(c.contents) for c in conversations])  # type: ignore[union-attr]
            return time.process_time() - begin

        first, second = (label, tokenize) if number % 2 else (tokenize, label)
        a, b = first(), second()
        if number:  # the first block also makes plans and fills caches
            labels += a if number % 2 else b
            tokens += b if number % 2 else a
            rows += len(values)
    return labels, tokens, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=1, help="question and answer pairs a row")
    parser.add_argument("--tokenizer", default="deepseek-coder")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    gc.set_threshold(500_000, 50, 100)
    with tempfile.TemporaryDirectory() as scratch:
        file = data.messages_file(Path(scratch, "rows.jsonl"), options.rows, options.turns)
        print(f"{options.rows:,} rows of {options.turns} pairs, {options.tokenizer}")
        print(f"{'trainer':32} {'labels':>9} {'tokens alone':>13} {'ratio':>7}   us/row of each")
        for name in TRAINERS:
            if options.only in name:
                labels, tokens, rows = measure(name, file, options.tokenizer)
                each = f"{labels / rows * 1e6:.1f} {tokens / rows * 1e6:.1f}"
                print(f"{name:32} {labels:8.2f}s {tokens:12.2f}s {labels / tokens:7.2f}   {each}", flush=True)


if __name__ == "__main__":
    main()
