"""Unsloth 2026.10.9 (unsloth and unsloth_zoo, with trl 1.15.0 and transformers 5.17.0), and unsloth_zoo 2025.3.16.

Lines are of ``unsloth_zoo/dataset_utils.py`` of 2026.10.9 unless another file is named. Reproduced is what a user gets
from ``SFTTrainer`` after ``import unsloth`` (``unsloth/models/rl.py`` writes it anew around ``sft_prepare_dataset``,
L2661) with a tokenizer that Unsloth loaded, and then, for ``--train-on assistant`` and ``last``, from
``train_on_responses_only`` (L763):

* a ``text`` column is tokenized as it is: no EOS is appended; the tokenizer's special tokens are added unless the
  first row's text begins with BOS or the chat template's source holds it (L2822-2826); the tokenizer truncates, so what
  its post-processor puts behind a text survives;
* ``messages`` are rendered and tokenized whole, without special tokens (L2954-3007); ``chat_template_kwargs`` of a row,
  and tools as a JSON text, are taken; cut at ``max_length``, with ``truncation_mode``;
* conversations in another column, and Alpaca rows, need a ``formatting_func``: lorads renders them by the chat template
  to texts, as Unsloth's notebooks do, and goes on as for texts; ``formatting_func=true`` does so for ``messages`` too.
  Where rows have a text column as well, Unsloth takes that: lorads refuses them;
* ``prompt`` and ``completion``: the prompt's ids are counted, not compared (L2919), so the first tokens of an answer
  are masked where the boundary merges; EOS is appended to a string completion that does not end with it; rows without
  any label stay;
* ``input_ids`` are cut, and rows without a label dropped, by the padding-free code of ``rl.py`` (L2836-3114); with
  ``padding_free=false`` nothing cuts or drops them. Labels are those of the data, or the ids: Unsloth sets a collator
  that would mask tokens equal to the pad token (L2746), but ``Trainer.__init__`` puts TRL's back in its place;
* markers (``_markers.py``, ``_spans.py``): searched in the truncated ids (L923-1064). Labels that the data bring stay
  masked where they were; rows without a label left are dropped (L1264). Markers are inferred from the chat template
  where none are given (L234).

2025.3 (its ``dataset_utils.py``): an answer runs from its marker to the next question's marker or the end of the row,
over EOS, system and tool turns; rows without a label stay; markers must be given; there is no ``messages`` column, nor
prompt and completion; packing is switched off in silence; existing labels stop ``train_on_responses_only``. The
transformers 4 of its days leaves many tokenizers as their files have them, where transformers 5 does not:
``load-as = "file"`` in lorads.toml gives those ids.

The first row of the data decides whether special tokens are added (``TrainOptions.first``; where that isn't known, the
first one of a batch stands for it). Of packing (``bfd``) the consequences
for each row are reproduced: it is cut, nothing is dropped, its first label is masked. With markers it is refused,
because an answer without an end would run on into the next row of its pack. Padding-free batches mask the first label
of every row; it is no target in any case, and is shown as the data set has it. Not reproduced: ``assistant_only_loss``
(use the markers), vision models, rows that bring their own chat template, ``standardize_data_formats``' guesses of
which key holds the role (ShareGPT's names are mapped), the repairs that Unsloth makes to chat templates without an
``add_generation_prompt``, and its errors for data sets in which no row at all keeps a label.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.templates.render import RenderFailure
from lorads.tokenizers.ids import Ids
from lorads.trainers import _whole
from lorads.trainers.base import LabelBatch, Place, TrainOptions, kept_by_length, labels_fed, sum_by_row
from lorads.trainers.unsloth._markers import contains, encoder, find_marker, inferred
from lorads.trainers.unsloth._spans import Marker, Search, answers

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

NO_ANSWER = "no answer is left to train on: its marker was not found in the row (Unsloth removes such rows)"
CUT_ANSWER = "no answer is left to train on: maximum length cut them all off (Unsloth removes such rows)"
NO_LABEL = "no label is left within the maximum length (Unsloth drops such tokenized rows without a word)"
TOOLS_AS_TEXT = RenderFailure(
    "stops", "its tools are a JSON text, at which Unsloth stops where a row has a prompt and a completion"
)
TEXT_BESIDE = RenderFailure(
    "stops", "the row has a text column too, which Unsloth takes instead: choose --format text, or take the column out"
)
FORMATTED_COMPLETION = RenderFailure(
    "stops", "it needs a formatting_func, which TRL refuses together with completion_only_loss (--train-on completion)"
)
NO_COLUMNS = RenderFailure(
    "stops", "Unsloth 2025.3 knows no prompt and completion columns: it asks for a formatting_func that makes texts"
)
LABELS_BEFORE_MARKERS = RenderFailure(
    "stops", "the row brings labels, at which train_on_responses_only of Unsloth 2025.3 breaks off"
)
NOTES: Mapping[str, str] = {
    "sharegpt": "ShareGPT's role names were mapped (human to user, gpt to assistant …) and the rows rendered to texts, "
    "as with Unsloth's standardize_sharegpt and a formatting_func",
    "alpaca": "the rows were made messages (user: instruction and input) and rendered to texts by the chat template; "
    "a formatting_func with an Alpaca prompt of your own trains on other texts: bring those as a text column",
    "preference": "the chosen answers were judged as Unsloth's SFTTrainer would train on them",
}


@dataclass(frozen=True)
class Options:
    """Settings of Unsloth's ``train_on_responses_only`` and of the SFTTrainer that it writes."""

    force_match: bool = True
    """Markers must be found with the very white space that they are given with."""
    mask_out_tokens: tuple[str, ...] = ()
    """Texts that are masked inside answers too (``</think>``)."""
    formatting_func: bool | None = None
    """Conversations are rendered to texts before training; by default those that are not in a ``messages`` column."""
    truncation_mode: Literal["keep_start", "keep_end"] = "keep_start"
    """Which end of an over-long row of messages or of ids is kept."""
    padding_free: bool = True
    """Rows are batched without padding, as Unsloth does unless it is told not to; rows of ids are cut only then."""


@dataclass(frozen=True)
class OlderOptions:
    """Settings of ``train_on_responses_only`` of unsloth_zoo 2025.3.16."""

    force_match: bool = True
    """Markers must be found with the very white space that they are given with."""


class Unsloth:
    name = "unsloth"
    version = "2026.10"
    default_max_length: int | None = 2048
    """``max_seq_length`` of ``FastLanguageModel.from_pretrained``."""
    Options: type[Any] = Options
    format_notes: Mapping[str, str] = NOTES

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> UnslothLabeller:
        _check_markers(options)
        search = None
        notes: list[str] = []
        if options.train_on in ("assistant", "last"):
            if options.packing:
                raise UsageError(
                    "with packing, Unsloth's train_on_responses_only searches whole packs: an answer without an end "
                    "runs on into the row behind it, which lorads does not reproduce",
                    "train without packing",
                )
            question, answer = options.instruction_marker, options.response_marker
            if (question is None) != (answer is None):
                raise UsageError(
                    "Unsloth takes both markers or none",
                    "give --instruction-marker and --response-marker, or neither: then they are told from the template",
                )
            if question is None or answer is None:
                question, answer = inferred(tokenizer, template)
                notes.append(
                    f"Unsloth tells from the chat template that {question!r} stands before a question and {answer!r} "
                    "before an answer"
                )
            search = _search(tokenizer, question, answer, options.own.force_match)
        if options.packing and options.max_length is None:
            raise UsageError("Unsloth packs to a maximum length, and there is none", "give --max-length N")
        return UnslothLabeller(tokenizer, template, options, search, tuple(notes))


class OlderUnsloth:
    name = "unsloth"
    version = "2025.3"
    default_max_length: int | None = 2048
    Options: type[Any] = OlderOptions
    format_notes: Mapping[str, str] = {
        **NOTES,
        "messages": "Unsloth 2025.3 takes texts alone: the rows were rendered to texts, as by a formatting_func",
    }

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> UnslothLabeller:
        _check_markers(options)
        if options.train_on in ("last", "completion"):
            raise UsageError(
                f"Unsloth 2025.3 cannot train on {'the last answer' if options.train_on == 'last' else 'completions'} "
                "alone",
                "choose --trainer unsloth, which is a later version, or --train-on assistant",
            )
        search = None
        if options.train_on == "assistant":
            question, answer = options.instruction_marker, options.response_marker
            if question is None or answer is None:
                raise UsageError(
                    "Unsloth 2025.3 must be given both markers", "give --instruction-marker and --response-marker"
                )
            search = Search(
                _resolved(answer, tokenizer, options.own.force_match, "--response-marker", older=True),
                _resolved(question, tokenizer, options.own.force_match, "--instruction-marker", older=True),
                older=True,
            )
        notes = ("Unsloth 2025.3 switches packing off",) if options.packing else ()
        return UnslothLabeller(tokenizer, template, options, search, notes)


def _check_markers(options: TrainOptions) -> None:
    given = options.instruction_marker is not None or options.response_marker is not None
    if given and options.train_on not in ("assistant", "last"):
        raise UsageError(
            "Unsloth searches for markers in train_on_responses_only alone",
            "add --train-on assistant (every answer) or --train-on last",
        )


def _resolved(text: str, tokenizer: Tokenizer, force_match: bool, option: str, older: bool = False) -> Marker:
    marker = find_marker(text, tokenizer, force_match, older)
    if marker is None:
        raise UsageError(
            f"Unsloth finds no ids to look for in {option} {text!r}",
            "give another marker" + ("" if force_match else ", or leave force_match on"),
        )
    return marker


def _search(tokenizer: Tokenizer, question_text: str, answer_text: str, force_match: bool) -> Search:
    question = _resolved(question_text, tokenizer, force_match, "--instruction-marker")
    answer = _resolved(answer_text, tokenizer, force_match, "--response-marker")
    # What is left without its edges may be no more than the opener of every turn (L859).
    if answer.core == question.core[: len(answer.core)] and answer.right:
        answer = Marker(answer.core + answer.right, answer.left)
    if question.core == answer.core[: len(question.core)] and question.right:
        question = Marker(question.core + question.right, question.left)
    special = tokenizer.special
    return Search(answer, question, _opener(tokenizer, question, answer), special.bos_id, special.eos_id)


def _opener(tokenizer: Tokenizer, question: Marker, answer: Marker) -> tuple[int, ...]:
    """The special tokens that both markers begin with: they open every turn, so they end an answer (L875-889)."""
    shared: list[int] = []
    for number, other in zip(question.core, answer.core, strict=False):
        if number != other:
            break
        shared.append(number)
    added = {number: token for token, number in tokenizer.special.added.items()}
    if not any(added.get(number, "").strip() for number in shared):
        return ()
    special = _special_ids(tokenizer)
    return tuple(shared) if special.issuperset(shared) else ()


def _special_ids(tokenizer: Tokenizer) -> set[int]:
    """Added tokens that are marked special, and the named ones."""
    named = tokenizer.special
    ids = {number for number in (named.bos_id, named.eos_id, named.pad_id, named.unk_id) if number is not None}
    return ids | named.special


class UnslothLabeller:
    def __init__(
        self,
        tokenizer: Tokenizer,
        template: Template | None,
        options: TrainOptions,
        search: Search | None,
        notes: Sequence[str],
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.options = options
        self.search = search
        self.notes = notes
        self.older = isinstance(options.own, OlderOptions)
        self.formatting: bool | None = True if self.older else options.own.formatting_func
        self.masked_out = () if self.older else _masked_out(options.own.mask_out_tokens, tokenizer)
        alone, framed = encoder(tokenizer)(["a"])[0], tokenizer.encode(["a"], add_special_tokens=True).row(0).tolist()
        front = next((i for i in range(len(framed)) if framed[i : i + len(alone)] == alone), 0)
        self.behind = len(framed) - front - len(alone)
        """How many tokens the tokenizer puts behind a text."""

    # Dataset types

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        batch = _whole.by_key(conversations, attrgetter("kind"), self._build)
        if self.search is not None:
            self._keep_answers(batch, self.search)
        elif self.options.packing and not self.older:
            _whole.mask_first(batch)
        return batch

    def _build(self, kind: Kind, rows: Sequence[Conversation]) -> LabelBatch:
        if kind is Kind.TOKENIZED:
            return self._tokenized(rows)
        if kind is Kind.TEXT:
            return self._texts(rows)
        if kind is Kind.MESSAGES:
            return _whole.by_key(rows, self._is_formatted, self._messages)
        if self.older:
            return _whole.refused(len(rows), NO_COLUMNS)
        return self._pairs(rows) if kind is Kind.PROMPT_COMPLETION else self._completed(rows)

    def _is_formatted(self, conversation: Conversation) -> bool:
        if self.formatting is not None:
            return self.formatting
        return conversation.record is not None and "messages" not in conversation.record

    def _messages(self, formatted: bool, rows: Sequence[Conversation]) -> LabelBatch:
        batch = self._formatted(rows) if formatted else self._rendered(rows)
        for i, row in enumerate(rows):
            if row.record is not None and isinstance(row.record.get("text"), str):
                batch.failures[i] = TEXT_BESIDE
        return batch

    def _texts(self, rows: Sequence[Conversation]) -> LabelBatch:
        special = self._adds_special(self._first_text(rows))
        batch = _whole.texts(rows, self.tokenizer, None, special)
        batch.kept = self._kept_by_tokenizer(batch.ids, special)
        return batch

    def _formatted(self, rows: Sequence[Conversation]) -> LabelBatch:
        """As a ``formatting_func`` makes texts of conversations."""
        if self.options.train_on == "completion":
            return _whole.refused(len(rows), FORMATTED_COMPLETION)
        if self.template is None:
            return _whole.refused(len(rows), _whole.NO_TEMPLATE)
        render = self.template.render(list(rows))
        first = next((text for i, text in enumerate(render.texts) if i not in render.failures), "")
        if self.options.first is not None and self.options.first.kind is Kind.MESSAGES:
            first = self.template.render([self.options.first]).texts[0]
        special = self._adds_special(first)
        ids = self.tokenizer.encode(render.texts, add_special_tokens=special)
        places = self.tokenizer.place(render.texts, ids, add_special_tokens=special)
        failures = {**render.failures, **_whole.own_templates(rows)}
        batch = _whole.rendered_batch(render, ids, places, np.ones(len(ids.flat), np.bool_), failures)
        batch.kept = self._kept_by_tokenizer(ids, special)
        return batch

    def _rendered(self, rows: Sequence[Conversation]) -> LabelBatch:
        batch = _whole.conversations_of(rows, self.tokenizer, self.template)
        batch.kept = kept_by_length(batch.ids, self.options.max_length, self.options.own.truncation_mode)
        return batch

    def _completed(self, rows: Sequence[Conversation]) -> LabelBatch:
        batch = _whole.conversations_of(rows, self.tokenizer, self.template, _whole.prompt_length)
        if self.options.train_on == "all":
            batch.trained[:] = True
        for i, row in enumerate(rows):
            if row.record is not None and isinstance(row.record.get("tools"), str):
                batch.failures.setdefault(i, TOOLS_AS_TEXT)
        # Completions are cut at the end whatever truncation_mode says (L2929).
        batch.kept = kept_by_length(batch.ids, self.options.max_length, "keep_start")
        return batch

    def _pairs(self, rows: Sequence[Conversation]) -> LabelBatch:
        special = self._adds_special(self._first_text(rows))
        boundary = None if self.options.train_on == "all" else _whole.prompt_length
        batch = _whole.pairs(rows, self.tokenizer, self.tokenizer.special.eos, boundary, special)
        batch.kept = kept_by_length(batch.ids, self.options.max_length, "keep_start")
        return batch

    def _tokenized(self, rows: Sequence[Conversation]) -> LabelBatch:
        options = self.options
        counting = ("assistant_masks", "completion_mask") if options.train_on == "completion" else ("assistant_masks",)

        def labels(row: Conversation) -> Sequence[int]:
            """``labels`` as they are; else the ids where every mask that counts is set (L3034-3053)."""
            if row.labels is not None:
                return row.labels
            masks = row.masks or {}
            return _whole.masked(row.input_ids or (), [masks[name] for name in counting if name in masks])

        batch = _whole.tokenized(rows, labels)
        if self.older:
            if self.search is not None:
                batch.failures = {i: LABELS_BEFORE_MARKERS for i, row in enumerate(rows) if row.labels is not None}
            return batch
        if options.packing:
            batch.kept = kept_by_length(batch.ids, options.max_length, "keep_start")
        elif options.own.padding_free:
            batch.kept = kept_by_length(batch.ids, options.max_length, options.own.truncation_mode)
            for i in np.flatnonzero(labels_fed(batch) == 0).tolist():
                if rows[i].labels is not None or any(name in (rows[i].masks or ()) for name in counting):
                    batch.dropped[i] = NO_LABEL
        return batch

    def _first_text(self, rows: Sequence[Conversation]) -> str:
        first = self.options.first
        return (rows[0].text or "") if first is None or first.text is None else first.text

    def _adds_special(self, first: str) -> bool:
        """Not where the first text begins with BOS, nor where the template's source holds it: its text, not the
        variable ``bos_token`` (L2822)."""
        bos = self.tokenizer.special.bos
        return bos is None or not (first.startswith(bos) or bos in (self.tokenizer.chat_template or ""))

    def _kept_by_tokenizer(self, ids: Ids, special: bool) -> npt.NDArray[np.bool_]:
        around = (0, self.behind if special else 0)
        return _whole.kept_by_tokenizer(ids, self.options.max_length, around, "right")

    # Answers

    def _keep_answers(self, batch: LabelBatch, search: Search) -> None:
        """Mask all but the answers, as they are found in what truncation left of a row; drop rows without any."""
        found = self._answers(batch.ids, search)
        if not batch.kept.all():
            # What is cut off may end an answer, or hold the last one.
            lengths, left = np.diff(batch.ids.starts), sum_by_row(batch.kept, batch.ids.starts)
            cut = np.flatnonzero(left < lengths)
            at = batch.kept & np.repeat(left < lengths, lengths)
            starts = np.zeros(len(cut) + 1, np.int64)
            np.cumsum(left[cut], out=starts[1:])
            found[at] = self._answers(Ids(batch.ids.flat[at], starts), search)
        batch.trained = batch.trained & found
        if self.older:
            return
        starts = batch.ids.starts
        for row in np.flatnonzero(labels_fed(batch) == 0).tolist():
            if row not in batch.failures:
                cut_off = batch.trained[starts[row] : starts[row + 1]].any()
                batch.dropped.setdefault(row, CUT_ANSWER if cut_off else NO_ANSWER)

    def _answers(self, ids: Ids, search: Search) -> npt.NDArray[np.bool_]:
        found = answers(ids, search, self.options.train_on == "last")
        for sequence in self.masked_out:
            at = _whole.matches(ids, sequence)
            for step in range(len(sequence)):
                found[at + step] = False
        return found

    def reason(self, place: Place, trained: bool) -> str:
        if self.search is None:
            if not trained:
                return "Unsloth masks as many tokens as the prompt alone has, where a row has a prompt and a completion"
            if place is Place.EOS:
                return "Unsloth trains an EOS that the text or the template holds; it appends one to completions alone"
            return "Unsloth trains every token unless train_on_responses_only is called"
        if self.older:
            if trained:
                return (
                    "train_on_responses_only of Unsloth 2025.3 trains from an answer's marker to the next question's, "
                    "or to the end of the row, whatever stands between"
                )
            return "train_on_responses_only of Unsloth 2025.3 masks what stands outside answers, their markers included"
        which = "the last answer" if self.options.train_on == "last" else "answers"
        if trained and place in (Place.EOS, Place.TURN_END):
            return "Unsloth's train_on_responses_only trains the EOS that ends an answer"
        if trained:
            return f"Unsloth's train_on_responses_only trains {which} up to EOS or the next turn's opener"
        if place is Place.HEADER:
            return "Unsloth's train_on_responses_only masks the marker that stands before an answer"
        if place in (Place.EOS, Place.TURN_END):
            return "Unsloth's train_on_responses_only trains what ends an answer only where it is the tokenizer's EOS"
        return f"Unsloth's train_on_responses_only masks what stands outside {which}"


def _masked_out(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """The ids of each text, and of the text behind a space where that merges into it (L903-914)."""
    out: dict[tuple[int, ...], None] = {}
    for text in texts:
        bare, spaced = encoder(tokenizer)([text, " " + text])
        for ids in (bare,) if contains(spaced, bare) else (bare, spaced):
            if ids:
                out[tuple(ids)] = None
    return tuple(out)


TRAINERS = (Unsloth(), OlderUnsloth())
