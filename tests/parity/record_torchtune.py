"""Records what torchtune really builds: ``python tests/parity/record_torchtune.py [--held-out DIR] [--only CASES]``.

Needs an environment of its own with Python 3.11 and ``$LORADS_ASSETS`` for the tokenizers::

    pip install torch==2.13.0                 # CPU is enough
    pip install --no-deps torchtune==0.6.1
    pip install torchao==0.9.0 sentencepiece tiktoken tokenizers datasets regex omegaconf psutil protobuf
    pip install mistral-common pytest

Each cell loads its rows from a JSON lines file with ``alpaca_dataset``, ``instruct_dataset``, ``chat_dataset`` or
``text_completion_dataset``, as a config of torchtune would, and reads the dataset row by row. A row at which it raises
is recorded as dropped, with the exception. Packs are taken apart again by their ``seq_lens``.

The tokenizers are torchtune's own classes. The files that they want are made from ``tokenizer.json``: a SentencePiece
model from its vocabulary and the order of its merges, ``vocab.json`` and ``merges.txt``, tiktoken ranks; for
Mistral it is the genuine ``tokenizer.model.v1`` of mistral-common. ``Llama3Tokenizer`` gets its ``special_tokens`` as
ids of the vocabulary at hand. The ``hf`` variants are model tokenizers as a user has to write them, since torchtune
0.6.1 has none around its ``HuggingFaceBaseTokenizer``: torchtune's class with that encoder inside.

``--held-out DIR`` records rows that the committed recordings don't hold, with the same cases, into another directory.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from parity import recorder, recording, rows
from parity.recorder import ALPACA, CHATS, LONG, ROWS

TARGET = recorder.TRAINERS / "torchtune-0.6.1"
PACKAGES = ("torchtune", "tokenizers", "sentencepiece", "tiktoken", "datasets", "torch", "regex")

LLAMA3_NAMES = ("begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eom_id", "eot_id", "python_tag")
LLAMA3_IDS = {
    "deepseek-coder": dict(zip(LLAMA3_NAMES, (32013, 32014, 32015, 32016, 32017, 32021, 32018), strict=True)),
    "gpt-oss": dict(zip(LLAMA3_NAMES, (199998, 199999, 200006, 200008, 200012, 200007, 200003), strict=True)),
}


@dataclass(frozen=True)
class Variant:
    """A tokenizer class over a vocabulary, and the options by which lorads is told of it."""

    name: str
    tokenizer: str
    make: Callable[[str, Path, int | None, Any], Any]
    options: Sequence[str] = ()
    leaves_out: frozenset[str] = frozenset()
    """Cases that are recorded for other variants alone, to keep the recordings small."""


@dataclass(frozen=True)
class Case:
    """``builder`` is a dataset builder, ``settings`` are its arguments and the tokenizer's ``prompt_template``."""

    name: str
    builder: str
    transformation: str
    sources: Sequence[str] = ALPACA
    variants: Sequence[str] = ()
    """Empty: all of them."""
    max_seq_len: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    rows: int = ROWS
    variant: Variant | None = None
    """The one that it is recorded for: see ``bound``."""

    @property
    def tokenizers(self) -> Sequence[str]:
        return [self.variant.tokenizer] if self.variant else []


# Tokenizers


def model_of(name: str) -> Any:
    return json.loads((recorder.tokenizer_directory(name) / "tokenizer.json").read_text(encoding="utf-8"))


def template_of(wanted: Any) -> Any:
    from torchtune.data._prompt_templates import _get_prompt_template

    return None if wanted in (None, "default") else _get_prompt_template(setting_of(wanted))


def setting_of(template: Any) -> Any:
    """``prompt_template`` as a config of torchtune has it: a dotpath, a mapping of role to tags, or None."""
    if isinstance(template, str) and template.startswith("{"):
        return {role: tuple(tags) for role, tags in json.loads(template).items()}
    return template


def sentencepiece_file(name: str, folder: Path) -> str:
    """A SentencePiece model with the vocabulary of tokenizer.json: pieces score by the order of their ids, runs of
    spaces below everything, as in the files of Llama 2 and Mistral."""
    from sentencepiece import sentencepiece_model_pb2 as proto

    if name == "mistral-v0.1":
        import mistral_common

        return str(Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1")
    made = proto.ModelProto()
    pieces = sorted(model_of(name)["model"]["vocab"].items(), key=lambda item: item[1])
    for text, number in pieces[:32000]:
        piece = made.pieces.add()
        piece.piece, piece.score = text, 0.0
        if number < 3:
            piece.type = 2 if number == 0 else 3
        elif number < 259:
            piece.type = 6
        else:
            piece.type = 1
            piece.score = -1e9 if len(text) > 1 and not text.strip("▁") else -float(number - 259)
    trainer, normalizer = made.trainer_spec, made.normalizer_spec
    trainer.model_type, trainer.byte_fallback, trainer.vocab_size = 2, True, len(made.pieces)
    trainer.unk_id, trainer.bos_id, trainer.eos_id, trainer.pad_id = 0, 1, 2, -1
    normalizer.name, normalizer.add_dummy_prefix = "identity", True
    normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = False, True
    file = folder / "tokenizer.model"
    file.write_bytes(made.SerializeToString())
    return str(file)


def bpe_files(name: str, folder: Path) -> dict[str, str]:
    """``vocab.json`` and ``merges.txt``."""
    model = model_of(name)["model"]
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    vocab.write_text(json.dumps(model["vocab"], ensure_ascii=False), encoding="utf-8")
    lines = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    merges.write_text("\n".join(["#version: 0.2", *lines]) + "\n", encoding="utf-8")
    return {"path": str(vocab), "merges_file": str(merges)}


def tiktoken_file(name: str, folder: Path) -> str:
    """The ranks of a byte-level vocabulary."""
    from torchtune.models.qwen2._tokenizer import bytes_to_unicode

    back = {char: byte for byte, char in bytes_to_unicode().items()}
    file = folder / "tokenizer.model"
    with file.open("wb") as out:
        for token, number in sorted(model_of(name)["model"]["vocab"].items(), key=lambda item: item[1]):
            if all(char in back for char in token):
                out.write(base64.b64encode(bytes(back[char] for char in token)) + f" {number}\n".encode())
    return str(file)


def llama3_ids(name: str) -> dict[str, int]:
    return {f"<|{key}|>": number for key, number in LLAMA3_IDS[name].items()}


def llama3(name: str, folder: Path, limit: int | None, template: Any) -> Any:
    from torchtune.models.llama3._tokenizer import Llama3Tokenizer

    # pad, step and image tokens are looked up, and never written for texts
    others = {f"<|{key}|>": 900000 + i for i, key in enumerate(("finetune_right_pad_id", "step_id", "image"))}
    return Llama3Tokenizer(tiktoken_file(name, folder), {**llama3_ids(name), **others}, limit, template_of(template))


def sentencepiece(builder: str) -> Callable[[str, Path, int | None, Any], Any]:
    def make(name: str, folder: Path, limit: int | None, template: Any) -> Any:
        from torchtune.models.llama2 import llama2_tokenizer
        from torchtune.models.mistral import mistral_tokenizer
        from torchtune.models.phi3 import phi3_mini_tokenizer

        build = {"llama2": llama2_tokenizer, "mistral": mistral_tokenizer, "phi3": phi3_mini_tokenizer}[builder]
        chosen = {} if template == "default" else {"prompt_template": setting_of(template)}
        return build(path=sentencepiece_file(name, folder), max_seq_len=limit, **chosen)

    return make


def qwen(builder: str, named: bool = False) -> Callable[[str, Path, int | None, Any], Any]:
    def make(name: str, folder: Path, limit: int | None, template: Any) -> Any:
        from torchtune.models.qwen2 import qwen2_tokenizer
        from torchtune.models.qwen2_5 import qwen2_5_tokenizer

        build = {"qwen2": qwen2_tokenizer, "qwen2_5": qwen2_5_tokenizer}[builder]
        chosen = None if template == "default" else setting_of(template)
        path = str(recorder.tokenizer_directory(name) / "tokenizer.json") if named else None
        files = bpe_files(name, folder)
        return build(**files, special_tokens_path=path, max_seq_len=limit, prompt_template=chosen)

    return make


def base_of(name: str) -> Any:
    """``HuggingFaceBaseTokenizer``, behind the argument that model tokenizers give and it does not take."""
    from torchtune.modules.transforms.tokenizers import HuggingFaceBaseTokenizer

    class Base(HuggingFaceBaseTokenizer):
        def encode(
            self, text: str, add_bos: bool = True, add_eos: bool = True, trim_leading_whitespace: bool = False
        ) -> list[int]:
            return list(super().encode(text, add_bos=add_bos, add_eos=add_eos))

    folder = recorder.tokenizer_directory(name)
    return Base(str(folder / "tokenizer.json"), tokenizer_config_json_path=str(folder / "tokenizer_config.json"))


def hf_llama2(name: str, folder: Path, limit: int | None, template: Any) -> Any:
    from torchtune.models.llama2 import Llama2Tokenizer

    class Mine(Llama2Tokenizer):
        def __init__(self) -> None:
            self._spm_model = base_of(name)
            self.max_seq_len = limit
            self.prompt_template = template_of(template)

    return Mine()


def hf_llama3(name: str, folder: Path, limit: int | None, template: Any) -> Any:
    from torchtune.models.llama3 import Llama3Tokenizer

    class Mine(Llama3Tokenizer):
        def __init__(self) -> None:
            ids = llama3_ids(name)
            self.tt_model = base_of(name)
            self.bos_id, self.eos_id = ids["<|begin_of_text|>"], ids["<|end_of_text|>"]
            self.start_header_id, self.end_header_id = ids["<|start_header_id|>"], ids["<|end_header_id|>"]
            self.eot_id, self.eom_id, self.python_tag = ids["<|eot_id|>"], ids["<|eom_id|>"], ids["<|python_tag|>"]
            self.max_seq_len = limit
            self.prompt_template = template_of(template)

    return Mine()


CHATS_ONCE = frozenset({"multi-turn", "sharegpt", "sharegpt-edges", "text-long"})
SMALL = CHATS_ONCE | {"alpaca", "instruct", "chat-parts", "chat-all", "text", "text-edges"}
FEWER = SMALL | {
    *("alpaca-answers", "instruct-system", "instruct-all", "chat-new-system", "chat-packed", "text-no-eos"),
    *("text-packed", "llama2-template", "tags", "chatml"),
}


def _options(**options: str) -> list[str]:
    return [part for name, value in options.items() for part in recorder.trainer_option(name, value)]


def _llama3_options(name: str) -> list[str]:
    ids = ",".join(f"{token}={number}" for token, number in llama3_ids(name).items())
    return _options(tokenizer_style="llama3", special_tokens=ids)


VARIANTS = (
    Variant(
        "llama2", "tinyllama", sentencepiece("llama2"), leaves_out=frozenset({"text-long", "sharegpt", "multi-turn"})
    ),
    Variant("mistral", "mistral-v0.1", sentencepiece("mistral"), leaves_out=SMALL),
    Variant("phi3", "phi-3", sentencepiece("phi3"), leaves_out=SMALL - {"chat-parts"}),
    Variant("qwen2_5", "qwen3", qwen("qwen2_5"), leaves_out=frozenset({"sharegpt-edges", "text-long"})),
    Variant("qwen2", "qwen3", qwen("qwen2"), _options(tokenizer_style="qwen2")),
    Variant(
        *("qwen2_5-path", "qwen3", qwen("qwen2_5", named=True)),
        _options(tokenizer_style="qwen2_5", special_tokens_path="true"),
    ),
    Variant("llama3", "deepseek-coder", llama3, _llama3_options("deepseek-coder"), CHATS_ONCE),
    Variant("llama3", "gpt-oss", llama3, _llama3_options("gpt-oss"), FEWER),
    Variant("hf", "deepseek-coder", hf_llama2, leaves_out=CHATS_ONCE),
    Variant("hf", "deepseek-v3", hf_llama2, leaves_out=SMALL | {"tags"}),
    Variant(
        *("hf-llama2", "tinyllama", hf_llama2),
        _options(tokenizer_style="llama2", base_tokenizer="huggingface", prompt_template="null"),
    ),
    Variant(
        *("hf-llama3", "deepseek-coder", hf_llama3),
        [*_llama3_options("deepseek-coder"), *_options(base_tokenizer="huggingface")],
    ),
)
MAIN = ("llama2", "mistral", "phi3", "qwen2_5", "llama3", "hf")
FEW = ("llama2", "qwen2_5", "llama3")
CHATML = "torchtune.data.ChatMLTemplate"
TAGS = '{"user": ["Q: ", "\\nA: "], "system": ["", "\\n"], "assistant": ["", " ##\\n"]}'

CASES = (
    Case("alpaca", "alpaca", "torchtune/alpaca", variants=MAIN),
    Case("alpaca-answers", "alpaca", "torchtune/alpaca", variants=FEW, settings={"train_on_input": False}),
    Case("alpaca-edges", "alpaca", "torchtune/alpaca-edges"),
    Case("alpaca-96", "alpaca", "torchtune/alpaca", variants=MAIN, max_seq_len=96),
    Case("instruct", "instruct", "torchtune/instruct", variants=MAIN),
    Case(
        "instruct-system", "instruct", "torchtune/instruct", variants=FEW, settings={"new_system_prompt": "Be kind. "}
    ),
    Case("instruct-edges", "instruct", "torchtune/instruct-edges", variants=MAIN, max_seq_len=200),
    Case("instruct-all", "instruct", "torchtune/instruct", variants=FEW, settings={"train_on_input": True}),
    Case(
        *("instruct-columns", "instruct", "torchtune/alpaca-edges", ALPACA, ("llama2", "qwen2_5")),
        settings={"column_map": {"input": "instruction", "output": "output"}},
    ),
    Case("chat", "openai", "torchtune/chat"),
    Case("chat-no-system", "openai", "torchtune/chat-no-system", variants=("mistral",)),
    Case("chat-edges", "openai", "torchtune/chat-edges"),
    Case("chat-edges-128", "openai", "torchtune/chat-edges", max_seq_len=128),
    Case("chat-24", "openai", "torchtune/chat", max_seq_len=24, variants=(*MAIN, "qwen2")),
    Case("chat-null", "openai", "torchtune/chat-null", variants=(*FEW, "mistral")),
    Case("chat-parts", "openai", "torchtune/chat-parts", variants=MAIN),
    Case("chat-all", "openai", "torchtune/chat-edges", variants=MAIN, settings={"train_on_input": True}),
    Case(
        "chat-new-system", "openai", "torchtune/chat-edges", variants=FEW, settings={"new_system_prompt": "Be kind. "}
    ),
    Case(
        *("chat-new-system-all", "openai", "torchtune/chat", ALPACA, ("llama2", "qwen2_5")),
        settings={"new_system_prompt": "Be kind.", "train_on_input": True},
    ),
    Case("chat-packed", "openai", "torchtune/chat", variants=FEW, max_seq_len=1024, settings={"packed": True}),
    Case("multi-turn", "openai", "torchtune/multi-turn-system", CHATS, (*FEW, "hf")),
    Case("sharegpt", "sharegpt", "sharegpt", CHATS, MAIN),
    Case("sharegpt-edges", "sharegpt", "torchtune/sharegpt-edges", CHATS, FEW),
    Case("text", "text", "text", variants=MAIN),
    Case("text-long", "text", "text-long", LONG, (*FEW, "hf"), 512),
    Case("text-edges", "text", "torchtune/text-edges"),
    Case("text-64", "text", "torchtune/text-edges", variants=MAIN, max_seq_len=64),
    Case("text-no-eos", "text", "text", variants=FEW, settings={"add_eos": False}),
    Case("text-packed", "text", "text", variants=FEW, max_seq_len=128, settings={"packed": True}),
    Case("no-template", "openai", "torchtune/chat-edges", variants=("llama2", "mistral"), settings={"template": None}),
    Case("no-template-48", "openai", "torchtune/chat-edges", ALPACA, ("llama2",), 48, {"template": None}),
    Case("chatml", "openai", "torchtune/chat-edges", ALPACA, ("llama2", "llama3", "phi3"), 256, {"template": CHATML}),
    Case("tags", "openai", "torchtune/chat-edges", variants=(*FEW, "hf"), settings={"template": TAGS}),
    Case(
        *("question-answer", "openai", "torchtune/chat-edges", ALPACA, ("llama2", "qwen2")),
        settings={"template": "torchtune.data.QuestionAnswerTemplate"},
    ),
    Case(
        *("llama2-template", "openai", "torchtune/chat-edges", ALPACA, ("llama3", "qwen2", "qwen2_5")),
        settings={"template": "torchtune.models.llama2.Llama2ChatTemplate"},
    ),
    Case("edge-repeat", "openai", "torchtune/repeat", ("parity:edges_torchtune.json#repeat",), MAIN),
    Case("edge-chat", "openai", "own", ("parity:edges_torchtune.json#chat",)),
    Case("edge-chat-1", "openai", "own", ("parity:edges_torchtune.json#chat",), max_seq_len=1),
    Case("edge-chat-9", "openai", "own", ("parity:edges_torchtune.json#chat",), max_seq_len=9),
    Case("edge-chat-20", "openai", "own", ("parity:edges_torchtune.json#chat",), max_seq_len=20),
    Case("edge-image", "sharegpt", "own", ("parity:edges_torchtune.json#image",), ("llama2",)),
    Case("edge-text-1", "text", "own", ("parity:edges_torchtune.json#text",), MAIN, 1),
    Case("edge-text-2", "text", "own", ("parity:edges_torchtune.json#text",), MAIN, 2),
)


def bound() -> Iterator[Case]:
    """Every case under each of its tokenizer classes."""
    for variant in VARIANTS:
        for case in CASES:
            if (not case.variants or variant.name in case.variants) and case.name not in variant.leaves_out:
                yield replace(case, name=f"{variant.name}-{case.name}", variant=variant)


# Rows


def arguments(case: Case, variant: Variant) -> list[str]:
    """The options of ``lorads tokenize`` that mean the case."""
    settings = dict(case.settings)
    given = ["--trainer", "torchtune", *variant.options]
    if case.max_seq_len is not None:
        given += ["--max-length", str(case.max_seq_len)]
    if settings.pop("packed", False):
        given.append("--packing")
    if "template" in settings:
        given += recorder.trainer_option("prompt_template", settings.pop("template"))
    if "column_map" in settings:
        columns = ",".join(f"{name}={column}" for name, column in settings.pop("column_map").items())
        given += _options(dataset="instruct", column_map=columns)
    for name, value in settings.items():
        given += recorder.trainer_option(name, value)
    return given


def build(case: Case, tokenizer: Any, data: Path) -> Any:
    from torchtune import datasets

    settings = {name: value for name, value in case.settings.items() if name != "template"}
    common = {"source": "json", "data_files": str(data), "split": "train", "cache_dir": f"{data.parent}/cache"}
    if case.builder == "alpaca":
        return datasets.alpaca_dataset(tokenizer, **common, **settings)
    if case.builder == "instruct":
        columns = {"column_map": {"input": "prompt", "output": "completion"}, **settings}
        return datasets.instruct_dataset(tokenizer, **common, **columns)
    if case.builder == "text":
        return datasets.text_completion_dataset(tokenizer, **common, **settings)
    column = {"openai": "messages", "sharegpt": "conversations"}[case.builder]
    return datasets.chat_dataset(
        tokenizer, **common, conversation_column=column, conversation_style=case.builder, **settings
    )


def unpacked(packs: Any, lengths: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The rows of the packs: ids and labels, in their order. A text that goes on in the next pack is put together
    again. What does not begin a pack, and whose positions do not begin at 0, is padding."""
    ids: list[int] = []
    labels: list[int] = []
    for pack in packs.packs:
        tokens, targets, positions = (pack[key].tolist() for key in ("tokens", "labels", "input_pos"))
        sizes = pack["seq_lens"].tolist()
        end = sum(sizes[:-1])
        if not end or positions[end] == 0:
            end = sum(sizes)
        ids, labels = ids + tokens[:end], labels + targets[:end]
    out, begin = [], 0
    for length in lengths:
        out.append((ids[begin : begin + length], labels[begin : begin + length]))
        begin += length
    assert begin == len(ids), "every token of the packs is one of a row"
    return out


def record(case: Case, name: str, held_out: bool) -> recording.Cell:
    """One cell, through the real library."""
    variant = case.variant
    assert variant is not None, "a case is recorded for a tokenizer class"
    picked = recorder.pick(case, held_out)
    header = recorder.header(
        case,
        trainer="torchtune",
        versions=recorder.versions(PACKAGES),
        tokenizer=recorder.describe_file(name),
        arguments=arguments(case, variant),
        settings={"builder": case.builder, "max_seq_len": case.max_seq_len, **case.settings},
    )
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        data = Path(folder, "train.jsonl")
        rows.write(data, (row for _, _, row in picked))
        try:
            tokenizer = variant.make(name, Path(folder), case.max_seq_len, case.settings.get("template", "default"))
            dataset = build(case, tokenizer, data)
        except Exception as refusal:  # noqa: BLE001 - whatever stops a user is a fact to record
            return recording.Cell({**header, "raises": recorder.said(refusal)})
        if case.settings.get("packed"):
            lengths = [len(row["tokens"]) for row in dataset.ds]
            built = [_figures(ids, labels) for ids, labels in unpacked(dataset, lengths)]
        else:
            built = [_row(dataset, i) for i in range(len(dataset))]
    return recorder.cell(header, picked, built)


def _row(dataset: Any, index: int) -> dict[str, Any]:
    try:
        built = dataset[index]
    except Exception as why:  # noqa: BLE001 - the training stops there, whatever it is
        return {"dropped": True, "why": type(why).__name__}
    return _figures(built["tokens"], built["labels"])


def _figures(tokens: Sequence[Any], targets: Sequence[Any]) -> dict[str, Any]:
    return recorder.figures([int(token) for token in tokens], [int(label) for label in targets])


def main() -> None:
    options = recorder.parser(__doc__).parse_args()
    recorder.quiet()
    # a case may be asked for under all of its classes
    asked = options.only.split(",")
    options.only = ",".join([*asked, *(f"{variant.name}-{name}" for variant in VARIANTS for name in asked)])
    recorder.run(options, TARGET, bound(), record)


if __name__ == "__main__":
    main()
