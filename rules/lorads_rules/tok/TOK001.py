from __future__ import annotations

from typing import TYPE_CHECKING

from lorads.findings import Row, RowRule, Severity, escape, show
from lorads_rules.words import hit, more, ordinary_tokens, text_in, the_token

if TYPE_CHECKING:
    import polars as pl

    from lorads.facts import Facts

RENDERED = ("messages", "prompt-completion-messages")


class ConfusableSpecialToken(RowRule):
    """A string looks like one of the model's special tokens, but isn't it.

    Why it matters: a model is told where a turn begins and ends by special tokens, each of them a single number. A
    string that differs in one character, however alike it looks, is cut into ordinary pieces. The model then learns to
    write those pieces and never learns to stop: the loss looks healthy and falls, and in use the answers go on and on
    or show odd marks.

    Example: DeepSeek's end of a sentence has wide bars (U+FF5C) and low blocks (U+2581); its end of turn has plain
    bars. Each is easily typed in the other's way.

        <｜end▁of▁sentence｜>   one token, 32014        <|end_of_sentence|>   ten ordinary tokens
        <|EOT|>                one token, 32021        <｜EOT｜>              ten ordinary tokens

    How to fix: put the real token there, or better take the string out and let the chat template write it.

    This is an error where a turn begins or ends, and a warning inside a text, which may be about tokens.

    Not reported: the token itself (see TOK005 and TPL008); pipes in code such as `a |> b`; HTML tags such as `<s>`.

    Evidence: deepseek-ai/DeepSeek-MoE#37, deepspeedai/DeepSpeedExamples#819, deepseek-ai/DeepSeek-V3#385,
    deepseek-ai/DeepSeek-V2#85, deepseek-ai/DeepSeek-Coder#147, deepseek-ai/DeepSeek-R1#52.
    """

    id = "TOK001"
    name = "confusable-special-token"
    severity = Severity.ERROR
    fix = "safe"
    place = "confusable"
    evidence = (
        "deepseek-ai/DeepSeek-MoE#37",
        "deepspeedai/DeepSpeedExamples#819",
        "deepseek-ai/DeepSeek-V3#385",
        "deepseek-ai/DeepSeek-V2#85",
        "deepseek-ai/DeepSeek-Coder#147",
        "deepseek-ai/DeepSeek-R1#52",
    )

    def when(self, facts: Facts) -> pl.Expr:
        return facts.code("confusable").is_not_null()

    def severity_of(self, row: Row) -> Severity:
        return self.severity if hit(row, "confusable")["code"] == "boundary" else Severity.WARNING

    def message(self, row: Row) -> str:
        found = hit(row, "confusable")
        if not found.get("expected"):
            return f"{text_in(found)} looks like a special token, but this tokenizer has none like it{more(found)}"
        why = f" ({escape(found['detail'])})" if found.get("detail") else ""
        looks = f"{text_in(found)} looks like the special token {the_token(found)}"
        return f"{looks}, but is {ordinary_tokens(found)}{why}{more(found)}"

    def hint(self, row: Row) -> str:
        found = hit(row, "confusable")
        if not found.get("expected"):
            return "take it out, or put the token there that this model ends its turns with"
        if row.get("kind") in RENDERED and found["code"] == "boundary":
            return "take it out: the chat template marks the beginning and the end of turns by itself"
        if found["code"] == "boundary":
            return f"take it out, or write the token itself: {show(found['expected'])}"
        return f"leave it if the text is about tokens; if the token is meant, write {show(found['expected'])}"
