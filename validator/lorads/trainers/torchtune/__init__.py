"""torchtune 0.6.1: ``alpaca_dataset``, ``instruct_dataset``, ``chat_dataset`` and ``text_completion_dataset``.

Line numbers are of that version. ``datasets/_sft.py`` L142-177: a message transform makes messages of the row,
``validate_messages`` judges them, the model tokenizer's ``tokenize_messages`` makes tokens and a mask of them, and
labels are -100 where the mask is set. ``datasets/_text_completion.py`` L65-77: everything is trained, and the text is
cut to ``max_seq_len - 1``. ``_messages`` has the transforms, ``_layout`` the model tokenizers and prompt templates,
``_vocabulary`` their encoders, each with its lines. No row is ever dropped: a row that torchtune cannot take stops the
training, which lorads tells as a failure of the row.

What surprises people, all of it reproduced:

* ``alpaca_dataset`` trains on the prompt by default (``datasets/_alpaca.py`` L23), the others do not.
* Whole messages are masked or trained, so the header in front of an answer is trained (Llama 3, Qwen, Phi-3).
* Once the maximum length is set, the last token of every row becomes EOS (``data/_utils.py`` L41-44). Llama 3 masks it;
  **Qwen2 and Qwen2.5 mask it too, and only then** (``qwen2/_tokenizer.py`` L406): with ``max_seq_len`` the
  ``<|im_end|>`` behind the last answer is never trained.
* A message whose content is null says again what the message before it said (``data/_messages.py`` L619-622): so does
  a call of a tool. Tool calls, tools, thinking and ``weight`` are not looked at.
* The tokenizers of Llama 2, Llama 3, Mistral and Phi-3 take control tokens typed into a text for plain text.

Packing changes no label of a row: ``PackedDataset`` joins rows of at most ``max_seq_len`` (a text may go on in the next
pack), and masks nothing at their borders, so the first token of a row is predicted from the last one of another.

Compared with the real library: Llama 2 (TinyLlama) and Phi-3 (their SentencePiece files made again from tokenizer.json,
which holds all of it), Mistral (with Mistral's own file), Qwen2 and Qwen2.5 (vocab.json and merges.txt taken from
tokenizer.json) and ``Llama3Tokenizer`` (tiktoken files made of other byte-level vocabularies, with ``special_tokens``
given: Llama 3's own was not at hand). torchtune 0.6.1 has ``HuggingFaceBaseTokenizer``, but no model tokenizer around
it: ``base_tokenizer=huggingface`` is a class of the user's own, a model tokenizer's ``tokenize_messages`` with that
encoder (``trim_leading_whitespace``, which it does not take, is left out), and was compared with such classes.

Not reproduced: Gemma's own tokenizer (``tokenizer_style=gemma`` works with ``base_tokenizer=huggingface``; its
SentencePiece file has symbols that tokenizer.json does not tell from other tokens), Phi-4's, images, preference data
(judged as a chat that ends with the chosen answer), prompt templates of one's own class, ``filter_fn``, and what
``datasets`` changes when it loads a JSON file (5.2 leaves keys away that a message does not have, older ones may put
null there).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.templates.render import Lost, RenderFailure
from lorads.tokenizers import Ids
from lorads.trainers._pieces import Flags, Integers, Placed, placed_as_one, placed_in_line, ranges, running
from lorads.trainers._whole import positions
from lorads.trainers.base import LabelBatch, LazyTexts, Place, Segments, TrainOptions
from lorads.trainers.torchtune._layout import (
    CLEAN,
    NAMED,
    WRITERS,
    Layout,
    Piece,
    PromptTemplate,
    Refused,
    Shape,
    Special,
    Style,
)
from lorads.trainers.torchtune._messages import (
    Messages,
    Stops,
    Unknown,
    alpaca,
    input_output,
    lost,
    openai,
    problem,
    sharegpt,
    turns_of,
)
from lorads.trainers.torchtune._plans import AS_IT_IS, CLEANED, EMPTY, TRIMMED, Key, Plans
from lorads.trainers.torchtune._vocabulary import LINE_BREAK, Encoder, Vocabulary, vocabulary

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

ENCODERS: Mapping[Style, Encoder] = {
    "llama3": "tiktoken",
    "llama2": "sentencepiece",
    "mistral": "sentencepiece",
    "phi3": "sentencepiece",
    "qwen2": "qwen2",
    "qwen2_5": "qwen2",
}
LLAMA3_SPECIAL = {
    "<|begin_of_text|>": 128000,
    "<|end_of_text|>": 128001,
    "<|start_header_id|>": 128006,
    "<|end_header_id|>": 128007,
    "<|eom_id|>": 128008,
    "<|eot_id|>": 128009,
    "<|python_tag|>": 128010,
}
PHI3_SPECIAL = {
    "<|endoftext|>": 32000,
    "<|assistant|>": 32001,
    "<|system|>": 32006,
    "<|end|>": 32007,
    "<|user|>": 32010,
}
QWEN2_SPECIAL = {"<|endoftext|>": 151643, "<|im_start|>": 151644, "<|im_end|>": 151645}
QWEN2_5_SPECIAL = QWEN2_SPECIAL | {
    name: 151646 + i
    for i, name in enumerate(
        (
            *(f"<|{kind}_{side}|>" for kind in ("object_ref", "box", "quad", "vision") for side in ("start", "end")),
            *("<|vision_pad|>", "<|image_pad|>", "<|video_pad|>", "<tool_call>", "</tool_call>", "<|fim_prefix|>"),
            *("<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
        )
    )
}
TABLES: Mapping[Style, Mapping[str, int]] = {
    "llama3": LLAMA3_SPECIAL,
    "phi3": PHI3_SPECIAL,
    "qwen2": QWEN2_SPECIAL,
    "qwen2_5": QWEN2_5_SPECIAL,
}
"""The control tokens that a style writes or finds, with the ids that torchtune gives them."""
NEEDED: Mapping[Style, tuple[str, ...]] = {
    "llama3": tuple(LLAMA3_SPECIAL),
    "phi3": tuple(PHI3_SPECIAL),
    "qwen2": tuple(QWEN2_SPECIAL),
    "qwen2_5": (*QWEN2_SPECIAL, "<tool_call>", "</tool_call>"),
}
ENDS: Mapping[Style, tuple[str, str]] = {
    "llama3": ("<|begin_of_text|>", "<|end_of_text|>"),
    "qwen2": ("", "<|im_end|>"),
    "qwen2_5": ("", "<|im_end|>"),
}
DEFAULT_TEMPLATES: Mapping[Style, str] = {"llama2": "Llama2ChatTemplate", "mistral": "MistralChatTemplate"}
PLAIN = frozenset({"llama2", "mistral", "gemma"})
"""Styles whose rows are written without special tokens but BOS and EOS."""
USUAL = frozenset({"system", "user", "assistant"})


@dataclass(frozen=True)
class Options:
    """torchtune's settings that change what a row becomes, by its own names; ``tokenizer_style`` and
    ``base_tokenizer`` stand for the choice of a tokenizer's class, ``dataset`` for that of a dataset builder."""

    tokenizer_style: Literal["auto", "llama3", "llama2", "mistral", "gemma", "phi3", "qwen2", "qwen2_5"] = "auto"
    """Whose ``tokenize_messages``: ``llama3_tokenizer``, ``llama2_tokenizer`` …; told by the control tokens."""
    base_tokenizer: Literal["auto", "own", "huggingface"] = "auto"
    """The style's own encoder, or ``HuggingFaceBaseTokenizer`` in a model tokenizer of one's own; ``auto``: its own,
    but ``huggingface`` where no style is told by the vocabulary."""
    dataset: Literal["auto", "alpaca", "instruct", "chat", "text_completion"] = "auto"
    """The dataset builder; ``auto``: by the format of the row."""
    conversation_style: Literal["auto", "sharegpt", "openai"] = "auto"
    """Of ``chat_dataset``; ``auto``: by the keys of the first turn."""
    column_map: tuple[str, ...] = ()
    """Of ``instruct_dataset``: ``input=COLUMN,output=COLUMN``."""
    train_on_input: bool | None = None
    """Whether prompts are trained; unset: what the builder does (``alpaca_dataset`` does, the others do not)."""
    new_system_prompt: str | None = None
    """Put in front of every row, in place of its own system message (``instruct_dataset``, ``chat_dataset``)."""
    prompt_template: str | None = "default"
    """A template of torchtune (``ChatMLTemplate`` or ``torchtune.data.ChatMLTemplate``), a JSON object of role to
    ``[before, behind]``, or null; ``default``: the style's own."""
    add_eos: bool = True
    """Of ``text_completion_dataset``."""
    special_tokens_path: bool = False
    """The control tokens are those of tokenizer.json, not the table inside torchtune."""
    special_tokens: tuple[str, ...] = ()
    """The control tokens themselves: ``NAME=ID,NAME=ID`` (the tokenizer class's ``special_tokens``)."""


class Torchtune:
    name = "torchtune"
    version = "0.6.1"
    default_max_length: int | None = None
    Options = Options
    format_notes: Mapping[str, str] = {
        "alpaca": "judged as torchtune's alpaca_dataset, which trains on the prompt unless train_on_input=false, and "
        "reads neither system nor history",
        "prompt-completion": "judged as torchtune's instruct_dataset with column_map; a prompt and a completion that "
        "are lists of messages were joined for chat_dataset",
        "preference": "the chosen answers were judged as torchtune's chat_dataset would train on them",
    }

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> TorchtuneLabeller:
        own: Options = options.own if options.own is not None else Options()
        _refuse(options)
        choice = _choose(tokenizer, own)
        style = choice.style
        control = _special(tokenizer, style, own)
        ends = ENDS.get(style, ("", ""))
        found = vocabulary(choice.encoder, tokenizer, control, ends)
        # what the layout writes, which is not always what the encoder adds to a text
        plain = style in PLAIN
        bos = found.bos_id if plain or style == "phi3" else control.get(ends[0])
        eos = found.eos_id if plain else control.get(ends[1])
        wanted = _prompt_template(choice.template if own.prompt_template == "default" else own.prompt_template, style)
        return TorchtuneLabeller(tokenizer, choice, found, Special(control, bos, eos), wanted, options, own)


def _refuse(options: TrainOptions) -> None:
    if options.train_on == "last":
        raise UsageError(
            "torchtune cannot train on the last answer alone: every answer of a conversation is trained",
            "cut the conversations into one row an answer, or give a message transform of your own",
        )
    if options.packing and options.max_length is None:
        raise UsageError(
            "torchtune packs to the tokenizer's max_seq_len, and there is none (PackedDataset: ValueError)",
            "give --max-length N",
        )
    for marker, name in ((options.response_marker, "response"), (options.instruction_marker, "instruction")):
        if marker is not None:
            raise UsageError(
                f"torchtune searches for no markers: it masks whole messages, so there is no {name} marker to set",
                "leave it out; --trainer-option train_on_input=true trains prompts",
            )


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tokenizer class it is: its layout, its encoder, its default prompt template, and what to tell about it."""

    style: Style
    encoder: Encoder
    template: str | None
    notes: tuple[str, ...] = ()


def _choose(tokenizer: Tokenizer, own: Options) -> Choice:
    style, why = (own.tokenizer_style, "") if own.tokenizer_style != "auto" else _guess(tokenizer)
    if style is None:
        if own.base_tokenizer == "own":
            raise UsageError(
                f"torchtune 0.6.1 has no tokenizer for the vocabulary of {tokenizer.name}",
                "give --trainer-option tokenizer_style=NAME to take one all the same, or base_tokenizer=huggingface",
            )
        note = (
            f"torchtune 0.6.1 has no tokenizer for the vocabulary of {tokenizer.name}: taken for a model tokenizer of "
            "your own around HuggingFaceBaseTokenizer, with tokenize_messages_no_special_tokens and no prompt template "
            "(--trainer-option tokenizer_style=… and base_tokenizer=… say otherwise)"
        )
        return Choice("llama2", "huggingface", None, (note,))
    note = f"taken for {style}_tokenizer: {why} (--trainer-option tokenizer_style=… says otherwise)"
    notes = (note,) if why else ()
    if own.base_tokenizer == "huggingface":
        return Choice(style, "huggingface", DEFAULT_TEMPLATES.get(style), notes)
    if style not in ENCODERS:
        raise UsageError(
            f"lorads does not reproduce torchtune's {style}_tokenizer: tokenizer.json does not tell all symbols of its "
            "SentencePiece file",
            "--trainer-option base_tokenizer=huggingface is the same layout around HuggingFaceBaseTokenizer",
        )
    return Choice(style, ENCODERS[style], DEFAULT_TEMPLATES.get(style), notes)


def _guess(tokenizer: Tokenizer) -> tuple[Style | None, str]:
    added = tokenizer.special.added
    if added.keys() >= set(NEEDED["llama3"]) - {"<|python_tag|>"}:
        return "llama3", "it has Llama 3's header tokens"
    if all(added.get(name) == number for name, number in QWEN2_SPECIAL.items()):
        if "<tool_call>" not in added:
            return "qwen2", "it has Qwen2's control tokens"
        if "<think>" in added:
            return "qwen2_5", "it has Qwen's control tokens, and torchtune 0.6.1 knows no Qwen later than 2.5"
        return "qwen2_5", "it has Qwen2.5's control tokens"
    if all(added.get(name) == number for name, number in PHI3_SPECIAL.items()):
        return "phi3", "it has Phi-3's control tokens"
    if "<start_of_turn>" in added and tokenizer.id_of("<bos>") is not None:
        return "gemma", "it has Gemma's control tokens"
    if all(tokenizer.id_of(token) == number for number, token in enumerate(("<unk>", "<s>", "</s>", "<0x00>"))):
        named = f"{tokenizer.name[-60:]} {tokenizer.model_config.get('model_type', '')}".lower()
        if "mistral" in named or tokenizer.id_of("[INST]") is not None:
            return "mistral", "a SentencePiece vocabulary, and its name says Mistral"
        return "llama2", "a SentencePiece vocabulary like Llama 2's"
    return None, ""


def _special(tokenizer: Tokenizer, style: Style, own: Options) -> Mapping[str, int]:
    """The control tokens: given, those of tokenizer.json, or torchtune's table, where that fits the vocabulary."""
    if style not in TABLES:
        return {}
    needed = NEEDED[style]
    added = tokenizer.special.added
    given = dict(map(_named_id, own.special_tokens))
    if given:
        found: Mapping[str, int] = given
    elif own.special_tokens_path:
        found = added
    else:
        found = TABLES[style]
        wrong = [name for name in needed if tokenizer.id_of(name) != found[name]]
        if wrong:
            raise UsageError(
                f"torchtune's {style}_tokenizer writes {wrong[0]} as {found[wrong[0]]}, which is another token "
                f"or none in the vocabulary of {tokenizer.name}",
                "give --trainer-option special_tokens_path=true to take the ids from tokenizer.json, or "
                "special_tokens=NAME=ID,… to say them",
            )
    missing = [name for name in needed if name not in found]
    if missing:
        raise UsageError(
            f"torchtune's {style}_tokenizer needs the control token {missing[0]}, which {tokenizer.name} does not have",
            f"give --trainer-option special_tokens=NAME=ID,… with ids for {', '.join(needed)}",
        )
    return found


def _named_id(entry: str) -> tuple[str, int]:
    name, _, number = entry.rpartition("=")
    if not name or not number.isdigit():
        raise UsageError(f'special_tokens: "{entry}" is no NAME=ID', "give them as NAME=ID,NAME=ID")
    return name, int(number)


def _prompt_template(wanted: str | None, style: Style) -> PromptTemplate:
    if wanted is None or wanted == "none":
        return PromptTemplate("none")
    if wanted.lstrip().startswith("{"):
        return PromptTemplate("tags", _own_tags(wanted))
    name = wanted.rpartition(".")[2]
    if name not in NAMED:
        raise UsageError(
            f'lorads knows no prompt template "{wanted}" of torchtune',
            f"known: {', '.join(NAMED)}; a JSON object of role to [before, behind] is one of your own",
        )
    kind, tags = NAMED[name]
    if kind == "chatml" and style in ("qwen2", "qwen2_5"):
        raise UsageError(
            "torchtune's Qwen tokenizers refuse ChatMLTemplate (AssertionError): they write those tokens themselves",
            "leave prompt_template out",
        )
    return PromptTemplate(kind, tags)  # type: ignore[arg-type]


def _own_tags(text: str) -> Mapping[str, tuple[str, str]]:
    try:
        given = json.loads(text)
        return {role: (str(before or ""), str(behind or "")) for role, (before, behind) in given.items()}
    except (ValueError, TypeError, AttributeError):
        raise UsageError(
            "prompt_template is no JSON object of role to [before, behind]",
            """for example {"user": ["Question: ", "\\nAnswer: "]}""",
        ) from None


class TorchtuneLabeller:
    """The four dataset builders, over one model tokenizer."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        choice: Choice,
        vocabulary: Vocabulary,
        special: Special,
        template: PromptTemplate,
        options: TrainOptions,
        own: Options,
    ) -> None:
        self.notes = (*choice.notes, *_length_notes(choice.style, options.max_length))
        self.tokenizer, self._style, self._vocabulary, self._special = tokenizer, choice.style, vocabulary, special
        self._template, self._options, self._own = template, options, own
        self._clean = CLEAN[choice.style]
        self._trims = vocabulary.encoder == "sentencepiece"
        self._plans = Plans(self._encode_one, self._show, self._trims)
        self._quick: dict[tuple[str, ...], int] = {}
        """Plans by roles alone, where nothing else can change the shape of a row of plain messages."""
        self._may_be_quick = (
            own.dataset in ("auto", "chat")
            and own.conversation_style in ("auto", "openai")
            and own.new_system_prompt is None
            and template.kind != "chatml"
            and not vocabulary.ambiguous
        )
        self._reads_ends = choice.style in PLAIN and template.kind in ("none", "tags")
        self._columns = dict(entry.split("=", 1) for entry in own.column_map if "=" in entry)
        chosen = own.train_on_input
        if options.train_on != "default":
            chosen = options.train_on == "all"
        self._train_on_input = chosen

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        plans, quick = self._plans, self._quick
        if plans.forget_if_many():
            quick.clear()
        rows: list[int] = []
        raw: list[str] = []
        first: list[int] = []
        failures: dict[int, RenderFailure] = {}
        missing: dict[int, tuple[Lost, ...]] = {}
        for i, conversation in enumerate(conversations):
            first.append(len(raw))
            if quick and conversation.roles in quick and self._is_quick(conversation):
                rows.append(quick[conversation.roles])
                raw += conversation.contents or ()
                continue
            try:
                plan = self._row(i, conversation, raw, missing)
            except Stops as why:
                failures[i] = RenderFailure("stops", f"torchtune stops the run at the row: {why}")
            except Unknown as why:
                failures[i] = RenderFailure("not-reproduced", str(why))
            else:
                if plan >= 0:
                    rows.append(plan)
                    continue
                failures[i] = RenderFailure("stops", f"torchtune stops the run at the row: {plans.reasons[plan]}")
            rows.append(EMPTY)
        cleaned, strings = self._cleaned(rows, raw)
        batch = self._build(rows, cleaned, strings, first)
        stopped = self._stopped(batch, rows)
        if stopped:
            rows = [EMPTY if i in stopped else plan for i, plan in enumerate(rows)]
            batch = self._build(rows, cleaned, strings, first)
        batch.failures = failures | stopped
        batch.lost = missing
        return batch

    def _row(self, i: int, conversation: Conversation, raw: list[str], missing: dict[int, tuple[Lost, ...]]) -> int:
        """The plan of a row; the texts that it wants encoded are put behind ``raw``."""
        if conversation.kind is Kind.TEXT and self._own.dataset in ("auto", "text_completion"):
            text = self._text(conversation)
            raw.append(text)
            return self._text_plan(text)
        found = self._messages(conversation)
        plan = self._plan(found)
        if plan < 0:
            return plan
        contents = found.contents
        if self._plans.in_order[plan]:
            raw += contents
            usual = self._may_be_quick and found.roles not in self._quick and USUAL.issuperset(found.roles)
            if usual and contents == conversation.contents and self._is_quick(conversation):
                self._quick[found.roles] = plan
        else:
            raw += [contents[content] for content, _ in self._plans.wanted[plan]]
        gone = lost(conversation, found)
        if gone:
            missing[i] = gone
        return plan

    def _is_quick(self, conversation: Conversation) -> bool:
        """Whether the row is nothing but its roles and contents, and no content changes its shape."""
        record = conversation.record
        return (
            record is not None
            and record.get("messages") is conversation.messages
            and conversation.alpaca is None
            and not (self._reads_ends and " " in [text[-1:] for text in conversation.contents or ()])
        )

    def _cleaned(self, rows: list[int], raw: list[str]) -> tuple[list[str], list[str]]:
        """The texts as the style cleans them, and as they are encoded: some behind a line break."""
        plans = self._plans
        if self._style in ("qwen2", "qwen2_5"):
            return raw, raw
        kinds = set().union(*[plans.flags[plan] for plan in set(rows)])
        if kinds <= {CLEANED}:
            cleaned = list(map(self._clean, raw))
            return cleaned, cleaned
        flags = list(chain.from_iterable([plans.flags[plan] for plan in rows]))
        clean = self._clean
        cleaned = [text if flag == AS_IT_IS else clean(text) for text, flag in zip(raw, flags, strict=True)]
        if TRIMMED not in kinds:
            return cleaned, cleaned
        return cleaned, [
            LINE_BREAK + text if flag == TRIMMED else text for text, flag in zip(cleaned, flags, strict=True)
        ]

    # From a row to its plan

    def _messages(self, conversation: Conversation) -> Messages:
        own, system = self._own, self._own.new_system_prompt
        builder = own.dataset
        if builder == "auto":
            if conversation.alpaca is not None:
                builder = "alpaca"
            else:
                builder = "instruct" if conversation.kind is Kind.PROMPT_COMPLETION else "chat"
        if conversation.kind is Kind.TOKENIZED or conversation.kind is Kind.TEXT:
            raise Stops(f"{builder}_dataset does not find its columns in such a row (KeyError)")
        chosen = self._train_on_input
        if builder == "alpaca":
            if system is not None:
                raise Stops("alpaca_dataset takes no new_system_prompt (TypeError)")
            if conversation.alpaca is None:
                raise Stops("the row has no columns instruction and output (KeyError)")
            return alpaca(conversation, chosen is not False)
        if builder == "instruct":
            return self._instruct(conversation, chosen is True, system)
        if builder == "text_completion":
            raise Stops("text_completion_dataset does not find its column in the row (KeyError)")
        turns = turns_of(conversation)
        offset = max(len(conversation.messages) - len(turns), 0)
        style = own.conversation_style
        if style == "auto":
            style = "sharegpt" if turns and "from" in turns[0] and "role" not in turns[0] else "openai"
        if not turns:
            raise Stops("the row has no turns")
        if style == "sharegpt":
            return sharegpt(turns, conversation.record or {}, offset, chosen is not True, system)
        return openai(turns, offset, chosen is not True, system)

    def _instruct(self, conversation: Conversation, train_on_input: bool, system: str | None) -> Messages:
        record = conversation.record or {}
        if "image" in record:
            raise Unknown("the row holds an image, which lorads does not load")
        if self._columns or conversation.kind is not Kind.PROMPT_COMPLETION:
            columns = [self._columns.get(name, name) for name in ("input", "output")]
            for column in columns:
                if column not in record:
                    raise Stops(f'the row has no column "{column}" (KeyError)')
            asked, answered = (record[column] for column in columns)
            first = 0 if conversation.kind is Kind.PROMPT_COMPLETION else len(conversation.messages) - 2
        else:
            asked, answered, first = conversation.text, conversation.completion, 0
            if not answered and "" not in (conversation.record or {"": ""}).values():
                answered = None  # the format writes null as an empty text
        return input_output(asked, answered, train_on_input, system, first)

    def _text(self, conversation: Conversation) -> str:
        text = conversation.text or ""
        null = not text and conversation.record is not None and "" not in conversation.record.values()
        if null and self._vocabulary.encoder != "tiktoken":
            raise Stops("the text is null, which its tokenizer does not take (TypeError)")
        self._refuse_ambiguous([text])
        return text

    def _refuse_ambiguous(self, contents: Sequence[str]) -> None:
        for token in self._vocabulary.ambiguous:
            if any(token in content for content in contents):
                raise Unknown(
                    f'the row holds "{token}", and tokenizer.json does not tell whether SentencePiece takes it '
                    "for one token"
                )

    def _plan(self, found: Messages) -> int:
        """The plan of the row's shape; below 0 where torchtune stops at it."""
        if self._vocabulary.ambiguous:
            self._refuse_ambiguous(found.contents)
        contents = found.contents
        spaced: tuple[bool, ...] = ()
        if self._reads_ends or (self._style in PLAIN and not USUAL.issuperset(found.roles)):
            spaced = tuple([text.endswith(" ") for text in contents])
        unanswered = False
        if self._template.kind == "chatml" and found.roles and found.roles[-1] == "assistant":
            unanswered = not any(contents[i] for i in found.items[-1])
        key = (found.roles, found.items, found.masked, found.origin, spaced, unanswered)
        plan = self._plans.known.get(key)
        return self._make(key) if plan is None else plan

    def _make(self, key: Key) -> int:
        shape = Shape(*key)
        wrong = problem(shape.roles)
        if wrong is not None:
            return self._plans.refuse(key, f"validate_messages (ValueError): {wrong}")
        try:
            layout = WRITERS[self._style](self._template.apply(shape), shape, self._special)
        except Refused as why:
            return self._plans.refuse(key, str(why))
        if layout.error is not None and layout.error[0] == 0:
            return self._plans.refuse(key, layout.error[1])
        if self._options.max_length is not None and self._style in PLAIN and not layout.closed:
            # the last token becomes EOS: it stands behind the row here, and the last token is cut off
            layout.pieces.append(Piece(layout.pieces[-1].trained, number=self._special.eos))
            return self._plans.add(key, layout, _count(shape), extra=1)
        return self._plans.add(key, layout, _count(shape))

    def _text_plan(self, text: str) -> int:
        front, behind = self._vocabulary.of_text(text, self._own.add_eos)
        key: Key = (("text", *map(str, front), "|", *map(str, behind)), (), (), (), (), False)
        plan = self._plans.known.get(key)
        if plan is None:
            pieces = [Piece(True, number=number) for number in front]
            pieces += [Piece(True, 0, content=0), *(Piece(True, number=number) for number in behind)]
            plan = self._plans.add(key, Layout(pieces), 1, text=True)
        return plan

    # From plans to ids

    def _encode_one(self, text: str, trimmed: bool) -> npt.NDArray[np.int32]:
        if not trimmed:
            return self._vocabulary.encode([text]).flat.copy()
        return self._vocabulary.encode([LINE_BREAK + text]).flat[self._vocabulary.line_break :].copy()

    def _show(self, number: int) -> str:
        try:
            return self.tokenizer.token_text(number)
        except KeyError:
            return f"<{number}>"

    def _build(self, rows: list[int], cleaned: list[str], strings: list[str], first: list[int]) -> LabelBatch:
        plans = self._plans
        table = plans.table()
        encoded = self._vocabulary.encode(strings)
        fixed = len(table.lengths)
        begins = np.concatenate([table.begins, encoded.starts[:-1] + len(table.flat)])
        lengths = np.concatenate([table.lengths, np.diff(encoded.starts)])
        ids_of_pieces = np.concatenate([table.flat, encoded.flat])
        chosen = np.array(rows, np.int64)
        counts = table.counts[chosen]
        row_pieces = running(counts)
        at = ranges(table.starts[chosen], counts)
        base = np.repeat(np.array(first, np.int64) + fixed, counts)
        source = table.source[at] + np.where(table.is_content[at], base, 0)
        size, begin = lengths[source], begins[source]
        if table.trimmed.any():
            off = np.minimum(np.where(table.trimmed[at], self._vocabulary.line_break, 0), size)
            size, begin = size - off, begin + off
        bounds = running(size)
        flat = ids_of_pieces[ranges(begin, size)]
        trained = np.repeat(table.trained[at], size)
        ids = Ids(flat, bounds[row_pieces])
        kept = self._truncate(ids, trained, chosen)
        segments = Segments(bounds, table.message[at], table.part[at], row_pieces)
        pieces, shown = plans.pieces, plans.shown  # those of now: a later batch may begin anew

        def texts_of(row: int) -> list[str]:
            """The row's pieces as text: what stands for control tokens, and texts without what was taken off them."""
            begin = first[row]
            return [cleaned[begin + part] if isinstance(part, int) else part for part in shown[rows[row]]]

        def placed_pieces(row: int) -> Iterator[tuple[int, Placed]]:
            for piece, text in zip(pieces[rows[row]], texts_of(row), strict=True):
                token = piece.number is not None
                trims = piece.trimmed and self._trims
                yield len(text), placed_as_one(text) if token else self._vocabulary.place(text, trims)

        return LabelBatch(
            ids,
            trained,
            kept,
            segments,
            texts=LazyTexts(len(rows), lambda row: "".join(texts_of(row))),
            placed=lambda row: placed_in_line(placed_pieces(row)),
        )

    def _truncate(self, ids: Ids, trained: Flags, plans: Integers) -> Flags:
        """Which tokens are fed. Of a row that is cut the last token is EOS: the EOS at its end stays, and the token in
        whose place it comes goes. ``trained`` is set for it as the mask is in torchtune."""
        limit, starts = self._options.max_length, ids.starts
        kept = np.ones(len(ids.flat), np.bool_)
        if limit is None:
            return kept
        counts = np.diff(starts)
        text = self._plans.table().is_text[plans]
        closes = ~text & (counts > 0) if self._style != "phi3" else np.zeros(len(counts), np.bool_)
        allowed = np.where(text, limit - 1, limit)
        ends = np.flatnonzero(closes)
        if self._style in PLAIN:
            # a row that does not end with EOS by itself has one token too many
            natural = counts - self._plans.table().extra[plans]
            last = starts[:-1] + np.minimum(natural, limit) - 1
            trained[starts[1:][ends] - 1] = trained[last[ends]]
            short = closes & ((natural > limit) | (natural < counts))
            allowed = np.where(short, np.minimum(natural, limit) - 1, allowed)
        else:
            trained[starts[1:][ends] - 1] = False
            short = closes & (counts > limit)
            allowed = np.where(short, limit - 1, allowed)
        long = counts > allowed
        if not long.any():
            return kept
        kept = positions(starts) < np.repeat(allowed, counts)
        kept[starts[1:][short] - 1] = True
        return np.asarray(kept)

    def _stopped(self, batch: LabelBatch, rows: list[int]) -> dict[int, RenderFailure]:
        """Rows at which torchtune stops, unless it is done with them before it gets there."""
        stopped: dict[int, RenderFailure] = {}
        limit, errors = self._options.max_length, self._plans.errors
        for row, plan in enumerate(rows) if errors else ():
            if plan in errors:
                piece, why = errors[plan]
                before = int(batch.segments.bounds[batch.segments.rows[row] + piece] - batch.ids.starts[row])
                if limit is None or before < limit:
                    stopped[row] = RenderFailure("stops", f"torchtune stops the run at the row: {why}")
        return stopped

    def reason(self, place: Place, trained: bool) -> str:
        return _reason(place, trained, self._style, self._options.max_length)


def _count(shape: Shape) -> int:
    """How many texts the messages have, each counted once."""
    return len(set(chain.from_iterable(shape.items)))


def _length_notes(style: Style, max_length: int | None) -> tuple[str, ...]:
    if max_length is not None and style in ("qwen2", "qwen2_5"):
        return (
            "torchtune's Qwen tokenizers mask the last token of every row once max_seq_len is set: <|im_end|> behind "
            "the last answer is never trained",
        )
    return ()


def _reason(place: Place, trained: bool, style: Style, max_length: int | None) -> str:
    """Why torchtune trains, or masks, tokens of this kind."""
    whole = "torchtune masks or trains a message as a whole"
    asked = "train_on_input is set (alpaca_dataset's default)" if trained else "train_on_input is not set"
    if place in (Place.SYSTEM, Place.USER, Place.TOOL, Place.PROMPT, Place.TOOLS):
        if place is Place.SYSTEM and not trained:
            return f"{whole}: {asked}, and a new_system_prompt is masked always"
        return f"{whole}, and trains those that are not the assistant's where train_on_input says so: {asked}"
    if place in (Place.ASSISTANT, Place.REASONING, Place.TOOL_CALL, Place.COMPLETION):
        return f"{whole}: every answer is trained" if trained else f"{whole}: only answers are never masked"
    if place is Place.TEXT:
        return "text_completion_dataset trains every token of a text"
    if place is Place.HEADER:
        if trained:
            return f"{whole}, and the header in front of an answer belongs to it"
        return f"{whole}, and what stands here belongs to the message in front of the answer"
    if place is Place.TURN_END:
        if not trained and max_length is not None and style in ("qwen2", "qwen2_5"):
            return "torchtune's Qwen tokenizers mask the last token of a row once max_seq_len is set"
        return f"{whole}, and the token that ends a message belongs to it"
    if place is Place.BOS:
        if style == "llama3" and not trained:
            return "torchtune's Llama3Tokenizer masks BOS in front of messages always"
        return f"{whole}, and BOS belongs to the message that it stands in front of (a text is trained with it)"
    if place is Place.EOS:
        if style == "llama3" and not trained:
            return "torchtune's Llama3Tokenizer masks <|end_of_text|> behind messages always: <|eot_id|> ends an answer"
        if not trained and max_length is not None and style in ("qwen2", "qwen2_5"):
            return "torchtune's Qwen tokenizers mask the last token of a row once max_seq_len is set"
        return f"{whole}, and EOS belongs to the message in front of it"
    return f"{whole}, and what is written around a message belongs to it"


TRAINERS = (Torchtune(),)
