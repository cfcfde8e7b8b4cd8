"""What transformers makes of a ``tokenizer.json``.

``AutoTokenizer`` of transformers 5.23 doesn't always load the file as it is: some classes take only vocabulary, merges,
post-processor and added tokens out of it and build the rest anew (``LlamaTokenizer`` for a SentencePiece vocabulary
replaces the normalizer, so that text behind a special token is cut otherwise). And every class adds the special tokens
that ``tokenizer_config.json`` names and the file lacks. ``apply`` makes the same changes in the parsed file.

Source: models/auto/tokenization_auto.py, tokenization_utils_base.py, tokenization_utils_tokenizers.py and
models/{llama,code_llama,gemma,gpt2,gpt_neox,qwen2,qwen3_5,cohere}/tokenization_*.py.
"""

from __future__ import annotations

import fnmatch
import json
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lorads.tokenizers.files import TokenizerFiles
from lorads.tokenizers.gguf import byte_level_pre_tokenizer

VERSION = "5.23"

MISTRAL_COMMON = "MistralCommonBackend"
"""The class that hands mistral-common's own files to that library."""

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

Parts = dict[str, Any]
Config = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """A class that builds its pipeline anew."""

    defaults: dict[str, str | None]
    """Special tokens when the configuration is silent."""
    build: Callable[[Config], tuple[Parts, Parts]]
    """From the configuration: the parts of ``tokenizer.json`` it replaces, and the flags of its BPE model."""
    extra: tuple[str, ...] = ()
    """More special tokens it adds."""
    adds_bos: bool | None = None
    """True, False: it replaces the post-processor by one that puts BOS, or nothing, in front; None: it keeps it."""
    strict_special: bool = False
    """Whether named tokens are registered again as special and not normalized."""


def _byte_level(add_prefix_space: bool = False, use_regex: bool = True) -> Parts:
    return {
        "type": "ByteLevel",
        "add_prefix_space": add_prefix_space,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


_BYTE_LEVEL_BPE: Parts = {
    "unk_token": None,
    "continuing_subword_prefix": "",
    "end_of_word_suffix": "",
    "fuse_unk": False,
    "byte_fallback": False,
}
_SENTENCEPIECE_BPE: Parts = {
    "unk_token": None,
    "continuing_subword_prefix": None,
    "end_of_word_suffix": None,
    "fuse_unk": True,
    "byte_fallback": True,
}
_NFC: Parts = {"type": "NFC"}


def _sentencepiece_decoder(strip: bool) -> Parts:
    decoders: list[Parts] = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if strip:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    return {"type": "Sequence", "decoders": decoders}


def _metaspace(scheme: str) -> Parts:
    return {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": False}


def _llama(config: Config) -> tuple[Parts, Parts]:
    prefix = config.get("add_prefix_space")
    prefix = True if prefix is None else bool(prefix)
    scheme = "never" if not prefix else "always" if config.get("legacy", False) else "first"
    parts = {"normalizer": None, "pre_tokenizer": _metaspace(scheme), "decoder": _sentencepiece_decoder(prefix)}
    return parts, _SENTENCEPIECE_BPE


def _code_llama(config: Config) -> tuple[Parts, Parts]:
    prefix = config.get("add_prefix_space", True)
    scheme = "first" if prefix is None or prefix else "never"
    parts = {"normalizer": None, "pre_tokenizer": _metaspace(scheme), "decoder": _sentencepiece_decoder(True)}
    return parts, _SENTENCEPIECE_BPE | {"unk_token": _text(config.get("unk_token", "<unk>"))}


def _gemma(config: Config) -> tuple[Parts, Parts]:
    parts = {
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "decoder": _sentencepiece_decoder(False),
    }
    return parts, _SENTENCEPIECE_BPE | {"unk_token": _text(config.get("unk_token", "<unk>"))}


def _gpt2(config: Config) -> tuple[Parts, Parts]:
    prefix = bool(config.get("add_prefix_space", False))
    return {"normalizer": None, "pre_tokenizer": _byte_level(prefix), "decoder": _byte_level(True)}, _BYTE_LEVEL_BPE


def _gpt_neox(config: Config) -> tuple[Parts, Parts]:
    prefix = bool(config.get("add_prefix_space", False))
    return {"normalizer": _NFC, "pre_tokenizer": _byte_level(prefix), "decoder": _byte_level(True)}, _BYTE_LEVEL_BPE


def _cohere(config: Config) -> tuple[Parts, Parts]:
    prefix = bool(config.get("add_prefix_space", False))
    steps = [{"type": "Digits", "individual_digits": True}, _byte_level(prefix)]
    parts = {
        "normalizer": _NFC,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "decoder": _byte_level(prefix),
    }
    return parts, _BYTE_LEVEL_BPE


def _qwen(name: str) -> Callable[[Config], tuple[Parts, Parts]]:
    def build(config: Config) -> tuple[Parts, Parts]:
        known = byte_level_pre_tokenizer(name)
        assert known is not None
        pre_tokenizer = json.loads(json.dumps(known[0]))
        pre_tokenizer["pretokenizers"][-1]["add_prefix_space"] = bool(config.get("add_prefix_space"))
        return {"normalizer": _NFC, "pre_tokenizer": pre_tokenizer, "decoder": _byte_level(True)}, _BYTE_LEVEL_BPE

    return build


def _same(token: str, *names: str) -> dict[str, str | None]:
    return dict.fromkeys(names, token)


CLASSES: dict[str, TokenizerClass] = {
    "LlamaTokenizer": TokenizerClass({"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}, _llama),
    "CodeLlamaTokenizer": TokenizerClass(
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        _code_llama,
        extra=("▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>", "<FILL_ME>"),
        adds_bos=True,
    ),
    "GemmaTokenizer": TokenizerClass(
        {
            "unk_token": "<unk>",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
        _gemma,
    ),
    "GPT2Tokenizer": TokenizerClass(_same("<|endoftext|>", "unk_token", "bos_token", "eos_token"), _gpt2),
    "GPTNeoXTokenizer": TokenizerClass(
        _same("<|endoftext|>", "unk_token", "bos_token", "eos_token") | {"pad_token": "<|padding|>"},
        _gpt_neox,
        adds_bos=False,
    ),
    "CohereTokenizer": TokenizerClass(
        {
            "unk_token": "<UNK>",
            "bos_token": "<BOS_TOKEN>",
            "eos_token": "<|END_OF_TURN_TOKEN|>",
            "pad_token": "<PAD>",
            "cls_token": "<CLS>",
            "sep_token": "<SEP>",
            "mask_token": "<MASK_TOKEN>",
        },
        _cohere,
        strict_special=True,
    ),
    "Qwen2Tokenizer": TokenizerClass(_same("<|endoftext|>", "unk_token", "eos_token", "pad_token"), _qwen("qwen2")),
    "Qwen3_5Tokenizer": TokenizerClass(_same("<|endoftext|>", "unk_token", "eos_token", "pad_token"), _qwen("qwen35")),
}


@cache
def _facts() -> dict[str, Any]:
    with Path(__file__).with_name("transformers_classes.toml").open("rb") as file:
        return tomllib.load(file)


def class_name(files: TokenizerFiles) -> str | None:
    """The class ``AutoTokenizer`` builds that doesn't take the file as it is, or None when it takes the file."""
    facts = _facts()
    declared = files.config.get("tokenizer_class") or files.model_config.get("tokenizer_class")
    declared = declared.removesuffix("Fast") if isinstance(declared, str) else None
    model_type = files.model_config.get("model_type")
    distrusted = model_type in facts["distrusted"]
    registered = next((name for name, types in facts["registered"].items() if model_type in types), None)
    if registered is None and (model_type in facts["registered_file"] or distrusted):
        registered = "TokenizersBackend"
    if any(fnmatch.fnmatchcase(files.hub_id.lower(), pattern) for pattern in facts["file_ids"]):
        return None
    if declared == "LlamaTokenizer" and not distrusted and b'"ByteLevel"' in files.model:
        return None
    if declared is None:
        chosen = registered
    elif registered is None or registered == declared:
        chosen = declared
    elif registered == "TokenizersBackend":
        return None
    else:
        chosen = registered if distrusted else declared
    return None if chosen in (None, "TokenizersBackend", "PreTrainedTokenizer") else chosen


def apply(files: TokenizerFiles, model: Parts) -> tuple[Parts, dict[str, str | None], list[str]]:
    """The parsed ``tokenizer.json`` as transformers builds it, the named special tokens, and what was changed.

    ``model`` isn't changed; the answer shares its vocabulary and merges, and is ``model`` itself where transformers
    gives the same ids. Named tokens are those of ``NAMED``.
    """
    if files.config.get("tokenizer_class") == MISTRAL_COMMON:
        # mistral-common finds no special token in a text, so none may become an added token
        return model, {key: files.config.get(key) for key in NAMED}, []
    name = class_name(files)
    rebuilt = CLASSES.get(name) if name else None
    notes: list[str] = []
    if rebuilt is not None and not isinstance(model["model"]["vocab"], dict):
        rebuilt = None
        notes.append(
            f"transformers {VERSION} builds {name} from a BPE vocabulary, which this tokenizer.json doesn't hold: "
            "lorads takes the file as it is"
        )
    elif rebuilt is None and name in _facts()["not_followed"]:
        notes.append(
            f"transformers {VERSION} builds {name} anew, which lorads doesn't follow: the file is taken as it is"
        )
    declared = _declarations(files, model, rebuilt)
    own: list[Parts] = [dict(token) for token in model.get("added_tokens") or []]
    result = dict(model)
    changed: list[str] = []
    if rebuilt is not None:
        result, changed = _rebuild(rebuilt, model, files.config, declared.named)
        cut = [part for part in changed if part in ("normalizer", "pre_tokenizer")]
        if cut:
            notes.append(
                f"transformers {VERSION} builds {name} with its own {' and '.join(cut)}, "
                "so its ids differ from what tokenizer.json alone gives"
            )
    added = _add([] if rebuilt is not None else own, declared.entries, result["model"])
    known = {token["content"] for token in added}
    added = _add(added, [token for token in declared.missing if token["content"] not in known], result["model"])
    if rebuilt is not None and rebuilt.strict_special:
        added = _add(added, [_added(token["content"]) for token in declared.missing], result["model"])
    result["added_tokens"] = sorted(added, key=lambda token: int(token["id"]))
    before, after = ({token["content"] for token in tokens} for tokens in (own, added))
    if after - before:
        notes.append(f"transformers {VERSION} adds tokens that tokenizer.json doesn't have: {_some(after - before)}")
    if before - after:
        notes.append(f"transformers {VERSION} leaves out added tokens of tokenizer.json: {_some(before - after)}")
    same = not changed and result["added_tokens"] == sorted(own, key=lambda token: int(token["id"]))
    return (model if same else result), declared.named, notes


def _rebuild(
    rebuilt: TokenizerClass, model: Parts, config: Config, named: dict[str, str | None]
) -> tuple[Parts, list[str]]:
    """The tokenizer as the class builds it, without added tokens, and which parts of it matter for ids and differ."""
    parts, flags = rebuilt.build(config | {key: value for key, value in named.items() if value is not None})
    if rebuilt.adds_bos is not None:
        parts["post_processor"] = _bos_processor(named, model) if rebuilt.adds_bos else None
    flags = flags | {"dropout": None, "ignore_merges": False}
    changed = [key for key, part in parts.items() if key != "decoder" and _core(model.get(key)) != _core(part)]
    if any((model["model"].get(key) or None) != (value or None) for key, value in flags.items()):
        changed.append("model")
    kept = {key: model["model"][key] for key in ("vocab", "merges") if key in model["model"]}
    return model | parts | {"model": {"type": "BPE"} | flags | kept}, changed


def _some(tokens: set[str]) -> str:
    shown = 5
    listed = ", ".join(sorted(tokens)[:shown])
    return f"{listed} and {len(tokens) - shown} more" if len(tokens) > shown else listed


def _core(part: Any) -> Any:
    """A normalizer or pre-tokenizer without what can't change ids."""
    if isinstance(part, dict):
        if part.get("type") == "Sequence":
            steps = part.get("normalizers", part.get("pretokenizers")) or []
            return _core(steps[0]) if len(steps) == 1 else [_core(step) for step in steps] or None
        return {key: value for key, value in part.items() if key != "trim_offsets"}
    return part


def _text(token: Any) -> str | None:
    """The text of a token given as a string or as a serialized ``AddedToken``."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None


def _added(token: str, **flags: bool) -> Parts:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": -1, "content": token} | plain | flags


@dataclass(slots=True)
class _Declared:
    """What the configurations say about special tokens."""

    named: dict[str, str | None]
    """``bos_token`` … and the token's text."""
    missing: list[Parts]
    """Entries for the named and the extra tokens, to be added where there is no such token yet."""
    entries: list[Parts]
    """The added tokens that are declared with ids, in the order of their ids."""


def _declarations(files: TokenizerFiles, model: Parts, rebuilt: TokenizerClass | None) -> _Declared:
    config: Config = dict(files.config)
    decoder = config.get("added_tokens_decoder")
    entries: dict[int, Parts] = {}
    if isinstance(decoder, dict):
        for index, entry in decoder.items():
            if isinstance(entry, dict) and str(index).isdigit():
                entries[int(index)] = _entry(entry)
    else:  # what was used before there was an added_tokens_decoder
        config |= files.special_tokens_map
    named: dict[str, Any] = {}
    for key in NAMED:
        named[key] = config[key] if key in config else rebuilt.defaults.get(key) if rebuilt else None
    listed = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    extra = list(listed.values()) if isinstance(listed, dict) else list(listed) if isinstance(listed, list) else []
    extra += [value for key, value in config.items() if key.endswith("_token") and key not in NAMED]
    if rebuilt is not None:
        extra += list(rebuilt.extra)
    tokens = [token for token in [*named.values(), *extra] if _text(token)]
    if not isinstance(decoder, dict):
        special = {_text(token) for token in tokens}
        for content, index in files.added_tokens.items():
            if isinstance(index, int):
                entries[index] = _added(content, special=content in special, normalized=content not in special)
        for token in model.get("added_tokens") or []:
            entries[int(token["id"])] = dict(token)
    return _Declared(
        named={key: _text(token) for key, token in named.items()},
        missing=[_entry(token, special=True) for token in tokens],
        entries=[entries[index] for index in sorted(entries)],
    )


def _entry(token: Any, **fixed: bool) -> Parts:
    """A token given as a string or as a serialized ``AddedToken``, with the defaults of that class."""
    given = token if isinstance(token, dict) else {}
    special = fixed.get("special", bool(given.get("special", False)))
    flags = {key: bool(given.get(key, False)) for key in ("single_word", "lstrip", "rstrip")}
    return _added(_text(token) or "", **flags, normalized=bool(given.get("normalized", not special)), special=special)


def _add(present: list[Parts], tokens: list[Parts], bpe: Parts) -> list[Parts]:
    """What ``tokenizers.Tokenizer.add_tokens`` does: a known token keeps its id and takes the new flags."""
    by_content = {token["content"]: token for token in present}
    vocab = bpe.get("vocab")
    ids = vocab if isinstance(vocab, dict) else {entry[0]: index for index, entry in enumerate(vocab or [])}
    following = max([len(ids), *(int(token["id"]) + 1 for token in present)])
    for token in tokens:
        content = token["content"]
        if not content:
            continue
        if content in by_content:
            index = by_content[content]["id"]
        elif content in ids:
            index = ids[content]
        else:
            index, following = following, following + 1
        by_content[content] = token | {"id": index}
    return list(by_content.values())


def _bos_processor(named: dict[str, str | None], model: Parts) -> Parts | None:
    bos = named.get("bos_token")
    vocab = model["model"]["vocab"]
    if bos is None or bos not in vocab:
        return None
    front = {"SpecialToken": {"id": bos, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [front, first],
        "pair": [front, first, {"SpecialToken": {"id": bos, "type_id": 1}}, second],
        "special_tokens": {bos: {"id": bos, "ids": [vocab[bos]], "tokens": [bos]}},
    }
