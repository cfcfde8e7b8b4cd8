"""Makes the demo's files out of the running interpreter's own standard library.

The recipe (what is left out, how questions are worded, which row gets which fault) is data: ``recipe.toml`` of the
incident ``deepseek-coder-collapse``. Library files are read as text and parsed, never imported. For one Python version
the same bytes come out every time: files are taken in sorted order, and every choice hangs on a hash of the function's
name.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import platform
import re
import secrets
import shlex
import sysconfig
import textwrap
import tokenize
import tomllib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from lorads.errors import UsageError

Row = dict[str, list[dict[str, str]]]
CountTokens = Callable[[list[str]], list[int]]

DATA, CLEAN, TRUTH = "data.jsonl", "clean.jsonl", "truth.json"
MADE_BY = "lorads demo"

_PRINTABLE = re.compile(r"[\n -~]+")
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
# Shorter ones teach nothing; longer ones are cut off by the recipe's length limit anyway.
_MIN_LINES, _MAX_LINES = 3, 150
_MIN_LINES_TO_COMPLETE = 6
_MIN_BODY_LINES = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One spoilt row: the content of message ``message`` of row ``row`` (0-based) becomes ``becomes``."""

    row: int
    rule: str
    """The id of the rule that must name it."""
    message: int
    becomes: str
    """A pattern; its placeholders are explained in the recipe."""
    done: str
    """What was done, in words."""

    @property
    def line(self) -> int:
        """The line of the row in the file, from 1."""
        return self.row + 1


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What :func:`build` wrote."""

    data: Path
    clean: Path
    truth: Path
    rows: int
    faults: tuple[Fault, ...]
    python: str
    command: str
    """The next command to type, quoted for a shell."""


@dataclass(frozen=True, slots=True)
class _Module:
    """A file of the library. ``name`` is dotted; ``text`` is the whole file without white space at its ends."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class _Function:
    """A function or method as it stands in its file, indented. ``digest`` decides everything that is chosen for it."""

    module: str
    name: str
    kind: str
    code: str
    digest: bytes


def build(directory: Path, count_tokens: CountTokens | None = None) -> DemoResult:
    """Write ``data.jsonl``, ``clean.jsonl`` and ``truth.json`` into ``directory``, which is made if it is missing.

    ``count_tokens`` gives the number of tokens of each text; without it the DeepSeek-Coder tokenizer that ships with
    lorads counts. Each file appears whole or not at all. A demo that is already there is written anew, and other files
    beside it stay as they are.

    Raises UsageError when ``directory`` holds something that no demo wrote, can't be written, or when the standard
    library gives too few rows.
    """
    count_tokens = count_tokens or _deepseek_coder_tokens
    recipe = load_recipe()
    faults = tuple(Fault(**fault) for fault in recipe["faults"])
    _refuse_foreign(directory)

    modules = list(_modules(_library(), recipe["library"]))
    clean = _clean_rows(modules, recipe, count_tokens)
    pasted = _modules_to_paste(modules, recipe, count_tokens)
    data = list(clean)
    for fault in faults:
        data[fault.row] = _spoil(clean[fault.row], fault, pasted)

    texts = {DATA: _json_lines(data), CLEAN: _json_lines(clean)}
    texts[TRUTH] = json.dumps(_truth(recipe, faults, texts), ensure_ascii=False, indent=2) + "\n"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            _write(directory / name, text)
    except OSError as error:
        raise UsageError(f"can't write the demo to {directory}: {error.strerror}", "name another directory") from error
    command = shlex.join(["lorads", "check", str(directory / DATA), "--tokenizer", recipe["report"]["tokenizer"]])
    return DemoResult(
        data=directory / DATA,
        clean=directory / CLEAN,
        truth=directory / TRUTH,
        rows=len(data),
        faults=faults,
        python=platform.python_version(),
        command=command,
    )


def load_recipe() -> dict[str, Any]:
    """The recipe: from the installed package, or from the source tree where lorads runs out of a checkout."""
    packaged = resources.files("lorads.demo") / "recipe" / "recipe.toml"
    if packaged.is_file():
        return tomllib.loads(packaged.read_text(encoding="utf-8"))
    checkout = Path(__file__).parents[3] / "fixtures" / "incidents" / "deepseek-coder-collapse" / "recipe.toml"
    return tomllib.loads(checkout.read_text(encoding="utf-8"))


# The standard library.


def _library() -> Path:
    library = Path(sysconfig.get_paths()["stdlib"])
    if not library.is_dir():
        raise UsageError(
            f"this Python keeps its standard library out of reach: {library} is no directory",
            "run the demo with a Python that has its library as files",
        )
    return library


def _modules(library: Path, choice: Mapping[str, Any]) -> Iterator[_Module]:
    """The library's modules, in order of their paths, without what the recipe leaves out."""
    paths = []
    for folder, folders, files in os.walk(library):
        folders[:] = [
            name
            for name in folders
            if name not in choice["folders"] and not name.startswith(tuple(choice["folder_prefixes"]))
        ]
        paths += [
            Path(folder, name).relative_to(library)
            for name in files
            if name.endswith(".py")
            and name not in choice["files"]
            and not name.startswith(tuple(choice["file_prefixes"]))
        ]
    for path in sorted(paths, key=Path.as_posix):
        text = _read(library / path, choice["max_bytes"])
        if text is not None:
            yield _Module(".".join(path.with_suffix("").parts).removesuffix(".__init__"), text)


def _read(path: Path, max_bytes: int) -> str | None:
    """The text of a library file, or None for one that is too large or no Python text."""
    try:
        if path.stat().st_size > max_bytes:
            return None
        with tokenize.open(path) as file:
            return file.read().strip()
    except (OSError, SyntaxError, UnicodeDecodeError):
        return None


def _functions(module: _Module) -> Iterator[_Function]:
    """The functions and methods of a module that are neither very short nor very long. Not those inside functions."""
    tree = _parse(module.text)
    if tree is None:
        return
    lines = module.text.splitlines()
    for node, name, kind in _definitions(tree, "", "function"):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        last = node.end_lineno or first
        if _MIN_LINES <= last - first + 1 <= _MAX_LINES:
            code = "\n".join(lines[first - 1 : last])
            digest = hashlib.sha256(f"{module.name}:{name}:{code}".encode()).digest()
            yield _Function(module.name, name, kind, code, digest)


def _definitions(
    node: ast.AST, prefix: str, kind: str
) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child, prefix + child.name, kind
        elif isinstance(child, ast.ClassDef):
            yield from _definitions(child, f"{prefix}{child.name}.", "method")
        elif isinstance(child, ast.stmt | ast.ExceptHandler):
            yield from _definitions(child, prefix, kind)


def _parse(code: str) -> ast.Module | None:
    """The syntax tree, or None where this interpreter can't read the text. Library code's own warnings are not ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except (SyntaxError, ValueError, RecursionError):
            return None


# Rows.


def _clean_rows(modules: Iterable[_Module], recipe: Mapping[str, Any], count_tokens: CountTokens) -> list[Row]:
    """As many rows as the recipe wants, in an order that mixes the modules."""
    wanted: int = recipe["rows"]["count"]
    functions = sorted((f for module in modules for f in _functions(module)), key=lambda f: (f.digest, f.code))
    candidates = _candidates(functions, recipe)
    rows: list[Row] = []
    while len(rows) < wanted:
        batch = list(islice(candidates, wanted - len(rows)))
        if not batch:
            raise UsageError(
                f"this Python's standard library gives {len(rows)} of the {wanted} rows that the demo needs",
                "run it with a complete Python installation (on Debian: python3, not python3-minimal)",
            )
        counts = count_tokens([text for question, answer in batch for text in (question, answer)])
        rows += [
            _row(question, answer)
            for (question, answer), asked, answered in zip(batch, counts[::2], counts[1::2], strict=True)
            if asked + answered <= recipe["rows"]["max_tokens"]
        ]
    return rows


def _candidates(functions: Iterable[_Function], recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Questions and answers that are clean and new: no question and no answer comes twice, however it is spaced."""
    limits = recipe["rows"]
    is_clean = _cleanliness(recipe)
    seen: set[bytes] = set()
    for function in functions:
        pair = _question_and_answer(function, recipe["flavours"])
        if pair is None:
            continue
        question, answer = pair
        if len(question) + len(answer) > limits["max_chars"] or len(answer) < limits["min_answer_chars"]:
            continue
        keys = {hashlib.sha256(" ".join(text.split()).casefold().encode()).digest() for text in pair}
        if keys.isdisjoint(seen) and is_clean(question) and is_clean(answer):
            seen |= keys
            yield pair


def _cleanliness(recipe: Mapping[str, Any]) -> Callable[[str], bool]:
    never = [re.compile(pattern, re.IGNORECASE) for pattern in recipe["text"]["never"]]

    def is_clean(text: str) -> bool:
        return _PRINTABLE.fullmatch(text) is not None and not any(pattern.search(text) for pattern in never)

    return is_clean


def _question_and_answer(function: _Function, flavours: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    pieces = _pieces(function)
    if pieces is None:
        return None
    fitting = [flavour for flavour in flavours if flavour["documented"] == ("doc" in pieces)]
    flavour = fitting[function.digest[0] % len(fitting)]
    prompt = flavour["prompts"][function.digest[1] % len(flavour["prompts"])]
    return _fill(prompt, pieces).strip(), pieces[flavour["answer"]].strip()


def _pieces(function: _Function) -> dict[str, str] | None:
    """What the recipe's placeholders stand for, or None for a function that makes no good row.

    A documented function has ``source``, ``header``, ``bare`` and ``doc``; another one ``source`` and ``start``.
    """
    source = textwrap.dedent(function.code)
    tree = _parse(source)
    if tree is None or len(tree.body) != 1:
        return None
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    if source != function.code and _has_long_string(node, source):
        return None
    lines = source.splitlines()
    pieces = {"module": function.module, "name": function.name, "kind": function.kind, "source": source}
    doc = ast.get_docstring(node)
    if doc is None:
        if len(lines) < _MIN_LINES_TO_COMPLETE:
            return None
        return pieces | {"start": "\n".join(lines[: len(lines) // 2]).rstrip()}
    first, last = node.body[0].lineno, node.body[0].end_lineno
    stands_alone = first > node.lineno and len(node.body) > 1 and node.body[1].lineno > (last or first)
    if not (stands_alone and doc[:1].isalpha()):
        return None
    header = "\n".join(lines[: first - 1])
    body = "\n".join(lines[last:]).strip("\n")
    if body.count("\n") + 1 < _MIN_BODY_LINES:
        return None
    return pieces | {"doc": doc, "header": header, "bare": f"{header}\n{body}"}


def _has_long_string(node: ast.FunctionDef | ast.AsyncFunctionDef, source: str) -> bool:
    """Whether a string other than the docstring runs over several lines: taking indentation away would change it."""
    statements = node.body[1:] if ast.get_docstring(node) is not None else node.body
    strings = (
        child
        for statement in statements
        for child in ast.walk(statement)
        if isinstance(child, ast.JoinedStr) or (isinstance(child, ast.Constant) and isinstance(child.value, str))
    )
    return any(
        string.end_lineno != string.lineno
        and re.search(r'"""|' r"'''|\\\n", ast.get_source_segment(source, string) or "")
        for string in strings
    )


def _row(question: str, answer: str) -> Row:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


# Faults.


def _modules_to_paste(
    modules: Iterable[_Module], recipe: Mapping[str, Any], count_tokens: CountTokens
) -> Iterator[str]:
    """Whole modules, clean and long enough to push an answer out of the sequence, one after the other."""
    shortest, longest = recipe["rows"]["module_chars"]
    is_clean = _cleanliness(recipe)
    suitable = [module for module in modules if shortest <= len(module.text) <= longest and is_clean(module.text)]
    for module in sorted(suitable, key=lambda module: hashlib.sha256(module.name.encode()).digest()):
        if count_tokens([module.text])[0] >= recipe["rows"]["module_min_tokens"]:
            yield module.text


def _spoil(row: Row, fault: Fault, pasted: Iterator[str]) -> Row:
    """A copy of ``row`` with the fault in it."""
    messages = [dict(message) for message in row["messages"]]
    content = messages[fault.message]["content"]
    first, rest = _halves(content)
    values = {"content": content, "first": first, "rest": rest}
    if "{module}" in fault.becomes:
        module = next(pasted, None)
        if module is None:
            raise UsageError(
                "this Python's standard library holds too few modules that can be pasted whole into a row",
                "run the demo with a complete Python installation",
            )
        values["module"] = module
    messages[fault.message]["content"] = _fill(fault.becomes, values)
    return {"messages": messages}


def _halves(content: str) -> tuple[str, str]:
    """``content`` cut at the line end nearest its middle; a single line is cut between two words."""
    cuts = [match.start() for match in re.finditer("\n" if "\n" in content else r"\s|$", content)]
    cut = min(cuts, key=lambda position: abs(position - len(content) // 2))
    return content[:cut].rstrip(), content[cut:].lstrip("\n" if "\n" in content else " ")


def _truth(recipe: Mapping[str, Any], faults: Iterable[Fault], texts: Mapping[str, str]) -> dict[str, Any]:
    return {
        "made_by": MADE_BY,
        "report": recipe["report"]["url"],
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "tokenizer": recipe["report"]["tokenizer"],
        "max_length": recipe["report"]["max_length"],
        "rows": recipe["rows"]["count"],
        "sha256": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()},
        "faults": [
            {
                "row": fault.row,
                "line": fault.line,
                "rule": fault.rule,
                "message_index": fault.message,
                "done": fault.done,
            }
            for fault in faults
        ],
    }


# Files and small help.


def _refuse_foreign(directory: Path) -> None:
    """Raise UsageError unless ``directory`` is missing, empty, or holds a demo."""
    try:
        if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
            return
    except OSError as error:
        raise UsageError(f"can't look into {directory}: {error.strerror}", "name another directory") from error
    if not directory.is_dir():
        raise UsageError(f"{directory} is a file, not a directory", "name a directory that is new or empty")
    if not _is_ours(directory / TRUTH):
        raise UsageError(
            f"{directory} is not empty, and what is in it is no earlier demo",
            "name a directory that is new or empty",
        )


def _is_ours(truth: Path) -> bool:
    try:
        with truth.open(encoding="utf-8") as file:
            said = json.loads(file.read(100_000))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("made_by") == MADE_BY


def _write(path: Path, text: str) -> None:
    """Write by way of a file beside ``path``, so that a reader never sees half of it."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _json_lines(rows: Iterable[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _fill(pattern: str, values: Mapping[str, str]) -> str:
    """``pattern`` with its placeholders replaced in one go, so that braces in what is put in are left alone."""
    return _PLACEHOLDER.sub(lambda match: values[match[1]], pattern)


def _deepseek_coder_tokens(texts: list[str]) -> list[int]:
    from lorads.tokenizers import load

    starts = load("deepseek-coder").encode(texts).starts
    return [int(end - start) for start, end in pairwise(starts)]
