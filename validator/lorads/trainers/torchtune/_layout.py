"""Where torchtune's model tokenizers put tokens around messages, and which of them they train.

A layout says, for messages of a certain shape (roles, number of texts, what is masked), which pieces a row is made of;
rows of one shape share it. ``tokenize_messages`` of ``llama3/_tokenizer.py`` L264, ``qwen2/_tokenizer.py`` L324,
``qwen2_5/_tokenizer.py`` L119 and ``phi3/_tokenizer.py`` L128; ``tokenize_messages_no_special_tokens`` of
``modules/transforms/tokenizers/_utils.py`` L75 for Llama 2, Mistral and Gemma; the prompt templates of
``data/_prompt_templates.py``, ``llama2/_prompt_template.py`` and ``mistral/_prompt_template.py``.

They stop early once the maximum length is reached; since everything behind it is cut off anyway, layouts go on to the
end, and ``error`` says from which piece on a row stops the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lorads.templates.render import PART_CONTENT, PART_NONE, SCAFFOLD

Style = Literal["llama3", "llama2", "mistral", "gemma", "phi3", "qwen2", "qwen2_5"]

Item = int | str
"""A text of a message: one of the row's contents, or a tag of the prompt template."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a layout depends on."""

    roles: tuple[str, ...]
    items: tuple[tuple[int, ...], ...]
    masked: tuple[bool, ...]
    origin: tuple[int, ...]
    spaced: tuple[bool, ...] = ()
    """For each content whether it ends with a space (styles without special tokens)."""
    unanswered: bool = False
    """The last message is the assistant's and empty (ChatML)."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a row: a token (``number``), a text that every row of the shape has, or one of the row's contents."""

    trained: bool
    message: int = SCAFFOLD
    number: int | None = None
    text: str | None = None
    content: int = 0
    trimmed: bool = False
    """Encoded behind a line break, whose tokens are cut off."""

    @property
    def part(self) -> int:
        return PART_NONE if self.message == SCAFFOLD else PART_CONTENT


@dataclass(slots=True)
class Layout:
    pieces: list[Piece] = field(default_factory=list)
    error: tuple[int, str] | None = None
    """From this piece on torchtune stops the run, for that reason; it does not where the row is full before."""
    closed: bool = True
    """The row ends with EOS by itself."""


@dataclass(slots=True)
class Turn:
    """A message after the prompt template."""

    role: str
    items: list[Item]
    masked: bool
    sources: dict[int, int]
    """Content to the conversation's message that it comes from."""


class Refused(Exception):
    """The prompt template raises an exception."""


Tags = Mapping[str, tuple[str, str]]

LLAMA2: Tags = {"system": ("<<SYS>>\n", "\n<</SYS>>\n\n"), "user": ("[INST] ", " [/INST] ")}
MISTRAL: Tags = {"user": ("[INST] ", " [/INST] "), "assistant": ("", ""), "ipython": ("", "")}
CHATML: Tags = {
    **{role: (f"<|im_start|>{role}\n", "<|im_end|>\n") for role in ("system", "user", "assistant")},
    "ipython": ("", ""),
}
NAMED: Mapping[str, tuple[str, Tags]] = {
    "Llama2ChatTemplate": ("llama2", LLAMA2),
    "MistralChatTemplate": ("mistral", MISTRAL),
    "ChatMLTemplate": ("chatml", CHATML),
    "GrammarErrorCorrectionTemplate": ("tags", {"user": ("Correct this to standard English: ", "\n---\nCorrected: ")}),
    "SummarizeTemplate": ("tags", {"user": ("Summarize this dialogue:\n", "\n---\nSummary:\n")}),
    "QuestionAnswerTemplate": ("tags", {"user": ("Question: ", "\n\nAnswer: ")}),
}
"""The prompt templates that torchtune has: which class it is, and its tags."""


@dataclass(frozen=True, slots=True)
class PromptTemplate:
    kind: Literal["none", "tags", "chatml", "llama2", "mistral"]
    tags: Tags = field(default_factory=dict)

    def apply(self, shape: Shape) -> list[Turn]:
        turns = [
            Turn(role, list(items), masked, dict.fromkeys(items, origin))
            for role, items, masked, origin in zip(shape.roles, shape.items, shape.masked, shape.origin, strict=True)
        ]
        if self.kind == "none":
            return turns
        if self.kind == "llama2":
            return self._llama2(turns)
        for i, turn in enumerate(turns):
            if self.kind == "mistral" and turn.role == "system":
                raise Refused("MistralChatTemplate takes no system message (ValueError)")
            if turn.role not in self.tags:
                if self.kind == "tags":
                    continue
                raise Refused(f'the prompt template does not know the role "{turn.role}" (KeyError)')
            before, behind = self.tags[turn.role]
            if self.kind == "chatml" and shape.unanswered and i == len(turns) - 1:
                behind = ""
            kept = self.kind == "mistral"  # it puts empty tags in as well, and the last item counts
            turn.items = [*([before] if before or kept else []), *turn.items, *([behind] if behind or kept else [])]
        return turns

    def _llama2(self, turns: list[Turn]) -> list[Turn]:
        """The system message goes into every user message that follows; a message of an unknown role says again what
        was said before it (``content`` is set for users and assistants alone)."""
        out: list[Turn] = []
        system: list[Item] = []
        sources: dict[int, int] = {}
        last: Turn | None = None
        for turn in turns:
            if turn.role == "system":
                before, behind = self.tags["system"]
                system, sources = [before, *turn.items, behind], turn.sources
                continue
            if turn.role == "user":
                before, behind = self.tags["user"]
                turn.items = [before, *system, *turn.items, behind]
                turn.sources = {**sources, **turn.sources}
            elif turn.role != "assistant":
                if last is None:
                    raise Refused(f'Llama2ChatTemplate cannot begin with the role "{turn.role}" (UnboundLocalError)')
                turn.items, turn.sources = last.items, last.sources
            last = turn
            out.append(turn)
        return out


@dataclass(frozen=True, slots=True)
class Special:
    """The control tokens that a style writes."""

    ids: Mapping[str, int]
    bos: int | None
    eos: int | None


Write = Callable[[list[Turn], Shape, Special], Layout]


CLEAN: Mapping[Style, Callable[[str], str]] = {
    "llama3": str.strip,
    **dict.fromkeys(("llama2", "mistral", "gemma", "phi3"), lambda text: text.rstrip(" ")),
    **dict.fromkeys(("qwen2", "qwen2_5"), lambda text: text),
}
"""What is taken off each text of a message, tags of the prompt template included, before it is encoded."""


def _texts(turn: Turn, style: Style, trimmed: bool = False) -> list[Piece]:
    return [
        Piece(not turn.masked, text=CLEAN[style](item), trimmed=trimmed)
        if isinstance(item, str)
        else Piece(not turn.masked, turn.sources[item], content=item, trimmed=trimmed)
        for item in turn.items
    ]


def llama3(turns: list[Turn], shape: Shape, special: Special) -> Layout:
    ids = special.ids
    pieces = [Piece(False, number=special.bos)]
    for turn in turns:
        on = not turn.masked
        pieces += [
            Piece(on, number=ids["<|start_header_id|>"]),
            Piece(on, text=turn.role.strip()),
            Piece(on, number=ids["<|end_header_id|>"]),
            Piece(on, text="\n\n"),
            *_texts(turn, "llama3"),
            Piece(on, number=ids["<|eot_id|>"]),
        ]
    return Layout([*pieces, Piece(False, number=special.eos)])


def plain(turns: list[Turn], shape: Shape, special: Special) -> Layout:
    """Without special tokens but BOS in front of each turn and EOS behind each answer."""
    pieces: list[Piece] = []
    opens, spaced = True, False
    item: Item | None = None
    for turn in turns:
        on = not turn.masked
        if opens:
            pieces.append(Piece(on, number=special.bos))
        trimmed = not opens and not spaced
        pieces += _texts(turn, "llama2", trimmed)
        if turn.items:
            item = turn.items[-1]
        if item is None:
            return Layout(pieces, error=(0, "the first message has no text (UnboundLocalError)"))
        spaced = item.endswith(" ") if isinstance(item, str) else bool(shape.spaced) and shape.spaced[item]
        opens = turn.role == "assistant"
        if opens:
            pieces.append(Piece(on, number=special.eos))
    return Layout(pieces, closed=opens)


def phi3(turns: list[Turn], shape: Shape, special: Special) -> Layout:
    ids = special.ids
    pieces: list[Piece] = []
    for turn in turns:
        on = not turn.masked
        if turn.role not in ("system", "user", "assistant"):
            return Layout(pieces, error=(len(pieces), f'Phi3MiniTokenizer knows no role "{turn.role}" (ValueError)'))
        if not pieces:
            pieces.append(Piece(on, number=special.bos))
        pieces += [
            Piece(on, number=ids[f"<|{turn.role}|>"]),
            Piece(on, text="\n"),
            *_texts(turn, "phi3", trimmed=True),
            Piece(on, number=ids["<|end|>"]),
            Piece(on, text="\n"),
        ]
    return Layout(pieces)


def qwen2(turns: list[Turn], shape: Shape, special: Special) -> Layout:
    ids = special.ids
    pieces: list[Piece] = []
    on = False
    for i, turn in enumerate(turns):
        on = not turn.masked
        if turn.role != "ipython":
            pieces += [Piece(on, number=ids["<|im_start|>"]), Piece(on, text=f"{turn.role}\n")]
        pieces += _texts(turn, "qwen2")
        # L384 counts the messages before the prompt template
        if turn.role != "ipython" and (turn.role != "assistant" or i != len(shape.roles) - 1):
            pieces += [Piece(on, number=ids["<|im_end|>"]), Piece(on, text="\n")]
    return Layout([*pieces, Piece(on, number=special.eos)])


def qwen2_5(turns: list[Turn], shape: Shape, special: Special) -> Layout:
    start, end = special.ids["<|im_start|>"], special.ids["<|im_end|>"]
    pieces: list[Piece] = []
    on = False
    for i, turn in enumerate(turns):
        on = not turn.masked
        last = i == len(turns) - 1
        closing = [Piece(on, number=end), Piece(on, text="\n")]
        if turn.role != "ipython":
            pieces += [Piece(on, number=start), Piece(on, text=f"{turn.role}\n"), *_texts(turn, "qwen2_5")]
            pieces += closing if turn.role != "assistant" or not last else []
            continue
        if i == 0 or turns[i - 1].role != "ipython":
            pieces += [Piece(on, number=start), Piece(on, text="user\n"), Piece(on, text="<tool_response>\n")]
        else:
            pieces.append(Piece(on, text="\n<tool_response>\n"))
        pieces += [*_texts(turn, "qwen2_5"), Piece(on, text="\n</tool_response>")]
        pieces += closing if last or turns[i + 1].role != "ipython" else []
    return Layout([*pieces, Piece(on, number=special.eos)])


WRITERS: Mapping[Style, Write] = {
    "llama3": llama3,
    "llama2": plain,
    "mistral": plain,
    "gemma": plain,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen2_5": qwen2_5,
}
