"""The versions known to be broken: ``known_pairs.toml``, and which of them concern an environment."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from lorads.tokenizers.files import TokenizerFiles


@dataclass(frozen=True, slots=True)
class Pair:
    """An entry of the table; see there."""

    code: str
    packages: dict[str, str]
    severity: str
    title: str
    effect: str
    advice: str
    threads: list[str] = field(default_factory=list)
    tokenizer: str | None = None
    probed: str | None = None


@cache
def pairs() -> tuple[Pair, ...]:
    with Path(__file__).with_name("known_pairs.toml").open("rb") as stream:
        return tuple(Pair(**entry) for entry in tomllib.load(stream)["pair"])


def concerning(packages: Mapping[str, str], files: TokenizerFiles) -> list[Pair]:
    """The pairs that the installed versions, and this tokenizer, match."""
    return [
        pair
        for pair in pairs()
        if all(name in packages and matches(packages[name], spec) for name, spec in pair.packages.items())
        and (pair.tokenizer is None or TOKENIZERS[pair.tokenizer](files))
    ]


def _llama_over_byte_level(files: TokenizerFiles) -> bool:
    declared = files.config.get("tokenizer_class")
    return str(declared).removesuffix("Fast") == "LlamaTokenizer" and b'"ByteLevel"' in files.model


def _bos_by_configuration(files: TokenizerFiles) -> bool:
    return wants_bos(files) and b"TemplateProcessing" not in files.model


def wants_bos(files: TokenizerFiles) -> bool:
    """Whether tokenizer_config.json says that texts begin with BOS."""
    return files.config.get("add_bos_token") is True and bool(files.config.get("bos_token"))


TOKENIZERS: dict[str, Callable[[TokenizerFiles], bool]] = {
    "llama-class-over-byte-level": _llama_over_byte_level,
    "bos-by-configuration": _bos_by_configuration,
}


Key = tuple[tuple[int, ...], int, int]


def _key(version: str) -> Key | None:
    """A version to compare by: release numbers without trailing zeros, what precedes it, what follows it."""
    match = re.match(r"v?(\d+(?:\.\d+)*)[._-]?(a|b|rc|dev|post)?[._-]?(\d*)", version)
    if match is None:
        return None
    numbers = [int(number) for number in match[1].split(".")]
    while len(numbers) > 1 and numbers[-1] == 0:
        numbers.pop()
    stage = {"dev": -4, "a": -3, "b": -2, "rc": -1, None: 0, "post": 1}[match[2]]
    return tuple(numbers), stage, int(match[3] or 0)


def matches(version: str, spec: str) -> bool:
    """Whether ``version`` satisfies ``spec`` (``>=5.3.0,<5.22``). A version that can't be read satisfies nothing.

    Releases before the first of a series (5.0.0rc1) count as that series: what was broken in it was broken there too.
    """
    own = _key(version)
    if own is None:
        return False
    for part in spec.split(","):
        operator, wanted = re.fullmatch(r"\s*(>=|<=|==|<|>)\s*(\S+)\s*", part).groups()  # type: ignore[union-attr]
        key = _key(wanted)
        assert key is not None, spec
        release, other = own[0], key[0]
        before_release = own[1] < 0 and release == other and key[1] == 0
        holds = {
            ">=": own >= key or before_release,
            "<=": own <= key,
            "==": own == key,
            "<": own < key and not before_release,
            ">": own > key,
        }[operator]
        if not holds:
            return False
    return True
