"""How torchtune's tokenizers turn a text into ids, from the same tokenizer.json.

Each model tokenizer of torchtune 0.6.1 has an encoder of its own, which reads other files than ``tokenizer.json`` and
treats control tokens in texts otherwise. The same vocabulary is loaded here with that encoder's rules.

* ``tiktoken`` (``_tiktoken.py`` L88-134; Llama 3): always the pattern of cl100k; a control token in a text is plain
  text; an empty text gets neither BOS nor EOS.
* ``sentencepiece`` (``_sentencepiece.py`` L49-99; Llama 2, Mistral, Phi-3): a control token in a text is plain text; a
  text that goes on behind another is encoded behind a line break, whose tokens are cut off.
* ``qwen2`` (``qwen2/_tokenizer.py`` L150-275): always Qwen2's pattern; only the tokens of its own table are control
  tokens, and they are found after NFC.
* ``huggingface`` (``_hf_tokenizer.py`` L115-136): tokenizer.json as it is; what its post-processor adds is added to
  every piece that is encoded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from lorads.errors import UsageError
from lorads.tokenizers import Ids, Tokenizer
from lorads.tokenizers.files import TokenizerFiles
from lorads.trainers._pieces import Placed, placed_in_line, running

if TYPE_CHECKING:
    from collections.abc import Iterator

Encoder = Literal["tiktoken", "sentencepiece", "qwen2", "huggingface"]

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""``llama3/_tokenizer.py`` L18."""
QWEN2 = CL100K.replace(r"\p{N}{1,3}", r"\p{N}")
"""``qwen2/_tokenizer.py`` L16-19."""
MAX_CHARS, MAX_RUN = 400_000, 25_000
"""``_tiktoken.py`` L13-14: longer texts, and longer runs with or without white space, are cut before encoding."""
_LONG_RUN = re.compile(rf"\s{{{MAX_RUN + 1}}}|\S{{{MAX_RUN + 1}}}")
LINE_BREAK = "\n"
_SP_NAMES = {"<unk>", "<s>", "</s>", "<pad>"}
_PLACEHOLDERS = {f"<|placeholder{i}|>" for i in range(1, 7)}
"""Of Phi-3, whose SentencePiece file has none of its control tokens."""


@dataclass(frozen=True)
class Vocabulary:
    """An encoder over a vocabulary. ``bos_id`` and ``eos_id`` are those that ``encode`` adds."""

    encoder: Encoder
    tokenizer: Tokenizer
    bos_id: int | None
    eos_id: int | None
    translation: npt.NDArray[np.int32] | None = None
    """Where control tokens have other ids than ``tokenizer`` gives them: id to id."""
    ambiguous: tuple[str, ...] = ()
    """Texts of which tokenizer.json does not tell whether SentencePiece takes them for one token."""
    adds_bos: bool = False
    adds_eos: bool = False
    """``hf_adds_bos`` and ``hf_adds_eos``: the post-processor does it."""

    def encode(self, texts: list[str]) -> Ids:
        """The ids of texts that are encoded by themselves, without BOS and EOS (but see ``huggingface``)."""
        if self.encoder == "tiktoken" and any(len(text) > MAX_RUN for text in texts):
            return self._encode_cut(texts)
        ids = self.tokenizer.encode(texts, add_special_tokens=self.encoder == "huggingface")
        return ids if self.translation is None else Ids(self.translation[ids.flat], ids.starts)

    def _encode_cut(self, texts: list[str]) -> Ids:
        parts = [list(cut(text)) for text in texts]
        ids = self.tokenizer.encode([part for one in parts for part in one])
        return Ids(ids.flat, ids.starts[running(np.array([len(one) for one in parts], np.int64))])

    @cached_property
    def line_break(self) -> int:
        """How many tokens a line break has alone: as many are cut off a text that is encoded behind one."""
        return len(self.encode([LINE_BREAK]).flat)

    def of_text(self, text: str, add_eos: bool) -> tuple[list[int], list[int]]:
        """The ids that ``encode(add_bos=True, add_eos=…)`` puts in front of and behind a text."""
        if self.encoder == "tiktoken" and not text:
            return [], []
        front = [self.bos_id] if self.bos_id is not None and not self.adds_bos else []
        behind = [self.eos_id] if add_eos and self.eos_id is not None and not self.adds_eos else []
        return front, behind

    def place(self, text: str, trimmed: bool) -> Placed:
        whole = LINE_BREAK + text if trimmed else text
        special = self.encoder == "huggingface"
        parts = list(cut(whole)) if self.encoder == "tiktoken" else [whole]
        ids = self.tokenizer.encode(parts, add_special_tokens=special)
        places = self.tokenizer.place(parts, ids, add_special_tokens=special)
        begin, end = placed_in_line((len(part), places.of(row)) for row, part in enumerate(parts))
        if not trimmed:
            return begin, end
        first = self.line_break
        return np.maximum(begin[first:] - 1, 0), np.maximum(end[first:] - 1, 0)


def cut(text: str) -> Iterator[str]:
    """``_tiktoken.py`` L63-86, L112-118: the pieces in which tiktoken gets a text. Only very long ones are cut."""
    for first in range(0, len(text), MAX_CHARS):
        part = text[first : first + MAX_CHARS]
        if len(part) <= MAX_RUN or not _LONG_RUN.search(part):
            yield part
            continue
        run, start, blank = 0, 0, part[0].isspace()
        for i, char in enumerate(part):
            if char.isspace() != blank:
                run, blank = 1, not blank
                continue
            run += 1
            if run > MAX_RUN:
                yield part[start:i]
                start, run = i, 1
        yield part[start:]


def vocabulary(encoder: Encoder, tokenizer: Tokenizer, special: Mapping[str, int], names: Sequence[str]) -> Vocabulary:
    """The tokenizer's vocabulary under that encoder.

    ``special`` are the control tokens of the style (for ``qwen2``: those that are found in texts); ``names`` those of
    ``special`` that are BOS and EOS, where the encoder takes them from there. Raises ``UsageError`` where the
    vocabulary is none for the encoder.
    """
    files = tokenizer.files
    model = orjson.loads(files.model)
    if encoder == "huggingface":
        return _huggingface(tokenizer, files, model)
    own = [entry["content"] for entry in model.get("added_tokens") or []]
    made = {"tiktoken": _tiktoken, "sentencepiece": _sentencepiece, "qwen2": _qwen2}[encoder](model, special)
    if made is not None:
        raise UsageError(
            f"torchtune's {encoder} encoder does not fit the tokenizer {tokenizer.name}: {made}",
            "give --trainer-option base_tokenizer=huggingface for a model tokenizer of your own around "
            "HuggingFaceBaseTokenizer, or another tokenizer_style",
        )
    ambiguous: tuple[str, ...] = ()
    if encoder == "sentencepiece":
        # what is not in the vocabulary is not in SentencePiece's file either, and is plain text to it
        known = _SP_NAMES | set(special) | _PLACEHOLDERS
        ambiguous = tuple(token for token in own if token in model["model"]["vocab"] and token not in known)
    edited = tokenizer.with_files(TokenizerFiles(f"{files.name} ({encoder})", files.source, orjson.dumps(model)))
    if encoder == "sentencepiece":
        vocab = model["model"]["vocab"]
        return Vocabulary(encoder, edited, vocab["<s>"], vocab["</s>"], ambiguous=ambiguous)
    bos, eos = (special.get(name) if name else None for name in names)
    return Vocabulary(encoder, edited, bos, eos, _translation(edited, special) if encoder == "qwen2" else None)


def _translation(tokenizer: Tokenizer, special: Mapping[str, int]) -> npt.NDArray[np.int32] | None:
    table = np.arange(tokenizer.vocab_size, dtype=np.int32)
    for name, number in special.items():
        mine = tokenizer.id_of(name)
        assert mine is not None, "the token was added just now"
        table[mine] = number
    return None if (table == np.arange(len(table))).all() else table


def _byte_level(model: dict[str, Any], pattern: str) -> str | None:
    """Make the model split by ``pattern`` and nothing else; why not, where that can't be."""
    if model["model"].get("type") != "BPE" or "ByteLevel" not in orjson.dumps(model.get("pre_tokenizer")).decode():
        return "its vocabulary is no byte-level BPE"
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    model["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    model["post_processor"] = model["truncation"] = model["padding"] = None
    return None


def _tiktoken(model: dict[str, Any], special: Mapping[str, int]) -> str | None:
    wrong = _byte_level(model, CL100K)
    if wrong:
        return wrong
    if not model["model"].get("ignore_merges") and not _in_order(model["model"]):
        return "its merges are not in the order of its ids, by which tiktoken merges"
    model["model"]["ignore_merges"] = True
    model["normalizer"], model["added_tokens"] = None, []
    return None


def _in_order(bpe: dict[str, Any]) -> bool:
    vocab = bpe["vocab"]
    pairs = (merge.split(" ") if isinstance(merge, str) else merge for merge in bpe["merges"])
    ids = np.array([vocab[left + right] for left, right in pairs], np.int64)
    return bool((np.diff(ids) >= 0).all())


def _qwen2(model: dict[str, Any], special: Mapping[str, int]) -> str | None:
    wrong = _byte_level(model, QWEN2)
    if wrong:
        return wrong
    model["model"]["ignore_merges"] = False
    model["normalizer"] = {"type": "NFC"}
    vocab: dict[str, int] = model["model"]["vocab"]
    beyond = max(vocab.values()) + 1
    # Normalized: torchtune looks for them after NFC. Ids that the vocabulary does not have must follow it without gaps.
    model["added_tokens"] = [
        {
            "id": vocab[name] if name in vocab else beyond + i,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": True,
            "special": False,
        }
        for i, name in enumerate(sorted(special, key=lambda name: (name in vocab, special[name])))
    ]
    return None


def _sentencepiece(model: dict[str, Any], special: Mapping[str, int]) -> str | None:
    bpe = model["model"]
    if bpe.get("type") != "BPE" or not bpe.get("byte_fallback") or bpe.get("ignore_merges"):
        return "its vocabulary is no SentencePiece BPE with bytes"
    if not {"<s>", "</s>"} <= bpe["vocab"].keys():
        return "it has no <s> and </s>"
    if not {f"<0x{byte:02X}>" for byte in range(256)} <= bpe["vocab"].keys():
        return "it does not have every byte"
    if not _marks_every_text(model):
        return "it does not put a space in front of every text and nothing else"
    model["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }
    model["pre_tokenizer"] = model["post_processor"] = model["truncation"] = model["padding"] = None
    model["added_tokens"] = []
    bpe["unk_token"] = None  # with every byte there is none, and some engines want it among the added tokens
    return None


def _marks_every_text(model: dict[str, Any]) -> bool:
    """Llama's normalization (identity, with a space in front), as either generation of converters writes it."""
    normalizer, splitter = model.get("normalizer"), model.get("pre_tokenizer")
    if normalizer is None and splitter is not None and splitter.get("type") == "Metaspace":
        return splitter.get("replacement") == "▁" and splitter.get("prepend_scheme", "always") in ("always", "first")
    steps = normalizer.get("normalizers", []) if normalizer else []
    found = [step.get("type") for step in steps]
    return splitter is None and found == ["Prepend", "Replace"] and steps[0].get("prepend") == "▁"


def _huggingface(tokenizer: Tokenizer, files: TokenizerFiles, model: Mapping[str, Any]) -> Vocabulary:
    """``_hf_tokenizer.py`` L33-113: the file as it is; BOS and EOS from tokenizer_config.json, or, where that does not
    name both, from generation_config.json given alone."""
    for part in ("truncation", "padding"):
        if model.get(part) is not None:
            raise UsageError(
                f"tokenizer.json of {tokenizer.name} switches {part} on, which torchtune then does to every piece",
                f'set "{part}" in tokenizer.json to null',
            )
    named = {"bos": _named(files.config, "bos_token"), "eos": _named(files.config, "eos_token")}
    ids: dict[str, int | None] = {}
    plain = tokenizer if tokenizer.recipe()["load_as"] == "file" else tokenizer.with_files(files, in_memory=False)
    for name, token in named.items():
        found = plain.id_of(token) if token is not None and None not in named.values() else None
        given = files.generation_config.get(f"{name}_token_id")
        ids[name] = found if found is not None else given if isinstance(given, int) else None
    if ids["bos"] is None or ids["eos"] is None:
        missing = " and ".join(name.upper() for name, number in ids.items() if number is None)
        raise UsageError(
            f"HuggingFaceBaseTokenizer refuses the tokenizer {tokenizer.name}: its configuration names no {missing}",
            "torchtune wants both bos_token and eos_token in tokenizer_config.json, or their ids in "
            "generation_config.json",
        )
    empty = plain.encode([""], add_special_tokens=True).flat.tolist()
    bos, eos = ids["bos"], ids["eos"]
    return Vocabulary("huggingface", plain, bos, eos, adds_bos=bos in empty, adds_eos=eos in empty)


def _named(config: Mapping[str, Any], key: str) -> str | None:
    token = config.get(key)
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None
