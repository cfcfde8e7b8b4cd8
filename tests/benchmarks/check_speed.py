"""How fast is ``lorads check``, next to what people do now and to bare tokenization?

    python tests/benchmarks/check_speed.py [--rows 100000] [--tokenizer DIR] [--peer-python PYTHON]

Every contender gets the same file of real rows (by reference: see fixtures/realdata.toml), made many by numbering them,
on the same cores, one after the other, each in a process of its own whose wall time, CPU time and memory are measured
from outside:

- ``lorads check``: everything it does, all rules.
- bare fastokens: one process that encodes the rendered rows and does nothing else. The least that can be asked.
- ``datasets.map``: ``apply_chat_template`` and the tokenizer for every row, ``num_proc`` = cores, without cache.

``--peer-python`` is an interpreter that has transformers and datasets installed (default: this one).
Memory is the largest sum over the process tree of proportional set sizes (shared pages count once), sampled.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import orjson
import psutil

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

BARE = """
import os, sys, time, numpy, orjson
from fastokens._native import Tokenizer
tokenizer = Tokenizer.from_json_str(open(sys.argv[1], encoding="utf-8").read())
texts = [orjson.loads(line)["text"] for line in open(sys.argv[2], "rb")]
before, begin = os.times(), time.perf_counter()
for i in range(0, len(texts), 4000):
    tokenizer.encode_batch_flat(texts[i : i + 4000])
after = os.times()
print(orjson.dumps({"wall": time.perf_counter() - begin,
                    "cpu": after.user - before.user + after.system - before.system}).decode())
"""

MAP = """
import json, os, sys, time
os.environ["HF_HUB_OFFLINE"] = "1"
import datasets
from transformers import AutoTokenizer
datasets.disable_progress_bars()
datasets.disable_caching()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
data = datasets.load_dataset("json", data_files=sys.argv[2], split="train", cache_dir=sys.argv[3])
def encode(row):
    return {"input_ids": tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True)["input_ids"]}
begin = time.perf_counter()
data.map(encode, num_proc=int(sys.argv[4]))
print(json.dumps({"wall": time.perf_counter() - begin}))
"""


@dataclass
class Measured:
    wall: float
    cpu: float
    memory: int
    output: str
    code: int


def measured(command: list[str], env: dict[str, str] | None = None) -> Measured:
    """Run a command; its wall time, the CPU time of its whole tree, and the peak of the tree's memory."""
    before = os.times()
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    peak = 0
    running = True

    def watch() -> None:
        nonlocal peak
        root = psutil.Process(process.pid)
        while running:
            try:
                tree = [root, *root.children(recursive=True)]
                peak = max(peak, sum(_pss(p) for p in tree))
            except psutil.NoSuchProcess:
                return
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output = process.communicate()[0]
    running = False
    watcher.join()
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return Measured(time.perf_counter() - begin, cpu, peak, output, process.returncode)


def _pss(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--turns", type=int, default=3, help="question and answer pairs a row")
    parser.add_argument("--tokenizer", default="deepseek-coder")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--skip-map", action="store_true")
    arguments = parser.parse_args()

    from data import messages_file, rendered_file

    with tempfile.TemporaryDirectory() as scratch:
        data = messages_file(Path(scratch, "data.jsonl"), arguments.rows, arguments.turns)
        rendered, tokenizer_json, directory = rendered_file(data, arguments.tokenizer, Path(scratch))
        size = data.stat().st_size
        print(
            f"{arguments.rows:,} rows, {size / 1e6:,.1f} MB ({size / arguments.rows:,.0f} bytes a row), "
            f"tokenizer {arguments.tokenizer}, {arguments.workers} cores"
        )
        lorads = measured(
            [
                sys.executable,
                "-m",
                "lorads",
                "check",
                str(data),
                "--tokenizer",
                arguments.tokenizer,
                "--workers",
                str(arguments.workers),
                "--fail-on",
                "never",
                "--output-format",
                "json",
            ]
        )
        assert lorads.code == 0, lorads.output
        found = json.loads(lorads.output)
        assert found["summary"]["rows"] == arguments.rows
        bare = measured([sys.executable, "-c", BARE, str(tokenizer_json), str(rendered)])
        figures = orjson.loads(bare.output)
        row("lorads check", arguments.rows, size, lorads.wall, lorads.cpu, lorads.memory)
        row("bare fastokens", arguments.rows, size, figures["wall"], figures["cpu"], bare.memory)
        print(f"  lorads check / bare fastokens, CPU time: {lorads.cpu / figures['cpu']:.2f}")
        print(f"  found: {found['summary']['by_rule']}")
        if not arguments.skip_map:
            peer = measured(
                [arguments.peer_python, "-c", MAP, str(directory), str(data), scratch, str(arguments.workers)]
            )
            assert peer.code == 0, peer.output
            wall = json.loads(peer.output.strip().splitlines()[-1])["wall"]
            row("datasets.map", arguments.rows, size, wall, peer.cpu, peer.memory)
            print(f"  rows a second, lorads check (whole process) / datasets.map (map alone): {wall / lorads.wall:.1f}")


def row(name: str, rows: int, size: int, wall: float, cpu: float, memory: int) -> None:
    print(
        f"{name:<16} {rows / wall:>10,.0f} rows/s {size / 1e6 / wall:>8.1f} MB/s {wall:>8.2f} s wall "
        f"{cpu:>8.2f} s CPU {memory / 1e6:>7,.0f} MB"
    )


if __name__ == "__main__":
    main()
