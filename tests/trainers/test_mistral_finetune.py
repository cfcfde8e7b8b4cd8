"""mistral-finetune: options, refusals, small exact rows. The recordings hold the rest."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

import realdata
from lorads.errors import UsageError
from lorads.formats import Columns, Misfit, normalise
from lorads.tokenizers import Tokenizer, load
from lorads.trainers import LabelBatch, Place, TrainOptions, get
from lorads.trainers.base import place_of
from lorads.trainers.mistral_finetune import Options
from lorads.trainers.mistral_finetune._schema import fault

FILES = {
    "v1": "mistral-common/tokenizer.model.v1",
    "v2": "mistral-common/mistral_instruct_tokenizer_240216.model.v2",
    "v3": "mistral-common/mistral_instruct_tokenizer_240323.model.v3",
    "tekken": "mistral-common/tekken_240718.json",
}
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}]
CALL = {"id": "abcdefgh1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1.0}'}}


@cache
def tokenizer(version: str) -> Tokenizer:
    return load(str(realdata.require(FILES[version])))


def label(rows: list[dict[str, Any]], version: str = "v3", max_length: int | None = 2048, **own: Any) -> LabelBatch:
    trainer = get("mistral-finetune")
    columns = Columns({"messages": "interactions"} if "interactions" in rows[0] else {})
    found = normalise(rows, "text" if "text" in rows[0] else "messages", columns)
    options = TrainOptions(max_length=max_length, own=Options(**own))
    conversations = [conversation for conversation in found if not isinstance(conversation, Misfit)]
    return trainer.prepare(tokenizer(version), None, options).label(conversations)


def chat(*contents: str, **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)], **more}


def shown(batch: LabelBatch, version: str = "v3", row: int = 0) -> str:
    """The fed tokens, a bar in front of each trained one; ``-`` for a row that is not fed."""
    pair = batch.fed(row)
    if pair is None:
        return "-"
    token = tokenizer(version).token
    return " ".join(
        ("|" if target != -100 else "") + token(number) for number, target in zip(pair[0], pair[1], strict=True)
    )


def refuse(**options: Any) -> str:
    with pytest.raises(UsageError) as why:
        get("mistral-finetune").prepare(tokenizer("v3"), None, TrainOptions(**({"max_length": 64} | options)))
    return str(why.value)


def test_settings_it_has_no_word_for() -> None:
    assert "seq_len" in refuse(max_length=None)
    assert "last answer" in refuse(train_on="last")
    assert "answers" in refuse(train_on="all")
    assert "markers" in refuse(response_marker="x")


def test_other_tokenizers() -> None:
    with pytest.raises(UsageError, match="is not a file of mistral-common"):
        get("mistral-finetune").prepare(load("deepseek-coder"), None, TrainOptions(max_length=64))


def test_answer_and_its_end() -> None:
    assert shown(label([chat("hi", "yo  ")])) == "<s> [INST] ▁hi [/INST] |▁yo |</s>"
    assert shown(label([chat("hi", "yo  ")], "tekken"), "tekken") == "<s> [INST] hi [/INST] |yo |</s>"
    first = label([chat("hi", "yo")], "v1")
    assert shown(first, "v1").startswith("<s> ▁[ INST ] ▁hi ▁[ / INST ] |▁yo |</s>")
    assert list(first.texts) == ["<s>[INST] hi [/INST]yo</s>"]


def test_control_tokens_in_content_are_letters() -> None:
    batch = label([chat("[INST]", "a</s>")])
    special = tokenizer("v3").id_of
    pair = batch.fed(0)
    assert pair is not None
    assert [pair[0].count(special(token)) for token in ("[INST]", "</s>", "<s>")] == [1, 1, 1]


def test_weights_and_only_last() -> None:
    row = chat("a", "b", "c", "d")
    row["messages"][1]["weight"] = 0
    assert shown(label([row])) == "<s> [INST] ▁a [/INST] ▁b </s> [INST] ▁c [/INST] |▁d |</s>"
    last = chat("a", "b", "c", "d", only_last=True)
    assert shown(label([last])) == "<s> [INST] ▁a [/INST] ▁b </s> [INST] ▁c [/INST] |▁d |</s>"
    none = chat("a", "b")
    none["messages"][1]["weight"] = 0
    assert "no token" in label([none]).dropped[0]


def test_system_prompt_stands_in_the_last_user_message() -> None:
    row = chat("a", "b", "c", "d", system_prompt="S")
    text = "<s> [INST] ▁a [/INST] |▁b |</s> [INST] ▁S <0x0A> <0x0A> c [/INST] |▁d |</s>"
    assert shown(label([row])) == text
    message = chat("a", "b", "c", "d")
    message["messages"].insert(0, {"role": "system", "content": "S"})
    batch = label([message])
    assert shown(batch) == text
    places = [place_of(batch, _conversation(message), 0, token, tokenizer("v3").special) for token in range(13)]
    assert places[7:11] == [Place.SYSTEM, Place.SCAFFOLD, Place.SCAFFOLD, Place.USER]


def _conversation(row: dict[str, Any]) -> Any:
    return normalise([row], "messages", Columns({}))[0]


def test_tools() -> None:
    row = {
        "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "tool", "content": '{"y":1}', "tool_call_id": "abcdefgh1"},
            {"role": "assistant", "content": "b"},
        ],
        "tools": TOOLS,
    }
    batch = label([row, {**row, "messages": row["messages"][:2]}])
    assert batch.texts is not None
    definition = '{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}'
    front = f"<s>[AVAILABLE_TOOLS][{definition}][/AVAILABLE_TOOLS][INST]a[/INST][TOOL_CALLS]"
    result = '[TOOL_RESULTS]{"content": {"y": 1}, "call_id": "abcdefgh1"}[/TOOL_RESULTS]'
    call = '{"name": "f", "arguments": {"x": 1.0}'
    assert batch.texts[0] == f'{front}[{call}, "id": "abcdefgh1"}}]</s>{result}b</s>'
    assert batch.texts[1] == f"{front}[{call}}}]</s>"
    first, second = batch.fed(0), batch.fed(1)
    assert first is not None
    assert second is not None
    assert sum(target != -100 for target in first[1]) == 2
    assert tokenizer("v3").token(next(target for target in second[1] if target != -100)) == "[TOOL_CALLS]"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (chat("a", ""), "neither a text"),
        (chat("a"), "last message is from user"),
        ({"messages": [{"role": "human", "content": "a"}, {"role": "assistant", "content": "b"}]}, "human"),
        (chat("a", "b", interactions=[]), "both"),
        (chat("a", "b", tools=[{"name": "f"}]), "no function"),
        (chat("a", "b", only_last="perhaps"), "only_last"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "weight": 2}]},
            "0 or 1",
        ),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "tool", "content": "b"}]}, "tool_call_id"),
    ],
)
def test_where_it_stops(row: dict[str, Any], why: str) -> None:
    batch = label([chat("a", "b"), row, chat("c", "d")])
    assert batch.failures[1].kind == "stops"
    assert why in batch.failures[1].message
    assert shown(batch, row=2) == "<s> [INST] ▁c [/INST] |▁d |</s>"


def test_copies_of_a_row_can_stop_it() -> None:
    row = {"messages": [{"role": "assistant", "content": "a"}, *chat("b", "c")["messages"]], "only_last": True}
    assert label([row]).failures
    assert not label([row], dynamic_chunk_fn_call=False).failures


def test_interactions() -> None:
    row = {"interactions": [{"role": "user", "text": "hi"}, {"role": "assistant", "text": "yo"}], "system_prompt": "S"}
    assert shown(label([row])) == "<s> [INST] ▁S <0x0A> <0x0A> hi [/INST] |▁yo |</s>"


def test_texts() -> None:
    assert shown(label([{"text": "hi"}])) == "<s> |▁hi |</s>"
    assert shown(label([{"text": ""}])) == "<s> |</s>"


def test_stretches_without_a_trained_token_are_left_out() -> None:
    # input <s> [INST] a b / c d e [/INST] / f: the first four hold no target that is trained, the next have ▁f
    row = chat("a b c d e", "f")
    assert shown(label([row], max_length=4)) == "▁c ▁d ▁e [/INST] |▁f |</s>"
    assert shown(label([row], max_length=9)) == "<s> [INST] ▁a ▁b ▁c ▁d ▁e [/INST] |▁f |</s>"


def test_every_place_has_a_reason() -> None:
    labeller = get("mistral-finetune").prepare(tokenizer("v3"), None, TrainOptions(max_length=64))
    for place in Place:
        for trained in (True, False):
            assert "mistral-finetune" in labeller.reason(place, trained)


@pytest.mark.parametrize(
    ("schema", "sound"),
    [
        ({}, True),
        (True, True),
        ({"type": "object", "properties": {"a": {"type": ["string", "null"]}}, "required": ["a"]}, True),
        ({"properties": {"a": {"required": True}}}, False),
        ({"properties": {"a": "string"}}, False),
        ({"type": "str"}, False),
        ({"items": {"minLength": -1}}, False),
        ({"anyOf": []}, False),
        ({"pattern": "("}, False),
        ({"dependencies": {"a": ["b"], "c": {}}}, True),
        ({"enum": "a"}, False),
        ({"minimum": True}, False),
        ([], False),
    ],
)
def test_schemas(schema: Any, sound: bool) -> None:
    assert (fault(schema) is None) is sound
