"""TRL 0.24.0 and 0.17.0: versions that did otherwise in ways that hurt.

Both tell a prompt and its completion apart by the number of ids that the prompt has alone, though they need not be the
first ids of the row (0.24.0 ``trl/trainer/sft_trainer.py`` L1011, 0.17.0 L600); both cut to the maximum length and drop
nothing, so that rows without any label are fed. EOS is appended to texts and text completions.

0.24.0 (with transformers 4.57 or 5.0). Conversations are rendered and tokenized whole. ``assistant_only_loss`` needs a
template with ``{% generation %}`` blocks; TRL puts in none of its own. Under transformers 5.0 ``apply_chat_template``
gives a dictionary (``return_dict`` became True), of which TRL counts the keys instead of the prompt's ids (L961): all
but the first two or three tokens of a conversational prompt are trained. Nothing keeps pip from installing the two
together. ``bfd`` packing cuts rows, ``wrapped`` cuts wherever a sequence is full; a ``labels`` column counts, but not
when packing.

0.17.0 (with transformers 4.57). Conversations are rendered to text first, without ``tools`` and
``chat_template_kwargs`` (L545), and tokenized without special tokens; a prompt that ends with an answer is rendered as
one to be continued. Packing is ``wrapped`` and keeps ``input_ids`` alone: prompts are trained. ``labels`` columns are
ignored (L647). ``DataCollatorForCompletionOnlyLM`` (``trl/trainer/utils.py`` L100), given with ``--response-marker``
and ``--instruction-marker``, masks by ids: everything through the last response marker where there is no instruction
marker, else what lies between an instruction marker and the response marker of the same number. It is a subclass of
transformers' collator, which masks every label that is the pad token's id first: where pad is EOS, EOS is not trained.
``padding_free`` (transformers' ``DataCollatorWithFlattening``) ignores where the completion begins.

Not reproduced. Ids are those of the tokenizer as transformers 5.23 loads it; 4.57 adds BOS to texts for some tokenizers
for which 5.23 does not (DeepSeek-Coder's). Before transformers 5, templates see null where a message has a null value,
and 0.17 hands null on for keys that other messages have: such a row is a failure where the template might tell null
from nothing (a row can't know of the keys of other rows). So is a row whose prompt alone has
more ids than prompt and completion together (the collator stops), and a row with a prompt under
``DataCollatorForCompletionOnlyLM``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.templates.render import RenderBatch, RenderFailure
from lorads.tokenizers.ids import Ids
from lorads.trainers import _whole
from lorads.trainers.base import LabelBatch, Place, TrainOptions, kept_by_length
from lorads.trainers.trl._current import EMPTY, Labeller, Trl, refuse, refuse_markers, with_eos_token

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

CONTINUE = "CONTINUE_FINAL_MESSAGE_TAG "
"""transformers 4.57 (``utils/chat_template_utils.py`` L507) puts this behind an answer that is to be continued."""
AS_FIVE_LOADS = (
    "the ids are those of the tokenizer as transformers 5 loads it; 4.57, which belongs to this TRL, puts BOS in front "
    "of texts for some Llama tokenizers and, of SentencePiece vocabularies, a space behind control tokens"
)
NOT_A_PREFIX = RenderFailure(
    "stops", "the template renders the prompt alone otherwise than with its completion, at which TRL stops"
)
NOT_CONTINUED = RenderFailure(
    "stops", "the prompt ends with an answer that the template does not render whole, at which transformers stops"
)
LONGER_PROMPT = RenderFailure(
    "stops",
    "the prompt alone has more tokens than with its completion: TRL's mask does not fit, the collator stops",
)
NULLS = RenderFailure(
    "not-reproduced",
    "a message holds null, or lacks a key that others have, which TRL 0.17 and transformers 4 hand to the template as "
    "null; this template may tell that from nothing, which lorads does not reproduce",
)
ANYTHING = "\ue000"
NULL_TEST = re.compile(r"(\w+)['\"]?[\])]?\s*(?:is(?:\s+not)?|[!=]=)\s*none\b", re.IGNORECASE)
"""The key that a template compares with null."""
MASK_COLUMN = RenderFailure(
    "stops", "DataCollatorForCompletionOnlyLM takes no rows with a prompt and a completion: TRL's mask is not padded"
)
TOOLS_TEXT = RenderFailure("stops", "the tools are a text, which TRL before 1.0 does not read")


@dataclass(frozen=True)
class Options024:
    """Settings of ``SFTConfig`` that are TRL's own."""

    transformers: Literal["4", "5"] = "5"
    """The transformers that is installed beside TRL 0.24: 4.57, or 5.0, with which prompts are trained."""
    packing_strategy: Literal["bfd", "wrapped"] = "bfd"
    """What packing does with rows: cut them to the maximum length, or cut wherever a sequence is full."""
    padding_free: bool = False
    """The rows of a batch are one sequence: the first label of each row is masked."""
    completion_only_loss: bool | None = None
    """Train the completion alone; null: in rows that have a prompt and a completion."""
    eos_token: str | None = None
    """The token that ends texts, and the template's eos_token, instead of the tokenizer's."""


@dataclass(frozen=True)
class Options017:
    """Settings of ``SFTConfig`` that are TRL's own, and the collator's pad token."""

    padding_free: bool = False
    """The rows of a batch are one sequence: the first label of each row is masked, prompts are trained."""
    completion_only_loss: bool | None = None
    """Train the completion alone; null: in rows that have a prompt."""
    eos_token: str | None = None
    """The token that ends texts, and the template's eos_token, instead of the tokenizer's."""
    pad_token: str | None = None
    """For DataCollatorForCompletionOnlyLM: the tokenizer's pad token; null: the one it has, else EOS as most set it."""


class _Old:
    name = "trl"
    default_max_length: int | None = 1024
    format_notes: Mapping[str, str] = Trl.format_notes


def _counted(options: TrainOptions, longer: dict[int, RenderFailure]) -> _whole.Boundary:
    """``prompt_length``, which puts the rows that the collator stops at into ``longer``: a mask that is longer than its
    row fits again where both are cut to the maximum length."""

    def boundary(prompt: Ids, whole: Ids) -> npt.NDArray[np.int64]:
        counts = np.diff(whole.starts)
        mismatch = np.diff(prompt.starts) > counts
        if options.max_length is not None:
            mismatch &= counts < options.max_length
        longer.update(dict.fromkeys(np.flatnonzero(mismatch).tolist(), LONGER_PROMPT))
        return _whole.prompt_length(prompt, whole)

    return boundary


class Trl024(_Old):
    version = "0.24"
    Options = Options024

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> Labeller024:
        own: Options024 = options.own
        refuse_markers(options, "TRL 0.24")
        refuse(options)
        if options.train_on == "assistant" and (template is None or not template.has_generation_markers):
            raise UsageError(
                "TRL's assistant_only_loss needs {% generation %} blocks in the chat template, and this one has none",
                "give a template with them by --chat-template FILE, or make the rows prompt-completion",
            )
        template, eos = with_eos_token(tokenizer, template, own.eos_token)
        notes = (AS_FIVE_LOADS,) if own.transformers == "4" else ()
        return Labeller024(tokenizer, template, _whole.tool_template(tokenizer, template), options, eos, notes)


class Labeller024(Labeller):
    @property
    def inputs(self) -> int:
        """How many keys ``apply_chat_template`` gives: ``input_ids`` and what the tokenizer names besides."""
        return len({"input_ids", *self.tokenizer.model_input_names} & {"input_ids", "token_type_ids", "attention_mask"})

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        batch = self._by_kind(conversations, self._label)
        for i, conversation in enumerate(conversations):
            if conversation.tools is not None and isinstance((conversation.record or {}).get("tools"), str):
                batch.failures[i] = TOOLS_TEXT
        options, own = self.options, self.options.own
        if options.packing:
            _whole.drop_empty(batch, EMPTY)
        if not options.packing or own.packing_strategy == "bfd":
            batch.kept = kept_by_length(batch.ids, options.max_length, "keep_start")
        if own.padding_free or (options.packing and own.packing_strategy == "bfd"):
            _whole.mask_first(batch)
        return batch

    def _label(self, key: tuple[Kind, Template | None], conversations: Sequence[Conversation]) -> LabelBatch:
        kind, template = key
        longer: dict[int, RenderFailure] = {}
        boundary = _counted(self.options, longer)
        if kind is Kind.PROMPT_COMPLETION_MESSAGES and self.options.own.transformers == "5":
            boundary = self._keys_counted
        batch = self._built(kind, template, conversations, boundary, self._labels)
        batch.failures = {**longer, **batch.failures}
        return batch

    def _keys_counted(self, prompt: Ids, whole: Ids) -> npt.NDArray[np.int64]:
        return np.minimum(self.inputs, np.diff(whole.starts))

    def _labels(self, conversation: Conversation) -> Sequence[int]:
        """The collator (L155-240): a ``labels`` column, unless packing left it behind, and -100 where a mask is 0."""
        values = conversation.input_ids or []
        if conversation.labels is not None and not self.options.packing:
            values = conversation.labels
        return _whole.masked(values, self._counting(conversation))

    def reason(self, place: Place, trained: bool) -> str:
        if self.options.train_on == "assistant":
            where = "inside" if trained else "outside"
            verb = "trains" if trained else "masks"
            return f"TRL's assistant_only_loss {verb} what is {where} the template's {{% generation %}} blocks"
        if not trained:
            return "TRL 0.24 masks as many tokens as the prompt has alone, and the first label of every packed row"
        if self.options.own.transformers == "5" and place in (Place.SYSTEM, Place.USER, Place.TOOL, Place.HEADER):
            return (
                "TRL 0.24 trains every token of a conversation; under transformers 5 of a conversational prompt, too, "
                "because it counts the keys of a dictionary instead of the prompt's tokens"
            )
        return "TRL 0.24 trains every token that is not of a prompt with a completion"


class Trl017(_Old):
    version = "0.17"
    Options = Options017

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> Labeller017:
        own: Options017 = options.own
        refuse(options)
        if options.train_on == "assistant":
            raise UsageError(
                "TRL 0.17 has no assistant_only_loss",
                "give --response-marker and --instruction-marker (DataCollatorForCompletionOnlyLM), or make the rows "
                "prompt-completion",
            )
        template, eos = with_eos_token(tokenizer, template, own.eos_token)
        if options.response_marker is None:
            if options.instruction_marker is not None:
                raise UsageError(
                    "DataCollatorForCompletionOnlyLM needs a response template", "give --response-marker TEXT, too"
                )
            return Labeller017(tokenizer, template, template, options, eos, (AS_FIVE_LOADS,))
        if options.train_on != "default" or own.completion_only_loss is not None:
            raise UsageError("markers say what is trained", "leave out --train-on and completion_only_loss")
        if options.packing or own.padding_free:
            raise UsageError(
                "DataCollatorForCompletionOnlyLM looks for markers row by row", "leave out packing and padding_free"
            )
        pad = own.pad_token or tokenizer.special.pad or eos
        pad_id = None if pad is None else tokenizer.id_of(pad)
        if pad is not None and pad_id is None:
            raise UsageError(f'the pad_token "{pad}" is not in the vocabulary', "name a token that the model has")
        markers = _Markers(tokenizer, options.response_marker, options.instruction_marker, pad_id)
        notes: tuple[str, ...] = (AS_FIVE_LOADS,)
        if pad == eos and pad is not None:
            notes = (
                f"the pad token is EOS ({pad}): TRL 0.17's collator masks every EOS, so that none is trained",
                *notes,
            )
        return Labeller017(tokenizer, template, template, options, eos, notes, markers)


@dataclass(eq=False)
class Labeller017(Labeller):
    markers: _Markers | None = None

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        batch = self._by_kind(conversations, self._label)
        options = self.options
        if options.packing:
            batch.trained = np.ones(len(batch.ids.flat), np.bool_)
            _whole.drop_empty(batch, EMPTY)
            return batch
        batch.kept = kept_by_length(batch.ids, options.max_length, "keep_start")
        if options.own.padding_free:
            batch.trained = np.ones(len(batch.ids.flat), np.bool_)
            _whole.mask_first(batch)
        if self.markers is not None:
            self.markers.mask(batch)
        return batch

    def _label(self, key: tuple[Kind, Template | None], conversations: Sequence[Conversation]) -> LabelBatch:
        kind, template = key
        if kind is Kind.TEXT:
            return _whole.texts(conversations, self.tokenizer, self.eos)
        if kind is Kind.TOKENIZED:
            return _whole.tokenized(conversations, self._labels)
        longer: dict[int, RenderFailure] = {}
        boundary = _counted(self.options, longer) if self._completion_only(True) else None
        if kind is Kind.PROMPT_COMPLETION:
            batch = _whole.pairs(conversations, self.tokenizer, self.eos, boundary)
        elif template is None:
            batch = _whole.refused(len(conversations), _whole.NO_TEMPLATE)
        else:
            batch = self._rendered(kind, template, conversations, boundary)
        batch.failures = {**longer, **batch.failures}
        if self.markers is not None and kind is not Kind.MESSAGES:
            return _whole.refuse_all(batch, MASK_COLUMN)
        return batch

    def _labels(self, conversation: Conversation) -> Sequence[int]:
        only = self._completion_only("prompt" in (conversation.record or {}))
        mask = (conversation.masks or {}).get("completion_mask")
        return _whole.masked(conversation.input_ids or (), [mask] if only and mask is not None else [])

    def _rendered(
        self,
        kind: Kind,
        template: Template,
        conversations: Sequence[Conversation],
        boundary: _whole.Boundary | None,
    ) -> LabelBatch:
        """``trl/data_utils.py::apply_chat_template`` (L71-170): the completion is what the whole render has behind the
        prompt's, as text."""
        bare = [_without_arguments(conversation) for conversation in conversations]
        render = template.render(bare)
        failures = dict(render.failures)
        self._nulls(template, bare, render, failures)
        ids = self.tokenizer.encode(render.texts)
        places = self.tokenizer.place(render.texts, ids)
        trained = np.ones(len(ids.flat), np.bool_)
        if kind is Kind.PROMPT_COMPLETION_MESSAGES:
            prompts = self._prompts(template, bare, render, failures)
            if boundary is not None:
                trained = _whole.after(ids, boundary(self.tokenizer.encode(prompts), ids))
        return _whole.rendered_batch(render, ids, places, trained, failures)

    def _nulls(
        self,
        template: Template,
        conversations: Sequence[Conversation],
        render: RenderBatch,
        failures: dict[int, RenderFailure],
    ) -> None:
        """Rows in which the template would see null where lorads' sees nothing, and may tell the two apart: what it
        renders depends on whether there is anything, or it asks for null somewhere."""
        filled: dict[int, Conversation] = {}
        for i, conversation in enumerate(conversations):
            if conversation.roles is None and conversation.messages:
                keys = frozenset[str]().union(*conversation.messages)
                messages = [
                    {**dict.fromkeys(keys, ANYTHING), **{key: value for key, value in m.items() if value is not None}}
                    for m in conversation.messages
                ]
                if messages != conversation.messages:
                    filled[i] = replace(conversation, messages=messages)
        if not filled:
            return
        asked = set(NULL_TEST.findall(self.tokenizer.chat_template or ""))
        other = template.render(list(filled.values()))
        for (i, conversation), text in zip(filled.items(), other.texts, strict=True):
            if text != render.texts[i] or asked & _lacking(conversation):
                failures.setdefault(i, NULLS)

    def _prompts(
        self,
        template: Template,
        conversations: list[Conversation],
        render: RenderBatch,
        failures: dict[int, RenderFailure],
    ) -> list[str]:
        """The prompts as texts: for an answer where they end with a question, else with their last answer open."""
        last = [conversation.messages[conversation.prompt_messages - 1].get("role") for conversation in conversations]
        asked = template.render(conversations, add_generation_prompt=True, prompt_only=True)
        prompts = list(asked.texts)
        continued = [i for i, role in enumerate(last) if role == "assistant"]
        if continued:
            tagged = template.render([_tagged(conversations[i]) for i in continued], prompt_only=True)
            for i, text in zip(continued, tagged.texts, strict=True):
                at = text.rfind(CONTINUE.strip())
                if at < 0:
                    failures.setdefault(i, NOT_CONTINUED)
                prompts[i] = text[:at] if text.startswith(CONTINUE, at) else text[:at].rstrip()
        for i, role in enumerate(last):
            if role != "assistant" and i in asked.failures:
                failures.setdefault(i, asked.failures[i])
            if role not in ("user", "assistant"):
                failures[i] = RenderFailure("stops", f'the prompt ends with the role "{role}", at which TRL stops')
            elif not render.texts[i].startswith(prompts[i]):
                failures.setdefault(i, NOT_A_PREFIX)
        return prompts

    def reason(self, place: Place, trained: bool) -> str:
        if self.markers is not None:
            if trained:
                return "DataCollatorForCompletionOnlyLM trains what follows the response marker"
            if place in (Place.EOS, Place.TURN_END):
                return "DataCollatorForCompletionOnlyLM masks what is the pad token's id, and what precedes the marker"
            return "DataCollatorForCompletionOnlyLM masks everything up to and with the response marker"
        if not trained:
            return "TRL 0.17 masks as many tokens as the prompt has alone"
        if self.options.packing:
            return "TRL 0.17 trains everything when packing: the completion mask is left behind"
        return "TRL 0.17 trains every token that is not of a prompt with a completion"


def _lacking(conversation: Conversation) -> set[str]:
    """Keys that were filled in, in some message."""
    return {key for message in conversation.messages for key, value in message.items() if value == ANYTHING}


def _without_arguments(conversation: Conversation) -> Conversation:
    if conversation.tools is None and conversation.template_kwargs is None:
        return conversation
    return replace(conversation, tools=None, template_kwargs=None)


def _tagged(conversation: Conversation) -> Conversation:
    messages = list(conversation.messages)
    at = conversation.prompt_messages - 1
    content = messages[at].get("content")
    if isinstance(content, str):
        messages[at] = {**messages[at], "content": content + CONTINUE}
    return replace(conversation, messages=messages, roles=None, contents=None)


class _Markers:
    """``DataCollatorForCompletionOnlyLM`` (0.17.0 ``trl/trainer/utils.py`` L100-260)."""

    def __init__(self, tokenizer: Tokenizer, response: str, instruction: str | None, pad_id: int | None) -> None:
        self.response = _marker(tokenizer, response)
        self.instruction = None if instruction is None else _marker(tokenizer, instruction)
        self.pad_id = pad_id

    def mask(self, batch: LabelBatch) -> None:
        flat, starts = batch.ids.flat, batch.ids.starts
        trained = np.ones(len(flat), np.bool_) if self.pad_id is None else flat != self.pad_id
        # the markers are looked for among the labels: a pad token in one, or a row's cut end, hides it
        labels = Ids(np.where(trained & batch.kept, flat, np.int32(-100)), starts)
        responses = _found(labels, self.response)
        asked = None if self.instruction is None else _found(labels, self.instruction)
        for row in range(len(starts) - 1):
            begin, end = int(starts[row]), int(starts[row + 1])
            ends = responses[row] + len(self.response)
            if asked is None:
                trained[begin : begin + int(ends[-1]) if len(ends) else end] = False
                continue
            self._between(trained[begin:end], ends, asked[row])
        batch.trained = trained
        batch.labels = None

    @staticmethod
    def _between(trained: npt.NDArray[np.bool_], ends: npt.NDArray[np.int64], asked: npt.NDArray[np.int64]) -> None:
        if not len(ends) or not len(asked):
            trained[:] = False
            return
        begins = [0, *asked.tolist()] if asked[0] > ends[0] else asked.tolist()
        for number, (begin, end) in enumerate(zip(begins, ends.tolist(), strict=False)):
            trained[begin if number else 0 : end] = False
        if len(ends) < len(begins):
            trained[begins[-1] :] = False


def _marker(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode([text]).flat.tolist()
    if not ids:
        raise UsageError("a marker has no token", "give --response-marker and --instruction-marker a text")
    return ids


def _found(labels: Ids, marker: list[int]) -> list[npt.NDArray[np.int64]]:
    """Where the marker begins in each row, counted from the row's start."""
    at = _whole.matches(labels, marker)
    return [
        part - start
        for part, start in zip(np.split(at, np.searchsorted(at, labels.starts[1:-1])), labels.starts, strict=False)
    ]
