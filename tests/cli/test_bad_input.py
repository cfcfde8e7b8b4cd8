"""Bad input, one by one: one clear message that names the file and what to do, the right exit code, no traceback."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from lorads.cli import cli

ROW = json.dumps({"messages": [{"role": "user", "content": "one and one?"}, {"role": "assistant", "content": "two"}]})
OTHER = ROW.replace("two", "2")


def half_gzip(path: Path) -> None:
    packed = gzip.compress("".join(ROW.replace("one?", f"{i}?") + "\n" for i in range(2000)).encode())
    path.write_bytes(packed[: len(packed) // 2])


def directory(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("nothing for lorads", encoding="utf-8")


def data(path: Path) -> None:
    path.mkdir()
    (path / "a.jsonl").write_text(ROW + "\n", encoding="utf-8")


def raw(content: str | bytes) -> Callable[[Path], object]:
    encoded = content.encode() if isinstance(content, str) else content
    return lambda path: path.write_bytes(encoded)


CASES = [
    ("empty.jsonl", raw(""), 2, "is empty"),
    ("blank.jsonl", raw("\n\n  \n"), 2, "blank.jsonl"),
    ("folder", directory, 2, "holds no data files"),
    ("good", data, 0, "1 rows"),
    ("missing.jsonl", lambda path: None, 2, "does not exist"),
    ("program.jsonl", raw(b"\x7fELF" + bytes(range(256)) * 10), 2, "ELF"),
    ("zeros.jsonl", raw(bytes(4096)), 2, "zeros.jsonl"),
    ("picture.jsonl", raw(b"\x89PNG\r\n\x1a\n" + bytes(64)), 2, "picture.jsonl"),
    ("deep.jsonl", raw(f"{ROW}\n{'[' * 10_000}{']' * 10_000}\n{OTHER}\n"), 1, "10,000 levels"),
    ("half.jsonl.gz", half_gzip, 1, "damaged"),
    ("crlf.jsonl", raw(f"{ROW}\r\n{OTHER}\r\n"), 0, "Nothing found"),
    ("bom.jsonl", raw(b"\xef\xbb\xbf" + f"{ROW}\n{OTHER}\n".encode()), 0, "byte order mark"),
    ("nul.jsonl", raw(f"{ROW}\n\x00\x00\n{OTHER}\n"), 1, "nul.jsonl:2"),
    ("nan.jsonl", raw(f'{ROW}\n{OTHER[:-1]}, "score": NaN}}\n'), 1, "NaN"),
    ("latin.jsonl", raw(f"{ROW}\n".encode() + '{"text": "né"}\n'.encode("latin-1")), 1, "UTF-8"),
    ("cut.jsonl", raw(f"{ROW}\n{OTHER[:60]}"), 1, "cut.jsonl:2"),
    ("twice.jsonl", raw(f'{ROW}\n{OTHER[:-1]}, "messages": []}}\n'), 1, "twice"),
    ("half-emoji.jsonl", raw(f"{ROW}\n" + OTHER.replace("2", "\\ud83d") + "\n"), 1, "surrogate"),
    ("broken.jsonl", raw("{one\n{two\n"), 1, "2 unreadable"),
    ("none.json", raw("[]"), 2, "no row"),
    ("header.csv", raw("instruction,output\n"), 2, "no row"),
    ("other.jsonl", raw('{"puzzle": 1}\n'), 2, "no format that lorads knows"),
    ("number.jsonl", raw("1\n2\n"), 2, "no format that lorads knows"),
    ("half.parquet", raw(b"PAR1" + bytes(100)), 2, "half.parquet"),
]


@pytest.mark.parametrize(("name", "make", "code", "words"), CASES, ids=[case[0] for case in CASES])
def test_bad_input(tmp_path: Path, name: str, make: Callable[[Path], object], code: int, words: str) -> None:
    path = tmp_path / name
    make(path)
    result = CliRunner().invoke(cli, ["check", str(path), "--tokenizer", "deepseek-coder"])
    assert result.exit_code == code, result.output
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_line_over_the_limit_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("w", encoding="utf-8") as stream:
        stream.write(f'{ROW}\n{{"text": "{"x" * (65 << 20)}"}}\n{OTHER}\n')
    result = CliRunner().invoke(cli, ["check", str(path), "--tokenizer", "deepseek-coder"])
    assert result.exit_code == 1
    assert "over the limit" in " ".join(result.output.split())
    assert "2 rows, 1 unreadable" in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.jsonl"
    path.write_text(ROW, encoding="utf-8")
    path.chmod(0)
    result = CliRunner().invoke(cli, ["check", str(path), "--tokenizer", "deepseek-coder"])
    assert (result.exit_code, "permission" in result.output.lower()) == (2, True)


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorads.engine.chain import Chain

    path = tmp_path / "growing.jsonl"
    path.write_text(f"{ROW}\n{OTHER}\n", encoding="utf-8")
    judge = Chain.run

    def run_and_append(*arguments: object) -> object:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(ROW + "\n")
        return judge(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Chain, "run", run_and_append)
    result = CliRunner().invoke(cli, ["check", str(path), "--tokenizer", "deepseek-coder"])
    assert result.exit_code == 2
    assert "changed" in result.output


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("deepseek-codr", None, "deepseek-coder"),
        ("no/such/directory", None, "no/such/directory"),
        ("tokenizer.json", '{"hello": 1}', "no tokenizer"),
        ("tokenizer.json", "hello", "no JSON"),
        ("tokenizer.json", '{"version": "1.0", "model": {"type": "BPE"', "no JSON"),
        ("tokenizer.json", "[" * 100_000, "tokenizer.json"),
        ("weights.gguf", "GGUF but not really", "weights.gguf"),
    ],
)
def test_bad_tokenizers(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text(ROW + "\n", encoding="utf-8")
    tokenizer = name
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
        tokenizer = str(tmp_path / name)
    result = CliRunner().invoke(cli, ["check", str(path), "--tokenizer", tokenizer])
    assert result.exit_code == 2, result.output
    assert words in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}", "template"),
        ("{{ raise_exception('only one turn, please') }}", "only one turn, please"),
        (3 * "{% for i in range(99999) %}" + "x" + 3 * "{% endfor %}", "limit"),
        ("{{ messages.__class__.__mro__ }}", "TPL009"),
    ],
    ids=["syntax", "raises", "loops", "reaches"],
)  # fmt: skip
def test_bad_templates(tmp_path: Path, template: str, words: str) -> None:
    path, jinja = tmp_path / "data.jsonl", tmp_path / "chat.jinja"
    path.write_text(ROW + "\n", encoding="utf-8")
    jinja.write_text(template, encoding="utf-8")
    result = CliRunner().invoke(
        cli, ["check", str(path), "--tokenizer", "deepseek-coder", "--chat-template", str(jinja)]
    )
    assert result.exit_code in (1, 2), result.output
    assert words in " ".join(result.output.split())
    assert "Traceback" not in result.output
