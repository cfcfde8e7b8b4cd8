"""Hashes of rows: the same in every process, on every machine, however rows are batched."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lorads.tokenizers import Ids

_STEP = 0x9E3779B97F4A7C15
_BACK = pow(_STEP, -1, 2**64)
_powers: dict[int, npt.NDArray[np.uint64]] = {}
_TOKENS_AT_ONCE = 1 << 17


def sequence_hash(ids: Ids, trained: npt.NDArray[np.bool_], all_trained: bool) -> npt.NDArray[np.uint64]:
    """A 64-bit hash of each row's ids and labels, shape (rows,).

    A row is the polynomial of its ids (their complements where the label is -100) in an odd constant, modulo 2**64,
    mixed with its length. Among a million different rows some two share a hash with a chance of about 3e-8.
    """
    starts = ids.starts
    out = np.zeros(len(starts) - 1, np.uint64)
    first = 0
    while first < len(out):
        # a part of the batch at a time: what is computed here takes eight bytes a token
        last = max(int(np.searchsorted(starts, starts[first] + _TOKENS_AT_ONCE, side="right")) - 1, first + 1)
        begin, end = int(starts[first]), int(starts[last])
        masked = None if all_trained else ~trained[begin:end]
        out[first:last] = _polynomials(ids.flat[begin:end], starts[first : last + 1] - begin, masked)
        first = last
    return mix(out + np.diff(starts).astype(np.uint64))


def _polynomials(
    flat: npt.NDArray[np.int32], starts: npt.NDArray[np.int64], masked: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.uint64]:
    words = flat.astype(np.uint64)
    words += np.uint64(1)
    if masked is not None:
        np.invert(words, out=words, where=masked)
    words *= _powers_to(_STEP, len(flat))
    out = np.zeros(len(starts) - 1, np.uint64)
    begins = starts[:-1][np.diff(starts) > 0]
    if len(begins):
        # powers run over all rows: what stands before a row is divided out again
        out[np.diff(starts) > 0] = np.add.reduceat(words, begins) * _powers_to(_BACK, len(flat))[begins]
    return out


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser, in place."""
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


def _powers_to(base: int, size: int) -> npt.NDArray[np.uint64]:
    """1, base, base**2 … modulo 2**64; kept, and doubled in length where they do not reach."""
    known = _powers.get(base)
    if known is None or len(known) < size:
        length = max(size, 1 << 16, 2 * len(known) if known is not None else 0)
        steps = np.full(length, base, np.uint64)
        steps[0] = 1
        known = _powers[base] = np.multiply.accumulate(steps)
    return known[:size]
