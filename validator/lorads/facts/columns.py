"""The names of facts, as expressions for rules."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from lorads.facts.schema import FACTS, HIT

if TYPE_CHECKING:
    import polars as pl


class Facts:
    """``facts.label_tokens`` is the column as a polars expression; a name that is no fact is an AttributeError.

    For a column of kind HIT, ``facts.code(name)`` is its ``code``.
    """

    def __getattr__(self, name: str) -> pl.Expr:
        if name not in FACTS:
            near = difflib.get_close_matches(name, FACTS, 1)
            raise AttributeError(f"no fact is called {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        import polars as pl

        return pl.col(name)

    def code(self, name: str) -> pl.Expr:
        """The ``code`` of a HIT column: null where nothing was found."""
        if name not in FACTS or FACTS[name].dtype != HIT:
            raise AttributeError(f"{name!r} is no fact that says where something was found")
        import polars as pl

        return pl.col(name).struct.field("code")
