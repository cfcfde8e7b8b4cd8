"""Records what mistral-finetune really builds:
``python tests/parity/record_mistral_finetune.py --mistral-finetune DIR [--held-out DIR] [--only CASES]``.

DIR is a clone of https://github.com/mistralai/mistral-finetune at commit 1943535d8e6d46b2eb47de8b81df07fec3ca5c15. The
environment: Python 3.11 and ``pip install mistral-common==1.5.4 simple-parsing pytest`` (later versions of
mistral-common lack what mistral-finetune imports). torch is not needed: ``finetune/data`` imports ``torch.distributed``
to ask for the rank when it logs, and an empty module that says that nothing is distributed stands in for it.

Each row is a file of its own that goes through ``maybe_load_local_dataset`` (which also makes, and encodes, the shorter
copies of rows with tools) and then, alone, through ``sequence_iterator``. That drops stretches without a trained token;
which ones is seen by running it over the positions of the row's tokens too. A row at which the library stops is
recorded as dropped, with the name of the exception: its words may quote the row.

``--held-out DIR`` records rows that the committed recordings don't hold, with the same cases, into another directory.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import types
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import recording, rows

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "fixtures" / "trainers" / "mistral-finetune-2026.6"
COMMIT = "1943535d8e6d46b2eb47de8b81df07fec3ca5c15"
PACKAGES = ("mistral-common", "sentencepiece", "tiktoken", "pydantic", "jsonschema")
ROWS = 300
SEQ_LEN = 2048

TOKENIZERS = {
    "mistral-v3": "realdata:mistral-common/mistral_instruct_tokenizer_240323.model.v3",
    "mistral-v3-tekken": "realdata:mistral-common/tekken_240718.json",
    "mistral-v2": "realdata:mistral-common/mistral_instruct_tokenizer_240216.model.v2",
    "mistral-v1": "realdata:mistral-common/tokenizer.model.v1",
}
V3 = ("mistral-v3", "mistral-v3-tekken")
NOT_V1 = (*V3, "mistral-v2")
EVERY = tuple(TOKENIZERS)

ALPACA = ("realdata:llamafactory/alpaca_en_demo.json", "realdata:llamafactory/alpaca_zh_demo.json")
CHATS = tuple(
    f"realdata:llamafactory/{name}_demo.json"
    for name in ("glaive_toolcall_en", "glaive_toolcall_zh", "dpo_zh", "dpo_en", "kto_en")
)
TOOLS = CHATS[:2]
DRONE = ("asset:datasets/openai_drone_training_2024-06-17_fixed.jsonl",)


@dataclass(frozen=True)
class Case:
    """``settings`` are those of mistral-finetune's YAML: ``seq_len``, ``dynamic_chunk_fn_call``."""

    name: str
    transformation: str
    sources: Sequence[str]
    tokenizers: Sequence[str] = EVERY
    settings: dict[str, Any] = field(default_factory=dict)


def _own(name: str, sources: Sequence[str], tokenizers: Sequence[str], case: str = "", **settings: Any) -> Case:
    return Case(case or name, f"mistral-finetune/{name}", sources, tokenizers, settings)


CASES = (
    _own("text", ALPACA, V3),
    _own("text", ALPACA, V3, "text-64", seq_len=64),
    Case("messages-system", "messages-system", ALPACA, EVERY),
    Case("messages-edges", "messages-edges", ALPACA, ("mistral-v3",)),
    Case("messages-64", "messages", ALPACA, V3, {"seq_len": 64}),
    Case("messages-16", "messages", ALPACA, V3, {"seq_len": 16}),
    Case("multi-turn", "multi-turn", CHATS, V3),
    Case("multi-turn-128", "multi-turn", CHATS, V3, {"seq_len": 128}),
    _own("edges", ALPACA, NOT_V1),
    _own("systems", CHATS, EVERY),
    _own("weights", CHATS, V3),
    _own("weights", CHATS, ("mistral-v3",), "weights-64", seq_len=64),
    _own("only-last", CHATS, V3),
    _own("only-last", CHATS, ("mistral-v3",), "only-last-unchunked", dynamic_chunk_fn_call=False),
    _own("parts", ALPACA, ("mistral-v3",)),
    _own("broken", ALPACA, V3),
    _own("tools", TOOLS, NOT_V1),
    _own("tools", TOOLS, ("mistral-v3",), "tools-256", seq_len=256),
    _own("tools-odd", TOOLS, V3),
    _own("tools-odd", TOOLS, ("mistral-v3",), "tools-odd-unchunked", dynamic_chunk_fn_call=False),
    _own("openai", DRONE, V3),
)


def edge_cases() -> list[Case]:
    """The small cases of ``edges_mistral-finetune.json``, written by hand."""
    found = json.loads((HERE / "edges_mistral-finetune.json").read_text(encoding="utf-8"))
    return [
        Case(
            f"edge-{name}",
            "own",
            (f"parity:edges_mistral-finetune.json#{name}",),
            edge.get("tokenizers", EVERY),
            edge.get("settings", {}),
        )
        for name, edge in found.items()
    ]


def pick(case: Case, held_out: bool) -> list[tuple[int, int, rows.Row]]:
    """Source, row and training row of a case's rows. Cases over the same sources get the same rows."""
    change = rows.transformation(case.transformation)
    pool = [(s, r) for s, name in enumerate(case.sources) for r in range(len(recording.source_rows(name)))]
    if case.transformation != "own":
        random.Random("+".join(case.sources)).shuffle(pool)
        # Half of a small pool each, so that held-out rows are always other rows.
        size = min(ROWS, len(pool) // 2)
        pool = pool[size : 2 * size + 40] if held_out else pool[:size]
    made = [(s, r, change(recording.source_rows(case.sources[s])[r])) for s, r in pool]
    return [(s, r, row) for s, r, row in made if row is not None][:ROWS]


def stand_in() -> None:
    """``torch.distributed``, for the import alone."""
    torch, distributed = types.ModuleType("torch"), types.ModuleType("torch.distributed")
    distributed.is_initialized = lambda: False  # type: ignore[attr-defined]
    torch.distributed = distributed  # type: ignore[attr-defined]
    sys.modules |= {"torch": torch, "torch.distributed": distributed}


def load(row: rows.Row, tokenizer: Any, chunk: bool, folder: Path) -> Any:
    """The row's ``TokenSample``. Raises whatever mistral-finetune does."""
    from finetune.data import dataset
    from finetune.data.tokenize import SampleType

    instruct = "messages" in row or "interactions" in row
    path = folder / "train.jsonl"
    path.write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    dataset._LOADED_DATASETS.clear()
    return dataset.maybe_load_local_dataset(
        path,
        chunk=chunk and instruct,
        rank=0,
        world_size=1,
        instruct_tokenizer=tokenizer,
        sample_type=SampleType.INSTRUCT if instruct else SampleType.PRETRAIN,
    )[0]


def figures(sample: Any, seq_len: int) -> dict[str, Any]:
    """Ids and trained spans of a row that begins a sequence, from what ``sequence_iterator`` makes of it."""
    from finetune.data.dataset import sequence_iterator
    from finetune.data.tokenize import TokenSample

    places = TokenSample(list(range(len(sample.tokens))), list(sample.masks))
    kept: set[int] = set()
    trained: set[int] = set()
    pairs = zip(
        sequence_iterator(iter([sample]), seq_len, True), sequence_iterator(iter([places]), seq_len, True), strict=True
    )
    for real, positions in pairs:
        assert real.mask == positions.mask
        for x, y, mask, token in zip(positions.x, positions.y, positions.mask, real.x, strict=True):
            if y == x + 1:  # the end is filled up with zeros
                assert sample.tokens[x] == token
                kept |= {x, y}
                trained |= {y} if mask else set()
    if not kept:
        return {"dropped": True, "why": "no token is trained"}
    order = sorted(kept)
    ids = [sample.tokens[place] for place in order]
    labels = [sample.tokens[place] if place in trained else recording.MASKED for place in order]
    return {"ids": ids, "on": recording.spans(ids, labels)}


def record(case: Case, tokenizer_name: str, held_out: bool) -> recording.Cell:
    """One cell, through the real library."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    file = TOKENIZERS[tokenizer_name]
    tokenizer = MistralTokenizer.from_file(str(recording.source_path(file))).instruct_tokenizer
    picked = pick(case, held_out)
    seq_len = case.settings.get("seq_len", SEQ_LEN)
    chunk = case.settings.get("dynamic_chunk_fn_call", True)
    arguments = ["--trainer", "mistral-finetune", "--max-length", str(seq_len)]
    if not chunk:
        arguments += ["--trainer-option", "dynamic_chunk_fn_call=false"]
    cell = recording.Cell(
        {
            "case": case.name,
            "tokenizer": {"name": tokenizer_name, "file": file, "sha256": recording.source_sha256(file)},
            "trainer": "mistral-finetune",
            "versions": {"mistral-finetune": COMMIT, **{package: version(package) for package in PACKAGES}},
            "settings": case.settings,
            "arguments": arguments,
            "template": None,
            "transformation": case.transformation,
            "sources": [{"name": name, "sha256": recording.source_sha256(name)} for name in case.sources],
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        for source, index, row in picked:
            try:
                built = figures(load(row, tokenizer, chunk, Path(folder)), seq_len)
            except Exception as stop:  # noqa: BLE001 - whatever stops a user is a fact to record
                built = {"dropped": True, "why": type(stop).__name__}
            cell.rows.append({"source": source, "row": index, **built})
    return cell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mistral-finetune", type=Path, metavar="DIR", required=True, help="a clone at the commit")
    parser.add_argument("--held-out", type=Path, metavar="DIR", help="record other rows, into DIR")
    parser.add_argument("--only", default="", help="record only the cases whose name starts with this, keep the others")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(options.mistral_finetune))
    stand_in()
    cases = [*CASES, *([] if options.held_out else edge_cases())]
    target = options.held_out or TARGET
    target.mkdir(parents=True, exist_ok=True)
    for tokenizer_name in TOKENIZERS:
        path = target / f"{tokenizer_name}{recording.SUFFIX}"
        cells = {cell.header["case"]: cell for cell in recording.read(path)} if options.only and path.exists() else {}
        asked = [case for case in cases if tokenizer_name in case.tokenizers]
        for case in asked:
            if case.name.startswith(options.only):
                cell = cells[case.name] = record(case, tokenizer_name, bool(options.held_out))
                kept = [row for row in cell.rows if "ids" in row]
                tokens = sum(len(row["ids"]) for row in kept)
                print(f"{cell.name}: {len(cell.rows)} rows, {len(kept)} kept, {tokens} tokens", flush=True)
        recording.write(path, [cells[case.name] for case in asked if case.name in cells])


if __name__ == "__main__":
    main()
