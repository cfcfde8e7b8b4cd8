"""Damaged encoding: what one text holds of it.

Six things that no writer means: U+FFFD (somebody decoded with ``errors="replace"``), NUL, other control characters,
C1 controls, mojibake (UTF-8 bytes read as Windows-1252 or Latin-1), and invisible characters where they do nothing.
ANSI escape sequences are told apart: a terminal's transcript may hold them on purpose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from lorads.facts.places import Place

SEVEREST_FIRST: Final = ("replacement", "mojibake", "nul", "c1", "control", "zero-width", "ansi")

ZERO_WIDTH: Final = "\u200b\u200c\u200d\u2060\ufeff"
DIRECTION: Final = "\u200e\u200f\u202a-\u202e\u2066-\u2069"

# Bytes 80 to BF as Windows-1252 shows them, and as Latin-1 does (C1 controls): what follows a lead byte in UTF-8.
_CP1252: Final = {chr(byte): bytes([byte]).decode("cp1252", "replace") for byte in range(0x80, 0xA0)}
_TO_BYTE: Final = {
    **{chr(byte): byte for byte in range(0x80, 0x100)},
    **{shown: ord(char) for char, shown in _CP1252.items() if shown != "\ufffd"},
}
CONTINUATION: Final = "".join(char for char, byte in _TO_BYTE.items() if 0x80 <= byte < 0xC0)
LEADS: Final = "".join(map(chr, range(0xC2, 0xF5)))

_MOJIBAKE: Final = re.compile(
    f"(?:[\xc2-\xdf][{CONTINUATION}]|[\xe0-\xef][{CONTINUATION}]{{2}}|[\xf0-\xf4][{CONTINUATION}]{{3}})+"
)
# Continuation characters that also end or follow a word: in « il a été…» nothing is broken.
_NATURAL: Final = frozenset("…’‘“”„‚«»‹›–—·°²³¹ºª®™\xa0\xad¿¡")
_RIGHT_TO_LEFT: Final = re.compile(
    "[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00010fff\U0001e800-\U0001efff]"
)

_ANSI: Final = r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b\n]{0,256}(?:\x07|\x1b\\)|[()][A-Z0-9]|[=>78DEHMNOZc])"
_OTHERS: Final = re.compile(
    rf"(?P<ansi>(?:{_ANSI})+)"
    "|(?P<replacement>\ufffd+)"
    "|(?P<nul>\x00+)"
    "|(?P<control>[\x01-\x08\x0b\x0e-\x1f\x7f]+)"
    "|(?P<c1>[\x80-\x9f]+)"
    f"|(?P<invisible>[{ZERO_WIDTH}{DIRECTION}])"
)
# One character class finds a place several times faster than the alternatives above, which then say what it is.
_ANY: Final = re.compile(f"[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd{ZERO_WIDTH}{DIRECTION}]")
_ANY_LEAD: Final = re.compile(f"[\xc2-\xf4](?=[{CONTINUATION}])")
_WORDS: Final = {
    "replacement": "a character that could not be decoded was replaced by {points}",
    "nul": "NUL ({points})",
    "control": "control character {points}",
    "c1": "C1 control character {points}, mostly a Windows-1252 byte read as Latin-1",
    "ansi": "ANSI escape sequence of a terminal (U+001B)",
    "zero-width": "invisible character {points}, {name}",
}
_NAMES: Final = {
    "\u200b": "zero width space",
    "\u200c": "zero width non-joiner",
    "\u200d": "zero width joiner",
    "\u200e": "left-to-right mark",
    "\u200f": "right-to-left mark",
    "\u2060": "word joiner",
    "\ufeff": "byte order mark",
}
_QUOTES: Final = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’", "「": "」", "«": "»"}
_NAMED: Final = re.compile(r"u\+fffd|\\ufffd|replacement char", re.IGNORECASE)
CONTEXT = 12


def places(text: str) -> list[Place]:
    """The damaged places of a text, in order. A run of the same thing is one place."""
    broken = [] if text.isascii() else list(_mojibake(text))
    inside = iter(broken)
    current = next(inside, None)
    found = list(broken)
    right_to_left: bool | None = None
    for match in _matches(_ANY, _OTHERS, text):
        begin, end = match.span()
        while current is not None and current.end <= begin:
            current = next(inside, None)
        if current is not None and current.begin <= begin:
            continue  # a C1 control that is part of mojibake
        code = match.lastgroup or ""
        if code == "invisible":
            if match[0] in ZERO_WIDTH:
                at_home = _is_at_home(text, begin)
            else:
                if right_to_left is None:
                    right_to_left = _RIGHT_TO_LEFT.search(text) is not None
                at_home = right_to_left
            if at_home:
                continue
            code = "zero-width"
        elif code == "replacement" and end - begin == 1 and _written_about(text, begin, end):
            continue
        found.append(Place(begin, end, code, excerpt(text, begin, end), detail=_describe(code, match[0])))
    found.sort()
    return found


def _matches(first: re.Pattern[str], whole: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """``whole.finditer(text)``, where every match of ``whole`` starts with one of ``first``."""
    done = 0
    for start in first.finditer(text):
        if start.start() >= done and (match := whole.match(text, start.start())) is not None:
            done = match.end()
            yield match


def excerpt(text: str, begin: int, end: int, limit: int = 60) -> str:
    """The characters themselves with a little of what stands around them, at most ``limit`` characters."""
    around = min(CONTEXT, max(0, (limit - (end - begin)) // 2))
    return text[max(0, begin - around) : min(end + around, begin + limit)]


def _describe(code: str, found: str) -> str:
    points = " ".join(f"U+{ord(char):04X}" for char in dict.fromkeys(found[:8]))
    return _WORDS[code].format(points=points, name=_NAMES.get(found[0], "direction mark"))


def _mojibake(text: str) -> Iterator[Place]:
    for match in _matches(_ANY_LEAD, _MOJIBAKE, text):
        run = match[0]
        meant = bytes(_TO_BYTE[char] for char in run).decode("utf-8", "replace")
        before = text[match.start() - 1] if match.start() else ""
        strength = _strength(run, meant, before)
        if strength:
            yield Place(
                *(match.start(), match.end(), "mojibake", excerpt(text, *match.span()), meant[:60]),
                detail=f"UTF-8 read as Windows-1252 or Latin-1; it was {meant[:20]!r}",
                weak=strength == 1,
            )


def _strength(run: str, meant: str, before: str) -> int:
    """0 ordinary text, 1 mojibake if the row has more of it, 2 mojibake.

    ``run`` is what stands there, ``meant`` what its bytes are as UTF-8, ``before`` the character in front.
    """
    if "\ufffd" in meant or not all(char.isprintable() or char in "\xa0\xad\u200b\u200d\ufeff\u3000" for char in meant):
        return 0
    unnatural = any(char not in _NATURAL for i, char in enumerate(run) if not _is_lead(run, i))
    if len(meant) > 1:
        # Two broken characters side by side. Capitals before closing quotes (« À LA UNE »…) never come in pairs.
        return 2 if unnatural or len(meant) > 3 else 1
    if len(run) == 2:
        point = ord(meant)
        if point > 0x17F:
            return 0  # a lone Greek, Cyrillic, Hebrew or Arabic letter: rather a capital before punctuation
        if before.isupper() or (run[1] in _NATURAL and run[0] != "Â" and not before.islower()):
            return 0  # AMANHÃ” in capitals, or a capital letter alone in quotes
        return 1
    if not unnatural:
        return 0
    if run[0] in "âïð" or meant in "、。，！？：；（）《》「」":
        return 2
    return 1


def _is_lead(run: str, index: int) -> bool:
    """Whether the character is a lead byte: continuation bytes are below C0, lead bytes above."""
    return _TO_BYTE[run[index]] >= 0xC0


def _is_at_home(text: str, at: int) -> bool:
    """Whether a zero-width character stands where its script or an emoji needs it."""
    char = text[at]
    before, after = text[at - 1] if at else "", text[at + 1] if at + 1 < len(text) else ""
    if char in "\u2060\ufeff":
        return False
    if char == "\u200b":  # marks where a line may break in scripts without spaces
        return _breaks_by_zero_width_space(before) or _breaks_by_zero_width_space(after)
    return _needs_joiners(before) or _needs_joiners(after)


def _breaks_by_zero_width_space(char: str) -> bool:
    """Thai, Lao, Tibetan, Myanmar, Khmer."""
    return "\u0e00" <= char <= "\u109f" or "\u1780" <= char <= "\u17ff"


def _needs_joiners(char: str) -> bool:
    """Arabic, Syriac, N'Ko, Indic and Southeast Asian scripts, Mongolian; emoji with their modifiers."""
    if not char:
        return False
    return (
        "\u0600" <= char <= "\u109f"
        or "\u1780" <= char <= "\u18af"
        or "\u2190" <= char <= "\u2bff"
        or "\ufb50" <= char <= "\ufdff"
        or "\ufe0f" <= char < "\ufeff"
        or "\U0001f000" <= char <= "\U0001faff"
        or "\U000e0020" <= char <= "\U000e007f"
    )


def _written_about(text: str, begin: int, end: int) -> bool:
    """Whether somebody writes about U+FFFD: it stands in quotes, or its name stands beside it."""
    if begin > 0 and end < len(text) and _QUOTES.get(text[begin - 1]) == text[end]:
        return True
    return _NAMED.search(text, max(0, begin - 80), end + 80) is not None
