"""The command line: parses, calls, prints. One module a command, imported when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from lorads import __version__

# numpy starts threads for linear algebra, of which lorads does none, and every process pays for them
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

COMMANDS = {
    "check": "Judge the data: what will the trainer learn from it?",
    "view": "Show one row as the trainer sees it.",
    "tokenize": "Write the ids and labels that the trainer would feed.",
    "doctor": "Compare what is installed with what the tokenizer's files say.",
    "rules": "List the rules.",
    "explain": "Show one rule's page.",
    "demo": "Build a real incident to try lorads on.",
}


class Lazy(click.Group):
    """A group that imports a command's module only to run it, so that ``lorads --help`` stays quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"lorads.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            hint = f" Did you mean '{near[0]}'?" if near else f" Commands: {', '.join(COMMANDS)}."
            raise click.UsageError(error.message + hint, ctx) from None

    def invoke(self, ctx: click.Context) -> object:
        from lorads.errors import LoradsError

        try:
            return super().invoke(ctx)
        except LoradsError as error:
            from lorads.findings.rule import escape

            click.echo(f"lorads: {escape(str(error))}", err=True)
            hint = getattr(error, "hint", "")
            if hint:
                click.echo(f"  → {escape(hint)}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("lorads: interrupted", err=True)
            ctx.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            # a gate that could not do its work must not look like one that found something (exit 1)
            if os.environ.get("LORADS_TRACEBACK"):
                raise
            click.echo(f"lorads: internal error: {type(error).__name__}: {error}", err=True)
            click.echo("  → this is a fault of lorads: LORADS_TRACEBACK=1 shows where; please report it", err=True)
            ctx.exit(2)


@click.group(
    cls=Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="\b\nStart with:\n  lorads demo && lorads check lorads-demo/data.jsonl --tokenizer deepseek-coder",
)
@click.version_option(__version__, prog_name="lorads")
def cli() -> None:
    """Check a fine-tuning dataset as your trainer will see it, before you spend GPU hours on it."""


def main() -> None:
    """The ``lorads`` command. Exit codes: 0 clean, 1 findings, 2 lorads could not do its work."""
    try:
        cli.main(prog_name="lorads", standalone_mode=True)
    except BrokenPipeError:
        # whoever read our output has gone (`lorads … | head`): nothing is wrong, and nothing more can be said
        sys.stderr.close()
        sys.exit(0)
