"""Transformations for ms-swift: the columns and lists of messages that its preprocessors take.

The columns of a transformation are the same in every row, as swift decides by the columns of the whole file.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from parity.rows import (
    ENDINGS,
    ODD_ANSWERS,
    SYSTEMS,
    Row,
    alpaca,
    alpaca_full,
    answer_of,
    choose,
    message,
    question_of,
    turns_of,
)

THOUGHTS: tuple[Callable[[str], str], ...] = (
    lambda text: f"<think>\n{text[:40]}\n</think>\n\n",
    lambda text: f"<think>{text[:20]}</think>",
    lambda text: "<think>\n\n</think>\n\n",
    lambda text: "<think>\n \n</think> \n\n\n",
    lambda text: "</think>\n\n",
    lambda text: "</think></think>\n",
    lambda text: "<think>\nnever closed\n",
    lambda text: " <think>\nlate\n</think>\n\n",
    lambda text: "\n\n",
    lambda text: "<think>\na\n</think>\n\nb <think>\nc\n</think>\n\n",
    lambda text: "",
    lambda text: "",
)
ODD_QUESTIONS: tuple[Callable[[str], str], ...] = (
    lambda text: "{{QUERY}} and {{RESPONSE}} " + text,
    lambda text: text + " {{ROUND0}} of {{ROUND1}}",
    lambda text: "{{SYSTEM}}" + text,
    lambda text: "",
    lambda text: " ",
    lambda text: text + "<|im_end|>\n<|im_start|>assistant\n",
    lambda text: text + "<image> <bbox><ref-object>",
    lambda text: "</s>" + text + "\n<|EOT|>",
    lambda text: "é①\u00a0" + text + "👩\u200d💻\n",
    lambda text: text,
)
ODD_REPLIES: tuple[Callable[[str], str], ...] = (
    lambda text: text + "\n<|EOT|>",
    lambda text: text + "\n<|EOT|>\n",
    lambda text: text + "<|im_end|>\n",
    lambda text: text + "<|end|>",
    lambda text: text + "<｜end▁of▁sentence｜>",
    lambda text: "<image>" + text + "<video>",
    lambda text: "{{RESPONSE}} {{QUERY}}" + text,
    lambda text: "{{RESPONSE}}",
    lambda text: "<|channel|>analysis<|message|>" + text,
    lambda text: text + "\n",
    lambda text: "\n" + text + "\n\n",
    lambda text: "",
    lambda text: (
        "Thought: so\nAction: look\nAction Input: {}\nObservation: " + text + "\nThought: I know\nFinal Answer: x"
    ),
    lambda text: 'a <tool_call>\n{"name": "f"}\n</tool_call> b <tool_call></tool_call>' + text,
)
FLAGS: tuple[Row, ...] = (
    *({}, {"loss": False}, {"loss": True}, {"loss": None, "loss_scale": 0.0}, {"loss_scale": 2.0}),
    {"loss": True, "loss_scale": 0.0},
)


def alpaca_edges(row: Row) -> Row:
    question, answer = row["instruction"], row["output"]
    output: str | None = ODD_ANSWERS[choose(question, len(ODD_ANSWERS))](answer)
    if choose(answer + "n", 10) == 0:
        output = None
    asked = ODD_QUESTIONS[choose(answer, len(ODD_QUESTIONS))](question)
    return {"instruction": asked, "input": row["input"], "output": output}


def query_response(row: Row) -> Row:
    """swift's own columns."""
    full = alpaca_full(row)
    return {"query": question_of(row), "response": row["output"], **{k: full[k] for k in ("system", "history")}}


def question_answer(row: Row) -> Row:
    """Columns by other names, which swift maps."""
    return {"question": question_of(row), "answer": row["output"], "system_prompt": SYSTEMS[0]}


def two_questions(row: Row) -> Row:
    """Two columns that could be the question: swift takes neither."""
    return {"question": row["instruction"], "problem": row["input"], "response": row["output"]}


def chosen_rejected(row: Row) -> Row:
    """swift's preference rows under sft; in some the rejected answer is the chosen one."""
    rejected = row["output"] if choose(row["output"], 6) == 0 else row["output"][:30]
    turns = [message("user", question_of(row)), message("assistant", row["output"])]
    return {"messages": turns, "rejected_response": rejected}


def _chat(row: Row) -> list[Row]:
    """Three rounds out of an Alpaca row."""
    question, answer = question_of(row), answer_of(row)
    third = max(1, len(answer) // 3)
    words = question.split(" ")
    return [
        *(message("user", question), message("assistant", answer[:third])),
        *(message("user", " ".join(words[:4])), message("assistant", answer[third : 2 * third])),
        *(message("user", " ".join(words[4:9])), message("assistant", answer[2 * third :])),
    ]


def multi_turn(row: Row) -> Row:
    """One to three rounds, with and without a system message."""
    turns = _chat(row)[: 2 * (1 + choose(row["output"] + "r", 3))]
    choice = choose(question_of(row), 5)
    system = [message("system", (*SYSTEMS, "")[choice])] if choice < 4 else []
    return {"messages": system + turns}


def edges(row: Row) -> Row:
    """Odd questions and answers in one to three rounds, and a system text that looks like a mark of the template."""
    turns = _chat(row)[: 2 * (1 + choose(row["output"] + "r", 3))]
    for i, turn in enumerate(turns):
        salt = turn["content"] + str(i)
        odd = ODD_QUESTIONS if turn["role"] == "user" else (*ODD_REPLIES, *ODD_ANSWERS)
        turn["content"] = odd[choose(salt, len(odd))](turn["content"])
    choice = choose(question_of(row), 5)
    systems = ("{{QUERY}}{{SYSTEM}}", " ", "", "Mind {{ROUND0}}. <image>")
    return {"messages": ([message("system", systems[choice])] if choice < 4 else []) + turns}


def repeated(row: Row) -> Row:
    """Messages of one role in a row, an assistant who begins, a user who ends, a system message in the middle."""
    turns = _chat(row)
    answer = answer_of(row)
    extra = [message("assistant", answer[:9]), message("assistant", ""), message("user", answer[:5])]
    choice = choose(question_of(row), 12)
    if choice == 0:
        turns = turns[1:]
    elif choice == 1:
        turns = turns[:-1]
    elif choice == 2:
        turns.insert(3, message("system", "Now be short."))
    elif choice == 3:
        turns = [turns[0]]
    elif choice == 4:
        turns = [turns[1]]
    elif choice == 5:
        turns = [message("system", "Alone."), turns[1]]
    elif choice == 6:
        turns = [message("system", "Alone.")]
    elif choice == 7:
        turns.append(message("tutor", "Who is this?"))
    elif choice == 8:
        turns = turns[:2] + extra[:2] + turns[2:]
    else:
        for k in range(3):
            turns.insert(choose(answer + str(k), len(turns) + 1), dict(extra[choose(answer[k:], 3)]))
    return {"messages": turns}


def flags(row: Row) -> Row:
    """``loss`` and ``loss_scale`` a message, also on answers that are merged, and keys that swift does not know."""
    turns = _chat(row)[: 2 * (1 + choose(row["output"] + "r", 3))]
    if choose(row["output"] + "m", 3) == 0:
        turns.insert(2, message("assistant", answer_of(row)[:12]))
    for i, turn in enumerate(turns):
        turn |= FLAGS[choose(turn["content"] + str(i), len(FLAGS))]
        turn["weight"] = choose(turn["content"], 2)
    return {"messages": turns}


def thinking(row: Row) -> Row:
    """Thoughts in every state, in one to three rounds; now and then two answers in a row."""
    turns = _chat(row)[: 2 * (1 + choose(row["output"] + "r", 3))]
    for i, turn in enumerate(turns):
        if turn["role"] == "assistant":
            salt = turn["content"] + str(i)
            turn["content"] = THOUGHTS[choose(salt, len(THOUGHTS))](turn["content"]) + turn["content"]
    if choose(row["output"] + "m", 5) == 0:
        turns.insert(2, message("assistant", THOUGHTS[choose(answer_of(row), len(THOUGHTS))]("x") + "more"))
    return {"messages": turns}


def arguments(row: Row) -> Row:
    """Template arguments a row; some rows end with the question."""
    choices: tuple[Row | None, ...] = (
        *({"enable_thinking": True}, {"enable_thinking": False}, {"preserve_thinking": False}),
        *({"response_prefix": "<think>\nHm"}, {"enable_thinking": True, "preserve_thinking": True}, None),
    )
    turns = thinking(row)["messages"]
    if choose(row["output"] + "e", 3) == 0:
        turns = turns[:-1]
    return {"messages": turns, "chat_template_kwargs": choices[choose(question_of(row), len(choices))]}


def sharegpt(row: Row) -> Row | None:
    """ShareGPT's names, with a system column in some rows."""
    names = {"user": "human", "assistant": "gpt", "system": "system"}
    turns = turns_of(row)
    if not turns:
        return None
    choice = choose(turns[0]["content"], 4)
    return {
        "conversations": [{"from": names[m["role"]], "value": m["content"]} for m in turns],
        "system": (*SYSTEMS[:2], "", None)[choice],
    }


def _calls(row: Row) -> list[Row]:
    turns: list[Row] = []
    for k, turn in enumerate(row["conversations"]):
        if turn["from"] == "function_call":
            call = json.loads(turn["value"])
            function = {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
            said = ("", "Let me see.")[choose(turn["value"], 2)]
            tool_call = {"id": f"c{k}", "type": "function", "function": function}
            turns.append({"role": "assistant", "content": said, "tool_calls": [tool_call]})
        elif turn["from"] == "observation":
            turns.append({"role": "tool", "content": turn["value"], "tool_call_id": f"c{k - 1}"})
        else:
            turns.append(message("user" if turn["from"] == "human" else "assistant", turn["value"]))
    return turns


def tools_openai(row: Row) -> Row:
    """OpenAI's tool calls, arguments and tools as JSON texts; some rows have two calls in one message."""
    turns = _calls(row)
    for i, turn in enumerate(turns):
        if "tool_calls" in turn and choose(turn["tool_calls"][0]["function"]["arguments"], 3) == 0:
            second = {"id": "d", "type": "function", "function": turn["tool_calls"][0]["function"]}
            turn["tool_calls"].append(second)
            if i + 1 < len(turns) and turns[i + 1]["role"] == "tool":
                turns.insert(i + 1, {"role": "tool", "content": "second\n", "tool_call_id": "d"})
    return {"messages": turns, "tools": row["tools"]}


def tools_own(row: Row) -> Row:
    """swift's own roles, with results that no call stands before in some rows, and flags."""
    turns: list[Row] = []
    for turn in row["conversations"]:
        role = {"human": "user", "gpt": "assistant", "function_call": "tool_call"}.get(turn["from"], "tool_response")
        turns.append(message(role, turn["value"]))
    choice = choose(row["conversations"][0]["value"], 5)
    if choice == 0:
        turns.insert(1, message("tool", "The time is 12:00.\n"))
    elif choice == 1:
        turns.insert(0, message("system", SYSTEMS[0]))
    elif choice == 2:
        for i, turn in enumerate(turns):
            turn["loss"] = bool(choose(turn["content"] + str(i), 2))
    return {"messages": turns, "tools": row["tools"] if choice != 3 else "[]"}


def tools_sharegpt(row: Row) -> Row:
    """The rows of the file themselves."""
    return {"conversations": row["conversations"], "tools": row["tools"]}


def prompt_completion(row: Row) -> Row:
    return {"prompt": question_of(row) + ENDINGS[choose(row["output"], 3)], "completion": row["output"]}


TRANSFORMATIONS: dict[str, Callable[[Row], Row | None]] = {
    "ms-swift/" + function.__name__.replace("_", "-"): function
    for function in (
        *(alpaca, alpaca_full, alpaca_edges, query_response, question_answer, two_questions, chosen_rejected),
        *(multi_turn, edges, repeated, flags, thinking, arguments, sharegpt),
        *(tools_openai, tools_own, tools_sharegpt, prompt_completion),
    )
}
