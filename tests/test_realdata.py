"""The helper that fetches real data: checks what it gets, says why it can't."""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

import realdata

FILES = {"thing-1/data/a.txt": b"alpha", "thing-1/data/sub/b.txt": b"beta", "thing-1/other.txt": b"other"}


def archive(folder: Path, kind: str, files: dict[str, bytes]) -> Path:
    if kind == "wheel":
        file = folder / "thing-1-py3-none-any.whl"
        with zipfile.ZipFile(file, "w") as packed:
            for name, content in files.items():
                packed.writestr(name, content)
        return file
    file = folder / "thing-1.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file


def entry(path: str, content: bytes) -> dict[str, str]:
    return {"package": "thing", "path": path, "sha256": hashlib.sha256(content).hexdigest(), "format": "text"}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A catalogue of one package; ``files`` is what its archive holds, ``downloads`` how often it was fetched."""
    lines = "".join(f"{hashlib.sha256(c).hexdigest()}  {n}\n" for n, c in (("a.txt", b"alpha"), ("sub/b.txt", b"beta")))
    known = {
        "packages": {"thing": {"version": "1", "kind": "sdist", "sha256": "0" * 64, "backend": "some.backend"}},
        "files": {
            "thing/a": entry("thing-1/data/a.txt", b"alpha"),
            "thing/data": entry("thing-1/data/", lines.encode()),
        },
    }
    state: dict[str, Any] = {"files": FILES, "downloads": 0, "kind": "sdist"}

    def download(package: str, facts: dict[str, Any], folder: Path) -> Path:
        state["downloads"] += 1
        return archive(folder, state["kind"], state["files"])

    monkeypatch.setenv("LORADS_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(realdata, "catalogue", lambda: known)
    monkeypatch.setattr(realdata, "_download", download)
    realdata._fetch.cache_clear()
    return state


@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_files_and_folders(kind: str, world: dict[str, Any]) -> None:
    world["kind"] = kind
    assert realdata.path("thing/a").read_bytes() == b"alpha"
    assert (realdata.path("thing/data") / "sub" / "b.txt").read_bytes() == b"beta"
    assert world["downloads"] == 1
    assert realdata.ids("thing/d") == ["thing/data"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (FILES | {"thing-1/data/a.txt": b"other"}, "another sha256"),
        (FILES | {"thing-1/data/new.txt": b""}, "another sha256"),
        ({"thing-1/other.txt": b""}, "no thing-1/data/a.txt"),
    ],
)
def test_what_is_not_what_the_catalogue_says(files: dict[str, bytes], words: str, world: dict[str, Any]) -> None:
    world["files"] = files
    with pytest.raises(realdata.Unavailable, match=words):
        realdata.path("thing/data")


def test_a_test_is_skipped_with_the_reason(world: dict[str, Any]) -> None:
    world["files"] = {}
    with pytest.raises(pytest.skip.Exception, match="thing 1: no thing-1/data/a"):
        realdata.require("thing/a")
    with pytest.raises(KeyError):
        realdata.require("no/such/id")


def test_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(command: list[str], **options: Any) -> Any:
        assert "--require-hashes" in command
        assert "--no-build-isolation" in command
        assert (tmp_path / "backend" / "some" / "backend.py").is_file()
        return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: no route to anywhere\n")

    monkeypatch.setattr(subprocess, "run", fails)
    facts = {"version": "1", "kind": "sdist", "sha256": "0" * 64, "backend": "some.backend"}
    with pytest.raises(realdata.Unavailable, match="no route to anywhere"):
        realdata._download("thing", facts, tmp_path)


def test_assets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LORADS_TEST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LORADS_ASSETS", raising=False)
    with pytest.raises(pytest.skip.Exception, match="LORADS_ASSETS is not set"):
        realdata.asset("x/a.txt")
    monkeypatch.setenv("LORADS_ASSETS", str(tmp_path / "assets"))
    with pytest.raises(pytest.skip.Exception, match="names no folder"):
        realdata.asset("x/a.txt")
    folder = tmp_path / "assets" / "x"
    folder.mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"plain")
    (folder / "b.txt.gz").write_bytes(gzip.compress(b"packed"))
    assert realdata.asset("x/a.txt").read_bytes() == b"plain"
    assert realdata.asset("x/b.txt").read_bytes() == b"packed"
    unpacked = realdata.asset_dir("x")
    assert {file.name: file.read_bytes() for file in unpacked.iterdir()} == {"a.txt": b"plain", "b.txt": b"packed"}
    with pytest.raises(pytest.skip.Exception, match="not among the files"):
        realdata.asset("x/c.txt")


def test_every_entry_names_a_package_and_a_licence() -> None:
    known = realdata.catalogue()
    for name, facts in known["files"].items():
        assert facts["package"] in known["packages"], name
        assert len(facts["sha256"]) == 64
    for facts in known["packages"].values():
        assert facts["licence"]
        assert facts["kind"] == "wheel" or facts["backend"]
