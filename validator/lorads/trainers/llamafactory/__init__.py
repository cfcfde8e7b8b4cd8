"""LLaMA-Factory 0.9.5, supervised fine-tuning (``stage: sft``), with transformers 5.2.0.

Reproduces, below ``llamafactory/data/``: ``converter.py`` (alpaca, sharegpt and openai rows; which are dropped),
``template.py`` (L129-L171 slots to ids, each slot tokenized by itself; L311-L346 the Llama 2 kind; L388-L470 thoughts;
L566-L624 a chat template taken apart; L627-L668 options and ``fix_special_tokens`` L186-L216), ``tool_utils.py`` and
``formatter.py`` (tools and calls), ``processor/processor_utils.py`` L73-L88 (the budget of each turn),
``processor/supervised.py`` L51-L104 (labels) and L165-L180 (packing: rows over the cutoff are dropped; the labels of
the others are the same inside a pack; ``cutoff_len`` is one less, ``hparams/data_args.py`` L183). Answers of all turns
are trained with what the template writes behind them; questions are not. ``_templates.py``, ``templates.toml`` and
``_tokens.py`` say what the templates are and what they change in a tokenizer.

Taken for granted: the columns that the file has are declared in dataset_info.json (``system``, ``history``, ``tools``);
``messages`` rows are declared as data/README.md says (``formatting: sharegpt`` with the roles user, assistant, system,
so that rows with tool messages are dropped; the options ``formatting`` and ``*_tag`` say otherwise); prompt-completion
rows are declared as alpaca columns ``prompt`` and ``response``.

Not reproduced, and refused or told as a failed row: the templates of multimodal models and images, videos, audios;
the tool format gemma4; text, preference (``ranking``, ``kto_tag``) and tokenized rows; with ``formatting: openai``,
tools as a list and call arguments as objects (``datasets`` fills each with the keys of all others in the file); a
question of no tokens behind an answer in a template with ``efficient_eos`` (the library's labels are then longer than
its ids). The tool format llama3 writes today's date, as the library does. What ``datasets`` changes when it loads a
JSON file otherwise (dates, numbers) is not reproduced. The tokenizer is transformers' as lorads loads it;
LLaMA-Factory 0.9.5 allows transformers 4.55 to 5.6.0, of which 5.3.0 to 5.6.0 lose the spaces of some tokenizers
(``lorads doctor``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from lorads.errors import UsageError
from lorads.formats import Conversation
from lorads.templates.render import SCAFFOLD, RenderFailure
from lorads.trainers.base import LabelBatch, Place, TrainOptions
from lorads.trainers.llamafactory import _templates
from lorads.trainers.llamafactory._encode import Encoder, Settings, Written
from lorads.trainers.llamafactory._rows import (
    FUNCTION,
    OPENAI,
    SHAREGPT,
    USER,
    Dialogue,
    Dropped,
    Stops,
    Tags,
    read,
    stops,
)
from lorads.trainers.llamafactory._templates import CONTENT, Style
from lorads.trainers.llamafactory._tokens import fixed, id_of
from lorads.trainers.llamafactory._tools import ToolFormat, write_calls, write_tools

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

_INDEX = "{{idx}}"
_TEXT = {str}
_RAISED = (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError)


@dataclass(frozen=True)
class Options:
    """Settings of LLaMA-Factory's ``DataArguments``, and of dataset_info.json (``formatting`` and the tags)."""

    template: str | None = None
    """Name of one of its templates; without it the tokenizer's chat template is taken apart."""
    train_on_prompt: bool = False
    """Questions are trained too (also ``--train-on all``)."""
    mask_history: bool = False
    """Only the last answer is trained, and the last turns have the first claim on the length (``--train-on last``)."""
    tool_format: ToolFormat | None = None
    """How tools and calls are written, in place of the template's own way."""
    default_system: str | None = None
    """The system message of rows without one, in place of the template's."""
    enable_thinking: bool | None = True
    """False takes all thoughts out of the answers; false and null put empty thoughts into the question, untrained."""
    preserve_thinking: bool = False
    """With mask_history, thoughts in earlier answers stay."""
    neat_packing: bool = False
    """Packing in which rows do not see each other (sets packing)."""
    formatting: Literal["sharegpt", "openai"] | None = None
    """How lists of messages are declared in dataset_info.json."""
    role_tag: str | None = None
    """The key of a message that holds its role."""
    content_tag: str | None = None
    """The key of a message that holds its text."""
    user_tag: str | None = None
    """The name of the asking role."""
    assistant_tag: str | None = None
    """The name of the answering role."""
    observation_tag: str | None = None
    """The name of the role of tool results."""
    function_tag: str | None = None
    """The name of the role of tool calls."""
    system_tag: str | None = None
    """The name of the system role."""


class LlamaFactory:
    name = "llamafactory"
    version = "0.9.5"
    default_max_length: int | None = 2048
    Options = Options
    format_notes: Mapping[str, str] = {
        "messages": "messages rows are taken as LLaMA-Factory's data/README.md declares them (formatting sharegpt with "
        "the roles user, assistant and system); --trainer-option formatting=openai says otherwise",
        "prompt-completion": "prompt and completion are taken as the columns prompt and response of an alpaca dataset, "
        "as dataset_info.json must declare them",
    }

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> LlamaFactoryLabeller:
        own = options.own if isinstance(options.own, Options) else Options()
        settings = _settings(options, own)
        notes: list[str] = []
        style = _style(tokenizer, template, own, notes)
        if settings.train_on_prompt and style.efficient_eos:
            raise UsageError(
                f"LLaMA-Factory's template {style.name} does not go with train_on_prompt",
                "leave train_on_prompt (--train-on all) out, or choose another template",
            )
        made, eos, changes = fixed(tokenizer, style)
        encoder = Encoder(style, made, id_of(made, eos, style), settings)
        return LlamaFactoryLabeller(style, encoder, made, own, settings, [*notes, *changes])


def _settings(options: TrainOptions, own: Options) -> Settings:
    train_on_prompt = own.train_on_prompt or options.train_on == "all"
    mask_history = own.mask_history or options.train_on == "last"
    if train_on_prompt and mask_history:
        raise UsageError(
            "LLaMA-Factory's mask_history is incompatible with train_on_prompt",
            "give one of them (--train-on all means train_on_prompt, --train-on last means mask_history)",
        )
    packing = options.packing or own.neat_packing
    if packing and options.max_length is None:
        raise UsageError("LLaMA-Factory packs to cutoff_len, and there is none", "give --max-length N")
    cutoff = options.max_length
    if cutoff is not None and packing:
        cutoff -= 1
    return Settings(cutoff, train_on_prompt, mask_history, not own.enable_thinking)


def _style(tokenizer: Tokenizer, template: Template | None, own: Options, notes: list[str]) -> Style:
    if own.template is not None:
        style = _templates.named(own.template)
    elif template is None or len(tokenizer.chat_templates) > 1:
        # transformers gives several chat templates as a table, which LLaMA-Factory takes for none at all
        style = _templates.named("empty")
        notes.append(
            "no LLaMA-Factory template was given and the tokenizer has no single chat template: LLaMA-Factory then "
            "uses its template empty, which writes nothing around the messages and no end of sequence"
        )
    else:
        style = _templates.parsed(tokenizer, template)
        notes.append(
            "no LLaMA-Factory template was given: as LLaMA-Factory does, one was made from the tokenizer's chat "
            f"template (--trainer-option template=NAME gives one of its own), with {_shown(style)}"
        )
    if own.tool_format is not None:
        style = style.with_tool_format(own.tool_format)
    if own.default_system is not None:
        style = replace(style, default_system=own.default_system)
    return style


def _shown(style: Style) -> str:
    return f"{style.user[0]!r} for questions and {style.assistant[0]!r} for answers"


class LlamaFactoryLabeller:
    """LLaMA-Factory with one template over one tokenizer. ``tokenizer`` is what it makes of the tokenizer it is given:
    with another end of sequence and added tokens where the template wants them."""

    def __init__(
        self,
        style: Style,
        encoder: Encoder,
        tokenizer: Tokenizer,
        own: Options,
        settings: Settings,
        notes: Sequence[str],
    ) -> None:
        self.notes = tuple(notes)
        self.tokenizer = tokenizer
        self._style, self._encoder, self._own, self._settings = style, encoder, own, settings
        first, last = style.thought_words
        self._thought = re.compile(f"{re.escape(first)}(.*?){re.escape(last)}", re.DOTALL)
        self._thought_edges = first.strip(), last.strip()
        self._tags = {base.role: _tags(base, own) for base in (SHAREGPT, OPENAI)}

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        written: list[Written] = []
        dropped: dict[int, str] = {}
        failures: dict[int, RenderFailure] = {}
        for row, conversation in enumerate(conversations):
            try:
                written.append(self._write(row, read(conversation, self._own.formatting, self._tags)))
            except Dropped as why:
                dropped[row] = str(why)
            except Stops as why:
                failures[row] = why.failure
        batch = self._encoder.encode(written, len(conversations))
        batch.dropped = dropped
        batch.failures |= failures
        return batch

    def _write(self, row: int, dialogue: Dialogue) -> Written:
        """The contents as they go into the slots: thoughts handled, calls and tools written out."""
        style, contents = self._style, dialogue.contents
        if set(map(type, contents)) != _TEXT:
            message = next(
                m for m, content in zip(dialogue.messages, contents, strict=True) if type(content) is not str
            )
            raise stops(f"the content of message {message} is no text")
        system = dialogue.system or style.default_system
        if type(system) is not str:
            raise stops("the system message is no text")
        tools = self._tool_text(dialogue.tools) if dialogue.tools else None
        lacks: tuple[bool, ...] = ()
        if style.reasons:
            contents, lacks = self._without_thoughts(contents)
        if FUNCTION in dialogue.roles:
            contents = [
                self._call(content) if role == FUNCTION else content
                for role, content in zip(dialogue.roles, contents, strict=True)
            ]
        if style.kind != "llama2" and _INDEX in "".join(contents[::2]):
            # the slot of a question has a place for its number, which a text that spells it gets filled in
            contents = [
                content.replace(_INDEX, str(i // 2), 1) if role == USER else content
                for i, (role, content) in enumerate(zip(dialogue.roles, contents, strict=True))
            ]
        return Written(
            row,
            dialogue.roles,
            contents,
            dialogue.messages,
            system if system or tools is not None else None,
            dialogue.system_message if dialogue.system else SCAFFOLD,
            tools,
            lacks,
        )

    def _without_thoughts(self, contents: list[str]) -> tuple[list[str], tuple[bool, ...]]:
        """``ReasoningTemplate.encode_multiturn``: which thoughts go, and which answers get an empty one."""
        forgetting = self._settings.mask_history and not self._own.preserve_thinking
        count = len(contents)
        if self._own.enable_thinking is False or forgetting:
            contents = list(contents)
            for i in range(1, count if self._own.enable_thinking is False else count - 2, 2):
                contents[i] = self._thought.sub("", contents[i]).lstrip("\n")
        first, last = self._thought_edges
        lacks = [first not in content and last not in content for content in contents[1::2]]
        if forgetting:
            lacks[:-1] = [False] * (len(lacks) - 1)
        return contents, tuple(lacks)

    def _call(self, content: str) -> str:
        style = self._style
        try:
            if style.kind == "llama2":
                return write_calls(style.function_format, content)
            return write_calls(style.function_format, content, style.thought_words, style.tool_call_words)
        except _RAISED as error:
            raise stops(f"it can't write the tool call: {type(error).__name__}: {error}") from None

    def _tool_text(self, tools: object) -> str:
        if not isinstance(tools, str):
            raise stops("the tools are no JSON text")
        if self._style.tools_slot is not None:
            return self._style.tools_slot.replace(CONTENT, tools, 1)
        try:
            return _written_tools(self._style.tool_format, tools)
        except _RAISED as error:
            raise stops(f"it can't write the tools: {type(error).__name__}: {error}") from None

    def reason(self, place: Place, trained: bool) -> str:
        return _reason(place, trained, self._settings, self._style)


def _tags(base: Tags, own: Options) -> Tags:
    given = {
        "role": own.role_tag,
        "content": own.content_tag,
        "user": own.user_tag,
        "assistant": own.assistant_tag,
        "observation": own.observation_tag,
        "function": own.function_tag,
        "system": own.system_tag,
    }
    return base._replace(**{name: tag for name, tag in given.items() if tag is not None})


@lru_cache(maxsize=512)
def _written_tools(tool_format: str, tools: str) -> str:
    return write_tools(tool_format, tools)


_WHAT = {
    Place.BOS: "the beginning of sequence",
    Place.EOS: "the end of sequence",
    Place.SYSTEM: "the system message",
    Place.USER: "a question",
    Place.TOOL: "a tool's result",
    Place.ASSISTANT: "an answer",
    Place.REASONING: "a thought",
    Place.TOOL_CALL: "a tool call",
    Place.HEADER: "what the template writes in front of an answer",
    Place.TURN_END: "what the template writes behind an answer",
    Place.TOOLS: "the tool definitions",
    Place.SCAFFOLD: "what the template writes around messages",
    Place.TEXT: "a text",
    Place.PROMPT: "a prompt",
    Place.COMPLETION: "a completion",
}


def _reason(place: Place, trained: bool, settings: Settings, style: Style) -> str:
    what = _WHAT[place]
    if trained and settings.train_on_prompt:
        return f"LLaMA-Factory's train_on_prompt trains every token, {what} too"
    if trained and style.efficient_eos and place in (Place.EOS, Place.TURN_END):
        return f"the template {style.name} (efficient_eos) puts one trained end of sequence behind the last answer"
    if trained and style.efficient_eos and place not in (Place.ASSISTANT, Place.COMPLETION, Place.TOOL_CALL):
        return (
            f"the template {style.name} (efficient_eos) labels the first token of a later question with the end of "
            "sequence; a slot of an answer is trained whole"
        )
    if trained:
        return (
            f"LLaMA-Factory trains each answer's slot of the template {style.name} whole: the text and all that stands "
            f"in the slot with it, here {what}"
        )
    if settings.mask_history:
        return f"LLaMA-Factory's mask_history trains the last answer alone; this is {what} before it"
    return f"LLaMA-Factory masks each question's slot of the template {style.name} whole, here {what}"


TRAINERS = (LlamaFactory(),)
