"""Which keys of a message axolotl passes on to the chat template.

``prompt_strategies/jinja_template_analyzer.py``: those that the template reads of a variable called ``message``, as
attribute or by a constant subscript, however deep. A template that loops under another name, or asks with
``message.get("tool_calls")``, is given neither tool calls nor any other key beside role, content and reasoning.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lorads.errors import UsageError

if TYPE_CHECKING:
    from jinja2 import nodes
    from jinja2.parser import Parser


@lru_cache(maxsize=64)
def message_keys(template: str) -> frozenset[Any]:
    """Raises ``UsageError`` for a template with a syntax that axolotl's reader does not know."""
    from jinja2 import Environment, TemplateSyntaxError, nodes
    from jinja2.ext import Extension

    class Generation(Extension):
        tags = {"generation", "endgeneration"}  # noqa: RUF012 - jinja2's way

        def parse(self, parser: Parser) -> nodes.Node:
            parser.stream.skip(1)
            return nodes.Const("")

    try:
        tree = Environment(extensions=[Generation, "jinja2.ext.loopcontrols"]).parse(template)
    except TemplateSyntaxError as error:
        raise UsageError(
            f"axolotl cannot read the chat template (line {error.lineno}: {error.message})",
            "axolotl knows plain Jinja, loop controls and generation blocks; write the template with these",
        ) from None
    keys = {node.attr for node in tree.find_all(nodes.Getattr) if _base(node.node) == "message"}
    for item in tree.find_all(nodes.Getitem):
        if not isinstance(item.arg, nodes.Const) or isinstance(item.arg.value, (int, float)):
            continue
        if _base(item.node) == "message":
            keys.add(item.arg.value)
    return frozenset(keys)


def _base(node: nodes.Node) -> str | None:
    from jinja2 import nodes

    while isinstance(node, (nodes.Getattr, nodes.Getitem)):
        node = node.node
    return node.name if isinstance(node, nodes.Name) else None
