"""What a tokenizer builds in an environment, beside what lorads builds from the same files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from lorads.doctor.diagnosis import Trouble
from lorads.doctor.known import Pair
from lorads.findings import Severity
from lorads.templates import Template
from lorads.tokenizers import Ids, Tokenizer

SHOWN = 90
"""Characters of a text that an example shows."""


@dataclass(slots=True)
class Reference:
    """lorads' side: the tokenizer as ``check`` judges by it, the same from tokenizer.json alone, and the template."""

    tokenizer: Tokenizer
    file: Tokenizer
    template: Template | None
    load_as: str
    wants_bos: bool
    """Whether tokenizer_config.json says ``add_bos_token``."""

    def ids(self, text: str, *, special: bool = False) -> list[int]:
        return _only(self.tokenizer.encode([text], add_special_tokens=special))

    def file_ids(self, text: str) -> list[int]:
        return _only(self.file.encode([text]))


def _only(ids: Ids) -> list[int]:
    return [int(number) for number in ids.flat]


@dataclass(slots=True)
class Comparison:
    """What came of it."""

    name: str
    """The library and its version, as sentences call it."""
    pairs: list[Pair]
    same: list[str] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    measured: dict[str, Any] = field(default_factory=dict)

    def trouble(
        self,
        code: str,
        severity: Severity,
        title: str,
        effect: str,
        advice: str,
        example: tuple[tuple[str, str], ...] = (),
    ) -> None:
        """Add what was measured; where the table knows it, its advice and its evidence are taken."""
        pair = next((pair for pair in self.pairs if pair.code == code), None)
        self.troubles.append(
            Trouble(
                code,
                "META002" if pair is None or not code.endswith("trained") else "META001",
                severity,
                title,
                effect,
                advice if pair is None else pair.advice,
                example=example,
                threads=() if pair is None else tuple(pair.threads),
            )
        )

    def has(self, *codes: str) -> bool:
        return any(trouble.code in codes for trouble in self.troubles)


def compare_tokenizer(
    out: Comparison,
    answer: dict[str, Any],
    reference: Reference,
    texts: dict[str, str],
    conversations: dict[str, list[dict[str, Any]]],
) -> None:
    """Everything that can be told from the probe's answer about ``AutoTokenizer``, added to ``out``."""
    _texts(out, answer["texts"], reference, texts)
    _named_tokens(out, answer, reference)
    _chats(out, answer["conversations"], reference, conversations)
    _framing(out, answer, reference, texts)


# Ids of plain texts


@dataclass(slots=True)
class Differing:
    """Texts whose ids are not lorads'."""

    lossy: dict[str, tuple[str, str, Counter[str]]] = field(default_factory=dict)
    """Text, what its ids stand for, and what is gone."""
    as_file: list[str] = field(default_factory=list)
    otherwise: dict[str, tuple[str, str]] = field(default_factory=dict)


def _texts(out: Comparison, answers: list[dict[str, Any]], reference: Reference, texts: dict[str, str]) -> None:
    differing = Differing()
    not_the_file = 0
    broken_decoding: tuple[str, str] | None = None
    for (name, text), answer in zip(texts.items(), answers, strict=True):
        ids, expected, of_file = answer["plain"], reference.ids(text), reference.file_ids(text)
        if ids == expected:
            not_the_file += expected != of_file
            read = reference.tokenizer.decode(ids)
            if read == text != answer["decoded"]:
                broken_decoding = broken_decoding or (text, answer["decoded"])
        else:
            sort(differing, name, text, ids, of_file, reference)
    out.measured["texts"] = len(texts)
    out.measured["texts_with_other_ids"] = len(texts) - sum(
        answer["plain"] == reference.ids(text) for text, answer in zip(texts.values(), answers, strict=True)
    )
    out.measured["texts_losing_characters"] = len(differing.lossy)
    _tell_texts(out, differing, reference, texts)
    if not (differing.lossy or differing.as_file or differing.otherwise):
        out.same.append(
            f"ids of {len(texts)} texts (indented code, tabs, other scripts): no space is lost, nothing differs"
        )
    if not_the_file and not out.has("ids-differ"):
        out.notes.append(
            f"{out.name} builds this tokenizer's class anew, so that {not_the_file} of {len(texts)} texts get other "
            "ids than tokenizer.json alone gives (leading spaces, text behind a control token); `lorads check` does "
            "the same"
        )
    if broken_decoding is not None:
        text, decoded = broken_decoding
        out.trouble(
            "decode-differs",
            Severity.WARNING,
            f"{out.name} decodes these ids to another text than the files say",
            "The ids that are trained are right, but what you see generated, and what an evaluation compares, is not.",
            "Install another version of transformers, or decode with tokenizers.Tokenizer.from_file(tokenizer.json).",
            (("text", shown(text)), ("decoded", shown(decoded))),
        )


def sort(differing: Differing, name: str, text: str, ids: list[int], of_file: list[int], reference: Reference) -> None:
    """Put a text whose ids are not lorads' where it belongs."""
    if ids == of_file:
        differing.as_file.append(name)
        return
    try:
        stands_for = reference.file.decode(ids)
    except KeyError as unknown:
        differing.otherwise[name] = (text, f"an id that tokenizer.json has no token for: {unknown}")
        return
    gone = Counter(reference.file.decode(of_file)) - Counter(stands_for)
    spaces = sum(count for char, count in gone.items() if char.isspace())
    there = sum(char.isspace() for char in text)
    # a space that SentencePiece puts in front, or leaves out there, is no loss of text
    if any(not char.isspace() for char in gone) or spaces > max(1, there // 4):
        differing.lossy[name] = (text, stands_for, gone)
    else:
        differing.otherwise[name] = (text, stands_for)


def _tell_texts(out: Comparison, differing: Differing, reference: Reference, texts: dict[str, str]) -> None:
    if differing.lossy:
        name = "code with indentation" if "code with indentation" in differing.lossy else next(iter(differing.lossy))
        text, stands_for, _ = differing.lossy[name]
        gone: Counter[str] = Counter()
        for _, _, lost in differing.lossy.values():
            gone += lost
        out.trouble(
            "text-lost",
            Severity.ERROR,
            f"{out.name} loses text: {_what_is_gone(gone)} in {len(differing.lossy)} of {len(texts)} texts",
            "What is lost here never reaches the model: it learns, and then writes, text without it. Code that was "
            "trained so can't be run. No loss curve shows it.",
            "Install another version of transformers, or load the file itself: "
            "PreTrainedTokenizerFast(tokenizer_file=...).",
            (("text", shown(text)), ("becomes", shown(stands_for))),
        )
    if differing.otherwise and not differing.lossy:
        name, (text, stands_for) = next(iter(differing.otherwise.items()))
        out.trouble(
            "ids-differ",
            Severity.WARNING,
            f"{out.name} builds other ids than the files say for {len(differing.otherwise)} of {len(texts)} texts",
            "No text is lost, but the model gets other tokens than those it knows from its pretraining, and "
            "`lorads check` judges other ids than you train on.",
            "Compare with the version of transformers that the model card names, and install that one.",
            (("text", shown(text)), ("becomes", shown(stands_for))),
        )
    if differing.as_file and not differing.lossy and not differing.otherwise:
        out.trouble(
            "judged-otherwise",
            Severity.INFO,
            f"{out.name} takes tokenizer.json as it is, and lorads judges by what transformers 5.23 makes of it",
            f"Your training is sound. But for {len(differing.as_file)} of {len(texts)} texts (leading spaces, text "
            "behind a control token) `lorads check` counts and judges other ids than yours.",
            'Put load_as = "file" into lorads.toml, so that `lorads check` judges your ids.',
        )


def _what_is_gone(gone: Counter[str]) -> str:
    names = {" ": "space", "\n": "line feed", "\t": "tab"}
    parts = [f"{gone[char]} {name}{'s' if gone[char] > 1 else ''}" for char, name in names.items() if gone[char]]
    others = sum(count for char, count in gone.items() if char not in names)
    if others:
        parts.append(f"{others} other character{'s' if others > 1 else ''}")
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts) + " gone"


# Special tokens


def _named_tokens(out: Comparison, answer: dict[str, Any], reference: Reference) -> None:
    special = reference.tokenizer.special
    expected = {"bos": (special.bos, special.bos_id), "eos": (special.eos, special.eos_id)}
    expected["pad"] = (special.pad, special.pad_id)
    effects = {
        "eos": "The end of an answer is another token than the model's own: it doesn't learn to stop.",
        "bos": "What is put in front of texts is another token than the model knows there.",
        "pad": "Batches are filled with another token; where a collator masks by it, it decides what is trained.",
    }
    differ = False
    for name, (token, number) in expected.items():
        given, given_id = answer["special"][name]
        if (given or None) == (token or None) and (token is None or given_id == number):
            continue
        differ = True
        out.trouble(
            f"{name}-differs",
            Severity.ERROR if name == "eos" else Severity.WARNING,
            f"{out.name} has {_token(given, given_id)} as {name}_token, the files say {_token(token, number)}",
            effects[name],
            f"Set it yourself after loading: tokenizer.{name}_token = {token!r}."
            if token
            else "Look into tokenizer_config.json and special_tokens_map.json: one of them names it.",
        )
    if not differ:
        names = ", ".join(f"{name} {_token(*pair)}" for name, pair in expected.items())
        out.same.append(f"special tokens: {names}")


def _token(token: str | None, number: int | None) -> str:
    return "none" if token is None else f"{token} ({number})"


def _framing(out: Comparison, answer: dict[str, Any], reference: Reference, texts: dict[str, str]) -> None:
    """What the library puts in front of a text and behind it when it is not told otherwise."""
    text = texts["one letter"]
    given = answer["texts"][list(texts).index("one letter")]
    front, behind = _around(given["default"], given["plain"])
    plain = reference.ids(text)
    own_front, own_behind = _around(reference.ids(text, special=True), plain)
    special = reference.tokenizer.special
    bos, eos = special.bos_id, special.eos_id
    chats = [chat for chat in answer["conversations"] if "ids" in chat]
    rendered = max((_leading(chat["ids"], bos) for chat in chats), default=None)
    again = max((_leading(chat["again"], bos) for chat in chats), default=None)
    out.measured["bos"] = {
        "in_front_of_a_text": _leading(front, bos),
        "by_the_files": int(reference.wants_bos or bos in own_front),
        "in_a_rendered_conversation": rendered,
        "in_a_rendered_conversation_tokenized_again": again,
    }
    has, had = bos is not None and bos in front, bos is not None and bos in own_front
    twice = again is not None and again > 1
    if twice and has and not had:
        out.trouble(
            "double-bos",
            Severity.WARNING,
            f"{out.name} puts {special.bos} in front of every text, and the chat template writes one too: a rendered "
            f"conversation that is tokenized again begins with {again}",
            "Two is what the model never saw. It happens where conversations are turned into a text column first; "
            "given as messages they get one. `lorads check` judges as transformers 5 builds: texts without it.",
            "Give conversations as messages; or tokenize rendered text with add_special_tokens=False.",
            (("rendered", f"{rendered} × {special.bos}"), ("tokenized again", f"{again} × {special.bos}")),
        )
    elif has and not had:
        out.trouble(
            "bos-added",
            Severity.WARNING,
            f"{out.name} puts {special.bos} in front of every text; lorads, as transformers 5 does, puts none",
            "Your training may well be right, but `lorads check` judges texts that are one token shorter.",
            "Add one to what `lorads check` calls the length of a text.",
        )
    elif not has and (had or reference.wants_bos):
        where = (
            " Conversations are not concerned: the chat template writes it."
            if rendered
            else " Conversations begin without it as well: the chat template writes none."
            if rendered is not None
            else ""
        )
        out.trouble(
            "bos-missing",
            Severity.WARNING,
            f"{out.name} puts no {special.bos} in front of a text, and "
            + ("tokenizer.json says it should" if had else "tokenizer_config.json says add_bos_token"),
            "Texts, and prompts with completions, begin without the token that the model saw first in every text of "
            f"its pretraining.{where}",
            "Write the token at the start of such texts yourself, or train on conversations.",
        )
    elif twice:
        out.notes.append(
            f"a rendered conversation that is tokenized again begins with {again} × {special.bos}: the files "
            "themselves say so, in every version. Give conversations as messages, or use add_special_tokens=False"
        )
    else:
        out.same.append(
            f"in front of a text: {_tokens(front, reference)}; in front of a conversation: {_often(rendered)}"
        )
    if (eos in behind) != (eos in own_behind):
        out.trouble(
            "eos-added" if eos in behind else "eos-missing",
            Severity.WARNING,
            f"{out.name} puts {'' if eos in behind else 'no '}{special.eos} behind a text, and the files say otherwise",
            "Where a trainer adds the end token too, there are two; where it relies on the tokenizer, there is none "
            "and the model doesn't learn to stop.",
            "Look at add_eos_token in tokenizer_config.json.",
        )
    rest = [number for number in (*front, *behind) if number not in (bos, eos)]
    own_rest = [number for number in (*own_front, *own_behind) if number not in (bos, eos)]
    if rest != own_rest:
        out.trouble(
            "framing-differs",
            Severity.WARNING,
            f"{out.name} puts {_tokens(rest, reference)} around a text, the files say {_tokens(own_rest, reference)}",
            "Every text that is tokenized gets tokens that `lorads check` doesn't count.",
            "Compare with the version of transformers that the model card names.",
        )


def _around(whole: list[int], inner: list[int]) -> tuple[list[int], list[int]]:
    for begin in range(len(whole) - len(inner) + 1):
        if whole[begin : begin + len(inner)] == inner:
            return whole[:begin], whole[begin + len(inner) :]
    return whole, []


def _leading(ids: list[int], token: int | None) -> int:
    count = 0
    while count < len(ids) and ids[count] == token:
        count += 1
    return count


def _tokens(numbers: list[int], reference: Reference) -> str:
    return " ".join(reference.file.token(number) for number in numbers) if numbers else "nothing"


def _often(count: int | None) -> str:
    return "no template" if count is None else {0: "no BOS", 1: "one BOS"}.get(count, f"{count} BOS")


# Conversations


def _chats(
    out: Comparison,
    answers: list[dict[str, Any]],
    reference: Reference,
    conversations: dict[str, list[dict[str, Any]]],
) -> None:
    expected = rendered(reference.template, list(conversations.values()))
    failing, other_text, other_ids = [], [], []
    done = 0
    for (name, _), answer, (text, failed) in zip(conversations.items(), answers, expected, strict=True):
        error = answer.get("error")
        if error is not None and text is None:
            continue  # both refuse it: so does the template
        if error is not None:
            failing.append((name, error))
        elif text is None:
            other_text.append((name, f"(lorads renders nothing: {failed})", answer["text"]))
        elif answer["text"] != text:
            other_text.append((name, text, answer["text"]))
        elif answer["ids"] != reference.ids(text):
            other_ids.append(name)
        else:
            done += 1
    out.measured["conversations"] = {"same": done, "failing": len(failing), "other_text": len(other_text)}
    if failing:
        name, error = failing[0]
        missing = reference.template is not None and "chat_template" in error["message"]
        out.trouble(
            "template-missing" if missing else "template-fails",
            Severity.ERROR,
            f"{out.name} can't render {_count(failing, answers)}: {error['type']}: {first_line(error['message'])}",
            "Training on conversations stops there, or falls back on another template than the tokenizer's own.",
            "Newer versions read chat_template.jinja; older ones want the template inside tokenizer_config.json."
            if missing
            else "Install a newer transformers (and jinja2 3.1 or later).",
        )
    if other_text:
        name, ours, theirs = other_text[0]
        at = _first_difference(ours, theirs)
        out.trouble(
            "template-differs",
            Severity.ERROR,
            f"{out.name} renders {_count(other_text, answers)} otherwise than the template says ({name})",
            "The model is trained on other turn markers or other text than lorads judges, and than it is asked with "
            "later.",
            "Compare with the version of transformers that the model card names; `lorads check` judges by 5.23.",
            (("by the files", shown(ours[at:])), ("installed", shown(theirs[at:]))),
        )
    if other_ids and not out.has("text-lost", "ids-differ", "judged-otherwise"):
        out.trouble(
            "ids-differ",
            Severity.WARNING,
            f"{out.name} builds other ids than the files say for {_count(other_ids, answers)} ({other_ids[0]})",
            "The model gets other tokens than those it knows, and `lorads check` judges other ids than you train on.",
            "Compare with the version of transformers that the model card names.",
        )
    if done and not (failing or other_text or other_ids):
        out.same.append(f"the chat template: {done} conversation{'s' if done > 1 else ''} rendered and tokenized alike")


def rendered(template: Template | None, conversations: list[list[dict[str, Any]]]) -> list[tuple[str | None, str]]:
    """Each conversation as lorads renders it, or None and why it can't be."""
    from lorads.formats import Conversation, Kind

    if template is None:
        return [(None, "there is no chat template")] * len(conversations)
    batch = template.render([Conversation(Kind.MESSAGES, messages) for messages in conversations])
    return [
        (None, batch.failures[i].message) if i in batch.failures else (text, "") for i, text in enumerate(batch.texts)
    ]


def _count(some: list[Any], every: list[Any]) -> str:
    return f"{len(some)} of {len(every)} conversations"


def _first_difference(one: str, other: str) -> int:
    """Where two texts part, a few characters before it."""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return max(at - 20, 0)


def first_line(message: str) -> str:
    return (message.strip().splitlines() or ["(no message)"])[0][:200]


def shown(text: str) -> str:
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
