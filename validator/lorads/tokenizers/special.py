"""Special tokens: what tokenizer.json and the configurations beside it say, and where they differ."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lorads.tokenizers.files import TokenizerFiles

_CONTROL = re.compile(
    r"<[|｜].*[|｜]>|</?s>|<(?:bos|eos|pad|unk|mask|cls|sep)>|\[/?(?:INST|SYSTEM_PROMPT|MODEL_SETTINGS|TOOL_CONTENT)\]"
    r"|</?(?:start|end)_of_turn>|<\|?im_(?:start|end|sep)\|?>|\[(?:CLS|SEP|PAD|UNK|MASK|BOS|EOS)\]|<<?/?SYS>?>",
    re.IGNORECASE,
)
_BENIGN = re.compile(
    r"think|tool|function_call|reason|vision|image|img|audio|video|object_ref|box|quad|fim|prefix|suffix|middle|repo"
    r"|file|filename|jupyter|code_|commit|issue|gh_stars|empty_output|interpreter|observation|▁<(?:PRE|MID|SUF|EOT)>",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """The special tokens of a tokenizer, as the trainers' libraries see them."""

    bos: str | None = None
    eos: str | None = None
    pad: str | None = None
    unk: str | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None
    unk_id: int | None = None
    added: dict[str, int] = field(default_factory=dict)
    """Every added token and its id."""
    special: frozenset[int] = frozenset()
    """Added tokens that tokenizer.json calls special."""
    control: frozenset[int] = frozenset()
    """Added tokens that steer a conversation or a model (turn ends, roles, BOS …): typed into content, they do harm."""
    benign: frozenset[int] = frozenset()
    """Added tokens that may stand in content on purpose: thinking, tools, images, fill-in-the-middle."""
    adds_bos: bool = False
    """Whether the post-processor puts BOS in front when special tokens are asked for."""
    adds_eos: bool = False
    eos_ids: frozenset[int] = frozenset()
    """Every id that ends a generation: the tokenizer's EOS and those of the generation configuration."""
    disagreements: tuple[str, ...] = ()
    """Where the files contradict each other, one sentence each."""


def understand(
    files: TokenizerFiles,
    model: dict[str, Any],
    named: dict[str, str | None],
    ids: dict[str, int],
    post: tuple[list[int], list[int]] | None,
    size: int,
) -> SpecialTokens:
    """``model`` is the parsed tokenizer.json, ``ids`` token to id with added tokens, ``post`` what it adds."""
    entries = model.get("added_tokens") or []
    added = {entry["content"]: int(entry["id"]) for entry in entries}
    names = {name: named.get(f"{name}_token") for name in ("bos", "eos", "pad", "unk")}
    numbers = {name: ids.get(token) if token is not None else None for name, token in names.items()}
    steering = {number for number in numbers.values() if number is not None}
    control, benign = set(), set()
    for entry in entries:
        token, number = entry["content"], int(entry["id"])
        if number in steering:
            control.add(number)
        elif _BENIGN.search(token):
            benign.add(number)
        elif entry.get("special") or _CONTROL.fullmatch(token):
            control.add(number)
    stops = _id_list(files.generation_config.get("eos_token_id"))
    eos = numbers["eos"]
    return SpecialTokens(
        bos=names["bos"],
        eos=names["eos"],
        pad=names["pad"],
        unk=names["unk"],
        bos_id=numbers["bos"],
        eos_id=eos,
        pad_id=numbers["pad"],
        unk_id=numbers["unk"],
        added=added,
        special=frozenset(int(entry["id"]) for entry in entries if entry.get("special")),
        control=frozenset(control),
        benign=frozenset(benign),
        adds_bos=bool(post and post[0]) and (post[0][-1] == numbers["bos"] if post else False),
        adds_eos=bool(post and post[1]) and (eos in post[1] if post else False),
        eos_ids=frozenset([*stops, *([] if eos is None else [eos])]),
        disagreements=tuple(_disagreements(files, model, names, numbers, ids, post, size)),
    )


def _id_list(value: Any) -> list[int]:
    values = value if isinstance(value, list) else [value]
    return [number for number in values if isinstance(number, int) and not isinstance(number, bool)]


def _text(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _disagreements(
    files: TokenizerFiles,
    model: dict[str, Any],
    names: dict[str, str | None],
    numbers: dict[str, int | None],
    ids: dict[str, int],
    post: tuple[list[int], list[int]] | None,
    size: int,
) -> Iterable[str]:
    token_of = {number: token for token, number in ids.items()}
    for name, token in names.items():
        key = f"{name}_token"
        said = {
            file: _text(content[key])
            for file, content in (
                ("tokenizer_config.json", files.config),
                ("special_tokens_map.json", files.special_tokens_map),
            )
            if _text(content.get(key)) is not None
        }
        if len(set(said.values())) > 1:
            yield f"{key}: " + ", ".join(f"{file} says {token!r}" for file, token in said.items())
        if token is not None and numbers[name] is None:
            yield f"{key} is {token!r}, which is no token of tokenizer.json"
        for file, content in (("config.json", files.model_config), ("generation_config.json", files.generation_config)):
            given = _id_list(content.get(f"{key}_id"))
            if given and numbers[name] is not None and numbers[name] not in given:
                shown = ", ".join(f"{number} ({token_of.get(number, 'no token')})" for number in given)
                yield f"{key} is {token!r} ({numbers[name]}), but {key}_id of {file} is {shown}"
    yield from _post_processor_disagreements(files, names, numbers, post)
    yield from _added_token_disagreements(files, model)
    rows = files.model_config.get("vocab_size")
    if isinstance(rows, int) and size > rows:
        yield f"tokenizer.json has ids up to {size - 1}, but config.json says the model has {rows} embedding rows"


def _post_processor_disagreements(
    files: TokenizerFiles,
    names: dict[str, str | None],
    numbers: dict[str, int | None],
    post: tuple[list[int], list[int]] | None,
) -> Iterable[str]:
    if post is None:
        return
    for name, added in (("bos", post[0]), ("eos", post[1])):
        wanted = files.config.get(f"add_{name}_token")
        if not isinstance(wanted, bool) or names[name] is None:
            continue
        if wanted and numbers[name] not in added:
            yield (
                f"tokenizer_config.json says add_{name}_token is true, but the post-processor of tokenizer.json adds "
                f"no {names[name]}: transformers 5 adds none, transformers 4 does"
            )
        if not wanted and numbers[name] in added:
            yield (
                f"tokenizer_config.json says add_{name}_token is false, but the post-processor of tokenizer.json adds "
                f"{names[name]}"
            )


def _added_token_disagreements(files: TokenizerFiles, model: dict[str, Any]) -> Iterable[str]:
    declared = files.config.get("added_tokens_decoder")
    if not isinstance(declared, dict):
        return
    own = {int(entry["id"]): entry["content"] for entry in model.get("added_tokens") or []}
    said = {int(index): _text(entry) for index, entry in declared.items() if str(index).isdigit()}
    for number in sorted(own.keys() | said.keys()):
        if number not in said:
            yield f"added token {own[number]!r} ({number}) of tokenizer.json is missing in tokenizer_config.json"
        elif number not in own:
            yield f"added token {said[number]!r} ({number}) of tokenizer_config.json is missing in tokenizer.json"
        elif own[number] != said[number]:
            yield f"token {number} is {own[number]!r} in tokenizer.json and {said[number]!r} in tokenizer_config.json"
