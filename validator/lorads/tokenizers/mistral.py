"""Reads the vocabularies of mistral-common and writes them as a ``tokenizer.json``.

SentencePiece models (``tokenizer.model``, ``….model.v1`` to ``….model.v7m1``, BPE with byte fallback) and tekken files
(``tekken_….json``, byte-level BPE). mistral-common 1.5.4 never looks for control tokens in a text: ``[INST]`` typed
into a message is letters to it (``tokens/tokenizers/{sentencepiece,tekken}.py``, ``encode``). So control tokens are
tokens of the vocabulary that no merge leads to, and none is an added token. Neither a dataset's text nor a chat
template can hold one; who builds rows with such a tokenizer puts them in by their ids.

The ids are those of mistral-common, but for two things. From v3 on the vocabularies hold pieces such as
``[REFERENCE_DOC_0]`` that are tokens wherever they stand in a text; the name of a control token that fills the text
between two of them, or behind one to the end, becomes that token here. And tekken files are cut by patterns over
classes of characters: those that are new in Unicode 16 depend on the version of tiktoken.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import struct
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson

from lorads import cache
from lorads.errors import UsageError
from lorads.tokenizers.gguf import bpe_model, byte_level_file, sentencepiece_file
from lorads.tokenizers.pieces import byte_of_char

VERSION_KEY = "mistral_tokenizer_version"
"""Where the version (``v1``, ``v3`` …) stands in the model's facts."""

_SENTENCEPIECE = re.compile(r"\.model(?:\.(v\d+)(?:m\d+)?)?\Z")
_FORMAT = 1
"""Counts up when another tokenizer.json is made of the same file."""

_NORMAL, _UNKNOWN, _USER_DEFINED, _BYTE = 1, 2, 4, 6  # types of SentencePiece pieces; 3 is control
_BPE = 2  # SentencePiece's model type

_TEKKEN_SPECIAL = (
    *("<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]"),
    *("[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]"),
    *("[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]"),
)
"""The first ids of a tekken file that does not list its special tokens (``tekken.py``, ``SPECIAL_TOKENS``)."""


def recognises(path: Path) -> bool:
    """Whether mistral-common would take the file, which it tells by the name."""
    return _SENTENCEPIECE.search(path.name) is not None or ("tekken" in path.name and path.suffix == ".json")


def to_tokenizer(path: Path, content: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """A file of mistral-common: facts about the model, ``tokenizer_config.json`` and ``tokenizer.json``.

    Raises ``UsageError`` for a file that is none, or that can't be made one with the same ids.
    """
    named = _SENTENCEPIECE.search(path.name)
    key = f"{hashlib.sha256(content).hexdigest()[:32]}-{_FORMAT}.mistral"
    model = cache.unsealed(cache.read("tokenizers", key))
    config = {"tokenizer_class": "MistralCommonBackend", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    version = named[1] or "v1" if named else None
    if model is None or version is None:
        try:
            made, said = (_sentencepiece(content), version) if named else _tekken(content)
        except (ValueError, KeyError, TypeError, IndexError, struct.error) as why:
            raise UsageError(f"{path} is no tokenizer of mistral-common that lorads can read: {why}") from None
        model, version = orjson.dumps(made), said
        cache.write(cache.sealed(model), "tokenizers", key)
    if named is None:
        config["pad_token"] = "<pad>"
    return {VERSION_KEY: version}, config, model


# SentencePiece


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Numbers and values of a protocol buffer's fields."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _varint(message, position)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, position = _varint(message, position)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("it is no protocol buffer")
        if position + size > len(message):
            raise ValueError("it is cut short")
        yield tag >> 3, message[position : position + size]
        position += size


def _varint(message: bytes, position: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, position
        shift += 7
        if shift > 63:
            raise ValueError("it is no protocol buffer")


def _sentencepiece(content: bytes) -> dict[str, Any]:
    """``sentencepiece_model.proto``: 1 the pieces (1 text, 2 score, 3 type), 2 the trainer's and 3 the normalizer's
    settings."""
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for number, value in _fields(content):
        if number == 1:
            piece = dict(_fields(value))
            (score,) = struct.unpack("<f", piece.get(2, b"\0\0\0\0"))
            pieces.append((piece[1].decode(), score, piece.get(3, _NORMAL)))
        elif number == 2:
            trainer = dict(_fields(value))
        elif number == 3:
            normalizer = dict(_fields(value))
    if not pieces:
        raise ValueError("it holds no pieces")
    plain = not normalizer.get(2) and normalizer.get(3, 1) and not normalizer.get(4, 1) and normalizer.get(5, 1)
    if trainer.get(3) != _BPE or not trainer.get(35) or trainer.get(24) or not plain:
        raise ValueError("it is not the kind of SentencePiece model that Mistral uses (BPE, byte fallback, identity)")
    vocab = {piece: index for index, (piece, _, _) in enumerate(pieces)}
    if len(vocab) != len(pieces):
        raise ValueError("it holds a piece twice")
    if any(kind not in (_NORMAL, _UNKNOWN, 3, _USER_DEFINED, _BYTE) for _, _, kind in pieces):
        raise ValueError("it holds unused pieces")
    unknown = next((piece for piece, _, kind in pieces if kind == _UNKNOWN), None)
    whole = sorted((piece for piece, _, kind in pieces if kind == _USER_DEFINED), key=len, reverse=True)
    merges = _ranked([(piece, score) for piece, score, kind in pieces if kind == _NORMAL], vocab)
    model = bpe_model(vocab, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    # A user-defined piece is cut out of the text before anything merges, and is a token as it is.
    cut = {"type": "Split", "pattern": {"Regex": "|".join(map(re.escape, whole))}, "behavior": "Isolated"}
    model["ignore_merges"] = bool(whole)
    return sentencepiece_file(
        model,
        pre_tokenizer=cut | {"invert": False} if whole else None,
        post_processor=_bos_in_front(vocab),
    )


def _ranked(pieces: list[tuple[str, float]], vocab: dict[str, int]) -> list[list[str]]:
    """The merges in the order in which SentencePiece does them: by score, and from the left among equal scores.

    Merges have an order among pieces, not places, so equal scores of different pieces are only possible for runs of
    spaces: there the run that is longest already grows first, which is the leftmost. Raises ``ValueError`` for others.
    """
    normal = {piece for piece, _ in pieces}
    merges: list[list[str]] = []
    for _, group in groupby(sorted(pieces, key=lambda piece: -piece[1]), key=lambda piece: piece[1]):
        tied = [piece for piece, _ in group]
        found = [
            [piece[:cut], piece[cut:]]
            for piece in tied
            for cut in range(1, len(piece))
            if piece[:cut] in normal and piece[cut:] in normal
        ]
        if len(tied) > 1:
            if any(piece.strip("▁") for piece in tied if len(piece) > 1):
                raise ValueError("pieces that are no runs of spaces have the same score")
            found.sort(key=lambda merge: (-len(merge[0]), len(merge[1])))
        else:
            found.sort(key=lambda merge: (vocab[merge[0]], vocab[merge[1]]))
        merges += found
    return merges


def _bos_in_front(vocab: dict[str, int]) -> dict[str, Any]:
    bos = "<s>"
    front = {"SpecialToken": {"id": bos, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": number}} for number, name in enumerate("AB"))
    return {
        "type": "TemplateProcessing",
        "single": [front, first],
        "pair": [front, first, second],
        "special_tokens": {bos: {"id": bos, "ids": [vocab[bos]], "tokens": [bos]}},
    }


# Tekken


def _tekken(content: bytes) -> tuple[dict[str, Any], str]:
    """``tekken.py``: special tokens first, then the vocabulary by rank, as far as ``default_vocab_size`` goes."""
    told = orjson.loads(content)
    config = told["config"]
    count = int(config["default_num_special_tokens"])
    listed = told.get("special_tokens")
    names = list(_TEKKEN_SPECIAL) if listed is None else [token["token_str"] for token in listed]
    names += [f"<SPECIAL_{index}>" for index in range(len(names), count)]
    spell = {byte: char for char, byte in byte_of_char().items()}
    vocab = {name: index for index, name in enumerate(names)}
    size = int(config["default_vocab_size"]) - count
    tokens: list[str] = []
    for rank, entry in enumerate(told["vocab"][:size]):
        if entry["rank"] != rank:
            raise ValueError("its ranks are out of order")
        try:
            tokens.append("".join(map(spell.__getitem__, base64.b64decode(entry["token_bytes"], validate=True))))
        except binascii.Error:
            raise ValueError(f"token {rank} is no base64") from None
    for rank, token in enumerate(tokens):
        if token in vocab:
            raise ValueError(f"the token {token!r} is there twice")
        vocab[token] = rank + count
    if len(names) != count or len(vocab) != size + count:
        raise ValueError("it does not hold as many tokens as it says")
    normal = set(tokens)
    merges = [
        [token[:cut], token[cut:]]
        for token in tokens
        for cut in range(1, len(token))
        if token[:cut] in normal and token[cut:] in normal
    ]
    split = {"type": "Split", "pattern": {"Regex": config["pattern"]}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    made = byte_level_file(
        bpe_model(vocab, merges, ignore_merges=True),
        pre_tokenizer={"type": "Sequence", "pretokenizers": [split, byte_level]},
        post_processor=_bos_in_front(vocab),
    )
    return made, str(config["version"])
