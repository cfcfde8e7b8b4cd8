"""What labels cost on top of tokenization, for every trainer: ``python tests/benchmarks/label_cost.py``.

For each trainer the rows go through its labeller, and through tokenization alone: the same rows rendered by the chat
template and encoded whole by the same engine. The two take turns on each block, in one thread, and CPU time is counted.
Reading and understanding the rows comes before both and is not counted.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import realdata
from benchmarks import data
from lorads.engine.chain import Chain
from lorads.engine.settings import Settings
from lorads.formats import Conversation, normalise
from lorads.sources import Limits, open_sources, read_block
from lorads.tokenizers import single_threaded

MISTRAL = "mistral-common/mistral_instruct_tokenizer_240323.model.v3"
TRAINERS: dict[str, dict[str, Any]] = {
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


def chain_of(name: str, tokenizer: str) -> Chain:
    given = TRAINERS[name]
    own = dict(given.get("trainer_options") or {})
    family = Path(tokenizer).name
    if "template" in own and family in FAMILY_TEMPLATES:
        own["template"] = FAMILY_TEMPLATES[family][name]
    where = str(realdata.path(given["tokenizer"])) if "tokenizer" in given else tokenizer
    settings = Settings(
        where,
        trainer=given.get("trainer", name),
        trainer_options=own,
        train_on=given.get("train_on", "default"),
        max_length=4096,
    )
    return Chain(settings, total_bytes=1 << 30)


def label(chain: Chain, conversations: list[Conversation]) -> float:
    begin = time.process_time()
    chain.labeller.label(conversations)
    return time.process_time() - begin


def tokenize(chain: Chain, conversations: list[Conversation]) -> float:
    begin = time.process_time()
    if chain.template is not None:
        texts = chain.template.render(conversations).texts
    else:
        texts = ["\n".join(conversation.contents or ()) for conversation in conversations]
    chain.tokenizer.encode(texts)
    return time.process_time() - begin


def measure(name: str, file: Path, tokenizer: str) -> tuple[float, float, int]:
    """CPU seconds of the labeller and of tokenization alone, and how many rows."""
    # one for each: a tokenizer compares some of its rows with the reference, and pays for it where it is due
    chain, alone = chain_of(name, tokenizer), chain_of(name, tokenizer)
    labels = tokens = 0.0
    rows = 0
    for number, block in enumerate(open_sources([str(file)], limits=Limits())[0].blocks()):
        values = read_block(block).values
        # made anew for each: nothing that one finds out may help the other
        twice = [[c for c in normalise(values, "messages", chain.columns) if isinstance(c, Conversation)] for _ in "ab"]
        if number % 2:
            labelling, tokenizing = label(chain, twice[0]), tokenize(alone, twice[1])
        else:
            tokenizing, labelling = tokenize(alone, twice[0]), label(chain, twice[1])
        if number:  # the first block also makes plans and fills caches
            labels, tokens, rows = labels + labelling, tokens + tokenizing, rows + len(values)
    return labels, tokens, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=1, help="question and answer pairs a row")
    parser.add_argument("--tokenizer", default="deepseek-coder")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    single_threaded()
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
