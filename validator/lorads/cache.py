"""The user's cache directory: derived data that can always be made again.

Whatever goes wrong with the cache (no home, no permission, half a file, another version's file) is answered by working
without it. Nothing in it is ever unpickled.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import zlib
from pathlib import Path


def directory() -> Path:
    """``$LORADS_CACHE_DIR``, else the platform's: ``$XDG_CACHE_HOME/lorads``, ``~/.cache/lorads`` …"""
    own = os.environ.get("LORADS_CACHE_DIR")
    if own:
        return Path(own)
    if sys.platform == "win32" and os.environ.get("LOCALAPPDATA"):
        return Path(os.environ["LOCALAPPDATA"], "lorads", "cache")
    if os.environ.get("XDG_CACHE_HOME"):
        return Path(os.environ["XDG_CACHE_HOME"], "lorads")
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - never fails, where Path.home() may
    return home / "Library" / "Caches" / "lorads" if sys.platform == "darwin" else home / ".cache" / "lorads"


def read(*parts: str) -> bytes | None:
    """The content of a cached file, or None when there is none that can be read."""
    try:
        return directory().joinpath(*parts).read_bytes()
    except OSError:
        return None


def write(content: bytes, *parts: str) -> None:
    """Put a file into the cache, whole or not at all."""
    target = directory().joinpath(*parts)
    name = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(name).replace(target)
    except OSError:
        if name is not None:
            with contextlib.suppress(OSError):
                Path(name).unlink()


def sealed(content: bytes) -> bytes:
    """The content with a checksum in front, for files whose damage would not be noticed otherwise."""
    return zlib.crc32(content).to_bytes(4, "big") + content


def unsealed(content: bytes | None) -> bytes | None:
    """What ``sealed`` was given, or None when it isn't that any more."""
    if content is None or zlib.crc32(content[4:]).to_bytes(4, "big") != content[:4]:
        return None
    return content[4:]
