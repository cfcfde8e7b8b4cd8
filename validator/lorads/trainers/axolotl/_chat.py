"""The ``chat_template`` strategy: ``prompt_strategies/chat_template.py::_tokenize_single_prompt`` (L472-680)."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorads import cache
from lorads.errors import UsageError
from lorads.formats import Conversation, Kind
from lorads.templates.render import PART_CONTENT, SCAFFOLD, RenderFailure
from lorads.trainers.axolotl._anchors import Anchors
from lorads.trainers.axolotl._keys import message_keys
from lorads.trainers.axolotl._options import Ends, Options
from lorads.trainers.axolotl._spans import (
    PLACEHOLDERS,
    Opaque,
    Search,
    differing,
    near_placeholder,
    placeholder_turn,
    with_turn,
)
from lorads.trainers.axolotl._turns import Stopped, Thread, Threads
from lorads.trainers.base import LabelBatch, render_segments

if TYPE_CHECKING:
    from lorads.templates import Template
    from lorads.templates.render import RenderBatch
    from lorads.tokenizers import Places, Tokenizer

Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

ABSENT = -1
UNKNOWN = -1
REACH = 3
"""How many tokens behind the end of a turn its EOS may stand (L647)."""
_REASONING = ("reasoning_content", "thinking", "reasoning")
_REMEMBERED = 1 << 16


class ChatTemplate:
    """Labels of conversations under one template."""

    def __init__(self, tokenizer: Tokenizer, template: Template, source: str, options: Options) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._options = options
        self._threads = Threads(options, message_keys(source))
        self._source = source
        eos = tokenizer.special.eos
        self._eos: set[int] = set() if tokenizer.special.eos_id is None else {tokenizer.special.eos_id}
        self._on_eos: Ends = options.train_on_eos
        self._on_eot: Ends = options.train_on_eot or options.train_on_eos
        given = options.eot_tokens if options.eot_tokens is not None else ((eos,) if eos else ())
        self.notes: list[str] = []
        self._eot = self._check_ends(list(given), eos)
        self._every = "all" in (self._on_eos, self._on_eot)
        self._roles = {Roles.get(role, role) for role in options.roles_to_train}
        self._opaque = Opaque(template)
        self._mistral = "mistral" in tokenizer.name.lower()
        self._places: dict[Any, tuple[int, int] | None] = {}
        special = tokenizer.special.added
        self._added = np.zeros(max([tokenizer.vocab_size, *(number + 1 for number in special.values())]), np.bool_)
        absorbing = tokenizer.absorbing
        self._added[[number for number in special.values() if number not in absorbing]] = True
        self._trims = _trims(tokenizer)
        self._anchors = Anchors(template, tokenizer, self._added, absorbing)
        self._suspect = np.full(len(self._added), UNKNOWN, np.int8)

    def _check_ends(self, tokens: list[str], eos: str | None) -> set[int]:
        """L356-418."""
        if eos is not None and tokens == [eos]:
            if eos not in self._source and "eos_token" not in self._source:
                self.notes.append(
                    f'the chat template does not write the EOS token "{eos}", so axolotl trains no end of turn: set '
                    "eot_tokens to the token that ends a turn"
                )
        else:
            for token in [token for token in tokens if token not in self._source]:
                self.notes.append(f'the end-of-turn token "{token}" is not in the chat template: axolotl leaves it out')
            tokens = [token for token in tokens if token in self._source]
            for token in tokens:
                count = len(self._tokenizer.encode([token]).flat)
                if count != 1:
                    raise UsageError(
                        f'axolotl refuses the end-of-turn token "{token}", which is {count} tokens',
                        "name one that the tokenizer has as one token, or add it under tokens:",
                    )
            if eos in tokens and self._on_eos != self._on_eot:
                raise UsageError(
                    "axolotl refuses train_on_eot other than train_on_eos where EOS is among eot_tokens",
                    f'set both alike, or leave "{eos}" out of eot_tokens',
                )
        encoded = self._tokenizer.encode(tokens)
        return {int(encoded.row(i)[0]) for i in range(len(tokens)) if len(encoded.row(i)) == 1}

    # A batch

    def label(self, conversations: Sequence[Conversation]) -> LabelBatch:
        threads: dict[int, Thread] = {}
        failures: dict[int, RenderFailure] = {}
        rendered = list(conversations)
        if not self._threads.as_they_are(conversations):
            threads, failures = self._read(conversations)
            for row, thread in threads.items():
                rendered[row] = thread.rendered
        render = self._template.render(rendered)
        failures.update((row, failure) for row, failure in render.failures.items() if row not in failures)
        for row in failures:
            render.texts[row] = ""
        ids = self._tokenizer.encode(render.texts)
        places = self._tokenizer.place(render.texts, ids)
        segments = render_segments(render, places, ids)
        batch = LabelBatch(
            ids,
            np.zeros(len(ids.flat), np.bool_),
            np.ones(len(ids.flat), np.bool_),
            segments,
            texts=render.texts,
            placed=places.of,
            failures=failures,
            lost=dict(render.lost),
        )
        _Labelled(
            self, rendered, {row for row, thread in threads.items() if thread.marked}, render, places, batch
        ).fill()
        _shift_messages(batch, threads)
        return batch

    def _read(self, conversations: Sequence[Conversation]) -> tuple[dict[int, Thread], dict[int, RenderFailure]]:
        """The rows that are rendered otherwise than they stand, and those at which axolotl stops."""
        threads: dict[int, Thread] = {}
        failures: dict[int, RenderFailure] = {}
        for row, conversation in enumerate(conversations):
            try:
                thread = self._threads.of(conversation)
            except Stopped as why:
                thread = Thread(Conversation(Kind.MESSAGES, []))
                failures[row] = RenderFailure("stops", f"axolotl stops: {why}")
            if thread.rendered.roles is None and (why_not := self._not_rendered(thread)):
                failures[row] = RenderFailure("not-reproduced", why_not)
            if thread.rendered is not conversation:
                threads[row] = thread
        return threads, failures

    def _not_rendered(self, thread: Thread) -> str:
        """lorads renders reasoning under all its names, as newer transformers do; axolotl pins an older one."""
        for turn in thread.rendered.messages:
            mine = [name for name in _REASONING if turn.get(name) is not None]
            for name in ("thinking", "reasoning_content") if mine else ():
                if name not in mine and re.search(rf"\b{name}\b", self._source):
                    return (
                        f'the reasoning stands under "{mine[0]}" and the chat template reads "{name}" too, which '
                        "lorads does not reproduce for axolotl: call it what the template does"
                    )
        return ""


Roles: Mapping[str, str] = {"human": "user", "gpt": "assistant"}


class _Labelled:
    """The labels of one batch in the making."""

    def __init__(
        self,
        strategy: ChatTemplate,
        rendered: list[Conversation],
        marked: set[int],
        render: RenderBatch,
        places: Places,
        batch: LabelBatch,
    ) -> None:
        self.strategy, self.rendered, self.marked = strategy, rendered, marked
        self.render, self.places, self.batch = render, places, batch
        self.ids = batch.ids
        rows = len(rendered)
        counts = np.fromiter((len(conversation.messages) for conversation in rendered), np.int64, rows)
        counts[list(batch.failures)] = 0
        self.turns = np.zeros(rows + 1, np.int64)
        np.cumsum(counts, out=self.turns[1:])
        self.row_of = np.repeat(np.arange(rows), counts)
        total = int(self.turns[-1])
        self.begin = np.full(total, ABSENT, np.int64)
        self.end = np.full(total, ABSENT, np.int64)
        """First and one-past-last token of each turn, counted over the batch; ABSENT where axolotl finds none."""
        self._of_row: dict[int, tuple[list[int], list[int]]] = {}
        self.added = strategy._anchors.positions(self.ids.flat)

    def fill(self) -> None:
        trained = self._trained_turns()
        visited = np.ones(len(trained), np.bool_) if self.strategy._every else trained
        self._locate(visited)
        for row in np.flatnonzero(np.diff(self.ids.starts) == 0).tolist():
            if visited[self.turns[row] : self.turns[row + 1]].any() and row not in self.batch.failures:
                self._stop(row, "the template renders nothing, and there is no token to look at")
        self._train_contents(trained)
        self._train_ends(trained, visited)

    def _rows(self) -> list[int]:
        failures = self.batch.failures
        return [row for row in range(len(self.rendered)) if row not in failures]

    def _trained_turns(self) -> Flags:
        """L512-524."""
        strategy = self.strategy
        roles, everything = strategy._roles, strategy._options.train_on_inputs
        by_roles: dict[tuple[str, ...], list[bool]] = {}
        flags: list[list[bool]] = []
        for row in self._rows():
            conversation = self.rendered[row]
            names = conversation.roles
            if names is not None and row not in self.marked:
                known = by_roles.get(names)
                if known is None:
                    known = by_roles[names] = [everything or role in roles for role in names]
                flags.append(known)
                continue
            found: list[bool] = []
            for turn in conversation.messages:
                training, detail = turn.get("training"), turn.get("training_detail")
                reasoning = turn.get("reasoning_training_detail")
                if training is not None:
                    found.append(bool(training))
                elif detail is not None or reasoning is not None:
                    found.append(bool(detail) or bool(reasoning))
                else:
                    found.append(everything or _hashable(turn.get("role")) in roles)
            flags.append(found)
        return np.fromiter(chain.from_iterable(flags), np.bool_, len(self.row_of))

    # Places of turns

    def _locate(self, visited: Flags) -> None:
        wanted = visited.copy()
        if self.strategy._mistral:
            for row in self._rows():
                if self.rendered[row].messages[0].get("role") == "system":
                    wanted[self.turns[row]] = False  # L764-770
        plain = self._plain_rows()
        simple = self._locate_by_anchors(wanted)
        rest = wanted & plain[self.row_of] & ~simple
        if rest.any():
            simple |= self._locate_by_segments(rest)
        left = np.flatnonzero(wanted & ~simple).tolist()
        if left:
            self._locate_by_search(left, plain)

    def _plain_rows(self) -> Flags:
        """Rows of roles and texts alone, printed as they are."""
        plain = np.zeros(len(self.rendered), np.bool_)
        exact = self.render.from_pieces
        if exact is not None and self.strategy._opaque.fits_placeholders:
            plain |= exact
        rows = [row for row in np.flatnonzero(~plain).tolist() if self.rendered[row].contents is not None]
        rows = [row for row in rows if row not in self.batch.failures]
        if rows:
            plain[rows] = self.strategy._opaque.of([self.rendered[row].contents or [] for row in rows])
        return plain

    def _locate_by_anchors(self, wanted: Flags) -> Flags:
        """Turns of rows that are printed as they are, by the added tokens around them."""
        located = np.zeros(len(wanted), np.bool_)
        exact = self.render.from_pieces
        strategy = self.strategy
        if exact is None or strategy._trims or not strategy._opaque.fits_placeholders:
            return located
        groups: dict[tuple[str, ...], list[int]] = {}
        for row in np.flatnonzero(exact).tolist():
            conversation = self.rendered[row]
            if conversation.roles is not None and all(conversation.contents or ()):
                groups.setdefault(conversation.roles, []).append(row)
        for roles, members in groups.items():
            rows = np.array([row for row in members if row not in self.batch.failures], np.int64)
            turns = self.turns[rows][:, None] + np.arange(len(roles))
            asked = np.flatnonzero(wanted[turns].any(axis=0)).tolist()
            for turn, mine, begin, end in strategy._anchors.find(
                roles, rows, asked, self.ids.flat, self.ids.starts, self.added
            ):
                sure = ~self._near_placeholders(mine, turn, begin)
                numbers = self.turns[mine[sure]] + turn
                self.begin[numbers], self.end[numbers] = begin[sure], end[sure]
                located[numbers] = True
        return located & wanted

    def _near_placeholders(self, rows: Integers, turn: int, begin: Integers) -> Flags:
        """Contents that begin like a placeholder; the first token tells of most that they don't."""
        strategy = self.strategy
        first = self.ids.flat[begin]
        suspect = strategy._suspect[first]
        for token in np.unique(first[suspect == UNKNOWN]).tolist():
            text = strategy._tokenizer.token_text(token).replace("▁", " ").lstrip()
            strategy._suspect[token] = not text or text[0] in "[z\\"
        near = np.asarray(strategy._suspect[first] == 1)
        for i in np.flatnonzero(near).tolist():
            near[i] = near_placeholder((self.rendered[int(rows[i])].contents or [])[turn])
        return near

    def _locate_by_segments(self, wanted: Flags) -> Flags:
        """Turns whose content stands in one piece and without white space at its edges: the content is the span."""
        segments, render = self.batch.segments, self.render
        lengths = np.diff(render.row_segments)
        rows = np.repeat(np.arange(len(lengths)), lengths)
        mine = np.flatnonzero((render.segment_message >= 0) & (np.diff(self.turns)[rows] > 0))
        turn = self.turns[rows[mine]] + render.segment_message[mine]
        alone = np.bincount(turn, minlength=len(wanted)) == 1
        fits = (
            (render.segment_part[mine] == PART_CONTENT) & (render.segment_chars[mine] > 0) & wanted[turn] & alone[turn]
        )
        mine, turn = mine[fits], turn[fits]
        simple = self._simple(turn)
        mine, turn = mine[simple], turn[simple]
        begin, end = segments.bounds[mine], segments.bounds[mine + 1].copy()
        row = rows[mine]
        inside = np.flatnonzero(end < self.ids.starts[row + 1])
        following = self.ids.flat[end[inside]]
        doubtful = inside[~self.strategy._added[following]]
        if self.strategy._trims:
            doubtful = np.arange(len(end))
        if len(doubtful):
            self._reach_over(mine, row, begin, end, doubtful)
        found = begin < self.ids.starts[row + 1]
        turn, begin, end = turn[found], begin[found], end[found]
        empty = end <= begin
        self.begin[turn] = np.where(empty, ABSENT, begin)
        self.end[turn] = np.where(empty, ABSENT, end)
        located = np.zeros(len(wanted), np.bool_)
        located[turn] = True
        return located

    def _simple(self, turns: Integers) -> Flags:
        """Turns whose content is no near relation of a placeholder, and has no white space at its edges or is known to
        be printed exactly."""
        exact = self.render.from_pieces
        rows = self.row_of[turns]
        flags: list[bool] = []
        pairs = zip(rows.tolist(), (turns - self.turns[rows]).tolist(), strict=True)
        contents = [(self.rendered[row].contents or [])[index] for row, index in pairs]
        if exact is not None and exact[rows].all():
            flags = [not near_placeholder(content) for content in contents]
        else:
            sure = (exact[rows] if exact is not None else np.zeros(len(rows), np.bool_)).tolist()
            for content, known in zip(contents, sure, strict=True):
                edged = not known and (content[0].isspace() or content[-1].isspace())
                flags.append(not edged and not near_placeholder(content))
        return np.array(flags, np.bool_)

    def _reach_over(self, mine: Integers, row: Integers, begin: Integers, end: Integers, doubtful: Integers) -> None:
        """A token that lies over the end of a content belongs to it."""
        chars = np.zeros(len(self.render.segment_chars) + 1, np.int64)
        np.cumsum(self.render.segment_chars, out=chars[1:])
        offsets = chars[self.render.row_segments[row]]
        first, last = chars[mine] - offsets, chars[mine + 1] - offsets
        texts = self.render.texts
        exactly = np.ones(len(doubtful), np.bool_)
        if not self.strategy._trims:
            ends = zip(row[doubtful].tolist(), last[doubtful].tolist(), strict=True)
            exactly = np.fromiter((texts[r][e - 1] > "\x7f" for r, e in ends), np.bool_, len(doubtful))
            plain = doubtful[~exactly]
            end[plain] += self._lies_over(row[plain], last[plain], end[plain])
        for i in doubtful[exactly].tolist():
            span = self._tokens(int(row[i]), int(first[i]), int(last[i]))
            if span is not None:
                begin[i], end[i] = span
            else:
                begin[i] = self.ids.starts[row[i] + 1]  # axolotl's other way is tried

    def _lies_over(self, rows: Integers, last: Integers, end: Integers) -> Flags:
        """Whether no token ends at the last character of a content, which has one byte: then one lies over it."""
        count = len(self.rendered)
        cuts = np.bincount(rows, minlength=count)
        pointers = np.zeros(count + 1, np.int64)
        np.cumsum(cuts + 1, out=pointers[1:])
        borders = np.empty(int(pointers[-1]), np.int64)
        behind = np.zeros(len(borders), np.bool_)
        behind[pointers[1:] - 1] = True
        borders[behind] = np.fromiter(map(len, self.render.texts), np.int64, count)
        borders[~behind] = last - 1
        chars = np.diff(borders, prepend=0)
        chars[pointers[:-1]] = borders[pointers[:-1]]
        return np.asarray(self.places.borders(chars, pointers)[~behind] >= end)

    def _locate_by_search(self, turns: list[int], plain: Flags) -> None:
        """axolotl's own way: render with placeholders and see what differs."""
        key = self.strategy._options.template_thinking_key
        searches: list[Search] = []
        for turn in turns:
            row = int(self.row_of[turn])
            index = turn - int(self.turns[row])
            message = self.rendered[row].messages[index]
            detailed = message.get("training_detail") or message.get("reasoning_training_detail")
            searches.append(Search(row, index, bool(detailed and message.get(key) is not None)))
        for turn, span in zip(turns, self._found(searches, plain), strict=True):
            if span is not None:
                self.begin[turn], self.end[turn] = span

    def _found(self, searches: list[Search], plain: Flags) -> list[tuple[int, int] | None]:
        """The tokens of each turn looked for."""
        keys = [self._remembered_key(search) if plain[search.row] else None for search in searches]
        known = self.strategy._places
        asked: dict[Any, int] = {}
        ask: list[int] = []
        for i, key in enumerate(keys):
            if key is None or (key not in known and key not in asked):
                ask.append(i)
                if key is not None:
                    asked[key] = i
        characters = dict(zip(ask, self._differing([searches[i] for i in ask]), strict=True))
        for key, i in asked.items():
            core, span = self._core(searches[i]), characters[i]
            if len(known) >= _REMEMBERED:
                known.clear()
            if span is not None and (core is None) == (span[1] <= span[0]):
                known[key] = None if core is None else (core[0] - span[0], span[1] - core[1])
        late = [i for i, key in enumerate(keys) if i not in characters and key not in known]
        characters.update(zip(late, self._differing([searches[i] for i in late]), strict=True))
        out: list[tuple[int, int] | None] = []
        for i, (search, key) in enumerate(zip(searches, keys, strict=True)):
            if i in characters:
                out.append(self._settled(search, characters[i]))
                continue
            core, shift = self._core(search), known[key]
            span = None if core is None or shift is None else (core[0] - shift[0], core[1] + shift[1])
            out.append(self._settled(search, span))
        return out

    def _settled(self, search: Search, span: tuple[int, int] | None) -> tuple[int, int] | None:
        if span is None or search.row in self.batch.failures or span[1] <= span[0]:
            return None
        tokens = self._tokens(search.row, *span)
        if tokens is None:
            tokens = self._by_prefixes(search)
        return tokens if tokens is not None and tokens[1] > tokens[0] else None

    def _remembered_key(self, search: Search) -> Any:
        """What the outcome depends on, where a template prints contents as they are; None where it depends on more."""
        rendered = self.rendered[search.row]
        content = (rendered.contents or [])[search.turn]
        bare = content.strip()
        if not bare or near_placeholder(content):
            return None
        begin = content.index(bare[0])
        empty = tuple(not text or text.isspace() for text in rendered.contents or ())
        if any(not text.strip() and text for text in rendered.contents or ()):
            return None
        pieces = self._pieces(search)
        if len(pieces) > 1 or (pieces and self._core(search) is None):
            return None
        return rendered.roles, empty, search.turn, content[:begin], content[begin + len(bare) :], bool(pieces)

    def _pieces(self, search: Search) -> list[int]:
        render = self.render
        first, stop = int(render.row_segments[search.row]), int(render.row_segments[search.row + 1])
        here = (render.segment_message[first:stop] == search.turn) & (render.segment_chars[first:stop] > 0)
        return (np.flatnonzero(here) + first).tolist()

    def _core(self, search: Search) -> tuple[int, int] | None:
        """Where the content without its edges stands in the row's text."""
        pieces = self._pieces(search)
        if len(pieces) != 1:
            return None
        render = self.render
        bare = (self.rendered[search.row].contents or [])[search.turn].strip()
        begin = int(render.segment_chars[render.row_segments[search.row] : pieces[0]].sum())
        text = render.texts[search.row]
        at = text.find(bare, begin, begin + int(render.segment_chars[pieces[0]]))
        return (at, at + len(bare)) if at >= 0 else None

    def _differing(self, searches: list[Search]) -> list[tuple[int, int] | None]:
        """Characters of each row that differ when the turn is a placeholder. A render that fails stops axolotl."""
        key = self.strategy._options.template_thinking_key
        others: list[Conversation] = []
        for search in searches:
            rendered = self.rendered[search.row]
            for placeholder in PLACEHOLDERS:
                turn = placeholder_turn(rendered.messages[search.turn], search, key, placeholder)
                others.append(with_turn(rendered, search.turn, turn))
        if not others:
            return []
        render = self.strategy._template.render(others)
        spans: list[tuple[int, int] | None] = []
        for i, search in enumerate(searches):
            failed = render.failures.get(2 * i) or render.failures.get(2 * i + 1)
            if failed is not None:
                self._stop(
                    search.row, f"with a placeholder for turn {search.turn} the template fails: {failed.message}"
                )
                spans.append(None)
                continue
            spans.append(differing(self.render.texts[search.row], render.texts[2 * i : 2 * i + 2]))
        return spans

    def _stop(self, row: int, why: str) -> None:
        self.batch.failures[row] = RenderFailure("stops", f"axolotl stops: {why}")

    def _tokens(self, row: int, begin: int, end: int) -> tuple[int, int] | None:
        """Tokens of a row's characters (L800-810); None where axolotl falls back to comparing prefixes."""
        known = self._of_row.get(row)
        if known is None:
            if self.strategy._trims:
                _, offsets = self.strategy._tokenizer.reference_offsets(self.render.texts[row])
                known = [begin for begin, _ in offsets], [end for _, end in offsets]
            else:
                placed = self.places.of(row)
                known = placed[0].tolist(), placed[1].tolist()
            self._of_row[row] = known
        starts, ends = known
        first, stop = bisect_right(ends, begin), bisect_left(starts, end)
        if first >= len(ends):
            return None
        offset = int(self.ids.starts[row])
        return offset + first, offset + stop

    def _by_prefixes(self, search: Search) -> tuple[int, int] | None:
        """L812-874: the ids of the conversation up to this turn, with and without a placeholder."""
        rendered = self.rendered[search.row]
        kwargs = {**(rendered.template_kwargs or {}), "real_last_index": len(rendered.messages) - 1}
        turn = placeholder_turn(
            rendered.messages[search.turn], search, self.strategy._options.template_thinking_key, PLACEHOLDERS[0]
        )
        before = rendered.messages[: search.turn]
        both = [
            Conversation(Kind.MESSAGES, [*before, last], tools=rendered.tools, template_kwargs=kwargs)
            for last in (rendered.messages[search.turn], turn)
        ]
        render = self.strategy._template.render(both)
        if render.failures:
            self._stop(search.row, next(iter(render.failures.values())).message)
            return None
        encoded = self.strategy._tokenizer.encode(render.texts)
        full, other = encoded.row(0).tolist(), encoded.row(1).tolist()
        shortest = min(len(full), len(other))
        begin = next((i for i in range(shortest) if full[i] != other[i]), None)
        behind = next((i for i in range(shortest) if full[-1 - i] != other[-1 - i]), None)
        if begin is None or behind is None:
            return None
        offset = int(self.ids.starts[search.row])
        limit = int(self.ids.starts[search.row + 1])
        return min(offset + begin, limit), min(offset + len(full) - behind, limit)

    # Labels

    def _train_contents(self, trained: Flags) -> None:
        """L558-633."""
        detailed = np.zeros(len(trained), np.bool_)
        for row in self.marked:
            if row not in self.batch.failures:
                for index, turn in enumerate(self.rendered[row].messages):
                    if turn.get("training_detail") or turn.get("reasoning_training_detail"):
                        detailed[self.turns[row] + index] = True
        whole = np.flatnonzero(trained & ~detailed & (self.begin != ABSENT))
        begin, end = self.begin[whole], self.end[whole]
        if len(whole) and (begin[1:] >= end[:-1]).all():
            lengths = np.empty(2 * len(whole) + 1, np.int64)
            lengths[0:-1:2] = begin - np.append(0, end[:-1])
            lengths[1::2] = end - begin
            lengths[-1] = len(self.ids.flat) - end[-1]
            self.batch.trained = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
        elif len(whole):
            change = np.zeros(len(self.ids.flat) + 1, np.int32)
            np.add.at(change, begin, 1)
            np.add.at(change, end, -1)
            self.batch.trained = np.cumsum(change[:-1]) > 0
        for number in np.flatnonzero(trained & detailed).tolist():
            self._train_details(number)

    def _train_details(self, turn: int) -> None:
        row = int(self.row_of[turn])
        index = turn - int(self.turns[row])
        message = self.rendered[row].messages[index]
        key = self.strategy._options.template_thinking_key
        try:
            if message.get("training_detail") and self.begin[turn] != ABSENT:
                self._train_some(row, int(self.begin[turn]), message.get("content"), message["training_detail"])
            details = message.get("reasoning_training_detail")
            if details and message.get(key) is not None:
                found = self._found([Search(row, index, reasoning=True)], np.zeros(len(self.rendered), np.bool_))[0]
                if found is not None:
                    self._train_some(row, found[0], message[key], details)
        except Stopped as why:
            self._stop(row, str(why))

    def _train_some(self, row: int, first: int, text: Any, details: Any) -> None:
        """L191-296: the text alone is tokenized, and its tokens are counted from the first of the turn on."""
        if not isinstance(text, str):
            raise Stopped("training details need a content that is a text")
        if not text:
            raise Stopped("training details for an empty content")
        tokenizer = self.strategy._tokenizer
        if self.strategy._trims:
            begins = [begin for begin, _ in tokenizer.reference_offsets(text)[1]]
        else:
            begins = tokenizer.encode_with_spans([text])[1].begin.tolist()
        if not begins:
            raise Stopped("training details for a content without tokens")
        try:
            flags = _details(begins, len(text), details)
        except (KeyError, TypeError, AttributeError):
            raise Stopped("training details without begin_offset, end_offset or train") from None
        limit = int(self.ids.starts[row + 1])
        for i, flag in enumerate(flags):
            if flag and first + i < limit:
                self.batch.trained[first + i] = True

    def _train_ends(self, trained: Flags, visited: Flags) -> None:
        """L637-672."""
        strategy = self.strategy
        for tokens, when in {
            (frozenset(strategy._eot), strategy._on_eot),
            (frozenset(strategy._eos), strategy._on_eos),
        }:
            at, turns = self._ends(tokens, np.flatnonzero(visited))
            if when == "turn":
                at = at[trained[turns]]
            elif when == "last":
                rows = self.row_of[turns]
                # the last turn with an end: the one behind which another row begins
                at = at[np.append(rows[1:] != rows[:-1], True)] if len(rows) else at
            elif when == "none":
                continue
            self.batch.trained[at] = True

    def _ends(self, tokens: frozenset[int], turns: Integers) -> tuple[Integers, Integers]:
        """The first of these tokens behind each turn, and the turns that have one near enough."""
        flat, starts = self.ids.flat, self.ids.starts
        if all(self.strategy._added[token] for token in tokens):
            positions = self.added[np.isin(flat[self.added], list(tokens))]
        else:
            positions = np.flatnonzero(np.isin(flat, list(tokens)))
        if not len(positions) or not len(turns):
            return np.empty(0, np.int64), np.empty(0, np.int64)
        rows = self.row_of[turns]
        absent = self.end[turns] == ABSENT
        # a turn that was not found is searched from token -1 on: the row's last, then its first
        begin = np.where(absent, starts[rows], self.end[turns])
        k = np.searchsorted(positions, begin)
        inside = k < len(positions)
        at = positions[np.minimum(k, len(positions) - 1)]
        near = np.where(absent, at - starts[rows] + 1, at - begin) <= REACH
        ends_so = np.isin(flat[np.maximum(starts[rows + 1] - 1, 0)], list(tokens))
        fits = inside & (at < starts[rows + 1]) & near & ~(absent & ends_so)
        return at[fits], turns[fits]


def _details(begins: list[int], length: int, details: Any) -> list[bool]:
    """Which tokens lie wholly inside a detail that is trained, once details are widened to whole tokens."""
    ends = [*(begin - 1 for begin in begins[1:]), length - 1]
    count = len(begins)
    widened: list[tuple[int, int]] = []
    for detail in details:
        begin, end, train = detail["begin_offset"], detail["end_offset"], None
        first = next((i for i in range(count) if begins[i] >= begin), count)
        if first > 0 and ends[first - 1] > begin:
            first -= 1
        last = next((i for i in range(count - 1, -1, -1) if ends[i] <= end), -1)
        if last < count - 1 and begins[last + 1] < end:
            last += 1
        if first <= last:
            train = detail["train"]
            if train:
                widened.append((begins[first], ends[last]))
    return [any(b >= begin and e <= end for begin, end in widened) for b, e in zip(begins, ends, strict=True)]


def _hashable(role: Any) -> Any:
    return role if isinstance(role, str) else None


def _shift_messages(batch: LabelBatch, threads: Mapping[int, Thread]) -> None:
    """Segments name messages of the row, not turns."""
    for row, thread in threads.items():
        if thread.offset:
            mine = slice(int(batch.segments.rows[row]), int(batch.segments.rows[row + 1]))
            found = batch.segments.message[mine]
            moved = np.where(found >= thread.offset, found - thread.offset, SCAFFOLD)
            batch.segments.message[mine] = np.where(found >= 0, moved, found)
            if row in batch.lost:
                batch.lost[row] = tuple(
                    replace(lost, message=lost.message - thread.offset)
                    for lost in batch.lost[row]
                    if lost.message < 0 or lost.message >= thread.offset
                )


def _trims(tokenizer: Tokenizer) -> bool:
    """Whether ``tokenizers`` leaves the spaces of tokens out of their offsets (``trim_offsets``)."""
    file = f"{tokenizer.sha256}.trims"
    known = cache.read("tokenizers", file)
    if known not in (b"0", b"1"):
        text = "a b  c"
        _, offsets = tokenizer.reference_offsets(text)
        known = b"0" if any(" " in text[begin:end] for begin, end in offsets) else b"1"
        cache.write(known, "tokenizers", file)
    return known == b"1"
