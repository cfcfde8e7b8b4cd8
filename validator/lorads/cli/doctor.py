"""``lorads doctor``."""

from __future__ import annotations

import sys
from typing import Any

import click

from lorads.cli.options import config_of


@click.command(epilog="\b\nExample:\n  lorads doctor --tokenizer deepseek-coder --python ~/train/.venv")
@click.option(
    "--tokenizer", metavar="T", help="Alias (deepseek-coder ships inside), directory, tokenizer.json, GGUF or hub id."
)
@click.option("--revision", metavar="R", help="Hub revision of the tokenizer.")
@click.option("--chat-template", metavar="X", help="Template name, file, or 'none'.  [default: the tokenizer's own]")
@click.option(
    "--python",
    metavar="PATH",
    help="The environment to look at: an interpreter or a virtual environment.  [default: lorads' own]",
)
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--output", metavar="FILE", help="Write there instead of to the terminal.")
@click.option(
    "--config", "config_file", metavar="FILE", help="Configuration.  [default: lorads.toml, else pyproject.toml]"
)
@click.pass_context
def doctor(
    ctx: click.Context,
    /,
    python: str | None,
    output_format: str,
    output: str | None,
    config_file: str | None,
    **given: Any,
) -> None:
    """Compare what the installed transformers and trainer build with what the tokenizer's files say.

    Looks at ids, special tokens, spaces, the chat template and, where TRL is installed, at what is trained. Nothing is
    fetched. Exit code 0: nothing is wrong, 1: something differs, 2: it could not be found out.
    """
    from lorads.doctor import examine

    config = config_of(config_file)

    def pick(name: str, default: str | None = None) -> Any:
        value = given.get(name)
        return value if value is not None else getattr(config, name, None) or default

    tokenizer = pick("tokenizer")
    if tokenizer is None:
        raise click.UsageError(
            "Which tokenizer? Give --tokenizer deepseek-coder (ships inside), a directory, tokenizer.json or hub id."
        )

    def progress(message: str) -> None:
        if sys.stderr.isatty():
            click.echo(f"{message} …", err=True)

    diagnosis = examine(
        tokenizer,
        chat_template=pick("chat_template"),
        revision=pick("revision"),
        load_as=pick("load_as", "transformers"),
        python=python,
        progress=progress,
    )
    if output is None:
        _write(diagnosis, output_format, sys.stdout)
    else:
        from lorads.atomic import replacing

        with replacing(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
            _write(diagnosis, output_format, stream)
    ctx.exit(1 if diagnosis.wrong else 0)


def _write(diagnosis: Any, output_format: str, stream: Any) -> None:
    if output_format == "json":
        import orjson

        stream.write(orjson.dumps(diagnosis.as_dict(), option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        from lorads.doctor.page import write_page

        write_page(diagnosis, stream)
