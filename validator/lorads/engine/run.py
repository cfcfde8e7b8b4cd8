"""Blocks through the chain, in this process or in several, and the results put together in the order of the files."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from lorads import __version__
from lorads.engine.chain import BlockResult, Chain, first_row, format_of
from lorads.engine.merge import Merge
from lorads.engine.settings import Settings
from lorads.errors import LoradsError, UsageError
from lorads.findings import Input, Report, TokenizerInfo, TrainerInfo
from lorads.formats import Conversation
from lorads.sources import Block, Limits, Source, open_sources
from lorads.templates import PlanMismatch
from lorads.tokenizers import EngineMismatch, single_threaded
from lorads.trainers import Place

IN_FLIGHT = 2
"""Blocks a worker may have waiting, so that it never idles and memory stays bounded."""

TOLD_REASONS = 3

WORTH_PROCESSES = 8
"""Blocks from which on several processes are quicker than one."""

Progress = Callable[[int], None]
"""Called with the bytes read so far."""


@contextmanager
def _few_collections() -> Iterator[None]:
    """A batch makes hundreds of thousands of objects and hardly a cycle: looking for cycles as often as Python does
    takes a tenth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(500_000, 50, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def check(paths: Sequence[str], settings: Settings, progress: Progress | None = None) -> Report:
    """Judge files. The same input and settings give the same report, whatever the number of processes.

    Raises ``UsageError`` for anything that keeps lorads from doing its work: an unreadable file, an unknown tokenizer,
    rows in no known format, a file that changed while it was read.
    """
    notes: list[str] = []
    while True:
        sources = open_sources(paths, limits=Limits(block_bytes=settings.block_bytes))
        try:
            with _few_collections():
                report = _check(sources, settings, progress)
        except (EngineMismatch, PlanMismatch) as mismatch:
            if any(source.path == "<stdin>" for source in sources):
                raise UsageError(
                    f"{mismatch}; standard input cannot be read a second time",
                    "save the data to a file and check that",
                ) from None
            notes.append(f"{mismatch}: everything was done again the slow and certain way")
            settings = (
                replace(settings, encoder="tokenizers")
                if isinstance(mismatch, EngineMismatch)
                else replace(settings, plans=False)
            )
            continue
        report.notes[:0] = notes
        return report


def _check(sources: Sequence[Source], settings: Settings, progress: Progress | None) -> Report:
    sizes = [source.size for source in sources]
    total = None if any(size is None for size in sizes) else sum(size or 0 for size in sizes)
    chain = Chain(settings, total_bytes=total, first=first_row(sources[0], settings))
    inputs: list[Input] = []
    merge = Merge(settings, chain.selection)
    parallel = settings.processes > 1 and (total is None or total > WORTH_PROCESSES * settings.block_bytes)
    with Workers(chain, settings.processes if parallel else 1) as workers:
        done = 0
        for source in sources:
            file = Input(source.path, *format_of(source, settings))
            inputs.append(file)
            merge.begin(file)
            for block, result in workers.results(source.blocks(), file.format, source.path):
                merge.add(result)
                done += block.end - block.start
                if progress is not None:
                    progress(done)
            file.bytes, file.sha256 = source.bytes_read, source.sha256
            if not file.rows and not file.bad_lines:
                raise UsageError(f"{file.path}: there is no row in it", "was it written or downloaded completely?")
    summary, findings = merge.finish()
    tokenizer = chain.tokenizer
    return Report(
        __version__,
        inputs,
        TokenizerInfo(
            tokenizer.name,
            tokenizer.source,
            tokenizer.sha256,
            tokenizer.vocab_size,
            None if chain.template is None else chain.template.sha256,
            tokenizer.engine_name,
        ),
        TrainerInfo(chain.trainer.name, chain.trainer.version, chain.options.max_length, chain.options.train_on),
        summary,
        findings,
        [*_fates(chain, merge), *_notes(chain, inputs)],
    )


def _fates(chain: Chain, merge: Merge) -> list[str]:
    """What the trainer does with rows and prompts that not everybody expects of it."""
    summary, name = merge.summary, f"{chain.trainer.name} {chain.trainer.version}"
    told = []
    for count, example in sorted(merge.dropped.values(), key=lambda item: -item[0])[:TOLD_REASONS]:
        rows = f"{count:,} row" if count == 1 else f"{count:,} rows"
        told.append(f"{name} drops {rows}: {example}")
    if summary.rows_cut:
        told.append(f"{name} cuts {summary.rows_cut:,} of the rows that it keeps to its maximum length")
    if summary.prompt_label_tokens and summary.label_tokens:
        share = 100 * summary.prompt_label_tokens / summary.label_tokens
        why = chain.labeller.reason(Place.USER, True)
        told.append(f"{share:.0f} % of the trained tokens are questions and other input, not answers: {why}")
    return told


def _notes(chain: Chain, inputs: Sequence[Input]) -> list[str]:
    formats = dict.fromkeys(file.format for file in inputs)
    told = [chain.trainer.format_notes[name] for name in formats if name in chain.trainer.format_notes]
    templates = [] if chain.template is None else chain.template.notes
    return [*told, *chain.labeller.notes, *chain.tokenizer.notes, *chain.tokenizer.special.disagreements, *templates]


_chain: Chain | None = None


def _start(settings: Settings, total_bytes: int | None, first: Conversation | None) -> None:
    """In a worker: one thread each, since there is a worker a core; a spawned one builds what a forked one inherits."""
    global _chain
    single_threaded()
    os.environ.setdefault("POLARS_MAX_THREADS", "1")  # read at the first query, which no parent of a fork has made
    if _chain is None:
        _chain = Chain(settings, total_bytes=total_bytes, first=first)


def _work(block: Block, format_name: str, path: str) -> BlockResult:
    assert _chain is not None
    return _chain.run(block, format_name, path)


def _can_fork() -> bool:
    """Whether a forked process would work: not when polars has run a query here, since a copy would wait
    for ever for the threads of its pool (``polars-0`` …). Importing polars starts none of them."""
    if sys.platform != "linux":
        return False
    names = ((task / "comm").read_text(errors="replace") for task in Path("/proc/self/task").iterdir())
    return not any(re.match(r"polars-\d", name) for name in names)


class Workers:
    """One or more processes that run blocks through the same chain; results come back in order.

    Where that is possible workers are forked after the chain is built: the tokenizer is loaded once and its memory
    shared.
    """

    def __init__(self, chain: Chain, processes: int) -> None:
        self.chain = chain
        self.processes = processes
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Workers:
        global _chain
        if self.processes > 1:
            _chain = self.chain
            _ = self.chain.judge, self.chain.context
            gc.freeze()  # so that no collection in a worker writes to, and thereby copies, what it shares with us
            with warnings.catch_warnings():
                # Python warns of any second thread; the ones that would matter are looked for in _can_fork
                warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
                self.pool = ProcessPoolExecutor(
                    self.processes,
                    multiprocessing.get_context("fork" if _can_fork() else "spawn"),
                    _start,
                    (self.chain.settings, self.chain.total_bytes, self.chain.options.first),
                )
                self.pool.submit(int).result()
        return self

    def __exit__(self, *_: object) -> None:
        global _chain
        _chain = None
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=True)
            gc.unfreeze()

    def results(self, blocks: Iterator[Block], format_name: str, path: str) -> Iterator[tuple[Block, BlockResult]]:
        if self.pool is None:
            for block in blocks:
                yield block, self.chain.run(block, format_name, path)
            return
        waiting: deque[tuple[Block, Future[BlockResult]]] = deque()
        try:
            for block in blocks:
                waiting.append((replace(block, payload=None), self.pool.submit(_work, block, format_name, path)))
                while len(waiting) > IN_FLIGHT * self.processes:
                    yield self._next(waiting)
            while waiting:
                yield self._next(waiting)
        except BrokenProcessPool:
            raise LoradsError(
                f"{path}: a worker process died (out of memory?). Nothing was judged in part: run again with fewer "
                "--workers, or --workers 1"
            ) from None

    @staticmethod
    def _next(waiting: deque[tuple[Block, Future[BlockResult]]]) -> tuple[Block, BlockResult]:
        block, future = waiting.popleft()
        return block, future.result()
