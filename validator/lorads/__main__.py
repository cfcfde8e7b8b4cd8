"""``python -m lorads``."""

from __future__ import annotations

from lorads.cli import main

main()
