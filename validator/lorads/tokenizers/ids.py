"""Flat batches of token ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(slots=True)
class Ids:
    """Token ids of a batch of texts: those of text i are ``flat[starts[i]:starts[i + 1]]``.

    ``flat`` is int32 of shape (tokens,), ``starts`` int64 of shape (texts + 1,).
    """

    flat: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64]

    def row(self, i: int) -> npt.NDArray[np.int32]:
        return self.flat[self.starts[i] : self.starts[i + 1]]


@dataclass(slots=True)
class Spans:
    """Where each token of an ``Ids`` stands in its text: characters ``begin[t]`` to ``end[t]``, from the text's start.

    Tokens that no character stands behind (BOS put in front by the post-processor) have ``begin == end``. A token that
    holds part of a character's bytes spans the whole character, as ``tokenizers`` reports it.
    """

    begin: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
