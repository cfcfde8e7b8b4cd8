"""Facts: what is true of each row, as columns. See ``lorads.facts.schema`` for the list."""

from __future__ import annotations

from lorads.facts.columns import Facts
from lorads.facts.schema import FACTS, HIT, Fact, Hit

__all__ = ["FACTS", "HIT", "Fact", "Facts", "Hit"]
