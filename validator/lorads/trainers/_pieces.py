"""Arithmetic of rows whose pieces are tokenized one by one and then joined."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorads.tokenizers import Ids

if TYPE_CHECKING:
    from lorads.tokenizers import Tokenizer

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
Placed = tuple[Integers, Integers]
"""First and one-past-last character of each token of a text."""


def running(values: npt.NDArray[Any]) -> Integers:
    """0 and the running sum, shape (values + 1,)."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums


def ranges(first: Integers, counts: Integers) -> Integers:
    """``first, first + 1 … first + count - 1`` of each, one after the other."""
    before = np.cumsum(counts) - counts
    return np.asarray(np.arange(int(counts.sum())) + np.repeat(first - before, counts))


def placed_as_one(text: str) -> Placed:
    """Of a text that is one token."""
    return np.zeros(1, np.int64), np.full(1, len(text), np.int64)


def placed_alone(tokenizer: Tokenizer, text: str, ids: npt.NDArray[np.int32]) -> Placed:
    """Of a text that was encoded by itself, without special tokens."""
    return tokenizer.place([text], Ids(ids, np.array([0, len(ids)], np.int64))).of(0)


def placed_in_line(pieces: Iterable[tuple[int, Placed]]) -> Placed:
    """Of a row: its pieces by their length in characters, each with the places in it."""
    begins, ends, offset = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    for length, (begin, end) in pieces:
        begins.append(begin + offset)
        ends.append(end + offset)
        offset += length
    return np.concatenate(begins), np.concatenate(ends)
