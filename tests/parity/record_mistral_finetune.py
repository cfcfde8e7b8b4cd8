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

import sys
import tempfile
import types
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import recorder, recording, rows
from parity.recorder import ALPACA, CHATS, DRONE, ROWS, TOOLS

TARGET = recorder.TRAINERS / "mistral-finetune-2026.6"
COMMIT = "1943535d8e6d46b2eb47de8b81df07fec3ca5c15"
PACKAGES = ("mistral-common", "sentencepiece", "tiktoken", "pydantic", "jsonschema")
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


@dataclass(frozen=True)
class Case:
    """``settings`` are those of mistral-finetune's YAML: ``seq_len``, ``dynamic_chunk_fn_call``."""

    name: str
    transformation: str
    sources: Sequence[str]
    tokenizers: Sequence[str] = EVERY
    settings: dict[str, Any] = field(default_factory=dict)
    rows: int = ROWS


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
    return [
        Case(
            f"edge-{name}",
            "own",
            (f"parity:edges_mistral-finetune.json#{name}",),
            edge.get("tokenizers", EVERY),
            edge.get("settings", {}),
        )
        for name, edge in recorder.edges("edges_mistral-finetune.json").items()
    ]


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
    rows.write(path, [row])
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
    return recorder.figures(ids, labels)


def record(case: Case, tokenizer_name: str, held_out: bool) -> recording.Cell:
    """One cell, through the real library."""
    from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

    file = TOKENIZERS[tokenizer_name]
    tokenizer = MistralTokenizer.from_file(str(recording.source_path(file))).instruct_tokenizer
    picked = recorder.pick(case, held_out)
    seq_len = case.settings.get("seq_len", SEQ_LEN)
    chunk = case.settings.get("dynamic_chunk_fn_call", True)
    arguments = ["--trainer", "mistral-finetune", "--max-length", str(seq_len)]
    if not chunk:
        arguments += recorder.trainer_option("dynamic_chunk_fn_call", False)
    header = recorder.header(
        case,
        trainer="mistral-finetune",
        versions={"mistral-finetune": COMMIT, **recorder.versions(PACKAGES)},
        tokenizer={"name": tokenizer_name, "file": file, "sha256": recording.source_sha256(file)},
        arguments=arguments,
    )

    def built(row: rows.Row) -> dict[str, Any]:
        try:
            return figures(load(row, tokenizer, chunk, Path(folder)), seq_len)
        except Exception as stop:  # noqa: BLE001 - whatever stops a user is a fact to record
            return {"dropped": True, "why": type(stop).__name__}

    with tempfile.TemporaryDirectory() as folder:
        return recorder.cell(header, picked, (built(row) for _, _, row in picked))


def main() -> None:
    parser = recorder.parser(__doc__)
    parser.add_argument("--mistral-finetune", type=Path, metavar="DIR", required=True, help="a clone at the commit")
    options = parser.parse_args()
    recorder.quiet()
    sys.path.insert(0, str(options.mistral_finetune))
    stand_in()
    recorder.run(options, TARGET, [*CASES, *edge_cases()], record)


if __name__ == "__main__":
    main()
