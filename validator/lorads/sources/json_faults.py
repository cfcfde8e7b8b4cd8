"""What exactly is wrong with one JSON record: the slow path, for records that orjson refuses or that look suspicious.

orjson is stricter than Python's json module, which most trainers' loaders use in the end: where json still gives a
value (NaN, infinities) the record stays a row.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from lorads.sources.excerpts import excerpt, shown, where
from lorads.sources.records import ProblemKind

BOM = b"\xef\xbb\xbf"
MAX_DEPTH = 1024
"""orjson's limit on nested arrays and objects."""

# A string without an end reaches to the end of the text: else every quote in it would be tried again.
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'
_TOKEN = re.compile(_STRING + rb"|[{}\[\],:]", re.DOTALL)
_NUMBER = re.compile(_STRING + rb"|(-?\d[\d.eE+-]*)", re.DOTALL)
_CONSTANT = re.compile(_STRING + rb"|(NaN|-?Infinity)", re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_SPACE = " \t\r\n"

_WRITE_JSON = "write every record with a JSON library (json.dumps), not by hand"
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of one record: ``at`` and ``length`` are bytes in it. ``value`` when it can be read all the same."""

    kind: ProblemKind
    at: int
    length: int
    message: str
    hint: str
    value: Any = _MISSING

    @property
    def readable(self) -> bool:
        return self.value is not _MISSING


def diagnose(raw: bytes, *, last: bool = False) -> Fault:
    """Why orjson refused ``raw``. ``last``: the input ends where it ends, so it may be cut off.

    Never raises: any bytes have a diagnosis.
    """
    if raw.startswith(BOM):
        message = "a byte order mark (EF BB BF) stands before a record inside the file: readers refuse it there"
        return Fault("bom", 0, len(BOM), message, "were files joined together? take the three bytes out")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return invalid_utf8(raw, error)
    constants: list[str] = []
    try:
        value = json.loads(text, parse_constant=_noting(constants), parse_int=_integer)
    except RecursionError:
        return _too_deep(raw)
    except json.JSONDecodeError as error:
        return _invalid(raw, text, error, last=last)
    return _refused_by_orjson(raw, value, constants)


def bom_fault() -> Fault:
    """A byte order mark at the start of the file, where readers that know of it pass over it."""
    message = "the file begins with a byte order mark (EF BB BF): some readers pass over it, others refuse the file"
    return Fault("bom", 0, len(BOM), message, "save the file as UTF-8 without BOM", None)


def duplicate_key(raw: bytes) -> tuple[str, int] | None:
    """The first key that stands twice in one object of a valid JSON text, and the byte where it stands again.

    Works on any nesting, since it keeps its own stack. Keys are compared unescaped, as every reader compares them.
    """
    stack: list[set[str] | None] = []
    key_next = False
    for token in _TOKEN.finditer(raw):
        first = raw[token.start()]
        if first == 0x22:
            if key_next:
                key = json.loads(token.group())
                keys = stack[-1]
                if keys is not None:
                    if key in keys:
                        return key, token.start()
                    keys.add(key)
            key_next = False
        elif first == 0x7B:
            stack.append(set())
            key_next = True
        elif first == 0x5B:
            stack.append(None)
            key_next = False
        elif first == 0x2C:
            key_next = bool(stack) and stack[-1] is not None
        elif first != 0x3A and stack:
            stack.pop()
            key_next = False
    return None


def duplicate_key_fault(raw: bytes, value: Any) -> Fault | None:
    """The fault of a record with a duplicate key; ``value`` is what readers get: the last one wins."""
    found = duplicate_key(raw)
    if found is None:
        return None
    key, at = found
    name = shown(key[:40])
    return Fault(
        "duplicate-key",
        at,
        len(key),
        f'the key "{name}" stands twice in one object, again at {where(raw, at)}: most readers keep the last value and'
        " drop the other, some refuse the file",
        "keep one of them",
        value,
    )


def _noting(constants: list[str]) -> Any:
    def note(name: str) -> float:
        constants.append(name)
        return float(name.replace("Infinity", "inf"))

    return note


def _integer(digits: str) -> int | float:
    """As orjson reads them: what does not fit 64 bits is a float (and never a quadratic conversion)."""
    if len(digits) > 20:
        return float(digits)
    value = int(digits)
    return value if -(1 << 63) <= value < 1 << 64 else float(value)


def invalid_utf8(raw: bytes, error: UnicodeDecodeError) -> Fault:
    """The fault of a record that ``raw.decode()`` refused with ``error``."""
    at, byte = error.start, raw[error.start]
    hint = "save the file as UTF-8"
    if 0x80 <= byte <= 0xFF and byte != 0xED:
        legacy = bytes([byte]).decode("cp1252", "replace")
        if legacy.isprintable() and legacy != "\ufffd":
            hint = f"if this byte is meant as {legacy!r} the text is Windows-1252: convert the file to UTF-8"
    return Fault(
        "invalid-utf8",
        at,
        max(error.end - error.start, 1),
        f"byte 0x{byte:02X} at {where(raw, at)} is not valid UTF-8 ({error.reason}): {excerpt(raw, at)}",
        hint,
    )


def _too_deep(raw: bytes) -> Fault:
    depth = deepest = at = 0
    for token in _TOKEN.finditer(raw):
        first = raw[token.start()]
        if first in b"{[":
            depth += 1
            deepest = max(deepest, depth)
            if depth == MAX_DEPTH + 1:
                at = token.start()
        elif first in b"}]":
            depth -= 1
    return Fault(
        "too-deep",
        at,
        1,
        f"arrays and objects are nested {deepest:,} levels deep; readers give up at about 1,000",
        "flatten the record, or store the nested part as a string",
    )


def _refused_by_orjson(raw: bytes, value: Any, constants: list[str]) -> Fault:
    """json reads it, orjson does not: surrogates, NaN and infinities, nesting."""
    surrogate = _lone_surrogate(raw)
    if surrogate is not None:
        escape = raw[surrogate : surrogate + 6].decode("ascii", "replace")
        return Fault(
            "lone-surrogate",
            surrogate,
            6,
            f"the escape {escape} at {where(raw, surrogate)} is half of a surrogate pair, not a character: no tokenizer"
            " can encode it",
            "the text was cut inside an emoji or another character beyond U+FFFF: take the half out",
        )
    if constants:
        at = next((m.start() for m in _CONSTANT.finditer(raw) if m.group(1)), 0)
        return Fault(
            "nan-literal",
            at,
            len(constants[0]),
            f"{constants[0]} at {where(raw, at)} is not JSON: some readers take it as a number, others refuse the file",
            "write null, or leave the key out",
            value,
        )
    if _depth_over(raw, MAX_DEPTH):
        return _too_deep(raw)
    number = next((m for m in _NUMBER.finditer(raw) if m.group(1) and _infinite(m.group(1))), None)
    if number is not None:
        return Fault(
            "nan-literal",
            number.start(),
            len(number.group()),
            f"the number at {where(raw, number.start())} is too large for a double: some readers take it as infinity,"
            f" others refuse the file: {excerpt(raw, number.start())}",
            "write a number within range, or a string",
            value,
        )
    return Fault("invalid-json", 0, len(raw), f"not readable as JSON: {excerpt(raw, 0)}", _WRITE_JSON)


def _infinite(number: bytes) -> bool:
    try:
        return float(number) in (float("inf"), float("-inf"))
    except ValueError:
        return False


def _depth_over(raw: bytes, limit: int) -> bool:
    depth = 0
    for token in _TOKEN.finditer(raw):
        first = raw[token.start()]
        depth += (first in b"{[") - (first in b"}]")
        if depth > limit:
            return True
    return False


def _lone_surrogate(raw: bytes) -> int | None:
    """Where the first ``\\uD800``–``\\uDFFF`` escape without its other half stands."""
    high: int | None = None
    for escape in _ESCAPE.finditer(raw):
        code = int(escape.group(1), 16) if escape.group(1) else 0
        if high is not None:
            if not (0xDC00 <= code <= 0xDFFF and escape.start() == high + 6):
                return high
            high = None
        elif 0xDC00 <= code <= 0xDFFF:
            return escape.start()
        elif 0xD800 <= code <= 0xDBFF:
            high = escape.start()
    return high


def _invalid(raw: bytes, text: str, error: json.JSONDecodeError, *, last: bool) -> Fault:
    """Words for a syntax error. ``error.pos`` counts characters."""
    at = len(text[: error.pos].encode())
    rest = text[error.pos :]
    place = where(raw, at)
    near = excerpt(raw, at)
    unterminated = error.msg.startswith("Unterminated string")
    if unterminated or not rest.strip(_SPACE):
        return _ended(raw, text, at, last=last, in_string=unterminated)
    kind: ProblemKind = "invalid-json"
    if error.msg.startswith("Extra data"):
        return Fault(kind, at, len(raw) - at, *_extra(raw, at, place))
    if error.pos == _first_character(text) and rest[0] not in "{[":
        return Fault(kind, at, len(raw) - at, *_not_json(rest, near))
    if error.msg.startswith("Invalid control character"):
        name = {"\n": "line break", "\t": "tab", "\x00": "NUL byte"}.get(rest[0], f"control character {shown(rest[0])}")
        return Fault(
            kind,
            at,
            1,
            f"a raw {name} stands inside a string at {place}; JSON wants it escaped: {near}",
            f"write {json.dumps(rest[0])[1:-1]}; {_WRITE_JSON}",
        )
    if error.msg.startswith(("Invalid \\", "Invalid escape")):
        # json points at the backslash or at the character after it, by version and kind
        return Fault(
            kind,
            at,
            1,
            f"a backslash at {place} begins no valid JSON escape: {near}",
            'write a backslash as \\\\; the only escapes are \\" \\\\ \\/ \\b \\f \\n \\r \\t and \\uXXXX (hex)',
        )
    return Fault(kind, at, 1, *_wrong_token(text, error.pos, place, near))


def _first_character(text: str) -> int:
    return len(text) - len(text.lstrip(_SPACE))


def _ended(raw: bytes, text: str, at: int, *, last: bool, in_string: bool) -> Fault:
    what = "inside a string" if in_string else "before the value is complete"
    tail = excerpt(raw, max(len(raw) - 20, 0))
    if last:
        return Fault(
            "truncated",
            at,
            len(raw) - at,
            f"the file ends {what}: …{tail}",
            "was a copy, a download or the writing program cut off? make the file again, or take the last record out",
        )
    hint = "a closing bracket or quote is missing, or the record goes on on the next line: one record, one line"
    if text.strip(_SPACE) in ("{", "["):
        hint = "pretty-printed JSON? " + hint
    elif in_string:
        hint = "a raw line break in a string, or a missing quote? " + hint + " and line breaks are written \\n"
    return Fault("invalid-json", at, max(len(raw) - at, 1), f"the record ends {what}: …{tail}", hint)


def _extra(raw: bytes, at: int, place: str) -> tuple[str, str]:
    before = raw[:at].rstrip(b" ")
    if before.endswith(b"\r"):
        return (
            f"another value begins at {place} after a bare carriage return: {excerpt(raw, at)}",
            "the file uses the old Mac line ends: convert them to line feeds",
        )
    if raw[at : at + 1] in (b"{", b"["):
        return (
            f"a second value begins at {place}, where the record should end: {excerpt(raw, at)}",
            "put every record on its own line",
        )
    return (
        f"the JSON value ends before {place}, and more text follows: {excerpt(raw, at)}",
        "take the text after the value out",
    )


def _not_json(rest: str, near: str) -> tuple[str, str]:
    if rest.startswith(("//", "#", "/*")):
        return f"a comment, not a JSON value: {near}", "JSON has no comments: take the line out"
    if rest.startswith(("True", "False", "None", "'", "(")):
        return f"Python's notation, not JSON: {near}", "write records with json.dumps, not str() or repr()"
    return (
        f"plain text, not a JSON value: {near}",
        'every record is one JSON object, as {"messages": […]}; a text file must be wrapped as {"text": …}',
    )


def _wrong_token(text: str, pos: int, place: str, near: str) -> tuple[str, str]:
    """What stands at ``pos``, where a key, a value, a comma or a colon should."""
    char = text[pos]
    before = text[:pos].rstrip(_SPACE)
    previous = before[-1:]
    if char == "'":
        return f"a single quote at {place} where JSON wants a double quote: {near}", (
            "this looks like Python's notation: write records with json.dumps, not str() or repr()"
        )
    if text.startswith(("True", "False", "None"), pos):
        return f"Python's notation at {place}, not JSON: {near}", "JSON writes true, false and null"
    if (char in "}]" and previous == ",") or (char == "," and text[pos + 1 :].lstrip(_SPACE)[:1] in ("}", "]")):
        return f"a comma before a closing bracket at {place}: {near}", "take the last comma out"
    if text.startswith(("//", "/*", "#"), pos):
        return f"a comment at {place}: {near}", "JSON has no comments"
    if previous == "{" or (previous == "," and char not in '{["-0123456789'):
        return f"a key in double quotes should stand at {place}: {near}", _WRITE_JSON
    if previous in ("[", ":", ","):
        return f"a JSON value should stand at {place}: {near}", _WRITE_JSON
    if previous == '"':
        return f"a comma, a colon or a closing bracket should stand at {place}: {near}", (
            'a comma or colon is missing, or a double quote inside a string is not written \\"'
        )
    return f"a comma or a closing bracket should stand at {place}: {near}", _WRITE_JSON
