from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """lorads' cache for this test run alone: nothing is read from, or left in, the user's."""
    folder = tmp_path_factory.mktemp("lorads-cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LORADS_CACHE_DIR", str(folder))
        yield folder
