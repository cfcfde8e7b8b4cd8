from __future__ import annotations

import pytest


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Verdicts on templates go to a folder of this run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORADS_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield
