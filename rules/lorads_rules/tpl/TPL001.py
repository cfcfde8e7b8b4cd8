from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lorads.findings import Row, RowRule, Severity, show
from lorads_rules.words import hit, more, place

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts

HINTS = {
    "content": "use a chat template that renders this message; lorads view shows the row as the trainer sees it",
    "reasoning": "use a chat template that renders thinking, or write it into the content",
    "tool_call": "leave out an empty content beside the call, write arguments as an object, or change the template",
    "tools": "use a chat template that renders tool definitions",
}


class ContentLost(RowRule):
    """Something that is in the row does not reach the model: the chat template leaves it out.

    Why it matters: the template decides what of a message is written into the text that is trained. What it leaves out
    is not learnt, and what remains may be wrong: an answer without the system text that explains it, a tool result
    without the call, an answer without the thinking that led to it. Neither the trainer nor the log says a word.

    Example: Qwen3's template removes thinking from all answers but the last.

        assistant: <think>7 is prime.</think>Yes, 7 is prime.     rendered: Yes, 7 is prime.

    How to fix: use a template that renders the part, or write the row so that the template does. To train the thinking
    of every turn, make one row of each answer, with the turns before it as its context.

    This is a warning where all that is lost is thinking in earlier turns, which templates of thinking models intend;
    otherwise an error.

    Not reported: white space at the edges, which templates trim; messages whose role the template doesn't know
    (TPL002).

    Evidence: axon-rl/gem#44, chujiezheng/chat_templates#15, raullenchai/Rapid-MLX#1765, OpenRLHF/OpenRLHF#1228.
    """

    id = "TPL001"
    name = "content-lost"
    severity = Severity.ERROR
    place = "content_lost"
    evidence = (
        "axon-rl/gem#44",
        "chujiezheng/chat_templates#15",
        "raullenchai/Rapid-MLX#1765",
        "OpenRLHF/OpenRLHF#1228",
    )

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("content_lost").is_not_null()

    def severity_of(self, row: Row) -> Severity:
        return Severity.WARNING if row.get("reasoning_lost_early") else self.severity

    def message(self, row: Row) -> str:
        found = hit(row, "content_lost")
        text = f": {show(found['text'])}" if found.get("text") else ""
        return f"the text that is trained leaves out {self._what(row, found)}{text}{more(found)}"

    def hint(self, row: Row) -> str:
        if row.get("reasoning_lost_early"):
            return "leave it if this is what you want; to train this thinking too, make one row of each answer"
        return HINTS.get(hit(row, "content_lost")["code"], HINTS["content"])

    @staticmethod
    def _what(row: Row, found: Mapping[str, Any]) -> str:
        if found["code"] == "tools":
            return "the tool definitions"
        message = place({**found, "field": None})
        if row.get("reasoning_lost_early"):
            return f"the thinking of {message}, an answer before the last one"
        if found["code"] == "reasoning":
            return f"the thinking of {message}"
        if found["code"] == "tool_call":
            return f"the tool call of {message}"
        return f"what is in {place(found)}"
