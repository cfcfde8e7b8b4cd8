"""The sentences that are put before a tokenizer and a trainer: each has something that versions disagree about."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]

CODE = """def total(prices, tax=0.19):
    if not prices:
        return 0

\t# the tax comes last
    return sum(prices)
"""

QUESTION = "Which planet is the largest?"
ANSWER = "Jupiter: it weighs more than twice as much as all the others together."


def texts(eos: str | None) -> dict[str, str]:
    """Plain texts by what they try out; ``eos`` is the tokenizer's end token."""
    found = {
        "code with indentation": CODE,
        "a sentence": "Two  spaces here, a tab\tthere, and at the end of the line one more. \nThe next line.",
        "leading spaces": "  two spaces come first",
        "other scripts": "Zürich, 30 °C – naïve? 東京タワー, Привет, مرحبا 🙂",
        "one letter": "a",
    }
    if eos:
        found["an end token inside"] = f"It ends here.{eos}\nAnd goes on."
    return found


def conversations() -> dict[str, list[Row]]:
    """Conversations by what they try out."""
    return {
        "one question": [_user(QUESTION), _assistant(ANSWER)],
        "two questions": [
            *(_user(QUESTION), _assistant(ANSWER)),
            *(_user("And the smallest?"), _assistant("Mercury.")),
        ],
        "a system message": [
            {"role": "system", "content": "You answer in code."},
            *(_user("Add up some prices."), _assistant(CODE)),
        ],
        "other scripts": [_user("Wie heißt Tokio auf Japanisch?"), _assistant("東京 – „Tōkyō“ 🙂")],
        "an empty answer": [_user("Say nothing."), _assistant("")],
    }


def training_rows(rendered: str | None) -> dict[str, list[Row]]:
    """Rows for a trainer by dataset type, as lorads' formats are called; ``rendered``: a conversation as text."""
    texts_ = [{"text": CODE}, {"text": "The sky was clear, and nobody asked why."}]
    if rendered is not None:
        texts_.append({"text": rendered})
    kinds: dict[str, list[Row]] = {
        "text": texts_,
        "prompt-completion": [
            {"prompt": f"Question: {QUESTION}\nAnswer:", "completion": f" {ANSWER}"},
            {"prompt": "Add up some prices.\n\n", "completion": CODE},
        ],
    }
    if rendered is not None:
        chats = [messages for messages in conversations().values() if messages[0]["role"] == "user"]
        kinds["messages"] = [{"messages": messages} for messages in chats]
        kinds["prompt-completion-messages"] = [
            {"prompt": messages[:-1], "completion": messages[-1:]} for messages in chats if messages[-1]["content"]
        ]
    return kinds


def _user(content: str) -> Row:
    return {"role": "user", "content": content}


def _assistant(content: str) -> Row:
    return {"role": "assistant", "content": content}
