from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from doctor import standin

Install = Callable[[str, str], None]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """lorads' cache for this test run alone."""
    folder = tmp_path_factory.mktemp("lorads-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORADS_CACHE_DIR", str(folder))
        yield folder


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a stand-in for transformers, of a version and with a behaviour, before what is installed."""
    if importlib.util.find_spec("trl") is not None:
        pytest.skip("a real TRL is installed, which can't run with a stand-in")

    def put(version: str, behaviour: str) -> None:
        folder = tmp_path / "installed"
        standin.write(folder, version, behaviour)
        monkeypatch.setenv("PYTHONPATH", str(folder))

    return put


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """An interpreter without any package."""
    if sys.platform == "win32":
        pytest.skip("a shell script can't stand for an interpreter there")
    wrapper = tmp_path / "python"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "$@"\n', encoding="utf-8")
    wrapper.chmod(0o755)
    return str(wrapper)
