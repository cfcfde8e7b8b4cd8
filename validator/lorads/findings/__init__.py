"""Findings and the rules that make them."""

from __future__ import annotations

from lorads.findings.finding import Finding, RowView, Token
from lorads.findings.report import Input, Report, Summary, TokenizerInfo, TrainerInfo
from lorads.findings.rule import DatasetRule, FixKind, Row, RowRule, Rule, Severity, escape, show

__all__ = [
    "DatasetRule",
    "Finding",
    "FixKind",
    "Input",
    "Report",
    "Row",
    "RowRule",
    "RowView",
    "Rule",
    "Severity",
    "Summary",
    "Token",
    "TokenizerInfo",
    "TrainerInfo",
    "escape",
    "show",
]
