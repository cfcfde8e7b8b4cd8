"""``{% generation %}`` blocks, which mark what the assistant wrote, without an extension of the template engine.

transformers (``AssistantTracker`` in ``utils/chat_template_utils.py``, 5.23) gives the block a scope of its own and
records where its output begins and ends. Neither engine knows the block here: its tags are rewritten into a scope that
puts out two variables, which are empty in a plain render and private characters where the spans are wanted.
"""

from __future__ import annotations

import re

BEGIN, END = "lorads_generation_begin", "lorads_generation_end"
"""Names of the two variables in the rewritten template."""

_TAG = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
_RAW = re.compile(r"\{%[-+]?\s*raw\s*[-+]?%\}")
_END_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_OPENING = re.compile(r"\{[{%#]")
_STRING_OR_BRACE = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[{}]|%\}", re.S)


def rewrite(source: str) -> tuple[str, bool]:
    """The template without generation tags, and whether it had any. Comments, strings and raw blocks stay as they are.

    The whitespace control of the tags (``-``, ``+``, and the environment's trim_blocks and lstrip_blocks) acts on the
    same characters as before: the first and the last tag of each replacement are block tags, with nothing between.
    """
    if _TAG.search(source) is None:
        return source, False
    pieces: list[str] = []
    kept, position, found = 0, 0, False
    while (opening := _OPENING.search(source, position)) is not None:
        start = opening.start()
        tag = _TAG.match(source, start)
        if tag is not None:
            left, closing, right = tag.groups()
            pieces.append(source[kept:start])
            if closing:
                pieces.append(f"{{%{left} endwith %}}{{{{ {END} }}}}{{% endif {right}%}}")
            else:
                pieces.append(f"{{%{left} if true %}}{{{{ {BEGIN} }}}}{{% with {right}%}}")
            kept = position = tag.end()
            found = True
        else:
            position = _after(source, start)
    pieces.append(source[kept:])
    return "".join(pieces), found


def _after(source: str, start: int) -> int:
    """The position behind the comment, raw block, statement or expression that opens at ``start``."""
    kind = source[start : start + 2]
    if kind == "{#":
        end = source.find("#}", start)
        return len(source) if end < 0 else end + 2
    if raw := _RAW.match(source, start):
        closing = _END_RAW.search(source, raw.end())
        return len(source) if closing is None else closing.end()
    depth, position = 0, start + 2
    while (token := _STRING_OR_BRACE.search(source, position)) is not None:
        position = token.end()
        text = token.group()
        if text == "{":
            depth += 1
        elif text == "}" and depth:
            depth -= 1
        elif (text == "}" and kind == "{{" and source[position : position + 1] == "}") or (
            text == "%}" and kind == "{%" and not depth
        ):
            return position + (text == "}")
    return len(source)
