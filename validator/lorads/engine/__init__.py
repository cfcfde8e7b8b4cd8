"""The engine: settings in, a report out. ``check`` is the whole of it for most callers."""

from __future__ import annotations

from lorads.engine.run import check
from lorads.engine.settings import Settings
from lorads.findings import Report

__all__ = ["Report", "Settings", "check"]
