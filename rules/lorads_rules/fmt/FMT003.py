from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity, escape, show
from lorads_rules.words import hit, said

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts

WHAT = {
    "unknown-role": "a message has a role that no chat template knows",
    "system-not-first": "a system message stands in the middle of the conversation",
    "repeated-role": "two messages in a row have the same role",
    "no-assistant": "there is no assistant message, so there is no answer to learn",
    "assistant-first": "the conversation begins with the assistant",
    "last-not-assistant": "the last message is not from the assistant, and nothing answers it",
}


class RoleSequence(RowRule):
    """The roles of a conversation come in an order, or under names, that templates and trainers do not expect.

    Why it matters: a chat template is a small program that expects question and answer in turn. Some templates stop
    with an error such as "Conversation roles must alternate", which ends the run; some render a conversation that the
    model will never meet in use; some trainers drop the row. A conversation without an assistant message has nothing
    to teach: by default TRL then trains the user's words.

    Example: two user messages in a row.

        user: How do I reverse a list?
        user: In Python, I mean.
        assistant: Call reversed() on it.

    How to fix: join neighbours of one role into one message, put a missing turn back, cut off a last question that
    nobody answers, rename roles to system, user, assistant and tool, or take the row out.

    This is an error where the template refuses the row or the trainer drops it, and a warning otherwise.

    Not reported: tool calls and their results, the developer role, prompts of preference data.

    Evidence: huggingface/smol-course#260, unslothai/unsloth#334, hiyouga/LlamaFactory#2529,
    hiyouga/LlamaFactory#7777, FasterDecoding/Medusa#102, huggingface/trl#1225.
    """

    id = "FMT003"
    name = "role-sequence"
    severity = Severity.ERROR
    fix = "unsafe"
    place = "role_problem"
    evidence = (
        "huggingface/smol-course#260",
        "unslothai/unsloth#334",
        "hiyouga/LlamaFactory#2529",
        "hiyouga/LlamaFactory#7777",
        "FasterDecoding/Medusa#102",
        "huggingface/trl#1225",
    )

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("role_problem").is_not_null()

    def severity_of(self, row: Row) -> Severity:
        dropped = row.get("dropped") and not row.get("cut")
        return self.severity if dropped or hit(row, "render_problem") or hit(row, "role_refused") else Severity.WARNING

    def message(self, row: Row) -> str:
        found, failed, refused = hit(row, "role_problem"), hit(row, "render_problem"), hit(row, "role_refused")
        what = escape(found.get("detail") or WHAT.get(found["code"], "the roles come in an unexpected order"))
        if failed:
            return f"{what}; the chat template refuses the row{said(failed)}"
        if refused:
            role = f"the role {show(refused['text'])}" if refused.get("text") else "one of the roles"
            does = f"leaves out what {role} says" if refused["code"] == "ignored" else f"refuses {role}"
            return f"{what}; the chat template {does}"
        if row.get("dropped"):
            return f"{what}; the trainer drops the row: {escape(row['dropped'])}"
        return what

    def hint(self, row: Row) -> str:
        found = hit(row, "role_problem")
        return escape(found.get("expected") or "bring the messages into the order user, assistant, user, assistant …")
