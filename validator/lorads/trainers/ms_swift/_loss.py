"""swift's loss scales (``swift/loss_scale``): which pieces of a row are trained.

A loss scale is a base strategy (``default``, ``last_round``, ``all``) and any number of scales that cut a text where a
pattern of theirs is found and give each part a weight. Only whether a weight is above 0 reaches the labels; but pieces
of different weights are tokenized apart, so that weights change ids too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

from lorads.errors import UsageError

STRATEGIES = ("default", "last_round", "all")
SCALES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "base": {},
    "ignore_empty_think": {
        r"^<think>\s*</think>\s*": (0.0,),
        "^<seed:think><seed:cot_budget_reflect>The current thinking budget is 0, so I will directly start answering "
        r"the question.</seed:cot_budget_reflect>\n</seed:think>\s*": (0.0,),
        r"^</think>\s*": (0.0,),
        r"^<\|channel>thought\n<channel\|>": (0.0,),
        r"^</mm:think>\s*": (0.0,),
    },
    "ignore_think_prefix": {r"^<think>\n?": (0.0,)},
    "hermes": {"<tool_call>.+?</tool_call>": (2.0,)},
    "react": {
        "Action:": (2.0, 2.0),
        "Action Input:": (2.0, 2.0),
        "Thought:": (1.0, 1.0),
        "Final Answer:": (1.0, 1.0),
        "Observation:": (2.0, 0.0),
    },
    "alpha_umi": {
        "Action:": (2.0, 2.0),
        "Action Input:": (2.0, 2.0),
        "Thought:": (1.0, 1.0),
        "Final Answer:": (1.0, 1.0),
        "Observation:": (2.0, 0.0),
        "Next:": (2.0, 2.0),
    },
    "qwen": {
        "✿FUNCTION✿:": (2.0, 2.0),
        "✿ARGS✿:": (2.0, 2.0),
        "✿RETURN✿:": (1.0, 1.0),
        "✿RESULT✿:": (2.0, 0.0),
    },
}
"""``swift/loss_scale/config/*.json``: one weight for what matches a pattern, or two for a mark and what follows it."""

Cut = list[tuple[int, int, float]]
"""Parts of a text: first and one-past-last character, weight."""


@dataclass(frozen=True, slots=True)
class Scale:
    """One of ``SCALES``, ready for use."""

    weights: Mapping[str, tuple[float, ...]]
    anywhere: re.Pattern[str]
    patterns: tuple[tuple[re.Pattern[str], float], ...]
    """Those with one weight; empty where the scale has marks."""
    anchored: bool
    """Only how a text begins can cut it."""

    @staticmethod
    @cache
    def named(name: str) -> Scale:
        weights = SCALES[name]
        marks = [key for key, pair in weights.items() if len(pair) == 2]
        keys = [re.escape(mark) for mark in marks] or list(weights)
        anywhere = re.compile("|".join(f"({key})" for key in keys), re.DOTALL)
        patterns = [] if marks else [(re.compile(key, re.DOTALL), pair[0]) for key, pair in weights.items()]
        anchored = not marks and all(key[0] == "^" for key in keys)
        return Scale(weights, anywhere, tuple(patterns), anchored)

    def cut(self, text: str) -> Cut:
        """``calculate_loss_scale`` (``utils.py`` L7)."""
        return self._at_patterns(text) if self.patterns else self._at_marks(text)

    def _at_marks(self, text: str) -> Cut:
        parts: Cut = []
        key, begin = "", 0
        for match in self.anywhere.finditer(text):
            self._behind_mark(parts, key, begin, match.start())
            key, begin = match.group(), match.start()
        self._behind_mark(parts, key, begin, len(text))
        return parts

    def _behind_mark(self, parts: Cut, key: str, begin: int, end: int) -> None:
        if not key:
            if end > begin:
                parts.append((begin, end, 1.0))
            return
        own, following = self.weights[key]
        parts.append((begin, begin + len(key), own))
        parts.append((begin + len(key), end, following))

    def _at_patterns(self, text: str) -> Cut:
        ends = [0]
        if self.anchored:
            # not finditer, which would try every place of the text
            match = self.anywhere.match(text)
            ends += (0, match.end()) if match else ()
        else:
            for match in self.anywhere.finditer(text):
                ends += (match.start(), match.end())
        ends.append(len(text))
        parts: Cut = []
        for begin, end in pairwise(ends):
            if begin < end:
                # swift asks every part which pattern it begins with: one between two matches may begin with one too
                part = text[begin:end]
                found = next((weight for pattern, weight in self.patterns if pattern.match(part)), 1.0)
                parts.append((begin, end, found))
        return parts


@dataclass(frozen=True, slots=True)
class LossScale:
    strategy: str
    scales: tuple[Scale, ...]

    @property
    def anchored(self) -> bool:
        """Only how an answer begins can cut it."""
        return all(scale.anchored for scale in self.scales)

    def touches(self, text: str) -> bool:
        """Whether one of the scales, all of them anchored, cuts a text that begins so."""
        return any(scale.anywhere.match(text) for scale in self.scales)

    def cut(self, text: str) -> Cut:
        parts: Cut = [(0, len(text), 1.0)]
        for scale in self.scales:
            parts = [
                (begin + first, begin + last, weight * more)
                for begin, end, weight in parts
                for first, last, more in scale.cut(text[begin:end])
            ]
        return parts


def parse(text: str) -> LossScale:
    """``get_loss_scale`` (``mapping.py`` L24). Raises ``UsageError`` for scales that swift or lorads does not have."""
    names = text.split("+")
    strategy = names.pop(0) if names[0] in STRATEGIES else "default"
    for name in names:
        if name == "agentflan":
            raise UsageError("lorads does not reproduce ms-swift's loss scale agentflan", "choose another loss_scale")
        if name not in SCALES:
            known = ", ".join([*STRATEGIES, *SCALES])
            raise UsageError(f'ms-swift has no loss scale "{name}"', f"it has: {known}, joined by +")
    return LossScale(strategy, tuple(Scale.named(name) for name in names if name != "base"))
