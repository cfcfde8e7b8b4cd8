"""The markers around answers: their ids in context, and how they are told from a chat template.

``dataset_utils.py`` of unsloth_zoo: ``_find_common_token_ids`` (2026.10.9 L111-206, 2025.3.16 L111-181),
``_stable_marker_edges`` (L212-231), ``get_chat_template_parts`` (L234-431).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.trainers.unsloth._spans import Marker

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.tokenizers import Tokenizer

EDGES = ("\\", "{", "a", "A", "1", "(", ".", "<", "}", ">")
"""What may touch a marker: an edge token that changes beside one of these is optional."""
USER, ASSISTANT = "\u2060USERPROBE7q\u2060", "\u2060ASSTPROBE4z\u2060"
"""The contents of the conversation from which markers are read. Byte for byte Unsloth's: what stands beside a marker
decides how it is tokenized."""

Encode = Callable[[list[str]], list[list[int]]]


def encoder(tokenizer: Tokenizer) -> Encode:
    def encode(texts: list[str]) -> list[list[int]]:
        ids = tokenizer.encode(texts)
        return [ids.row(i).tolist() for i in range(len(texts))]

    return encode


def contains(ids: Sequence[int], part: Sequence[int]) -> bool:
    return any(list(ids[i : i + len(part)]) == list(part) for i in range(len(ids) - len(part) + 1))


def find_marker(text: str, tokenizer: Tokenizer, force_match: bool, older: bool = False) -> Marker | None:
    """The ids of a marker; None where there are none to look for."""
    encode = encoder(tokenizer)
    original = encode([text])[0]
    core = original if force_match else _common(_variants(text, encode))
    where = next((i for i in range(len(original)) if original[i : i + len(core)] == core), None)
    if older:
        # An unlocated core is used as it is, with the last place that was looked at.
        if not original or not core:
            return None
        where = len(original) - 1 if where is None else where
        return Marker(tuple(core), tuple(original[:where]), tuple(original[where + len(core) :]))
    if where is None or not core:
        return None
    stop = where + len(core)
    first, last = _stable(text, original, encode)
    inner, outer = max(where, first), min(stop, last)
    if inner < outer and (inner, outer) != (where, stop):
        # Only while an added token anchors what is left: a bare word would be found in content too.
        added = {number: token for token, number in tokenizer.special.added.items()}
        if any(added.get(number, "").strip() for number in original[inner:outer]):
            where, stop = inner, outer
    return Marker(tuple(original[where:stop]), tuple(original[:where]), tuple(original[stop:]))


def _variants(text: str, encode: Encode) -> list[list[int]]:
    """The marker with none, one and two line breaks (or of the white space that it has) on either side."""
    ends = [side if side in (" ", "\n") else "" for side in (text[:1], text[-1:])]
    inner = text.strip()
    around = [(left, right, pair) for left in range(3) for right in range(3) for pair in (ends, ["\n", "\n"])]
    return encode([pair[0] * left + inner + pair[1] * right for left, right, pair in around])


def _common(variants: list[list[int]]) -> list[int]:
    """What all variants have in common, as Unsloth takes it: a 0 stands behind each, which may be part of it."""
    core = _longest_common([[*ids, 0] for ids in variants])
    first = variants[0]
    if core == [0] and len(first) == 1 and all(first[0] in ids for ids in variants):
        core = first
    if core == [*first, 0] and all(ids == first for ids in variants):
        core = first
    return core


def _longest_common(lists: list[list[int]]) -> list[int]:
    """The longest run of ids that all lists hold.

    Of several equally long ones it must be Unsloth's, who takes what ``set.pop`` gives: so the sets are filled in its
    order. The search by halves is its own too; it need not find the longest one, but the same one.
    """
    best: list[int] = []
    low, high = 1, min(map(len, lists))
    while low <= high:
        size = low + (high - low) // 2
        common: set[tuple[int, ...]] = set()
        for i, ids in enumerate(lists):
            runs = (tuple(ids[at : at + size]) for at in range(len(ids) - size + 1))
            found: set[tuple[int, ...]] = set()
            for run in runs:
                if i == 0 or run in common:
                    found.add(run)
            common = found
            if not common:
                break
        if common:
            best = list(common.pop())
            low = size + 1
        else:
            high = size - 1
    return best


def _stable(text: str, original: list[int], encode: Encode) -> tuple[int, int]:
    """Which of the marker's tokens stay the same whatever touches it."""
    size = len(original)
    first, last = 0, size
    for ids in encode([text + edge for edge in EDGES]):
        last = min(last, _agreeing(original, ids))
    for ids in encode([edge + text for edge in EDGES]):
        first = max(first, size - _agreeing(original[::-1], ids[::-1]))
    return first, last


def _agreeing(one: Sequence[Any], other: Sequence[Any]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


# Told from the template


def inferred(tokenizer: Tokenizer, template: Template | None) -> tuple[str, str]:
    """What stands before a question and before an answer. Raises ``UsageError`` where the template doesn't tell."""
    if template is None:
        raise _untold("there is no chat template")
    return _Reader(tokenizer, template).read()


def _untold(why: str) -> UsageError:
    return UsageError(
        f"Unsloth can't tell from the chat template what stands before an answer: {why}",
        "give --instruction-marker and --response-marker",
    )


class _Reader:
    """Renders conversations of which only the contents are known, and reads what stands between the contents."""

    def __init__(self, tokenizer: Tokenizer, template: Template) -> None:
        self.tokenizer, self.template = tokenizer, template
        special = tokenizer.special
        self.eos, self.bos = special.eos or "", special.bos or ""
        named = (special.bos, special.eos, special.pad, special.unk)
        tokens = {token for token in (*named, *special.added) if token}
        self.specials = sorted(tokens, key=len, reverse=True)

    def read(self) -> tuple[str, str]:
        as_text: Callable[[str], Any] = str
        shapes = ((as_text, as_text), (_parts, _parts), (_parts, as_text))
        for user, assistant in shapes:
            turns = [("user", user(USER)), ("assistant", assistant(ASSISTANT))] * 3
            full = self._try(turns)
            if full is not None and USER in full and ASSISTANT in full:
                break
        else:
            raise _untold("it does not render a conversation")
        assert full is not None
        before_question = _commonest(_gaps(full, ASSISTANT, USER))
        answer_gaps = _gaps(full, USER, ASSISTANT)
        before_answer = _commonest(answer_gaps)
        asked = self._render(turns[:-1], prompt=True)
        unasked = self._render(turns[:-1])
        closing = _tail(unasked, USER)
        header = "" if asked == unasked else self._differing(_tail(asked, USER), closing)[0]
        question, answer = self._markers(before_question, before_answer, header)
        question, answer = self._without_image(question, answer, closing, assistant)
        answer = self._without_thought(answer, user, assistant)
        answer = self._shared(answer, before_question, before_answer, answer_gaps)
        question, answer = (_without_lead(part, (" ", "\t")).rstrip(" \t") for part in (question, answer))
        if not question or not answer:
            raise _untold("nothing stands between a question and its answer")
        probe = encoder(self.tokenizer)([full])[0]
        return self._found(question, "a question", probe), self._found(answer, "an answer", probe)

    def _render(self, turns: list[tuple[str, Any]], prompt: bool = False) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        batch = self.template.render([Conversation(Kind.MESSAGES, messages)], add_generation_prompt=prompt)
        if batch.failures:
            raise _untold(batch.failures[0].message)
        return batch.texts[0]

    def _try(self, turns: list[tuple[str, Any]]) -> str | None:
        try:
            return self._render(turns)
        except UsageError:
            return None

    def _lead(self, text: str) -> str:
        """The special token, or else nothing, that the text begins with."""
        return next((token for token in self.specials if text.startswith(token)), "")

    def _differing(self, one: str, other: str) -> tuple[str, str]:
        """Both without the special tokens and white space that they begin with alike."""
        while True:
            blank, other_blank = _blank(one), _blank(other)
            shared = blank if blank and blank == other_blank else self._lead(one)
            if not shared or not other.startswith(shared):
                return one, other
            one, other = one[len(shared) :], other[len(shared) :]

    def _markers(self, before_question: str, before_answer: str, header: str) -> tuple[str, str]:
        if header and header != before_answer and before_answer.endswith(header):
            # The turn's end, then the header: the end is no part of either marker.
            return _without_lead(before_question, (before_answer[: -len(header)],)), header
        separators = (" ", "\t", self.eos, self.bos)
        if header and header == before_answer:
            # The prompt brings the turn's end along.
            answer, question = self._differing(header, before_question)
            return _without_lead(question, separators), answer
        # No header of its own ([INST] … [/INST]): a turn's last line break stays, it anchors the marker.
        return _without_lead(before_question, separators), _without_lead(before_answer, separators)

    def _without_image(
        self, question: str, answer: str, closing: str, assistant: Callable[[str], Any]
    ) -> tuple[str, str]:
        """The turn's end is no part of the marker where an image would stand between them."""
        rest = closing
        while rest and (step := self._lead(rest) or _blank(rest)):
            rest = rest[len(step) :]
        if rest or not closing or not answer.startswith(closing) or answer == closing:
            return question, answer
        shown = [{"type": "text", "text": USER}, {"type": "image"}]
        text = self._try([("user", shown), ("assistant", assistant(ASSISTANT))])
        shorter = answer[len(closing) :]
        if text is None or answer in text or shorter not in text:
            return question, answer
        return _without_lead(question, (closing,)), shorter

    def _without_thought(self, answer: str, user: Callable[[str], Any], assistant: Callable[[str], Any]) -> str:
        """Without the empty thought of the generation prompt, where a real thought takes its place."""
        thought = re.search(r"<([^\s/>]+)>\s*</\1>\s*$", answer) or re.search(r"</([^\s/>]+)>\s*$", answer)
        if thought is None or thought.start() == 0:
            return answer
        tag, header, scaffold = thought.group(1), answer[: thought.start()], answer[thought.start() :]
        filled = self._try([("user", user(USER)), ("assistant", assistant(f"<{tag}>rZ9</{tag}>{ASSISTANT}"))])
        if filled is None:
            return answer
        at = filled.rfind(header)
        return header if at >= 0 and not filled[at + len(header) :].startswith(scaffold) else answer

    def _shared(self, answer: str, before_question: str, before_answer: str, gaps: list[str]) -> str:
        """What all headers have in common, where the last answer's differs."""
        at = before_answer.find(answer) if answer else -1
        if not gaps or at < 0 or answer in gaps[-1] or not gaps[-1].startswith(before_answer[:at]):
            return answer
        one, size = before_answer[at:], _agreeing(before_answer[at:], gaps[-1][at:])
        while size > 0 and not one[size - 1].isspace() and not any(one[:size].endswith(s) for s in self.specials):
            size -= 1
        shared = one[:size]
        if shared.strip() and shared not in before_question and all(shared in gap for gap in gaps):
            return shared
        return answer

    def _found(self, marker: str, what: str, probe: list[int]) -> str:
        """The marker as it is found in the probe: as it is, or behind a space or a line break."""
        counts = [(text, self._count(text, probe)) for text in (marker, " " + marker, "\n" + marker)]
        for text, count in counts:
            if count >= 2:
                return text
        for text, count in counts[:2]:
            if count:
                return text
        raise _untold(f"the ids of {marker!r} are not found before {what}")

    def _count(self, text: str, probe: list[int]) -> int:
        marker = find_marker(text, self.tokenizer, force_match=True)
        if marker is None:
            return 0
        core = list(marker.core)
        return sum(probe[i : i + len(core)] == core for i in range(len(probe) - len(core) + 1))


def _parts(text: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text}]


def _blank(text: str) -> str:
    return text[: len(text) - len(text.lstrip())]


def _without_lead(text: str, leads: Sequence[str]) -> str:
    """Without any of the texts in front, looked for one after the other until none is left."""
    while True:
        before = text
        for lead in leads:
            if lead and text.startswith(lead):
                text = text[len(lead) :]
        if text == before:
            return text


def _tail(text: str, content: str) -> str:
    at = text.rfind(content)
    return text[at + len(content) :] if at >= 0 else ""


def _gaps(text: str, content: str, following: str) -> list[str]:
    """What stands between each ``content`` and the next ``following``."""
    ends = [match.end() for match in re.finditer(re.escape(content), text)]
    begins = [match.start() for match in re.finditer(re.escape(following), text)]
    nexts = [(end, next((begin for begin in begins if begin >= end), None)) for end in ends]
    return [text[end:begin] for end, begin in nexts if begin is not None]


def _commonest(gaps: list[str]) -> str:
    return Counter(gaps).most_common(1)[0][0] if gaps else ""
