"""Character spans of tokens, from how many bytes of text stand behind each.

The fast engines give no offsets. In a byte-level vocabulary a token's length in bytes is known, so its place is the
running sum of the lengths before it; the same holds for SentencePiece vocabularies once the spaces that are put in
front of texts are accounted for. A row where the lengths don't add up to the text's is left to the reference.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from lorads.tokenizers.ids import Ids, Spans
from lorads.tokenizers.pieces import Prefix

Characters = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Lengths:
    """What is known about the bytes behind tokens."""

    byte_lengths: npt.NDArray[np.int32]
    """(vocab_size,)"""
    absorbing: npt.NDArray[np.bool_] | None
    """(vocab_size,): added tokens that swallow spaces beside them; None when there are none."""
    added: npt.NDArray[np.bool_]
    """(vocab_size,): added tokens."""
    prefix: Prefix
    nfc: bool
    """Whether the text is normalized to form C first."""
    marked_space: bool
    """SentencePiece: a space is ▁, and a real ▁ can't be told from it."""


class Places:
    """Where the tokens of a batch stand in their texts, worked out as far as it is asked for.

    ``reference`` gives a row's spans (begin and end in characters) as ``tokenizers`` tells them, for the rows in
    which lengths do not do.
    """

    def __init__(
        self,
        texts: list[str],
        ids: Ids,
        front: int,
        behind: int,
        known: Lengths | None,
        reference: Callable[[int], tuple[Characters, Characters]],
    ) -> None:
        self._texts, self._ids, self._front, self._behind, self._known = texts, ids, front, behind, known
        self._reference = reference
        self._doubtful: npt.NDArray[np.int64] = np.arange(0)
        """Rows whose places only the reference tells; known once ``borders`` was asked."""

    def borders(self, segment_chars: Characters, rows: Characters) -> Characters:
        """How many tokens of the batch end at or before the end of each segment, shape (segments,).

        The texts are cut without gaps into segments of ``segment_chars`` characters; those of text i are
        ``rows[i]:rows[i + 1]``. Counted in bytes, which needs no place of any single token.
        """
        texts, ids, known = self._texts, self._ids, self._known
        encoded = {row: text.encode() for row, text in enumerate(texts) if not text.isascii()}
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        ends = np.cumsum(segment_chars)
        if encoded:
            _to_bytes(ends, encoded, rows, lengths)
        if known is None:
            counted = np.zeros(len(ends), np.int64)
            bad = np.arange(len(texts))
        else:
            token_lengths, sums, bad = _measured(texts, ids, self._front, self._behind, known, lengths)
            token_ends = sums[1:]
            if known.prefix != "none":
                # The space put in front stands for the first character.
                token_ends = token_ends + ((token_lengths == 1) & (sums[1:] == sums[:-1]))
            if len(bad):
                text_ends = np.cumsum(lengths)
                for row in bad.tolist():  # kept in order for the search; the reference counts them below
                    token_ends[ids.starts[row] : ids.starts[row + 1]] = text_ends[row]
            counted = np.searchsorted(token_ends, ends, side="right")
            # BOS in front of the next text ends where this one does.
            counted = np.minimum(counted, np.repeat(ids.starts[1:], np.diff(rows)))
        self._doubtful = bad
        for row in bad.tolist():
            _, end = self._reference(row)
            mine = slice(rows[row], rows[row + 1])
            counted[mine] = ids.starts[row] + np.searchsorted(end, np.cumsum(segment_chars[mine]), side="right")
        return counted

    def tokens_at(self, row: npt.NDArray[np.int64], char: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The token of the batch that stands for a character of a text (its first, where several share it), for many
        pairs of text and character; -1 where no token does. Shape as ``row``."""
        lengths = np.fromiter(map(len, self._texts), np.int64, len(self._texts))
        first = _running(lengths)
        cut = np.clip(char, 0, lengths[row]) + first[row]
        rows = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(np.bincount(row, minlength=len(lengths)) + 1, out=rows[1:])
        # the pairs' characters and the ends of the texts, in order
        ends = np.concatenate([cut, first[1:]])
        order = np.lexsort((ends, np.concatenate([row, np.arange(len(lengths))])))
        counted = np.empty(len(ends), np.int64)
        counted[order] = self.borders(np.diff(ends[order], prepend=0), rows)
        token = counted[: len(cut)]
        starts = self._ids.starts
        token[(char < 0) | (char >= lengths[row]) | (token >= starts[row + 1])] = -1
        for doubtful in self._doubtful.tolist():
            mine = np.flatnonzero((row == doubtful) & (token >= 0))
            if len(mine):
                begin, _ = self._reference(doubtful)
                token[mine[begin[token[mine] - starts[doubtful]] > char[mine]]] = -1
        return token

    def of(self, row: int) -> tuple[Characters, Characters]:
        """First and one-past-last character of each token of one text, from the text's start."""
        if self._known is not None:
            mine = self._ids.row(row)
            alone = Ids(mine, np.array([0, len(mine)], np.int64))
            found, bad = by_lengths([self._texts[row]], alone, self._front, self._behind, self._known)
            if not len(bad):
                return found.begin, found.end
        return self._reference(row)

    def spans(self) -> Spans:
        """The places of all tokens."""
        if self._known is None:
            begin, end = np.zeros(len(self._ids.flat), np.int64), np.zeros(len(self._ids.flat), np.int64)
            bad = np.arange(len(self._texts))
        else:
            found, bad = by_lengths(self._texts, self._ids, self._front, self._behind, self._known)
            begin, end = found.begin, found.end
        for row in bad.tolist():
            mine = slice(self._ids.starts[row], self._ids.starts[row + 1])
            begin[mine], end[mine] = self._reference(row)
        return Spans(begin, end)


def _to_bytes(ends: Characters, encoded: dict[int, bytes], rows: Characters, lengths: Characters) -> None:
    """Turn ends of segments, counted in characters over all texts, into bytes; ``lengths`` of the texts likewise."""
    first = _running(lengths)
    wide = np.fromiter(encoded, np.int64, len(encoded))
    buffer = np.frombuffer(b"".join(encoded.values()), np.uint8)
    char_starts = np.append(np.flatnonzero((buffer & 0xC0) != 0x80), len(buffer))
    counts = rows[wide + 1] - rows[wide]
    mine = np.arange(counts.sum()) + np.repeat(rows[wide] - _running(counts)[:-1], counts)
    # where each wide text begins among the characters and the bytes of the wide texts alone
    char_first = _running(lengths[wide])[:-1]
    byte_first = char_starts[char_first]
    inside = ends[mine] - np.repeat(first[wide], counts)
    ends[mine] = char_starts[inside + np.repeat(char_first, counts)] + np.repeat(first[wide] - byte_first, counts)
    shift = np.zeros(len(lengths), np.int64)
    sizes = np.diff(np.append(byte_first, len(buffer)))
    shift[wide] = sizes - lengths[wide]
    lengths[wide] = sizes
    ends += np.repeat(_running(shift)[:-1], np.diff(rows))


def _measured(
    texts: list[str], ids: Ids, front: int, behind: int, known: Lengths, sizes: Characters
) -> tuple[npt.NDArray[np.int32], Characters, Characters]:
    """Bytes of text behind each token, their running sum, and the rows in which they do not add up to ``sizes``."""
    starts = ids.starts
    lengths = known.byte_lengths.take(ids.flat, mode="clip")  # every id is in it: half the price of indexing
    for offset in range(front):
        lengths[starts[:-1] + offset] = 0
    for offset in range(behind):
        lengths[starts[1:] - 1 - offset] = 0
    sums = _running(lengths)
    surplus = sums[starts[1:]] - sums[starts[:-1]] - sizes
    bad = surplus != 0
    if known.prefix != "none":
        prefixed = _may_be_prefixed(ids, front, behind, known)
        many = _running(prefixed)
        agreeing = surplus == many[starts[1:]] - many[starts[:-1]]
        lengths -= prefixed & np.repeat(agreeing, np.diff(starts))
        bad &= ~agreeing
        sums = _running(lengths)
        # A token that is nothing but the space put in front stands, as tokenizers has it, for the first character.
        lengths[prefixed & (lengths == 0)] = 1
    bad |= _untrusted(texts, ids, known)
    if bad.any():
        # a row that does not add up must not push the rows behind it out of place
        wrong = np.where(bad, sizes - (sums[starts[1:]] - sums[starts[:-1]]), 0)
        last = starts[1:][bad & (np.diff(starts) > 0)]
        correction = np.zeros(len(lengths) + 1, np.int64)
        correction[last] = wrong[bad & (np.diff(starts) > 0)]
        sums += np.cumsum(correction)
    return lengths, sums, np.flatnonzero(bad)


def by_lengths(
    texts: list[str], ids: Ids, front: int, behind: int, known: Lengths
) -> tuple[Spans, npt.NDArray[np.int64]]:
    """Spans of all tokens, and the rows for which they don't hold.

    The first ``front`` and the last ``behind`` tokens of each row come from the post-processor: no character stands
    behind them.
    """
    starts = ids.starts
    counts = np.diff(starts)
    encoded = {row: text.encode() for row, text in enumerate(texts) if not text.isascii()}
    sizes = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    chars = sizes.copy() if encoded else sizes
    for row, content in encoded.items():
        sizes[row] = len(content)
    lengths, sums, bad = _measured(texts, ids, front, behind, known, sizes)
    begin = sums[:-1] - np.repeat(sums[starts[:-1]], counts)
    end = begin + lengths
    if encoded:
        _to_characters(begin, end, encoded, ids)
    for offset in range(front):
        at = starts[:-1] + offset
        begin[at] = end[at] = 0
    for offset in range(behind):
        at = starts[1:] - 1 - offset
        begin[at] = end[at] = chars
    return Spans(begin, end), bad


def _running(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """0 and the running sum, shape (values + 1,)."""
    sums = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum(values.astype(np.int64, copy=False), out=sums[1:])
    return sums


def _to_characters(
    begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64], encoded: dict[int, bytes], ids: Ids
) -> None:
    """Turn places counted in bytes into places counted in characters, in the rows of ``encoded``.

    A token that holds part of a character's bytes spans the whole character.
    """
    rows = np.fromiter(encoded, dtype=np.int64, count=len(encoded))
    counts = ids.starts[rows + 1] - ids.starts[rows]
    buffer = np.frombuffer(b"".join(encoded.values()), dtype=np.uint8)
    char_of_byte = np.cumsum((buffer & 0xC0) != 0x80, dtype=np.int64) - 1
    offsets = _running(np.fromiter(map(len, encoded.values()), dtype=np.int64, count=len(encoded)))[:-1]
    tokens = np.arange(counts.sum()) + np.repeat(ids.starts[rows] - _running(counts)[:-1], counts)
    offset, origin = np.repeat(offsets, counts), np.repeat(char_of_byte[offsets], counts)
    # Rows whose lengths don't add up may point behind the end: they are left to the reference anyway.
    begin[tokens] = char_of_byte.take(begin[tokens] + offset, mode="clip") - origin
    end[tokens] = char_of_byte.take(end[tokens] + offset - 1, mode="clip") + 1 - origin


def _may_be_prefixed(ids: Ids, front: int, behind: int, known: Lengths) -> npt.NDArray[np.bool_]:
    """Tokens that begin a text, or (``sections``) the text behind an added token: a space may stand in front of them.

    Whether it does follows from the sum: each prefix makes a row one byte longer than its text, and nothing else does.
    """
    added = known.added[ids.flat]
    opens = np.zeros(len(ids.flat), dtype=bool)
    if known.prefix == "sections":
        opens[1:] = added[:-1]
    opens[(ids.starts[:-1] + front)[np.diff(ids.starts) > front + behind]] = True
    for offset in range(front):
        opens[ids.starts[:-1] + offset] = False
    for offset in range(behind):
        opens[ids.starts[1:] - 1 - offset] = False
    return opens & ~added


_is_nfc = partial(unicodedata.is_normalized, "NFC")


def _untrusted(texts: list[str], ids: Ids, known: Lengths) -> npt.NDArray[np.bool_]:
    """Rows whose lengths could add up by accident."""
    doubtful = np.zeros(len(texts), dtype=bool)
    if known.absorbing is not None and len(ids.flat):
        at = np.flatnonzero(known.absorbing[ids.flat])
        doubtful[np.searchsorted(ids.starts, at, side="right") - 1] = True
    if known.marked_space:
        doubtful |= np.fromiter(("▁" in text for text in texts), dtype=bool, count=len(texts))
    if known.nfc:
        wide = [row for row, text in enumerate(texts) if not text.isascii()]
        if not all(map(_is_nfc, (texts[row] for row in wide))):
            doubtful[[row for row in wide if not _is_nfc(texts[row])]] = True
    return doubtful
