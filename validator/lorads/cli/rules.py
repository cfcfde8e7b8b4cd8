"""``lorads rules``."""

from __future__ import annotations

import click


@click.command(epilog="\b\nExample:\n  lorads rules --output-format json")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def rules(output_format: str) -> None:
    """List the rules: id, severity, name and what each looks for."""
    from lorads.findings.catalogue import load_catalogue

    catalogue = load_catalogue().rules.values()
    if output_format == "json":
        import orjson

        listed = [
            {
                "id": rule.id,
                "name": rule.name,
                "severity": rule.severity.value,
                "fix": rule.fix,
                "evidence": list(rule.evidence),
                "summary": rule.page().split("\n", 1)[0],
            }
            for rule in catalogue
        ]
        click.echo(orjson.dumps(listed, option=orjson.OPT_INDENT_2).decode())
        return
    for rule in catalogue:
        click.echo(f"{rule.id}  {rule.severity.value:<7}  {rule.name:<26} {rule.page().splitlines()[0]}")
