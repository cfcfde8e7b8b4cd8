"""What the recorders share: sources, which rows a case gets, how a cell is written down, the command line.

A recorder ``record_<trainer>.py`` has its cases and a ``record`` that takes one of them, under one tokenizer, through
the real trainer. This module imports no library of a trainer until a recorder asks for it, and then quietly.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import realdata
from parity import recording, rows

HERE = Path(__file__).resolve().parent
TRAINERS = HERE.parent.parent / "fixtures" / "trainers"
ROWS = 300

ALPACA = ("realdata:llamafactory/alpaca_en_demo.json", "realdata:llamafactory/alpaca_zh_demo.json")
CHATS = tuple(
    f"realdata:llamafactory/{name}_demo.json"
    for name in ("glaive_toolcall_en", "glaive_toolcall_zh", "dpo_zh", "dpo_en", "kto_en")
)
TOOLS = CHATS[:2]
LONG = ("realdata:llamafactory/c4_demo.jsonl", *CHATS)
DRONE = ("asset:datasets/openai_drone_training_2024-06-17_fixed.jsonl",)
CHATML = "parity:chatml_generation.jinja"
BRACKETS = "parity:bracket_generation.jinja"

TINY = {
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}
"""The size of a model that is only there because the trainer wants one."""

Picked = tuple[int, int, rows.Row]
"""Source, row and training row."""


class Case(Protocol):
    """What the cases of every recorder have. ``rows`` is how many it gets at most."""

    @property
    def name(self) -> str: ...
    @property
    def transformation(self) -> str: ...
    @property
    def sources(self) -> Sequence[str]: ...
    @property
    def tokenizers(self) -> Sequence[str]: ...
    @property
    def settings(self) -> dict[str, Any]: ...
    @property
    def rows(self) -> int: ...


C = TypeVar("C", bound=Case)


# Rows


def edges(file: str) -> dict[str, Any]:
    """Cases written by hand: the content of an ``edges_*.json``."""
    found: dict[str, Any] = json.loads((HERE / file).read_text(encoding="utf-8"))
    return found


def by_hand(case: Case) -> bool:
    """Whether the rows were written for the case: then it gets all of them, as they stand, and none is held out."""
    return all(source.startswith("parity:") for source in case.sources)


def places(case: Case) -> list[tuple[int, int]]:
    """Source and row of all there is, in the order in which all cases over the same sources take them."""
    found = [(s, r) for s, source in enumerate(case.sources) for r in range(len(recording.source_rows(source)))]
    if not by_hand(case):
        random.Random("+".join(case.sources)).shuffle(found)
    return found


def transformed(case: Case, chosen: Iterable[tuple[int, int]]) -> list[Picked]:
    """The training rows at these places, without those that the transformation doesn't take."""
    change = rows.transformation(case.transformation)
    made = ((s, r, change(recording.source_rows(case.sources[s])[r])) for s, r in chosen)
    return [(s, r, row) for s, r, row in made if row is not None]


def pick(case: Case, held_out: bool) -> list[Picked]:
    """The rows of a case. Cases over the same sources get the same rows, held-out ones always others."""
    chosen = places(case)
    if not by_hand(case):
        # Half of a small pool each.
        size = min(case.rows, len(chosen) // 2)
        chosen = chosen[size : 2 * size + 40] if held_out else chosen[:size]
    return transformed(case, chosen)[: case.rows]


# What trainers are given


def tokenizer_directory(name: str) -> Path:
    return realdata.asset_dir(f"tokenizers/{name}")


def load_tokenizer(name: str, *, fresh: bool = False) -> Any:
    """The tokenizer as transformers loads it; what a cell changed in it is put back. ``fresh``: where it changes more
    than can be put back."""
    from transformers import AutoTokenizer

    if fresh:
        return AutoTokenizer.from_pretrained(tokenizer_directory(name))
    tokenizer, parts = _loaded(name)
    for part, value in parts.items():
        setattr(tokenizer, part, value)
    return tokenizer


@cache
def _loaded(name: str) -> tuple[Any, dict[str, Any]]:
    tokenizer = load_tokenizer(name, fresh=True)
    return tokenizer, {part: getattr(tokenizer, part) for part in ("chat_template", "pad_token")}


def tiny_llama(tokenizer: Any, **settings: Any) -> Any:
    """A random model of the tokenizer's size."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **TINY, **settings))


def load_rows(training_rows: Iterable[rows.Row], folder: str, *, numbered: bool = False) -> Any:
    """The rows as ``datasets`` loads them from a JSON lines file. ``numbered``: with their places as ``parity_row``."""
    import datasets

    data = Path(folder, "train.jsonl")
    rows.write(data, training_rows)
    # in memory, since the folder goes
    dataset = datasets.load_dataset(
        "json", data_files=str(data), split="train", cache_dir=f"{folder}/cache", keep_in_memory=True
    )
    return dataset.add_column("parity_row", list(range(len(dataset)))) if numbered else dataset


# What is written down


def versions(packages: Iterable[str]) -> dict[str, str]:
    return {package: version(package) for package in packages}


def describe_file(name: str) -> dict[str, Any]:
    """Name and sha256 of a tokenizer's file."""
    content = (tokenizer_directory(name) / "tokenizer.json").read_bytes()
    return {"name": name, "sha256": hashlib.sha256(content).hexdigest()}


@cache
def describe_tokenizer(name: str, tokenizer: Any) -> dict[str, Any]:
    """The file, the class that transformers chose, and whether it left the file's pipeline as it is."""
    ours = json.loads((tokenizer_directory(name) / "tokenizer.json").read_bytes())
    theirs = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = ("normalizer", "pre_tokenizer")
    return {
        **describe_file(name),
        "class": type(tokenizer).__name__,
        "changed": {part: theirs.get(part) for part in parts if theirs.get(part) != ours.get(part)},
    }


def trainer_option(name: str, value: Any) -> list[str]:
    """An option of lorads' command line, its value written as the command line reads it."""
    return ["--trainer-option", f"{name}={value if isinstance(value, str) else json.dumps(value)}"]


def header(
    case: Case,
    *,
    trainer: str,
    versions: Mapping[str, str],
    tokenizer: Mapping[str, Any],
    arguments: Sequence[str],
    settings: Mapping[str, Any] | None = None,
    template: str | None = None,
    aside: str = "",
    dated: bool = False,
) -> dict[str, Any]:
    """The header of a cell (see ``recording``); ``dated`` where the trainer writes the day into its rows."""
    found = {
        "case": case.name,
        "tokenizer": tokenizer,
        "trainer": trainer,
        "versions": versions,
        "settings": case.settings if settings is None else settings,
        "template": template and {"name": template, "sha256": recording.source_sha256(template)},
        "transformation": case.transformation,
        "sources": [{"name": name, "sha256": recording.source_sha256(name)} for name in case.sources],
        "arguments": arguments,
    }
    if aside:
        found["aside"] = aside
    if dated:
        found["date"] = date.today().isoformat()
    return found


def figures(ids: list[int], labels: list[int]) -> dict[str, Any]:
    """What is recorded of a row that was kept."""
    trained = recording.spans(ids, labels)
    return {"ids": ids, "labels": labels} if trained is None else {"ids": ids, "on": trained}


def said(refusal: Exception, most: int = 300) -> str:
    return f"{type(refusal).__name__}: {refusal}"[:most]


def cell(header: dict[str, Any], picked: Iterable[Picked], built: Iterable[dict[str, Any]]) -> recording.Cell:
    """A cell with the figures of each picked row."""
    pairs = zip(picked, built, strict=True)
    return recording.Cell(header, [{"source": source, "row": row, **what} for (source, row, _), what in pairs])


# The command line


def quiet() -> None:
    """Libraries from now on: offline, in one thread, no progress bars, no warnings. None must be imported yet."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
    os.environ.update(HF_DATASETS_DISABLE_PROGRESS_BARS="1", TRANSFORMERS_VERBOSITY="error")
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that all recorders take."""
    found = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--held-out", type=Path, metavar="DIR", help="record other rows, into DIR")
    found.add_argument("--only", default="", metavar="CASES", help="record only cases whose name starts so: A,B…")
    found.add_argument("--tokenizers", default="", metavar="NAMES", help="record only under these: A,B…")
    found.add_argument("--missing", action="store_true", help="record only the cells that are not there yet")
    return found


def run(
    options: argparse.Namespace,
    target: Path,
    cases: Iterable[C],
    record: Callable[[C, str, bool], recording.Cell],
    *,
    keep: bool = False,
) -> None:
    """Record the cells that are asked for, a file to a tokenizer. Cells of the other cases stay in their file, those of
    no case go; with ``keep`` they stay too. What is recorded is written even when a later cell fails."""
    folder = options.held_out or target
    folder.mkdir(parents=True, exist_ok=True)
    held_out = options.held_out is not None
    cases = [case for case in cases if not (held_out and by_hand(case))]
    known = list(dict.fromkeys(name for case in cases for name in case.tokenizers))
    asked = options.tokenizers.split(",") if options.tokenizers else known
    if unknown := set(asked) - set(known):
        raise SystemExit(f"no case under {', '.join(sorted(unknown))}, but under {', '.join(known)}")
    for tokenizer in asked:
        file = folder / f"{tokenizer}{recording.SUFFIX}"
        cells = {cell.header["case"]: cell for cell in recording.read(file)} if file.exists() else {}
        here = [case for case in cases if tokenizer in case.tokenizers]
        chosen = [case for case in here if case.name.startswith(tuple(options.only.split(",")))]
        if options.missing:
            chosen = [case for case in chosen if case.name not in cells]
        names = list(dict.fromkeys([*(cells if keep else ()), *(case.name for case in here)]))
        made = 0
        try:
            for case in chosen:
                cells[case.name] = record(case, tokenizer, held_out)
                made += 1
                print(f"{cells[case.name].name}: {_outcome(cells[case.name])}", flush=True)
        finally:
            if made:
                recording.write(file, [cells[name] for name in names if name in cells])


def _outcome(cell: recording.Cell) -> str:
    kept = [row for row in cell.rows if "ids" in row]
    tokens = sum(len(row["ids"]) for row in kept)
    return cell.header.get("raises") or f"{len(cell.rows)} rows, {len(kept)} kept, {tokens} tokens"
