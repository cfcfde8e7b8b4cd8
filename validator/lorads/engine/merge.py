"""Results of blocks, in file order, as one report: numbers made absolute, counts added, duplicates found."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lorads.engine.settings import Settings
from lorads.findings import DatasetRule, Finding, Input, RowRule, Severity, Summary

if TYPE_CHECKING:
    from lorads.engine.chain import BlockResult
    from lorads.findings.catalogue import Selection

_NUMBERS = re.compile(r"\d[\d,.]*")


class Merge:
    """Takes the files one after the other (``begin``, then ``add`` for each block in order), at the end ``finish``."""

    def __init__(self, settings: Settings, selection: Selection) -> None:
        self.settings = settings
        self.selection = selection
        self.rules = {rule.id: rule for rule in selection.told}
        self.summary = Summary()
        self.findings: list[tuple[int, Finding]] = []
        self.shown: dict[str, int] = defaultdict(int)
        self.counts: dict[tuple[str, Severity], int] = defaultdict(int)
        self.applicable: dict[str, int] = defaultdict(int)
        self.files: list[Input] = []
        self.keys: dict[str, list[Keys]] = defaultdict(list)
        self.row = self.line = 0
        self.dropped: dict[str, tuple[int, str]] = {}
        """Reasons for which rows are dropped, less the numbers in them: how many rows, and the first one's words."""

    def begin(self, file: Input) -> None:
        self.files.append(file)
        self.row = self.line = 0

    def add(self, result: BlockResult) -> None:
        file = self.files[-1]
        file.rows += result.rows
        file.bad_lines += result.bad_lines
        self.summary.rows += result.rows
        self.summary.rows_kept += result.rows_kept
        self.summary.tokens += result.tokens
        self.summary.label_tokens += result.label_tokens
        self.summary.prompt_label_tokens += result.prompt_tokens
        self.summary.rows_cut += result.rows_cut
        self.summary.rows_dropped += len(result.dropped)
        for reason in result.dropped:
            kind = _NUMBERS.sub("#", reason)
            count, example = self.dropped.get(kind, (0, reason))
            self.dropped[kind] = count + 1, example
        for key, count in result.counts.items():
            self.counts[key] += count
        for id_, count in result.applicable.items():
            self.applicable[id_] += count
        for finding in result.findings:
            if self.shown[finding.rule] >= self.settings.max_findings:
                continue
            self.shown[finding.rule] += 1
            row = None if finding.row is None else finding.row + self.row
            line = None if finding.line is None else finding.line + self.line
            self.findings.append((len(self.files) - 1, replace(finding, row=row, line=line)))
        for id_, keys in result.keys.items():
            self.keys[id_].append(
                Keys(
                    len(self.files) - 1,
                    self.row,
                    keys,
                    result.absent[id_],
                    None if result.row_lines is None else result.row_lines.astype(np.int64) + self.line,
                )
            )
        self.row += result.rows
        self.line += result.lines

    def finish(self) -> tuple[Summary, list[Finding]]:
        for id_ in self.keys:
            self._repeated(id_)
        self._raise_every_row()
        for (id_, severity), count in self.counts.items():
            self.summary.by_rule[id_] = self.summary.by_rule.get(id_, 0) + count
            self.summary.by_severity[severity.value] += count
        self.summary.by_rule = dict(sorted(self.summary.by_rule.items()))
        self.findings.sort(key=_file_order)
        return self.summary, [finding for _, finding in self.findings]

    def _raise_every_row(self) -> None:
        for id_, rule in self.rules.items():
            if not isinstance(rule, RowRule) or rule.every_row is None or id_ in self.selection.severities:
                continue
            count = sum(n for (other, _), n in self.counts.items() if other == id_)
            if count == 0 or count < self.applicable[id_]:
                continue
            for key in [key for key in self.counts if key[0] == id_]:
                del self.counts[key]
            self.counts[id_, rule.every_row] = count
            for _, finding in self.findings:
                if finding.rule == id_:
                    finding.severity = rule.every_row

    def _repeated(self, id_: str) -> None:
        """Rows whose key an earlier row has."""
        rule = self.rules[id_]
        assert isinstance(rule, DatasetRule)
        chunks = self.keys[id_]
        keys = np.concatenate([chunk.present() for chunk in chunks])
        order = np.argsort(keys, kind="stable")
        ranked = keys[order]
        same = np.flatnonzero(ranked[1:] == ranked[:-1]) + 1
        if not len(same):
            return
        severity = self.selection.severities.get(id_, rule.severity)
        self.counts[id_, severity] += len(same)
        # the first of each run of equal keys, in file order since the sort is stable
        starts = np.flatnonzero(np.concatenate([[True], ranked[1:] != ranked[:-1]]))
        first_of = order[starts[np.searchsorted(starts, same, side="right") - 1]]
        later = order[same]
        in_order = np.argsort(later, kind="stable")[: self.settings.max_findings]
        where = Rows(chunks)
        for place, first in zip(later[in_order].tolist(), first_of[in_order].tolist(), strict=True):
            file, row, line, key = where[place]
            first_file, first_row, first_line, _ = where[first]
            facts = {
                "row": row,
                "line": line,
                "first_row": first_row,
                "first_line": first_line,
                "first_path": None if first_file == file else self.files[first_file].path,
            }
            self.findings.append(
                (
                    file,
                    Finding(
                        id_,
                        rule.name,
                        severity,
                        self.files[file].path,
                        row,
                        line,
                        rule.message(facts),
                        rule.hint(facts),
                        rule.fix,
                        digest=f"{key:016x}",
                    ),
                )
            )


class Keys:
    """The keys of one block, and where its rows stand."""

    __slots__ = ("absent", "file", "keys", "lines", "row")

    absent: npt.NDArray[np.bool_] | None
    """Rows that take no part; None when all do."""

    def __init__(
        self,
        file: int,
        row: int,
        keys: npt.NDArray[np.uint64],
        absent: npt.NDArray[np.bool_],
        lines: npt.NDArray[np.int64] | None,
    ) -> None:
        self.file, self.row, self.keys = file, row, keys
        self.absent = absent if absent.any() else None
        # lines that follow the rows one by one need no array of their own
        self.lines: npt.NDArray[np.int64] | int | None = lines
        if lines is not None and len(lines) and lines[-1] - lines[0] == len(lines) - 1:
            self.lines = int(lines[0])

    def present(self) -> npt.NDArray[np.uint64]:
        """The keys of the rows that take part."""
        return self.keys if self.absent is None else self.keys[~self.absent]


class Rows:
    """Which file, row and line the n-th key stands for."""

    def __init__(self, chunks: list[Keys]) -> None:
        self.chunks = chunks
        counts = [len(chunk.present()) for chunk in chunks]
        self.first = np.cumsum([0, *counts])

    def __getitem__(self, place: int) -> tuple[int, int, int | None, int]:
        which = int(np.searchsorted(self.first, place, side="right")) - 1
        chunk = self.chunks[which]
        inside = place - int(self.first[which])
        if chunk.absent is not None:
            inside = int(np.flatnonzero(~chunk.absent)[inside])
        if chunk.lines is None:
            line = None
        elif isinstance(chunk.lines, int):
            line = chunk.lines + inside
        else:
            line = int(chunk.lines[inside])
        return chunk.file, chunk.row + inside, line, int(chunk.keys[inside])


def _file_order(item: tuple[int, Finding]) -> tuple[int, int, int, str]:
    """Findings about the whole file first, then by line (a record that is no row has only that), row and rule."""
    file, finding = item
    line = finding.line if finding.line is not None else -1
    row = finding.row if finding.row is not None else -1
    return file, max(line, 0) if line >= 0 else row + 1, row, finding.rule
