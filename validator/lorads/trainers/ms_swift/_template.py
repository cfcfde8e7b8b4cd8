"""swift's ``TemplateMeta`` (``swift/template/template_meta.py``), from ``templates.toml``, bound to a tokenizer."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from lorads.errors import UsageError

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer

Word = str | tuple[int, ...]
"""A piece of a prompt: a text, or ids."""
Prompt = tuple[Word, ...]

SYSTEM, QUERY, RESPONSE = "{{SYSTEM}}", "{{QUERY}}", "{{RESPONSE}}"
_DATED = "{{TODAY}}"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@dataclass(frozen=True, slots=True)
class SwiftTemplate:
    """One template with its ids in place. Fields are those of ``TemplateMeta`` after its ``init``."""

    name: str
    kind: str
    """Which template class of swift: ``plain``, ``gemma3``, ``deepseek_v3_1``, ``gpt_oss``."""
    prefix: Prompt
    prompt: Prompt
    chat_sep: Prompt | None
    suffix: Prompt
    system_prefix: Prompt | None
    system_prompt: Prompt | None
    """The prompt of the last round, where the system text stands in it (mistral_nemo)."""
    default_system: str | None
    auto_add_bos: bool
    stop_words: tuple[str, ...]
    """Those that are texts: an answer that ends with one gets no suffix."""
    agent: str | None
    is_thinking: bool
    thinking_prefix: str
    non_thinking_prefix: str
    history_thinking_prefix: str
    preserve_thinking: bool | None
    opening: str
    """What gpt_oss begins its system text with."""
    dated: bool
    """The day of the run stands in its rows."""
    begin: tuple[int, ...] = ()
    """With ``auto_add_bos``: what the tokenizer puts in front of a text, and behind it."""
    end: tuple[int, ...] = ()

    @property
    def support_system(self) -> bool:
        return self.system_prefix is not None or self.system_prompt is not None


@cache
def _table() -> dict[str, dict[str, Any]]:
    text = files("lorads.trainers.ms_swift").joinpath("templates.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def names() -> list[str]:
    return sorted(_table())


def _fields(name: str) -> dict[str, Any]:
    mine = dict(_table()[name])
    like = mine.pop("like", None)
    whole = {**_fields(like), **mine} if like else mine
    return {key: value for key, value in whole.items() if value is not False}


def load_template(
    name: str, tokenizer: Tokenizer, *, system: str | None, chat: bool, today: str | None
) -> SwiftTemplate:
    """Raises ``UsageError`` for a template that lorads does not have, or that the tokenizer can't serve.

    ``chat=False`` is swift's ``--use_chat_template false``, which keeps of a template nothing but its stop words.
    """
    if name not in _table():
        raise UsageError(
            f'lorads does not have the ms-swift template "{name}"', f"it has: {', '.join(names())} (template=NAME)"
        )
    fields = _fields(name)
    dated = _DATED in repr(fields)
    fields = _with_date(fields, today or _today())
    prefix, prompt = fields.get("prefix", []), fields["prompt"]
    system_prefix = fields.get("system_prefix")
    if any(SYSTEM in word for word in prefix if isinstance(word, str)):
        system_prefix = prefix
        prefix = [word.replace(SYSTEM, "") if isinstance(word, str) else word for word in prefix]
    system_prompt = None
    if any(SYSTEM in word for word in prompt if isinstance(word, str)):
        system_prompt = prompt
        prompt = [word for word in prompt if SYSTEM not in word]
    chat_sep, suffix = fields.get("chat_sep"), fields.get("suffix", [["eos_token_id"]])
    auto_add_bos = bool(fields.get("auto_add_bos"))
    default = fields.get("default_system")
    if not chat:
        prefix, prompt, chat_sep, suffix = [], [QUERY], None, [["eos_token_id"]]
        system_prefix, system_prompt, auto_add_bos, default = None, None, True, None
    if system is not None:
        if system_prefix is None and system_prompt is None:
            raise UsageError(
                f'the ms-swift template "{name}" takes no system text'
                + ("" if chat else " without the chat template (use_chat_template=false)"),
                "leave system out: swift stops here",
            )
        default = system
    bound = _Bound(name, tokenizer)
    words = [*fields.get("stop_words", []), *(word.strip() for word in suffix[-1:] if isinstance(word, str))]
    if bound.eos is not None:
        words.append(bound.eos)
    begin, end = bound.frame() if auto_add_bos else ((), ())
    return SwiftTemplate(
        name=name,
        kind=fields.get("class", "plain"),
        prefix=bound.prompt(prefix),
        prompt=bound.prompt(prompt),
        chat_sep=None if chat_sep is None else bound.prompt(chat_sep),
        suffix=bound.prompt(suffix),
        system_prefix=None if system_prefix is None else bound.prompt(system_prefix),
        system_prompt=None if system_prompt is None else bound.prompt(system_prompt),
        default_system=default,
        auto_add_bos=auto_add_bos,
        stop_words=tuple(dict.fromkeys(words)),
        agent=fields.get("agent_template") if chat else None,
        is_thinking=bool(fields.get("is_thinking")) and chat,
        thinking_prefix=fields.get("thinking_prefix", "") if chat else "",
        non_thinking_prefix=fields.get("non_thinking_prefix", "") if chat else "",
        history_thinking_prefix=fields.get("history_thinking_prefix", "") if chat else "",
        preserve_thinking=fields.get("preserve_thinking") if chat else None,
        opening=fields.get("opening", ""),
        dated=dated and chat,
        begin=begin,
        end=end,
    )


class _Bound:
    """What ``TemplateMeta.init`` and the loader (``swift/model/register.py`` L382) take from the tokenizer."""

    def __init__(self, name: str, tokenizer: Tokenizer) -> None:
        special = tokenizer.special
        self.eos = special.eos if special.eos is not None else special.pad
        eos = special.eos_id if special.eos_id is not None else special.pad_id
        self._ids = {"bos_token_id": special.bos_id, "eos_token_id": eos}
        self._name, self._tokenizer = name, tokenizer

    def prompt(self, words: list[Any]) -> Prompt:
        return tuple(word if isinstance(word, str) else tuple(map(self._id, word)) for word in words)

    def _id(self, word: str | int) -> int:
        found = self._ids[word] if isinstance(word, str) else word
        if found is None or not 0 <= found < self._tokenizer.vocab_size:
            what = f"the token that swift calls {word}" if isinstance(word, str) else f"a token {word}"
            raise UsageError(
                f'the ms-swift template "{self._name}" needs {what}, and the tokenizer has none',
                "choose another template: --trainer-option template=NAME",
            )
        return found

    def frame(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """``_swift_encode`` (``base.py`` L1424) asks the tokenizer for the ids of the letter a, with and without
        special tokens, and takes what stands around it."""
        alone = self._tokenizer.encode(["a"]).flat.tolist()
        framed = self._tokenizer.encode(["a"], add_special_tokens=True).flat.tolist()
        if len(alone) != 1:
            raise UsageError(
                f'the ms-swift template "{self._name}" works only where the letter a is one token: swift would drop '
                "every row",
                "choose another template: --trainer-option template=NAME",
            )
        at = framed.index(alone[0])
        return tuple(framed[:at]), tuple(framed[at + 1 :])


def today_text(template: str, day: str) -> str:
    """The day (YYYY-MM-DD) as the template writes it."""
    if template != "llama3_2":
        return day
    year, month, of_month = day.split("-")
    return f"{of_month} {_MONTHS[int(month) - 1]} {year}"


def _today() -> str:
    from datetime import date

    return date.today().isoformat()


def check_day(day: str) -> None:
    from datetime import date

    try:
        valid = re.fullmatch(r"\d{4}-\d\d-\d\d", day) is not None and date.fromisoformat(day) is not None
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f'today = "{day}" is no day', "write it as YYYY-MM-DD")


def _with_date(fields: dict[str, Any], day: str) -> dict[str, Any]:
    def put(value: Any) -> Any:
        if isinstance(value, list):
            return [put(item) for item in value]
        if isinstance(value, str) and _DATED in value:
            # llama3_2 is the one template that spells the month out
            spelt = today_text("llama3_2" if "Cutting Knowledge" in value else "", day)
            return value.replace(_DATED, spelt)
        return value

    return {key: put(value) for key, value in fields.items()}
