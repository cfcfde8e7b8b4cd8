"""The libraries that turn texts into ids, behind one small interface.

``tokenizers`` is the reference and the only one with offsets. ``fastokens`` encodes some fifty times faster but takes
seconds to load; ``kitoken`` loads a binary form of the tokenizer in milliseconds. Both are used only where their ids
were compared with the reference's and are the same.
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
import tempfile
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from lorads.errors import LoradsError, UsageError
from lorads.tokenizers.ids import Ids

EngineName = Literal["tokenizers", "fastokens", "kitoken"]

_forked_from: dict[str, int] = {}
"""Process in which a library's thread pool was started: the pool's threads don't live on in a fork."""


class EngineMismatch(LoradsError):
    """A fast engine's ids differ from those of ``tokenizers``: start again with ``use_engine("tokenizers")``."""

    def __init__(self, engine: str, excerpt: str) -> None:
        super().__init__(f"{engine} encodes {excerpt!r} otherwise than tokenizers does")
        self.engine = engine
        self.excerpt = excerpt

    def __reduce__(self) -> tuple[type[EngineMismatch], tuple[str, str]]:
        return EngineMismatch, (self.engine, self.excerpt)


class Engine(Protocol):
    """Encodes a batch of texts."""

    name: EngineName

    def encode_flat(self, texts: list[str]) -> Ids:
        """The ids of the texts, without what a post-processor adds."""
        ...

    def encode_one(self, text: str) -> list[int]:
        """The ids of one text, without starting a thread pool."""
        ...


def single_threaded() -> None:
    """Call in a worker process before its first batch: the engines then use one thread each."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["FASTOKENS_BPE_THREADS"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


@cache
def version(engine: EngineName) -> str | None:
    """The installed version of an engine's package, or None when it isn't installed."""
    import importlib.metadata

    try:
        return importlib.metadata.version(engine)
    except importlib.metadata.PackageNotFoundError:
        return None


def flat(rows: list[list[int]]) -> Ids:
    """Lists of ids as one flat array."""
    starts = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(np.fromiter(map(len, rows), dtype=np.int64, count=len(rows)), out=starts[1:])
    return Ids(np.fromiter(chain.from_iterable(rows), dtype=np.int32, count=int(starts[-1])), starts)


def framed(ids: Ids, front: list[int], behind: list[int]) -> Ids:
    """Every row with ``front`` before and ``behind`` after it."""
    if not front and not behind:
        return ids
    count, extra = len(ids.starts) - 1, len(front) + len(behind)
    starts = ids.starts + extra * np.arange(count + 1, dtype=np.int64)
    result = np.empty(int(starts[-1]), dtype=np.int32)
    own = np.ones(len(result), dtype=bool)
    for offset, number in enumerate(front):
        result[starts[:-1] + offset] = number
        own[starts[:-1] + offset] = False
    for offset, number in enumerate(reversed(behind)):
        result[starts[1:] - 1 - offset] = number
        own[starts[1:] - 1 - offset] = False
    result[own] = ids.flat
    return Ids(result, starts)


class TokenizersEngine:
    """The reference, from the bytes of a ``tokenizer.json``. Raises ``UsageError`` when they are no tokenizer."""

    name: EngineName = "tokenizers"

    def __init__(self, model: bytes, what: str) -> None:
        try:
            self._tokenizer: Any = _reference_tokenizer(model)
            self._tokenizer.encode("a 1", add_special_tokens=False)  # some patterns fail at their first use
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of the library is no Exception
            raise UsageError(
                f"{what} is no tokenizer that the tokenizers library {version('tokenizers')} can read: {error}",
                "Is this the file you meant? Another version of tokenizers may know it.",
            ) from None
        # encode_batch_fast leaves out offsets; the 1.0 series has it under the old name.
        self._batch = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        give_back_memory()

    def encode_flat(self, texts: list[str], add_special_tokens: bool = False) -> Ids:
        if _pool_is_lost(self.name):
            return flat([self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids for text in texts])
        return flat([done.ids for done in self._batch(texts, add_special_tokens=add_special_tokens)])

    def encode_one(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def offsets(self, text: str, add_special_tokens: bool) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and character offsets of one text. Raises ``UsageError`` where the installed version has no offsets."""
        encoding = self._tokenizer.encode(text, add_special_tokens=add_special_tokens)
        try:
            return encoding.ids, encoding.offsets
        except AttributeError:
            raise UsageError(
                f"tokenizers {version('tokenizers')} gives no offsets, which this tokenizer needs",
                'Install an older one: pip install "tokenizers<1".',
            ) from None

    def decode(self, ids: list[int]) -> str:
        """The text of ids, special tokens included."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=False))


def _reference_tokenizer(model: bytes) -> Any:
    """The library's own object, without truncation and padding."""
    import tokenizers

    kind: Any = tokenizers.Tokenizer
    if hasattr(kind, "from_buffer"):
        tokenizer = kind.from_buffer(model)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer
    # The 1.0 series reads files alone and has other names for the rest.
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "tokenizer.json")
        file.write_bytes(model)
        tokenizer = kind.from_file(str(file))
    tokenizer.truncation = None
    tokenizer.padding = None
    return tokenizer


class FastokensEngine:
    """``fastokens``, from the same bytes. Raises whatever the library does when it can't take them."""

    name: EngineName = "fastokens"

    def __init__(self, model: bytes) -> None:
        from fastokens import _native

        self._tokenizer: Any = _native.Tokenizer.from_json_str(model.decode("utf-8"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        give_back_memory()

    def encode_flat(self, texts: list[str]) -> Ids:
        if _pool_is_lost(self.name):
            return flat([self._tokenizer.encode(text, False).ids for text in texts])
        ids, starts = self._tokenizer.encode_batch_flat(texts, False)
        numbers: npt.NDArray[np.int32] = np.frombuffer(ids, dtype="<u4").astype(np.int32)
        return Ids(numbers, np.frombuffer(starts, dtype="<u8").astype(np.int64))

    def encode_one(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, False).ids)


class KitokenEngine:
    """``kitoken``, from its own binary form. Raises whatever the library does when it can't take it."""

    name: EngineName = "kitoken"

    def __init__(self, binary: bytes) -> None:
        import kitoken

        self._tokenizer: Any = kitoken.Kitoken(binary)

    @staticmethod
    def compile(model: bytes) -> bytes:
        """The binary form of a ``tokenizer.json``."""
        import kitoken

        return bytes(kitoken.Kitoken.from_tokenizers(model).to_bytes())

    def encode_flat(self, texts: list[str]) -> Ids:
        return flat(self._tokenizer.encode_all(texts, True))

    def encode_one(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, True))


def _pool_is_lost(engine: EngineName) -> bool:
    """Notes that the engine's thread pool is used here; True in a fork of a process that used it before."""
    return _forked_from.setdefault(engine, os.getpid()) != os.getpid()


def give_back_memory() -> None:
    """What building an engine needed and freed goes back to the system, where the C library can do that."""
    if sys.platform != "linux":
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


PROBES: tuple[str, ...] = (
    "",
    " ",
    "\n",
    "\t\t",
    "  \n \r\n\r \n\n\n   ",
    "a",
    " a",
    "a ",
    "   a   b    c     ",
    "Hello, world! It's 5 o'clock; we'll GO, I'M sure they'D'VE gone.",
    "HELLO'S don'T I'LL",
    "0 1 12 123 1234 12345 1234567890 3.14159 1,000,000 0x1F 1e-10 ١٢٣ ④ Ⅷ ²³ ½",
    "def f(x):\n    if x  >= 10:\n\t\treturn x**2  # comment\n\n\n    return {'a': [1, 2, 3]}\n",
    '#include <stdio.h>\nint main() { printf("%d\\n", 1<<2); return 0; }\r\n',
    '<div class="a">&nbsp;&lt;b&gt;</div><!-- x -->',
    "SELECT * FROM t WHERE a='b' AND c<>1;--",
    "https://example.org/a_b-c?d=e%20f#g user@example.com C:\\dir\\file.txt",
    "naïve façade Ångström œuvre ÿ ö ü õ ÷ Á ý À ø ú þ ù û straße ĳ ŉ ǆ",
    "nai\u0308ve fac\u0327ade A\u030angstro\u0308m e\u0301\u0327 \u1e9b\u0323 \u212b \u2126 \uf900",
    "Привет, мир! Ёлка",
    "Γειά σου Κόσμε",
    "مرحبا بالعالم، كيف الحال؟ ـــ",
    "שָׁלוֹם עוֹלָם",
    "नमस्ते दुनिया क्षत्रिय",
    "สวัสดีชาวโลก กำลัง",
    "你好，世界！这是一个测试。「引号」",
    "こんにちは世界、カタカナ ﾊﾝｶｸ ー々〆",
    "안녕하세요 세계 각 \u1100\u1161\u11a8",
    "Xin chào thế giới ệ ở ữ",
    "ქართული Հայերեն አማርኛ ᏣᎳᎩ ᚠᚢᚦ ਪੰਜਾਬੀ தமிழ் မြန်မာ ភាសាខ្មែរ",
    "😀😃 👨‍👩‍👧‍👦 🤷🏽‍♂️ 🇩🇪🇫🇷 ❤️ ☎ 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",
    "∀x∈ℝ: ⌈x⌉ = −⌊−x⌋, α ∧ ¬β → ∑∏∫ √2 ≤ ∞",
    "𝒜𝓁𝓅𝒽𝒶 𐍈 𠜎 𪚥 🀄 \U0001f9ff",
    "a\u00a0b\u2003c\u3000d\u200be\u2028f\u2029g\ufeffh\u00adi\u0085j\u1680k\u202fl",
    "\x00\x01\x1b[31mred\x1b[0m\x7f\x80\x9f",
    "\ufffd \ufffe \uffff \U0010ffff \ue000",
    "―—–‐‑ “quoted” ‘single’ …‼⁉ ‰ § ¶ † ©®™ €£¥₿",
    "_____ ----- ===== ..... !!!!! ????? ##### ///// \\\\\\\\\\ \"\"\"\"\" ''''' ((((()))))",
    "snake_case camelCase PascalCase SCREAMING_CASE kebab-case x1y2z3 ABCdefGHI",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "                                                                                       x",
    "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nx",
    "▁ ▁▁ x▁y <0x0A> Ġ Ċ âĢ",
    "word1\u0301word \u0301 \u200d \ufe0f",
    "Ελλάς ΟΔΥΣΣΕΥΣ İstanbul ıI ǅ ﬃ ﬅ ſ K",
    "end.\n\nStart: - item\n  * sub\n1. one\n2) two\n\n```python\nprint('hi')\n```\n",
)
"""Texts of all kinds on which a fast engine must agree with the reference before it is used."""

PROBE_FRAGMENTS: tuple[str, ...] = (
    *("a", "B", "The", "word", "1", "23", "4567", " ", "  ", "    ", "\n", "\n\n", "\r\n", "\t", "\u00a0", "\u2028"),
    *(
        "'",
        "'s",
        "'t",
        "'re",
        "'VE",
        "'ll",
        ".",
        ",",
        "!",
        "-",
        "_",
        "#",
        "(",
        ")",
        "/",
        '"',
        "=",
        "▁",
        "\x00",
        "\ufeff",
    ),
    *("é", "e\u0301", "\u0327", "ü", "õ", "ß", "ſ", "\u212b", "ﬁ", "я", "क्ष", "٣", "日本", "。", "각", "\u1100", "ก"),
    *("😀", "👨\u200d👩\u200d👧", "🇩🇪", "𝒜", "\u0344", "\U000e0067", "\ufffd"),
)
"""What the mixed probes are put together from: neighbours in all combinations are where the engines differ."""

PROBED_MIXES = 3000
PROBED_TOKENS = 400
"""How many mixed texts, and how many of the added tokens, are tried."""


def probes(added: list[str]) -> list[str]:
    """``PROBES``, ``PROBED_MIXES`` mixed texts, and added tokens alone, doubled, and next to text and spaces."""
    chosen = random.Random(2024)
    tokens = added[:PROBED_TOKENS]
    texts = list(PROBES)
    for _ in range(PROBED_MIXES):
        parts = chosen.choices(PROBE_FRAGMENTS, k=chosen.randrange(1, 12))
        if tokens and chosen.random() < 0.3:
            parts.insert(chosen.randrange(len(parts) + 1), chosen.choice(tokens))
        texts.append("".join(parts))
    for token in tokens:
        texts += [token, f"a{token}b", f" {token} \n{token}{token}  c", f"{token[:-1]} {token[1:]}x"]
    return texts


def agrees(engine: FastokensEngine | KitokenEngine, reference: TokenizersEngine, texts: list[str]) -> bool:
    """Whether both give the same ids for every text. No thread pool is started: this may run before a fork."""
    try:
        return all(engine.encode_one(text) == reference.encode_one(text) for text in texts)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # noqa: BLE001 - the libraries raise errors of many kinds, and panics
        return False
