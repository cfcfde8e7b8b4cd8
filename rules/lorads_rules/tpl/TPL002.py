from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity, show
from lorads_rules.words import hit, said

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts


class RoleUnsupported(RowRule):
    """The chat template refuses, or silently leaves out, a role that occurs in the row.

    Why it matters: not every model has a place for every role. Some templates stop with an error at a system message,
    and with them the whole run; others walk past messages whose role they don't know. In the second case training goes
    on and the model never sees the system text or the tool result that the answers depend on.

    Example: a template that knows user and assistant only.

        system: Answer in French.        refused: "System role not supported"
        user: Good morning
        assistant: Bonjour

    How to fix: put the system text in front of the first user message, rename the role to one that the template knows,
    or use a template made for such data.

    Not reported: a role that the template renders in some places and not in others (FMT003, TPL001).

    Evidence: allenai/OLMo-core#849, PromtEngineer/localGPT#720.
    """

    id = "TPL002"
    name = "role-unsupported"
    severity = Severity.ERROR
    fix = "unsafe"
    place = "role_refused"
    evidence = ("allenai/OLMo-core#849", "PromtEngineer/localGPT#720")

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("role_refused").is_not_null()

    def message(self, row: Row) -> str:
        found = hit(row, "role_refused")
        role = f"the role {show(found['text'])}" if found.get("text") else "a role that occurs here"
        if found["code"] == "ignored":
            return f"the chat template does not know {role} and leaves its messages out"
        words = said(found) or said(hit(row, "render_problem"))
        return f"the chat template refuses {role}{words}"

    def hint(self, row: Row) -> str:
        if hit(row, "role_refused").get("text") in ("system", "developer"):
            return "put its text in front of the first user message, or use a chat template that has a place for it"
        return "rename the role to one that the template knows, or use a chat template that has a place for it"
