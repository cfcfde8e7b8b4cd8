"""The cache: whole files or none, and never in the way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lorads import cache


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LORADS_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_reads_what_was_written(folder: Path) -> None:
    assert cache.read("a", "b") is None
    cache.write(b"one", "a", "b")
    cache.write(b"two", "a", "b")
    assert cache.read("a", "b") == b"two"
    assert [file.name for file in (folder / "a").iterdir()] == ["b"]


def test_nothing_is_left_of_a_failed_write(folder: Path) -> None:
    (folder / "a" / "b").mkdir(parents=True)
    cache.write(b"x", "a", "b")
    assert cache.read("a", "b") is None
    assert [file.name for file in (folder / "a").iterdir()] == ["b"]


@pytest.mark.skipif(sys.platform == "win32", reason="the variables are those of Unix")
def test_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORADS_CACHE_DIR", "/own")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache.directory() == Path("/own")
    monkeypatch.delenv("LORADS_CACHE_DIR")
    assert cache.directory() == Path("/xdg/lorads")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache.directory().is_relative_to("/home/me")


def test_seal() -> None:
    sealed = cache.sealed(b"content")
    assert cache.unsealed(sealed) == b"content"
    assert cache.unsealed(sealed[:-1]) is None
    assert cache.unsealed(b"") is None
    assert cache.unsealed(None) is None
    assert cache.unsealed(cache.sealed(b"")) == b""
