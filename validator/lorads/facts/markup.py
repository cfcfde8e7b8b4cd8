"""Turn markers in the text of messages: those of other model families, and look-alikes of this tokenizer's own.

A text that *discusses* markers is no fault: what stands in quotes, backticks, a fenced block or a string literal, or
inside a sentence, is a mention. A marker counts where a chat template would have put it.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, NamedTuple, Protocol

from lorads.facts.damage import DIRECTION, ZERO_WIDTH
from lorads.facts.places import Place


class SpecialTokens(Protocol):
    """What is needed of a tokenizer's special tokens."""

    @property
    def added(self) -> Mapping[str, int]:
        """Every added token's text and id."""

    @property
    def control(self) -> frozenset[int]:
        """Ids of added tokens that steer the model: BOS, EOS, role headers, ends of turns …"""

    @property
    def benign(self) -> frozenset[int]:
        """Ids of added tokens that data may hold: thinking, tool, image and fill-in-the-middle tags."""


class Family(NamedTuple):
    """One way of writing turns, from ``families.toml``, where the fields are explained."""

    id: str
    name: str
    header: tuple[str, ...]
    role: tuple[str, ...]
    close: tuple[str, ...]
    begin: tuple[str, ...]
    weak: frozenset[str]
    roles: tuple[str, ...]
    after: tuple[str, ...]
    turn: str | None

    @property
    def markers(self) -> tuple[str, ...]:
        return (*self.header, *self.role, *self.close, *self.begin)


class Headings(NamedTuple):
    """A pair of plain-text headings."""

    id: str
    name: str
    instruction: str
    response: str


ROLES: Final = (
    *("system", "user", "assistant", "tool", "developer", "model", "human", "gpt", "bot", "ai"),
    *("function", "ipython", "environment", "observation"),
)


@cache
def families() -> tuple[Family, ...]:
    """The families of ``families.toml``, in its order."""
    return tuple(
        Family(
            id=entry["id"],
            name=entry["name"],
            header=tuple(entry.get("header", ())),
            role=tuple(entry.get("role", ())),
            close=tuple(entry.get("close", ())),
            begin=tuple(entry.get("begin", ())),
            weak=frozenset(entry.get("weak", ())),
            roles=tuple(entry.get("roles", ROLES)),
            after=tuple(entry.get("after", ())),
            turn=entry.get("turn"),
        )
        for entry in _data()["family"]
    )


@cache
def headings() -> tuple[Headings, ...]:
    """The pairs of headings of ``families.toml``."""
    return tuple(Headings(**entry) for entry in _data()["headings"])


@cache
def _data() -> dict[str, Any]:
    return tomllib.loads(resources.files("lorads.facts").joinpath("families.toml").read_text(encoding="utf-8"))


# Look-alikes. The first of each is what a keyboard gives.
BARS: Final = "|｜∣ǀ│¦❘￨"
OPENERS: Final = "<＜‹〈⟨\u2329"
CLOSERS: Final = ">＞›〉⟩\u232a"
_BRACKETS: Final = {"［": "[", "］": "]", "【": "[", "】": "]", "／": "/"}
_LETTERS: Final = dict(zip("аеорсухіѕјԁһοαΤΕΟΙ", "aeopcyxisjdhoateoi", strict=True))
_FOLD: Final = str.maketrans(
    {
        **dict.fromkeys(BARS, "|"),
        **dict.fromkeys(OPENERS, "<"),
        **dict.fromkeys(CLOSERS, ">"),
        **dict.fromkeys("▁_ ‗\xa0\u3000", "_"),
        **_BRACKETS,
        **_LETTERS,
    }
)
_INVISIBLE: Final = re.compile(f"[{ZERO_WIDTH}{DIRECTION}\xad]")
_SPACES: Final = re.compile("_{2,}")

_ZW: Final = f"[{ZERO_WIDTH}]{{0,3}}"
NAME: Final = 64
"""The longest name between bars that is looked at, in characters."""
_BARRED: Final = f"[{OPENERS}]{_ZW}[{BARS}][^\\n{BARS}{OPENERS}{CLOSERS}]{{1,{NAME}}}[{BARS}]{_ZW}[{CLOSERS}]"
WIDE_OPENERS: Final = "＜‹〈⟨\u2329［【"
# Tokens without bars, only with a wide bracket or something invisible: <pad> in HTML is nobody's look-alike.
_PLAIN: Final = (
    f"(?:[{WIDE_OPENERS}]|[<\\[](?=[\\w/]{{0,{NAME}}}[{ZERO_WIDTH}]))"
    f"[\\w/／▁{ZERO_WIDTH}]{{1,{NAME}}}[>＞›〉⟩\u232a］】\\]]"
)
_LOOKS_SPECIAL: Final = re.compile("<[|｜](?=.{0,40}[A-Za-z]{3})[A-Za-z][A-Za-z0-9▁_.-]{1,40}[|｜]>")


def fold(text: str) -> str:
    """What a look-alike of a token has in common with it: case, bars, brackets, separators and invisibles put aside.

    >>> fold("<｜end▁of▁sentence｜>") == fold("<|End_of sentence|>")
    True
    """
    text = unicodedata.normalize("NFKC", _INVISIBLE.sub("", text)).translate(_FOLD)
    return _SPACES.sub("_", text).casefold()


class _Item(NamedTuple):
    """A string in the text that is, or looks like, a special token."""

    begin: int
    end: int
    text: str
    kind: str
    """``own`` (a token, or of the tokenizer's own template), ``foreign``, ``alike``, ``unknown``."""
    token: str | None
    """The own token that an ``alike`` one looks like."""


_GOES_ON: Final = frozenset(_data()["mentions"]["goes_on"].split())
_LEADS_TO: Final = frozenset(_data()["mentions"]["leads_to"].split())
_CJK_GOES_ON: Final = re.compile("[是为為和与與或及表的、]")
_CONNECTIVE: Final = re.compile(r"[\W_]*(?:\w{1,4}[\W_]*)?")
_SENTENCE_END: Final = frozenset(".!?。！？…:;)]}」』”’\"'`*")
_OPENING_QUOTES: Final = frozenset("“‘「『«‹")
_CLOSING_QUOTES: Final = frozenset("”’」』»›")
_FENCE: Final = re.compile(r"^[ \t>]{0,16}(?:```|~~~)", re.MULTILINE)
_STRING_BEFORE: Final = re.compile(r"(?:^|[=(\[{,:+ ])[fbru]{0,2}'[^']*$")
_BEFORE_A_STRING: Final = frozenset(" ([{=,+:")
_LINE = 400
"""How far around a place its line is looked at, in characters."""


@dataclass(slots=True)
class _Text:
    """One text with what the questions about its places need."""

    text: str
    assistant: bool
    first: int
    last: int
    fences: list[int]

    @classmethod
    def of(cls, text: str, assistant: bool) -> _Text:
        stripped = text.lstrip()
        fences = [match.start() for match in _FENCE.finditer(text)] if "```" in text or "~~~" in text else []
        return cls(text, assistant, len(text) - len(stripped), len(text.rstrip()), fences)

    def before(self, at: int) -> str:
        """The line up to ``at``."""
        start = max(0, at - _LINE)
        return self.text[max(start, self.text.rfind("\n", start, at) + 1) : at]

    def after(self, at: int) -> str:
        """The line from ``at`` on."""
        end = self.text.find("\n", at, at + _LINE)
        return self.text[at : at + _LINE if end < 0 else end]

    def mentioned(self, begin: int, end: int) -> bool:
        """Whether the place stands in a closed fence, in quotes, in backticks or in a string literal."""
        fence = bisect_left(self.fences, begin)
        if fence % 2 and fence < len(self.fences):
            return True
        before, after = self.before(begin), self.after(end)
        if before.endswith("```") and not after.startswith("```"):
            return False  # right behind the end of a fenced block
        before = before.replace("```", "")
        left, right = before[-1:], after[:1]
        if left in _OPENING_QUOTES or (right in _CLOSING_QUOTES and begin > self.first):
            return True
        if (
            left
            and left in "\"'`"
            and (before.count(left) % 2 or (before[-2:-1] in _BEFORE_A_STRING and end < self.last))
        ):
            return True
        if right and right in "\"'`" and (before.count(right) % 2 or after[:3] in ('"""', "'''")) and before:
            return True
        if right == "\\" and begin > self.first:
            return True
        if "`" in after and before.count("`") % 2:
            return True
        if '"' in after and before.count('"') % 2:
            return True
        return "'" in after and _STRING_BEFORE.search(before) is not None

    def leads_on(self, end: int) -> bool:
        """Whether a sentence goes on behind the place."""
        after = self.after(end).lstrip()
        if not after:
            return False
        if after[0] in ",;:=/)、，。：" or _CJK_GOES_ON.match(after) or re.match(r"(?:[-–—]+>?|→)\s", after):
            return True
        word = re.match(r"[A-Za-zÀ-ÿ']+", after)
        return word is not None and word[0].lower() in _GOES_ON

    def led_to(self, begin: int) -> bool:
        """Whether a sentence runs up to the place, so that it is its object."""
        before = self.before(begin)
        head = before.rstrip()
        if not head or len(head) == len(before):
            return bool(head) and _CJK_GOES_ON.match(head[-1]) is not None
        if head[-1] in _SENTENCE_END - {":"}:
            return False
        if not self.assistant or head[-1] in ":,;、，：":
            return True
        word = re.search(r"[A-Za-zÀ-ÿ']+$", head)
        return word is not None and word[0].lower() in _LEADS_TO

    def at_start(self, begin: int, end: int) -> bool:
        return begin <= self.first and not self.leads_on(end)

    def at_end(self, begin: int, end: int) -> bool:
        return end >= self.last and (begin <= self.first or not self.led_to(begin))

    def line_start(self, begin: int) -> bool:
        return not self.before(begin).strip()

    def line_end(self, end: int) -> bool:
        return not self.after(end).strip()


class Found(NamedTuple):
    """What one text holds, each in order."""

    confusable: list[Place]
    foreign: list[Place]


class Markup:
    """The markers of one tokenizer and one chat template, ready to look for.

    A text holds something for ``find`` only with one of ``literals`` in it, ``<`` before a bar of any kind, an
    invisible character, or a wide bracket.
    """

    def __init__(self, special: SpecialTokens, own_template: str | None) -> None:
        added, template = special.added, own_template or ""
        known = _kinds()
        self._added: Final = added
        self._foreign: Final = {marker for marker in known if marker not in added and marker not in template}
        self._own: Final = {token for token in added if _is_token_like(token)}
        self._own.update(marker for marker in known if marker in template)
        self._families: Final = [family for family in families() if not self._foreign.isdisjoint(family.markers)]
        self._headings: Final = [
            pair
            for pair in headings()
            if not any(heading in template or heading in added for heading in (pair.instruction, pair.response))
        ]
        steering = special.control | special.benign
        self._alike: Final[dict[str, str]] = {}
        for token, number in added.items():
            if number in steering and _is_token_like(token):
                self._alike.setdefault(fold(token), token)
        self._turn: Final = _own_turn(added, own_template)
        # Markers without bars on both sides have to be spelt out; longest first, for one may start like another.
        # Numbered tokens (<unused12>) are left out: there are hundreds, and no turn is told by one.
        literal = {marker for marker in self._foreign | self._own if not re.fullmatch(f"{_BARRED}|.*[0-9].*", marker)}
        spelt = [re.escape(marker) for marker in sorted(literal, key=lambda marker: (-len(marker), marker))]
        self._items: Final = re.compile("|".join([*spelt, _BARRED, _PLAIN]))
        # A lone <s> is never looked for: it is HTML, or stands beside something that is.
        needed = {marker for marker in literal & self._foreign if len(marker) > 3}
        needed.update(pair.response for pair in self._headings)
        self.literals: Final = tuple(sorted(needed))

    def find(self, text: str, field: str, role: str) -> Found:
        """The look-alikes and foreign markers of one text.

        ``field`` and ``role`` as in ``Texts``: headings count in messages only, and only an answer is expected to end
        with a terminator.
        """
        asked = _Text.of(text, role == "assistant")
        items = []
        for match in self._items.finditer(text):
            kind, target = self._judge(match[0])
            if kind and not asked.mentioned(*match.span()):
                items.append(_Item(*match.span(), match[0], kind, target))
        foreign = self._foreign_places(asked, items)
        if not foreign and field not in PLAIN_FIELDS:
            foreign = self._heading_places(text)
        return Found(self._confusable_places(asked, items), foreign)

    def _judge(self, found: str) -> tuple[str, str | None]:
        """Which kind of item this is ("" for none), and the own token it looks like."""
        if found in self._own:
            return "own", None
        if found in self._foreign:
            return "foreign", None
        folded = fold(found)
        if folded.startswith("<|"):
            token = self._alike.get(folded) or self._alike.get(folded.replace("<|_", "<|").replace("_|>", "|>"))
            if token is not None:
                return "alike", token
            return ("unknown", None) if _LOOKS_SPECIAL.fullmatch(found) else ("", None)
        token = self._alike.get(folded)
        if token is None or (len(token) <= 5 and not _SHORT_ALIKE.search(found)):
            return "", None
        return "alike", token

    def _foreign_places(self, asked: _Text, items: list[_Item]) -> list[Place]:
        """Foreign markers that stand where a template puts them; all are ``boundary`` when there is a whole turn."""
        marks = _without_html(asked.text, items)
        chosen: dict[int, bool] = {}
        opener: str | None = None
        opened_at = 0
        whole = False
        for i, item in enumerate(marks):
            if item.kind != "foreign":
                continue
            stand = _stand(asked, marks, i)
            if stand.opens:
                # Two openers in a row are turns as well: <|user|> … <|assistant|> …
                if stand.whole or (opener is not None and _says_something(asked.text[opened_at : item.begin])):
                    whole = True
                opener, opened_at = item.text, item.end
            elif opener is not None and _kinds()[item.text] == "close" and _related(opener, item.text):
                if _says_something(asked.text[opened_at : item.begin]) and not asked.leads_on(item.end):
                    whole = True
                    chosen[i] = True
                opener = None
            if stand.structural:
                chosen[i] = stand.boundary or chosen.get(i, False)
        if not chosen:
            return []
        name = self._name({marks[i].text for i in chosen})
        detail = f"this tokenizer's own turns look like {self._turn}" if self._turn else None
        return [
            Place(*marks[i][:2], "boundary" if whole or boundary else "inside", marks[i].text, name, detail=detail)
            for i, boundary in chosen.items()
        ]

    def _name(self, markers: set[str]) -> str:
        """The family that has most of the markers; the earlier one of equals."""
        return max(self._families, key=lambda family: len(markers.intersection(family.markers))).name

    def _heading_places(self, text: str) -> list[Place]:
        for pair in self._headings:
            begin = _at_line_start(text, pair.instruction, 0)
            if begin < 0 or _at_line_start(text, pair.response, begin) < 0:
                continue
            places, at = [], begin
            while at >= 0:
                places.append(Place(at, at + len(pair.instruction), "inside", pair.instruction, pair.name))
                at = _at_line_start(text, pair.instruction, at + 1)
            return places
        return []

    def _confusable_places(self, asked: _Text, items: list[_Item]) -> list[Place]:
        places = []
        for i, item in enumerate(items):
            begin, end = item.begin, item.end
            if item.kind == "unknown" and asked.assistant and asked.at_end(begin, end):
                detail = "looks like a special token, is none: the model sees ordinary characters"
                places.append(Place(begin, end, "boundary", item.text[:60], detail=detail))
            elif item.kind == "alike" and item.token is not None:
                line_start, line_end = asked.line_start(begin), asked.line_end(end)
                boundary = (
                    asked.at_start(begin, end)
                    or asked.at_end(begin, end)
                    or (line_start and line_end)
                    or _adjacent(asked.text, items, i, -1)
                    or _adjacent(asked.text, items, i, 1)
                )
                # With spaces inside its bars it may be an operator of some language: a <| b |> c.
                if not boundary and fold(item.text) != fold(item.token):
                    continue
                code = "boundary" if boundary else "inside"
                detail = _differences(item.text, item.token)
                number = self._added[item.token]
                places.append(Place(begin, end, code, item.text[:60], item.token, number, detail))
        return places


PLAIN_FIELDS: Final = frozenset(("text", "prompt", "completion"))
_ROLE_NAME: Final = "|".join(sorted({role for family in families() for role in family.roles}, key=len, reverse=True))
_AFTER_ROLE: Final = "|".join(sorted({re.escape(end) for family in families() for end in family.after}))
_HEADER_REST: Final = re.compile(
    f"[ \\t]?(?:{_ROLE_NAME})(?:\\s{{0,2}}(?:{_AFTER_ROLE})|[ \\t\\r]{{0,4}}(?:\\n|\\Z)|(?P<loose>[ :]))", re.IGNORECASE
)
_SHORT_ALIKE: Final = re.compile(f"[＜＞／［］{ZERO_WIDTH}]")


@cache
def _kinds() -> dict[str, str]:
    """Every marker of every family: header, role, close or begin."""
    kinds: dict[str, str] = {}
    for family in families():
        for kind in ("header", "role", "close", "begin"):
            for marker in getattr(family, kind):
                kinds.setdefault(marker, kind)
    return kinds


@cache
def _weak() -> frozenset[str]:
    return frozenset(marker for family in families() for marker in family.weak)


def _related(opener: str, close: str) -> bool:
    return any(opener in family.markers and close in family.markers for family in families())


def _is_token_like(token: str) -> bool:
    """Not a bare word or letter, which some tokenizers add too."""
    return len(token) > 2 and token[0] in "<[]" and any(char.isalpha() for char in token)


def _own_turn(added: Mapping[str, int], template: str | None) -> str | None:
    """What the tokenizer's own turns look like, when it is told by its template, or without one by its tokens."""
    best, most = None, 0
    for family in families():
        telling = {*family.header, *family.role, *family.close} - family.weak
        if family.turn is None or not any(marker in (added if template is None else template) for marker in telling):
            continue
        count = sum(
            marker in added or (template is not None and marker in template)
            for marker in (*family.header, *family.role, *family.close)
        )
        if count > most:
            best, most = family.turn, count
    return best


class _Stand(NamedTuple):
    """How a foreign marker stands in its text."""

    structural: bool
    boundary: bool
    opens: bool
    whole: bool


def _stand(asked: _Text, items: list[_Item], i: int) -> _Stand:
    begin, end, marker = items[i].begin, items[i].end, items[i].text
    kind = _kinds()[marker]
    previous, following = _adjacent(asked.text, items, i, -1), _adjacent(asked.text, items, i, 1)
    line_start, line_end = asked.line_start(begin), asked.line_end(end)
    starts, ends = asked.at_start(begin, end), asked.at_end(begin, end)
    glued = not asked.led_to(begin)
    if kind == "header":
        rest = _HEADER_REST.match(asked.text, end)
        placed = line_start or previous or glued
        whole = placed and rest is not None and rest["loose"] is None
        opens = whole or (line_start and rest is not None) or (line_start and line_end)
        return _Stand(opens, opens and (starts or ends), opens, whole)
    if kind == "role":
        opens = (line_start or previous or (line_end and glued)) and (line_end or following or not asked.leads_on(end))
        return _Stand(opens, opens and (starts or (ends and marker[1] in BARS)), opens, False)
    if kind == "close":
        closes = (line_end or following) and (line_start or previous or glued)
        return _Stand(closes or starts, starts or ends, False, False)
    if marker == "<s>":  # by itself it may be HTML
        before_turn = following and items[i + 1].kind == "foreign" and items[i + 1].text not in _weak()
        return _Stand(before_turn, before_turn and starts, False, False)
    if marker in _weak():
        return _Stand(starts or following, starts, False, False)
    begins = (line_start or previous) and (line_end or following or not asked.leads_on(end))
    return _Stand(begins, starts and begins, False, False)


def _adjacent(text: str, items: list[_Item], i: int, step: int) -> bool:
    """Whether the next item in this direction is a marker of any family with at most white space between."""
    other = i + step
    if not 0 <= other < len(items) or items[other].kind == "unknown":
        return False
    left, right = (items[other], items[i]) if step < 0 else (items[i], items[other])
    return right.begin - left.end <= _LINE and not text[left.end : right.begin].strip()


def _says_something(between: str) -> bool:
    """Whether there is more between two markers than the "and" of a sentence about them."""
    return len(between) > _LINE or _CONNECTIVE.fullmatch(between) is None


def _without_html(text: str, items: list[_Item]) -> list[_Item]:
    """The items without ``<s>`` and ``</s>`` where they strike text through rather than begin and end a sequence."""
    if "<s>" not in text or any(item.kind != "unknown" and item.text not in _weak() for item in items):
        return items
    content = text.strip()
    if content.startswith("<s>") and content.endswith("</s>") and "\n" in content and content.count("<s>") == 1:
        return items
    if "</s>" not in text:
        return items
    return [item for item in items if item.text not in ("<s>", "</s>")]


def _at_line_start(text: str, heading: str, start: int) -> int:
    at = text.find(heading, start)
    while at > 0 and text[text.rfind("\n", max(0, at - 8), at) + 1 or max(0, at - 8) : at].strip(" \t>"):
        at = text.find(heading, at + 1)
    return at


def _differences(found: str, token: str) -> str:
    """In words, which characters of ``found`` are not those of ``token``."""
    said = []
    for chars, here in ((BARS, "bar"), ("▁_ ‗\xa0\u3000", "separator"), (OPENERS + CLOSERS, "bracket")):
        mine = [char for char in dict.fromkeys(found) if char in chars and char not in token]
        theirs = [char for char in dict.fromkeys(token) if char in chars and char not in found]
        if mine:
            wanted = ", ".join(map(_describe, theirs)) if theirs else f"another {here}"
            said.append(f"{', '.join(map(_describe, mine))} where the token has {wanted}")
    invisible = [f"U+{ord(char):04X}" for char in dict.fromkeys(found) if _INVISIBLE.match(char) and char not in token]
    if invisible:
        said.append(f"invisible {', '.join(invisible)} inside")
    letters = [char for char in dict.fromkeys(found) if char.isalpha() and not char.isascii() and char not in token]
    if letters:
        said.append(f"look-alike {', '.join(map(_describe, letters))}")
    plain = unicodedata.normalize("NFKC", _INVISIBLE.sub("", found)).translate(_FOLD)
    if _SPACES.sub("_", plain) != _SPACES.sub("_", unicodedata.normalize("NFKC", token).translate(_FOLD)):
        said.append("other spaces or letter case" if plain.casefold() != fold(token) else "other letter case")
    return "; ".join(said) or "other characters of the same look"


_NAMES: Final = {
    "|": "ASCII bar |",
    "｜": "full-width bar ｜ (U+FF5C)",
    "_": "underscore _",
    " ": "space",
    "<": "ASCII <",
    ">": "ASCII >",
}


def _describe(char: str) -> str:
    return _NAMES.get(char) or f"{char} (U+{ord(char):04X})"
