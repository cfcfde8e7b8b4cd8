"""The built-in rules: one file each, in a folder per family.

Any other rule pack does the same: a module with a function ``rules()``, named in the entry-point group
``lorads.rules``.
"""

from __future__ import annotations

import pkgutil
import tomllib
from importlib import import_module
from importlib.resources import files

from lorads.findings import Rule


def rules() -> list[Rule]:
    """One instance of every rule defined in a module below this package, sorted by id."""
    found: list[Rule] = []
    for info in pkgutil.walk_packages(__path__, f"{__name__}."):
        module = import_module(info.name)
        found += [
            value()
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Rule) and value.__module__ == info.name
        ]
    return sorted(found, key=lambda rule: rule.id)


def precedence() -> dict[str, frozenset[str]]:
    """Which findings are not told for a row when a rule fires there: rule id → ids of the rules that it explains.

    Read from ``precedence.toml``, where a family's prefix stands for all its rules.
    """
    table = tomllib.loads(files(__name__).joinpath("precedence.toml").read_text(encoding="utf-8"))["explains"]
    ids = [rule.id for rule in rules()]
    return {
        rule: frozenset(id for id in ids if id != rule and id.startswith(tuple(explained)))
        for rule, explained in table.items()
    }
