"""ms-swift 4.6.0, ``swift sft`` (and ``swift pt``), with transformers 4.57.6 to 5.19.0.

What is reproduced, and where it stands in ``swift/``:

* Rows are read by the columns they have: messages, Alpaca, or a question and its answer under many names
  (``dataset/preprocessor/core.py`` L428-760); rows that raise are left out (L240).
* A template of swift's own (``template/templates/*.py``; here ``templates.toml``), not the tokenizer's chat template,
  puts a row together (``template/base.py`` L1397): the system text of the row, or of ``system``, or of the template;
  messages of one role in a row are merged; a conversation that the assistant begins gets an empty question.
* Neighbouring pieces of one weight are tokenized as one text, others apart (L954, L1208).
* ``loss_scale`` decides what is trained (``loss_scale/base.py``): answers and the suffix behind the last one; in a
  template for models that may think or not, ``ignore_empty_think`` is added (``arguments/base_args/template_args.py``
  L163). ``loss`` and ``loss_scale`` of a message override it. Then the tokens of the suffix are trained behind every
  trained answer that they follow (``_add_dynamic_eos``, L1231), and the first label is masked (L1644).
* A row that is longer than ``max_length`` (by default the model's limit) is left out, cut at either end, or, in
  pre-training alone, cut in pieces (``_encode_truncated``, L1559; here the pieces stay one row). Packing puts whole
  rows together and changes no label.
* ``template_backend = "jinja"`` renders the tokenizer's template and trains all of it (``_jinja_encode``, L1242).
* Tools: the agent templates ``hermes``, ``llama3``, ``qwen_en`` and ``react_en`` (``agent_template/*.py``).

Which template swift takes, it knows from the model's name; lorads guesses it by the tokenizer's name and vocabulary and
says so, or asks for ``template``.

Not reproduced, and refused or told at the row: templates that are not in ``templates.toml``, other agent templates, the
loss scale ``agentflan``, images, audio and video, Anthropic's content blocks, ``rejected_messages``, answers given as
ids, tools under the jinja backend. swift decides by the columns of the whole file, lorads by those of each row. What
``datasets`` changes when it loads a file (dates, null keys, the order of keys in tools that are objects) is not
reproduced. Under transformers 5.3 to 5.19 the tokenizers of DeepSeek lose every space; lorads builds what the file
says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lorads.errors import UsageError
from lorads.trainers.base import TrainOptions
from lorads.trainers.ms_swift._template import check_day, load_template

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer
    from lorads.trainers.ms_swift._labeller import SwiftLabeller

BASE: Mapping[str, str] = {"default": "", "assistant": "default", "all": "all", "last": "last_round"}


@dataclass(frozen=True)
class Options:
    """The settings of swift that change ids or labels, by swift's own names."""

    template: str | None = None
    """Name of swift's template; guessed from the tokenizer where it is not given."""
    system: str | None = None
    """The system text of rows that have none, or the .txt file that holds it."""
    truncation_strategy: Literal["delete", "left", "right", "split"] = "delete"
    """What happens to rows over the maximum length."""
    loss_scale: str = "default"
    """A base strategy (default, last_round, all) and scales, joined by +."""
    template_backend: Literal["swift", "jinja"] = "swift"
    """Whose template renders: swift's, or the tokenizer's own."""
    use_chat_template: bool = True
    """False, as swift pt has it: the last question and answer, one behind the other."""
    agent_template: str | None = None
    """How tools are written; the template says it where this doesn't."""
    add_non_thinking_prefix: bool = True
    """Put an empty thought in front of answers that have none, where the template has one."""
    enable_thinking: bool | None = None
    """Whether prompts without an answer end with an open thought."""
    preserve_thinking: bool | None = None
    """Whether thoughts of earlier rounds stay."""
    disable_ignore_empty_think: bool = False
    """Train empty thoughts too."""
    today: str | None = None
    """The day (YYYY-MM-DD) that some templates write into rows; swift takes the day of the run."""


class MsSwift:
    name = "ms-swift"
    version = "4.6"
    default_max_length: int | None = None
    Options = Options
    format_notes: Mapping[str, str] = {
        "preference": "ms-swift's sft reads neither chosen nor rejected: it takes these rows for questions without an "
        "answer and trains nothing of them; rename the columns to response and rejected_response",
        "text": "ms-swift takes the text for an answer to an empty question",
        "tokenized": "ms-swift takes no rows of ids",
    }

    def prepare(self, tokenizer: Tokenizer, template: Template | None, options: TrainOptions) -> SwiftLabeller:
        from lorads.trainers.ms_swift._guess import guess
        from lorads.trainers.ms_swift._labeller import SwiftLabeller

        own: Options = options.own if options.own is not None else Options()
        scale = _loss_scale(options, own)
        if options.response_marker or options.instruction_marker:
            raise UsageError(
                "ms-swift searches for no markers",
                "leave them out; what is trained follows from loss_scale",
            )
        if own.today is not None:
            check_day(own.today)
        notes: list[str] = []
        name = own.template
        if name is None:
            name, note = guess(tokenizer)
            notes.append(note)
        system = _system_text(own.system)
        bound = load_template(name, tokenizer, system=system, chat=own.use_chat_template, today=own.today)
        hybrid = bound.is_thinking and bound.non_thinking_prefix
        if hybrid and not own.disable_ignore_empty_think and "ignore_empty_think" not in scale:
            scale += "+ignore_empty_think"
        if own.truncation_strategy == "split" and own.use_chat_template:
            raise UsageError(
                "ms-swift splits long rows in pre-training alone (swift pt)",
                "set use_chat_template=false with it, or choose truncation_strategy delete, left or right",
            )
        if options.packing and bound.kind == "gpt_oss":
            raise UsageError("ms-swift packs no rows of the template gpt_oss", "leave --packing out")
        if own.template_backend == "jinja" and (template is None or bound.kind == "gpt_oss"):
            raise UsageError(
                "the jinja backend needs the tokenizer's chat template, and there is none"
                if template is None
                else "lorads does not reproduce the jinja backend with the template gpt_oss",
                "leave template_backend out",
            )
        return SwiftLabeller(tokenizer, template, options, own, bound, scale, notes)


def _system_text(system: str | None) -> str | None:
    """``template_args.py`` L146: a text file is read, and a written backslash with an n is a line break."""
    if system is None or not system.endswith(".txt"):
        return None if system is None else system.replace("\\n", "\n")
    try:
        return Path(system).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UsageError(f"ms-swift reads the system text from the file {system}: {error}", "give the text") from None


def _loss_scale(options: TrainOptions, own: Options) -> str:
    """``--train-on`` as swift's base strategy."""
    from lorads.trainers.ms_swift._loss import STRATEGIES, parse

    parse(own.loss_scale)
    if options.train_on == "completion":
        raise UsageError(
            "ms-swift knows no completions: a prompt and its completion are a question and its answer to it",
            "leave --train-on out: answers are what it trains",
        )
    base = BASE[options.train_on]
    if not base:
        return own.loss_scale
    first, *scales = own.loss_scale.split("+")
    if first not in STRATEGIES:
        return f"{base}+{own.loss_scale}"
    if own.loss_scale not in ("default", base) and first != base:
        raise UsageError(
            f"--train-on {options.train_on} is ms-swift's loss scale {base}, and loss_scale says {own.loss_scale}",
            "give one of the two",
        )
    return "+".join([base, *scales])


TRAINERS = (MsSwift(),)
