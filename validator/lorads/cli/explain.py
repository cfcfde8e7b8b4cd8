"""``lorads explain``."""

from __future__ import annotations

import click


@click.command(epilog="\b\nExample:\n  lorads explain LAB001")
@click.argument("rule_id", metavar="RULE")
def explain(rule_id: str) -> None:
    """Show one rule's page: what it is, what it does to a training run, how to mend it."""
    from lorads.errors import UsageError
    from lorads.findings.catalogue import load_catalogue

    catalogue = load_catalogue()
    by_name = {rule.name: id_ for id_, rule in catalogue.rules.items()}
    wanted = by_name.get(rule_id.lower(), rule_id.upper())
    if wanted not in catalogue.rules:
        import difflib

        near = difflib.get_close_matches(wanted, [*catalogue.rules, *by_name], 1)
        raise UsageError(
            f'no rule is called "{rule_id}"',
            (f"did you mean {near[0]}? " if near else "") + "`lorads rules` lists them all",
        )
    rule = catalogue.rules[wanted]
    fix = {"safe": "safe", "unsafe": "with --unsafe-fixes", "none": "by hand"}[rule.fix]
    click.echo(f"{rule.id}  {rule.name}\nseverity: {rule.severity.value}   fix: {fix}\n")
    click.echo(rule.page())
