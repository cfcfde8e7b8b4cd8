"""The rules that are installed: the built-in ones and anybody's, through the entry-point group ``lorads.rules``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points

from lorads.errors import UsageError
from lorads.findings.rule import Rule, Severity

GROUP = "lorads.rules"


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All rules by id, and which findings of a row another one already explains (``precedence``)."""

    rules: Mapping[str, Rule]
    precedence: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def expand(self, names: Iterable[str]) -> frozenset[str]:
        """Ids for what a user wrote: ids, family prefixes, or ``ALL``. Raises ``UsageError`` for what is neither."""
        out: set[str] = set()
        for name in names:
            wanted = name.strip().upper()
            matching = [id_ for id_ in self.rules if wanted == "ALL" or id_.startswith(wanted)]
            if not matching or not wanted:
                near = difflib.get_close_matches(wanted, self.rules, 1)
                hint = f"did you mean {near[0]}? " if near else ""
                raise UsageError(f'no rule is called "{name}"', hint + "`lorads rules` lists them all")
            out.update(matching)
        return frozenset(out)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rules are told, which others may still explain a finding away, and severities the user has changed."""

    told: tuple[Rule, ...]
    explaining: frozenset[str]
    severities: Mapping[str, Severity]


def load_catalogue() -> Catalogue:
    """Every rule pack's module has ``rules()``, and may have ``precedence()``."""
    rules: dict[str, Rule] = {}
    precedence: dict[str, frozenset[str]] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: (point.name != "builtin", point.name)):
        pack = point.load()
        for rule in pack.rules():
            if rule.id in rules:
                raise UsageError(
                    f"two rules are called {rule.id}: {type(rules[rule.id]).__module__} and {type(rule).__module__}",
                    f'uninstall one of the packages, or have the rule pack "{point.name}" rename its rule',
                )
            rules[rule.id] = rule
        if hasattr(pack, "precedence"):
            for id_, others in pack.precedence().items():
                precedence[id_] = precedence.get(id_, frozenset()) | others
    if not rules:
        raise UsageError(
            f"no rule is installed (the entry-point group {GROUP} is empty)",
            "install lorads with pip, so that its rules are found",
        )
    return Catalogue(dict(sorted(rules.items())), precedence)


def select(
    catalogue: Catalogue, chosen: Sequence[str], ignored: Sequence[str], severities: Mapping[str, Severity]
) -> Selection:
    """What ``--select``, ``--ignore`` and the configured severities leave.

    A rule that is ignored still explains: ignoring empty answers does not turn each into an unlabelled row. A rule that
    was not selected does not.
    """
    wanted = catalogue.expand(chosen) if chosen else frozenset(catalogue.rules)
    unwanted = catalogue.expand(ignored) if ignored else frozenset()
    told = tuple(rule for id_, rule in catalogue.rules.items() if id_ in wanted - unwanted)
    exact = {id_: severity for name, severity in severities.items() for id_ in catalogue.expand([name])}
    return Selection(told, wanted | unwanted, exact)
