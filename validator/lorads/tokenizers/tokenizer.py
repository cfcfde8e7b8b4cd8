"""The tokenizer: texts to ids, with the place of each token in its text, by the fastest engine that is exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from lorads import cache
from lorads.tokenizers import compiled, engines, pieces, spans, templates
from lorads.tokenizers.compiled import Compiled, LoadAs
from lorads.tokenizers.engines import (
    Engine,
    EngineMismatch,
    EngineName,
    FastokensEngine,
    KitokenEngine,
    TokenizersEngine,
)
from lorads.tokenizers.files import TokenizerFiles, find
from lorads.tokenizers.ids import Ids, Spans
from lorads.tokenizers.spans import Places

FAST_FROM_BYTES = 13_000_000
"""From here on fastokens' speed is worth its loading time."""
REFERENCE_UP_TO_BYTES = 3_000_000
"""Up to here loading fastokens takes longer than encoding with the reference."""
CHECK_FROM_BYTES = 4_000_000
"""A process that encodes less than this trusts the comparison made before the engine was first used."""
CHECK_ONE_IN = 800
CHECK_TOGETHER = 16
"""Rows that are compared at a time: one by one the reference finds its tables cold, and takes three times as long."""
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_SHARE = 1 << 32

_NO_LIMIT = 10**9
"""transformers writes 10**30 as model_max_length when there is no limit."""


class Tokenizer:
    """A tokenizer, as the trainers' libraries build it.

    Attributes:
        name: what the user called it.
        source: where it came from: ``shipped``, a path, or ``hub id@commit``.
        sha256: of tokenizer.json, unpacked.
        vocab_size: how many ids it can produce (the highest id and one).
        embedding_rows: how many the model has room for (``vocab_size`` of config.json), where known.
        model_max_length: in tokens, where the configuration names a limit.
        chat_template: the Jinja text to render with, None when there is none.
        chat_templates: all templates of the tokenizer by name (``default``, ``tool_use`` …).
        truncation_side: which end transformers cuts off a text that is too long, ``right`` or ``left``.
        model_input_names: what transformers gives for a text: ``input_ids``, ``attention_mask`` …
        added_around: how many tokens the post-processor adds in front of a text and behind it; None where that isn't
            known.
        model_config: the scalar facts of config.json (``model_type``, ``max_position_embeddings``, ``torch_dtype`` …).
        special: the special tokens, and where the files contradict each other.
        notes: what a user should know about how it was loaded, one sentence each.
        absorbing: added tokens that take the white space beside them.
        byte_lengths: how many bytes of text stand behind each id, int32 of shape (vocab_size,); None where that isn't
            known.
    """

    def __init__(
        self,
        files: TokenizerFiles,
        load_as: LoadAs = "transformers",
        chat_template: str | None = None,
        *,
        in_memory: bool = False,
    ) -> None:
        """``in_memory``: the files were made here, and can't be read again from where they came from."""
        self.name = files.name
        self.source = files.source
        self.chat_templates = templates.named(files)
        self.chat_template = templates.select(self.chat_templates, chat_template)
        self.model_config = {
            key: value for key, value in files.model_config.items() if isinstance(value, (str, int, float, bool))
        }
        self._files = files
        self._in_memory = in_memory
        self._load_as = load_as
        self._wanted_template = chat_template
        self._key = compiled.key(files, load_as)
        self._reference: TokenizersEngine | None = None
        self._model: bytes | None = None
        known = compiled.read(self._key)
        if known is None:
            known, self._model, self._reference = compiled.make(files, load_as)
            compiled.write(self._key, known)
        elif not known.edited:
            self._model = files.model
        self._compiled = known
        self.sha256 = known.sha256
        self.vocab_size = known.size
        self.embedding_rows = _embedding_rows(files.model_config)
        self.model_max_length = _limit(files.config.get("model_max_length"))
        self.truncation_side = "left" if files.config.get("truncation_side") == "left" else "right"
        self.model_input_names = _input_names(files.config.get("model_input_names"))
        self.special = known.special
        self.notes = list(known.notes)
        self.absorbing = frozenset(known.absorbing)
        self.byte_lengths = known.byte_lengths
        post = known.post
        self.added_around = None if post is None else (len(post[0]), len(post[1]))
        self._lengths = _known_lengths(known)
        self._engine: Engine | None = None
        self._may_switch = False
        self._encoded_bytes = 0
        self._unchecked: list[tuple[str, npt.NDArray[np.int32]]] = []
        self._tokens: list[str | None] | None = None
        self._ids: dict[str, int] | None = None

    @property
    def engine_name(self) -> EngineName:
        """The engine in use, chosen now if none was."""
        return self._running().name

    # Encoding

    def encode(self, texts: list[str], add_special_tokens: bool = False) -> Ids:
        """The ids of the texts.

        ``add_special_tokens`` lets the post-processor add what it adds (BOS, mostly). Raises ``EngineMismatch`` when a
        fast engine is found to differ from the reference.
        """
        post = self._compiled.post
        if add_special_tokens and post is None:
            return self._load_reference().encode_flat(texts, add_special_tokens=True)
        engine = self._running()
        ids = engine.encode_flat(texts)
        if engine.name != "tokenizers":
            self._watch(engine.name, texts, ids)
        return engines.framed(ids, *post) if add_special_tokens and post is not None else ids

    def place(self, texts: list[str], ids: Ids, add_special_tokens: bool = False) -> Places:
        """Where the tokens that ``encode`` gave stand in their texts; nothing is worked out before it is asked for."""
        post = self._compiled.post if add_special_tokens else ([], [])

        def reference(row: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
            return self._placed_by_reference(texts[row], ids.row(row), add_special_tokens)

        front, behind = (0, 0) if post is None else (len(post[0]), len(post[1]))
        return Places(texts, ids, front, behind, None if post is None else self._lengths, reference)

    def encode_with_spans(self, texts: list[str], add_special_tokens: bool = False) -> tuple[Ids, Spans]:
        """The ids, and which characters of its text each token stands for: spaces at its edges belong to it."""
        ids = self.encode(texts, add_special_tokens)
        return ids, self.place(texts, ids, add_special_tokens).spans()

    def _placed_by_reference(
        self, text: str, ids: npt.NDArray[np.int32], add_special_tokens: bool
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        numbers, offsets = self._load_reference().offsets(text, add_special_tokens)
        if numbers != ids.tolist():
            raise self._mismatch(self._running().name, text)
        pairs = np.array(offsets, dtype=np.int64).reshape(-1, 2)
        behind = len(self._compiled.post[1]) if add_special_tokens and self._compiled.post else 0
        if behind:
            pairs[-behind:] = len(text)
        return pairs[:, 0], pairs[:, 1]

    # Engines

    def choose_engine(self, total_bytes: int | None = None) -> EngineName:
        """Choose by how much there is to encode (bytes; None: not known), and load it.

        Call it before forking workers, so that they share what was loaded.
        """
        self._may_switch = total_bytes is None
        for name in _preference(total_bytes):
            engine = self._load(name)
            if engine is not None:
                self._engine = engine
                break
        if total_bytes is not None and total_bytes >= CHECK_FROM_BYTES:
            self._load_reference()
            # all engines that a large input needs are there: what they were made from need not stay in memory
            self._model = None
            if not self._in_memory:
                self._files = replace(self._files, model=b"")
            engines.give_back_memory()
        return self._running().name

    def use_engine(self, name: EngineName) -> None:
        """Use this engine from now on. Raises ``EngineMismatch`` when it isn't installed or not exact."""
        engine = self._load(name)
        if engine is None:
            raise EngineMismatch(name, self.name)
        self._engine, self._may_switch = engine, False

    def _running(self) -> Engine:
        if self._engine is None:
            self.choose_engine(None)
        elif self._may_switch and self._encoded_bytes >= FAST_FROM_BYTES:
            self.choose_engine(self._encoded_bytes)
        assert self._engine is not None
        return self._engine

    def _load(self, name: EngineName) -> Engine | None:
        """The engine, or None when it isn't installed or its ids aren't those of the reference."""
        if self._engine is not None and self._engine.name == name:
            return self._engine
        if name == "tokenizers":
            return self._load_reference()
        if engines.version(name) is None:
            return None
        verdict = cache.read("tokenizers", self._verdict_file(name))
        if verdict == b"differs":
            return None
        engine: FastokensEngine | KitokenEngine
        try:
            engine = FastokensEngine(self._model_bytes()) if name == "fastokens" else self._load_kitoken()
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001 - the libraries refuse tokenizers in many ways, by panics too
            cache.write(b"differs", "tokenizers", self._verdict_file(name))
            return None
        if verdict != b"same":
            same = engines.agrees(engine, self._load_reference(), engines.probes(list(self.special.added)))
            cache.write(b"same" if same else b"differs", "tokenizers", self._verdict_file(name))
            if not same:
                return None
        return engine

    def _load_kitoken(self) -> KitokenEngine:
        file = f"{self._key}.kitoken-{engines.version('kitoken')}"
        stored = cache.unsealed(cache.read("tokenizers", file))
        if stored is not None:
            return KitokenEngine(stored)
        binary = KitokenEngine.compile(self._model_bytes())
        cache.write(cache.sealed(binary), "tokenizers", file)
        return KitokenEngine(binary)

    def _load_reference(self) -> TokenizersEngine:
        if self._reference is None:
            self._reference = TokenizersEngine(self._model_bytes(), self.source)
        return self._reference

    def _model_bytes(self) -> bytes:
        if self._model is None:
            self._model = orjson.dumps(compiled.edit(self.files, self._load_as)[0])
        return self._model

    # The files, and tokenizers made of changed ones

    @property
    def files(self) -> TokenizerFiles:
        """The files as they were found, tokenizer.json read again where it was let go of."""
        if not self._files.model:
            self._files = find(self.name, self._files.revision)
        return self._files

    def model(self) -> dict[str, Any]:
        """tokenizer.json as it is loaded; a copy."""
        return dict(orjson.loads(self._model_bytes()))

    def with_files(self, files: TokenizerFiles, *, in_memory: bool = True) -> Tokenizer:
        """A tokenizer of other files, taken exactly as they are; its engine is chosen as this one's was."""
        made = Tokenizer(files, "file", in_memory=in_memory)
        if self._engine is not None and self._engine.name == "tokenizers":
            made.use_engine("tokenizers")
        elif self._engine is not None:
            made.choose_engine(FAST_FROM_BYTES if self._engine.name == "fastokens" else None)
        return made

    def reference_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character offsets as ``tokenizers`` gives them, without special tokens."""
        return self._load_reference().offsets(text, False)

    def _verdict_file(self, name: EngineName) -> str:
        return f"{self._key}.{name}-{engines.version(name)}-{engines.version('tokenizers')}.verdict"

    # Watching a fast engine

    def _watch(self, name: EngineName, texts: list[str], ids: Ids) -> None:
        """Compare one row in ``CHECK_ONE_IN``, once the process encodes enough to pay for it.

        Which rows follows from their length and middle token alone: cheap, and the same however they are batched.
        """
        lengths = np.fromiter(map(len, texts), np.uint64, len(texts))
        self._encoded_bytes += int(lengths.sum())
        middles = (ids.starts[:-1] + ids.starts[1:]) >> 1
        if len(ids.flat):
            lengths += ids.flat.take(middles, mode="clip").astype(np.uint64) << np.uint64(32)
        spread = lengths * _SPREAD >> np.uint64(32)
        for row in np.flatnonzero(spread < _SHARE // CHECK_ONE_IN).tolist():
            self._unchecked.append((texts[row], ids.row(row).copy()))
        if self._encoded_bytes < CHECK_FROM_BYTES or len(self._unchecked) < CHECK_TOGETHER:
            return
        reference = self._load_reference()
        waiting, self._unchecked = self._unchecked, []
        for text, numbers in waiting:
            if reference.encode_one(text) != numbers.tolist():
                raise self._mismatch(name, text)

    def _mismatch(self, name: EngineName, text: str) -> EngineMismatch:
        """The error to raise; the engine isn't used again for this tokenizer, in no process."""
        cache.write(b"differs", "tokenizers", self._verdict_file(name))
        return EngineMismatch(name, text[:80])

    # Tokens

    def token(self, number: int) -> str:
        """The token as the vocabulary spells it. Raises ``KeyError`` for an id that no token has."""
        tokens = self._token_table()
        token = tokens[number] if 0 <= number < len(tokens) else None
        if token is None:
            raise KeyError(number)
        return token

    def token_text(self, number: int) -> str:
        """What the token decodes to alone; bytes that are no whole character as ``\\xNN``, added tokens as they are."""
        token = self.token(number)
        if token in self.special.added:
            return token
        return self._token_bytes(token).decode("utf-8", "backslashreplace")

    def _token_bytes(self, token: str) -> bytes:
        if self._compiled.kind == "byte-level":
            return pieces.byte_level_bytes(token)
        if self._compiled.kind == "sentencepiece":
            return pieces.sentencepiece_bytes(token)
        return token.encode("utf-8", "replace")

    def id_of(self, token: str) -> int | None:
        """The id of a token, or None."""
        if self._ids is None:
            self._ids = {text: number for number, text in enumerate(self._token_table()) if text is not None}
        return self._ids.get(token)

    def decode(self, numbers: list[int]) -> str:
        """The text of ids, special tokens included. Raises ``KeyError`` for an id that no token has."""
        if self._compiled.kind == "byte-level":
            parts = [pieces.byte_level_bytes(self.token(number)) for number in numbers]
            return b"".join(parts).decode("utf-8", "replace")
        for number in numbers:
            self.token(number)
        return self._load_reference().decode(numbers)

    def _token_table(self) -> list[str | None]:
        if self._tokens is None:
            file = f"{self._key}.tokens"
            stored = cache.unsealed(cache.read("tokenizers", file))
            if stored is not None:
                self._tokens = orjson.loads(stored)
            else:
                self._tokens = self._read_tokens()
                cache.write(cache.sealed(orjson.dumps(self._tokens)), "tokenizers", file)
        return self._tokens

    def _read_tokens(self) -> list[str | None]:
        model = compiled.edit(self.files, self._load_as)[0]
        tokens: list[str | None] = [None] * self.vocab_size
        for token, number in pieces.vocabulary(model).items():
            tokens[number] = token
        for entry in model.get("added_tokens") or []:
            tokens[entry["id"]] = entry["content"]
        return tokens

    # Other processes

    def recipe(self) -> dict[str, Any]:
        """What another process needs to load the same tokenizer: small, picklable, JSON."""
        return {
            "name": self.name,
            "revision": self._files.revision,
            "chat_template": self._wanted_template,
            "load_as": self._load_as,
            "engine": self._engine.name if self._engine is not None else None,
        }

    @classmethod
    def from_recipe(cls, recipe: dict[str, Any]) -> Tokenizer:
        """The tokenizer a recipe was made from."""
        tokenizer = load(
            recipe["name"],
            chat_template=recipe["chat_template"],
            revision=recipe["revision"],
            load_as=recipe["load_as"],
        )
        if recipe["engine"] is not None:
            tokenizer.use_engine(recipe["engine"])
        return tokenizer

    def __reduce__(self) -> tuple[Any, tuple[dict[str, Any]]]:
        return Tokenizer.from_recipe, (self.recipe(),)


def load(
    name: str,
    *,
    chat_template: str | None = None,
    revision: str | None = None,
    load_as: LoadAs = "transformers",
) -> Tokenizer:
    """The tokenizer that ``name`` means: an alias, a directory, a tokenizer.json, a .gguf file or a hub id.

    ``chat_template``: None for the tokenizer's own, the name of one of its templates, a file, or ``none``. ``revision``
    counts for hub ids. ``load_as="transformers"`` gives the ids that ``AutoTokenizer`` of transformers 5.23 gives,
    ``"file"`` exactly those of tokenizer.json. Raises ``UsageError`` when there is no such tokenizer.
    """
    return Tokenizer(find(name, revision), load_as, chat_template)


def _preference(total_bytes: int | None) -> tuple[EngineName, ...]:
    if total_bytes is not None and total_bytes >= FAST_FROM_BYTES:
        return "fastokens", "kitoken", "tokenizers"
    if total_bytes is not None and total_bytes >= REFERENCE_UP_TO_BYTES:
        return "kitoken", "fastokens", "tokenizers"
    return "kitoken", "tokenizers"


def _input_names(given: Any) -> tuple[str, ...]:
    if isinstance(given, list) and given:
        return tuple(map(str, given))
    return "input_ids", "attention_mask"


def _embedding_rows(config: dict[str, Any]) -> int | None:
    """``vocab_size`` of config.json; models that also see or hear keep it one level deeper."""
    for place in (config, config.get("text_config"), config.get("llm_config")):
        rows = place.get("vocab_size") if isinstance(place, dict) else None
        if isinstance(rows, int):
            return rows
    return None


def _limit(value: Any) -> int | None:
    return int(value) if isinstance(value, (int, float)) and 0 < value < _NO_LIMIT else None


def _known_lengths(compiled: Compiled) -> spans.Lengths | None:
    if compiled.byte_lengths is None:
        return None
    added = np.zeros(compiled.size, dtype=bool)
    added[list(compiled.special.added.values())] = True
    absorbing = None
    if compiled.absorbing:
        absorbing = np.zeros(compiled.size, dtype=bool)
        absorbing[compiled.absorbing] = True
    return spans.Lengths(
        byte_lengths=compiled.byte_lengths,
        absorbing=absorbing,
        added=added,
        prefix=compiled.prefix,
        nfc=compiled.nfc,
        marked_space=compiled.kind == "sentencepiece",
    )
