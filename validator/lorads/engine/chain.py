"""The way of a batch through the house: records → conversations → ids and labels → facts → findings.

A ``Chain`` is built once per process from ``Settings`` and is then a pure function of a block: no state is kept between
batches, so the order of batches and the number of processes change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from lorads.engine.excerpts import excerpt
from lorads.engine.settings import UNSET, Settings
from lorads.errors import UsageError
from lorads.facts import Facts
from lorads.facts.batch import Batch, FactContext
from lorads.facts.compute import facts_of
from lorads.facts.roles import role_support
from lorads.facts.text import Scanner
from lorads.findings import DatasetRule, Finding, RowRule, Rule, Severity
from lorads.findings.catalogue import Catalogue, Selection, load_catalogue, select
from lorads.formats import Columns, Conversation, Misfit, normalise, recognise
from lorads.sources import Block, read_block
from lorads.templates import PlanMismatch, Template
from lorads.tokenizers import Tokenizer, load
from lorads.trainers import TrainOptions, get, own_options

if TYPE_CHECKING:
    import polars as pl

    from lorads.sources import Records, Source

__all__ = ["BlockResult", "Chain", "PlanMismatch"]

SAMPLE_ROWS = 200
EXCERPTS = 3
"""Findings of a rule in a block that come with their tokens: as many as a report shows."""


@dataclass(slots=True)
class BlockResult:
    """What one block adds to the report. Rows and lines count from the block's start."""

    index: int
    rows: int = 0
    lines: int = 0
    bad_lines: int = 0
    rows_kept: int = 0
    tokens: int = 0
    label_tokens: int = 0
    prompt_tokens: int = 0
    rows_cut: int = 0
    dropped: list[str] = field(default_factory=list)
    """Why rows are dropped, one reason a row."""
    counts: dict[tuple[str, Severity], int] = field(default_factory=dict)
    """Findings by rule and severity: exact."""
    applicable: dict[str, int] = field(default_factory=dict)
    """Rows in which a rule that can rise to every-row severity could have failed."""
    findings: list[Finding] = field(default_factory=list)
    """At most ``max_findings`` of each rule."""
    keys: dict[str, npt.NDArray[np.uint64]] = field(default_factory=dict)
    """For each dataset rule one key a row; rows that take no part are marked in ``absent``."""
    absent: dict[str, npt.NDArray[np.bool_]] = field(default_factory=dict)
    row_lines: npt.NDArray[np.int64] | None = None
    """Line of each row, from the block's start (1-based)."""


def format_of(source: Source, settings: Settings) -> tuple[str, str]:
    """The format of a file, and what it was told by. Raises ``UsageError`` when its rows have no known one."""
    if settings.format != "auto":
        return settings.format, "chosen by --format"
    sample = source.sample(SAMPLE_ROWS)
    if not sample:
        return "messages", "taken for it: no row could be read"
    found = recognise(sample, source.path, Columns(settings.columns))
    return found.format, found.evidence


def first_row(source: Source, settings: Settings) -> Conversation | None:
    """The first row of a file; None where it can't be read or understood. Raises ``UsageError`` as ``format_of``."""
    name, _ = format_of(source, settings)
    found = normalise(source.sample(1), name, Columns(settings.columns))
    return found[0] if found and isinstance(found[0], Conversation) else None


class Chain:
    """Settings, made into the things that do the work."""

    def __init__(
        self, settings: Settings, *, total_bytes: int | None = None, first: Conversation | None = None
    ) -> None:
        """``first`` is the first row of the data, where it is known (see ``first_row``)."""
        self.settings = settings
        self.total_bytes = total_bytes
        self.trainer = get(settings.trainer)
        self.tokenizer: Tokenizer = load(
            settings.tokenizer,
            chat_template=settings.chat_template,
            revision=settings.revision,
            load_as=settings.load_as,
        )
        if settings.encoder == "tokenizers":
            self.tokenizer.use_engine("tokenizers")
        else:
            self.tokenizer.choose_engine(total_bytes)
        self.template = self._template()
        limit = settings.max_length
        self.options = TrainOptions(
            max_length=self.trainer.default_max_length if limit == UNSET else limit,
            train_on=settings.train_on,
            packing=settings.packing,
            response_marker=settings.response_marker,
            instruction_marker=settings.instruction_marker,
            first=first,
            own=own_options(self.trainer, settings.trainer_options),
        )
        self.labeller = self.trainer.prepare(self.tokenizer, self.template, self.options)
        self.columns = Columns(settings.columns)

    def _template(self) -> Template | None:
        source = self.tokenizer.chat_template
        if source is None:
            return None
        special = self.tokenizer.special
        names = {
            name: token
            for name, token in (
                ("bos_token", special.bos),
                ("eos_token", special.eos),
                ("pad_token", special.pad),
                ("unk_token", special.unk),
            )
            if token is not None
        }
        return Template(source, special=names, plans=self.settings.plans)

    @cached_property
    def catalogue(self) -> Catalogue:
        return load_catalogue()

    @cached_property
    def selection(self) -> Selection:
        settings = self.settings
        return select(self.catalogue, settings.select, settings.ignore, settings.severities)

    @cached_property
    def context(self) -> FactContext:
        return FactContext(
            self.labeller.tokenizer,
            Scanner(self.labeller.tokenizer.special, self.tokenizer.chat_template),
            role_support(self.template),
            self.options.max_length,
        )

    @cached_property
    def judge(self) -> Judge:
        return Judge(self)

    def label(self, records: Records, format_name: str) -> Batch:
        """Conversations, ids and labels of a batch of records."""
        results = normalise(records.values, format_name, self.columns)
        misfits = {i: result for i, result in enumerate(results) if isinstance(result, Misfit)}
        understood = [result for result in results if isinstance(result, Conversation)]
        positions = [i for i in range(len(results)) if i not in misfits] if misfits else list(range(len(results)))
        labels = self.labeller.label(understood)
        if any(failure.kind == "no-template" for failure in labels.failures.values()):
            raise UsageError(
                f"the tokenizer {self.tokenizer.name} has no chat template, and {format_name} rows need one",
                "give one with --chat-template FILE",
            )
        return Batch(records, understood, positions, misfits, labels)

    def facts(self, block: Block, format_name: str) -> tuple[Batch, pl.DataFrame]:
        """The facts of one block: the batch that they are about, and the Arrow columns of ``lorads.facts.FACTS``."""
        batch = self.label(read_block(block), format_name)
        return batch, facts_of(batch, self.context)

    def run(self, block: Block, format_name: str, path: str) -> BlockResult:
        batch, facts = self.facts(block, format_name)
        result = BlockResult(block.index)
        result.rows = len(batch.records.values)
        result.lines = batch.records.line_count
        result.bad_lines = sum(1 for problem in batch.records.problems if problem.index is None)
        result.tokens = int(facts["tokens_fed"].sum() or 0)
        result.label_tokens = int(facts["label_tokens_fed"].sum() or 0)
        result.prompt_tokens = int(facts["prompt_tokens_fed"].sum() or 0)
        result.dropped = list(batch.labels.dropped.values())
        cut = facts["cut"]
        if cut.sum():
            result.rows_cut = int((cut & facts["dropped"].is_null()).sum())
        result.rows_kept = len(batch.conversations) - len(batch.labels.dropped) - len(batch.labels.failures)
        if facts.height:
            self.judge(batch, facts, path, result)
        return result


class Judge:
    """The rules over the facts of a batch, as one query."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        facts = Facts()
        selection = chain.selection
        self.told: dict[str, Rule] = {rule.id: rule for rule in selection.told}
        explaining = {
            id_: rule for id_, rule in chain.catalogue.rules.items() if id_ in selection.explaining or id_ in self.told
        }
        self.evaluated = explaining
        self.expressions = [rule.when(facts).fill_null(False).alias(id_) for id_, rule in explaining.items()]
        self.precedence = {
            id_: [other for other in others if other in self.told]
            for id_, others in chain.catalogue.precedence.items()
            if id_ in explaining
        }
        self.applies: dict[str, pl.Expr | None] = {
            rule.id: rule.applies(facts)
            for rule in self.told.values()
            if isinstance(rule, RowRule) and rule.every_row is not None
        }
        self.expressions += [
            expression.fill_null(False).alias(f"applies:{id_}")
            for id_, expression in self.applies.items()
            if expression is not None
        ]
        self.keys = {rule.id: rule.key(facts) for rule in self.told.values() if isinstance(rule, DatasetRule)}
        self.expressions += [expression.fill_null(0).alias(f"key:{id_}") for id_, expression in self.keys.items()]

    def __call__(self, batch: Batch, facts: pl.DataFrame, path: str, result: BlockResult) -> None:
        # one after the other: the frames are small, and a worker has one thread
        answers = {series.name: series.to_numpy() for series in facts.select_seq(self.expressions).get_columns()}
        fired = {id_: answers[id_] for id_ in self.evaluated}
        hidden = {id_: np.zeros(facts.height, np.bool_) for id_ in self.told}
        for id_, others in self.precedence.items():
            if not fired[id_].any():
                continue
            for other in others:
                both = np.flatnonzero(fired[id_] & fired[other])
                if len(both):
                    hidden[other][both] |= self._explains(id_, other, both, facts)
        every = not facts["row"].null_count()
        is_row = np.ones(facts.height, np.bool_) if every else facts["row"].is_not_null().to_numpy()
        if self.keys:
            at = facts["line"]
            lines = (at if not at.null_count() else at.fill_null(-1)).to_numpy()[is_row]
            result.row_lines = lines if len(lines) and lines[0] >= 0 else None
        for id_ in self.applies:
            possible = answers.get(f"applies:{id_}", is_row)
            result.applicable[id_] = int((possible & ~hidden[id_]).sum())
        for id_, rule in self.told.items():
            failing = fired[id_] & ~hidden[id_]
            if isinstance(rule, DatasetRule):
                result.keys[id_] = answers[f"key:{id_}"][is_row]
                result.absent[id_] = ~failing[is_row]
                continue
            where = np.flatnonzero(failing)
            if len(where):
                self._tell(rule, where, batch, facts, path, result)

    def _explains(self, id_: str, other: str, rows: npt.NDArray[np.intp], facts: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """For rows where both rules fired, whether ``id_`` explains ``other`` away: a finding never hides a graver
        one."""
        first, second = self.evaluated[id_], self.evaluated[other]
        if first.severity is Severity.ERROR and type(first).severity_of is Rule.severity_of:
            return np.ones(len(rows), np.bool_)
        found = facts[rows].to_dicts()
        return np.array([first.severity_of(row).rank >= second.severity_of(row).rank for row in found], np.bool_)

    def _tell(
        self, rule: Rule, where: npt.NDArray[np.intp], batch: Batch, facts: pl.DataFrame, path: str, result: BlockResult
    ) -> None:
        limit = self.chain.settings.max_findings
        chosen = self.chain.selection.severities.get(rule.id)
        # a rule whose severity depends on the row must look at every one to count right; others at the ones shown
        varies = chosen is None and type(rule).severity_of is not Rule.severity_of
        rows = facts[where if varies else where[:limit]].to_dicts()
        severities = [chosen or (rule.severity_of(row) if varies else rule.severity) for row in rows]
        for severity in set(severities):
            count = severities.count(severity) if varies else len(where)
            result.counts[rule.id, severity] = result.counts.get((rule.id, severity), 0) + count
        for i, (row, severity) in enumerate(zip(rows[:limit], severities[:limit], strict=True)):
            finding = self._finding(rule, row, severity, path)
            if i < EXCERPTS:
                finding.excerpt = excerpt(batch, self.chain.labeller.tokenizer, row, finding.tokens)
            result.findings.append(finding)

    def _finding(self, rule: Rule, row: dict[str, Any], severity: Severity, path: str) -> Finding:
        place = row.get(rule.place) if rule.place else None
        place = place or {}
        begin, end = place.get("begin"), place.get("end")
        first, last = place.get("token_begin"), place.get("token_end")
        digest = "" if row["sequence_hash"] is None else f"{row['sequence_hash']:016x}"
        return Finding(
            rule=rule.id,
            name=rule.name,
            severity=severity,
            path=path,
            row=row["row"],
            line=row["line"],
            message=rule.message(row),
            hint=rule.hint(row),
            fix=rule.fix_of(row),
            message_index=place.get("message_index"),
            field=place.get("field"),
            chars=None if begin is None or end is None else (begin, end),
            tokens=None if first is None or last is None else (first, last),
            digest=digest,
        )
