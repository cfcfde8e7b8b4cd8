from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Verdicts on templates go to a folder of this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORADS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _plans_from_a_few_rows_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans are made for small batches too, so that tests need not be large."""
    from lorads.templates import template

    monkeypatch.setattr(template, "_WORTH_A_PLAN", {"minijinja": 12, "jinja2": 48})
