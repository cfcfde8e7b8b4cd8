"""Real rows for benchmarks, by reference, made as many as wanted."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import orjson

import realdata  # isort: skip


def messages_file(
    target: Path, rows: int, turns: int, sources: tuple[str, ...] = ("llamafactory/alpaca_en_demo.json",)
) -> Path:
    """``rows`` conversations of ``turns`` real question and answer pairs each; a number in the first question keeps
    them all different."""
    pairs = []
    for source in sources:
        for record in json.loads(realdata.path(source).read_text(encoding="utf-8")):
            question = "\n".join(part for part in (record["instruction"], record["input"]) if part).strip()
            if question and record["output"].strip():
                pairs.append((question, record["output"].strip()))
    supply = itertools.cycle(pairs)
    with target.open("wb") as stream:
        for number in range(rows):
            messages = []
            for turn in range(turns):
                question, answer = next(supply)
                question = f"({number}) {question}" if turn == 0 else question
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            stream.write(orjson.dumps({"messages": messages}, option=orjson.OPT_APPEND_NEWLINE))
    return target


def rendered_file(data: Path, tokenizer: str, scratch: Path) -> tuple[Path, Path, Path]:
    """The rows rendered by the tokenizer's template (JSON lines of ``text``), the tokenizer.json, and a directory that
    transformers can load."""
    from lorads.formats import Columns, normalise
    from lorads.templates import Template
    from lorads.tokenizers import load
    from lorads.tokenizers.files import find

    loaded = load(tokenizer)
    assert loaded.chat_template is not None
    template = Template(loaded.chat_template, bos_token=loaded.special.bos or "", eos_token=loaded.special.eos or "")
    target = scratch / "rendered.jsonl"
    with data.open("rb") as source, target.open("wb") as stream:
        while lines := list(itertools.islice(source, 4000)):
            conversations = normalise([orjson.loads(line) for line in lines], "messages", Columns())
            for text in template.render(conversations).texts:  # type: ignore[arg-type]
                stream.write(orjson.dumps({"text": text}, option=orjson.OPT_APPEND_NEWLINE))
    directory = scratch / "tokenizer"
    directory.mkdir()
    found = find(tokenizer)
    (directory / "tokenizer.json").write_bytes(found.model)
    (directory / "tokenizer_config.json").write_text(
        json.dumps({**found.config, "chat_template": loaded.chat_template})
    )
    return target, directory / "tokenizer.json", directory
