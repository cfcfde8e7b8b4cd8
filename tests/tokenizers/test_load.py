"""From a name to a tokenizer: what is found, what is refused, with which words."""

from __future__ import annotations

import gzip
import json
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lorads.tokenizers.files as files_module
from lorads.errors import UsageError
from lorads.tokenizers import EngineMismatch, Tokenizer, load
from lorads.tokenizers.files import aliases, find, fingerprint
from tokenizer_examples import added, byte_level, write

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {"bos_token": "<s>", "eos_token": {"content": "<|end|>"}, "model_max_length": 1e30}
    return write(tmp_path / "mine", tokenizer=byte_level(), tokenizer_config=config, config={"vocab_size": 512})


def refused(name: str, **options: Any) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load(name, **options)
    assert caught.value.message == str(caught.value)
    assert "\n" not in caught.value.message
    return caught.value


def test_directory(folder: Path) -> None:
    loaded = load(str(folder))
    assert (loaded.name, loaded.source) == (str(folder), str(folder))
    assert (loaded.special.bos, loaded.special.eos) == ("<s>", "<|end|>")
    assert (loaded.embedding_rows, loaded.model_max_length, loaded.chat_template) == (512, None, None)
    assert loaded.decode(loaded.encode(["hello Wörld<s>"]).flat.tolist()) == "hello Wörld<s>"


def test_file_and_its_neighbours(folder: Path) -> None:
    assert load(str(folder / "tokenizer.json")).special.eos == "<|end|>"


@pytest.mark.parametrize("as_file", [False, True])
def test_gzipped(folder: Path, as_file: bool) -> None:
    plain = load(str(folder))
    file = folder / "tokenizer.json"
    packed = folder / "tokenizer.json.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    file.unlink()
    assert load(str(packed if as_file else folder)).sha256 == plain.sha256


def test_alias_ignores_case() -> None:
    assert load("DeepSeek-Coder").source == "shipped"


def test_aliases_are_hub_ids() -> None:
    assert all(target == "shipped" or target.count("/") == 1 for target in aliases().values())
    assert next(iter(aliases())) == "deepseek-coder"


@pytest.mark.parametrize(
    ("name", "near"),
    [("deepsek-coder", "deepseek-coder"), ("qwen-3", "qwen3"), ("llama3.1", "llama-3.1"), ("./gemma2", "gemma-2")],
)
def test_unknown_names_the_nearest(name: str, near: str) -> None:
    error = refused(name)
    assert name in error.message
    assert near in error.hint.split("Aliases:")[0]
    assert "hub id" in error.hint


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b", "no/such/path", "../nowhere", "file.json"])
def test_unknown_without_a_neighbour(name: str) -> None:
    assert "Give an alias" in refused(name).hint


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff\xfe\x00", "no JSON"),
        (b"[1, 2]", "no JSON object"),
        (b'"text"', "no JSON object"),
        (b"{}", "no tokenizer"),
        (b'{"model": null}', "no tokenizer"),
        (b'{"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}}', "no tokenizer"),
        (b'{"model": {"type": "Magic", "vocab": {}, "merges": []}}', "no tokenizer"),
        (b'{"rows": [{"messages": []}]}', "no tokenizer"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a":' * 100_000, "no JSON"),
        (b"\x1f\x8b\x08\x00broken", "gzip"),
        (gzip.compress(b"{}" * 1000)[:-20], "cut short"),
    ],
)
def test_no_tokenizer(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    error = refused(str(tmp_path))
    assert words in error.message
    assert "tokenizer.json" in error.message


def test_vocabulary_with_a_huge_id(tmp_path: Path) -> None:
    model = byte_level()
    model["model"]["vocab"]["zz"] = 4_000_000_000
    assert "no tokenizer is that large" in refused(str(write(tmp_path, tokenizer=model))).message


@pytest.mark.parametrize("packed", [False, True])
def test_too_large(packed: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "MAX_BYTES", 1024**2)
    content = b" " * (1024**2 + 1)
    (folder / "tokenizer.json").write_bytes(gzip.compress(content) if packed else content)
    assert "larger than 1 MB" in refused(str(folder)).message


def test_broken_neighbours(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text("{oops", encoding="utf-8")
    assert "tokenizer_config.json is no JSON" in refused(str(folder)).message
    (folder / "tokenizer_config.json").unlink()
    (folder / "chat_template.jinja").write_bytes(b"\xff")
    assert "chat_template.jinja is not UTF-8" in refused(str(folder)).message


def test_directory_without_a_tokenizer(tmp_path: Path) -> None:
    assert "holds no tokenizer.json" in refused(str(tmp_path)).message
    (tmp_path / "model.gguf").touch()
    assert "model.gguf" in refused(str(tmp_path)).hint


def test_no_permission(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "can't be read: Permission denied" in refused(str(folder)).message


# Chat templates


def test_template_file_wins(folder: Path) -> None:
    write(folder, tokenizer_config={"chat_template": "from the configuration"})
    assert load(str(folder)).chat_template == "from the configuration"
    (folder / "chat_template.jinja").write_text("from the file", encoding="utf-8")
    more = folder / "additional_chat_templates"
    more.mkdir()
    (more / "tool_use.jinja").write_text("with tools", encoding="utf-8")
    loaded = load(str(folder))
    assert loaded.chat_template == "from the file"
    assert loaded.chat_templates == {"default": "from the file", "tool_use": "with tools"}


@pytest.mark.parametrize(
    "given",
    [
        {"default": "d", "tool_use": "t"},
        [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}],
    ],
)
def test_named_templates(given: Any, folder: Path, tmp_path: Path) -> None:
    write(folder, tokenizer_config={"chat_template": given})
    own = tmp_path / "own.jinja"
    own.write_text("{{ messages }}", encoding="utf-8")
    for wanted, expected in ((None, "d"), ("tool_use", "t"), ("none", None), (str(own), "{{ messages }}")):
        assert load(str(folder), chat_template=wanted).chat_template == expected
    error = refused(str(folder), chat_template="tools")
    assert "default, tool_use" in error.hint


def test_no_template_to_name(folder: Path) -> None:
    assert "has no template" in refused(str(folder), chat_template="chatml").hint


# The hub


def fake_hub(monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[dict[str, Any]]:
    """Stands in for huggingface_hub: ``answer`` is the folder to give or the error to raise."""
    calls: list[dict[str, Any]] = []

    def snapshot_download(repository: str, **options: Any) -> str:
        calls.append({"repository": repository} | options)
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    module = ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return calls


def test_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = fake_hub(monkeypatch, write(tmp_path / COMMIT, tokenizer=byte_level()))
    loaded = load("some/thing", revision="v2")
    assert loaded.source == f"some/thing@{COMMIT}"
    assert (calls[0]["repository"], calls[0]["revision"]) == ("some/thing", "v2")
    assert not any("safetensors" in pattern or pattern == "*" for pattern in calls[0]["allow_patterns"])
    # A worker asks for the very same commit.
    assert loaded.recipe()["revision"] == COMMIT


def test_alias_of_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls = fake_hub(monkeypatch, write(tmp_path / COMMIT, tokenizer=byte_level()))
    assert load("qwen3").name == "qwen3"
    assert calls[0]["repository"] == aliases()["qwen3"]


def test_hub_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    error = refused("qwen3")
    assert "not installed" in error.message
    assert "lorads[hub]" in error.hint


def error_of(name: str, *bases: type[Exception]) -> Exception:
    error: Exception = type(name, bases or (Exception,), {})("the client's own words\nand more")
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (error_of("GatedRepoError", type("RepositoryNotFoundError", (Exception,), {})), "gated"),
        (error_of("RepositoryNotFoundError"), "knows no"),
        (error_of("RevisionNotFoundError"), "no revision 'x'"),
        (error_of("LocalEntryNotFoundError"), "local cache"),
        (error_of("OfflineModeIsEnabled"), "local cache"),
        (error_of("HfHubHTTPError"), "the client's own words"),
        (ConnectionError("no route"), "ConnectionError: no route"),
    ],
)
def test_hub_errors(error: Exception, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    fake_hub(monkeypatch, error)
    assert words in refused("some/thing", revision="x").message


def test_hub_without_tokenizer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_hub(monkeypatch, tmp_path)
    assert "has no tokenizer.json" in refused("some/thing").message


def test_the_real_client_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    place = tmp_path / "models--some--thing"
    write(place / "snapshots" / COMMIT, tokenizer=byte_level())
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    assert load("some/thing").source == f"some/thing@{COMMIT}"
    assert "HF_HUB_OFFLINE" in refused("other/thing").message


# Special tokens


def test_disagreements(tmp_path: Path) -> None:
    end = len(byte_level()["model"]["vocab"]) + 1
    loaded = load(
        str(
            write(
                tmp_path,
                tokenizer=byte_level(),
                tokenizer_config={
                    "eos_token": "<|end|>",
                    "pad_token": "<pad>",
                    "add_bos_token": True,
                    "bos_token": "<s>",
                    "added_tokens_decoder": {str(end): {"content": "<|END|>"}, "9999": {"content": "<x>"}},
                },
                special_tokens_map={"eos_token": "</s>"},
                config={"eos_token_id": 2, "vocab_size": 100},
                generation_config={"eos_token_id": [2, 7]},
            )
        ),
        load_as="file",
    )
    said = "\n".join(loaded.special.disagreements)
    for words in (
        "eos_token: tokenizer_config.json says '<|end|>', special_tokens_map.json says '</s>'",
        "pad_token is '<pad>', which is no token",
        f"eos_token is '<|end|>' ({end}), but eos_token_id of config.json is 2 (#)",
        "eos_token_id of generation_config.json is 2 (#), 7 (()",
        "add_bos_token is true",
        "'<s>'",
        "'<x>' (9999) of tokenizer_config.json is missing in tokenizer.json",
        f"token {end} is '<|end|>' in tokenizer.json and '<|END|>' in tokenizer_config.json",
        "has 100 embedding rows",
    ):
        assert words in said
    assert loaded.special.eos_ids == {2, 7, end}


CLASSIFIED = {
    "control": [
        "<|im_start|>",
        "<|user|>",
        "<｜User｜>",
        "<pad>",
        "[INST]",
        "[/INST]",
        "<start_of_turn>",
        "<|eot_id|>",
    ],
    "benign": [
        "<think>",
        "</think>",
        "<tool_call>",
        "<|vision_start|>",
        "<|fim_prefix|>",
        "<｜fim▁hole｜>",
        "<file_sep>",
    ],
    "neither": ["ü", "õ", "word", "  ", "\t\t", "<br>", "http"],
}


@pytest.mark.parametrize("special", [False, True])
def test_control_and_benign(special: bool, tmp_path: Path) -> None:
    tokens = [token for group in CLASSIFIED.values() for token in group]
    entries = [
        added(1000 + index, token, special=special and token not in CLASSIFIED["neither"])
        for index, token in enumerate(tokens)
    ]
    loaded = load(str(write(tmp_path, tokenizer=byte_level(added_tokens=entries))), load_as="file")
    kinds = {"control": loaded.special.control, "benign": loaded.special.benign}
    for name, group in CLASSIFIED.items():
        for token in group:
            number = loaded.special.added[token]
            assert [kind for kind, members in kinds.items() if number in members] == (
                [] if name == "neither" else [name]
            ), token


# Tokens


def test_token_texts() -> None:
    loaded = load("deepseek-coder")
    numbers = loaded.encode(["\té🎉<|EOT|>"]).flat.tolist()
    assert [loaded.token_text(number) for number in numbers] == ["\t", "é", "\\xf0\\x9f", "\\x8e", "\\x89", "<|EOT|>"]
    assert [loaded.id_of(loaded.token(number)) for number in numbers] == numbers
    assert loaded.id_of("no such token") is None
    for number in (-1, 32022):
        with pytest.raises(KeyError):
            loaded.token(number)


def test_byte_lengths(folder: Path) -> None:
    loaded = load(str(folder))
    assert loaded.byte_lengths is not None
    for token, length in (("hello", 5), ("Ġhello", 6), ("Ċ", 1), ("<|end|>", 7)):
        assert loaded.byte_lengths[loaded.id_of(token)] == length
    assert load(str(write(folder, tokenizer=byte_level(normalizer={"type": "Lowercase"})))).byte_lengths is None


# Other processes, and the cache


def test_pickles_as_a_recipe(folder: Path) -> None:
    loaded = load(str(folder), chat_template="none", load_as="file")
    loaded.use_engine("tokenizers")
    packed = pickle.dumps(loaded)
    assert len(packed) < 1000
    again = pickle.loads(packed)  # noqa: S301 - made here
    assert isinstance(again, Tokenizer)
    assert again.recipe() == loaded.recipe()
    assert json.loads(json.dumps(loaded.recipe())) == loaded.recipe()
    assert again.engine_name == "tokenizers"
    error = pickle.loads(pickle.dumps(EngineMismatch("kitoken", "x")))  # noqa: S301 - made here
    assert (error.engine, error.excerpt) == ("kitoken", "x")


def facts(loaded: Tokenizer) -> dict[str, Any]:
    return {
        "special": loaded.special,
        "size": loaded.vocab_size,
        "sha256": loaded.sha256,
        "lengths": None if loaded.byte_lengths is None else loaded.byte_lengths.tolist(),
        "ids": loaded.encode(["hello wörld"], add_special_tokens=True).flat.tolist(),
        "notes": loaded.notes,
    }


@pytest.mark.parametrize("damage", ["none", "empty", "short", "other", "gone", "directory"])
def test_cache(damage: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("LORADS_CACHE_DIR", str(cache))
    first = facts(load(str(folder)))
    stored = sorted((cache / "tokenizers").iterdir())
    assert stored
    for file in stored:
        if damage == "empty":
            file.write_bytes(b"")
        elif damage == "short":
            file.write_bytes(file.read_bytes()[:-7])
        elif damage == "other":
            file.write_bytes(b"\x00" * 10_000)
        elif damage in ("gone", "directory"):
            file.unlink()
            if damage == "directory":
                file.mkdir()
    assert facts(load(str(folder))) == first


def test_cache_that_can_not_be_written(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.touch()
    expected = facts(load(str(folder)))
    monkeypatch.setenv("LORADS_CACHE_DIR", str(blocked / "cache"))
    assert facts(load(str(folder))) == expected


def test_warm_start_needs_neither_reference_nor_vocabulary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load("deepseek-coder").encode(["x"])

    def forbidden(*_: Any) -> Any:
        raise AssertionError("a warm start must not do this")

    monkeypatch.setattr("lorads.tokenizers.tokenizer.TokenizersEngine", forbidden)
    monkeypatch.setattr("lorads.tokenizers.compiled.edit", forbidden)
    monkeypatch.setattr("lorads.tokenizers.compiled.make", forbidden)
    assert len(load("deepseek-coder").encode(["def f(): pass"]).flat) == 4


def test_fingerprint_sees_every_file(folder: Path) -> None:
    prints = {fingerprint(find(str(folder)))}
    for name in ("tokenizer_config", "special_tokens_map", "added_tokens", "config", "generation_config"):
        write(folder, **{name: {"changed": 1}})
        prints.add(fingerprint(find(str(folder))))
    write(folder, tokenizer=byte_level(normalizer={"type": "NFC"}))
    prints.add(fingerprint(find(str(folder))))
    assert len(prints) == 7
