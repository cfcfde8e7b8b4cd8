"""Tokenizers: from a name to ids, special tokens, a chat template and the place of each token in its text."""

from __future__ import annotations

from lorads.tokenizers.engines import EngineMismatch, single_threaded
from lorads.tokenizers.ids import Ids, Spans
from lorads.tokenizers.spans import Places
from lorads.tokenizers.special import SpecialTokens
from lorads.tokenizers.tokenizer import Tokenizer, load

__all__ = ["EngineMismatch", "Ids", "Places", "Spans", "SpecialTokens", "Tokenizer", "load", "single_threaded"]
