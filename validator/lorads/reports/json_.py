"""``--output-format json``: the schema that CI jobs and scripts rely on. The same input gives the same bytes."""

from __future__ import annotations

from typing import IO, Any

from lorads.findings import Finding, Report

SCHEMA = 1


class JsonWriter:
    def write(self, report: Report, stream: IO[str]) -> None:
        import orjson

        stream.write(orjson.dumps(as_dict(report), option=orjson.OPT_INDENT_2).decode() + "\n")


def as_dict(report: Report) -> dict[str, Any]:
    summary = report.summary
    return {
        "schema": SCHEMA,
        "lorads": report.version,
        "inputs": [
            {
                "path": file.path,
                "format": file.format,
                "rows": file.rows,
                "bad_lines": file.bad_lines,
                "bytes": file.bytes,
                "sha256": file.sha256,
            }
            for file in report.inputs
        ],
        "tokenizer": {
            "name": report.tokenizer.name,
            "source": report.tokenizer.source,
            "sha256": report.tokenizer.sha256,
            "vocab_size": report.tokenizer.vocab_size,
            "chat_template_sha256": report.tokenizer.chat_template_sha256,
        },
        "trainer": {
            "name": report.trainer.name,
            "version": report.trainer.version,
            "max_length": report.trainer.max_length,
            "train_on": report.trainer.train_on,
        },
        "summary": {
            "rows": summary.rows,
            "rows_kept": summary.rows_kept,
            "tokens": summary.tokens,
            "label_tokens": summary.label_tokens,
            "prompt_label_tokens": summary.prompt_label_tokens,
            "rows_dropped": summary.rows_dropped,
            "rows_cut": summary.rows_cut,
            "by_severity": summary.by_severity,
            "by_rule": summary.by_rule,
        },
        "notes": report.notes,
        "findings": [finding_dict(finding) for finding in report.findings],
    }


def finding_dict(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "name": finding.name,
        "severity": finding.severity.value,
        "path": finding.path,
        "row": finding.row,
        "line": finding.line,
        "message_index": finding.message_index,
        "field": finding.field,
        "chars": None if finding.chars is None else list(finding.chars),
        "tokens": None if finding.tokens is None else list(finding.tokens),
        "message": finding.message,
        "hint": finding.hint,
        "fix": finding.fix,
        "fingerprint": finding.fingerprint,
    }


WRITER = JsonWriter()
