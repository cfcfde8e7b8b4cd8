"""The demo's files, looked at without the builder's own filters."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import unicodedata
from pathlib import Path
from typing import Any

import click.testing
import pytest

import lorads
from lorads.cli.demo import demo as demo_command
from lorads.demo import build as build_module
from lorads.demo.build import DemoResult, build, load_recipe
from lorads.errors import UsageError

Row = dict[str, Any]
BAD_ROWS = list(range(1808, 1824))
SOURCE_ROOT = Path(lorads.__file__).parents[1]

# DeepSeek-Coder's special tokens, and the letters that are added tokens of its vocabulary.
SPECIAL = [
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜fim▁hole｜>",
    "<｜fim▁begin｜>",
    "<｜fim▁end｜>",
    "<|User|>",
    "<|Assistant|>",
    "<|EOT|>",
]
LETTERS = "õ÷ÁýÀÿøúþüùöû"
# What other families' tokens and templates look like.
MARKS = [
    *(
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
        "<|eot_id|>",
        "<|start_header_id|>",
        "<|begin_of_text|>",
        "<|user|>",
    ),
    *(
        "<|assistant|>",
        "<|system|>",
        "<|end|>",
        "<|return|>",
        "<|channel|>",
        "<s>",
        "</s>",
        "<unk>",
        "<pad>",
        "<bos>",
        "<eos>",
    ),
    *(
        "<mask>",
        "[INST]",
        "[/INST]",
        "<<SYS>>",
        "<</SYS>>",
        "<start_of_turn>",
        "<end_of_turn>",
        "<think>",
        "</think>",
        "<tool_call>",
    ),
    *(
        "[CLS]",
        "[SEP]",
        "[PAD]",
        "[MASK]",
        "[UNK]",
        "<fim_prefix>",
        "<fim_suffix>",
        "<fim_middle>",
        "[gMASK]",
        "<image>",
    ),
    *("### Instruction", "### Response", "### Input", "### Human", "### Assistant", "### User", "### System"),
    *("\nHuman:", "\nAssistant:", "\nUSER:", "\nASSISTANT:"),
]


def read(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def contents(row: Row) -> tuple[str, str]:
    user, assistant = row["messages"]
    return user["content"], assistant["content"]


def squeeze(text: str) -> str:
    return re.sub(r"\s+", "", text)


def fold(text: str) -> str:
    """Look-alike bars and spaces of DeepSeek's tokens made equal."""
    return text.replace("｜", "|").replace("▁", "_")


def thirds(texts: list[str]) -> list[int]:
    """Stands in for a tokenizer where none is at hand."""
    return [len(text) // 3 for text in texts]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    return build(tmp_path_factory.mktemp("demo") / "lorads-demo")


@pytest.fixture(scope="module")
def clean(made: DemoResult) -> list[Row]:
    return read(made.clean)


@pytest.fixture(scope="module")
def data(made: DemoResult) -> list[Row]:
    return read(made.data)


@pytest.fixture(scope="module")
def truth(made: DemoResult) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(made.truth.read_text(encoding="utf-8"))
    return said


def test_three_files_and_nothing_else(made: DemoResult) -> None:
    assert sorted(path.name for path in made.data.parent.iterdir()) == ["clean.jsonl", "data.jsonl", "truth.json"]


def test_counts(made: DemoResult, data: list[Row], clean: list[Row]) -> None:
    assert made.rows == len(data) == len(clean) == 4096


def test_rows_are_two_messages(data: list[Row], clean: list[Row]) -> None:
    for row in data + clean:
        assert list(row) == ["messages"]
        assert [list(message) for message in row["messages"]] == [["role", "content"]] * 2
        assert [message["role"] for message in row["messages"]] == ["user", "assistant"]


def test_truth_is_the_difference(data: list[Row], clean: list[Row], truth: dict[str, Any]) -> None:
    changed = [
        (row, index)
        for row, (spoilt, good) in enumerate(zip(data, clean, strict=True))
        for index in (0, 1)
        if spoilt["messages"][index] != good["messages"][index]
    ]
    assert [(fault["row"], fault["message_index"]) for fault in truth["faults"]] == changed
    assert [row for row, _ in changed] == BAD_ROWS
    assert [fault["line"] for fault in truth["faults"]] == [row + 1 for row in BAD_ROWS]
    assert all(fault["done"] for fault in truth["faults"])


def test_bad_rows_are_where_the_report_broke_off() -> None:
    report = load_recipe()["report"]
    assert list(range(report["first_bad_row"], report["end_of_bad_rows"])) == BAD_ROWS
    assert {row // 16 + 1 for row in BAD_ROWS} == {114}
    assert {row // 32 + 1 for row in BAD_ROWS} == {57}


def test_truth_names_version_and_hashes(made: DemoResult, truth: dict[str, Any]) -> None:
    assert truth["python"].split()[1] == made.python == sys.version.split()[0]
    assert truth["sha256"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (made.data, made.clean)
    }


def test_same_bytes_again(made: DemoResult, tmp_path: Path) -> None:
    program = "import sys; from pathlib import Path; from lorads.demo.build import build; build(Path(sys.argv[1]))"
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(SOURCE_ROOT)}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, env=environment, timeout=120)
    for path in (made.data, made.clean, made.truth):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_clean_rows_hold_no_damage(clean: list[Row]) -> None:
    for row in clean:
        for text in contents(row):
            assert text
            assert text == text.strip()
            assert {unicodedata.category(character) for character in text if character != "\n"}.isdisjoint(
                {"Cc", "Cf", "Cs", "Co", "Cn"}
            )
            assert not set(text) & set(LETTERS + "\ufffd")
            assert text.encode("latin-1").decode("utf-8") == text


def test_clean_rows_hold_no_marks(clean: list[Row]) -> None:
    for row in clean:
        text = "\n" + "\n".join(contents(row))
        assert [mark for mark in SPECIAL + MARKS if mark.lower() in text.lower() or fold(mark) in fold(text)] == []


def test_clean_rows_are_all_different(clean: list[Row]) -> None:
    questions = {squeeze(contents(row)[0]) for row in clean}
    answers = {squeeze(contents(row)[1]) for row in clean}
    assert len(questions) == len(answers) == len(clean)


def test_code_answers_are_code(clean: list[Row]) -> None:
    """An answer that starts as a definition must be one whole definition (docstrings are the other kind of answer)."""
    code = [answer for _, answer in map(contents, clean) if re.match(r"@\w|def \w+\(|async def ", answer)]
    assert len(code) > len(clean) // 2
    assert all(len(ast.parse(answer).body) == 1 for answer in code)


def test_several_kinds_and_many_modules(clean: list[Row]) -> None:
    openings = {" ".join(contents(row)[0].split()[:2]) for row in clean}
    assert len(openings) >= 6


def test_clean_rows_fit_and_long_ones_do_not(clean: list[Row], data: list[Row], truth: dict[str, Any]) -> None:
    from lorads.tokenizers import load

    starts = load("deepseek-coder").encode(["".join(contents(row)) for row in clean]).starts
    # The template adds about 80 tokens; 1,024 is TRL's default.
    assert (starts[1:] - starts[:-1]).max() < 900
    questions = [contents(data[fault["row"]])[0] for fault in truth["faults"]]
    starts = load("deepseek-coder").encode(questions).starts
    long_ones = (starts[1:] - starts[:-1] > 1024).tolist()
    assert long_ones == [fault["rule"] == "LEN001" for fault in truth["faults"]]


def test_each_fault_is_of_its_rule_alone(data: list[Row], truth: dict[str, Any]) -> None:
    families = ("<|im_start|>", "<|im_end|>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
    counts: dict[str, int] = {}
    for fault in truth["faults"]:
        question, answer = contents(data[fault["row"]])
        text = question + answer
        folded = [token for token in SPECIAL if fold(token) in fold(text)]
        exact = [token for token in SPECIAL if token in text]
        signs = {
            "FMT004": not answer.strip(),
            "TPL008": sum(text.count(mark) for mark in families) >= 2,
            "TOK005": exact != [],
            "TOK001": folded != exact,
            "LEN001": len(question) > 5000,
        }
        assert [rule for rule, there in signs.items() if there] == [fault["rule"]]
        counts[fault["rule"]] = counts.get(fault["rule"], 0) + 1
    assert counts == {"TOK001": 4, "FMT004": 4, "LEN001": 3, "TPL008": 3, "TOK005": 2}


def test_control_token_stands_between_two_texts(data: list[Row], truth: dict[str, Any]) -> None:
    for fault in truth["faults"]:
        if fault["rule"] == "TOK005":
            content = data[fault["row"]]["messages"][fault["message_index"]]["content"]
            before, after = re.split("|".join(map(re.escape, SPECIAL)), content)
            assert before.strip()
            assert after.strip()


def test_halves_of_one_line_keep_words_whole() -> None:
    assert build_module._halves("alpha beta gamma") == ("alpha beta", "gamma")
    assert build_module._halves("a = 1\nb = 2\n\n  c = 3") == ("a = 1\nb = 2", "  c = 3")
    assert build_module._halves("word") == ("word", "")


def small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = tmp_path / "library"
    (library / "site-packages").mkdir(parents=True)
    body = "def double(number):\n    'Return the number twice over.'\n    result = number + number\n    return result\n"
    (library / "good.py").write_text("raise SystemExit('imported')\n" + body)
    (library / "broken.py").write_text("def broken(:\n")
    (library / "bytes.py").write_bytes(b"\xff\xfe\x00")
    (library / "site-packages" / "installed.py").write_text(body.replace("double", "twice"))
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(library)})


def small_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe()
    recipe["rows"]["count"] = 1
    recipe["faults"] = []
    monkeypatch.setattr(build_module, "load_recipe", lambda: recipe)


def test_a_new_demo_replaces_an_old_one_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_library(tmp_path, monkeypatch)
    small_recipe(monkeypatch)
    out = tmp_path / "out"
    build(out, thirds)
    expected = (out / "data.jsonl").read_bytes()
    assert expected.count(b"\n") == 1
    (out / "data.jsonl").write_text("edited")
    (out / "report.json").write_text("mine")
    build(out, thirds)
    assert (out / "data.jsonl").read_bytes() == expected
    assert (out / "report.json").read_text() == "mine"
    assert len(list(out.iterdir())) == 4


@pytest.mark.parametrize(
    "files",
    [
        {"data.jsonl": "{}"},
        {"notes.txt": ""},
        {"truth.json": "[]"},
        {"truth.json": '{"made_by": "me"}'},
        {"truth.json": "[" * 5000},
        {"truth.json": '{"made_by": "lorads demo", "x": "' + "x" * 200_000 + '"}'},
    ],
)
def test_foreign_directories_are_left_alone(tmp_path: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match="not empty"):
        build(tmp_path, thirds)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file"):
        build(tmp_path / "file", thirds)


def test_too_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is imported, unreadable files are passed over, and nothing is written when there is not enough."""
    small_library(tmp_path, monkeypatch)
    with pytest.raises(UsageError, match="gives 1 of the 4096 rows"):
        build(tmp_path / "out", thirds)
    assert not (tmp_path / "out").exists()


def test_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path / "python311.zip")})
    with pytest.raises(UsageError, match="out of reach"):
        build(tmp_path / "out", thirds)


def test_what_can_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_library(tmp_path, monkeypatch)
    small_recipe(monkeypatch)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="can't write the demo"):
        build(tmp_path / "file" / "demo", thirds)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "data.jsonl"
    target.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        build_module._write(target, "lone \ud800")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"data.jsonl": "old"}


def other_python() -> str | None:
    """An interpreter of another version that lorads supports, if one is installed."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [shutil.which(f"python3.{minor}") for minor in (14, 13, 12, 11)]
    found += sorted(map(str, versions.glob("3.1[1-9].*/bin/python3")), reverse=True)
    for python in found:
        if python is not None:
            asked = subprocess.run(
                [python, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, timeout=20
            )
            version = tuple(map(int, asked.stdout.split()))
            if asked.returncode == 0 and version >= (3, 11) and version != sys.version_info[:2]:
                return python
    return None


def test_another_python(tmp_path: Path) -> None:
    python = other_python()
    if python is None:
        pytest.skip("no second Python of version 3.11 or newer is installed")
    program = (
        "import sys; from pathlib import Path; from lorads.demo.build import build\n"
        "build(Path(sys.argv[1]), lambda texts: [len(text) // 3 for text in texts])"
    )
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE_ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [python, "-W", "error", "-c", program, str(tmp_path)]
    subprocess.run(command, check=True, env=environment, timeout=120)
    data, clean = read(tmp_path / "data.jsonl"), read(tmp_path / "clean.jsonl")
    assert len(data) == 4096
    assert [row for row in range(4096) if data[row] != clean[row]] == BAD_ROWS


def test_the_command_says_what_comes_next(made: DemoResult, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def built(directory: Path) -> DemoResult:
        asked.append(directory)
        return made

    monkeypatch.setattr(build_module, "build", built)
    shown = click.testing.CliRunner().invoke(demo_command, [])
    assert shown.exit_code == 0
    assert asked == [Path("lorads-demo")]
    assert f"lorads check {made.data} --tokenizer deepseek-coder" in shown.output
    assert "rows 1808 to 1823 (lines 1809 to 1824)" in shown.output
    assert "TOK005  rows 1812, 1819" in shown.output


def test_help_has_an_example() -> None:
    assert "Example:\n    lorads demo" in click.testing.CliRunner().invoke(demo_command, ["--help"]).output
