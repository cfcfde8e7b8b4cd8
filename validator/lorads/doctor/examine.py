"""The examination: the files, the installed libraries, and the two beside each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lorads.doctor import known
from lorads.doctor.compare import Comparison, Reference, compare_tokenizer, first_line, rendered
from lorads.doctor.diagnosis import Diagnosis, Trouble
from lorads.doctor.environment import Place, ask, hub_name, interpreter, laid_out
from lorads.doctor.rows import conversations, texts, training_rows
from lorads.errors import UsageError
from lorads.findings import Severity
from lorads.templates import Template
from lorads.tokenizers import Tokenizer
from lorads.tokenizers.files import TokenizerFiles, find

TRAINERS = ("trl", "unsloth", "axolotl", "llamafactory", "ms-swift", "torchtune")


def examine(
    name: str,
    *,
    chat_template: str | None = None,
    revision: str | None = None,
    load_as: Literal["transformers", "file"] = "transformers",
    python: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Diagnosis:
    """What the libraries of ``python`` (default: this interpreter) build with the tokenizer, beside its files.

    Nothing is fetched. Raises ``UsageError`` for an unknown tokenizer, and for an interpreter that gives no answer.
    """
    asked = interpreter(python)
    with _offline():
        files = _find(name, revision)
    reference = _reference(files, load_as, chat_template)
    diagnosis = Diagnosis(_tokenizer_facts(files, reference), _what_files_say(reference), asked)
    plain = texts(reference.tokenizer.special.eos)
    chats = conversations()
    request: dict[str, Any] = {
        "what": "tokenizer",
        "texts": list(plain.values()),
        "conversations": [] if reference.template is None else list(chats.values()),
        "chat_template": None if chat_template is None else reference.tokenizer.chat_template,
    }
    if Path(files.source).is_file() and not files.source.endswith((".json", ".json.gz")):
        diagnosis.notes.append(
            f"{files.source} holds no tokenizer.json: what was loaded is the one that lorads made of it"
        )
    with laid_out(files) as place:
        request |= {"tokenizer": place.name, "copy": place.copy}
        progress(f"asking {asked} what it builds")
        answer = ask(asked, request, place)
        diagnosis.python, diagnosis.packages = answer["python"], answer["packages"]
        pairs = known.concerning(diagnosis.packages, files)
        if "transformers" in diagnosis.packages:
            compared = chats if reference.template is not None else {}
            _transformers(diagnosis, answer, reference, pairs, plain, compared, place)
        if "trl" in diagnosis.packages and "tokenizer" in answer:
            progress(f"asking TRL {diagnosis.packages['trl']} what it trains: this takes some seconds")
            _trl(diagnosis, asked, request, place, reference, pairs)
    _by_the_table(diagnosis, pairs)
    diagnosis.troubles.sort(key=lambda trouble: (-trouble.severity.rank, trouble.code != "text-lost"))
    return diagnosis


@contextmanager
def _offline() -> Iterator[None]:
    """The hub's client looks into its cache alone."""
    before = os.environ.get("HF_HUB_OFFLINE")
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["HF_HUB_OFFLINE"]
        else:
            os.environ["HF_HUB_OFFLINE"] = before


def _find(name: str, revision: str | None) -> TokenizerFiles:
    try:
        return find(name, revision)
    except UsageError as error:
        if "local cache" in error.message:
            raise UsageError(
                f"{hub_name(name)} is not in the local cache of the hub, and the doctor fetches nothing",
                f"Fetch it once (hf download {hub_name(name)}), or give a directory.",
            ) from None
        raise


def _reference(files: TokenizerFiles, load_as: Literal["transformers", "file"], chat_template: str | None) -> Reference:
    tokenizer = Tokenizer(files, load_as, chat_template)
    file = Tokenizer(files, "file", chat_template)
    for each in (tokenizer, file):
        each.use_engine("tokenizers")
    template = None
    if tokenizer.chat_template is not None:
        special = tokenizer.special
        named = {"bos_token": special.bos, "eos_token": special.eos, "pad_token": special.pad, "unk_token": special.unk}
        template = Template(
            tokenizer.chat_template, special={key: token for key, token in named.items() if token is not None}
        )
    return Reference(tokenizer, file, template, load_as, known.wants_bos(files))


def _tokenizer_facts(files: TokenizerFiles, reference: Reference) -> dict[str, Any]:
    return {
        "name": files.name,
        "source": files.source,
        "sha256": reference.tokenizer.sha256,
        "class": files.config.get("tokenizer_class"),
        "vocab_size": reference.tokenizer.vocab_size,
    }


def _what_files_say(reference: Reference) -> list[str]:
    tokenizer, special = reference.tokenizer, reference.tokenizer.special
    said = [f"{tokenizer.vocab_size:,} tokens" + ("" if reference.template else ", no chat template")]
    for name, token, number in (
        ("BOS", special.bos, special.bos_id),
        ("EOS", special.eos, special.eos_id),
        ("pad", special.pad, special.pad_id),
    ):
        said.append(f"{name} is {token} ({number})" if token is not None else f"no {name} token")
    if special.adds_bos or reference.wants_bos:
        said.append(
            "a text begins with BOS "
            + ("(tokenizer.json)" if special.adds_bos else "(add_bos_token of tokenizer_config.json)")
        )
    return [*said, *special.disagreements]


def _transformers(
    diagnosis: Diagnosis,
    answer: dict[str, Any],
    reference: Reference,
    pairs: list[known.Pair],
    plain: dict[str, str],
    chats: dict[str, list[dict[str, Any]]],
    place: Place,
) -> None:
    version = diagnosis.packages["transformers"]
    if "error" in answer:
        error = answer["error"]
        diagnosis.troubles.append(
            Trouble(
                "load-fails",
                "META002",
                Severity.ERROR,
                f"transformers {version} can't load this tokenizer: {error['type']}: {first_line(error['message'])}",
                "A training with this environment does not start.",
                "Install another version of transformers; if it names a missing package, install that one.",
            )
        )
        return
    found = answer["tokenizer"]
    out = Comparison(f"transformers {found['version']}", pairs)
    out.measured["class"] = found["class"]
    compare_tokenizer(out, found, reference, plain, chats)
    if found.get("copy") is not None and not out.has("text-lost"):
        _copy(out, found["copy"], reference, plain, place)
    _take(diagnosis, out, "transformers")


def _copy(out: Comparison, answers: list[list[int]], reference: Reference, plain: dict[str, str], place: Place) -> None:
    """The same files loaded from a directory, where the name of the hub's repository helps no more."""
    from lorads.doctor.compare import Differing, sort

    differing = Differing()
    for (name, text), ids in zip(plain.items(), answers, strict=True):
        if ids != reference.ids(text):
            sort(differing, name, text, ids, reference.file_ids(text), reference)
    if not differing.lossy:
        return
    out.trouble(
        "text-lost",
        Severity.WARNING,
        f"{out.name} loads {place.name} right by that name, and loses spaces when the same files are loaded from a "
        "directory",
        "A model that was downloaded, merged or saved next to a copy of these files is trained on text without spaces.",
        "Load it by its name on the hub; or install a newer transformers.",
    )


def _trl(
    diagnosis: Diagnosis,
    asked: str,
    request: dict[str, Any],
    place: Place,
    reference: Reference,
    pairs: list[known.Pair],
) -> None:
    from lorads.doctor.trained import compare_trl

    conversation = next(iter(conversations().values()))
    text, _ = rendered(reference.template, [conversation])[0]
    kinds = training_rows(text)
    try:
        answer = ask(asked, {**request, "what": "trl", "kinds": kinds}, place)
    except UsageError as error:
        answer = {"error": {"type": "no answer", "message": error.message}}
    out = Comparison(f"TRL {diagnosis.packages['trl']} with transformers {diagnosis.packages['transformers']}", pairs)
    out.troubles = list(diagnosis.troubles)
    if "error" in answer:
        message = f"{answer['error']['type']}: {first_line(answer['error']['message'])}"
        diagnosis.notes.append(f"TRL {diagnosis.packages['trl']} is installed, but could not be asked: {message}")
        return
    compare_trl(out, answer["trl"], reference, kinds)
    out.troubles = out.troubles[len(diagnosis.troubles) :]
    _take(diagnosis, out, "trl")


def _take(diagnosis: Diagnosis, out: Comparison, package: str) -> None:
    diagnosis.compared.append(package)
    diagnosis.same += out.same
    diagnosis.troubles += out.troubles
    diagnosis.notes += out.notes
    diagnosis.measured[package] = out.measured


def _by_the_table(diagnosis: Diagnosis, pairs: list[known.Pair]) -> None:
    """What was not measured, but is known of the installed versions."""
    for pair in pairs:
        if pair.probed in diagnosis.compared or any(trouble.code == pair.code for trouble in diagnosis.troubles):
            continue
        installed = ", ".join(f"{name} {diagnosis.packages[name]}" for name in pair.packages)
        diagnosis.troubles.append(
            Trouble(
                pair.code,
                "META001",
                Severity(pair.severity),
                f"{pair.title} (installed: {installed})",
                pair.effect,
                pair.advice,
                measured=False,
                threads=tuple(pair.threads),
            )
        )
    others = [name for name in TRAINERS if name in diagnosis.packages and name not in diagnosis.compared]
    if others:
        listed = ", ".join(f"{name} {diagnosis.packages[name]}" for name in others)
        diagnosis.notes.append(f"installed, but not run by the doctor: {listed}")
